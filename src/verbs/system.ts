/*
 * The system-wide device for a program (R13, R18): lists the devices of a network in this process or of a daemon, with
 * what is needed to choose one, and reports those that are added or removed.
 */
import { resolve } from 'node:path'
import { addEventHandler } from '../core/devices/clients.ts'
import { closeContext, openContext } from '../core/devices/registry.ts'
import { systemDevice } from '../core/devices/system.ts'
import { callerWithoutMemory } from '../core/dispatch/caller.ts'
import { invokeNow } from '../core/dispatch/invoke.ts'
import type { Context, Device } from '../core/model.ts'
import type { Watch } from '../host/event-loop/poll.ts'
import { close } from '../host/net/sockets.ts'
import { Device as DeviceClass } from '../spec/classes/device/device.ts'
import { Interface } from '../spec/classes/device/interface.ts'
import { System as SystemClass } from '../spec/classes/device/system.ts'
import { AsyncFd } from '../spec/classes/events/async_fd.ts'
import { AsyncEventType, NodeType } from '../spec/enums.ts'
import { errnoName } from '../spec/errno.ts'
import { declare } from '../spec/schema/description.ts'
import type { AnyValues, ObjectClass, Out } from '../spec/schema/schema.ts'
import { SYSTEM_NODE } from '../spec/session.ts'
import { writeRequest } from '../uapi/session-codec.ts'
import { checkOptions, type KnownOptions } from './checks/options.ts'
import { checkText, invalidArgument, refusal, refused, rethrow } from './error.ts'
import type { LocalNetwork, Network } from './local/network.ts'
import { orElse, showAs } from './objects/show.ts'
import { joinDaemon, type Session } from './remote/daemon-session.ts'
import { createCalls } from './remote/messages.ts'
import { ASYNC_RECORD, readRecords } from './remote/records.ts'
import { namedSocket, userSocket } from './remote/user-socket.ts'

/** ibv_node_type by name. */
export type NodeTypeName = keyof typeof NodeType.values

/** A device as the system-wide device lists it. */
export interface DeviceEntry {
  /** Its name. */
  readonly name: string
  /** N of uverbsN. A later device may get the number of a removed one. */
  readonly index: number
  /** Name of its driver. */
  readonly driver: string
  /** rdma_driver_id of Linux. */
  readonly driverId: number
  /** ibv_node_type by name. */
  readonly nodeType: NodeTypeName | undefined
  /** Number of ports. */
  readonly ports: number
  /** In sysfs format: four groups of four digits. */
  readonly nodeGuid: string
  /** Version of Linux's uverbs ABI. */
  readonly uverbsAbi: number
  /** Version of the driver's ABI. */
  readonly driverAbi: number
  /** Ids of its classes. */
  readonly classes: readonly number[]
}

/** A device was added or removed. */
export interface DeviceChange {
  /** Whether it was added or removed. */
  readonly type: 'added' | 'removed'
  /** Its number in the system. */
  readonly index: number
}

/** The system-wide device: the list of devices. */
export interface System extends Disposable {
  /** The current devices, by number. */
  devices(): readonly DeviceEntry[]
  /**
   * A device's own description of its classes; without a name the system-wide device's. Throws RdmaError ENODEV if no
   * device has the name.
   */
  interface(name?: string): readonly ObjectClass[]
  /**
   * Calls `handler` for each device that is added or removed, until the returned function is called; does not keep the
   * process alive. `devices` has earlier changes.
   */
  onChange(handler: (change: DeviceChange) => void): () => void
  /** Closes it. */
  close(): void
}

/** Options of `openSystem`. */
export interface SystemOptions {
  /** A network in this process. */
  readonly network?: Network
  /** The daemon at this path; `true`: the one under which the program runs, or else the user's own. */
  readonly socket?: string | true
}

// ---- access ----

type Description = Out<typeof Interface.methods.query>

interface SystemAccess {
  call(cls: ObjectClass, method: string): AnyValues
  /** A device's own description, queried on a temporary context. */
  describe(device: DeviceEntry): Description
  close(): void
}
type Report = (type: number, index: number) => void

const reachHere = (network: LocalNetwork, report: Report): SystemAccess => {
  const device = systemDevice(network.core)
  const context: Context = openContext(device)
  const caller = callerWithoutMemory('the library')
  const unsubscribe = addEventHandler(device, ({ type, port }) => report(type, port ?? 0))
  return {
    call: (cls, method) =>
      rethrow(`${cls.name}.${method}`, () => invokeNow(context, cls, method, 0, {}, caller).out as AnyValues),
    describe: ({ name }) =>
      rethrow('interface.query', () => {
        const one = openContext(network.core.devices.get(name) as Device, { opened: true })
        try {
          return invokeNow(one, Interface, 'query', 0, {}, caller).out
        } finally {
          closeContext(one)
        }
      }),
    close() {
      unsubscribe()
      closeContext(context)
    },
  }
}

/** A context on a device node of a daemon. */
const openNode = (session: Session, node: number, name: string) => {
  const { reply, fds } = session.ask('open', (to, from) => writeRequest(to, 'OPEN', from, { node }))
  if (reply.error === 0) return { fds, send: createCalls(session, reply.context, fds[0]!) }
  for (const fd of fds) close(fd)
  throw refusal(errnoName(reply.error), reply.error, 'open', `the daemon at ${session.socket} does not open ${name}`)
}

const describeThere = (session: Session, { index, name, classes }: DeviceEntry): Description => {
  const { fds, send } = openNode(session, index, `device ${name}`)
  try {
    if (classes.includes(DeviceClass.id)) send(DeviceClass, 'open', 0, {})
    return send(Interface, 'query', 0, {}).out as Description
  } finally {
    for (const fd of fds) close(fd)
  }
}

const reachThere = (socket: string, report: Report): SystemAccess => {
  const session = joinDaemon(socket)
  const fds: number[] = []
  let events: Watch | undefined
  const end = (): void => {
    events?.stop()
    for (const fd of fds) close(fd)
    session.leave()
  }
  try {
    const { fds: passed, send } = openNode(session, SYSTEM_NODE, 'the system-wide device')
    fds.push(...passed)
    const { object: channel } = send(AsyncFd, 'create', 0, {})
    fds.push(channel)
    const take = (record: DataView): void => report(record.getUint32(8, true), record.getUint32(0, true))
    events = readRecords(channel, ASYNC_RECORD, take, () => session.check())
    events.unref()
    return {
      call: (cls, method) => send(cls, method, 0, {}).out,
      describe: device => describeThere(session, device),
      close: end,
    }
  } catch (error) {
    end()
    throw error
  }
}

// ---- the program's interface ----

const { DEVICE_ADDED, DEVICE_REMOVED } = AsyncEventType.values
const nodeTypes = Object.entries(NodeType.values) as [NodeTypeName, number][]
const decoder = new TextDecoder()
const text = (bytes: Uint8Array): string => decoder.decode(bytes).replace(/\0+$/, '')
const guidText = (bytes: Uint8Array): string =>
  Array.from({ length: bytes.length / 2 }, (_, i) =>
    ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16).padStart(4, '0'),
  ).join(':')

const systemOptionNames: KnownOptions<SystemOptions> = { network: true, socket: true }

/** Opens the system-wide device of a network or of a daemon. Throws RdmaError: ECONNREFUSED without a daemon. */
export const openSystem = (options: SystemOptions = {}): System => {
  checkOptions('open', 'options', options, systemOptionNames)
  const { network, socket } = options
  if ((network === undefined) === (socket === undefined))
    throw invalidArgument(
      'open',
      'say whose devices: those of a network of this process, or those of the daemon at socket',
    )
  const handlers = new Set<(change: DeviceChange) => void>()
  const report: Report = (type, index) => {
    if (type !== DEVICE_ADDED && type !== DEVICE_REMOVED) return
    const change: DeviceChange = { type: type === DEVICE_ADDED ? 'added' : 'removed', index }
    // The device is in the middle of its work: handlers run afterwards.
    queueMicrotask(() => {
      for (const handler of [...handlers]) handler(change)
    })
  }
  const path = socket === true ? (namedSocket(undefined) ?? userSocket()) : resolve(socket ?? '')
  const reach = network === undefined ? reachThere(path, report) : reachHere(network as LocalNetwork, report)
  let open = true
  const call = (cls: ObjectClass, method: string): AnyValues => {
    if (!open) throw refused('EIO', `${cls.name}.${method}`, 'the system-wide device is closed')
    return reach.call(cls, method)
  }
  const end = (): void => {
    if (!open) return
    open = false
    handlers.clear()
    reach.close()
  }
  const listed = (): readonly DeviceEntry[] => {
    const { devices, classes } = call(SystemClass, 'query') as Out<typeof SystemClass.methods.query>
    return devices.map(({ name, driver, nodeType, nodeGuid, ...rest }) => ({
      name: text(name),
      driver: text(driver),
      ...rest,
      nodeType: nodeTypes.find(([, value]) => value === nodeType)?.[0],
      nodeGuid: guidText(nodeGuid),
      classes: classes.filter(({ index }) => index === rest.index).map(row => row.class),
    }))
  }
  const system: System = {
    devices: listed,
    interface(name) {
      if (name === undefined) return declare(call(Interface, 'query') as Description)
      checkText('system.interface', 'name', name)
      const found = listed()
      const device = found.find(one => one.name === name)
      if (device !== undefined) return declare(reach.describe(device))
      const names = found.map(one => one.name).join(', ') || 'none'
      throw refused('ENODEV', 'open', `there is no device ${name}; there are: ${names}`)
    },
    onChange(handler) {
      const own = (change: DeviceChange): void => handler(change)
      handlers.add(own)
      return () => {
        handlers.delete(own)
      }
    },
    close: end,
    [Symbol.dispose]: end,
  }
  showAs(system, 'System', () => ({ devices: orElse(() => listed().map(({ name }) => name), []) }))
  return system
}
