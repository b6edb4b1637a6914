import { describe, expect, it } from 'vitest';
import { ProtocolError } from '../../../../src/errors.ts';
import { type KeyName, keyTable, parseNumber, parseValue, rowOf } from '../../../../src/iser/iscsi/keys.ts';
import { Negotiation } from '../../../../src/iser/iscsi/negotiation.ts';

type Wants = Record<string, string>;

const initiator = (wants: Wants, sessionType: 'normal' | 'discovery' = 'normal') =>
  new Negotiation({ role: 'initiator', sessionType, wants });
const target = (wants: Wants, sessionType: 'normal' | 'discovery' = 'normal') =>
  new Negotiation({ role: 'target', sessionType, wants });

/** Both sides until neither has anything to say. */
function negotiate(ours: Wants, theirs: Wants, sessionType: 'normal' | 'discovery' = 'normal') {
  const [one, other] = [initiator(ours, sessionType), target(theirs, sessionType)];
  let pairs = one.offer();
  for (let round = 0; round < 3; round++) {
    const answers = [...other.receive(pairs), ...other.supplement()];
    pairs = one.receive(answers);
  }
  expect(one.isWaiting).toBe(false);
  expect(other.isWaiting).toBe(false);
  return { initiator: one.result(), target: other.result() };
}

describe('the table of keys', () => {
  // RFC 7143 §13, RFC 7145 §6: default, least, most.
  it.each<[KeyName, boolean | number | string | undefined, number?, number?]>([
    ['HeaderDigest', 'None'],
    ['DataDigest', 'None'],
    ['MaxConnections', 1, 1, 65535],
    ['InitialR2T', true],
    ['ImmediateData', true],
    ['MaxRecvDataSegmentLength', 8192, 512, 16777215],
    ['MaxBurstLength', 262144, 512, 16777215],
    ['FirstBurstLength', 65536, 512, 16777215],
    ['DefaultTime2Wait', 2, 0, 3600],
    ['DefaultTime2Retain', 20, 0, 3600],
    ['MaxOutstandingR2T', 1, 1, 65535],
    ['DataPDUInOrder', true],
    ['DataSequenceInOrder', true],
    ['ErrorRecoveryLevel', 0, 0, 2],
    ['TaskReporting', 'RFC3720'],
    ['iSCSIProtocolLevel', 1, 0, 31],
    ['TargetPortalGroupTag', undefined, 0, 65535],
    ['RDMAExtensions', false],
    ['TargetRecvDataSegmentLength', 8192, 512, 16777215],
    ['InitiatorRecvDataSegmentLength', 8192, 512, 16777215],
    ['MaxOutstandingUnexpectedPDUs', 0, 0, 4294967295],
  ])('%s: default and range are the RFC’s', (name, initial, least, most) => {
    expect(initiator({}).result()[name]).toBe(initial);
    if (least === undefined || most === undefined) return;
    const row = rowOf(name);
    expect(parseValue(row, String(least))).toBe(least);
    expect(parseValue(row, String(most))).toBe(most);
    expect(parseValue(row, String(most + 1))).toBeUndefined();
    if (least > 0) expect(parseValue(row, String(least - 1))).toBeUndefined();
  });

  it('reads numbers in decimal and hexadecimal and nothing else', () => {
    expect(parseNumber('262144')).toBe(262144);
    expect(parseNumber('0x40000')).toBe(262144);
    expect(parseNumber('0XfF')).toBe(255);
    for (const text of ['', '-1', '1.5', '1e3', ' 1', '1 ', '0x', '0b1', 'None', '1,2', '٣', '9'.repeat(16)]) {
      expect(parseNumber(text)).toBeUndefined();
    }
  });
});

describe('negotiating a value', () => {
  it.each<[KeyName, string, string | undefined, boolean | number | string]>([
    ['InitialR2T', 'No', 'No', false],
    ['InitialR2T', 'No', 'Yes', true],
    ['InitialR2T', 'Yes', 'No', true],
    ['InitialR2T', 'No', undefined, true],
    ['ImmediateData', 'Yes', 'Yes', true],
    ['ImmediateData', 'Yes', 'No', false],
    ['ImmediateData', 'No', 'Yes', false],
    ['MaxBurstLength', '1048576', '524288', 524288],
    ['MaxBurstLength', '1048576', undefined, 262144],
    ['MaxBurstLength', '512', '16777215', 512],
    ['DefaultTime2Wait', '0', '5', 5],
    ['DefaultTime2Wait', '7', '5', 7],
    ['DefaultTime2Retain', '0', '20', 0],
    ['MaxOutstandingR2T', '16', '4', 4],
    ['ErrorRecoveryLevel', '2', '0', 0],
    ['HeaderDigest', 'CRC32C,None', 'None,CRC32C', 'CRC32C'],
    ['HeaderDigest', 'None,CRC32C', 'CRC32C,None', 'None'],
    ['HeaderDigest', 'CRC32C,None', 'None', 'None'],
    ['HeaderDigest', 'CRC32C,None', undefined, 'None'],
    ['DataDigest', 'CRC32C', 'CRC32C,None', 'CRC32C'],
    ['RDMAExtensions', 'Yes', 'Yes', true],
    ['TargetRecvDataSegmentLength', '262144', '8192', 8192],
  ])('%s: %s offered to a target that wants %s', (name, offered, wanted, outcome) => {
    const results = negotiate({ [name]: offered }, wanted === undefined ? {} : { [name]: wanted });
    expect(results.initiator[name]).toBe(outcome);
    expect(results.target[name]).toBe(outcome);
  });

  it('keeps each side’s declaration apart', () => {
    const results = negotiate({ MaxRecvDataSegmentLength: '262144' }, { MaxRecvDataSegmentLength: '65536' });
    expect(results.initiator.MaxRecvDataSegmentLength).toBe(65536);
    expect(results.target.MaxRecvDataSegmentLength).toBe(262144);
  });

  it('takes a value that no answer came for as it is by default', () => {
    const one = initiator({ MaxBurstLength: '1048576' });
    one.offer();
    expect(one.isWaiting).toBe(true);
    expect(one.result().MaxBurstLength).toBe(262144);
  });

  it.each(['NotUnderstood', 'Irrelevant', 'Reject'])('takes the default after %s', (answer) => {
    const one = initiator({ MaxBurstLength: '1048576', InitialR2T: 'No' });
    one.offer();
    one.receive([
      ['MaxBurstLength', answer],
      ['InitialR2T', answer],
    ]);
    expect(one.isWaiting).toBe(false);
    expect(one.result()).toMatchObject({ MaxBurstLength: 262144, InitialR2T: true });
  });
});

describe('what a side insists on', () => {
  it.each([
    [{ HeaderDigest: 'CRC32C' }, {}],
    [{ DataDigest: 'CRC32C' }, { DataDigest: 'None' }],
    [{ RDMAExtensions: 'Yes' }, {}],
  ])('%o: the login is refused where the target does not agree', (ours, theirs) => {
    expect(() => negotiate(ours, theirs)).toThrow(expect.objectContaining({ code: 'login-refused' }));
  });

  it('is refused also where the target answers with a value that was not offered, as tgtd does', () => {
    const one = initiator({ DataDigest: 'CRC32C' });
    one.offer();
    one.receive([['DataDigest', 'None']]);
    expect(() => one.result()).toThrow(expect.objectContaining({ code: 'login-refused' }));
  });

  it('is offered by a target where the initiator says nothing of it', () => {
    const other = target({ HeaderDigest: 'CRC32C', DataDigest: 'CRC32C,None', MaxBurstLength: '1024' });
    expect(other.receive([])).toEqual([]);
    expect(other.supplement()).toEqual([['HeaderDigest', 'CRC32C']]);
    const answer = initiator({ HeaderDigest: 'None,CRC32C' }).receive([['HeaderDigest', 'CRC32C']]);
    expect(answer).toEqual([['HeaderDigest', 'CRC32C']]);
    other.receive(answer);
    expect(other.result().HeaderDigest).toBe('CRC32C');
  });

  it('is not had by a target whose offer the initiator rejects', () => {
    const other = target({ HeaderDigest: 'CRC32C' });
    other.supplement();
    const answer = initiator({}).receive([['HeaderDigest', 'CRC32C']]);
    expect(answer).toEqual([['HeaderDigest', 'Reject']]);
    other.receive(answer);
    expect(() => other.result()).toThrow(expect.objectContaining({ code: 'login-refused' }));
  });
});

describe('answers', () => {
  it('say NotUnderstood to a key that is in no table, and nothing to a constant', () => {
    const one = target({});
    expect(
      one.receive([
        ['X-com.example.key', '1'],
        ['Fancy', 'Yes'],
        ['Other', 'NotUnderstood'],
      ]),
    ).toEqual([
      ['X-com.example.key', 'NotUnderstood'],
      ['Fancy', 'NotUnderstood'],
    ]);
  });

  it('say Reject to a value out of range or malformed, and keep the default', () => {
    const one = target({});
    expect(
      one.receive([
        ['MaxBurstLength', '511'],
        ['InitialR2T', 'no'],
        ['DefaultTime2Wait', '3601'],
        ['HeaderDigest', 'MD5'],
      ]),
    ).toEqual([
      ['MaxBurstLength', 'Reject'],
      ['InitialR2T', 'Reject'],
      ['DefaultTime2Wait', 'Reject'],
      ['HeaderDigest', 'Reject'],
    ]);
    expect(one.result()).toMatchObject({ MaxBurstLength: 262144, InitialR2T: true, DefaultTime2Wait: 2, HeaderDigest: 'None' });
  });

  it('say Irrelevant in a discovery session to what has no meaning there', () => {
    const one = target({ MaxBurstLength: '1048576' }, 'discovery');
    expect(
      one.receive([
        ['MaxBurstLength', '65536'],
        ['MaxConnections', '1'],
        ['HeaderDigest', 'None'],
        ['ErrorRecoveryLevel', '0'],
      ]),
    ).toEqual([
      ['MaxBurstLength', 'Irrelevant'],
      ['MaxConnections', 'Irrelevant'],
      ['HeaderDigest', 'None'],
      ['ErrorRecoveryLevel', '0'],
    ]);
  });

  it('never say NotUnderstood to the markers of RFC 3720', () => {
    expect(
      target({}).receive([
        ['IFMarker', 'No'],
        ['OFMarker', 'Yes'],
        ['IFMarkInt', '2048~8192'],
        ['OFMarkInt', '2048'],
      ]),
    ).toEqual([
      ['IFMarker', 'No'],
      ['OFMarker', 'No'],
      ['IFMarkInt', 'Reject'],
      ['OFMarkInt', 'Reject'],
    ]);
  });

  it('are given by an initiator too: offers of LIO over iSER', () => {
    const one = initiator({ RDMAExtensions: 'Yes', InitiatorRecvDataSegmentLength: '8192', TargetRecvDataSegmentLength: '8192' });
    expect(
      one.receive([
        ['RDMAExtensions', 'Yes'],
        ['InitiatorRecvDataSegmentLength', '262144'],
      ]),
    ).toEqual([
      ['RDMAExtensions', 'Yes'],
      ['InitiatorRecvDataSegmentLength', '8192'],
    ]);
  });
});

describe('offers', () => {
  it('leave out in a discovery session what has no meaning there', () => {
    const names = initiator({ HeaderDigest: 'None', MaxBurstLength: '65536', MaxRecvDataSegmentLength: '8192' }, 'discovery')
      .offer()
      .map(([name]) => name);
    expect(names).toEqual(['HeaderDigest', 'MaxRecvDataSegmentLength']);
  });

  it('are made once', () => {
    const one = initiator({ HeaderDigest: 'None' });
    expect(one.offer()).toEqual([['HeaderDigest', 'None']]);
    expect(one.offer()).toEqual([]);
  });

  it.each([
    ['MaxBurstLength', '1'],
    ['InitialR2T', 'maybe'],
    ['NoSuchKey', '1'],
  ])('%s=%s: refused when the negotiation is made', (name, value) => {
    expect(() => initiator({ [name]: value })).toThrow(expect.objectContaining({ code: 'bad-configuration' }));
  });
});

describe('what breaks the protocol', () => {
  it.each([
    ['a boolean that was not offered', { ImmediateData: 'No' }, 'ImmediateData', 'Yes'],
    ['a No where Yes was offered to OR', { InitialR2T: 'Yes' }, 'InitialR2T', 'No'],
    ['more than was offered', { MaxBurstLength: '65536' }, 'MaxBurstLength', '65537'],
    ['less than was offered to MAX', { DefaultTime2Wait: '5' }, 'DefaultTime2Wait', '4'],
    ['a digest that does not exist', { HeaderDigest: 'CRC32C,None' }, 'HeaderDigest', 'CRC64'],
    ['a number out of range', { MaxBurstLength: '65536' }, 'MaxBurstLength', '1'],
    ['no number', { MaxBurstLength: '65536' }, 'MaxBurstLength', 'many'],
    ['an empty value', { HeaderDigest: 'None' }, 'HeaderDigest', ''],
  ])('%s as an answer', (_, wants, name, answer) => {
    const one = initiator(wants);
    one.offer();
    expect(() => one.receive([[name, answer]])).toThrow(ProtocolError);
  });

  it('a second answer', () => {
    const one = initiator({ MaxBurstLength: '65536' });
    one.offer();
    one.receive([['MaxBurstLength', '65536']]);
    expect(() => one.receive([['MaxBurstLength', '65536']])).toThrow(/negotiated twice/);
  });

  it('a second offer of the same key', () => {
    const one = target({});
    one.receive([['MaxBurstLength', '65536']]);
    expect(() => one.receive([['MaxBurstLength', '1024']])).toThrow(/negotiated twice/);
  });

  it('a declaration that contradicts an earlier one; the same again is let pass', () => {
    const one = initiator({});
    one.receive([['TargetPortalGroupTag', '1']]);
    one.receive([['TargetPortalGroupTag', '1']]);
    expect(() => one.receive([['TargetPortalGroupTag', '2']])).toThrow(/declared twice/);
  });

  it.each([
    ['InitiatorName', 'iqn.2026-01.org.example:x'],
    ['TargetName', 'iqn.2026-01.org.example:x'],
    ['SessionType', 'Normal'],
  ])('%s from a target', (name, value) => {
    expect(() => initiator({}).receive([[name, value]])).toThrow(/wrong side/);
  });

  it('TargetAlias from an initiator', () => {
    expect(() => target({}).receive([['TargetAlias', 'x']])).toThrow(/wrong side/);
  });

  it('a declaration out of range', () => {
    expect(() => initiator({}).receive([['MaxRecvDataSegmentLength', '100']])).toThrow(ProtocolError);
    expect(() => initiator({}).receive([['MaxRecvDataSegmentLength', '16777216']])).toThrow(ProtocolError);
  });

  it('a constant that answers nothing', () => {
    expect(() => target({}).receive([['MaxBurstLength', 'Reject']])).toThrow(ProtocolError);
  });

  it('keeps messages short however long the value', () => {
    const one = initiator({ MaxBurstLength: '65536' });
    one.offer();
    try {
      one.receive([['MaxBurstLength', 'x'.repeat(10_000)]]);
      expect.unreachable();
    } catch (error) {
      expect(String(error).length).toBeLessThan(300);
    }
  });
});

describe('names', () => {
  it('of every key are no longer than a key may be', () => {
    for (const name of Object.keys(keyTable)) expect(name.length).toBeLessThanOrEqual(63);
  });

  it('of Object’s own members are no keys', () => {
    expect(target({}).receive([['constructor', '1']])).toEqual([['constructor', 'NotUnderstood']]);
    expect(target({}).receive([['toString', '1']])).toEqual([['toString', 'NotUnderstood']]);
  });
});
