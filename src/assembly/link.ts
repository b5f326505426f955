/*
 * What connects the soft devices of a daemon or of a network in a program (`--link`): memory of this process, or sockets
 * on the devices' addresses.
 */
import type { Identity } from '../core/devices/identity.ts'
import { mapArena } from '../host/memory/mapping.ts'
import { createMemorySwitch, memorySwitchBytes, type Transit } from '../phy/memory.ts'
import type { Port } from '../phy/port.ts'
import type { DeviceSpec, Link, Path } from '../uapi/tool.ts'
import { plainArena } from '../wire/arena.ts'
import { createSocketPort, useNativeCrc } from './socket-ports.ts'

export interface NetworkLink {
  /** The poll of one device passes packets to the others: arrivals wake nobody. */
  readonly isMemory: boolean
  /** Number of ports of a link of memory; otherwise 0. */
  portCount(): number
  /** Creates the port of a device. Throws as `createSocketPort`. */
  attach(device: DeviceSpec, identity: Identity): Port
}

/**
 * `hasNative`: there is native code, for ICRCs and copies. Links of sockets use it if there is any. `transit`: the time
 * that packets take through memory.
 */
export const createLink = (link: Link, path: Path, hasNative: boolean, transit?: Transit): NetworkLink => {
  if (hasNative || link !== 'memory') useNativeCrc()
  if (link !== 'memory')
    return {
      isMemory: false,
      portCount: () => 0,
      attach: (device, identity) => createSocketPort(link, device, identity),
    }
  const bytes = memorySwitchBytes()
  // Memory loses no bits, so ICRCs are computed and checked only while taps or fault rules need them.
  const arena = hasNative ? mapArena(bytes) : plainArena(bytes)
  const memory = createMemorySwitch({ arena, icrc: 'demand', path, transit })
  return { isMemory: true, portCount: () => memory.stat().ports, attach: () => memory.attach() }
}
