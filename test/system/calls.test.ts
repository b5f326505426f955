/*
 * Calls of several programs at the same time.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isEmpty, lacking, ownProgram, run, start, startDaemon } from './programs.ts'

const calls = ownProgram('calls')

test('programs that call in a loop do not starve others', { skip: lacking(calls) }, async t => {
  const daemon = await startDaemon(t)
  const { env } = daemon
  const endless = [1, 2].map(() => start(t, calls, ['endless'], { env }))
  for (const { printed } of endless) await printed(/asking/)
  const { status, stdout, stderr } = await run(t, calls, ['100'], { env })
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
  assert.match(stdout, /^[\d.]+ usec\/call\n$/)
  for (const { child, ended } of endless) {
    child.kill()
    await ended
  }
  await daemon.settled(isEmpty)
})
