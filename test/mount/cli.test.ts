/** The command line end to end: mounts that come, that fail, and that end, served by the built program against the embedded target. */

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MountRecords } from '../../src/cli/mount-record.ts';
import { createTcpTransport } from '../../src/iser/datamover/tcp.ts';
import { MemoryMedium } from '../../src/scsi/memory-medium.ts';
import { describeOutcome, ended, type RunOutcome, run, runChecked, spawnGuarded, waitFor } from '../support/child-process.ts';
import { cliPath, guardMount, MountProcess, runCli } from '../support/cli-process.ts';
import { EmbeddedTarget } from '../support/embedded-target.ts';
import { findMount } from '../support/mounts.ts';
import { freePort } from '../support/ports.ts';
import { UnprivilegedSpace } from '../support/unprivileged.ts';
import { MiB, Workdir } from '../support/workdir.ts';

const DISKS = 'iqn.2024-01.org.example:disks';
const LOCKED = 'iqn.2024-01.org.example:locked';
const SECRET = 'a secret of the tests';
const PATTERN = Buffer.from(Array.from({ length: 4096 }, (_, index) => (index * 7) & 0xff));

/** A place to mount, state and configuration of its own, and the program run in it. */
class Place implements AsyncDisposable {
  readonly workdir = Workdir.create();
  readonly mountpoint = this.workdir.folder('mnt');
  readonly env = {
    ...process.env,
    XDG_STATE_HOME: this.workdir.join('state'),
    XDG_CONFIG_HOME: this.workdir.join('config'),
  };
  readonly #guard = guardMount(this.mountpoint);

  cli(...args: string[]): Promise<RunOutcome> {
    return runCli(args, { env: this.env });
  }

  cliIn(cwd: string, ...args: string[]): Promise<RunOutcome> {
    return runCli(args, { env: this.env, cwd });
  }

  /** `iserfs mount` in the background. */
  async mount(...args: string[]): Promise<RunOutcome> {
    const outcome = await this.cli('mount', this.mountpoint, ...args);
    expect(outcome.status, describeOutcome(outcome)).toBe(0);
    return outcome;
  }

  /** The process that serves the mount, by what the launcher said. */
  static serverOf(outcome: RunOutcome): number {
    return Number(/^Served by process (\d+);/m.exec(outcome.stderr)?.[1]);
  }

  records(): string[] {
    return readdirSync(join(this.workdir.join('state'), 'iserfs', 'mounts'));
  }

  log(): string {
    const folder = join(this.workdir.join('state'), 'iserfs', 'log');
    return readdirSync(folder)
      .map((name) => readFileSync(join(folder, name), 'utf8'))
      .join('');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guard[Symbol.asyncDispose]();
    await this.workdir[Symbol.asyncDispose]();
  }
}

let target: EmbeddedTarget;

beforeAll(async () => {
  const medium = new MemoryMedium(16 * MiB);
  await medium.write(0, PATTERN);
  const secret = new TextEncoder().encode(SECRET);
  target = await EmbeddedTarget.start([
    {
      name: DISKS,
      units: [
        { lun: 0, medium, blockLength: 512, serial: 'disk-0' },
        { lun: 3, medium: new MemoryMedium(8 * MiB), blockLength: 4096, serial: 'disk-3', readOnly: true },
      ],
    },
    {
      name: LOCKED,
      units: [{ lun: 0, medium: new MemoryMedium(MiB), blockLength: 512, serial: 'locked-0' }],
      chap: { credentials: { user: 'tester', secret } },
    },
  ]);
});

afterAll(async () => {
  await target[Symbol.asyncDispose]();
});

function sessionsWith(name: string): number {
  return target.target.sessions.filter(({ targetName }) => targetName === name).length;
}

function isAlive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

describe('a mount in the background', () => {
  it('is readable when the command ends, and gone with its session when umount ends', async () => {
    await using place = new Place();
    const sessions = sessionsWith(DISKS);
    const outcome = await place.mount('--portal', target.portal, '--target', DISKS);
    const image = join(place.mountpoint, DISKS, 'lun0', 'image');
    expect(outcome.stdout.trimEnd().split('\n')).toEqual([image, join(place.mountpoint, DISKS, 'lun3', 'image')]);
    const head = await runChecked('od', ['-A', 'n', '-t', 'u1', '-v', '-w1', '-N', '4096', image]);
    expect(head.trimEnd().split('\n').map(Number)).toEqual([...PATTERN]);
    expect(sessionsWith(DISKS)).toBe(sessions + 1);
    const pid = Place.serverOf(outcome);
    expect(place.records()).toHaveLength(1);

    const unmounted = await place.cli('umount', place.mountpoint);
    expect(unmounted.status, describeOutcome(unmounted)).toBe(0);
    expect(findMount(place.mountpoint)).toBeUndefined();
    expect(isAlive(pid)).toBe(false);
    expect(sessionsWith(DISKS)).toBe(sessions);
    expect(place.records()).toEqual([]);
  });

  it('lives in a session of its own, away from the terminal, and holds nothing of the launcher', async () => {
    await using place = new Place();
    const pid = Place.serverOf(await place.mount('--portal', target.portal, '--target', DISKS));
    const [, , , session] = readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/\(.*\)/s, 'node')
      .split(' ')
      .slice(2);
    expect(Number(session)).toBe(pid);
    expect(await runChecked('readlink', [`/proc/${pid}/cwd`])).toBe('/\n');
    const descriptors = await runChecked('sh', ['-c', `ls -l /proc/${pid}/fd`]);
    expect(descriptors).toMatch(/ 0 -> \/dev\/null$/m);
    expect(descriptors).not.toMatch(/ (1|2) -> pipe:/);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });

  it('shows images with their sizes and rights, and texts that are live', async () => {
    await using place = new Place();
    await place.mount('--portal', target.portal, '--target', DISKS);
    const folder = join(place.mountpoint, DISKS);
    expect(await runChecked('stat', ['-c', '%a %s', join(folder, 'lun0', 'image'), join(folder, 'lun3', 'image')])).toBe(
      `600 ${16 * MiB}\n400 ${8 * MiB}\n`,
    );
    expect(await runChecked('cat', [join(folder, 'lun3', 'info')])).toMatch(/^logical block length: 4096 bytes$/m);
    expect(await runChecked('cat', [join(folder, 'status')])).toMatch(/^state: logged-in$/m);
    const reads = async () => JSON.parse(await runChecked('cat', [join(folder, 'lun3', 'status.json')])) as { reads: number };
    const before = (await reads()).reads;
    await runChecked('cmp', ['-n', '65536', join(folder, 'lun3', 'image'), '/dev/zero']);
    expect((await reads()).reads).toBeGreaterThan(before);
    expect(await runChecked('cat', [join(place.mountpoint, 'metrics')])).toMatch(
      /^iserfs_lun_read_bytes_total\{.*lun="3"\} [1-9]/m,
    );
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });

  it('is what the configuration file says, and no secret of it is anywhere to be seen', async () => {
    await using place = new Place();
    place.workdir.folder('config/iserfs');
    place.workdir.file(
      'config/iserfs/config.yaml',
      `portals: ["${target.portal}"]\nread-only: true\nchap-user: tester\nchap-secret: ${SECRET}\n`,
    );
    const outcome = await place.mount();
    expect(outcome.stdout).toContain(join(place.mountpoint, LOCKED, 'lun0', 'image'));
    const pid = Place.serverOf(outcome);
    const status = await runChecked('cat', [join(place.mountpoint, 'status.json'), join(place.mountpoint, LOCKED, 'status')]);
    expect(status).toContain('"read-only": "yes"');
    const visible = [status, place.log(), outcome.stdout, outcome.stderr, readFileSync(`/proc/${pid}/cmdline`, 'latin1')];
    for (const text of visible) expect(text).not.toContain(SECRET);
    const written = await run('dd', [
      'if=/dev/zero',
      `of=${join(place.mountpoint, DISKS, 'lun0', 'image')}`,
      'count=1',
      'conv=notrunc',
    ]);
    expect(written.status).toBe(1);
    expect(written.stderr).toMatch(/Read-only file system/);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });

  it('takes a secret from the environment and does not hand it on', async () => {
    await using place = new Place();
    const env = { ...place.env, ISERFS_CHAP_SECRET: SECRET };
    const args = ['mount', place.mountpoint, '--portal', target.portal, '--target', LOCKED, '--chap-user', 'tester'];
    const outcome = await runCli(args, { env });
    expect(outcome.status, describeOutcome(outcome)).toBe(0);
    expect(readFileSync(`/proc/${Place.serverOf(outcome)}/environ`, 'latin1')).not.toContain(SECRET);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });

  it('may demand digests and a proof from the target, though discovery gives neither', async () => {
    await using place = new Place();
    const secrets = { own: place.workdir.file('own', SECRET), its: place.workdir.file('its', 'the secret of the target') };
    await using strict = await EmbeddedTarget.start(
      [
        {
          name: LOCKED,
          units: [{ lun: 0, medium: new MemoryMedium(MiB), blockLength: 512, serial: 's' }],
          chap: {
            credentials: { user: 'tester', secret: Buffer.from(SECRET) },
            mutual: { user: 'target', secret: Buffer.from('the secret of the target') },
          },
        },
      ],
      {
        portals: [
          {
            endpoint: { host: '127.0.0.1', port: 0 },
            transport: createTcpTransport({ headerDigest: 'prefer', dataDigest: 'prefer' }),
          },
        ],
      },
    );
    const chap = ['--chap-user', 'tester', '--chap-secret-file', secrets.own, '--chap-mutual-user', 'target'];
    const args = ['--portal', strict.portal, '--header-digest', 'require', '--data-digest', 'require', ...chap];
    await place.mount(...args, '--chap-mutual-secret-file', secrets.its);
    const status = await runChecked('cat', [join(place.mountpoint, LOCKED, 'status')]);
    expect(status).toMatch(/^key HeaderDigest: CRC32C$/m);
    expect(status).toMatch(/^key DataDigest: CRC32C$/m);
    await runChecked('cmp', ['-n', String(MiB), join(place.mountpoint, LOCKED, 'lun0', 'image'), '/dev/zero']);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);

    const wrong = place.workdir.file('wrong', 'not the secret of it');
    const refused = await place.cli('mount', place.mountpoint, ...args, '--chap-mutual-secret-file', wrong);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toMatch(/did not prove its identity/);
  });

  it('keeps a folder for a target that refuses, which says why', async () => {
    await using place = new Place();
    const outcome = await place.mount('--portal', target.portal);
    expect(outcome.stderr).toMatch(/^iserfs: warning: .*locked.*authentication.*\n {2}\S.*--chap-user/m);
    const status = await runChecked('cat', [join(place.mountpoint, LOCKED, 'status')]);
    expect(status).toMatch(/^state: unavailable$/m);
    expect(status).toMatch(/^problem: .*authentication.*\nhint: .*--chap-user/m);
    expect(outcome.stdout).not.toContain(LOCKED);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });

  it('mounts although another portal is dead', async () => {
    await using place = new Place();
    const outcome = await place.mount('--portal', `127.0.0.1:${await freePort()}`, '--portal', target.portal);
    expect(outcome.stderr).toMatch(/warning: .*connection refused\n {2}Is the target running/);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });

  it('can be made and ended by a user without privileges', async ({ skip }) => {
    if (!UnprivilegedSpace.isPossible) skip('this is that user already');
    await using workdir = Workdir.create();
    await using space = await UnprivilegedSpace.create(workdir);
    const mountpoint = await space.folder('mnt');
    const outcome = await space.run(space.node, [space.cli, 'mount', mountpoint, '--portal', target.portal, '--target', DISKS]);
    expect(outcome.status, describeOutcome(outcome)).toBe(0);
    const image = `${mountpoint}/${DISKS}/lun0/image`;
    expect((await space.run('stat', ['-c', '%u %a', image])).stdout).toBe(`${space.uid} 600\n`);
    expect((await space.run('cmp', ['-n', '1', image, image])).status).toBe(0);
    const unmounted = await space.run(space.node, [space.cli, 'umount', mountpoint]);
    expect(unmounted.status, describeOutcome(unmounted)).toBe(0);
  });
});

describe('what cannot be mounted', () => {
  let silent: Server;
  let garbage: Server;
  let curt: Server;
  const sockets = new Set<Socket>();

  beforeAll(async () => {
    const serve = (onConnection: (socket: Socket) => void) =>
      new Promise<Server>((resolve) => {
        const server = createServer((socket) => {
          sockets.add(socket);
          socket.on('error', () => {});
          onConnection(socket);
        });
        server.listen(0, '127.0.0.1', () => resolve(server));
      });
    silent = await serve(() => {});
    curt = await serve((socket) => socket.once('data', () => socket.end()));
    garbage = await serve((socket) => socket.write('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n'.repeat(20)));
  });

  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
    garbage.close();
    curt.close();
  });

  const portalOf = (server: Server) => {
    const address = server.address();
    return typeof address === 'object' && address !== null ? `127.0.0.1:${address.port}` : '';
  };

  /** One line with the cause, perhaps one with the next step, exit status 1, nothing mounted, in time. */
  async function expectFailure(place: Place, args: string[], line: RegExp): Promise<void> {
    const outcome = await place.cli('mount', ...args);
    expect(outcome.status, describeOutcome(outcome)).toBe(1);
    expect(outcome.stdout).toBe('');
    expect(outcome.stderr).toMatch(line);
    expect(outcome.stderr).not.toMatch(/^\s+at /m);
    const [first, ...rest] = outcome.stderr.trimEnd().split('\n');
    expect(first).toMatch(/^iserfs: /);
    expect(rest.length).toBeLessThanOrEqual(1);
    expect(outcome.elapsedMs).toBeLessThan(10_000);
    expect(findMount(place.mountpoint)).toBeUndefined();
  }

  it.each<[what: string, args: (place: Place) => string[] | Promise<string[]>, line: RegExp]>([
    ['a refused connection', async () => ['--portal', `127.0.0.1:${await freePort()}`], /connection refused/],
    ['a name that does not exist', () => ['--portal', 'no-such-host.invalid'], /no-such-host\.invalid.*name/],
    ['a portal that is silent', () => ['--portal', portalOf(silent)], /no answer/],
    [
      'a portal that hangs up',
      () => ['--portal', portalOf(curt)],
      /closed the connection during login\n {2}Is it an iSCSI target/,
    ],
    ['a portal that speaks something else', () => ['--portal', portalOf(garbage)], /RFC 7143/],
    ['a silent portal, named target', () => ['--portal', portalOf(silent), '--target', DISKS], /no answer/],
    ['something else, named target', () => ['--portal', portalOf(garbage), '--target', DISKS], /RFC 7143/],
    ['an unknown target', () => ['--portal', target.portal, '--target', 'iqn.2024-01.x:no'], /iqn\.2024-01\.x:no.*not found/],
    [
      'a wrong secret',
      (place) => [
        '--portal',
        target.portal,
        '--target',
        LOCKED,
        '--chap-user',
        'tester',
        '--chap-secret-file',
        place.workdir.file('s', 'wrong\n'),
      ],
      /authentication failed/,
    ],
    ['no credentials where some are needed', () => ['--portal', target.portal, '--target', LOCKED], /authentication/],
    [
      'a LUN that is not there',
      () => ['--portal', target.portal, '--target', DISKS, '--lun', '77'],
      /at 127\.0\.0\.1:\d+: there is no LUN 77\n {2}It shows LUN 0, 3\./,
    ],
    ['a transport that is not there', () => ['--portal', target.portal, '--transport', 'verbs'], /RDMA/],
    [
      'a secret file that is missing',
      () => ['--portal', target.portal, '--chap-user', 'u', '--chap-secret-file', '/nowhere/s'],
      /\/nowhere\/s: no such file/,
    ],
    [
      'a malformed configuration',
      (place) => ['--config', place.workdir.file('c.yaml', 'portals:\n\t- x\n: [')],
      /c\.yaml:2:\d+: .*\n {2}.*--config FILE/,
    ],
  ])('%s', async (_what, args, line) => {
    await using place = new Place();
    await expectFailure(place, [place.mountpoint, ...(await args(place))], line);
  });

  it.each<[what: string, mountpoint: (place: Place) => string, line: RegExp]>([
    ['a mount point that does not exist', (place) => place.workdir.join('none'), /does not exist\n {2}.*mkdir/],
    ['a mount point that is a file', (place) => place.workdir.file('file', ''), /is not a directory/],
    [
      'a mount point that is not empty',
      (place) => {
        writeFileSync(join(place.mountpoint, 'x'), '');
        return place.mountpoint;
      },
      /is not empty/,
    ],
    ['a mount point that is taken', () => '/proc', /another file system \(proc\)/],
  ])('%s', async (_what, mountpoint, line) => {
    await using place = new Place();
    await expectFailure(place, [mountpoint(place), '--portal', target.portal], line);
  });

  it('twice at the same place', async () => {
    await using place = new Place();
    await place.mount('--portal', target.portal, '--target', DISKS);
    const second = await place.cli('mount', place.mountpoint, '--portal', target.portal, '--target', DISKS);
    expect(second.status).toBe(1);
    expect(second.stderr).toMatch(/is mounted on .* already.*\n {2}.*iserfs umount/);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });

  it('after Ctrl-C: nothing stays, neither a mount nor a process', async () => {
    await using place = new Place();
    const launcher = spawnGuarded(process.execPath, [cliPath, 'mount', place.mountpoint, '--portal', portalOf(silent)], {
      env: place.env,
    });
    const done = ended(launcher);
    const childOf = async () => (await runChecked('sh', ['-c', `cat /proc/${launcher.pid}/task/*/children`])).trim();
    const pid = Number(
      await waitFor(async () => (await childOf()) || undefined, { withinMs: 10_000, what: 'the server process' }),
    );
    launcher.kill('SIGINT');
    expect((await done).status).toBe(1);
    expect(isAlive(pid)).toBe(false);
    expect(findMount(place.mountpoint)).toBeUndefined();
  });
});

describe('a mount whose server was killed', () => {
  it('is healed by the next mount', async () => {
    await using place = new Place();
    const pid = Place.serverOf(await place.mount('--portal', target.portal, '--target', DISKS));
    process.kill(pid, 'SIGKILL');
    await waitFor(async () => !isAlive(pid), { withinMs: 5000, what: 'its death' });
    expect(findMount(place.mountpoint)).toBeDefined();
    const listed = await place.cli('ls');
    expect(listed.stdout).toContain(place.mountpoint);
    await place.mount('--portal', target.portal, '--target', DISKS);
    await runChecked('head', ['-c', '1', join(place.mountpoint, 'status')]);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
    expect(findMount(place.mountpoint)).toBeUndefined();
  });

  it('is removed by umount, which says that it did not end in good order', async () => {
    await using place = new Place();
    const pid = Place.serverOf(await place.mount('--portal', target.portal, '--target', DISKS));
    process.kill(pid, 'SIGKILL');
    await waitFor(async () => !isAlive(pid), { withinMs: 5000, what: 'its death' });
    const unmounted = await place.cli('umount', place.mountpoint);
    expect(unmounted.status, describeOutcome(unmounted)).toBe(1);
    expect(unmounted.stderr).toMatch(new RegExp(`process ${pid} died before it had flushed and logged out\\n {2}See /`));
    expect(findMount(place.mountpoint)).toBeUndefined();
    expect(place.records()).toEqual([]);
  });
});

/** A process that has a file open until it is told to close it. */
async function holdOpen(path: string): Promise<{ close(): Promise<void>; pid: number }> {
  const holder = spawnGuarded('sh', [
    '-c',
    'exec 3<"$1"; echo open; read -r _; exec 3<&-; echo closed; read -r _',
    'holder',
    path,
  ]);
  const done = ended(holder);
  let output = '';
  holder.stdout.on('data', (text: Buffer) => {
    output += text.toString();
  });
  await waitFor(async () => output.includes('open'), { withinMs: 10_000, what: `${path} to be open` });
  return {
    pid: holder.pid as number,
    close: async () => {
      holder.stdin.end('close\nend\n');
      await done;
    },
  };
}

describe('the end of a mount', () => {
  const args = () => ['--portal', target.portal, '--target', DISKS];
  const imageOf = (place: Place) => join(place.mountpoint, DISKS, 'lun0', 'image');

  it('is in good order although nobody reads what it says any more', async () => {
    await using place = new Place();
    const sessions = sessionsWith(DISKS);
    const child = spawnGuarded(process.execPath, [cliPath, 'mount', '--foreground', place.mountpoint, ...args()], {
      env: place.env,
    });
    const status = join(place.mountpoint, 'status');
    await waitFor(async () => (await run('head', ['-c', '1', status])).stdout !== '', { withinMs: 10_000, what: 'the mount' });
    const gone = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
    child.stdout.destroy();
    child.stderr.destroy();
    await runChecked('dd', ['if=/dev/zero', `of=${imageOf(place)}`, 'bs=4096', 'seek=16', 'count=1', 'conv=notrunc']);
    child.kill('SIGHUP');
    expect(await gone).toEqual({ code: 0, signal: null });
    expect(findMount(place.mountpoint)).toBeUndefined();
    expect(sessionsWith(DISKS)).toBe(sessions);
    expect(place.records()).toEqual([]);
  });

  it('by a terminal that is closed is in good order', async () => {
    await using place = new Place();
    const sessions = sessionsWith(DISKS);
    const outcome = place.workdir.join('outcome');
    const command = [process.execPath, cliPath, 'mount', '--foreground', place.mountpoint, ...args()].join(' ');
    // The shell hands the signal on, as interactive ones do, and outlives the terminal to tell how the mount did.
    const script = `trap 'kill -HUP $!' HUP; ${command} & wait; wait $!; echo $? > ${outcome}`;
    const terminal = spawnGuarded('script', ['-qc', script, '/dev/null'], {
      env: { ...place.env, SHELL: '/bin/sh' },
    });
    const status = join(place.mountpoint, 'status');
    await waitFor(async () => (await run('head', ['-c', '1', status])).stdout !== '', { withinMs: 10_000, what: 'the mount' });
    terminal.kill('SIGKILL');
    const said = await waitFor(async () => existsSync(outcome) && readFileSync(outcome, 'utf8'), {
      withinMs: 10_000,
      what: 'the end of the mount',
    });
    expect(said).toBe('0\n');
    expect(findMount(place.mountpoint)).toBeUndefined();
    expect(sessionsWith(DISKS)).toBe(sessions);
    expect(place.records()).toEqual([]);
  });

  it('by umount from outside is in good order: logged out, exit status 0', async () => {
    await using place = new Place();
    const sessions = sessionsWith(DISKS);
    await using mount = await MountProcess.start({ mountpoint: place.mountpoint, args: args(), env: place.env });
    await runChecked('fusermount3', ['-u', place.mountpoint]);
    expect(await mount.exit()).toEqual({ status: 0, signal: null });
    expect(sessionsWith(DISKS)).toBe(sessions);
    expect(place.records()).toEqual([]);
  });

  it('by SIGTERM waits for files that are open', async () => {
    await using place = new Place();
    await using mount = await MountProcess.start({ mountpoint: place.mountpoint, args: args(), env: place.env });
    const holder = await holdOpen(imageOf(place));
    mount.signal('SIGTERM');
    await waitFor(async () => findMount(place.mountpoint) === undefined, { withinMs: 5000, what: 'the detachment' });
    expect(mount.isRunning).toBe(true);
    expect(await runChecked('head', ['-c', '4', `/proc/${holder.pid}/fd/3`])).toHaveLength(4);
    await holder.close();
    expect(await mount.exit()).toEqual({ status: 0, signal: null });
  });

  it('by SIGTERM does not wait longer than it is told, and then fails', async () => {
    await using place = new Place();
    await using mount = await MountProcess.start({
      mountpoint: place.mountpoint,
      args: [...args(), '--stop-timeout', '500ms'],
      env: place.env,
    });
    const holder = await holdOpen(imageOf(place));
    mount.signal('SIGTERM');
    expect(await mount.exit()).toEqual({ status: 1, signal: null });
    expect(mount.stderr).toMatch(/stopped after 500 ms while files were still open/);
    await holder.close();
  });

  it('by a second signal is at once', async () => {
    await using place = new Place();
    await using mount = await MountProcess.start({ mountpoint: place.mountpoint, args: args(), env: place.env });
    const holder = await holdOpen(imageOf(place));
    mount.signal('SIGINT');
    await waitFor(async () => findMount(place.mountpoint) === undefined, { withinMs: 5000, what: 'the detachment' });
    mount.signal('SIGINT');
    expect(await mount.exit(5000)).toEqual({ status: 1, signal: null });
    await holder.close();
  });

  it('is refused by umount while a file is open, naming who has it', async () => {
    await using place = new Place();
    await place.mount(...args());
    const holder = await holdOpen(imageOf(place));
    const busy = await place.cli('umount', place.mountpoint);
    expect(busy.status).toBe(1);
    expect(busy.stderr).toMatch(new RegExp(`is in use: used by sh \\(process ${holder.pid}\\)\n {2}.*--lazy`));
    expect(findMount(place.mountpoint)).toBeDefined();
    await holder.close();
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });

  it('by umount --lazy serves the open file until its close', async () => {
    await using place = new Place();
    const pid = Place.serverOf(await place.mount(...args()));
    const holder = await holdOpen(imageOf(place));
    const lazy = await place.cli('umount', '--lazy', place.mountpoint);
    expect(lazy.status, describeOutcome(lazy)).toBe(0);
    expect(findMount(place.mountpoint)).toBeUndefined();
    expect(await runChecked('head', ['-c', '4', `/proc/${holder.pid}/fd/3`])).toHaveLength(4);
    await holder.close();
    await waitFor(async () => !isAlive(pid), { withinMs: 10_000, what: 'the end of the server' });
    expect(place.records()).toEqual([]);
  });

  it('by umount --force comes although a file is open, and says that it did', async () => {
    await using place = new Place();
    const pid = Place.serverOf(await place.mount(...args()));
    await runChecked('dd', ['if=/dev/zero', `of=${imageOf(place)}`, 'bs=4096', 'seek=16', 'count=1', 'conv=notrunc']);
    const holder = await holdOpen(imageOf(place));
    const forced = await place.cli('umount', '--force', place.mountpoint);
    expect(forced.status).toBe(1);
    expect(forced.stderr).toMatch(/while files were still open/);
    expect(forced.stderr).not.toMatch(/may not be on stable storage/);
    expect(isAlive(pid)).toBe(false);
    expect(findMount(place.mountpoint)).toBeUndefined();
    await holder.close();
  });
});

describe('a state folder that cannot be written', () => {
  // Nobody can make a folder in /proc, not even root.
  const args = ['--target', DISKS, '--initiator-name', 'iqn.2024-01.org.example:host'];

  it('moves the log to a folder for temporary files, which goes with the mount', async () => {
    await using place = new Place();
    const temporary = place.workdir.folder('tmp');
    const env = { ...place.env, XDG_STATE_HOME: '/proc/nope', TMPDIR: temporary };
    const mounted = await runCli(['mount', place.mountpoint, '--portal', target.portal, ...args], { env });
    expect(mounted.status, describeOutcome(mounted)).toBe(0);
    expect(mounted.stderr).toContain(`log: ${temporary}/iserfs-`);
    const pid = Place.serverOf(mounted);
    expect((await runCli(['umount', place.mountpoint], { env })).status).toBe(0);
    await waitFor(async () => !isAlive(pid), { withinMs: 5000, what: 'the end of the server' });
    expect(readdirSync(temporary)).toEqual([]);
  });

  it('leaves no folder where nothing could be mounted', async () => {
    await using place = new Place();
    const temporary = place.workdir.folder('tmp');
    const env = { ...place.env, XDG_STATE_HOME: '/proc/nope', TMPDIR: temporary };
    const portal = `127.0.0.1:${await freePort()}`;
    const outcome = await runCli(['mount', place.mountpoint, '--portal', portal, ...args], { env });
    expect(outcome.status).toBe(1);
    expect(outcome.stderr).toMatch(/connection refused/);
    expect(readdirSync(temporary)).toEqual([]);
  });
});

describe('a state folder on a disk that is full', () => {
  it('keeps the record of a mount, and takes how it ended', async ({ skip }) => {
    if (process.getuid?.() !== 0) skip('only root can make a small disk');
    await using workdir = Workdir.create();
    const state = workdir.folder('state');
    await runChecked('mount', ['-t', 'tmpfs', '-o', 'size=4k', 'tmpfs', state]);
    try {
      const records = new MountRecords({ XDG_STATE_HOME: state });
      const record = { mountpoint: '/mnt/a', pid: 1, processStart: '5', log: '/x' };
      await records.write(record);
      await records.write({ ...record, failure: 'it broke' });
      expect((await records.read('/mnt/a'))?.failure).toBe('it broke');
      await expect(records.write({ ...record, mountpoint: '/mnt/b' })).rejects.toThrow(/no space left/);
      expect(readdirSync(join(state, 'iserfs', 'mounts'))).toHaveLength(1);
    } finally {
      await runChecked('umount', [state]);
    }
  });
});

describe('a mount whose target is gone', () => {
  it('says so in its log once, not once per request, and at umount what that means for the data', async () => {
    await using place = new Place();
    await using own = await EmbeddedTarget.start([
      { name: DISKS, units: [{ lun: 0, medium: new MemoryMedium(MiB), blockLength: 512, serial: 'x' }] },
    ]);
    await place.mount('--portal', own.portal, '--recovery-timeout', '300ms');
    const image = join(place.mountpoint, DISKS, 'lun0', 'image');
    await runChecked('dd', ['if=/dev/zero', `of=${image}`, 'bs=4096', 'count=1', 'conv=notrunc']);
    await own[Symbol.asyncDispose]();
    for (let request = 0; request < 3; request++) {
      const read = await run('dd', [`if=${image}`, 'of=/dev/null', 'bs=4096', `skip=${32 + request}`, 'count=1', 'iflag=direct']);
      expect(read.stderr).toMatch(/Input\/output error/);
    }
    const where = `${DISKS} at ${own.portal}`;
    const refused = `cannot connect to ${own.portal}: connection refused`;
    const failed = place
      .log()
      .split('\n')
      .filter((line) => new RegExp(`^\\S+ ${where}: no session for \\d+ s: ${refused}$`).test(line));
    expect(failed.length, place.log()).toBeLessThanOrEqual(2); // by the session, and by the first request
    const unmounted = await place.cli('umount', place.mountpoint);
    expect(unmounted.status, describeOutcome(unmounted)).toBe(1);
    expect(unmounted.stderr).toMatch(
      new RegExp(
        `^iserfs: ${place.mountpoint} is unmounted, but not in good order: ` +
          `${where} LUN 0: what was written may not be on stable storage: no session for \\d+ s: ${refused}\n {2}See /`,
      ),
    );
    expect(findMount(place.mountpoint)).toBeUndefined();
  });
});

describe('a mount whose server hangs', () => {
  it('does not hang the commands that ask about it, and is ended by umount --force', async () => {
    await using place = new Place();
    const pid = Place.serverOf(await place.mount('--portal', target.portal, '--target', DISKS));
    process.kill(pid, 'SIGSTOP');
    try {
      const listed = await place.cli('ls');
      expect(listed.status).toBe(0);
      expect(listed.stdout).toMatch(new RegExp(`^${place.mountpoint} \\(.*does not answer\\)$`, 'm'));
      const refused = await place.cli('umount', place.mountpoint);
      expect(refused.status).toBe(1);
      expect(refused.stderr).toBe(
        `iserfs: process ${pid}, which serves ${place.mountpoint}, is stopped\n` +
          `  Let it go on (kill -CONT ${pid}), or end the mount with --force.\n`,
      );
      const forced = await place.cli('umount', '--force', place.mountpoint);
      expect(forced.status).toBe(1);
      expect(forced.stderr).toMatch(/died before it had flushed/);
      expect(findMount(place.mountpoint)).toBeUndefined();
    } finally {
      if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    }
  });
});

describe('the logical units of a target', () => {
  it('come and go, grow, and become read-only while mounted', async () => {
    const disk = (size: number) => new MemoryMedium(size);
    await using own = await EmbeddedTarget.start([
      {
        name: DISKS,
        units: [
          { lun: 0, medium: disk(MiB), blockLength: 512, serial: 'a' },
          { lun: 1, medium: disk(MiB), blockLength: 512, serial: 'b' },
        ],
      },
    ]);
    await using place = new Place();
    await place.mount('--portal', own.portal);
    const folder = join(place.mountpoint, DISKS);
    const image = join(folder, 'lun0', 'image');
    /** Has the unit asked for something, so that its unit attention comes out. */
    const touch = () => run('dd', [`if=${image}`, 'of=/dev/null', 'bs=512', 'count=1', 'iflag=direct']);
    const eventually = (what: string, ask: () => Promise<boolean>) =>
      waitFor(
        async () => {
          await touch();
          return await ask();
        },
        { withinMs: 10_000, everyMs: 100, what },
      );
    const server = own.servers.get(DISKS);

    await server?.unit(0)?.resize(2 * MiB);
    await eventually('the new size', async () => (await runChecked('stat', ['-c', '%s', image])) === `${2 * MiB}\n`);

    server?.unit(0)?.setWriteProtected(true);
    await eventually('the new mode', async () => (await runChecked('stat', ['-c', '%a', image])) === '400\n');

    server?.addUnit({ lun: 7, medium: disk(MiB), blockLength: 512, serial: 'c' });
    await eventually('the new unit', async () => (await run('test', ['-f', join(folder, 'lun7', 'image')])).status === 0);

    await server?.removeUnit(1);
    await eventually('the end of the old unit', async () => (await run('test', ['-e', join(folder, 'lun1')])).status !== 0);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });
});

describe('commands that look', () => {
  it('list targets of a portal', async () => {
    await using place = new Place();
    expect((await place.cli('discover', target.portal)).stdout).toBe(
      `${target.portal},1 ${DISKS}\n${target.portal},1 ${LOCKED}\n`,
    );
    expect(JSON.parse((await place.cli('discover', target.portal, '--json')).stdout)).toEqual(
      [DISKS, LOCKED].map((name) => ({ name, portals: [{ address: target.portal, portalGroupTag: 1 }] })),
    );
  });

  it('say so where what they found cannot be written', async () => {
    await using place = new Place();
    const { status, stderr } = await run(
      'sh',
      ['-c', `exec "$0" "$1" discover ${target.portal} > /dev/full`, process.execPath, cliPath],
      { env: place.env },
    );
    expect(stderr).toBe('iserfs: the output could not be written: no space left\n');
    expect(status).toBe(1);
  });

  it('look at logical units without a mount, and leave no session', async () => {
    await using place = new Place();
    const sessions = sessionsWith(DISKS);
    const listed = await place.cli('ls', target.portal, '--target', DISKS);
    expect(listed.stdout).toBe(
      `${DISKS} lun0 ready, 16 MiB, 512-byte blocks, read-write\n${DISKS} lun3 ready, 8 MiB, 4096-byte blocks, read-only\n`,
    );
    const [info] = JSON.parse(
      (await place.cli('info', target.portal, '--target', DISKS, '--lun', '3', '--json')).stdout,
    ) as unknown[];
    expect(info).toMatchObject({ lun: '3', serial: 'disk-3', capacity: 8 * MiB, blockLength: 4096, access: 'read-only' });
    expect(sessionsWith(DISKS)).toBe(sessions);
  });

  it('say of a target that refuses why, and what to do next, of a portal and of a mount', async () => {
    await using place = new Place();
    const mounted = await place.mount('--portal', target.portal);
    const warning = /^iserfs: warning: .*locked.*authentication.*\n {2}\S.*--chap-user.*\n/m.exec(mounted.stderr)?.[0] ?? 'none';
    for (const where of [target.portal, place.mountpoint]) {
      const listed = await place.cli('ls', where);
      expect(listed.status, describeOutcome(listed)).toBe(0);
      expect(listed.stderr).toBe(warning);
      const targets = JSON.parse((await place.cli('ls', where, '--json')).stdout) as unknown[];
      expect(targets).toMatchObject([
        { name: DISKS, problem: null, hint: null },
        {
          name: LOCKED,
          problem: expect.stringContaining('authentication'),
          hint: expect.stringContaining('--chap-user'),
        },
      ]);
    }
    const informed = await place.cli('info', target.portal);
    expect(informed.stderr).toBe(warning);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });

  it('tell a directory without a mount from a portal: a host of its name comes first', async () => {
    await using place = new Place();
    const cwd = dirname(place.mountpoint);
    const name = basename(place.workdir.folder('no-host-of-this-name.invalid'));
    for (const command of ['ls', 'info']) {
      const outcome = await place.cliIn(cwd, command, name);
      expect(outcome.status, describeOutcome(outcome)).toBe(1);
      expect(outcome.stderr).toBe(
        `iserfs: nothing of iserfs is mounted at ${name}, and no host has that name\n  List the mounts with: iserfs ls\n`,
      );
    }
    place.workdir.folder('127.0.0.1');
    expect((await place.cliIn(cwd, 'ls', '127.0.0.1', '--login-timeout', '1s')).stderr).not.toContain('mounted');
  });

  it('show mounts, their LUNs, what these are and how they do', async () => {
    await using place = new Place();
    await place.mount('--portal', target.portal, '--target', DISKS);
    expect((await place.cli('ls')).stdout).toContain(`${place.mountpoint} 1 target, 2 LUNs, process `);
    const listed = await place.cli('ls', place.mountpoint);
    expect(listed.stdout).toBe(
      `${join(place.mountpoint, DISKS, 'lun0', 'image')} ready, 16 MiB, 512-byte blocks, read-write\n` +
        `${join(place.mountpoint, DISKS, 'lun3', 'image')} ready, 8 MiB, 4096-byte blocks, read-only\n`,
    );
    // A mount is found by any name that leads to it, also by one that could be a host's.
    const relative = await place.cliIn(dirname(place.mountpoint), 'ls', basename(place.mountpoint));
    expect(relative.stdout, describeOutcome(relative)).toBe(listed.stdout);
    expect((await place.cli('info', place.mountpoint, '--lun', '3')).stdout).toMatch(/^serial: disk-3$/m);
    expect((await place.cli('status', place.mountpoint, '--target', DISKS)).stdout).toMatch(/^state: logged-in$/m);
    const [status] = JSON.parse((await place.cli('status', place.mountpoint, '--lun', '0', '--json')).stdout) as unknown[];
    expect(status).toMatchObject({ lun: '0', state: 'ready' });
    // What lies in it is not it; but which mount that is, is said.
    for (const [command, path] of [
      ['ls', join(place.mountpoint, DISKS)],
      ['umount', join(place.mountpoint, DISKS, 'lun0', 'image')],
      ['umount', join(place.mountpoint, 'none')],
    ] as const) {
      const inside = await place.cli(command, path);
      expect(inside.status, describeOutcome(inside)).toBe(1);
      expect(inside.stderr).toBe(
        `iserfs: no mount of iserfs is at ${path}: it lies in the one at ${place.mountpoint}\n` +
          `  Name that: iserfs ${command} ${place.mountpoint}\n`,
      );
    }
    const wrong = await place.cli('status', place.mountpoint, '--lun', '9');
    expect(wrong.status).toBe(1);
    expect(wrong.stderr).toBe(`iserfs: ${place.mountpoint} has no such target or LUN\n  It has: ${DISKS} LUN 0, 3\n`);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
  });
});

describe('iserfs target', () => {
  it('leaves no file behind that cannot have the size which is asked for', async () => {
    await using place = new Place();
    const file = place.workdir.join('disk.img');
    const command = `ulimit -f 1; exec "$0" "$1" target --listen 127.0.0.1:0 --file "$2,size=1G"`;
    const outcome = await run('sh', ['-c', command, process.execPath, cliPath, file], { env: place.env });
    expect(outcome.status, describeOutcome(outcome)).toBe(1);
    expect(outcome.stderr).toMatch(/^iserfs: cannot give .*disk\.img a size of 1073741824 bytes: .*file too large/);
    expect(existsSync(file)).toBe(false);
  });

  it('offers files and memory to a mount, and keeps what was written to the file', async () => {
    await using place = new Place();
    const file = place.workdir.join('disk.img');
    const child = spawnGuarded(
      process.execPath,
      [
        cliPath,
        'target',
        '--listen',
        '127.0.0.1:0',
        '--file',
        `${file},size=4M,block-size=4096`,
        '--memory',
        '3T',
        '--memory',
        `1M,target=${LOCKED}`,
      ],
      { env: place.env },
    );
    const done = ended(child);
    let stdout = '';
    child.stdout.on('data', (text: Buffer) => {
      stdout += text.toString();
    });
    const portal = await waitFor(async () => /^(\S+),1 .*\n.*locked\n/.exec(stdout)?.[1], {
      withinMs: 10_000,
      what: 'the portal',
    });
    const { stdout: images } = await place.mount('--portal', portal);
    const [disk = '', huge = '', other = ''] = images.trimEnd().split('\n');
    expect(other).toContain(LOCKED);
    expect(await runChecked('stat', ['-c', '%s', huge])).toBe(`${3 * 2 ** 40}\n`);
    const data = place.workdir.file('data', PATTERN);
    await runChecked('dd', [`if=${data}`, `of=${disk}`, 'bs=4096', 'seek=5', 'conv=notrunc,fsync']);
    expect((await place.cli('umount', place.mountpoint)).status).toBe(0);
    child.kill('SIGINT');
    expect(await done).toEqual({ status: 0, signal: null });
    expect(
      readFileSync(file)
        .subarray(5 * 4096, 6 * 4096)
        .equals(PATTERN),
    ).toBe(true);
  });

  it.each<[what: string, args: string[], line: RegExp]>([
    ['a file that is not there', ['--file', '/nowhere/disk.img'], /\/nowhere\/disk\.img/],
    ['an address that is not ours', ['--listen', '192.0.2.1:3260', '--memory', '1M'], /192\.0\.2\.1/],
  ])('says what is wrong with %s', async (_what, args, line) => {
    await using place = new Place();
    const outcome = await place.cli('target', ...(args.includes('--listen') ? [] : ['--listen', '127.0.0.1:0']), ...args);
    expect(outcome.status, describeOutcome(outcome)).toBe(1);
    expect(outcome.stderr).toMatch(line);
    expect(outcome.stderr).not.toMatch(/internal error|^\s+at /m);
  });
});

describe('the demo', () => {
  it.each([
    ['by RDMA', 'iwarp', []],
    ['by TCP where that is asked for', 'tcp', ['--transport', 'tcp']],
  ])('mounts a disk with files in it, %s, and leaves nothing behind', async (_how, transport, options) => {
    await using place = new Place();
    await using mount = await MountProcess.start({
      mountpoint: place.mountpoint,
      args: ['--demo', ...options],
      env: { ...place.env, TMPDIR: place.workdir.folder('tmp') },
    });
    const image = join(place.mountpoint, 'iqn.2026-01.org.iserfs:demo', 'lun0', 'image');
    await waitFor(async () => mount.stderr.includes(`dd if=${image}`), { withinMs: 5000, what: 'the hints' });
    expect(mount.stderr.includes('Data travels by RDMA: iSER over iwarp')).toBe(transport === 'iwarp');
    expect(await runChecked('grep', ['^transport: ', join(dirname(dirname(image)), 'status')])).toBe(`transport: ${transport}\n`);
    expect(await runChecked('debugfs', ['-R', 'cat /docs/hello.txt', image])).toBe('Hello from a LUN.\n');
    mount.signal('SIGINT');
    expect(await mount.exit()).toEqual({ status: 0, signal: null });
    expect(findMount(place.mountpoint)).toBeUndefined();
    expect(readdirSync(place.workdir.join('tmp'))).toEqual([]);
  });
});
