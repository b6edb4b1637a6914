import type { Reporter, TestModule } from 'vitest/node';

/** The last lines of a run: each test that was skipped with the reason why, then the sum in one line that any program can read. */
export default class ClosingReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const count = { passed: 0, failed: 0, skipped: 0, pending: 0 };
    for (const module of modules) {
      if (module.state() === 'failed' && module.children.size === 0) count.failed++; // it could not even be loaded
      for (const test of module.children.allTests()) {
        const result = test.result();
        count[result.state]++;
        if (result.state === 'skipped') console.log(`skipped: ${test.fullName}: ${result.note ?? 'not selected'}`);
      }
    }
    console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped + count.pending} skipped`);
  }
}
