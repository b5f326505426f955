/*
 * Recorded results of every call of uverbs and rdma_cm on Linux 6.12's rxe (test/fixtures/abi/every-call.txt), what
 * Linux 7.3's changes (every-call.7.3.txt), and userdma's departures (every-call.here.txt).
 */
import { readFileSync } from 'node:fs'
import { fixture } from './paths.ts'

/** Programs that make the calls, in the order of the recording. */
export const EVERY_CALL = [
  'every_call',
  'every_region_call',
  'every_queue_call',
  'every_function',
  'every_cm_call',
] as const

const linesOf = (name: string): string[] => readFileSync(fixture('abi', name), 'utf8').trimEnd().split('\n')

/** Lines with the name and result of a call. Indented lines have values that the preceding call returned. */
export const onLinux = linesOf('every-call.txt')

interface Departure {
  readonly reason: string
  /** Lines of Linux, and the last word of userdma's line, or the whole line, which then begins with two spaces. */
  readonly lines: readonly (readonly [linux: string, resultHere: string])[]
}

export const departures: readonly Departure[] = linesOf('every-call.here.txt')
  .join('\n')
  .split(/^## /m)
  .slice(1)
  .map(part => {
    const [reason = '', ...lines] = part.trimEnd().split('\n')
    return { reason, lines: lines.map(line => line.split(' | ') as [string, string]) }
  })

const lastWord = /\S+$/

/**
 * The lines of 6.12 with other results: the last word of a line, or the whole line, which then begins with two spaces.
 */
const withResults = (changes: ReadonlyMap<string, string>): readonly string[] =>
  onLinux.map(line => {
    const changed = changes.get(line)
    return changed?.startsWith('  ') ? changed : line.replace(lastWord, word => changed ?? word)
  })

/** The expected lines of userdma. */
export const expectedHere = withResults(new Map(departures.flatMap(({ lines }) => lines)))

export const onNewestLinux = withResults(
  new Map(linesOf('every-call.7.3.txt').map(line => line.split(' | ') as [string, string])),
)
