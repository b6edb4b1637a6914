import { describe, expect, it } from 'vitest';
import { type OpenPortal, portalAddresses } from '../../../src/iser/portal-addresses.ts';

const at = (host: string, port: number, transport = 'tcp'): OpenPortal => ({ endpoint: { host, port }, transport });

describe('portalAddresses', () => {
  it('gives the address that the initiator has reached, also where the listener has a wildcard', () => {
    const portal = at('0.0.0.0', 3260);
    expect(portalAddresses([portal], portal, '192.0.2.7:3260')).toEqual(['192.0.2.7:3260']);
  });

  it('begins with the portals of the kind that was asked, whatever their order', () => {
    const [tcp, other, iser, second] = [
      at('192.0.2.7', 3260),
      at('192.0.2.8', 3261, 'verbs'),
      at('192.0.2.7', 3261, 'iwarp'),
      at('192.0.2.9', 3260),
    ];
    expect(portalAddresses([tcp, other, iser, second], tcp, '192.0.2.7:3260')).toEqual([
      '192.0.2.7:3260',
      '192.0.2.9:3260',
      '192.0.2.8:3261',
      '192.0.2.7:3261',
    ]);
    expect(portalAddresses([tcp, other, iser, second], iser, '192.0.2.7:3261').slice(0, 2)).toEqual([
      '192.0.2.7:3261',
      '192.0.2.7:3260',
    ]);
  });

  it.each(['', '0.0.0.0', '::'])('gives a portal that listens on %j the host by which this one was reached', (wildcard) => {
    const tcp = at(wildcard, 3260);
    const iser = at(wildcard, 3261, 'iwarp');
    expect(portalAddresses([tcp, iser], tcp, '[2001:db8::7]:3260')).toEqual(['[2001:db8::7]:3260', '[2001:db8::7]:3261']);
  });

  it('names an address once, although a TCP and an RDMA portal have it', () => {
    const tcp = at('192.0.2.7', 3260);
    expect(portalAddresses([tcp, at('192.0.2.7', 3260, 'verbs')], tcp, '192.0.2.7:3260')).toEqual(['192.0.2.7:3260']);
  });
});
