import { describe, expect, it } from 'vitest';
import { CommandLineArguments } from '../../../../src/cli/command-line-arguments.ts';
import { portalArguments } from '../../../../src/cli/commands/target.ts';

const portals = (options: Record<string, string>) =>
  new CommandLineArguments({ listen: '0.0.0.0:3260', ...options }).targetPortals();
const at = (port: number) => ({ host: '0.0.0.0', port });

describe('where a target listens', () => {
  it.each([
    [{}, [{ endpoint: at(3260), transport: 'tcp' }]],
    [{ transport: 'iwarp' }, [{ endpoint: at(3260), transport: 'iwarp' }]],
    [
      { 'iser-port': '3261' },
      [
        { endpoint: at(3260), transport: 'tcp' },
        { endpoint: at(3261), transport: 'iwarp' },
      ],
    ],
    [
      { 'iser-port': '0', transport: 'verbs' },
      [
        { endpoint: at(3260), transport: 'tcp' },
        { endpoint: at(0), transport: 'verbs' },
      ],
    ],
  ])('with %j', (options, expected) => {
    expect(portals(options)).toEqual(expected);
  });

  it.each([
    [{}, '--portal 127.0.0.1:3260'],
    [{ transport: 'iwarp' }, '--portal 127.0.0.1:3260 --transport iwarp'],
    [{ 'iser-port': '3261' }, '--portal 127.0.0.1:3260,iser-port=3261 --transport iwarp'],
  ])('with %j is mounted with %s', (options, expected) => {
    expect(portalArguments(portals(options))).toBe(expected);
  });
});
