/*
 * Looks up what the frames in a recording are before it ends, with some lines of source around each position, so that
 * the file has them on other machines too. The command does that rather than the daemon: debug information takes time,
 * and source files are read with the rights of the user who asked for the recording.
 */
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { extname, resolve } from 'node:path'
import type { ToolSession } from '../daemon/client/tool-session.ts'
import type { Frame } from '../spec/check/frames.ts'
import type { SymbolFrame } from '../spec/session-events.ts'
import type { Symbols } from '../tools/check/finding-text.ts'
import { MAX_SOURCE_LINE, MAX_TEXT } from '../tools/record/symbol-frames.ts'
import type { FrameSymbol } from '../uapi/tool.ts'
import { createSymbols, type LookUp } from './check/symbols.ts'

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
 * The names of source files end so. Debug information may name any file (`#line`), also one whose lines must not be in
 * a file that is sent to others: a key, or the file of another user, if the daemon serves several.
 */
const SOURCES = new Set(
  '.c .h .cc .hh .cpp .hpp .cxx .hxx .c++ .h++ .inl .ipp .tcc .s .asm .cu .cuh .d .f .f90 .go .java .jl .js .cjs .mjs .jsx .ts .cts .mts .tsx .kt .lua .py .pyx .rb .rs .swift .zig'.split(
    ' ',
  ),
)
/** Bytes of JSON in a request, unless one symbol has more. */
const MAX_BATCH = 2 ** 14
/** Bytes of the JSON of a symbol's frames: a recording has no longer ones. */
const MAX_SYMBOL = 2 ** 14
/** Characters of a function's name, which a C++ template may have by thousands. */
const MAX_FUNCTION = 1000

/** Returns a function that reads the lines of a source file; undefined: there is none, or it cannot be read. */
const sourceReader = (): ((file: string) => readonly string[] | undefined) => {
  const known = new Map<string, readonly string[] | undefined>()
  let left = MAX_READ
  const read = (file: string): readonly string[] | undefined => {
    if (!SOURCES.has(extname(file).toLowerCase())) return undefined
    let fd: number | undefined
    try {
      // The program chose the name: to open a device may do something, and a FIFO that replaces a file must not block.
      if (!statSync(file).isFile()) return undefined
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

/** The frame with names that a recording takes: a long one must not refuse the symbols beside it. */
const bounded = ({ function: name, file, line, object }: Frame): Frame => ({
  function: name.length > MAX_FUNCTION ? `${name.slice(0, MAX_FUNCTION)}…` : name,
  ...(file !== undefined && file.length <= MAX_TEXT && { file, line }),
  ...(object !== undefined && object.length <= MAX_TEXT && { object }),
})

const jsonBytes = (value: object): number => Buffer.byteLength(JSON.stringify(value))

/** The frames that fit into MAX_SYMBOL: without source if that is too long, and without the outermost ones. */
const fitting = (frames: readonly SymbolFrame[]): readonly SymbolFrame[] => {
  if (jsonBytes(frames) <= MAX_SYMBOL) return frames
  const fewer = frames.map(({ source: _, ...frame }) => frame)
  while (fewer.length > 0 && jsonBytes(fewer) > MAX_SYMBOL) fewer.pop()
  return fewer
}

/** What a frame is; undefined: nothing is known. */
const symbolOf = (
  frame: string,
  symbols: Symbols,
  readLines: (file: string) => readonly string[] | undefined,
): FrameSymbol | undefined => {
  const frames = symbols.framesOf([frame])
  // Without a name or line it says no more than its text.
  if (!frames.some(one => one.function !== '' || one.file !== undefined)) return undefined
  const shown = frames.slice(0, MAX_INLINED).map(one => withSource(bounded(one), readLines))
  return { frame, frames: fitting(shown) }
}

/** Milliseconds that the tools may take while a page is shown: its server waits. */
const LIVE_TIMEOUTS = { perLookUp: 2_000, total: 10_000 } as const

/**
 * Returns a function that looks up the frames that are new in the recording of the client's daemon. It throws an Error.
 */
export const newSymbols = (client: Pick<ToolSession, 'recordedFrames'>): (() => Promise<readonly FrameSymbol[]>) => {
  const known = new Set<string>()
  const symbols = createSymbols({ timeouts: LIVE_TIMEOUTS })
  const readLines = sourceReader()
  let calls = 0
  return async () => {
    const frames = (await client.recordedFrames()).filter(frame => !known.has(frame))
    for (const frame of frames) known.add(frame)
    calls++
    try {
      return await symbols.render(live => frames.flatMap(frame => symbolOf(frame, live, readLines) ?? []))
    } finally {
      calls--
      // A page may be open for days.
      if (calls === 0) await symbols.close()
    }
  }
}

/**
 * Adds symbols to the recording of the client's daemon. `symbols`: of a command that goes on to use them. Throws an
 * Error.
 */
export const addSymbols = async (
  client: Pick<ToolSession, 'recordedFrames' | 'addSymbols'>,
  symbols?: Pick<LookUp, 'framesOf' | 'render'>,
): Promise<void> => {
  const frames = await client.recordedFrames()
  const own = symbols === undefined ? createSymbols({ timeouts: TIMEOUTS }) : undefined
  const known = symbols ?? own!
  await known.render(live => {
    for (const frame of frames) live.framesOf([frame])
  }, TIMEOUTS.total)
  await own?.close()
  const readLines = sourceReader()
  let batch: FrameSymbol[] = []
  let bytes = 0
  const send = async (): Promise<boolean> => {
    const hasRoom = batch.length === 0 || (await client.addSymbols(batch))
    batch = []
    bytes = 0
    return hasRoom
  }
  for (const frame of frames) {
    const symbol = symbolOf(frame, known, readLines)
    if (symbol === undefined) continue
    const size = jsonBytes(symbol)
    if (bytes + size > MAX_BATCH && !(await send())) return
    batch.push(symbol)
    bytes += size
  }
  await send()
}
