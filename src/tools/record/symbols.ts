/*
 * What the frames of a session's stacks are: functions, source files and lines, and some lines of source. The recorder
 * looked them up when the recording ended, so that a session has them on other machines, and without its programs.
 */
import type { Stack } from '../../spec/check/finding.ts'
import { type Frame, NATIVE_FRAME, trimFrames } from '../../spec/check/frames.ts'
import type { SessionEvent, SymbolFrame } from '../../spec/session-events.ts'
import { SessionFileError } from './error.ts'
import type { Session } from './reader.ts'

/** Frames whose symbols are kept at most. */
const MAX_SYMBOLS = 20_000

/** Frames of a stack that are shown at most, as programs send them. */
const MAX_FRAMES = 64

/** The text of a frame without a symbol ends with a space. */
const unknown = (frame: string): SymbolFrame => ({ function: frame.trimEnd() })

export class SessionSymbols {
  /** By the text of the frame. */
  readonly #frames = new Map<string, readonly SymbolFrame[]>()

  /** Adds an event; ignores other kinds. */
  add(event: SessionEvent): void {
    if (event.kind === 'symbol' && this.#frames.size < MAX_SYMBOLS) this.#frames.set(event.frame, event.frames)
  }

  /**
   * The frames of a stack, innermost first, without those that do not help. A frame without symbols has its text as
   * function.
   */
  framesOf(whole: Stack): readonly SymbolFrame[] {
    const stack = whole.slice(0, MAX_FRAMES)
    if (!stack.some(frame => this.#frames.has(frame))) return stack.map(unknown)
    return trimFrames(
      stack.flatMap((frame): readonly SymbolFrame[] => {
        const known = this.#frames.get(frame)
        if (known !== undefined) return known
        const object = NATIVE_FRAME.exec(frame)?.[1]
        return [{ ...unknown(frame), ...(object !== undefined && { object }) }]
      }),
    )
  }
}

/** Frames that a line of text has at most. */
const MAX_CALLERS = 4

const baseName = (path: string): string => path.slice(path.lastIndexOf('/') + 1)
const callerText = ({ function: name, file, line }: Frame): string =>
  `${name || '??'}${file === undefined ? '' : ` (${baseName(file)}:${line})`}`

/** The innermost frames in one line: `ibv_post_send (verbs.h:3342) < main (a.c:9)`; empty: no stack. */
export const callersLine = (symbols: SessionSymbols, stack: Stack): string =>
  symbols.framesOf(stack).slice(0, MAX_CALLERS).map(callerText).join(' < ')

/**
 * Calls `add` with the symbols of a session, without reading all of it: a recording that has ended has them in its last
 * blocks.
 */
export const readSymbols = async (session: Session, add: (event: SessionEvent) => void): Promise<void> => {
  let hasFound = false
  for (const block of session.blocks.toReversed()) {
    if (block.isCheckpoint) continue
    let events: readonly SessionEvent[]
    try {
      events = await session.read(block)
    } catch (error) {
      if (!(error instanceof SessionFileError)) throw error
      continue
    }
    const symbols = events.filter(({ kind }) => kind === 'symbol')
    for (const event of symbols) add(event)
    // What follows the symbols: waits and the end, in two blocks at most.
    if (symbols.length === 0 && (hasFound || events.some(({ kind }) => !LAST_KINDS.includes(kind)))) return
    hasFound ||= symbols.length > 0
  }
}

/** Kinds that may follow the symbols of a recording that has ended. */
const LAST_KINDS: readonly string[] = ['wait', 'programEnd', 'end', 'lost']
