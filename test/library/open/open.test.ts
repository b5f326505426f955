/*
 * `open`, in this process and with a daemon.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { closeSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { describe, mock, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { setGid } from '../../../src/core/devices/gids.ts'
import { driverClass, register } from '../../../src/core/index.ts'
import { openProcess, type ProcessHandle, pidfdGetfd } from '../../../src/host/memory/process.ts'
import { hasNative } from '../../../src/host/native.ts'
import { close, connect } from '../../../src/host/net/sockets.ts'
import { createNetwork, type Device, open } from '../../../src/library/index.ts'
import { contextOf } from '../../../src/library/verbs/device.ts'
import { orElse } from '../../../src/library/verbs/objects/show.ts'
import { ringPool } from '../../../src/library/verbs/remote/file-rings.ts'
import { DeviceAttributes } from '../../../src/spec/classes/device/device.ts'
import { PortAttributes } from '../../../src/spec/classes/device/port.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { zeroRecord } from '../../../src/spec/schema/schema.ts'
import { parseAddress } from '../../../src/transport/wire/address.ts'
import { describeDevice, testClasses, testDriver } from '../../core/fixture.ts'
import { longOnly } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import { libraryUrl } from '../../paths.ts'
import { isEmpty, start, startDaemon, TWO_DEVICES, temporaryFolder } from '../../system/programs.ts'
import { closeAll, completionText, endpointOn, pair } from '../verbs/endpoints.ts'

for (const [link, firstAddress] of [
  ['dgram', 1],
  ['udp', 3],
  ['udp-plain', 5],
] as const)
  test(`devices on sockets of this machine: ${link}`, { skip: link !== 'dgram' && !hasNative() }, async () => {
    const openOn = (n: number) => open({ link, address: loopbackText(firstAddress + n) })
    const { a, b } = await pair(async () => [await openOn(0), await openOn(1)])
    b.qp.receive(b.mr.slice(), 3)
    a.buffer.fill(7)
    a.qp.write(a.mr.slice(0, 4000), b.mr.remote(), { id: 1 })
    a.qp.send(Uint8Array.of(1), { id: 2 })
    assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
    assert.equal(await completionText(a.cq), '2 SEND')
    assert.equal(await completionText(b.cq), '3 RECV')
    // The SEND has overwritten the first byte of the WRITE.
    assert.deepEqual([b.buffer[0], b.buffer[1], b.buffer[3999], b.buffer[4000]], [1, 7, 7, 0])
    assert.ok(a.device.counters().hw_counters.sent_pkts >= 2)
    await assert.rejects(open({ link, address: loopbackText(firstAddress) }), { code: 'EADDRINUSE', call: 'open' })
    await closeAll(a, b)
  })

test('the end of a worker thread closes the sockets of its devices', { skip: !hasNative() }, async () => {
  const address = loopbackText(7)
  const thread = `import('${libraryUrl}').then(async ({ open }) => {
    await open({ link: 'udp', address: '${address}' })
    process.exit()
  })`
  const worker = new Worker(thread, { eval: true })
  await once(worker, 'exit')
  await (await open({ link: 'udp', address })).close()
})

test('the first rkey and qpn are unpredictable, and repeatable with the option `random`', async () => {
  const firstOf = async (random?: () => number): Promise<string> => {
    const { pd, qp, device } = endpointOn(await open({ network: createNetwork(random ? { random } : {}) }))
    const text = `${pd.register(new Uint8Array(8)).rkey} ${qp.qpn}`
    await device.close()
    return text
  }
  assert.equal(await firstOf(() => 7), await firstOf(() => 7))
  const firsts = new Set<string>()
  for (let i = 0; i < 3; i++) firsts.add(await firstOf())
  assert.equal(firsts.size, 3)
  assert.throws(() => createNetwork({ random: 7 as never }), /random/)
  for (const value of [Math.PI, -1, 2 ** 32, Number.NaN, '7' as never])
    await assert.rejects(
      firstOf(() => value),
      { code: 'EINVAL', call: 'createNetwork', reason: /^random returned / },
    )
})

test('a torment that is not a seed is refused', () => {
  for (const torment of [-1, 1.5, 2 ** 32, '7' as never])
    assert.throws(
      () => createNetwork({ torment }),
      /torment .* is not a seed.*a seed is an integer from 0 to 4294967295/,
    )
  assert.throws(
    () => createNetwork({ torment: { seed: 7, only: ['bytes'] } }),
    /torment.only: "bytes" is not the identity of a decision.*KIND\/DEVICE\/PROCESS\/OBJECT\/THING/,
  )
  assert.throws(() => createNetwork({ torment: { seed: 7, count: 3 } as never }), /torment.*count/)
})

test('a device that cannot be opened is refused with a message', async t => {
  const network = createNetwork()
  const device = await open({ network, name: 'one' })
  await assert.rejects(open({ network, name: 'one' }), { code: 'EEXIST' })
  for (const [address, reason] of [
    ['0.0.0.0', /is the unspecified address$/],
    ['::', /is the unspecified address$/],
    ['224.0.0.1', /is a multicast or reserved address$/],
    ['ff02::1', /is a multicast address$/],
  ] as const)
    await assert.rejects(open({ network, address }), { code: 'EINVAL', call: 'open', reason })
  await assert.rejects(open({ address: 'here' }), /address "here" is not an IPv4 or IPv6 address/)
  await assert.rejects(open({ device: 'rxe0' }), /pass socket for a device of a daemon, or network/)
  await assert.rejects(open({ socket: '/x', network }), /has its own network/)
  await device.close()
  if (!hasNative()) return
  const socket = join(temporaryFolder(t), 'sock')
  await assert.rejects(open({ socket }), { code: 'ECONNREFUSED', hint: /userdma daemon --socket/ })
  await assert.rejects(open({ socket: `/${'x'.repeat(107)}` }), { code: 'EINVAL', reason: /^socket path .* 1 to 107/ })
})

test('an `open` that the driver refuses leaves no context', async () => {
  const network = createNetwork()
  let contexts: ReadonlySet<unknown> = new Set()
  network.addDevice(core => {
    const query = (): never => {
      throw new CallError('ENODATA', 'the firmware does not answer')
    }
    const otherClasses = testClasses.filter(cls => cls.class !== Classes.device)
    const driver = testDriver([...otherClasses, driverClass(Classes.device, { query })])
    const device = register(core, describeDevice('test0', driver))
    contexts = device.contexts
    return device as never
  })
  for (let i = 0; i < 2; i++)
    await assert.rejects(open({ network, device: 'test0' }), { code: 'ENODATA', call: 'device.query' })
  assert.equal(contexts.size, 0)
})

test('the local GID of a path is one of port 1: if only port 2 has a GID, it is zero', async () => {
  const network = createNetwork()
  network.addDevice(core => {
    const port = { ...zeroRecord(PortAttributes), gidTblLen: 2 }
    const attributes = { ...zeroRecord(DeviceAttributes), physPortCnt: 2 }
    const driver = { ...testDriver(), link: 'roce' } as const
    const device = register(core, describeDevice('test0', driver, { attributes, ports: [port, port] }))
    const gid = parseAddress('2001:db8::2') as Uint8Array
    setGid(device.ports[1].gids, 1, { gid, type: 0, ifindex: 0 })
    return device as never
  })
  const device = await open({ network, device: 'test0' })
  assert.deepEqual(
    device.gids().map(({ port, index }) => ({ port, index })),
    [{ port: 2, index: 1 }],
  )
  const { gid, gidIndex } = contextOf('test', device).path
  assert.deepEqual({ gid, gidIndex }, { gid: new Uint8Array(16), gidIndex: 0 })
  await device.close()
})

test('limits of a new device are lower than its own, and refused with the values', async () => {
  const device = await open({ limits: { max_qp: 2, max_pinned: 8192 } })
  assert.equal((await device.query()).maxQp, 2)
  const pd = device.pd()
  const region = pd.register(new Uint8Array(4096))
  assert.throws(() => pd.register(new Uint8Array(8192)), { code: 'ENOMEM' })
  region.close()
  pd.rcQp()
  pd.rcQp()
  assert.throws(() => pd.rcQp(), /2 queue pairs are in use, of 2 \(max_qp\)/)
  await device.close()
  for (const [limits, message] of [
    [7, /limits 7 is no record/],
    [{ max_qps: 1 }, /limits: there is no max_qps \(EINVAL\); there are max_qp, /],
    [{ max_qp: 0 }, /limits: max_qp="0": give a number from 1 to 2147483647/],
    [{ max_qp: '1' }, /limits: max_qp "1" is not a number/],
    [{ max_qp: 1e6 }, /max_qp=1000000 is above 131072, the limit of the device itself/],
  ] as const)
    await assert.rejects(open({ limits: limits as object }), message)
})

test('default names and addresses are not those of other devices of the network', async () => {
  const network = createNetwork()
  const chosen = await open({ network, name: 'rxe1', address: '127.0.0.2' })
  const devices = [chosen, await open({ network }), await open({ network })]
  assert.deepEqual(
    devices.map(({ name, address }) => `${name} ${address}`),
    ['rxe1 127.0.0.2', 'rxe2 127.0.0.3', 'rxe3 127.0.0.4'],
  )
  for (const device of devices) await device.close()
})

describe('a daemon', { skip: !hasNative() && 'koffi is missing' }, () => {
  test('that ends wakes waiters; calls and polls are then refused', async t => {
    const daemon = await startDaemon(t)
    const device = await open({ socket: daemon.socket })
    await assert.rejects(open({ socket: daemon.socket, device: 'rxe7' }), /no device rxe7; there are rxe0/)
    const { cq, pd, qp } = endpointOn(device)
    const waiting = cq.wait()
    daemon.running.child.kill('SIGKILL')
    await waiting
    const hint = `start it with \`userdma daemon --socket ${daemon.socket}\`, then open the device again`
    assert.throws(() => pd.window(), { code: 'EIO', hint })
    assert.throws(
      () => {
        for (;;) cq.poll()
      },
      { code: 'EIO', call: 'cq.poll', reason: /has ended$/, hint },
    )
    assert.throws(() => qp.query(), { code: 'EIO' })
    qp.close()
    await device.close()
    await device.close()
    await assert.rejects(open({ socket: daemon.socket }), { code: 'ECONNREFUSED' })
  })

  test('with 64 devices, its maximum, reports the counters of all', { skip: longOnly }, async t => {
    const devices = Array.from({ length: 64 }, (_, i) => `rxe${i}@${loopbackText(i + 1)}`)
    const daemon = await startDaemon(t, { devices })
    const device = await open({ socket: daemon.socket, device: 'rxe63' })
    assert.equal(device.counters().transport.retransmissions, 0)
    await device.close()
    const stat = await daemon.stat()
    assert.deepEqual(
      stat.devices.map(({ name, address }) => `${name}@${address}`),
      devices,
    )
  })

  test('is opened and closed many times without a growing number of mappings', async t => {
    const { socket } = await startDaemon(t)
    const countParkedPages = (): number => readFileSync('/proc/self/maps', 'latin1').split('userdma-parked').length - 1
    const before = countParkedPages()
    for (let i = 0; i < 3; i++) {
      const device = await open({ socket })
      assert.equal(countParkedPages(), before + 1)
      await device.close()
    }
    assert.equal(countParkedPages(), before)
  })

  test('whose memory cannot be mapped keeps no objects; a failed open leaves no socket open', async t => {
    const { socket } = await startDaemon(t)
    const sockets = () =>
      readdirSync('/proc/self/fd').flatMap(fd => orElse(() => [readlinkSync(`/proc/self/fd/${fd}`)], []))
    const countSockets = () => sockets().filter(name => name.startsWith('socket:')).length
    const pool = ringPool()
    const refuseMappings = () => mock.method(pool, 'map', () => assert.fail('no memory'))
    const before = countSockets()
    let refusing = refuseMappings()
    await assert.rejects(open({ socket }), /no memory/)
    refusing.mock.restore()
    assert.equal(countSockets(), before)
    const device = await open({ socket })
    refusing = refuseMappings()
    assert.throws(() => device.cq(), /no memory/)
    const chained = () =>
      device.chain(chain => {
        const cq = chain.cq()
        return { qp: chain.rcQp(chain.pd(), { sendCq: cq }) }
      })
    assert.throws(chained, /no memory/)
    refusing.mock.restore()
    assert.deepEqual(device.handles(Classes.pd, Classes.cq, Classes.rc_qp), [])
    chained()
    await device.close()
  })

  test('does not write to the buffers of a closed device', async t => {
    const { socket } = await startDaemon(t, { devices: TWO_DEVICES })
    const length = 1 << 24
    const WRITES = 150
    const sender = await open({ socket, device: 'rxe1' })
    const pd = sender.pd()
    const cq = sender.cq()
    const source = pd.register(new Uint8Array(length).fill(7)).slice()
    for (let round = 0; round < 5; round++) {
      const receiver = await open({ socket })
      const receiverPd = receiver.pd()
      const buffer = new Uint8Array(length)
      const remote = receiverPd.register(buffer, { remoteWrite: true }).remote()
      const peer = receiverPd.rcQp()
      const qp = pd.rcQp({ sendCq: cq, maxSendWr: WRITES, peer: peer.endpoint })
      peer.connect(qp.endpoint)
      for (let i = 0; i < WRITES; i++) qp.write(source, remote, { signaled: false })
      await receiver.close()
      buffer.fill(0)
      // An open waits until the daemon has destroyed all closed contexts.
      await (await open({ socket })).close()
      assert.equal(Buffer.compare(buffer, new Uint8Array(length)), 0)
      qp.close()
    }
    await sender.close()
  })

  test('that is stopped delays a close, by at most 30 seconds, but not other work of the program', async t => {
    const { socket, running } = await startDaemon(t, { devices: TWO_DEVICES })
    const other = await open({ socket, device: 'rxe1' })
    const last = await open({ socket })
    const devices: Device[] = []
    for (let i = 0; i < 20; i++) devices.push(await open({ socket }))
    running.child.kill('SIGSTOP')
    const closed = Promise.all(devices.map(device => device.close()))
    const turn = new Promise(resolve => setImmediate(() => resolve('turn')))
    assert.equal(await Promise.race([closed, turn]), 'turn')
    mock.timers.enable({ apis: ['setTimeout'] })
    const unanswered = last.close()
    mock.timers.tick(30_000)
    await unanswered
    mock.timers.reset()
    running.child.kill('SIGCONT')
    assert.equal(other.pd().handle, 0)
    await closed
    await other.close()
  })

  test('answers a close only after no process has the memory file of the context', async t => {
    const { socket } = await startDaemon(t, { devices: TWO_DEVICES })
    const isFile = (fd: string) => /userdma-context/.test(orElse(() => readlinkSync(`/proc/self/fd/${fd}`), ''))
    const files = () => readdirSync('/proc/self/fd').filter(isFile)
    const other = await open({ socket, device: 'rxe1' })
    const before = files()
    const device = await open({ socket })
    const [file] = files().filter(fd => !before.includes(fd))
    // Another thread's fork also copies the descriptor, until exec.
    const copy = pidfdGetfd(openProcess(process.pid) as ProcessHandle, Number(file))
    let isClosed = false
    const closed = device.close().then(() => {
      isClosed = true
    })
    // The daemon answers other calls meanwhile.
    for (let i = 0; i < 20; i++) {
      other.pd().close()
      await new Promise(setImmediate)
    }
    assert.equal(isClosed, false)
    closeSync(copy)
    await closed
    await other.close()
  })

  test('keeps the session of a program that has no descriptors left for a reply', async t => {
    const daemon = await startDaemon(t)
    const program = `
      import { closeSync, openSync } from 'node:fs'
      import { open } from '${libraryUrl}'
      const socket = '${daemon.socket}'
      const device = await open({ socket })
      const files = []
      try {
        for (;;) files.push(openSync('/dev/null'))
      } catch {}
      try {
        device.eventQueue()
      } catch ({ call, code }) {
        console.log(call, code)
      }
      await open({ socket }).catch(({ call, code }) => console.log(call, code))
      for (const file of files) closeSync(file)
      device.eventQueue().close()
      console.log(device.pd().handle)
      await new Promise(resolve => process.stdin.on('end', resolve).resume())`
    const command = `ulimit -n 200; exec "$0" --input-type=module -e "$1"`
    const running = start(t, 'sh', ['-c', command, process.execPath, program], { stdio: 'pipe' })
    await daemon.settled(({ contexts, devices }) => contexts === 1 && devices[0]?.objects.pd === 1)
    running.child.stdin?.end()
    const { stdout, stderr } = await running.ended
    assert.equal(stdout, 'device.eventQueue EMFILE\nopen EMFILE\n0\n', stderr)
  })

  test('is refused to a process with 16 sessions', async t => {
    const { socket } = await startDaemon(t)
    const others = Array.from({ length: 16 }, () => connect(socket))
    await assert.rejects(open({ socket }), {
      code: 'EMFILE',
      message: /^open: .*no sessions or descriptors left for this process.*thread/,
    })
    for (const other of others) close(other)
  })

  test('loses the devices of a worker thread that ends; a terminated thread does not end the process', async t => {
    const daemon = await startDaemon(t)
    const thread = `
      const { parentPort, workerData } = process.getBuiltinModule('node:worker_threads')
      import('${libraryUrl}').then(async ({ open, openSystem }) => {
        if (workerData === 'system') return openSystem({ socket: '${daemon.socket}' })
        const device = await open({ socket: '${daemon.socket}' })
        device.pd().register(new Uint8Array(64), { remoteWrite: true })
        if (workerData === 'exit') process.exit()
        if (workerData === 'terminate') parentPort.on('message', () => {}).postMessage('ready')
      })`
    const program = `
      import { Worker } from 'node:worker_threads'
      for (const workerData of process.argv.slice(1)) {
        const worker = new Worker(${JSON.stringify(thread)}, { eval: true, workerData })
        worker.once('message', () => worker.terminate())
        await new Promise(resolve => worker.once('exit', resolve))
      }
      console.log('ended')
      await new Promise(resolve => process.stdin.on('end', resolve).resume())`
    const run = (...words: string[]) =>
      start(t, process.execPath, ['--input-type=module', '-e', program, '--', ...words], { stdio: 'pipe' })
    const running = run('end', 'exit', 'system')
    await running.printed(/ended/)
    await daemon.settled(isEmpty)
    running.child.stdin?.end()
    await running.ended
    const terminating = run('terminate')
    terminating.child.stdin?.end()
    assert.equal((await terminating.ended).stdout, 'ended\n')
  })

  test('with an open device keeps only a waiting program alive', async t => {
    const { socket } = await startDaemon(t)
    const program = `
      import { open } from '${libraryUrl}'
      const device = await open({ socket: '${socket}' })
      const cq = device.cq()
      device.onEvent(() => {})
      if (process.argv[1] === 'wait') cq.wait({ signal: AbortSignal.timeout(100) }).catch(({ name }) => console.log(name))
      console.log('end')`
    const run = (word: string) =>
      start(t, process.execPath, ['--input-type=module', '-e', program, '--', word]).ended.then(({ stdout }) => stdout)
    assert.equal(await run(''), 'end\n')
    assert.equal(await run('wait'), 'end\nTimeoutError\n')
  })

  test('does not keep a program alive whose awaited requests were canceled by a move to RESET', async t => {
    const { socket } = await startDaemon(t)
    const program = `
      import { open } from '${libraryUrl}'
      const device = await open({ socket: '${socket}' })
      const qp = device.pd().rcQp()
      qp.connect(qp.endpoint)
      const received = qp.receive().catch(({ code }) => code)
      qp.modify({ state: 'RESET' })
      console.log(await received)`
    const { stdout } = await start(t, process.execPath, ['--input-type=module', '-e', program]).ended
    assert.equal(stdout, 'ECANCELED\n')
  })
})
