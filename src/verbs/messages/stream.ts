/*
 * Entry point of `userdma/stream`: messages as a stream of Node.js. Not part of `userdma`, whose types need no types of
 * Node.js, and which works in browsers.
 */
import { Duplex } from 'node:stream'
import type { Messages } from './messages.ts'

/**
 * The messages of a connection as a stream: each `write` of bytes or text sends one message, and each chunk that is
 * read is one message (`readableObjectMode`). `end` ends this direction; `destroy` closes the connection, and with an error
 * or before `finish` it aborts the messages, with the error's message for the peer. The stream ends when the peer ends. A message that is too long for the peer destroys the stream (EMSGSIZE).
 */
export const messageStream = (messages: Messages): Duplex => {
  const incoming = messages[Symbol.asyncIterator]()
  const stream = new Duplex({
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
