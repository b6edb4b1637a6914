import { describe, expect, it } from 'vitest';
import { runCommandLine } from '../../../src/cli/command-line.ts';
import { parseListen } from '../../../src/cli/command-line-arguments.ts';
import { makeOutput } from '../../../src/cli/output.ts';
import { IserfsError, UsageError } from '../../../src/errors.ts';
import { SeveralErrors } from '../../../src/several-errors.ts';

const NEVER = new AbortController().signal;

async function run(...argv: string[]) {
  let stdout = '';
  let stderr = '';
  const status = await runCommandLine(argv, {
    environment: { XDG_CONFIG_HOME: '/nowhere', XDG_STATE_HOME: '/nowhere' },
    output: makeOutput({
      stdout: (text) => {
        stdout += text;
      },
      stderr: (text) => {
        stderr += text;
      },
      debug: false,
    }),
    interrupts: () => ({ stop: NEVER, force: NEVER }),
  });
  return { status, stdout, stderr };
}

describe('the command line', () => {
  it.each([
    [['--version'], /^\d+\.\d+\.\d+\n$/],
    [['--help'], /^iSCSI and iSER LUNs as plain files/],
    [['mount', '--help'], /--recovery-timeout/],
    [['target', '--help'], /--volatile-cache/],
  ])('%j goes to stdout, and is success', async (argv, text) => {
    const { status, stdout, stderr } = await run(...argv);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(text);
  });

  it.each(['', 'mount', 'umount', 'discover', 'ls', 'info', 'status', 'target'])(
    'help of "%s" fits 100 columns',
    async (command) => {
      const { stdout } = await run(...(command === '' ? [] : [command]), '--help');
      expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
    },
  );

  it.each([
    [['mout'], /^iserfs: no such command; did you mean "mount"\?$/m],
    [['ls', '--jsn'], /^iserfs: unknown option --jsn; did you mean --json\?$/m],
    [['mount', '/a', '--protal', 'h'], /^iserfs: unknown option --protal; did you mean --portal\?$/m],
    [['umount', '/a', '--cache-size=1'], /^iserfs: unknown option --cache-size$/m],
    [['mount', '/a', '-q'], /^iserfs: unknown option -q$/m],
    [['mount', '/a', '--portal'], /^iserfs: --portal needs a value$/m],
    [['version'], /^iserfs: no such command: version$/m],
    [['mount'], /^iserfs: mount where\?$/m],
    [['mount', '/a', '/b'], /^iserfs: "\/b" is one argument too many$/m],
    [['mount', '/a', '--portal', 'h', '--cache-size', '12q'], /^iserfs: --cache-size 12q: expected a size/m],
    [['mount', '/a', '--portal', 'h', '--recovery-timeout', 'soon'], /^iserfs: --recovery-timeout soon: expected a time/m],
    [['mount', '/a', '--portal', 'h', '--transport', 'fast'], /^iserfs: --transport fast: expected one of auto, iser/m],
    [['mount', '/a', '--portal', 'h:99999'], /^iserfs: "h:99999" is no portal$/m],
    [['mount', '/a', '--portal', 'h', '--target', 'disk'], /^iserfs: --target: "disk" is not an iSCSI name$/m],
    [['mount', '/a', '--portal', 'h', '--lun', '-x'], /^iserfs: /m],
    [['mount', '/a', '--cache-size', '1', '--cache-size', '2'], /^iserfs: --cache-size is given 2 times$/m],
    [['mount', '/a', '--demo', '--portal', 'h'], /^iserfs: --demo brings its own target/m],
    [['discover'], /^iserfs: portal is missing$/m],
    [['umount'], /^iserfs: mountpoint is missing$/m],
    [['target'], /^iserfs: no LUN to offer$/m],
    [['target', '--memory', '1G', '--block-size', '500'], /^iserfs: --block-size: expected a block size/m],
    [['mount', '/a', '--portal', 'h,iser-port=x'], /^iserfs: h,iser-port=x: iser-port: expected a port from 1 to 65535$/m],
    [['mount', '/a', '--portal', 'h', '--iser-port', '0'], /^iserfs: --iser-port 0: expected a port from 1 to 65535$/m],
    [['ls', 'h', '--iwarp-crc', 'yes'], /^iserfs: --iwarp-crc yes: expected one of on, off$/m],
    [['target', '--memory', '1G', '--transport', 'iser'], /^iserfs: --transport iser: expected one of tcp, iwarp, verbs$/m],
    [['target', '--memory', '1G', '--iser-port', 'x'], /^iserfs: --iser-port x: expected a port from 1 to 65535$/m],
    [['target', '--memory', '1G', '--iser-port', '1', '--transport', 'tcp'], /^iserfs: --iser-port with --transport tcp/m],
    [
      ['target', '--memory', '1G', '--iser-port', '1', '--data-digest', 'require'],
      /^iserfs: --data-digest require cannot be had/m,
    ],
    [['discover', 'h', '--header-digest', 'require', '--transport', 'iwarp'], /^iserfs: --header-digest require cannot/m],
    [['mount', '/a', '--portal', 'h', '--chap-user', 'me'], /^iserfs: no CHAP secret for user "me"$/m],
    [['ls', 'h', '--chap-secret-file', '/s'], /^iserfs: a CHAP secret is given without a user$/m],
    [['mount', '/a', '--target', 'iqn.2024-01.x:a'], /^iserfs: no portal is known for iqn.2024-01.x:a$/m],
    [['target', '--memory', '1000'], /^iserfs: --memory 1000: 1000 bytes is not a multiple of the block size 512$/m],
    [['target', '--file', '/nowhere/f,size=100'], /^iserfs: --file .*: 100 bytes is not a multiple of the block size 512$/m],
    [['target', '--memory', '1M,foo=1'], /^iserfs: --memory 1M,foo=1: unknown setting "foo=1"$/m],
    [['target', '--memory', '1M,lun=1', '--memory', '1M,lun=1'], /^iserfs: LUN 1 of .* is given twice$/m],
    [['umount', '/a', '--timeout', 'x'], /^iserfs: --timeout: expected a time/m],
  ])('%j is not understood: exit status 2, one line, the next step', async (argv, line) => {
    const { status, stdout, stderr } = await run(...argv);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(line);
    expect(stderr.split('\n')).toHaveLength(3);
  });

  it('without anything shows help on stderr', async () => {
    const { status, stdout, stderr } = await run();
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain('iserfs mount');
  });

  it.each([['--chap-secret'], ['--chap-mutual-secret']])('refuses %s and does not repeat the secret', async (option) => {
    const { status, stderr } = await run('mount', '/a', '--portal', 'h', '--chap-user', 'me', option, 'hush-hush');
    expect(status).toBe(2);
    expect(stderr).toContain('--chap-secret-file');
    expect(stderr).not.toContain('hush');
  });

  it('fails with status 1 where it is understood and cannot be done', async () => {
    const { status, stderr } = await run('mount', '/nowhere', '--config', '/nowhere/config.yaml');
    expect(status).toBe(1);
    expect(stderr).toMatch(/^iserfs: cannot read the configuration file \/nowhere\/config\.yaml: no such file\n {2}Check/);
  });

  it('without portals says where they could stand', async () => {
    const { status, stderr } = await run('mount', '/nowhere');
    expect(status).toBe(2);
    expect(stderr).toMatch(/^iserfs: no portal is given\n {2}.*--portal.*config\.yaml/);
  });
});

describe('an address to listen on', () => {
  it.each([
    ['0.0.0.0:3260', { host: '0.0.0.0', port: 3260 }],
    ['127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
    ['[::1]:0', { host: '::1', port: 0 }],
    ['localhost', { host: 'localhost', port: 3260 }],
  ])('%s', (text, endpoint) => {
    expect(parseListen(text)).toEqual(endpoint);
  });

  it('that is none is a usage error', () => {
    expect(() => parseListen(':0')).toThrow(UsageError);
  });
});

describe('an error', () => {
  function told(error: unknown, debug = false): string {
    let stderr = '';
    const output = makeOutput({
      stdout: () => {},
      stderr: (text) => {
        stderr += text;
      },
      debug,
    });
    output.fail(error);
    return stderr;
  }

  it('is one line with its causes, then what to do', () => {
    const cause = new IserfsError('unreachable', 'no route', { hint: 'Look at the cable.' });
    expect(told(new IserfsError('mount-failed', 'no mount', { cause }))).toBe(
      'iserfs: no mount: no route\n  Look at the cable.\n',
    );
  });

  it.each([
    ['protocol-error', /check the host and the port/],
    ['connection-lost', /Is it an iSCSI target that answers there\?/],
  ] as const)('of kind %s names a next step of its own accord', (code, hint) => {
    expect(told(new IserfsError(code, 'it broke'))).toMatch(hint);
    expect(told(new IserfsError(code, 'it broke', { hint: 'Known.' }))).toBe('iserfs: it broke\n  Known.\n');
  });

  it('stays in its line whatever the wire put into it', () => {
    expect(told(new IserfsError('protocol-error', 'bad \u001b[31mname\nroot: x', { hint: 'Next.' }))).toBe(
      'iserfs: bad  [31mname root: x\n  Next.\n',
    );
  });

  it('with several causes is a line for each', () => {
    const error = SeveralErrors.from([
      new IserfsError('unreachable', 'a', { hint: 'Try.' }),
      new IserfsError('unreachable', 'b\nc'),
    ]);
    expect(told(error)).toBe('iserfs: a\niserfs: b c\n  Try.\n');
  });

  it('of our own making says so, and shows its stack only when asked', () => {
    expect(told(new TypeError('x is undefined'))).toBe('iserfs: internal error: x is undefined (ISERFS_DEBUG=1 shows where)\n');
    expect(told(new TypeError('x is undefined'), true)).toContain('command-line.test.ts');
  });
});
