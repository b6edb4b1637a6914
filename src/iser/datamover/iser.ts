/**
 * Both ends of the iSER transport over an RDMA provider: opens and accepts connections, each with its receives
 * posted before the first message can come, and a data mover on top. It knows neither PDUs nor what the provider is.
 */

import { IserfsError } from '../../errors.ts';
import { MAX_LOGIN_DATA } from '../iscsi/login-exchange.ts';
import { formatPortal } from '../iscsi/name.ts';
import type { ConnectionRequest, RdmaProvider } from '../rdma/provider.ts';
import type {
  ConnectOptions,
  Endpoint,
  InitiatorDatamover,
  InitiatorHandler,
  InitiatorTransport,
  TargetDatamover,
  TargetHandler,
  TargetTransport,
} from './datamover.ts';
import { IserBuffers } from './iser-buffers.ts';
import type { IserDatamoverParts } from './iser-datamover.ts';
import { IserInitiator } from './iser-initiator.ts';
import { LONGEST_AHS, LONGEST_PADDING, MESSAGE_HEADER_LENGTH } from './iser-message.ts';
import { type IserOptions, iserOptions } from './iser-options.ts';
import { IserTarget } from './iser-target.ts';

export type { IserOptions } from './iser-options.ts';

/** Connections of one listener that are accepted and not made yet: each has all of its receives by then. */
const MOST_UNMADE = 64;

/** Both ends of iSER over `provider`. Throws RangeError where an option is out of range. */
export function createIserTransport(
  provider: RdmaProvider,
  options: Partial<IserOptions> = {},
): InitiatorTransport & TargetTransport {
  const complete = iserOptions(options);
  const longestData = Math.max(MAX_LOGIN_DATA, complete.initiatorRecvDataSegmentLength, complete.targetRecvDataSegmentLength);
  const messageLength = MESSAGE_HEADER_LENGTH + LONGEST_AHS + longestData + LONGEST_PADDING;
  const parts: IserDatamoverParts = {
    transport: provider.name,
    options: complete,
    buffers: new IserBuffers(provider.memory, messageLength),
  };
  return {
    name: provider.name,
    connect: (endpoint, handler, connectOptions) => connectIser(provider, parts, endpoint, handler, connectOptions),
    listen: (endpoint, accept) => {
      let unmade = 0;
      return provider.listen(endpoint, (request) => {
        if (unmade === MOST_UNMADE) {
          request.reject();
          return;
        }
        unmade++;
        const settled = () => unmade--;
        answerRequest(request, parts, accept).then(settled, settled);
      });
    },
  };
}

async function connectIser(
  provider: RdmaProvider,
  parts: IserDatamoverParts,
  endpoint: Endpoint,
  handler: InitiatorHandler,
  { signal, timeoutMs }: ConnectOptions,
): Promise<InitiatorDatamover> {
  if (signal?.aborted) {
    throw new IserfsError('aborted', `connecting to ${formatPortal(endpoint)} was aborted`, { cause: signal.reason });
  }
  const datamover = new IserInitiator(parts, handler);
  try {
    const connectOptions = { ...datamover.queuePairOptions, timeoutMs, ...(signal === undefined ? {} : { signal }) };
    datamover.open(await provider.connect(endpoint, connectOptions, datamover));
    return datamover;
  } catch (error) {
    datamover.abandon();
    throw error;
  }
}

/** Settles when the connection has come about, or will not any more. */
function answerRequest(
  request: ConnectionRequest,
  parts: IserDatamoverParts,
  accept: (datamover: TargetDatamover) => TargetHandler,
): Promise<void> {
  const datamover = new IserTarget(parts);
  return request.accept(datamover.queuePairOptions, datamover).then(
    (queuePair) => {
      datamover.open(queuePair);
      try {
        datamover.attach(accept(datamover));
      } catch {
        // Whoever accepts has no use for this connection.
        queuePair.close('abrupt');
      }
    },
    // It did not come about: that is the initiator's affair.
    () => datamover.abandon(),
  );
}
