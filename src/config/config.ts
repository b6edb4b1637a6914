/**
 * The configuration file: YAML or JSON (which YAML reads as well), found by the XDG rules. It holds
 * portals, targets with their own portals, credentials and LUNs, and the options of `mount` under the
 * names they have on the command line. Parsing is pure; what is wrong is one line with the file, the
 * line and the key.
 */

import { readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type Document, isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument, type YAMLMap } from 'yaml';
import { IserfsError } from '../errors.ts';
import { isValidIscsiName, type Portal } from '../iser/iscsi/name.ts';
import { lunLabel, parseLun } from '../scsi/lun.ts';
import { isOptionName, type OptionName, type OptionValues, optionNames, parseOption, type SomeOptions } from './options.ts';
import { readPortal } from './portal.ts';
import { type ChapSources, systemReason } from './secrets.ts';
import { configurationPaths, type Environment } from './xdg.ts';

/** One entry of `targets`. */
export interface TargetEntry {
  readonly name: string;
  /** Empty: reached at the file's or the command line's portals. */
  readonly portals: readonly Portal[];
  /** Where its portals offer iSER; undefined: as for the others. */
  readonly iserPort: number | undefined;
  readonly chap: ChapSources;
  /** Labels of the LUNs to show; undefined for all. */
  readonly luns: readonly string[] | undefined;
}

export interface FileSettings {
  readonly path: string;
  readonly options: SomeOptions;
  readonly portals: readonly Portal[];
  readonly targets: readonly TargetEntry[];
  readonly chap: ChapSources;
}

/**
 * Reads `explicitPath`, or else the first file that exists of those in the XDG folders and /etc.
 * Undefined where there is none. Throws `bad-configuration`.
 */
export async function loadConfiguration(
  explicitPath: string | undefined,
  environment: Environment,
): Promise<FileSettings | undefined> {
  for (const path of explicitPath === undefined ? configurationPaths(environment) : [resolve(explicitPath)]) {
    let text: string;
    let mode: number;
    try {
      text = await readFile(path, 'utf8');
      mode = (await stat(path)).mode;
    } catch (error) {
      if (explicitPath === undefined && isMissing(error)) continue;
      throw new IserfsError('bad-configuration', `cannot read the configuration file ${path}: ${systemReason(error)}`, {
        hint: 'Check the path and its permissions, or leave --config out to use the default places.',
      });
    }
    return parseConfiguration(text, path, { readableByOthers: (mode & 0o004) !== 0 });
  }
  return undefined;
}

/** What `text` says. Throws `bad-configuration` with file, line and key. */
export function parseConfiguration(text: string, path: string, options: { readonly readableByOthers: boolean }): FileSettings {
  const reader = new Reader(text, path, options.readableByOthers);
  return reader.settings();
}

const CHAP_KEYS = {
  'chap-user': 'user',
  'chap-secret': 'secret',
  'chap-secret-file': 'secretFile',
  'chap-mutual-user': 'mutualUser',
  'chap-mutual-secret': 'mutualSecret',
  'chap-mutual-secret-file': 'mutualSecretFile',
} as const satisfies Record<string, keyof ChapSources>;
type ChapKey = keyof typeof CHAP_KEYS;
const chapKeys = Object.keys(CHAP_KEYS) as ChapKey[];

const TOP_KEYS = ['portals', 'targets', ...chapKeys, ...optionNames];
const TARGET_KEYS = ['name', 'portals', 'iser-port', 'luns', ...chapKeys];

/** One pass over the document; every complaint knows its line. */
class Reader {
  readonly #path: string;
  readonly #readableByOthers: boolean;
  readonly #lines = new LineCounter();
  readonly #document: Document.Parsed;

  constructor(text: string, path: string, readableByOthers: boolean) {
    this.#path = path;
    this.#readableByOthers = readableByOthers;
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, uniqueKeys: false });
    const [error] = this.#document.errors;
    if (error === undefined) return;
    const { line, col } = this.#lines.linePos(error.pos[0]);
    throw this.#badAt(`${line}:${col}`, `no YAML: ${error.message}`);
  }

  settings(): FileSettings {
    const { contents } = this.#document;
    if (contents === null) return { path: this.#path, options: {}, portals: [], targets: [], chap: {} };
    if (!isMap(contents)) throw this.#bad(contents, 'expected keys and values such as "portals:"');
    const options: Record<string, unknown> = {};
    let portals: Portal[] = [];
    let targets: TargetEntry[] = [];
    const chap: { -readonly [K in keyof ChapSources]: string } = {};
    for (const { key, keyNode, value } of this.#entries(contents, TOP_KEYS)) {
      if (key === 'portals') portals = this.#list(keyNode, value, 'portals').map((item) => this.#portal(item));
      else if (key === 'targets') targets = this.#list(keyNode, value, 'targets').map((item) => this.#target(item));
      else if (isChapKey(key)) chap[CHAP_KEYS[key]] = this.#chapValue(key, keyNode, value);
      else if (isOptionName(key)) options[key] = this.#option(key, keyNode, value);
    }
    return { path: this.#path, options: options as SomeOptions, portals, targets, chap };
  }

  #target(item: Node | null): TargetEntry {
    if (!isMap(item)) throw this.#bad(item, 'targets: expected entries with a "name:"');
    let name: string | undefined;
    let portals: Portal[] = [];
    let iserPort: number | undefined;
    let luns: string[] | undefined;
    const chap: { -readonly [K in keyof ChapSources]: string } = {};
    for (const { key, keyNode, value } of this.#entries(item, TARGET_KEYS)) {
      if (key === 'name') name = this.#iscsiName(value ?? keyNode);
      else if (key === 'portals') portals = this.#list(keyNode, value, 'portals').map((each) => this.#portal(each));
      else if (key === 'iser-port') iserPort = this.#option(key, keyNode, value);
      else if (key === 'luns') luns = this.#list(keyNode, value, 'luns').map((each) => this.#lun(each));
      else if (isChapKey(key)) chap[CHAP_KEYS[key]] = this.#chapValue(key, keyNode, value);
    }
    if (name === undefined) throw this.#bad(item, 'targets: an entry has no "name"');
    return { name, portals, iserPort, chap, luns };
  }

  /** The pairs of `map`, refusing keys that are not `allowed` and those that come again. */
  #entries(map: YAMLMap, allowed: readonly string[]): { key: string; keyNode: Node; value: Node | null }[] {
    const lines = new Map<string, number>();
    return (map.items as Pair<Node, Node | null>[]).map(({ key: keyNode, value }) => {
      const key = isScalar(keyNode) ? String(keyNode.value) : '';
      const before = lines.get(key);
      if (before !== undefined) throw this.#bad(keyNode, `the key "${key}" stands in line ${before} already`);
      lines.set(key, this.#lineOf(keyNode));
      if (allowed.includes(key)) return { key, keyNode, value };
      const near = nearest(key, allowed);
      throw this.#bad(keyNode, `unknown key "${key}"${near === undefined ? '' : `; did you mean "${near}"?`}`);
    });
  }

  #list(keyNode: Node, value: Node | null, key: string): (Node | null)[] {
    if (isSeq(value)) return value.items as (Node | null)[];
    throw this.#bad(value ?? keyNode, `${key}: expected a list`);
  }

  #portal(item: Node | null): Portal {
    const text = this.#text(item);
    if (text === undefined) throw this.#bad(item, 'portals: expected HOST or HOST:PORT');
    try {
      return readPortal(text);
    } catch (error) {
      throw this.#bad(item, `portals: ${messageOf(error)}`);
    }
  }

  #lun(item: Node | null): string {
    const text = this.#text(item);
    try {
      if (text !== undefined) return lunLabel(parseLun(text));
    } catch {
      // said below, with the line
    }
    throw this.#bad(item, 'luns: expected logical unit numbers such as 0 or 12');
  }

  #iscsiName(value: Node): string {
    const name = this.#text(value);
    if (name !== undefined && isValidIscsiName(name)) return name;
    throw this.#bad(value, 'name: expected an iSCSI name such as iqn.2024-01.com.example:disks');
  }

  #option<K extends OptionName>(key: K, keyNode: Node, value: Node | null): OptionValues[K] {
    try {
      return parseOption(key, isScalar(value) ? value.value : undefined);
    } catch (error) {
      throw this.#bad(value ?? keyNode, `${key}: ${messageOf(error)}`);
    }
  }

  #chapValue(key: ChapKey, keyNode: Node, value: Node | null): string {
    const text = this.#text(value);
    if (text === undefined || text === '') throw this.#bad(keyNode, `${key}: expected a text; quote it if it is all digits`);
    if (key.endsWith('-file')) return resolve(dirname(this.#path), text);
    if (key.endsWith('-secret') && this.#readableByOthers) {
      throw this.#bad(
        keyNode,
        `${key}: the file holds a secret and every user of this machine can read it`,
        `chmod 600 ${this.#path}`,
      );
    }
    return text;
  }

  /** A string as it stands, or the source text of a number: `0123` in a list of LUNs, a portal such as `3260`. */
  #text(node: Node | null): string | undefined {
    if (!isScalar(node)) return undefined;
    if (typeof node.value === 'string') return node.value;
    return typeof node.value === 'number' ? (node.source ?? String(node.value)) : undefined;
  }

  #bad(at: Node | null, message: string, hint?: string): IserfsError {
    return this.#badAt(String(this.#lineOf(at)), message, hint);
  }

  #badAt(place: string, message: string, hint = 'Correct it there, or name another file with --config FILE.'): IserfsError {
    const oneLine = message.replace(/\s+/g, ' ').trim();
    return new IserfsError('bad-configuration', `${this.#path}:${place}: ${oneLine}`, { hint });
  }

  #lineOf(node: Node | null): number {
    return this.#lines.linePos(node?.range?.[0] ?? 0).line;
  }
}

/** The one of `candidates` that `text` is most likely a typing error for. */
export function nearest(text: string, candidates: readonly string[]): string | undefined {
  const limit = Math.max(1, Math.floor(text.length / 3));
  let best: { readonly candidate: string; readonly distance: number } | undefined;
  for (const candidate of candidates) {
    const distance = editDistance(text.toLowerCase(), candidate);
    if (distance <= limit && (best === undefined || distance < best.distance)) best = { candidate, distance };
  }
  return best?.candidate;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substitution = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(substitution, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}

function isChapKey(key: string): key is ChapKey {
  return Object.hasOwn(CHAP_KEYS, key);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');
}
