/*
 * The system-wide device (R13, R18): lists the devices of a network in this process or of a daemon, and reports added
 * and removed devices.
 */
import { noDeviceText } from '../../base/suggest.ts'
import { addEventHandler } from '../../core/devices/clients.ts'
import { closeContext, openContext } from '../../core/devices/registry.ts'
import { systemDevice } from '../../core/devices/system.ts'
import { callerWithoutMemory } from '../../core/dispatch/caller.ts'
import { invokeNow } from '../../core/dispatch/invoke.ts'
import type { Context, Device } from '../../core/model.ts'
import type { Watch } from '../../host/event-loop/poll.ts'
import { close } from '../../host/net/sockets.ts'
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { Interface } from '../../spec/classes/device/interface.ts'
import { SystemClass } from '../../spec/classes/device/system.ts'
import { AsyncFd } from '../../spec/classes/events/async_fd.ts'
import { AsyncEventType, NodeType } from '../../spec/enums.ts'
import { errnoName } from '../../spec/errno.ts'
import type { AnyValues, ObjectClass, Out } from '../../spec/schema/schema.ts'
import { SYSTEM_NODE } from '../../spec/session.ts'
import { declare } from '../../uapi/object/description.ts'
import { writeRequest } from '../../uapi/session-codec.ts'
import { checkNetwork, type LocalNetwork, type Network } from '../network/contract.ts'
import { checkOptions, type KnownOptions } from '../verbs/arguments/options.ts'
import { asProgramCall, checkText, closedError, invalidArgument, refusal, refused, rethrow } from '../verbs/error.ts'
import { Handlers } from '../verbs/handlers.ts'
import { orElse, showAs } from '../verbs/objects/show.ts'
import { joinDaemon, type Session } from '../verbs/remote/daemon-session.ts'
import { createCalls } from '../verbs/remote/messages.ts'
import { ASYNC_RECORD, readRecords } from '../verbs/remote/records.ts'
import { socketPath } from '../verbs/remote/socket-path.ts'
import { closeAtThreadEnd, forgetThreadEnd } from '../verbs/thread-end.ts'

/** ibv_node_type by name. */
export type NodeTypeName = keyof typeof NodeType.values

/** A device as the system-wide device lists it. */
export interface DeviceEntry {
  /** Name of the device. */
  readonly name: string
  /** N of uverbsN. A new device may get the number of a removed device. */
  readonly index: number
  /** Name of the driver. */
  readonly driver: string
  /** rdma_driver_id of Linux. */
  readonly driverId: number
  /** ibv_node_type by name; undefined for a type that this release does not know. */
  readonly nodeType: NodeTypeName | undefined
  /** Number of ports. */
  readonly ports: number
  /** Node GUID as in sysfs: four groups of four hexadecimal digits, '0200:00ff:fe00:0001'. */
  readonly nodeGuid: string
  /** Version of Linux's uverbs ABI. */
  readonly uverbsAbi: number
  /** Version of the driver's ABI. */
  readonly driverAbi: number
  /** Ids of the device's classes (`ObjectClass.id`). */
  readonly classes: readonly number[]
}

/** A device was added or removed. */
export interface DeviceChange {
  /** Whether the device was added or removed. */
  readonly type: 'added' | 'removed'
  /** Index of the device, see `DeviceEntry.index`. */
  readonly index: number
}

/** The system-wide device: the list of devices. */
export interface System extends Disposable {
  /** The current devices, in the order of `index`. Throws RdmaError ERR_CLOSED after `close`. */
  devices(): readonly DeviceEntry[]
  /**
   * The classes of the device with this name, as the device describes them. Without a name, the classes of the
   * system-wide device. Throws RdmaError ENODEV if no device has the name.
   */
  interface(name?: string): readonly ObjectClass[]
  /**
   * Calls `handler` for each device that is added or removed, until the returned function or `close` is called. Does
   * not keep the process alive.
   */
  onChange(handler: (change: DeviceChange) => void): () => void
  /** Closes the system-wide device. */
  close(): void
}

/** Options of `openSystem`; exactly one of them. */
export interface SystemOptions {
  /** A network in this process. */
  readonly network?: Network | undefined
  /** The daemon at this path; `true`: the daemon under which the program runs, otherwise the user's own daemon. */
  readonly socket?: string | true | undefined
}

// ---- access to the device, in this process or in a daemon ----

type Description = Out<typeof Interface.methods.query>

interface SystemAccess {
  call(cls: ObjectClass, method: string): AnyValues
  /** A device's own description, queried on a temporary context. */
  describe(device: DeviceEntry): Description
  close(): void
}
/** Called with each event of the system-wide device: its type (AsyncEventType), and the index of the device. */
type Report = (type: number, index: number) => void

/** Access to the devices of a network in this process. */
const accessNetwork = (network: LocalNetwork, report: Report): SystemAccess => {
  const device = systemDevice(network.core)
  const context: Context = openContext(device)
  const caller = callerWithoutMemory('the library')
  // Events of the system-wide device have the index of the added or removed device as their port.
  const unsubscribe = addEventHandler(device, ({ type, port }) => report(type, port ?? 0))
  return {
    call: (cls, method) =>
      rethrow(`${cls.name}.${method}`, () => invokeNow(context, cls, method, 0, {}, caller).out as AnyValues),
    describe: ({ name }) =>
      rethrow('interface.query', () => {
        const temporary = openContext(network.core.devices.get(name) as Device, { isOpened: true })
        try {
          return invokeNow(temporary, Interface, 'query', 0, {}, caller).out
        } finally {
          closeContext(temporary)
        }
      }),
    close() {
      unsubscribe()
      closeContext(context)
    },
  }
}

/**
 * Opens a context on a device node of a daemon. Returns the context's descriptors, and a function that makes calls on
 * the context. `call`, `name`: name of the call and of the device in errors.
 */
const openNode = (session: Session, call: string, node: number, name: string) => {
  const { reply, fds } = session.ask(call, (buffer, header) => writeRequest(buffer, 'OPEN', header, { node }))
  if (reply.error === 0) return { fds, makeCall: createCalls(session, reply.context, fds[0]!) }
  for (const fd of fds) close(fd)
  throw refusal(errnoName(reply.error), reply.error, call, `the daemon at ${session.socket} does not open ${name}`)
}

const describeDaemonDevice = (session: Session, { index, name, classes }: DeviceEntry): Description => {
  const { fds, makeCall } = openNode(session, 'system.interface', index, `device ${name}`)
  try {
    // A device with this class refuses other calls before `open`.
    if (classes.includes(DeviceClass.id)) makeCall(DeviceClass, 'open', 0, {})
    return makeCall(Interface, 'query', 0, {}).out as Description
  } finally {
    for (const fd of fds) close(fd)
  }
}

/** Access to the devices of the daemon at `socket`. Throws RdmaError. */
const accessDaemon = (socket: string, report: Report): SystemAccess => {
  const session = joinDaemon(socket, 'openSystem')
  const fds: number[] = []
  let events: Watch | undefined
  const end = (): void => {
    forgetThreadEnd(end)
    events?.stop()
    for (const fd of fds) close(fd)
    session.leave()
  }
  closeAtThreadEnd(end)
  try {
    const { fds: contextFds, makeCall } = openNode(session, 'openSystem', SYSTEM_NODE, 'the system-wide device')
    fds.push(...contextFds)
    const { object: channel } = makeCall(AsyncFd, 'create', 0, {})
    fds.push(channel)
    // struct ib_uverbs_async_event_desc: u64 element (the index of the device), u32 event_type.
    const onRecord = (record: DataView): void => report(record.getUint32(8, true), record.getUint32(0, true))
    events = readRecords(channel, ASYNC_RECORD, onRecord, () => session.checkAlive())
    events.unref()
    return {
      call: (cls, method) => makeCall(cls, method, 0, {}).out,
      describe: device => describeDaemonDevice(session, device),
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
/** The text of a field that is padded with zeros. */
const paddedText = (bytes: Uint8Array): string => decoder.decode(bytes).replace(/\0+$/, '')
const guidText = (bytes: Uint8Array): string =>
  Array.from({ length: bytes.length / 2 }, (_, i) =>
    ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16).padStart(4, '0'),
  ).join(':')

const systemOptionNames: KnownOptions<SystemOptions> = { network: true, socket: true }

/**
 * Opens the system-wide device of a network or of a daemon. Throws RdmaError: EINVAL unless exactly one of the options
 * is set, ECONNREFUSED without a daemon, EACCES if the daemon does not serve this user or is not trusted, EOPNOTSUPP if
 * native calls are missing.
 */
export const openSystem = (options: SystemOptions = {}): System => {
  checkOptions('openSystem', 'options', options, systemOptionNames)
  const { network, socket } = options
  if ((network === undefined) === (socket === undefined))
    throw invalidArgument(
      'openSystem',
      'pass either network or socket: they name the network, or the daemon, whose devices are listed',
    )
  if (network !== undefined) checkNetwork('openSystem', network)
  const path = socket === undefined ? undefined : socketPath('openSystem', socket)
  const handlers = new Handlers<DeviceChange>()
  const report: Report = (type, index) => {
    if (type !== DEVICE_ADDED && type !== DEVICE_REMOVED) return
    handlers.notify({ type: type === DEVICE_ADDED ? 'added' : 'removed', index })
  }
  const access = path === undefined ? accessNetwork(network as LocalNetwork, report) : accessDaemon(path, report)
  let isOpen = true
  const call = (cls: ObjectClass, method: string): AnyValues => {
    if (!isOpen) throw closedError(`${cls.name}.${method}`, 'the system-wide device')
    return access.call(cls, method)
  }
  const end = (): void => {
    if (!isOpen) return
    isOpen = false
    handlers.clear()
    access.close()
  }
  const listDevices = (): readonly DeviceEntry[] => {
    const { devices, classes } = call(SystemClass, 'query') as Out<typeof SystemClass.methods.query>
    return devices.map(({ name, driver, nodeType, nodeGuid, ...numbers }) => ({
      name: paddedText(name),
      driver: paddedText(driver),
      ...numbers,
      nodeType: nodeTypes.find(([, value]) => value === nodeType)?.[0],
      nodeGuid: guidText(nodeGuid),
      classes: classes.filter(({ index }) => index === numbers.index).map(entry => entry.class),
    }))
  }
  const system: System = {
    devices: () => asProgramCall('system.devices', listDevices),
    interface: name =>
      asProgramCall('system.interface', () => {
        if (name === undefined) return declare(call(Interface, 'query') as Description)
        checkText('system.interface', 'name', name)
        const entries = listDevices()
        const device = entries.find(entry => entry.name === name)
        if (device !== undefined) return declare(access.describe(device))
        const names = entries.map(entry => entry.name)
        throw refused('ENODEV', 'system.interface', noDeviceText(name, names))
      }),
    onChange: handler => handlers.add('system.onChange', handler),
    close: end,
    [Symbol.dispose]: end,
  }
  showAs(system, 'System', () => ({ devices: orElse(() => listDevices().map(({ name }) => name), []) }))
  return system
}
