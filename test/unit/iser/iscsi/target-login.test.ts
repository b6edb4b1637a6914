/** The target's login against initiators that break the rules. */

import { describe, expect, it } from 'vitest';
import { TargetLogin, type TargetLoginRequest, type TargetLoginStep } from '../../../../src/iser/iscsi/login.ts';
import { BHS_LENGTH, decodePdu, type Pdu, pdu } from '../../../../src/iser/iscsi/pdu.ts';
import { decodeText, encodeText, type TextPair } from '../../../../src/iser/iscsi/text.ts';
import { hexVectors } from '../../../support/hex-vectors.ts';

const secret = (text: string) => new TextEncoder().encode(text);
const credentials = { user: 'alice', secret: secret('the initiator is it') };
const ISID = 0x80a1b2c3d4e5;

interface Said extends Partial<Omit<Pdu<'login-request'>, 'opcode'>> {
  readonly pairs?: readonly TextPair[];
}

function request({ pairs, ...fields }: Said): Pdu<'login-request'> {
  return pdu({
    opcode: 'login-request',
    isid: ISID,
    itt: 9,
    cid: 1,
    cmdSn: 5,
    ...(pairs === undefined ? {} : { data: encodeText(pairs) }),
    ...fields,
  });
}

const identity: readonly TextPair[] = [
  ['InitiatorName', 'iqn.2026-01.org.example:i'],
  ['TargetName', 'iqn.2026-01.org.example:t'],
];
const intoOperational = { transit: true, csg: 0, nsg: 1 } as const;
const intoFullFeature = { transit: true, csg: 1, nsg: 3 } as const;

function target(options: { chap?: boolean; asked?: TargetLoginRequest[] } = {}): TargetLogin {
  return new TargetLogin({
    accept: (asked) => {
      options.asked?.push(asked);
      return { ok: true, tsih: 77, tpgt: 1, ...(options.chap === true ? { chap: { credentials } } : {}) };
    },
    offers: () => ({ HeaderDigest: 'CRC32C,None', MaxRecvDataSegmentLength: '262144' }),
    random: (length) => new Uint8Array(length).fill(0x33),
  });
}

/** A target in the operational stage. */
function inOperational(): TargetLogin {
  const machine = target();
  const step = machine.handleRequest(request({ ...intoOperational, pairs: [...identity, ['AuthMethod', 'None']] }));
  expect(step.pdu).toMatchObject({ transit: true, nsg: 1, statusClass: 0 });
  return machine;
}

function textOf(step: TargetLoginStep): [string, string][] {
  return decodeText(step.pdu.data);
}

describe('a login by libiscsi', () => {
  it('goes through in one step', () => {
    const wire = hexVectors('pdu-peers.hex')('login-request');
    const asked: TargetLoginRequest[] = [];
    const step = target({ asked }).handleRequest(
      decodePdu(wire.subarray(0, BHS_LENGTH), wire.subarray(BHS_LENGTH)) as Pdu<'login-request'>,
    );
    expect(asked).toEqual([
      {
        initiatorName: 'iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls',
        sessionType: 'discovery',
        isid: 0x809836350000,
        tsih: 0,
        cid: 0,
      },
    ]);
    expect(step.complete).toMatchObject({ sessionType: 'discovery', cmdSn: 0x50b934d6, tsih: 77 });
    expect(step.pdu).toMatchObject({ transit: true, csg: 1, nsg: 3, tsih: 77, itt: 0x4cefe195, statusClass: 0 });
  });
});

describe('the first request', () => {
  it.each<[string, Said, number, number]>([
    ['no InitiatorName', { ...intoOperational, pairs: identity.slice(1) }, 2, 0x07],
    ['no TargetName', { ...intoOperational, pairs: identity.slice(0, 1) }, 2, 0x07],
    ['no text', { ...intoOperational }, 2, 0x07],
    ['a name that is none', { ...intoOperational, pairs: [['InitiatorName', '../..'], identity[1] as TextPair] }, 2, 0x00],
    ['an unknown SessionType', { ...intoOperational, pairs: [...identity, ['SessionType', 'Strange']] }, 2, 0x09],
    ['a version to come', { ...intoOperational, versionMin: 1, versionMax: 1, pairs: identity }, 2, 0x05],
    ['full-feature phase', { csg: 3, pairs: identity }, 2, 0x00],
    ['stage 2', { csg: 2, pairs: identity }, 2, 0x00],
    ['a move to stage 2', { transit: true, csg: 0, nsg: 2, pairs: identity }, 2, 0x00],
    ['a move to where it is', { transit: true, csg: 1, nsg: 1, pairs: identity }, 2, 0x00],
    ['a move back', { transit: true, csg: 1, nsg: 0, pairs: identity }, 2, 0x00],
    ['T and C at once', { ...intoOperational, continue: true, pairs: identity }, 2, 0x00],
    ['a key twice', { ...intoOperational, pairs: [...identity, ...identity] }, 2, 0x00],
    [
      'an operational key in the security stage',
      { ...intoOperational, pairs: [...identity, ['MaxBurstLength', '65536']] },
      2,
      0x00,
    ],
    ['CHAP keys before CHAP', { csg: 0, pairs: [...identity, ['CHAP_A', '5']] }, 2, 0x00],
    ['a key that only targets send', { ...intoOperational, pairs: [...identity, ['TargetAlias', 'x']] }, 2, 0x00],
    ['text that is none', { ...intoOperational, data: secret('InitiatorName') }, 2, 0x00],
    ['only an unknown AuthMethod', { ...intoOperational, pairs: [...identity, ['AuthMethod', 'KRB5']] }, 2, 0x01],
  ])('with %s: refused', (_, said, statusClass, statusDetail) => {
    const machine = target();
    const step = machine.handleRequest(request(said));
    expect(step).toMatchObject({ failed: true, pdu: { statusClass, statusDetail, transit: false, itt: 9, isid: ISID } });
    expect(step.complete).toBeUndefined();
    expect(step.reason).toEqual(expect.any(String));
    // Nothing goes on after that.
    expect(machine.handleRequest(request({ ...intoOperational, pairs: identity }))).toMatchObject({
      failed: true,
      pdu: { statusClass: 2, statusDetail: 0x0b },
    });
  });

  it('is asked about once, with all that it says, even if it comes in pieces', () => {
    const asked: TargetLoginRequest[] = [];
    const machine = target({ asked });
    const data = encodeText([...identity, ['AuthMethod', 'None']]);
    expect(machine.handleRequest(request({ csg: 0, continue: true, data: data.subarray(0, 30) })).pdu).toMatchObject({
      transit: false,
      continue: false,
      data: new Uint8Array(0),
    });
    expect(asked).toEqual([]);
    const step = machine.handleRequest(request({ ...intoOperational, data: data.subarray(30) }));
    expect(asked).toHaveLength(1);
    expect(textOf(step)).toEqual([
      ['TargetPortalGroupTag', '1'],
      ['AuthMethod', 'None'],
    ]);
  });

  it('that only identifies is answered, and may be followed by AuthMethod', () => {
    const machine = target({ chap: true });
    const first = machine.handleRequest(request({ csg: 0, pairs: identity }));
    expect(first.pdu).toMatchObject({ transit: false, statusClass: 0 });
    expect(textOf(machine.handleRequest(request({ ...intoOperational, pairs: [['AuthMethod', 'None,CHAP']] })))).toEqual([
      ['AuthMethod', 'CHAP'],
    ]);
  });

  it('may move on without a word on authentication only where none is needed', () => {
    expect(target().handleRequest(request({ ...intoOperational, pairs: identity })).pdu).toMatchObject({
      transit: true,
      statusClass: 0,
    });
    expect(target({ chap: true }).handleRequest(request({ ...intoOperational, pairs: identity })).pdu).toMatchObject({
      statusClass: 2,
      statusDetail: 1,
    });
  });

  it('is refused as its owner says', () => {
    const refusing = new TargetLogin({
      accept: () => ({ ok: false, statusClass: 3, statusDetail: 2 }),
      offers: () => ({}),
      random: (length) => new Uint8Array(length),
    });
    expect(refusing.handleRequest(request({ ...intoOperational, pairs: identity }))).toMatchObject({
      failed: true,
      pdu: { statusClass: 3, statusDetail: 2 },
    });
  });
});

describe('during CHAP', () => {
  function challenged(): TargetLogin {
    const machine = target({ chap: true });
    machine.handleRequest(request({ ...intoOperational, pairs: [...identity, ['AuthMethod', 'CHAP']] }));
    const step = machine.handleRequest(request({ csg: 0, pairs: [['CHAP_A', '5']] }));
    expect(new Map(textOf(step)).get('CHAP_A')).toBe('5');
    return machine;
  }

  it('a wish to move on is not granted', () => {
    const machine = challenged();
    const step = machine.handleRequest(request({ ...intoOperational }));
    expect(step.pdu).toMatchObject({ transit: false, statusClass: 0 });
  });

  it('the next stage cannot be entered by itself', () => {
    expect(challenged().handleRequest(request({ ...intoFullFeature }))).toMatchObject({ failed: true, pdu: { statusClass: 2 } });
  });

  it('AuthMethod cannot be negotiated again', () => {
    expect(challenged().handleRequest(request({ ...intoOperational, pairs: [['AuthMethod', 'None']] }))).toMatchObject({
      failed: true,
      pdu: { statusClass: 2, statusDetail: 0 },
    });
  });

  it('a wrong response ends the login, and the reason holds nothing secret', () => {
    const step = challenged().handleRequest(
      request({
        ...intoOperational,
        pairs: [
          ['CHAP_N', 'alice'],
          ['CHAP_R', '0x00112233445566778899aabbccddeeff'],
        ],
      }),
    );
    expect(step).toMatchObject({ failed: true, pdu: { statusClass: 2, statusDetail: 1, data: new Uint8Array(0) } });
    expect(step.reason).not.toMatch(/initiator is it|0x/);
  });
});

describe('the operational stage', () => {
  it.each<[string, Said]>([
    ['the stage before', { ...intoOperational }],
    ['another ISID', { ...intoFullFeature, isid: 1 }],
    ['another CID', { ...intoFullFeature, cid: 2 }],
    ['another TSIH', { ...intoFullFeature, tsih: 5 }],
    ['security keys', { ...intoFullFeature, pairs: [['AuthMethod', 'None']] }],
    ['another name', { ...intoFullFeature, pairs: [['InitiatorName', 'iqn.2026-01.org.example:other']] }],
    ['a key twice', { ...intoFullFeature, data: secret('MaxBurstLength=512\0MaxBurstLength=512\0') }],
    ['a declaration out of range', { ...intoFullFeature, pairs: [['MaxRecvDataSegmentLength', '1']] }],
  ])('%s: refused', (_, said) => {
    expect(inOperational().handleRequest(request(said))).toMatchObject({
      failed: true,
      pdu: { statusClass: 2, statusDetail: 0 },
    });
  });

  it('is answered key by key, with the target’s own declarations', () => {
    const step = inOperational().handleRequest(
      request({
        ...intoFullFeature,
        pairs: [
          ['HeaderDigest', 'CRC32C,None'],
          ['DataDigest', 'CRC32C,None'],
          ['MaxBurstLength', '0x800'],
          ['InitialR2T', 'Yes'],
          ['IFMarker', 'No'],
          ['X-com.example', '1'],
          ['MaxConnections', '70000'],
        ],
      }),
    );
    expect(textOf(step)).toEqual([
      ['HeaderDigest', 'CRC32C'],
      ['DataDigest', 'None'],
      ['MaxBurstLength', '2048'],
      ['InitialR2T', 'Yes'],
      ['IFMarker', 'No'],
      ['X-com.example', 'NotUnderstood'],
      ['MaxConnections', 'Reject'],
      ['MaxRecvDataSegmentLength', '262144'],
    ]);
    expect(step.complete).toMatchObject({
      data: {
        headerDigest: true,
        dataDigest: false,
        maxBurstLength: 2048,
        firstBurstLength: 2048,
        maxSendDataSegmentLength: 8192,
      },
    });
  });

  it('does not end before the initiator asks for it', () => {
    const machine = inOperational();
    const step = machine.handleRequest(request({ csg: 1, pairs: [['HeaderDigest', 'None']] }));
    expect(step.pdu).toMatchObject({ transit: false, tsih: 0 });
    expect(machine.handleRequest(request({ ...intoFullFeature })).complete).toBeDefined();
  });
});

describe('a login without end', () => {
  it.each<[string, Said]>([
    ['of empty requests', { csg: 1 }],
    ['of empty pieces', { csg: 1, continue: true }],
    ['of pieces', { csg: 1, continue: true, data: new Uint8Array(8192).fill(0x41) }],
  ])('%s: refused in the end', (_, said) => {
    const machine = inOperational();
    let last: TargetLoginStep | undefined;
    for (let round = 0; round < 400 && last?.failed !== true; round++) last = machine.handleRequest(request(said));
    expect(last).toMatchObject({ failed: true, pdu: { statusClass: 2, statusDetail: 0 } });
  });
});
