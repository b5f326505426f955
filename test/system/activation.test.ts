/*
 * A daemon that systemd starts when a client connects (sd_listen_fds(3)). The tests pass the socket as systemd does.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { close, listen } from '../../src/host/net/sockets.ts'
import {
  cleanEnvironment,
  lacking,
  type Running,
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
