/*
 * Core's own methods of classes device and port (R8): opening a context, and queries.
 */
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { PortClass } from '../../spec/classes/device/port.ts'
import { CoreSupport, PortState } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { linkRate } from '../../spec/link-rate.ts'
import { copyOfBytes } from '../../spec/memory.ts'
import { the } from '../../spec/reason.ts'
import { driverClass } from '../devices/driver.ts'
import { type GidTable, getGid } from '../devices/gids.ts'
import { type Device, Lifecycle, type Port } from '../model.ts'
import { createDescriptor } from '../objects/lifetime.ts'
import { interfaceNames } from './driver-ops.ts'

// A caller in this process gets the answer itself and may change it, so byte arrays of the device are copied.

/** An entry of a GID table as a GidEntry record. */
const entryOf = (table: GidTable, index: number) => {
  const { gid, type, ifindex } = getGid(table, index)
  return { gid: gid.slice(), index, port: table.port, type, ifindex }
}

const copyAttributes = (attributes: Device['attributes']): Device['attributes'] => ({
  ...attributes,
  nodeGuid: copyOfBytes(attributes.nodeGuid),
  sysImageGuid: copyOfBytes(attributes.sysImageGuid),
})

export const deviceClass = driverClass(DeviceClass, {
  open(call, _object, { wantAsyncFd }) {
    const { context, device } = call
    const answer = { numCompVectors: device.numCompVectors, coreSupport: CoreSupport.OPTIONAL_MR_ACCESS }
    if (!wantAsyncFd) return answer
    const asyncFd = createDescriptor(call, 'async_fd')
    context.asyncFd ??= asyncFd
    return { ...answer, asyncFd }
  },

  query: ({ device }) => ({
    attributes: copyAttributes(device.attributes),
    extended: { ...device.extended },
    numCompVectors: device.numCompVectors,
    coreSupport: CoreSupport.OPTIONAL_MR_ACCESS,
  }),

  queryHandles({ context }, _object, { classes, max }) {
    const ids = new Set(classes.map(({ id }) => id))
    const objects = context.handles.slots
      .filter(
        object =>
          object !== undefined &&
          object.life === Lifecycle.LIVE &&
          ids.has(object.class.id) &&
          context.owned?.has(object) !== true,
      )
      // Newest first.
      .sort((a, b) => b!.id - a!.id)
    return { handles: objects.slice(0, max).map(object => ({ handle: object!.handle })) }
  },

  queryGidTable({ device }, _object, { max }) {
    const entries = device.ports.flatMap(({ gids }) =>
      gids.entries.flatMap((entry, index) => (entry === undefined ? [] : [entryOf(gids, index)])),
    )
    if (max !== undefined && entries.length > max)
      throw callError.EINVAL`${the.method('device.queryGidTable')}: ${the.attribute('max')}: ${max}; the tables have ${entries.length} entries`
    return { entries }
  },

  queryClock: ({ device: { core } }) => ({ nanoseconds: BigInt(Math.floor(core.now() * 1000)) }),

  queryDriverOps: ({ device }) => ({
    names: new TextEncoder().encode(
      interfaceNames(device)
        .map(name => `${name}\0`)
        .join(''),
    ),
  }),
})

/** In units of 100 Mb/s; 0 if the port is not active. */
export const portSpeed = ({ attributes }: Pick<Port, 'attributes'>): number =>
  attributes.state === PortState.values.ACTIVE ? linkRate(attributes) : 0

export const portClass = driverClass<typeof PortClass, Port>(PortClass, {
  query: (_call, { state }) => ({ attributes: { ...state.attributes } }),
  queryGidEntry: (_call, { state }, { index }) => ({ entry: entryOf(state.gids, index) }),
  querySpeed: (_call, { state }) => ({ speed: BigInt(portSpeed(state)) }),
})
