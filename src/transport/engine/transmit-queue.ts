/*
 * The transmit queue: rows (queue pairs) that may have something to send. Each owner, a user of the device, has a queue
 * of its own. The owner that was served least recently is served next, with one row, so that an owner's many rows and
 * long messages delay those of others by one row at most. If there are several owners, the search for posts and the
 * sending of a poll each end after TURN (docs/decisions/others-wait.md).
 */
import { QP } from './fields.ts'
import type { Environment } from './types.ts'

/** Microseconds of a poll after which others come first, if queue pairs have several owners. */
export const TURN = 100

interface Owner {
  /** `QpInit.owner`. */
  readonly number: number
  /** Number of its queue pairs. */
  rows: number
  /** The first and the last row of its queue; -1: the queue is empty. */
  head: number
  tail: number
  /** Counts services of all owners: when it was served last. */
  servedAt: number
  /** While its queue is not empty: the owner to serve after it. */
  next: Owner | undefined
}

export interface TransmitQueue {
  /** Owners of queue pairs, by number. */
  readonly owners: Map<number, Owner>
  /** By row. */
  readonly ownerOf: Owner[]
  /** Owners whose queues are not empty, by `servedAt`. */
  first: Owner | undefined
  services: number
  /** By row, the next row of its owner's queue; -1: end. */
  nextRow: Int32Array
  /** When the turn ends, on the clock of `Environment.now`; infinite: there is one owner. */
  turnEnd: number
}

/** What this file needs of the engine's state (state.ts). */
interface Queues {
  readonly env: Environment
  readonly rows: Int32Array
  readonly transmit: TransmitQueue
}

export const createTransmitQueue = (rows: number): TransmitQueue => ({
  owners: new Map(),
  ownerOf: [],
  first: undefined,
  services: 0,
  nextRow: new Int32Array(rows),
  turnEnd: Number.POSITIVE_INFINITY,
})

export const growTransmitQueue = (queue: TransmitQueue, rows: number): void => {
  const nextRow = new Int32Array(rows)
  nextRow.set(queue.nextRow)
  queue.nextRow = nextRow
}

/** A queue pair was created in the row. */
export const setOwner = ({ transmit }: Queues, row: number, number: number): void => {
  const { owners } = transmit
  const owner = owners.get(number) ?? { number, rows: 0, head: -1, tail: -1, servedAt: 0, next: undefined }
  owners.set(number, owner)
  owner.rows++
  transmit.ownerOf[row] = owner
}

/** The row's queue pair was destroyed. Its row may still be queued. */
export const leaveOwner = ({ transmit }: Queues, row: number): void => {
  const owner = transmit.ownerOf[row]!
  if (--owner.rows === 0) transmit.owners.delete(owner.number)
}

/** The search for posts begins, or sending. */
export const beginTurn = ({ env, transmit }: Queues): void => {
  if (transmit.owners.size > 1 && env.now !== undefined) transmit.turnEnd = env.now() + TURN
  else transmit.turnEnd = Number.POSITIVE_INFINITY
}

/** Whether the turn has taken so long that others come first. */
export const isTurnOver = ({ env, transmit }: Queues): boolean =>
  transmit.turnEnd !== Number.POSITIVE_INFINITY && env.now!() >= transmit.turnEnd

/** Adds an owner whose queue was empty. */
const enqueueOwner = (transmit: TransmitQueue, owner: Owner): void => {
  let before: Owner | undefined
  let after = transmit.first
  while (after !== undefined && after.servedAt <= owner.servedAt) {
    before = after
    after = after.next
  }
  owner.next = after
  if (before === undefined) transmit.first = owner
  else before.next = owner
}

/** Whether no row is queued. */
export const isTransmitQueueEmpty = ({ transmit }: Queues): boolean => transmit.first === undefined

/** Appends a row to its owner's queue, unless the row is already queued. */
export const schedule = (s: Queues, row: number): void => {
  const { transmit, rows } = s
  const base = row * QP.WORDS
  if (rows[base + QP.SCHEDULED] !== 0) return
  rows[base + QP.SCHEDULED] = 1
  const owner = transmit.ownerOf[row]!
  transmit.nextRow[row] = -1
  if (owner.tail < 0) {
    owner.head = row
    enqueueOwner(transmit, owner)
  } else transmit.nextRow[owner.tail] = row
  owner.tail = row
}

/** Removes and returns the first row of the next owner; -1 if no row is queued. */
export const dequeueScheduled = (s: Queues): number => {
  const { transmit } = s
  const owner = transmit.first
  if (owner === undefined) return -1
  const row = owner.head
  owner.head = transmit.nextRow[row]!
  owner.servedAt = ++transmit.services
  if (owner.head < 0) {
    owner.tail = -1
    transmit.first = owner.next
  } else if (owner.next !== undefined) {
    transmit.first = owner.next
    enqueueOwner(transmit, owner)
  }
  s.rows[row * QP.WORDS + QP.SCHEDULED] = 0
  return row
}

/** Puts a row that found the port full at the front of its owner's queue, unless the row is already queued. */
export const scheduleFirst = (s: Queues, row: number): void => {
  const { transmit, rows } = s
  const base = row * QP.WORDS
  if (rows[base + QP.SCHEDULED] !== 0) return
  rows[base + QP.SCHEDULED] = 1
  const owner = transmit.ownerOf[row]!
  transmit.nextRow[row] = owner.head
  owner.head = row
  if (owner.tail < 0) {
    owner.tail = row
    enqueueOwner(transmit, owner)
  }
}
