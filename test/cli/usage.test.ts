/*
 * Commands that end at once: wrong usage, failed starts, help, output that cannot be written.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from '../paths.ts'
import { cleanEnvironment, lacking, run, runUserdma, start, temporaryFolder, userdma } from '../system/programs.ts'

/** `message` is on standard error; standard output is empty. */
type Case = readonly [args: readonly string[], status: number, message: RegExp]

const emptyPath = (option: string, ...args: string[]): Case => [
  args,
  2,
  new RegExp(`^userdma: ${option} "": give a path\n$`),
]

const cases: readonly Case[] = [
  [[], 2, /^Usage: userdma \[options\] \[command\]\n/],
  [['rum'], 2, /^userdma: unknown command 'rum'\n\(Did you mean run\?\)\n/],
  [['help', 'rum'], 2, /^userdma: unknown command or page 'rum'; `userdma help pages` lists the pages\n$/],
  [['rum', '--help'], 2, /^userdma: unknown command 'rum'\n\(Did you mean run\?\)\n$/],
  [['rum', '--version'], 2, /^userdma: unknown command 'rum'\n/],
  [['net', 'foo', '--help'], 2, /^userdma net: unknown command 'foo'\nsee `userdma net --help`\n$/],
  [['help', 'net', 'foo'], 2, /^userdma net: unknown command 'foo'\n/],
  [
    ['device', 'foo'],
    2,
    /^userdma device: unknown command 'foo'\na device is added by `userdma device add NAME@ADDRESS`, /,
  ],
  [['device', 'add'], 2, /^userdma device add: missing .*\nfor example `userdma device add rxe1@127\.0\.0\.2`\n/],
  [['--foo'], 2, /^userdma: unknown option '--foo'\n/],
  [['run', '--foo'], 2, /^userdma run: unknown option '--foo'\nsee `userdma run --help`\n$/],
  [['run'], 2, /^userdma run: missing required argument 'program'\nsee `userdma run --help`\n$/],
  [['run', '--'], 2, /^userdma run: missing required argument 'program'\n/],
  [['run', '--socket'], 2, /^userdma run: option '--socket <path>' argument missing\n/],
  [
    ['run', '--device', '.eth0@10.0.0.1', '--', 'true'],
    2,
    /^userdma: device name ".eth0": a name begins with a letter/,
  ],
  [['run', '--device', 'rxe0@10.0.0', '--', 'true'], 2, /^userdma: device "rxe0@10\.0\.0": "10\.0\.0" is not an IPv4/],
  [
    ['run', '--fault', 'drop=x', '--', 'true'],
    2,
    /^userdma: fault drop: "x" is not a probability from 0 to 1 or from 0% to 100%\n$/,
  ],
  [['run', '--private', '--socket', 'x', '--', 'true'], 2, /^userdma: --private and --socket exclude each other/],
  [['run', '--', 'no-such-program'], 127, /^userdma: no-such-program: there is no such program in PATH\n$/],
  [['run', '--', '/etc/passwd'], 126, /^userdma: \/etc\/passwd is not executable for you\n$/],
  [
    ['run', '--socket', '/nonexistent', '--', 'true'],
    1,
    /^userdma: no daemon at \/nonexistent; start one with `userdma daemon --socket \/nonexistent`\n$/,
  ],
  [['trace', '-o', '/nonexistent/x', '--', 'true'], 2, /^userdma: cannot write to \/nonexistent\/x: ENOENT\n$/],
  [
    ['trace', '--class', 'rc_qp,qp', '--', 'true'],
    2,
    /^userdma: --class "qp" is not one of interface, .*rc_qp.*ctx_context/,
  ],
  [['trace', '--', 'no-such-program'], 127, /^userdma: no-such-program: there is no such program/],
  [['daemon', '--fault', 'drop=1.5'], 2, /^userdma: fault drop: "1\.5" is not/],
  [['run', '--link', 'tcp', '--', 'true'], 2, /^userdma: --link "tcp" is not one of memory, udp, udp-plain, dgram\n$/],
  [['daemon', '--device', 'rxe0'], 2, /^userdma: device "rxe0": the address is missing/],
  [
    ['daemon', '--socket', '/nonexistent/s'],
    1,
    /^userdma: socket \/nonexistent\/s: folder \/nonexistent does not exist\n$/,
  ],
  [['daemon', 'surplus'], 2, /^userdma daemon: too many arguments/],
  [
    ['stat', '--socket', '/nonexistent'],
    1,
    /^userdma: no daemon at \/nonexistent; start one with `userdma daemon --socket \/nonexistent`\n$/,
  ],
  [['stat'], 1, /^userdma: no daemon at .*; start one with `userdma daemon`\n$/],
  [['stat', '--yaml'], 2, /^userdma stat: unknown option '--yaml'\n/],
  [['fault'], 2, /^Usage: userdma fault /],
  [['fault', 'set'], 2, /^userdma fault set: missing required argument 'rules'\nsee `userdma fault set --help`\n$/],
  [['fault', 'set', 'drop=2'], 2, /^userdma: fault drop: "2" is not a probability/],
  [['fault', 'set', 'qp=0x12'], 2, /^userdma: fault "qp=0x12": the rule has no effect; add/],
  [['fault', 'show'], 1, /^userdma: no daemon at .*; start one with `userdma daemon`\n$/],
  [['schema', '--socket', 'x'], 2, /^userdma: --socket is for --device NAME\n$/],
  [['schema', '--device', 'rxe0', '--socket', '/nonexistent'], 1, /^userdma: .*no daemon at \/nonexistent/],
  [['devices', '--socket', '/nonexistent'], 1, /^userdma: no daemon at/],
  ...[['inspect'], ['export', '--to', 'text'], ['explain', '--slow']].map(
    (command): Case => [[...command, '/nonexistent.udr'], 2, /^userdma: cannot read \/nonexistent\.udr: ENOENT\n$/],
  ),
  [['inspect', '/tmp'], 2, /^userdma: cannot read \/tmp: it is not a regular file\n$/],

  // Values: with = or as the next word, empty, out of range, and the last one of several.
  [['run', '--link=', '--', 'true'], 2, /^userdma: --link "" is not one of memory, udp, udp-plain, dgram\n$/],
  [['run', '--link', 'udp', '--link=x', '--', 'true'], 2, /^userdma: --link "x" is not one of/],
  [['run', '--private=1', '--', 'true'], 2, /^userdma run: unknown option '--private=1'\n/],
  [['run', '--device=', '--', 'true'], 2, /^userdma: device name "": a name begins with/],
  [['run', '--torment=-1', '--', 'true'], 2, /^userdma: --torment "-1": a seed is an integer from 0 to 4294967295/],
  [['run', ''], 127, /^userdma: "": there is no such program in PATH\n$/],
  [['trace', '--class=', '--', 'true'], 2, /^userdma: --class "" is not one of interface, /],
  [['check', '--fail-on=', '--', 'true'], 2, /^userdma: --fail-on "" is not one of note, warning, error, never\n$/],
  [['check', '--buffers', 'All', '--', 'true'], 2, /^userdma: --buffers "All" is not one of sampled, all\n$/],
  [
    ['check', '--like', 'mlx5,', '--', 'true'],
    2,
    /^userdma: --like "" is not one of mlx5, connectx4lx, .* rxe, infiniband, roce\n$/,
  ],
  [['check', '--color', 'red', '--', 'true'], 2, /^userdma: --color "red" is not one of auto, always, never\n$/],
  [
    ['run', '--fault-walk', '--', 'true'],
    2,
    /^userdma: --fault-walk is `userdma walk --kinds calls,posts,completions` now\n$/,
  ],
  [['check', '--explain='], 2, /^userdma: --explain "": there is no such finding; there are /],
  [
    ['check', '--torment-search', '1.5', '--', 'true'],
    2,
    /^userdma: --torment-search "1\.5": give an integer from 1 to/,
  ],
  [['stat', '--watch=0'], 2, /^userdma: --watch "0": give a number of seconds from 0\.1 to 3600\n$/],
  [['top', '-d', '1h'], 2, /^userdma: --delay "1h": give a number of seconds from 0\.1 to 3600\n$/],
  [['top', '--count', '0'], 2, /^userdma: --count "0": give an integer from 1 to 999999999\n$/],
  [['run', '--timers', '2', '--', 'true'], 2, /^userdma: --timers "2": give a number from 0\.01 to 1\n$/],
  [['walk', '--kinds', 'calls,x', '--', 'true'], 2, /^userdma: --kinds "x" is not one of calls, posts, .*, events\n$/],
  [['walk', '--jobs', '1.5', '--', 'true'], 2, /^userdma: --jobs "1\.5": give an integer from 1 to 64\n$/],
  [['explain', '--qp', '0x1000000', 'x.pcap'], 2, /^userdma: --qp "0x1000000": give an integer from 0 to 16777215\n$/],
  [['explain', '--from', '', 'x.pcap'], 2, /^userdma: --from "": give a number of seconds, such as 1\.5\n$/],
  [['daemon', '--allow-group=-1'], 2, /^userdma: --allow-group "-1": there is no such group; give a name or a number/],
  emptyPath('--socket', 'run', '--socket', '', '--', 'true'),
  emptyPath('--socket', 'daemon', '--socket='),
  emptyPath('--socket', 'stat', '--socket='),
  emptyPath('--socket', 'schema', '--device', 'rxe0', '--socket', ''),
  emptyPath('--output', 'trace', '-o', '', '--', 'true'),
  emptyPath('--pcap', 'trace', '--pcap=', '--', 'true'),
  emptyPath('--sarif', 'check', '--sarif=', '--', 'true'),
  emptyPath('--suppressions', 'check', '--suppressions', '', '--', 'true'),
  [
    ['check', '--suppressions', '/dev/zero', '--', 'true'],
    2,
    /^userdma: --suppressions: \/dev\/zero is a device; a suppression file is a file\n$/,
  ],
  // What a message quotes of a file, as its name, has no control characters.
  [
    ['check', '--suppressions', '/nonexistent\x1b[2J', '--', 'true'],
    2,
    /^userdma: --suppressions: cannot read the suppression file \/nonexistent \[2J: ENOENT\n$/,
  ],

  // Options that contradict each other, or have no effect.
  [
    ['trace', '-o', '/nonexistent/x', '--pcap', '/nonexistent/y/../x', '--', 'true'],
    2,
    /^userdma: --output and --pcap are the same file /,
  ],
  [
    ['check', '--output=/nonexistent/x', '--sarif=/nonexistent/x', '--', 'true'],
    2,
    /^userdma: --output and --sarif are the same file /,
  ],
  [['check', '--time-limit', '0', '--', 'true'], 2, /^userdma: --time-limit "0": give an integer from 1 to 86400\n$/],
  [['check', '--story', 'some', '--', 'true'], 2, /^userdma: --story "some": give /],
  [
    ['check', '--torment-search', '2', '--socket', '/x', '--', 'true'],
    2,
    /^userdma: --torment-search and --socket exclude each other: each run has a daemon of its own\n$/,
  ],
  [
    ['check', '--torment-search', '2', '--gen-suppressions', '--', 'true'],
    2,
    /^userdma: --torment-search and --gen-suppressions exclude each other: it is for one run: search first, then repeat/,
  ],
  [
    ['check', '--torment-search', '2', '--torment', '5:3', '--', 'true'],
    2,
    /^userdma: --torment "5:3": with --torment-search give the first seed, without a COUNT or "only"\n$/,
  ],
  [['daemon', '--like', 'mlx5'], 2, /^userdma: --like is for --check or --record-depth DEPTH\n$/],
  [['daemon', '--buffers', 'all'], 2, /^userdma: --buffers is for --check or --record-depth DEPTH\n$/],
  [
    ['stat', '--qps', '--watch'],
    2,
    /^userdma: --qps and --watch exclude each other: the rates are those of devices\n$/,
  ],
  [['demo', '--link', 'tcp'], 2, /^userdma: --link "tcp" is not one of memory, udp, udp-plain, dgram\n$/],
]

describe('wrong usage or a failed start is reported', () => {
  for (const [args, status, message] of cases)
    it(`userdma ${args.join(' ')}`, async t => {
      const env = cleanEnvironment({ TMPDIR: temporaryFolder(t) })
      const found = await runUserdma(t, args, { env })
      assert.match(found.stderr, message)
      assert.equal(found.stdout, '')
      assert.equal(found.status, status)
    })

  it('daemon --socket with a path of a regular file, or a path that is too long', async t => {
    const folder = temporaryFolder(t)
    const file = join(folder, 'file')
    writeFileSync(file, 'mine')
    const found = await runUserdma(t, ['daemon', '--socket', file])
    assert.equal(found.status, 1)
    assert.match(found.stderr, /file exists, but is not a socket\n$/)
    const long = join(folder, 'x'.repeat(120))
    assert.match((await runUserdma(t, ['daemon', '--socket', long])).stderr, /^userdma: socket path .* has \d+ bytes; /)
  })
})

describe('help', () => {
  it('has an example for run, trace, daemon, stat and fault', async t => {
    for (const command of ['run', 'trace', 'daemon', 'stat', 'fault']) {
      const { status, stdout } = await runUserdma(t, [command, '--help'])
      assert.equal(status, 0)
      assert.match(stdout, new RegExp(`^Usage: userdma ${command} `))
      assert.match(stdout, new RegExp(`Examples:\n +\\$ userdma ${command}`))
    }
  })

  it('has no line that is wider than the terminal', { skip: lacking('script') }, async t => {
    const fits = async (command: readonly string[], width: number): Promise<void> => {
      const line = [userdma, ...command, '--help'].join(' ')
      const inTerminal = ['-qec', `stty cols ${width}; ${line}`, '/dev/null']
      const { stdout } =
        width === 80
          ? await runUserdma(t, [...command, '--help'])
          : await run(t, 'script', inTerminal, { env: cleanEnvironment() })
      const longest = Math.max(...stdout.split(/\r?\n/).map(({ length }) => length))
      assert.ok(longest > width - 8 && longest <= width, `${line}: a line of ${longest} columns`)
    }
    for (const command of [[], ['net'], ['check'], ['fault'], ['device-plugin']]) await fits(command, 80)
    for (const command of [[], ['net']]) await fits(command, 60)
  })

  it('of a command of a command is found by both orders of words', async t => {
    for (const args of [
      ['help', 'net', 'up'],
      ['net', 'help', 'up'],
    ])
      assert.match((await runUserdma(t, args)).stdout, /^Usage: userdma net up /)
  })

  it('of help is that of userdma', async t => {
    for (const args of [['help'], ['help', 'help'], ['help', '--help'], ['help', '-h']]) {
      const { status, stdout } = await runUserdma(t, args)
      assert.equal(status, 0, args.join(' '))
      assert.match(stdout, /^Usage: userdma \[options\]/)
    }
  })

  it('prints the versions', async t => {
    const { stdout } = await runUserdma(t, ['--version'])
    assert.match(
      stdout,
      /^userdma \d+\.\d+\.\d+\nNode\.js 2\d\..*\n(?:no preload library: .*|preload library \/.*, session protocol \d+)\n$/,
    )
  })
})

describe('if the disk of standard output is full', () => {
  for (const args of [['schema'], ['check', '--explain'], ['run', '--help'], ['--version']])
    it(`${args.join(' ')} says so`, async t => {
      const command = ['-c', '"$0" "$@" > /dev/full', userdma, ...args]
      const { status, stderr } = await run(t, 'sh', command, { env: cleanEnvironment() })
      assert.equal(stderr, 'userdma: cannot write to standard output: ENOSPC\n')
      assert.equal(status, 1)
    })
})

/** 128 and the number of SIGPIPE. */
const SIGPIPE_STATUS = 128 + constants.signals.SIGPIPE

describe('if the reader of the output exits', () => {
  const example = join(repoRoot, 'dist', 'examples', 'ping-pong.js')
  for (const [name, program, ...args] of [
    ['help', userdma, '--help'],
    ['help of run', userdma, 'run', '--help'],
    ['help of daemon', userdma, 'daemon', '--help'],
    ['the list of findings', userdma, 'check', '--explain'],
    ['schema', userdma, 'schema', '--json'],
    ['an example', process.execPath, example, '10'],
  ])
    it(`${name} ends silently`, async t => {
      const { child, ended } = start(t, program, args, { env: cleanEnvironment() })
      child.stdout?.destroy()
      const { status, stderr } = await ended
      assert.equal(stderr, '')
      assert.ok(status === 0 || status === SIGPIPE_STATUS, `status ${status}`)
    })
})
