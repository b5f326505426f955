/*
 * A send that throws gives back what it has taken: the buffer, the credit and the promise. However many sends are
 * refused, the connection takes as many messages as before.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { messageStream } from '../../../../src/library/connections/messages/stream.ts'
import { createNetwork, type Messages } from '../../../../src/library/index.ts'
import { openTwoInProcess } from '../../verbs/endpoints.ts'
import { messagePair } from './pairs.ts'

const MORE_THAN_BUFFERS = 20
const BUFFERS = 14
const SHORT = 8
const LONG = 10_000

const transfer = (bytes: Uint8Array): void => void structuredClone(bytes, { transfer: [bytes.buffer as ArrayBuffer] })

/** Bytes whose buffer another thread has got. */
const transferred = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  transfer(bytes)
  return bytes
}

/** Sends fill all buffers of the peer, with nobody receiving; then all messages arrive, a long one too. */
const checkAllBuffers = async (near: Messages, far: Messages): Promise<void> => {
  for (let i = 0; i < BUFFERS; i++) await near.send(Uint8Array.of(i), { timeout: 10_000 })
  for (let i = 0; i < BUFFERS; i++) assert.deepEqual(await far.receive(), Uint8Array.of(i))
  const [, received] = await Promise.all([near.send(new Uint8Array(LONG)), far.receive()])
  assert.equal(received.length, LONG)
}

test('messages whose buffer was transferred are refused with a sentence', async () => {
  const { near, far, cleanup } = await messagePair(await openTwoInProcess()())
  for (const length of [SHORT, LONG])
    for (let i = 0; i < MORE_THAN_BUFFERS; i++)
      await assert.rejects(near.send(transferred(length)), {
        code: 'EINVAL',
        reason: /message: its buffer was transferred/,
      })
  await checkAllBuffers(near, far)
  const stream = messageStream(near)
  const failed = new Promise(resolve => stream.on('error', resolve))
  const chunk = Buffer.from(new ArrayBuffer(SHORT))
  transfer(chunk)
  stream.write(chunk)
  assert.match(String(await failed), /its buffer was transferred/)
  await cleanup()
})

test('messages whose buffer is transferred while they wait are refused alone', async () => {
  const { near, far, cleanup } = await messagePair(await openTwoInProcess()())
  for (let i = 0; i < BUFFERS; i++) await near.send(Uint8Array.of(i))
  const messages = Array.from({ length: MORE_THAN_BUFFERS }, (_, i) => new Uint8Array(i % 2 === 0 ? SHORT : LONG))
  const sends = messages.map(message => assert.rejects(near.send(message), { reason: /had \d+ bytes and has 0/ }))
  for (const message of messages) transfer(message)
  for (let i = 0; i < BUFFERS; i++) assert.deepEqual(await far.receive(), Uint8Array.of(i))
  await Promise.all(sends)
  await checkAllBuffers(near, far)
  await near.end()
  await cleanup()
})

test('a message whose buffer is transferred while the peer reads it ends the connection at both ends', async () => {
  const { near, far, cleanup } = await messagePair(await openTwoInProcess()())
  const message = new Uint8Array(LONG)
  const sending = near.send(message)
  transfer(message)
  await assert.rejects(far.receive(), { code: 'ERR_CLOSED' })
  await assert.rejects(sending, { code: 'ERR_CLOSED' })
  await cleanup()
})

test('a refused post gives back the buffer and the credit', async () => {
  const network = createNetwork()
  const { near, far, cleanup } = await messagePair(await openTwoInProcess(network)())
  network.setFaults('post=ENOMEM,request=SEND')
  for (const length of [SHORT, LONG])
    for (let i = 0; i < MORE_THAN_BUFFERS; i++)
      await assert.rejects(near.send(new Uint8Array(length)), { code: 'ENOMEM' })
  network.setFaults('')
  await checkAllBuffers(near, far)
  // A receive that cannot be posted again ends the connection.
  await near.send(new Uint8Array(SHORT))
  network.setFaults('post=ENOMEM')
  await assert.rejects(
    (async () => {
      for (;;) await far.receive()
    })(),
    { code: 'ERR_CLOSED', message: /the connection has failed/ },
  )
  network.setFaults('')
  await cleanup()
})

test('inline data whose buffer was transferred is refused, and the queue pair works on', async () => {
  const { client, server, near, cleanup } = await messagePair(await openTwoInProcess()())
  const { qp } = client
  const there = server.pd.register(new Uint8Array(SHORT), { remoteWrite: true }).remote()
  for (let i = 0; i < MORE_THAN_BUFFERS; i++)
    await assert.rejects(qp.write(transferred(SHORT), there), { code: 'EINVAL', reason: /data: its buffer was transf/ })
  await qp.write(new Uint8Array(SHORT), there)
  await near.close()
  await cleanup()
})
