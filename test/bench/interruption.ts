/** Ctrl-C: what is under way is given up and everything is put away. Once more, and the process ends at once. */

/** Aborted by SIGINT or SIGTERM. */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(130);
      console.error('bench: putting everything away');
      controller.abort();
    });
  }
  return controller.signal;
}
