import { describe, expect, it } from 'vitest';
import { findInitiatorName, parseSystemFile } from '../../../src/config/initiator-name.ts';
import { isValidIscsiName } from '../../../src/iser/iscsi/name.ts';
import { Workdir } from '../../support/workdir.ts';

async function find(workdir: Workdir, options: { configured?: string; systemFile?: string } = {}) {
  const warnings: string[] = [];
  const name = await findInitiatorName({
    configured: options.configured,
    environment: { XDG_STATE_HOME: workdir.join('state') },
    systemFile: options.systemFile ?? workdir.join('none'),
    warn: (line) => warnings.push(line),
  });
  return { name, warnings };
}

describe('the initiator name', () => {
  it('is the one that was configured', async () => {
    await using workdir = Workdir.create();
    const systemFile = workdir.file('system', 'InitiatorName=iqn.2024-01.x:system\n');
    expect((await find(workdir, { configured: 'iqn.2024-01.x:mine', systemFile })).name).toBe('iqn.2024-01.x:mine');
  });

  it('is else the one of the machine', async () => {
    await using workdir = Workdir.create();
    const systemFile = workdir.file('system', '## a comment\nInitiatorName = iqn.1993-08.org.debian:01:ab12cd\n');
    expect((await find(workdir, { systemFile })).name).toBe('iqn.1993-08.org.debian:01:ab12cd');
  });

  it('is else made once and stays', async () => {
    await using workdir = Workdir.create();
    const { name, warnings } = await find(workdir);
    expect(isValidIscsiName(name)).toBe(true);
    expect(warnings).toEqual([]);
    expect((await find(workdir)).name).toBe(name);
  });

  it('is the same for all that make it at the same time', async () => {
    await using workdir = Workdir.create();
    const names = await Promise.all(Array.from({ length: 8 }, async () => (await find(workdir)).name));
    expect(new Set(names).size).toBe(1);
    expect((await find(workdir)).name).toBe(names[0]);
  });

  it('is made anew where the stored one is damaged', async () => {
    await using workdir = Workdir.create();
    workdir.folder('state/iserfs');
    workdir.file('state/iserfs/initiator-name', 'iqn.20');
    const { name } = await find(workdir);
    expect(isValidIscsiName(name)).toBe(true);
    expect((await find(workdir)).name).toBe(name);
  });

  it('that cannot be kept is used all the same, with a warning', async () => {
    await using workdir = Workdir.create();
    workdir.file('state', 'a file where the folder should be');
    const { name, warnings } = await find(workdir);
    expect(isValidIscsiName(name)).toBe(true);
    expect(warnings).toHaveLength(1);
  });
});

describe("the machine's file of the name", () => {
  it.each([
    ['InitiatorName=not a name\n', /^\/etc\/x has no line/],
    ['InitiatorName=disk\n', /^\/etc\/x: "disk" is not an iSCSI name/],
    ['InitiatorName=iqn.2024-01.x:a/b\n', /is not an iSCSI name/],
    ['#InitiatorName=iqn.2024-01.x:a\n', /has no line/],
  ])('with %j is refused', (text, message) => {
    expect(() => parseSystemFile(text, '/etc/x')).toThrow(message);
  });
});
