/*
 * Entry point of `userdma/stream`: messages as a stream of Node.js. Not part of `userdma`, whose types need no types of
 * Node.js, and which works in browsers.
 */
import { Duplex } from 'node:stream'
import { requestWindow } from '../../verbs/awaitable/request-window.ts'
import type { Messages } from './messages.ts'

/** Bytes of written chunks that wait while earlier ones are sent. */
const WRITE_BYTES = 2 ** 20
/** Chunks that are sent at the same time. */
const CHUNKS = 16

/**
 * The messages of a connection as a stream: each `write` of bytes or text sends one message, and each chunk that is
 * read is one message (`readableObjectMode`). `end` ends this direction; `destroy` closes the connection, and with an
 * error or before `finish` it aborts the messages, with the error's message for the peer. The stream ends when the peer
 * ends. A message that is too long for the peer destroys the stream (EMSGSIZE). The callback of `write` is called when
 * the bytes may be changed; up to 1 MiB of chunks wait meanwhile, and are then sent together.
 */
export const messageStream = (messages: Messages): Duplex => {
  const incoming = messages[Symbol.asyncIterator]()
  const sendAll = async (chunks: readonly { readonly chunk: Uint8Array }[]): Promise<void> => {
    const inFlight = requestWindow(CHUNKS)
    for (const { chunk } of chunks) await inFlight.add(() => messages.send(chunk))
    await inFlight.drain()
  }
  const stream = new Duplex({
    writableHighWaterMark: WRITE_BYTES,
    readableObjectMode: true,
    // Further messages stay in the receive buffers, and their senders wait.
    readableHighWaterMark: 1,
    read() {
      incoming.next().then(
        ({ done, value }) => stream.push(done ? null : value),
        error => stream.destroy(error),
      )
    },
    write(chunk, _, callback) {
      messages.send(chunk).then(() => callback(), callback)
    },
    writev(chunks, callback) {
      sendAll(chunks).then(() => callback(), callback)
    },
    final(callback) {
      messages.end().then(() => callback(), callback)
    },
    destroy(error, callback) {
      const isFinished = error === null && stream.writableFinished
      const closing = isFinished ? messages.close() : messages.abort(error ?? 'the stream was destroyed')
      closing.then(() => callback(error), callback)
    },
  })
  return stream
}
