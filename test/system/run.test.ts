/*
 * `userdma run`, `daemon`, `stat`, `devices` and `demo` as a user calls them.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { openToolSession } from '../../src/daemon/client/tool-session.ts'
import { close, listen } from '../../src/host/net/sockets.ts'
import { open } from '../../src/library/index.ts'
import { RXE_DRIVER_ID } from '../../src/spec/drivers/rxe.ts'
import { DaemonLine } from '../../src/spec/session.ts'
import { until } from '../limits.ts'
import { casesOf } from '../long-run.ts'
import { loopbackText } from '../loopback.ts'
import {
  cleanEnvironment,
  lacking,
  ownProgram,
  run,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  temporaryFolder,
  userdma,
} from './programs.ts'

/** A user without a daemon; `socket`: the path of the socket that `userdma run` will create. */
const freshUser = (t: Scope): { env: NodeJS.ProcessEnv; folder: string; socket: string } => {
  const folder = temporaryFolder(t)
  return { env: cleanEnvironment({ XDG_RUNTIME_DIR: folder }), folder, socket: join(folder, 'userdma', 'sock') }
}

const shell = (script: string): string[] => ['--', 'sh', '-c', script]

const NAMESPACES = ['--user', '--map-root-user', '--pid', '--fork', '--mount-proc']

/** The reason why programs cannot have user and PID namespaces here; false if they can. */
const whyNoNamespaces = (): string | false =>
  lacking('unshare', ownProgram('loopback')) ||
  (spawnSync('unshare', [...NAMESPACES, 'true']).status !== 0 && 'this system allows programs no namespaces')

/** The reason why a program cannot have mounts of its own here; false if it can. */
const whyNoMounts = (): string | false =>
  lacking('unshare', 'ibv_devices') ||
  (spawnSync('unshare', ['--mount', 'true']).status !== 0 && 'only root may mount, and not in every container')

/** Waits until the daemon has removed its socket or folder: a query would keep the daemon alive. */
const untilRemoved = (path: string): Promise<void> =>
  until(
    () => !existsSync(path),
    () => `${path} still exists`,
  )

describe('userdma run', { skip: lacking('ibv_devices') }, () => {
  it('passes the certificates for Node.js on, which its own processes do not read', async t => {
    const { env } = freshUser(t)
    const report = 'console.log(process.env.NODE_EXTRA_CA_CERTS, process.env.USERDMA_CERTIFICATES)'
    const command = ['run', '--private', '--', process.execPath, '-e', report]
    for (const given of [undefined, '', '/nowhere'])
      assert.deepEqual(
        await runUserdma(t, command, { env: { ...env, NODE_EXTRA_CA_CERTS: given } }).then(({ stdout }) => stdout),
        `${given} undefined\n`,
      )
  })

  it("passes the program's input, output and status on", async t => {
    const { env } = freshUser(t)
    const result = await run(t, 'sh', ['-c', `echo in | "$0" run -- sh -c 'cat; echo err >&2; exit 42'`, userdma], {
      env,
    })
    assert.equal(result.status, 42)
    assert.equal(result.stdout, 'in\n')
    assert.equal(result.stderr, 'err\n')
  })

  it('passes all descriptors on, at their numbers, and no others', async t => {
    const { env, folder } = freshUser(t)
    writeFileSync(join(folder, 'in'), 'three\n')
    const redirections = '3<in 4<&- 5<&- 6<&- 7>out 8<&- 9<&-'
    const program =
      'read -r line <&3; echo "$line" >&7; for fd in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$fd ] && echo $fd; done; :'
    const script = `exec ${userdma} run --private -- sh -c '${program}' ${redirections}`
    const { status, stdout } = await run(t, 'sh', ['-c', script], { env, cwd: folder })
    assert.deepEqual([status, stdout, readFileSync(join(folder, 'out'), 'utf8')], [0, '3\n7\n', 'three\n'])
  })

  it('ends by the signal that ended the program, as timeout and strace do', async t => {
    const { env } = freshUser(t)
    const signals = ['SIGINT', 'SIGKILL', 'SIGSEGV', 'SIGTERM', 'SIGPIPE', 'SIGUSR1'] as const
    for (const signal of casesOf(signals, (_, i) => i < 3)) {
      const ended = await runUserdma(t, ['run', ...shell(`ulimit -c 0; kill -${signal.slice(3)} $$`)], { env })
      assert.deepEqual([ended.signal, ended.status, ended.stderr], [signal, null, ''])
    }
  })

  it('ends at Ctrl-C with the shell that runs it', { skip: lacking('bash') }, async t => {
    const { env } = freshUser(t)
    const script = `"$0" run -- sh -c 'echo ready; exec sleep 60'; echo continued`
    const running = start(t, 'bash', ['-c', script, userdma], { env, detached: true })
    await running.printed(/ready/)
    // The signal is sent to the process group, as by a terminal.
    process.kill(-running.child.pid!, 'SIGINT')
    const { signal, stdout } = await running.ended
    assert.deepEqual([signal, stdout], ['SIGINT', 'ready\n'])
  })

  it('dumps no core of its own', async t => {
    const { env, folder } = freshUser(t)
    const script = `cd "${folder}"; ulimit -c unlimited; "$0" run -- sh -c 'ulimit -c 0; kill -SEGV $$'; echo $?; ls`
    const { stdout } = await run(t, 'sh', ['-c', script, userdma], { env })
    // 139: 128 + SIGSEGV. The folder has no core file.
    assert.equal(stdout, '139\nuserdma\n')
  })

  it('as PID 1, which signals do not end, has status 128+n after signal n ended the program', {
    skip: whyNoNamespaces(),
  }, async t => {
    const { env } = freshUser(t)
    const args = [...NAMESPACES, userdma, 'run', ...shell('kill -15 $$')]
    const { status } = await run(t, 'unshare', args, { env })
    assert.equal(status, 143)
  })

  it('passes options after the program to the program', async t => {
    const { env } = freshUser(t)
    const { stdout } = await runUserdma(t, ['run', 'echo', '--private', '-v', '--', 'x'], { env })
    assert.equal(stdout, '--private -v -- x\n')
  })

  it('passes signals on', async t => {
    const { env } = freshUser(t)
    for (const signal of ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const) {
      const script = `
        const timer = setInterval(() => {}, 1000)
        process.on('${signal}', () => { console.log('got ${signal}'); process.exitCode = 5; clearInterval(timer) })
        console.log('ready')`
      const running = start(t, userdma, ['run', '--', process.execPath, '-e', script], {
        env,
        detached: true,
      })
      await running.printed(/ready/)
      running.child.kill(signal)
      const { status, stdout } = await running.ended
      assert.match(stdout, new RegExp(`got ${signal}`))
      assert.equal(status, 5)
    }
  })

  it('starts a daemon that ends with its last client', async t => {
    const { env, socket } = freshUser(t)
    const { stdout } = await runUserdma(
      t,
      ['run', ...shell(`ibv_devices; echo $USERDMA_SOCKET; "${userdma}" devices`)],
      {
        env,
      },
    )
    assert.match(stdout, /rxe0 +\t00007ffffe000001/)
    assert.match(stdout, /\nrxe0 .* 127\.0\.0\.1\n$/)
    assert.ok(stdout.includes(socket))
    await untilRemoved(socket)
    assert.equal(statSync(join(socket, '..')).mode & 0o777, 0o700)
  })

  it('joins the daemon of an adapter that it has started, whose PCI function it did not name', async t => {
    const { env, socket } = freshUser(t)
    const device = ['--device', `mlx5_0@${loopbackText(2)},driver=mlx5`]
    const { status, stderr } = await runUserdma(t, ['run', ...device, '--', 'ibv_devices'], { env })
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
    await untilRemoved(socket)
  })

  it('tells of devices with the name of an adapter and the driver rxe, which nobody has asked for', async t => {
    const devices = [
      'efa0@127.0.0.1',
      'mlx5_0@127.0.0.2,pci=0000:81:00.0',
      'mlx5_1@127.0.0.3,driver=rxe',
      'rxe0@127.0.0.4',
    ]
    const options = ['--private', ...devices.flatMap(device => ['--device', device])]
    const { stderr } = await runUserdma(t, ['run', ...options, '--', 'true'])
    assert.equal(
      stderr,
      'userdma: efa0: driver rxe (for libefa: driver=efa)\nuserdma: mlx5_0: driver rxe (for libmlx5: driver=mlx5)\n',
    )
  })

  it('shows devices in lists of the folders above them', { skip: lacking('find') }, async t => {
    const script = 'echo /sys/class/infiniband_v* /dev/infiniband/u*; find /dev -type c -name uverbs0'
    // Not below /dev, which is listed.
    const env = cleanEnvironment({ TMPDIR: '/tmp' })
    const { stdout } = await runUserdma(t, ['run', '--private', ...shell(script)], { env })
    const nodes = ['umad0', 'userdma', 'uverbs0'].map(name => `/dev/infiniband/${name}`)
    assert.equal(stdout, `${['/sys/class/infiniband_verbs', ...nodes].join(' ')}\n/dev/infiniband/uverbs0\n`)
  })

  it('removes its temporary log if a signal ends it while the daemon starts', async t => {
    const { env, socket } = freshUser(t)
    const folder = join(socket, '..')
    const logs = (): string[] =>
      existsSync(folder) ? readdirSync(folder).filter(name => /^daemon\.log\./.test(name)) : []
    const starting = start(t, userdma, ['run', ...shell('echo started')], { env })
    await until(
      () => logs().length > 0,
      () => 'no daemon starts',
    )
    starting.child.kill('SIGTERM')
    const { signal, stdout } = await starting.ended
    assert.deepEqual({ signal, stdout, logs: logs() }, { signal: 'SIGTERM', stdout: '', logs: [] })
    // The daemon that was started has a client now, and ends with it.
    assert.equal((await runUserdma(t, ['run', '--', 'true'], { env })).status, 0)
    await untilRemoved(socket)
    assert.deepEqual(logs(), [])
  })

  it('does not keep a pipeline waiting for the daemon', async t => {
    const { env } = freshUser(t)
    const folder = temporaryFolder(t)
    const joined = join(folder, 'joined')
    const script = `"$0" run -- sh -c 'echo ready >&2; until [ -e ${joined} ]; do :; done; echo quick' | cat`
    const pipeline = start(t, 'sh', ['-c', script, userdma], { env })
    await pipeline.printed(/ready/)
    const holder = start(t, userdma, ['run', ...shell('echo here; read x')], { env, stdio: ['pipe', 'pipe', 'pipe'] })
    await holder.printed(/here/)
    writeFileSync(joined, '')
    // The daemon outlives the pipeline that started it, and must have closed the pipes.
    assert.equal((await pipeline.ended).stdout, 'quick\n')
    holder.child.stdin?.end('x\n')
    assert.equal((await holder.ended).status, 0)
  })

  it('joins a running daemon', async t => {
    const { env, socket } = freshUser(t)
    const holder = start(t, userdma, ['run', ...shell('echo here; read x')], { env, stdio: ['pipe', 'pipe', 'pipe'] })
    await holder.printed(/here/)
    const client = await openToolSession(socket)
    const results = await Promise.all(
      Array.from({ length: 4 }, () => runUserdma(t, ['run', ...shell(`"${userdma}" stat --json`)], { env })),
    )
    for (const { stdout, stderr } of results) assert.equal(JSON.parse(stdout).pid, client.daemon, stderr)
    client.close()
    holder.child.stdin?.end('x\n')
    assert.equal((await holder.ended).status, 0)
  })

  it('starts one daemon for many programs that start at the same time', async t => {
    const { env, socket } = freshUser(t)
    // Each program waits until all are connected: else the first daemon might end before the last program starts.
    const folder = temporaryFolder(t)
    const script = `touch "${folder}/$$"; while [ "$(ls "${folder}" | wc -l)" -lt 6 ]; do :; done; "${userdma}" stat --json`
    const results = await Promise.all(
      Array.from({ length: 6 }, () => runUserdma(t, ['run', ...shell(script)], { env })),
    )
    const pids = results.map(({ status, stdout, stderr }) => {
      assert.equal(status, 0, stderr)
      return (JSON.parse(stdout) as { pid: number }).pid
    })
    assert.equal(new Set(pids).size, 1, pids.join(' '))
    await untilRemoved(socket)
  })

  it('refuses a running daemon that has other devices or faults', async t => {
    const daemon = await startDaemon(t, { fault: 'drop=0.01' })
    const runWith = (...args: string[]) =>
      runUserdma(t, ['run', '--socket', daemon.socket, ...args, '--', 'echo', 'joined'])
    const theDaemon = `^userdma: the daemon at ${daemon.socket} \\(process ${daemon.pid}\\)`
    const devices = await runWith('--device', 'rxe5@127.0.0.1')
    assert.match(devices.stderr, new RegExp(`${theDaemon} has rxe0@127.0.0.1, not rxe5@127.0.0.1; use --private`))
    assert.equal(devices.status, 1)
    const faults = await runWith('--fault', 'drop=0.5')
    assert.match(faults.stderr, new RegExp(`${theDaemon} has faults drop=0.01, not drop=0.5; use --private`))
    assert.equal((await runWith('--fault', 'drop=0.010', '--device', 'rxe0@127.0.0.1')).stdout, 'joined\n')
    assert.equal((await runWith()).stdout, 'joined\n')
  })

  it('stops and removes the private daemon that it has started', async t => {
    const { env, folder } = freshUser(t)
    const tmp = temporaryFolder(t)
    const args = ['run', '--private', '--device', 'rxe7@127.0.0.7', '--fault', 'seed=3,drop=0.5']
    const { status, stdout, stderr } = await runUserdma(t, [...args, ...shell(`"${userdma}" devices; ls "${tmp}"`)], {
      env: { ...env, TMPDIR: tmp },
    })
    assert.equal(status, 0, stderr)
    assert.match(stdout, /\nrxe7 .* 127\.0\.0\.7\nuserdma-private-\w+\n$/)
    assert.deepEqual(readdirSync(tmp), [])
    assert.deepEqual(readdirSync(folder), [])
  })

  it('leaves nothing of its private daemon when it is killed', async t => {
    const tmp = temporaryFolder(t)
    const env = cleanEnvironment({ TMPDIR: tmp })
    const running = start(t, userdma, ['run', '--private', ...shell('echo $USERDMA_SOCKET; read x')], {
      env,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const [socket] = await running.printed(/\/.*sock/)
    running.child.kill('SIGKILL')
    await running.ended
    await untilRemoved(join(socket, '..'))
    assert.deepEqual(readdirSync(tmp), [])
  })

  it('prints a message if the daemon exits while the program runs', async t => {
    const tmp = temporaryFolder(t)
    const env = cleanEnvironment({ TMPDIR: tmp })
    const script = `kill -9 $("${userdma}" stat --json | sed -n 's/^  "pid": \\([0-9]*\\),/\\1/p'); "${userdma}" stat`
    const { status, stderr } = await runUserdma(t, ['run', '--private', ...shell(script)], { env })
    assert.equal(status, 1)
    assert.match(stderr, /userdma: the daemon at .* \(process \d+\) ended while sh was running\n/)
    assert.deepEqual(readdirSync(tmp), [])
  })

  it('says if libibverbs lacks the provider of the devices, after a program that has opened none', {
    skip: whyNoMounts(),
  }, async t => {
    const { socket } = await startDaemon(t)
    // As on a machine without ibverbs-providers.
    const hide =
      'for d in /usr/lib/*/libibverbs /usr/lib64/libibverbs /etc/libibverbs.d; do [ ! -d $d ] || mount -t tmpfs none $d; done'
    const under = ['--mount', 'sh', '-c', `${hide}; exec "$@"`, 'sh', userdma, 'run', '--socket', socket, '--']
    const line =
      /^userdma: no device of the daemon at \S+: libibverbs \(\S+\) has no provider for rxe0, librxe-rdmav\*\.so; /
    const stderrOf = async (command: string, ...args: string[]): Promise<string> =>
      (await run(t, command, args, { env: cleanEnvironment() })).stderr
    assert.match(await stderrOf('unshare', ...under, 'ibv_devices'), line)
    assert.equal(await stderrOf('unshare', ...under, 'cat', '/sys/class/infiniband/rxe0/node_guid'), '')
    assert.equal(await stderrOf(userdma, 'run', '--socket', socket, '--', 'ibv_devices'), '')
  })

  it('works in a program that `userdma run` has started', async t => {
    const { env } = freshUser(t)
    const { status, stdout } = await runUserdma(
      t,
      ['run', '--', userdma, 'run', ...shell('echo $LD_PRELOAD; ibv_devices')],
      {
        env,
      },
    )
    assert.equal(status, 0)
    assert.equal([...stdout.matchAll(/libuserdma_shim\.so/g)].length, 1, 'LD_PRELOAD has the library once')
    assert.match(stdout, /rxe0/)
  })

  it('serves programs in user and PID namespaces of their own', { skip: whyNoNamespaces() }, async t => {
    const program = ['unshare', ...NAMESPACES, 'sh', '-c', `echo $$; ${ownProgram('loopback')}`]
    const { status, stdout, stderr } = await runUserdma(t, ['run', '--private', '--', ...program], freshUser(t))
    assert.deepEqual({ status, stdout: stdout.split('\n')[0], stderr }, { status: 0, stdout: '1', stderr: '' })
  })

  it('refuses a socket folder that others may use', async t => {
    const { env, socket } = freshUser(t)
    await runUserdma(t, ['run', '--', 'true'], { env })
    await untilRemoved(socket)
    chmodSync(join(socket, '..'), 0o777)
    const { status, stderr } = await runUserdma(t, ['run', '--', 'true'], { env })
    assert.equal(status, 1)
    assert.match(stderr, /has mode 0777, so that others may use it/)
  })
})

describe('userdma daemon', { skip: lacking() }, () => {
  it('prints when it is ready, and ends in order on signals', async t => {
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGALRM', 'SIGPWR'] as const
    for (const signal of casesOf(signals, (_, i) => i < 3)) {
      const folder = temporaryFolder(t)
      const socket = join(folder, 'sock')
      const args = [
        'daemon',
        '--socket',
        socket,
        '--device',
        'rxe_a@127.0.0.1',
        '--device',
        'rxe_b@::1',
        '--fault',
        'dup=.5',
      ]
      const running = start(t, userdma, args, { env: cleanEnvironment() })
      await running.printed(/\n/)
      assert.equal(running.output(), `${DaemonLine.READY}${socket} (rxe_a@127.0.0.1, rxe_b@::1, faults dup=0.5)\n`)
      running.child.kill(signal)
      const { status, stderr } = await running.ended
      assert.equal(status, 0, stderr)
      assert.deepEqual(readdirSync(folder), [])
    }
  })

  it('refuses a socket in use, and names its owner', async t => {
    const daemon = await startDaemon(t)
    const { status, stderr } = await runUserdma(t, ['daemon', '--socket', daemon.socket])
    assert.equal(status, 1)
    assert.match(
      stderr,
      new RegExp(
        `^userdma: ${daemon.socket} is served already by process ${daemon.pid} \\([\\w-]+\\) with rxe0@127.0.0.1; join it`,
      ),
    )
  })

  it('refuses a socket that another program serves without an answer', async t => {
    const folder = temporaryFolder(t)
    chmodSync(folder, 0o700)
    const socket = join(folder, 'sock')
    const listener = listen(socket)
    t.after(() => close(listener))
    const { status, stderr } = await runUserdma(t, ['daemon', '--socket', socket])
    assert.equal(status, 1)
    assert.match(stderr, new RegExp(`^userdma: socket ${socket} is in use by a running daemon; stop it`))
  })

  it('names the owner of a socket in use also if the address of the device is in use', async t => {
    const device = `rxe0@${loopbackText(93)}`
    const daemon = await startDaemon(t, { devices: [device], link: 'udp' })
    const args = ['daemon', '--link', 'udp', '--device', device, '--socket']
    const { status, stderr } = await runUserdma(t, [...args, daemon.socket])
    assert.equal(status, 1)
    assert.match(stderr, new RegExp(`^userdma: ${daemon.socket} is served already by process ${daemon.pid} `))
    const elsewhere = await runUserdma(t, [...args, join(temporaryFolder(t), 'sock')])
    assert.match(elsewhere.stderr, /^userdma: device rxe0@[\d.]+: UDP port 4791 of [\d.]+ is in use by another program/)
  })

  it('takes over the socket of a killed daemon', async t => {
    const folder = temporaryFolder(t)
    const args = ['daemon', '--socket', join(folder, 'sock')]
    const first = start(t, userdma, args, { env: cleanEnvironment() })
    await first.printed(/ready/)
    first.child.kill('SIGKILL')
    await first.ended
    assert.ok(existsSync(join(folder, 'sock')))
    const second = start(t, userdma, args, { env: cleanEnvironment() })
    await second.printed(/ready/)
    second.child.kill('SIGTERM')
    const { status, stderr } = await second.ended
    assert.equal(status, 0)
    const line = `userdma daemon: process ${second.child.pid} removed the socket and files that an earlier daemon had left`
    assert.equal(stderr, `${line}\n`)
  })

  it('leaves the socket and files of a daemon that has taken its path', async t => {
    const folder = temporaryFolder(t)
    const socket = join(folder, 'sock')
    const start1 = async () => {
      const daemon = start(t, userdma, ['daemon', '--socket', socket], { env: cleanEnvironment() })
      await daemon.printed(/ready/)
      return daemon
    }
    const first = await start1()
    const client = await openToolSession(socket)
    unlinkSync(socket)
    const second = await start1()
    await client.changeDevices({ add: { name: 'rxe7', address: '127.0.0.7' } })
    client.close()
    first.child.kill('SIGTERM')
    assert.equal((await first.ended).status, 0)
    assert.deepEqual(readdirSync(folder), ['sock', 'sock.tree'])
    assert.deepEqual(readdirSync(join(folder, 'sock.tree/sys/class/infiniband')), ['rxe0'])
    second.child.kill('SIGTERM')
    assert.equal((await second.ended).status, 0)
    assert.deepEqual(readdirSync(folder), [])
  })

  it('opens no inspector of Node.js, neither on SIGUSR1 nor by NODE_OPTIONS', async t => {
    const script = `
      log="$(dirname "$USERDMA_SOCKET")/daemon.log"
      pid=$(sed -n 's/.*process \\([0-9]*\\) serves.*/\\1/p' "$log")
      kill -USR1 "$pid"
      for try in 1 2 3; do ibv_devices > /dev/null; done
      cat "$log"`
    const env = cleanEnvironment({ NODE_OPTIONS: '--inspect-port=0 --inspect=127.0.0.1:0' })
    const { status, stdout } = await runUserdma(t, ['run', '--private', ...shell(script)], { env })
    assert.equal(status, 0)
    assert.match(stdout, /^userdma daemon: process \d+ serves .*\n$/)
  })

  it('leaves programs of Node.js their inspector', async t => {
    const script = `
      const waiting = setInterval(() => {
        if (require('node:inspector').url() !== undefined) clearInterval(waiting)
      }, 1)
      process.kill(process.pid, 'SIGUSR1')`
    const words = [process.execPath, '--inspect-port=0', '-e', script]
    const { status, stderr } = await runUserdma(t, ['run', '--private', '--', ...words])
    assert.equal(status, 0)
    assert.match(stderr, /^Debugger listening on /)
  })

  it('continues after its output was closed', async t => {
    const { env, socket, folder } = freshUser(t)
    await run(t, 'mkdir', ['-m', '700', join(folder, 'userdma')])
    const running = start(t, userdma, ['daemon'], { env })
    await running.printed(/ready/)
    running.child.stdout?.destroy()
    running.child.stderr?.destroy()
    const device = await open({ socket })
    const [pd, cq] = [device.pd(), device.cq()]
    const [qp, peer] = [pd.rcQp({ sendCq: cq }), pd.rcQp({ sendCq: cq })]
    qp.connect(peer.endpoint)
    peer.connect(qp.endpoint)
    // The log gets a line about this failure.
    qp.write(new Uint8Array(8), { address: 0n, rkey: 5, length: 8 })
    await cq.wait()
    assert.equal(qp.state, 'ERR')
    await device.close()
    const client = await openToolSession(socket)
    assert.equal((await client.stat()).sessions, 0)
    client.close()
  })
})

describe('userdma stat and devices', { skip: lacking() }, () => {
  it('stat shows sessions and objects, as text and as JSON', async t => {
    const daemon = await startDaemon(t)
    const text = await runUserdma(t, ['stat', '--socket', daemon.socket])
    assert.equal(text.status, 0)
    assert.match(text.stdout, new RegExp(`^daemon ${daemon.pid} at ${daemon.socket}\n`))
    assert.match(text.stdout, /^ {2}sessions {5}0\n/m)
    assert.match(text.stdout, /^device rxe0 at 127\.0\.0\.1\n {2}objects {6}none\n/m)
    const json = await runUserdma(t, ['stat', '--socket', daemon.socket, '--json'])
    assert.equal(JSON.parse(json.stdout).devices[0].name, 'rxe0')
  })

  it('devices finds the daemon by the environment of a program', async t => {
    const daemon = await startDaemon(t)
    const { stdout } = await run(t, userdma, ['devices', '--json'], { env: daemon.env })
    const [{ name, address, driverId, nodeType, classes, ...rest }, ...more] = JSON.parse(stdout)
    assert.deepEqual([name, address, driverId, nodeType, more], ['rxe0', '127.0.0.1', RXE_DRIVER_ID, 'CA', []])
    assert.ok(classes.includes('rc_qp') && rest.index === 0)
    const text = await run(t, userdma, ['devices'], { env: daemon.env })
    assert.match(
      text.stdout,
      /^device {2}node {5}type {2}driver {2}ports {2}node GUID +address\nrxe0 {4}uverbs0 {2}CA {4}rxe {5}1 /,
    )
  })
})

describe('userdma demo', { skip: lacking('ibv_devinfo', 'ibv_rc_pingpong') }, () => {
  it('shows device, exchange, calls and packets', async t => {
    const tmp = temporaryFolder(t)
    const { status, stdout, stderr } = await runUserdma(t, ['demo'], { env: cleanEnvironment({ TMPDIR: tmp }) })
    assert.equal(status, 0, stderr)
    assert.equal(stderr, '')
    assert.match(stdout, /^ {4}hca_id:\trxe0$/m)
    assert.equal([...stdout.matchAll(/^ {4}4 iters in /gm)].length, 2)
    assert.match(stdout, /^ +[\d.]+ {2}client +rc_qp\.modify\(object \d+, state RTS/m)
    assert.match(stdout, /^ +[\d.]+ {2}client → server {2}▪ SEND_FIRST qp 0x\w+ psn 0x\w+ 1024 B$/m)
    assert.match(stdout, /^ +[\d.]+ {2}client → server {2}▪ ACKNOWLEDGE qp 0x\w+ psn 0x\w+ ACK msn 1$/m)
    assert.match(stdout, /has 0 open contexts and 0 objects/)
    for (const line of stdout.split('\n')) assert.ok(line.length <= 100, line)
    assert.deepEqual(readdirSync(tmp), [])
  })

  it('leaves nothing behind if a signal ends it', async t => {
    const tmp = temporaryFolder(t)
    const demo = start(t, userdma, ['demo'], { env: cleanEnvironment({ TMPDIR: tmp }), detached: true })
    await demo.printed(/2\. Two programs exchange data/)
    process.kill(-demo.child.pid!, 'SIGINT')
    assert.equal((await demo.ended).signal, 'SIGINT')
    for (const name of readdirSync(tmp)) await untilRemoved(join(tmp, name))
  })

  it('ends its server when a signal ends it alone', async t => {
    const folder = temporaryFolder(t)
    const [server, pidFile] = [join(folder, 'ibv_rc_pingpong'), join(folder, 'pid')]
    writeFileSync(server, `#!/bin/sh\necho $$ > ${pidFile}.new\nmv ${pidFile}.new ${pidFile}\nexec sleep 60\n`)
    chmodSync(server, 0o755)
    const demo = start(t, userdma, ['demo'], { env: cleanEnvironment({ PATH: `${folder}:${process.env.PATH}` }) })
    while (!existsSync(pidFile)) {
      assert.equal(demo.child.exitCode, null, demo.output())
      await new Promise(resolve => setImmediate(resolve))
    }
    demo.child.kill('SIGTERM')
    assert.equal((await demo.ended).signal, 'SIGTERM')
    await untilRemoved(`/proc/${readFileSync(pidFile, 'utf8').trim()}`)
  })

  it('connects two queue pairs in one process if the programs are missing', async t => {
    const folder = temporaryFolder(t)
    await run(t, 'ln', ['-s', process.execPath, join(folder, 'node')])
    const { status, stdout, stderr } = await runUserdma(t, ['demo'], { env: { PATH: folder } })
    assert.equal(status, 0, stderr)
    assert.match(stdout, /SEND_FIRST qp (0x\w+) psn 0x\w+ 1024 B\n.*SEND_LAST qp \1 psn 0x\w+ A 976 B\n.*ACKNOWLEDGE/)
    assert.match(stdout, /all 2000 bytes arrived/)
    assert.match(
      stdout,
      /What was left out\n[\s\S]*ibv_devinfo and ibv_rc_pingpong \(Debian: apt-get install ibverbs-utils/,
    )
  })
})

describe('the package', () => {
  it('starts the demo with npm start', () => {
    const { scripts } = JSON.parse(readFileSync(join(userdma, '..', '..', 'package.json'), 'utf8'))
    assert.match(scripts.start, /main\.js demo$/)
  })
})
