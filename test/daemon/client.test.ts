/*
 * The test client: the end of a session while messages are awaited.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { scratchFolder } from '../tools.ts'
import { daemonOf, dial } from './client.ts'

const folder = scratchFolder()

describe('each `next` that waits returns undefined', () => {
  for (const [title, endsByDaemon] of [
    ['when the client closes the session', false],
    ['when the daemon ends the session', true],
  ] as const)
    it(title, async t => {
      const client = dial(t, await daemonOf(t, folder))
      const waiting = [client.next(), client.next()]
      // No message is this short.
      if (endsByDaemon) client.send(Uint8Array.of(0))
      else client.close()
      assert.deepEqual(await Promise.all(waiting), [undefined, undefined])
      assert.equal(await client.next(), undefined)
    })
})
