/*
 * A line on the terminal that says how far a long command is, rewritten in place and removed before other output. Only
 * standard error gets it, and only if that is a terminal of a person: not in CI, not for NO_COLOR or TERM=dumb.
 */

export interface Progress {
  /**
   * Begins a part of the work. `describe` returns what is done; `share`: how much of the part, 0 to 1, if that is
   * known. The line appears after DELAY; a part that blocks the event loop shows its first line only.
   */
  show(describe: () => string, share?: () => number): void
  /** Draws the line; not before DELAY, and not outside of a part. */
  refresh(): void
  /** Removes the line until it is drawn again. Before any other output. */
  clear(): void
  /** Removes the line, and ends. `show` may begin again. */
  end(): void
}

/** Milliseconds: work that takes less time needs no line. */
const DELAY = 2000
/** Milliseconds between two lines. */
const INTERVAL = 250
/** Of a terminal that does not say its width. */
const COLUMNS = 80

export type Terminal = Pick<NodeJS.WriteStream, 'isTTY' | 'columns' | 'write'>

const isForPeople = ({ isTTY }: Terminal, { CI, NO_COLOR, TERM }: NodeJS.ProcessEnv): boolean =>
  isTTY && !CI && !NO_COLOR && TERM !== 'dumb'

/** `, about 3 min left`; '' if nothing is known yet. */
const leftText = (milliseconds: number, share: number): string => {
  if (!(share > 0 && share <= 1) || milliseconds < DELAY) return ''
  const seconds = Math.ceil((milliseconds / share - milliseconds) / 1000)
  if (seconds < 60) return `, about ${seconds} s left`
  return seconds < 3600
    ? `, about ${Math.round(seconds / 60)} min left`
    : `, about ${(seconds / 3600).toFixed(1)} h left`
}

/** For output that programs read. */
export const NO_PROGRESS: Progress = { show() {}, refresh() {}, clear() {}, end() {} }

/** `name`: the command, at the start of the line. The other arguments have the defaults of a command. */
export const createProgress = (
  name: string,
  {
    terminal = process.stderr as Terminal,
    env = process.env,
    delay = DELAY,
    now = (): number => performance.now(),
  } = {},
): Progress => {
  if (!isForPeople(terminal, env)) return NO_PROGRESS
  let part: { describe(): string; share(): number; readonly start: number } | undefined
  let start: number | undefined
  let timer: NodeJS.Timeout | undefined
  let isDrawn = false
  const refresh = (): void => {
    if (part === undefined || start === undefined) return
    const time = now()
    if (time - start < delay) return
    const text = `${name}: ${part.describe()}${leftText(time - part.start, part.share())}`
    // In the last column the terminal would begin a new line.
    terminal.write(`\r${text.slice(0, (terminal.columns || COLUMNS) - 1)}\x1b[K`)
    isDrawn = true
  }
  const clear = (): void => {
    if (isDrawn) terminal.write('\r\x1b[K')
    isDrawn = false
  }
  return {
    show(describe, share = () => 0) {
      start ??= now()
      part = { describe, share, start: now() }
      timer ??= setInterval(refresh, INTERVAL).unref()
      refresh()
    },
    refresh,
    clear,
    end() {
      clearInterval(timer)
      timer = undefined
      part = undefined
      start = undefined
      clear()
    },
  }
}
