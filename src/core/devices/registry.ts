/*
 * The registry of devices (R19–R24, docs/decisions/one-way-in.md).
 *
 * `register` compiles the driver's table with core's and publishes the device under its name. `unregister` makes every
 * call fail with EIO, frees the name, withdraws unread events of the device's objects, sends DEVICE_FATAL (event 8) to
 * every async fd, removes the device from the clients, and destroys all objects of all contexts in reverse order of
 * dependency; clients that poll rings without calls still have them mapped. There may be very many objects, so they are
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

/**
 * Number of steps that a function `CoreOptions.run` should take in one turn of the event loop: about 0.3 ms. Most steps
 * destroy one object.
 */
export const STEPS_PER_TURN = 32

export interface CoreOptions {
  /** Default: `coreClasses`. Clients and tests add classes of their own. */
  readonly classes?: readonly DriverClass[]
  /**
   * The clock for event thresholds and device.queryClock, in microseconds; the owner of core calls `expire` at
   * `nextDue`. Default: always 0.
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
   * Runs a long job, for example a few steps in each turn of the event loop. The job never throws. Default: runs all
   * steps immediately.
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
  classes: new Map(classes.map(cls => [cls.class.name, cls])),
  tables: createPool(),
  clients: [],
  system: undefined,
  now,
  random,
  report,
  runJob: run,
  endingContexts: new Set(),
  deadlines: [],
  nextObject: 1,
  nextContext: 1,
  allowsPrivilegedQkeys: false,
  waitingCalls: 0,
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

const checkName = (core: Core, name: string): void => {
  if (!/^[\w.-]{1,63}$/.test(name))
    throw new CallError(
      'EINVAL',
      `device name ${JSON.stringify(name)}: 1 to 63 letters, digits, '_', '-' and '.' are allowed`,
    )
  if (core.devices.has(name)) throw new CallError('EEXIST', `there is a device ${name} already`)
}

/**
 * Registers a device. Throws EINVAL for an invalid name, EEXIST for a name in use, and an Error for an invalid table or
 * number of ports, which is a bug of the driver.
 */
export const register = <D>(core: Core, description: DeviceDescription<D>): Device<D> => {
  const { name, attributes, ports } = description
  checkName(core, name)
  if (attributes.physPortCnt !== ports.length)
    throw new Error(`device ${name}: physPortCnt is ${attributes.physPortCnt}, but ${ports.length} ports are described`)

  const device = assembleDevice(core, description, freeIndex(core))
  core.devices.set(name, device as Device)
  announce(core, device as Device)
  // A client may have removed it.
  if (device.isAlive) raiseDeviceListChanged(device as Device, DEVICE_ADDED)
  return device
}

/**
 * Removes a device, regardless of its clients. When this returns its calls are refused and its name is free. `onEnded`
 * is called when its objects are destroyed, even if a function of the driver throws. Throws an Error if the device is
 * removed already.
 */
export const unregister = (device: Device, onEnded: () => void = () => {}): void => {
  const { core } = device
  if (!device.isAlive) throw new Error(`device ${device.name} is removed already`)
  device.isAlive = false
  core.devices.delete(device.name)
  const steps = [
    () => forgetEvents(device),
    () => raiseDevice(device, DEVICE_FATAL),
    () => withdraw(core, device),
    () => {
      for (const { mapped } of device.contexts) mapped?.keepMapped?.()
    },
  ]
  for (const step of steps) attempt(core, step)
  core.runJob(removal(device, onEnded))
}

/** The slow part of a device's removal, in steps. */
function* removal(device: Device, onEnded: () => void): Generator<unknown> {
  const { core, driver } = device
  yield* attemptSteps(core, () => driver.removing?.(device))
  // Newest first: later contexts may use objects of earlier ones.
  for (const context of [...device.contexts].reverse()) {
    if (!context.isClosed) beginClose(context)
    yield* destroyObjects(context, 'remove')
  }
  const steps = [
    () => driver.removed?.(device),
    () => releaseTable(core.tables, device.sharedTable),
    () => raiseDeviceListChanged(device, DEVICE_REMOVED),
    onEnded,
  ]
  for (const step of steps) attempt(core, step)
}

/** Renames a device. EINVAL for an invalid name, EEXIST for another device's name; no effect for its current name. */
export const renameDevice = (device: Device, name: string): void => {
  const { core } = device
  if (name === device.name) return
  checkName(core, name)
  core.devices.delete(device.name)
  device.name = name
  core.devices.set(name, device)
}

/** Whether the device has class `device`, and so an opening call; if not, its contexts can be used immediately. */
const hasOpenMethod = ({ sharedTable }: Device): boolean => sharedTable.byName.has(DeviceClass.name)

/**
 * Opens a device for a client. Throws EIO for a removed device. `isOpened`: the client needs no opening call
 * (device.open); otherwise it makes it later. `mapped`: memory that the client can map. `account`: to which its objects
 * are charged.
 */
export const openContext = <D>(
  device: Device<D>,
  options: { isOpened?: boolean; mapped?: MappedMemory; account?: MemoryAccount } = {},
): Context<unknown, D> => {
  if (!device.isAlive) throw new CallError('EIO', `device ${device.name} was removed`)
  const { core } = device
  const context: Context<unknown, D> = {
    id: core.nextContext++,
    device,
    handles: createHandles(),
    descriptors: new Set(),
    state: undefined,
    mapped: options.mapped,
    isOpened: options.isOpened ?? !hasOpenMethod(device as Device),
    isClosed: false,
    windowCount: 0,
    whenEnded: [],
    account: options.account,
    asyncFd: undefined,
    lastParents: [],
    lastRoute: noRoute,
    abortController: undefined,
    views: new WeakMap(),
  }
  device.contexts.add(context as Context)
  return context
}

/** From now on calls of the context are refused. */
const beginClose = (context: Context): void => {
  const { core } = context.device
  context.isClosed = true
  core.endingContexts.add(context)
  attempt(core, () => context.abortController?.abort())
}

/**
 * Destroys the objects of a context, in steps. If the device is removed meanwhile, its removal runs this function a
 * second time before the first run has ended; only the run that finishes first calls `driver.closed` and the callbacks.
 */
function* destroyObjects(context: Context, why: 'close' | 'remove'): Generator<unknown> {
  const { device, whenEnded = [] } = context
  const { core, driver } = device
  if (why === 'close') yield* attemptSteps(core, () => driver.closing?.(context))
  yield* attemptSteps(core, () => destroyAll(context, why))
  if (!device.contexts.delete(context)) return
  core.endingContexts.delete(context)
  context.whenEnded = undefined
  attempt(core, () => driver.closed?.(context))
  for (const callback of whenEnded) attempt(core, callback)
}

/**
 * Closes a context: it cannot be used any more, and its objects are destroyed. Never fails, and may be repeated.
 * `onEnded` is called when all objects are destroyed.
 */
export const closeContext = (context: Context, onEnded: () => void = () => {}): void => {
  if (context.whenEnded === undefined) onEnded()
  else context.whenEnded.push(onEnded)
  if (context.isClosed) return
  beginClose(context)
  context.device.core.runJob(destroyObjects(context, 'close'))
}

/**
 * Resolves when all contexts of a user that are closed by now have been destroyed, so that their resources are
 * available again. Undefined if there are none.
 */
export const untilContextsDestroyed = (core: Core, user: number): Promise<void> | undefined => {
  const ending = [...core.endingContexts].filter(({ account }) => account?.user === user)
  if (ending.length === 0) return undefined
  return Promise.all(ending.map(context => new Promise<void>(resolve => closeContext(context, resolve)))).then(() => {})
}

/** A signal for asynchronous handlers: aborts when the context closes or the device is removed. */
export const abortSignalOf = (context: Context): AbortSignal => {
  context.abortController ??= new AbortController()
  if (context.isClosed) context.abortController.abort()
  return context.abortController.signal
}

/** Adds a hook to a device's calls; the returned function removes it. */
export const addHook = (device: Device, hook: Hook): (() => void) => {
  device.hooks.push(hook)
  device.table = withHooks(device.sharedTable, device.hooks)
  return () => {
    const index = device.hooks.indexOf(hook)
    if (index < 0) return
    device.hooks.splice(index, 1)
    device.table = withHooks(device.sharedTable, device.hooks)
  }
}
