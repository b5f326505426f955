/*
 * Assembles what a daemon and a network in a program have in common: core with its clients, the link between soft
 * devices, torment, and soft devices on ports of the link. The owner polls the devices and the clients.
 */

import { type CoreOptions, createCore } from '../core/devices/registry.ts'
import type { DeviceNetwork, DeviceTaps, NetworkDevice } from '../core/driver-contract.ts'
import type { Core, Device } from '../core/model.ts'
import { createTorment, TORMENT_SCRATCH_BYTES, type Torment } from '../drivers/registered.ts'
import type { RoceSite } from '../drivers/roce-site.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { mapArena } from '../host/memory/mapping.ts'
import { secureRandom } from '../host/random.ts'
import { type ClientEnvironment, Clients, classesWithClients, type Subnet } from '../services/clients.ts'
import type { Routing } from '../services/rdma-cm/devices.ts'
import type { TormentSetting } from '../spec/check/torment.ts'
import type { Transit } from '../transport/phy/memory/run-queue.ts'
import type { Port } from '../transport/phy/port.ts'
import { plainArena } from '../transport/wire/arena.ts'
import type { Link, Path } from '../uapi/tool.ts'
import { LinkCarrier } from './fabric/data-carrier.ts'
import { createLink, type NetworkLink } from './link.ts'

interface AssemblyOptions {
  readonly link: Link
  readonly path: Path
  /** As for `createLink`. */
  readonly hasNative: boolean
  /** As for `createLink`. */
  readonly transit?: Transit | undefined
  /** As for `createLink`. */
  readonly maxPorts?: number | undefined
  /** Microseconds. Default: the clock of this process. */
  readonly now?: (() => number) | undefined
  readonly core: Omit<CoreOptions, 'classes' | 'now'>
  /** `routing`: for links of sockets. */
  readonly clients: Omit<ClientEnvironment, 'now' | 'random'> & Partial<Pick<ClientEnvironment, 'random'>>
  /** The subnet of another process for InfiniBand ports. Default: one of this process. */
  readonly subnet?: ((link: NetworkLink) => (Subnet & Required<Pick<Routing, 'gidOf'>>) | undefined) | undefined
  readonly torment: TormentSetting | undefined
  /** Packets have arrived for a device at a socket. */
  readonly onPackets: () => void
  /** A queue pair of any device enters or leaves ERR. */
  readonly inError?: DeviceTaps['inError']
}

/** A driver as the assembly uses it: `D` is the type of its devices. */
interface DeviceMaker<D extends Device | NetworkDevice> {
  createDevice(core: Core, name: string, site: RoceSite): D
}

export interface Assembly {
  readonly core: Core
  /** A client starts when a call needs it, or by `use`. */
  readonly clients: Clients
  readonly link: NetworkLink
  readonly torment: Torment | undefined
  /**
   * Creates a device of `driver`. `network`: for a device with an address. Its port has these layers, from the link up:
   *
   * 1. the link, or the driver's own port (`own`);
   * 2. fault rules; captures and recordings tap this layer, and see what the rules do. `attach` makes these two;
   * 3. torment of packets.
   *
   * The port is closed if this fails. Throws CallError EEXIST, EINVAL, and the errors of `attach` and of
   * `Port.addAddress`.
   */
  addDevice<D extends Device | NetworkDevice>(
    driver: DeviceMaker<D>,
    name: string,
    network:
      | (Pick<DeviceNetwork, 'identity' | 'dcqcn' | 'limits' | 'timerDelay' | 'fabric' | 'adapter'> & {
          attach(own?: Port): Port
        })
      | undefined,
  ): D
}

export const assemble = (options: AssemblyOptions): Assembly => {
  const { hasNative, torment: setting, inError, onPackets, now = nowMicroseconds } = options
  const link = createLink(options.link, options.path, hasNative, options.transit, options.maxPorts)
  const subnet = options.subnet?.(link)
  const core = createCore({ ...classesWithClients(() => clients), now, ...options.core })
  const clients = new Clients(core, {
    now,
    random: secureRandom,
    ...(link.isMemory && { createCarrier: owner => new LinkCarrier(link.attachTrunk(), owner) }),
    ...options.clients,
    ...(link.isMemory && { routing: { isClosed: true } }),
    ...(subnet !== undefined && {
      subnet,
      routing: { ...options.clients.routing, isClosed: true, gidOf: address => subnet.gidOf(address) },
    }),
  })
  const allocate = hasNative ? mapArena : plainArena
  const torment = setting && createTorment(setting, allocate(TORMENT_SCRATCH_BYTES))
  return {
    core,
    clients,
    link,
    torment,
    addDevice(driver, name, network) {
      let port: Port | undefined
      const described = network && {
        identity: network.identity,
        dcqcn: network.dcqcn,
        limits: network.limits,
        fabric: network.fabric,
        timerDelay: network.timerDelay,
        adapter: network.adapter,
        now,
        attach: (own?: Port): Port => {
          port = network.attach(own)
          if (!link.isMemory) port.wake = onPackets
          return torment?.port(port, name) ?? port
        },
        torment,
      }
      try {
        // Callers give a network to drivers with `hasAddress`; others do not look for one.
        const created = driver.createDevice(core, name, { allocate, wake: onPackets, network: described } as RoceSite)
        const device = core.devices.get(name)
        if (device !== undefined) device.taps.inError = inError
        if ('subnetPort' in created && created.subnetPort !== undefined) clients.subnet.attach(created.subnetPort)
        return created
      } catch (error) {
        port?.close()
        throw error
      }
    },
  }
}
