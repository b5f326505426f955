/*
 * Recorded results of every call of uverbs and rdma_cm on Linux 6.12's rxe (test/fixtures/abi/every-call.txt), and
 * userdma's departures (every-call.here.txt).
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

export interface Departure {
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

const resultHere = new Map(departures.flatMap(({ lines }) => lines))
const lastWord = /\S+$/

/** The expected lines of userdma. */
export const expectedHere = onLinux.map(line => {
  const here = resultHere.get(line)
  return here?.startsWith('  ') ? here : line.replace(lastWord, word => here ?? word)
})
