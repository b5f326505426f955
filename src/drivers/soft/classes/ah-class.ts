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
import { type Address, type AddressArguments, NO_VLAN, storedAddress } from '../address/path.ts'
import { stateOf } from '../state.ts'

/** The address of a call, and the port's flow for it. `method` begins the error message. */
const openFlow = (call: CallContext, args: AddressArguments & { readonly dmac?: Uint8Array }, method: string) => {
  const device = stateOf(call)
  const { paths } = device
  const given = paths.given(args) ?? paths.none
  const hopLimit = paths.hopLimitOf(given)
  const flow = paths.open(given, method, { hopLimit })
  return { address: storedAddress(device, given, args.dmac, hopLimit), flow }
}

/** The handle uses the GID of its path from now on, and `previous` no longer. */
const useGid = (call: CallContext, address: Address | undefined, previous?: Address): void => {
  const { gids } = call.device.ports[0]
  const { paths } = stateOf(call)
  const [index, before] = [address, previous].map(path => (path === undefined ? -1 : paths.gidIndexOf(path)))
  if (index! >= 0) holdGid(gids, index!)
  if (before! >= 0) releaseGid(gids, before!)
}

const driverAhClass = driverClass<typeof Ah, AddressHandle, typeof RxeAttributes.ah>(
  Ah,
  {
    create(call, object, args) {
      const { pd } = args
      const device = stateOf(call)
      const { address, flow } = openFlow(call, args, 'ah.create')
      const number = device.ahns.take()
      object.state = { number, pd: pd.id, flow, address }
      useGid(call, address)
      device.ahs.set(number, object.state)
      return { number }
    },

    query: (call, { state }) => stateOf(call).paths.answer(state.address) as never,

    modify(call, { state }, args) {
      const device = stateOf(call)
      device.catchUpDatagrams(state.pd)
      const { address, flow } = openFlow(call, args, 'ah.modify')
      device.port.closeFlow(state.flow)
      useGid(call, address, state.address)
      state.flow = flow
      state.address = address
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
      useGid(call, undefined, address)
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
