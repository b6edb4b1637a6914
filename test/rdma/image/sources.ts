/**
 * Which package sources this machine is configured with: the guest is made from the same. Sources of others (a vendor's
 * repository) are left out, by the name of the suite.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface PackageSources {
  /** Debian's code name of this machine's release. */
  readonly release: string;
  /** Files with the sources, one-line or deb822. */
  readonly files: readonly string[];
  /** Proxies and the like, as apt.conf lines. */
  readonly aptOptions: readonly string[];
}

export function configuredSources(): PackageSources {
  const release = /^VERSION_CODENAME=(.*)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? '';
  const suite = new RegExp(`(^|[\\s])${release}(-updates|-security|/updates)?([\\s]|$)`, 'm');
  const files = candidates().filter((path) => suite.test(withoutComments(readFileSync(path, 'utf8'))));
  if (release === '' || files.length === 0) throw new Error(`no package sources of release "${release}" in /etc/apt`);
  const dump = execFileSync('apt-config', ['dump', 'Acquire::http', 'Acquire::https', 'Acquire::Retries'], { encoding: 'utf8' });
  const aptOptions = dump.split('\n').filter((line) => /^Acquire::(https?::\S*(Proxy|Timeout)|Retries)\S* "[^"]+";$/.test(line));
  return { release, files, aptOptions };
}

function candidates(): string[] {
  const folder = '/etc/apt/sources.list.d';
  const inFolder = existsSync(folder) ? readdirSync(folder).filter((name) => /\.(list|sources)$/.test(name)) : [];
  return ['/etc/apt/sources.list', ...inFolder.map((name) => join(folder, name))].filter((path) => existsSync(path));
}

function withoutComments(text: string): string {
  return text.replace(/#.*$/gm, '');
}
