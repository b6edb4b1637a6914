import { mountPortable } from '../../src/fuse/portable-host.ts';
import { hostAbilities } from './host-abilities.ts';
import { hostContract } from './host-contract.ts';

hostContract('fuse-native', mountPortable);
hostAbilities('fuse-native', mountPortable, { largestRequest: 128 * 1024, readsInFlight: 1 });
