/*
 * Kind `bytes` of torment (spec/check/torment.ts): a payload reaches registered memory in several partial writes, in
 * any order, some of them late. The engine's `Memory` (transport/engine/types.ts) is wrapped. Kind `relaxed`: a WRITE
 * to a region with RELAXED_ORDERING is late, and later ones may pass it.
 *
 * The partial writes of a queue pair are executed before the program may rely on their bytes:
 * - before the responder executes a READ, atomic, FLUSH or ATOMIC WRITE, and before the requester reads data to send,
 *   which a fenced SEND may take from the response of a READ (`resolve`, `completeWrites`),
 * - before completions of the queue pair and its peer (`readyAt`),
 * - before a later payload of the queue pair is written to the same bytes, unless both are relaxed,
 * - before a key changes (`writeAll`).
 * The key is checked again for each partial write, so a deregistered region is never written. If the memory of a
 * payload cannot be written, the payload is not divided, and the engine gets the error.
 */
import { wrapper } from '../../../base/wrapper.ts'
import { addressHi, addressLo, type MemoryTable } from '../../../core/memory/region-table.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { TWO_32 } from '../../../spec/memory.ts'
import { upperWord } from '../../../transport/engine/address.ts'
import { Access, type Memory } from '../../../transport/engine/types.ts'
import type { Decision, Decisions, HoldEnd } from '../../../transport/phy/faults/torment-decisions.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import type { TormentedObject } from './objects.ts'

const { LOCAL_WRITE, REMOTE_WRITE } = Access
const { RELAXED_ORDERING } = AccessFlags.values

/** Maximum number of waiting bytes of a device; with more, all are written. */
const MAX_HELD_BYTES = 4 * 2 ** 20
/**
 * A payload is divided at multiples of one of these: mostly at cache lines, never within a word of 8 aligned bytes.
 * Adapters write such a word with one access, and programs use it as a flag.
 */
const ALIGNMENTS = [64, 64, 64, 8, 8]
/** Of so many bytes each, the waits for bytes of a queue pair become shorter as those for so many messages. */
const BYTES_OF_ROUND = 4096
/** Maximum number of partial writes of a payload. */
const MAX_PARTS = 6

/** A part of a payload that waits to be written. */
interface PartialWrite {
  /** The arguments with which the engine resolved the payload's key. */
  readonly pd: number
  readonly key: number
  readonly access: number
  readonly qpn: number
  /** The payload's address in the request. */
  readonly hi: number
  readonly lo: number
  /** Offset of `bytes` in the payload. */
  readonly begin: number
  /** Index of the address space in the table. */
  readonly space: number
  /** Address of `bytes` in the address space. */
  readonly start: number
  readonly bytes: Uint8Array
  /** Later WRITEs to the region may pass it. */
  readonly isRelaxed: boolean
  /** When it is executed, in microseconds of the clock of `poll`. */
  due: number
  /** Only of the last part of a payload. */
  readonly end: HoldEnd | undefined
}

export interface PartialWrites {
  /** For the engine. */
  readonly memory: Memory
  /** When the last partial write of a queue pair is due; 0: none waits. */
  readyAt(qpn: number): number
  /** Executes due partial writes; true if there were any. */
  poll(now: number): boolean
  /** When to call `poll`: no partial write is due earlier. Infinity: none waits. */
  nextTimeout(): number
  /** Executes all partial writes. */
  writeAll(): void
}

/** `scratch`: memory that `table`'s address spaces can read. `isSuspended`: whether nothing may be delayed now. */
// biome-ignore lint/complexity/noExcessiveLinesPerFunction: one queue of writes that wait
export const createPartialWrites = (
  inner: Memory,
  table: MemoryTable,
  scratch: Arena,
  objectOf: (qpn: number) => TormentedObject,
  decisions: Decisions,
  now: () => number,
  isSuspended: () => boolean,
): PartialWrites => {
  /** Bytes so far, of messages that a queue pair has received, and of responses to its READs. */
  const streams = new WeakMap<TormentedObject, { received: number; read: number }>()
  /** By QPN, in the order of the payloads. */
  const waiting = new Map<number, PartialWrite[]>()
  let heldBytes = 0
  let nextDue = Number.POSITIVE_INFINITY
  /** The arguments of the last `resolve`; each write immediately follows the `resolve` of its key. */
  const lastResolve = { pd: 0, key: 0, access: 0, qpn: 0 }

  /** Executes a partial write if its key still permits it. */
  const execute = ({ pd, key, access, qpn, hi, lo, begin, bytes, due, end }: PartialWrite): void => {
    heldBytes -= bytes.length
    end?.(now(), due > now())
    for (let done = 0; done < bytes.length; ) {
      const size = Math.min(bytes.length - done, scratch.bytes.length)
      const low = lo + begin + done
      const partHi = upperWord(hi, low)
      const partLo = low >>> 0
      const region = inner.resolve(pd, key, partHi, partLo, size, access, qpn)
      if (region < 0) return
      scratch.bytes.set(bytes.subarray(done, done + size))
      if (inner.write(region, partHi, partLo, scratch, 0, size, size, size) !== 0) return
      done += size
    }
  }

  /** Executes the partial writes of a queue pair for which `isIncluded` is true; true if there were any. */
  const executeIf = (qpn: number, isIncluded: (part: PartialWrite) => boolean): boolean => {
    const parts = waiting.get(qpn)
    if (parts === undefined) return false
    const kept = parts.filter(part => !isIncluded(part))
    if (kept.length === parts.length) return false
    if (kept.length === 0) waiting.delete(qpn)
    else waiting.set(qpn, kept)
    for (const part of parts) if (isIncluded(part)) execute(part)
    return true
  }
  const includeAll = (): boolean => true
  /** Executes all partial writes of a queue pair. */
  const completeWrites = (qpn: number): void => {
    executeIf(qpn, includeAll)
  }
  const writeAll = (): void => {
    for (const qpn of [...waiting.keys()]) completeWrites(qpn)
    nextDue = Number.POSITIVE_INFINITY
  }

  /** Divides `total` bytes at address `start` into parts: returns the ends of the parts, ascending. */
  const partEnds = (decision: Decision, start: number, total: number): number[] => {
    const alignment = ALIGNMENTS[decision.below(ALIGNMENTS.length)]
    const firstBoundary = alignment - (start % alignment)
    const boundaries = firstBoundary >= total ? 0 : 1 + Math.floor((total - firstBoundary - 1) / alignment)
    const ends = new Set<number>()
    const cuts = boundaries === 0 ? 0 : 1 + decision.below(MAX_PARTS - 1)
    for (let i = 0; i < cuts; i++) ends.add(firstBoundary + alignment * decision.below(boundaries))
    return [...[...ends].sort((a, b) => a - b), total]
  }

  /** A random order of `count` parts. In half of the cases the last part is moved to the front. */
  const orderOf = (decision: Decision, count: number): number[] => {
    const order = Array.from({ length: count }, (_, i) => i)
    for (let i = count - 1; i > 0; i--) {
      const other = decision.below(i + 1)
      ;[order[i], order[other]] = [order[other], order[i]]
    }
    if (decision.below(2) === 0) return order
    return [count - 1, ...order.filter(i => i !== count - 1)]
  }

  /** Whether WRITEs to the key of this row may pass each other. */
  const isRelaxed = (row: number): boolean => {
    const region = table.windowRegion[row]
    return (table.access[region < 0 ? row : region] & RELAXED_ORDERING) !== 0
  }

  /** `isOwn`: a response to a READ of the queue pair. `mayPass`: it may also be late as a whole. */
  const decide = (
    object: TormentedObject,
    isOwn: boolean,
    mayPass: boolean,
    total: number,
  ): { readonly decision: Decision; readonly isWhole: boolean } | undefined => {
    let stream = streams.get(object)
    if (stream === undefined) {
      stream = { received: 0, read: 0 }
      streams.set(object, stream)
    }
    const at = isOwn ? stream.read : stream.received
    if (isOwn) stream.read += total
    else stream.received += total
    const options = { round: Math.floor(at / BYTES_OF_ROUND) }
    const whole = mayPass ? decisions.decide('relaxed', object.name, 'byte', at, options) : undefined
    if (whole !== undefined) return { decision: whole, isWhole: true }
    const divided = decisions.decide('bytes', object.name, isOwn ? 'read-byte' : 'byte', at, options)
    return divided && { decision: divided, isWhole: false }
  }

  const write: Memory['write'] = (region, hi, lo, from, at, chunk, stride, total, isOwn) => {
    const { pd, key, access, qpn } = lastResolve
    const space = table.space[region]
    const spaceHi = addressHi(table, region, hi, lo)
    const spaceLo = addressLo(table, region, lo)
    const start = spaceHi * TWO_32 + spaceLo
    const mayPass = access === REMOTE_WRITE && isRelaxed(region)
    executeIf(
      qpn,
      part =>
        part.space === space &&
        part.start < start + total &&
        start < part.start + part.bytes.length &&
        !(mayPass && part.isRelaxed),
    )
    const decided = decide(objectOf(qpn), isOwn === true, mayPass, total)
    const mayHold =
      !isSuspended() &&
      total > 0 &&
      decided !== undefined &&
      Number.isSafeInteger(start) &&
      table.spaces[space]?.check(spaceHi, spaceLo, total, true) === true
    // again, because this resets the error of the last access (`hasProcessEnded`), which `executeIf` may have set
    inner.resolve(pd, key, hi, lo, total, access, qpn)
    if (!mayHold) return inner.write(region, hi, lo, from, at, chunk, stride, total, isOwn)
    const bytes = new Uint8Array(total)
    for (let done = 0, source = at; done < total; done += chunk, source += stride)
      bytes.set(from.bytes.subarray(source, source + Math.min(chunk, total - done)), done)
    const { decision, isWhole } = decided
    const ends = isWhole ? [total] : partEnds(decision, start, total)
    const arrival = now()
    /** Microseconds from the arrival to the current part. */
    let delay = 0
    const texts: string[] = []
    const order = isWhole ? [0] : orderOf(decision, ends.length)
    const delays = order.map((_, nth) => {
      const isFirstOfSeveral = nth === 0 && ends.length > 1
      if (!isFirstOfSeveral) delay += decision.wait()
      return delay
    })
    for (const [nth, i] of order.entries())
      texts.push(`${i === 0 ? 0 : ends[i - 1]}–${ends[i] - 1}${delays[nth] === 0 ? '' : ` after ${delays[nth]} µs`}`)
    decision.note(
      () =>
        `${total} bytes for QP 0x${qpn.toString(16)} at 0x${start.toString(16)} arrive as ${texts.join(', ')}${isWhole ? ', and later WRITEs may pass them' : ''}`,
    )
    const parts: PartialWrite[] = []
    const end = decision.hold(arrival, () => {
      nextDue = now()
      for (const part of parts) part.due = nextDue
    })
    for (const [nth, i] of order.entries()) {
      const begin = i === 0 ? 0 : ends[i - 1]
      const due = arrival + delays[nth]
      const part: PartialWrite = {
        pd,
        key,
        access,
        qpn,
        hi,
        lo,
        begin,
        space,
        start: start + begin,
        bytes: bytes.subarray(begin, ends[i]),
        isRelaxed: isWhole,
        due,
        end: nth === order.length - 1 ? end : undefined,
      }
      parts.push(part)
      heldBytes += part.bytes.length
      if (delays[nth] === 0) execute(part)
      else {
        const others = waiting.get(qpn)
        if (others === undefined) waiting.set(qpn, [part])
        else others.push(part)
        nextDue = Math.min(nextDue, due)
      }
    }
    if (heldBytes > MAX_HELD_BYTES) writeAll()
    return 0
  }

  const memory = wrapper<Memory>({
    // absent: the loopback fast path would copy the whole message in one step
    locate: undefined,
    canLocate: undefined,
    resolveAndLocate: undefined,
    copyLocated: undefined,
    resolve(pd, key, hi, lo, length, access, qpn) {
      if (waiting.size > 0 && access !== REMOTE_WRITE && access !== LOCAL_WRITE) completeWrites(qpn)
      lastResolve.pd = pd
      lastResolve.key = key
      lastResolve.access = access
      lastResolve.qpn = qpn
      return inner.resolve(pd, key, hi, lo, length, access, qpn)
    },
    write,
    completeWrites,
    bindWindow(pd, qpn, words, at) {
      writeAll()
      return inner.bindWindow(pd, qpn, words, at)
    },
    invalidate(pd, qpn, key) {
      writeAll()
      return inner.invalidate(pd, qpn, key)
    },
    explain: inner.explain,
    grants: inner.grants,
    isScattered: inner.isScattered,
    rangeAccesses: inner.rangeAccesses,
    read: inner.read,
    hasProcessEnded: inner.hasProcessEnded,
    hasTimedOut: inner.hasTimedOut,
    injectedFault: inner.injectedFault,
    compareSwap: inner.compareSwap,
    fetchAdd: inner.fetchAdd,
    explainBind: inner.explainBind,
  })
  return {
    memory,
    readyAt: qpn => waiting.get(qpn)?.reduce((latest, { due }) => Math.max(latest, due), 0) ?? 0,
    poll(time) {
      if (time < nextDue) return false
      let hasWritten = false
      nextDue = Number.POSITIVE_INFINITY
      for (const qpn of [...waiting.keys()]) {
        hasWritten = executeIf(qpn, ({ due }) => due <= time) || hasWritten
        for (const { due } of waiting.get(qpn) ?? []) nextDue = Math.min(nextDue, due)
      }
      return hasWritten
    },
    nextTimeout: () => nextDue,
    writeAll,
  }
}
