/*
 * The clock that skips, for commands: the last line, which says how much was skipped, and what kept real time; and
 * deadlocks.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { counted } from '../base/text.ts'
import { ClockPage, clockPageOf } from '../spec/clock-page.ts'
import { printable } from '../spec/printable.ts'

const HEAD = ClockPage.firstKept + ClockPage.maxReasons * ClockPage.keptBytes

/** The head of the page; undefined: the clock of this daemon does not skip. */
const headOf = (socket: string): Buffer | undefined => {
  try {
    const fd = openSync(clockPageOf(socket), 'r')
    try {
      const head = Buffer.alloc(HEAD)
      return readSync(fd, head, 0, HEAD, 0) === HEAD ? head : undefined
    } finally {
      closeSync(fd)
    }
  } catch {
    return undefined
  }
}

const NANOSECONDS = 1e9

/** `before`: nanoseconds and jumps when the program began. */
interface Skipped {
  readonly nanoseconds: number
  /** Of these by jumps. */
  readonly jumped: number
  readonly jumps: number
}

/** What was skipped so far; undefined: the clock of the daemon at `socket` does not skip. */
const skippedAt = (socket: string): Skipped | undefined => {
  const head = headOf(socket)
  return (
    head && {
      nanoseconds: Number(head.readBigInt64LE(ClockPage.offset)),
      jumped: Number(head.readBigInt64LE(ClockPage.jumped)),
      jumps: Number(head.readBigUInt64LE(ClockPage.jumps)),
    }
  )
}

/** Nanoseconds: less is not told. */
const LEAST_SPUN = 50e6

const secondsText = (nanoseconds: number): string => {
  const seconds = nanoseconds / NANOSECONDS
  return seconds.toLocaleString('en-US', { maximumFractionDigits: seconds < 100 ? 1 : 0 })
}

/** `real`: seconds. */
const skippedText = (socket: string, before: Skipped, real: number): string => {
  const after = skippedAt(socket) ?? before
  const head = headOf(socket)
  const reasons = Array.from({ length: head?.readUInt32LE(ClockPage.reasons) ?? 0 }, (_, i) => {
    const at = ClockPage.firstReason + i * ClockPage.reasonBytes
    const text = head!.toString('utf8', at, at + ClockPage.reasonBytes)
    return printable(text.slice(0, text.indexOf('\0')))
  })
  const nanoseconds = after.nanoseconds - before.nanoseconds
  const spun = nanoseconds - (after.jumped - before.jumped)
  const bySpinning = spun < LEAST_SPUN ? '' : `, ${secondsText(spun)} s of it by spinning`
  const notCovered = reasons.length > 0 ? `; not covered: ${reasons.join(', ')}` : ''
  return `${secondsText(nanoseconds)} s skipped in ${counted(after.jumps - before.jumps, 'jump')}${bySpinning}, ${real.toFixed(1)} s real${notCovered}`
}

/** What kept real time at the daemon's `socket` so far, and how long, one a line, the longest first. */
const keptText = (socket: string): string => {
  const head = headOf(socket)
  if (head === undefined) return ''
  const all = Array.from({ length: ClockPage.maxReasons }, (_, i) => {
    const at = ClockPage.firstKept + i * ClockPage.keptBytes
    const text = head.toString('utf8', at + 8, at + ClockPage.keptBytes)
    return { nanoseconds: Number(head.readBigInt64LE(at)), text: printable(text.slice(0, text.indexOf('\0'))) }
  }).filter(({ nanoseconds }) => nanoseconds > 0)
  return all
    .sort((a, b) => b.nanoseconds - a.nanoseconds)
    .map(({ nanoseconds, text }) => `  real time for ${(nanoseconds / NANOSECONDS).toFixed(3)} s: ${text}\n`)
    .join('')
}

/** From now on programs of the daemon at `socket` tell which of their files read the processor's counter. */
const askForCounters = (socket: string): void => {
  const fd = openSync(clockPageOf(socket), 'r+')
  try {
    writeSync(fd, Buffer.of(1), 0, 1, ClockPage.tellsCounters)
  } finally {
    closeSync(fd)
  }
}

/**
 * Begins to count what is skipped at the daemon's `socket`. The returned function prints how much that was, and if
 * `isVerbose` what has kept real time and who reads the processor's counter; nothing if the clock does not skip.
 */
export const countSkipped = (socket: string, isVerbose: boolean): (() => void) => {
  const before = skippedAt(socket)
  const begin = performance.now()
  if (isVerbose && before !== undefined) askForCounters(socket)
  return () => {
    if (before === undefined) return
    const text = skippedText(socket, before, (performance.now() - begin) / 1000)
    process.stderr.write(`userdma: ${text}\n${isVerbose ? keptText(socket) : ''}`)
  }
}

/** Exit status after a deadlock. */
export const DEADLOCK_STATUS = 66

/** The first line of the report of a deadlock. */
export const DEADLOCK_HEAD = 'deadlock: all threads wait, and no time limit is left'

/** Milliseconds between looks. */
const LOOK_INTERVAL = 100

/**
 * Calls `found` once all programs of the daemon at `socket` have waited for each other for `milliseconds`, and no
 * deadline is left. `world`: also if they wait for what comes from outside of the session. No effect if its clock does
 * not skip. Returns a function that ends it.
 */
export const watchDeadlock = (
  socket: string,
  { milliseconds, world }: { readonly milliseconds: number; readonly world: boolean },
  found: () => void,
): (() => void) => {
  const least = world ? ClockPage.world : ClockPage.nothing
  let since: number | undefined
  return watch(socket, head => {
    since = head.readUInt32LE(ClockPage.stuck) >= least ? (since ?? performance.now()) : undefined
    if (since === undefined || performance.now() - since < milliseconds) return false
    found()
    return true
  })
}

/** Looks at the page until `isOver`. Nothing if the clock of the daemon at `socket` does not skip. */
const watch = (socket: string, isOver: (head: Buffer) => boolean, interval = LOOK_INTERVAL): (() => void) => {
  if (headOf(socket) === undefined) return () => {}
  const timer = setInterval(() => {
    const head = headOf(socket)
    if (head !== undefined && isOver(head)) clearInterval(timer)
  }, interval)
  return () => clearInterval(timer)
}

/**
 * Calls `found` once programs have run or spun for `seconds`, by the clock, without the jumps over what they wait for.
 * `now`: the machine's milliseconds. `interval`: milliseconds between looks.
 */
export const watchSpinning = (
  socket: string,
  seconds: number,
  found: () => void,
  { now = () => performance.now(), interval = LOOK_INTERVAL }: { now?: () => number; interval?: number } = {},
): (() => void) => {
  const spent = (): number => {
    const { nanoseconds, jumped } = skippedAt(socket) ?? { nanoseconds: 0, jumped: 0 }
    return (nanoseconds - jumped) / NANOSECONDS + now() / 1000
  }
  const begin = spent()
  const isOver = (): boolean => {
    if (spent() - begin < seconds) return false
    found()
    return true
  }
  return watch(socket, isOver, interval)
}

/** As `watchDeadlock` with `world`, and as `watchSpinning`. */
export const watchHang = (
  socket: string,
  { milliseconds, seconds }: { readonly milliseconds: number; readonly seconds: number },
  found: (isDeadlock: boolean) => void,
): (() => void) => {
  const ends = [
    watchDeadlock(socket, { milliseconds, world: true }, () => found(true)),
    watchSpinning(socket, seconds, () => found(false)),
  ]
  return () => {
    for (const end of ends) end()
  }
}
