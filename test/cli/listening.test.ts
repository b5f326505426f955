/*
 * Waiting for a program to listen on a port.
 */
import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { it } from 'node:test'
import { freePort, untilListening } from '../../src/cli/listening.ts'

it('waits until the port is listened on, or the program has ended or could not be started', async () => {
  const port = await freePort()
  assert.equal(await untilListening(port, Promise.resolve()), false)
  assert.equal(await untilListening(port, Promise.reject(new Error('spawn EAGAIN'))), false)
  const server = createServer()
  await new Promise<void>(resolve => server.listen(port, resolve))
  assert.equal(await untilListening(port, new Promise(() => {})), true)
  await new Promise(resolve => server.close(resolve))
})
