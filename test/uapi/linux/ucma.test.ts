/*
 * Errors of commands on rdma_cm files.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Errno } from '../../../src/spec/errno.ts'
import { UCMA_HEADER_BYTES, ucmaCommands } from '../../../src/spec/linux/ucma.ts'
import type { CallerView } from '../../../src/uapi/call.ts'
import { decodeUcma, type UcmaChannel } from '../../../src/uapi/linux/ucma.ts'
import { ARENA, AT, arena, fakeView } from '../fake-view.ts'

/** The error of a command whose struct has only zeros. */
const errorOfZeros = (name: string): { ret: number; reason?: string } => {
  const command = ucmaCommands.find(one => one.name === name)!
  const written = new Uint8Array(UCMA_HEADER_BYTES + command.in.size)
  const header = new DataView(written.buffer)
  header.setUint32(0, command.number, true)
  header.setUint16(4, command.in.size, true)
  const view = { copyIn: () => written } as unknown as CallerView
  const answer = decodeUcma(view, {} as UcmaChannel, 0n, written.length)
  assert.ok('ret' in answer)
  return { ret: answer.ret, ...(answer.reason !== undefined && { reason: answer.reason }) }
}

test('CONNECT with parameters that are not marked as valid is refused', () => {
  assert.deepEqual(errorOfZeros('CONNECT'), { ret: -22, reason: 'CONNECT: the byte at 271 is 0, not nonzero' })
})

test('an option with unknown identifier, invalid memory or unknown level is refused, checked in this order', () => {
  const IDENTIFIER = 7
  const SET_OPTION = ucmaCommands.find(({ name }) => name === 'SET_OPTION')!
  const channel: UcmaChannel = { object: 1, fd: 3, reportsTo: () => true, kindOf: () => 'channel' }
  const errorOf = (id: number, level: number, address: bigint): number => {
    const written = new Uint8Array(UCMA_HEADER_BYTES + SET_OPTION.in.size)
    const view = new DataView(written.buffer)
    view.setUint32(0, SET_OPTION.number, true)
    view.setUint16(4, SET_OPTION.in.size, true)
    view.setBigUint64(8, address, true)
    view.setUint32(16, id, true)
    view.setUint32(20, level, true)
    view.setUint32(28, 4, true) // bytes of the option
    const memory = arena()
    memory.map(AT, written)
    const answer = decodeUcma(fakeView(memory, new Map([[IDENTIFIER, 'cm_id']])), channel, AT, written.length)
    return 'ret' in answer ? -answer.ret : 0
  }
  const NOWHERE = 0x10n
  assert.equal(errorOf(IDENTIFIER, 1, ARENA), 0)
  for (const level of [2, 0x100, 0x101, 0xffff_ffff]) {
    assert.equal(errorOf(IDENTIFIER, level, ARENA), Errno.ENOSYS, `level ${level}`)
    assert.equal(errorOf(IDENTIFIER, level, NOWHERE), Errno.EFAULT)
    assert.equal(errorOf(IDENTIFIER + 1, level, NOWHERE), Errno.ENOENT)
  }
})
