/** RDMA in software, by the guest's kernel: what the tests run over. */

import type { Guest } from './guest.ts';

/** rxe: RoCE, by datagrams. siw: iWARP, by TCP. */
export type Fabric = 'rxe' | 'siw';

/** The address, inside the guest, of a device with large frames: three times as fast as the guest's network card. */
export const fabricAddress = '192.168.77.1';

/**
 * Makes the RDMA devices. siw also gets one on the guest's network card: iWARP is plain TCP, so that it is reached from outside
 * through forwarded ports.
 */
export async function bringUp(guest: Guest, fabric: Fabric): Promise<void> {
  const modules = fabric === 'rxe' ? 'crc32_generic rdma_rxe' : 'crc32c_generic siw';
  const onCard = fabric === 'siw' ? 'rdma link add siw1 type siw netdev eth0' : '';
  await guest.checked(`
    set -e
    modprobe -a ${modules} rdma_cm rdma_ucm ib_uverbs
    modprobe dummy numdummies=0
    ip link add dummy0 mtu 9000 type dummy
    ip address add ${fabricAddress}/24 dev dummy0
    ip link set dummy0 up
    rdma link add ${fabric}0 type ${fabric} netdev dummy0
    ${onCard}
    for attempt in $(seq 300); do [ -e /dev/infiniband/uverbs0 ] && break; pause 0.1; done
    mkdir -p ${lunFolder}`);
}

/** In the guest; in memory. */
export const lunFolder = '/dev/shm/luns';
export const lunSize = 16 * 1024 * 1024;
