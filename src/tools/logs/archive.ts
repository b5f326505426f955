/*
 * Logs in streams of bytes: text, UTF-16, tar archives, and archives in those. Archives are read as they come: no file
 * of theirs is in memory. Knows no files and no compression: the command line and the page of the site have their own.
 */
/** What could not be read, and why. */
export interface Unread {
  readonly name: string
  readonly reason: string
}

/** A log, of which `chunks` must be taken before the next. */
export interface LogBytes {
  readonly name: string
  readonly chunks: AsyncIterable<Uint8Array>
}

/** How a file is read, and what became of it. */
export interface Reading {
  /** The bytes decompressed, if they are packed. `onDamage`: they end there. */
  readonly unpack: (
    bytes: AsyncIterable<Uint8Array>,
    onDamage: (reason: string) => void,
  ) => Promise<AsyncIterable<Uint8Array>>
  readonly unread: Unread[]
  /** Why its bytes, or those of a part of it, ended before their end. */
  damage?: string
}

/** Names of files that are certainly no logs. */
export const NO_LOG =
  /\.(?:pcap(?:ng)?(?:\.(?:gz|zst))?|udr|so(?:\.\d+)*|o|a|py[co]|png|jpe?g|pdf|pt|safetensors|core)$/i

const BLOCK = 512
const textIn = (bytes: Uint8Array): string => {
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}
const isTar = (start: Uint8Array): boolean => start.length >= BLOCK && textIn(start.subarray(257, 262)) === 'ustar'

const joined = (a: Uint8Array, b: Uint8Array): Uint8Array => {
  const both = new Uint8Array(a.length + b.length)
  both.set(a)
  both.set(b, a.length)
  return both
}

/** Bytes of a stream as they are asked for. */
export class Taker {
  readonly #iterator: AsyncIterator<Uint8Array>
  #held: Uint8Array = new Uint8Array(0)
  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#iterator = chunks[Symbol.asyncIterator]()
  }
  async #fill(): Promise<boolean> {
    const next = await this.#iterator.next()
    if (next.done) return false
    this.#held = this.#held.length === 0 ? next.value : joined(this.#held, next.value)
    return true
  }
  /** Exactly so many bytes; undefined if the stream ends before. */
  async take(length: number): Promise<Uint8Array | undefined> {
    while (this.#held.length < length) if (!(await this.#fill())) return undefined
    const part = this.#held.subarray(0, length)
    this.#held = this.#held.subarray(length)
    return part
  }
  /** The first bytes, which stay. */
  async peek(length: number): Promise<Uint8Array> {
    while (this.#held.length < length) if (!(await this.#fill())) break
    return this.#held.subarray(0, length)
  }
  /** So many of the next, or all. */
  async *up(length = Number.POSITIVE_INFINITY): AsyncGenerator<Uint8Array> {
    for (let left = length; left > 0; ) {
      if (this.#held.length === 0 && !(await this.#fill())) return
      const part = this.#held.subarray(0, left)
      this.#held = this.#held.subarray(part.length)
      left -= part.length
      yield part
    }
  }
}

/** The regular files of a tar archive (POSIX.1-2001, GNU). `onEnd`: it ends in the middle. */
const tarMembers = async function* (
  taker: Taker,
  onEnd: (reason: string) => void,
): AsyncGenerator<{ readonly name: string; readonly chunks: AsyncIterable<Uint8Array> }> {
  let longName: string | undefined
  for (;;) {
    const header = await taker.take(BLOCK)
    if (header === undefined) return
    if (header.every(byte => byte === 0)) return
    const size = Number.parseInt(textIn(header.subarray(124, 136)).trim() || '0', 8)
    if (!isTar(header) || !Number.isSafeInteger(size)) return onEnd('a header of the archive is damaged')
    const prefix = textIn(header.subarray(345, 500))
    const name = longName ?? `${prefix === '' ? '' : `${prefix}/`}${textIn(header.subarray(0, 100))}`
    const type = String.fromCharCode(header[156]!)
    const padding = (BLOCK - (size % BLOCK)) % BLOCK
    if (type === 'L' || type === 'x') {
      const content = await taker.take(size + padding)
      if (content === undefined) return onEnd('the archive ends within a file')
      const text = textIn(content.subarray(0, size))
      longName = type === 'L' ? text : (/(?:^|\n)\d+ path=([^\n]*)/.exec(text)?.[1] ?? longName)
      continue
    }
    longName = undefined
    const body = taker.up(size)
    if ((type === '0' || type === '\0') && !NO_LOG.test(name) && size > 0) yield { name, chunks: body }
    for await (const _ of body) {
      // What its reader has left.
    }
    if (padding > 0 && (await taker.take(padding)) === undefined) return onEnd('the archive ends within a file')
  }
}

/** Compressions and archives that are not read, by their first bytes, and what unpacks them. */
const PACKED: readonly (readonly [start: string, name: string, program: string])[] = [
  ['fd377a585a00', 'xz', 'xz -d'],
  ['425a68', 'bzip2', 'bzip2 -d'],
  ['504b0304', 'zip', 'unzip'],
  ['504b0506', 'zip', 'unzip'],
  ['377abcaf271c', '7-Zip', '7z x'],
  ['04224d18', 'lz4', 'lz4 -d'],
  ['52617221', 'RAR', 'unrar x'],
  ['28b52ffd', 'zstd', 'zstd -d'],
]
const packedText = (start: Uint8Array): string | undefined => {
  const hex = Array.from(start.subarray(0, 8), byte => byte.toString(16).padStart(2, '0')).join('')
  const found = PACKED.find(([magic]) => hex.startsWith(magic))
  return found === undefined ? undefined : `it is packed by ${found[1]}: unpack it first (${found[2]})`
}

/** UTF-16 of Windows: by its mark, or since every other byte of its text is zero. */
const wideEncoding = (start: Uint8Array): 'utf-16le' | 'utf-16be' | undefined => {
  if (start[0] === 0xff && start[1] === 0xfe) return 'utf-16le'
  if (start[0] === 0xfe && start[1] === 0xff) return 'utf-16be'
  const zeros = [0, 0]
  const pairs = start.length >> 1
  for (let at = 0; at < 2 * pairs; at++) if (start[at] === 0) zeros[at & 1]!++
  if (pairs < 8 || Math.min(...zeros) * 10 > pairs) return undefined
  return zeros[1]! * 10 > pairs * 9 ? 'utf-16le' : zeros[0]! * 10 > pairs * 9 ? 'utf-16be' : undefined
}

/** The text of a log as UTF-8. */
const inUtf8 = async function* (
  chunks: AsyncIterable<Uint8Array>,
  encoding: 'utf-16le' | 'utf-16be',
): AsyncGenerator<Uint8Array> {
  const decoder = new TextDecoder(encoding)
  const encoder = new TextEncoder()
  for await (const chunk of chunks) yield encoder.encode(decoder.decode(chunk, { stream: true }))
}

/** Archives are opened in archives, no deeper. */
const DEPTH = 2

/**
 * The logs in bytes: one, or those of an archive. `name`: of the file. What is no log is added to `unread`. `depth`: of
 * archives.
 */
export const logsIn = async function* (
  name: string,
  bytes: AsyncIterable<Uint8Array>,
  reading: Reading,
  depth = 1,
): AsyncGenerator<LogBytes> {
  const { unpack, unread } = reading
  const onDamage = (reason: string): void => {
    reading.damage ??= reason
  }
  const taker = new Taker(bytes)
  const start = await taker.peek(BLOCK)
  const packed = packedText(start)
  if (packed !== undefined || (isTar(start) && depth > DEPTH)) {
    unread.push({ name, reason: packed ?? 'it is an archive in an archive in an archive' })
    for await (const _ of taker.up()) {
      // A member's bytes are all taken: those of the next follow.
    }
    return
  }
  if (!isTar(start)) {
    const encoding = wideEncoding(start)
    yield { name, chunks: encoding === undefined ? taker.up() : inUtf8(taker.up(), encoding) }
    return
  }
  let count = 0
  for await (const member of tarMembers(taker, onDamage)) {
    count++
    const path = depth === 1 ? name.slice(name.lastIndexOf('/') + 1) : name
    yield* logsIn(`${path}/${member.name}`, await unpack(member.chunks, onDamage), reading, depth + 1)
  }
  // The zeros after the last member: what unpacks them waits until they are taken.
  for await (const _ of taker.up()) {
    // Nothing in them is read.
  }
  if (count === 0 && reading.damage !== undefined) unread.push({ name, reason: reading.damage })
}
