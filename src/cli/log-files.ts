/*
 * Logs of users: files, folders, tar archives, each also as gzip or zstd, and standard input. Archives are read as
 * streams: no file of theirs is in memory, or on the disk.
 */
import { type Dirent, readdirSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { openCapture, plainBytes, startOf, startsCapture } from './capture-file.ts'
import { UsageError } from './fail.ts'

/** An argument of the command: `node1=FILE` has a host. */
export interface NamedFile {
  readonly name: string
  readonly host?: string
}

/** A log that is read now. `read` of `size` bytes are the archive's or file's, for progress. */
interface OpenLog {
  readonly name: string
  readonly host: string | undefined
  readonly chunks: AsyncIterable<Uint8Array>
  readonly read: () => number
  readonly size: number
  /** Why the bytes ended before their end. */
  readonly damage: () => string | undefined
}

/** What could not be read, and why. */
export interface Unread {
  readonly name: string
  readonly reason: string
}

/** Files in a folder, at most. */
const MAX_FILES = 100_000

/** Names of files that are certainly no logs. */
const NO_LOG = /\.(?:pcap(?:ng)?(?:\.(?:gz|zst))?|udr|so(?:\.\d+)*|o|a|py[co]|png|jpe?g|pdf|pt|safetensors|core)$/i

/** The files below a folder, in the order of their names. */
const below = (folder: string, unread: Unread[]): readonly string[] => {
  const files: string[] = []
  const visit = (path: string): void => {
    let entries: Dirent[]
    try {
      entries = readdirSync(path, { withFileTypes: true })
    } catch (error) {
      unread.push({ name: path, reason: String((error as NodeJS.ErrnoException).code) })
      return
    }
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (files.length >= MAX_FILES)
        throw new UsageError(`"${folder}" has more than ${MAX_FILES} files: give a folder of logs`)
      const name = join(path, entry.name)
      if (entry.isDirectory()) visit(name)
      else if (entry.isFile() && !NO_LOG.test(entry.name)) files.push(name)
    }
  }
  visit(folder)
  return files
}

/** The files that arguments mean, folders with what is in them, as far as they can be read. Throws UsageError. */
export const filesOf = (named: readonly NamedFile[], unread: Unread[]): readonly NamedFile[] =>
  named.flatMap(({ name, host }) => {
    if (name === '-' || !statSync(name).isDirectory()) return [{ name, ...(host !== undefined && { host }) }]
    const files = below(name, unread)
    if (files.length === 0 && unread.length === 0) throw new UsageError(`"${name}" has no files that are logs`)
    return files.map(file => ({ name: file, ...(host !== undefined && { host }) }))
  })

type Content = 'log' | 'capture' | 'recording'

/** What a file has, by its first bytes; by its name if that says it. Throws UsageError if it cannot be read. */
export const contentOf = async (name: string): Promise<Content> => {
  if (/\.udr$/i.test(name)) return 'recording'
  if (/\.(?:pcap(?:ng)?|cap|dmp|erf|ntar|snoop)(?:\.(?:gz|zst))?\d*$/i.test(name)) return 'capture'
  const start = await startOf(name)
  return startsCapture(start) ? 'capture' : 'log'
}

const BLOCK = 512
const textIn = (bytes: Uint8Array): string => {
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}
const isTar = (start: Uint8Array): boolean => start.length >= BLOCK && textIn(start.subarray(257, 262)) === 'ustar'

/** Bytes of a stream as they are asked for. */
class Taker {
  readonly #iterator: AsyncIterator<Uint8Array>
  #held: Uint8Array = new Uint8Array(0)
  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#iterator = chunks[Symbol.asyncIterator]()
  }
  async #fill(): Promise<boolean> {
    const next = await this.#iterator.next()
    if (next.done) return false
    this.#held = this.#held.length === 0 ? next.value : Buffer.concat([this.#held, next.value])
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
  async *up(length: number): AsyncGenerator<Uint8Array> {
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
]
const packedText = (start: Uint8Array): string | undefined => {
  const hex = Buffer.from(start.subarray(0, 8)).toString('hex')
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
  for await (const chunk of chunks) yield Buffer.from(decoder.decode(chunk, { stream: true }))
}

/** Archives are opened in archives, no deeper. */
const DEPTH = 2

/** Opens one log after the other. What cannot be read is added to `unread`. */
export const openLogs = async function* (files: readonly NamedFile[], unread: Unread[]): AsyncGenerator<OpenLog> {
  for (const { name, host } of files) {
    let reason: string | undefined
    const damaged = (text: string): void => {
      reason ??= text
    }
    const { chunks, read, size } = await openCapture(name, damaged)
    const log = { host, read, size, damage: () => reason }
    const label = name === '-' ? 'standard input' : name
    const logsIn = async function* (
      path: string,
      bytes: AsyncIterable<Uint8Array>,
      depth: number,
    ): AsyncGenerator<OpenLog> {
      const taker = new Taker(bytes)
      const start = await taker.peek(BLOCK)
      const packed = packedText(start)
      if (packed !== undefined || (isTar(start) && depth > DEPTH)) {
        unread.push({ name: path, reason: packed ?? 'it is an archive in an archive in an archive' })
        for await (const _ of taker.up(Number.POSITIVE_INFINITY)) {
          // A member's bytes are all taken: those of the next follow.
        }
        return
      }
      if (!isTar(start)) {
        const encoding = wideEncoding(start)
        const all = taker.up(Number.POSITIVE_INFINITY)
        yield { ...log, name: path, chunks: encoding === undefined ? all : inUtf8(all, encoding) }
        return
      }
      let count = 0
      for await (const member of tarMembers(taker, damaged)) {
        count++
        const inner = await plainBytes(member.chunks, damaged)
        yield* logsIn(`${depth === 1 ? basename(path) : path}/${member.name}`, inner, depth + 1)
      }
      // The zeros after the last member: what unpacks them waits until they are taken.
      for await (const _ of taker.up(Number.POSITIVE_INFINITY)) {
        // Nothing in them is read.
      }
      if (count === 0 && reason !== undefined) unread.push({ name: path, reason })
    }
    yield* logsIn(label, chunks, 1)
  }
}
