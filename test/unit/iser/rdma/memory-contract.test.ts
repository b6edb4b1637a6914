import { createMemoryProviders } from '../../../../src/iser/rdma/memory.ts';
import { ordinaryTraits, rdmaProviderContract } from '../../../contract/rdma-provider.ts';

rdmaProviderContract(
  'in one process',
  () => ({ ...createMemoryProviders(), endpoint: { host: '127.0.0.1', port: 0 } }),
  ordinaryTraits,
);

rdmaProviderContract(
  'in one process, like a device without memory windows',
  () => ({ ...createMemoryProviders({ protection: 'region' }), endpoint: { host: '127.0.0.1', port: 0 } }),
  { ...ordinaryTraits, canPeersInvalidate: false },
);
