/**
 * What every RDMA provider promises (`src/iser/rdma/provider.ts`), whatever moves the data: run on the provider inside one
 * process, on software iWARP, and on verbs where there is a device. Both ends are of the same provider.
 */

import { afterEach, beforeEach, describe, expect } from 'vitest';
import type { Endpoint } from '../../src/iser/datamover/datamover.ts';
import type { RdmaProvider } from '../../src/iser/rdma/provider.ts';
import { RdmaFixture } from '../support/rdma-fixture.ts';
import { connectingContract } from './rdma-provider-connecting.ts';
import { endingContract } from './rdma-provider-ending.ts';
import { memoryContract } from './rdma-provider-memory.ts';
import { messagesContract } from './rdma-provider-messages.ts';

export interface RdmaContractSetting {
  readonly initiator: RdmaProvider;
  readonly target: RdmaProvider;
  /** Where to listen; port 0. */
  readonly endpoint: Endpoint;
}

/** Where what is legal differs, or what a device is able to. */
export interface RdmaContractTraits {
  /** Whether a message without a receive ends the connection; else it waits for one. */
  readonly endsWithoutReceive: boolean;
  /** At least so many ends hear of a breach of the rules as such; the others see no more than that the connection ends. */
  readonly endsThatHearOfBreaches: 0 | 2;
  /** Whether a Send with Invalidate revokes; else it breaks the rules. */
  readonly canPeersInvalidate: boolean;
  /** Whether a receive says which tag its message has revoked. */
  readonly saysInvalidated: boolean;
  /** Whether memory that is advertised for writing cannot be read. */
  readonly keepsReadersOut: boolean;
  /** Whether neither end grants more reads at a time than it wants. */
  readonly keepsToReadDepths: boolean;
  /** Connections that a process may have. */
  readonly connections: number;
}

/** Nothing is left out. */
export const ordinaryTraits: RdmaContractTraits = {
  endsWithoutReceive: true,
  endsThatHearOfBreaches: 2,
  canPeersInvalidate: true,
  saysInvalidated: true,
  keepsReadersOut: true,
  keepsToReadDepths: true,
  connections: 24,
};

/** `current` answers the fixture of the test that runs. */
export type RdmaContractPart = (current: () => RdmaFixture, traits: RdmaContractTraits) => void;

export function rdmaProviderContract(name: string, open: () => RdmaContractSetting, traits: RdmaContractTraits): void {
  describe(`RDMA provider: ${name}`, () => {
    let fixture: RdmaFixture | undefined;

    beforeEach(() => {
      const { initiator, target, endpoint } = open();
      fixture = new RdmaFixture(initiator, target, endpoint);
    });

    afterEach(async () => {
      expect(await fixture?.end()).toEqual([]);
    });

    const current = () => {
      if (fixture === undefined) throw new Error('there is no test');
      return fixture;
    };
    describe('connecting', () => connectingContract(current, traits));
    describe('messages', () => messagesContract(current, traits));
    describe('memory of the peer', () => memoryContract(current, traits));
    describe('ending', () => endingContract(current, traits));
  });
}
