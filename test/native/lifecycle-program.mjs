// @ts-check
/**
 * A process that ends at a phase of a connection's life: `node lifecycle-program.mjs WAY PHASE`. The ways are those of `ways`; the
 * same file is the worker's program.
 */

import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { reach } from './lifecycle-phases.mjs';

const [, , way = '', phase = ''] = process.argv;
/** @param {string} name */
const asPhase = (name) => /** @type {import('./lifecycle-phases.mjs').Phase} */ (name);

/** @type {Record<string, () => Promise<void> | void>} */
const ways = {
  exit: () => reach(asPhase(phase), () => process.exit(3)),
  throw: () =>
    reach(asPhase(phase), () => {
      throw new Error('thrown on purpose');
    }),
  // Nothing but this keeps the event loop, which is drained at once: the environment is torn down in full.
  'worker-terminate': () => inWorker('stay', (worker) => worker.terminate()),
  'worker-exit': () => inWorker('exit', () => {}),
  'worker-throw': () => inWorker('throw', () => {}),
};

/** @type {Record<string, () => void>} */
const endings = {
  stay: () => parentPort?.postMessage('reached'),
  exit: () => process.exit(3),
  throw: () => {
    throw new Error('thrown on purpose');
  },
};

/**
 * Then shows that the RDMA of this thread does not care.
 * @param {string} ending
 * @param {(worker: Worker) => unknown} onReached
 */
async function inWorker(ending, onReached) {
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { ending, phase } });
  worker.on('message', () => onReached(worker));
  worker.on('error', () => {});
  await new Promise((resolve) => worker.on('exit', resolve));
  await reach('closed', () => process.exit(3));
}

if (isMainThread) await ways[way]?.();
else await reach(workerData.phase, () => endings[workerData.ending]?.());
