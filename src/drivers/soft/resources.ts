/*
 * The queues of a soft device, for tools (core/driver-contract.ts).
 */

import type { DeviceQueues, QpResource } from '../../core/driver-contract.ts'
import type { CoreObject } from '../../core/model.ts'
import { QpState } from '../../spec/enums.ts'
import type { CompletionQueue } from './completion-queue.ts'
import { qpsFrom } from './qp-stat.ts'
import { AttributeBits, type QpObject, type SoftState, type SrqObject } from './state.ts'

const ownsRow = (state: SoftState, object: CoreObject): object is QpObject => {
  const row = (object as QpObject).state?.row
  return row !== undefined && state.qps[row] === object
}

const qpResource = (state: SoftState, object: CoreObject): QpResource | undefined => {
  if (!ownsRow(state, object)) return undefined
  const { row, qpn, attributeBits } = object.state
  const { state: qpState, destQpn, rqPsn, sqPsn } = state.engine().query(row)
  return { qpn, port: attributeBits & AttributeBits.PORT ? 1 : 0, state: qpState, destQpn, rqPsn, sqPsn }
}

/** Queue pairs of core clients (core-queues.ts). */
const coreQueueResources = ({ coreQueues }: SoftState): readonly QpResource[] =>
  [...coreQueues.byNumber.values()]
    .filter(({ isInternal }) => !isInternal)
    .map(({ qpn, sqPsn }) => ({
      qpn,
      port: 1,
      state: QpState.values.RTS,
      destQpn: 0,
      rqPsn: 0,
      sqPsn,
    }))

const qpOfNumber = (state: SoftState, qpn: number): QpObject | undefined => {
  const row = state.qpns.rowOf(qpn)
  return row < 0 ? undefined : state.qps[row]
}

const ROWS_PER_STEP = 1024

/**
 * QPNs of the queue pairs that use a shared receive queue. Yields undefined every ROWS_PER_STEP rows, so that the
 * caller can return to the event loop.
 */
function* qpsOfSrq(state: SoftState, srq: CoreObject): Generator<number | undefined> {
  const { queue } = (srq as SrqObject).state
  for (let row = 0; row < state.qps.length; row++) {
    const qp = state.qps[row]?.state
    if (qp?.row === row && qp.receive === queue) yield qp.qpn
    if ((row + 1) % ROWS_PER_STEP === 0) yield undefined
  }
}

/** Number of queue pairs of programs. An XRC target counts once. Yields as `qpsOfSrq`. */
function* qpCount({ qps }: SoftState): Generator<undefined, number> {
  let count = 0
  for (let row = 0; row < qps.length; row++) {
    if (qps[row]?.state.row === row) count++
    if ((row + 1) % ROWS_PER_STEP === 0) yield undefined
  }
  return count
}

export const deviceQueues = (state: SoftState): DeviceQueues => ({
  qpOfNumber: qpn => qpOfNumber(state, qpn),
  qp: object => qpResource(state, object),
  cqEntries: cq => (cq as CoreObject<CompletionQueue>).state.capacity,
  list: (from, max) => qpsFrom(state, from, max),
  count: () => qpCount(state),
  clientQps: () => coreQueueResources(state),
  qpsOfSrq: srq => qpsOfSrq(state, srq),
})
