import { describe, expect, it } from 'vitest';
import { identify, type RunCommand } from '../../../src/scsi/probe.ts';

const INQUIRY = 0x12;
const SERIAL_PAGE = 0x80;

/** Standard INQUIRY data of a connected disk, and one VPD page with the length that it claims. */
function deviceWith(page: number, claimedLength: number, body: Uint8Array): RunCommand {
  return async ({ cdb, dataIn = new Uint8Array(0) }) => {
    expect(cdb[0]).toBe(INQUIRY);
    const isVpd = ((cdb[1] ?? 0) & 1) === 1;
    const answered = cdb[2] === page ? page : 0x00;
    const header = [0, answered, claimedLength >> 8, claimedLength & 0xff];
    const data = isVpd && answered === page ? [...header, ...body] : isVpd ? [0, 0, 0, 2, 0x00, page] : [0, 0, 6, 2, 31];
    const length = Math.min(dataIn.length, data.length, ((cdb[3] ?? 0) << 8) | (cdb[4] ?? 0));
    dataIn.set(data.slice(0, length));
    return length;
  };
}

describe('a VPD page', () => {
  it('that says to be longer than any command can ask for is taken as far as it comes', async () => {
    const serial = Uint8Array.from('S-0815', (char) => char.charCodeAt(0));
    const identity = await identify(deviceWith(SERIAL_PAGE, 0xffff, serial));
    expect(identity.serial).toBe('S-0815');
  });

  it('that is longer than the first look is asked for whole', async () => {
    const serial = new Uint8Array(300).fill(0x41);
    const identity = await identify(deviceWith(SERIAL_PAGE, serial.length, serial));
    expect(identity.serial).toBe('A'.repeat(300));
  });
});
