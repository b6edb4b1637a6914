import { describe, expect, it } from 'vitest';
import { withFallback } from '../../../src/mount/target-plan.ts';

const portal = (host: string, port = 3260) => ({ host, port });

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
