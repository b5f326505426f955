/*
 * Loads the rows of a connection from a time on: a part at once, more when the user comes to the end. Of a live session,
 * also what is new.
 */
import { useEffect, useRef, useState } from 'preact/hooks'
import type { Connection } from '../../src/record/objects.ts'
import type { EventRange } from '../../src/record/reader.ts'
import { keysOf } from '../data/connection-traffic.ts'
import type { Store } from '../data/store.ts'
import { LadderRows, type Row } from './rows.ts'

/** Rows that are loaded at once, and kept at most. */
const PART = 5_000
const MAX_ROWS = 40_000
/** Rows that may still change, after which a filter decides: packets turn out to be lost. */
const UNSETTLED = 2_000
/** Milliseconds of work before the browser draws again. */
const SLICE = 12

export interface LoadedLadder {
  /** With a filter, those that match. */
  readonly rows: readonly Row[]
  /** Rows that were read, also those that the filter has left out. */
  readonly readRows: number
  /** The part of the session that was read, 0 to 1. */
  readonly share: number
  readonly isLoading: boolean
  /** Whether the session has more events after the last row. */
  readonly hasMore: boolean
  /** Whether the limit of rows was reached. */
  readonly isFull: boolean
  loadMore(): void
}

export type RowFilter = (row: Row) => boolean

/** What one ladder has read. */
interface Progress {
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

/** Keeps the rows that match, of those that do not change any more. */
const settle = (progress: Progress, filter: RowFilter): void => {
  const taken = progress.rows.take(UNSETTLED)
  progress.settled += taken.length
  for (const row of taken) if (filter(row)) progress.matches.push(row)
}

const readRows = async (
  store: Store,
  connection: Connection,
  progress: Progress,
  onChange: () => void,
): Promise<void> => {
  const keys = keysOf(connection)
  const range: EventRange = { from: progress.time, ...(keys && { keys }) }
  let toSkip = progress.atTime
  let sliceEnd = performance.now() + SLICE
  progress.hasMore = false
  for await (const event of store.session.eventsIn(range)) {
    if (progress.isStopped) return
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
      progress.rows.add(event)
    } catch {
      // As in the store: a record of unexpected content.
    }
    if (progress.filter !== undefined && progress.rows.rows.length >= 2 * UNSETTLED) settle(progress, progress.filter)
    const kept = progress.filter === undefined ? progress.rows.rows.length : progress.matches.length
    if (kept >= progress.limit) {
      progress.hasMore = true
      break
    }
    if (performance.now() > sliceEnd) {
      onChange()
      await new Promise(resolve => setTimeout(resolve, 0))
      sliceEnd = performance.now() + SLICE
    }
  }
}

/** Adds rows until the limit or the end of the session. Does nothing while it runs. */
const load = async (store: Store, connection: Connection, progress: Progress, onChange: () => void): Promise<void> => {
  if (progress.isRunning) return
  progress.isRunning = true
  try {
    await readRows(store, connection, progress, onChange)
  } catch {
    // The server has ended, of which the store tells the user, or the file was overwritten meanwhile.
    progress.hasMore = true
  }
  progress.isRunning = false
  onChange()
}

/**
 * `from`: microseconds; undefined: the start of the session. `version`: of the store. `filter`: searches the session to its
 * end, and keeps the rows that match.
 */
export const useLadder = (
  store: Store,
  connection: Connection | undefined,
  from: number | undefined,
  version: number,
  filter: RowFilter | undefined,
): LoadedLadder => {
  const [, setTick] = useState(0)
  const progress = useRef<Progress | undefined>(undefined)
  const redraw = (): void => setTick(tick => tick + 1)
  const left = connection?.left.object.id
  const rightQpn = connection?.rightQpn
  const session = store.facts

  useEffect(() => {
    if (connection === undefined) return
    const current: Progress = {
      rows: new LadderRows(connection, from === undefined),
      filter,
      matches: [],
      settled: 0,
      time: from ?? 0,
      atTime: 0,
      limit: PART,
      isRunning: false,
      isStopped: false,
      hasMore: false,
    }
    progress.current = current
    void load(store, connection, current, redraw)
    return () => {
      current.isStopped = true
    }
  }, [store, session, left, rightQpn, from, filter])

  useEffect(() => {
    const current = progress.current
    if (store.source.about.isLive && connection && current && !current.hasMore)
      void load(store, connection, current, redraw)
  }, [version])

  const { rows, isRunning = false, hasMore = false, matches = [], settled = 0, time = 0 } = progress.current ?? {}
  const newest = rows?.rows ?? []
  const list = filter === undefined ? newest : [...matches, ...newest.filter(filter)]
  const { start, end } = store.session
  return {
    rows: list,
    readRows: settled + newest.length,
    share: end > start ? Math.min(1, Math.max(0, (time - start) / (end - start))) : 1,
    isLoading: isRunning,
    hasMore,
    isFull: list.length >= MAX_ROWS,
    loadMore() {
      const current = progress.current
      if (!connection || !current?.hasMore || current.isRunning || list.length >= MAX_ROWS) return
      current.limit += PART
      void load(store, connection, current, redraw)
    },
  }
}
