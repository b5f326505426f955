/*
 * Errors of commands on rdma_cm files.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UCMA_HEADER_BYTES, ucmaCommands } from '../../../src/spec/linux/ucma.ts'
import type { CallerView } from '../../../src/uapi/call.ts'
import { decodeUcma, type UcmaChannel } from '../../../src/uapi/linux/ucma.ts'

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

test('parameters of CONNECT that are not marked as valid are refused', () => {
  assert.deepEqual(errorOfZeros('CONNECT'), { ret: -22, reason: 'CONNECT: the byte at 271 is 0, not nonzero' })
})
