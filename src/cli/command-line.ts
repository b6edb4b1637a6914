/**
 * The grammar of the command line (yargs): commands, options, help. Turns argv into arguments for the
 * commands and every outcome into an exit status: 0 done, 1 failed, 2 not understood.
 */

import yargs, { type Argv } from 'yargs';
import { nearest } from '../config/config.ts';
import { mountOptions, type OptionName, optionNames } from '../config/options.ts';
import { UsageError } from '../errors.ts';
import { VERSION } from '../version.ts';
import { CommandLineArguments } from './command-line-arguments.ts';
import type { CommandContext } from './commands/context.ts';
import { runDemo } from './commands/demo.ts';
import { runDiscover } from './commands/discover.ts';
import { type InspectArguments, runInfo, runLs, runStatus } from './commands/inspect.ts';
import { runMount } from './commands/mount.ts';
import { runTarget } from './commands/target.ts';
import { runUmount } from './commands/umount.ts';
import { isMountpoint } from './mount-or-portal.ts';
import { EXIT_OK, EXIT_USAGE, exitStatusOf } from './output.ts';
import { forTargets, parseBlockLength, parseTargetCount, parseUnitSpec } from './unit-spec.ts';

const HELP_WIDTH = 100;
const COMMANDS = ['mount', 'umount', 'discover', 'ls', 'info', 'status', 'target'];
const DEFAULT_TARGET_NAME = 'iqn.2026-01.org.iserfs:target';

/** Runs one command. Never rejects. */
export async function runCommandLine(argv: readonly string[], context: CommandContext): Promise<number> {
  const { output } = context;
  let status = EXIT_OK;
  const run =
    (command: (args: CommandLineArguments) => Promise<number>) =>
    async (parsed: unknown): Promise<void> => {
      status = await command(new CommandLineArguments(parsed as Readonly<Record<string, unknown>>));
    };
  if (argv.length === 0) {
    output.say(await grammar(argv, context, run).getHelp());
    return EXIT_USAGE;
  }
  try {
    await grammar(argv, context, run).parseAsync([...argv], {}, (_error, _argv, text) => {
      if (text !== '') output.data(text); // help and version
    });
    return status;
  } catch (thrown) {
    const error = thrown instanceof UnknownOption ? await withSuggestion(thrown, argv, context, run) : thrown;
    output.fail(error);
    if (error instanceof UsageError && error.hint === undefined) output.say(`  See: iserfs ${helpOn(argv)}--help`);
    return exitStatusOf(error);
  }
}

/** The command that help is to be about, where argv names one. */
function helpOn(argv: readonly string[]): string {
  const [command = ''] = argv;
  return COMMANDS.includes(command) ? `${command} ` : '';
}

/** `error`, with the option that was probably meant: one of those that the command's help lists. */
async function withSuggestion(error: UnknownOption, argv: readonly string[], context: CommandContext, run: Run): Promise<Error> {
  let help = '';
  await grammar(argv, context, run).parseAsync([...helpOn(argv).split(' '), '--help'], {}, (_error, _argv, text) => {
    help = text;
  });
  const meant = nearest(
    error.option,
    [...help.matchAll(/--([a-z-]+)/g)].map(([, name = '']) => name),
  );
  return meant === undefined ? error : new UsageError(`${error.message}; did you mean --${meant}?`);
}

type Run = (command: (args: CommandLineArguments) => Promise<number>) => (parsed: unknown) => Promise<void>;

function grammar(argv: readonly string[], context: CommandContext, run: Run): Argv {
  return yargs([...argv])
    .scriptName('iserfs')
    .usage('iSCSI and iSER LUNs as plain files, from user space.\n\n$0 <command>')
    .parserConfiguration({
      'camel-case-expansion': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'short-option-groups': false,
    })
    .command(
      'mount [mountpoint]',
      'Show the LUNs of targets as files',
      mountGrammar,
      run((args) => mount(args, context)),
    )
    .command(
      'umount <mountpoint>',
      'End a mount, when all data is at the targets',
      umountGrammar,
      run((args) => umount(args, context)),
    )
    .command(
      'discover <portal>',
      'Ask a portal which targets it offers',
      (it) => withChap(withOptions(it, LOGIN_OPTIONS)).option('json', JSON_OPTION).positional('portal', PORTAL_POSITIONAL),
      run((args) => discover(args, context)),
    )
    .command(
      'ls [where]',
      'List mounts, or the LUNs of a mount or a portal',
      inspectGrammar,
      run(async (args) => runLs(await inspectArguments(args), context)),
    )
    .command(
      'info [where]',
      'Say what the LUNs of a mount or a portal are',
      inspectGrammar,
      run(async (args) => runInfo(await inspectArguments(args), context)),
    )
    .command(
      'status [mountpoint]',
      'Say how a mount does, or its --target or --lun',
      (it) =>
        withFilters(it)
          .option('json', JSON_OPTION)
          .positional('mountpoint', { type: 'string', describe: 'If there are several' }),
      run(async (args) => runStatus(await inspectArguments(args), context)),
    )
    .command(
      'target',
      'Be a target, over TCP and iSER, with files or memory as LUNs',
      targetGrammar,
      run((args) => target(args, context)),
    )
    .demandCommand(1, 'which command?')
    .recommendCommands()
    .strict()
    .version(VERSION)
    .help()
    .alias('help', 'h')
    .wrap(HELP_WIDTH)
    .exitProcess(false)
    .fail((message, error) => {
      // A command's own failure, or else what yargs found in argv.
      if (error !== undefined && error !== null && error.name !== 'YError') throw error;
      throw usageError(message ?? error?.message ?? 'not understood', argv);
    });
}

// ---- grammar of the commands ----

const LOGIN_OPTIONS = [
  'initiator-name',
  'transport',
  'iser-port',
  'iwarp-crc',
  'header-digest',
  'data-digest',
  'login-timeout',
] as const satisfies readonly OptionName[];
const JSON_OPTION = { type: 'boolean', default: false, describe: 'Print JSON for programs' } as const;
const DIGEST_OPTION = {
  type: 'string',
  choices: ['none', 'prefer', 'require'],
  defaultDescription: 'prefer',
  requiresArg: true,
} as const;
const PORTAL_POSITIONAL = {
  type: 'string',
  demandOption: true,
  describe: 'HOST, HOST:PORT or [IPV6]:PORT[,iser-port=PORT]',
} as const;

function mountGrammar(it: Argv): Argv {
  return withChap(withOptions(withFilters(withPortals(it)), optionNames))
    .positional('mountpoint', { type: 'string', describe: 'An empty directory' })
    .option('foreground', { type: 'boolean', default: false, alias: 'f', describe: 'Stay in the foreground, log to stderr' })
    .option('demo', { type: 'boolean', default: false, describe: 'Make a target with a disk, mount it, and say what to try' })
    .example('$0 mount /mnt/iser --portal 192.0.2.10', 'All LUNs that the portal offers')
    .example('$0 mount /mnt/iser --portal san --target iqn.2024-01.com.example:db --lun 0 --read-only', '')
    .example('$0 mount /mnt/iser', 'What ~/.config/iserfs/config.yaml says')
    .example('$0 mount --demo', 'Without a SAN');
}

function umountGrammar(it: Argv): Argv {
  return it
    .positional('mountpoint', { type: 'string', demandOption: true, describe: 'Where it is mounted' })
    .option('lazy', {
      type: 'boolean',
      default: false,
      alias: 'z',
      describe: 'Detach now, serve open files until their last close',
    })
    .option('force', { type: 'boolean', default: false, describe: 'End it although files are open' })
    .option('timeout', {
      type: 'string',
      default: '5m',
      requiresArg: true,
      describe: 'Wait no longer for the data to be written',
    });
}

function inspectGrammar(it: Argv): Argv {
  return withChap(withOptions(withFilters(it), LOGIN_OPTIONS))
    .positional('where', { type: 'string', describe: 'A mount point, or a portal HOST[:PORT]' })
    .option('json', JSON_OPTION)
    .example('$0 ls /mnt/iser', 'A mount, by its directory')
    .example('$0 ls 192.0.2.10', 'A portal, with nothing mounted');
}

function targetGrammar(it: Argv): Argv {
  return withChap(it, { config: false })
    .option('header-digest', {
      ...DIGEST_OPTION,
      describe: 'CRC32C over PDU headers: never, where the initiator offers it, always',
    })
    .option('data-digest', { ...DIGEST_OPTION, describe: 'CRC32C over PDU data, likewise' })
    .option('listen', {
      type: 'string',
      default: '127.0.0.1:3260',
      requiresArg: true,
      describe: 'HOST:PORT; port 0 picks a free one',
    })
    .option('transport', {
      type: 'string',
      choices: ['tcp', 'iwarp', 'verbs'],
      defaultDescription: 'tcp',
      requiresArg: true,
      describe: 'What is spoken there: iSCSI over TCP, or iSER, by software (iwarp) or by an RDMA device (verbs)',
    })
    .option('iser-port', {
      type: 'string',
      requiresArg: true,
      describe: 'Speak TCP at --listen and iSER at this port, by --transport or else by iwarp; 0 picks a free one',
    })
    .option('name', { type: 'string', default: DEFAULT_TARGET_NAME, requiresArg: true, describe: 'iSCSI name of the target' })
    .option('targets', {
      type: 'string',
      requiresArg: true,
      describe: 'So many targets, NAME-1 and so on, each with the LUNs in memory that are given',
    })
    .option('file', {
      type: 'string',
      requiresArg: true,
      describe: 'A LUN in a file or block device: PATH[,SETTING...]; repeatable',
    })
    .option('memory', { type: 'string', requiresArg: true, describe: 'A LUN in memory, sparse: SIZE[,SETTING...]; repeatable' })
    .option('block-size', { type: 'string', default: '512', requiresArg: true, describe: '512 or 4096' })
    .option('read-only', { type: 'boolean', default: false, describe: 'Write protected' })
    .option('volatile-cache', {
      type: 'boolean',
      default: false,
      describe: 'Lose what is not synchronised when killed, as a disk does',
    })
    .epilogue(
      'SETTING: block-size=N, read-only, volatile-cache, lun=N, target=NAME (another target offers it),\n' +
        'size=SIZE (makes the file where there is none).',
    )
    .example('$0 target --memory 3T --memory 1G,block-size=4096', '')
    .example('$0 target --memory 1G --iser-port 3261', 'TCP at 3260, iSER at 3261')
    .example('$0 target --listen 0.0.0.0:3260 --file disk.img,size=10G --chap-user me --chap-secret-file s', '');
}

function withPortals(it: Argv): Argv {
  return it.option('portal', {
    type: 'string',
    requiresArg: true,
    group: 'What:',
    describe: 'HOST[:PORT][,iser-port=PORT] to ask for targets; repeatable',
  });
}

function withFilters(it: Argv): Argv {
  return it
    .option('target', { type: 'string', requiresArg: true, group: 'What:', describe: 'Only the target of this NAME; repeatable' })
    .option('lun', { type: 'string', requiresArg: true, group: 'What:', describe: 'Only this LUN; repeatable' });
}

function withChap(it: Argv, { config = true } = {}): Argv {
  const chap = it
    .option('chap-user', { type: 'string', requiresArg: true, group: 'Access:', describe: 'User name for CHAP' })
    .option('chap-secret-file', {
      type: 'string',
      requiresArg: true,
      group: 'Access:',
      describe: 'File with the secret (or the variable ISERFS_CHAP_SECRET)',
    })
    .option('chap-mutual-user', {
      type: 'string',
      requiresArg: true,
      group: 'Access:',
      describe: 'User name that the target proves',
    })
    .option('chap-mutual-secret-file', {
      type: 'string',
      requiresArg: true,
      group: 'Access:',
      describe: 'File with its secret (or ISERFS_CHAP_MUTUAL_SECRET)',
    });
  return config
    ? chap.option('config', { type: 'string', requiresArg: true, describe: 'Configuration file instead of the default ones' })
    : chap;
}

/** Flags for some of the options of `options.ts`. Their defaults stand in the text alone: what is not given leaves room for the file. */
function withOptions(it: Argv, names: readonly OptionName[]): Argv {
  return names.reduce((grammar, name) => {
    const option = mountOptions[name];
    const fallback = option.fallbackText === undefined ? {} : { defaultDescription: option.fallbackText };
    return grammar.option(name, {
      group: `${option.group}:`,
      describe: option.describe,
      ...(option.placeholder === undefined ? { type: 'boolean' as const } : { type: 'string' as const, requiresArg: true }),
      ...('choices' in option && option.choices !== undefined ? { choices: option.choices } : {}),
      ...fallback,
    });
  }, it);
}

// ---- from parsed options to commands ----

async function mount(args: CommandLineArguments, context: CommandContext): Promise<number> {
  const mountpoint = args.text('mountpoint');
  if (args.flag('demo')) {
    if (args.texts('portal').length + args.texts('target').length + args.texts('lun').length > 0) {
      throw new UsageError('--demo brings its own target: leave --portal, --target and --lun out');
    }
    return await runDemo({ mountpoint, options: args.options(optionNames) }, context);
  }
  if (mountpoint === undefined)
    throw new UsageError('mount where?', 'Name an empty directory: iserfs mount MOUNTPOINT (or try --demo)');
  return await runMount({ mountpoint, foreground: args.flag('foreground'), settings: args.settings() }, context);
}

async function umount(args: CommandLineArguments, context: CommandContext): Promise<number> {
  return await runUmount(
    {
      mountpoint: args.required('mountpoint'),
      lazy: args.flag('lazy'),
      force: args.flag('force'),
      timeoutMs: args.duration('timeout'),
    },
    context,
  );
}

async function discover(args: CommandLineArguments, context: CommandContext): Promise<number> {
  const settings = args.settings({ portals: [args.required('portal')] });
  return await runDiscover({ settings, json: args.flag('json') }, context);
}

async function inspectArguments(args: CommandLineArguments): Promise<InspectArguments> {
  const where = args.text('where') ?? args.text('mountpoint');
  const asksMount = where === undefined || args.text('mountpoint') !== undefined || (await isMountpoint(where));
  return {
    mountpoint: asksMount ? where : undefined,
    settings: args.settings({ portals: asksMount ? [] : [where] }),
    json: args.flag('json'),
  };
}

async function target(args: CommandLineArguments, context: CommandContext): Promise<number> {
  const defaults = {
    blockLength: parseBlockLength(args.required('block-size'), '--block-size'),
    readOnly: args.flag('read-only'),
    volatileCache: args.flag('volatile-cache'),
  };
  const units = (['file', 'memory'] as const).flatMap((option) =>
    args.texts(option).map((text) => parseUnitSpec(option, text, defaults)),
  );
  if (units.length === 0) throw new UsageError('no LUN to offer', 'Add --file PATH or --memory SIZE, such as --memory 1G.');
  const name = args.iscsiName('name');
  const targets = args.text('targets');
  const options = args.options(['header-digest', 'data-digest']);
  const portals = args.targetPortals();
  const required = (['header-digest', 'data-digest'] as const).find((name) => options[name] === 'require');
  if (required !== undefined && portals.some(({ transport }) => transport !== 'tcp')) {
    throw new UsageError(`--${required} require cannot be had with iSER, which has no digests`);
  }
  return await runTarget(
    {
      portals,
      name,
      units: targets === undefined ? units : forTargets(units, name, parseTargetCount(targets)),
      chap: args.chap(),
      headerDigest: options['header-digest'] ?? 'prefer',
      dataDigest: options['data-digest'] ?? 'prefer',
    },
    context,
  );
}

/** The command has no option of this name. */
class UnknownOption extends UsageError {
  readonly option: string;

  constructor(option: string) {
    super(`unknown option ${option.length === 1 ? '-' : '--'}${option}`);
    this.option = option;
  }
}

/** What yargs found, in our words. */
function usageError(message: string, argv: readonly string[]): UsageError {
  const text = message.replace(/\s+/g, ' ').trim();
  if (/\bchap-(mutual-)?secret\b(?!-file)/.test(text)) {
    return new UsageError(
      'a secret is not given on the command line, where everyone can see it',
      'Use --chap-secret-file FILE, the variable ISERFS_CHAP_SECRET, or the configuration file.',
    );
  }
  const meant = /^Did you mean (.+)\?$/.exec(text);
  if (meant !== null) return new UsageError(`no such command; did you mean "${meant[1]}"?`);
  const [, unknown] = /^Unknown arguments?: ([^,]+)/.exec(text) ?? [];
  if (unknown !== undefined) {
    if (argv.some((word) => word.startsWith('-') && word.replace(/^-+|=.*$/g, '') === unknown)) return new UnknownOption(unknown);
    return new UsageError(helpOn(argv) === '' ? `no such command: ${unknown}` : `"${unknown}" is one argument too many`);
  }
  const [, valueless] = /^Not enough arguments following: (.+)$/.exec(text) ?? [];
  if (valueless !== undefined) return new UsageError(`--${valueless} needs a value`);
  const [, option, given, choices] = /^Invalid values: Argument: (\S+), Given: "(.*)", Choices: (.+)$/.exec(text) ?? [];
  if (choices !== undefined) return new UsageError(`--${option} ${given}: expected one of ${choices.replaceAll('"', '')}`);
  if (/^Not enough non-option arguments/.test(text)) {
    const [command] = argv;
    return new UsageError(`${command === 'discover' ? 'portal' : 'mountpoint'} is missing`);
  }
  return new UsageError(text);
}
