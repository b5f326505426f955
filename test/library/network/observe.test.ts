/*
 * Observation of a network in this process.
 */
import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { driverClass, register } from '../../../src/core/index.ts'
import { createNetwork, type FailureMessage, open, type TracedCall } from '../../../src/library/index.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { DeviceAttributes, ExtendedDeviceAttributes, PortAttributes, zeroRecord } from '../../../src/spec/index.ts'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { readCapture } from '../../captures.ts'
import { withMaxFileSize } from '../../soft-limits.ts'
import { temporaryFolder } from '../../system/programs.ts'
import { uncaughtDuring } from '../../uncaught.ts'
import { closeAll, completionText, openTwoInProcess, pair } from '../verbs/endpoints.ts'

test('a capture has packets of devices that are opened later, until it is stopped', async t => {
  const path = join(temporaryFolder(t), 'out.pcapng')
  const network = createNetwork()
  const stop = network.capture(path)
  const { a, b } = await pair(openTwoInProcess(network))
  a.qp.write(a.mr.slice(0, 3000), b.mr.remote(0, 3000), { id: 1 })
  assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
  stop()
  // A second stop has no effect.
  stop()
  const { length } = readFileSync(path)
  a.qp.write(a.mr.slice(0, 3000), b.mr.remote(0, 3000), { id: 2 })
  assert.equal(await completionText(a.cq), '2 RDMA_WRITE')
  const bytes = readFileSync(path)
  assert.equal(bytes.length, length)
  assert.equal(statSync(path).mode & 0o777, 0o600)
  // The data and an ACK.
  assert.equal(readCapture(bytes).length, 2)
  await closeAll(a, b)
})

test('packets are seen as they are sent, of devices that are opened later too, until the end of the watch', async () => {
  const network = createNetwork()
  const texts: string[] = []
  const stop = network.packets(({ device, bytes, text }) => texts.push(`${device} ${bytes.length} ${text}`))
  const { a, b } = await pair(openTwoInProcess(network))
  a.qp.write(a.mr.slice(0, 3000), b.mr.remote(0, 3000), { id: 1 })
  assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
  assert.equal(texts.length, 2)
  // BTH, RETH, payload, ICRC
  assert.match(texts[0]!, new RegExp(`^${a.device.name} ${12 + 16 + 3000 + 4} WRITE_ONLY .* 3000 B`))
  assert.match(texts[1]!, new RegExp(`^${b.device.name} ${12 + 4 + 4} ACKNOWLEDGE `))
  stop()
  stop()
  a.qp.write(a.mr.slice(0, 3000), b.mr.remote(0, 3000), { id: 2 })
  assert.equal(await completionText(a.cq), '2 RDMA_WRITE')
  assert.equal(texts.length, 2)
  await closeAll(a, b)
})

test('an exception of a watcher of packets is uncaught, and does not change the transfer', async () => {
  const network = createNetwork()
  network.packets(() => {
    throw new Error('mine')
  })
  const { a, b } = await pair(openTwoInProcess(network))
  const errors = await uncaughtDuring(async () => {
    a.qp.write(a.mr.slice(0, 8), b.mr.remote(0, 8), { id: 1 })
    assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
  })
  assert.deepEqual(errors, ['mine', 'mine'])
  assert.throws(() => network.packets(1 as never), { code: 'EINVAL', message: /handler/ })
  await closeAll(a, b)
})

test('a capture to a symbolic link or to an unwritable path is refused', t => {
  const path = join(temporaryFolder(t), 'out.pcapng')
  const network = createNetwork()
  symlinkSync(path, `${path}.link`)
  assert.throws(() => network.capture(`${path}.link`), { code: 'EINVAL', message: /symbolic link/ })
  assert.throws(() => network.capture('/dev/full'), { code: 'ENOSPC' })
  assert.throws(() => network.capture(`${path}.none/x`), { code: 'ENOENT', message: /cannot write to .*ENOENT/ })
})

test('a capture on a full disk ends with its last whole packet', async t => {
  const path = join(temporaryFolder(t), 'full.pcapng')
  const network = createNetwork()
  t.mock.timers.enable({ apis: ['setInterval'] })
  network.capture(path)
  // Packets are written after 50 ms at the latest.
  const flush = (): void => t.mock.timers.tick(50)
  const { a, b } = await pair(openTwoInProcess(network))
  a.qp.write(a.mr.slice(0, 3000), b.mr.remote(0, 3000), { id: 1 })
  assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
  flush()
  const whole = readFileSync(path)
  assert.ok(whole.length > 3000)
  withMaxFileSize(whole.length + 10, () => {
    a.qp.write(a.mr.slice(0, 3000), b.mr.remote(0, 3000), { id: 2 })
    while (!a.cq.poll());
    flush()
  })
  assert.deepEqual(readFileSync(path), whole)
  await closeAll(a, b)
})

test('a stopped capture writes nothing more, also from a device that is being removed', async t => {
  const folder = temporaryFolder(t)
  const network = createNetwork({ link: 'dgram' })
  const device = await open({ network, address: '127.83.0.1' })
  const other = await open({ network, device: device.name })
  // The destruction of these objects takes many turns of the event loop; meanwhile the port is open.
  for (let i = 0; i < 5000; i++) other.pd()
  const stop = network.capture(join(folder, 'out.pcapng'))
  let isClosed = false
  const closed = device.close().then(() => {
    isClosed = true
  })
  // The network lists the device until its removal begins.
  while (JSON.stringify(network).includes(device.name)) await new Promise(resolve => setImmediate(resolve))
  stop()
  // This file gets the capture's descriptor number, so a packet that is captured too late would be written to it.
  const path = join(folder, 'other')
  const fd = openSync(path, 'w')
  const socket = createSocket('udp4').bind(0, '127.83.0.2')
  await once(socket, 'listening')
  for (let i = 0; i < 5; i++) {
    socket.send(new Uint8Array(64), ROCE_UDP_PORT, '127.83.0.1')
    await new Promise(resolve => setImmediate(resolve))
  }
  assert.ok(!isClosed, 'the port was open while the datagrams arrived')
  await closed
  socket.close()
  closeSync(fd)
  assert.equal(statSync(path).size, 0)
})

test('a trace reports calls, arguments and refusals, until stopped', async () => {
  const network = createNetwork()
  const calls: TracedCall[] = []
  const stop = network.trace(call => calls.push(call))
  const device = await open({ network })
  device.pd()
  const cq = device.cq({ entries: 10 })
  assert.throws(() => device.cq({ vector: 99 }), { code: 'EINVAL' })
  stop()
  device.pd()
  await device.close()
  const creations = calls.filter(({ method }) => method === 'create').map(({ class: cls, error }) => [cls, error?.code])
  assert.deepEqual(creations, [
    ['pd', undefined],
    ['cq', undefined],
    ['cq', 'EINVAL'],
  ])
  const created = calls.find(({ class: cls }) => cls === 'cq')
  assert.equal(created?.args.cqe, 10)
  assert.equal(created?.object, cq.handle)
  assert.equal(created?.device, 'rxe0')
  assert.match(inspect(created), /cq\.create\(.*cqe 10.*\) = \{/)
  // JSON.stringify throws for a bigint.
  assert.ok(JSON.stringify(calls))
})

test('an exception of a trace’s handler is uncaught, and does not change the call', async () => {
  const network = createNetwork()
  await using device = await open({ network })
  const stop = network.trace(() => {
    throw new Error('mine')
  })
  const uncaught = await uncaughtDuring(() => {
    device.pd()
    stop()
  })
  assert.deepEqual(uncaught, ['mine'])
})

test('a trace reports exceptions of a driver, and no calls that end after its stop', async () => {
  const network = createNetwork()
  let finish = (): void => {}
  const { interface: Interface, device: DeviceClass, port, async_fd: AsyncFd, pd, cq } = Classes
  network.addDevice(core =>
    register(core, {
      name: 'slow0',
      driver: {
        name: 'slow',
        id: 0,
        classes: [
          ...[Interface, DeviceClass, port, AsyncFd].map(cls => driverClass(cls)),
          driverClass(pd, { create: () => new Promise<void>(resolve => (finish = resolve)) }),
          driverClass(cq, {
            create() {
              throw new TypeError('no such property')
            },
          }),
        ],
      },
      state: {},
      attributes: { ...zeroRecord(DeviceAttributes), physPortCnt: 1 },
      extended: zeroRecord(ExtendedDeviceAttributes),
      ports: [zeroRecord(PortAttributes)],
      numCompVectors: 1,
    }),
  )
  await using device = await open({ network, device: 'slow0' })
  const calls: TracedCall[] = []
  const stop = network.trace(call => calls.push(call))
  assert.throws(() => device.cq(), TypeError)
  assert.deepEqual(
    calls.map(({ class: cls, error, result }) => [cls, error, result]),
    [['cq', { code: 'EIO', message: 'TypeError: no such property' }, undefined]],
  )
  const created = device.callAsync(pd, 'create', {})
  stop()
  finish()
  await created
  assert.equal(calls.length, 1)
})

test('diagnostics channels report RNR waits, retransmissions and failures', async () => {
  const messages: Record<string, unknown[]> = { failure: [], rnr: [], retransmission: [] }
  const listeners = Object.keys(messages).map(name => {
    const listener = (message: unknown): void => {
      messages[name]?.push(message)
    }
    subscribe(`userdma:${name}`, listener)
    return () => unsubscribe(`userdma:${name}`, listener)
  })
  const network = createNetwork()
  const { a, b } = await pair(openTwoInProcess(network))
  a.qp.send(Uint8Array.of(1), { id: 1 })
  while (messages.rnr?.length === 0) await new Promise(resolve => setImmediate(resolve))
  b.qp.receive(b.mr.slice(0, 8))
  assert.equal(await completionText(a.cq), '1 SEND')
  assert.deepEqual(messages.rnr?.[0], { device: 'rxe0', count: 1 })
  network.setFaults('drop=40%,seed=3')
  for (let i = 0; i < 20; i++) {
    a.qp.write(Uint8Array.of(i), b.mr.remote(0, 1), { id: i })
    assert.equal(await completionText(a.cq), `${i} RDMA_WRITE`)
  }
  network.setFaults('')
  assert.ok((messages.retransmission?.length ?? 0) > 0)
  const { 'transport.retransmissions': resent, ...metrics } = a.device.metrics()
  assert.ok((resent ?? 0) > 0)
  assert.ok(Object.values(metrics).every(Number.isFinite))
  a.qp.write(Uint8Array.of(1), { address: 0n, rkey: 1, length: 1 }, { id: 7 })
  assert.equal(await completionText(a.cq), '7 REM_ACCESS_ERR')
  const failures = messages.failure as { device: string; status?: string; wrId?: string }[]
  const failure = failures.find(({ status }) => status === 'REM_ACCESS_ERR')
  assert.deepEqual([failure?.device, failure?.status, failure?.wrId], ['rxe0', 'REM_ACCESS_ERR', '7'])
  for (const stop of listeners) stop()
  await closeAll(a, b)
})

test('the first message of a diagnostics channel counts since the device was added, also after messages of another channel', async () => {
  const rnr: unknown[] = []
  const retransmission: unknown[] = []
  const onRnr = (message: unknown): void => void rnr.push(message)
  const onRetransmission = (message: unknown): void => void retransmission.push(message)
  const { a, b } = await pair(openTwoInProcess(createNetwork()))
  subscribe('userdma:rnr', onRnr)
  a.qp.send(Uint8Array.of(1), { id: 1 })
  while (rnr.length === 0) await new Promise(resolve => setImmediate(resolve))
  b.qp.receive(b.mr.slice(0, 8))
  assert.equal(await completionText(a.cq), '1 SEND')
  const { 'transport.retransmissions': count = 0 } = a.device.metrics()
  assert.ok(count > 0)
  subscribe('userdma:retransmission', onRetransmission)
  // Moves packets: then counters are reported.
  a.qp.write(Uint8Array.of(1), b.mr.remote(0, 1), { id: 2 })
  assert.equal(await completionText(a.cq), '2 RDMA_WRITE')
  assert.deepEqual(retransmission, [{ device: a.device.name, count }])
  unsubscribe('userdma:rnr', onRnr)
  unsubscribe('userdma:retransmission', onRetransmission)
  await closeAll(a, b)
})

test('a send that waits for a receive is reported once, on the channel and by the check', async () => {
  for (const path of ['direct', 'packets'] as const) {
    const waits: FailureMessage[] = []
    const onFailure = (message: unknown): void => {
      if ((message as FailureMessage).kind === 'wait') waits.push(message as FailureMessage)
    }
    const check = { onFinding: () => {}, failOn: 'never' } as const
    const { a, b } = await pair(openTwoInProcess(createNetwork({ path, check })))
    subscribe('userdma:failure', onFailure)
    // The check reports after a second.
    const isFound = () => path === 'packets' || a.device.findings.some(({ id }) => id === 'endless-rnr')
    a.qp.send(Uint8Array.of(1))
    while (waits.length === 0 || !isFound()) await new Promise(resolve => setImmediate(resolve))
    b.qp.receive(b.mr.slice(0, 8))
    assert.equal(await completionText(a.cq), '0 SEND')
    unsubscribe('userdma:failure', onFailure)
    const [{ device, qpn, cause, text } = waits[0]!] = waits
    assert.deepEqual([waits.length, device, qpn, cause], [1, a.device.name, a.qp.qpn, 'RNR_EXCEEDED'])
    assert.match(text, /^QP 0x\w+ waits: the peer has no receive posted: RNR NAK 6\d times, rnr_retry is 7$/)
    await closeAll(a, b)
  }
})
