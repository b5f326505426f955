/*
 * Queue pairs, completion queues and shared receive queues of the soft device as iproute2's `rdma resource` lists them
 * (daemon/netlink/).
 */
import type { CoreObject } from '../../core/model.ts'
import { QpState } from '../../spec/enums.ts'
import type { CqRing } from './rings/completion-ring.ts'
import { AttributeBits, type QpObject, type RxeState, type SrqObject } from './state.ts'

export interface QpResource {
  readonly qpn: number
  /** 0 if the port is not set. */
  readonly port: number
  readonly state: number
  readonly destQpn: number
  readonly rqPsn: number
  readonly sqPsn: number
}

const ownsRow = (state: RxeState, object: CoreObject): object is QpObject => {
  const row = (object as QpObject).state?.row
  return row !== undefined && state.qps[row] === object
}

/** Undefined if the object has opened an XRC target that another object created, or belongs to another device. */
export const qpResource = (state: RxeState, object: CoreObject): QpResource | undefined => {
  if (!ownsRow(state, object)) return undefined
  const { row, qpn, attributeBits } = object.state
  const { state: qpState, destQpn, rqPsn, sqPsn } = state.engine().query(row)
  return { qpn, port: attributeBits & AttributeBits.PORT ? 1 : 0, state: qpState, destQpn, rqPsn, sqPsn }
}

/** Queue pairs of core clients (core-queues.ts). */
export const coreQueueResources = ({ coreQueues }: RxeState): readonly QpResource[] =>
  [...coreQueues.byNumber.values()].map(({ qpn, sqPsn }) => ({
    qpn,
    port: 1,
    state: QpState.values.RTS,
    destQpn: 0,
    rqPsn: 0,
    sqPsn,
  }))

export const qpOfNumber = (state: RxeState, qpn: number): QpObject | undefined => {
  const row = state.qpns.rowOf(qpn)
  return row < 0 ? undefined : state.qps[row]
}

export const cqEntries = (object: CoreObject): number => (object as CoreObject<CqRing>).state.ring.capacity

const ROWS_PER_STEP = 1024

/**
 * QPNs of the queue pairs that use a shared receive queue. Yields undefined every ROWS_PER_STEP rows, so that the
 * caller can return to the event loop.
 */
export function* qpsOfSrq(state: RxeState, srq: CoreObject): Generator<number | undefined> {
  const { queue } = (srq as SrqObject).state
  for (let row = 0; row < state.qps.length; row++) {
    const qp = state.qps[row]?.state
    if (qp !== undefined && qp.receive === queue) yield qp.qpn
    if ((row + 1) % ROWS_PER_STEP === 0) yield undefined
  }
}

/** Number of queue pairs of programs. An XRC target counts once. Yields as `qpsOfSrq`. */
export function* qpCount({ qps }: RxeState): Generator<undefined, number> {
  let count = 0
  for (let row = 0; row < qps.length; row++) {
    if (qps[row] !== undefined) count++
    if ((row + 1) % ROWS_PER_STEP === 0) yield undefined
  }
  return count
}

/** The completion queue of an XRC shared receive queue; undefined for a basic one. */
export const cqOfSrq = ({ parents }: CoreObject): CoreObject | undefined =>
  parents.find(({ class: { name } }) => name === 'cq')
