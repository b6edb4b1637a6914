import { describe, expect, it } from 'vitest';
import { type NexusName, type OpenSession, SessionRegistry } from '../../../src/iser/session-registry.ts';
import { settle } from '../../support/virtual-clock.ts';

const NEXUS: NexusName = {
  initiatorName: 'iqn.2026-01.org.iserfs:a',
  isid: 0x80_1234_5678_00,
  targetName: 'iqn.2026-01.org.iserfs:t',
};

/** A session that closes when the test says so. */
class Session implements OpenSession {
  readonly tsih: number;
  readonly reasons: string[] = [];
  finishClosing: () => void = () => {};
  readonly #closed: Promise<void>;

  constructor(tsih: number) {
    this.tsih = tsih;
    this.#closed = new Promise((resolve) => {
      this.finishClosing = resolve;
    });
  }

  close(reason: string): Promise<void> {
    this.reasons.push(reason);
    return this.#closed;
  }
}

describe('session registry', () => {
  it('opens a new session only when the one of the same name has closed', async () => {
    const registry = new SessionRegistry(10);
    const old = new Session(1);
    await registry.establish(NEXUS, () => old);
    const next = new Session(2);
    let opened = false;
    const established = registry.establish(NEXUS, () => {
      opened = true;
      return next;
    });
    await settle();
    expect(old.reasons).toHaveLength(1);
    expect(opened).toBe(false);
    old.finishClosing();
    await established;
    expect(registry.find(NEXUS)).toBe(next);
    // What the old session does as it ends must not take the new one's place away.
    registry.remove(NEXUS, old);
    expect(registry.find(NEXUS)).toBe(next);
  });

  it('lets logins of one name take turns, each replacing the one before', async () => {
    const registry = new SessionRegistry(10);
    const [first, second, third] = [new Session(1), new Session(2), new Session(3)];
    await registry.establish(NEXUS, () => first);
    const order: string[] = [];
    const two = registry.establish(NEXUS, () => {
      order.push('second');
      return second;
    });
    const three = registry.establish(NEXUS, () => {
      order.push('third');
      return third;
    });
    first.finishClosing();
    await two;
    await settle();
    expect(order).toEqual(['second']);
    second.finishClosing();
    await three;
    expect(order).toEqual(['second', 'third']);
    expect(registry.find(NEXUS)).toBe(third);
  });

  it('goes on with the next login where one was given up while it waited, or failed', async () => {
    const registry = new SessionRegistry(10);
    await registry.establish(NEXUS, () => undefined);
    expect(registry.find(NEXUS)).toBeUndefined();
    const failed = registry.establish(NEXUS, () => {
      throw new Error('no');
    });
    const last = new Session(3);
    const established = registry.establish(NEXUS, () => last);
    await expect(failed).rejects.toThrow('no');
    await established;
    expect(registry.find(NEXUS)).toBe(last);
  });

  it.each([
    ['initiator name', { initiatorName: 'iqn.2026-01.org.iserfs:b' }],
    ['ISID', { isid: 0x80_1234_5678_01 }],
    ['target', { targetName: 'iqn.2026-01.org.iserfs:u' }],
  ])('leaves sessions alone that differ in the %s', async (_, difference) => {
    const registry = new SessionRegistry(10);
    const one = new Session(1);
    await registry.establish(NEXUS, () => one);
    await registry.establish({ ...NEXUS, ...difference }, () => new Session(2));
    expect(one.reasons).toEqual([]);
    expect(registry.size).toBe(2);
  });

  it('has room for a login that replaces a session even when it is full', async () => {
    const registry = new SessionRegistry(1);
    await registry.establish(NEXUS, () => new Session(1));
    expect(registry.hasRoomFor(NEXUS)).toBe(true);
    expect(registry.hasRoomFor({ ...NEXUS, isid: 1 })).toBe(false);
  });

  it('gives out each TSIH once, never 0, until it is released by all who hold it', () => {
    const registry = new SessionRegistry(70_000);
    const given = new Set<number | undefined>();
    for (let count = 0; count < 0xffff; count++) given.add(registry.allocateTsih());
    expect(given.size).toBe(0xffff);
    expect(given.has(0)).toBe(false);
    expect(registry.allocateTsih()).toBeUndefined();
    registry.holdTsih(5);
    registry.releaseTsih(5);
    expect(registry.allocateTsih()).toBeUndefined();
    registry.releaseTsih(5);
    expect(registry.allocateTsih()).toBe(5);
  });
});
