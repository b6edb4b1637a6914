// @ts-check
/**
 * Loaded into a mount's process by `node --import`: keeps its event loop busy for 10 ms of every 20 from one SIGUSR2 to the next, as
 * garbage collection, JSON or cryptography would. Until the first it does nothing.
 */

import { isMainThread } from 'node:worker_threads';

const busyMs = 10;
const periodMs = 20;

/** @type {NodeJS.Timeout | undefined} */
let timer;

function block() {
  const until = performance.now() + busyMs;
  while (performance.now() < until) {
    // busy
  }
  timer = setTimeout(block, periodMs - busyMs);
}

if (isMainThread) {
  process.on('SIGUSR2', () => {
    if (timer === undefined) {
      block();
    } else {
      clearTimeout(timer);
      timer = undefined;
    }
  });
}
