import { defineConfig } from 'vitest/config';

/** The tests with real RDMA devices: `npm run test:rdma`. Apart from the others because they boot machines and take minutes. */
export default defineConfig({
  test: {
    name: 'rdma',
    include: ['**/test/rdma/*.test.ts'],
    reporters: ['default'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 180_000,
    hookTimeout: 240_000,
    globalSetup: ['test/rdma/global-setup.ts'],
  },
});
