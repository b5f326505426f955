/*
 * The registry of devices (R19–R24, docs/decisions/one-way-in.md).
 *
 * `register` compiles the driver's table with core's and publishes the device under its name. `unregister` makes every
 * call fail with EIO, withdraws unread events of the device's objects, sends DEVICE_FATAL (event 8) to every async fd,
 * frees the name, and destroys all objects of all contexts in order. There may be very many objects, so they are
 * destroyed in steps, which the owner of core spreads over turns of its event loop (`CoreOptions.run`). Hooks apply to
 * the calls of one device; its table is rebuilt when a hook is added or removed, so that a device without hooks has no
 * cost.
 */
import { Device as DeviceClass } from '../../spec/classes/device/device.ts'
import { AsyncEventType } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import { attempt, attemptSteps } from '../attempt.ts'
import { coreClasses } from '../base/all.ts'
import { createPool, releaseTable } from '../dispatch/compile.ts'
import { withHooks } from '../dispatch/hooks.ts'
import { DEVICE_FATAL, forgetEvents, noRoute, raiseDevice } from '../events/events.ts'
import type { MappedMemory } from '../memory/mappable-memory.ts'
import type { Context, Core, Device, DriverClass, Hook, MemoryAccount } from '../model.ts'
import { createHandles } from '../objects/handles.ts'
import { destroyAll } from '../objects/lifetime.ts'
import { assembleDevice, type DeviceDescription } from './assemble.ts'
import { announce, withdraw } from './clients.ts'
import { raiseDeviceListChanged } from './system.ts'

const { DEVICE_ADDED, DEVICE_REMOVED } = AsyncEventType.values

/** Number of steps, each the end of one object, for `CoreOptions.run` in one turn of the event loop: some 0.3 ms. */
export const STEPS_PER_TURN = 32

export interface CoreOptions {
  /** Default: `coreClasses`. Clients and tests add classes of their own. */
  readonly classes?: readonly DriverClass[]
  /**
   * The clock for event thresholds, in microseconds; the owner of core calls `expire` at `nextDue`. Default: always 0.
   */
  readonly now?: () => number
  /**
   * Returns a u32, from which the first keys of memory and QPNs come. A core with several users needs an unpredictable
   * source. Default: always 0.
   */
  readonly random?: () => number
  /** Called with every exception that core has caught (attempt.ts). */
  readonly report?: (error: unknown) => void
  /**
   * Runs a long job, for example a few steps in each turn. The job never throws. Default: runs all steps immediately.
   */
  readonly run?: (job: Iterator<unknown>) => void
}

const runToEnd = (job: Iterator<unknown>): void => {
  while (job.next().done !== true);
}

/** Creates a core without devices. */
export const createCore = ({
  classes = coreClasses,
  now = () => 0,
  random = () => 0,
  report = () => {},
  run = runToEnd,
}: CoreOptions = {}): Core => ({
  devices: new Map(),
  descriptors: new Map(),
  classes: new Map(classes.map(line => [line.class.name, line])),
  tables: createPool(),
  clients: [],
  system: undefined,
  now,
  random,
  report,
  run,
  ending: new Set(),
  deadlines: [],
  nextObject: 1,
  nextContext: 1,
  privilegedQkeys: false,
  waiting: 0,
  faults: 0,
  events: 0,
})

/** The lowest free device number (`Device.index`). */
const freeIndex = (core: Core): number => {
  const taken = new Set([...core.devices.values()].map(({ index }) => index))
  let index = 0
  while (taken.has(index)) index++
  return index
}

const requireName = (core: Core, name: string): void => {
  if (!/^[\w.-]{1,63}$/.test(name))
    throw new CallError(
      'EINVAL',
      `device name ${JSON.stringify(name)}: up to 63 letters, digits, '_', '-' and '.' are allowed`,
    )
  if (core.devices.has(name)) throw new CallError('EEXIST', `there is a device ${name} already`)
}

/**
 * Registers a device. Throws EEXIST for a name in use, and an Error for an invalid table or description, which is a bug
 * of the driver.
 */
export const register = <D>(core: Core, description: DeviceDescription<D>): Device<D> => {
  const { name, attributes, ports } = description
  requireName(core, name)
  if (attributes.physPortCnt !== ports.length)
    throw new Error(`device ${name}: physPortCnt is ${attributes.physPortCnt}, but ${ports.length} ports are described`)

  const device = assembleDevice(core, description, freeIndex(core))
  core.devices.set(name, device as Device)
  announce(core, device as Device)
  // A client may have removed it.
  if (device.alive) raiseDeviceListChanged(device as Device, DEVICE_ADDED)
  return device
}

/**
 * Removes a device, regardless of its clients. When this returns its calls are refused and its name is free. `ended` is
 * called when its objects are destroyed, even if a function of the driver throws.
 */
export const unregister = (device: Device, ended: () => void = () => {}): void => {
  const { core } = device
  if (!device.alive) throw new Error(`device ${device.name} is removed already`)
  device.alive = false
  core.devices.delete(device.name)
  const steps = [
    () => forgetEvents(device),
    () => raiseDevice(device, DEVICE_FATAL),
    () => withdraw(core, device),
    () => {
      for (const { mapped } of device.contexts) mapped?.keep?.()
    },
  ]
  for (const step of steps) attempt(core, step)
  core.run(removal(device, ended))
}

/** The slow part of a device's removal, in steps. */
function* removal(device: Device, ended: () => void): Generator<unknown> {
  const { core, driver } = device
  yield* attemptSteps(core, () => driver.removing?.(device))
  // Newest first: later contexts may use objects of earlier ones.
  for (const context of [...device.contexts].reverse()) {
    if (!context.closed) beginClose(context)
    yield* destroyObjects(context, 'remove')
  }
  const steps = [
    () => driver.removed?.(device),
    () => releaseTable(core.tables, device.shared),
    () => raiseDeviceListChanged(device, DEVICE_REMOVED),
    ended,
  ]
  for (const step of steps) attempt(core, step)
}

/** Renames a device. EINVAL for an invalid name, EEXIST for another device's name; no effect for its current name. */
export const renameDevice = (device: Device, name: string): void => {
  const { core } = device
  if (name === device.name) return
  requireName(core, name)
  core.devices.delete(device.name)
  device.name = name
  core.devices.set(name, device)
}

/** Whether the device has class `device`, and so an opening call; if not, its contexts can be used immediately. */
const hasOpening = ({ shared }: Device): boolean => shared.byName.has(DeviceClass.name)

/**
 * Opens a device for a client. `opened`: the opening call (device.open) was made already; otherwise a dialect makes it
 * later. `mapped`: memory that the client can map.
 */
export const openContext = <D>(
  device: Device<D>,
  options: { opened?: boolean; mapped?: MappedMemory; account?: MemoryAccount } = {},
): Context<unknown, D> => {
  if (!device.alive) throw new CallError('EIO', `device ${device.name} was removed`)
  const { core } = device
  const context: Context<unknown, D> = {
    id: core.nextContext++,
    device,
    handles: createHandles(),
    descriptors: new Set(),
    state: undefined,
    mapped: options.mapped,
    opened: options.opened ?? !hasOpening(device as Device),
    closed: false,
    windows: 0,
    whenEnded: [],
    account: options.account,
    asyncFd: undefined,
    parents: [],
    route: noRoute,
    abort: undefined,
    views: new WeakMap(),
  }
  device.contexts.add(context as Context)
  return context
}

/** From now on calls of the context are refused. */
const beginClose = (context: Context): void => {
  const { core } = context.device
  context.closed = true
  core.ending.add(context)
  attempt(core, () => context.abort?.abort())
}

/**
 * Destroys the objects of a context, in steps. If the device is removed meanwhile, its removal starts a second run
 * before this one has ended; the first to finish does the rest.
 */
function* destroyObjects(context: Context, why: 'close' | 'remove'): Generator<unknown> {
  const { device, whenEnded = [] } = context
  const { core, driver } = device
  if (why === 'close') yield* attemptSteps(core, () => driver.closing?.(context))
  yield* attemptSteps(core, () => destroyAll(context, why))
  if (!device.contexts.delete(context)) return
  core.ending.delete(context)
  context.whenEnded = undefined
  attempt(core, () => driver.closed?.(context))
  for (const ended of whenEnded) attempt(core, ended)
}

/**
 * Closes a context: it cannot be used any more, and its objects are destroyed. Never fails; no effect when repeated, or
 * after the device was removed. `ended` is called when all objects are destroyed.
 */
export const closeContext = (context: Context, ended: () => void = () => {}): void => {
  if (context.whenEnded === undefined) ended()
  else context.whenEnded.push(ended)
  if (context.closed) return
  beginClose(context)
  context.device.core.run(destroyObjects(context, 'close'))
}

/**
 * Resolves when all contexts of a user that are closed by now have been destroyed, so that their resources are
 * available again. Undefined if there are none.
 */
export const untilEnded = (core: Core, user: number): Promise<void> | undefined => {
  const ending = [...core.ending].filter(({ account }) => account?.user === user)
  if (ending.length === 0) return undefined
  return Promise.all(ending.map(context => new Promise<void>(ended => closeContext(context, ended)))).then(() => {})
}

/** A signal for asynchronous handlers: aborts when the context closes or the device is removed. */
export const abortSignalOf = (context: Context): AbortSignal => {
  context.abort ??= new AbortController()
  if (context.closed) context.abort.abort()
  return context.abort.signal
}

/** Adds a hook to a device's calls; the returned function removes it. */
export const addHook = (device: Device, hook: Hook): (() => void) => {
  device.hooks.push(hook)
  device.table = withHooks(device.shared, device.hooks)
  return () => {
    const at = device.hooks.indexOf(hook)
    if (at < 0) return
    device.hooks.splice(at, 1)
    device.table = withHooks(device.shared, device.hooks)
  }
}
