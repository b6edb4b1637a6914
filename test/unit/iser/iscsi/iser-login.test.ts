/** Logins over iSER: the initiator's against what tgtd and LIO answered (test/vectors/login-iser.txt), the target's against what libiscsi and open-iscsi send. */

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CommandWindow } from '../../../../src/iser/iscsi/command-window.ts';
import { describeKeys } from '../../../../src/iser/iscsi/keys.ts';
import {
  InitiatorLogin,
  type InitiatorLoginOptions,
  type LoginStep,
  TargetLogin,
  type TargetLoginStep,
} from '../../../../src/iser/iscsi/login.ts';
import { type Pdu, pdu } from '../../../../src/iser/iscsi/pdu.ts';
import { needsPatience } from '../../../../src/iser/iscsi/peer-quirks.ts';
import { decodeText, encodeText } from '../../../../src/iser/iscsi/text.ts';

type LoginRequest = Pdu<'login-request'>;
type LoginResponse = Pdu<'login-response'>;
type Peer = 'tgtd' | 'LIO';

const ISID = 0x80a1b2c3d4e5;

/** What the requests of the captures had in common. */
const CAPTURED_KEYS = {
  HeaderDigest: 'None',
  DataDigest: 'None',
  MaxConnections: '1',
  DataPDUInOrder: 'Yes',
  DataSequenceInOrder: 'Yes',
  InitialR2T: 'Yes',
  ImmediateData: 'No',
  MaxBurstLength: '262144',
  FirstBurstLength: '65536',
  MaxOutstandingR2T: '1',
  DefaultTime2Wait: '2',
  DefaultTime2Retain: '0',
  ErrorRecoveryLevel: '0',
};

/** What an iSER data mover offers. */
const ISER_OFFERS = {
  RDMAExtensions: 'Yes',
  InitiatorRecvDataSegmentLength: '8192',
  TargetRecvDataSegmentLength: '8192',
  HeaderDigest: 'None',
  DataDigest: 'None',
};

interface Case {
  /** The keys that were offered besides, as one text. */
  readonly offered: string;
  readonly responses: Readonly<Record<Peer, readonly LoginResponse[]>>;
}

const cases = readCases();

function readCases(): readonly Case[] {
  const read: { offered: string; responses: Record<Peer, LoginResponse[]> }[] = [];
  const lines = readFileSync(new URL('../../../vectors/login-iser.txt', import.meta.url), 'utf8').split('\n');
  for (const line of lines.filter((each) => each !== '' && !each.startsWith('#') && !each.startsWith('+'))) {
    if (line.startsWith('> ')) {
      read.push({ offered: line.slice(2), responses: { tgtd: [], LIO: [] } });
      continue;
    }
    const [peer = '', flags = '', tsih = '', statSn, expCmdSn, maxCmdSn, ...words] = line.split(' ');
    const bits = Number.parseInt(flags, 16);
    const text = words.join(' ').replace('TargetAlias=LIO Target', 'TargetAlias=LIO\u00a0Target').split(' ');
    const data = new TextEncoder().encode(words.length === 0 ? '' : `${text.join('\0').replace('\u00a0', ' ')}\0`);
    read.at(-1)?.responses[peer as Peer].push(
      pdu({
        opcode: 'login-response',
        transit: (bits & 0x80) !== 0,
        csg: (bits >> 2) & 3,
        nsg: bits & 3,
        isid: ISID,
        tsih: Number.parseInt(tsih, 16),
        statSn: Number(statSn),
        expCmdSn: Number(expCmdSn),
        maxCmdSn: Number(maxCmdSn),
        data,
      }),
    );
  }
  return read;
}

function caseOf(offered: string): Case {
  const found = cases.find((each) => each.offered === offered);
  if (found === undefined) throw new Error(`no case ${offered}`);
  return found;
}

function login(options: Partial<InitiatorLoginOptions> = {}): InitiatorLogin {
  return new InitiatorLogin({
    initiatorName: 'iqn.2024-01.test:initiator',
    sessionType: 'normal',
    targetName: 'iqn.2024-01.test:target',
    isid: ISID,
    tsih: 0,
    cid: 0,
    cmdSn: 1,
    initialItt: 0,
    offers: ISER_OFFERS,
    random: (length) => new Uint8Array(length),
    ...options,
  });
}

/** Plays `responses` to a login; what the login sent, and what came of it. */
function replay(machine: InitiatorLogin, responses: readonly LoginResponse[]): { requests: LoginRequest[]; last: LoginStep } {
  const requests = [machine.start()];
  let last: LoginStep | undefined;
  for (const response of responses) {
    last = machine.handleResponse(response);
    if (last.type === 'send') requests.push(last.pdu);
  }
  if (last === undefined) throw new Error('no response to play');
  return { requests, last };
}

const textOf = (request: LoginRequest | undefined) => Object.fromEntries(decodeText(request?.data ?? new Uint8Array(0)));
const recvLengths = 'InitiatorRecvDataSegmentLength=8192 TargetRecvDataSegmentLength=8192';
const usual = `RDMAExtensions=Yes ${recvLengths}`;
/** The case that is most like what we offer. */
const ordinary = `${usual} ImmediateData=Yes InitialR2T=No FirstBurstLength=65536 MaxBurstLength=1048576`;
const ordinaryOffers = { ...CAPTURED_KEYS, ...keysOf(ordinary) };

function keysOf(text: string): Record<string, string> {
  return Object.fromEntries(text.split(' ').map((pair) => pair.split('=') as [string, string]));
}

describe('the first request over iSER', () => {
  it('asks for full-feature phase at once, with every key that a target might propose', () => {
    const request = login().start();
    expect(request).toMatchObject({ transit: true, csg: 1, nsg: 3, cmdSn: 1 });
    expect(textOf(request)).toEqual({
      InitiatorName: 'iqn.2024-01.test:initiator',
      TargetName: 'iqn.2024-01.test:target',
      SessionType: 'Normal',
      ...ISER_OFFERS,
      MaxConnections: '1',
      ErrorRecoveryLevel: '0',
      DataPDUInOrder: 'Yes',
      DataSequenceInOrder: 'Yes',
      InitialR2T: 'Yes',
      ImmediateData: 'Yes',
      FirstBurstLength: '8192',
      MaxBurstLength: '1048576',
      MaxOutstandingR2T: '1',
      DefaultTime2Wait: '0',
      DefaultTime2Retain: '0',
    });
  });

  it('has everything that LIO proposes where it is left out', () => {
    const proposed = caseOf('HeaderDigest=None').responses.LIO.map(textOfResponse).flatMap(Object.keys);
    const declared = ['TargetAlias', 'TargetPortalGroupTag'];
    expect(Object.keys(textOf(login().start()))).toEqual(
      expect.arrayContaining(proposed.filter((name) => !declared.includes(name))),
    );
  });

  it('begins in the security stage where there are credentials, and offers no key of iSER there', () => {
    const chap = { credentials: { user: 'alice', secret: new TextEncoder().encode('in-secret-0001') } };
    const request = login({ chap }).start();
    expect(request).toMatchObject({ transit: true, csg: 0, nsg: 1 });
    expect(Object.keys(textOf(request))).toEqual(['InitiatorName', 'TargetName', 'SessionType', 'AuthMethod']);
  });

  it('of a discovery session has no key of iSER', () => {
    const machine = login({ sessionType: 'discovery', offers: { MaxRecvDataSegmentLength: '8192' } });
    expect(Object.keys(textOf(machine.start()))).not.toContain('RDMAExtensions');
  });
});

function textOfResponse(response: LoginResponse): Record<string, string> {
  return Object.fromEntries(decodeText(response.data));
}

describe.each<Peer>(['tgtd', 'LIO'])('%s', (peer) => {
  it.each(
    cases.filter(({ offered }) => offered.startsWith('RDMAExtensions=Yes') && !/CRC32C|Discovery|AuthMethod/.test(offered)),
  )('logs us in with $offered', ({ offered, responses }) => {
    const keys = Object.fromEntries(offered.split(' ').map((pair) => pair.split('=') as [string, string]));
    const { requests, last } = replay(login({ offers: { ...CAPTURED_KEYS, ...keys } }), responses[peer]);
    expect(last.type).toBe('complete');
    if (last.type !== 'complete') return;
    const isComplete = 'TargetRecvDataSegmentLength' in keys;
    expect(requests).toHaveLength(isComplete ? 1 : 2);
    expect(textOf(requests[0])).toMatchObject({ ...CAPTURED_KEYS, ...keys });
    // What it proposed is answered with what we take by default, and full-feature phase asked for again.
    if (!isComplete) {
      expect(requests[1]).toMatchObject({ transit: true, csg: 1, nsg: 3, expStatSn: (responses[peer][0]?.statSn ?? 0) + 1 });
      expect(textOf(requests[1])).toEqual({
        InitiatorRecvDataSegmentLength: '8192',
        TargetRecvDataSegmentLength: '8192',
      });
    }
    const length = Number(keys['TargetRecvDataSegmentLength'] ?? 8192);
    expect(last.result.data).toMatchObject({
      headerDigest: false,
      dataDigest: false,
      maxSendDataSegmentLength: length,
      maxRecvDataSegmentLength: length,
      initialR2T: true,
      immediateData: peer === 'LIO' && keys['ImmediateData'] === 'Yes',
      maxBurstLength: 262_144,
      firstBurstLength: 65_536,
    });
    expect(last.result.keys).toMatchObject({ RDMAExtensions: true, MaxOutstandingUnexpectedPDUs: 0, iSERHelloRequired: false });
  });

  it('numbers the first command with the CmdSN of the login, whatever the response says', () => {
    const { last } = replay(login({ offers: ordinaryOffers }), caseOf(ordinary).responses[peer]);
    if (last.type !== 'complete') throw new Error(last.type);
    const window = new CommandWindow(last.result.cmdSn);
    window.update(last.result.expCmdSn, last.result.maxCmdSn);
    expect(window.isOpen).toBe(true);
    expect(window.take()).toBe(1);
    expect(needsPatience(last.result)).toBe(peer === 'tgtd');
  });

  it('is refused, with what to do, where it does not grant RDMAExtensions', () => {
    const final = caseOf(`${usual} SessionType=Discovery TargetName=`).responses[peer];
    expect(() => replay(login({ offers: { ...CAPTURED_KEYS, ...ISER_OFFERS } }), final)).toThrow(
      expect.objectContaining({
        code: 'login-refused',
        message: 'the target does not do iSER at this portal',
        hint: expect.stringContaining('--transport tcp'),
      }),
    );
  });

  it('is refused where it says nothing of RDMAExtensions', () => {
    const [response] = caseOf(ordinary).responses[peer];
    if (response === undefined) throw new Error('no response');
    const { RDMAExtensions: _, ...others } = textOfResponse(response);
    const silent = { ...response, data: encodeText(Object.entries(others)) };
    expect(() => replay(login({ offers: ordinaryOffers }), [silent])).toThrow(
      expect.objectContaining({ code: 'login-refused', message: 'the target does not do iSER at this portal' }),
    );
  });
});

const OTHER_OFFERS = ' MaxOutstandingUnexpectedPDUs=16 iSERHelloRequired=No';

describe('a login of iSER that goes another way', () => {
  it('at LIO, by TCP keys, has what LIO proposes answered: no iSER', () => {
    const [proposal, final] = caseOf('HeaderDigest=None').responses.LIO;
    const machine = login({ offers: CAPTURED_KEYS });
    machine.start();
    machine.handleResponse(pdu({ ...security, data: encodeText([['AuthMethod', 'None']]) }));
    const step = machine.handleResponse(proposal as LoginResponse);
    expect(step).toMatchObject({ type: 'send', pdu: { transit: true } });
    expect(textOf(step.type === 'send' ? step.pdu : undefined)).toMatchObject({ RDMAExtensions: 'No' });
    expect(machine.handleResponse(final as LoginResponse)).toMatchObject({
      type: 'complete',
      result: { keys: { RDMAExtensions: false, ImmediateData: false } },
    });
  });

  it('shows the keys of iSER, and not the receive length that it does away with', () => {
    const offers = { ...ordinaryOffers, MaxRecvDataSegmentLength: '262144' };
    const { last } = replay(login({ offers }), caseOf(ordinary).responses.tgtd);
    if (last.type !== 'complete') throw new Error(last.type);
    const shown = describeKeys(last.result.keys);
    expect(shown).toMatchObject({ RDMAExtensions: 'Yes', TargetRecvDataSegmentLength: '8192' });
    expect(shown).not.toHaveProperty('MaxRecvDataSegmentLength');
  });
});

const security = { opcode: 'login-response', transit: true, csg: 0, nsg: 1, isid: ISID, expCmdSn: 1, maxCmdSn: 1 } as const;

/**
 * The text of open-iscsi 2.1.8's login over ib_iser, and of libiscsi 1.19's. Of both the first 94 bytes and the length
 * (446, 518) were captured; the rest is in the order of their sources, with the values that give that length.
 */
const OPEN_ISCSI = `InitiatorName=iqn.2024-01.test:kernel InitiatorAlias=rdmavm TargetName=iqn.2024-01.test:lio SessionType=Normal
  DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No ErrorRecoveryLevel=0 InitialR2T=No ImmediateData=Yes
  MaxBurstLength=16776192 FirstBurstLength=262144 MaxOutstandingR2T=1 MaxConnections=1 DataPDUInOrder=Yes
  DataSequenceInOrder=Yes InitiatorRecvDataSegmentLength=262144 TargetRecvDataSegmentLength=8192 RDMAExtensions=Yes`;
const LIBISCSI = `InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq TargetName=iqn.2024-01.test:lio
  SessionType=Normal HeaderDigest=None DataDigest=None InitialR2T=Yes ImmediateData=Yes MaxBurstLength=262144
  FirstBurstLength=262144 DefaultTime2Wait=2 DefaultTime2Retain=0 MaxOutstandingR2T=1 ErrorRecoveryLevel=0 IFMarker=No
  OFMarker=No MaxConnections=1 MaxRecvDataSegmentLength=262144 DataPDUInOrder=Yes DataSequenceInOrder=Yes RDMAExtensions=Yes
  InitiatorRecvDataSegmentLength=262144 TargetRecvDataSegmentLength=262144`;

function targetLogin(offers: Readonly<Record<string, string>>): TargetLogin {
  return new TargetLogin({
    accept: () => ({ ok: true, tsih: 1, tpgt: 1 }),
    offers: () => offers,
    sessionKeys: { FirstBurstLength: 65_536 },
    windowSize: 64,
    random: (length) => new Uint8Array(length),
  });
}

function request(text: string): LoginRequest {
  const data = new TextEncoder().encode(`${text.split(/\s+/).join('\0')}\0`);
  return pdu({ opcode: 'login-request', transit: true, csg: 1, nsg: 3, isid: 0x00023d000001, cmdSn: 1, data });
}

const answerOf = ({ pdu: response }: TargetLoginStep) => textOfResponse(response);

describe('the target over iSER', () => {
  it.each([
    ['open-iscsi', OPEN_ISCSI, 446],
    ['libiscsi', LIBISCSI, 518],
  ])('lets %s in with one response', (_name, text, length) => {
    const asked = request(text);
    expect(asked.data).toHaveLength(length);
    const step = targetLogin(ISER_OFFERS).handleRequest(asked);
    expect(step).toMatchObject({
      pdu: { transit: true, nsg: 3, tsih: 1, expCmdSn: 1, maxCmdSn: 64 },
      complete: {
        keys: { RDMAExtensions: true, InitialR2T: true, ImmediateData: true, HeaderDigest: 'None' },
        data: { maxSendDataSegmentLength: 8192, maxRecvDataSegmentLength: 8192, initialR2T: true, immediateData: true },
      },
    });
    expect(answerOf(step)).toMatchObject({
      TargetPortalGroupTag: '1',
      RDMAExtensions: 'Yes',
      InitiatorRecvDataSegmentLength: '8192',
      TargetRecvDataSegmentLength: '8192',
      IFMarker: 'No',
      OFMarker: 'No',
      // Immediate data of one command must fit a receive buffer, and libiscsi goes by this key alone.
      FirstBurstLength: '8192',
      InitialR2T: 'Yes',
    });
  });

  it('agrees to no digest, whatever is offered', () => {
    const step = targetLogin(ISER_OFFERS).handleRequest(
      request(OPEN_ISCSI.concat(' HeaderDigest=CRC32C,None DataDigest=CRC32C')),
    );
    expect(answerOf(step)).toMatchObject({ HeaderDigest: 'None', DataDigest: 'Reject' });
    expect(step.complete?.data).toMatchObject({ headerDigest: false, dataDigest: false });
  });

  it.each([
    ['8192', '4096', 4096, 8192],
    ['512', '8192', 8192, 512],
  ])('takes the smaller receive lengths: %s for the initiator, %s for the target', (initiator, target, receives, sends) => {
    const text = OPEN_ISCSI.replace('DataSegmentLength=262144', `DataSegmentLength=${initiator}`).replace(
      'TargetRecvDataSegmentLength=8192',
      `TargetRecvDataSegmentLength=${target}`,
    );
    expect(targetLogin(ISER_OFFERS).handleRequest(request(text)).complete?.data).toMatchObject({
      maxRecvDataSegmentLength: receives,
      maxSendDataSegmentLength: sends,
    });
  });

  it('proposes RDMAExtensions to an initiator that has left it out, and waits for the answer', () => {
    const machine = targetLogin(ISER_OFFERS);
    const proposal = machine.handleRequest(request(OPEN_ISCSI.replace(' RDMAExtensions=Yes', '')));
    expect(proposal.pdu.transit).toBe(false);
    expect(answerOf(proposal)).toMatchObject({ RDMAExtensions: 'Yes' });
    expect(machine.handleRequest(request('RDMAExtensions=Yes')).complete?.keys.RDMAExtensions).toBe(true);
  });

  it.each([
    ['says No', 'RDMAExtensions=No', 'the initiator does not do iSER over its RDMA connection'],
    ['wants a Hello', 'RDMAExtensions=Yes iSERHelloRequired=Yes', 'the initiator wants an iSER Hello'],
  ])('refuses an initiator that %s', (_name, keys, reason) => {
    const step = targetLogin(ISER_OFFERS).handleRequest(request(OPEN_ISCSI.replace('RDMAExtensions=Yes', keys)));
    expect(step).toMatchObject({ failed: true, pdu: { statusClass: 2 }, reason: expect.stringContaining(reason) });
  });

  it('takes iSERHelloRequired=No and MaxOutstandingUnexpectedPDUs without an answer', () => {
    const step = targetLogin(ISER_OFFERS).handleRequest(request(OPEN_ISCSI.concat(OTHER_OFFERS)));
    expect(step.complete?.keys.MaxOutstandingUnexpectedPDUs).toBe(16);
    expect(Object.keys(answerOf(step))).not.toContain('iSERHelloRequired');
    expect(Object.keys(answerOf(step))).not.toContain('MaxOutstandingUnexpectedPDUs');
  });

  it('opens a discovery session without the extensions', () => {
    const text = `InitiatorName=iqn.2024-01.test:kernel SessionType=Discovery MaxRecvDataSegmentLength=4096 RDMAExtensions=Yes ${recvLengths}`;
    const step = targetLogin({ MaxRecvDataSegmentLength: '8192' }).handleRequest(request(text));
    expect(step.complete).toMatchObject({ keys: { RDMAExtensions: false }, data: { maxSendDataSegmentLength: 4096 } });
  });
});

describe('the target over TCP', () => {
  it('answers No to RDMAExtensions, and the session goes on without', () => {
    const step = targetLogin({ HeaderDigest: 'None', DataDigest: 'None', MaxRecvDataSegmentLength: '262144' }).handleRequest(
      request(OPEN_ISCSI),
    );
    expect(answerOf(step)).toMatchObject({ RDMAExtensions: 'No' });
    expect(step.complete).toMatchObject({ keys: { RDMAExtensions: false }, data: { maxRecvDataSegmentLength: 262_144 } });
  });
});
