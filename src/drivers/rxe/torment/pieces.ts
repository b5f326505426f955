/*
 * Kind `bytes` of torment (spec/check/torment.ts): the bytes of a payload reach registered memory in pieces, in any
 * order, some of them late. `Memory` of the engine (transport/types.ts) is wrapped.
 *
 * The pieces of a queue pair are in memory before the program may rely on them: before the queue pair's READs, atomics,
 * FLUSHes and ATOMIC WRITEs are executed at the responder (`resolve`, `completeWrites`), before its completions and
 * those of its peer (`readyAt`), before a later payload for the same bytes is written, and before a key changes
 * (`writeAll`). The key is checked again for each piece, so a deregistered region is never written. A payload whose
 * memory cannot be written is passed on immediately, so that the engine gets the error.
 */
import { addressHi, addressLo, type MemoryTable } from '../../../core/memory/region-table.ts'
import { TWO_32 } from '../../../spec/memory.ts'
import { upperWord } from '../../../transport/address.ts'
import { Access, type Memory } from '../../../transport/types.ts'
import type { Arena } from '../../../wire/arena.ts'
import type { Decisions, Sequence } from './decisions.ts'

const { LOCAL_WRITE, REMOTE_WRITE } = Access

/** Maximum number of bytes that wait in one device; with more, all are written. */
const MAX_HELD = 4 * 2 ** 20
/** The pieces of a payload end at addresses that are multiples of one of these: mostly cache lines. */
const ALIGNMENTS = [64, 64, 64, 8, 1]
/** Maximum number of pieces of a payload. */
const MAX_PIECES = 6

interface Piece {
  readonly pd: number
  readonly key: number
  readonly access: number
  readonly qp: number
  /** The payload's address as requests name it, and the offset of the piece in the payload. */
  readonly hi: number
  readonly lo: number
  readonly begin: number
  /** The piece's address space (its index in the table), and its address in that space. */
  readonly space: number
  readonly start: number
  readonly bytes: Uint8Array
  /** When it is written, by the clock of `poll` in microseconds. */
  readonly due: number
}

export interface Pieces {
  readonly memory: Memory
  /** When the last piece of a queue pair is written; 0: none waits. */
  readyAt(qp: number): number
  /** Writes the pieces that are due; true if there were any. */
  poll(now: number): boolean
  nextTimeout(): number
  /** Writes all pieces. */
  writeAll(): void
}

/** `scratch`: memory from which the address spaces of `table` can write. */
export const createPieces = (
  inner: Memory,
  table: MemoryTable,
  scratch: Arena,
  device: string,
  decisions: Decisions,
  now: () => number,
  isSuspended: () => boolean,
): Pieces => {
  /** By QPN, in the order of the payloads. */
  const waiting = new Map<number, Piece[]>()
  let held = 0
  let next = Number.POSITIVE_INFINITY
  /** The arguments of the last `resolve`, which a write follows immediately. */
  const last = { pd: 0, key: 0, access: 0, qp: 0 }

  /** Writes a piece, if its key still permits it. */
  const writePiece = ({ pd, key, access, qp, hi, lo, begin, bytes }: Piece): void => {
    held -= bytes.length
    for (let done = 0; done < bytes.length; ) {
      const size = Math.min(bytes.length - done, scratch.bytes.length)
      const low = lo + begin + done
      const pieceHi = upperWord(hi, low)
      const pieceLo = low >>> 0
      const region = inner.resolve(pd, key, pieceHi, pieceLo, size, access, qp)
      if (region < 0) return
      scratch.bytes.set(bytes.subarray(done, done + size))
      if (inner.write(region, pieceHi, pieceLo, scratch, 0, size, size, size) !== 0) return
      done += size
    }
  }

  /** Writes those pieces of a queue pair for which `isIncluded` is true; true if there were any. */
  const writeIf = (qp: number, isIncluded: (piece: Piece) => boolean): boolean => {
    const pieces = waiting.get(qp)
    if (pieces === undefined) return false
    const kept = pieces.filter(piece => !isIncluded(piece))
    if (kept.length === pieces.length) return false
    if (kept.length === 0) waiting.delete(qp)
    else waiting.set(qp, kept)
    for (const piece of pieces) if (isIncluded(piece)) writePiece(piece)
    return true
  }
  const everyPiece = (): boolean => true
  /** Writes all pieces of a queue pair. */
  const completeWrites = (qp: number): void => {
    writeIf(qp, everyPiece)
  }
  const writeAll = (): void => {
    for (const qp of [...waiting.keys()]) completeWrites(qp)
    next = Number.POSITIVE_INFINITY
  }

  /** Divides `total` bytes at address `start` into pieces: the ascending ends of the pieces, the last one `total`. */
  const pieceEnds = (sequence: Sequence, start: number, total: number): number[] => {
    const alignment = ALIGNMENTS[sequence.below(ALIGNMENTS.length)]
    const first = alignment - (start % alignment)
    const boundaries = first >= total ? 0 : 1 + Math.floor((total - first - 1) / alignment)
    const ends = new Set<number>()
    // an aligned word of 8 bytes is never divided: programs that use such a word as a flag rely on that on all adapters
    const isWord = total <= 8 && Math.floor(start / 8) === Math.floor((start + total - 1) / 8)
    const cuts = isWord || boundaries === 0 ? 0 : 1 + sequence.below(MAX_PIECES - 1)
    for (let i = 0; i < cuts; i++) ends.add(first + alignment * sequence.below(boundaries))
    return [...[...ends].sort((a, b) => a - b), total]
  }

  /** The order in which `count` pieces arrive: random, and in half of the cases with the last piece first. */
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
    const spaceHi = addressHi(table, region, hi, lo)
    const spaceLo = addressLo(table, region, lo)
    const start = spaceHi * TWO_32 + spaceLo
    writeIf(
      qp,
      piece => piece.space === space && piece.start < start + total && start < piece.start + piece.bytes.length,
    )
    const sequence = decisions.sequence('bytes', device, qp)
    const mayHold =
      !isSuspended() &&
      total > 0 &&
      sequence.acts() &&
      Number.isSafeInteger(start) &&
      table.spaces[space]?.check(spaceHi, spaceLo, total, true) === true
    // again, because `writeIf` may have resolved other keys since the engine resolved this one
    inner.resolve(pd, key, hi, lo, total, access, qp)
    if (!mayHold) return inner.write(region, hi, lo, from, at, chunk, stride, total)
    const bytes = new Uint8Array(total)
    for (let done = 0, source = at; done < total; done += chunk, source += stride)
      bytes.set(from.bytes.subarray(source, source + Math.min(chunk, total - done)), done)
    const ends = pieceEnds(sequence, start, total)
    let due = now()
    const texts: string[] = []
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
      texts.push(`${begin}–${ends[i] - 1}${wait === 0 ? '' : ` after ${wait} µs`}`)
      if (wait === 0) writePiece(piece)
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
      () => `${total} bytes for QP 0x${qp.toString(16)} at 0x${start.toString(16)} arrive as ${texts.join(', ')}`,
    )
    if (held > MAX_HELD) writeAll()
    return 0
  }

  // without the optional functions of the local fast path, which would copy the whole message in one step
  const { locate: _locate, resolveAndLocate: _resolveAndLocate, copyLocated: _copyLocated, ...rest } = inner
  const memory: Memory = {
    ...rest,
    resolve(pd, key, hi, lo, length, access, qp) {
      if (waiting.size > 0 && access !== REMOTE_WRITE && access !== LOCAL_WRITE) completeWrites(qp)
      last.pd = pd
      last.key = key
      last.access = access
      last.qp = qp
      return inner.resolve(pd, key, hi, lo, length, access, qp)
    },
    write,
    completeWrites,
    bindWindow(pd, qp, words, at) {
      writeAll()
      return inner.bindWindow(pd, qp, words, at)
    },
    invalidate(pd, qp, key) {
      writeAll()
      return inner.invalidate(pd, qp, key)
    },
  }
  return {
    memory,
    readyAt: qp => waiting.get(qp)?.reduce((latest, { due }) => Math.max(latest, due), 0) ?? 0,
    poll(time) {
      if (time < next) return false
      let hasWritten = false
      next = Number.POSITIVE_INFINITY
      for (const qp of [...waiting.keys()]) {
        hasWritten = writeIf(qp, ({ due }) => due <= time) || hasWritten
        for (const { due } of waiting.get(qp) ?? []) next = Math.min(next, due)
      }
      return hasWritten
    },
    nextTimeout: () => next,
    writeAll,
  }
}
