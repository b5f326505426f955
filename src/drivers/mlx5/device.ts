/*
 * mlx5 devices, as NVIDIA's adapters: rdma-core's provider `mlx5` drives them (docs/decisions/mlx5.md). The device is the
 * soft device of rxe/, which speaks RoCEv2; queues and doorbell records are in the program's memory.
 */
import { driverClass } from '../../core/devices/driver.ts'
import { macOf } from '../../core/devices/identity.ts'
import type { NetworkDevice, RegisteredDriver } from '../../core/driver-contract.ts'
import type { Context, Core, Device } from '../../core/model.ts'
import { Interface } from '../../spec/classes/device/interface.ts'
import { PortClass } from '../../spec/classes/device/port.ts'
import { Dmah } from '../../spec/classes/dmah.ts'
import { AsyncFd } from '../../spec/classes/events/async_fd.ts'
import { CompChannel } from '../../spec/classes/events/comp_channel.ts'
import { EventQueueClass } from '../../spec/classes/events/event_queue.ts'
import { Mw } from '../../spec/classes/mw.ts'
import { counterValues } from '../../spec/counters.ts'
import { MLX5_ABI, MLX5_DRIVER_ID, Mlx5Abi } from '../../spec/drivers/mlx5.ts'
import { PortState } from '../../spec/enums.ts'
import type { RoceSite } from '../roce-site.ts'
import { xrcdClass } from '../rxe/classes/xrcd-class.ts'
import { createRxeDevice, rxeDriver } from '../rxe/device.ts'
import type { RxeState } from '../rxe/state.ts'
import { extended, Limits, mlx5Attributes, objectLimits } from './attributes.ts'
import {
  addState,
  ahClass,
  cqClass,
  dcOf,
  deviceClass,
  mlx5QpClasses,
  mrClass,
  pdClass,
  srqClasses,
  uarClass,
} from './classes.ts'
import { takeArming } from './completions.ts'
import { dcQpClasses } from './dc/classes.ts'
import { dmClass } from './device-memory.ts'
import { flowClass } from './raw/flow-class.ts'
import { Station } from './raw/frame-link.ts'
import { rawPacketQpClass } from './raw/raw-qp-class.ts'
import { rwqIndTableClass, wqClass } from './raw/work-queues.ts'

export const mlx5Driver = {
  ...rxeDriver,
  name: 'mlx5',
  id: MLX5_DRIVER_ID,
  abi: MLX5_ABI,
  linux: Mlx5Abi,
  hasSpeedEvents: true,
  classes: [
    driverClass(Interface),
    deviceClass,
    driverClass(PortClass),
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
    ...srqClasses,
    xrcdClass,
    uarClass,
    rawPacketQpClass,
    flowClass,
    wqClass,
    rwqIndTableClass,
  ],
  *closing(context: Context<unknown, RxeState>) {
    dcOf(context.device)?.targets.endConnectionsOf(context)
    yield* rxeDriver.closing(context)
  },
  removed(device) {
    stations.get(device)?.close()
    rxeDriver.removed(device)
  },
  createDevice: (core: Core, name: string, site: RoceSite): NetworkDevice => createMlx5Device(core, name, site),
} satisfies RegisteredDriver<RxeState>

/** Microseconds between looks for receives of queue pairs in ERR, which ring no doorbell and must be flushed. */
const ERROR_INTERVAL = 10_000

const stations = new WeakMap<Device, Station>()

/** Registers a device of this driver. Throws the errors of `createRxeDevice`. */
const createMlx5Device = (core: Core, name: string, { network, allocate }: RoceSite): NetworkDevice => {
  const { attach, identity, now, dcqcn, timerDelay } = network
  const port = attach()
  // the memory link connects the devices of this core; sockets carry the payloads of RoCE's UDP datagrams, no frames
  const station =
    port.windowBytes === undefined
      ? new Station(core, {
          mac: macOf(identity),
          seed: core.random(),
          allocate,
          isUp: () => device.ports[0]!.attributes.state === PortState.values.ACTIVE,
        })
      : undefined
  const soft = createRxeDevice(core, {
    kind: {
      driver: mlx5Driver,
      limits: Limits,
      attributes: guid => mlx5Attributes(guid, station !== undefined),
      extended: extended(station !== undefined),
      objectLimits,
    },
    name,
    port,
    identity,
    now,
    dcqcn,
    timerDelay,
    ...(station && { frames: station }),
  })
  const { cqs, dc } = addState(soft.device, station)
  const { device, link } = soft
  if (station !== undefined) stations.set(device, station)
  return {
    device,
    poll(time, scope) {
      let isArmed = false
      for (const cq of cqs) isArmed = takeArming(cq) || isArmed
      const hasWorked = soft.poll(time, scope)
      const hasConnected = dc.poll(time)
      return station?.deliver() || hasConnected || hasWorked || isArmed
    },
    isUnfinished: () => soft.isUnfinished?.() ?? false,
    nextTimeout: () =>
      Math.min(
        soft.nextTimeout(),
        dc.nextTimeout(now()),
        device.state.inError.size === 0 ? Number.POSITIVE_INFINITY : now() + ERROR_INTERVAL,
      ),
    // doorbells are stores to memory
    onDoorbell() {},
    counters() {
      const { engine, port: counts } = soft.counters()
      const hardware = { ...counterValues('hw_counters', engine, counts), out_of_buffer: engine.outOfBuffer ?? 0 }
      return { engine, port: { ...counts, ...station?.counts }, hardware }
    },
    ...(soft.queues && {
      queues: { ...soft.queues, qpOfNumber: qpn => dc.targets.objectOf(qpn) ?? soft.queues?.qpOfNumber(qpn) },
    }),
    link,
    waits: disconnected => soft.waits?.(disconnected) ?? [],
  }
}
