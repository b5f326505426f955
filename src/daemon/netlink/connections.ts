/*
 * Lists the identifiers of rdma_cm for RDMA_NLDEV (Linux: fill_res_cm_id_entry), each with the device to which it is
 * bound. Identifiers of rdma_cm files are objects of the system device, others are objects of the device itself. A
 * listener of the system device that is bound to a wildcard listens on every device, and is listed for all.
 */

import { systemDevice } from '../../core/devices/system.ts'
import type { CoreObject } from '../../core/model.ts'
import { objectsOf } from '../../core/resources.ts'
import type { Identifier } from '../../services/rdma-cm/identifier.ts'
import { anyAddress, emitAddress } from '../../services/socket-address.ts'
import { CmId } from '../../spec/classes/connections/cm_id.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { CmIdState, type NldevAttributeName } from '../../spec/linux/nldev.ts'
import type { Entry } from '../../uapi/nldev/attributes.ts'
import type { DaemonDevice } from '../devices/devices.ts'
import type { Managed } from './answers.ts'

const CLASSES: ReadonlySet<string> = new Set([CmId.name])

const identifierOf = (object: CoreObject): Identifier => (object as CoreObject<Identifier>).state

const belongsTo = ({ device, isListening }: Identifier, found: DaemonDevice): boolean =>
  device === undefined ? isListening : device.device === found.device

/** The identifiers of a device; undefined between steps. */
export function* cmIdsOf({ core }: Managed, found: DaemonDevice): Generator<CoreObject | undefined> {
  for (const device of [systemDevice(core), found.device])
    for (const object of objectsOf(device, CLASSES))
      if (object === undefined || belongsTo(identifierOf(object), found)) yield object
}

const addressEntries = (name: NldevAttributeName, value: SocketAddress | undefined): readonly Entry[] =>
  value === undefined ? [] : [[name, emitAddress(value)]]

/** As in Linux: undefined without a device, the zero address without a destination. */
const destinationOf = ({ destination, source, device }: Identifier): SocketAddress | undefined =>
  device && (destination ?? (source && anyAddress(source.family)))

/** Without the number and owner. */
export const describeCmId = (object: CoreObject): readonly Entry[] => {
  const id = identifierOf(object)
  const qpn = id.connection === undefined ? 0 : id.qpn
  return [
    ...(id.device === undefined ? [] : ([['PORT_INDEX', 1]] as const)),
    ...(qpn === 0
      ? []
      : ([
          ['RES_LQPN', qpn],
          ['RES_TYPE', id.qpType],
        ] as const)),
    ['RES_PS', id.portSpace],
    ['RES_STATE', CmIdState[id.state]],
    ...addressEntries('RES_SRC_ADDR', id.source),
    ...addressEntries('RES_DST_ADDR', destinationOf(id)),
  ]
}
