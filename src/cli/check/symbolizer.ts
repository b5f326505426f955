/*
 * llvm-symbolizer or addr2line of one file. The tool reads the file's debug information once, and then answers
 * addresses as they come, until it is ended. Nothing waits for it but who asked. It knows no stacks and no time limits.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { isAbsolute, relative } from 'node:path'
import type { Frame } from '../../spec/check/frames.ts'
import { readLines } from './line-table.ts'

/**
 * The tools, with their options, the preferred one first: addr2line needs our help with files (line-table.ts). Both
 * read addresses from standard input, and print each, followed by pairs of lines: function, and FILE:LINE. There are
 * several pairs if functions were inlined, the innermost first.
 */
const tools = [
  ['llvm-symbolizer', '--output-style=GNU', '--addresses', '--functions', '--inlines', '-e'],
  ['addr2line', '-a', '-f', '-C', '-i', '-e'],
] as const
type ToolCommand = (typeof tools)[number]

/** Is asked after each question, and no address of a file: when its line comes, all before it is answered. */
const LAST = '0xffffffffffffffff'
const LAST_LINE = `\n${LAST}\n`
/** Addresses that can be asked: others are not in a file, and tools round them to LAST. */
const ADDRESS = /^0x(?:0|[1-9a-f][0-9a-f]{0,14})$/
/** Maximum characters of an answer. */
const MAX_OUTPUT = 2 ** 26

type Answer = ReadonlyMap<string, readonly Frame[]>

export interface Symbolizer {
  readonly isBusy: boolean
  /** The frames of addresses. Undefined: it was ended, or no tool knows the file; it is not asked again. */
  ask(addresses: readonly string[]): Promise<Answer | undefined>
  /** Ends it. Resolves when it has ended. */
  end(): Promise<void>
}

/** A path as it is printed. */
export const shortPath = (path: string): string => {
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

/** The frames of each address in the output of a tool. */
const parseOutput = (output: string): Map<string, Frame[]> => {
  const found = new Map<string, Frame[]>()
  const lines = output.split('\n')
  let frames: Frame[] = []
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!
    if (/^0x[0-9a-f]{1,16}$/.test(line)) {
      frames = []
      found.set(`0x${BigInt(line).toString(16)}`, frames)
    } else if (line !== '' && i + 1 < lines.length) {
      const source = sourceOf(lines[++i]!)
      if (line !== '??' || source.file !== undefined) frames.push({ function: line === '??' ? '' : line, ...source })
    }
  }
  return found
}

/** The frames of a file's addresses, with the files of the line table in the innermost frames that it has. */
const withTableFiles = async (path: string, found: Answer): Promise<Answer> => {
  const lines = await readLines(path, [...found.keys()].map(Number))
  return new Map(
    [...found].map(([address, frames]) => {
      const [inner, ...outer] = frames
      const known = lines.get(Number(address))
      const isKnown = inner !== undefined && known !== undefined && inner.line === known.line
      return [address, isKnown ? [{ ...inner, ...sourceOf(`${known.file}:${known.line}`) }, ...outer] : frames]
    }),
  )
}

/** Throws if the system refuses to start it. */
const startTool = ([name, ...options]: ToolCommand, path: string) => {
  // In a session of its own: Ctrl-C is for the program, which may go on.
  const child: ChildProcess = spawn(name, [...options, path], { stdio: ['pipe', 'pipe', 'ignore'], detached: true })
  const questions: ((output: string | undefined) => void)[] = []
  let hasEnded = false
  const noMore = (): void => {
    hasEnded = true
    for (const answer of questions.splice(0)) answer(undefined)
  }
  child.once('error', noMore)
  child.once('close', noMore)
  // It has ended before it has read all.
  child.stdin?.on('error', () => {})
  let text = ''
  child.stdout?.setEncoding('utf8').on('data', (part: string) => {
    const from = Math.max(0, text.length - LAST_LINE.length)
    text += part
    for (let at = text.indexOf(LAST_LINE, from); at >= 0; at = text.indexOf(LAST_LINE)) {
      questions.shift()?.(text.slice(0, at))
      text = text.slice(at + LAST_LINE.length)
    }
    if (text.length > MAX_OUTPUT) child.kill('SIGKILL')
  })
  // While nothing is asked, it does not keep this process alive. Who asks has a time limit, which does.
  for (const handle of [child, child.stdin, child.stdout]) (handle as { unref?(): void } | null)?.unref?.()
  return {
    ask: (addresses: readonly string[]): Promise<string | undefined> =>
      new Promise(resolve => {
        if (hasEnded) resolve(undefined)
        else {
          questions.push(resolve)
          child.stdin?.write(`${[...addresses, LAST].join('\n')}\n`)
        }
      }),
    end: (): Promise<unknown> =>
      new Promise(resolve => {
        if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) {
          resolve(undefined)
          return
        }
        child.once('exit', resolve)
        child.ref()
        child.kill('SIGKILL')
      }),
  }
}

/** `path`: absolute, so that it is neither an option (-x) nor a file of options (@x): the program chose it. */
export const createSymbolizer = (path: string): Symbolizer => {
  const left: ToolCommand[] = [...tools]
  let running: { readonly command: ToolCommand; readonly tool: ReturnType<typeof startTool> } | undefined
  let isEnded = false
  let asked = 0
  const start = (): typeof running => {
    const command = isEnded ? undefined : left.shift()
    if (command === undefined) return undefined
    try {
      return { command, tool: startTool(command, path) }
    } catch {
      return start()
    }
  }
  const ask = async (addresses: readonly string[]): Promise<Answer | undefined> => {
    running ??= start()
    if (running === undefined) return undefined
    const current = running
    const output = await current.tool.ask(addresses)
    if (output !== undefined) {
      const found = parseOutput(output)
      return current.command[0] === 'addr2line' ? withTableFiles(path, found) : found
    }
    if (running === current) running = undefined
    return ask(addresses)
  }
  return {
    get isBusy() {
      return asked > 0
    },
    async ask(addresses) {
      asked++
      try {
        return await ask(addresses.filter(address => ADDRESS.test(address)))
      } finally {
        asked--
      }
    },
    async end() {
      isEnded = true
      await running?.tool.end()
    },
  }
}
