import { describe, expect, it } from 'vitest';
import { parseDd, parseFio, parseInitiator, parseIscsiPerf } from '../../bench/outputs.ts';

describe('the output of dd', () => {
  it('gives bytes and seconds', () => {
    const text = '256+0 records in\n256+0 records out\n268435456 bytes (268 MB, 256 MiB) copied, 0.0896288 s, 3.0 GB/s\n';
    expect(parseDd(text)).toEqual({ bytes: 268_435_456, seconds: 0.0896288 });
  });

  it('may have an exponent', () => {
    expect(parseDd('512 bytes copied, 7.2e-05 s, 7.1 MB/s').seconds).toBe(7.2e-5);
  });

  it('is refused when it is an error', () => {
    expect(() => parseDd("dd: failed to open 'image': No such file or directory")).toThrow('No such file');
  });
});

describe('the output of fio', () => {
  const report = (part: 'read' | 'write', error = 0) => {
    const idle = { io_bytes: 0, runtime: 0, total_ios: 0, lat_ns: { mean: 0 } };
    const busy = {
      io_bytes: 124_796_928,
      runtime: 1001,
      total_ios: 30_468,
      lat_ns: { mean: 31_792.5, percentile: { '50.000000': 27_000, '99.000000': 70_144 } },
    };
    return JSON.stringify({ jobs: [{ error, read: idle, write: idle, [part]: busy }] });
  };

  it.each(['read', 'write'] as const)('gives the half that was busy: %s', (part) => {
    expect(parseFio(report(part))).toEqual({
      bytes: 124_796_928,
      seconds: 1.001,
      operations: 30_468,
      meanUs: 31.7925,
      p50Us: 27,
      p99Us: 70.144,
    });
  });

  it('may have a note before', () => {
    expect(parseFio(`note: both iodepth >= 1 and synchronous I/O engine\n${report('read')}`).operations).toBe(30_468);
  });

  it('is refused when a job failed, or without percentiles', () => {
    expect(() => parseFio(report('read', 5))).toThrow('error 5');
    const without = { total_ios: 1, io_bytes: 1, runtime: 1, lat_ns: { mean: 1 } };
    expect(() => parseFio(JSON.stringify({ jobs: [{ error: 0, read: without }] }))).toThrow('fio');
  });
});

describe('the output of iscsi-perf', () => {
  const line = (iops: number, megabytes: number) =>
    `\r00:00:01 - lba 43008, iops current 1 (1 MB/s), iops average 1 (1 MB/s), in_flight 1, busy 0        \riops average ${iops} (${megabytes} MB/s)   \n\nfinished.\n`;

  it('gives MiB at the end, of large commands', () => {
    expect(parseIscsiPerf(line(514, 514), { transfer: 2 ** 20, depth: 1, seconds: 2 })).toMatchObject({
      bytes: 1028 * 2 ** 20,
      seconds: 2,
    });
  });

  it('gives operations of small ones, and the latency that as many in flight come to', () => {
    const outcome = parseIscsiPerf(line(20_000, 78), { transfer: 4096, depth: 32, seconds: 2 });
    expect(outcome.operations).toBe(40_000);
    expect(outcome.meanUs).toBe(1600);
  });

  it('is refused when it did not get to the end', () => {
    expect(() => parseIscsiPerf('Failed to connect', { transfer: 4096, depth: 1, seconds: 1 })).toThrow('Failed to connect');
  });
});

it('the output of the initiator is JSON, and refused where a number is missing', () => {
  const text = '{"bytes":4096,"operations":1,"seconds":0.5,"meanUs":1,"p50Us":2,"p99Us":3,"cpuSeconds":0.25}\n';
  expect(parseInitiator(text)).toEqual(JSON.parse(text));
  expect(() => parseInitiator('{"bytes":4096}')).toThrow('initiator');
});
