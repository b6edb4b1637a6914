/**
 * The contract of a data mover, on iSER. The contract negotiates nothing and knows no command window, so that the
 * receives must be as many and as long as a test sends at once.
 */

import { createIserTransport } from '../../../../src/iser/datamover/iser.ts';
import { createMemoryProviders, type MemoryProviderOptions } from '../../../../src/iser/rdma/memory.ts';
import { datamoverContract } from '../../../contract/datamover.ts';

const options = { commandWindow: 128, initiatorRecvDataSegmentLength: 16_384, targetRecvDataSegmentLength: 16_384 };
const memory = (providerOptions: MemoryProviderOptions = {}) => {
  const { initiator, target } = createMemoryProviders(providerOptions);
  return {
    initiator: createIserTransport(initiator, options),
    target: createIserTransport(target, options),
    endpoint: { host: '127.0.0.1', port: 0 },
  };
};

datamoverContract('iSER in memory', memory);
datamoverContract('iSER in memory with small messages', memory, {
  maxSendDataSegmentLength: 512,
  maxRecvDataSegmentLength: 1024,
  firstBurstLength: 700,
});
datamoverContract('iSER in memory where completions come after the answers', () => memory({ completionDelayMs: 5 }));
