import { mountNative } from '../../src/fuse/native-host.ts';
import { hostContract } from './host-contract.ts';

hostContract('the native host', mountNative);
