/*
 * Short names and helpers for packet scripts.
 */
import { QpState } from '../../../src/spec/enums.ts'
import { nakCode, syndromeKind } from '../../../src/spec/wire/headers.ts'
import { SendFlags, WrOpcode } from '../../../src/spec/work.ts'
import type { startScript } from './script.ts'

/** Default path MTU of scripts, bytes. */
export const MTU = 1024
export const { RTS, SQD, ERR } = QpState.values
export const wr = WrOpcode.values
export const { RDMA_WRITE: WRITE, RDMA_WRITE_WITH_IMM: WRITE_IMM, SEND, SEND_WITH_IMM: SEND_IMM, RDMA_READ: READ } = wr
export const { ATOMIC_CMP_AND_SWP: CAS, ATOMIC_FETCH_AND_ADD: FAA, SEND_WITH_INV: SEND_INV } = wr
export const { FENCE, SIGNALED, SOLICITED } = SendFlags.values

export type Script = ReturnType<typeof startScript>
/** `sges` of a request with one scatter/gather element, at an offset in client memory. */
export const sge = (at: number, length: number) => ({ sges: [{ at, length }] })
/** Fills a range of client memory with a pattern, and returns a copy of it. */
export const fillMemory = (t: Script, at: number, length: number): Uint8Array => {
  for (let i = 0; i < length; i++) t.node.memory[at + i] = i * 5 + 3
  return t.node.memory.slice(at, at + length)
}
/** The joined payloads of all sent packets. */
export const sentPayload = (t: Script): Uint8Array => Uint8Array.from(t.payloads().flatMap(p => [...p]))
/** AETH syndromes of NAKs. */
export const NAK = {
  SEQUENCE: syndromeKind.NAK | nakCode.PSN_SEQUENCE,
  INVALID: syndromeKind.NAK | nakCode.INVALID_REQUEST,
  ACCESS: syndromeKind.NAK | nakCode.REMOTE_ACCESS,
  OPERATION: syndromeKind.NAK | nakCode.REMOTE_OPERATION,
  INVALID_RD: syndromeKind.NAK | nakCode.INVALID_RD_REQUEST,
}
/** AETH syndrome of an RNR NAK with this timer code. */
export const rnrSyndrome = (code: number): number => syndromeKind.RNR_NAK | code
/** ACK timeout of code 14, µs. */
export const T14 = 4.096 * 2 ** 14
