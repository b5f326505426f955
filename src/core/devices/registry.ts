/*
 * The registry of devices (R19–R24, docs/decisions/one-way-in.md).
 *
 * `register` compiles the driver's table with core's and publishes the device under its name. `unregister` does the
 * reverse:
 * - All calls fail with EIO, and the name is free.
 * - Unread events of objects are withdrawn, and every async fd gets DEVICE_FATAL.
 * - Clients lose the device.
 * - All objects of all contexts are destroyed in reverse order of dependency. Rings stay mapped for programs that poll
 *   them.
 *
 * There may be very many objects, so they are destroyed in steps, which the owner of core spreads over turns of its
 * event loop (`CoreOptions.run`).
 */
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { AsyncEventType } from '../../spec/enums.ts'
import { callError, gone } from '../../spec/errno.ts'
import { attempt, attemptSteps } from '../attempt.ts'
import { coreClasses } from '../base/all.ts'
import { createPool, releaseTable } from '../dispatch/compile.ts'
import { withHooks } from '../dispatch/hooks.ts'
import type { ClientClasses, DriverClass } from '../driver-contract.ts'
import { DEVICE_FATAL, forgetEvents, noRoute, raiseDevice } from '../events/events.ts'
import type { MappedMemory } from '../memory/mappable-memory.ts'
import type { Account, Context, Core, Device, Hook } from '../model.ts'
import { createHandles } from '../objects/handles.ts'
import { destroyAll } from '../objects/lifetime.ts'
import { assembleDevice, type DeviceDescription } from './assemble.ts'
import { announce, withdraw } from './clients.ts'
import { raiseDeviceListChanged } from './system.ts'

const { DEVICE_ADDED, DEVICE_REMOVED } = AsyncEventType.values

/**
 * Number of steps that `CoreOptions.run` should take in one turn of the event loop: about 0.3 ms. Most steps destroy
 * one object.
 */
export const STEPS_PER_TURN = 32

/** Above all handles, so that a descriptor that is passed as a handle is unknown. */
const FIRST_DESCRIPTOR = 2 ** 30

export interface CoreOptions {
  /** Default: `coreClasses`. */
  readonly classes?: readonly DriverClass[]
  /** Those of `classes` that belong to clients of core; default none. */
  readonly clientClasses?: readonly ClientClasses[]
  /**
   * Microseconds: the clock for event thresholds and device.queryClock. The owner of core calls `expire` at `nextDue`.
   * Default: always 0.
   */
  readonly now?: () => number
  /**
   * Returns a u32, from which the first memory keys and QPNs come. Must be unpredictable if several users share the
   * core. Default: always 0.
   */
  readonly random?: () => number
  /** Called with every exception that core has caught. Must not throw. */
  readonly report?: (error: unknown) => void
  /**
   * Runs a long job, for example some steps in each turn of the event loop. The job never throws. Default: all steps
   * immediately.
   */
  readonly run?: (job: Iterator<unknown>) => void
  /** As `run`, for the rest of a call that takes longer than `maxCallTime`. Default: `run`. */
  readonly runCall?: (job: Iterator<unknown>) => void
  /**
   * Microseconds of `now`: the remaining entries of a chain that has taken longer run as a job. Default: no limit, so
   * that chains of synchronous calls are synchronous.
   */
  readonly maxCallTime?: number
}

const runToEnd = (job: Iterator<unknown>): void => {
  while (job.next().done !== true);
}

/** Creates a core without devices. */
export const createCore = ({
  classes = coreClasses,
  clientClasses = [],
  now = () => 0,
  random = () => 0,
  report = () => {},
  run = runToEnd,
  runCall = run,
  maxCallTime = Number.POSITIVE_INFINITY,
}: CoreOptions = {}): Core => ({
  devices: new Map(),
  descriptors: new Map(),
  classes: new Map(classes.map(cls => [cls.class.name, cls])),
  clientClasses,
  tables: createPool(),
  clients: [],
  system: undefined,
  now,
  random,
  report,
  maxCallTime,
  runJob: run,
  runCall,
  endingContexts: new Set(),
  endingDevices: new Set(),
  deadlines: [],
  nextObject: 1,
  nextDescriptor: FIRST_DESCRIPTOR,
  descriptorEnds: new Set(),
  nextContext: 1,
  nextDevice: 0,
  allowsPrivilegedQkeys: false,
  waitingCalls: 0,
  faults: 0,
  events: 0,
  eventDelays: undefined,
})

/**
 * The lowest free device number (`Device.index`). A removed device keeps its number until DEVICE_REMOVED is raised:
 * otherwise the event would seem to be about the next device with the number.
 */
const freeIndex = (core: Core): number => {
  const taken = new Set([...core.devices.values(), ...core.endingDevices].map(({ index }) => index))
  let index = 0
  while (taken.has(index)) index++
  return index
}

const checkName = (core: Core, name: string): void => {
  if (!/^[\w.-]{1,63}$/.test(name))
    throw callError.EINVAL`device name ${JSON.stringify(name)}: 1 to 63 letters, digits, '_', '-' and '.' are allowed`
  if (core.devices.has(name)) throw callError.EEXIST`there is a device ${name} already`
}

/**
 * Registers a device. Throws EINVAL for an invalid name, EEXIST for a name in use, and an Error for an invalid table or
 * number of ports.
 */
export const register = <D>(core: Core, description: DeviceDescription<D>): Device<D> => {
  const { name, attributes, ports } = description
  checkName(core, name)
  if (attributes.physPortCnt !== ports.length)
    throw new Error(`device ${name}: physPortCnt is ${attributes.physPortCnt}, but ${ports.length} ports are described`)

  const device = assembleDevice(core, description, freeIndex(core), core.nextDevice)
  core.nextDevice++
  core.devices.set(name, device as Device)
  announce(core, device as Device)
  // A client may have removed the device.
  if (device.isAlive) raiseDeviceListChanged(device as Device, DEVICE_ADDED)
  return device
}

/**
 * Removes a device. At the return its calls are refused and its name is free. `onEnded` is called after its objects are
 * destroyed, even if a function of the driver throws. Throws an Error if the device is removed already.
 */
export const unregister = (device: Device, onEnded: () => void = () => {}): void => {
  const { core } = device
  if (!device.isAlive) throw new Error(`device ${device.name} is removed already`)
  device.isAlive = false
  core.devices.delete(device.name)
  core.endingDevices.add(device)
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
    () => core.endingDevices.delete(device),
    onEnded,
  ]
  for (const step of steps) attempt(core, step)
}

/**
 * Renames a device. EINVAL for an invalid name, EEXIST for another device's name; no effect for its current name.
 * Throws an Error if the device is removed.
 */
export const renameDevice = (device: Device, name: string): void => {
  const { core } = device
  if (!device.isAlive) throw new Error(`device ${device.name} is removed and cannot be renamed`)
  if (name === device.name) return
  checkName(core, name)
  core.devices.delete(device.name)
  device.name = name
  core.devices.set(name, device)
}

/** Whether the device has an opening call. Without one, contexts can be used immediately. */
const hasOpenMethod = ({ sharedTable }: Device): boolean => sharedTable.byName.has(DeviceClass.name)

/**
 * Opens a device for a client. Throws EIO for a removed device. `isOpened`: the client makes no opening call
 * (device.open). `mapped`: memory that the client can map. `account`: charged for the context's objects.
 */
export const openContext = <D>(
  device: Device<D>,
  options: { isOpened?: boolean; mapped?: MappedMemory; account?: Account } = {},
): Context<unknown, D> => {
  if (!device.isAlive) throw gone`device ${device.name} was removed`
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
    owned: undefined,
    whenEnded: [],
    account: options.account,
    asyncFd: undefined,
    program: undefined,
    lastParents: [],
    lastRoute: noRoute,
    abortController: undefined,
    views: new WeakMap(),
  }
  device.contexts.add(context as Context)
  return context
}

const beginClose = (context: Context): void => {
  const { core } = context.device
  context.isClosed = true
  core.endingContexts.add(context)
  attempt(core, () => context.abortController?.abort())
}

/**
 * Destroys the objects of a context, in steps. If the device is removed meanwhile, the removal runs a second instance
 * of this job. Only the instance that ends first calls the callbacks.
 */
function* destroyObjects(context: Context, why: 'close' | 'remove'): Generator<unknown> {
  const { device, whenEnded = [] } = context
  const { core, driver } = device
  if (why === 'close') yield* attemptSteps(core, () => driver.closing?.(context))
  yield* attemptSteps(core, () => destroyAll(context, why))
  if (!device.contexts.delete(context)) return
  core.endingContexts.delete(context)
  context.whenEnded = undefined
  for (const callback of whenEnded) attempt(core, callback)
}

/**
 * Closes a context and destroys its objects. Never fails, and may be repeated. `onEnded` is called after all objects
 * are destroyed.
 */
export const closeContext = (context: Context, onEnded: () => void = () => {}): void => {
  if (context.whenEnded === undefined) onEnded()
  else context.whenEnded.push(onEnded)
  if (context.isClosed) return
  beginClose(context)
  context.device.core.runJob(destroyObjects(context, 'close'))
}

/**
 * Resolves when the closed contexts of a user are destroyed and their resources are available again. Undefined: there
 * are none.
 */
export const untilContextsDestroyed = (core: Core, user: number): Promise<void> | undefined => {
  const ending = [...core.endingContexts].filter(({ account }) => account?.user === user)
  if (ending.length === 0) return undefined
  return Promise.all(ending.map(context => new Promise<void>(resolve => closeContext(context, resolve)))).then(() => {})
}

/** For asynchronous handlers: aborts when the context closes or the device is removed. */
export const abortSignalOf = (context: Context): AbortSignal => {
  context.abortController ??= new AbortController()
  if (context.isClosed) context.abortController.abort()
  return context.abortController.signal
}

/** Adds a hook to a device's calls; the returned function removes it. A hook may be added several times. */
export const addHook = (device: Device, hook: Hook): (() => void) => {
  device.hooks.push(hook)
  device.table = withHooks(device.sharedTable, device.hooks)
  let isAdded = true
  return () => {
    if (!isAdded) return
    isAdded = false
    device.hooks.splice(device.hooks.indexOf(hook), 1)
    device.table = withHooks(device.sharedTable, device.hooks)
  }
}
