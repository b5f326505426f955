/*
 * Options of identifiers (rdma_set_option).
 */
import { CmOptionLevel, QpType } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import type { Identifier } from './identifier.ts'
import { parsePathOption } from './path-record.ts'
import type { RdmaCm } from './rdma-cm.ts'

/** The local ACK timeout has 5 bits. */
const MAX_TIMEOUT = 31

const RDMA_OPTION_ID_TOS = 0
const RDMA_OPTION_ID_REUSEADDR = 1
const RDMA_OPTION_ID_AFONLY = 2
const RDMA_OPTION_ID_ACK_TIMEOUT = 3
/** Of level IB: sets the route. */
const RDMA_OPTION_IB_PATH = 1

/** Options of level ID. `bytes`: length of the value. */
const idOptions: Readonly<Record<number, { readonly bytes: number; set(id: Identifier, value: number): void }>> = {
  [RDMA_OPTION_ID_TOS]: {
    bytes: 1,
    set(id, value) {
      id.tos = value
    },
  },
  [RDMA_OPTION_ID_REUSEADDR]: {
    bytes: 4,
    set(id, value) {
      if (value === 0 && id.state !== 'IDLE')
        throw callError.EINVAL`${the.method('cm_id.setOption')}: REUSEADDR cannot be cleared in state ${id.state}, only in IDLE`
      if (value !== 0 && id.state === 'LISTEN')
        throw callError.EINVAL`${the.method('cm_id.setOption')}: REUSEADDR cannot be set in state LISTEN`
      id.reuseAddress = value !== 0
    },
  },
  [RDMA_OPTION_ID_AFONLY]: {
    bytes: 4,
    set(id, value) {
      if (id.state !== 'IDLE' && id.state !== 'ADDR_BOUND')
        throw callError.EINVAL`${the.method('cm_id.setOption')}: AFONLY cannot be set in state ${id.state}, only in IDLE and ADDR_BOUND`
      id.onlyIpv6 = value !== 0
    },
  },
  [RDMA_OPTION_ID_ACK_TIMEOUT]: {
    bytes: 1,
    set(id, value) {
      if (id.qpType !== QpType.values.RC && id.qpType !== QpType.values.XRC_INI)
        throw callError.EINVAL`${the.method('cm_id.setOption')}: ACK_TIMEOUT is for queue pairs of type RC and XRC_INI`
      if (value > MAX_TIMEOUT)
        throw callError.EINVAL`${the.method('cm_id.setOption')}: ACK_TIMEOUT ${value} is not in 0 to ${MAX_TIMEOUT}`
      id.ackTimeout = value
    },
  },
}

/** Throws CallError ENOSYS for an unknown option, EINVAL for a wrong value or in a wrong state. */
export const setOption = (cm: RdmaCm, id: Identifier, level: number, option: number, value: Uint8Array): void => {
  if (level === CmOptionLevel.values.IB && option === RDMA_OPTION_IB_PATH) {
    cm.setRoute(id, parsePathOption(value))
    return
  }
  const idOption = level === CmOptionLevel.values.ID ? idOptions[option] : undefined
  if (idOption === undefined)
    throw callError.ENOSYS`${the.method('cm_id.setOption')}: there is no option ${option} of level ${level}`
  if (value.length !== idOption.bytes)
    throw callError.EINVAL`${the.method('cm_id.setOption')}: option ${option} has ${idOption.bytes} bytes, not ${value.length}`
  const view = new DataView(value.buffer, value.byteOffset)
  idOption.set(id, idOption.bytes === 1 ? value[0]! : view.getInt32(0, true))
}
