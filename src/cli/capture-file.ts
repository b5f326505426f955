/*
 * Opens capture files for commands: plain, gzip and zstd, or standard input (`-`). zstd is Node's own where it has it
 * (22.15 and later), otherwise the program `zstd`.
 */
import { spawn } from 'node:child_process'
import { closeSync, createReadStream, fstatSync, openSync, readSync, statSync } from 'node:fs'
import type { Readable } from 'node:stream'
import * as zlib from 'node:zlib'
import { PcapngBlock, pcapMagics } from '../spec/wire/captures.ts'
import { type CaptureReader, ERF_START, startsErf } from '../tools/captures/file.ts'
import { UsageError } from './fail.ts'
import { createProgress } from './progress.ts'

/** Bytes per read: large, since each is a call. */
const CHUNK = 1 << 20

interface CaptureSource {
  /** Chunks of the capture's bytes, decompressed. */
  readonly chunks: AsyncIterable<Uint8Array>
  /** Bytes of the file; 0 if unknown. */
  readonly size: number
  /** Bytes of the file that were read. */
  readonly read: () => number
}

type Compression = 'gzip' | 'zstd' | undefined

const compressionOf = (start: Uint8Array): Compression => {
  if (start[0] === 0x1f && start[1] === 0x8b) return 'gzip'
  return start[0] === 0x28 && start[1] === 0xb5 && start[2] === 0x2f && start[3] === 0xfd ? 'zstd' : undefined
}

/** The first bytes of a stream, and all of it. */
const peek = async (
  stream: AsyncIterable<Uint8Array>,
): Promise<{ readonly start: Uint8Array; readonly all: AsyncIterable<Uint8Array> }> => {
  const iterator = stream[Symbol.asyncIterator]()
  const held: Uint8Array[] = []
  let length = 0
  while (length < 4) {
    const next = await iterator.next()
    if (next.done) break
    held.push(next.value)
    length += next.value.length
  }
  const all = (async function* (): AsyncGenerator<Uint8Array> {
    yield* held
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value
  })()
  return { start: Buffer.concat(held).subarray(0, 4), all }
}

/** Feeds `from` to a decompressor, whose output is the result. Errors of either end the result with that error. */
const through = (
  from: AsyncIterable<Uint8Array>,
  input: NodeJS.WritableStream,
  output: Readable,
): AsyncIterable<Uint8Array> => {
  const feed = async (): Promise<void> => {
    for await (const chunk of from)
      if (!input.write(chunk)) await new Promise<void>(resolve => input.once('drain', resolve))
    input.end()
  }
  input.on('error', error => output.destroy(error))
  feed().catch((error: unknown) => output.destroy(error instanceof Error ? error : new Error(String(error))))
  return output as AsyncIterable<Uint8Array>
}

/**
 * Bytes that gunzip gets at a time. An error loses what it has made of the piece with the error, so that the first
 * pieces are short: there are small captures.
 */
const GZIP_PIECE = { first: 64, later: 1 << 16, change: 1 << 16 }

const gunzip = (from: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> => {
  const stream = zlib.createGunzip({ chunkSize: CHUNK })
  const pieces = async function* (): AsyncGenerator<Uint8Array> {
    let done = 0
    for await (const chunk of from)
      for (let at = 0; at < chunk.length; ) {
        const size = done < GZIP_PIECE.change ? GZIP_PIECE.first : GZIP_PIECE.later
        const piece = chunk.subarray(at, at + size)
        // An error discards what was not taken.
        while (stream.writableLength > 0 || stream.readableLength > 0) {
          if (stream.destroyed) return
          await new Promise(setImmediate)
        }
        yield piece
        at += piece.length
        done += piece.length
      }
  }
  return through(pieces(), stream, stream)
}

const unzstd = (from: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> => {
  const create = (zlib as { readonly createZstdDecompress?: () => zlib.Gunzip }).createZstdDecompress
  if (create !== undefined) {
    const stream = create()
    return through(from, stream, stream)
  }
  const child = spawn('zstd', ['-dcq'], { stdio: ['pipe', 'pipe', 'pipe'] })
  child.on('error', () =>
    child.stdout.destroy(new UsageError('a zstd file needs the program `zstd`, or Node.js 22.15 or later')),
  )
  let said = ''
  child.stderr.on('data', (part: Buffer) => {
    said += part.toString()
  })
  const closed = new Promise<number | null>(resolve => child.on('close', resolve))
  // It ends before its input if that is damaged: its status says so.
  child.stdin.on('error', () => {})
  const chunks = through(from, child.stdin, child.stdout)
  return (async function* (): AsyncGenerator<Uint8Array> {
    yield* chunks
    if ((await closed) !== 0) throw Object.assign(new Error(said.trim()), { code: 'ZSTD_error_' })
  })()
}

const isDamage = (error: unknown): boolean => {
  const { code = '' } = error as NodeJS.ErrnoException
  return code === 'Z_BUF_ERROR' || code === 'Z_DATA_ERROR' || code.startsWith('ZSTD_error_') || code === 'EPIPE'
}

/** Damage of the compression ends the bytes; `onDamage` is told why. */
const whole = async function* (
  chunks: AsyncIterable<Uint8Array>,
  onDamage: (reason: string) => void,
): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks
  } catch (error) {
    if (!isDamage(error)) throw error
    onDamage(`its compression is damaged (${(error as Error).message})`)
  }
}

/** For commands that read a capture twice. Throws UsageError for a pipe or a device. */
export const requireRereadable = (name: string): void => {
  const stats = statSync(name, { throwIfNoEntry: false })
  if (stats === undefined || stats.isFile() || stats.isDirectory()) return
  throw new UsageError(`"${name}" is not a regular file, and is read twice: copy it to a file first`)
}

/** The bytes decompressed, if they are gzip or zstd. `onDamage`: the bytes end there. */
export const plainBytes = async (
  from: AsyncIterable<Uint8Array>,
  onDamage: (reason: string) => void,
): Promise<AsyncIterable<Uint8Array>> => {
  const { start, all } = await peek(from)
  const compression = compressionOf(start)
  if (compression === undefined) return all
  return whole(compression === 'gzip' ? gunzip(all) : unzstd(all), onDamage)
}

/** Pipes that were opened to see what they have (`startOf`), with whom to tell of damage. */
const opened = new Map<string, { readonly source: CaptureSource; onDamage: (reason: string) => void }>()

/** Bytes by which a kind of file is known: the header of a tar archive is the longest. */
const START = 512

/**
 * The first bytes of a file, decompressed; of standard input and other pipes what comes first, and `openCapture` has it
 * again. Throws UsageError as `openCapture`.
 */
export const startOf = async (name: string): Promise<Uint8Array> => {
  const holder = { onDamage: (_: string): void => {} }
  const source = await openCapture(name, reason => holder.onDamage(reason))
  const isPipe = name === '-' || !statSync(name).isFile()
  const iterator = source.chunks[Symbol.asyncIterator]()
  const held: Uint8Array[] = []
  for (let length = 0; length < (isPipe ? 4 : START); ) {
    const next = await iterator.next()
    if (next.done) break
    held.push(next.value)
    length += next.value.length
  }
  if (isPipe) {
    const chunks = (async function* (): AsyncGenerator<Uint8Array> {
      yield* held
      for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value
    })()
    opened.set(name, Object.assign(holder, { source: { ...source, chunks } }))
  } else await iterator.return?.()
  return Buffer.concat(held).subarray(0, START)
}

/** Whether bytes are the start of a pcap, pcapng or ERF file. */
export const startsCapture = (start: Uint8Array): boolean => {
  if (start.length < 4) return false
  const magic = new DataView(start.buffer, start.byteOffset).getUint32(0)
  if (magic === PcapngBlock.SECTION || pcapMagics.has(magic)) return true
  // ERF has no magic number, and text no zeros.
  return (
    start.subarray(0, ERF_START).includes(0) &&
    startsErf(start.subarray(0, ERF_START), start.length < ERF_START) === true
  )
}

/** `-`: standard input. Throws UsageError if there is no such file. */
export const openCapture = async (name: string, onDamage: (reason: string) => void): Promise<CaptureSource> => {
  const before = opened.get(name)
  if (before !== undefined) {
    opened.delete(name)
    before.onDamage = onDamage
    return before.source
  }
  let stream: Readable
  let size = 0
  if (name === '-') stream = process.stdin
  else {
    try {
      const fd = openSync(name, 'r')
      const stat = fstatSync(fd)
      if (stat.isDirectory()) {
        closeSync(fd)
        throw new UsageError(`"${name}" is a folder, not a capture`)
      }
      size = stat.isFile() ? stat.size : 0
      stream = createReadStream('', { fd, highWaterMark: CHUNK })
    } catch (error) {
      if (error instanceof UsageError) throw error
      throw new UsageError(`cannot read "${name}": ${(error as NodeJS.ErrnoException).code}`)
    }
  }
  let read = 0
  const counted = async function* (from: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of from) {
      read += chunk.length
      yield chunk
    }
  }
  return { chunks: await plainBytes(counted(stream), onDamage), size, read: () => read }
}

/** Reads a capture, with progress. `stateOf`: what is shown of it. Throws UsageError as `openCapture`. */
export const readCaptureFile = async (
  name: string,
  reader: CaptureReader,
  command: string,
  stateOf: (source: CaptureSource) => string,
): Promise<void> => {
  const source = await openCapture(name, reason => reader.fail(reason))
  const progress = createProgress(`userdma ${command}`)
  progress.show(
    () => stateOf(source),
    () => (source.size > 0 ? source.read() / source.size : 0),
  )
  try {
    for await (const chunk of source.chunks) {
      reader.push(chunk)
      if (reader.damage !== undefined) break
    }
  } finally {
    progress.end()
  }
}

/** Whether a file begins as a pcap, pcapng or ERF file, or a compressed one, does; false if it cannot be read. */
export const isCaptureFile = (name: string): boolean => {
  const bytes = Buffer.alloc(ERF_START)
  let length: number
  try {
    // A pipe would wait for a writer.
    if (!statSync(name).isFile()) return false
    const fd = openSync(name, 'r')
    try {
      length = readSync(fd, bytes, 0, ERF_START, 0)
    } finally {
      closeSync(fd)
    }
  } catch {
    return false
  }
  if (length < 4) return false
  const start = bytes.subarray(0, length)
  const magic = start.readUInt32BE()
  return (
    compressionOf(start) !== undefined ||
    magic === PcapngBlock.SECTION ||
    pcapMagics.has(magic) ||
    startsErf(start, length < ERF_START) === true
  )
}
