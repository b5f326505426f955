/*
 * Finds function, source file and line of the frames of stacks. For a frame of a C program, `FILE+0xOFFSET SYMBOL`, a
 * tool looks into the file (symbolizer.ts), if one is installed; without debug information only SYMBOL is known. A
 * frame of JavaScript or Python contains function, file and line already.
 *
 * Only what is printed is looked up: `render` makes the text, looks up the frames that the text has asked for, all
 * files at once, and makes it again. A tool is started once for each file, and runs until `close`.
 */
import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Frame, LIBRARY, NATIVE_FRAME, trimFrames, VERBS_LIBRARIES } from '../../spec/check/frames.ts'
import { type Symbols, v8Frame } from '../../tools/check/finding-text.ts'
import { beforeEndBySignal } from '../end-signals.ts'
import { withSections } from './sections.ts'
import { createSymbolizer, type Symbolizer, shortPath } from './symbolizer.ts'

/** `framesOf` answers from what is known. */
export interface LookUp extends Symbols {
  /**
   * What `make` returns when all frames are known that it asks its argument for: it is called until then. `within`:
   * milliseconds that the tools may take; frames that are not looked up by then never are.
   */
  render<T>(make: (symbols: Symbols) => T, within?: number): Promise<T>
  /** The file into which a tool looks for the longest time now; undefined: none does. */
  readonly file: string | undefined
  /** Frames that are not looked up yet never are. */
  stop(): void
  /** Ends the tools. Resolves when they have ended. */
  close(): Promise<void>
}

interface LookUpOptions {
  readonly timeouts?: { readonly perLookUp: number; readonly total: number }
  /** What is known of frames, by their text. */
  readonly recorded?: ReadonlyMap<string, readonly Frame[]>
  /** False: no tool looks into a file. */
  readonly isLive?: boolean
}

/**
 * Time limits in milliseconds, of one look-up and of all together: a tool takes about a minute for gigabytes of debug
 * information, and the command waits for it. A file whose look-up times out is not looked up again.
 */
const TIMEOUTS = { perLookUp: 20_000, total: 60_000 } as const
/** Tools that run at a time, at most: each has the debug information of its file in memory. */
const MAX_TOOLS = 8

/** Of a program or library that stacks name. */
interface StackFile {
  /** Absolute. */
  readonly path: string
  /** By address. */
  readonly frames: Map<string, readonly Frame[]>
  /**
   * It has no symbol table: there the tools know exported functions only, and attribute every address behind the end of
   * one to it. The shim compares the address with the function's size: if it found no symbol, the tool's is wrong.
   */
  isStripped?: boolean
  /** It is not looked up again. */
  isGivenUp: boolean
  symbolizer?: Symbolizer | undefined
}

/** A frame of a C program that is not looked up yet. */
type Unknown = Frame & { readonly unknown?: { readonly object: string; readonly address: string } }

/** False for a FIFO, on which a tool would block, and for a file that does not exist. */
const isRegular = (path: string): boolean => {
  try {
    return statSync(path).isFile()
  } catch {
    return false
  }
}

const SHT_SYMTAB = 2

/** Whether an ELF file has no symbol table (`strip`); false if that is unknown. */
const isStripped = (path: string): boolean =>
  withSections(path, sections => [...sections.values()].every(({ type }) => type !== SHT_SYMTAB)) ?? false

/**
 * Of a stack's frames, those that must be known before the first `most` can be printed. Not yet the callers of a frame
 * of the program: it may be main, whose callers are not printed.
 */
const neededOf = (frames: readonly Unknown[], most: number): readonly Unknown[] => {
  const shown = new Set(trimFrames(frames).slice(0, most))
  // Of frames in verbs libraries the outermost with a name is printed.
  const ofVerbs = frames.findIndex(({ object }) => object === undefined || !VERBS_LIBRARIES.test(object))
  const inner = ofVerbs < 0 ? frames : frames.slice(0, ofVerbs)
  const named = inner.findLastIndex(({ function: name }) => name !== '')
  const needed = frames.filter((frame, i) => shown.has(frame) || (i >= named && i < inner.length))
  const unknown = needed.filter(frame => frame.unknown !== undefined)
  const ofProgram = unknown.findIndex(({ object = '' }) => !LIBRARY.test(object))
  return unknown.filter(({ object = '' }, i) => ofProgram < 0 || i <= ofProgram || !LIBRARY.test(object))
}

export const createSymbols = ({
  timeouts = TIMEOUTS,
  recorded = new Map(),
  isLive = true,
}: LookUpOptions = {}): LookUp => {
  /** By the name in frames. */
  const files = new Map<string, StackFile>()
  /** The paths of look-ups that are not done, and since when there are some. */
  const pending: string[] = []
  let since = 0
  /** Milliseconds that are left of `timeouts.total`, when no look-up is pending. */
  let left = timeouts.total
  const remaining = (): number => left - (pending.length > 0 ? performance.now() - since : 0)
  /** Look-ups that wait until less than MAX_TOOLS are busy. */
  const waiting: (() => void)[] = []
  let removeHandlers: (() => void) | undefined
  let isStopped = false
  let stopWaiting = (): void => {}
  const stopped = new Promise<undefined>(resolve => {
    stopWaiting = () => resolve(undefined)
  })

  const fileOf = (object: string): StackFile => {
    let file = files.get(object)
    if (file === undefined) {
      file = { path: resolve(object), frames: new Map(), isGivenUp: false }
      files.set(object, file)
    }
    return file
  }

  /** Those with a tool. */
  const running = (): (StackFile & { symbolizer: Symbolizer })[] =>
    [...files.values()].filter((file): file is StackFile & { symbolizer: Symbolizer } => file.symbolizer !== undefined)

  const ending = new Set<Promise<void>>()
  const endTool = async (file: StackFile): Promise<void> => {
    const end = file.symbolizer?.end()
    file.symbolizer = undefined
    if (end === undefined) return
    ending.add(end)
    await end
    ending.delete(end)
  }

  /** Asks for the addresses of a file, until the time `end`. */
  const ask = async (file: StackFile, addresses: readonly string[], end: number) => {
    // Timers count whole milliseconds, and end before a part of one.
    if (isStopped || file.isGivenUp || remaining() < 1 || !isRegular(file.path)) return undefined
    if (pending.length === 0) since = performance.now()
    pending.push(file.path)
    let timer: NodeJS.Timeout | undefined
    try {
      for (let all = running(); file.symbolizer === undefined && all.length >= MAX_TOOLS; all = running()) {
        const idle = all.find(({ symbolizer }) => !symbolizer.isBusy)
        if (idle !== undefined) await endTool(idle)
        else await new Promise<void>(resolve => waiting.push(resolve))
      }
      const limit = Math.min(timeouts.perLookUp, remaining(), end - performance.now())
      if (isStopped || file.isGivenUp || limit <= 0) return undefined
      removeHandlers ??= beforeEndBySignal(() => void close())
      file.symbolizer ??= createSymbolizer(file.path)
      const late = new Promise<undefined>(resolve => {
        timer = setTimeout(resolve, limit, undefined)
      })
      const found = await Promise.race([file.symbolizer.ask(addresses), late, stopped])
      if (found === undefined) {
        file.isGivenUp = true
        void endTool(file)
      } else file.isStripped ??= isStripped(file.path)
      return found
    } finally {
      clearTimeout(timer)
      if (pending.length === 1) left = remaining()
      pending.splice(pending.indexOf(file.path), 1)
      waiting.shift()?.()
    }
  }

  const learn = async (object: string, addresses: readonly string[], end: number): Promise<void> => {
    const file = fileOf(object)
    const found = await ask(file, addresses, end)
    for (const address of addresses) file.frames.set(address, found?.get(address) ?? file.frames.get(address) ?? [])
  }

  /** The frames of one frame's text. */
  const known = (text: string): readonly Unknown[] => {
    const ofRecording = recorded.get(text)
    if (ofRecording !== undefined) return ofRecording
    const [, object, address, symbol = ''] = NATIVE_FRAME.exec(text) ?? []
    if (object === undefined || address === undefined) return [v8Frame(text, shortPath)]
    if (!isLive) return [{ function: symbol, object }]
    const file = fileOf(object)
    const all = file.frames.get(address)
    if (all === undefined) return [{ function: symbol, object, unknown: { object, address } }]
    const found = symbol || !file.isStripped ? all : all.filter(({ file: source }) => source !== undefined)
    if (found.length === 0) return [{ function: symbol, object }]
    return found.map(one => ({ ...one, function: one.function || symbol, object }))
  }

  const trimmed = (frames: readonly Unknown[]): readonly Frame[] =>
    trimFrames(frames.map(({ unknown: _, ...frame }) => frame))

  const close = async (): Promise<void> => {
    removeHandlers?.()
    removeHandlers = undefined
    await Promise.all([...running().map(endTool), ...ending])
  }

  return {
    framesOf: stack => trimmed(stack.flatMap(known)),
    async render(make, within = Number.POSITIVE_INFINITY) {
      const end = performance.now() + within
      for (;;) {
        const wanted = new Map<string, Set<string>>()
        const made = make({
          framesOf(stack, most = Number.POSITIVE_INFINITY) {
            const frames = stack.flatMap(known)
            for (const { unknown } of neededOf(frames, most)) {
              const { object, address } = unknown!
              const addresses = wanted.get(object)
              if (addresses === undefined) wanted.set(object, new Set([address]))
              else addresses.add(address)
            }
            return trimmed(frames)
          },
        })
        if (wanted.size === 0) return made
        await Promise.all([...wanted].map(([object, addresses]) => learn(object, [...addresses], end)))
      }
    },
    get file() {
      return pending[0]
    },
    stop() {
      isStopped = true
      stopWaiting()
    },
    close,
  }
}

/** As `render` once, with tools of its own. */
export const lookUp = async <T>(make: (symbols: Symbols) => T): Promise<T> => {
  const symbols = createSymbols()
  try {
    return await symbols.render(make)
  } finally {
    await symbols.close()
  }
}
