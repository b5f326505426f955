/*
 * Assembles what a daemon and a network in a program have in common: core with its clients, the link between soft
 * devices, torment, and soft devices on ports of the link. The owner polls the devices and the clients.
 */
import { Clients, classesWithClients } from '../clients/clients.ts'
import type { RdmaCmEnvironment } from '../clients/rdma-cm/rdma-cm.ts'
import type { Identity } from '../core/devices/identity.ts'
import { type CoreOptions, createCore } from '../core/devices/registry.ts'
import type { Core } from '../core/model.ts'
import type { LocalDevice } from '../core/network-device.ts'
import { createTorment, TORMENT_SCRATCH_BYTES, type Torment } from '../drivers/device-makers.ts'
import { createRxeDevice, type RxeOptions } from '../drivers/index.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { mapArena } from '../host/memory/mapping.ts'
import { secureRandom } from '../host/random.ts'
import type { Port } from '../phy/port.ts'
import type { TormentSetting } from '../spec/check/torment.ts'
import type { Link, Path } from '../uapi/tool.ts'
import { plainArena } from '../wire/arena.ts'
import { createLink, type NetworkLink } from './link.ts'

export interface AssemblyOptions {
  readonly link: Link
  readonly path: Path
  /** As for `createLink`. */
  readonly hasNative: boolean
  readonly core: Omit<CoreOptions, 'classes' | 'now'>
  /** `routing`: for links of sockets. */
  readonly clients: Omit<RdmaCmEnvironment, 'now' | 'random'>
  readonly torment: TormentSetting | undefined
  /** Packets have arrived for a device at a socket. */
  readonly onPackets: () => void
  readonly inError?: RxeOptions['inError']
  /** Replaced by tests. */
  readonly createDevice?: typeof createRxeDevice | undefined
}

export interface Assembly {
  readonly core: Core
  /** A client starts when a call needs it, or by `use`. */
  readonly clients: Clients
  readonly link: NetworkLink
  readonly torment: Torment | undefined
  /**
   * Creates a soft device on a port of the link, which may be wrapped; it closes the port at its end, and if this fails.
   * Throws CallError EEXIST, EINVAL, and the errors of `Port.addAddress`.
   */
  addDevice(name: string, identity: Identity, port: Port): LocalDevice
}

export const assemble = (options: AssemblyOptions): Assembly => {
  const { hasNative, createDevice = createRxeDevice, torment: setting, inError } = options
  const link = createLink(options.link, options.path, hasNative)
  const core = createCore({ classes: classesWithClients(() => clients), now: nowMicroseconds, ...options.core })
  const clients = new Clients(core, {
    now: nowMicroseconds,
    random: secureRandom,
    ...options.clients,
    ...(link.isMemory && { routing: { isClosed: true } }),
  })
  const torment = setting && createTorment(setting, (hasNative ? mapArena : plainArena)(TORMENT_SCRATCH_BYTES))
  return {
    core,
    clients,
    link,
    torment,
    addDevice(name, identity, port) {
      try {
        const device = createDevice(core, { name, identity, port, now: nowMicroseconds, torment, inError })
        if (!link.isMemory) port.wake = options.onPackets
        return device
      } catch (error) {
        port.close()
        throw error
      }
    },
  }
}
