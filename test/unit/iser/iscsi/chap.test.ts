/** CHAP against hashes computed here with node:crypto, against each other, and against tgtd's exchange (in login.test.ts). */

import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { ProtocolError } from '../../../../src/errors.ts';
import {
  CHAP_ALGORITHMS_BY_STRENGTH,
  type ChapAlgorithm,
  ChapInitiator,
  type ChapInitiatorOptions,
  ChapTarget,
  type ChapTargetOptions,
  chapAlgorithms,
  chapResponse,
  decodeBinary,
  encodeBinary,
  isShortSecret,
} from '../../../../src/iser/iscsi/chap.ts';
import type { TextPair } from '../../../../src/iser/iscsi/text.ts';
import { hex } from '../../../support/hex-vectors.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

const secret = (text: string) => new TextEncoder().encode(text);
const alice = { user: 'alice', secret: secret('the initiator is it') };
const storage = { user: 'storage', secret: secret('the target is it, too') };
const opensslNames: Record<ChapAlgorithm, string> = { MD5: 'md5', SHA1: 'sha1', 'SHA-256': 'sha256', 'SHA3-256': 'sha3-256' };

const initiator = (options: Partial<ChapInitiatorOptions> = {}, seed = 1) =>
  new ChapInitiator({ credentials: alice, random: randomFrom(seed), ...options });
const target = (options: Partial<ChapTargetOptions> = {}, seed = 2) =>
  new ChapTarget({ credentials: alice, random: randomFrom(seed), ...options });

function randomFrom(seed: number): (length: number) => Uint8Array {
  const random = new SeededRandom(seed);
  return (length) => random.bytes(length);
}

/** The exchange to its end; the keys of each message. */
function exchange(one: ChapInitiator, other: ChapTarget): Map<string, string>[] {
  const messages: Map<string, string>[] = [];
  const pass = (pairs: readonly TextPair[]) => {
    const message = new Map(pairs);
    messages.push(message);
    return message;
  };
  const challenge = pass(other.handle(pass(one.start())));
  const proof = pass(other.handle(pass(one.handle(challenge))));
  if (proof.size > 0) one.handle(proof);
  return messages;
}

describe('chapResponse', () => {
  it.each(CHAP_ALGORITHMS_BY_STRENGTH)('%s: is the hash of identifier, secret and challenge', (algorithm) => {
    const challenge = hex('000102030405060708090a0b0c0d0e0f');
    const expected = createHash(opensslNames[algorithm])
      .update(Buffer.concat([Buffer.of(0x7f), alice.secret, challenge]))
      .digest();
    expect(chapResponse(algorithm, 0x7f, alice.secret, challenge)).toEqual(new Uint8Array(expected));
    expect(expected.length).toBe(chapAlgorithms[algorithm].digestLength);
  });

  it('has the codes of the registry, the strongest first', () => {
    expect(CHAP_ALGORITHMS_BY_STRENGTH.map((algorithm) => chapAlgorithms[algorithm].code)).toEqual([8, 7, 6, 5]);
  });
});

describe('binary values', () => {
  it.each([
    ['0x00', '00'],
    ['0xDEADbeef', 'deadbeef'],
    ['0X0102', '0102'],
    ['0xabc', '0abc'],
    ['0bAAECAw==', '00010203'],
    ['0bAAECAw', '00010203'],
    ['0B/+8=', 'ffef'],
  ])('%s', (text, expected) => {
    expect(decodeBinary(text)).toEqual(hex(expected));
  });

  it.each(['', '0x', '0b', '00', '1234', '0xg0', '0x 00', '0b*', '0bA', '0b====', '0bAA=A', 'xyz'])('"%s": refused', (text) => {
    expect(decodeBinary(text)).toBeUndefined();
  });

  it('take 1024 bytes and not one more', () => {
    for (const encoding of ['hex', 'base64'] as const) {
      const most = new Uint8Array(1024).fill(0xa5);
      expect(decodeBinary(encodeBinary(most, encoding))).toEqual(most);
      expect(decodeBinary(encodeBinary(new Uint8Array(1025), encoding))).toBeUndefined();
    }
  });

  it('read what they write, in both encodings, at every length', () => {
    const random = new SeededRandom(64);
    for (let length = 1; length < 100; length++) {
      const value = random.bytes(length);
      expect(decodeBinary(encodeBinary(value, 'hex'))).toEqual(value);
      expect(decodeBinary(encodeBinary(value, 'base64'))).toEqual(value);
    }
  });
});

describe('an exchange', () => {
  const encodings = ['hex', 'base64'] as const;
  const cases = CHAP_ALGORITHMS_BY_STRENGTH.flatMap((algorithm) =>
    encodings.flatMap((one) => encodings.map((other) => [algorithm, one, other] as const)),
  );

  it.each(cases)('%s, initiator in %s, target in %s: one way and mutual', (algorithm, encoding, targetEncoding) => {
    for (const mutual of [undefined, storage]) {
      const asked = mutual === undefined ? {} : { mutual };
      const [one, other] = [
        initiator({ algorithms: [algorithm], encoding, ...asked }),
        target({ encoding: targetEncoding, ...asked }),
      ];
      const messages = exchange(one, other);
      expect(one.isDone).toBe(true);
      expect(other.isDone).toBe(true);
      expect(one.algorithm).toBe(algorithm);
      expect(messages[2]?.has('CHAP_C')).toBe(mutual !== undefined);
      // The proof, worked out again from what went over the wire.
      const identifier = Number(messages[1]?.get('CHAP_I'));
      const challenge = decodeBinary(messages[1]?.get('CHAP_C') ?? '') ?? new Uint8Array(0);
      const expected = createHash(opensslNames[algorithm])
        .update(Buffer.of(identifier))
        .update(alice.secret)
        .update(challenge)
        .digest();
      expect(decodeBinary(messages[2]?.get('CHAP_R') ?? '')).toEqual(new Uint8Array(expected));
    }
  });

  it('uses the strongest algorithm that both have', () => {
    expect(initiator().start()).toEqual([['CHAP_A', '8,7,6,5']]);
    const one = initiator();
    exchange(one, target({ algorithms: ['MD5', 'SHA1'] }));
    expect(one.algorithm).toBe('SHA1');
  });

  it('does not prove anything to a target that does not know the secret, or to a wrong initiator', () => {
    const random = new SeededRandom(99);
    for (let round = 0; round < 40; round++) {
      const wrong = { user: random.fraction() < 0.5 ? 'alice' : 'alicf', secret: random.bytes(random.between(0, 30)) };
      const refused = expect.objectContaining({ code: 'authentication-failed' });
      expect(() => exchange(initiator({ credentials: wrong }), target())).toThrow(refused);
      expect(() => exchange(initiator({ mutual: storage }), target({ mutual: wrong }))).toThrow(refused);
    }
  });

  it('is refused to the right secret with a wrong name', () => {
    const refused = expect.objectContaining({ code: 'authentication-failed' });
    expect(() => exchange(initiator({ credentials: { ...alice, user: 'bob' } }), target())).toThrow(refused);
    expect(() => exchange(initiator({ mutual: storage }), target({ mutual: { ...storage, user: 'other' } }))).toThrow(refused);
  });

  it('is refused where no algorithm is common, by either side', () => {
    const refused = expect.objectContaining({ code: 'authentication-failed' });
    expect(() => exchange(initiator({ algorithms: ['SHA3-256'] }), target({ algorithms: ['MD5'] }))).toThrow(refused);
    const one = initiator({ algorithms: ['SHA3-256'] });
    one.start();
    expect(() => one.handle(new Map([...challengeKeys(), ['CHAP_A', '5']]))).toThrow(refused);
  });

  it('is refused by a target without credentials of its own where the initiator asks for a proof', () => {
    expect(() => exchange(initiator({ mutual: storage }), target())).toThrow(
      expect.objectContaining({ code: 'authentication-failed' }),
    );
  });
});

describe('reflection', () => {
  it('is refused by the target: its own challenge comes back', () => {
    const other = target({ mutual: storage });
    const one = initiator({ mutual: storage });
    const challenge = new Map(other.handle(new Map(one.start())));
    const answer = new Map(one.handle(challenge));
    answer.set('CHAP_C', challenge.get('CHAP_C') ?? '');
    expect(() => other.handle(answer)).toThrow(expect.objectContaining({ code: 'authentication-failed' }));
  });

  it('is never done by the initiator, even if its random bytes are the target’s', () => {
    const same = (length: number) => new Uint8Array(length).fill(0x55);
    const one = initiator({ mutual: storage, random: same });
    const other = target({ mutual: storage, random: same });
    const messages = exchange(one, other);
    expect(messages[2]?.get('CHAP_C')).not.toBe(messages[1]?.get('CHAP_C'));
    expect(one.isDone).toBe(true);
  });

  it('is made impossible: one secret for both directions is refused', () => {
    const refused = expect.objectContaining({ code: 'bad-configuration' });
    expect(() => initiator({ mutual: { user: 'storage', secret: alice.secret.slice() } })).toThrow(refused);
    expect(() => target({ mutual: { user: 'storage', secret: alice.secret.slice() } })).toThrow(refused);
  });
});

describe('malformed messages', () => {
  it.each<[string, Record<string, string | undefined>]>([
    ['no CHAP_A', { CHAP_A: undefined }],
    ['no CHAP_I', { CHAP_I: undefined }],
    ['no CHAP_C', { CHAP_C: undefined }],
    ['an identifier of two bytes', { CHAP_I: '256' }],
    ['an identifier that is no number', { CHAP_I: 'x' }],
    ['a challenge that is no binary value', { CHAP_C: 'abcdef' }],
    ['a challenge that is too long', { CHAP_C: `0x${'00'.repeat(1025)}` }],
    ['an empty challenge', { CHAP_C: '0x' }],
    ['a name too early', { CHAP_N: 'storage' }],
    ['a key that does not exist', { CHAP_X: '1' }],
  ])('a challenge with %s', (_, changes) => {
    const one = initiator();
    one.start();
    expect(() => one.handle(withChanges(challengeKeys(), changes))).toThrow(ProtocolError);
  });

  it('a challenge with its identifier in hexadecimal is fine', () => {
    const one = initiator({ algorithms: ['MD5'] });
    one.start();
    const answer = new Map(one.handle(withChanges(challengeKeys(), { CHAP_I: '0x1F', CHAP_A: '0x5' })));
    const expected = chapResponse('MD5', 0x1f, alice.secret, hex('00010203'));
    expect(decodeBinary(answer.get('CHAP_R') ?? '')).toEqual(expected);
  });

  it.each<[string, Record<string, string | undefined>]>([
    ['no name', { CHAP_N: undefined }],
    ['no response', { CHAP_R: undefined }],
    ['a malformed response', { CHAP_R: '1234' }],
    ['a challenge and no identifier', { CHAP_C: '0x00112233' }],
    ['an identifier and no challenge', { CHAP_I: '1' }],
    ['another offer', { CHAP_A: '5' }],
  ])('a proof with %s', (_, changes) => {
    const [one, other] = [initiator(), target({ mutual: storage })];
    const answer = one.handle(new Map(other.handle(new Map(one.start()))));
    expect(() => other.handle(withChanges(new Map(answer), changes))).toThrow(ProtocolError);
  });

  it('a proof of the wrong length is no proof', () => {
    const [one, other] = [initiator(), target()];
    const answer = one.handle(new Map(other.handle(new Map(one.start()))));
    expect(() => other.handle(withChanges(new Map(answer), { CHAP_R: '0x00' }))).toThrow(
      expect.objectContaining({ code: 'authentication-failed' }),
    );
  });

  it('a second proof after the exchange', () => {
    const [one, other] = [initiator(), target()];
    const messages = exchange(one, other);
    expect(() => other.handle(messages[2] ?? new Map())).toThrow(ProtocolError);
    expect(() => one.handle(messages[1] ?? new Map())).toThrow(ProtocolError);
  });

  it('never show a secret, a challenge or a response in an error', () => {
    const [one, other] = [initiator({ mutual: storage }), target({ mutual: { ...storage, secret: secret('something else') } })];
    const seen: string[] = [];
    try {
      seen.push(...exchange(one, other).flatMap((message) => [...message.values()]));
      expect.unreachable();
    } catch (error) {
      const shown = JSON.stringify(error, Object.getOwnPropertyNames(error));
      for (const text of ['the initiator is it', 'the target is it, too', 'something else', '0x'])
        expect(shown).not.toContain(text);
    }
  });
});

describe('isShortSecret', () => {
  it('calls fewer than 96 bits short', () => {
    expect(isShortSecret(new Uint8Array(11))).toBe(true);
    expect(isShortSecret(new Uint8Array(12))).toBe(false);
  });
});

function challengeKeys(): Map<string, string> {
  return new Map([
    ['CHAP_A', '5'],
    ['CHAP_I', '7'],
    ['CHAP_C', '0x00010203'],
  ]);
}

function withChanges(keys: Map<string, string>, changes: Record<string, string | undefined>): Map<string, string> {
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) keys.delete(key);
    else keys.set(key, value);
  }
  return keys;
}
