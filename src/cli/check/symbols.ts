/*
 * Frames of programs as text: `FILE+0xOFFSET SYMBOL` becomes function, file and line, by addr2line or llvm-symbolizer
 * if one of them is installed and the file has debug information. V8's frames are text already.
 */
import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { type Frame, type Symbols, v8Frame } from '../../trace/findings.ts'

const NATIVE = /^(.+)\+(0x[0-9a-f]+) ?(\S*)$/
/**
 * Both tools print for each address the address, and then pairs of lines, function and source line, innermost inlined
 * function first.
 */
const tools = [
  ['addr2line', '-a', '-f', '-C', '-i', '-e'],
  ['llvm-symbolizer', '--output-style=GNU', '--addresses', '--functions', '--inlines', '-e'],
] as const
/**
 * Time limits in milliseconds, of one look-up and of all together: a tool takes about a minute for gigabytes of debug
 * information, and the command waits for it. A file whose look-up times out is not looked up again.
 */
const TIMEOUTS = { one: 20_000, all: 60_000 } as const
/** Bytes of a tool's output. */
const MAX_OUTPUT = 2 ** 26

const shortPath = (path: string): string => {
  const short = relative(process.cwd(), path)
  return short.startsWith('..') ? path : short
}

const placeOf = (text: string): Pick<Frame, 'file' | 'line'> => {
  const match = /^(.*):(\d+)/.exec(text)
  return match === null || match[1] === '??' || match[2] === '0'
    ? {}
    : { file: shortPath(match[1]!), line: Number(match[2]) }
}

/** The frames of each address in the output of a tool; keys are the addresses as they were passed to the tool. */
const parseOutput = (output: string, addresses: readonly string[]): Map<string, Frame[]> => {
  const found = new Map<string, Frame[]>()
  const lines = output.split('\n')
  let frames: Frame[] = []
  for (let i = 0, next = 0; i < lines.length; i++) {
    const line = lines[i]!
    if (/^0x[0-9a-f]+$/.test(line)) {
      frames = []
      found.set(addresses[next++] ?? line, frames)
    } else if (line !== '' && i + 1 < lines.length) {
      const place = placeOf(lines[++i]!)
      if (line !== '??' || place.file !== undefined) frames.push({ function: line === '??' ? '' : line, ...place })
    }
  }
  return found
}

/** False for a FIFO, on which a tool would block, and for a file that does not exist. */
const isFile = (path: string): boolean => {
  try {
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** Libraries whose internal functions are not shown: they do not help the author of a program. */
const INNER = /\/(?:libibverbs|librdmacm|lib\w+-rdmav\d+)\.so/

/** Removes the internal functions of the verbs libraries, except the outermost with a name, and the callers of main. */
const trim = (frames: readonly Frame[]): readonly Frame[] => {
  const first = frames.findIndex(({ object }) => object === undefined || !INNER.test(object))
  const inner = (first < 0 ? frames : frames.slice(0, first)).findLast(({ function: name }) => name !== '')
  const outer = first < 0 ? [] : frames.slice(first)
  const main = outer.findIndex(({ function: name }) => name === 'main')
  return [...(inner === undefined ? [] : [inner]), ...(main < 0 ? outer : outer.slice(0, main + 1))]
}

export const createSymbols = (timeouts: { readonly one: number; readonly all: number } = TIMEOUTS): Symbols => {
  let left = timeouts.all
  /** Files that are not looked up again. */
  const slow = new Set<string>()
  /** Frames by file and address. */
  const known = new Map<string, Map<string, readonly Frame[]>>()

  /** Looks up the addresses of one file that are not in `known`. */
  const lookUp = (object: string, addresses: readonly string[]): void => {
    const ofObject = known.get(object) ?? new Map<string, readonly Frame[]>()
    known.set(object, ofObject)
    const missing = [...new Set(addresses)].filter(address => !ofObject.has(address))
    if (missing.length === 0) return
    for (const address of missing) ofObject.set(address, [])
    // The program chose this name: as an absolute path it is neither an option (-x) nor an option file (@x).
    const path = resolve(object)
    if (slow.has(path) || !isFile(path)) return
    for (const [tool, ...args] of tools) {
      if (left <= 0) return
      const start = performance.now()
      const { status, stdout, error } = spawnSync(tool, [...args, path, ...missing], {
        encoding: 'utf8',
        timeout: Math.ceil(Math.min(timeouts.one, left)),
        killSignal: 'SIGKILL',
        maxBuffer: MAX_OUTPUT,
        stdio: ['ignore', 'pipe', 'ignore'],
      })
      left -= performance.now() - start
      if ((error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT') {
        slow.add(path)
        return
      }
      if (status !== 0) continue
      for (const [address, frames] of parseOutput(stdout, missing)) ofObject.set(address, frames)
      return
    }
  }

  return {
    framesOf(stack) {
      const byObject = new Map<string, string[]>()
      for (const frame of stack) {
        const [, object, address] = NATIVE.exec(frame) ?? []
        if (object === undefined || address === undefined) continue
        byObject.set(object, [...(byObject.get(object) ?? []), address])
      }
      for (const [object, addresses] of byObject) lookUp(object, addresses)
      const frames = stack.flatMap((frame): readonly Frame[] => {
        const [, object, address, symbol] = NATIVE.exec(frame) ?? []
        if (object === undefined || address === undefined) return [v8Frame(frame, shortPath)]
        const found = known.get(object)?.get(address) ?? []
        return found.length > 0
          ? found.map(known => ({ ...known, function: known.function || symbol || '', object }))
          : [{ function: symbol ?? '', object }]
      })
      return trim(frames)
    },
  }
}
