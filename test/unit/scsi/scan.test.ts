import { describe, expect, it } from 'vitest';
import { errorCode } from '../../../src/errors.ts';
import type { ScsiCommand, ScsiPort, ScsiResult, StartedCommand } from '../../../src/scsi/port.ts';
import { reportLuns } from '../../../src/scsi/scan.ts';
import { check } from '../../support/scripted-port.ts';
import { tellCommand } from '../../support/started-command.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const REPORT_LUNS = 0xa0;
const WELL_KNOWN = 0xc101_0000_0000_0000n;

/** A target that has nothing but an inventory. `answer` may end a command otherwise. */
class Inventory implements ScsiPort {
  readonly nexus = 1;
  readonly description = 'test target';
  readonly lengths: number[] = [];
  luns: readonly bigint[];
  answer: ((command: ScsiCommand) => ScsiResult | undefined) | undefined;

  constructor(luns: readonly bigint[]) {
    this.luns = luns;
  }

  start(command: StartedCommand): void {
    tellCommand(command, this.#execute(command));
  }

  async #execute(command: ScsiCommand): Promise<ScsiResult> {
    expect(command.cdb[0]).toBe(REPORT_LUNS);
    const length = new DataView(command.cdb.buffer, command.cdb.byteOffset).getUint32(6);
    expect(command.dataIn?.length).toBe(length);
    this.lengths.push(length);
    const answer = this.answer?.(command);
    if (answer !== undefined) return answer;
    const data = new DataView(new ArrayBuffer(8 + this.luns.length * 8));
    data.setUint32(0, this.luns.length * 8);
    for (const [index, lun] of this.luns.entries()) data.setBigUint64(8 + index * 8, lun);
    const transferred = Math.min(length, data.byteLength);
    command.dataIn?.set(new Uint8Array(data.buffer, 0, transferred));
    return { status: 0, sense: new Uint8Array(0), transferred };
  }

  resetLogicalUnit(): Promise<void> {
    return Promise.reject(new Error('nothing to reset'));
  }

  established(): Promise<number> {
    return Promise.resolve(1);
  }

  subscribe(): () => void {
    return () => {};
  }
}

const scan = (port: ScsiPort) => reportLuns(port, { clock: new VirtualClock(), random: () => 0.5 });

describe('scanning a target', () => {
  it('reads a short list with one command', async () => {
    const port = new Inventory([0n, 1n << 48n, 0x4123_0000_0000_0000n]);
    expect(await scan(port)).toEqual([0n, 1n << 48n, 0x4123_0000_0000_0000n]);
    expect(port.lengths).toEqual([4096]);
  });

  it('tells of a deferred error that came with the list, and asks again', async () => {
    const port = new Inventory([0n]);
    let failed = false;
    port.answer = () => {
      if (failed) return undefined;
      failed = true;
      return check(3, 0x0c, 0, 0x71);
    };
    const heard: string[] = [];
    const onDeferredError = (error: Error) => heard.push(errorCode(error));
    expect(await reportLuns(port, { clock: new VirtualClock(), random: () => 0.5, onDeferredError })).toEqual([0n]);
    expect(port.lengths).toEqual([4096, 4096]);
    expect(heard).toEqual(['medium-error']);
  });

  it('asks again with more room for a list of thousands', async () => {
    const luns = Array.from({ length: 10_000 }, (_, index) => (0x4000n + BigInt(index)) << 48n);
    const port = new Inventory(luns);
    expect(await scan(port)).toEqual(luns);
    expect(port.lengths.length).toBe(2);
  });

  it('follows a list that grows between two commands', async () => {
    const port = new Inventory([]);
    port.answer = () => {
      port.luns = Array.from({ length: port.luns.length + 600 }, (_, index) => BigInt(index) << 48n);
      return undefined;
    };
    const growing = scan(port);
    while (port.lengths.length < 3) await Promise.resolve();
    port.answer = undefined;
    expect((await growing).length).toBe(port.luns.length);
  });

  it('names each LUN once', async () => {
    expect(await scan(new Inventory([0n, 1n << 48n, 0n]))).toEqual([0n, 1n << 48n]);
  });

  it('passes over unit attentions', async () => {
    const port = new Inventory([0n]);
    const attentions = [check(6, 0x29, 0), check(6, 0x3f, 0x0e)];
    port.answer = () => attentions.shift();
    expect(await scan(port)).toEqual([0n]);
  });

  it('asks the well-known logical unit where LUN 0 refuses', async () => {
    const port = new Inventory([5n << 48n]);
    port.answer = ({ lun }) => (lun === WELL_KNOWN ? undefined : check(5, 0x25, 0));
    expect(await scan(port)).toEqual([5n << 48n]);
  });

  it('takes a target that refuses REPORT LUNS to have LUN 0', async () => {
    const port = new Inventory([]);
    port.answer = () => check(5, 0x20, 0);
    expect(await scan(port)).toEqual([0n]);
  });

  it('does not follow a list without end', async () => {
    const port = new Inventory([]);
    port.answer = (command) => {
      command.dataIn?.set([0xff, 0xff, 0xff, 0xf8]);
      return { status: 0, sense: new Uint8Array(0), transferred: command.dataIn?.length ?? 0 };
    };
    expect(await scan(port).catch(errorCode)).toBe('protocol-error');
  });
});
