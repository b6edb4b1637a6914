// @ts-check
/**
 * What iserfs, its demo and its tests need from the distribution, and how it is installed. A need is a thing that is looked for
 * (a program, a library, a file), not a package: whoever has it from elsewhere is left alone.
 */

import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { runLogged, SetupError, say } from './setup-report.mjs';

/**
 * @typedef {object} Need
 * @property {string} group run | demo | test | bench | profile | rdma, or addon and compiler (asked for by name only)
 * @property {readonly string[]} packages Debian's names for it, the newest release's first
 * @property {string} why
 * @property {() => boolean} isThere
 */

/** @type {Partial<Record<NodeJS.Architecture, string>>} */
const multiarchNames = { x64: 'x86_64', arm64: 'aarch64', arm: 'arm', ppc64: 'powerpc64le' };
const multiarch = `${multiarchNames[process.arch] ?? process.arch}-linux-gnu${process.arch === 'arm' ? 'eabihf' : ''}`;
const libraryFolders = [
  `/usr/lib/${multiarch}`,
  `/lib/${multiarch}`,
  '/usr/local/lib',
  '/usr/lib64',
  '/lib64',
  '/usr/lib',
  '/lib',
];

/** @type {readonly Need[]} */
const needs = [
  need('run', ['fuse3'], 'fusermount3, which mounts and unmounts for users other than root', program('fusermount3')),
  need(
    'addon',
    ['libfuse2t64', 'libfuse2'],
    'libfuse.so.2, which fuse-native, the other FUSE host, is linked to',
    library('libfuse.so.2'),
  ),
  need('demo', ['e2fsprogs'], 'mkfs.ext4, which makes the file system on the demonstration LUN', program('mkfs.ext4', 'e2fsck')),
  need('demo', ['mount'], 'mount and losetup, for loop mounts of an image', program('mount', 'losetup')),
  need(
    'test',
    ['tgt'],
    'tgtd, a real iSCSI target to test against (a private one: its service stays off)',
    program('tgtd', 'tgtadm'),
  ),
  need(
    'test',
    ['libiscsi-bin'],
    'iscsi-ls and iscsi-inq, an independent initiator to test targets with',
    program('iscsi-ls', 'iscsi-inq'),
  ),
  need('test', ['qemu-utils'], 'qemu-img, a second independent initiator', program('qemu-img')),
  need('test', ['qemu-block-extra'], "qemu-img's iSCSI driver", () =>
    libraryFolders.some((folder) => existsSync(`${folder}/qemu/block-iscsi.so`)),
  ),
  need('test', ['util-linux'], 'unshare and setpriv, for tests as an unprivileged user', program('unshare', 'setpriv')),
  need('test', ['python3'], 'python3, for lseek(2) with SEEK_HOLE, which Node has not', program('python3')),
  need('bench', ['fio'], 'fio, which reads and writes at random, so many at a time', program('fio')),
  need(
    'bench',
    ['qemu-system-common'],
    'qemu-storage-daemon, to compare with: it shows a LUN as a file, too',
    program('qemu-storage-daemon'),
  ),
  need('bench', ['libiscsi-bin'], 'iscsi-perf, which reads a LUN without a file', program('iscsi-perf')),
  need('bench', ['gcc'], "a C compiler, for the benchmark's own programs", program('cc')),
  need('bench', ['libc6-dev'], "the C library's headers, likewise", () => existsSync('/usr/include/stdio.h')),
  need('bench', ['libiscsi-dev'], "libiscsi's headers, for an initiator without a file", () =>
    existsSync('/usr/include/iscsi/iscsi.h'),
  ),
  need('bench', ['libfuse3-dev'], "libfuse 3's headers, for a file without a LUN", () =>
    existsSync('/usr/include/fuse3/fuse_lowlevel.h'),
  ),
  need(
    'profile',
    ['linux-perf', 'linux-tools-generic'],
    'perf, which samples where a process is, in the kernel and outside it',
    program('perf'),
  ),
  need(
    'rdma',
    ['qemu-system-x86'],
    'qemu-system-x86_64, which emulates the machine with RDMA devices',
    program('qemu-system-x86_64'),
  ),
  need('rdma', ['mmdebstrap'], "mmdebstrap, which makes that machine's root file system", program('mmdebstrap')),
  need('rdma', ['squashfs-tools'], 'mksquashfs, which packs it', program('mksquashfs')),
  need('rdma', ['cpio'], 'cpio, which packs those', program('cpio')),
  need('rdma', ['xz-utils'], 'xz, which unpacks the kernel and its source', program('xz')),
  need('rdma', ['make'], "make, to build siw, the kernel's iWARP in software", program('make')),
  need('rdma', ['gcc-12'], "the compiler of Debian's kernel, likewise", program('gcc-12')),
  need('rdma', ['libelf1t64', 'libelf1'], "libelf.so.1, which the kernel's build tools are linked to", library('libelf.so.1')),
  need('rdma', ['binutils'], 'strip, likewise', program('strip')),
  need('own-compiler', ['g++'], 'a C++ compiler, for the FUSE and RDMA addons', program('g++')),
  need('own-compiler', ['make'], 'make, likewise', program('make')),
  need('rdma-headers', ['libibverbs-dev'], "libibverbs' headers, for RDMA devices (verbs)", () =>
    existsSync('/usr/include/infiniband/verbs.h'),
  ),
  need('rdma-headers', ['librdmacm-dev'], "librdmacm's headers, for RDMA devices (verbs)", () =>
    existsSync('/usr/include/rdma/rdma_cma.h'),
  ),
  need('native-test', ['doctest-dev'], 'doctest, for the unit tests of the native code', () =>
    existsSync('/usr/include/doctest/doctest.h'),
  ),
  need(
    'native-test',
    ['clang', 'clang-14'],
    'clang, for the fuzzers of the native code',
    () => isProgram('clang++') || isProgram('clang++-14'),
  ),
  need('native-test', ['libclang-rt-dev', 'libclang-rt-14-dev'], "clang's libFuzzer", hasLibFuzzer),
  need('compiler', ['gcc'], 'a C compiler, for fuse-native', program('cc')),
  need('compiler', ['libc6-dev'], "the C library's headers, for fuse-native", () => existsSync('/usr/include/stdio.h')),
  need('compiler', ['libfuse-dev'], "libfuse 2's headers, for fuse-native", () => existsSync('/usr/include/fuse/fuse.h')),
];

/**
 * @param {readonly string[]} groups
 * @returns {Need[]} those of the groups' needs that are not met
 */
export function missingNeeds(groups) {
  return needs.filter(({ group, isThere }) => groups.includes(group) && !isThere());
}

/**
 * Says what is missing and why, and installs it: as root, or else through sudo. Throws `SetupError` with the commands to run where
 * it cannot.
 * @param {readonly Need[]} missing
 */
export function installPackages(missing) {
  if (missing.length === 0) return;
  if (!isProgram('apt-get')) {
    for (const { why } of missing) say(`missing: ${why}`);
    throw new SetupError('there is no apt-get here: install what is missing with your package manager and run this again');
  }
  let names = missing.map(({ packages }) => candidateOf(packages));
  const resolved = names.every((name) => name !== undefined);
  announce(missing, names);
  const rootShell = findRootShell(missing);
  if (!resolved) {
    runAsRoot(rootShell, updateScript, []);
    names = missing.map(({ packages }) => candidateOf(packages));
  }
  /** @type {string[]} */
  const chosen = [];
  for (const [index, { packages }] of missing.entries()) {
    const name = names[index];
    if (name === undefined) throw new SetupError(`no package source has ${packages.join(' or ')}: check /etc/apt/sources.list`);
    if (!chosen.includes(name)) chosen.push(name);
  }
  runAsRoot(rootShell, updateScript + installScript, [resolved ? 'try-first' : 'updated', ...chosen]);
  const still = missing.filter(({ isThere }) => !isThere());
  if (still.length > 0) throw new SetupError(`installed, and yet not found: ${still.map(({ why }) => why).join('; ')}`);
}

/** Whether `installPackages` would ask nobody for anything. */
export function installsUnasked() {
  return isProgram('apt-get') && (process.getuid?.() === 0 || (isProgram('sudo') && sudoNeedsNoPassword()));
}

function sudoNeedsNoPassword() {
  return spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0;
}

/**
 * @param {readonly Need[]} missing
 * @param {readonly (string | undefined)[]} names
 */
function announce(missing, names) {
  const labels = missing.map(({ packages }, index) => names[index] ?? packages.join(' or '));
  const width = Math.max(...labels.map((label) => label.length));
  say(`installing what is missing${process.getuid?.() === 0 ? '' : ', with sudo'}, as Debian packages:`);
  for (const [index, { why }] of missing.entries()) say(`  ${(labels[index] ?? '').padEnd(width)}  ${why}`);
}

/**
 * @param {readonly Need[]} missing
 * @returns {readonly string[]} the command that runs another one as root
 */
function findRootShell(missing) {
  if (process.getuid?.() === 0) return [];
  const names = [...new Set(missing.map(({ packages }) => candidateOf(packages) ?? packages[0] ?? ''))];
  const olderNames = missing.flatMap(({ packages }) => (candidateOf(packages) === undefined ? packages.slice(1) : []));
  const notes = [
    ...olderNames.map((name) => `on older releases ${name}`),
    ...(names.includes('tgt') ? ["tgt starts a service: 'systemctl disable --now tgt' afterwards"] : []),
  ];
  const command = `apt-get update && apt-get install --no-install-recommends ${names.join(' ')}`;
  const hint = `run as root: ${command}${notes.length === 0 ? '' : ` (${notes.join('; ')})`}`;
  if (!isProgram('sudo')) throw new SetupError(`this needs root, and there is no sudo here: ${hint}`);
  if (sudoNeedsNoPassword()) return ['sudo', '-n'];
  if (!process.stdin.isTTY)
    throw new SetupError(`this needs root, sudo wants a password and there is no terminal to ask: ${hint}`);
  if (spawnSync('sudo', ['-v'], { stdio: 'inherit' }).status !== 0) throw new SetupError(`sudo refused: ${hint}`);
  return ['sudo', '-n'];
}

/**
 * @param {readonly string[]} rootShell
 * @param {string} script
 * @param {readonly string[]} args
 */
function runAsRoot(rootShell, script, args) {
  const [command = 'sh', ...rest] = [...rootShell, 'sh', '-c', script, 'iserfs-setup', ...args];
  runLogged(command, rest, { hint: 'are the package sources reachable?' });
}

/** Shell, run as root. */
const updateScript = `
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C
apt='apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3'
if [ $# -eq 0 ]; then exec $apt update; fi
`;

/**
 * Shell, run as root: $1 says whether the package lists may be out of date, the rest are packages.
 *
 * Debian's tgt starts a tgtd of its own, on every address, when it is installed. policy-rc.d is the documented way to refuse that;
 * ours stands for the time of the installation only and asks the one that was there before about every other service. A lock keeps
 * two set-ups apart, and a policy that a killed set-up left behind is recognised by its mark and taken away.
 */
const installScript = `
policy=/usr/sbin/policy-rc.d
saved=$policy.before-iserfs
lists=$1
shift
restore() {
  if grep -q 'iserfs set-up' "$policy" 2>/dev/null; then rm -f "$policy"; fi
  if [ -e "$saved" ] || [ -L "$saved" ]; then mv -f "$saved" "$policy"; fi
}
exec 9>/run/iserfs-setup.lock
flock 9
trap restore EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
restore
tgt_was_there=$(dpkg-query -W -f '\${Status}' tgt 2>/dev/null | grep -c 'ok installed' || true)
if [ -e "$policy" ] || [ -L "$policy" ]; then mv "$policy" "$saved"; fi
cat >"$policy" <<POLICY
#!/bin/sh
# iserfs set-up: no tgtd but the tests' own; taken away again at the end of the installation
case "\\$1" in tgt | tgt.service) exit 101 ;; esac
if [ -x "$saved" ]; then exec "$saved" "\\$@"; fi
exit 0
POLICY
chmod 755 "$policy"
install() { $apt install --no-install-recommends "$@" 9>&-; }
if ! install "$@"; then
  [ "$lists" = try-first ] || exit 1
  $apt update 9>&-
  install "$@"
fi
if [ "$tgt_was_there" = 0 ] && dpkg-query -W tgt >/dev/null 2>&1; then update-rc.d tgt disable 9>&- || true; fi
`;

/**
 * @param {readonly string[]} packages
 * @returns {string | undefined} the first that a package source has
 */
function candidateOf(packages) {
  const env = { ...process.env, LC_ALL: 'C' };
  return packages.find((name) => {
    const { stdout } = spawnSync('apt-cache', ['policy', name], { encoding: 'utf8', env });
    const candidate = /Candidate: (.*)/.exec(stdout ?? '')?.[1];
    return candidate !== undefined && candidate !== '(none)';
  });
}

/**
 * @param {string} group
 * @param {readonly string[]} packages
 * @param {string} why
 * @param {() => boolean} isThere
 * @returns {Need}
 */
function need(group, packages, why, isThere) {
  return { group, packages, why, isThere };
}

/** @param {string[]} names */
function program(...names) {
  return () => names.every(isProgram);
}

/** @param {string} name */
function library(name) {
  return () => libraryFolders.some((folder) => existsSync(`${folder}/${name}`));
}

/** clang's run-time library comes in a package of its own, in a folder named after the version. */
function hasLibFuzzer() {
  return installedClangs().some((folder) => {
    const libraries = `${folder}/lib/linux`;
    return existsSync(libraries) && readdirSync(libraries).some((name) => name.startsWith('libclang_rt.fuzzer-'));
  });
}

/** @returns {string[]} the resource folders of the clangs that Debian has installed */
function installedClangs() {
  if (!existsSync('/usr/lib')) return [];
  const roots = readdirSync('/usr/lib').filter((name) => name.startsWith('llvm-'));
  return roots.flatMap((name) => {
    const folder = `/usr/lib/${name}/lib/clang`;
    return existsSync(folder) ? readdirSync(folder).map((version) => `${folder}/${version}`) : [];
  });
}

/**
 * Administration programs are looked for where root's PATH has them, even if the user's PATH does not.
 * @param {string} name
 */
function isProgram(name) {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin'];
  return folders.some((folder) => {
    try {
      accessSync(`${folder}/${name}`, constants.X_OK);
      return folder !== '';
    } catch {
      return false;
    }
  });
}
