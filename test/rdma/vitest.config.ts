import { defineConfig } from 'vitest/config';

/** The tests with real RDMA devices: `npm run test:rdma`. Apart from the others because they boot machines and take minutes. */
export default defineConfig({
  test: {
    name: 'rdma',
    include: ['**/test/rdma/*.test.ts'],
    // Line by line: it takes minutes.
    reporters: ['verbose'],
    pool: 'forks',
    // Each file has a guest, which is busy on one processor most of the time.
    maxWorkers: 2,
    testTimeout: 600_000,
    hookTimeout: 240_000,
    globalSetup: ['test/rdma/global-setup.ts'],
  },
});
