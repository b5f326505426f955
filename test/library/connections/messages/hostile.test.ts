/*
 * A peer that breaks the rules of messages is disconnected, with a sentence. It reads an offered message only, and only
 * until the message was read.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RdmaError } from '../../../../src/library/index.ts'
import { openTwoInProcess } from '../../verbs/endpoints.ts'
import { connectPair, frame, HELLO, MAGIC, type RawQp, rawPeer, words } from './pairs.ts'

const post =
  (...frames: readonly Uint8Array[]) =>
  async (qp: RawQp) => {
    for (const bytes of frames) await qp.send(bytes)
  }

const [DATA, OFFER, ACK, END, UNUSED] = [2, 3, 4, 5, 7]
const offer = (length: number, address = words(0, 4096), size = 28): Uint8Array =>
  frame(OFFER, 12, 0, length, [...address, ...words(7)]).slice(0, size)
const RESERVED = frame(ACK, 12)
RESERVED[1] = 1

const attacks: Readonly<Record<string, readonly [attack: (qp: RawQp) => Promise<unknown>, text: RegExp]>> = {
  'no header': [post(HELLO, new Uint8Array(3)), /a frame of 3 bytes is shorter than a header/],
  'no HELLO': [post(frame(DATA, 12)), /the first frame is not HELLO/],
  'two HELLOs': [post(HELLO, HELLO), /a second HELLO/],
  'another protocol': [post(frame(1, 12, 0, 0, words(1, 1, 4096, 9))), /HELLO without the magic bytes/],
  'another version': [post(frame(1, 12, 0, 0, words(MAGIC, 2, 4096, 9))), /it speaks version 2 .* version 1/],
  'tiny buffers': [post(frame(1, 12, 0, 0, words(MAGIC, 1, 8, 9))), /HELLO without room/],
  'no buffers': [post(frame(1, 0, 0, 0, words(MAGIC, 1, 4096, 9))), /HELLO without room/],
  'long HELLO': [post(frame(1, 12, 0, 0, words(MAGIC, 1, 4096, 9, 0))), /HELLO in a frame of 36 bytes/],
  'reserved bytes': [post(HELLO, RESERVED), /reserved bytes are not 0/],
  'unknown type': [post(HELLO, frame(9, 12)), /unknown frame type 9/],
  'long DATA': [post(HELLO, frame(DATA, 12, 0, 1)), /DATA of 1 bytes in a frame of 16/],
  'short DATA': [post(HELLO, frame(DATA, 12, 0, 1, [1, 2])), /DATA of 1 bytes in a frame of 18/],
  'ACK with a message': [post(HELLO, frame(ACK, 12, 0, 0, [1])), /a frame without a message has 17 bytes/],
  'ACK with a length': [post(HELLO, frame(ACK, 12, 0, 5)), /a frame without a message/],
  'long ABORT': [post(HELLO, frame(6, 12, 0, 5, [1])), /ABORT of 5 bytes in a frame of 17/],
  'message after END': [post(HELLO, frame(END, 12), frame(DATA, 12)), /a message after END/],
  'offer of nothing': [post(HELLO, offer(0)), /OFFER of 0 bytes/],
  'huge offer': [post(HELLO, offer(2 ** 31)), /a message of 2147483648 bytes, although 1048576 were agreed/],
  'short offer': [post(HELLO, offer(5000, undefined, 27)), /OFFER in a frame of 27 bytes/],
  'offer beyond 2^64': [post(HELLO, offer(5000, words(2 ** 32 - 1, 2 ** 32 - 1))), /OFFER beyond the address space/],
  'offer of foreign memory': [post(HELLO, offer(5000)), /the connection has failed: .*REM_ACCESS_ERR/s],
  'credit taken back': [post(HELLO, frame(ACK, 11)), /11 frames granted, after 12/],
  'UNUSED with a message': [post(HELLO, frame(UNUSED, 12, 0, 0, [1])), /a frame without a message has 17 bytes/],
  'nothing was offered': [post(HELLO, frame(ACK, 12, 1)), /1 messages read, although 0 were offered/],
  'no credit': [post(HELLO, ...Array<Uint8Array>(15).fill(frame(DATA, 12))), /a message without a credit/],
  'WRITE with immediate': [
    async qp => {
      await qp.send(HELLO)
      await qp.write(new Uint8Array(0), { address: 0n, rkey: 0, length: 0 }, { immediate: 1 })
    },
    /RECV_RDMA_WITH_IMM instead of a SEND/,
  ],
  'long frame': [
    async qp => {
      await qp.send(HELLO)
      await qp.send(new Uint8Array(65))
    },
    /the connection has failed/,
  ],
}

for (const [name, [attack, text]] of Object.entries(attacks))
  test(`a peer is disconnected: ${name}`, async () => {
    const small = name === 'long frame'
    const [client, server, cleanup] = await connectPair(await openTwoInProcess()(), { qp: { maxInlineData: 128 } })
    const raw = rawPeer(server)
    const attacking = attack(raw.qp).catch(() => {})
    const failed = (async () => {
      const messages = await client.messages({ maxMessageBytes: 2 ** 20, ...(small && { slotBytes: 64 }) })
      // No program takes messages at first, so that credits matter.
      assert.equal(await messages.closed, 'local')
      for (;;) await messages.receive()
    })()
    await assert.rejects(failed, (error: RdmaError) => {
      assert.equal(error.code, 'ERR_CLOSED')
      assert.match(error.message, text)
      assert.ok(error.cause instanceof Error)
      return true
    })
    assert.equal(await client.closed, 'local')
    await server.closed
    await attacking
    await cleanup()
  })

test('a peer reads an offered message, and nothing after it has told that it did', async () => {
  const [client, server, cleanup] = await connectPair(await openTwoInProcess()())
  const { qp, pd, next } = rawPeer(server)
  const opening = client.messages()
  await next()
  await qp.send(HELLO)
  const messages = await opening
  const message = new Uint8Array(5000).fill(9)
  const sending = messages.send(message)
  const offered = await next()
  const view = new DataView(offered.buffer)
  assert.deepEqual([offered.length, view.getUint8(0), view.getUint32(12)], [28, OFFER, 5000])
  const remote = { address: view.getBigUint64(16), rkey: view.getUint32(24), length: 5000 }
  const local = pd.register(new Uint8Array(5000))
  await qp.read(local.slice(), remote)
  assert.deepEqual(local.buffer, message)
  await qp.send(frame(ACK, 12, 1))
  await sending
  await assert.rejects(qp.read(local.slice(), remote), { status: 'REM_ACCESS_ERR' })
  await cleanup()
})

test('a peer cannot write to an offered message', async () => {
  const [client, server, cleanup] = await connectPair(await openTwoInProcess()())
  const { qp, next } = rawPeer(server)
  const opening = client.messages()
  await next()
  await qp.send(HELLO)
  const sending = (await opening).send(new Uint8Array(5000))
  const view = new DataView((await next()).buffer)
  const remote = { address: view.getBigUint64(16), rkey: view.getUint32(24), length: 5000 }
  await assert.rejects(qp.write(Uint8Array.of(1), remote), { status: 'REM_ACCESS_ERR' })
  await client.close()
  await assert.rejects(sending, { code: 'ERR_CLOSED' })
  await cleanup()
})
