/** Where the login phase ends on the wire: what follows is governed by the negotiated values (RFC 7143 §6.3). */

import type { Pdu } from '../iscsi/pdu.ts';

/** NSG of a login that ends with its PDU (RFC 7143 §11.12.3). */
const FULL_FEATURE_PHASE = 3;

/** Whether `pdu` is the response that ends a login well. */
export function endsLogin(pdu: Pdu): boolean {
  return pdu.opcode === 'login-response' && pdu.transit && pdu.nsg === FULL_FEATURE_PHASE && pdu.statusClass === 0;
}
