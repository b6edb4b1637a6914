/**
 * Serial number arithmetic over 32 bits (RFC 1982, as RFC 7143 §4.2.2 uses it for CmdSN, StatSN, DataSN
 * and R2TSN). Numbers are plain, 0..2^32-1. No sequence number is compared with `<` anywhere else.
 */

const HALF = 0x8000_0000;

/** `a + n`, modulo 2^32. `n` may be negative. */
export function serialAdd(a: number, n: number): number {
  return (a + n) >>> 0;
}

/** Whether `a` comes before `b`. Of two numbers that are 2^31 apart, neither does. */
export function serialLess(a: number, b: number): boolean {
  const ahead = (b - a) >>> 0;
  return ahead !== 0 && ahead < HALF;
}

/** Whether `a` is `b` or comes before it. */
export function serialLessOrEqual(a: number, b: number): boolean {
  return (b - a) >>> 0 < HALF;
}
