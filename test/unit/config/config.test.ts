import { describe, expect, it } from 'vitest';
import { loadConfiguration, nearest, parseConfiguration } from '../../../src/config/config.ts';
import { IserfsError } from '../../../src/errors.ts';
import { Workdir } from '../../support/workdir.ts';

const PATH = '/etc/iserfs/config.yaml';

function parse(text: string, readableByOthers = false) {
  return parseConfiguration(text, PATH, { readableByOthers });
}

function complaint(text: string, readableByOthers = false): string {
  try {
    parse(text, readableByOthers);
  } catch (error) {
    if (error instanceof IserfsError && error.code === 'bad-configuration') return error.message;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('a configuration file', () => {
  it('gives portals, targets and options', () => {
    const settings = parse(`
portals: [192.0.2.1, 'san.example:3261', '[2001:db8::1]:3260']
cache-size: 256M
recovery-timeout: 90
read-only: true
chap-user: me
chap-secret-file: secret
targets:
  - name: iqn.2024-01.com.example:db
    portals: [192.0.2.9]
    luns: [0, 3]
    chap-user: db
    chap-secret: a long secret
`);
    expect(settings.portals).toEqual([
      { host: '192.0.2.1', port: 3260 },
      { host: 'san.example', port: 3261 },
      { host: '2001:db8::1', port: 3260 },
    ]);
    expect(settings.options).toEqual({ 'cache-size': 256 * 2 ** 20, 'recovery-timeout': 90_000, 'read-only': true });
    expect(settings.chap).toEqual({ user: 'me', secretFile: '/etc/iserfs/secret' });
    expect(settings.targets).toEqual([
      {
        name: 'iqn.2024-01.com.example:db',
        portals: [{ host: '192.0.2.9', port: 3260 }],
        iserPort: undefined,
        luns: ['0', '3'],
        chap: { user: 'db', secret: 'a long secret' },
      },
    ]);
  });

  it('says where iSER is offered: for all, for one target, for one portal', () => {
    const settings = parse(`
transport: iser
iser-port: 3261
iwarp-crc: off
portals: ['san:3260,iser-port=3262', '[2001:db8::1]:3260, iser-port=3263']
targets:
  - name: iqn.2024-01.com.example:db
    iser-port: 3264
`);
    expect(settings.options).toEqual({ transport: 'iser', 'iser-port': 3261, 'iwarp-crc': 'off' });
    expect(settings.portals).toEqual([
      { host: 'san', port: 3260, iserPort: 3262 },
      { host: '2001:db8::1', port: 3260, iserPort: 3263 },
    ]);
    expect(settings.targets).toMatchObject([{ iserPort: 3264 }]);
  });

  it('may be JSON, indented by tabs', () => {
    expect(parse('{\n\t"portals": ["192.0.2.1"],\n\t"shared": true\n}').options).toEqual({ shared: true });
  });

  it('may be empty', () => {
    expect(parse('# nothing yet\n')).toMatchObject({ portals: [], targets: [], options: {} });
  });

  it.each([
    ['portals:\n  - a\ncashe-size: 1M\n', `${PATH}:3: unknown key "cashe-size"; did you mean "cache-size"?`],
    ['cache-size: lots\n', `${PATH}:1: cache-size: expected a size such as 512, 64M, 1G or 3T`],
    ['\nread-only: "yes"\n', `${PATH}:2: read-only: expected true or false`],
    ['transport: fast', `${PATH}:1: transport: expected one of auto, iser, iwarp, verbs, tcp`],
    ['iser-port: 0', `${PATH}:1: iser-port: expected a port from 1 to 65535`],
    ['targets:\n  - name: iqn.2024-01.x:a\n    iser-port: x', `${PATH}:3: iser-port: expected a port from 1 to 65535`],
    ['portals: ["san,iser-port=70000"]', `${PATH}:1: portals: san,iser-port=70000: iser-port: expected a port from 1 to 65535`],
    ['portals: ["san,iserport=1"]', `${PATH}:1: portals: "san,iserport=1" is no portal`],
    ['iwarp-crc: maybe', `${PATH}:1: iwarp-crc: expected one of on, off`],
    ['portals: 192.0.2.1', `${PATH}:1: portals: expected a list`],
    ['portals:\n  - good\n  - {}', `${PATH}:3: portals: expected HOST or HOST:PORT`],
    ['portals:\n  - "bad host"', `${PATH}:2: portals: "bad host" is no portal`],
    ['targets:\n  - luns: [0]', `${PATH}:2: targets: an entry has no "name"`],
    ['targets:\n  - name: disk1', `${PATH}:2: name: expected an iSCSI name such as iqn.2024-01.com.example:disks`],
    ['targets:\n  - name: iqn.2024-01.x:a\n    lun: [0]', `${PATH}:3: unknown key "lun"; did you mean "luns"?`],
    ['targets:\n  - name: iqn.2024-01.x:a\n    luns: [zero]', `${PATH}:3: luns: expected logical unit numbers such as 0 or 12`],
    ['- a\n- b', `${PATH}:1: expected keys and values such as "portals:"`],
    ['shared: true\n# no\nshared: false\n', `${PATH}:3: the key "shared" stands in line 1 already`],
    ['targets:\n  - name: iqn.2024-01.x:a\n    luns: [0]\n    luns: [1]\n', `${PATH}:4: the key "luns" stands in line 3 already`],
    ['chap-secret:\n', `${PATH}:1: chap-secret: expected a text; quote it if it is all digits`],
  ])('%j is one clear line', (text, message) => {
    expect(complaint(text)).toBe(message);
  });

  it.each([
    ['a: [1', '1:6'],
    ['portals: [a\ntransport: tcp\n', '2:1'],
    ['portals:\n\t- x\n: [', '2:1'],
    ['a: "\u0000', '1:6'],
  ])('%j, which is no YAML, is one line with the place', (text, place) => {
    expect(complaint(text)).toMatch(new RegExp(`^/etc/iserfs/config\\.yaml:${place}: no YAML: [^\n]+$`));
  });

  it('says what to do', () => {
    for (const text of ['a: [1', 'cashe-size: 1M', 'shared: true\nshared: true\n', 'transport: fast']) {
      expect(() => parseConfiguration(text, PATH, { readableByOthers: false })).toThrow(
        expect.objectContaining({ hint: expect.stringContaining('--config FILE') }),
      );
    }
  });

  it('with a secret in it is refused where others can read it', () => {
    expect(complaint('chap-user: me\nchap-secret: hush\n', true)).toBe(
      `${PATH}:2: chap-secret: the file holds a secret and every user of this machine can read it`,
    );
  });

  it('never shows a secret when it complains', () => {
    expect(complaint('chap-secret: [hush]\n')).not.toContain('hush');
  });
});

describe('finding the configuration file', () => {
  it('takes the one in the XDG folder', async () => {
    await using workdir = Workdir.create();
    workdir.folder('xdg/iserfs');
    workdir.file('xdg/iserfs/config.yml', 'shared: true');
    const found = await loadConfiguration(undefined, { XDG_CONFIG_HOME: workdir.join('xdg') });
    expect(found).toMatchObject({ path: workdir.join('xdg/iserfs/config.yml'), options: { shared: true } });
  });

  it('ignores a relative XDG folder, as the specification says, and takes the home', async () => {
    await using workdir = Workdir.create();
    workdir.folder('.config/iserfs');
    workdir.file('.config/iserfs/config.json', '{"shared": true}');
    const found = await loadConfiguration(undefined, { XDG_CONFIG_HOME: 'somewhere', HOME: workdir.path });
    expect(found?.path).toBe(workdir.join('.config/iserfs/config.json'));
  });

  it('fails for one that was named and is not there', async () => {
    await expect(loadConfiguration('/nowhere/config.yaml', {})).rejects.toMatchObject({
      code: 'bad-configuration',
      message: 'cannot read the configuration file /nowhere/config.yaml: no such file',
    });
  });
});

describe('suggestions', () => {
  it.each([
    ['reed-only', 'read-only'],
    ['portal', 'portals'],
    ['something-else', undefined],
  ])('for %s: %s', (text, suggestion) => {
    expect(nearest(text, ['read-only', 'portals', 'targets'])).toBe(suggestion);
  });
});
