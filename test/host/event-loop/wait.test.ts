/*
 * Waiting without the event loop.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { waitReadable } from '../../../src/host/event-loop/wait.ts'
import { hasNative } from '../../../src/host/native.ts'
import { close, send, socketPair } from '../../../src/host/net/sockets.ts'

test('waitReadable reports a readable descriptor, also one whose peer has closed', { skip: !hasNative() }, () => {
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

test('waitReadable is not interrupted by signals', { skip: !hasNative() }, async () => {
  const [one, two] = socketPair()
  const handler = (): void => {}
  process.on('SIGUSR2', handler)
  // Many signals, so that some arrive during the wait.
  const script = `for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.02; kill -USR2 ${process.pid}; done`
  const child = spawn('sh', ['-c', script])
  const start = performance.now()
  assert.equal(waitReadable(one, 150), false)
  assert.ok(performance.now() - start >= 149)
  await once(child, 'exit')
  process.off('SIGUSR2', handler)
  close(one)
  close(two)
})
