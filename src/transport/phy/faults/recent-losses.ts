/*
 * The packets that fault rules lost, damaged or delayed lately, by the queue pair that they were for: so that a request
 * without an answer can name the rule. Outlives the rules. Bounded: the latest of the queue pairs that share a slot.
 */
import type { FaultRule } from '../../../faults/rule.ts'

const SLOTS = 1024

interface RecentLosses {
  readonly add: (qpn: number, rule: FaultRule) => void
  /** The rule of the last such packet to this queue pair, if that was not before `time`. */
  readonly since: (qpn: number, time: number) => FaultRule | undefined
}

export const createRecentLosses = (now: () => number): RecentLosses => {
  const qpns = new Int32Array(SLOTS).fill(-1)
  const times = new Float64Array(SLOTS)
  const rules: FaultRule[] = []
  return {
    add(qpn, rule) {
      const slot = qpn % SLOTS
      qpns[slot] = qpn
      times[slot] = now()
      rules[slot] = rule
    },
    since(qpn, time) {
      const slot = qpn % SLOTS
      return qpns[slot] === qpn && times[slot]! >= time ? rules[slot] : undefined
    },
  }
}
