/*
 * Finds the lines of a log that have one of some words, in bytes as they come: a gigabyte in seconds, since most lines
 * are never decoded. Words are looked for by their last two bytes (Wu and Manber, "A fast algorithm for multi-pattern
 * searching", 1994), several bytes at a step.
 *
 * Lines may be cut, have zeros or be endless: of a longer line only LINE bytes at its start are kept.
 */

/** Words are at least so long, in bytes: the scanner steps by up to one less. */
const MIN_WORD = 6
/** Bytes of a line that are kept. */
const LINE = 16_384
const LF = 10
const CR = 13

export interface FoundLine {
  readonly text: string
  /** Counted from 1. */
  readonly number: number
  /** Indexes of the words that the line has, in ascending order; [] if it was asked for. */
  readonly words: readonly number[]
}

export interface Table {
  readonly words: readonly Uint8Array[]
  /** By two bytes: how far the search may step; 0: a word may end here. */
  readonly steps: Uint8Array
  /** By two bytes: the words whose bytes MIN_WORD - 2 and - 1 are these. */
  readonly ends: ReadonlyMap<number, readonly number[]>
}

export const scanTable = (texts: readonly string[]): Table => {
  const encoder = new TextEncoder()
  const words = texts.map(text => encoder.encode(text))
  const steps = new Uint8Array(65_536).fill(MIN_WORD - 1)
  const ends = new Map<number, number[]>()
  for (const [i, word] of words.entries()) {
    if (word.length < MIN_WORD) throw new RangeError(`"${texts[i]}" is shorter than ${MIN_WORD}`)
    for (let at = 1; at < MIN_WORD; at++) {
      const pair = (word[at - 1]! << 8) | word[at]!
      steps[pair] = Math.min(steps[pair]!, MIN_WORD - 1 - at)
    }
    const last = (word[MIN_WORD - 2]! << 8) | word[MIN_WORD - 1]!
    ends.set(last, [...(ends.get(last) ?? []), i])
  }
  return { words, steps, ends }
}

/** Of ASCII, besides what terminals and tabs need. */
const isControl = (byte: number): boolean =>
  byte < 7 || (byte > 13 && byte < 27) || (byte > 27 && byte < 32) || byte === 127

/** One log. `push` its bytes, then `end`. `onLine` returns how many of the following lines it wants too. */
export class Scanner {
  readonly #table: Table
  readonly #onLine: (line: FoundLine) => number
  readonly #decoder = new TextDecoder()
  /** The bytes of the line that no chunk has ended. */
  #rest = new Uint8Array(0)
  #wanted: number
  lines = 0
  bytes = 0
  /** Bytes that text does not have: what many zeros are in is no log. */
  zeros = 0
  controls = 0
  /** Bytes that were looked at for those. */
  looked = 0

  /** `first`: so many lines are wanted at the start of the log. */
  constructor(table: Table, onLine: (line: FoundLine) => number, first = 0) {
    this.#table = table
    this.#onLine = onLine
    this.#wanted = first
  }

  push(chunk: Uint8Array): void {
    if (this.bytes < 65_536)
      for (const byte of chunk.subarray(0, 4096)) {
        this.looked++
        if (byte === 0) this.zeros++
        else if (isControl(byte)) this.controls++
      }
    this.bytes += chunk.length
    let from = 0
    if (this.#rest.length > 0) {
      const end = chunk.indexOf(LF)
      this.#keep(end < 0 ? chunk : chunk.subarray(0, end))
      if (end < 0) return
      this.#whole(this.#rest)
      this.#rest = new Uint8Array(0)
      from = end + 1
    }
    const last = chunk.lastIndexOf(LF)
    if (last >= from) this.#lines(chunk, from, last + 1)
    if (last + 1 > from) from = last + 1
    if (from < chunk.length) this.#keep(chunk.subarray(from))
  }

  end(): void {
    if (this.#rest.length > 0) this.#whole(this.#rest)
    this.#rest = new Uint8Array(0)
  }

  #keep(part: Uint8Array): void {
    const room = LINE - this.#rest.length
    const added = part.length > room ? part.subarray(0, room) : part
    if (added.length === 0) return
    const joined = new Uint8Array(this.#rest.length + added.length)
    joined.set(this.#rest)
    joined.set(added, this.#rest.length)
    this.#rest = joined
  }

  /** A line whose bytes came in several chunks. */
  #whole(line: Uint8Array): void {
    const bytes = new Uint8Array(line.length + 1)
    bytes.set(line)
    bytes[line.length] = LF
    this.#lines(bytes, 0, bytes.length)
  }

  /** Whole lines from `from`; the byte before `to` is an LF. */
  #lines(bytes: Uint8Array, from: number, to: number): void {
    const { steps, ends, words } = this.#table
    let lineStart = from
    let at = from + MIN_WORD - 1
    let nextLine = bytes.indexOf(LF, from)
    const found: number[] = []
    const endLine = (): void => {
      this.lines++
      if (found.length > 0 || this.#wanted > 0) {
        let end = Math.min(nextLine, lineStart + LINE)
        if (end > lineStart && bytes[end - 1] === CR) end--
        const text = this.#decoder.decode(bytes.subarray(lineStart, end))
        if (this.#wanted > 0) this.#wanted--
        const asked = this.#onLine({ text, number: this.lines, words: found.sort((a, b) => a - b) })
        if (asked > this.#wanted) this.#wanted = asked
        found.length = 0
      }
      lineStart = nextLine + 1
      nextLine = lineStart < to ? bytes.indexOf(LF, lineStart) : to
    }
    while (lineStart < to) {
      const limit = Math.min(nextLine, lineStart + LINE)
      if (nextLine - lineStart < MIN_WORD) {
        endLine()
        at = lineStart + MIN_WORD - 1
        continue
      }
      while (at < limit) {
        const pair = (bytes[at - 1]! << 8) | bytes[at]!
        const step = steps[pair]!
        if (step > 0) {
          at += step
          continue
        }
        const start = at - MIN_WORD + 1
        if (start >= lineStart)
          for (const index of ends.get(pair)!) {
            const word = words[index]!
            if (start + word.length > nextLine) continue
            let same = 0
            while (same < word.length && bytes[start + same] === word[same]) same++
            if (same === word.length && !found.includes(index)) found.push(index)
          }
        at++
      }
      endLine()
      at = lineStart + MIN_WORD - 1
    }
  }
}
