/*
 * Descriptors that a program passes as its userfaultfd. Watched memory is tested with programs
 * (test/system/failures/registered-memory.test.ts, test/system/devices/doorbells.test.ts).
 */
import assert from 'node:assert/strict'
import { closeSync, openSync } from 'node:fs'
import { test } from 'node:test'
import { createMemfd } from '../../../src/host/memory/memfd.ts'
import { watchUserfault } from '../../../src/host/memory/userfault.ts'
import { close, socketPair } from '../../../src/host/net/sockets.ts'

test('a descriptor that is no userfaultfd is not watched', () => {
  const fail = (): void => assert.fail('there are no events')
  const events = { unmapped: fail, stored: fail }
  const [one, other] = socketPair()
  const file = createMemfd('test', 4096)
  const device = openSync('/dev/null', 'r')
  for (const fd of [one, file, device, 4000]) assert.equal(watchUserfault(fd, events), undefined)
  for (const fd of [one, other, file]) close(fd)
  closeSync(device)
})
