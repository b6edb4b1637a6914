import { expect, it } from 'vitest';
import { systemClock } from '../../../src/clock.ts';
import { CommandRunner } from '../../../src/scsi/command-runner.ts';
import type { Failure } from '../../../src/scsi/ended.ts';
import type { ScsiPort, StartedCommand } from '../../../src/scsi/port.ts';

it('ends a command once whose port fails to take it and tells of it all the same', async () => {
  const taken: StartedCommand[] = [];
  const port: Pick<ScsiPort, 'start'> = {
    start: (command) => {
      taken.push(command);
      throw new Error('half way');
    },
  };
  const runner = new CommandRunner({
    port: port as ScsiPort,
    lun: 0n,
    description: 'a unit',
    clock: systemClock,
    random: Math.random,
    commandTimeoutMs: 1000,
    onDeferredError: () => {},
  });
  let left = 0;
  const ends: (Failure | undefined)[] = [];
  const never = () => Promise.reject(new Error('not asked for'));
  runner.start(
    { cdb: new Uint8Array(6), ended: (failure) => ends.push(failure) },
    {
      tryEnter: () => ({ nexus: 1, leave: () => left++ }),
      enter: never,
      onUnitAttention: () => {},
      onNexusLost: () => {},
      onAborted: () => {},
      onFailed: () => {},
    },
  );
  taken[0]?.failed(new Error('later'));
  taken[0]?.ended({ status: 0, sense: new Uint8Array(0), transferred: 0 });
  await new Promise((resolve) => setImmediate(resolve));
  expect(ends).toEqual([{ error: new Error('half way') }]);
  expect(left).toBe(1);
});
