/*
 * Shared by packet scripts for the requester and the completer: short names of numbers, and client memory.
 */
import { WrOpcode } from '../../src/spec/work.ts'
import type { startScript } from './script.ts'

export const MTU = 1024
export const RTS = 3
export const ERR = 6
export const wr = WrOpcode.values
export const { RDMA_WRITE: WRITE, RDMA_WRITE_WITH_IMM: WRITE_IMM, SEND, SEND_WITH_IMM: SEND_IMM, RDMA_READ: READ } = wr
export const { ATOMIC_CMP_AND_SWP: CAS, ATOMIC_FETCH_AND_ADD: FAA, SEND_WITH_INV: SEND_INV } = wr
export const FENCE = 1
export const SIGNALED = 2
export const SOLICITED = 4

export type Script = ReturnType<typeof startScript>
export const sge = (at: number, length: number) => ({ sges: [{ at, length }] })
export const data = (t: Script, at: number, length: number): Uint8Array => {
  for (let i = 0; i < length; i++) t.node.memory[at + i] = i * 5 + 3
  return t.node.memory.slice(at, at + length)
}
export const joined = (t: Script): Uint8Array => Uint8Array.from(t.payloads().flatMap(p => [...p]))
export const NAK = { SEQUENCE: 0x60, INVALID: 0x61, ACCESS: 0x62, OPERATION: 0x63, INVALID_RD: 0x64 }
export const rnr = (code: number): number => 0x20 | code
/** ACK timeout for code 14, µs. */
export const T14 = 4.096 * 2 ** 14
