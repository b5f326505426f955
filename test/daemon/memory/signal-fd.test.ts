/* Eventfds of programs that get events (src/daemon/memory/signal-fd.ts). */
import assert from 'node:assert/strict'
import { closeSync, read, readSync, writeSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { createAccount } from '../../../src/core/objects/limits.ts'
import { createSharedLimits } from '../../../src/daemon/accounts.ts'
import { openSignal } from '../../../src/daemon/memory/signal-fd.ts'
import { closeProcess, openProcess, type ProcessHandle } from '../../../src/host/memory/process.ts'
import { libcFunctions } from '../../../src/host/native.ts'

const sys = libcFunctions({ eventfd: 'int eventfd(uint32_t count, int flags)' })
const LARGEST = 0xffff_ffff_ffff_fffen

const bytesOf = (count: bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(count)
  return bytes
}

test('eventfds with the largest count keep nobody waiting, and others count each event', async t => {
  const self = openProcess(process.pid) as ProcessHandle
  const account = createAccount(createSharedLimits(), { pid: process.pid, user: 0, owner: 0 })
  // more than libuv has threads
  const fds = Array.from({ length: 9 }, () => sys().eventfd(0, 0))
  const full = fds.slice(1)
  const signals = fds.map(fd => openSignal(self, account, fd))
  t.after(() => {
    for (const signal of signals) signal.close()
    // a write that waits would keep this process from ending
    for (const fd of full) readSync(fd, Buffer.alloc(8))
    for (const fd of fds) closeSync(fd)
    closeProcess(self)
  })
  for (const fd of full) writeSync(fd, bytesOf(LARGEST))
  for (const signal of signals) for (let i = 0; i < 3; i++) signal.signal()
  await stat('/')
  let sum = 0n
  for (const count = Buffer.alloc(8); sum < 3n; sum += count.readBigUInt64LE())
    await promisify(read)(fds[0]!, count, 0, 8, null)
  assert.equal(sum, 3n)
})
