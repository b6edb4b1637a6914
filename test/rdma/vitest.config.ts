import { defineConfig } from 'vitest/config';

/** The tests with real RDMA devices: `npm run test:rdma`. Apart from the others because they boot machines and take minutes. */
export default defineConfig({
  test: {
    name: 'rdma',
    include: ['**/test/rdma/*.test.ts'],
    reporters: ['default'],
    pool: 'forks',
    // Each file has a guest, which is busy on one processor most of the time.
    maxWorkers: 2,
    testTimeout: 300_000,
    hookTimeout: 240_000,
    globalSetup: ['test/rdma/global-setup.ts'],
  },
});
