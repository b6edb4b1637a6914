import { mountNative } from '../../src/fuse/native-host.ts';
import { hostAbilities } from './host-abilities.ts';
import { hostContract } from './host-contract.ts';

hostContract('the native host', mountNative);
hostAbilities('the native host', mountNative, { largestRequest: 1024 * 1024, readsInFlight: 300 });
