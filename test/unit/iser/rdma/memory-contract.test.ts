import { createMemoryProviders } from '../../../../src/iser/rdma/memory.ts';
import { ordinaryTraits, rdmaProviderContract } from '../../../contract/rdma-provider.ts';

rdmaProviderContract(
  'in one process',
  () => ({ ...createMemoryProviders(), endpoint: { host: '127.0.0.1', port: 0 } }),
  ordinaryTraits,
);
