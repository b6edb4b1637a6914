import { describe, expect, it } from 'vitest';
import { sleep } from '../../../../src/clock.ts';
import { describeError, type ErrorCode, IserfsError } from '../../../../src/errors.ts';
import type { InitiatorTransport } from '../../../../src/iser/datamover/datamover.ts';
import { createTcpTransport } from '../../../../src/iser/datamover/tcp.ts';
import {
  type Fallback,
  reasonsOf,
  type TransportCandidate,
  TransportChoice,
} from '../../../../src/iser/datamover/transport-choice.ts';
import type { Portal } from '../../../../src/iser/iscsi/name.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

type Name = InitiatorTransport['name'];

const PORTAL: Portal = { host: 'san', port: 3260 };
const NO_DEVICE = new IserfsError('unsupported', 'no RDMA device');
const refused = () => new IserfsError('unreachable', 'connection refused', { hint: 'Is it running?' });

/** What each attempt does: an error rejects it, a number is the time for which it is silent before it fails. */
interface World {
  readonly choice: TransportChoice;
  readonly clock: VirtualClock;
  readonly behaviour: Map<Name, Error | number | 'works'>;
  readonly attempts: { readonly name: Name; readonly port: number; readonly timeoutMs: number }[];
  readonly fallbacks: Fallback[];
  open(portal?: Portal): Promise<Name>;
}

function world(names: readonly Name[], absent: readonly Name[] = [], optional: readonly Name[] = []): World {
  const clock = new VirtualClock();
  const behaviour = new Map<Name, Error | number | 'works'>();
  const attempts: World['attempts'] = [];
  const fallbacks: Fallback[] = [];
  const candidates: TransportCandidate[] = names.map((name) => ({
    name,
    isOptional: optional.includes(name),
    load: () => {
      if (absent.includes(name)) throw NO_DEVICE;
      return { ...createTcpTransport(), name };
    },
  }));
  const choice = new TransportChoice({ candidates, onFallback: (fallback) => fallbacks.push(fallback) });
  const open = (portal: Portal = PORTAL) =>
    choice.open(portal, { clock, timeoutMs: 5000 }, async ({ name }, { port }, timeoutMs) => {
      attempts.push({ name, port, timeoutMs });
      const what = behaviour.get(name) ?? 'works';
      if (what instanceof Error) throw what;
      if (what === 'works') return name;
      await sleep(clock, Math.min(what, timeoutMs));
      throw new IserfsError('unreachable', `timed out`);
    });
  return { choice, clock, behaviour, attempts, fallbacks, open };
}

/** Runs timers until `work` has settled. */
async function settled<T>(clock: VirtualClock, work: Promise<T>): Promise<T> {
  let done = false;
  const end = work.finally(() => {
    done = true;
  });
  end.catch(() => {});
  for (let step = 0; step < 100 && !done; step++) await clock.advance(100);
  return await end;
}

describe('a choice of transports', () => {
  it('takes the first that works, and has nothing to say of it', async () => {
    const { open, attempts, fallbacks, choice } = world(['verbs', 'tcp']);
    expect(await open()).toBe('verbs');
    expect(attempts.map(({ name }) => name)).toEqual(['verbs']);
    expect(fallbacks).toEqual([]);
    expect(choice.fallbackReason).toBeUndefined();
  });

  it.each<ErrorCode>(['unreachable', 'unsupported', 'login-refused', 'target-not-found', 'protocol-error', 'connection-lost'])(
    'goes on after a failure of kind %s',
    async (code) => {
      const { open, behaviour, choice } = world(['verbs', 'tcp']);
      behaviour.set('verbs', new IserfsError(code, 'not by RDMA'));
      expect(await open()).toBe('tcp');
      expect(choice.name).toBe('tcp');
      expect(choice.fallbackReason).toBe('verbs: not by RDMA');
    },
  );

  it.each<ErrorCode>(['authentication-failed', 'aborted', 'busy', 'internal', 'bad-configuration'])(
    'does not go on after a failure of kind %s',
    async (code) => {
      const { open, behaviour, attempts } = world(['verbs', 'tcp']);
      const error = new IserfsError(code, 'no');
      behaviour.set('verbs', error);
      await expect(open()).rejects.toBe(error);
      expect(attempts).toHaveLength(1);
    },
  );

  it('reaches iSER at its own port, and TCP at the other', async () => {
    const { open, behaviour, attempts } = world(['verbs', 'iwarp', 'tcp']);
    behaviour.set('verbs', refused()).set('iwarp', refused());
    await open({ ...PORTAL, iserPort: 3261 });
    expect(attempts.map(({ name, port }) => [name, port])).toEqual([
      ['verbs', 3261],
      ['iwarp', 3261],
      ['tcp', 3260],
    ]);
  });

  it('asks again at each login whether the machine has the transport', async () => {
    const absent: Name[] = ['verbs'];
    const { open } = world(['verbs', 'tcp'], absent);
    expect(await open()).toBe('tcp');
    absent.pop();
    expect(await open()).toBe('verbs');
  });
});

describe('what is said of a fallback', () => {
  it('comes once per portal, not at each login', async () => {
    const { open, behaviour, fallbacks } = world(['verbs', 'tcp']);
    behaviour.set('verbs', refused());
    await open();
    await open();
    await open({ host: 'other', port: 3260 });
    expect(fallbacks.map(({ portal }) => portal.host)).toEqual(['san', 'other']);
    expect(fallbacks.map(reasonsOf)).toEqual(['verbs: connection refused', 'verbs: connection refused']);
  });

  it('comes again when the reason is another one, and when RDMA worked in between', async () => {
    const { open, behaviour, fallbacks } = world(['verbs', 'tcp']);
    behaviour.set('verbs', refused());
    await open();
    behaviour.set('verbs', new IserfsError('target-not-found', 'target not found'));
    await open();
    behaviour.set('verbs', 'works');
    await open();
    behaviour.set('verbs', new IserfsError('target-not-found', 'target not found'));
    await open();
    expect(fallbacks.map(reasonsOf)).toEqual(['verbs: connection refused', 'verbs: target not found', 'verbs: target not found']);
  });

  it('tells a transport that the machine has not from one that did not work', async () => {
    const { open, behaviour, fallbacks } = world(['verbs', 'iwarp', 'tcp'], ['verbs']);
    behaviour.set('iwarp', refused());
    await open();
    expect(fallbacks[0]?.failures.map(({ name, isAbsent }) => [name, isAbsent])).toEqual([
      ['verbs', true],
      ['iwarp', false],
    ]);
  });
});

describe('when no transport works', () => {
  it('the error is that of the only one, unchanged', async () => {
    const { open } = world(['verbs'], ['verbs']);
    await expect(open()).rejects.toBe(NO_DEVICE);
  });

  it('an optional transport that the machine has not is not mentioned', async () => {
    const { open, behaviour } = world(['verbs', 'tcp'], ['verbs'], ['verbs']);
    const error = refused();
    behaviour.set('tcp', error);
    await expect(open()).rejects.toBe(error);
  });

  it('the one that got furthest is told first, with its hint, and the others with it', async () => {
    const { open, behaviour } = world(['verbs', 'tcp']);
    behaviour.set('verbs', new IserfsError('target-not-found', 'target not found', { hint: 'Check the access list.' }));
    behaviour.set('tcp', refused());
    const error = await open().catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'target-not-found', hint: 'Check the access list.' });
    expect(describeError(error)).toBe('target not found (by verbs; tcp: connection refused)');
  });

  it('the last one is told first where none got further than another', async () => {
    const { open, behaviour } = world(['verbs', 'iwarp'], ['verbs']);
    behaviour.set('iwarp', refused());
    const error = await open().catch((reason: unknown) => reason);
    expect(describeError(error)).toBe('connection refused (by iwarp; verbs: no RDMA device)');
  });
});

describe('a transport that a portal does not answer', () => {
  it('leaves half of the time to the next one', async () => {
    const { open, behaviour, attempts, clock } = world(['verbs', 'iwarp', 'tcp']);
    behaviour.set('verbs', 60_000).set('iwarp', 60_000);
    expect(await settled(clock, open())).toBe('tcp');
    expect(attempts.map(({ timeoutMs }) => timeoutMs)).toEqual([2500, 1250, 1250]);
  });

  it('has all of the time where the machine has no other', async () => {
    const { open, behaviour, attempts, clock } = world(['verbs', 'tcp', 'iwarp'], ['verbs', 'iwarp']);
    behaviour.set('tcp', 60_000);
    await expect(settled(clock, open())).rejects.toThrow('timed out');
    expect(attempts).toEqual([{ name: 'tcp', port: 3260, timeoutMs: 5000 }]);
  });

  it('is left out for some minutes where another one works, and the reason is still known', async () => {
    const { open, behaviour, attempts, clock, choice, fallbacks } = world(['verbs', 'tcp']);
    behaviour.set('verbs', 60_000);
    await settled(clock, open());
    behaviour.set('verbs', 'works');
    expect(await open()).toBe('tcp');
    expect(choice.fallbackReason).toBe('verbs: timed out');
    expect(attempts.map(({ name }) => name)).toEqual(['verbs', 'tcp', 'tcp']);
    expect(fallbacks).toHaveLength(1);
    await clock.advance(300_000);
    expect(await open()).toBe('verbs');
  });

  it('is not left out when nothing else worked either: the target was away', async () => {
    const { open, behaviour, clock } = world(['verbs', 'tcp']);
    behaviour.set('verbs', 60_000).set('tcp', 60_000);
    await expect(settled(clock, open())).rejects.toThrow('timed out');
    behaviour.set('verbs', 'works');
    expect(await open()).toBe('verbs');
  });
});
