import { mountPortable } from '../../src/fuse/portable-host.ts';
import { hostContract } from './host-contract.ts';

hostContract('fuse-native', mountPortable);
