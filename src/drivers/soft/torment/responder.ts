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
import type { Decisions, HoldEnd } from '../../../transport/phy/faults/torment-decisions.ts'
import type { QpObject, SoftState } from '../state.ts'
import type { TormentedObject } from './objects.ts'
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
  readonly ends: readonly HoldEnd[]
}

/** What was decided about a responder. */
interface Decided {
  /** The last message whose ACK was decided about: an ACK that is sent again does not wait. */
  acked: number
  /** Microseconds that RNR NAKs have added to the peer's waits. */
  added: number
  /** The message that has found no receive request, counted from 0, and how often. */
  msn: number
  count: number
}

interface Responder {
  readonly choices: Choices
  /** Sends due ACKs; true if there were any. */
  poll(now: number): boolean
  nextTimeout(): number
  /** Sends all held ACKs. Called while `isSuspended`. */
  releaseAll(): void
}

/** `isSuspended`: whether nothing may be delayed now. */
export const createResponder = (
  state: SoftState,
  objectAt: (row: number) => TormentedObject,
  decisions: Decisions,
  writes: PartialWrites,
  isSuspended: () => boolean,
): Responder => {
  const { now } = state
  /** By row of the engine. */
  const held = new Map<number, HeldAck>()
  const decided = new WeakMap<QpObject, Decided>()
  let nextDue = Number.POSITIVE_INFINITY
  const decidedOf = (qp: QpObject): Decided => {
    const before = decided.get(qp) ?? { acked: -1, added: 0, msn: 0, count: 0 }
    decided.set(qp, before)
    return before
  }
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
      holdsAcknowledge(row, isNak, msn) {
        const qpn = qpnOf(row)
        const time = now()
        const maxWait = maxAckWait(state.engine(), row)
        const before = held.get(row)
        let until = Math.max(before?.until ?? 0, writes.readyAt(qpn))
        let ends = before?.ends ?? []
        // one that waits is also for the messages that arrive meanwhile, each with a decision of its own
        const qp = state.qps[row]
        if (qp !== undefined && decidedOf(qp).acked !== msn && !isNak && !isSuspended()) {
          decidedOf(qp).acked = msn
          const decision = decisions.decide('ack', objectAt(row).name, 'message', msn)
          const wait = decision === undefined ? 0 : Math.min(decision.wait(), maxWait)
          if (decision !== undefined && time + wait > until) {
            until = time + wait
            decision.note(() => `the ACK of message ${msn} of QP 0x${qpn.toString(16)} waits for ${wait} µs`)
            const end = decision.hold(time, () => {
              const ack = held.get(row)
              nextDue = now()
              if (ack !== undefined) held.set(row, { ...ack, until: nextDue })
            })
            ends = [...ends, end]
          }
        }
        const since = before?.since ?? time
        until = Math.min(until, since + maxWait)
        if (isNak || isSuspended() || until <= time) {
          // Sent now: first the acknowledged bytes.
          writes.memory.completeWrites?.(qpn)
          held.delete(row)
          for (const end of ends) end(time, until > time)
          return false
        }
        held.set(row, { since, until, ends })
        nextDue = Math.min(nextDue, until)
        return true
      },
      rnrTimer(row, code, msn) {
        const qp = state.qps[row]
        if (qp === undefined || isSuspended() || code === 0) return code
        const { qpn } = qp.state
        const naks = decidedOf(qp)
        if (naks.msn !== msn) naks.count = 0
        naks.msn = msn
        naks.count++
        const decision =
          naks.added > MAX_ADDED_RNR
            ? undefined
            : decisions.decide('rnr', objectAt(row).name, `message${msn + 1}.nak`, naks.count)
        if (decision === undefined) return code
        const longerCode = decision.below(2) === 0 ? 0 : code + decision.below(RNR_CODES - code)
        naks.added += rnrMicroseconds(longerCode) - rnrMicroseconds(code)
        decision.note(() => `QP 0x${qpn.toString(16)} asks for an RNR wait of ${rnrMicroseconds(longerCode)} µs`)
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
      for (const { ends } of held.values()) for (const end of ends) end(now(), true)
      held.clear()
      release(rows)
    },
  }
}
