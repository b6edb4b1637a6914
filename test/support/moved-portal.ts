/** A portal on any transport whose targets have all moved: it answers every login with another address (RFC 7143 §11.13.5). */

import type { TargetDatamover, TargetHandler, TargetTransport } from '../../src/iser/datamover/datamover.ts';
import { LoginStatus, TargetLogin } from '../../src/iser/iscsi/login.ts';
import { formatPortal, type Portal } from '../../src/iser/iscsi/name.ts';

export interface MovedPortal {
  readonly portal: Portal;
  /** Logins that were sent elsewhere so far. */
  readonly logins: number;
}

/** Listens at `portal`; `to` may be that portal itself. */
export async function listenMoved(
  transport: TargetTransport,
  options: { readonly portal: Portal; readonly to: Portal; readonly permanently: boolean },
): Promise<MovedPortal> {
  const { portal, to, permanently } = options;
  const moved = { portal, logins: 0 };
  const status = permanently ? LoginStatus.movedPermanently : LoginStatus.movedTemporarily;
  const handlerOf = (datamover: TargetDatamover): TargetHandler => {
    const login = new TargetLogin({
      accept: () => ({ ok: false, ...status, targetAddress: `${formatPortal(to)},1` }),
      offers: (sessionType) => datamover.keyOffers(sessionType),
      random: (length) => new Uint8Array(length),
    });
    return {
      controlNotify(request) {
        if (request.opcode !== 'login-request') throw new Error(`${request.opcode} during login`);
        moved.logins++;
        datamover.sendControl(login.handleRequest(request).pdu);
      },
      currentNumbering: () => ({ statSn: 0, expCmdSn: 0, maxCmdSn: 0 }),
      connectionTerminated: () => {},
    };
  };
  await transport.listen(portal, handlerOf);
  return moved;
}
