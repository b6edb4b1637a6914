/**
 * Makes the test guest's image and keeps it: a kernel that QEMU can start without unpacking it, an initramfs, a root file system.
 * It is made in three layers, each kept under a digest of what it is made from, in a folder outside the repository, so that only
 * what changed is made again. Needs root (for mmdebstrap), Debian's package sources and the programs of the set-up group `rdma`.
 */

import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runChecked } from '../../support/child-process.ts';
import { bootModules, excludedPaths, guestModules, guestPackages, siwSourceFolder, unpackedPackages } from './recipe.ts';
import { configuredSources } from './sources.ts';
import { extractVmlinux } from './vmlinux.ts';

export interface GuestImage {
  /** An uncompressed kernel with a PVH entry. */
  readonly kernel: string;
  readonly initramfs: string;
  /** squashfs. */
  readonly root: string;
  /** Debian's versions of what the outcome depends on, by package. */
  readonly versions: Readonly<Record<string, string>>;
}

const here = dirname(fileURLToPath(import.meta.url));
const cacheFolder = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'iserfs-rdma-guest');
const keptDays = 14;
const minutes = 60_000;

/** The image, made now if it is not there. `say` hears of what takes long. */
export async function buildImage(say: (line: string) => void): Promise<GuestImage> {
  if (process.arch !== 'x64') throw new Error(`the RDMA guest is made for x86-64, this is ${process.arch}`);
  if (process.getuid?.() !== 0) throw new Error('the RDMA guest is made by root: mmdebstrap unpacks packages with their owners');
  mkdirSync(cacheFolder, { recursive: true });
  const sources = configuredSources();
  const root = await layer('root', [sources.release, guestPackages, excludedPaths, unpackedPackages], say, (folder) =>
    makeRoot(folder, sources),
  );
  const kernel = await layer('kernel', [sources.release, siwSourceFolder, source('vmlinux.ts')], say, (folder) =>
    makeKernel(folder, sources),
  );
  const image = await layer(
    'image',
    [
      root,
      kernel,
      bootModules,
      guestModules,
      source('init'),
      source('guest-agent'),
      identityOf(process.execPath),
      source('build.ts'),
    ],
    say,
    (folder) => makeImage(folder, root, kernel),
  );
  removeUnused([root, kernel, image]);
  return {
    kernel: join(kernel, 'vmlinux'),
    initramfs: join(image, 'initramfs'),
    root: join(image, 'root.squashfs'),
    versions: JSON.parse(readFileSync(join(image, 'versions.json'), 'utf8')),
  };
}

/** A folder of the cache, made from `inputs` by `make` unless it is there. It appears when it is complete, or not at all. */
async function layer(
  name: string,
  inputs: readonly unknown[],
  say: (line: string) => void,
  make: (folder: string) => Promise<void>,
): Promise<string> {
  const digest = createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 16);
  const folder = join(cacheFolder, `${name}-${digest}`);
  if (existsSync(folder)) {
    utimesSync(folder, new Date(), new Date());
    return folder;
  }
  say(`making the guest's ${name} (kept in ${cacheFolder})`);
  const unfinished = mkdtempSync(`${folder}-unfinished-`);
  chmodSync(unfinished, 0o755); // a root file system that only its owner may enter stops every service in it
  try {
    await make(unfinished);
    if (existsSync(folder)) return folder; // another run was faster
    renameSync(unfinished, folder);
    return folder;
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}

/** Layers of other recipes, and what a killed run left, once nobody has used them for long. */
function removeUnused(used: readonly string[]): void {
  for (const name of readdirSync(cacheFolder)) {
    const path = join(cacheFolder, name);
    const age = Date.now() - statSync(path).mtimeMs;
    if (!used.includes(path) && /^(root|kernel|image)-/.test(name) && age > keptDays * 24 * 60 * minutes) {
      rmSync(path, { recursive: true, force: true });
    }
  }
}

async function makeRoot(folder: string, { release, files, aptOptions }: ReturnType<typeof configuredSources>): Promise<void> {
  const extras = Object.entries(unpackedPackages).map(([name, paths]) => {
    const members = paths.map((path) => `./${path}`).join(' ');
    return `--customize-hook=cd /tmp && d=$(mktemp -d) && cd "$d" && chown _apt . && \
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download ${name} && dpkg-deb --fsys-tarfile *.deb | tar -C "$1" -x ${members} && rm -rf "$d"`;
  });
  const args = [
    '--quiet',
    '--mode=root',
    '--variant=essential',
    `--include=${guestPackages.join(',')}`,
    ...excludedPaths.map((path) => `--dpkgopt=path-exclude=${path}`),
    ...aptOptions.map((option) => `--aptopt=${option}`),
    ...extras,
    release,
    join(folder, 'root'),
    ...files,
  ];
  await runChecked('mmdebstrap', args, { timeoutMs: 15 * minutes });
}

/** The kernel, its modules, and siw compiled for it. */
async function makeKernel(folder: string, { release }: ReturnType<typeof configuredSources>): Promise<void> {
  const version = /Depends: linux-image-(\S+)/.exec(await runChecked('apt-cache', ['depends', 'linux-image-amd64']))?.[1];
  if (version === undefined) throw new Error(`no linux-image-amd64 in the package lists of ${release}: run apt-get update`);
  const headers = `linux-headers-${version}`;
  const [series = ''] = /^\d+\.\d+/.exec(version) ?? [];
  const parts = [...(await runChecked('apt-cache', ['depends', headers])).matchAll(/^ *Depends: (linux-\S+)/gm)].map(
    ([, name = '']) => name,
  );
  const packages = [
    `linux-image-${version}`,
    headers,
    ...parts.filter((name) => !name.startsWith('linux-image')),
    `linux-source-${series}`,
  ];
  const debs = await download(packages);

  const tree = join(folder, 'tree');
  const work = join(folder, 'work');
  await runChecked('dpkg', ['-x', debs[0] ?? '', tree], { timeoutMs: 5 * minutes });
  for (const deb of debs.slice(1)) await runChecked('dpkg', ['-x', deb, work], { timeoutMs: 5 * minutes });
  const extracted = await extractVmlinux(readFileSync(join(tree, 'boot', `vmlinuz-${version}`)));
  writeFileSync(join(folder, 'vmlinux'), extracted);

  const usrSrc = join(work, 'usr', 'src');
  const archive = join(usrSrc, `linux-source-${series}.tar.xz`);
  await runChecked('tar', ['-C', work, '-xf', archive, `linux-source-${series}/${siwSourceFolder}`], { timeoutMs: 5 * minutes });
  const siw = join(work, `linux-source-${series}`, siwSourceFolder);
  // The headers' Makefile includes the common ones where the package would have installed them.
  const makefile = join(usrSrc, headers, 'Makefile');
  writeFileSync(makefile, readFileSync(makefile, 'utf8').replaceAll('/usr/src/', `${usrSrc}/`));
  const make = ['-C', join(usrSrc, headers), `M=${siw}`, 'CONFIG_RDMA_SIW=m', '-j2', 'modules'];
  await runChecked('make', make, { timeoutMs: 10 * minutes });
  const modules = join(tree, 'lib', 'modules', version);
  mkdirSync(join(modules, 'updates'));
  await runChecked('strip', ['--strip-debug', '-o', join(modules, 'updates', 'siw.ko'), join(siw, 'siw.ko')]);

  const [, packageVersion = ''] = /_(.+)_/.exec(debs[0] ?? '') ?? [];
  writeFileSync(join(folder, 'version.json'), JSON.stringify({ release: version, package: decodeURIComponent(packageVersion) }));
  rmSync(work, { recursive: true });
}

/** Debian packages in the cache, downloaded where they are not there. Only those of the newest kernel are kept. */
async function download(packages: readonly string[]): Promise<string[]> {
  const folder = join(cacheFolder, 'packages');
  mkdirSync(folder, { recursive: true });
  const find = (name: string) => readdirSync(folder).find((file) => file.startsWith(`${name}_`) && file.endsWith('.deb'));
  const missing = packages.filter((name) => find(name) === undefined);
  if (missing.length > 0) {
    for (const file of readdirSync(folder)) {
      if (!packages.some((name) => file.startsWith(`${name}_`))) rmSync(join(folder, file));
    }
    await runChecked('apt-get', ['-q', '-o', 'APT::Sandbox::User=root', '-o', 'Acquire::Retries=3', 'download', ...missing], {
      cwd: folder,
      timeoutMs: 15 * minutes,
    });
  }
  return packages.map((name) => join(folder, find(name) ?? name));
}

async function makeImage(folder: string, rootLayer: string, kernelLayer: string): Promise<void> {
  const kernel: { release: string; package: string } = JSON.parse(readFileSync(join(kernelLayer, 'version.json'), 'utf8'));
  const root = join(folder, 'root');
  await runChecked('cp', ['-a', join(rootLayer, 'root'), root], { timeoutMs: 5 * minutes });
  const modules = join('lib', 'modules', kernel.release);
  await runChecked('mkdir', ['-p', join(root, 'lib', 'modules')]);
  await runChecked('cp', ['-a', join(kernelLayer, 'tree', modules), join(root, modules)], { timeoutMs: 5 * minutes });
  const inRoot = (command: string, ...args: string[]) =>
    runChecked('chroot', [root, command, ...args], { timeoutMs: 2 * minutes });

  await inRoot('depmod', kernel.release);
  /** Paths of modules with all that they need, in the order in which they load. */
  const closure = async (names: readonly string[]) => {
    const lines = await inRoot('modprobe', '--set-version', kernel.release, '--show-depends', '--all', ...names);
    return [...new Set([...lines.matchAll(/^insmod (\S+)/gm)].map(([, path = '']) => path.replace(/^\/usr/, '')))];
  };
  const wanted = new Set(await closure(guestModules));
  const boot = await closure(bootModules);
  const initramfs = join(folder, 'initramfs-tree');
  for (const name of ['bin', 'proc', 'sys', 'dev', 'lower', 'scratch', 'root', 'modules'])
    mkdirSync(join(initramfs, name), { recursive: true });
  copyFileSync(join(root, 'bin', 'busybox'), join(initramfs, 'bin', 'busybox'));
  copyFileSync(join(here, 'init'), join(initramfs, 'init'));
  for (const path of boot) copyFileSync(join(root, path), join(initramfs, 'modules', path.replaceAll('/', '-')));
  writeFileSync(join(initramfs, 'modules', 'order'), boot.map((path) => `${path.replaceAll('/', '-')}\n`).join(''));
  chmodSync(join(initramfs, 'init'), 0o755);
  await runChecked('sh', ['-c', 'find . | cpio -o -H newc --quiet >../initramfs'], { cwd: initramfs });

  for (const path of (await runChecked('find', [modules, '-name', '*.ko'], { cwd: root })).trim().split('\n')) {
    if (!wanted.has(`/${path}`)) rmSync(join(root, path));
  }
  await inRoot('depmod', kernel.release);
  cpSync(join(here, 'guest-agent'), join(root, 'sbin', 'guest-agent'));
  chmodSync(join(root, 'sbin', 'guest-agent'), 0o755);
  copyFileSync(process.execPath, join(root, 'usr', 'local', 'bin', 'node'));
  await inRoot('node', '--version'); // fails where this machine's Node needs libraries that the guest has not
  const versions = { linux: kernel.package, ...(await packageVersions(root)) };
  writeFileSync(join(folder, 'versions.json'), JSON.stringify(versions));
  await runChecked('mksquashfs', [root, join(folder, 'root.squashfs'), '-quiet', '-no-progress', '-comp', 'lz4'], {
    timeoutMs: 5 * minutes,
  });
  rmSync(root, { recursive: true });
  rmSync(initramfs, { recursive: true });
}

async function packageVersions(root: string): Promise<Record<string, string>> {
  const names = { tgt: 'tgt', 'rdma-core': 'librdmacm1', libiscsi: 'libiscsi7', 'open-iscsi': 'open-iscsi' };
  const versions: Record<string, string> = {};
  for (const [label, name] of Object.entries(names)) {
    versions[label] = await runChecked('dpkg-query', [`--admindir=${root}/var/lib/dpkg`, '-W', `--showformat=\${Version}`, name]);
  }
  return versions;
}

function source(name: string): string {
  return readFileSync(join(here, name), 'utf8');
}

/** Tells one build of a program from another without reading 90 MB. */
function identityOf(path: string): string {
  const { size, mtimeMs } = statSync(path);
  return `${path} ${size} ${mtimeMs}`;
}
