import { describe, expect, it } from 'vitest';
import { type CommandLineSettings, chapFor, resolveSettings, wantsLun } from '../../../src/config/settings.ts';
import { Workdir } from '../../support/workdir.ts';

const NOTHING: CommandLineSettings = { portals: [], targetNames: [], luns: [], options: {}, chap: {}, configPath: undefined };
const SAN = { host: 'san', port: 3260 };
const OTHER = { host: 'other', port: 3260 };
const DB = 'iqn.2024-01.com.example:db';

/** Resolves with a configuration file of the given text. */
async function resolveWith(config: string, commandLine: Partial<CommandLineSettings>, environment: Record<string, string> = {}) {
  await using workdir = Workdir.create();
  const configPath = workdir.file('config.yaml', config);
  workdir.file('secret', 'from the file\n');
  const warnings: string[] = [];
  const { settings } = await resolveSettings({ ...NOTHING, configPath, ...commandLine }, environment, (line) =>
    warnings.push(line),
  );
  return { settings, warnings };
}

describe('what is to be reached', () => {
  it('is everything at the portals of the file', async () => {
    const { settings } = await resolveWith('portals: [san]', {});
    expect(settings).toMatchObject({ discover: [SAN], targets: [] });
  });

  it('is the targets of the file, at their portals or else the common ones', async () => {
    const { settings } = await resolveWith(
      `portals: [san]\ntargets:\n  - name: ${DB}\n    portals: [other]\n  - name: iqn.2024-01.x:b\n`,
      {},
    );
    expect(settings.discover).toEqual([]);
    expect(settings.targets).toEqual([
      { name: DB, portals: [OTHER] },
      { name: 'iqn.2024-01.x:b', portals: [SAN] },
    ]);
  });

  it('is everything at the portals of the command line, whatever targets the file has', async () => {
    const { settings } = await resolveWith(`targets:\n  - name: ${DB}\n    portals: [san]\n`, { portals: [OTHER] });
    expect(settings).toMatchObject({ discover: [OTHER], targets: [] });
  });

  it('is the named target without discovery', async () => {
    const { settings } = await resolveWith('portals: [san]', { targetNames: [DB], portals: [OTHER] });
    expect(settings).toMatchObject({ discover: [], targets: [{ name: DB, portals: [OTHER] }] });
  });

  it('finds a named target in the file however its name is written', async () => {
    const { settings } = await resolveWith(`targets:\n  - name: ${DB}\n    portals: [san]\n`, {
      targetNames: [DB.toUpperCase()],
    });
    expect(settings.targets).toEqual([{ name: DB, portals: [SAN] }]);
  });

  it.each([
    ['', {}, 'no portal is given'],
    ['', { targetNames: [DB] }, `no portal is known for ${DB}`],
  ])('is nothing with %j and %j', async (config, commandLine, message) => {
    await expect(resolveWith(config, commandLine)).rejects.toMatchObject({ code: 'bad-configuration', message });
  });
});

describe('the port of iSER', () => {
  const config = `
iser-port: 1
portals: [san]
targets:
  - name: ${DB}
    portals: ['other,iser-port=3', third]
    iser-port: 2
  - name: iqn.2024-01.x:b
`;
  const third = { host: 'third', port: 3260 };

  it("is the portal's own, else the target's, else the one for all", async () => {
    const { settings } = await resolveWith(config, {});
    expect(settings.targets).toEqual([
      {
        name: DB,
        portals: [
          { ...OTHER, iserPort: 3 },
          { ...third, iserPort: 2 },
        ],
      },
      { name: 'iqn.2024-01.x:b', portals: [{ ...SAN, iserPort: 1 }] },
    ]);
  });

  it("of the command line wins over the file's, but not over a portal's own", async () => {
    const { settings } = await resolveWith(config, { options: { 'iser-port': 9 } });
    expect(settings.targets.flatMap(({ portals }) => portals.map(({ iserPort }) => iserPort))).toEqual([3, 9, 9]);
  });

  it('goes along to discovery', async () => {
    const { settings } = await resolveWith(config, { portals: [{ ...OTHER, iserPort: 7 }, SAN] });
    expect(settings.discover).toEqual([
      { ...OTHER, iserPort: 7 },
      { ...SAN, iserPort: 1 },
    ]);
  });

  it('is not there where nobody names one', async () => {
    const { settings } = await resolveWith('portals: [san]', {});
    expect(settings.discover).toEqual([SAN]);
  });
});

describe('options', () => {
  it('come from the command line, then from the file, then from the defaults', async () => {
    const { settings } = await resolveWith('portals: [san]\ncache-size: 1G\nread-only: true\n', {
      options: { 'cache-size': 0, 'read-only': false },
    });
    expect(settings.options).toMatchObject({ 'cache-size': 0, 'read-only': false, 'recovery-timeout': 120_000 });
  });

  it('may select LUNs per target, or on the command line for all', async () => {
    const config = `targets:\n  - name: ${DB}\n    portals: [san]\n    luns: [3]\n`;
    const { settings } = await resolveWith(config, {});
    expect([wantsLun(settings, DB, '3'), wantsLun(settings, DB, '0'), wantsLun(settings, 'iqn.2024-01.x:b', '0')]).toEqual([
      true,
      false,
      true,
    ]);
    const { settings: narrowed } = await resolveWith(config, { luns: ['0'] });
    expect([wantsLun(narrowed, DB, '3'), wantsLun(narrowed, DB, '0')]).toEqual([false, true]);
  });
});

describe('credentials', () => {
  it('of a target in the file go before the common ones', async () => {
    const { settings } = await resolveWith(
      `portals: [san]\nchap-user: all\nchap-secret: common\ntargets:\n  - name: ${DB}\n    chap-user: db\n    chap-secret-file: secret\n  - name: iqn.2024-01.x:b\n`,
      {},
    );
    expect(chapFor(settings, DB.toUpperCase())).toEqual({ user: 'db', secret: 'from the file' });
    expect(chapFor(settings, 'iqn.2024-01.x:b')).toEqual({ user: 'all', secret: 'common' });
  });

  it('of the command line replace all of them', async () => {
    const { settings } = await resolveWith(
      `targets:\n  - name: ${DB}\n    portals: [san]\n    chap-user: db\n    chap-secret: own\n`,
      { chap: { user: 'me' } },
      { ISERFS_CHAP_SECRET: 'from the environment' },
    );
    expect(chapFor(settings, DB)).toEqual({ user: 'me', secret: 'from the environment' });
  });

  it('may have the user in the file and the secret from the command line', async () => {
    await using workdir = Workdir.create();
    const secretFile = workdir.file('other', 'other\n');
    const { settings } = await resolveWith('portals: [san]\nchap-user: me\nchap-secret: old\n', { chap: { secretFile } });
    expect(settings.chap).toEqual({ user: 'me', secret: 'other' });
  });

  it('may be mutual', async () => {
    const { settings } = await resolveWith(
      'portals: [san]\nchap-user: me\nchap-secret: mine\nchap-mutual-user: san\n',
      {},
      { ISERFS_CHAP_MUTUAL_SECRET: 'its own' },
    );
    expect(settings.chap).toEqual({ user: 'me', secret: 'mine', mutual: { user: 'san', secret: 'its own' } });
  });

  it.each([
    ['chap-user: me', 'no CHAP secret for user "me"'],
    ['chap-secret: x', 'a CHAP secret is given without a user'],
    ['chap-user: me\nchap-secret: x\nchap-mutual-user: it', 'no mutual CHAP secret for user "it"'],
    ['chap-user: me\nchap-secret: x\nchap-mutual-secret: y', 'a mutual CHAP secret is given without a user'],
    ['chap-user: me\nchap-secret: x\nchap-mutual-user: it\nchap-mutual-secret: x', 'the two CHAP secrets are the same'],
    ['chap-user: me\nchap-secret-file: nowhere', expect.stringMatching(/^cannot read the secret file .*nowhere: no such file$/)],
  ])('that are not whole (%j) are a clear line', async (config, message) => {
    await expect(resolveWith(`portals: [san]\n${config}\n`, {})).rejects.toMatchObject({ code: 'bad-configuration', message });
  });
});

describe('a secret file', () => {
  async function resolveFrom(content: string, mode: number) {
    await using workdir = Workdir.create();
    const secretFile = workdir.file('secret', content, mode);
    return await resolveWith('portals: [san]', { chap: { user: 'me', secretFile } });
  }

  it('ends at its end of line', async () => {
    expect((await resolveFrom('s e c r e t \r\n', 0o600)).settings.chap?.secret).toBe('s e c r e t ');
  });

  it('that everyone can read is warned of', async () => {
    expect((await resolveFrom('secret\n', 0o644)).warnings).toEqual([
      expect.stringMatching(/can be read by every user of this machine; chmod 600 it$/),
    ]);
    expect((await resolveFrom('secret\n', 0o640)).warnings).toEqual([]);
  });

  it.each([
    ['', 'is empty'],
    ['\n', 'is empty'],
    ['one\ntwo\n', 'has more than one line'],
  ])('with %j in it is refused', async (content, why) => {
    await expect(resolveFrom(content, 0o600)).rejects.toThrow(why);
  });
});
