/*
 * An abnormal end of a sender is an error at every kind of receiver, after the messages that have arrived: no receiver
 * takes a part of the messages for all of them.
 */
import assert from 'node:assert/strict'
import { Duplex, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { messageStream } from '../../../../src/library/connections/messages/stream.ts'
import type { Connection, Messages, RdmaError } from '../../../../src/library/index.ts'
import { openTwoInProcess } from '../../verbs/endpoints.ts'
import { messagePair } from './pairs.ts'

const SENT = [Uint8Array.of(1, 2), new Uint8Array(20_000).fill(3)]
const WHY = 'disk broke'

interface Sender {
  readonly near: Messages
  readonly client: Connection
}

const sendAll = async ({ near }: Sender): Promise<void> => {
  for (const message of SENT) await near.send(message)
}

async function* brokenSource() {
  yield* SENT
  throw new Error(WHY)
}

/** A stream after all messages were written. */
const writtenStream = async ({ near }: Sender): Promise<Duplex> => {
  const stream = messageStream(near)
  stream.on('error', () => {})
  for (const message of SENT) await new Promise(resolve => stream.write(message, resolve))
  return stream
}

/** Each sends all of `SENT` and ends abnormally; the pattern is in the receiver's error. */
const abnormalEnds: Readonly<Record<string, readonly [end: (sender: Sender) => Promise<unknown>, pattern: RegExp]>> = {
  'abort with a text': [sender => sendAll(sender).then(() => sender.near.abort(WHY)), /has aborted: disk broke/],
  'abort with an error': [
    sender => sendAll(sender).then(() => sender.near.abort(new Error(WHY))),
    /has aborted: disk broke/,
  ],
  'abort without a reason': [sender => sendAll(sender).then(() => sender.near.abort()), /the peer has aborted \(/],
  'a block left by an error': [
    async sender => {
      await using messages = sender.near
      for (const message of SENT) await messages.send(message)
      throw new Error(WHY)
    },
    /has aborted: .*left without end\(\) or close\(\)/,
  ],
  'a close that cuts sends off': [
    async sender => {
      await sendAll(sender)
      const sends = Array.from({ length: 40 }, () => sender.near.send(Uint8Array.of(9)))
      await Promise.all([sender.near.close(), Promise.allSettled(sends)])
    },
    /has aborted: .*closed before all messages were sent/,
  ],
  'stream.destroy(error)': [
    async sender => (await writtenStream(sender)).destroy(new Error(WHY)),
    /has aborted: disk broke/,
  ],
  'stream.destroy()': [async sender => (await writtenStream(sender)).destroy(), /has aborted/],
  'an error of the source': [sender => pipeline(brokenSource, messageStream(sender.near)), /has aborted: disk broke/],
  'the signal of a pipeline': [
    async sender => {
      const controller = new AbortController()
      const rest = [...SENT]
      const source = new Readable({
        read() {
          const message = rest.shift()
          if (message === undefined) controller.abort()
          else this.push(message)
        },
      })
      await pipeline(source, messageStream(sender.near), { signal: controller.signal })
    },
    /has aborted: The operation was aborted/,
  ],
  'abort of a web stream': [
    async sender => {
      const writer = Duplex.toWeb(messageStream(sender.near)).writable.getWriter()
      for (const message of SENT) await writer.write(message)
      await writer.abort(new Error(WHY))
    },
    /has aborted: disk broke/,
  ],
  'connection.close()': [sender => sendAll(sender).then(() => sender.client.close()), /has closed the connection/],
  'device.close()': [sender => sendAll(sender).then(() => sender.client.device.close()), /has closed the connection/],
}

/** Each passes the messages to `take`, and resolves if it takes the messages for complete. */
const receivers: Readonly<Record<string, (far: Messages, take: (message: Uint8Array) => void) => Promise<unknown>>> = {
  async 'for await'(far, take) {
    for await (const message of far) take(message)
  },
  async receive(far, take) {
    for (;;) take(await far.receive())
  },
  'a stream': (far, take) => {
    const sink = new Writable({
      objectMode: true,
      write(message, _, callback) {
        take(message)
        callback()
      },
    })
    return pipeline(messageStream(far), sink)
  },
  async 'a web stream'(far, take) {
    const { readable, writable } = Duplex.toWeb(messageStream(far))
    writable.getWriter().closed.catch(() => {})
    for await (const message of readable) take(message as Uint8Array)
  },
  // `end` must not resolve for messages that wait in vain.
  async end(far, take) {
    for (let i = 0; i < 100; i++) far.send(Uint8Array.of(1)).catch(() => {})
    const ending = far.end()
    ending.catch(() => {})
    for (const _ of SENT) take(await far.receive())
    await ending
  },
}

for (const [name, [end, pattern]] of Object.entries(abnormalEnds))
  test(`each kind of receiver fails after ${name}`, async () => {
    const devices = await openTwoInProcess()()
    const failures = Object.entries(receivers).map(async ([receiver, receive]) => {
      const { client, near, far, cleanup } = await messagePair(devices)
      const taken: Uint8Array[] = []
      const receiving = receive(far, message => taken.push(message))
      const failing = assert.rejects(receiving, (error: RdmaError) => {
        assert.equal(error.code, 'ERR_CLOSED')
        assert.ok(error.cause instanceof Error)
        return true
      })
      await end({ near, client }).catch(() => {})
      await failing.catch(error => {
        error.message = `${receiver}: ${error.message}`
        throw error
      })
      await assert.rejects(far.send(Uint8Array.of(1)), pattern)
      const expected = [...SENT, ...Array<Uint8Array>(40).fill(Uint8Array.of(9))]
      assert.deepEqual(taken, expected.slice(0, taken.length))
      return cleanup
    })
    for (const cleanup of await Promise.all(failures)) await cleanup()
  })

const isAbort = (cause: unknown, reason: string): boolean => {
  assert.deepEqual([(cause as RdmaError).code, (cause as RdmaError).reason], ['ECONNABORTED', reason])
  return true
}

test('the reason of an abort is in the cause at both ends, and messages tell who ended them', async () => {
  const { near, far, cleanup } = await messagePair(await openTwoInProcess()(), { slotBytes: 64 })
  const long = `line 1\n${'ä'.repeat(100)}`
  const waiting = near.receive()
  const aborting = near.abort(long)
  await assert.rejects(waiting, ({ cause }: RdmaError) => isAbort(cause, long))
  await aborting
  // What fits a receive buffer, without control characters.
  const reason = `line 1 ${'ä'.repeat(20)}`
  await assert.rejects(far.receive(), ({ cause }: RdmaError) => isAbort(cause, reason))
  assert.deepEqual([await near.closed, await far.closed], ['local', 'peer'])
  await cleanup()
})

test('a block that is left after `end` closes in order', async () => {
  const { near, far, cleanup } = await messagePair(await openTwoInProcess()())
  await (async () => {
    await using messages = near
    await messages.send(Uint8Array.of(1))
    await messages.end()
  })()
  const all = []
  for await (const message of far) all.push(message)
  assert.deepEqual(all, [Uint8Array.of(1)])
  await cleanup()
})

test('a stream that is destroyed after `finish` closes in order', async () => {
  const { near, far, cleanup } = await messagePair(await openTwoInProcess()())
  const stream = messageStream(near)
  const finished = new Promise(resolve => stream.on('finish', resolve))
  stream.end(Uint8Array.of(1))
  await finished
  stream.destroy()
  const all = []
  for await (const message of far) all.push(message)
  assert.deepEqual(all, [Uint8Array.of(1)])
  await cleanup()
})
