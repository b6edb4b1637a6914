/**
 * Sizes and times as people write them (`64M`, `1.5G`, `30s`, `2m`) and as they like to read them.
 * Pure; used by the command line, the configuration file and the status files.
 */

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  p: 2 ** 50,
};

const DURATION_UNITS_MS: Readonly<Record<string, number>> = { ms: 1, '': 1000, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export const SIZE_FORM = 'a size such as 512, 64M, 1G or 3T';
export const DURATION_FORM = 'a time such as 500ms, 30s, 2m or 1h (a bare number is seconds)';

/** Bytes, from a number and an optional unit of 1024s: `K`, `M`, `G`, `T`, `P`, also `KiB` or `KB`. Undefined where `text` is no size. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([kmgtp])(?:i?b)?|b)?$/i.exec(text.trim());
  if (match === null) return undefined;
  const bytes = Number(match[1]) * (SIZE_UNITS[(match[2] ?? '').toLowerCase()] as number);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Milliseconds, from a number and an optional unit. Undefined where `text` is no time, or one past 2^31 ms (which timers cannot hold). */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?$/i.exec(text.trim());
  if (match === null) return undefined;
  const unit = (match[2] ?? '').toLowerCase();
  const milliseconds = Math.round(Number(match[1]) * (DURATION_UNITS_MS[unit === 'min' ? 'm' : unit] as number));
  return milliseconds < 2 ** 31 ? milliseconds : undefined;
}

const SIZE_NAMES = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `512 MiB`, `1.5 GiB`, `513 bytes`: at most three significant decimals, for reading. */
export function formatSize(bytes: number): string {
  let value = bytes;
  let step = 0;
  while (value >= 1024 && step < SIZE_NAMES.length - 1) {
    value /= 1024;
    step++;
  }
  return `${step === 0 ? value : trimmed(value)} ${SIZE_NAMES[step]}`;
}

/** `250 ms`, `5 s`, `2 min 5 s`, `3 d 4 h`: the two largest units. */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60_000) return `${trimmed(Math.floor(milliseconds / 100) / 10)} s`;
  let rest = Math.floor(milliseconds / 1000);
  const parts: string[] = [];
  for (const [name, seconds] of [
    ['d', 86_400],
    ['h', 3600],
    ['min', 60],
    ['s', 1],
  ] as const) {
    const count = Math.floor(rest / seconds);
    rest -= count * seconds;
    if (count > 0) parts.push(`${count} ${name}`);
  }
  return parts.slice(0, 2).join(' ');
}

function trimmed(value: number): string {
  return value.toFixed(value < 10 ? 2 : 1).replace(/\.?0+$/, '');
}
