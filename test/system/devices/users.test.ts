/*
 * Which users a daemon serves, and which daemons programs and tools trust (docs/why/threat-model.md).
 */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { programEnvironment } from '../../../src/cli/program/program.ts'
import { openChannel } from '../../../src/daemon/client/channel.ts'
import { openToolSession } from '../../../src/daemon/client/tool-session.ts'
import type { SystemError } from '../../../src/host/errno.ts'
import { takeLock } from '../../../src/host/lock-file.ts'
import { close, connect } from '../../../src/host/net/sockets.ts'
import { DaemonLine } from '../../../src/spec/session.ts'
import { until } from '../../limits.ts'
import { repoRoot } from '../../paths.ts'
import { findTool, skipTest } from '../../tools.ts'
import {
  cleanEnvironment,
  type Finished,
  lacking,
  NOBODY,
  noOtherUser,
  ownProgram,
  run,
  runUserdma,
  type Scope,
  start,
  temporaryFolder,
  userdma,
} from '../programs.ts'

/** A UID and GID that the system does not have. */
const UNUSED_ID = 54321

/** Starts a daemon in a folder that every user may enter; returns the daemon's socket. */
const startDaemonOf = async (t: Scope, uid: number, options: readonly string[] = []): Promise<string> => {
  const folder = temporaryFolder(t)
  chmodSync(folder, 0o755)
  chownSync(folder, uid, uid)
  const socket = join(folder, 'sock')
  // This umask would keep other users out.
  const umask = process.umask(0o077)
  const daemon = start(t, userdma, ['daemon', '--socket', socket, ...options], {
    uid,
    gid: uid,
    env: cleanEnvironment(),
  })
  process.umask(umask)
  await daemon.printed(new RegExp(DaemonLine.READY))
  return socket
}

/**
 * Runs a program that prints True if it finds rxe0, and otherwise False. `prefix`: a command that runs the program as
 * another user.
 */
const findDevices = (t: Scope, socket: string, ...prefix: readonly string[]): Promise<Finished> => {
  const script = 'if [ -e /sys/class/infiniband/rxe0/node_guid ]; then echo True; else echo False; fi'
  const [program, ...args] = [...prefix, 'sh', '-c', script]
  return run(t, program, args, { env: programEnvironment(socket) })
}
/** Prefixes of `findDevices`: user NOBODY, two users of a user namespace, user NOBODY in group UNUSED_ID. */
const asNobody = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups']
const asUnused = ['setpriv', `--reuid=${UNUSED_ID}`, `--regid=${UNUSED_ID}`, '--clear-groups']
const asNamespaceRoot = [...asUnused, 'unshare', '--map-root-user']
const asNamespaceUser = [...asUnused, 'unshare', '--map-user=5']
const asGroupMember = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, `--groups=${UNUSED_ID}`]

const runUserdmaAsNobody = (t: Scope, args: readonly string[]): Promise<Finished> =>
  runUserdma(t, args, { uid: NOBODY, gid: NOBODY })

/** Connects 200 times to the socket that is its argument, and prints how many connections the daemon has kept. */
const HOLD_CONNECTIONS = `
import select, socket, sys
sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(200)]
poll = select.poll()
for s in sockets:
    s.connect(sys.argv[1])
    poll.register(s, 0)
closed = set()
while len(closed) < 192:
    ready = poll.poll(5000)
    if not ready:
        break
    for fd, _ in ready:
        closed.add(fd)
        poll.unregister(fd)
print(200 - len(closed), flush=True)
sys.stdin.read()
`

/** Fills a socket's backlog with connections, which stay in it when they are closed. */
const fillBacklog = (path: string): void => {
  const fds: number[] = []
  try {
    for (;;) fds.push(connect(path))
  } catch (error) {
    assert.equal((error as SystemError).code, 'EAGAIN')
  } finally {
    for (const fd of fds) close(fd)
  }
}

/** Opens a device with the library on the socket that is its argument, and prints the error. */
const OPEN_SCRIPT =
  "import('userdma').then(m => m.open({ socket: process.argv[1] })).catch(e => console.log(e.message))"

const NOT_SERVED = `does not serve user ${NOBODY}; root's daemon does if it is started with \`--allow-user ${NOBODY}\``

describe("root's daemon", { skip: noOtherUser() || lacking('setpriv') }, () => {
  it('serves root only', async t => {
    const socket = await startDaemonOf(t, 0)
    assert.equal((await findDevices(t, socket)).stdout, 'True\n')
    const program = await findDevices(t, socket, ...asNobody)
    assert.deepEqual(program, {
      status: 0,
      signal: null,
      stdout: 'False\n',
      stderr: `userdma: the daemon at ${socket}: it ${NOT_SERVED}\n`,
    })
    const tool = await runUserdmaAsNobody(t, ['stat', '--socket', socket])
    assert.deepEqual([tool.status, tool.stderr], [1, `userdma: the daemon at ${socket} ${NOT_SERVED}\n`])
    const { stdout } = await run(t, process.execPath, ['-e', OPEN_SCRIPT, socket], {
      uid: NOBODY,
      gid: NOBODY,
      cwd: repoRoot,
    })
    assert.ok(stdout.includes(NOT_SERVED), stdout)
  })

  it('serves another user with --allow-user, by name or number, despite the umask', async t => {
    for (const name of ['nobody', String(NOBODY)]) {
      const socket = await startDaemonOf(t, 0, ['--allow-user', name])
      for (const prefix of [[], asNobody]) {
        const { stdout, stderr } = await findDevices(t, socket, ...prefix)
        assert.deepEqual([stdout, stderr], ['True\n', ''])
      }
      const stat = await runUserdmaAsNobody(t, ['stat', '--socket', socket])
      assert.equal(stat.status, 0)
      const fault = await runUserdmaAsNobody(t, ['fault', 'set', 'drop=1%', '--socket', socket])
      assert.match(fault.stderr, /only the user of this daemon may set faults/)
    }
  })

  it('is not reached by another user if the folder of its socket is closed', async t => {
    const socket = await startDaemonOf(t, 0, ['--allow-user', String(NOBODY)])
    chmodSync(dirname(socket), 0o700)
    const { stdout, stderr } = await findDevices(t, socket, ...asNobody)
    assert.deepEqual(
      [stdout, stderr],
      [
        'False\n',
        `userdma: the daemon at ${socket}: the folder of the socket is closed to user ${NOBODY}; start the daemon with --socket in a folder that this user may enter\n`,
      ],
    )
    const tool = await runUserdmaAsNobody(t, ['stat', '--socket', socket])
    assert.equal(tool.stderr, `userdma: the folder of ${socket} is closed to you (user ${NOBODY})\n`)
  })

  it('serves only the members of a group with --allow-group', async t => {
    const socket = await startDaemonOf(t, 0, ['--allow-group', String(UNUSED_ID)])
    assert.equal((await findDevices(t, socket, ...asGroupMember)).stdout, 'True\n')
    const program = await findDevices(t, socket, ...asNobody)
    assert.deepEqual(
      [program.stdout, program.stderr],
      ['False\n', `userdma: the daemon at ${socket}: it ${NOT_SERVED}\n`],
    )
    const tool = await runUserdmaAsNobody(t, ['stat', '--socket', socket])
    assert.deepEqual([tool.status, tool.stderr], [1, `userdma: the daemon at ${socket} ${NOT_SERVED}\n`])
  })

  it('explains refusals to programs in a user namespace', async t => {
    if (findTool('unshare') === undefined) return void skipTest(t, 'a user namespace needs unshare')
    const options = ['--allow-user', String(UNUSED_ID)]
    const shared = await findDevices(t, await startDaemonOf(t, 0, options), ...asNamespaceRoot)
    assert.match(shared.stderr, /: it runs as a user outside this user namespace, who could read/)
    const socket = await startDaemonOf(t, NOBODY)
    const allow = "root's daemon does if it is started with"
    const outside = `\`--allow-user ${UNUSED_ID}\``
    const toRoot = await findDevices(t, socket, ...asNamespaceRoot)
    assert.equal(toRoot.stderr, `userdma: the daemon at ${socket}: it does not serve user 0; ${allow} ${outside}\n`)
    const toUser = await findDevices(t, socket, ...asNamespaceUser)
    const inside = '`--allow-user 5`'
    assert.equal(
      toUser.stderr,
      `userdma: the daemon at ${socket}: it does not serve user 5; ${allow} ${inside}, or outside this user namespace with ${outside}\n`,
    )
    const [program, ...args] = [...asNamespaceUser, userdma, 'stat', '--socket', socket]
    const stat = await run(t, program, args)
    assert.equal(
      stat.stderr,
      `userdma: the daemon at ${socket} does not serve user 5; ${allow} ${inside}, or outside this user namespace with ${outside}\n`,
    )
  })

  it('counts no capability that a program has in a user namespace of its own', async t => {
    const program = ownProgram('own_namespace')
    if (lacking(program)) return void skipTest(t, 'build/programs/own_namespace was not built')
    const socket = await startDaemonOf(t, 0, ['--allow-user', String(NOBODY)])
    for (const [prefix, outside] of [
      [[], 'allowed'],
      [asNobody, 'Operation not permitted'],
    ] as const) {
      const [command, ...args] = [...prefix, program]
      const { stdout, stderr } = await run(t, command, args, { env: programEnvironment(socket) })
      if (stderr.startsWith('cannot: ')) return void skipTest(t, stderr)
      assert.deepEqual([stdout, stderr], [`${outside}\nOperation not permitted\n`, ''])
    }
  })

  it('keeps at most 8 connections of users who are not served, and serves others meanwhile', async t => {
    if (findTool('python3') === undefined) return void skipTest(t, 'connections are made by python3')
    const socket = await startDaemonOf(t, 0, ['--allow-user', String(UNUSED_ID)])
    // As where the file system has no access lists.
    chmodSync(socket, 0o666)
    const holder = start(t, 'python3', ['-c', HOLD_CONNECTIONS, socket], {
      uid: NOBODY,
      gid: NOBODY,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const [, kept] = await holder.printed(/^(\d+)$/m)
    assert.ok(Number(kept) <= 8, `the daemon keeps ${kept} connections`)
    assert.equal((await findDevices(t, socket, ...asUnused)).stdout, 'True\n')
  })

  it('has a socket that only those reach who are served, and one for root, which is removed with it', async t => {
    const socket = await startDaemonOf(t, 0, ['--allow-user', String(NOBODY)])
    const mayConnect = async (path: string, [command, ...args]: readonly string[]): Promise<boolean> =>
      (await run(t, command ?? '', [...args, 'test', '-w', path])).status === 0
    assert.deepEqual(await Promise.all([mayConnect(socket, asNobody), mayConnect(socket, asUnused)]), [true, false])
    assert.equal(statSync(`${socket}.own`).mode & 0o777, 0o600)
    await runUserdma(t, ['stop', '--socket', socket])
    assert.deepEqual(readdirSync(dirname(socket)), [])
  })

  it('is open to all, and says so, if an access list cannot have a user', async t => {
    const folder = mkdtempSync('/dev/shm/userdma-users-')
    t.after(() => rmSync(folder, { recursive: true }))
    chmodSync(folder, 0o755)
    const socket = join(folder, 'sock')
    // A user namespace has no number for NOBODY, so that no list can have it.
    const namespace = ['--user', '--map-root-user', userdma, 'daemon', '--socket', socket, '--allow-user', '7']
    const daemon = start(t, 'unshare', namespace, { env: cleanEnvironment() })
    await daemon.printed(new RegExp(DaemonLine.READY))
    assert.equal(statSync(socket).mode & 0o777, 0o666)
    daemon.child.kill()
    assert.match((await daemon.ended).stderr, /^userdma daemon: every user may connect to \S+, .*EINVAL/)
  })

  it('is tried again while its backlog is full; that of guests keeps no tool of root waiting', async t => {
    const socket = await startDaemonOf(t, 0, ['--allow-user', String(NOBODY)])
    const first = await openToolSession(socket)
    const { daemon } = first
    first.close()
    process.kill(daemon, 'SIGSTOP')
    t.after(() => process.kill(daemon, 'SIGCONT'))
    fillBacklog(socket)
    const channel = await openChannel(socket)
    close(channel.fd)
    fillBacklog(`${socket}.own`)
    // Its first attempt fails before this returns.
    const opening = openToolSession(socket)
    process.kill(daemon, 'SIGCONT')
    const session = await opening
    assert.equal(session.daemon, daemon)
    session.close()
  })

  it('refuses --allow-user with an unknown name', async t => {
    const { status, stderr } = await runUserdma(t, ['daemon', '--allow-user', 'no such user'])
    assert.equal(status, 2)
    assert.match(stderr, /^userdma: --allow-user "no such user": there is no such user; give a name or a number/)
  })
})

describe('a daemon of another user', { skip: noOtherUser() || lacking('setpriv') }, () => {
  it('is not trusted by programs, tools and the library', async t => {
    const socket = await startDaemonOf(t, NOBODY)
    const program = await findDevices(t, socket)
    assert.equal(program.stdout, 'False\n')
    assert.equal(
      program.stderr,
      `userdma: the daemon at ${socket}: it runs as user ${NOBODY}, who could read and change this program's memory; only daemons of root and of user 0 are used: start one of your own (\`userdma run --private\`)\n`,
    )
    const tool = await runUserdma(t, ['stat', '--socket', socket])
    assert.equal(tool.status, 1)
    assert.match(
      tool.stderr,
      new RegExp(`^userdma: ${socket} is served by user ${NOBODY} \\(process \\d+\\), who could `),
    )
    const { stdout } = await run(t, process.execPath, ['-e', OPEN_SCRIPT, socket], { cwd: repoRoot })
    assert.match(stdout, new RegExp(`^open: .* is served by user ${NOBODY} `))
  })

  it('refuses --allow-user', async t => {
    const { status, stderr } = await runUserdmaAsNobody(t, ['daemon', '--allow-user', '0'])
    assert.equal(status, 2)
    assert.match(stderr, /^userdma: --allow-user and --allow-group are for root's daemon/)
  })
})

describe('the socket of a daemon', () => {
  it('must not be in a folder that others may write to', async t => {
    const folder = join(temporaryFolder(t), 'shared')
    mkdirSync(folder)
    for (const mode of [0o1777, 0o770]) {
      chmodSync(folder, mode)
      const { status, stderr } = await runUserdma(t, ['daemon', '--socket', join(folder, 'sock')])
      assert.equal(status, 1)
      assert.match(
        stderr,
        /^userdma: socket .*: others may write to .*, so other users could replace .*; take a folder that only you can write to/,
      )
      assert.deepEqual(readdirSync(folder), [])
    }
  })

  it('and the files beside it have modes independent of the umask', async t => {
    const folder = temporaryFolder(t)
    const umask = process.umask(0o777)
    const daemon = start(t, userdma, ['daemon', '--socket', join(folder, 'sock')], { env: cleanEnvironment() })
    process.umask(umask)
    await daemon.printed(new RegExp(DaemonLine.READY))
    const mode = (...path: readonly string[]): number => statSync(join(folder, ...path)).mode & 0o777
    assert.equal(mode('sock'), 0o600)
    for (const path of ['', 'dev', 'dev/infiniband', 'sys/class/infiniband/rxe0/ports/1/hw_counters'])
      assert.equal(mode('sock.tree', path), 0o755, path)
    assert.equal(mode('sock.tree/dev/infiniband/uverbs0'), 0o644)
    assert.equal(mode('sock.tree/sys/class/infiniband/rxe0/node_guid'), 0o444)
    assert.equal(mode('sock.tree/sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts'), 0o444)
  })

  it('is locked by one start at a time, and a waiting start ends on SIGTERM', async t => {
    const folder = temporaryFolder(t)
    const socket = join(folder, 'sock')
    const lock = await takeLock(`${socket}.lock`)
    const daemon = start(t, userdma, ['daemon', '--socket', socket], { env: cleanEnvironment() })
    const descriptors = `/proc/${daemon.child.pid}/fd`
    const hasOpenedLock = (): boolean =>
      readdirSync(descriptors).some(fd => {
        try {
          return readlinkSync(join(descriptors, fd)) === `${socket}.lock`
        } catch {
          return false
        }
      })
    await until(hasOpenedLock, () => 'the daemon does not open the lock')
    daemon.child.kill('SIGTERM')
    const { status, stdout } = await daemon.ended
    assert.deepEqual([status, stdout], [0, ''])
    lock.release()
    assert.deepEqual(readdirSync(folder), [])
  })
})
