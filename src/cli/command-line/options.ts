/*
 * The options of all commands.
 */
import { WHO_RANGES } from '../../settings/who.ts'
import { adapterNames } from '../../spec/check/adapters.ts'
import { bufferChecks } from '../../spec/check/requests.ts'
import { failLimits } from '../../spec/check/severity.ts'
import { STORY_LINES } from '../../spec/check/story.ts'
import { tormentKindNames } from '../../spec/check/torment.ts'
import { lentChecks } from '../../spec/lends.ts'
import { clockKinds, linkKinds, pathKinds } from '../../uapi/tool.ts'
import { colorChoices } from '../colors.ts'
import { KUBELET_FOLDER } from '../kubernetes/device-plugin.ts'
import { walkKinds } from '../walk/walk-kinds.ts'
import { choice, decimal, integer, lines, list, meaning, path, size, text, whoRange } from './kinds.ts'
import { defaulted, flag, maybeValued, negative, repeated, required, valued } from './option.ts'

/** A day. */
const MAX_SECONDS = 86_400
const SECONDS = ' of seconds'
const MAX_QPN = 0xff_ffff
/** The most runs of a walk at a time. */
export const MAX_JOBS = 64

/** What a device looks like. */
export const DEVICE_HELP =
  'a name and an IP address of this machine, and settings, e.g. rxe1@127.0.0.2 or mlx5_0@127.0.0.3,driver=mlx5'

const socket = valued('path', path, 'the daemon at this socket')
const json = flag('as JSON')
const jsonLines = (of: string, needs?: readonly string[]) =>
  flag(`print one JSON object per ${of}`, needs === undefined ? {} : { needs })
const sarif = valued('file', path, 'also write the findings to this file as SARIF 2.1.0')
const output = (help: string) => valued('file', path, help, { short: 'o' })
const link = valued('kind', meaning(linkKinds), 'what connects the devices')
const timers = valued(
  'factor',
  decimal(0.01, 1),
  'multiply the times of retries and of the connection manager, e.g. by 0.1',
)
const at = valued('path', path, 'the folder of the network', { isHidden: true })
const net = 'name'

/** The option of commands that print severities. `of`: when it means something. */
const color = (of = '') => valued('when', meaning(colorChoices), `${of}severities in color`)

/** Of commands that ask a daemon. */
export const socketOptions = { socket } as const
export const queryOptions = { socket, json } as const

const tormentKinds = (needs: readonly string[]) =>
  valued('kinds', list(tormentKindNames), 'only these kinds, at each opportunity, several separated by commas', {
    needs,
  })

const clock = valued('kind', meaning(clockKinds), 'the time of programs and devices')
const clockSpin = negative('with --clock skip, spinning on a completion queue or a clock takes real time')
const walkClock = valued(
  'kind',
  choice(clockKinds),
  'the time of programs and devices (default: skip; with --timers, real)',
)

/** They configure a daemon. */
export const configOptions = {
  device: repeated('name[@address][,…]', text, `a device: ${DEVICE_HELP} (default: rxe0@127.0.0.1)`),
  fault: repeated('rule', text, 'faults of the network, e.g. drop=1% or dir=sent,opcode=RC_ACKNOWLEDGE,delay=5ms'),
  machine: valued(
    'file|name',
    path,
    'show programs this machine in place of this one: a machine file, or one that userdma has (`userdma machine list`); its adapters are devices',
  ),
  link,
  path: valued('kind', meaning(pathKinds), 'how messages pass between devices in memory'),
  torment: valued('seed', text, 'let the devices do what the specification allows and hardware rarely does'),
  tormentKinds: tormentKinds(['torment']),
  fabric: valued(
    'shape',
    text,
    'the switches of InfiniBand ports, e.g. fat-tree,leaves=4,spines=2, and whether there is a subnet manager (manager=none)',
  ),
  timers,
  clock,
  clockSpin,
  ignoreMemlock: flag('let programs register more memory than RLIMIT_MEMLOCK (ulimit -l)'),
  allowFaults: flag(
    'let fault rules that a program sets for itself touch devices which other programs of its user use',
  ),
} as const

const privateFlag = flag('start a daemon for this program only', {
  excludes: { socket: 'a private daemon has a socket of its own' },
})

/** Of commands that run a program under a daemon. */
export const joinOptions = {
  socket: valued('path', path, 'join the daemon at this socket'),
  private: privateFlag,
  ...configOptions,
} as const

/** Values of --record-depth. */
export const recordDepths = { plain: '', check: 'all that `userdma check FILE` needs' } as const

const ofRecord = { needs: ['record'] } as const
const recordDepth = valued('depth', meaning(recordDepths), 'what is recorded', ofRecord)

/** Of commands that record. */
export const recordOptions = {
  record: valued('file', path, 'record all events of the daemon in this file: `userdma export` reads it'),
  recordDepth,
  payload: valued(
    'bytes',
    integer(0, 4096),
    'also the first bytes of the payload of each packet (default: 0)',
    ofRecord,
  ),
  recordLimit: valued('size', size, 'the most bytes of the file, e.g. 64M; the oldest are dropped', ofRecord),
} as const

const KEEPS_DEVICES = "with --host the program keeps the machine's own devices; leave one of them out"
/** Options that configure devices of userdma, of which `--host` has none. */
const DEVICE_OPTIONS = [
  'device',
  'machine',
  'link',
  'path',
  'torment',
  'tormentKinds',
  'like',
  'buffers',
  'fabric',
  'timers',
  'clock',
  'clockSpin',
  'ignoreMemlock',
  'allowFaults',
  'socket',
  'private',
  'payload',
]

/** Of commands that observe a program. `others`: excluded options, beside those of devices. */
const hostOptions = (about: string, others: readonly string[] = []) => ({
  host: flag(`let the program keep the machine's own devices, and observe it${about}`, {
    excludes: Object.fromEntries([...DEVICE_OPTIONS, ...others].map(name => [name, KEEPS_DEVICES])),
  }),
  allowHostFaults: flag('let --fault act on the calls, posts and completions of the program', {
    needs: ['host'],
    instead: 'on devices of userdma --fault needs no other option',
  }),
})

const NO_POSTS = 'posts are not read while all is well'

/** Of programs with a clock that skips. */
const verboseClock = flag('with --clock skip, print at the end what kept real time, and how long', { short: 'v' })

export const runOptions = {
  ...joinOptions,
  verbose: verboseClock,
  ...recordOptions,
  ...hostOptions(': print failed requests with their causes'),
  recordOnFailure: flag('keep the file only if the program fails; its last 64M', ofRecord),
  flightRecorder: maybeValued(
    'size',
    size,
    'keep the last posts and polls of each process in so much memory (default: 16M), and write them to a session file when a request fails, a device reports an error or a signal ends the program',
    {
      needs: ['host'],
      instead: 'on devices of userdma, use --record-on-failure',
      excludes: { record: NO_POSTS, fault: NO_POSTS },
    },
  ),
  flightFolder: valued('folder', path, 'where these files go (default: here)', { needs: ['flightRecorder'] }),
  faultWalk: {
    ...flag('', { isHidden: true }),
    refusal: '--fault-walk is `userdma walk --kinds calls,posts,completions` now',
  },
} as const

export const traceOptions = {
  ...joinOptions,
  ...hostOptions('', ['pcap']),
  output: output('write the calls to this file instead of standard error'),
  verbose: flag('print records, lists and byte strings in full, including zero fields', { short: 'v' }),
  abi: flag('print the dialect, names and bytes of each call below it'),
  class: repeated('classes', text, 'only calls of these classes, e.g. rc_qp,mr'),
  errors: flag('only calls that failed'),
  summary: flag('count calls and time by method, and print a table at the end', { short: 'c' }),
  json: jsonLines('line'),
  pcap: valued('file', path, 'write all packets of the daemon to this file (pcapng)'),
} as const

const like = valued(
  'names',
  list(adapterNames),
  'also report what works on userdma and fails on these adapters, separated by commas',
)
const buffers = valued('kind', meaning(bufferChecks), 'which send buffers are compared before and after the request')

const lent = valued('kind', meaning(lentChecks), 'by what the bytes are known that peers may access')

const ONE_RUN = 'it is for one run: search first, then repeat the run that fails'

/** Of `check` that are about findings; a recording that is read has these only. */
export const findingOptions = {
  verbose: flag('print all lines of a finding; with --clock skip, at the end what kept real time, and how long', {
    short: 'v',
  }),
  output: output('write the findings to this file instead of standard error'),
  json: jsonLines('finding'),
  sarif,
  races: flag('also find requests that access the same bytes without order; programs are slower'),
  notes: flag('print notes too, not only warnings and errors'),
  leaks: flag('print leaks of programs that a signal ended too'),
  failOn: defaulted('severity', choice(failLimits), 'error', 'exit with 65 for findings from this severity on'),
  like,
  lent,
  who: valued('range', whoRange, `tell all accesses to these bytes: ${WHO_RANGES}`),
  suppressions: repeated('file', path, 'do not report the findings that this file names'),
  defaultSuppressions: negative('report also the known findings in libraries, such as UCX'),
  story: defaulted(
    'lines',
    lines,
    STORY_LINES,
    'so many lines about what happened before a hang or a failure, at both ends; also all, or off',
  ),
  symbols: flag(
    'of a recording that has no functions and lines: look them up in the files of this machine that it names, which tools then read',
  ),
  genSuppressions: flag('print after each finding a block for a suppressions file', {
    excludes: { json: 'a block follows the text of its finding' },
  }),
  color: color(),
} as const

export const checkOptions = {
  ...joinOptions,
  ...recordOptions,
  ...hostOptions(', for the findings that need no device of userdma', ['record', 'races', 'hang', 'tormentSearch']),
  ...findingOptions,
  hang: valued(
    'seconds',
    integer(1, MAX_SECONDS),
    'print what a program waits for when it has waited so long, not only at its end',
  ),
  buffers,
  tormentKinds: tormentKinds(['torment', 'tormentSearch']),
  tormentSearch: valued(
    'n',
    text,
    'run the program with N seeds of --torment, and print the decisions, and the order, that make it fail',
    {
      excludes: {
        socket: 'each run has a daemon of its own',
        record: 'record the run that it has found, with its --torment',
        genSuppressions: ONE_RUN,
      },
    },
  ),
  searchTime: defaulted('seconds', integer(1, MAX_SECONDS), 300, 'the time of all runs', { needs: ['tormentSearch'] }),
  timeLimit: valued(
    'seconds',
    integer(1, MAX_SECONDS),
    'end the program after this time by SIGTERM, report, and exit with 124; with --torment-search: a run that takes longer fails (default: 60)',
  ),
  recordOnFailure: flag('keep the file only for failures and findings; its last 64M', ofRecord),
  explain: maybeValued('id', text, 'explain a finding, or list all, and run nothing'),
} as const

/** Of walks, also of a net. */
export const walkOptions = {
  kinds: valued('kinds', list(walkKinds), 'what fails, several separated by commas, all by default'),
  points: defaulted('n', integer(1, 100_000), 200, 'at most so many failures'),
  timeLimit: defaulted('seconds', integer(1, MAX_SECONDS), 600, 'begin no run later'),
  hang: valued(
    'seconds',
    integer(1, MAX_SECONDS),
    'a run that takes longer hangs (default: from the run without failures)',
  ),
  stopped: defaulted('seconds', integer(1, 600), 1, 'for how long processes are stopped'),
  jobs: valued(
    'n',
    integer(1, MAX_JOBS),
    'so many runs at a time, each in a network namespace (default: half of the processors)',
  ),
  since: valued('report', path, 'first what is new or changed since this report, which --json -o has written'),
  output: output('write the report to this file'),
  json: jsonLines('failure'),
  sarif,
  html: valued('file', path, 'also write a page of all results to this file'),
  summary: valued('file', path, 'also write counts, and the findings that are new, to this file'),
  color: color(),
} as const

export const programWalkOptions = {
  ...joinOptions,
  socket: {
    ...valued('path', text, '', { isHidden: true }),
    refusal: 'a walk and --socket exclude each other: each run has a daemon of its own',
  },
  clock: walkClock,
  ...walkOptions,
} as const

const capture = valued(
  'file',
  path,
  'with a recording: the packets of a capture that was made on the same machine at the same time',
)

/** They select packets of captures. */
const captureOptions = (of: string) => ({
  port: valued('number', integer(1, 65_535), `${of}: the UDP port of RoCEv2 (default: 4791)`),
  host: repeated('address', text, `${of}: only packets from or to this address`),
  qp: repeated('number', integer(0, MAX_QPN), `${of}: only packets to this queue pair`),
  from: valued(
    'seconds',
    decimal(0, Number.POSITIVE_INFINITY, SECONDS),
    `${of}: only packets from this time on, after the first packet`,
  ),
  until: valued('seconds', decimal(0, Number.POSITIVE_INFINITY, SECONDS), `${of}: only packets up to this time`),
})

/** Options of `export` that are for captures. */
export const packetOptions = captureOptions('with a capture')

/** Values of --to. */
export const exportFormats = {
  text: 'a line per event',
  json: 'one object per line',
  pcapng: 'packets for Wireshark',
  perfetto: 'a trace for https://ui.perfetto.dev',
  html: 'a page',
} as const

export const exportOptions = {
  to: required('format', choice(exportFormats), 'the format'),
  output: output('write to this file instead of standard output'),
  redact: flag(
    'without paths, arguments and addresses; each has the same pseudonym everywhere; of a capture: also without payloads and private data',
  ),
  capture,
  ...packetOptions,
  maxSize: valued(
    'size',
    size,
    'the most bytes of the output, e.g. 4G (default: 512 times the events; pcapng: 16,384 times)',
  ),
  color: color('with --to text: '),
} as const

export const explainOptions = {
  slow: valued('file', path, 'a session file that `--record` has written'),
  capture: { ...capture, needs: ['slow'] },
  top: defaulted('number', integer(1, 10_000), 5, 'with logs, captures or --slow: so many of each kind'),
  json: flag('with logs, captures or --slow: one object per line'),
  quiet: flag('with logs: one line'),
  html: valued('file', path, 'with logs: also write a page of the report to this file'),
  redact: flag('with logs: print the logs without names and addresses; each has the same pseudonym everywhere'),
  ...captureOptions('with captures'),
  color: color(),
} as const

const ofCheck = { needs: ['check', 'recordDepth'] } as const

export const daemonOptions = {
  ...configOptions,
  ...recordOptions,
  socket: valued('path', path, 'where programs find it (default: a socket of your own)'),
  allowUser: repeated('user', text, "root's daemon: serve this user too (name or number)"),
  allowGroup: repeated('group', text, "root's daemon: serve the users of this group too"),
  driver: repeated('file', path, 'load a driver from this .mjs file, and make devices with its name'),
  check: flag('check programs: `userdma check --socket PATH` prints the findings'),
  like: { ...like, ...ofCheck },
  buffers: { ...buffers, ...ofCheck },
  lent: { ...lent, ...ofCheck },
  who: valued('range', whoRange, '', { needs: ['check'], isHidden: true }),
  endWithLastClient: flag('end when the last client has ended'),
  detach: flag('start it in the background, and return when it is ready; `userdma stop` ends it'),
  background: flag('a command started this daemon, and waits for it', { isHidden: true }),
  removeFolder: flag('remove the folder of the socket at the end', { isHidden: true }),
  clockPage: valued('path', path, 'the page of a clock that daemons share', { isHidden: true }),
  serveNext: flag('be the process of one daemon after another, by lines of standard input', { isHidden: true }),
} as const

/** Values of --shell. */
export const shellNames = {
  sh: '',
  bash: '',
  zsh: '',
  fish: '',
  github: 'lines for $GITHUB_ENV',
} as const

export const envOptions = {
  socket,
  shell: valued('name', meaning(shellNames), 'whose commands'),
  unset: flag('print the commands that undo it', { excludes: { socket: 'it needs no daemon' } }),
} as const

/** Limits of an interval between two looks, seconds. */
export const MIN_INTERVAL = 0.1
export const MAX_INTERVAL = 3600
const interval = decimal(MIN_INTERVAL, MAX_INTERVAL, SECONDS)

export const statOptions = {
  ...queryOptions,
  qps: flag('the queue pairs: process, type, state, peer, requests, last failure', {
    excludes: { watch: 'the rates are those of devices' },
  }),
  waits: flag('the threads that wait: for what, and who could end that', {
    excludes: { watch: 'the rates are those of devices', qps: 'give one of them' },
  }),
  lent: flag('the memory that programs lend to peers, of a daemon with --check', {
    excludes: { watch: 'the rates are those of devices', qps: 'give one of them', waits: 'give one of them' },
  }),
  health: flag('what is left undone: failures, waits, completions and events, by process', {
    excludes: {
      watch: 'the rates are those of devices',
      qps: 'give one of them',
      waits: 'give one of them',
      lent: 'give one of them',
    },
  }),
  watch: maybeValued('seconds', interval, 'activity as rates, every second or every N seconds', { short: 'w' }),
} as const

export const topOptions = {
  socket,
  delay: defaulted('seconds', interval, 2, 'seconds between two looks', { short: 'd' }),
  count: valued('looks', integer(1, 999_999_999), 'end after so many looks', { short: 'n' }),
  batch: flag('print each look, for files and pipes', { short: 'b' }),
  json: flag('print each look as one JSON object per line'),
} as const

const netExcludes = { excludes: { socket: 'it names the daemons of a network' } } as const

export const inspectOptions = {
  socket,
  net: valued(net, text, 'show the hosts of this network of `userdma net`', netExcludes),
  at,
  capture,
  allowFaults: flag('let the page change the fault rules of the daemon'),
  listen: valued('address[:port]', text, 'where browsers find the page (default: 127.0.0.1 and a free port)'),
  hostName: repeated('name[:port]', text, "a name by which browsers reach the page, beside the machine's own"),
} as const

export const schemaOptions = {
  device: valued('name', text, 'the classes of this device of a daemon, from its own description'),
  socket: { ...socket, needs: ['device'] },
  json: flag('as JSON (`userdma help reference/schema`)'),
} as const

export const linkOptions = {
  for: valued('time', text, 'with down: up again after this time (50ms, 3s)'),
  socket,
} as const

export const netExecOptions = {
  net: valued(net, text, 'name of the network (default: the only one)'),
  shell: flag('join program and arguments with spaces, and let a shell on the host run them, as ssh does'),
} as const

export const netPlayOptions = {
  record: valued('folder', path, 'record the daemon of each host in a session file there, HOST.udr'),
  recordDepth,
  fault: repeated('host:rule', text, 'a fault rule on a host from the start'),
  restart: valued('host', text, 'start programs of this host that fail again'),
  events: negative('without the failures of the file'),
  clock,
  clockSpin,
  verbose: verboseClock,
  at,
} as const

export const netWalkOptions = {
  ...walkOptions,
  timers,
  clock: walkClock,
  clockSpin,
  at,
} as const
export const machineCaptureOptions = { output: output('write to this file instead of standard output') } as const

export const netShowOptions = {
  json,
  flows: flag("which way packets of connected queue pairs take over routers, by their kernels' routes now"),
  at,
} as const

export const metricsOptions = {
  socket,
  net: valued(net, text, 'the daemons of this network of `userdma net`, with the label host', netExcludes),
  listen: valued('address[:port]', text, 'serve them until a signal (without a port: a free one)'),
  health: flag('also what programs leave undone (stat --health), with their names; as JSON at /health'),
  at,
} as const

export const cdiOptions = { socket, output: output('write to this file instead of standard output') } as const

export const devicePluginOptions = {
  socket: valued('path', path, 'the daemon at this socket, which may start later'),
  resource: repeated(
    'name[,shares=n][,driver=name][,device=name]',
    text,
    'a resource that pods request, of all devices or of some; each device has n shares (default: userdma.dev/rdma,shares=100)',
  ),
  cdi: valued('folder', path, 'also write userdma.json into this folder and name its devices to kubelet'),
  libraryFolder: valued(
    'folder',
    path,
    'copy the preload library into this folder of the host, from where containers get it',
  ),
  kubelet: defaulted('folder', path, KUBELET_FOLDER, "kubelet's folder for plugins"),
} as const

export const simOptions = {
  json: flag('print JSON, with goodput and queue over time'),
  csv: valued('file', path, 'also write the numbers to this file as CSV'),
  html: valued('file', path, 'also write plots to this file'),
} as const

export const doctorOptions = { json, color: color() } as const
export const demoOptions = { link } as const
