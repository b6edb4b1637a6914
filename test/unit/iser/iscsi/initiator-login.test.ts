/** The initiator's login against what tgtd answered (test/vectors/login-tgtd.hex), and against targets that break the rules. */

import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { LoginError, ProtocolError } from '../../../../src/errors.ts';
import {
  type ChapOptions,
  InitiatorLogin,
  type InitiatorLoginOptions,
  type LoginStep,
  loginStatusText,
} from '../../../../src/iser/iscsi/login.ts';
import { BHS_LENGTH, decodePdu, type Pdu, pdu } from '../../../../src/iser/iscsi/pdu.ts';
import { decodeText, encodeText, type TextPair } from '../../../../src/iser/iscsi/text.ts';
import { hexVectors } from '../../../support/hex-vectors.ts';

type LoginRequest = Pdu<'login-request'>;
type LoginResponse = Pdu<'login-response'>;

const vector = hexVectors('login-tgtd.hex');
const secret = (text: string) => new TextEncoder().encode(text);
/** As when the vectors were captured. */
const alice = { user: 'alice', secret: secret('in-secret-0001') };
const target1 = { user: 'target1', secret: secret('out-secret-0002') };
const ISID = 0x80a1b2c3d4e5;

function login(options: Partial<InitiatorLoginOptions> = {}): InitiatorLogin {
  return new InitiatorLogin({
    initiatorName: 'iqn.2026-01.org.iserfs:vectors',
    sessionType: 'normal',
    targetName: 'iqn.2026-01.org.example:plain',
    isid: ISID,
    tsih: 0,
    cid: 0,
    cmdSn: 1,
    initialItt: 0,
    offers: { HeaderDigest: 'None', DataDigest: 'None', MaxRecvDataSegmentLength: '262144' },
    random: (length) => new Uint8Array(length).map((_, index) => 0x40 + index),
    ...options,
  });
}

/** Plays tgtd's responses of a case to a login; what the login sent, and what came of it. */
function replay(name: string, machine: InitiatorLogin): { requests: LoginRequest[]; last: LoginStep } {
  const requests = [machine.start()];
  for (let index = 0; ; index++) {
    const wire = vector(`${name} ${index}`);
    const response = decodePdu(wire.subarray(0, BHS_LENGTH), wire.subarray(BHS_LENGTH)) as LoginResponse;
    const step = machine.handleResponse(response);
    if (step.type !== 'send') return { requests, last: step };
    requests.push(step.pdu);
  }
}

const textOf = (request: LoginRequest | undefined) => new Map(decodeText(request?.data ?? new Uint8Array(0)));

describe('with tgtd', () => {
  it('logs in without authentication and obeys what tgtd has made of the keys', () => {
    const { requests, last } = replay('plain', login());
    expect(requests).toHaveLength(2);
    expect(requests[0]).toMatchObject({ transit: true, csg: 0, nsg: 1, expStatSn: 0 });
    expect([...textOf(requests[0])]).toEqual([
      ['InitiatorName', 'iqn.2026-01.org.iserfs:vectors'],
      ['TargetName', 'iqn.2026-01.org.example:plain'],
      ['SessionType', 'Normal'],
      ['AuthMethod', 'None'],
    ]);
    expect(requests[1]).toMatchObject({ transit: true, csg: 1, nsg: 3, expStatSn: 1 });
    expect(last).toMatchObject({
      type: 'complete',
      result: {
        cmdSn: 1,
        expStatSn: 2,
        expCmdSn: 1,
        maxCmdSn: 2,
        targetPortalGroupTag: 1,
        data: {
          headerDigest: false,
          dataDigest: false,
          // tgtd declares nothing: the default.
          maxSendDataSegmentLength: 8192,
          maxRecvDataSegmentLength: 262144,
          maxBurstLength: 262144,
          firstBurstLength: 65536,
          initialR2T: true,
          immediateData: true,
          maxOutstandingR2T: 1,
        },
      },
    });
  });

  it('takes what was agreed on where other values are offered', () => {
    const sessionKeys = {
      InitialR2T: true,
      ImmediateData: false,
      FirstBurstLength: 1024,
      MaxBurstLength: 2048,
      MaxOutstandingR2T: 4,
      DefaultTime2Wait: 5,
    };
    const { last } = replay('session-keys', login({ sessionKeys }));
    expect(last).toMatchObject({
      result: {
        data: { initialR2T: true, immediateData: false, firstBurstLength: 1024, maxBurstLength: 2048, maxOutstandingR2T: 1 },
        keys: { DefaultTime2Wait: 5, DefaultTime2Retain: 0 },
      },
    });
  });

  it('refuses to go on without a digest that was required', () => {
    const offers = { HeaderDigest: 'CRC32C,None', DataDigest: 'CRC32C', MaxRecvDataSegmentLength: '262144' };
    expect(() => replay('digests', login({ offers }))).toThrow(
      expect.objectContaining({ code: 'login-refused', message: expect.stringContaining('DataDigest=CRC32C') }),
    );
  });

  it('logs in for discovery', () => {
    const { initiatorName, isid, ...rest } = { initiatorName: 'iqn.2026-01.org.iserfs:vectors', isid: ISID };
    const machine = new InitiatorLogin({
      ...rest,
      initiatorName,
      isid,
      sessionType: 'discovery',
      tsih: 0,
      cid: 0,
      cmdSn: 1,
      initialItt: 0,
      offers: { HeaderDigest: 'None', DataDigest: 'None', MaxRecvDataSegmentLength: '262144' },
      random: (length) => new Uint8Array(length),
    });
    expect(replay('discovery', machine).last).toMatchObject({ type: 'complete', result: { tsih: 0x100 } });
  });

  it('proves itself by CHAP-MD5: tgtd took the response that is computed here again', () => {
    const chap: ChapOptions = { credentials: alice, algorithms: ['MD5'] };
    const { requests, last } = replay('chap-md5', login({ targetName: 'iqn.2026-01.org.example:chap', chap }));
    expect(textOf(requests[0]).get('AuthMethod')).toBe('CHAP,None');
    expect([...textOf(requests[1])]).toEqual([['CHAP_A', '5']]);
    expect(textOf(requests[2]).get('CHAP_N')).toBe('alice');
    expect(textOf(requests[2]).get('CHAP_R')).toBe(`0x${expectedResponse('chap-md5 1', alice.secret)}`);
    expect(last).toMatchObject({ type: 'complete', result: { authenticated: true, mutualAuthenticated: false } });
  });

  it('has tgtd prove itself too', () => {
    const chap: ChapOptions = { credentials: alice, mutual: target1, algorithms: ['MD5'] };
    const { requests, last } = replay('chap-mutual', login({ targetName: 'iqn.2026-01.org.example:mutual', chap }));
    expect(textOf(requests[0]).get('AuthMethod')).toBe('CHAP');
    expect(textOf(requests[2]).get('CHAP_R')).toBe(`0x${expectedResponse('chap-mutual 1', alice.secret)}`);
    // tgtd's proof of our challenge, checked without our own code.
    const challenge = Buffer.from(textOf(requests[2]).get('CHAP_C')?.slice(2) ?? '', 'hex');
    const identifier = Buffer.of(Number(textOf(requests[2]).get('CHAP_I')));
    const proof = createHash('md5').update(identifier).update(target1.secret).update(challenge).digest('hex');
    const answer = new Map(decodeText(vector('chap-mutual 2').subarray(BHS_LENGTH)));
    expect(answer.get('CHAP_R')).toBe(`0x${proof}`);
    expect(answer.get('CHAP_N')).toBe('target1');
    expect(last).toMatchObject({ type: 'complete', result: { authenticated: true, mutualAuthenticated: true } });
  });

  it('does not believe tgtd where its secret is another', () => {
    const chap: ChapOptions = {
      credentials: alice,
      mutual: { user: 'target1', secret: secret('xut-secret-0002') },
      algorithms: ['MD5'],
    };
    expect(() => replay('chap-wrong-mutual', login({ targetName: 'iqn.2026-01.org.example:mutual', chap }))).toThrow(
      expect.objectContaining({ code: 'authentication-failed', message: expect.stringContaining('target did not prove') }),
    );
  });

  it('says which retry may help where tgtd means SHA-1 by the number of SHA-256', () => {
    const machine = login({ targetName: 'iqn.2026-01.org.example:chap', chap: { credentials: alice } });
    expect(() => replay('chap-all', machine)).toThrow(
      expect.objectContaining({ code: 'authentication-failed', statusDetail: 0 }),
    );
    expect(machine.chapRetry).toEqual(['SHA3-256', 'SHA1', 'MD5']);
  });

  it.each<[string, Partial<InitiatorLoginOptions>, string, RegExp]>([
    [
      'chap-wrong-secret',
      { chap: { credentials: { user: 'alice', secret: secret('wrong-secret-01') }, algorithms: ['MD5'] } },
      'authentication-failed',
      /does not take the CHAP user or secret/,
    ],
    [
      'chap-sha1',
      { chap: { credentials: alice, algorithms: ['SHA1'] } },
      'authentication-failed',
      /none of the CHAP algorithms SHA1/,
    ],
    ['no-credentials', {}, 'authentication-failed', /there are no credentials/],
    [
      'mutual-at-plain',
      { chap: { credentials: alice, mutual: target1 } },
      'authentication-failed',
      /takes no AuthMethod of CHAP/,
    ],
    ['no-such-target', {}, 'target-not-found', /target not found \(login status 0203\)/],
  ])('%s: one clear error', (name, options, code, message) => {
    const machine = login(options);
    try {
      replay(name, machine);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(LoginError);
      expect(error).toMatchObject({ code, message: expect.stringMatching(message), hint: expect.any(String) });
      expect(String(error)).not.toMatch(/secret-0|wrong-secret/);
      expect(machine.chapRetry).toBeUndefined();
    }
  });

  it('follows where tgtd sends it', () => {
    expect(replay('moved', login()).last).toEqual({
      type: 'redirect',
      portal: { host: '192.0.2.7', port: 3261 },
      permanent: false,
    });
  });
});

// ---- targets that break the rules ----

interface Said extends Partial<Omit<LoginResponse, 'opcode'>> {
  readonly pairs?: readonly TextPair[];
}

function respond({ pairs, ...fields }: Said): LoginResponse {
  return pdu({
    opcode: 'login-response',
    isid: ISID,
    expCmdSn: 1,
    maxCmdSn: 1,
    ...(pairs === undefined ? {} : { data: encodeText(pairs) }),
    ...fields,
  });
}

/** A machine that waits for the answer to its operational keys. */
function inOperational(options: Partial<InitiatorLoginOptions> = {}): InitiatorLogin {
  const machine = login(options);
  machine.start();
  machine.handleResponse(respond({ transit: true, nsg: 1, pairs: [['AuthMethod', 'None']] }));
  return machine;
}

const intoOperational = { transit: true, csg: 0, nsg: 1 } as const;
const intoFullFeature = { transit: true, csg: 1, nsg: 3, tsih: 1 } as const;

describe('in the first answer', () => {
  it.each<[string, Said]>([
    ['another task', { ...intoOperational, itt: 5 }],
    ['another ISID', { ...intoOperational, isid: 1 }],
    ['another version', { ...intoOperational, versionActive: 1 }],
    ['the operational stage at once', { csg: 1, transit: true, nsg: 3 }],
    ['full-feature phase at once', { csg: 0, transit: true, nsg: 3 }],
    ['a move to the stage it is in', { csg: 0, transit: true, nsg: 0 }],
    ['a move to stage 2', { csg: 0, transit: true, nsg: 2 }],
    ['T and C at once', { ...intoOperational, continue: true }],
    ['AuthMethod twice', { ...intoOperational, data: secret('AuthMethod=None\0AuthMethod=None\0') }],
    ['text that is none', { ...intoOperational, data: secret('AuthMethod\0') }],
    ['an operational key', { ...intoOperational, pairs: [['MaxBurstLength', '65536']] }],
    ['a key that only initiators send', { ...intoOperational, pairs: [['InitiatorName', 'iqn.2026-01.org.example:x']] }],
    ['CHAP keys without CHAP', { csg: 0, pairs: [['CHAP_A', '5']] }],
    ['a status class that does not exist', { statusClass: 9 }],
  ])('%s: dropped', (_, said) => {
    const machine = login();
    machine.start();
    expect(() => machine.handleResponse(respond(said))).toThrow(expect.objectContaining({ code: 'protocol-error' }));
    // The machine is of no use after that.
    expect(() => machine.handleResponse(respond(intoOperational))).toThrow(ProtocolError);
  });

  it.each(['CHAP', 'KRB5', 'Reject', ''])('AuthMethod=%s to an initiator without credentials: refused', (method) => {
    const machine = login();
    machine.start();
    expect(() => machine.handleResponse(respond({ pairs: [['AuthMethod', method]] }))).toThrow(
      expect.objectContaining({ code: 'authentication-failed' }),
    );
  });

  it.each<[string, Said]>([
    ['AuthMethod=None', { ...intoOperational, pairs: [['AuthMethod', 'None']] }],
    ['no AuthMethod', { ...intoOperational }],
    ['AuthMethod=Reject', { pairs: [['AuthMethod', 'Reject']] }],
    ['AuthMethod=CHAP, and a move on', { ...intoOperational, pairs: [['AuthMethod', 'CHAP']] }],
  ])('%s where mutual CHAP was asked for: refused', (_, said) => {
    const machine = login({ chap: { credentials: alice, mutual: target1 } });
    machine.start();
    expect(() => machine.handleResponse(respond(said))).toThrow(expect.objectContaining({ code: 'authentication-failed' }));
  });

  it('AuthMethod=Reject to an initiator that offers CHAP and None: refused', () => {
    const machine = login({ chap: { credentials: alice } });
    machine.start();
    expect(() => machine.handleResponse(respond({ pairs: [['AuthMethod', 'Reject']] }))).toThrow(
      expect.objectContaining({ code: 'authentication-failed', message: expect.stringContaining('CHAP, None') }),
    );
  });

  it('AuthMethod=CHAP and a move on in one: no authentication by half', () => {
    const machine = login({ chap: { credentials: alice } });
    machine.start();
    expect(() => machine.handleResponse(respond({ ...intoOperational, pairs: [['AuthMethod', 'CHAP']] }))).toThrow(ProtocolError);
  });

  it('an unknown key is answered, and AuthMethod asked for no second time', () => {
    const machine = login();
    machine.start();
    const step = machine.handleResponse(
      respond({
        pairs: [
          ['AuthMethod', 'None'],
          ['X-com.example', '1'],
        ],
      }),
    );
    expect(step).toMatchObject({ type: 'send', pdu: { transit: true, csg: 0, nsg: 1 } });
    expect(step.type === 'send' ? [...textOf(step.pdu)] : []).toEqual([['X-com.example', 'NotUnderstood']]);
    expect(() => machine.handleResponse(respond({ pairs: [['AuthMethod', 'None']] }))).toThrow(/negotiated twice/);
  });
});

describe('during CHAP', () => {
  const challenge: readonly TextPair[] = [
    ['CHAP_A', '5'],
    ['CHAP_I', '1'],
    ['CHAP_C', '0x00112233445566778899aabbccddeeff'],
  ];

  function challenged(chap: ChapOptions): InitiatorLogin {
    const machine = login({ chap });
    machine.start();
    machine.handleResponse(respond({ pairs: [['AuthMethod', 'CHAP']] }));
    machine.handleResponse(respond({ pairs: challenge }));
    return machine;
  }

  it('a target that moves on before it has challenged: dropped', () => {
    const machine = login({ chap: { credentials: alice } });
    machine.start();
    machine.handleResponse(respond({ pairs: [['AuthMethod', 'CHAP']] }));
    expect(() => machine.handleResponse(respond({ pairs: challenge }))).not.toThrow();
    const other = login({ chap: { credentials: alice, mutual: target1 } });
    other.start();
    other.handleResponse(respond({ pairs: [['AuthMethod', 'CHAP']] }));
    // T is not even allowed: it was not asked for.
    expect(() => other.handleResponse(respond({ ...intoOperational, pairs: challenge }))).toThrow(ProtocolError);
  });

  it('a target that moves on without its own proof: refused', () => {
    const machine = challenged({ credentials: alice, mutual: target1 });
    expect(() => machine.handleResponse(respond(intoOperational))).toThrow(
      expect.objectContaining({
        code: 'authentication-failed',
        message: expect.stringContaining('without proving its identity'),
      }),
    );
  });

  it('a target that takes its time is asked again, for ever is too long', () => {
    const machine = challenged({ credentials: alice, mutual: target1 });
    expect(machine.handleResponse(respond({}))).toMatchObject({ type: 'send', pdu: { transit: true } });
    expect(() => {
      for (let round = 0; round < 1000; round++) machine.handleResponse(respond({}));
    }).toThrow(ProtocolError);
  });

  it('a second challenge: dropped', () => {
    const machine = challenged({ credentials: alice });
    expect(() => machine.handleResponse(respond({ pairs: challenge }))).toThrow(ProtocolError);
  });
});

describe('in the operational stage', () => {
  const echo: readonly TextPair[] = [
    ['HeaderDigest', 'None'],
    ['MaxBurstLength', '262144'],
  ];

  it.each<[string, Said]>([
    ['the stage before', { csg: 0, transit: true, nsg: 1, pairs: echo }],
    ['a move back', { csg: 1, transit: true, nsg: 1, pairs: echo }],
    ['no TSIH at the end', { ...intoFullFeature, tsih: 0, pairs: echo }],
    ['a key twice', { ...intoFullFeature, data: secret('MaxBurstLength=512\0MaxBurstLength=512\0') }],
    ['an answer that was not offered', { ...intoFullFeature, pairs: [['MaxBurstLength', '1048577']] }],
    ['an empty answer', { ...intoFullFeature, pairs: [['MaxBurstLength', '']] }],
    ['CHAP keys', { ...intoFullFeature, pairs: [['CHAP_A', '5']] }],
    ['a wrong answer that is malformed', { ...intoFullFeature, pairs: [['InitialR2T', 'perhaps']] }],
    ['an own offer together with the end', { ...intoFullFeature, pairs: [['TaskReporting', 'FastAbort']] }],
    ['SessionType', { ...intoFullFeature, pairs: [['SessionType', 'Normal']] }],
  ])('%s: dropped', (_, said) => {
    expect(() => inOperational().handleResponse(respond(said))).toThrow(ProtocolError);
  });

  it.each([
    'HeaderDigest',
    'DataDigest',
    'MaxConnections',
    'ErrorRecoveryLevel',
    'InitialR2T',
    'ImmediateData',
    'FirstBurstLength',
    'MaxBurstLength',
    'MaxOutstandingR2T',
    'DefaultTime2Wait',
    'DefaultTime2Retain',
    'DataPDUInOrder',
    'DataSequenceInOrder',
  ])('%s answered in one PDU and again in the next: dropped', (name) => {
    const request = login();
    request.start();
    const step = request.handleResponse(respond({ ...intoOperational, pairs: [['AuthMethod', 'None']] }));
    const offered = step.type === 'send' ? textOf(step.pdu).get(name) : undefined;
    expect(offered).toBeDefined();
    request.handleResponse(respond({ csg: 1, pairs: [[name, offered ?? '']] }));
    expect(() => request.handleResponse(respond({ ...intoFullFeature, pairs: [[name, offered ?? '']] }))).toThrow(
      /negotiated twice/,
    );
  });

  it('offers of the target are answered, then the end is asked for again', () => {
    const machine = inOperational();
    const step = machine.handleResponse(
      respond({
        csg: 1,
        statSn: 4,
        pairs: [
          ...echo,
          ['TaskReporting', 'FastAbort,RFC3720'],
          ['IFMarker', 'Yes'],
          ['X-org.example', 'a'],
          ['RDMAExtensions', 'Yes'],
        ],
      }),
    );
    expect(step).toMatchObject({ type: 'send', pdu: { transit: true, csg: 1, nsg: 3, expStatSn: 5 } });
    expect(step.type === 'send' ? [...textOf(step.pdu)] : []).toEqual([
      ['TaskReporting', 'RFC3720'],
      ['IFMarker', 'No'],
      ['X-org.example', 'NotUnderstood'],
      ['RDMAExtensions', 'No'],
    ]);
    expect(machine.handleResponse(respond({ ...intoFullFeature, statSn: 5 }))).toMatchObject({
      type: 'complete',
      result: { tsih: 1, expStatSn: 6, keys: { TaskReporting: 'RFC3720', RDMAExtensions: false, MaxBurstLength: 262144 } },
    });
  });

  it('a target that has nothing to say and does not move is asked again, for ever is too long', () => {
    const machine = inOperational();
    expect(machine.handleResponse(respond({ csg: 1 }))).toMatchObject({
      type: 'send',
      pdu: { transit: true, data: new Uint8Array(0) },
    });
    expect(() => {
      for (let round = 0; round < 1000; round++) machine.handleResponse(respond({ csg: 1 }));
    }).toThrow(/does not come to an end/);
  });

  it('declarations together with the end are taken; so is what changes nothing', () => {
    const step = inOperational().handleResponse(
      respond({
        ...intoFullFeature,
        pairs: [
          ...echo,
          ['TargetAlias', 'disk'],
          ['TargetPortalGroupTag', '2'],
          ['MaxRecvDataSegmentLength', '1048576'],
          ['AuthMethod', 'None'],
          ['X-com.example', '1'],
        ],
      }),
    );
    expect(step).toMatchObject({
      type: 'complete',
      result: { targetAlias: 'disk', targetPortalGroupTag: 2, data: { maxSendDataSegmentLength: 1048576 } },
    });
  });

  it('a FirstBurstLength beyond MaxBurstLength is cut down to it', () => {
    const pairs: readonly TextPair[] = [
      ['MaxBurstLength', '4096'],
      ['FirstBurstLength', '65536'],
    ];
    expect(inOperational().handleResponse(respond({ ...intoFullFeature, pairs }))).toMatchObject({
      result: { data: { maxBurstLength: 4096, firstBurstLength: 4096 } },
    });
  });

  it('a TSIH other than the one asked for: dropped', () => {
    expect(() => inOperational({ tsih: 7 }).handleResponse(respond({ ...intoFullFeature, tsih: 8 }))).toThrow(ProtocolError);
  });
});

describe('continued text', () => {
  it('is asked for with requests that say nothing, and read as one', () => {
    const machine = inOperational();
    const data = encodeText([
      ['HeaderDigest', 'None'],
      ['TargetAlias', 'a disk in three pieces'],
    ]);
    for (const piece of [data.subarray(0, 5), data.subarray(5, 20)]) {
      const step = machine.handleResponse(respond({ csg: 1, continue: true, data: piece }));
      expect(step).toMatchObject({ type: 'send', pdu: { transit: false, continue: false, data: new Uint8Array(0) } });
    }
    expect(machine.handleResponse(respond({ csg: 1, data: data.subarray(20) }))).toMatchObject({
      type: 'send',
      pdu: { transit: true },
    });
    expect(machine.handleResponse(respond(intoFullFeature))).toMatchObject({ result: { targetAlias: 'a disk in three pieces' } });
  });

  it('cannot end a stage that was not asked to end', () => {
    const machine = inOperational();
    machine.handleResponse(respond({ csg: 1, continue: true, data: secret('A=1\0') }));
    expect(() => machine.handleResponse(respond({ ...intoFullFeature, data: secret('B=1\0') }))).toThrow(ProtocolError);
  });

  it('without end: dropped, at 64 KiB or after many empty pieces', () => {
    for (const size of [8192, 1, 0]) {
      const machine = inOperational();
      expect(() => {
        for (let round = 0; round < 2000; round++) {
          machine.handleResponse(respond({ csg: 1, continue: true, data: new Uint8Array(size).fill(0x41) }));
        }
      }, `pieces of ${size}`).toThrow(ProtocolError);
    }
  });

  it('an answer before the target has the whole of ours: dropped', () => {
    const chap: ChapOptions = { credentials: { user: 'u'.repeat(10_000), secret: alice.secret }, algorithms: ['MD5'] };
    for (const said of [{ pairs: [['X', '1']] as const }, { continue: true }, { ...intoOperational }] satisfies Said[]) {
      const machine = login({ chap });
      machine.start();
      machine.handleResponse(respond({ pairs: [['AuthMethod', 'CHAP']] }));
      const step = machine.handleResponse(
        respond({
          pairs: [
            ['CHAP_A', '5'],
            ['CHAP_I', '1'],
            ['CHAP_C', '0x0011'],
          ],
        }),
      );
      expect(step).toMatchObject({ type: 'send', pdu: { continue: true, transit: false } });
      expect(() => machine.handleResponse(respond(said))).toThrow(ProtocolError);
    }
  });
});

describe('a login that ends with a status', () => {
  it.each([
    [2, 0x00, 'login-refused'],
    [2, 0x01, 'authentication-failed'],
    [2, 0x02, 'login-refused'],
    [2, 0x03, 'target-not-found'],
    [2, 0x04, 'target-not-found'],
    [2, 0x05, 'unsupported'],
    [2, 0x06, 'login-refused'],
    [2, 0x07, 'login-refused'],
    [2, 0x08, 'login-refused'],
    [2, 0x09, 'unsupported'],
    [2, 0x0a, 'login-refused'],
    [2, 0x0b, 'login-refused'],
    [2, 0x7f, 'login-refused'],
    [3, 0x00, 'busy'],
    [3, 0x01, 'busy'],
    [3, 0x02, 'busy'],
    [3, 0x99, 'busy'],
  ])('class %i detail %i: %s, in words and with its numbers', (statusClass, statusDetail, code) => {
    const machine = login();
    machine.start();
    try {
      // Some targets leave every other field at 0.
      machine.handleResponse(pdu({ opcode: 'login-response', statusClass, statusDetail }));
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(LoginError);
      expect(error).toMatchObject({ code, statusClass, statusDetail });
      const numbers = [statusClass, statusDetail].map((byte) => byte.toString(16).padStart(2, '0')).join('');
      expect((error as Error).message).toMatch(new RegExp(`^[a-z].{10,} \\(login status ${numbers}\\)`));
    }
  });

  it('has different words for every status of the RFC', () => {
    const texts = new Set<string>();
    for (const [statusClass, count] of [
      [1, 2],
      [2, 11],
      [3, 2],
    ] as const) {
      for (let detail = 1; detail <= count; detail++) texts.add(loginStatusText(statusClass, detail).replace(/ \(.*/, ''));
    }
    expect(texts.size).toBe(15);
  });

  it('can come at any time', () => {
    expect(() => inOperational().handleResponse(respond({ csg: 1, statusClass: 3, statusDetail: 2 }))).toThrow(
      expect.objectContaining({ code: 'busy' }),
    );
  });
});

describe('a redirect', () => {
  it.each<[string, Said]>([
    ['without an address', { statusClass: 1, statusDetail: 1 }],
    ['with an address that is none', { statusClass: 1, statusDetail: 2, pairs: [['TargetAddress', 'a b']] }],
    ['of an unknown kind', { statusClass: 1, statusDetail: 3, pairs: [['TargetAddress', '192.0.2.1']] }],
  ])('%s: an error', (_, said) => {
    const machine = login();
    machine.start();
    expect(() => machine.handleResponse(respond(said))).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^(login-refused|protocol-error)$/) }),
    );
  });
});

describe('options', () => {
  it('that contradict each other are refused', () => {
    const refused = expect.objectContaining({ code: 'bad-configuration' });
    const { targetName: _, ...nameless } = { targetName: '', initiatorName: 'iqn.2026-01.org.example:i' };
    expect(
      () =>
        new InitiatorLogin({
          ...nameless,
          sessionType: 'normal',
          isid: ISID,
          tsih: 0,
          cid: 0,
          cmdSn: 1,
          initialItt: 0,
          offers: {},
          random: (length) => new Uint8Array(length),
        }),
    ).toThrow(refused);
    expect(() => login({ chap: { credentials: alice, mutual: { user: 'x', secret: alice.secret } } })).toThrow(refused);
    expect(() => login({ sessionKeys: { MaxBurstLength: 1 } })).toThrow(refused);
    expect(() => login({ offers: { MaxRecvDataSegmentLength: '1' } })).toThrow(refused);
  });

  it('for bursts are made to fit each other', () => {
    const machine = login({ sessionKeys: { MaxBurstLength: 4096 } });
    machine.start();
    const step = machine.handleResponse(respond(intoOperational));
    expect(step.type === 'send' ? textOf(step.pdu).get('FirstBurstLength') : undefined).toBe('4096');
  });

  it('cannot start a login twice', () => {
    const machine = login();
    machine.start();
    expect(() => machine.start()).toThrow(expect.objectContaining({ code: 'internal' }));
  });
});

/** The CHAP-MD5 response to tgtd's challenge in a vector, in hexadecimal. */
function expectedResponse(name: string, key: Uint8Array): string {
  const keys = new Map(decodeText(vector(name).subarray(BHS_LENGTH)));
  const challenge = Buffer.from(keys.get('CHAP_C')?.slice(2) ?? '', 'hex');
  return createHash('md5')
    .update(Buffer.of(Number(keys.get('CHAP_I'))))
    .update(key)
    .update(challenge)
    .digest('hex');
}
