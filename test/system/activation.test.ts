/*
 * A daemon that systemd starts when a client connects (sd_listen_fds(3)). The tests pass the socket as systemd does.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { programEnvironment } from '../../src/cli/program/program.ts'
import { allowConnects } from '../../src/host/net/socket-access.ts'
import { close, listen } from '../../src/host/net/sockets.ts'
import { repoRoot } from '../paths.ts'
import { findTool } from '../tools.ts'
import {
  assertGood,
  cleanEnvironment,
  lacking,
  NOBODY,
  noOtherUser,
  type Running,
  run,
  runUserdma,
  type Scope,
  start,
  temporaryFolder,
  userdma,
} from './programs.ts'

/** Starts `userdma daemon` with `fd` as descriptor 3. `pid`: a word of the shell. */
const activate = (t: Scope, fd: number, args: readonly string[], { count = '1', pid = '$$' } = {}): Running =>
  start(t, 'sh', ['-c', `LISTEN_PID=${pid} exec "$0" daemon "$@"`, userdma, ...args], {
    env: cleanEnvironment({ LISTEN_FDS: count }),
    stdio: ['ignore', 'pipe', 'pipe', fd],
  })

describe('a socket of systemd', { skip: lacking('ibv_devices') }, () => {
  it('is served by one daemon after the other, and is not removed', async t => {
    const folder = temporaryFolder(t)
    const socket = join(folder, 'sock')
    const fd = listen(socket)
    t.after(() => close(fd))
    for (const device of ['rxe0', 'rxe7']) {
      // The client connects before a daemon runs.
      const client = runUserdma(t, ['run', '--socket', socket, '--', 'ibv_devices'])
      const daemon = await activate(t, fd, ['--device', `${device}@127.0.0.1`, '--end-with-last-client']).ended
      assert.equal(daemon.status, 0, daemon.stderr)
      assert.ok(daemon.stdout.includes(`ready on ${socket} `), daemon.stdout)
      const { status, stdout, stderr } = await client
      assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
      assert.ok(stdout.includes(device), stdout)
      assert.ok(existsSync(socket))
      assert.ok(!existsSync(`${socket}.tree`))
    }
  })

  it('is served until `userdma stop`, also from another PID namespace, which signals no process', async t => {
    const folder = temporaryFolder(t)
    const socket = join(folder, 'sock')
    // The kernel names this process as the other end of the sockets.
    const fd = listen(socket)
    t.after(() => close(fd))
    const hasNamespaces = spawnSync('unshare', ['--pid', '--fork', 'true']).status === 0
    const signals: string[] = []
    const onSignal = (signal: string): void => void signals.push(signal)
    process.on('SIGTERM', onSignal)
    t.after(() => process.off('SIGTERM', onSignal))
    for (const prefix of hasNamespaces ? [[], ['unshare', '--pid', '--fork']] : [[]]) {
      const daemon = activate(t, fd, [])
      await daemon.printed(/ready on /)
      const [command = userdma, ...args] = [...prefix, userdma, 'stop', '--socket', socket]
      const stopped = await start(t, command, args, { env: cleanEnvironment() }).ended
      assert.deepEqual([stopped.status, stopped.stderr], [0, ''])
      assert.equal((await daemon.ended).status, 0)
    }
    assert.deepEqual(signals, [])
    assert.ok(existsSync(socket))
  })

  it('for another process is left alone', async t => {
    const folder = temporaryFolder(t)
    const fd = listen(join(folder, 'passed'))
    t.after(() => close(fd))
    const socket = join(folder, 'sock')
    const daemon = activate(t, fd, ['--socket', socket], { pid: '1' })
    await daemon.printed(/ready on .*\/sock /)
    daemon.child.kill()
    await daemon.ended
    assert.ok(!existsSync(socket))
  })

  it('of another kind, and one of two sockets, are refused', async t => {
    const fd = openSync('/dev/null', 'r')
    t.after(() => close(fd))
    const wrong = await activate(t, fd, []).ended
    assert.match(wrong.stderr, /^userdma: the socket that was passed .* use ListenSequentialPacket=\/PATH\n$/)
    const two = await activate(t, fd, [], { count: '2' }).ended
    assert.match(two.stderr, /^userdma: 2 sockets were passed .*\n$/)
    assert.deepEqual([wrong.status, two.status], [1, 1])
  })
})

/** Values of the unit of the system, by name. */
const unit = new Map(
  [
    ...readFileSync(join(repoRoot, 'scripts/package/systemd/system/userdma.service'), 'utf8').matchAll(
      /^(\w+)=(.*)$/gm,
    ),
  ].map(([, name, value]) => [name, value]),
)

describe("the system's unit", {
  skip:
    lacking('ibv_rc_pingpong') ||
    (['setpriv', 'unshare'].every(name => findTool(name)) ? noOtherUser() : 'setpriv or unshare is missing'),
}, () => {
  // RestrictNamespaces, RestrictAddressFamilies and SystemCallFilter are seccomp's, which no tool here can install.
  it('leaves the daemon what it needs to serve other users: capabilities, and one folder to write to', async t => {
    assert.deepEqual(
      ['NoNewPrivileges', 'ProtectSystem', 'ReadWritePaths'].map(name => unit.get(name)),
      ['yes', 'strict', '-/run/userdma'],
    )
    const folder = mkdtempSync('/run/userdma-test-')
    t.after(() => rmSync(folder, { recursive: true }))
    chmodSync(folder, 0o755)
    const socket = join(folder, 'sock')
    const fd = listen(socket)
    // As a daemon that served another user, and was killed, leaves a socket that everyone could reach.
    assert.equal(allowConnects(socket, { users: [1], groups: [] }), undefined)
    t.after(() => close(fd))
    const capabilities = unit.get('CapabilityBoundingSet')?.toLowerCase().replaceAll('cap_', '+').replaceAll(' ', ',')
    // The folder of this checkout stays, also below /tmp.
    const script = `cd ${repoRoot}; mount --bind ${folder} ${folder}; mount -o remount,bind,ro /; mount -t tmpfs tmpfs /tmp
      [ -e ${repoRoot} ] || { mkdir -p ${repoRoot}; mount -c --bind . ${repoRoot}; }; cd /
      touch ${folder}/writable; touch /run/userdma-writable 2>/dev/null && exit 3
      LISTEN_PID=$$ exec setpriv --no-new-privs --bounding-set=-all,${capabilities} "$0" daemon --allow-user=${NOBODY}`
    const daemon = start(t, 'unshare', ['--mount', 'sh', '-ec', script, userdma], {
      env: cleanEnvironment({ LISTEN_FDS: '1' }),
      stdio: ['ignore', 'pipe', 'pipe', fd],
    })
    await daemon.printed(/ready on /)
    const modes = () => [socket, `${socket}.own`].map(path => existsSync(path) && statSync(path).mode & 0o777)
    assert.deepEqual(modes(), [0o660, 0o600])
    const pair = 'ibv_rc_pingpong -g 1 -n 5 & until ibv_rc_pingpong -g 1 -n 5 localhost 2>/dev/null; do :; done; wait'
    const asNobody = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', 'sh', '-c', pair]
    const finished = await run(t, 'setpriv', asNobody, { env: programEnvironment(socket) })
    assertGood(finished)
    assert.equal([...finished.stdout.matchAll(/5 iters/g)].length, 2, finished.stdout)
    daemon.child.kill()
    assert.equal((await daemon.ended).stderr, '')
    assert.deepEqual(modes(), [0o666, false])
  })
})
