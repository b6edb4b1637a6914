import { describe, expect, it } from 'vitest';
import { CommandWindow, TargetCommandWindow } from '../../../../src/iser/iscsi/command-window.ts';
import { serialAdd } from '../../../../src/iser/iscsi/serial.ts';
import { SeededRandom } from '../../../support/seeded-random.ts';

describe('CommandWindow', () => {
  it('numbers commands in order, across the wrap', () => {
    const window = new CommandWindow(0xfffffffe);
    window.update(0xfffffffe, 5);
    expect([window.take(), window.take(), window.take()]).toEqual([0xfffffffe, 0xffffffff, 0]);
    expect(window.cmdSn).toBe(1);
  });

  it('closes beyond MaxCmdSN and opens when it grows', () => {
    const window = new CommandWindow(10);
    window.update(10, 11);
    window.take();
    expect(window.isOpen).toBe(true);
    window.take();
    expect(window.isOpen).toBe(false);
    expect(() => window.take()).toThrow(expect.objectContaining({ code: 'internal' }));
    window.update(12, 12);
    expect(window.take()).toBe(12);
  });

  it('holds every command where MaxCmdSN is ExpCmdSN - 1, from the login on', () => {
    const window = new CommandWindow(10);
    window.update(10, 9);
    expect(window.isOpen).toBe(false);
    window.update(10, 10);
    expect(window.isOpen).toBe(true);
  });

  it('lets one command go before the target has said anything', () => {
    const window = new CommandWindow(10);
    expect(window.take()).toBe(10);
    expect(window.isOpen).toBe(false);
  });

  it('ignores both numbers where MaxCmdSN is less than ExpCmdSN - 1', () => {
    const window = new CommandWindow(10);
    window.update(12, 10);
    expect([window.expCmdSn, window.maxCmdSn, window.isOpen]).toEqual([10, 10, true]);
    window.update(10, 20);
    window.update(30, 28);
    expect([window.expCmdSn, window.maxCmdSn]).toEqual([10, 20]);
  });

  it("sends the first command with the login's number to tgtd over iSER, whose login response is off by one", () => {
    // Seen: login CmdSN 1, answered with ExpCmdSN 2, MaxCmdSN 1; the command is expected with CmdSN 1.
    const window = new CommandWindow(1);
    window.update(2, 1);
    expect(window.isOpen).toBe(true);
    expect(window.expCmdSn).toBe(1);
    expect(window.take()).toBe(1);
    expect(window.isOpen).toBe(false);
    window.update(2, 130);
    expect([window.expCmdSn, window.maxCmdSn, window.isOpen]).toEqual([2, 130, true]);
  });

  it('never moves back for a PDU that was overtaken', () => {
    const window = new CommandWindow(100);
    window.update(100, 200);
    for (let n = 0; n < 50; n++) window.take();
    window.update(150, 250);
    window.update(120, 220);
    expect([window.expCmdSn, window.maxCmdSn]).toEqual([150, 250]);
  });

  it('takes MaxCmdSN and ignores an ExpCmdSN of a command that was not sent', () => {
    const window = new CommandWindow(5);
    window.update(9, 40);
    expect([window.expCmdSn, window.maxCmdSn]).toEqual([5, 40]);
  });
});

describe('TargetCommandWindow', () => {
  it('executes in order and holds what comes early', () => {
    const window = new TargetCommandWindow(0xffffffff, 8);
    expect(window.arrive(1, false)).toBe('hold');
    expect(window.arrive(0, false)).toBe('hold');
    expect(window.arrive(0xffffffff, false)).toBe('execute');
    expect(window.expCmdSn).toBe(0);
    window.advance();
    window.advance();
    expect(window.expCmdSn).toBe(2);
    expect(() => window.advance()).toThrow(RangeError);
  });

  it('discards what was seen before and what lies outside the window', () => {
    const window = new TargetCommandWindow(10, 4);
    expect(window.arrive(9, false)).toBe('discard');
    expect(window.arrive(14, false)).toBe('discard');
    expect(window.arrive(13, false)).toBe('hold');
    expect(window.arrive(13, false)).toBe('discard');
    expect(window.arrive(10, false)).toBe('execute');
    expect(window.arrive(10, false)).toBe('discard');
  });

  it('executes an immediate command whatever its number, and does not count it', () => {
    const window = new TargetCommandWindow(10, 1);
    expect(window.arrive(99, true)).toBe('execute');
    expect(window.arrive(10, true)).toBe('execute');
    expect([window.expCmdSn, window.maxCmdSn]).toEqual([10, 10]);
  });

  it('has room for its size of commands under way, and opens when one finishes', () => {
    const window = new TargetCommandWindow(1, 2);
    for (const cmdSn of [1, 2]) {
      expect(window.arrive(cmdSn, false)).toBe('execute');
      window.begin();
    }
    expect(window.maxCmdSn).toBe(2);
    expect(window.arrive(3, false)).toBe('discard');
    window.finish();
    expect(window.maxCmdSn).toBe(3);
    expect(window.arrive(3, false)).toBe('execute');
  });

  it('opens at once for a command that does not last', () => {
    const window = new TargetCommandWindow(1, 1);
    window.arrive(1, false);
    expect(window.maxCmdSn).toBe(2);
  });

  it('refuses a size that is none, and an end without a beginning', () => {
    expect(() => new TargetCommandWindow(1, 0)).toThrow(RangeError);
    expect(() => new TargetCommandWindow(1, 1).finish()).toThrow(RangeError);
  });

  it('with an initiator that obeys: executes every command once, in order, and never more than its size at a time', () => {
    const random = new SeededRandom(4);
    for (const size of [1, 2, 7, 64]) {
      const start = 0xffffffc0;
      const initiator = new CommandWindow(start);
      const target = new TargetCommandWindow(start, size);
      const wire: number[] = [];
      const held = new Set<number>();
      const executed: number[] = [];
      let underWay = 0;
      const execute = (cmdSn: number) => {
        executed.push(cmdSn);
        target.begin();
        underWay++;
        expect(underWay).toBeLessThanOrEqual(size);
      };
      for (let step = 0; step < 3000; step++) {
        const choice = random.fraction();
        if (choice < 0.4 && initiator.isOpen) wire.push(initiator.take());
        else if (choice < 0.8 && wire.length > 0) {
          const [cmdSn = 0] = wire.splice(random.between(0, wire.length - 1), 1);
          const arrival = target.arrive(cmdSn, false);
          expect(arrival).not.toBe('discard');
          if (arrival === 'hold') held.add(cmdSn);
          else execute(cmdSn);
          while (arrival === 'execute' && held.delete(target.expCmdSn)) {
            const next = target.expCmdSn;
            target.advance();
            execute(next);
          }
        } else if (underWay > 0) {
          underWay--;
          target.finish();
          initiator.update(target.expCmdSn, target.maxCmdSn);
        }
      }
      expect(executed.length).toBeGreaterThan(300);
      expect(executed).toEqual(executed.map((_, index) => serialAdd(start, index)));
    }
  });
});
