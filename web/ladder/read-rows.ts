/*
 * Reads the rows of a connection from a session, part by part; with a filter, those that match in all of it.
 */
import type { Connection } from '../../src/tools/record/objects.ts'
import type { Session } from '../../src/tools/record/reader.ts'
import { keysOf } from '../data/keys.ts'
import { TURN } from '../data/next-task.ts'
import { wantedOf } from './connection-packets.ts'
import type { Row } from './row.ts'
import { LadderRows } from './rows.ts'

/** Rows that may still change, after which a filter decides: packets turn out to be lost. */
const UNSETTLED = 2_000

export type RowFilter = (row: Row) => boolean

/** What one ladder has read. */
export interface Progress {
  readonly rows: LadderRows
  /** Absent: all rows are kept. */
  readonly filter: RowFilter | undefined
  /** The matching rows before those of `rows`, and how many rows were read for them. */
  readonly matches: Row[]
  settled: number
  /** Time of the last event, and how many events had this time. */
  time: number
  atTime: number
  limit: number
  isRunning: boolean
  isStopped: boolean
  hasMore: boolean
}

/** `from`: microseconds; undefined: the start of the session. `limit`: rows that the first `readRows` keeps. */
export const beginRows = (
  connection: Connection,
  from: number | undefined,
  filter: RowFilter | undefined,
  limit: number,
): Progress => ({
  rows: new LadderRows(connection, from === undefined),
  filter,
  matches: [],
  settled: 0,
  time: from ?? 0,
  atTime: 0,
  limit,
  isRunning: false,
  isStopped: false,
  hasMore: false,
})

/** Keeps the rows that match, of those that do not change any more. */
const settle = (progress: Progress, filter: RowFilter): void => {
  const taken = progress.rows.take(UNSETTLED)
  progress.settled += taken.length
  for (const row of taken) if (filter(row)) progress.matches.push(row)
}

/** Reads until the limit or the end of the session. `onTurn`: called every `TURN` milliseconds. */
export const readRows = async (
  session: Session,
  connection: Connection,
  progress: Progress,
  onTurn: () => Promise<void>,
): Promise<void> => {
  const { rows, filter, matches } = progress
  const keys = keysOf(connection)
  let toSkip = progress.atTime
  let turn = performance.now()
  progress.hasMore = false
  for await (const events of session.eventsByBlock(
    { from: progress.time, ...(keys && { keys }) },
    wantedOf(connection),
  )) {
    if (progress.isStopped) return
    for (const event of events) {
      if (event.time === progress.time) {
        if (toSkip > 0) {
          toSkip--
          continue
        }
        progress.atTime++
      } else {
        progress.time = event.time
        progress.atTime = 1
      }
      try {
        rows.add(event)
      } catch {
        // As in the store: a record of unexpected content.
      }
      if (filter !== undefined && rows.rows.length >= 2 * UNSETTLED) settle(progress, filter)
      const kept = filter === undefined ? rows.rows.length : matches.length
      if (kept >= progress.limit) {
        progress.hasMore = true
        return
      }
    }
    if (performance.now() - turn < TURN) continue
    await onTurn()
    turn = performance.now()
  }
}
