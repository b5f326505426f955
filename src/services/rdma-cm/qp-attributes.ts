/*
 * The attributes to modify the queue pair of an identifier (rdma_init_qp_attr): without a connection, and of datagrams,
 * always the same; otherwise those of the device's protocol.
 */
import type { QpAttributes } from '../../core/driver-contract.ts'
import { QpState, QpType } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { because, coded, type Reason, the } from '../../spec/reason.ts'
import type { Identifier } from './identifier.ts'

const { RESET, ERR } = QpState.values

const refuse = (reason: Reason | string): never => {
  throw callError.EINVAL`${the.method('cm_id.initQpAttr')}: ${reason}`
}

/**
 * Attributes for a transition to `state`; undefined if the protocol makes it. Throws CallError EINVAL
 * - without a device, and for an invalid state;
 * - for a listener that is not for datagrams;
 * - for a received request that was rejected or withdrawn, and as the protocol.
 */
export const qpAttributesFor = (id: Identifier, state: number): QpAttributes | undefined => {
  const { connection } = id
  if (id.device === undefined) return refuse('no device is known yet: resolve or bind an address')
  if (state > ERR) return refuse(because`${the.attribute('state')}: ${state}; states are ${RESET} to ${ERR}`)
  if (id.qpType === QpType.values.UD) {
    const { qkey, pkeyIndex } = id.device.protocol.datagramKeys?.(id) ?? { qkey: id.qkey, pkeyIndex: 0 }
    return { state, pkeyIndex, port: 1, qkey }
  }
  if (id.isListening) return refuse('the identifier is in state LISTEN')
  if (connection === undefined) return { state, pkeyIndex: 0, port: 1, accessFlags: 0 }
  // After a rejection the active side may connect again.
  if (connection.isIdle && (id.state !== 'ROUTE_RESOLVED' || id.isRequest))
    return refuse(coded('connection-state')`the connection is in state IDLE`)
  const attributes = connection.queuePairAttributes(state)
  return attributes && { state, ...attributes }
}
