/*
 * The headers that follow the BTH (InfiniBand Architecture Specification, volume 1, clause 9.3; annexes A14 and A19)
 * for hot code. The functions read a field of the header at byte `at` of a DataView, or write the header, without
 * allocation or checks. `headerAt` in spec/wire/opcodes.ts has the offsets of the headers in packets. A 64-bit value is
 * two u32, high and low word.
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

/** One byte: `syndromeKind` (spec/wire/headers.ts) and value. */
export const aethSyndrome = (view: DataView, at: number): number => view.getUint8(at)
/** Message sequence number, 24 bits. */
export const aethMsn = (view: DataView, at: number): number => view.getUint32(at) & 0xff_ffff

export const putAeth = (view: DataView, at: number, syndrome: number, msn: number): void =>
  view.setUint32(at, (syndrome << 24) | msn)

export const atomicVaHi = (view: DataView, at: number): number => view.getUint32(at)
export const atomicVaLo = (view: DataView, at: number): number => view.getUint32(at + 4)
export const atomicRkey = (view: DataView, at: number): number => view.getUint32(at + 8)
/** High word of the value that compare-and-swap writes, or of fetch-and-add's addend. */
export const atomicSwapHi = (view: DataView, at: number): number => view.getUint32(at + 12)
export const atomicSwapLo = (view: DataView, at: number): number => view.getUint32(at + 16)
/** High word of the value that compare-and-swap compares with; unused by fetch-and-add. */
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

/** The value in memory before the operation, high word. */
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

/** Immediate data, as the u32 whose big-endian bytes are on the wire. */
export const immediate = (view: DataView, at: number): number => view.getUint32(at)
export const putImmediate = (view: DataView, at: number, value: number): void => view.setUint32(at, value)

/** The rkey to invalidate. */
export const iethRkey = (view: DataView, at: number): number => view.getUint32(at)
export const putIeth = (view: DataView, at: number, rkey: number): void => view.setUint32(at, rkey)

/** Selectivity level, 0 to 3: `flushSelectivity` in spec/wire/headers.ts. */
export const fethSelectivity = (view: DataView, at: number): number => (view.getUint8(at + 3) >> 4) & 3
/** Placement type, 4 bits: `flushPlacement` bits. */
export const fethPlacement = (view: DataView, at: number): number => view.getUint8(at + 3) & 15

export const putFeth = (view: DataView, at: number, selectivity: number, placement: number): void =>
  view.setUint32(at, (selectivity << 4) | placement)

/** The XRC SRQ number, 24 bits. */
export const xrcethSrq = (view: DataView, at: number): number => view.getUint32(at) & 0xff_ffff
export const putXrceth = (view: DataView, at: number, srq: number): void => view.setUint32(at, srq)
