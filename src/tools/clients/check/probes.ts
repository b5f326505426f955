/*
 * What consumers of the program events of a core may ask (`ProgramProbes`): its devices and its host answer.
 */
import { findGid } from '../../../core/devices/gids.ts'
import type { Core, Port } from '../../../core/model.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import type { ProgramProbes } from '../../../spec/check/probes.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { lidOf } from '../../../transport/wire/address.ts'
import { hashRange } from '../requests/digest.ts'
import { keyMemory } from './key-memory.ts'
import type { HostSources } from './sources.ts'
import type { WatchedDevices } from './watched-devices.ts'

const NO_STACK: Stack = []

/** The index of the first device with a port that matches. */
export const deviceWithPort = (core: Core, matches: (port: Port) => boolean): number | undefined => {
  for (const { index, ports } of core.devices.values()) for (const port of ports) if (matches(port)) return index
  return undefined
}

const deviceWithGid =
  (core: Core): ProgramProbes['deviceWithGid'] =>
  gid => {
    const lid = lidOf(gid)
    return deviceWithPort(core, ({ gids, attributes }) =>
      lid < 0 ? findGid(gids, gid) >= 0 : lid !== 0 && attributes.lid === lid,
    )
  }

export const probesOf = (
  core: Core,
  watched: WatchedDevices,
  {
    postStack,
    postHash,
    lockLimit,
    lossTo,
    isCopiedByFork,
    privateFile,
    unmapStack,
    otherSubnet,
    events,
    scratch,
  }: HostSources,
): ProgramProbes => ({
  deviceName: index => watched.device(index)?.name ?? '',
  driverName: index => watched.device(index)?.driver.name,
  deviceWithGid: deviceWithGid(core),
  ...(lockLimit && { lockLimit }),
  hasMember(group) {
    let isKnown = true
    for (const device of watched.all) {
      const { hasMember } = device.driver.requests ?? {}
      if (hasMember === undefined) isKnown = false
      else if (device.isAlive && hasMember(device, group)) return true
    }
    return isKnown ? false : undefined
  },
  whyLost(index, qpn, to, destQpn) {
    const device = watched.device(index)
    return device?.driver.requests?.whyLost?.(device, qpn, to, destQpn)
  },
  routerHazard(index, qpn, path) {
    const device = watched.device(index)
    const hazard = device?.driver.requests?.routerHazard?.(device, qpn, path)
    const own = device?.ports[0]?.gids.entries[path.sgidIndex]?.gid
    const subnet = hazard && own && hazard.way === undefined ? otherSubnet?.(own, path.dgid) : undefined
    return subnet === undefined ? hazard : { ...hazard, way: subnet }
  },
  ...(isCopiedByFork && { isCopiedByFork }),
  ...(privateFile && { privateFile }),
  ...(unmapStack && { unmapStack }),
  hasUnchecked: index => watched.hasUnchecked(index),
  postStack(id, queue, number, wrId, index) {
    const context = watched.context(id)
    return context === undefined ? NO_STACK : postStack(context, queue, number, wrId, index)
  },
  ...(postHash && {
    postHash(id: number, request: WorkRequest) {
      const context = watched.context(id)
      return context && postHash(context, request)
    },
  }),
  unreadEvents(id, channel) {
    const fd = channel === undefined ? watched.context(id)?.asyncFd : core.descriptors.get(channel)
    return fd?.isClosed === false ? fd.sink.unread() : undefined
  },
  digest: (device, request, isWhole) => watched.poll(device)?.digest(request, isWhole),
  rangeHash(index, lkey, address, length) {
    const device = watched.device(index)
    return device && hashRange(device.memory, scratch, device.driver.requests, { address, length, lkey })
  },
  ...(lossTo && { lossTo }),
  memoryOf: keyMemory(index => watched.device(index)),
  ...(events && {
    logStack: (process: number, stack: number) => events.logStack(process, stack),
    readLog: () => events.readLog(),
  }),
})
