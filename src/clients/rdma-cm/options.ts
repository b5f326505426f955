/*
 * Options of identifiers: RDMA_OPTION_ID_* and RDMA_OPTION_IB_PATH (rdma_set_option).
 */
import { CmOptionLevel, QpType } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import type { Identifier } from './identifier.ts'
import { parsePathOption } from './path-record.ts'
import type { RdmaCm } from './rdma-cm.ts'

/** By option of level ID: length of the value in bytes, and effect. */
const idOptions: Readonly<Record<number, { readonly bytes: number; set(id: Identifier, value: number): void }>> = {
  // TOS
  0: {
    bytes: 1,
    set(id, value) {
      id.trafficClass = value
    },
  },
  // REUSEADDR
  1: {
    bytes: 4,
    set(id, value) {
      if (value === 0 && id.state !== 'IDLE')
        throw new CallError('EINVAL', `cm_id.setOption: REUSEADDR cannot be cleared in state ${id.state}, only in IDLE`)
      if (value !== 0 && id.state === 'LISTEN')
        throw new CallError('EINVAL', 'cm_id.setOption: REUSEADDR cannot be set in state LISTEN')
      id.reuseAddress = value !== 0
    },
  },
  // AFONLY
  2: {
    bytes: 4,
    set(id, value) {
      if (id.state !== 'IDLE' && id.state !== 'ADDR_BOUND')
        throw new CallError(
          'EINVAL',
          `cm_id.setOption: AFONLY cannot be set in state ${id.state}, only in IDLE and ADDR_BOUND`,
        )
      id.onlyIpv6 = value !== 0
    },
  },
  // ACK_TIMEOUT
  3: {
    bytes: 1,
    set(id, value) {
      if (id.qpType !== QpType.values.RC && id.qpType !== QpType.values.XRC_INI)
        throw new CallError('EINVAL', 'cm_id.setOption: ACK_TIMEOUT is for queue pairs of type RC and XRC_INI')
      if (value > 31) throw new CallError('EINVAL', `cm_id.setOption: ACK_TIMEOUT ${value} is not in 0 to 31`)
      id.ackTimeout = value
    },
  },
}

/** RDMA_OPTION_IB_PATH: the route, instead of a resolved one. */
const IB_PATH = 1

/** Throws CallError ENOSYS for an unknown option, EINVAL for a value of the wrong size. */
export const setOption = (cm: RdmaCm, id: Identifier, level: number, option: number, value: Uint8Array): void => {
  if (level === CmOptionLevel.values.IB && option === IB_PATH) {
    cm.setRoute(id, parsePathOption(value))
    return
  }
  const found = level === CmOptionLevel.values.ID ? idOptions[option] : undefined
  if (found === undefined)
    throw new CallError('ENOSYS', `cm_id.setOption: there is no option ${option} of level ${level}`)
  if (value.length !== found.bytes)
    throw new CallError('EINVAL', `cm_id.setOption: option ${option} has ${found.bytes} bytes, not ${value.length}`)
  const view = new DataView(value.buffer, value.byteOffset)
  found.set(id, found.bytes === 1 ? value[0]! : view.getInt32(0, true))
}
