/** What the scenarios need of a target, whoever's it is: two offers of a LUN with known bytes, and a way to break its connections. */

/** Free of CHAP, or by CHAP only. */
export type Access = 'open' | 'chap';

export interface Offer {
  /** The port of iSER, in the guest. */
  readonly port: number;
  /** Where an initiator asks for targets over TCP, in the guest; undefined where there is only iSER. */
  readonly tcpPort: number | undefined;
  readonly name: string;
  readonly lun: number;
}

export interface TestTarget extends AsyncDisposable {
  readonly label: string;
  /** In the guest: the bytes of the LUN. */
  readonly backing: string;
  offer(access: Access): Promise<Offer>;
  /** Breaks every connection, without a word to the initiators. New ones work when it resolves, or soon after. */
  cut(): Promise<void>;
  /** For the report of a failure. */
  log(): Promise<string>;
}

export const initiatorName = 'iqn.2024-01.test:initiator';
export const account = { user: 'alice', secret: 'open-sesame-1', wrongSecret: 'close-sesame-1' };
