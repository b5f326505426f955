/*
 * The report of an earlier walk (`--since`): the lines of its `--json`. What is new or has changed is tried first, and
 * what is found now and was not then is told at the end.
 */
import type { Frame } from '../../spec/check/frames.ts'
import type { Symbols } from '../../tools/check/finding-text.ts'
import { readInputFile } from '../../tools/topology/input-file.ts'
import { UsageError } from '../fail.ts'
import type { WalkResult } from './outcome.ts'
import type { WalkPoint } from './points.ts'
import { framesOf, isFinding, placeOf, pointKey } from './report.ts'

interface Entry {
  readonly kind: string
  readonly text: string
  readonly outcome: string
  readonly isFinding: boolean
  readonly frames: readonly Frame[]
}

const isEntry = (value: unknown): value is Entry => {
  const { kind, text, outcome, isFinding: found, frames } = (value ?? {}) as Partial<Record<keyof Entry, unknown>>
  return (
    typeof kind === 'string' &&
    typeof text === 'string' &&
    typeof outcome === 'string' &&
    typeof found === 'boolean' &&
    Array.isArray(frames)
  )
}

const MAX_BYTES = 2 ** 28

interface Since {
  /** The point was not in the report, its place has changed, or it was a finding. */
  isFirst(point: WalkPoint): boolean
  isNew(result: WalkResult): boolean
  /** How many findings of the report were tried again, and are none now. */
  mended(results: readonly WalkResult[]): number
}

/** Everything is new. */
export const noReport: Since = { isFirst: () => false, isNew: () => true, mended: () => 0 }

const lineOf = (frames: readonly Frame[]): string => {
  const { file = '', line = 0 } = placeOf(frames) ?? {}
  return `${file}:${line}`
}

/** Reads a report. Throws UsageError. */
export const readReport = (file: string, symbols: Symbols): Since => {
  const entries: Entry[] = []
  try {
    for (const line of readInputFile(file, 'report', MAX_BYTES).split('\n').filter(Boolean)) {
      const value: unknown = line.startsWith('{') ? JSON.parse(line) : undefined
      if (!isEntry(value)) throw new Error(`it has a line that is no result of a walk: ${line.slice(0, 60)}`)
      entries.push(value)
    }
  } catch (error) {
    throw new UsageError(
      `--since "${file}": ${(error as Error).message}; give what \`userdma walk --json -o FILE\` has written`,
    )
  }
  const byKey = new Map(entries.map(entry => [pointKey(entry.kind, entry.text, entry.frames), entry]))
  const entryOf = (point: WalkPoint): Entry | undefined =>
    byKey.get(pointKey(point.kind, point.text, framesOf(point, symbols)))
  return {
    isFirst(point) {
      const entry = entryOf(point)
      return entry === undefined || entry.isFinding || lineOf(entry.frames) !== lineOf(framesOf(point, symbols))
    },
    isNew: ({ point, outcome }) => {
      const entry = entryOf(point)
      return entry === undefined || !entry.isFinding || entry.outcome !== outcome
    },
    mended: results => results.filter(result => !isFinding(result) && entryOf(result.point)?.isFinding === true).length,
  }
}
