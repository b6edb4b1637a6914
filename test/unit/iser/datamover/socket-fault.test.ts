import { describe, expect, it, test } from 'vitest';
import { describeError } from '../../../../src/errors.ts';
import { connectionError, faultText } from '../../../../src/iser/datamover/socket-fault.ts';

const fault = (code: string, message = `connect ${code} 192.0.2.1:3260`) => Object.assign(new Error(message), { code });

describe('a failed connection attempt', () => {
  test.each([
    ['ECONNREFUSED', 'connection refused', /Is the target running and the port right/],
    ['EHOSTUNREACH', 'no route to the host', /no firewall between/],
    ['ENOTFOUND', 'the name was not found', /host name spelled right/],
    ['ETIMEDOUT', 'timed out', /Is the target running/],
  ])('with %s is told as "%s"', (code, text, hint) => {
    const error = connectionError('[2001:db8::1]:3260', fault(code));
    expect(error).toMatchObject({ code: 'unreachable', message: `cannot connect to [2001:db8::1]:3260: ${text}` });
    expect(error.hint).toMatch(hint);
    expect(describeError(error)).toBe(error.message); // and not once more in the system's words
  });

  it('of a kind that is not known keeps its own words', () => {
    expect(faultText(fault('EWEIRD', 'something odd'))).toBe('something odd');
    expect(faultText(new Error('no code at all'))).toBe('no code at all');
  });

  it('at several addresses names each kind of failure once', () => {
    const all = new AggregateError([fault('ECONNREFUSED'), fault('ENETUNREACH'), fault('ECONNREFUSED')]);
    expect(faultText(all)).toBe('connection refused; no route to the network');
    expect(connectionError('storage.example:3260', all).hint).toBe('Is the target running and the port right?');
  });
});
