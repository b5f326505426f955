/*
 * Reading a message of Linux's ioctl dialect: with as few copies from the program as its place permits.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CallError } from '../../../src/spec/errno.ts'
import { ioctlMethods } from '../../../src/spec/linux/ioctl.ts'
import { IoctlAttr, IoctlHeader, readMessage } from '../../../src/uapi/linux/ioctl-message.ts'
import { viewOf } from '../../../src/uapi/scalar.ts'
import { fakeMemory } from '../abilog.ts'
import { fakeView, rxeSchema } from '../fake-view.ts'

const PAGE = 4096n
const AT = 0x10_0000n
/** An attribute that no method has and that need not be known. */
const UNKNOWN = 0x7ffe

/** A message with `count` attributes that are passed over. */
const message = (count: number): Uint8Array => {
  const { object, number } = ioctlMethods.find(({ name }) => name === 'QUERY_GID_TABLE')!
  const bytes = new Uint8Array(IoctlHeader.bytes + count * IoctlAttr.bytes)
  const view = viewOf(bytes)
  view.setUint16(IoctlHeader.length, bytes.length, true)
  view.setUint16(IoctlHeader.object, object, true)
  view.setUint16(IoctlHeader.method, number, true)
  view.setUint16(IoctlHeader.attributeCount, count, true)
  view.setUint32(IoctlHeader.driverId, rxeSchema.driverId, true)
  for (let i = 0; i < count; i++) view.setUint16(IoctlHeader.bytes + i * IoctlAttr.bytes + IoctlAttr.id, UNKNOWN, true)
  return bytes
}

/** What comes of a message in memory of `mapped` bytes, and the lengths of the copies that succeeded. */
const read = (address: bigint, bytes: Uint8Array, mapped: number) => {
  const memory = fakeMemory()
  const all = new Uint8Array(mapped)
  all.set(bytes)
  memory.map(address, all)
  const copies: number[] = []
  const view = fakeView(memory)
  const copyIn: typeof view.copyIn = (from, length) => {
    const copy = memory.copyIn(from, length)
    copies.push(length)
    return copy
  }
  try {
    readMessage({ ...view, copyIn }, address)
    return { copies, outcome: 'read' }
  } catch (error) {
    if (!(error instanceof CallError)) throw error
    return { copies, outcome: error.message }
  }
}

test('a short message takes one copy, a long one two, and none reaches beyond its page', () => {
  const short = message(3)
  const { outcome, copies } = read(AT, short, 4096)
  assert.match(outcome, /mandatory|lacks|missing|needs/i)
  assert.deepEqual(copies, [256])
  assert.deepEqual(read(AT + PAGE - 100n, short, 100), { outcome, copies: [100] })
  // The header ends the page, the attributes follow in the next.
  assert.deepEqual(read(AT + PAGE - 24n, short, 4096), { outcome, copies: [24, short.length] })
  // Memory that ends with the message, as a file may.
  assert.deepEqual(read(AT, short, short.length), { outcome, copies: [24, short.length] })
  const long = message(30)
  assert.deepEqual(read(AT, long, 4096), { outcome, copies: [256, long.length] })
})
