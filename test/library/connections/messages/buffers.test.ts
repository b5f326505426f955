/*
 * The memory of messages: buffers are shared by the connections of a protection domain, a connection gets more of them
 * only while its peer needs them, and no connection takes them away from another.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Connection, connect, type Device, listen, type Messages } from '../../../../src/library/index.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { eachCarrier, openTwoInProcess } from '../../verbs/endpoints.ts'
import { connectPair, frame, HELLO, messagePair, rawPeer } from './pairs.ts'

/** Bytes of the registered memory of a device. */
const registered = (device: Device): number =>
  device
    .handles(Mr)
    .map(handle => Number(device.call(Mr, 'query', {}, handle).length))
    .reduce((sum, length) => sum + length, 0)

/** `count` connections between two devices, with messages at both ends. */
const openMany = async ([serverDevice, clientDevice]: readonly [Device, Device], count: number, options = {}) => {
  const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
  const address = { host: serverDevice.address, port: server.port }
  const requests = server[Symbol.asyncIterator]()
  const all: { readonly near: Messages; readonly far: Messages }[] = []
  for (let i = 0; i < count; i++) {
    const connecting = connect(address, { device: clientDevice })
    const accepted: Connection = await (await requests.next()).value.accept()
    const [near, far] = await Promise.all([(await connecting).messages(options), accepted.messages(options)])
    all.push({ near, far })
  }
  return { all, server }
}

const closeDevices = async (devices: readonly Device[]): Promise<void> => {
  for (const device of devices) await device.close()
}

eachCarrier(openTwo => {
  test('an idle connection has 4 receive buffers; the last connection takes all memory with it', async () => {
    const devices = await openTwo()
    const { all, server } = await openMany(devices, 20)
    for (const { near, far } of all) {
      await near.send(Uint8Array.of(1))
      await far.send(await far.receive())
      await near.receive()
    }
    for (const device of devices) {
      const used = registered(device)
      assert.ok(used < 20 * 8 * 4096, `${used} bytes for 20 connections`)
    }
    for (const { near, far } of all) {
      await near.close()
      await far.closed
      await far.close()
    }
    for (const device of devices) assert.deepEqual(device.handles(Mr), [])
    await server.close()
    await closeDevices(devices)
  })
})

test('a burst gets more buffers, and gives them back for the burst of another connection', async () => {
  const devices = await openTwoInProcess()()
  const { all } = await openMany(devices, 20, { keepalive: 90 })
  const idle = registered(devices[0])
  const sends = (): number => devices[1].counters().transport.sends
  for (const { near, far } of all) {
    const before = sends()
    for (let i = 0; i < 14; i++) await near.send(new Uint8Array(4000).fill(i))
    for (let i = 0; i < 14; i++) assert.deepEqual(await far.receive(), new Uint8Array(4000).fill(i))
    // 14 messages, then at least 8 frames for the grants that are not used.
    for (let turns = 0; sends() < before + 22; turns++) {
      assert.ok(turns < 1_000_000, `${sends() - before} sends`)
      await nextTurn()
    }
  }
  const used = registered(devices[0])
  assert.ok(used <= idle + 3 * 32 * 4096, `${used} bytes, ${idle} before the bursts`)
  for (const { near, far } of all) {
    const sent = Promise.all(Array.from({ length: 20 }, (_, i) => near.send(Uint8Array.of(i))))
    for (let i = 0; i < 20; i++) assert.deepEqual(await far.receive(), Uint8Array.of(i))
    await sent
  }
  await closeDevices(devices)
})

test('connections whose messages nobody takes have their own buffers only, and do not stop the others', async () => {
  const devices = await openTwoInProcess()()
  const { all } = await openMany(devices, 8)
  const [last, ...slow] = all
  const waiting = slow.map(({ near }) =>
    assert.rejects(Promise.all(Array.from({ length: 100 }, () => near.send(new Uint8Array(4000)))), {
      code: 'ERR_CLOSED',
    }),
  )
  for (let i = 0; i < 200; i++) {
    await last!.near.send(Uint8Array.of(i))
    assert.deepEqual(await last!.far.receive(), Uint8Array.of(i))
  }
  assert.ok(registered(devices[0]) <= (8 * 16 + 32) * 4096, `${registered(devices[0])} bytes`)
  await Promise.all(slow.map(({ far }) => far.close()))
  await Promise.all(waiting)
  await closeDevices(devices)
})

test('a peer that gives its grants back, or sends without one, gets no more memory than others', async () => {
  const devices = await openTwoInProcess()()
  const [client, server, cleanup] = await connectPair(devices)
  const { qp } = rawPeer(server)
  const opening = client.messages()
  await qp.send(HELLO)
  const messages = await opening
  const before = registered(devices[1])
  const [DATA, UNUSED] = [2, 7]
  // Each UNUSED waits until its grant was renewed.
  for (let i = 0; i < 20; i++) {
    await qp.send(frame(UNUSED, 12))
    for (let turn = 0; turn < 5; turn++) await nextTurn()
  }
  assert.equal(registered(devices[1]), before)
  const flood = (async () => {
    for (;;) await qp.send(frame(DATA, 12))
  })()
  await assert.rejects(flood)
  await assert.rejects(
    (async () => {
      for (;;) await messages.receive()
    })(),
    { code: 'ERR_CLOSED', message: /a message without a credit/ },
  )
  await cleanup()
})

test('messages that arrived before the end are received after it, and hold no buffers', async () => {
  const devices = await openTwoInProcess()()
  const { near, far, cleanup } = await messagePair(devices)
  for (let i = 0; i < 5; i++) await near.send(Uint8Array.of(i))
  await near.close()
  await far.closed
  await far.close()
  for (const device of devices) assert.deepEqual(device.handles(Mr), [])
  for (let i = 0; i < 5; i++) assert.deepEqual(await far.receive(), Uint8Array.of(i))
  await cleanup()
})
