/**
 * The sessions of an embedded target by the name of their I_T nexus (initiator name, ISID, target, portal
 * group: RFC 7143 §4.4.3), and the rule that a nexus has one session: a login that names an existing one
 * replaces it (session reinstatement, RFC 7143 §6.3.5), but only after everything of the old session has
 * ended, its SCSI tasks included. Initiators that know this need no reset before they issue commands again.
 * Logins with the same name take turns. Knows no PDU and no connection.
 */

export interface NexusName {
  readonly initiatorName: string;
  readonly isid: number;
  readonly targetName: string;
}

/** A session as far as the registry is concerned. */
export interface OpenSession {
  readonly tsih: number;
  /** Closes the session for `reason`; resolves when nothing of it goes on. Idempotent. */
  close(reason: string): Promise<void>;
}

const MAX_TSIH = 0xffff;

export class SessionRegistry<S extends OpenSession> {
  readonly #maxSessions: number;
  readonly #sessions = new Map<string, S>();
  /** Logins and sessions that use a TSIH: a reinstated connection shares it with its predecessor for a while. */
  readonly #tsihUsers = new Map<number, number>();
  /** The last turn that was given out for a name. */
  readonly #turns = new Map<string, Promise<void>>();
  #lastTsih = 0;

  constructor(maxSessions: number) {
    this.#maxSessions = maxSessions;
  }

  get size(): number {
    return this.#sessions.size;
  }

  find(name: NexusName): S | undefined {
    return this.#sessions.get(keyOf(name));
  }

  /** Whether a login with this name may go on: it replaces a session, or there is room for one more. */
  hasRoomFor(name: NexusName): boolean {
    return this.#sessions.size < this.#maxSessions || this.#sessions.has(keyOf(name));
  }

  /** A TSIH that no session uses, held until `releaseTsih`. `undefined` where all are taken. */
  allocateTsih(): number | undefined {
    for (let tried = 0; tried < MAX_TSIH; tried++) {
      this.#lastTsih = (this.#lastTsih % MAX_TSIH) + 1;
      if (this.#tsihUsers.has(this.#lastTsih)) continue;
      this.holdTsih(this.#lastTsih);
      return this.#lastTsih;
    }
    return undefined;
  }

  holdTsih(tsih: number): void {
    this.#tsihUsers.set(tsih, (this.#tsihUsers.get(tsih) ?? 0) + 1);
  }

  releaseTsih(tsih: number): void {
    const users = this.#tsihUsers.get(tsih) ?? 0;
    if (users > 1) this.#tsihUsers.set(tsih, users - 1);
    else this.#tsihUsers.delete(tsih);
  }

  /**
   * Ends the session that has this name, if any, waits until nothing of it goes on, then registers what
   * `open` makes. `open` returns `undefined` where the login was given up in the meantime.
   */
  async establish(name: NexusName, open: () => S | undefined): Promise<void> {
    const key = keyOf(name);
    const before = this.#turns.get(key) ?? Promise.resolve();
    const turn = before.then(async () => {
      await this.#sessions.get(key)?.close('reinstated by a new login');
      const session = open();
      if (session !== undefined) this.#sessions.set(key, session);
    });
    const settled = turn.then(
      () => {},
      () => {},
    );
    this.#turns.set(key, settled);
    try {
      await turn;
    } finally {
      if (this.#turns.get(key) === settled) this.#turns.delete(key);
    }
  }

  /** Forgets a session of which nothing goes on any more. */
  remove(name: NexusName, session: S): void {
    const key = keyOf(name);
    if (this.#sessions.get(key) === session) this.#sessions.delete(key);
  }
}

function keyOf({ initiatorName, isid, targetName }: NexusName): string {
  // A space is in no iSCSI name.
  return `${initiatorName} ${isid.toString(16)} ${targetName}`;
}
