/*
 * Frames of programs as text: `FILE+0xOFFSET SYMBOL` becomes function, file and line, by addr2line or llvm-symbolizer if
 * one of them is installed and the file has debug information. Other frames (of V8) are text already.
 */
import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { type Frame, type Symbols, v8Frame } from '../../trace/findings.ts'

const NATIVE = /^(.+)\+(0x[0-9a-f]+) ?(\S*)$/
/** Both print, for each address: the address, then function and place, innermost inlined function first. */
const tools = [
  ['addr2line', '-a', '-f', '-C', '-i', '-e'],
  ['llvm-symbolizer', '--output-style=GNU', '--addresses', '--functions', '--inlines', '-e'],
] as const
/** Milliseconds for one look-up. */
const PATIENCE = 20_000

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

/** The frames of each address in the output of a tool, by the address as it was asked for. */
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

/** Neither a FIFO, at which a tool would wait, nor what cannot be found. */
const isFile = (path: string): boolean => {
  try {
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** Libraries whose inner functions say nothing to their callers. */
const INNER = /\/(?:libibverbs|librdmacm|lib\w+-rdmav\d+)\.so/

/**
 * Without the inner functions of the libraries of verbs, of which the outermost with a name stays, and without what
 * calls main.
 */
const trim = (frames: readonly Frame[]): readonly Frame[] => {
  const first = frames.findIndex(({ object }) => object === undefined || !INNER.test(object))
  const inner = (first < 0 ? frames : frames.slice(0, first)).findLast(({ function: name }) => name !== '')
  const rest = first < 0 ? [] : frames.slice(first)
  const main = rest.findIndex(({ function: name }) => name === 'main')
  return [...(inner === undefined ? [] : [inner]), ...(main < 0 ? rest : rest.slice(0, main + 1))]
}

export const createSymbols = (): Symbols => {
  /** By file, then address. */
  const known = new Map<string, Map<string, readonly Frame[]>>()

  /** Looks up the addresses of one file that are not known yet. */
  const lookUp = (object: string, addresses: readonly string[]): void => {
    const ofObject = known.get(object) ?? new Map<string, readonly Frame[]>()
    known.set(object, ofObject)
    const missing = [...new Set(addresses)].filter(address => !ofObject.has(address))
    if (missing.length === 0) return
    for (const address of missing) ofObject.set(address, [])
    // The program named it: an absolute path is neither an option (-x) nor a file of options (@x).
    const path = resolve(object)
    if (!isFile(path)) return
    for (const [tool, ...args] of tools) {
      const { status, stdout } = spawnSync(tool, [...args, path, ...missing], {
        encoding: 'utf8',
        timeout: PATIENCE,
        stdio: ['ignore', 'pipe', 'ignore'],
      })
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
          ? found.map(one => ({ ...one, function: one.function || symbol || '', object }))
          : [{ function: symbol ?? '', object }]
      })
      return trim(frames)
    },
  }
}
