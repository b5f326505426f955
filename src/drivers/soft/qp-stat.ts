/*
 * Queue pairs of one soft device for `userdma stat --qps`.
 */

import type { DeviceQueues, QpFacts } from '../../core/driver-contract.ts'
import { failureJson } from '../../spec/check/failures.ts'
import { QpState } from '../../spec/enums.ts'
import { addressText } from '../../transport/wire/address.ts'
import type { QpObject, SoftState } from './state.ts'

const stateNames = Object.entries(QpState.values)
const stateName = (state: number): string => stateNames.find(([, value]) => value === state)?.[0] ?? String(state)

const qpFacts = (state: SoftState, { state: qp, class: cls }: QpObject): QpFacts => {
  const { destQpn, sqPsn, rqPsn, retries } = state.engine().query(qp.row)
  const { address } = qp
  const isRoce = state.fabric === undefined
  const sourcePort = qp.flow >= 0 && { sourcePort: state.port.recordOf(qp.flow).sourcePort }
  const lastFailure = state.failures.last(qp.row)
  const { send, receive } = qp
  return {
    qpn: qp.qpn,
    type: cls.name,
    state: stateName(state.engine().stateOf(qp.row)),
    ...(address !== undefined && {
      peer: {
        qpn: qp.targetQpn ?? destQpn,
        address: addressText(address.dgid),
        ...(isRoce && { dscp: address.trafficClass >> 2, hopLimit: address.hopLimit, ...sourcePort }),
      },
    }),
    send: { pending: send.pending(), depth: send.capacity },
    receive: {
      pending: receive.pending(),
      depth: receive.capacity,
      ...(receive.isShared && { shared: true }),
    },
    psn: { next: sqPsn, expected: rqPsn },
    retries,
    ...(lastFailure !== undefined && { lastError: failureJson(lastFailure) }),
  }
}

/** At most `max` queue pairs from row `from` on. `next`: row of the next queue pair; undefined at the end. */
export const qpsFrom = (state: SoftState, from: number, max: number): ReturnType<DeviceQueues['list']> => {
  const qps = []
  for (let row = from; row < state.qps.length; row++) {
    const object = state.qps[row]
    if (object?.state.row !== row) continue
    if (qps.length === max) return { qps, next: row }
    qps.push({ facts: qpFacts(state, object), context: object.context })
  }
  return { qps }
}
