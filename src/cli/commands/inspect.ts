/**
 * `iserfs ls`, `info` and `status`: what there is, what it is, how it does. Of a mount, by the texts in
 * its tree; of a portal, by asking the target, with nothing mounted. In a mount that logs in on demand a target that is
 * named gets its session by that; nothing else here begins one.
 */

import { formatSize } from '../../config/quantity.ts';
import { type CommandLineSettings, resolveSettings } from '../../config/settings.ts';
import { IserfsError } from '../../errors.ts';
import { normalizeIscsiName } from '../../iser/iscsi/name.ts';
import { renderLunInfo } from '../../mount/render.ts';
import type { LunSnapshot, TargetSnapshot } from '../../mount/snapshot.ts';
import { surveyTargets } from '../../mount/survey.ts';
import { count, printable } from '../../printable.ts';
import { type Problem, problemOf } from '../../problem.ts';
import { findMounts, type LunSummary, type MountStatus, presentMount, readMountFile, readMountStatus } from '../mount-reader.ts';
import { EXIT_FAILED, EXIT_OK, warnOf } from '../output.ts';
import { type CommandContext, initiatorNameFor } from './context.ts';

export interface InspectArguments {
  /** A mount point; undefined for all mounts, or where portals are given. */
  readonly mountpoint: string | undefined;
  /** Says whom to ask where `mountpoint` is undefined and portals or targets are given. */
  readonly settings: CommandLineSettings;
  readonly json: boolean;
}

/** A list of mounts waits no longer than this for one of them. */
const LIST_TIMEOUT_MS = 3000;
/** A target that is looked into for the first time is logged in to, at one portal after the other. */
const LOOK_TIMEOUT_MS = 60_000;
/** A hint that lists a thousand targets is none. */
const MOST_LISTED = 16;

/** Shows what there is. */
export async function runLs(args: InspectArguments, context: CommandContext): Promise<number> {
  const { output } = context;
  if (asksTarget(args)) {
    const targets = await survey(args, context);
    if (args.json) output.json(targets.map(targetJson));
    else
      for (const target of targets)
        for (const lun of target.luns) output.data(lunLine(`${target.name} lun${lun.label}`, summaryOf(lun)));
    return reportProblems(targets, context);
  }
  if (args.mountpoint === undefined) return await listMounts(args, context);
  const mountpoint = await presentMount(args.mountpoint, 'ls');
  const targets = await readTargets(mountpoint, args.settings);
  if (args.json) {
    output.json(
      targets.map((target) => ({
        ...target,
        luns: target.luns.map((lun) => ({
          ...lun,
          image: lun.capacity === undefined ? null : imagePath(mountpoint, target.name, lun.lun),
        })),
      })),
    );
    return EXIT_OK;
  }
  warnOf(targets.flatMap(problemIn), output);
  for (const target of targets) {
    if (isUnused(target)) output.data(`${mountpoint}/${target.name} ${target.state}`);
    for (const lun of target.luns) {
      output.data(
        lunLine(
          lun.capacity === undefined ? lunPath(mountpoint, target.name, lun.lun) : imagePath(mountpoint, target.name, lun.lun),
          lun,
        ),
      );
    }
  }
  return EXIT_OK;
}

/** Shows what each logical unit is. */
export async function runInfo(args: InspectArguments, context: CommandContext): Promise<number> {
  const { output } = context;
  if (asksTarget(args)) {
    const targets = await survey(args, context);
    const renderings = targets.flatMap((target) => target.luns.map((lun) => renderLunInfo(target.name, lun)));
    if (args.json) output.json(renderings.map(({ json }) => json));
    else
      printBlocks(
        renderings.map(({ text }) => text),
        context,
      );
    return reportProblems(targets, context);
  }
  const mountpoint = await theMount(args.mountpoint, 'info');
  const targets = await readTargets(mountpoint, args.settings);
  const unused = targets.filter(isUnused).length;
  if (unused > 0) output.say(`${count(unused, 'target')} without a session left out; --target NAME begins one.`);
  const file = args.json ? 'info.json' : 'info';
  const texts: string[] = [];
  for (const target of targets) {
    for (const { lun } of target.luns) texts.push(await readMountFile(`${lunPath(mountpoint, target.name, lun)}/${file}`));
  }
  if (args.json) output.json(texts.map((text): unknown => JSON.parse(text)));
  else printBlocks(texts, context);
  return EXIT_OK;
}

/** Shows how a mount does; with `--target` or `--lun`, how these do. */
export async function runStatus(args: InspectArguments, context: CommandContext): Promise<number> {
  const { output } = context;
  const mountpoint = await theMount(args.mountpoint, 'status');
  const file = args.json ? 'status.json' : 'status';
  const { targetNames, luns } = args.settings;
  if (targetNames.length === 0 && luns.length === 0) {
    const text = await readMountFile(`${mountpoint}/${file}`);
    if (args.json) output.json(JSON.parse(text));
    else output.data(text.trimEnd());
    return EXIT_OK;
  }
  const texts: string[] = [];
  for (const target of await readTargets(mountpoint, args.settings)) {
    if (luns.length === 0) texts.push(await readMountFile(`${mountpoint}/${target.name}/${file}`));
    for (const { lun } of luns.length === 0 ? [] : target.luns) {
      texts.push(await readMountFile(`${lunPath(mountpoint, target.name, lun)}/${file}`));
    }
  }
  if (args.json) output.json(texts.map((text): unknown => JSON.parse(text)));
  else printBlocks(texts, context);
  return EXIT_OK;
}

function asksTarget({ settings, mountpoint }: InspectArguments): boolean {
  return mountpoint === undefined && (settings.portals.length > 0 || settings.configPath !== undefined);
}

async function survey(args: InspectArguments, context: CommandContext): Promise<TargetSnapshot[]> {
  const { output, environment } = context;
  const { settings } = await resolveSettings(args.settings, environment, output.warn);
  const initiatorName = await initiatorNameFor(settings, context);
  return await surveyTargets(settings, initiatorName, { signal: context.interrupts().stop, warn: output.warn });
}

/** What could not be read is said, and is a failure where nothing could be. */
function reportProblems(targets: readonly TargetSnapshot[], { output }: CommandContext): number {
  const problems = targets.flatMap(({ problem, luns }) => [problem, ...luns.map((lun) => lun.problem)]);
  warnOf(
    problems.filter((problem) => problem !== undefined),
    output,
  );
  return targets.some((target) => target.luns.some((lun) => lun.identity !== undefined)) ? EXIT_OK : EXIT_FAILED;
}

/** All mounts that this user can see; one that does not answer is listed with the reason. */
async function listMounts(args: InspectArguments, { output }: CommandContext): Promise<number> {
  const mounts = await Promise.all(
    (await findMounts()).map(async (mountpoint) => {
      try {
        return { mountpoint, status: await readMountStatus(mountpoint, LIST_TIMEOUT_MS), problem: undefined };
      } catch (error) {
        return { mountpoint, status: undefined, problem: problemOf(error) };
      }
    }),
  );
  if (args.json) {
    output.json(
      mounts.map(({ mountpoint, status, problem }) => ({
        mountpoint,
        pid: status?.pid ?? null,
        problem: problem?.text ?? null,
        hint: problem?.hint ?? null,
        targets: status?.targets ?? [],
      })),
    );
    return EXIT_OK;
  }
  if (mounts.length === 0) output.say('No mounts.');
  for (const { mountpoint, status, problem } of mounts) {
    if (problem !== undefined) {
      output.data(`${mountpoint} (${printable(problem.text)})`);
      if (problem.hint !== undefined) output.say(`  ${printable(problem.hint)}`);
    } else {
      const luns = status.targets.flatMap((target) => target.luns).length;
      const unused = status.targets.filter(isUnused).length;
      const targets = `${count(status.targets.length, 'target')}${unused === 0 ? '' : ` (${unused} not connected)`}`;
      output.data(`${mountpoint} ${targets}, ${count(luns, 'LUN')}, process ${status.pid}`);
    }
  }
  return EXIT_OK;
}

/** The mount that is named, or else the only one there is. */
async function theMount(path: string | undefined, command: string): Promise<string> {
  if (path !== undefined) return await presentMount(path, command);
  const [only, ...others] = await findMounts();
  if (only === undefined) {
    throw new IserfsError('mount-failed', 'nothing is mounted', {
      hint: 'Name a portal, or mount first: iserfs mount MOUNTPOINT',
    });
  }
  if (others.length > 0) {
    throw new IserfsError('bad-configuration', 'several mounts are there', {
      hint: `Name one of: ${[only, ...others].join(' ')}`,
    });
  }
  return only;
}

type Target = MountStatus['targets'][number];

/** Nobody has looked into it yet. */
function isUnused({ state }: Target): boolean {
  return state === 'not-connected';
}

/** What a mount says of a target, as it was before it was written down. */
function problemIn({ problem, hint }: Target): Problem[] {
  if (problem === null) return [];
  return [{ text: problem, ...(typeof hint === 'string' ? { hint } : {}) }];
}

/** The targets and LUNs that the filters leave; of those that are named, each with a session where it can be had. */
async function readTargets(mountpoint: string, settings: CommandLineSettings): Promise<readonly Target[]> {
  let status = await readMountStatus(mountpoint);
  const names = new Set(settings.targetNames.map(normalizeIscsiName));
  const unused = status.targets.filter((target) => isUnused(target) && names.has(normalizeIscsiName(target.name)));
  if (unused.length > 0) {
    await Promise.all(unused.map(({ name }) => readMountFile(`${mountpoint}/${name}/status`, LOOK_TIMEOUT_MS)));
    status = await readMountStatus(mountpoint);
  }
  return matching(mountpoint, status, settings);
}

/** The targets and LUNs that the filters leave. Throws `target-not-found` where they leave nothing. */
function matching(mountpoint: string, status: MountStatus, { targetNames, luns }: CommandLineSettings): MountStatus['targets'] {
  const names = new Set(targetNames.map(normalizeIscsiName));
  const targets = status.targets
    .filter(({ name }) => names.size === 0 || names.has(normalizeIscsiName(name)))
    .map((target) => ({ ...target, luns: target.luns.filter(({ lun }) => luns.length === 0 || luns.includes(lun)) }))
    .filter((target) => luns.length === 0 || target.luns.length > 0);
  if (targets.length > 0 || status.targets.length === 0) return targets;
  throw new IserfsError('target-not-found', `${mountpoint} has no such target or LUN`, { hint: `It has: ${listed(status)}` });
}

/** The first few targets with their LUNs, as far as these are known. */
function listed({ targets }: MountStatus): string {
  const some = targets.slice(0, MOST_LISTED).map((target) => {
    const luns = isUnused(target) ? ` ${target.state}` : ` LUN ${target.luns.map(({ lun }) => lun).join(', ')}`;
    return `${target.name}${luns}`;
  });
  const more = targets.length - some.length;
  return [...some, ...(more === 0 ? [] : [`${more} more`])].join('; ');
}

function summaryOf(lun: LunSnapshot): LunSummary {
  const { identity } = lun;
  return {
    lun: lun.label,
    state: lun.state,
    ...(identity === undefined
      ? {}
      : { capacity: identity.capacity, blockLength: identity.blockLength, access: identity.access }),
  };
}

function targetJson(target: TargetSnapshot): unknown {
  return {
    name: target.name,
    state: target.state,
    problem: target.problem?.text ?? null,
    hint: target.problem?.hint ?? null,
    portal: target.session?.portal ?? null,
    luns: target.luns.map((lun) => renderLunInfo(target.name, lun).json),
  };
}

function lunLine(name: string, lun: LunSummary): string {
  if (lun.capacity === undefined) return printable(`${name} ${lun.state}`);
  return printable(`${name} ${lun.state}, ${formatSize(lun.capacity)}, ${lun.blockLength}-byte blocks, ${lun.access}`);
}

function printBlocks(texts: readonly string[], { output }: CommandContext): void {
  for (const [index, text] of texts.entries()) {
    if (index > 0) output.data('');
    output.data(text.trimEnd());
  }
}

function lunPath(mountpoint: string, target: string, lun: string): string {
  return `${mountpoint}/${target}/lun${lun}`;
}

function imagePath(mountpoint: string, target: string, lun: string): string {
  return `${lunPath(mountpoint, target, lun)}/image`;
}
