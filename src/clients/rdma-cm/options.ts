/*
 * Options of identifiers: RDMA_OPTION_ID_* and RDMA_OPTION_IB_PATH (rdma_set_option).
 */
import { CmOptionLevel } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import type { Identifier } from './identifier.ts'

/** By level ID: the bytes of the value, and what it does. */
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
      id.reuseAddress = value !== 0
    },
  },
  // AFONLY
  2: {
    bytes: 4,
    set(id, value) {
      if (id.state !== 'IDLE' && id.state !== 'ADDR_BOUND')
        throw new CallError('EINVAL', `cm_id.setOption: AFONLY in state ${id.state}, not IDLE or ADDR_BOUND`)
      id.onlyIpv6 = value !== 0
    },
  },
  // ACK_TIMEOUT
  3: {
    bytes: 1,
    set(id, value) {
      if (value > 31) throw new CallError('EINVAL', `cm_id.setOption: ACK_TIMEOUT ${value} is not in 0 to 31`)
      id.ackTimeout = value
    },
  },
}

/** RDMA_OPTION_IB_PATH: what there is to choose on RoCE is in the addresses already, so the path is taken as given. */
const IB_PATH = 1
/** Bytes of one ib_path_data. */
const PATH_BYTES = 72

const setPath = (id: Identifier, value: Uint8Array): void => {
  if (value.length === 0 || value.length % PATH_BYTES !== 0)
    throw new CallError('EINVAL', `cm_id.setOption: a path has ${PATH_BYTES} bytes, not ${value.length}`)
  if (id.state !== 'ADDR_RESOLVED')
    throw new CallError('EINVAL', `cm_id.setOption: IB_PATH in state ${id.state}, not ADDR_RESOLVED`)
  id.state = 'ROUTE_RESOLVED'
}

/** Throws CallError ENOSYS for an option that does not exist, EINVAL for a value of another size. */
export const setOption = (id: Identifier, level: number, option: number, value: Uint8Array): void => {
  if (level === CmOptionLevel.values.IB && option === IB_PATH) {
    setPath(id, value)
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
