/*
 * The headers that follow the BTH (InfiniBand Architecture Specification, volume 1, clause 9.3; annexes A14 and A19)
 * for hot code: each function reads or writes the header that starts at byte `at` of a DataView, allocates nothing and
 * checks nothing. Where a header starts is `headerAt` in spec/wire/opcodes.ts. Values of 64 bits are two u32, high and
 * low word. The layouts are data in spec/wire/headers.ts; a test holds the two together.
 */

/** Remote virtual address, high word. */
export const rethVaHi = (view: DataView, at: number): number => view.getUint32(at)
/** Remote virtual address, low word. */
export const rethVaLo = (view: DataView, at: number): number => view.getUint32(at + 4)
export const rethRkey = (view: DataView, at: number): number => view.getUint32(at + 8)
/** Length of the whole message in bytes, 0 to 2^32-1 (the specification allows 2^31). */
export const rethDmaLen = (view: DataView, at: number): number => view.getUint32(at + 12)

export const putReth = (view: DataView, at: number, vaHi: number, vaLo: number, rkey: number, dmaLen: number): void => {
  view.setUint32(at, vaHi)
  view.setUint32(at + 4, vaLo)
  view.setUint32(at + 8, rkey)
  view.setUint32(at + 12, dmaLen)
}

/** Kind and value as in `syndromeKind` (spec/wire/headers.ts). */
export const aethSyndrome = (view: DataView, at: number): number => view.getUint8(at)
/** Message sequence number, 24 bits. */
export const aethMsn = (view: DataView, at: number): number => view.getUint32(at) & 0xff_ffff

export const putAeth = (view: DataView, at: number, syndrome: number, msn: number): void =>
  view.setUint32(at, (syndrome << 24) | msn)

export const atomicVaHi = (view: DataView, at: number): number => view.getUint32(at)
export const atomicVaLo = (view: DataView, at: number): number => view.getUint32(at + 4)
export const atomicRkey = (view: DataView, at: number): number => view.getUint32(at + 8)
/** What compare-and-swap writes, or what fetch-and-add adds; high word. */
export const atomicSwapHi = (view: DataView, at: number): number => view.getUint32(at + 12)
export const atomicSwapLo = (view: DataView, at: number): number => view.getUint32(at + 16)
/** What compare-and-swap compares with, high word; fetch-and-add has none. */
export const atomicCompareHi = (view: DataView, at: number): number => view.getUint32(at + 20)
export const atomicCompareLo = (view: DataView, at: number): number => view.getUint32(at + 24)

export const putAtomicEth = (
  view: DataView,
  at: number,
  vaHi: number,
  vaLo: number,
  rkey: number,
  swapHi: number,
  swapLo: number,
  compareHi: number,
  compareLo: number,
): void => {
  view.setUint32(at, vaHi)
  view.setUint32(at + 4, vaLo)
  view.setUint32(at + 8, rkey)
  view.setUint32(at + 12, swapHi)
  view.setUint32(at + 16, swapLo)
  view.setUint32(at + 20, compareHi)
  view.setUint32(at + 24, compareLo)
}

/** The memory word before the operation, high word. */
export const atomicAckHi = (view: DataView, at: number): number => view.getUint32(at)
export const atomicAckLo = (view: DataView, at: number): number => view.getUint32(at + 4)

export const putAtomicAck = (view: DataView, at: number, hi: number, lo: number): void => {
  view.setUint32(at, hi)
  view.setUint32(at + 4, lo)
}

export const dethQkey = (view: DataView, at: number): number => view.getUint32(at)
/** Source queue pair number, 24 bits. */
export const dethSrcQp = (view: DataView, at: number): number => view.getUint32(at + 4) & 0xff_ffff

export const putDeth = (view: DataView, at: number, qkey: number, srcQp: number): void => {
  view.setUint32(at, qkey)
  view.setUint32(at + 4, srcQp)
}

/** Immediate data: the u32 whose big-endian bytes were sent. */
export const immediate = (view: DataView, at: number): number => view.getUint32(at)
export const putImmediate = (view: DataView, at: number, value: number): void => view.setUint32(at, value)

/** The key to invalidate. */
export const iethRkey = (view: DataView, at: number): number => view.getUint32(at)
export const putIeth = (view: DataView, at: number, rkey: number): void => view.setUint32(at, rkey)

/** Selectivity level, 0 to 3: `flushSelectivity` in spec/wire/headers.ts. */
export const fethSelectivity = (view: DataView, at: number): number => (view.getUint8(at + 3) >> 4) & 3
/** Placement type, 4 bits: a set of `flushPlacement` bits. */
export const fethPlacement = (view: DataView, at: number): number => view.getUint8(at + 3) & 15

export const putFeth = (view: DataView, at: number, selectivity: number, placement: number): void =>
  view.setUint32(at, (selectivity << 4) | placement)

/** The XRC shared receive queue, 24 bits. */
export const xrcethSrq = (view: DataView, at: number): number => view.getUint32(at) & 0xff_ffff
export const putXrceth = (view: DataView, at: number, srq: number): void => view.setUint32(at, srq)
