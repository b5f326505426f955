/*
 * The soft device's state: tables by which engines, packets and calls find queue pairs and completion queues.
 */
import type { CallContext, CoreObject } from '../../core/model.ts'
import type { Port } from '../../phy/port.ts'
import type { postSend, QpAttributeName, qpMethods } from '../../spec/classes/qp.ts'
import type { In, ObjectClass } from '../../spec/schema.ts'
import type { Engine } from '../../transport/engine.ts'
import type { CqRing } from './cq.ts'
import type { Identity } from './identity.ts'
import type { Slots } from './slots.ts'
import type { QpRings } from './work.ts'

/** What a completion queue object keeps. */
export interface CqState extends CqRing {
  /** The engines' number of it. */
  readonly number: number
}
export type CqObject = CoreObject<CqState>

/** A class of queue pairs with every attribute that any type has. */
export type AnyQp = ObjectClass<
  ReturnType<typeof qpMethods<QpAttributeName>> & { postSend: ReturnType<typeof postSend> }
>
/** Attributes of `modify`, of any type. */
export type QpModify = In<AnyQp['methods']['modify'], CoreObject>

/** What a queue pair object keeps. */
export interface QueuePair {
  readonly row: number
  readonly qpn: number
  readonly rings: QpRings
  readonly signalAll: boolean
  /** Attributes as they were set last; the engine knows state and PSNs. */
  set: QpModify
  /** The port's flow to the peer; -1 without a path. */
  flow: number
}
export type QpObject = CoreObject<QueuePair>

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
  /** Made after the device is registered. A function, since objects with accessors are slow to read. */
  readonly engine: () => Engine
}

/** The device's state, as its class handlers get at it: the handlers are the same for all soft devices. */
export const stateOf = (call: CallContext): RxeState => call.device.state as RxeState

/** QP numbers in use and the engine's row of each. */
export interface QpNumbers {
  take(): number
  bind(qpn: number, row: number): void
  free(qpn: number): void
  /** The row of a QP number, -1 if it is not in use. */
  rowOf(qpn: number): number
  /** Numbers in use. */
  count(): number
}

/** 0 and 1 are the management QPs; rxe's first is 17. */
const FIRST = 17
const LAST = 0xfffffe

/**
 * Numbers are given out in turn, so that one that was freed lately names nobody: late packets of an old connection go
 * nowhere.
 */
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
    count: () => rows.size,
  }
}
