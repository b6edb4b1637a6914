import { describe, expect, it } from 'vitest';
import { LoginTurns } from '../../../src/mount/login-turns.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

/** Logins that end when they are told to. */
class Logins {
  readonly started: string[] = [];
  readonly #ends = new Map<string, () => void>();
  readonly turns: LoginTurns;

  constructor(clock: VirtualClock, atOnce: number) {
    this.turns = new LoginTurns({ clock, atOnce, patienceMs: 1000 });
  }

  begin(name: string, signal = new AbortController().signal): Promise<string> {
    return this.turns.take(() => {
      this.started.push(name);
      return new Promise((resolve) => this.#ends.set(name, () => resolve(name)));
    }, signal);
  }

  end(name: string): void {
    this.#ends.get(name)?.();
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe('logins that come together', () => {
  it('have their turns in order, no more at once than they may', async () => {
    const logins = new Logins(new VirtualClock(), 2);
    const all = ['a', 'b', 'c', 'd'].map((name) => logins.begin(name));
    await settled();
    expect(logins.started).toEqual(['a', 'b']);
    logins.end('b');
    await settled();
    expect(logins.started).toEqual(['a', 'b', 'c']);
    for (const name of ['a', 'c']) logins.end(name);
    await settled();
    logins.end('d');
    expect(await Promise.all(all)).toEqual(['a', 'b', 'c', 'd']);
  });

  it('are not held up by one that hangs', async () => {
    const clock = new VirtualClock();
    const logins = new Logins(clock, 1);
    const hanging = logins.begin('hangs');
    const next = logins.begin('next');
    await settled();
    expect(logins.started).toEqual(['hangs']);
    await clock.advance(1000);
    await settled();
    expect(logins.started).toEqual(['hangs', 'next']);
    // The turn was passed on once: neither end gives it away again.
    logins.end('hangs');
    await hanging;
    const last = logins.begin('last');
    await settled();
    expect(logins.started).toEqual(['hangs', 'next']);
    logins.end('next');
    await next;
    await settled();
    logins.end('last');
    expect(await last).toBe('last');
  });

  it('leave the queue when they are given up, and fail as they fail', async () => {
    const logins = new Logins(new VirtualClock(), 1);
    const first = logins.begin('first');
    const giveUp = new AbortController();
    const second = logins.begin('second', giveUp.signal);
    giveUp.abort(new Error('given up'));
    await expect(second).rejects.toThrow('given up');
    logins.end('first');
    await first;
    await expect(logins.turns.take(() => Promise.reject(new Error('refused')), new AbortController().signal)).rejects.toThrow(
      'refused',
    );
    await settled();
    const third = logins.begin('third');
    await settled();
    logins.end('third');
    expect(await third).toBe('third');
    expect(logins.started).toEqual(['first', 'third']);
  });
});
