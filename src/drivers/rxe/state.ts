/*
 * The soft device's state: tables by which engines, packets and calls find queue pairs and completion queues.
 */
import type { Port } from '../../phy/port.ts'
import type { RcEngine } from '../../transport/rc.ts'
import type { CqObject } from './cq-class.ts'
import type { Identity } from './identity.ts'
import type { QpObject } from './rc-qp-class.ts'
import type { Slots } from './slots.ts'
import type { QpRings } from './work.ts'

export interface RxeState {
  readonly identity: Identity
  readonly port: Port
  readonly cqs: Slots<CqObject>
  readonly qpns: QpNumbers
  /** By row of the engine; undefined for a free row. */
  readonly qps: (QpObject | undefined)[]
  /** The same rows, for the engine's work source. */
  readonly rings: (QpRings | undefined)[]
  /** By row: the queues are looked at by the next `poll`, whatever their indices say. */
  readonly look: (row: number) => void
  /** Microseconds, of the clock that `poll` is called with. */
  readonly now: () => number
  readonly engine: RcEngine
}

/** QP numbers in use and the engine's row of each. */
export interface QpNumbers {
  take(): number
  bind(qpn: number, row: number): void
  free(qpn: number): void
  /** The row of a QP number, -1 if it is not in use. */
  rowOf(qpn: number): number
}

/** 0 and 1 are the management QPs; rxe's first is 17. */
const FIRST = 17
const LAST = 0xfffffe

/** Numbers are given out in turn, so that one that was freed lately names nobody: late packets of an old connection go nowhere. */
export const createQpNumbers = (): QpNumbers => {
  const rows = new Map<number, number>()
  let next = FIRST
  return {
    take() {
      while (rows.has(next)) next = next === LAST ? FIRST : next + 1
      const qpn = next
      rows.set(qpn, -1)
      next = next === LAST ? FIRST : next + 1
      return qpn
    },
    bind(qpn, row) {
      rows.set(qpn, row)
    },
    free(qpn) {
      rows.delete(qpn)
    },
    rowOf: qpn => rows.get(qpn) ?? -1,
  }
}
