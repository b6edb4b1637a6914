/** The two login machines against each other, every PDU through its wire form. */

import { describe, expect, it } from 'vitest';
import type { KeyOffers } from '../../../../src/iser/datamover/datamover.ts';
import { CHAP_ALGORITHMS_BY_STRENGTH } from '../../../../src/iser/iscsi/chap.ts';
import {
  type ChapOptions,
  InitiatorLogin,
  type InitiatorLoginOptions,
  type LoginStep,
  TargetLogin,
  type TargetLoginDecision,
  type TargetLoginOptions,
  type TargetLoginResult,
} from '../../../../src/iser/iscsi/login.ts';
import { decodePdu, encodeBhs, type Pdu } from '../../../../src/iser/iscsi/pdu.ts';
import { serialAdd } from '../../../../src/iser/iscsi/serial.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

const secret = (text: string) => new TextEncoder().encode(text);
const alice = { user: 'alice', secret: secret('the initiator is it') };
const storage = { user: 'storage', secret: secret('the target is it, too') };
const offers: KeyOffers = { HeaderDigest: 'None', DataDigest: 'None', MaxRecvDataSegmentLength: '262144' };
const targetOffers: KeyOffers = { HeaderDigest: 'CRC32C,None', DataDigest: 'CRC32C,None', MaxRecvDataSegmentLength: '65536' };

function initiatorLogin(options: Partial<InitiatorLoginOptions> = {}): InitiatorLogin {
  return new InitiatorLogin({
    initiatorName: 'iqn.2026-01.org.example:initiator',
    sessionType: 'normal',
    targetName: 'iqn.2026-01.org.example:target',
    isid: 0x80a1b2c3d4e5,
    tsih: 0,
    cid: 3,
    cmdSn: 0xfffffffe,
    initialItt: 7,
    offers,
    random: randomFrom(1),
    ...options,
  });
}

function targetLogin(decision: Partial<TargetLoginDecision> = {}, options: Partial<TargetLoginOptions> = {}): TargetLogin {
  return new TargetLogin({
    accept: () => ({ ok: true, tsih: 0x1234, tpgt: 9, ...decision }) as TargetLoginDecision,
    offers: () => targetOffers,
    random: randomFrom(2),
    ...options,
  });
}

function randomFrom(seed: number): (length: number) => Uint8Array {
  const random = new SeededRandom(seed);
  return (length) => random.bytes(length);
}

interface Outcome {
  readonly step: LoginStep & { type: 'complete' | 'redirect' };
  readonly target: TargetLoginResult | undefined;
  readonly requests: Pdu<'login-request'>[];
  readonly responses: Pdu<'login-response'>[];
}

function onTheWire<P extends Pdu<'login-request'> | Pdu<'login-response'>>(pdu: P): P {
  expect(pdu.data.length).toBeLessThanOrEqual(8192);
  return decodePdu(encodeBhs(pdu), pdu.data.slice()) as P;
}

function logIn(initiator: InitiatorLogin, target: TargetLogin): Outcome {
  const requests: Pdu<'login-request'>[] = [];
  const responses: Pdu<'login-response'>[] = [];
  let request = initiator.start();
  for (let round = 0; round < 50; round++) {
    requests.push(onTheWire(request));
    const answer = target.handleRequest(onTheWire(request));
    responses.push(onTheWire(answer.pdu));
    const step = initiator.handleResponse(onTheWire(answer.pdu));
    if (step.type !== 'send') return { step, target: answer.complete, requests, responses };
    expect(answer.complete).toBeUndefined();
    expect(answer.failed).toBeUndefined();
    request = step.pdu;
  }
  throw new Error('the login does not end');
}

function completed(outcome: Outcome) {
  if (outcome.step.type !== 'complete' || outcome.target === undefined) throw new Error('the login did not complete');
  return { initiator: outcome.step.result, target: outcome.target };
}

describe('a login without authentication', () => {
  it('takes two exchanges and agrees on everything', () => {
    const outcome = logIn(initiatorLogin(), targetLogin());
    expect(outcome.requests).toHaveLength(2);
    const { initiator, target } = completed(outcome);
    expect(initiator).toMatchObject({
      tsih: 0x1234,
      cmdSn: 0xfffffffe,
      expCmdSn: 0xfffffffe,
      maxCmdSn: 0xfffffffe,
      targetPortalGroupTag: 9,
      authenticated: false,
      mutualAuthenticated: false,
    });
    expect(initiator.expStatSn).toBe(target.statSn);
    expect(initiator.data).toEqual({
      headerDigest: false,
      dataDigest: false,
      maxSendDataSegmentLength: 65536,
      maxRecvDataSegmentLength: 262144,
      maxBurstLength: 1048576,
      firstBurstLength: 262144,
      initialR2T: false,
      immediateData: true,
      maxOutstandingR2T: 1,
    });
    expect(target).toMatchObject({
      initiatorName: 'iqn.2026-01.org.example:initiator',
      targetName: 'iqn.2026-01.org.example:target',
      sessionType: 'normal',
      isid: 0x80a1b2c3d4e5,
      tsih: 0x1234,
      cid: 3,
      cmdSn: 0xfffffffe,
    });
    expect(target.data).toEqual({ ...initiator.data, maxSendDataSegmentLength: 262144, maxRecvDataSegmentLength: 65536 });
  });

  it('puts every operational key in the first operational request', () => {
    const { requests } = logIn(initiatorLogin(), targetLogin());
    const text = new TextDecoder().decode(requests[1]?.data);
    expect(text.split('\0').filter((pair) => pair !== '')).toEqual([
      'HeaderDigest=None',
      'DataDigest=None',
      'MaxRecvDataSegmentLength=262144',
      'MaxConnections=1',
      'ErrorRecoveryLevel=0',
      'DataPDUInOrder=Yes',
      'DataSequenceInOrder=Yes',
      'InitialR2T=No',
      'ImmediateData=Yes',
      'FirstBurstLength=262144',
      'MaxBurstLength=1048576',
      'MaxOutstandingR2T=1',
      'DefaultTime2Wait=0',
      'DefaultTime2Retain=0',
    ]);
  });

  it('for discovery leaves out what has no meaning there, and names no target', () => {
    const outcome = logIn(discoveryLogin(), targetLogin());
    const texts = outcome.requests.map(({ data }) => new TextDecoder().decode(data)).join('');
    expect(texts).toContain('SessionType=Discovery');
    expect(texts).not.toMatch(/TargetName|MaxBurstLength|InitialR2T|MaxConnections/);
    const { initiator, target } = completed(outcome);
    expect(target.sessionType).toBe('discovery');
    expect(target.targetName).toBeUndefined();
    expect(initiator.targetPortalGroupTag).toBeUndefined();
  });

  it('lets the initiator send as many commands as the target has room for', () => {
    const { initiator } = completed(logIn(initiatorLogin(), targetLogin({}, { windowSize: 32 })));
    expect(initiator.maxCmdSn).toBe(serialAdd(0xfffffffe, 31));
  });

  it('may also skip the security stage, as some initiators do', () => {
    const target = targetLogin();
    const first = initiatorLogin().start();
    const answer = target.handleRequest({
      ...first,
      csg: 1,
      nsg: 3,
      data: secret('InitiatorName=iqn.2026-01.org.example:i\0TargetName=iqn.2026-01.org.example:t\0'),
    });
    expect(answer.complete).toMatchObject({ sessionType: 'normal', authenticated: false });
    expect(answer.pdu).toMatchObject({ transit: true, csg: 1, nsg: 3, tsih: 0x1234, statusClass: 0 });
  });
});

describe('digests', () => {
  it('are agreed on where both sides have them', () => {
    const { initiator, target } = completed(
      logIn(initiatorLogin({ offers: { ...offers, HeaderDigest: 'CRC32C', DataDigest: 'CRC32C,None' } }), targetLogin()),
    );
    expect(initiator.data).toMatchObject({ headerDigest: true, dataDigest: true });
    expect(target.data).toMatchObject({ headerDigest: true, dataDigest: true });
  });

  it('that only one side has are refused by the side that requires them', () => {
    const without = targetLogin({}, { offers: () => ({ HeaderDigest: 'None', DataDigest: 'None' }) });
    expect(() => logIn(initiatorLogin({ offers: { ...offers, HeaderDigest: 'CRC32C' } }), without)).toThrow(
      expect.objectContaining({ code: 'login-refused', message: expect.stringContaining('HeaderDigest=CRC32C') }),
    );
    const requiring = targetLogin({}, { offers: () => ({ HeaderDigest: 'CRC32C' }) });
    expect(() => logIn(initiatorLogin(), requiring)).toThrow(expect.objectContaining({ code: 'login-refused', statusClass: 2 }));
  });

  it('that the target requires are offered by it where the initiator says nothing of them', () => {
    const target = targetLogin({}, { offers: () => ({ HeaderDigest: 'CRC32C' }) });
    expect(() => logIn(initiatorLogin({ offers: {} }), target)).toThrow(
      expect.objectContaining({ code: 'login-refused', statusClass: 2, statusDetail: 0 }),
    );
  });
});

describe('keys of RDMA', () => {
  it('decide on the data segments in place of MaxRecvDataSegmentLength', () => {
    const rdma = { RDMAExtensions: 'Yes', InitiatorRecvDataSegmentLength: '16384', TargetRecvDataSegmentLength: '8192' };
    const { initiator, target } = completed(
      logIn(
        initiatorLogin({ offers: rdma }),
        targetLogin({}, { offers: () => ({ ...rdma, InitiatorRecvDataSegmentLength: '12288' }) }),
      ),
    );
    expect(initiator.data).toMatchObject({ maxSendDataSegmentLength: 8192, maxRecvDataSegmentLength: 12288 });
    expect(target.data).toMatchObject({ maxSendDataSegmentLength: 12288, maxRecvDataSegmentLength: 8192 });
  });
});

describe('CHAP in a login', () => {
  it.each(CHAP_ALGORITHMS_BY_STRENGTH)('%s, one way and mutual', (algorithm) => {
    for (const encoding of ['hex', 'base64'] as const) {
      const chap: ChapOptions = { credentials: alice, algorithms: [algorithm], encoding };
      const oneWay = completed(logIn(initiatorLogin({ chap }), targetLogin({ chap: { credentials: alice } })));
      expect(oneWay.initiator).toMatchObject({ authenticated: true, mutualAuthenticated: false });
      expect(oneWay.target.authenticated).toBe(true);
      const both = completed(
        logIn(
          initiatorLogin({ chap: { ...chap, mutual: storage } }),
          targetLogin({ chap: { credentials: alice, mutual: storage } }),
        ),
      );
      expect(both.initiator).toMatchObject({ authenticated: true, mutualAuthenticated: true });
    }
  });

  it('is not done where the target does not ask for it, unless the target was to prove itself', () => {
    const { initiator } = completed(logIn(initiatorLogin({ chap: { credentials: alice } }), targetLogin()));
    expect(initiator.authenticated).toBe(false);
    expect(() => logIn(initiatorLogin({ chap: { credentials: alice, mutual: storage } }), targetLogin())).toThrow(
      expect.objectContaining({ code: 'authentication-failed' }),
    );
  });

  it.each<[string, ChapOptions | undefined]>([
    ['no credentials', undefined],
    ['a wrong secret', { credentials: { user: 'alice', secret: secret('not this one, surely') } }],
    ['a wrong user', { credentials: { ...alice, user: 'mallory' } }],
    ['no algorithm that the target takes', { credentials: alice, algorithms: ['MD5'] }],
    ['a wish for a proof that the target cannot give', { credentials: alice, mutual: storage }],
  ])('is failed by an initiator with %s', (_, chap) => {
    const target = targetLogin({ chap: { credentials: alice } }, { algorithms: ['SHA-256', 'SHA3-256'] });
    const initiator = initiatorLogin(chap === undefined ? {} : { chap });
    expect(() => logIn(initiator, target)).toThrow(
      expect.objectContaining({ code: 'authentication-failed', statusClass: 2, statusDetail: 1, hint: expect.any(String) }),
    );
    expect(initiator.chapRetry).toBeUndefined();
  });

  it('is failed by a target with a wrong secret of its own', () => {
    const target = targetLogin({ chap: { credentials: alice, mutual: { ...storage, secret: secret('stolen, and wrong') } } });
    expect(() => logIn(initiatorLogin({ chap: { credentials: alice, mutual: storage } }), target)).toThrow(
      expect.objectContaining({ code: 'authentication-failed', message: expect.stringContaining('target did not prove') }),
    );
  });

  it('cannot be skipped by starting in the operational stage', () => {
    const target = targetLogin({ chap: { credentials: alice } });
    const answer = target.handleRequest({
      ...initiatorLogin().start(),
      csg: 1,
      nsg: 3,
      data: secret('InitiatorName=iqn.2026-01.org.example:i\0TargetName=iqn.2026-01.org.example:t\0'),
    });
    expect(answer).toMatchObject({ failed: true, pdu: { statusClass: 2, statusDetail: 1, transit: false } });
    expect(answer.complete).toBeUndefined();
  });
});

describe('a redirect', () => {
  it.each([
    [1, false],
    [2, true],
  ])('with status 010%i is permanent: %s', (statusDetail, permanent) => {
    const target = targetLogin({ ok: false, statusClass: 1, statusDetail, targetAddress: '[2001:db8::7]:3261,4' });
    const { step } = logIn(initiatorLogin(), target);
    expect(step).toEqual({ type: 'redirect', portal: { host: '2001:db8::7', port: 3261, tpgt: 4 }, permanent });
  });
});

describe('text that does not fit in one PDU', () => {
  it('is continued in both directions, in security and after it', () => {
    const long = { user: 'u'.repeat(20_000), secret: alice.secret };
    const longBack = { user: 't'.repeat(30_000), secret: storage.secret };
    const outcome = logIn(
      initiatorLogin({ chap: { credentials: long, mutual: longBack } }),
      targetLogin({ chap: { credentials: long, mutual: longBack } }, { targetAlias: 'a'.repeat(20_000) }),
    );
    const { initiator } = completed(outcome);
    expect(initiator.mutualAuthenticated).toBe(true);
    expect(initiator.targetAlias).toBe('a'.repeat(20_000));
    expect(outcome.requests.filter((request) => request.continue)).toHaveLength(2);
    expect(outcome.responses.filter((response) => response.continue)).toHaveLength(5);
    for (const [index, { continue: continues, transit }] of outcome.requests.entries()) {
      if (!continues) continue;
      expect(transit).toBe(false);
      // The peer of one who continues says nothing.
      expect(outcome.responses[index]).toMatchObject({ continue: false, transit: false, data: new Uint8Array(0) });
    }
  });

  it('is given up beyond 64 KiB', () => {
    const long = { user: 'u'.repeat(70_000), secret: alice.secret };
    expect(() => logIn(initiatorLogin({ chap: { credentials: long } }), targetLogin({ chap: { credentials: long } }))).toThrow(
      expect.objectContaining({ code: 'authentication-failed', statusClass: 2, statusDetail: 0 }),
    );
  });
});

describe('every combination of options', () => {
  it('ends in the same view on both sides (120 seeds)', () => {
    for (let seed = 0; seed < 120; seed++) {
      const random = new SeededRandom(seed);
      const { ours, theirs, decision, discovery } = combination(random);
      const initiator = discovery ? discoveryLogin(ours) : initiatorLogin(ours);
      const outcome = logIn(initiator, targetLogin(decision, theirs));
      const results = completed(outcome);
      const [one, other] = [results.initiator.data, results.target.data];
      expect({ ...one, maxSendDataSegmentLength: 0, maxRecvDataSegmentLength: 0 }, `seed ${seed}`).toEqual({
        ...other,
        maxSendDataSegmentLength: 0,
        maxRecvDataSegmentLength: 0,
      });
      expect(one.maxSendDataSegmentLength).toBe(other.maxRecvDataSegmentLength);
      expect(other.maxSendDataSegmentLength).toBe(one.maxRecvDataSegmentLength);
      expect(one.firstBurstLength).toBeLessThanOrEqual(one.maxBurstLength);
      expect(results.initiator.expStatSn).toBe(results.target.statSn);
      expect(results.initiator.mutualAuthenticated).toBe(decision.chap?.mutual !== undefined && ours.chap?.mutual !== undefined);
      expect(results.initiator.authenticated).toBe(decision.chap !== undefined);
      // StatSN counts the responses; T is granted only where it was asked for.
      outcome.responses.forEach((response, index) => {
        expect(response.statSn).toBe(serialAdd(outcome.responses[0]?.statSn ?? 0, index));
        if (response.transit) expect(outcome.requests[index]?.transit).toBe(true);
        expect(response.tsih).toBe(index === outcome.responses.length - 1 ? 0x1234 : 0);
      });
      for (const request of outcome.requests) expect(request).toMatchObject({ cmdSn: 0xfffffffe, itt: 7, cid: 3, tsih: 0 });
    }
  });
});

function discoveryLogin(options: Partial<InitiatorLoginOptions> = {}): InitiatorLogin {
  return new InitiatorLogin({
    initiatorName: 'iqn.2026-01.org.example:initiator',
    sessionType: 'discovery',
    isid: 0x80a1b2c3d4e5,
    tsih: 0,
    cid: 3,
    cmdSn: 0xfffffffe,
    initialItt: 7,
    offers,
    random: randomFrom(1),
    ...options,
  });
}

function combination(random: SeededRandom) {
  const digests = ['None', 'CRC32C,None', 'None,CRC32C'] as const;
  const pick = <T>(from: readonly T[]): T => from[random.between(0, from.length - 1)] as T;
  const keys = () => ({
    InitialR2T: random.fraction() < 0.5,
    ImmediateData: random.fraction() < 0.5,
    FirstBurstLength: random.between(512, 1 << 18),
    MaxBurstLength: random.between(512, 1 << 20),
    MaxOutstandingR2T: random.between(1, 16),
    DefaultTime2Wait: random.between(0, 10),
    DefaultTime2Retain: random.between(0, 60),
  });
  const movers = (): KeyOffers => ({
    ...(random.fraction() < 0.8 ? { HeaderDigest: pick(digests) } : {}),
    ...(random.fraction() < 0.8 ? { DataDigest: pick(digests) } : {}),
    ...(random.fraction() < 0.8 ? { MaxRecvDataSegmentLength: String(random.between(512, 1 << 20)) } : {}),
  });
  const discovery = random.fraction() < 0.2;
  const kind = pick(['none', 'offered', 'one way', 'mutual', 'mutual']);
  const long = (name: string) => (random.fraction() < 0.15 ? name.repeat(random.between(1000, 5000)) : name);
  const [inbound, outbound] = [
    { user: long('alice'), secret: random.bytes(random.between(1, 40)) },
    { user: long('storage'), secret: random.bytes(random.between(41, 50)) },
  ];
  const usable = CHAP_ALGORITHMS_BY_STRENGTH.filter(() => random.fraction() < 0.6);
  const chap: ChapOptions = {
    credentials: inbound,
    encoding: pick(['hex', 'base64']),
    ...(kind === 'mutual' ? { mutual: outbound } : {}),
    algorithms: [...usable, 'MD5'],
  };
  const ours: Partial<InitiatorLoginOptions> = {
    offers: movers(),
    ...(random.fraction() < 0.8 ? { sessionKeys: keys() } : {}),
    ...(kind === 'none' ? {} : { chap }),
    random: randomFrom(random.between(0, 1 << 30)),
  };
  const decision: Partial<TargetLoginDecision> & { chap?: { credentials: typeof inbound; mutual?: typeof outbound } } =
    kind === 'one way' || kind === 'mutual' ? { chap: { credentials: inbound, mutual: outbound } } : {};
  const mover = movers();
  const theirs: Partial<TargetLoginOptions> = {
    offers: () => mover,
    ...(random.fraction() < 0.8 ? { sessionKeys: keys() } : {}),
    ...(random.fraction() < 0.3 ? { targetAlias: long('alias') } : {}),
    windowSize: random.between(1, 200),
    random: randomFrom(random.between(0, 1 << 30)),
  };
  return { ours, theirs, decision, discovery };
}
