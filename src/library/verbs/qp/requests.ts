/*
 * Encodes work requests into slots of rings (spec/drivers/ring-layout.ts). Hot: no allocation. `at` is the byte offset
 * of the slot.
 */
import { RingSge } from '../../../spec/drivers/mapped-rings.ts'
import { TWO_32 } from '../../../spec/memory.ts'
import type { Slice } from '../mr/region.ts'
import { RemoteRange } from '../mr/remote-memory.ts'
import type { ProgramRing } from '../ring.ts'

/** `value`: an integer from 0 to 2^53 − 1. */
const putU64 = (words: Int32Array, at: number, value: number): void => {
  // An Int32Array keeps the low 32 bits of the integer part.
  words[at >> 2] = value
  words[(at >> 2) + 1] = value / TWO_32
}

const putSlice = (words: Int32Array, at: number, { lo, hi, length, lkey }: Slice): void => {
  words[(at + RingSge.ADDRESS) >> 2] = lo
  words[(at + RingSge.ADDRESS + 4) >> 2] = hi
  words[(at + RingSge.LENGTH) >> 2] = length
  words[(at + RingSge.LKEY) >> 2] = lkey
}

/** Writes scatter/gather elements at byte offset `at` and returns their number. */
const putSlices = (words: Int32Array, at: number, local: Slice | readonly Slice[]): number => {
  if (!Array.isArray(local)) {
    putSlice(words, at, local as Slice)
    return 1
  }
  for (let i = 0; i < local.length; i++) putSlice(words, at + i * RingSge.BYTES, local[i])
  return local.length
}

/** Number of scatter/gather elements. `local`: undefined for none. */
export const sgeCountOf = (local: Slice | readonly Slice[] | undefined): number => {
  if (local === undefined) return 0
  return Array.isArray(local) ? local.length : 1
}

/** The total length of the slices in bytes. */
export const totalOf = (local: Slice | readonly Slice[]): number => {
  if (!Array.isArray(local)) return (local as Slice).length
  let total = 0
  for (let i = 0; i < local.length; i++) total += local[i].length
  return total
}

/**
 * The first fields of every send request. Next is `putOne`, `putMany` or `putInline`, also for a request without bytes;
 * then the fields of the operation.
 */
export const putSend = (
  { words, layout: { send } }: ProgramRing,
  at: number,
  opcode: number,
  id: number,
  flags: number,
): void => {
  putU64(words, at + send.WR_ID, id)
  words[(at + send.OPCODE) >> 2] = opcode
  words[(at + send.FLAGS) >> 2] = flags
}

/** The bytes of a send request: one slice. */
export const putOne = ({ words, layout: { send } }: ProgramRing, at: number, local: Slice): void => {
  words[(at + send.DMA_LENGTH) >> 2] = local.length
  words[(at + send.DMA_NUM_SGE) >> 2] = 1
  putSlice(words, at + send.SGE, local)
}

/** `DMA_LENGTH` of a request whose length does not fit: it is longer than any message, so the request fails. */
const MAX_LENGTH = 0xffff_ffff

/** The bytes of a send request: one or more slices, or none. */
export const putMany = (
  { words, layout: { send } }: ProgramRing,
  at: number,
  local: Slice | readonly Slice[],
): void => {
  words[(at + send.DMA_LENGTH) >> 2] = Math.min(totalOf(local), MAX_LENGTH)
  words[(at + send.DMA_NUM_SGE) >> 2] = putSlices(words, at + send.SGE, local)
}

/** The bytes of a send request: inline data in place of scatter/gather elements. */
export const putInline = ({ words, bytes, layout: { send } }: ProgramRing, at: number, data: Uint8Array): void => {
  words[(at + send.DMA_LENGTH) >> 2] = data.length
  words[(at + send.DMA_NUM_SGE) >> 2] = 0
  bytes.set(data, at + send.SGE)
}

/** Immediate data: a u32, in network byte order. */
export const putImmediate = ({ view, layout: { send } }: ProgramRing, at: number, immediate: number): void => {
  view.setUint32(at + send.IMM, immediate)
}

/** The rkey to invalidate, in native byte order: the peer's (SEND with invalidate) or the program's (LOCAL_INV). */
export const putInvalidate = ({ words, layout: { send } }: ProgramRing, at: number, rkey: number): void => {
  words[(at + send.IMM) >> 2] = rkey
}

/** Remote address and rkey of a WRITE, READ or ATOMIC WRITE. */
export const putRemote = ({ words, layout: { send } }: ProgramRing, at: number, remote: RemoteRange): void =>
  RemoteRange.put(remote, words, at + send.REMOTE, at + send.RKEY)

/** Total bytes of the send request at `at`. */
export const bytesOf = ({ words, layout: { send } }: ProgramRing, at: number): number =>
  words[(at + send.DMA_LENGTH) >> 2]! >>> 0

/** Remote address, rkey and operands of an atomic; `swap`: 0 for fetch-and-add. */
export const putAtomic = (
  { view, words, layout: { send } }: ProgramRing,
  at: number,
  remote: RemoteRange,
  compareOrAdd: bigint,
  swap: bigint,
): void => {
  RemoteRange.put(remote, words, at + send.REMOTE, at + send.ATOMIC_RKEY)
  view.setBigUint64(at + send.ATOMIC_COMPARE_ADD, compareOrAdd, true)
  view.setBigUint64(at + send.ATOMIC_SWAP, swap, true)
}

/** The fields of a FLUSH (annex A19); `placement`, `selectivity`: values of the enums in spec/wire/headers.ts. */
export const putFlush = (
  { view, words, layout: { send } }: ProgramRing,
  at: number,
  remote: RemoteRange,
  length: number,
  placement: number,
  selectivity: number,
): void => {
  RemoteRange.put(remote, words, at + send.REMOTE, at + send.FLUSH_RKEY)
  view.setUint8(at + send.FLUSH_PLACEMENT, placement)
  view.setUint8(at + send.FLUSH_SELECTIVITY, selectivity)
  words[(at + send.DMA_LENGTH) >> 2] = length
}

/** The payload of an ATOMIC WRITE, 8 bytes. */
export const putWord = ({ view, words, layout: { send } }: ProgramRing, at: number, word: bigint): void => {
  view.setBigUint64(at + send.SGE, word, true)
  words[(at + send.DMA_LENGTH) >> 2] = 8
}

/** The fields of a bind: the window's old and new rkey, and address, length and rights in the region with `lkey`. */
export const putBind = (
  { view, words, layout: { send } }: ProgramRing,
  at: number,
  rkey: number,
  newRkey: number,
  lkey: number,
  address: bigint,
  length: number,
  access: number,
): void => {
  view.setBigUint64(at + send.REMOTE, address, true)
  putU64(words, at + send.MW_LENGTH, length)
  words[(at + send.MW_LKEY) >> 2] = lkey
  words[(at + send.MW_KEY) >> 2] = rkey
  words[(at + send.MW_NEW_KEY) >> 2] = newRkey
  words[(at + send.MW_ACCESS) >> 2] = access
}

/** The destination of a datagram; `ah`: `AddressHandle.number`. */
export const putDestination = (
  { words, layout: { send } }: ProgramRing,
  at: number,
  ah: number,
  qpn: number,
  qkey: number,
): void => {
  words[(at + send.UD_AH) >> 2] = ah
  words[(at + send.UD_QPN) >> 2] = qpn
  words[(at + send.UD_QKEY) >> 2] = qkey
}

/** A receive: its id and scatter/gather elements. */
export const putReceive = (
  { words, layout: { receive } }: ProgramRing,
  at: number,
  id: number,
  local: Slice | readonly Slice[] | undefined,
): void => {
  putU64(words, at + receive.WR_ID, id)
  words[(at + receive.DMA_NUM_SGE) >> 2] = local === undefined ? 0 : putSlices(words, at + receive.SGE, local)
}
