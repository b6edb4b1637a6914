import { describe, expect, it } from 'vitest';
import { ProtocolError } from '../../../../src/errors.ts';
import {
  formatIsid,
  formatPortal,
  isValidIscsiName,
  makeInitiatorName,
  makeIsid,
  normalizeIscsiName,
  parsePortal,
  parseTargetAddress,
} from '../../../../src/iser/iscsi/name.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

describe('isValidIscsiName', () => {
  // The examples of RFC 7143 §4.2.7 first, then names of deployed targets.
  it.each([
    'iqn.2001-04.com.example:storage:diskarrays-sn-a8675309',
    'iqn.2001-04.com.example',
    'iqn.2001-04.com.example:storage.tape1.sys1.xyz',
    'eui.02004567A425678D',
    'naa.52004567BA64678D',
    'naa.62004567BA64678D0123456789ABCDEF',
    'iqn.1994-05.com.redhat:f1a2b3c4d5',
    'iqn.2003-01.org.linux-iscsi.host.x8664:sn.0123456789ab',
    'iqn.2000-01.com.synology:NAS_01.Target-1.abcdef',
    'iqn.2026-01.org.example:磁盘',
  ])('%s: valid', (name) => {
    expect(isValidIscsiName(name)).toBe(true);
  });

  it.each([
    ['nothing', ''],
    ['a bare word', 'disk'],
    ['no authority', 'iqn.2001-04.'],
    ['no date', 'iqn.com.example:disk'],
    ['month 13', 'iqn.2001-13.com.example'],
    ['month 0', 'iqn.2001-00.com.example'],
    ['a slash', 'iqn.2001-04.com.example:a/b'],
    ['a way up', 'iqn.2001-04.com.example:../../etc'],
    ['a backslash', 'iqn.2001-04.com.example:a\\b'],
    ['a NUL', 'iqn.2001-04.com.example:a\0b'],
    ['a line break', 'iqn.2001-04.com.example:a\nb'],
    ['a line break at the end', 'iqn.2001-04.com.example:a\n'],
    ['an escape sequence', 'iqn.2001-04.com.example:\u001b[2J'],
    ['a space', 'iqn.2001-04.com.example:a b'],
    ['a no-break space', 'iqn.2001-04.com.example:a\u00a0b'],
    ['a right-to-left override', 'iqn.2001-04.com.example:a\u202eb'],
    ['a zero-width space', 'iqn.2001-04.com.example:a\u200bb'],
    ['half a surrogate pair', 'iqn.2001-04.com.example:a\ud800'],
    ['eui with 15 digits', 'eui.02004567A425678'],
    ['eui with 17 digits', 'eui.02004567A425678D0'],
    ['eui with no hex', 'eui.02004567A425678G'],
    ['naa with 17 digits', 'naa.52004567BA64678D0'],
    ['224 bytes', `iqn.2001-04.com.example:${'a'.repeat(200)}`],
    ['224 bytes of UTF-8', `iqn.2001-04.com.example:${'ä'.repeat(100)}`],
  ])('%s: invalid', (_, name) => {
    expect(isValidIscsiName(name)).toBe(false);
  });

  it('takes 223 bytes', () => {
    expect(isValidIscsiName(`iqn.2001-04.com.example:${'a'.repeat(199)}`)).toBe(true);
  });
});

describe('normalizeIscsiName', () => {
  it('makes names equal that RFC 3722 calls equal', () => {
    expect(normalizeIscsiName('IQN.2001-04.com.Example:Disk')).toBe('iqn.2001-04.com.example:disk');
    expect(normalizeIscsiName('iqn.2001-04.com.example:ｄｉｓｋ')).toBe('iqn.2001-04.com.example:disk');
    expect(normalizeIscsiName('iqn.2001-04.com.example:u\u0308')).toBe('iqn.2001-04.com.example:ü');
  });
});

describe('parsePortal', () => {
  it.each([
    ['san.example', { host: 'san.example', port: 3260 }],
    ['san.example:860', { host: 'san.example', port: 860 }],
    ['192.0.2.1', { host: '192.0.2.1', port: 3260 }],
    ['192.0.2.1:65535', { host: '192.0.2.1', port: 65535 }],
    ['[2001:db8::1]', { host: '2001:db8::1', port: 3260 }],
    ['[2001:db8::1]:3261', { host: '2001:db8::1', port: 3261 }],
    ['2001:db8::1', { host: '2001:db8::1', port: 3260 }],
    ['::', { host: '::', port: 3260 }],
    ['::1', { host: '::1', port: 3260 }],
    ['1:2:3:4:5:6:7:8', { host: '1:2:3:4:5:6:7:8', port: 3260 }],
    ['::ffff:192.0.2.1', { host: '::ffff:192.0.2.1', port: 3260 }],
    ['[fe80::1%eth0]:3260', { host: 'fe80::1%eth0', port: 3260 }],
    ['64:ff9b::192.0.2.33', { host: '64:ff9b::192.0.2.33', port: 3260 }],
    ['nas_1', { host: 'nas_1', port: 3260 }],
  ])('%s', (text, portal) => {
    expect(parsePortal(text)).toEqual(portal);
    expect(parsePortal(formatPortal(portal))).toEqual(portal);
  });

  it('takes another default port', () => {
    expect(parsePortal('san', 3261)).toEqual({ host: 'san', port: 3261 });
  });

  it.each([
    '',
    ':3260',
    'san:',
    'san:0',
    'san:65536',
    'san:12a',
    'san:-1',
    'san: 3260',
    'a b',
    'san/x',
    'user@san',
    'san\n',
    '-san',
    '[::1',
    '[::1]3260',
    '[san]',
    '[::1]:',
    '1:2:3',
    '1::2::3',
    ':::',
    '12345::',
    '1:2:3:4:5:6:7:8:9',
    '::192.0.2.256',
    '1:2:3:4:5:6:7:192.0.2.1',
    'a'.repeat(256),
  ])('"%s": refused', (text) => {
    expect(() => parsePortal(text)).toThrow(expect.objectContaining({ code: 'bad-configuration' }));
  });
});

describe('parseTargetAddress', () => {
  it.each([
    ['192.0.2.1:3261,1', { host: '192.0.2.1', port: 3261, tpgt: 1 }],
    ['192.0.2.1,65535', { host: '192.0.2.1', port: 3260, tpgt: 65535 }],
    ['[2001:db8::1]:5003,0', { host: '2001:db8::1', port: 5003, tpgt: 0 }],
    ['san.example', { host: 'san.example', port: 3260 }],
  ])('%s', (text, portal) => {
    expect(parseTargetAddress(text)).toEqual(portal);
  });

  it.each(['', ',1', 'san,', 'san,65536', 'san,1,2x', 'san:0,1', 'san,-1', 'a/b:3260,1'])('"%s": refused', (text) => {
    expect(() => parseTargetAddress(text)).toThrow(ProtocolError);
  });
});

describe('what an initiator makes for itself', () => {
  it('is a valid name, different for different bytes', () => {
    const names = new Set<string>();
    const random = new SeededRandom(5);
    for (let round = 0; round < 100; round++) {
      const name = makeInitiatorName(random.bytes(random.between(6, 16)));
      expect(isValidIscsiName(name)).toBe(true);
      names.add(name);
    }
    expect(names.size).toBe(100);
    expect(() => makeInitiatorName(new Uint8Array(5))).toThrow(RangeError);
  });

  it('is an ISID of type "random" that holds all 40 random bits', () => {
    expect(formatIsid(makeIsid(Uint8Array.of(0xa1, 0xb2, 0xc3, 0xd4, 0xe5)))).toBe('80a1b2c3d4e5');
    expect(formatIsid(makeIsid(new Uint8Array(5)))).toBe('800000000000');
    expect(makeIsid(new Uint8Array(8).fill(0xff))).toBe(0x80ffffffffff);
    expect(() => makeIsid(new Uint8Array(4))).toThrow(RangeError);
  });
});
