/*
 * Looks up what the frames in a recording are before it ends, with some lines of source around each position, so that
 * the file has them on other machines too. The command does that rather than the daemon: debug information takes time, and
 * source files are read with the rights of the user who asked for the recording.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { extname, resolve } from 'node:path'
import type { SymbolFrame } from '../record/events.ts'
import { MAX_SOURCE_LINE } from '../record/symbol-frames.ts'
import type { ToolSession } from '../session/tool-session.ts'
import type { Frame } from '../spec/check/frames.ts'
import type { Symbols } from '../trace/findings.ts'
import type { FrameSymbol } from '../uapi/tool.ts'
import { createSymbols } from './check/symbols.ts'

/** Lines of source before and after a position. */
const LINES = 3
/** Larger files are no source. */
const MAX_SOURCE = 2 ** 23
/** Bytes of source files that are read in total. */
const MAX_READ = 2 ** 26
/** Milliseconds that the tools may take: the user waits. */
const TIMEOUTS = { perLookUp: 10_000, total: 20_000 } as const
/** Functions that were inlined at one address, at most: with their source they fit into a record. */
const MAX_INLINED = 8
/**
 * The names of source files end so. Debug information may name any file (`#line`), also one whose lines must not be in a
 * file that is sent to others: a key, or the file of another user, if the daemon serves several.
 */
const SOURCES = new Set(
  '.c .h .cc .hh .cpp .hpp .cxx .hxx .c++ .h++ .inl .ipp .tcc .s .asm .cu .cuh .d .f .f90 .go .java .jl .js .cjs .mjs .jsx .ts .cts .mts .tsx .kt .lua .py .pyx .rb .rs .swift .zig'.split(
    ' ',
  ),
)
/** Characters of JSON in a request, unless one symbol has more. */
const MAX_BATCH = 2 ** 14

/** Returns a function that reads the lines of a source file; undefined: there is none, or it cannot be read. */
const sourceReader = (): ((file: string) => readonly string[] | undefined) => {
  const known = new Map<string, readonly string[] | undefined>()
  let left = MAX_READ
  const read = (file: string): readonly string[] | undefined => {
    if (!SOURCES.has(extname(file).toLowerCase())) return undefined
    let fd: number | undefined
    try {
      // The program chose the name: a FIFO must not block.
      fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
      const stat = fstatSync(fd)
      if (!stat.isFile() || stat.size > Math.min(MAX_SOURCE, left)) return undefined
      left -= stat.size
      const bytes = Buffer.alloc(stat.size)
      const text = bytes.toString('utf8', 0, readSync(fd, bytes, 0, stat.size, 0))
      // A binary file has no lines.
      return text.includes('\0') ? undefined : text.split('\n')
    } catch {
      return undefined
    } finally {
      if (fd !== undefined) closeSync(fd)
    }
  }
  return file => {
    if (!known.has(file)) known.set(file, read(file))
    return known.get(file)
  }
}

/** Files that are relative to an unknown folder, that of the compilation, begin so. */
const UNKNOWN_FOLDER = /^\.\.?\//

/** `readLines` returns the lines of a source file. */
const withSource = (frame: Frame, readLines: (file: string) => readonly string[] | undefined): SymbolFrame => {
  const { file, line } = frame
  if (file === undefined || line === undefined || UNKNOWN_FOLDER.test(file)) return frame
  const lines = readLines(resolve(file))
  if (lines === undefined || line > lines.length) return frame
  const first = Math.max(1, line - LINES)
  const shown = lines.slice(first - 1, line + LINES).map(text => text.trimEnd().slice(0, MAX_SOURCE_LINE))
  return { ...frame, source: { first, lines: shown } }
}

/** Adds symbols to the recording of the client's daemon. Throws an Error. */
export const addSymbols = async (
  client: Pick<ToolSession, 'recordedFrames' | 'addSymbols'>,
  symbols: Symbols = createSymbols(TIMEOUTS),
): Promise<void> => {
  const stacks = (await client.recordedFrames()).map(frame => [frame])
  symbols.prepare?.(stacks)
  const readLines = sourceReader()
  let batch: FrameSymbol[] = []
  let characters = 0
  const send = async (): Promise<boolean> => {
    const hasRoom = batch.length === 0 || (await client.addSymbols(batch))
    batch = []
    characters = 0
    return hasRoom
  }
  for (const [frame] of stacks as [string][]) {
    const frames = symbols.framesOf([frame])
    // Without a name or line it says no more than its text.
    if (!frames.some(one => one.function !== '' || one.file !== undefined)) continue
    const symbol = { frame, frames: frames.slice(0, MAX_INLINED).map(one => withSource(one, readLines)) }
    const { length } = JSON.stringify(symbol)
    if (characters + length > MAX_BATCH && !(await send())) return
    batch.push(symbol)
    characters += length
  }
  await send()
}
