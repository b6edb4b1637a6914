/** From outside of the guest, where there is no RDMA device: iserfs with iwarp, over plain TCP, against tgtd and LIO behind siw. */

import { afterAll, beforeAll, inject } from 'vitest';
import { Workdir } from '../support/workdir.ts';
import { Recorder } from './combination.ts';
import { bringUp } from './fabric.ts';
import { Guest } from './guest.ts';
import { MountInitiator, outside } from './initiators/mount.ts';
import { Lio } from './targets/lio.ts';
import { Tgtd } from './targets/tgtd.ts';

let guest: Guest;
let workdir: Workdir;
const recorder = new Recorder({ name: 'outside', order: 3, guest: () => guest });

beforeAll(async () => {
  workdir = Workdir.create();
  guest = await Guest.boot(inject('guestImage'), inject('stage'), { forwards: [Tgtd.port, Tgtd.tcpPort, Lio.port] });
  await bringUp(guest, 'siw');
});
afterAll(async () => {
  await guest?.[Symbol.asyncDispose]();
  await workdir?.[Symbol.asyncDispose]();
});

const mount = () => new MountInitiator(outside(guest, workdir), 'iwarp');
const path = 'iwarp to siw, from outside';

recorder.combination({
  path,
  initiator: 'iserfs',
  target: 'tgtd',
  setUp: async () => ({ target: await Tgtd.start(guest), initiator: mount() }),
});

recorder.combination({
  path,
  initiator: 'iserfs',
  target: 'LIO',
  setUp: async () => ({ target: await Lio.start(guest, 'siw'), initiator: mount() }),
});
