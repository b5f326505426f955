/*
 * What connects the soft devices of a daemon or of a network in a program (`--link`): memory of this process, or
 * sockets on the devices' addresses.
 */
import type { Identity } from '../core/devices/identity.ts'
import { mapArena } from '../host/memory/mapping.ts'
import type { Transit } from '../transport/phy/memory/run-queue.ts'
import { createMemorySwitch, memorySwitchBytes } from '../transport/phy/memory.ts'
import type { Port } from '../transport/phy/port.ts'
import { type Arena, plainArena } from '../transport/wire/arena.ts'
import type { DeviceSpec, Link, Path } from '../uapi/tool.ts'
import { createSocketPort, useNativeCrc } from './socket-ports.ts'

export interface NetworkLink {
  /** The poll of one device passes packets to the others: arrivals wake nobody. */
  readonly isMemory: boolean
  /** Number of ports of a link of memory; otherwise 0. */
  portCount(): number
  /** Creates the port of a device; `host`: see `MemorySwitch.attach`. Throws as `createSocketPort`. */
  attach(device: DeviceSpec, identity: Identity, host?: number): Port
  /** Creates a port of a link of memory that leads to other processes (fabric/trunk.ts). */
  attachTrunk(): Port
  /** Ends a link without ports; nothing can be attached afterwards. */
  close(): void
}

/** The memory of a closed link: for one after the other, allocating and freeing 17 MB takes longer than most tests. */
let spare: Arena | undefined

/**
 * `hasNative`: there is native code, for ICRCs and copies. Links of sockets use it if there is any. `transit`: the time
 * that packets take through memory. `maxPorts`: of a link of memory; default 64.
 */
export const createLink = (
  link: Link,
  path: Path,
  hasNative: boolean,
  transit?: Transit,
  maxPorts?: number,
): NetworkLink => {
  if (hasNative || link !== 'memory') useNativeCrc()
  if (link !== 'memory')
    return {
      isMemory: false,
      portCount: () => 0,
      attach(device, identity) {
        if (device.layer === 'infiniband')
          throw new Error(
            `device ${device.name}: an InfiniBand port has no way to other machines: --link ${link} carries packets of RoCE; use --link memory`,
          )
        return createSocketPort(link, device, identity)
      },
      attachTrunk() {
        throw new Error(`InfiniBand switches need --link memory, not --link ${link}`)
      },
      close() {},
    }
  const bytes = memorySwitchBytes(undefined, undefined, maxPorts)
  // Memory loses no bits, so ICRCs are computed and checked only while taps or fault rules need them.
  const arena = hasNative ? mapArena(bytes) : spare?.bytes.length === bytes ? spare : plainArena(bytes)
  spare = undefined
  let isClosed = false
  const memory = createMemorySwitch({ arena, ports: maxPorts, icrc: 'demand', path, transit })
  return {
    isMemory: true,
    portCount: () => memory.stat().ports,
    attach(_device, _identity, host) {
      if (isClosed) throw new Error('the network has ended')
      return memory.attach(host)
    },
    attachTrunk: () => memory.attach(),
    close() {
      if (hasNative || isClosed || memory.stat().ports > 0) return
      isClosed = true
      spare = arena
    },
  }
}
