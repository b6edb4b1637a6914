/**
 * The process that serves a mount in the background: started by `launcher.ts`, never by hand. Takes its
 * orders from the inherited pipe, reports on it, and then lives by itself; its output is the mount's
 * log. Goes down again where the launcher does before the mount is ready.
 */

import { rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { errorCode, UsageError } from '../errors.ts';
import { count } from '../printable.ts';
import { hintOf } from '../problem.ts';
import { linesOf } from '../several-errors.ts';
import { type Interrupts, listenForInterrupts } from './interrupts.ts';
import { CHANNEL, type ServerMessage, type ServerOrders } from './launcher.ts';
import { EXIT_FAILED, EXIT_OK } from './output.ts';
import { serve } from './serve.ts';
import { StandardStream } from './standard-streams.ts';

const interrupts = listenForInterrupts();
const logFile = new StandardStream(process.stderr);
const channel = new Socket({ fd: CHANNEL });
channel.on('error', () => {});

for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  // A fault of one request must not take the mount away from everyone: what it was for has failed, the rest goes on.
  process.on(event, (error: unknown) => log(`${event}: ${error instanceof Error ? error.stack : String(error)}`));
}

const orders = await readOrders();
process.exitCode = orders === undefined ? EXIT_FAILED : await run(orders);
process.exit();

async function run(orders: ServerOrders): Promise<number> {
  const launcherGone = new AbortController();
  const onEnd = () => launcherGone.abort(new Error('the launcher went away'));
  channel.once('close', onEnd);
  const untilReady: Interrupts = { stop: AbortSignal.any([interrupts.stop, launcherGone.signal]), force: interrupts.force };
  try {
    const status = await serve({
      settings: orders.settings,
      initiatorName: orders.initiatorName,
      environment: process.env,
      logPath: orders.log,
      interrupts: untilReady,
      log,
      ready: (report) => {
        channel.off('close', onEnd);
        const what = report.isOnDemand ? count(report.targets, 'target') : count(report.images.length, 'image');
        log(`mounted at ${report.mountpoint}: ${what}`);
        tell({ type: 'ready', ...report });
      },
    });
    if (status === EXIT_OK && orders.temporaryFolder !== undefined)
      await rm(orders.temporaryFolder, { recursive: true, force: true });
    return status;
  } catch (error) {
    const hint = hintOf(error);
    const lines = linesOf(error);
    for (const line of lines) log(line);
    tell({
      type: 'failed',
      code: errorCode(error),
      isUsage: error instanceof UsageError,
      lines,
      ...(hint === undefined ? {} : { hint }),
    });
    await new Promise<void>((resolve) => channel.end(() => resolve()));
    return EXIT_FAILED;
  }
}

async function readOrders(): Promise<ServerOrders | undefined> {
  const lines = createInterface({ input: channel, crlfDelay: Number.POSITIVE_INFINITY });
  return await new Promise((resolve) => {
    lines.once('line', (line) => resolve(JSON.parse(line) as ServerOrders));
    lines.once('close', () => resolve(undefined));
  });
}

function tell(message: ServerMessage): void {
  channel.write(`${JSON.stringify(message)}\n`);
}

function log(line: string): void {
  logFile.write(`${new Date().toISOString()} ${line}\n`);
}
