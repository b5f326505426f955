/*
 * Kind `bytes` of torment (spec/check/torment.ts): payloads reach registered memory in pieces, in any order, some of them
 * late. `Memory` of the engine (transport/types.ts) is wrapped.
 *
 * A queue pair's pieces are in memory before anything of it that shows them: its READs, atomics, FLUSHes and ATOMIC
 * WRITEs at the responder (`resolve`, `settle`), its completions and those of its peer (`readyAt`), a later payload for
 * the same bytes, and before a key changes (`placeAll`). A key is resolved again for each piece, so a deregistered
 * region is never written. Payloads whose memory cannot be written now are passed on at once, for their error.
 */
import { addressHi, addressLo, type MemoryTable } from '../../../core/memory/region-table.ts'
import { TWO_32 } from '../../../spec/memory.ts'
import { upperWord } from '../../../transport/address.ts'
import { Access, type Memory } from '../../../transport/types.ts'
import type { Arena } from '../../../wire/arena.ts'
import type { Decisions, Sequence } from './decisions.ts'

const { LOCAL_WRITE, REMOTE_WRITE } = Access

/** Bytes that wait in one device at most; then all are placed. */
const MAX_HELD = 4 * 2 ** 20
/** Sizes of which pieces are multiples, one per payload: cache lines mostly. */
const GRAINS = [64, 64, 64, 8, 1]
/** Pieces of a payload at most. */
const MAX_PIECES = 6

interface Piece {
  readonly pd: number
  readonly key: number
  readonly access: number
  readonly qp: number
  /** The address of the payload in work requests, and where the piece begins in it. */
  readonly hi: number
  readonly lo: number
  readonly begin: number
  /** Its location: the space and the address in it. */
  readonly space: number
  readonly start: number
  readonly bytes: Uint8Array
  readonly due: number
}

export interface Pieces {
  readonly memory: Memory
  /** When the last piece of a queue pair is placed, by the clock; 0: all are. */
  readyAt(qp: number): number
  /** Places what is due; true if anything was. */
  poll(now: number): boolean
  nextTimeout(): number
  placeAll(): void
}

/** `scratch`: bytes that the address spaces of `table` can read from. */
export const createPieces = (
  inner: Memory,
  table: MemoryTable,
  scratch: Arena,
  device: string,
  decisions: Decisions,
  now: () => number,
  isCalm: () => boolean,
): Pieces => {
  /** By queue pair, in the order of the payloads. */
  const waiting = new Map<number, Piece[]>()
  let held = 0
  let next = Number.POSITIVE_INFINITY
  /** The arguments of the last `resolve`, which a write follows immediately. */
  const last = { pd: 0, key: 0, access: 0, qp: 0 }

  const place = ({ pd, key, access, qp, hi, lo, begin, bytes }: Piece): void => {
    held -= bytes.length
    for (let done = 0; done < bytes.length; ) {
      const size = Math.min(bytes.length - done, scratch.bytes.length)
      const low = lo + begin + done
      const far = upperWord(hi, low)
      const near = low >>> 0
      const region = inner.resolve(pd, key, far, near, size, access, qp)
      if (region < 0) return
      scratch.bytes.set(bytes.subarray(done, done + size))
      if (inner.write(region, far, near, scratch, 0, size, size, size) !== 0) return
      done += size
    }
  }

  /** Places the pieces of a queue pair for which `is` holds. */
  const placeOf = (qp: number, is: (piece: Piece) => boolean): boolean => {
    const pieces = waiting.get(qp)
    if (pieces === undefined) return false
    const kept = pieces.filter(piece => !is(piece))
    if (kept.length === pieces.length) return false
    if (kept.length === 0) waiting.delete(qp)
    else waiting.set(qp, kept)
    for (const piece of pieces) if (is(piece)) place(piece)
    return true
  }
  const all = (): boolean => true
  const settle = (qp: number): void => {
    placeOf(qp, all)
  }
  const placeAll = (): void => {
    for (const qp of [...waiting.keys()]) settle(qp)
    next = Number.POSITIVE_INFINITY
  }

  /** Ends of the pieces of `total` bytes at `start`, the last one `total`. */
  const cut = (sequence: Sequence, start: number, total: number): number[] => {
    const grain = GRAINS[sequence.below(GRAINS.length)]
    const first = grain - (start % grain)
    const places = first >= total ? 0 : 1 + Math.floor((total - first - 1) / grain)
    const ends = new Set<number>()
    // an aligned word of 8 bytes arrives whole: programs that use one as a flag depend on it everywhere
    const isWord = total <= 8 && Math.floor(start / 8) === Math.floor((start + total - 1) / 8)
    const wanted = isWord || places === 0 ? 0 : 1 + sequence.below(MAX_PIECES - 1)
    for (let i = 0; i < wanted; i++) ends.add(first + grain * sequence.below(places))
    return [...[...ends].sort((a, b) => a - b), total]
  }

  /** The order in which `count` pieces arrive: half of the times the last one first. */
  const orderOf = (sequence: Sequence, count: number): number[] => {
    const order = Array.from({ length: count }, (_, i) => i)
    for (let i = count - 1; i > 0; i--) {
      const other = sequence.below(i + 1)
      ;[order[i], order[other]] = [order[other], order[i]]
    }
    if (sequence.below(2) === 0) return order
    return [count - 1, ...order.filter(i => i !== count - 1)]
  }

  const write: Memory['write'] = (region, hi, lo, from, at, chunk, stride, total) => {
    const { pd, key, access, qp } = last
    const space = table.space[region]
    const far = addressHi(table, region, hi, lo)
    const near = addressLo(table, region, lo)
    const start = far * TWO_32 + near
    placeOf(
      qp,
      piece => piece.space === space && piece.start < start + total && start < piece.start + piece.bytes.length,
    )
    const sequence = decisions.sequence('bytes', device, qp)
    const mayHold =
      !isCalm() &&
      total > 0 &&
      sequence.acts() &&
      Number.isSafeInteger(start) &&
      table.spaces[space]?.check(far, near, total, true) === true
    // the key is looked up again, since others were meanwhile
    inner.resolve(pd, key, hi, lo, total, access, qp)
    if (!mayHold) return inner.write(region, hi, lo, from, at, chunk, stride, total)
    const bytes = new Uint8Array(total)
    for (let done = 0, source = at; done < total; done += chunk, source += stride)
      bytes.set(from.bytes.subarray(source, source + Math.min(chunk, total - done)), done)
    const ends = cut(sequence, start, total)
    let due = now()
    const told: string[] = []
    for (const [nth, i] of orderOf(sequence, ends.length).entries()) {
      const begin = i === 0 ? 0 : ends[i - 1]
      const wait = nth === 0 && ends.length > 1 ? 0 : sequence.wait()
      due += wait
      const piece: Piece = {
        pd,
        key,
        access,
        qp,
        hi,
        lo,
        begin,
        space,
        start: start + begin,
        bytes: bytes.subarray(begin, ends[i]),
        due,
      }
      held += piece.bytes.length
      told.push(`${begin}–${ends[i] - 1}${wait === 0 ? '' : ` after ${wait} µs`}`)
      if (wait === 0) place(piece)
      else {
        const pieces = waiting.get(qp)
        if (pieces === undefined) waiting.set(qp, [piece])
        else pieces.push(piece)
        next = Math.min(next, due)
      }
    }
    decisions.note(
      'bytes',
      device,
      () => `${total} bytes for QP 0x${qp.toString(16)} at 0x${start.toString(16)} arrive as ${told.join(', ')}`,
    )
    if (held > MAX_HELD) placeAll()
    return 0
  }

  // without the functions that copy in place: the whole message would arrive at once
  const { locate: _locate, find: _find, move: _move, ...rest } = inner
  const memory: Memory = {
    ...rest,
    resolve(pd, key, hi, lo, length, access, qp) {
      if (waiting.size > 0 && access !== REMOTE_WRITE && access !== LOCAL_WRITE) settle(qp)
      last.pd = pd
      last.key = key
      last.access = access
      last.qp = qp
      return inner.resolve(pd, key, hi, lo, length, access, qp)
    },
    write,
    settle,
    bindWindow(pd, qp, words, at) {
      placeAll()
      return inner.bindWindow(pd, qp, words, at)
    },
    invalidate(pd, qp, key) {
      placeAll()
      return inner.invalidate(pd, qp, key)
    },
  }
  return {
    memory,
    readyAt: qp => waiting.get(qp)?.reduce((latest, { due }) => Math.max(latest, due), 0) ?? 0,
    poll(time) {
      if (time < next) return false
      let placed = false
      next = Number.POSITIVE_INFINITY
      for (const qp of [...waiting.keys()]) {
        placed = placeOf(qp, ({ due }) => due <= time) || placed
        for (const { due } of waiting.get(qp) ?? []) next = Math.min(next, due)
      }
      return placed
    },
    nextTimeout: () => next,
    placeAll,
  }
}
