/*
 * The last line of a command whose programs had a clock that skips: how much was skipped, and what kept real time.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { ClockPage, clockPageOf } from '../spec/clock-page.ts'
import { printable } from '../spec/printable.ts'
import { counted } from '../spec/text.ts'

const HEAD = ClockPage.firstReason + ClockPage.maxReasons * ClockPage.reasonBytes

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
  readonly jumps: number
}

/** What was skipped so far; undefined: the clock of the daemon at `socket` does not skip. */
export const skippedAt = (socket: string): Skipped | undefined => {
  const head = headOf(socket)
  return (
    head && {
      nanoseconds: Number(head.readBigInt64LE(ClockPage.offset)),
      jumps: Number(head.readBigUInt64LE(ClockPage.jumps)),
    }
  )
}

/** `real`: seconds. */
export const skippedText = (socket: string, before: Skipped, real: number): string => {
  const after = skippedAt(socket) ?? before
  const head = headOf(socket)
  const reasons = Array.from({ length: head?.readUInt32LE(ClockPage.reasons) ?? 0 }, (_, i) => {
    const at = ClockPage.firstReason + i * ClockPage.reasonBytes
    const text = head!.toString('utf8', at, at + ClockPage.reasonBytes)
    return printable(text.slice(0, text.indexOf('\0')))
  })
  const seconds = (after.nanoseconds - before.nanoseconds) / NANOSECONDS
  const skipped = seconds.toLocaleString('en-US', { maximumFractionDigits: seconds < 100 ? 1 : 0 })
  const notCovered = reasons.length > 0 ? `; not covered: ${reasons.join(', ')}` : ''
  return `${skipped} s skipped in ${counted(after.jumps - before.jumps, 'jump')}, ${real.toFixed(1)} s real${notCovered}`
}
