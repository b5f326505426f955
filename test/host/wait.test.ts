/*
 * Waiting without the event loop.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hasNative } from '../../src/host/native.ts'
import { close, send, socketPair } from '../../src/host/sockets.ts'
import { waitReadable } from '../../src/host/wait.ts'

test('tells what can be read, the end of the stream too', { skip: !hasNative() }, () => {
  const [one, two] = socketPair()
  assert.equal(waitReadable(one, 0), false)
  assert.equal(waitReadable(one, 5), false)
  send(two, Uint8Array.of(1))
  assert.equal(waitReadable(one, 0), true)
  assert.equal(waitReadable(one, 1000), true)
  assert.equal(waitReadable(two, 0), false)
  close(one)
  assert.equal(waitReadable(two, 1000), true)
  close(two)
})
