import { describe, expect, it } from 'vitest';
import { forTargets, parseBlockLength, parseTargetCount, parseUnitSpec } from '../../../src/cli/unit-spec.ts';

const DEFAULTS = { blockLength: 512, readOnly: false, volatileCache: false };

describe('many targets', () => {
  const memory = parseUnitSpec('memory', '1M', DEFAULTS);

  it('have names that sort, and units of their own', () => {
    const units = forTargets([memory, { ...memory, blockLength: 4096 }], 'iqn.a:x', 10);
    expect(units).toHaveLength(20);
    expect(units[0]).toEqual({ ...memory, target: 'iqn.a:x-01' });
    expect(units[19]).toEqual({ ...memory, blockLength: 4096, target: 'iqn.a:x-10' });
  });

  it('share no file, and are named by nobody else', () => {
    expect(() => forTargets([parseUnitSpec('file', 'a.img', DEFAULTS)], 'iqn.a:x', 2)).toThrow('a.img');
    expect(() => forTargets([{ ...memory, target: 'iqn.a:y' }], 'iqn.a:x', 2)).toThrow('target=iqn.a:y');
  });

  it.each(['0', '-1', '10001', '1e3', ''])('are no %j', (text) => {
    expect(() => parseTargetCount(text)).toThrow('1 to 10000');
  });

  it('are counted in digits', () => expect(parseTargetCount('1000')).toBe(1000));
});

describe('a logical unit on the command line', () => {
  it('may be a size in memory', () => {
    expect(parseUnitSpec('memory', '3T', DEFAULTS)).toEqual({
      ...DEFAULTS,
      backing: { memory: 3 * 2 ** 40 },
      lun: undefined,
      target: undefined,
    });
  });

  it('may be a file with settings of its own', () => {
    expect(parseUnitSpec('file', 'disk.img,size=1G,block-size=4096,read-only,lun=7,target=iqn.2024-01.x:b', DEFAULTS)).toEqual({
      backing: { file: 'disk.img', createSize: 2 ** 30 },
      blockLength: 4096,
      readOnly: true,
      volatileCache: false,
      lun: 7,
      target: 'iqn.2024-01.x:b',
    });
  });

  it('may have commas in its path', () => {
    expect(parseUnitSpec('file', 'a,b,c.img,read-only', DEFAULTS)).toMatchObject({
      backing: { file: 'a,b,c.img' },
      readOnly: true,
    });
  });

  it('may take back a default', () => {
    expect(parseUnitSpec('memory', '1M,read-only=no', { ...DEFAULTS, readOnly: true }).readOnly).toBe(false);
  });

  it.each([
    ['memory', 'lots', 'expected a size'],
    ['memory', '0', 'expected a size'],
    ['memory', '1G,size=2G', 'the size stands first'],
    ['file', '', 'expected a path'],
    ['file', 'x,lun=70000', 'expected a LUN of 0 to 16383'],
    ['file', 'x,lun=1,lun=2', '"lun" is given twice'],
    ['file', 'x,blok-size=4096', 'unknown setting "blok-size"; did you mean "block-size"?'],
    ['file', 'x,target=disk', '"disk" is not an iSCSI name'],
    ['file', 'x,read-only=maybe', 'expected yes or no'],
  ] as const)('--%s %s is refused', (option, text, why) => {
    expect(() => parseUnitSpec(option, text, DEFAULTS)).toThrow(why);
  });

  it.each(['0', '256', '513', '1G', 'x'])('has no blocks of %s', (text) => {
    expect(() => parseBlockLength(text, '--block-size')).toThrow('expected a block size');
  });
});
