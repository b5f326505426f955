/*
 * `connection.messages()` between two programs that follow the rules, on devices of this process and of a daemon.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { messageStream } from '../../../../src/library/connections/messages/stream.ts'
import { createNetwork, type Messages, type RdmaError } from '../../../../src/library/index.ts'
import { eachCarrier, openTwoInProcess } from '../../verbs/endpoints.ts'
import { untyped } from '../../verbs/mistakes/mistakes.ts'
import { connectPair, messagePair } from './pairs.ts'

/** A message whose bytes depend on its length. */
const messageOf = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7 + length) & 255)
const SIZES = [0, 1, 4080, 4081, 70_000, 0, 1_200_000, 5]

const collect = async (messages: Messages): Promise<Uint8Array[]> => {
  const all: Uint8Array[] = []
  for await (const message of messages) all.push(message)
  return all
}

eachCarrier(openTwo => {
  test('messages of any size arrive in order, in both directions', async () => {
    const { near, far, cleanup } = await messagePair(await openTwo())
    const sent = SIZES.map(messageOf)
    const [received, echoed] = await Promise.all([
      collect(far),
      collect(near),
      Promise.all(sent.map(message => near.send(message))).then(() => near.end()),
      Promise.all(sent.map(message => far.send(message))).then(() => far.end()),
    ])
    assert.deepEqual(received, sent)
    assert.deepEqual(echoed, sent)
    await assert.rejects(near.receive(), { code: 'ERR_CLOSED' })
    await assert.rejects(near.send(Uint8Array.of(1)), { code: 'ERR_CLOSED', call: 'messages.send' })
    await cleanup()
  })

  test('a sender waits for a program that does not receive', async () => {
    const { near, far, cleanup } = await messagePair(await openTwo())
    let resolved = 0
    const sends = Array.from({ length: 100 }, (_, i) => near.send(Uint8Array.of(i)).then(() => resolved++))
    // The other direction works meanwhile.
    await far.send(Uint8Array.of(1))
    await near.receive()
    while (resolved < 14) await nextTurn()
    for (let i = 0; i < 10; i++) await nextTurn()
    assert.equal(resolved, 14, 'as many as the peer has buffers')
    for (let i = 0; i < 100; i++) assert.deepEqual(await far.receive(), Uint8Array.of(i))
    await Promise.all(sends)
    await cleanup()
  })

  test('a close delivers what was sent; waits of both sides settle', async () => {
    const { near, far, cleanup } = await messagePair(await openTwo())
    const closed = { code: 'ERR_CLOSED' }
    const waits = [assert.rejects(near.receive(), closed)]
    for (let i = 0; i < 14; i++) await near.send(Uint8Array.of(i))
    waits.push(assert.rejects(near.send(Uint8Array.of(14)), closed))
    waits.push(assert.rejects(near.send(messageOf(10_000)), closed))
    await near.close()
    await Promise.all(waits)
    for (let i = 0; i < 14; i++) assert.deepEqual(await far.receive(), Uint8Array.of(i))
    assert.equal(await far.closed, 'peer')
    await assert.rejects(far.send(Uint8Array.of(1)), closed)
    await assert.rejects(far.receive(), closed)
    assert.equal(await near.closed, 'local')
    await cleanup()
  })
})

const inProcess = openTwoInProcess()

test('limits end waits: the message is not sent, a receive takes none', async () => {
  const { near, far, cleanup } = await messagePair(await inProcess())
  await assert.rejects(far.receive({ timeout: 1 }), { code: 'ETIMEDOUT', call: 'messages.receive' })
  await assert.rejects(far.receive({ signal: AbortSignal.abort('enough') }), error => error === 'enough')
  for (let i = 0; i < 14; i++) await near.send(Uint8Array.of(i))
  await assert.rejects(near.send(Uint8Array.of(99), { timeout: 1 }), { code: 'ETIMEDOUT' })
  for (let i = 0; i < 14; i++) await far.receive()
  await near.send(Uint8Array.of(14))
  assert.deepEqual(await far.receive(), Uint8Array.of(14))
  await assert.rejects(near.send(new Uint8Array(2 ** 26 + 1)), { code: 'EMSGSIZE' })
  await assert.rejects(near.send(untyped('text')), { code: 'EINVAL', hint: /TextEncoder/ })
  await cleanup()
})

test('long messages that nobody takes use at most the agreed memory', async () => {
  const { near, far, cleanup } = await messagePair(await inProcess(), { maxMessageBytes: 100_000 })
  let read = 0
  const sends = [1, 2, 3, 4, 5].map(n => near.send(messageOf(40_000 + n)).then(() => read++))
  for (let i = 0; i < 100; i++) await nextTurn()
  assert.equal(read, 2, 'a third would exceed 100,000 bytes')
  for (const n of [1, 2, 3, 4, 5]) assert.deepEqual(await far.receive(), messageOf(40_000 + n))
  await Promise.all(sends)
  await cleanup()
})

test('the queue pair takes one-sided requests beside messages, but no sends and receives', async () => {
  const { client, server, near, far, cleanup } = await messagePair(await inProcess())
  const { qp, pd } = client
  const shared = server.pd.register(messageOf(64), { remoteRead: true })
  const local = pd.register(new Uint8Array(64))
  await Promise.all([
    ...Array.from({ length: 12 }, () => qp.read(local.slice(), shared.remote())),
    near.send(messageOf(9)),
    near.send(messageOf(9999)),
    far.receive(),
    far.receive(),
  ])
  assert.deepEqual(local.buffer, messageOf(64))
  await assert.rejects(qp.send(Uint8Array.of(1)), { code: 'EBUSY', hint: /messages\.send/ })
  await assert.rejects(qp.receive(local.slice()), { code: 'EBUSY', hint: /messages\.receive/ })
  await assert.rejects(client.messages(), { code: 'EBUSY' })
  await cleanup()
})

test('connections that cannot have messages are refused with a sentence', async () => {
  const [client, server, cleanup] = await connectPair(await inProcess(), { qp: { maxRecvWr: 4 } })
  await assert.rejects(client.messages(), { code: 'EINVAL', reason: /maxRecvWr 4 is too small/ })
  await assert.rejects(client.messages({ slotBytes: 1 }), { code: 'EINVAL', reason: /slotBytes 1 is not/ })
  void server.qp.receive().catch(() => {})
  await assert.rejects(server.messages(), { code: 'EBUSY', reason: /receives are posted/ })
  await cleanup()
  const [alone, , close] = await connectPair(await inProcess())
  await assert.rejects(alone.messages({ timeout: 20 }), { code: 'ETIMEDOUT', hint: /peer has to call/ })
  assert.equal(await alone.closed, 'local')
  await close()
})

test('messages arrive over a network that loses packets', async () => {
  const network = createNetwork({ fault: 'drop=3%,seed=5' })
  const { near, far, cleanup } = await messagePair(await openTwoInProcess(network)(), {}, { ackTimeout: 5 })
  const sizes = Array.from({ length: 60 }, (_, i) => (i % 10 === 0 ? 20_000 + i : i))
  const [received] = await Promise.all([
    collect(far),
    Promise.all(sizes.map(size => near.send(messageOf(size)))).then(() => near.end()),
  ])
  assert.deepEqual(received, sizes.map(messageOf))
  network.setFaults('')
  await cleanup()
})

test('the last packets of a burst are sent again without an ACK timeout, whichever is lost', async () => {
  const network = createNetwork({ path: 'packets' })
  const { client, server, near, far, cleanup } = await messagePair(
    await openTwoInProcess(network)(),
    {},
    { ackTimeout: 0 },
  )
  // A device in memory keeps the process alive only while it has a timer.
  const alive = setInterval(() => {}, 1000)
  const dropped = (): number => client.device.counters().faults.dropped + server.device.counters().faults.dropped
  for (const [opcode, length] of [
    ['RC_SEND_ONLY', 1],
    ['RC_ACKNOWLEDGE', 1],
    ['RC_SEND_ONLY', 9000],
    ['RC_READ_*', 9000],
  ] as const) {
    const before = dropped()
    network.setFaults(`opcode=${opcode},drop=100%`)
    const transfer = Promise.all([far.receive(), near.send(messageOf(length))])
    while (dropped() === before) await nextTurn()
    network.setFaults('')
    assert.deepEqual((await transfer)[0], messageOf(length))
  }
  await near.end()
  clearInterval(alive)
  await cleanup()
})

test('a loop rejects when the peer’s device is closed without an end', async () => {
  const { server, near, cleanup } = await messagePair(await inProcess())
  const loop = collect(near)
  await server.device.close()
  await assert.rejects(loop, (error: RdmaError) => error.code === 'ERR_CLOSED' && error.cause instanceof Error)
  await cleanup()
})

test('a stream has several chunks in flight, and their callbacks wait for them', async () => {
  const { near, far, cleanup } = await messagePair(await inProcess())
  let inFlight = 0
  let most = 0
  const counted: Messages = Object.create(near, {
    send: {
      value: async (message: Uint8Array) => {
        most = Math.max(most, ++inFlight)
        await near.send(message)
        inFlight--
      },
    },
    end: { value: () => near.end() },
    close: { value: () => near.close() },
    [Symbol.asyncIterator]: { value: () => near[Symbol.asyncIterator]() },
  })
  const stream = messageStream(counted)
  const receiving = collect(far)
  // More than sends may wait.
  const lengths = [...Array.from({ length: 40 }, (_, i) => 5000 + i), ...Array<number>(5000).fill(1)]
  let written = 0
  for (const length of lengths) stream.write(messageOf(length), () => written++)
  await new Promise<void>(resolve => stream.end(resolve))
  assert.equal(written, lengths.length)
  assert.deepEqual(
    (await receiving).map(({ length }) => length),
    lengths,
  )
  assert.equal(most, 16)
  await cleanup()
})

test('a stream sends each written chunk as a message, and ends in both directions', async () => {
  const { near, far, cleanup } = await messagePair(await inProcess())
  const [client, server] = [messageStream(near), messageStream(far)]
  server.on('data', chunk => server.write(chunk)).on('end', () => server.end())
  const chunks: string[] = []
  client.on('data', chunk => chunks.push(new TextDecoder().decode(chunk)))
  for (const text of ['one', '', 'three', 'x'.repeat(10_000)]) client.write(text)
  client.end()
  await new Promise(resolve => client.on('close', resolve))
  assert.deepEqual(chunks, ['one', '', 'three', 'x'.repeat(10_000)])
  await cleanup()
})
