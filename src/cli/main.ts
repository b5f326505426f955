/*
 * The command line of userdma: commands, options, help. Each command's module is loaded only when it is called, for a
 * fast start.
 */
import { existsSync } from 'node:fs'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { adapterNames } from '../spec/check/adapters.ts'
import { FaultSettings } from '../spec/faults.ts'
import { walkKinds } from '../spec/walk-kinds.ts'
import { linkKinds, pathKinds } from '../uapi/tool.ts'
import { colorChoices } from './colors.ts'
import { exitOnBrokenPipe, fail, UsageError } from './fail.ts'
import { examples, helpLayout, listText, upToUnknownCommand, withoutHelpCommand } from './help-layout.ts'
import { readsFiles } from './recorded-arguments.ts'
import { versionText } from './version.ts'

/** Collects the values of an option that may be given several times. */
const collect = (value: string, all: string[] = []): string[] => [...all, value]

/** The path of a file or socket. An empty one would be the current folder: a variable of a script was not set. */
const path = (value: string): string => {
  if (value === '') throw new InvalidArgumentError('Give a path.')
  return value
}

/** As `collect`, for paths. */
const collectPaths = (value: string, all?: string[]): string[] => collect(path(value), all)

const SOCKET = '--socket <path>'
const DEVICE = '--device <name[@address][,pci=…]>'
/** What a device looks like. */
const DEVICE_HELP =
  'a name and an IP address of this machine, and settings, e.g. rxe1@127.0.0.2 or mlx5_0@127.0.0.3,driver=mlx5'
const FAULT = '--fault <rule>'
const FAULT_HELP =
  'faults of the network, e.g. drop=1% or dir=sent,opcode=RC_ACKNOWLEDGE,delay=5ms; may be given several times'
const LINK = '--link <kind>'
/** Values of an option with their meanings; the first one is the default. */
const kindsText = (kinds: Readonly<Record<string, string>>): string =>
  Object.entries(kinds)
    .map(([name, meaning], i) => `${name} (${meaning}${i === 0 ? '; the default' : ''})`)
    .join(', ')
const LINK_HELP = `what connects the devices: ${kindsText(linkKinds)}`

const LIKE = '--like <names>'
const LIKE_HELP = `also report what works on userdma and fails on these adapters, separated by commas: ${adapterNames.join(', ')}`
const BUFFERS = '--buffers <kind>'
const BUFFERS_HELP =
  'which send buffers are compared before and after the request: sampled (some requests, parts of long messages; the default), all'

const PATH = '--path <kind>'
const PATH_HELP = `how messages pass between devices in memory: ${kindsText(pathKinds)}`

/** Adds options that configure a daemon. */
const withConfig = (command: Command): Command =>
  command
    .option(DEVICE, `a device: ${DEVICE_HELP}; may be given several times (default: rxe0@127.0.0.1)`, collect)
    .option(FAULT, FAULT_HELP, collect)
    .option(LINK, LINK_HELP)
    .option(PATH, PATH_HELP)
    .option('--torment <seed[:count]>', 'let the devices do what the specification allows and hardware rarely does')
    .option('--timers <factor>', 'multiply the times of retries and of the connection manager, e.g. by 0.1')
    .option('--ignore-memlock', 'let programs register more memory than RLIMIT_MEMLOCK (ulimit -l)')

/**
 * Adds the arguments and options of commands that run a program under a daemon. `program`: name of the argument, in
 * square brackets if it is optional.
 */
const withJoin = (command: Command, program = '<program>'): Command =>
  withConfig(
    command
      .argument(program, 'program to run')
      .argument('[arguments...]', 'its arguments')
      .option(SOCKET, 'join the daemon at this socket', path)
      .option('--private', 'start a daemon for this program only'),
  ).passThroughOptions()

/** The option of commands that print severities. `of`: another option without which it means nothing. */
const color = (of = ''): Option =>
  new Option('--color <when>', `${of}severities in color: ${kindsText(colorChoices)}`).argParser(value => {
    if (!Object.hasOwn(colorChoices, value))
      throw new InvalidArgumentError(`Give one of ${Object.keys(colorChoices).join(', ')}.`)
    return value
  })

const RECORD_DEPTH_HELP = 'with --record: plain, or check: all that `userdma check FILE` needs (default: plain)'

/** Adds options of commands that record. */
const withRecord = (command: Command): Command =>
  command
    .option('--record <file>', 'record all events of the daemon in this file: `userdma export` reads it', path)
    .option('--record-depth <depth>', RECORD_DEPTH_HELP)
    .option('--payload <bytes>', 'with --record: also the first bytes of the payload of each packet (default: 0)')
    .option('--record-limit <size>', 'with --record: the most bytes of the file, e.g. 64M; the oldest are dropped')

/** Adds the options of walks. */
const withWalk = (command: Command): Command =>
  command
    .option('--kinds <kinds>', `what fails, several separated by commas: ${kindsText(walkKinds)} (default: all)`)
    .option('--points <n>', 'at most so many failures (default: 200)')
    .option('--time-limit <seconds>', 'begin no run later (default: 600)')
    .option('--hang <seconds>', 'a run that takes longer hangs (default: from the run without failures)')
    .option('--stopped <seconds>', 'for how long processes are stopped (default: 1)')
    .option('--jobs <n>', 'so many runs at a time, each in a network namespace (default: half of the processors)')
    .option('--since <report>', 'first what is new or changed since this report, which --json -o has written', path)
    .option('-o, --output <file>', 'write the report to this file', path)
    .option('--json', 'print one JSON object per failure')
    .option('--sarif <file>', 'also write the findings to this file as SARIF 2.1.0', path)
    .option('--html <file>', 'also write a page of all results to this file', path)
    .option('--summary <file>', 'also write counts, and the findings that are new, to this file', path)
    .addOption(color())

const RECORD_ON_FAILURE = '--record-on-failure'

const HOST = '--host'
const HOST_HELP = "let the program keep the machine's own devices, and observe it"
const BESIDE = 'with a recording: the packets of a capture that was made on the same machine at the same time'
const HOST_FAULTS = '--allow-host-faults'
const HOST_FAULTS_HELP = 'with --host: let --fault act on the calls, posts and completions of the program'

/** Adds the options of `check`. */
const withCheck = (command: Command): Command =>
  withRecord(command)
    .option(HOST, `${HOST_HELP}, for the findings that need no device of userdma`)
    .option(HOST_FAULTS, HOST_FAULTS_HELP)
    .option('-o, --output <file>', 'write the findings to this file instead of standard error', path)
    .option('--json', 'print one JSON object per finding')
    .option('--sarif <file>', 'also write the findings to this file as SARIF 2.1.0', path)
    .option('--races', 'also find requests that access the same bytes without order; programs are slower')
    .option('--notes', 'print notes too, not only warnings and errors')
    .option('--leaks', 'print leaks of programs that a signal ended too')
    .option('--hang <seconds>', 'print what a program waits for when it has waited so long, not only at its end')
    .option(
      '--fail-on <severity>',
      'exit with 65 for findings from this severity on: note, warning, error (default), or never',
    )
    .option(LIKE, LIKE_HELP)
    .option(BUFFERS, BUFFERS_HELP)
    .option(
      '--suppressions <file>',
      'do not report the findings that this file names; may be given several times',
      collectPaths,
    )
    .option('--no-default-suppressions', 'report also the known findings in libraries, such as UCX')
    .option('--gen-suppressions', 'print after each finding a block for a suppressions file')
    .option('--torment-search <n>', 'run the program with N seeds of --torment, and print the shortest run that fails')
    .option('--time-limit <seconds>', 'with --torment-search: a run that takes longer fails (default: 60)')
    .option(RECORD_ON_FAILURE, 'with --record: keep the file only for failures and findings; its last 64M')
    .option('--explain [id]', 'explain a finding, or list all, and run nothing')
    .addOption(color())

const NET = '--net <name>'
const NET_HELP = 'name of the network (default: the only one)'

const faultHelp = listText(
  'A rule selects packets and says what happens to them; every rule that matches a packet acts on it.',
  Object.values(FaultSettings).map(({ example, help }) => [example, help]),
  examples(
    'userdma fault set drop=1%',
    "userdma fault set 'device=rxe0,dir=sent,opcode=RC_ACKNOWLEDGE,delay=5ms' rate=100mbit",
    'userdma fault show',
    'userdma fault clear',
  ),
)

/** The declaration of each command. */
const commands: Readonly<Record<string, (program: Command) => void>> = {
  run(program) {
    withRecord(withJoin(program.command('run')))
      .option(HOST, `${HOST_HELP}: print failed requests with their causes`)
      .option(HOST_FAULTS, HOST_FAULTS_HELP)
      .description(
        "Runs a program that finds userdma devices; exits with the program's status. Joins your daemon, or starts one that ends with its last client.",
      )
      .option(RECORD_ON_FAILURE, 'with --record: keep the file only if the program fails; its last 64M')
      .option(
        '--flight-recorder [size]',
        'with --host: keep the last posts and polls of each process in so much memory (default: 16M), and write them to a session file when a request fails, a device reports an error or a signal ends the program',
      )
      .option('--flight-folder <folder>', 'with --flight-recorder: where these files go (default: here)', path)
      .option('--fault-walk', 'fail the first call, post and completion of each call site, in a run for each')
      .option('--points <n>', 'with --fault-walk: at most so many runs (default: 200)')
      .option('--time-limit <seconds>', 'with --fault-walk: begin no run later (default: 600)')
      .option(
        '--hang <seconds>',
        'with --fault-walk: a run that takes longer hangs (default: from the run without faults)',
      )
      .option('-o, --output <file>', 'with --fault-walk: write the report to this file', path)
      .option('--json', 'with --fault-walk: print one JSON object per run')
      .option('--sarif <file>', 'with --fault-walk: also write the findings to this file as SARIF 2.1.0', path)
      .option('--html <file>', 'with --fault-walk: also write a page of all results to this file', path)
      .addOption(color('with --fault-walk: '))
      .addHelpText(
        'after',
        examples(
          'userdma run -- ibv_devices',
          'userdma run --private --device rxe0@127.0.0.1 --device rxe1@127.0.0.2 -- ./test.sh',
          'userdma run --private --fault drop=5%,seed=7 -- ib_write_bw …',
          'userdma run --record session.udr -- ./my-test',
          "userdma run --fault-walk -- sh -c './server & ./client localhost; wait'",
        ),
      )
      .action(async (name, args, options, command) => {
        const walkOption = ['points', 'timeLimit', 'hang', 'output', 'json', 'sarif', 'html', 'color'].find(
          option => options[option] !== undefined,
        )
        if (options.faultWalk && options.host)
          command.error('error: --host and --fault-walk exclude each other: the walk needs devices of userdma')
        else if (options.faultWalk && options.record !== undefined)
          command.error('error: --record and --fault-walk exclude each other: repeat the run of a finding')
        else if (options.faultWalk)
          await (await import('./commands/walk.ts')).walkProgram(name, args, options, ['calls', 'posts', 'completions'])
        else if (walkOption === undefined) await (await import('./commands/run.ts')).run(name, args, options)
        else command.error(`error: --${walkOption === 'timeLimit' ? 'time-limit' : walkOption} is for --fault-walk`)
      })
  },
  walk(program) {
    withWalk(withJoin(program.command('walk')))
      .description(
        'Runs a program once without failures, then once for each single failure: calls, packets, links, peers, devices, events. Exits with 65 if it has found crashes, hangs, swallowed failures, leaks, wrong results, or a program that goes on with failing completions.',
      )
      .addHelpText(
        'after',
        examples(
          'userdma walk -- ./my-test',
          "userdma walk -- sh -c './server & ./client localhost; s=$?; kill $!; wait; exit $s'",
          'userdma walk --kinds links,peers --timers 0.1 -- ./my-test.sh',
          'userdma walk --time-limit 300 --since walk.json --json -o walk.json.new -- ./my-test.sh',
        ),
      )
      .action(async (name, args, options) => {
        await (await import('./commands/walk.ts')).walkProgram(name, args, options)
      })
  },
  trace(program) {
    withJoin(program.command('trace'))
      .option(HOST, HOST_HELP)
      .option(HOST_FAULTS, HOST_FAULTS_HELP)
      .description('Runs a program and prints each of its calls to a device, decoded.')
      .option('-o, --output <file>', 'write the calls to this file instead of standard error', path)
      .option('-v, --verbose', 'print records, lists and byte strings in full, including zero fields')
      .option('--abi', 'print the dialect, names and bytes of each call below it')
      .option('--class <classes>', 'only calls of these classes, e.g. rc_qp,mr; may be given several times', collect)
      .option('--errors', 'only calls that failed')
      .option('-c, --summary', 'count calls and time by method, and print a table at the end')
      .option('--json', 'print one JSON object per line')
      .option('--pcap <file>', 'write all packets of the daemon to this file (pcapng)', path)
      .addHelpText(
        'after',
        examples(
          'userdma trace -- ibv_devinfo',
          'userdma trace --class rc_qp,cq --errors -- ./my-test',
          'userdma trace -c -- ib_write_bw …',
          'userdma trace -o calls.txt --pcap packets.pcapng -- ibv_rc_pingpong -g 1 localhost',
        ),
      )
      .action(async (name, args, options) => (await import('./commands/trace.ts')).trace(name, args, options))
  },
  check(program) {
    withCheck(withJoin(program.command('check'), '[program]'))
      .description(
        'Runs a program and reports what it does wrong with verbs, with the stacks of its calls and posts; exits with 65 for errors (see --fail-on), else with the status of the program. Session files of --record and captures are read, not run: their findings, also with other options; `check -- FILE` runs any file.',
      )
      .addHelpText(
        'after',
        examples(
          'userdma check -- ./my-test',
          "userdma check -- sh -c './server & ./client localhost; wait'",
          'userdma check --fail-on warning --suppressions rdma.supp --sarif findings.sarif -- ./my-test',
          'userdma check --torment-search 100 -- ./my-test',
          'userdma check --like mlx5,irdma -- ./my-test',
          'userdma check --races -- ./my-test',
          'userdma run --record session.udr --record-depth check -- ./my-test; userdma check session.udr',
          'userdma check --explain stale-rkey',
        ),
      )
      .action(async (name, args, options, command) => {
        const { tormentSearch } = options
        if (options.explain !== undefined) {
          exitOnBrokenPipe()
          const { explainFinding } = await import('./commands/explain.ts')
          explainFinding(options.explain, options)
        } else if (name === undefined) command.error("error: missing required argument 'program'")
        else if (await readsFiles(name, args, command, withCheck(withConfig(new Command('check'))))) return
        else if (tormentSearch !== undefined && options.host)
          command.error('error: --host and --torment-search exclude each other: torment needs devices of userdma')
        else if (tormentSearch !== undefined && options.record !== undefined)
          command.error(
            'error: --record is not for --torment-search; record the run that it has found, with its --torment',
          )
        else if (tormentSearch !== undefined)
          await (await import('./commands/torment-search.ts')).tormentSearch(name, args, options)
        else if (options.timeLimit !== undefined) command.error('error: --time-limit is for --torment-search')
        else await (await import('./commands/check.ts')).check(name, args, options)
      })
  },
  export(program) {
    program
      .command('export')
      .argument('<file>', 'a session file that `--record` has written, or a capture (pcap, pcapng; also gzip or zstd)')
      .description(
        'Writes a session file or a capture in another format: for people, scripts, Wireshark, https://ui.perfetto.dev or browsers. Of a capture, pcapng has the RDMA packets that are asked for.',
      )
      .requiredOption('--to <format>', 'text, json (one object per line), pcapng, perfetto, or html')
      .option('-o, --output <file>', 'write to this file instead of standard output', path)
      .option(
        '--redact',
        'without paths, arguments and addresses; each has the same pseudonym everywhere; of a capture: also without payloads and private data',
      )
      .option('--capture <file>', BESIDE, path)
      .option('--port <number>', 'with a capture: the UDP port of RoCEv2 (default: 4791)')
      .option(
        '--host <address>',
        'with a capture: only packets from or to this address; may be given several times',
        collect,
      )
      .option('--qp <number>', 'with a capture: only packets to this queue pair; may be given several times', collect)
      .option('--from <seconds>', 'with a capture: only packets from this time on, after the first packet')
      .option('--until <seconds>', 'with a capture: only packets up to this time')
      .option(
        '--max-size <size>',
        'the most bytes of the output, e.g. 4G (default: 512 times the events; pcapng: 16,384 times)',
      )
      .addOption(color('with --to text: '))
      .addHelpText(
        'after',
        examples(
          'userdma export session.udr --to text | less',
          'userdma export session.udr --to perfetto -o session.perfetto',
          'userdma export session.udr --to pcapng -o packets.pcapng',
          'userdma export capture.pcap --to pcapng --redact --host 10.0.0.7 -o report.pcapng',
        ),
      )
      .action(async (file, options, command) => {
        exitOnBrokenPipe()
        const { isCaptureFile } = await import('./capture-file.ts')
        if (options.capture !== undefined)
          return (await import('./commands/export-capture.ts')).exportBeside(file, options.capture, options)
        if (isCaptureFile(file)) return (await import('./commands/export-capture.ts')).exportCapture(file, options)
        for (const option of ['port', 'host', 'qp', 'from', 'until'])
          if (options[option] !== undefined) command.error(`error: --${option} is for captures, which ${file} is not`)
        await (await import('./commands/export.ts')).exportSession(file, options)
      })
  },
  explain(program) {
    program
      .command('explain')
      .argument(
        '[words...]',
        'a completion status (name, number or text), an event, a vendor_err or a finding; or capture files',
      )
      .description(
        'Explains why requests fail. A word: causes in the order in which to look for them. Captures (pcap, pcapng, ERF; also gzip or zstd; - for standard input): what failed or was slow between the hosts, worst first, with the frames that show it. With --slow: where the time of the requests of a recording went.',
      )
      .option('--slow <file>', 'a session file that `--record` has written', path)
      .option('--capture <file>', `with --slow: ${BESIDE}`, path)
      .option('--top <number>', 'with captures or --slow: so many of each kind (default: 5)')
      .option('--json', 'with captures or --slow: one object per line')
      .option('--port <number>', 'with captures: the UDP port of RoCEv2 (default: 4791)')
      .option(
        '--host <address>',
        'with captures: only packets from or to this address; may be given several times',
        collect,
      )
      .option('--qp <number>', 'with captures: only packets to this queue pair; may be given several times', collect)
      .option('--from <seconds>', 'with captures: only packets from this time on, after the first packet')
      .option('--until <seconds>', 'with captures: only packets up to this time')
      .addOption(color())
      .addHelpText(
        'after',
        examples(
          'userdma explain RETRY_EXC_ERR',
          'userdma explain 0x502',
          'userdma explain stale-rkey',
          'userdma explain capture.pcapng',
          'tcpdump -i mlx5_0 -w - | userdma explain -',
          'userdma explain --slow session.udr',
        ),
      )
      .action(async (words: string[], options, command) => {
        if ((words.length === 0) === (options.slow === undefined))
          command.error('error: explain takes a word, captures or --slow FILE, and only one of them')
        exitOnBrokenPipe()
        if (options.slow !== undefined)
          return (await import('./commands/explain-slow.ts')).explainSlow(options.slow, options)
        const { explain, isExplained, requireFiles } = await import('./commands/explain.ts')
        const word = words.join(' ')
        if (!isExplained(word)) requireFiles(words)
        if (!words.every(name => name === '-' || existsSync(name)) || (words.length === 1 && isExplained(word))) {
          if (Object.keys(options).some(name => name !== 'color'))
            command.error('error: options of explain are for captures and --slow, except --color')
          explain(word, options)
        } else await (await import('./commands/explain-capture.ts')).explainCaptures(words, options)
      })
  },
  daemon(program) {
    withRecord(withConfig(program.command('daemon')))
      .description('Serves programs, until a signal such as SIGINT or SIGTERM: in the foreground, or with --detach.')
      .option(SOCKET, 'where programs find it (default: a socket of your own)', path)
      .option(
        '--allow-user <user>',
        "root's daemon: serve this user too (name or number); may be given several times",
        collect,
      )
      .option(
        '--allow-group <group>',
        "root's daemon: serve the users of this group too; may be given several times",
        collect,
      )
      .option(
        '--driver <file>',
        'load a driver from this .mjs file, and make devices with its name; may be given several times',
        collect,
      )
      .option('--check', 'check programs: `userdma check --socket PATH` prints the findings')
      .option(LIKE, `with --check: ${LIKE_HELP}`)
      .option(BUFFERS, `with --check: ${BUFFERS_HELP}`)
      .option('--end-with-last-client', 'end when the last client has ended')
      .option('--detach', 'start it in the background, and return when it is ready; `userdma stop` ends it')
      .addOption(new Option('--background', 'a command started this daemon, and waits for it').hideHelp())
      .addOption(new Option('--remove-folder', 'remove the folder of the socket at the end').hideHelp())
      .addHelpText(
        'after',
        examples(
          'userdma daemon',
          'userdma daemon --device rxe0@127.0.0.1 --device rxe1@127.0.0.2 --fault device=rxe1,drop=1%',
          'userdma daemon --link udp --device rxe0@192.0.2.1 --socket ~/.userdma/sock',
          'userdma daemon --detach && eval "$(userdma env)"',
          'userdma daemon --allow-group rdma --socket /run/userdma/sock',
        ),
      )
      .action(async options => (await import('./commands/daemon.ts')).daemon(options))
  },
  dump(program) {
    program
      .command('dump')
      .description(
        'Writes a session file of what a program with a flight recorder (`run --host --flight-recorder`) has done last, and prints its name.',
      )
      .argument('<pid>', 'the process, or that of `userdma run`')
      .addHelpText('after', examples('userdma dump $(pidof my-program)'))
      .action(async pid => (await import('./commands/dump.ts')).dump(pid))
  },
  stop(program) {
    program
      .command('stop')
      .description('Ends a daemon, also while programs use it, and returns when it has ended.')
      .option(SOCKET, 'the daemon at this socket', path)
      .action(async options => (await import('./commands/stop.ts')).stop(options))
  },
  env(program) {
    program
      .command('env')
      .description(
        'Prints the commands with which a shell sets what `run` sets for its program. A daemon must run, but not for --unset.',
      )
      .option(SOCKET, 'the daemon at this socket', path)
      .option('--shell <name>', 'sh (the default), bash, zsh, fish, or github: lines for $GITHUB_ENV')
      .option('--unset', 'print the commands that undo it')
      .addHelpText(
        'after',
        examples(
          'eval "$(userdma env)"',
          'userdma stop && eval "$(userdma env --unset)"',
          'userdma env --shell fish | source',
          'userdma env --shell github >> "$GITHUB_ENV"',
        ),
      )
      .action(async options => (await import('./commands/env.ts')).env(options))
  },
  stat(program) {
    program
      .command('stat')
      .description('Shows the state of a daemon: objects, rings, sessions, memory, counters.')
      .option(SOCKET, 'the daemon at this socket', path)
      .option('--json', 'as JSON')
      .option('--qps', 'the queue pairs: process, type, state, peer, requests, last failure')
      .option('-w, --watch [seconds]', 'activity as rates, every second or every N seconds')
      .addHelpText(
        'after',
        examples('userdma stat', 'userdma stat --qps', 'userdma stat --json', 'userdma stat --watch 5'),
      )
      .action(async options =>
        options.watch === undefined
          ? (await import('./commands/stat.ts')).stat(options)
          : (await import('./watch.ts')).watch(options),
      )
  },
  top(program) {
    program
      .command('top')
      .description('Shows devices, processes and queue pairs with their rates and causes of failures, until q.')
      .option(SOCKET, 'the daemon at this socket', path)
      .option('-d, --delay <seconds>', 'seconds between two looks (default: 2)')
      .option('-n, --count <looks>', 'end after so many looks')
      .option('-b, --batch', 'print each look, for files and pipes')
      .option('--json', 'print each look as one JSON object per line')
      .addHelpText('after', examples('userdma top', 'userdma top -d 0.5', 'userdma top --batch -n 1'))
      .action(async options => (await import('./commands/top.ts')).top(options))
  },
  inspect(program) {
    program
      .command('inspect')
      .argument('[file]', 'a session file of --record, or a capture (default: what happens on a daemon now)', path)
      .description(
        'Serves a page that shows packets, requests, objects and failures: of a recorded session or a capture, or live of a daemon.',
      )
      .option(SOCKET, 'the daemon at this socket', path)
      .option(NET, 'show the hosts of this network of `userdma net`')
      .addOption(new Option('--at <path>', 'the folder of the network').hideHelp())
      .option('--capture <file>', BESIDE, path)
      .option('--allow-faults', 'let the page change the fault rules of the daemon')
      .option('--listen <address[:port]>', 'where browsers find the page (default: 127.0.0.1 and a free port)')
      .option(
        '--host-name <name[:port]>',
        "a name by which browsers reach the page, beside the machine's own; may be given several times",
        collect,
      )
      .addHelpText(
        'after',
        examples(
          'userdma inspect --allow-faults',
          'userdma run --record session.udr -- ./my-test && userdma inspect session.udr',
          'userdma inspect capture.pcapng',
        ),
      )
      .action(async (file, options) => (await import('./commands/inspect.ts')).inspect(file, options))
  },
  devices(program) {
    program
      .command('devices')
      .description('Lists the devices of a daemon.')
      .option(SOCKET, 'the daemon at this socket', path)
      .option('--json', 'as JSON')
      .action(async options => (await import('./commands/devices.ts')).devices(options))
  },
  schema(program) {
    program
      .command('schema')
      .description(
        'Prints every class, method and attribute with its type: all that are declared, or those of a device.',
      )
      .option('--device <name>', 'the classes of this device of a daemon, from its own description')
      .option(SOCKET, 'the daemon at this socket', path)
      .option('--json', 'as JSON (`userdma help reference/schema`)')
      .addHelpText('after', examples('userdma schema', 'userdma schema --device rxe0 --json'))
      .action(async options => (await import('./commands/schema.ts')).schema(options))
  },
  device(program) {
    const device = program.command('device').description('Adds and removes devices of a running daemon.')
    device
      .command('add')
      .description('Adds a device; programs find it immediately.')
      .argument('<name[@address]>', `${DEVICE_HELP} (\`userdma help reference/cli\`)`)
      .option(SOCKET, 'the daemon at this socket', path)
      .addHelpText('after', examples('userdma device add rxe1@127.0.0.2', 'userdma device add ctx0'))
      .action(async (text, options) => (await import('./commands/device.ts')).addDevice(text, options))
    device
      .command('remove')
      .description('Removes a device, even while programs use it.')
      .argument('<name>', 'its name')
      .option(SOCKET, 'the daemon at this socket', path)
      .action(async (name, options) => (await import('./commands/device.ts')).removeDevice(name, options))
  },
  fault(program) {
    const fault = program
      .command('fault')
      .description('Shows or changes the fault rules of a running daemon.')
      .addHelpText('after', faultHelp)
    fault
      .command('show')
      .description('Prints the current rules, one per line, with their counts.')
      .option(SOCKET, 'the daemon at this socket', path)
      .option('--json', 'as JSON')
      .action(async options => (await import('./commands/fault.ts')).showFaults(options))
    fault
      .command('set')
      .description('Replaces all rules by these.')
      .argument('<rules...>', 'rules, e.g. drop=1%')
      .option(SOCKET, 'the daemon at this socket', path)
      .action(async (rules, options) => (await import('./commands/fault.ts')).setFaults(rules, options))
    fault
      .command('clear')
      .description('Removes all rules.')
      .option(SOCKET, 'the daemon at this socket', path)
      .action(async options => (await import('./commands/fault.ts')).setFaults([], options))
    fault
      .command('link')
      .description(
        'Takes the link of a device down or up, as a cable that is pulled: PORT_ERR, packets lost, PORT_ACTIVE.',
      )
      .argument('<device>', 'its name')
      .argument('<state>', 'down or up')
      .option('--for <time>', 'with down: up again after this time (50ms, 3s)')
      .option(SOCKET, 'the daemon at this socket', path)
      .action(async (device, state, options) => (await import('./commands/fault.ts')).setLink(device, state, options))
  },
  net(program) {
    const net = program
      .command('net')
      .description('Networks of hosts on this machine, from a file: each host has devices, a daemon and a namespace.')
      .addHelpText(
        'after',
        `
The file is YAML; the smallest is \`hosts: 2\`. More is in
\`userdma help how-to/net\`:

  hosts: { client: { count: 7 }, server: { driver: mlx5 } }
  switches: [tor]
  links:
    - { between: [client, tor], rate: 1gbit, loss: 0.1% }
    - { between: [server, tor], rate: 10gbit, mtu: 4200 }`,
      )
      .addHelpText(
        'after',
        examples(
          'userdma net up lab.yaml',
          'userdma net exec client1 -- ibv_devinfo',
          'userdma net show',
          'userdma net down',
        ),
      )
    net
      .command('up')
      .description('Makes the network, and returns when all daemons are ready.')
      .argument('<file>', 'its description', path)
      .action(async file => (await import('./commands/net.ts')).netUp(file))
    net
      .command('exec')
      .description("Runs a program on a host, where it finds the host's devices; exits with the program's status.")
      .argument('<host>', 'name of the host')
      .argument('<program>', 'program to run')
      .argument('[arguments...]', 'its arguments, after --')
      .option(NET, NET_HELP)
      .option('--shell', 'join program and arguments with spaces, and let a shell on the host run them, as ssh does')
      .passThroughOptions()
      .action(async (host, name, args, options) =>
        (await import('./commands/net.ts')).netExec(host, name, args, options),
      )
    net
      .command('play')
      .description('Makes the network of a scenario, runs its programs with its failures, and says what did not hold.')
      .argument('<file>', 'the scenario', path)
      .option('--record <folder>', 'record the daemon of each host in a session file there, HOST.udr', path)
      .option('--record-depth <depth>', RECORD_DEPTH_HELP)
      .option('--fault <host:rule>', 'a fault rule on a host from the start; may be given several times', collect)
      .option('--restart <host>', 'start programs of this host that fail again')
      .option('--no-events', 'without the failures of the file')
      .addOption(new Option('--at <path>', 'the folder of the network').hideHelp())
      .action(async (file, options) => (await import('./commands/net.ts')).netPlay(file, options))
    withWalk(net.command('walk'))
      .description(
        'Makes the network of a scenario, and runs its programs once without failures, then once for each single failure on a host. Exits with 65 if it has found any.',
      )
      .argument('<file>', 'the scenario, whose own failures are left out', path)
      .option('--timers <factor>', 'multiply the times of retries and of the connection manager, e.g. by 0.1')
      .addOption(new Option('--at <path>', 'the folder of the network').hideHelp())
      .action(async (file, options) => (await import('./commands/net.ts')).netWalk(file, options))
    net
      .command('show')
      .description('Shows the hosts with their addresses, devices, links and daemons.')
      .argument('[name]', 'name of the network (default: the only one)')
      .option('--json', 'as JSON')
      .addOption(new Option('--at <path>', 'the folder of the network').hideHelp())
      .action(async (name, options) => (await import('./commands/net.ts')).netShow(name, options))
    net
      .command('down')
      .description('Ends all programs and daemons of the network and removes it, also what a killed `net up` has left.')
      .argument('[name]', 'name of the network (default: the only one)')
      .action(async name => (await import('./commands/net.ts')).netDown(name))
  },
  metrics(program) {
    program
      .command('metrics')
      .description('Prints the counters of a daemon as metrics for Prometheus, or serves them at /metrics.')
      .option(SOCKET, 'the daemon at this socket', path)
      .option(NET, 'the daemons of this network of `userdma net`, with the label host')
      .option('--listen <address[:port]>', 'serve them until a signal (without a port: a free one)')
      .addOption(new Option('--at <path>', 'the folder of the network').hideHelp())
      .addHelpText(
        'after',
        examples(
          'userdma metrics --listen 127.0.0.1:9879',
          'userdma metrics > /var/lib/prometheus/node-exporter/userdma.prom',
        ),
      )
      .action(async options => (await import('./commands/metrics.ts')).metrics(options))
  },
  cdi(program) {
    program
      .command('cdi')
      .description('Writes a file of the Container Device Interface, by which containers get the devices of a daemon.')
      .option(SOCKET, 'the daemon at this socket', path)
      .option('-o, --output <file>', 'write to this file instead of standard output', path)
      .addHelpText(
        'after',
        examples(
          'userdma cdi --socket /run/userdma/sock --output userdma.json',
          'install -D -m 644 userdma.json /etc/cdi/userdma.json',
          'podman run --network=host --device userdma.dev/rdma=rxe0 IMAGE ibv_devinfo',
        ),
      )
      .action(async options => (await import('./commands/cdi.ts')).cdi(options))
  },
  'device-plugin'(program) {
    program
      .command('device-plugin')
      .description(
        'Offers the devices of a daemon to pods of Kubernetes, as a device plugin of kubelet, until a signal such as SIGTERM.',
      )
      .option(SOCKET, 'the daemon at this socket, which may start later', path)
      .option(
        '--resource <name[,shares=n][,driver=name][,device=name]>',
        'a resource that pods request, of all devices or of some; each device has n shares (default: userdma.dev/rdma,shares=100); may be given several times',
        collect,
      )
      .option('--cdi <folder>', 'also write userdma.json into this folder and name its devices to kubelet', path)
      .option(
        '--library-folder <folder>',
        'copy the preload library into this folder of the host, from where containers get it',
        path,
      )
      .option('--kubelet <folder>', "kubelet's folder for plugins (default: /var/lib/kubelet/device-plugins)", path)
      .addHelpText(
        'after',
        examples(
          'userdma device-plugin --socket /run/userdma/sock',
          'userdma device-plugin --socket /run/userdma/sock --resource rdma/hca,shares=1000 --cdi /var/run/cdi',
          'userdma device-plugin --socket /run/userdma/sock --resource vpc.amazonaws.com/efa,driver=efa,shares=1',
        ),
      )
      .action(async options => {
        const { devicePlugin } = await import('./commands/device-plugin.ts').catch(error => {
          if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error
          throw new UsageError(
            'this package has no device plugin: it is in the container image (`userdma help how-to/kubernetes`)',
          )
        })
        return devicePlugin(options)
      })
  },
  sim(program) {
    program
      .command('sim')
      .argument('<file>', 'scenario, in YAML', path)
      .description(
        'Simulates devices and a congested network in virtual time, with and without congestion control, and prints goodput, latencies, queues and fairness.',
      )
      .option('--json', 'print JSON, with goodput and queue over time')
      .option('--csv <file>', 'also write the numbers to this file as CSV', path)
      .option('--html <file>', 'also write plots to this file', path)
      .addHelpText(
        'after',
        examples('userdma sim incast.yaml', 'userdma sim incast.yaml --html incast.html --csv incast.csv'),
      )
      .action(async (file, options) => (await import('./commands/sim.ts')).sim(file, options))
  },
  doctor(program) {
    program
      .command('doctor')
      .argument('[programs...]', 'programs to look at, too')
      .description(
        'Looks at the machine, and says what works, what does not, and what to do; exits with 1 if something fails.',
      )
      .option('--json', 'as JSON')
      .addOption(color())
      .addHelpText('after', examples('userdma doctor', 'userdma doctor ./my-program'))
      .action(async (programs, options) => (await import('./commands/doctor.ts')).doctor(programs, options))
  },
  demo(program) {
    program
      .command('demo')
      .description('A demonstration: two programs exchange data, with their calls and packets.')
      .option(LINK, LINK_HELP)
      .action(async options => (await import('./commands/demo.ts')).demo(options))
  },
  completion(program) {
    program
      .command('completion')
      .argument('<shell>', 'bash, zsh or fish')
      .description('Prints a script that completes the command line in a shell.')
      .addHelpText('after', examples('source <(userdma completion bash)', 'userdma completion fish | source'))
      .action(async shell => (await import('./commands/completion.ts')).completion(shell, buildProgram(undefined)))
  },
  man(program) {
    program
      .command('man', { hidden: true })
      .description('Prints the manual page.')
      .action(async () => (await import('./commands/man.ts')).man(buildProgram(undefined)))
  },
}

/** What is said about wrong words for a command. */
const remedies: Readonly<Record<string, string>> = {
  'userdma device':
    'a device is added by `userdma device add NAME@ADDRESS`, for example `userdma device add rxe1@127.0.0.2`\n',
  'userdma device add': 'for example `userdma device add rxe1@127.0.0.2`\n',
}

/** Prints help. If its reader has closed the output, ends the process, also for CONTINUE_WITHOUT_OUTPUT. */
const writeHelp = (text: string): void => {
  exitOnBrokenPipe()
  process.stdout.write(text)
}

/**
 * The whole command line; with `named` only that command: each declaration makes the start slower. `named` is set if
 * the first argument is the name of a command.
 */
const buildProgram = (named: string | undefined): Command => {
  const program = new Command('userdma')
    .description('RDMA devices in user space: unmodified programs use them without hardware, kernel modules or root.')
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command, or a page: `userdma help pages` lists them')
    .configureHelp(helpLayout)
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'userdma: ')),
    })
    .addHelpText(
      'after',
      examples(
        'userdma run -- ibv_devinfo -v',
        'userdma run -- ibv_rc_pingpong -g 1            (in one terminal)',
        'userdma run -- ibv_rc_pingpong -g 1 localhost  (in another)',
        'userdma stat',
      ),
    )

  // --version is an option of userdma itself, and so never follows the name of a command.
  if (named === undefined)
    program.version(versionText(), '-V, --version', 'print the versions of userdma, Node.js and the preload library')
  for (const [name, declare] of Object.entries(commands)) if (named === undefined || named === name) declare(program)

  for (const command of program.commands.flatMap(command => [command, ...command.commands])) {
    const { parent } = command
    const name = `userdma ${parent === null || parent === program ? '' : `${parent.name()} `}${command.name()}`
    command.helpOption('-h, --help', 'print this help').configureOutput({
      writeOut: writeHelp,
      outputError: (text, write) =>
        write(`${text.replace(/^error: /, `${name}: `)}${remedies[name] ?? ''}see \`${name} --help\`\n`),
    })
  }
  return program
}

/** After `userdma help`: the help of userdma itself. */
const OWN_HELP = ['help', '-h', '--help']

/** Commands that continue when the reader of their output closes it. */
const CONTINUE_WITHOUT_OUTPUT = ['daemon', 'run', 'trace', 'check']

/** A function: bundled modules (scripts/bundle.mjs) cannot have a top-level await. */
const main = async (): Promise<void> => {
  const words = process.argv.slice(2)
  const [first, second] = words
  try {
    if (first === undefined || !CONTINUE_WITHOUT_OUTPUT.includes(first)) exitOnBrokenPipe()
    const program = buildProgram(first !== undefined && Object.hasOwn(commands, first) ? first : undefined)
    if (first === undefined) {
      program.outputHelp({ error: true })
      process.exitCode = 2
    } else {
      // For an unknown word after `help`, commander would print the help of userdma on standard error, without a message.
      if (first === 'help' && second !== undefined && !Object.hasOwn(commands, second)) {
        if (OWN_HELP.includes(second)) program.help()
        const text = (await import('./pages.ts')).pageText(second)
        if (text === undefined)
          program.error(
            second.startsWith('-')
              ? `error: unknown option '${second}'`
              : `error: unknown command or page '${second}'; \`userdma help pages\` lists the pages`,
          )
        else writeHelp(text)
      } else {
        const asked = withoutHelpCommand(program, words)
        await program.parseAsync(upToUnknownCommand(program, asked) ?? asked, { from: 'user' })
      }
    }
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2
    else fail(error)
  }
}

void main()
