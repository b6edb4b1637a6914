/**
 * Over software iWARP: iserfs with verbs against tgtd and LIO; the kernel's initiator and libiscsi against iserfs's target, which
 * speaks iWARP by the same device, or by itself over TCP.
 */

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
const recorder = new Recorder({ name: 'siw', order: 2, guest: () => guest });

beforeAll(async () => {
  guest = await Guest.boot(inject('guestImage'), inject('stage'));
  await bringUp(guest, 'siw');
});
afterAll(() => guest?.[Symbol.asyncDispose]());

deviceTests(recorder, 'siw', () => guest);

const mount = async () => new MountInitiator(await inGuest(guest, fabricAddress), 'verbs');

recorder.combination({
  path: 'verbs over siw',
  initiator: 'iserfs',
  target: 'tgtd',
  setUp: async () => ({ target: await Tgtd.start(guest), initiator: await mount() }),
});

recorder.combination({
  path: 'verbs over siw',
  initiator: 'iserfs',
  target: 'LIO',
  setUp: async () => ({ target: await Lio.start(guest, 'siw'), initiator: await mount() }),
});

for (const [path, transport] of [
  ['verbs over siw', 'verbs'],
  ['siw to iwarp', 'iwarp'],
] as const) {
  recorder.combination({
    path,
    initiator: 'kernel (ib_iser)',
    target: 'iserfs',
    setUp: async () => ({
      target: await Embedded.start(guest, transport),
      initiator: await KernelInitiator.start(guest, fabricAddress),
    }),
  });

  recorder.combination({
    path,
    initiator: 'libiscsi',
    target: 'iserfs',
    ...libiscsi,
    setUp: async () => ({
      target: await Embedded.start(guest, transport),
      initiator: await LibiscsiInitiator.start(guest, fabricAddress),
    }),
  });
}
