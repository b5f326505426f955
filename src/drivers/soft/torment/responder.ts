/*
 * Kinds `ack` and `rnr` of torment (spec/check/torment.ts): choices of a responder. An ACK waits until the bytes that
 * it acknowledges are in memory (partial-writes.ts), and sometimes for a random time. It also acknowledges requests
 * that arrive meanwhile (IBA 9.7.5.1.2). An RNR NAK may request a longer wait than min_rnr_timer.
 *
 * A requester without an ACK retransmits, and fails after a few retries. So an ACK waits at most for a quarter of the
 * queue pair's ACK timeout; the peer's timeout is not known.
 */

import { ackTimeoutMicroseconds, rnrMicroseconds } from '../../../spec/work.ts'
import type { Engine } from '../../../transport/engine/engine.ts'
import type { Choices } from '../../../transport/engine/types.ts'
import type { Decisions } from '../../../transport/phy/faults/torment-decisions.ts'
import type { QpObject, SoftState } from '../state.ts'
import type { PartialWrites } from './partial-writes.ts'

/** Longest wait of an ACK, microseconds. */
const MAX_ACK_WAIT = 10_000
/** A queue pair whose RNR NAKs have added more than this to the peer's waits uses min_rnr_timer. Microseconds. */
const MAX_ADDED_RNR = 3_000_000

/** Number of RNR NAK timer codes; code 0 is the longest time. */
const RNR_CODES = 32

/** Times: clock of `poll`, microseconds. */
interface HeldAck {
  readonly since: number
  readonly until: number
}

interface Responder {
  readonly choices: Choices
  /** Sends due ACKs; true if there were any. */
  poll(now: number): boolean
  nextTimeout(): number
  /** Sends all held ACKs. Called while `isSuspended`. */
  releaseAll(): void
}

/** `device`: name. `isSuspended`: whether nothing may be delayed now. */
export const createResponder = (
  state: SoftState,
  device: string,
  decisions: Decisions,
  writes: PartialWrites,
  isSuspended: () => boolean,
): Responder => {
  const { now } = state
  /** By row of the engine. */
  const held = new Map<number, HeldAck>()
  /** Microseconds that RNR NAKs of a queue pair have added. */
  const added = new WeakMap<QpObject, number>()
  let nextDue = Number.POSITIVE_INFINITY
  const qpnOf = (row: number): number => state.qps[row]?.state.qpn ?? 0

  const maxAckWait = (engine: Engine, row: number): number =>
    Math.min(MAX_ACK_WAIT, Math.floor(ackTimeoutMicroseconds(engine.query(row).timeout) / 4))

  /** The engine calls `holdsAcknowledge` again for these rows, and sends the ACKs that are not held. */
  const release = (rows: readonly number[]): void => {
    for (const row of rows)
      if (state.qps[row] === undefined) held.delete(row)
      else state.engine().resume(row)
  }

  return {
    choices: {
      holdsAcknowledge(row, isNak) {
        const qpn = qpnOf(row)
        const time = now()
        const maxWait = maxAckWait(state.engine(), row)
        const before = held.get(row)
        let until = Math.max(before?.until ?? 0, writes.readyAt(qpn))
        if (before === undefined && !isNak && !isSuspended()) {
          const sequence = decisions.sequence('ack', device, qpn)
          if (sequence.acts()) {
            const wait = Math.min(sequence.wait(), maxWait)
            until = Math.max(until, time + wait)
            decisions.note('ack', device, () => `the ACK of QP 0x${qpn.toString(16)} waits for ${wait} µs`)
          }
        }
        const since = before?.since ?? time
        until = Math.min(until, since + maxWait)
        if (isNak || isSuspended() || until <= time) {
          // Sent now: first the acknowledged bytes.
          writes.memory.completeWrites?.(qpn)
          held.delete(row)
          return false
        }
        held.set(row, { since, until })
        nextDue = Math.min(nextDue, until)
        return true
      },
      rnrTimer(row, code) {
        const qp = state.qps[row]
        if (qp === undefined || isSuspended() || code === 0) return code
        const { qpn } = qp.state
        const sequence = decisions.sequence('rnr', device, qpn)
        const before = added.get(qp) ?? 0
        if (before > MAX_ADDED_RNR || !sequence.acts()) return code
        const longerCode = sequence.below(2) === 0 ? 0 : code + sequence.below(RNR_CODES - code)
        added.set(qp, before + rnrMicroseconds(longerCode) - rnrMicroseconds(code))
        decisions.note(
          'rnr',
          device,
          () => `QP 0x${qpn.toString(16)} asks for an RNR wait of ${rnrMicroseconds(longerCode)} µs`,
        )
        return longerCode
      },
    },
    poll(time) {
      if (time < nextDue) return false
      nextDue = Number.POSITIVE_INFINITY
      const due: number[] = []
      for (const [row, { until }] of held)
        if (until <= time) due.push(row)
        else nextDue = Math.min(nextDue, until)
      release(due)
      return due.length > 0
    },
    nextTimeout: () => nextDue,
    releaseAll: () => {
      nextDue = Number.POSITIVE_INFINITY
      const rows = [...held.keys()]
      held.clear()
      release(rows)
    },
  }
}
