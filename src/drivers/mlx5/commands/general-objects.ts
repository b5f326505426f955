/*
 * General objects: reserved numbers of queue pairs (mlx5dv_reserved_qpn_alloc), which no queue pair gets, one an
 * object; and mappings of a path to the congestion control of a queue pair (mlx5dv_map_ah_to_qp). A mapping is a hint
 * to an adapter; here all queue pairs of a device have the same congestion control, so it does nothing.
 */
import type { CoreObject } from '../../../core/model.ts'
import { numberFromId } from '../../../core/objects/lifetime.ts'
import { take } from '../../../core/objects/limits.ts'
import { Commands } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import { avQpMapping, GeneralObject } from '../../../spec/drivers/mlx5-firmware/device.ts'
import { decodeFields } from '../../../uapi/firmware/fields.ts'
import { stateOf } from '../state.ts'
import { creation, type Given, type Made, refuseCommand } from './handler.ts'

const LARGEST_ID = 0xffff_ffff

type Create = typeof Commands.CREATE_GENERAL_OBJECT

const reserveQpn = ({ call, input: { log_obj_range } }: Given<Create>): Made<Create> => {
  if (log_obj_range !== 0) refuseCommand('badValue', `log_obj_range ${log_obj_range}; an object is one number`)
  const { soft, reserved } = stateOf(call)
  const release = take(reserved, call.context.account, 'reserved QPN')
  const qpn = soft.qpns.take()
  const end = (): void => {
    soft.qpns.free(qpn)
    release()
  }
  return { out: { obj_id: qpn }, end }
}

const mapPath = ({ call, input }: Given<Create>, object: CoreObject): Made<Create> => {
  if (input.object.length < avQpMapping.bytes)
    refuseCommand('shortInput', `${input.object.length} bytes after the header; at least ${avQpMapping.bytes}`)
  const { qpn, src_addr_index } = decodeFields(avQpMapping, input.object)
  if (qpn > 0xff_ffff) refuseCommand('badValue', `qpn 0x${qpn.toString(16)}; it has 24 bits`)
  if (call.device.ports[0]!.gids.entries[src_addr_index] === undefined)
    refuseCommand('noSuchIndex', `src_addr_index ${src_addr_index}`)
  return { out: { obj_id: numberFromId(object, LARGEST_ID) } }
}

export const generalObjectCommands = [
  creation(Commands.CREATE_GENERAL_OBJECT, (given, object) => {
    switch (given.input.obj_type) {
      case GeneralObject.RESERVED_QPN:
        return reserveQpn(given)
      case GeneralObject.AV_QP_MAPPING:
        return mapPath(given, object)
      default:
        return refuseCommand('unsupportedObject', `obj_type 0x${given.input.obj_type.toString(16)}`)
    }
  }),
]
