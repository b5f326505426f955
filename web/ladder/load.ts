/*
 * Loads the rows of a connection from a time on: a part at once, more when the user comes to the end. Of a live
 * session, also what is new.
 */
import { useEffect, useRef, useState } from 'preact/hooks'
import type { Connection } from '../../src/tools/record/objects.ts'
import { nextTask } from '../data/next-task.ts'
import type { Store } from '../data/store.ts'
import { beginRows, type Progress, type RowFilter, readRows } from './read-rows.ts'
import type { Row } from './row.ts'

/** Rows that are loaded at once, and kept at most. */
const PART = 5_000
const MAX_ROWS = 40_000
/** Milliseconds between two drawings while rows are read: a filter is asked about the newest rows each time. */
const DRAW_INTERVAL = 100

interface LoadedLadder {
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

/** Adds rows until the limit or the end of the session. Does nothing while it runs. */
const load = async (store: Store, connection: Connection, progress: Progress, onChange: () => void): Promise<void> => {
  if (progress.isRunning) return
  progress.isRunning = true
  let drawn = 0
  const onTurn = async (): Promise<void> => {
    const now = performance.now()
    if (now - drawn >= DRAW_INTERVAL) {
      drawn = now
      onChange()
    }
    await nextTask()
  }
  try {
    await readRows(store.session, connection, progress, onTurn)
  } catch {
    // The server has ended, of which the store tells the user, or the file was overwritten meanwhile.
    progress.hasMore = true
  }
  progress.isRunning = false
  onChange()
}

/**
 * `from`: microseconds; undefined: the start of the session. `version`: of the store. `filter`: searches the session to
 * its end, and keeps the rows that match.
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
    const current = beginRows(connection, from, filter, PART)
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
