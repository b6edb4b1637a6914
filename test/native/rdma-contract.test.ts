/** The contract on the addon's providers: software iWARP here; verbs where ISERFS_VERBS_ADDRESS names the address of an RDMA device of this machine. */

import { networkInterfaces } from 'node:os';
import { iwarpProvider, verbsDevices, verbsProvider } from '../../src/iser/rdma/native-provider.ts';
import type { RdmaProvider } from '../../src/iser/rdma/provider.ts';
import { ordinaryTraits, type RdmaContractTraits, rdmaProviderContract } from '../contract/rdma-provider.ts';

const hasIpv6 = Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === '::1'));
for (const host of hasIpv6 ? ['127.0.0.1', '::1'] : ['127.0.0.1']) contract(iwarpProvider, host, ordinaryTraits);

const verbsAddress = process.env['ISERFS_VERBS_ADDRESS'];
if (verbsAddress !== undefined) contract(verbsProvider, verbsAddress, traitsOfDevices());

function contract(provider: () => RdmaProvider, host: string, traits: RdmaContractTraits): void {
  const name = provider === verbsProvider ? 'verbs' : 'iwarp';
  rdmaProviderContract(
    `${name} at ${host}`,
    () => ({ initiator: provider(), target: provider(), endpoint: { host, port: 0 } }),
    traits,
  );
}

/** What Linux's drivers in software make of verbs: as observed with Linux 6.1 and rdma-core 44. */
function traitsOfDevices(): RdmaContractTraits {
  // Reliable connections of any device: the sender is told that the receiver is not ready, and tries again.
  const traits = { ...ordinaryTraits, endsWithoutReceive: false };
  if (!verbsDevices().some(({ name }) => name.startsWith('siw'))) return traits;
  return {
    ...traits,
    // Its user library has no such flag, and after some breaches both ends are told of an ordinary close.
    saysInvalidated: false,
    endsThatHearOfBreaches: 0,
    // It answers reads without a look at the permissions of the memory.
    keepsReadersOut: false,
    // A listener grants what it is asked for.
    keepsToReadDepths: false,
    // From the 25th completion queue on it has none; both ends of each connection need one here.
    connections: 8,
  };
}
