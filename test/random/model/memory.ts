/*
 * Client memory of the model test: registered regions with guards between them, and an observer that is called at every
 * write. Each queue pair has its own protection domain, so that the owner of a written byte is known.
 */
import assert from 'node:assert/strict'
import { WcStatus } from '../../../src/spec/work.ts'
import { Access, BindMw, type Memory } from '../../../src/transport/engine/types.ts'
import type { Arena } from '../../../src/transport/wire/arena.ts'

/** Start of client memory, just below a 4 GiB line. */
const BASE_HI = 0x7f01
const BASE_LO = 0xffff_c000
/** Every byte between the areas. */
const GUARD = 0x5a

export interface Region {
  readonly key: number
  readonly pd: number
  /** Bytes in client memory. A window has offset, length and access when it is bound. */
  offset: number
  length: number
  access: number
  /** A window may be bound when not live, and invalidated when live. */
  readonly isWindow: boolean
  isLive: boolean
}

/** Called after the bytes have changed. */
export interface Observer {
  wrote(region: Region, at: number, length: number): void
  atomic(region: Region, at: number, before: bigint): void
  bound(region: Region): void
  invalidated(region: Region): void
}

/** Offset of a 64-bit address in client memory; out of range for an address elsewhere. */
const offsetOf = (hi: number, lo: number): number => (hi - BASE_HI) * 0x1_0000_0000 + lo - BASE_LO

export const addressHi = (offset: number): number => BASE_HI + (BASE_LO + offset > 0xffff_ffff ? 1 : 0)
export const addressLo = (offset: number): number => (BASE_LO + offset) >>> 0

export type ClientMemory = ReturnType<typeof createMemory>

/** All bytes are guards until areas are allocated. */
export const createMemory = (size: number, observer: Observer) => {
  const bytes = new Uint8Array(size).fill(GUARD)
  const words = new DataView(bytes.buffer)
  const regions: Region[] = []
  const byKey = new Map<number, number>()
  /** The first free byte. */
  let top = 64
  const offsetInRegion = (index: number, hi: number, lo: number, total: number): number => {
    const region = regions[index]
    const at = offsetOf(hi, lo)
    assert.ok(region?.isLive, `region ${index} is used, but was not resolved`)
    assert.ok(
      at >= region.offset && at + total <= region.offset + region.length,
      `a move of ${total} bytes at ${at} leaves its region ${region.offset}+${region.length}`,
    )
    return at
  }
  const findGranting = (pd: number, key: number, access: number): number => {
    const index = byKey.get(key) ?? -1
    const region = regions[index]
    const grants = region?.isLive && region.pd === pd && (region.access & access) === access
    return grants ? index : -1
  }
  const windowOf = (pd: number, key: number, isLive: boolean): Region | undefined => {
    const region = regions[byKey.get(key) ?? -1]
    return region?.isWindow && region.pd === pd && region.isLive === isLive ? region : undefined
  }
  const engineMemory: Memory = {
    resolve(pd, key, hi, lo, length, access) {
      const index = findGranting(pd, key, access)
      if (index < 0) return -1
      const at = offsetOf(hi, lo)
      const { offset, length: size } = regions[index]
      return at >= offset && at + length <= offset + size ? index : -1
    },
    grants: (pd, key, access) => findGranting(pd, key, access) >= 0,
    read(region, hi, lo, to, at, chunk, stride, total) {
      let from = offsetInRegion(region, hi, lo, total)
      for (let remaining = total, offset = at; remaining > 0; remaining -= chunk, from += chunk, offset += stride)
        to.bytes.set(bytes.subarray(from, from + Math.min(remaining, chunk)), offset)
      return 0
    },
    write(region, hi, lo, from: Arena, at, chunk, stride, total) {
      const start = offsetInRegion(region, hi, lo, total)
      assert.ok((regions[region].access & (Access.LOCAL_WRITE | Access.REMOTE_WRITE)) !== 0, 'a read-only region')
      let to = start
      for (let remaining = total, offset = at; remaining > 0; remaining -= chunk, to += chunk, offset += stride)
        bytes.set(from.bytes.subarray(offset, offset + Math.min(remaining, chunk)), to)
      observer.wrote(regions[region], start, total)
      return 0
    },
    hasProcessEnded: () => false,
    compareSwap(region, hi, lo, compareHi, compareLo, swapHi, swapLo, original) {
      const at = offsetInRegion(region, hi, lo, 8)
      const before = words.getBigUint64(at, true)
      original[0] = words.getUint32(at, true)
      original[1] = words.getUint32(at + 4, true)
      if (original[0] === compareLo && original[1] === compareHi) {
        words.setUint32(at, swapLo, true)
        words.setUint32(at + 4, swapHi, true)
      }
      observer.atomic(regions[region], at, before)
      return 0
    },
    fetchAdd(region, hi, lo, addHi, addLo, original) {
      const at = offsetInRegion(region, hi, lo, 8)
      const before = words.getBigUint64(at, true)
      original[0] = words.getUint32(at, true)
      original[1] = words.getUint32(at + 4, true)
      words.setBigUint64(at, BigInt.asUintN(64, before + ((BigInt(addHi) << 32n) | BigInt(addLo))), true)
      observer.atomic(regions[region], at, before)
      return 0
    },
    bindWindow(pd, _qp, bind, at) {
      const region = windowOf(pd, bind[at + BindMw.WINDOW], false)
      if (region === undefined) return false
      region.offset = offsetOf(bind[at + BindMw.HI], bind[at + BindMw.LO])
      region.length = bind[at + BindMw.LENGTH_LO]
      region.access = bind[at + BindMw.ACCESS]
      region.isLive = true
      observer.bound(region)
      return true
    },
    invalidate(pd, _qp, key) {
      const region = windowOf(pd, key, true)
      if (region === undefined) return WcStatus.values.LOC_QP_OP_ERR
      region.isLive = false
      observer.invalidated(region)
      return 0
    },
  }
  const add = (region: Region): Region => {
    assert.ok(!byKey.has(region.key), `key ${region.key} is allocated twice`)
    byKey.set(region.key, regions.push(region) - 1)
    return region
  }
  return {
    bytes,
    words,
    engineMemory,
    /** `length` bytes with guards around; returns their offset, a multiple of 64. */
    allocate(length: number): number {
      const at = top
      top = (at + length + 64 + 63) & ~63
      assert.ok(top <= size, `client memory of ${size} bytes is too small`)
      return at
    },
    register(key: number, pd: number, offset: number, length: number, access: number): Region {
      return add({ key, pd, offset, length, access, isWindow: false, isLive: true })
    },
    /** A window: unbound, or (to be invalidated only) bound with length 0. */
    addWindow: (key: number, pd: number, isBound: boolean): Region =>
      add({ key, pd, offset: 0, length: 0, access: 0, isWindow: true, isLive: isBound }),
    /** The key may be used again. */
    deregister(region: Region): void {
      region.isLive = false
      byKey.delete(region.key)
    },
  }
}
