import { describe, expect, it } from 'vitest';
import { ProtocolError } from '../../../../src/errors.ts';
import {
  acceptFault,
  closingFault,
  connectFault,
  listenFault,
  providerFault,
  thrownFailure,
} from '../../../../src/iser/rdma/provider-fault.ts';

// FailureCode in native/provider/provider.h.
const [none, refused, unreachable, timedOut, rejected, reset, peerViolation, terminated, resources, unsupported, badAddress] = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
];
const portal = { host: '10.0.0.1', port: 3260 };

describe('connecting', () => {
  it.each([
    [refused, 'Connection refused', 'connection refused'],
    [unreachable, '', 'no route to the host'],
    [unreachable, 'no device leads there', 'no device leads there'],
    [timedOut, 'no answer', 'timed out after 700 ms'],
    [rejected, '', 'the peer rejected the connection'],
    [reset, 'connection reset by peer', 'connection reset by peer'],
    [resources, 'too many open files', 'too many open files'],
    [badAddress, '', 'the address cannot be used'],
  ])('is unreachable with the cause in words: %i %s', (code, text, words) => {
    const fault = connectFault(portal, [{ code, text }], 700);
    expect(fault).toMatchObject({ code: 'unreachable', message: `cannot connect to 10.0.0.1:3260: ${words}` });
    expect(fault.hint).toMatch(/\?$/);
  });

  it('names each cause once where several addresses failed', () => {
    const failures = [refused, unreachable, refused].map((code) => ({ code, text: '' }));
    expect(connectFault({ host: 'storage', port: 1 }, failures, 1).message).toBe(
      'cannot connect to storage:1: connection refused; no route to the host',
    );
  });

  it('is unsupported only where every address failed for that', () => {
    const device = { code: unsupported, text: 'no RDMA device leads there' };
    expect(connectFault(portal, [device, device], 1).code).toBe('unsupported');
    expect(connectFault(portal, [device, { code: refused, text: '' }], 1).code).toBe('unreachable');
  });

  it('has timed out where there was no time to try an address', () => {
    expect(connectFault(portal, [], 5).message).toBe('cannot connect to 10.0.0.1:3260: timed out after 5 ms');
  });
});

describe('the end of a connection', () => {
  it('is no error where it was closed in order', () => {
    expect(closingFault('10.0.0.1:3260', { code: none, text: '' })).toBeUndefined();
  });

  it('is a protocol error where the peer broke a rule', () => {
    const fault = closingFault('10.0.0.1:3260', { code: peerViolation, text: 'a CRC error' });
    expect(fault).toBeInstanceOf(ProtocolError);
    expect(fault?.message).toBe('10.0.0.1:3260: a CRC error');
  });

  it.each([
    [reset, 'the connection was reset'],
    [terminated, 'the peer ended the connection because of an error'],
    [timedOut, 'timed out'],
    [999, 'the connection was reset'],
  ])('is a lost connection otherwise: %i', (code, words) => {
    expect(closingFault('10.0.0.1:3260', { code, text: '' })).toMatchObject({
      code: 'connection-lost',
      message: `the connection to 10.0.0.1:3260 was lost: ${words}`,
    });
  });
});

it('says why an incoming connection did not come about', () => {
  expect(acceptFault('10.0.0.9:777', { code: reset, text: '' })).toMatchObject({
    code: 'connection-lost',
    message: 'the connection from 10.0.0.9:777 did not come about: the connection was reset',
  });
});

it('tells an address that cannot be had from a provider that is not there', () => {
  expect(listenFault(portal, { code: badAddress, text: 'the address is in use' })).toMatchObject({
    code: 'bad-configuration',
    message: 'cannot listen on 10.0.0.1:3260: the address is in use',
  });
  expect(listenFault(portal, { code: unsupported, text: 'no device there' }).code).toBe('unsupported');
});

it('says why a provider cannot be used', () => {
  expect(providerFault('RDMA verbs cannot be used here', { code: unsupported, text: 'there is no libibverbs' })).toMatchObject({
    code: 'unsupported',
    message: 'RDMA verbs cannot be used here: there is no libibverbs',
  });
});

it('tells failures of a provider from other errors', () => {
  expect(thrownFailure(Object.assign(new Error('no'), { failure: 5 }))).toEqual({ code: 5, text: 'no' });
  expect(thrownFailure(new RangeError('no'))).toBeUndefined();
  expect(thrownFailure('no')).toBeUndefined();
});
