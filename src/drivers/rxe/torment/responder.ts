/*
 * Kinds `ack` and `rnr` of torment (spec/check/torment.ts): choices that the specification leaves to a responder. An
 * ACK waits until the bytes that it acknowledges are in memory (pieces.ts), or for a random time, in which later
 * requests arrive that it also acknowledges (IBA 9.7.5.1.2). An RNR NAK requests a longer wait than min_rnr_timer.
 *
 * A requester repeats requests that are not acknowledged in time, and fails after a few retries. So an ACK waits at
 * most for a quarter of the ACK timeout of its own queue pair; the peer's timeout is not known here.
 */
import { rnrMicroseconds } from '../../../spec/work.ts'
import type { Engine } from '../../../transport/engine.ts'
import type { Choices } from '../../../transport/types.ts'
import type { RxeState } from '../state.ts'
import type { Decisions } from './decisions.ts'
import type { Pieces } from './pieces.ts'

/** Longest wait of an ACK, microseconds. */
const LONGEST_ACK = 10_000
/**
 * The time that all RNR NAKs of a queue pair together add to its peer's waits before no more is added, microseconds.
 */
const LONGEST_RNR = 3_000_000

/** RNR NAK timer codes; code 0 is the longest. */
const RNR_CODES = 32

/** Times by the clock of `poll`, microseconds. */
interface HeldAck {
  readonly since: number
  readonly until: number
}

export interface Responder {
  readonly choices: Choices
  /** Sends the ACKs that are due; true if there were any. */
  poll(now: number): boolean
  nextTimeout(): number
  /** Sends all held ACKs. */
  releaseAll(): void
}

export const createResponder = (
  state: RxeState,
  device: string,
  decisions: Decisions,
  pieces: Pieces,
  isSuspended: () => boolean,
): Responder => {
  const { now } = state
  /** By row. */
  const held = new Map<number, HeldAck>()
  /** By QPN: microseconds that RNR NAKs have added. */
  const added = new Map<number, number>()
  let next = Number.POSITIVE_INFINITY
  const qpnOf = (row: number): number => state.qps[row]?.state.qpn ?? 0

  const longestFor = (engine: Engine, row: number): number => {
    const { timeout } = engine.query(row)
    return timeout === 0 ? LONGEST_ACK : Math.min(LONGEST_ACK, (4.096 * 2 ** timeout) / 4)
  }

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
        const before = held.get(row)
        let until = Math.max(before?.until ?? 0, pieces.readyAt(qpn))
        if (before === undefined && !isNak && !isSuspended()) {
          const sequence = decisions.sequence('ack', device, qpn)
          if (sequence.acts()) {
            const wait = sequence.wait()
            until = Math.max(until, time + wait)
            decisions.note('ack', device, () => `the ACK of QP 0x${qpn.toString(16)} waits for ${wait} µs`)
          }
        }
        const since = before?.since ?? time
        until = Math.min(until, since + longestFor(state.engine(), row))
        if (isNak || isSuspended() || until <= time) {
          pieces.memory.completeWrites?.(qpn)
          held.delete(row)
          return false
        }
        held.set(row, { since, until })
        next = Math.min(next, until)
        return true
      },
      rnrTimer(row, code) {
        const qpn = qpnOf(row)
        const sequence = decisions.sequence('rnr', device, qpn)
        const before = added.get(qpn) ?? 0
        if (isSuspended() || code === 0 || before > LONGEST_RNR || !sequence.acts()) return code
        const longer = sequence.below(2) === 0 ? 0 : code + sequence.below(RNR_CODES - code)
        added.set(qpn, before + rnrMicroseconds(longer) - rnrMicroseconds(code))
        decisions.note(
          'rnr',
          device,
          () => `QP 0x${qpn.toString(16)} asks for an RNR wait of ${rnrMicroseconds(longer)} µs`,
        )
        return longer
      },
    },
    poll(time) {
      if (time < next) return false
      next = Number.POSITIVE_INFINITY
      const due: number[] = []
      for (const [row, { until }] of held)
        if (until <= time) due.push(row)
        else next = Math.min(next, until)
      release(due)
      return due.length > 0
    },
    nextTimeout: () => next,
    releaseAll: () => {
      next = Number.POSITIVE_INFINITY
      const rows = [...held.keys()]
      held.clear()
      release(rows)
    },
  }
}
