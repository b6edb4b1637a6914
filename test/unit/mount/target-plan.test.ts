import { describe, expect, it } from 'vitest';
import { portalsToTry, withFallback } from '../../../src/mount/target-plan.ts';

const portal = (host: string, port = 3260) => ({ host, port });
const BY_TCP = { transport: 'tcp' };
const BY_ISER = { transport: 'iwarp' };

describe('portals to log in at after discovery', () => {
  it('begin with the one that answered, where the target lists it', () => {
    expect(withFallback([portal('a'), { ...portal('b'), tpgt: 2 }], portal('b'))).toEqual([
      { ...portal('b'), tpgt: 2 },
      portal('a'),
    ]);
  });

  it('have the one that answered as a fallback, where the target lists others only', () => {
    expect(withFallback([portal('10.0.0.1'), portal('10.0.0.2')], portal('nat'))).toEqual([
      portal('10.0.0.1'),
      portal('nat'),
      portal('10.0.0.2'),
    ]);
  });

  it('differ by their port too', () => {
    expect(withFallback([portal('a', 3261)], portal('a', 3260))).toEqual([portal('a', 3261), portal('a', 3260)]);
  });

  it('are the one that answered, where the target lists none', () => {
    expect(withFallback([], portal('a'))).toEqual([portal('a')]);
  });
});

describe('the port of iSER after discovery', () => {
  const asked = { ...portal('nat'), iserPort: 3261 };

  it('is that of the portal that was asked, where it answered over TCP, also behind address translation', () => {
    expect(portalsToTry([{ ...portal('10.0.0.1'), tpgt: 1 }], asked, BY_TCP, true)).toEqual([
      { ...portal('10.0.0.1'), tpgt: 1, iserPort: 3261 },
      asked,
    ]);
  });

  it('is what the target names, where it answered over iSER', () => {
    expect(portalsToTry([portal('10.0.0.1', 3270)], asked, BY_ISER, true)).toEqual([portal('10.0.0.1', 3270), asked]);
  });

  it('stays with the portal that was asked where the target lists the same', () => {
    expect(portalsToTry([portal('nat')], asked, BY_ISER, true)).toEqual([asked]);
  });

  it('is last looked for at the TCP port that answered as such, where it can only be at another one', () => {
    const returned = [portal('san'), portal('san', 3261)];
    expect(portalsToTry(returned, portal('san'), BY_TCP, true)).toEqual([portal('san', 3261), portal('san')]);
    expect(portalsToTry(returned, portal('san'), BY_TCP, false)).toEqual(returned);
    expect(portalsToTry(returned, portal('san'), BY_ISER, true)).toEqual(returned);
  });
});
