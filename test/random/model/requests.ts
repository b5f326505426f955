/*
 * Requests of the model test: a function for each operation of the engine draws a request and its expected effect.
 * operations.ts decides which requests are posted; checks.ts checks the results.
 */
import { flushPlacement, flushSelectivity } from '../../../src/spec/wire/headers.ts'
import { SendFlags, WcOpcode, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { Access } from '../../../src/transport/engine/types.ts'
import type { Region } from './memory.ts'
import type { Element, SendRequest } from './node.ts'
import {
  ATOMIC_SLOTS,
  type End,
  isDatagram,
  MESSAGE_BYTES,
  type Operation,
  READ_SLOTS,
  SOURCE_BYTES,
  TARGET_BYTES,
  WORDS,
} from './pair.ts'
import type { RandomSource } from './random.ts'

const wr = WrOpcode.values
const wc = WcOpcode.values
const { FENCE, SIGNALED, SOLICITED, INLINE } = SendFlags.values
const { REM_INV_REQ_ERR, SUCCESS } = WcStatus.values

/** Returns undefined if the operation is impossible now. */
export type Make = (end: End, random: RandomSource) => Operation | undefined

/** Allocated keys are even. */
export const badKey = (random: RandomSource): number => (random.u32() | 1) >>> 0

/** Bytes of receive buffers, and of the longest message: five packets, at most MESSAGE_BYTES. */
export const bufferBytes = (end: End): number => Math.min(5 * end.pair.mtu, MESSAGE_BYTES)

export const drawLength = (end: End, random: RandomSource): number => {
  if (random.hits(0.3)) return random.int(80)
  if (random.hits(0.1)) return end.pair.mtu
  return random.int(bufferBytes(end) + 1)
}

/** One or several elements, some of them empty. */
export const split = (
  start: number,
  length: number,
  key: number,
  maxElements: number,
  random: RandomSource,
): Element[] => {
  const elements: Element[] = []
  let from = start
  let remaining = length
  for (let n = random.hits(0.6) ? 1 : 1 + random.int(maxElements); n > 1; n--) {
    const elementLength = random.int(remaining + 1)
    elements.push({ at: from, length: elementLength, key })
    from += elementLength
    remaining -= elementLength
  }
  elements.push({ at: from, length: remaining, key })
  return elements
}

/** A request with random flags. It has no data, unless `more` has. */
export const plain = (
  end: End,
  random: RandomSource,
  opcode: number,
  more: Partial<SendRequest> = {},
): SendRequest => ({
  id: end.sends.length,
  opcode,
  flags:
    (random.hits(0.8) ? SIGNALED : 0) |
    (random.hits(0.15) ? FENCE : 0) |
    (random.hits(0.3) ? SOLICITED : 0) |
    (more.inline === undefined ? 0 : INLINE),
  sges: [],
  imm: 0,
  remote: 0,
  rkey: 0,
  compare: 0n,
  swap: 0n,
  refused: 0,
  ...more,
})

/** A payload of bytes of the source, in elements or inline. */
export const payload = (end: End, random: RandomSource, length: number) => {
  const at = end.areas.source + random.int(SOURCE_BYTES - length + 1)
  const data = end.host.memory.bytes.slice(at, at + length)
  if (length <= 200 && random.hits(0.3)) return { data, more: { inline: data } }
  return { data, more: { sges: split(at, length, end.sourceKey, end.pair.maxSge, random) } }
}

const noFailure = { fatal: 'no', statuses: [] } as const

export const send =
  ({ imm }: { readonly imm: boolean }): Make =>
  (end, random) => {
    const { data, more } = payload(end, random, drawLength(end, random))
    const value = imm ? random.u32() : undefined
    return {
      kind: imm ? 'SEND_WITH_IMM' : 'SEND',
      request: plain(end, random, imm ? wr.SEND_WITH_IMM : wr.SEND, { ...more, imm: value ?? 0 }),
      ...noFailure,
      message: { data, imm: value, opcode: wc.RECV, status: SUCCESS, invalidates: undefined },
    }
  }

/** A Q_Key with this bit stands for the sender's own. */
const OWN_QKEY = 0x8000_0000

/** A datagram to the peer, or to any UD end. */
export const datagram =
  ({ hasWrongQkey }: { readonly hasWrongQkey: boolean }): Make =>
  (end, random) => {
    const destinations = random.hits(0.7) ? [end.peer] : end.neighbours.filter(one => isDatagram(one.pair))
    const destination = random.pick(destinations)
    const imm = random.hits(0.4) ? random.u32() : undefined
    const { data, more } = payload(end, random, random.hits(0.3) ? random.int(80) : random.int(end.pair.mtu + 1))
    const usesOwnQkey = !hasWrongQkey && destination.qkey === end.qkey && random.hits(0.5)
    let { qkey } = destination
    if (usesOwnQkey) qkey = (OWN_QKEY | random.u32()) >>> 0
    else if (hasWrongQkey) qkey = (qkey ^ (1 << random.int(31))) >>> 0
    const message = { data, imm, opcode: wc.RECV, status: SUCCESS, invalidates: undefined, source: end.qpn }
    return {
      kind: hasWrongQkey ? 'datagram with a wrong Q_Key' : 'datagram',
      request: plain(end, random, imm === undefined ? wr.SEND : wr.SEND_WITH_IMM, {
        ...more,
        imm: imm ?? 0,
        datagram: { qpn: destination.qpn, qkey, node: destination.node },
      }),
      ...noFailure,
      destination,
      ...(!hasWrongQkey && { message }),
    }
  }

/** Longer than the path MTU: not sent, but completes with success. */
export const longDatagram: Make = (end, random) => {
  const { qpn, qkey, node } = end.peer
  const { more } = payload(end, random, end.pair.mtu + 1 + random.int(1000))
  const request = plain(end, random, wr.SEND, { ...more, datagram: { qpn, qkey, node } })
  return { kind: 'datagram that is too long', request, ...noFailure }
}

/** In 30 % of the draws, a window that the peer has bound. */
const drawWindow = (end: End, random: RandomSource): Region | undefined =>
  end.peer.usableWindows.length > 0 && random.hits(0.3) ? random.pick(end.peer.usableWindows) : undefined

export const write =
  ({ imm }: { readonly imm: boolean }): Make =>
  (end, random) => {
    const { peer } = end
    const { data, more } = payload(end, random, drawLength(end, random))
    const value = imm ? random.u32() : undefined
    const window = drawWindow(end, random)
    const usedWindow = window !== undefined && data.length <= window.length ? window : undefined
    const offset = usedWindow?.offset ?? peer.areas.target
    const at = offset + random.int((usedWindow?.length ?? TARGET_BYTES) - data.length + 1)
    const request = plain(end, random, imm ? wr.RDMA_WRITE_WITH_IMM : wr.RDMA_WRITE, {
      ...more,
      imm: value ?? 0,
      remote: at,
      rkey: data.length === 0 && random.hits(0.5) ? badKey(random) : (usedWindow ?? peer.target).key,
    })
    const message = imm && {
      message: { data, imm: value, opcode: wc.RECV_RDMA_WITH_IMM, status: SUCCESS, invalidates: undefined },
    }
    const kind = `${imm ? 'WRITE_WITH_IMM' : 'WRITE'}${usedWindow === undefined ? '' : ' through a window'}`
    return { kind, request, ...noFailure, write: { at, data }, ...message }
  }

/** undefined while an earlier request may still write to the result slot of request `id`. */
const slotOf = (end: End, id: number, slots: number): number | undefined =>
  id - slots >= end.endedSends ? undefined : id % slots

/** A READ of the constant source, or of the target as all earlier requests left it. */
export const read =
  ({ fromTarget }: { readonly fromTarget: boolean }): Make =>
  (end, random) => {
    const id = end.sends.length
    const slot = slotOf(end, id, READ_SLOTS)
    if (slot === undefined) return undefined
    const { peer } = end
    const length = drawLength(end, random)
    const from = random.int((fromTarget ? TARGET_BYTES : SOURCE_BYTES) - length + 1)
    const at = (fromTarget ? peer.areas.target : peer.areas.source) + from
    const to = end.areas.results + slot * MESSAGE_BYTES
    // Later WRITEs and atomics have a fence until this READ has ended.
    if (fromTarget) end.fencedUntil = id
    return {
      kind: fromTarget ? 'READ of the target' : 'READ',
      request: plain(end, random, wr.RDMA_READ, {
        sges: split(to, length, end.local.key, end.pair.maxSge, random),
        remote: at,
        rkey: fromTarget ? peer.target.key : peer.sourceKey,
      }),
      ...noFailure,
      read: fromTarget ? peer.plannedTarget.slice(from, from + length) : peer.host.memory.bytes.slice(at, at + length),
    }
  }

/** From the source to a slot of READs. */
export const copy: Make = (end, random) => {
  const slot = slotOf(end, end.sends.length, READ_SLOTS)
  if (slot === undefined || end.pair.maxSge < 2) return undefined
  const length = 1 + random.int(bufferBytes(end))
  const at = end.areas.source + random.int(SOURCE_BYTES - length + 1)
  const to = end.areas.results + slot * MESSAGE_BYTES
  const data = end.host.memory.bytes.slice(at, at + length)
  const sges = [
    { at, length, key: end.sourceKey },
    { at: to, length, key: end.local.key },
  ]
  return { kind: 'MEMCPY', request: plain(end, random, wr.MEMCPY, { sges }), ...noFailure, read: data }
}

export const atomic =
  ({ isCompareSwap }: { readonly isCompareSwap: boolean }): Make =>
  (end, random) => {
    const id = end.sends.length
    const slot = slotOf(end, id, ATOMIC_SLOTS)
    if (slot === undefined) return undefined
    const { peer } = end
    const at = peer.areas.words + 8 * random.int(WORDS)
    const value = (BigInt(random.u32()) << 32n) | BigInt(random.u32())
    // Half of the comparisons match the word, if no atomic in flight changes it.
    const current = peer.host.memory.words.getBigUint64(at, true)
    return {
      kind: isCompareSwap ? 'CMP_AND_SWP' : 'FETCH_AND_ADD',
      request: plain(end, random, isCompareSwap ? wr.ATOMIC_CMP_AND_SWP : wr.ATOMIC_FETCH_AND_ADD, {
        sges: split(end.areas.atomics + 8 * slot, 8, end.local.key, end.pair.maxSge, random),
        remote: at,
        rkey: peer.target.key,
        compare: isCompareSwap && random.hits(0.5) ? current : value,
        // FETCH_AND_ADD adds `compare` and ignores `swap`.
        swap: value,
      }),
      ...noFailure,
      atomic: { at, executed: 0, original: 0n },
    }
  }

export const atomicWrite: Make = (end, random) => {
  const { peer } = end
  const at = end.areas.source + random.int(SOURCE_BYTES - 8)
  const to = peer.areas.target + 8 * random.int(TARGET_BYTES / 8)
  return {
    kind: 'ATOMIC_WRITE',
    request: plain(end, random, wr.ATOMIC_WRITE, {
      sges: split(at, 8, end.sourceKey, end.pair.maxSge, random),
      remote: to,
      rkey: peer.target.key,
    }),
    ...noFailure,
    write: { at: to, data: end.host.memory.bytes.slice(at, at + 8) },
  }
}

/** A FLUSH has its arguments in the fields of atomics. */
const flushArguments = (length: number, selectivity: number, placement: number): Partial<SendRequest> => ({
  compare: BigInt(length),
  swap: (BigInt(selectivity) << 32n) | BigInt(placement),
})

export const flush =
  (placement: number): Make =>
  (end, random) => {
    const { peer } = end
    const length = random.int(TARGET_BYTES + 1)
    const selectivity = random.hits(0.5) ? flushSelectivity.RANGE : flushSelectivity.REGION
    const isGlobal = placement === flushPlacement.GLOBAL
    return {
      kind: isGlobal ? 'FLUSH' : 'FLUSH to memory that is not persistent',
      request: plain(end, random, wr.FLUSH, {
        remote: peer.areas.target + random.int(TARGET_BYTES - length + 1),
        rkey: peer.target.key,
        ...flushArguments(length, selectivity, placement),
      }),
      ...(isGlobal ? noFailure : { fatal: 'remote', statuses: [REM_INV_REQ_ERR] }),
    }
  }

/** Usable windows of an end. */
const MAX_WINDOWS = 4

/** Binds a fresh window to a part of the target. After the bind has completed, the peer may use the window. */
export const bindWindow: Make = (end, random) => {
  if (end.usableWindows.length >= MAX_WINDOWS) return undefined
  const window = end.host.memory.addWindow(end.nextKey(), end.pd, false)
  end.ownWindows.push(window)
  const length = 1 + random.int(TARGET_BYTES)
  const at = end.areas.target + random.int(TARGET_BYTES - length + 1)
  const bind = { window: window.key, at, length, access: Access.REMOTE_WRITE | Access.REMOTE_READ }
  return { kind: 'BIND_MW', request: plain(end, random, wr.BIND_MW, { bind }), ...noFailure, binds: window }
}

/** Invalidates a key that no request uses. */
export const localInvalidate: Make = (end, random) => {
  const window = end.host.memory.addWindow(end.nextKey(), end.pd, true)
  end.ownWindows.push(window)
  return {
    kind: 'LOCAL_INV',
    request: plain(end, random, wr.LOCAL_INV, { imm: window.key }),
    ...noFailure,
    invalidates: window,
  }
}

/** Invalidates a key of the peer: that of a bound window, of a fresh window, or an unknown key. */
export const sendInvalidate =
  ({ isKeyKnown }: { readonly isKeyKnown: boolean }): Make =>
  (end, random) => {
    const { peer } = end
    const { data, more } = payload(end, random, drawLength(end, random))
    let key = badKey(random)
    if (isKeyKnown && peer.usableWindows.length > 0 && random.hits(0.7)) key = peer.usableWindows.shift()!.key
    else if (isKeyKnown) {
      const window = peer.host.memory.addWindow(peer.nextKey(), peer.pd, true)
      peer.ownWindows.push(window)
      key = window.key
    }
    return {
      kind: isKeyKnown ? 'SEND_WITH_INV' : 'SEND_WITH_INV of a wrong key',
      request: plain(end, random, wr.SEND_WITH_INV, { ...more, imm: key }),
      message: {
        data,
        imm: undefined,
        opcode: wc.RECV,
        status: isKeyKnown ? SUCCESS : REM_INV_REQ_ERR,
        invalidates: key,
      },
      ...(isKeyKnown ? noFailure : ({ fatal: 'remote', statuses: [] } as const)),
    }
  }
