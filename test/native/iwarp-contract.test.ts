import { iwarpProvider } from '../../src/iser/rdma/native-provider.ts';
import { rdmaProviderContract } from '../contract/rdma-provider.ts';

rdmaProviderContract(
  'iwarp over IPv4',
  () => ({ initiator: iwarpProvider(), target: iwarpProvider(), endpoint: { host: '127.0.0.1', port: 0 } }),
  { endsWithoutReceive: true },
);
