import { describe, expect, it } from 'vitest';
import { ProtocolError } from '../../../../src/errors.ts';
import {
  checkNoRepeats,
  decodeText,
  encodeText,
  MAX_KEY_LENGTH,
  splitText,
  TextAssembler,
} from '../../../../src/iser/iscsi/text.ts';
import { hexVectors } from '../../../support/hex-vectors.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

describe('text', () => {
  it('is read from what libiscsi and tgtd sent', () => {
    const vector = hexVectors('pdu-peers.hex');
    expect(decodeText(vector('text-request').subarray(48))).toEqual([['SendTargets', 'All']]);
    const answer = decodeText(vector('text-response').subarray(48));
    expect(answer.slice(0, 2)).toEqual([
      ['TargetName', 'iqn.2026-01.org.example:plain'],
      ['TargetAddress', '127.0.0.1:23261,1'],
    ]);
    expect(answer.filter(([key]) => key === 'TargetName')).toHaveLength(4);
    expect(encodeText(answer)).toEqual(vector('text-response').subarray(48));
  });

  it('keeps order, empty values, "=" in values and UTF-8', () => {
    const pairs = [
      ['B', '1'],
      ['A', ''],
      ['CHAP_C', '0bAA=='],
      ['TargetAlias', 'Gruß, 磁盘'],
    ] as const;
    expect(encodeText(pairs)).toEqual(bytes('B=1\0A=\0CHAP_C=0bAA==\0TargetAlias=Gruß, 磁盘\0'));
    expect(decodeText(encodeText(pairs))).toEqual(pairs);
  });

  it('is read where the last NUL is missing, and where NULs pad it', () => {
    expect(decodeText(bytes('A=1\0B=2'))).toEqual([
      ['A', '1'],
      ['B', '2'],
    ]);
    expect(decodeText(bytes('\0A=1\0\0\0B=2\0\0'))).toEqual([
      ['A', '1'],
      ['B', '2'],
    ]);
    expect(decodeText(new Uint8Array(0))).toEqual([]);
  });

  it('takes a key of 63 bytes and refuses one of 64', () => {
    const longest = `X-${'a'.repeat(MAX_KEY_LENGTH - 2)}`;
    expect(decodeText(bytes(`${longest}=1\0`))).toEqual([[longest, '1']]);
    expect(() => decodeText(bytes(`${longest}b=1\0`))).toThrow(ProtocolError);
    expect(() => encodeText([[`${longest}b`, '1']])).toThrow(RangeError);
  });

  it.each([
    ['no "="', 'TargetName\0'],
    ['no key', '=1\0'],
    ['a key with a space', 'Target Name=1\0'],
    ['a key that begins with a digit', '1A=1\0'],
    ['a key that is not ASCII', 'Größe=1\0'],
    ['a key with a line break', 'A\n=1\0'],
    ['a key without end', 'A'.repeat(70000)],
  ])('%s: refused', (_, text) => {
    expect(() => decodeText(bytes(text))).toThrow(ProtocolError);
  });

  it('refuses what is not UTF-8', () => {
    expect(() => decodeText(Uint8Array.of(0x41, 0x3d, 0xc3, 0x28, 0))).toThrow(ProtocolError);
  });

  it('refuses to write a NUL in a value, or what is no key', () => {
    expect(() => encodeText([['A', 'x\0B=y']])).toThrow(RangeError);
    expect(() => encodeText([['A=B', 'x']])).toThrow(RangeError);
    expect(() => encodeText([['', 'x']])).toThrow(RangeError);
  });

  it('never repeats a value in a message', () => {
    try {
      decodeText(Uint8Array.of(...bytes('CHAP_R='), 0xff, ...bytes('geheim\0')));
      expect.unreachable();
    } catch (error) {
      expect(String(error)).not.toContain('geheim');
    }
  });

  it('reads whatever comes or throws ProtocolError', () => {
    const random = new SeededRandom(61);
    const alphabet = bytes('AB=\0\0=Z-_1\xff').subarray();
    for (let round = 0; round < 2000; round++) {
      const noise = random.bytes(random.between(0, 20)).map((byte) => alphabet[byte % alphabet.length] ?? 0);
      try {
        const pairs = decodeText(noise);
        expect(decodeText(encodeText(pairs))).toEqual(pairs);
      } catch (error) {
        expect(error).toBeInstanceOf(ProtocolError);
      }
    }
  });
});

describe('checkNoRepeats', () => {
  it('refuses a key that comes twice, whatever its values', () => {
    expect(() => checkNoRepeats(decodeText(bytes('A=1\0B=1\0A=1\0')))).toThrow('A comes twice');
    expect(() => checkNoRepeats(decodeText(bytes('A=1\0B=1\0')))).not.toThrow();
  });
});

describe('splitText and TextAssembler', () => {
  it('put together what was cut, at every length', () => {
    const text = encodeText([
      ['InitiatorName', 'iqn.2026-01.org.example:a'],
      ['TargetName', 'iqn.2026-01.org.example:b'],
    ]);
    for (let length = 1; length <= text.length + 1; length++) {
      const pieces = splitText(text, length);
      const assembler = new TextAssembler();
      pieces.forEach((piece, index) => {
        expect(piece.length).toBeLessThanOrEqual(length);
        const isLast = index === pieces.length - 1;
        const whole = assembler.add(piece, !isLast);
        expect(whole).toEqual(isLast ? text : undefined);
        expect(assembler.isPartial).toBe(!isLast);
      });
    }
  });

  it('has one empty piece for no text', () => {
    expect(splitText(new Uint8Array(0), 8192)).toEqual([new Uint8Array(0)]);
  });

  it('keeps a copy of what was lent', () => {
    const assembler = new TextAssembler();
    const lent = bytes('A=1\0');
    assembler.add(lent, true);
    lent.fill(0xff);
    expect(assembler.add(bytes('B=2\0'), false)).toEqual(bytes('A=1\0B=2\0'));
  });

  it('can be used again after a whole text', () => {
    const assembler = new TextAssembler(10);
    for (let round = 0; round < 5; round++) {
      assembler.add(bytes('A=1\0'), true);
      expect(assembler.add(bytes('B=2\0'), false)).toEqual(bytes('A=1\0B=2\0'));
    }
  });

  it('refuses text beyond its limit, also in tiny pieces and in one', () => {
    expect(() => new TextAssembler(100).add(new Uint8Array(101), false)).toThrow(ProtocolError);
    const assembler = new TextAssembler(100);
    for (let n = 0; n < 100; n++) assembler.add(bytes('A'), true);
    expect(() => assembler.add(bytes('A'), true)).toThrow(ProtocolError);
  });

  it('refuses a piece length of 0', () => {
    expect(() => splitText(bytes('A=1'), 0)).toThrow(RangeError);
  });
});
