import { describe, expect, it } from 'vitest';
import { readPortal, writePortal } from '../../../src/config/portal.ts';
import { formatPortal } from '../../../src/iser/iscsi/name.ts';

describe('a portal with a port for iSER', () => {
  it.each([
    ['san,iser-port=3261', { host: 'san', port: 3260, iserPort: 3261 }],
    ['192.0.2.1:860,iser-port=20', { host: '192.0.2.1', port: 860, iserPort: 20 }],
    ['[2001:db8::1]:3261,iser-port=3260', { host: '2001:db8::1', port: 3261, iserPort: 3260 }],
    ['2001:db8::1,iser-port=3260', { host: '2001:db8::1', port: 3260, iserPort: 3260 }],
  ])('%s', (text, portal) => {
    expect(readPortal(text)).toEqual(portal);
    expect(readPortal(writePortal(formatPortal(portal), portal.iserPort))).toEqual(portal);
  });

  it.each([
    ['san,iser-port=', 'iser-port: expected a port'],
    ['san,iser-port=65536', 'iser-port: expected a port'],
    ['san,iser-port=0', 'iser-port: expected a port'],
    [',iser-port=1', 'is no portal'],
    ['san,port=1', 'is no portal'],
  ])('cannot be %j', (text, message) => {
    expect(() => readPortal(text)).toThrow(message);
  });
});
