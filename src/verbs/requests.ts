/*
 * Work requests as the device's rings have them, in the layout of each ring (spec/drivers/ring-layout.ts). Written with
 * plain stores into a slot; nothing is allocated, so that posting costs what its stores cost.
 */
import { RingSge } from '../spec/drivers/rxe-rings.ts'
import type { Slice } from './memory.ts'
import type { ProgramRing } from './ring.ts'

const TWO_32 = 2 ** 32

const putU64 = (view: DataView, at: number, value: number): void => {
  view.setUint32(at, value, true)
  view.setUint32(at + 4, value / TWO_32, true)
}

const putSlice = (view: DataView, at: number, { lo, hi, length, lkey }: Slice): void => {
  view.setUint32(at + RingSge.ADDRESS, lo, true)
  view.setUint32(at + RingSge.ADDRESS + 4, hi, true)
  view.setUint32(at + RingSge.LENGTH, length, true)
  view.setUint32(at + RingSge.LKEY, lkey, true)
}

/** Writes elements to `at` and answers their number; `total` of them is `totalOf`. */
const putSlices = (view: DataView, at: number, local: Slice | readonly Slice[]): number => {
  if (!Array.isArray(local)) {
    putSlice(view, at, local as Slice)
    return 1
  }
  for (let i = 0; i < local.length; i++) putSlice(view, at + i * RingSge.BYTES, local[i])
  return local.length
}

export const totalOf = (local: Slice | readonly Slice[]): number => {
  if (!Array.isArray(local)) return (local as Slice).length
  let total = 0
  for (let i = 0; i < local.length; i++) total += local[i].length
  return total
}

/** The part that every send request has. */
export const putSend = (
  { view, layout: { send } }: ProgramRing,
  at: number,
  opcode: number,
  id: number,
  flags: number,
  local: Slice | readonly Slice[] | undefined,
): void => {
  putU64(view, at + send.WR_ID, id)
  view.setUint32(at + send.OPCODE, opcode, true)
  view.setUint32(at + send.FLAGS, flags, true)
  view.setUint32(at + send.DMA_LENGTH, local === undefined ? 0 : totalOf(local), true)
  view.setUint32(at + send.DMA_NUM_SGE, local === undefined ? 0 : putSlices(view, at + send.SGE, local), true)
}

/** Inline data instead of elements. */
export const putInline = ({ view, bytes, layout: { send } }: ProgramRing, at: number, data: Uint8Array): void => {
  view.setUint32(at + send.DMA_LENGTH, data.length, true)
  view.setUint32(at + send.DMA_NUM_SGE, 0, true)
  bytes.set(data, at + send.SGE)
}

/** Immediate data: the u32 as the peer sees it. */
export const putImmediate = ({ view, layout: { send } }: ProgramRing, at: number, immediate: number): void => {
  view.setUint32(at + send.IMM, immediate)
}

/** The key that the peer is to invalidate. */
export const putInvalidate = ({ view, layout: { send } }: ProgramRing, at: number, key: number): void => {
  view.setUint32(at + send.IMM, key, true)
}

/** Remote memory of WRITE and READ. */
export const putRemote = ({ view, layout: { send } }: ProgramRing, at: number, address: bigint, rkey: number): void => {
  view.setBigUint64(at + send.REMOTE, address, true)
  view.setUint32(at + send.RKEY, rkey, true)
}

/** The lower half of the remote address that was written to a request. */
export const remoteLow = ({ view, layout: { send } }: ProgramRing, at: number): number =>
  view.getUint32(at + send.REMOTE, true)

/** Remote word and operands of an atomic. */
export const putAtomic = (
  { view, layout: { send } }: ProgramRing,
  at: number,
  address: bigint,
  rkey: number,
  compareOrAdd: bigint,
  swap: bigint,
): void => {
  view.setBigUint64(at + send.REMOTE, address, true)
  view.setBigUint64(at + send.ATOMIC_COMPARE_ADD, compareOrAdd, true)
  view.setBigUint64(at + send.ATOMIC_SWAP, swap, true)
  view.setUint32(at + send.ATOMIC_RKEY, rkey, true)
}

/** FLUSH (annex A19): `placement` and `selectivity` as in spec/headers.ts. */
export const putFlush = (
  { view, layout: { send } }: ProgramRing,
  at: number,
  address: bigint,
  rkey: number,
  length: number,
  placement: number,
  selectivity: number,
): void => {
  view.setBigUint64(at + send.REMOTE, address, true)
  view.setUint32(at + send.FLUSH_RKEY, rkey, true)
  view.setUint8(at + send.FLUSH_PLACEMENT, placement)
  view.setUint8(at + send.FLUSH_SELECTIVITY, selectivity)
  view.setUint32(at + send.DMA_LENGTH, length, true)
}

/** The 8 bytes of an ATOMIC WRITE. */
export const putWord = ({ view, layout: { send } }: ProgramRing, at: number, word: bigint): void => {
  view.setBigUint64(at + send.SGE, word, true)
  view.setUint32(at + send.DMA_LENGTH, 8, true)
}

/** A bind: the window's key as it is and as it becomes, and what of the region with `lkey` it grants. */
export const putBind = (
  { view, layout: { send } }: ProgramRing,
  at: number,
  key: number,
  newKey: number,
  lkey: number,
  address: bigint,
  length: number,
  access: number,
): void => {
  view.setBigUint64(at + send.REMOTE, address, true)
  putU64(view, at + send.MW_LENGTH, length)
  view.setUint32(at + send.MW_LKEY, lkey, true)
  view.setUint32(at + send.MW_KEY, key, true)
  view.setUint32(at + send.MW_NEW_KEY, newKey, true)
  view.setUint32(at + send.MW_ACCESS, access, true)
}

/** Where a datagram goes: the number of an address handle, the queue pair there and its Q_Key. */
export const putDestination = (
  { view, layout: { send } }: ProgramRing,
  at: number,
  ah: number,
  qpn: number,
  qkey: number,
): void => {
  view.setUint32(at + send.UD_AH, ah, true)
  view.setUint32(at + send.UD_QPN, qpn, true)
  view.setUint32(at + send.UD_QKEY, qkey, true)
}

export const putReceive = (
  { view, layout: { receive } }: ProgramRing,
  at: number,
  id: number,
  local: Slice | readonly Slice[] | undefined,
): void => {
  putU64(view, at + receive.WR_ID, id)
  view.setUint32(at + receive.DMA_NUM_SGE, local === undefined ? 0 : putSlices(view, at + receive.SGE, local), true)
}
