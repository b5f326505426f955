/*
 * Finds function, source file and line of the frames of a stack. For a frame of a C program, `FILE+0xOFFSET SYMBOL`, it
 * runs llvm-symbolizer or addr2line, if one of them is installed; without debug information only SYMBOL is known. A
 * frame of JavaScript or Python contains function, file and line already.
 */
import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { isAbsolute, relative, resolve } from 'node:path'
import type { Stack } from '../../spec/check/finding.ts'
import { type Frame, NATIVE_FRAME, trimFrames } from '../../spec/check/frames.ts'
import { type Symbols, v8Frame } from '../../tools/check/finding-text.ts'
import { readLines } from './line-table.ts'
import { withSections } from './sections.ts'

/**
 * The tools, with their options, the preferred one first: addr2line needs our help with files (line-table.ts). Both
 * print each address, followed by pairs of lines: function, and FILE:LINE. There are several pairs if functions were
 * inlined, the innermost first.
 */
const tools = [
  ['llvm-symbolizer', '--output-style=GNU', '--addresses', '--functions', '--inlines', '-e'],
  ['addr2line', '-a', '-f', '-C', '-i', '-e'],
] as const
/**
 * Time limits in milliseconds, of one look-up and of all together: a tool takes about a minute for gigabytes of debug
 * information, and the command waits for it. A file whose look-up times out is not looked up again.
 */
const TIMEOUTS = { perLookUp: 20_000, total: 60_000 } as const
/** Signals that a terminal or a user sends to the command and its tools. */
const USER_SIGNALS: readonly string[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']
/** Maximum addresses of one look-up, which are arguments of the tool. */
const MAX_ADDRESSES = 1000
/** Maximum bytes of a tool's output. */
const MAX_OUTPUT = 2 ** 26

const shortPath = (path: string): string => {
  const short = relative(process.cwd(), path)
  return short.startsWith('..') ? path : short
}

/**
 * File and line of FILE:LINE; empty if the tool does not know them (`??:0`). A relative path stays as it is: it is
 * relative to a folder of the compilation, as `./nptl/pthread_create.c` of the C library.
 */
const sourceOf = (text: string): Pick<Frame, 'file' | 'line'> => {
  const match = /^(.*):(\d+)/.exec(text)
  return match === null || match[1] === '??' || match[2] === '0'
    ? {}
    : { file: isAbsolute(match[1]!) ? shortPath(match[1]!) : match[1]!, line: Number(match[2]) }
}

/** The frames of each address in the output of a tool; keys are the addresses as they were passed to the tool. */
const parseOutput = (output: string, addresses: readonly string[]): Map<string, Frame[]> => {
  const found = new Map<string, Frame[]>()
  const lines = output.split('\n')
  let frames: Frame[] = []
  for (let i = 0, addressIndex = 0; i < lines.length; i++) {
    const line = lines[i]!
    if (/^0x[0-9a-f]+$/.test(line)) {
      frames = []
      found.set(addresses[addressIndex++] ?? line, frames)
    } else if (line !== '' && i + 1 < lines.length) {
      const source = sourceOf(lines[++i]!)
      if (line !== '??' || source.file !== undefined) frames.push({ function: line === '??' ? '' : line, ...source })
    }
  }
  return found
}

/** Bytes; undefined for a FIFO, on which a tool would block, and for a file that does not exist. */
const fileSize = (path: string): number | undefined => {
  try {
    const stat = statSync(path)
    return stat.isFile() ? stat.size : undefined
  } catch {
    return undefined
  }
}

const SHT_SYMTAB = 2

/** Whether an ELF file has no symbol table (`strip`); false if that is unknown. */
const isStripped = (path: string): boolean =>
  withSections(path, sections => [...sections.values()].every(({ type }) => type !== SHT_SYMTAB)) ?? false

/** The frames of a file's addresses, with the files of the line table in the innermost frames that it has. */
const withTableFiles = (path: string, found: ReadonlyMap<string, readonly Frame[]>) => {
  const lines = readLines(path, [...found.keys()].map(Number))
  return [...found].map(([address, frames]): [string, readonly Frame[]] => {
    const [inner, ...outer] = frames
    const known = lines.get(Number(address))
    const isKnown = inner !== undefined && known !== undefined && inner.line === known.line
    return [address, isKnown ? [{ ...inner, ...sourceOf(`${known.file}:${known.line}`) }, ...outer] : frames]
  })
}

/**
 * Creates a look-up, which remembers the frames that it has found. `onLookUp` is called before a tool runs, which blocks
 * the event loop; `bytes`: the size of the file.
 */
export const createSymbols = (
  timeouts: { readonly perLookUp: number; readonly total: number } = TIMEOUTS,
  onLookUp: (path: string, bytes: number) => void = () => {},
): Symbols => {
  /** Milliseconds that are left of `timeouts.total`. */
  let remaining = timeouts.total
  let isInterrupted = false
  /** Files that are not looked up again. */
  const slow = new Set<string>()
  /**
   * Files without a symbol table. In them the tools know exported functions only, and attribute every address behind
   * the end of one to it. The shim compares the address with the function's size: if it found no symbol, the tool's is
   * wrong.
   */
  const stripped = new Set<string>()
  /** Frames by file and address. */
  const cached = new Map<string, Map<string, readonly Frame[]>>()

  /** Looks up the addresses of one file that are not in `cached`. */
  const lookUp = (object: string, addresses: readonly string[]): void => {
    const framesByAddress = cached.get(object) ?? new Map<string, readonly Frame[]>()
    cached.set(object, framesByAddress)
    const unknown = [...new Set(addresses)].filter(address => !framesByAddress.has(address))
    const missing = unknown.slice(0, MAX_ADDRESSES)
    if (missing.length === 0) return
    for (const address of remaining > 0 ? missing : unknown) framesByAddress.set(address, [])
    // The program chose this name: as an absolute path it is neither an option (-x) nor an option file (@x).
    const path = resolve(object)
    const bytes = fileSize(path)
    if (slow.has(path) || bytes === undefined) return
    onLookUp(path, bytes)
    for (const [tool, ...args] of tools) {
      if (remaining <= 0) return
      const start = performance.now()
      const { status, signal, stdout, error } = spawnSync(tool, [...args, path, ...missing], {
        encoding: 'utf8',
        timeout: Math.ceil(Math.min(timeouts.perLookUp, remaining)),
        killSignal: 'SIGKILL',
        maxBuffer: MAX_OUTPUT,
        stdio: ['ignore', 'pipe', 'ignore'],
      })
      remaining -= performance.now() - start
      if ((error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT') {
        slow.add(path)
        return
      }
      // The user's Ctrl-C has ended the tool, and ends this command when its event loop runs.
      if (signal !== null && USER_SIGNALS.includes(signal)) {
        isInterrupted = true
        remaining = 0
        return
      }
      if (status !== 0) continue
      const found = parseOutput(stdout, missing)
      for (const [address, frames] of tool === 'addr2line' ? withTableFiles(path, found) : found)
        framesByAddress.set(address, frames)
      if (isStripped(path)) stripped.add(object)
      lookUp(object, unknown.slice(MAX_ADDRESSES))
      return
    }
  }

  /** Runs a tool once for each file that has an unknown address in the stacks. */
  const prepare = (stacks: readonly Stack[], within = remaining): void => {
    const later = Math.max(0, remaining - within)
    remaining -= later
    const byObject = new Map<string, string[]>()
    for (const frame of stacks.flat()) {
      const [, object, address] = NATIVE_FRAME.exec(frame) ?? []
      if (object === undefined || address === undefined) continue
      const addresses = byObject.get(object)
      if (addresses === undefined) byObject.set(object, [address])
      else addresses.push(address)
    }
    for (const [object, addresses] of byObject) lookUp(object, addresses)
    if (!isInterrupted) remaining += later
  }

  return {
    prepare,
    framesOf(stack) {
      prepare([stack])
      const frames = stack.flatMap((frame): readonly Frame[] => {
        const [, object, address, symbol] = NATIVE_FRAME.exec(frame) ?? []
        if (object === undefined || address === undefined) return [v8Frame(frame, shortPath)]
        const all = cached.get(object)?.get(address) ?? []
        const found = symbol || !stripped.has(object) ? all : all.filter(({ file }) => file !== undefined)
        return found.length > 0
          ? found.map(known => ({ ...known, function: known.function || symbol || '', object }))
          : [{ function: symbol ?? '', object }]
      })
      return trimFrames(frames)
    },
  }
}
