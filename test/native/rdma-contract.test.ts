/** The contract on the addon's providers: software iWARP here; verbs where ISERFS_VERBS_ADDRESS names the address of an RDMA device of this machine. */

import { networkInterfaces } from 'node:os';
import { iwarpProvider, verbsProvider } from '../../src/iser/rdma/native-provider.ts';
import type { RdmaProvider } from '../../src/iser/rdma/provider.ts';
import { type RdmaContractTraits, rdmaProviderContract } from '../contract/rdma-provider.ts';

const hasIpv6 = Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === '::1'));
for (const host of hasIpv6 ? ['127.0.0.1', '::1'] : ['127.0.0.1']) contract(iwarpProvider, host, { endsWithoutReceive: true });

const verbsAddress = process.env['ISERFS_VERBS_ADDRESS'];
if (verbsAddress !== undefined) contract(verbsProvider, verbsAddress, { endsWithoutReceive: false });

function contract(provider: () => RdmaProvider, host: string, traits: RdmaContractTraits): void {
  const name = provider === verbsProvider ? 'verbs' : 'iwarp';
  rdmaProviderContract(
    `${name} at ${host}`,
    () => ({ initiator: provider(), target: provider(), endpoint: { host, port: 0 } }),
    traits,
  );
}
