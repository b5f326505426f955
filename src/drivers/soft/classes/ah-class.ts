/*
 * Class `ah` of the soft device: address handles (R19), and `pd`, whose method `createAhs` creates address handles. An
 * address handle is a flow of the port and a number, which rxe's user library writes into work requests. Numbers are
 * allocated cyclically, so that a work request with the number of a destroyed handle finds no other handle.
 */
import { driverClass, withoutOptions } from '../../../core/devices/driver.ts'
import { holdGid, releaseGid } from '../../../core/devices/gids.ts'
import type { CallContext } from '../../../core/model.ts'
import { Ah } from '../../../spec/classes/ah.ts'
import { Pd } from '../../../spec/classes/pd.ts'
import { RxeAttributes } from '../../../spec/drivers/rxe.ts'
import type { AddressHandle } from '../address/destinations.ts'
import {
  type Address,
  addressAnswer,
  flowAddress,
  NO_VLAN,
  openPath,
  sourceOf,
  storedAddress,
} from '../address/path.ts'
import { stateOf } from '../state.ts'

/** `method` begins the error message. */
const openFlow = (call: CallContext, address: Address, method: string): number => {
  const source = sourceOf(call.device.ports[0].gids, address, method)
  const { port } = stateOf(call)
  return openPath(port, flowAddress(port, source, address), method)
}

const driverAhClass = driverClass<typeof Ah, AddressHandle, typeof RxeAttributes.ah>(
  Ah,
  {
    create(call, object, { pd, address, dmac }) {
      const device = stateOf(call)
      const flow = openFlow(call, address, 'ah.create')
      const number = device.ahns.take()
      object.state = { number, pd: pd.id, flow, address: storedAddress(device, address, dmac) }
      holdGid(call.device.ports[0].gids, address.sgidIndex)
      device.ahs.set(number, object.state)
      return { number }
    },

    query: (_call, { state }) => addressAnswer(state.address),

    modify(call, { state }, { address, dmac }) {
      const device = stateOf(call)
      device.catchUpDatagrams(state.pd)
      const flow = openFlow(call, address, 'ah.modify')
      device.port.closeFlow(state.flow)
      const { gids } = call.device.ports[0]
      holdGid(gids, address.sgidIndex)
      releaseGid(gids, state.address.sgidIndex)
      state.flow = flow
      state.address = storedAddress(device, address, dmac)
      return {}
    },

    destroy(call, object, args, core) {
      const device = stateOf(call)
      const { number, pd, flow, address } = object.state
      // if the process has ended or the device is removed, its earlier sends are dropped
      if (call.why === 'call') device.catchUpDatagrams(pd)
      device.ahs.delete(number)
      device.ahns.free(number)
      device.port.closeFlow(flow)
      releaseGid(call.device.ports[0].gids, address.sgidIndex)
      return core(call, object, args)
    },
  },
  RxeAttributes.ah,
)
export const ahClass = withoutOptions(driverAhClass, NO_VLAN)

/** `createAhs` (R25): core creates the objects, the driver adds their numbers. */
export const pdClass = driverClass<typeof Pd, unknown, typeof RxeAttributes.pd>(
  Pd,
  {
    createAhs(call, object, args, core) {
      const { handles } = core(call, object, args)
      const ahs = call.alsoCreated?.objects ?? []
      return { handles, numbers: ahs.map(ah => ({ number: (ah.state as AddressHandle).number })) }
    },
  },
  RxeAttributes.pd,
)
