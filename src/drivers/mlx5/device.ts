/*
 * mlx5 devices, as NVIDIA's adapters: rdma-core's provider `mlx5` drives them (docs/decisions/mlx5.md). The device is
 * the soft device (soft/), which speaks RoCEv2, with queues and doorbell records in the program's memory (format.ts).
 */
import { driverClass } from '../../core/devices/driver.ts'
import { macOf } from '../../core/devices/identity.ts'
import type { DriverClass, NetworkDevice, RegisteredDriver } from '../../core/driver-contract.ts'
import { nullMemory } from '../../core/memory/address-space.ts'
import { addSharedRegion, reserveIndex } from '../../core/memory/region-table.ts'
import type { Core } from '../../core/model.ts'
import { createLimit } from '../../core/objects/limits.ts'
import { Interface } from '../../spec/classes/device/interface.ts'
import { Dmah } from '../../spec/classes/dmah.ts'
import { AsyncFd } from '../../spec/classes/events/async_fd.ts'
import { CompChannel } from '../../spec/classes/events/comp_channel.ts'
import { EventQueueClass } from '../../spec/classes/events/event_queue.ts'
import { Mw } from '../../spec/classes/mw.ts'
import { counterValues } from '../../spec/counters.ts'
import {
  MAX_RESERVED_QPNS,
  MLX5_ABI,
  MLX5_DRIVER_ID,
  Mlx5Abi,
  NULL_KEY,
  REPEAT_BLOCK,
} from '../../spec/drivers/mlx5.ts'
import { GidType, PortState } from '../../spec/enums.ts'
import { adapterLink } from '../../spec/link-rate.ts'
import { WcStatus } from '../../spec/work.ts'
import type { RoceSite } from '../roce-site.ts'
import { xrcdClass } from '../soft/classes/xrcd-class.ts'
import { createSoftDevice, type DeviceKind, type SoftDevice, softDriver } from '../soft/device.ts'
import { Armings } from './armings.ts'
import { adapterTexts, extended, Limits, mlx5Attributes, objectLimits } from './attributes.ts'
import { ahClass, cqClass, deviceClass, pdClass, portClass, uarClass, varClass } from './classes.ts'
import { commandClasses } from './commands/classes.ts'
import { closeCommands } from './commands/context.ts'
import { endSubscriptions } from './commands/events/subscriptions.ts'
import { takeArming } from './completions.ts'
import { dcQpClasses } from './dc/classes.ts'
import { DcTransport } from './dc/transport.ts'
import { dmClass } from './device-memory.ts'
import { mlx5QpClasses, mlx5SrqClasses } from './format.ts'
import { flowClass } from './raw/flow-class.ts'
import { Station } from './raw/frame-link.ts'
import { actionClass, matcherClass } from './raw/matcher-flows.ts'
import { rawPacketQpClass } from './raw/raw-qp-class.ts'
import { rwqIndTableClass, wqClass } from './raw/work-queues.ts'
import { mrClass } from './regions.ts'
import { Signatures } from './signature/signatures.ts'
import type { Mlx5Soft, Mlx5State } from './state.ts'

/** Classes of raw packets. */
const frameClasses: readonly DriverClass[] = [
  rawPacketQpClass,
  flowClass,
  matcherClass,
  actionClass,
  wqClass,
  rwqIndTableClass,
]

export const mlx5Driver = {
  ...softDriver,
  requests: {
    ...softDriver.requests,
    numbered: 'block',
    // A target of DC has a responder for each connection.
    namedQpn: ({ state }, qpn) => (state as Mlx5Soft).own?.dc.targets.completedOf(qpn)?.qpn ?? qpn,
  },
  name: 'mlx5',
  id: MLX5_DRIVER_ID,
  abi: MLX5_ABI,
  linux: Mlx5Abi,
  hasSpeedEvents: true,
  hasClassOverride: true,
  adapter: adapterTexts,
  hasFabric: true,
  classes: [
    driverClass(Interface),
    deviceClass,
    portClass,
    pdClass,
    mrClass,
    driverClass(Mw),
    dmClass,
    driverClass(Dmah),
    driverClass(CompChannel),
    driverClass(AsyncFd),
    driverClass(EventQueueClass),
    cqClass,
    ...mlx5QpClasses,
    ...dcQpClasses,
    ahClass,
    ...mlx5SrqClasses,
    xrcdClass,
    uarClass,
    varClass,
    ...frameClasses,
    ...commandClasses,
  ],
  *closing(context) {
    context.device.state.own?.dc.targets.endConnectionsOf(context)
    closeCommands(context)
    endSubscriptions(context)
    yield* softDriver.closing(context)
  },
  removed(device) {
    device.state.own?.station?.close()
    softDriver.removed(device)
  },
  createDevice: (core: Core, name: string, site: RoceSite): NetworkDevice => createMlx5Device(core, name, site),
} satisfies RegisteredDriver<Mlx5Soft>

/** Microseconds between looks for receives of queue pairs in ERR, which ring no doorbell and must be flushed. */
const ERROR_INTERVAL = 10_000

/** The link of raw packets between devices of this core, which one of its stations knows. */
const stationIn = (core: Core): Station | undefined => {
  for (const { driver, state } of core.devices.values())
    if (driver === mlx5Driver) {
      const { own } = state as Mlx5Soft
      if (own?.station !== undefined) return own.station
    }
  return undefined
}

/** Of devices with an InfiniBand port: no frames, and so no raw packets. */
const infinibandDriver: RegisteredDriver<Mlx5Soft> = {
  ...mlx5Driver,
  link: 'ib',
  classes: mlx5Driver.classes.filter(listed => !frameClasses.includes(listed)),
}

const kindFor = (station: Station | undefined, site: RoceSite): DeviceKind<Mlx5State> => ({
  driver: site.network.fabric === undefined ? mlx5Driver : infinibandDriver,
  limits: Limits,
  attributes: (guid, limits) => mlx5Attributes(guid, limits, station !== undefined),
  extended: extended(station !== undefined),
  ethernetLink: adapterLink,
  gidTypes: [GidType.values.ROCE_V1, GidType.values.ROCE_V2],
  objectLimits,
  // libmlx5 has the device check that a key belongs to the queue pair, which a free one does not
  freeKeyStatus: WcStatus.values.MW_BIND_ERR,
  refusesLongDatagrams: true,
  own: soft => ({
    soft,
    queues: new Map(),
    shared: new Map(),
    armings: new Armings(takeArming),
    dc: new DcTransport(soft),
    dcAddresses: new Map(),
    signatures: new Signatures(soft, site.allocate, qpn => soft.own?.queues.get(qpn)?.sends?.drainsOnFault === true),
    uids: new Set(),
    reserved: createLimit('reserved QPNs', MAX_RESERVED_QPNS),
    station,
  }),
})

/** Registers a device of this driver. Throws the errors of `createSoftDevice`. */
const createMlx5Device = (core: Core, name: string, site: RoceSite): NetworkDevice => {
  const { network, allocate } = site
  const { attach, identity, now, dcqcn, limits, timerDelay, torment, fabric, adapter } = network
  const port = attach()
  const isUp = (): boolean => device.ports[0].attributes.state === PortState.values.ACTIVE
  // the memory link connects the devices of this core; sockets carry the payloads of RoCE's UDP datagrams, no frames
  const station: Station | undefined =
    port.windowBytes === undefined && fabric === undefined
      ? new Station({ mac: macOf(identity), seed: core.random(), allocate, isUp, neighbour: stationIn(core) })
      : undefined
  const soft: SoftDevice<Mlx5State> = createSoftDevice(core, kindFor(station, site), {
    name,
    port,
    identity,
    now,
    dcqcn,
    limits,
    timerDelay,
    torment,
    fabric,
    adapter,
    frames: station,
  })
  const { device, link } = soft
  const { armings, dc } = device.state.own!
  addSharedRegion(device.memory, NULL_KEY, nullMemory)
  reserveIndex(device.memory, REPEAT_BLOCK >>> 8)
  return {
    device,
    poll(time, scope) {
      const isArmed = armings.take(scope)
      const hasWorked = soft.poll(time, scope)
      const hasConnected = dc.poll(time)
      return station?.deliver() || hasConnected || hasWorked || isArmed
    },
    isUnfinished: () => soft.isUnfinished() || armings.isUnfinished(),
    nextTimeout: () =>
      Math.min(
        soft.nextTimeout(),
        dc.nextTimeout(now()),
        device.state.inError.size === 0 ? Number.POSITIVE_INFINITY : now() + ERROR_INTERVAL,
      ),
    counters() {
      const { engine, port: counts } = soft.counters()
      const hardware = { ...counterValues('hw_counters', engine, counts), out_of_buffer: engine.outOfBuffer ?? 0 }
      return { engine, port: { ...counts, ...station?.counts }, hardware }
    },
    queues: { ...soft.queues, qpOfNumber: qpn => dc.targets.objectOf(qpn) ?? soft.queues.qpOfNumber(qpn) },
    link,
    subnetPort: soft.subnetPort,
    waits: disconnected => soft.waits(disconnected),
  }
}
