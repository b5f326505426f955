/*
 * The path record of an identifier (IBA 15.2.5.16), which the device's protocol makes or the program sets
 * (RDMA_OPTION_IB_PATH).
 */
import type { CmPathRecord } from '../../spec/classes/connections/cm_parameters.ts'
import { callError } from '../../spec/errno.ts'
import { copyOfBytes } from '../../spec/memory.ts'
import { the } from '../../spec/reason.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import type { Identifier } from './identifier.ts'

/** IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL */
const FLAGS = 0x2b
/** struct ib_path_rec_data: flags, a reserved word, and the record of 64 bytes. */
const RECORD_AT = 8
const OPTION_BYTES = RECORD_AT + 64

/** Empty before the route is resolved, after the device was removed, and if the protocol's paths have no records. */
export const pathRecord = (id: Identifier): RecordOf<typeof CmPathRecord>[] => {
  const hasRoute = id.state === 'ROUTE_RESOLVED' || id.state === 'CONNECT' || id.state === 'DISCONNECT'
  if (!hasRoute) return []
  const record = id.chosenPath ?? id.device?.protocol.pathRecord?.(id, id.connection)
  return record === undefined ? [] : [{ flags: FLAGS, reserved: 0, record }]
}

/** The record of the first path with exactly the flags FLAGS, as in Linux. Throws CallError EINVAL. */
export const parsePathOption = (value: Uint8Array): Uint8Array => {
  if (value.length % OPTION_BYTES !== 0)
    throw callError.EINVAL`${the.method('cm_id.setOption')}: each path has ${OPTION_BYTES} bytes; ${value.length} is not a multiple`
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength)
  for (let at = 0; at < value.length; at += OPTION_BYTES)
    if (view.getUint32(at, true) === FLAGS) return copyOfBytes(value.subarray(at + RECORD_AT, at + OPTION_BYTES))
  throw callError.EINVAL`${the.method('cm_id.setOption')}: no path has the flags 0x${FLAGS.toString(16)} (GMP, primary, bidirectional)`
}
