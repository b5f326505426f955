/*
 * Sums over time of one connection: its events are read when somebody looks at it, with the index of the session. Sums
 * of all connections at once would need a megabyte for each.
 */
import { useEffect, useRef, useState } from 'preact/hooks'
import type { SessionEvent } from '../../src/spec/session-events.ts'
import type { Connection } from '../../src/tools/record/objects.ts'
import { BTH_BYTES } from '../../src/transport/wire/bth.ts'
import { senderOf } from '../ladder/connection-packets.ts'
import { choiceOf, keysOf } from './keys.ts'
import { nextTask, TURN } from './next-task.ts'
import type { Store } from './store.ts'
import { Traffic } from './traffic.ts'

/** Whether an event counts in the charts of a connection. */
export const isOf = (connection: Connection, event: SessionEvent): boolean => {
  const { left, right } = connection
  const isOurs = (object: number): boolean => object === left.object.id || object === right?.object.id
  switch (event.kind) {
    case 'packets': {
      const { bytes } = event
      if (bytes.length < BTH_BYTES) return false
      return senderOf(connection, event, (bytes[5]! << 16) | (bytes[6]! << 8) | bytes[7]!) !== undefined
    }
    case 'posted':
      return isOurs(event.request.owner)
    case 'ended':
    case 'queueReset':
      return isOurs(event.owner)
    case 'completed':
      return isOurs(event.qp)
    case 'counters':
      return isOurs(event.object)
    default:
      return false
  }
}

/** The kinds of which `isOf` accepts some. */
const KINDS = new Set(['packets', 'posted', 'ended', 'queueReset', 'completed', 'counters'] as const)

interface Reading {
  readonly traffic: Traffic
  /** Time of the last event, and how many events had this time. */
  time: number
  atTime: number
  isRunning: boolean
  isStopped: boolean
}

const read = async (store: Store, connection: Connection, reading: Reading, onChange: () => void): Promise<void> => {
  const keys = keysOf(connection)
  let toSkip = reading.atTime
  let turn = performance.now()
  const range = { from: reading.time, ...(keys && { keys }) }
  for await (const events of store.session.eventsByBlock(range, { kinds: KINDS, ...choiceOf(connection) })) {
    if (reading.isStopped) return
    for (const event of events) {
      if (event.time !== reading.time) {
        reading.time = event.time
        reading.atTime = 1
      } else if (toSkip > 0) {
        toSkip--
        continue
      } else reading.atTime++
      try {
        if (isOf(connection, event)) reading.traffic.add(event)
      } catch {
        // As in the store: a record of unexpected content.
      }
    }
    if (performance.now() - turn < TURN) continue
    onChange()
    await nextTask()
    turn = performance.now()
  }
}

/** Reads to the end of the session. Does nothing while it runs. */
const readOn = async (store: Store, connection: Connection, reading: Reading, onChange: () => void): Promise<void> => {
  if (reading.isRunning) return
  reading.isRunning = true
  try {
    await read(store, connection, reading, onChange)
  } catch {
    // The server has ended, of which the store tells the user, or the file was overwritten meanwhile.
  }
  reading.isRunning = false
  onChange()
}

interface ConnectionTraffic {
  readonly traffic: Traffic
  /** The part of the session that was read, 0 to 1; undefined: all. */
  readonly share: number | undefined
  /** Changes with the sums. */
  readonly version: number
}

/** The sums of `connection` in the whole session; undefined: without a connection, or not begun. */
export const useConnectionTraffic = (
  store: Store,
  connection: Connection | undefined,
): ConnectionTraffic | undefined => {
  const [tick, setTick] = useState(0)
  const current = useRef<Reading | undefined>(undefined)
  const redraw = (): void => setTick(before => before + 1)
  const { facts, version } = store
  const [left, right] = [connection?.left.object.id, connection?.right?.object.id]

  useEffect(() => {
    if (connection === undefined) return
    const reading = { traffic: new Traffic(facts.start), time: 0, atTime: 0, isRunning: false, isStopped: false }
    current.current = reading
    void readOn(store, connection, reading, redraw)
    return () => {
      reading.isStopped = true
      current.current = undefined
    }
  }, [store, facts, left, right, connection?.rightQpn])

  useEffect(() => {
    if (store.source.about.isLive && connection && current.current)
      void readOn(store, connection, current.current, redraw)
  }, [version])

  const reading = current.current
  if (reading === undefined || connection === undefined) return undefined
  const { start, end } = store.session
  const share = end > start ? Math.min(1, Math.max(0, (reading.time - start) / (end - start))) : 1
  return { traffic: reading.traffic, share: reading.isRunning ? share : undefined, version: tick }
}
