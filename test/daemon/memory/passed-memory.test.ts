/*
 * Memory files that clients pass with HELLO.
 */
import assert from 'node:assert/strict'
import { closeSync, fstatSync, openSync, readdirSync, statSync } from 'node:fs'
import { test } from 'node:test'
import { takePassedMemory } from '../../../src/daemon/memory/passed-memory.ts'
import { addSeals, createMemfd, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SHRINK } from '../../../src/host/memory/memfd.ts'
import type { PassedFd } from '../../../src/host/memory/mover.ts'
import { close } from '../../../src/host/net/sockets.ts'
import { passedMemory } from '../../../src/library/verbs/remote/call-memory.ts'
import { SystemClass } from '../../../src/spec/classes/device/system.ts'
import { CallError, Errno } from '../../../src/spec/errno.ts'
import { PassedFile, SYSTEM_NODE } from '../../../src/spec/session.ts'
import { decodeResult, encodeCall } from '../../../src/uapi/object/client.ts'
import { ioctlRequest } from '../../../src/uapi/object/dialect.ts'
import { messageBuffer, writeHello } from '../../../src/uapi/session-codec.ts'
import { scratchFolder } from '../../tools.ts'
import { daemonOf, dial, eventually, type ReceivedReply } from '../client.ts'

const folder = scratchFolder()
const SEALS = SEAL_SHRINK | SEAL_GROW

const createFile = (size: number, seals: number): PassedFd => {
  const fd = createMemfd('userdma-test', size)
  addSeals(fd, seals)
  return fd as PassedFd
}
const assertFault = (body: () => unknown): void =>
  assert.throws(body, error => error instanceof CallError && error.code === 'EFAULT')

test('bytes are read and written only inside the file', () => {
  const memory = takePassedMemory(createFile(8192, SEALS))
  assert.ok(memory)
  memory.copyOut(8190n, Uint8Array.of(1, 2))
  assert.deepEqual([...memory.copyIn(8189n, 3)], [0, 1, 2])
  assert.deepEqual([...memory.copyIn(8192n, 0)], [])
  for (const [address, length] of [
    [8189n, 4],
    [8193n, 0],
    [0n, 8193],
    [0n, 2 ** 40],
    [2n ** 64n - 1n, 2],
  ] as const) {
    assertFault(() => memory.copyIn(address, length))
    if (length < 10_000) assertFault(() => memory.copyOut(address, new Uint8Array(length)))
  }
  memory.close()
  memory.close()
  assertFault(() => memory.copyIn(0n, 1))
  assertFault(() => memory.copyOut(0n, Uint8Array.of(1)))
})

test('a write faults if the file is sealed against writing', () => {
  const memory = takePassedMemory(createFile(4096, SEALS | SEAL_FUTURE_WRITE))
  assert.ok(memory)
  assert.deepEqual([...memory.copyIn(0n, 2)], [0, 0])
  assertFault(() => memory.copyOut(0n, Uint8Array.of(1)))
  memory.close()
})

const countDescriptors = (): number => readdirSync('/proc/self/fd').length

/** Number of descriptors of this process for the same file. */
const copiesOf = (fd: number): number => {
  const { ino, dev } = fstatSync(fd)
  return readdirSync('/proc/self/fd').filter(number => {
    const found = statSync(`/proc/self/fd/${number}`, { throwIfNoEntry: false })
    return found?.ino === ino && found.dev === dev
  }).length
}

test('files that can change size, are too large, or are not memory files are closed', () => {
  const before = countDescriptors()
  assert.equal(takePassedMemory(createFile(4096, SEAL_SHRINK)), undefined)
  assert.equal(takePassedMemory(createFile(4096, SEAL_GROW)), undefined)
  assert.equal(takePassedMemory(createFile(PassedFile.bytes + 1, SEALS)), undefined)
  assert.equal(takePassedMemory(openSync('/dev/zero', 'r+') as PassedFd), undefined)
  assert.equal(countDescriptors(), before)
})

test('a session has one file; addresses in calls are offsets in it; the end of the session closes it', async t => {
  const daemon = await daemonOf(t, folder)
  const client = dial(t, daemon)
  const hello = async (fd: number): Promise<ReceivedReply> => {
    const buffer = messageBuffer()
    assert.ok(client.send(buffer.bytes.slice(0, writeHello(buffer, {})), [fd]) > 0)
    const reply = await client.next()
    assert.ok(reply)
    for (const passed of reply.descriptors) close(passed)
    return reply
  }
  const unsealed = createMemfd('userdma-test', 4096)
  assert.equal((await hello(unsealed)).error, Errno.EINVAL)
  closeSync(unsealed)
  const { fd, memory } = passedMemory()
  assert.equal((await hello(fd)).error, 0)
  assert.equal((await hello(fd)).error, Errno.EINVAL)

  const { context, descriptors: opened } = await client.open(SYSTEM_NODE)
  const call = {
    class: SystemClass,
    methodName: 'query',
    method: SystemClass.methods.query,
    object: 0,
    args: {},
  } as const
  const message = encodeCall(call, { outputBuffers: { devices: 4096, classes: 4096 } })
  memory.bytes.set(message, 4096)
  assert.equal(await client.ioctl(context, ioctlRequest(call.method.call), 4096n), 0)
  const { out } = decodeResult(call, memory.bytes.slice(4096, 4096 + message.length))
  assert.ok(Array.isArray(out.classes) && out.classes.length > 0)
  // Addresses of this process are invalid.
  assert.equal(
    await client.ioctl(context, ioctlRequest(call.method.call), BigInt(client.memory.address)),
    -Errno.EFAULT,
  )
  for (const fdOfContext of opened) close(fdOfContext)
  assert.equal(copiesOf(fd), 2, "the client's and, in the same process, the daemon's")
  client.close()
  const other = dial(t, daemon)
  await other.hello()
  await eventually(other, ({ sessions }) => sessions === 0)
  assert.equal(copiesOf(fd), 1)
})
