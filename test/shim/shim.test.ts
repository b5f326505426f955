/*
 * The preload library (the shim): each scenario of scenarios.c runs under the shim, with the fake daemon.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { NetlinkOperation } from '../../src/spec/session.ts'
import { repoRoot } from '../paths.ts'
import { compileC, requireTool, scratchFolder } from '../tools.ts'
import { type FakeDaemon, LATE, startFakeDaemon, TOO_MANY_DESCRIPTORS } from './fake-daemon.ts'
import { compileScenarios, currentShim, type Ended, runProgram, scenarioTitles, shimIsPossible } from './program.ts'

const [EACCES, EMFILE] = [13, 24]
const NO_URING = 77 // exit status

const folder = scratchFolder()

let fakeVerbs: string | undefined
const compileFakeVerbs = (): string => {
  fakeVerbs ??= compileC(
    join(folder, 'libibverbs.so.1'),
    [join(repoRoot, 'test/shim/fake_verbs.c')],
    ['-shared', '-fPIC', '-Wl,-soname,libibverbs.so.1'],
  )
  return fakeVerbs
}

let runs = 0

/** `refusal`: see `startFakeDaemon`. */
const run = async (
  args: readonly string[],
  {
    env = {},
    refusal = 0,
    program = compileScenarios(folder),
  }: { readonly env?: NodeJS.ProcessEnv; readonly refusal?: number; readonly program?: string } = {},
): Promise<Ended & { daemon: FakeDaemon }> => {
  // glob(3) must not read the name of the tree's folder as a pattern.
  const daemonFolder = join(folder, `run${++runs}[?]*`)
  mkdirSync(daemonFolder)
  const daemon = startFakeDaemon(daemonFolder, refusal)
  try {
    const ended = await runProgram(program, args, {
      PATH: process.env.PATH,
      LD_PRELOAD: currentShim(folder),
      USERDMA_SOCKET: daemon.socket,
      ...env,
    })
    return { ...ended, daemon }
  } finally {
    daemon.crash()
  }
}

/** `options`: of the compiler. */
const testScenarios = (options: readonly string[] = []): void => {
  for (const [name, title] of Object.entries(scenarioTitles))
    test(title, async t => {
      if (!shimIsPossible(t)) return
      const { status, stdout, stderr } = await run([name], { program: compileScenarios(folder, options) })
      assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
    })
}

test('operations on a NETLINK_RDMA socket go to the daemon', async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout, stderr, daemon } = await run(['netlink'])
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
  const { OPEN, SEND, BIND, NAME, SET, GET } = NetlinkOperation
  const [SOCK_RAW, NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK] = [3, 1, 10]
  /** The argument of BIND. */
  const boundTo = (portId: bigint, groups: bigint) => portId + (groups << 32n)
  // operation, `extra`, `argument`
  assert.deepEqual(
    daemon.log.filter(line => line.startsWith('netlink')),
    [
      `${OPEN} ${SOCK_RAW} 0`,
      `${BIND} 0 ${boundTo(22n, 8n)}`,
      `${BIND} 0 ${boundTo(21n, 8n)}`,
      `${NAME} 0 0`,
      `${SET} ${NETLINK_ADD_MEMBERSHIP} 5`,
      `${GET} ${NETLINK_CAP_ACK} 0`,
      ...[20, 21, 22, 22, 23].map(bytes => `${SEND} ${bytes}`),
    ].map(text => `netlink ${text}`),
  )
})

describe('in programs as compilers build them by default', { concurrency: 8 }, () => testScenarios())

describe('in programs with large files and _FORTIFY_SOURCE', { concurrency: 8 }, () => {
  // As Debian builds programs: they call openat64 for openat, and __realpath_chk for realpath.
  testScenarios(['-O2', '-D_FILE_OFFSET_BITS=64', '-U_FORTIFY_SOURCE', '-D_FORTIFY_SOURCE=3', '-Wno-unused-result'])
})

test('io_uring reads and polls events, and cannot open devices', async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout } = await run(['uring'])
  if (status === NO_URING) return void t.skip('io_uring is missing or forbidden here')
  assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
})

const noDaemonLine = (socket: string): string =>
  `userdma: no daemon at ${socket}: no daemon serves this socket; start \`userdma daemon --socket ${socket}\`\n`

test('calls, events and doorbells fail with EIO after the daemon has died', async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout, stderr, daemon } = await run(['daemon_death'])
  assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
  assert.equal(stderr, noDaemonLine(daemon.socket))
})

test('a signal interrupts a call to a daemon that does not answer', async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout, stderr } = await run(['unanswered_call'])
  assert.deepEqual({ status, stdout, stderr }, { status: 'SIGALRM', stdout: '', stderr: '' })
})

test('two threads that open devices while the daemon is slow share one connection', async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout, stderr } = await run(['late_hellos'], { refusal: LATE })
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
})

// Each takes 10 seconds, in which it waits.
describe('a daemon that does not answer', { concurrency: true }, () => {
  test('the first message is given up, whatever signals the program handles', async t => {
    if (!shimIsPossible(t)) return
    const { status, stdout, stderr } = await run(['no_hello'], { refusal: LATE })
    assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
    assert.match(stderr, /^userdma: no daemon at .*: it does not answer\n$/)
  })

  test('is given up also after a thread was cancelled while it waited', async t => {
    if (!shimIsPossible(t)) return
    const { status, stdout, stderr } = await run(['no_hello_after_cancel'], { refusal: LATE })
    assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
    assert.match(stderr, /^userdma: no daemon at .*: it does not answer\n$/)
  })
})

for (const scope of ['verbs_global', 'verbs_private']) {
  test(`an empty poll yields, and notices that the daemon died (${scope})`, async t => {
    if (!shimIsPossible(t)) return
    const { status, stdout, stderr } = await run([scope, compileFakeVerbs()])
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
  })
}

test('without a daemon there is no device', async t => {
  if (!shimIsPossible(t)) return
  const USERDMA_SOCKET = join(folder, 'nobody')
  const { status, stdout, stderr, daemon } = await run(['no_daemon'], { env: { USERDMA_SOCKET } })
  assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
  assert.equal(stderr, noDaemonLine(USERDMA_SOCKET))
  assert.deepEqual(daemon.log, [])
})

test('a message that standard error does not take ends no program', async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout } = await run(['no_daemon_to_pipe'], { env: { USERDMA_SOCKET: join(folder, 'nobody') } })
  assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
})

test('a program that the daemon may not access finds no device', async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout, stderr, daemon } = await run(['no_daemon'], { refusal: EACCES })
  assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
  const start = `userdma: the daemon at ${daemon.socket}: the system does not let it access `
  assert.equal(stderr.slice(0, start.length), start)
  assert.match(stderr, /^.*\n$/)
})

test('a program that changes its user keeps its devices, and is told why it finds no others', {
  skip: process.getuid?.() !== 0 && 'only root may change its user',
}, async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout, stderr, daemon } = await run(['changed_user'])
  assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
  const reason =
    'the folder of the socket is closed to user 65534; start the daemon with --socket in a folder that this user may enter'
  assert.equal(stderr, `userdma: the daemon at ${daemon.socket}: ${reason}\n`)
})

test('a full descriptor table of program or daemon is EMFILE from the first access on', async t => {
  if (!shimIsPossible(t)) return
  for (const [name, refusal] of [
    ['full_table', 0],
    ['daemon_full', EMFILE],
    ['truncated_hello', TOO_MANY_DESCRIPTORS],
  ] as const) {
    const { status, stdout, stderr } = await run([name], { refusal })
    assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
    assert.match(stderr, /^userdma: no daemon at .*: Too many open files\n$/)
  }
})

test('calls on a passed context are EACCES if the daemon may not access the program', async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout, stderr } = await run(['not_served'], { refusal: EACCES })
  assert.deepEqual({ status, stdout }, { status: 0, stdout: '' })
  assert.match(stderr, /^userdma: the daemon at .* does not let it access .*\n$/)
})

test('without USERDMA_SOCKET the shim does nothing', async t => {
  if (!shimIsPossible(t)) return
  const { status, stdout, stderr, daemon } = await run(['without_socket'], { env: { USERDMA_SOCKET: '' } })
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
  assert.deepEqual(daemon.log, [])
})

test('a USERDMA_SOCKET that is too long for a socket path is refused with a message', async t => {
  if (!shimIsPossible(t)) return
  const { status, stderr } = await run(['without_socket'], { env: { USERDMA_SOCKET: `/${'x'.repeat(120)}` } })
  assert.deepEqual(
    { status, stderr },
    { status: 0, stderr: 'userdma: USERDMA_SOCKET has 121 bytes; a socket path has at most 107\n' },
  )
})

test('doorbells of a traced program go to the daemon as calls', async t => {
  if (!shimIsPossible(t)) return
  // USERDMA_TAG: the program is traced.
  const { status, daemon } = await run(['doorbells_traced'], { env: { USERDMA_TAG: 'some tag' } })
  assert.equal(status, 0)
  assert.equal(daemon.log.filter(line => line === 'write 32').length, 1)
})

test('a late reply to STACK gives the stack no number on the next connection', async t => {
  if (!shimIsPossible(t)) return
  const { status, stderr, daemon } = await run(['late_stack'], { env: { USERDMA_STACKS: '1' } })
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
  assert.deepEqual(
    daemon.log.filter(line => line.startsWith('hello') || line.startsWith('fault')),
    ['hello ', 'hello '],
  )
})

test('only the first RDMA access connects, and sends the tag', async t => {
  if (!shimIsPossible(t)) return
  for (const scenario of ['device', 'cleared_environment']) {
    const { status, daemon } = await run([scenario], { env: { USERDMA_TAG: 'some tag' } })
    assert.equal(status, 0)
    assert.deepEqual(
      daemon.log.filter(line => line.startsWith('hello')),
      ['hello some tag'],
    )
  }
  const withoutRdma = await run(['-c', 'cat /etc/passwd > /dev/null'], { program: '/bin/sh' })
  assert.deepEqual({ status: withoutRdma.status, log: withoutRdma.daemon.log }, { status: 0, log: [] })
})

test('the daemon is told to refresh the counters only before they are read', async t => {
  if (!shimIsPossible(t)) return
  const port = '/sys/class/infiniband/rxe0/ports/1'
  const countRefreshes = async (script: string): Promise<number> => {
    const { status, stderr, daemon } = await run(['-c', script], { program: '/bin/sh' })
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' }, script)
    return daemon.log.filter(line => line === 'refresh').length
  }
  assert.ok((await countRefreshes(`cat ${port}/hw_counters/sent_pkts`)) > 0)
  assert.ok((await countRefreshes(`cat //sys/class/./infiniband/rxe0/ports/1/counters/port_xmit_data`)) > 0)
  // A folder above counters: they may be read relative to it.
  for (const walk of ['', '//rxe0', '/rxe0/ports', '/rxe0/ports/1', '/rxe0/ports/1/', '/rxe0/ports/1/counters'])
    assert.ok((await countRefreshes(`ls /sys/class/infiniband${walk}`)) > 0, walk)
  const byChdir = await countRefreshes(`cd ${port}/hw_counters`)
  assert.ok((await countRefreshes(`cd ${port}/hw_counters && cat sent_pkts`)) > byChdir, 'a relative path')
  const fromFolder = 'cd /sys/class/infiniband && cat rxe0/ports/1/hw_counters/sent_pkts'
  assert.ok((await countRefreshes(fromFolder)) > (await countRefreshes('cd /sys/class/infiniband')))
  assert.equal(await countRefreshes(`cd ${port}/hw_counters && cd / && cat etc/passwd > /dev/null`), byChdir)
  if (requireTool('python3', t)) {
    // The subprocess is a vfork child, which changes its folder.
    const script = 'import subprocess; subprocess.run(["true"], cwd="/")'
    const counts = ['', '; open("sent_pkts")'].map(end => `cd ${port}/hw_counters && python3 -S -c '${script}${end}'`)
    const [without = 0, withRead = 0] = await Promise.all(counts.map(countRefreshes))
    assert.equal(withRead, without + 1)
  }
  for (const other of ['infiniband/rxe0/node_guid', 'infiniband//rxe0//node_guid', 'infiniband_verbs/uverbs0/dev'])
    assert.equal(await countRefreshes(`cat /sys/class/${other}`), 0, other)
  assert.equal(await countRefreshes('ls /sys/class/infiniband_verbs'), 0)
})

test('functions that the C library has replaced by a newer version are looked up by version', t => {
  if (!shimIsPossible(t) || !requireTool('readelf', t, 'binutils')) return
  const output = (program: string, ...args: string[]): string => spawnSync(program, args, { encoding: 'utf8' }).stdout
  const symbols = output('readelf', '-W', '--dyn-syms', output('cc', '-print-file-name=libc.so.6').trim())
  const [header, source] = ['loading/loading.h', 'loading/init.c'].map(path =>
    readFileSync(join(repoRoot, 'shim', path), 'utf8'),
  )
  assert.match(symbols, / openat@@GLIBC/)
  // an old version is NAME@VERSION, the newest is NAME@@VERSION
  const replaced = new Map<string, string>() // addresses of old versions
  for (const [, address = '', name = ''] of symbols.matchAll(/: (\w+) .* (\w+)@GLIBC/g)) replaced.set(name, address)
  for (const [, address, name = '', version] of symbols.matchAll(/: (\w+) .* (\w+)@@(GLIBC\S+)/g))
    if ((replaced.get(name) ?? address) !== address && header?.includes(`X(${name})`))
      assert.ok(source?.includes(`{"${name}", "${version}"}`), `${name}, version ${version}`)
})
