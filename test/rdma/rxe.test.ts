/** Over Soft-RoCE: iserfs with verbs against tgtd and LIO; the kernel's initiator and libiscsi against iserfs's target. */

import { afterAll, beforeAll, inject } from 'vitest';
import { Recorder } from './combination.ts';
import { deviceTests } from './device-tests.ts';
import { bringUp, fabricAddress } from './fabric.ts';
import { Guest } from './guest.ts';
import { KernelInitiator } from './initiators/kernel.ts';
import { LibiscsiInitiator } from './initiators/libiscsi.ts';
import { inGuest, MountInitiator } from './initiators/mount.ts';
import { libiscsi } from './limits.ts';
import { Embedded } from './targets/embedded.ts';
import { Lio } from './targets/lio.ts';
import { Tgtd } from './targets/tgtd.ts';

let guest: Guest;
const recorder = new Recorder({ name: 'rxe', order: 1, guest: () => guest });

beforeAll(async () => {
  guest = await Guest.boot(inject('guestImage'), inject('stage'));
  await bringUp(guest, 'rxe');
});
afterAll(() => guest?.[Symbol.asyncDispose]());

deviceTests(recorder, 'rxe', () => guest);

const mount = async () => new MountInitiator(await inGuest(guest, fabricAddress), 'verbs');
const path = 'verbs over rxe';

recorder.combination({
  path,
  initiator: 'iserfs',
  target: 'tgtd',
  setUp: async () => ({ target: await Tgtd.start(guest), initiator: await mount() }),
});

recorder.combination({
  path,
  initiator: 'iserfs',
  target: 'LIO',
  setUp: async () => ({ target: await Lio.start(guest, 'rxe'), initiator: await mount() }),
});

recorder.combination({
  path,
  initiator: 'kernel (ib_iser)',
  target: 'iserfs',
  setUp: async () => ({
    target: await Embedded.start(guest, 'verbs'),
    initiator: await KernelInitiator.start(guest, fabricAddress),
  }),
});

recorder.combination({
  path,
  initiator: 'libiscsi',
  target: 'iserfs',
  ...libiscsi,
  setUp: async () => ({
    target: await Embedded.start(guest, 'verbs'),
    initiator: await LibiscsiInitiator.start(guest, fabricAddress),
  }),
});
