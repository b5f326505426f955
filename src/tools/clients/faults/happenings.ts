/*
 * What fault rules let happen to devices, subnets and processes: links go down, devices fail or leave, signals come,
 * and programs get events.
 */
import { callerWithoutMemory } from '../../../core/dispatch/caller.ts'
import { invokeTyped, methodOf } from '../../../core/dispatch/invoke.ts'
import { raiseInContext, raiseObjectEvent } from '../../../core/events/events.ts'
import { reportFailure } from '../../../core/failures.ts'
import type { Context, CoreObject, Device } from '../../../core/model.ts'
import { CABLE_ON_WAY, changesDevice, changesFabric, type Happening, happens } from '../../../faults/rule.ts'
import { causeOfRule } from '../../../spec/check/causes.ts'
import { AsyncEventType, QpState } from '../../../spec/enums.ts'
import { CallError } from '../../../spec/errno.ts'
import { type ActingRule, deviceEvents, queuePairClasses } from '../../../spec/faults.ts'
import { MODIFY } from '../../../spec/schema/schema.ts'
import type { Outages } from './outages.ts'
import type { FaultSources } from './sources.ts'

const deviceFailure = callerWithoutMemory('a device that fails')

/** The port of events of ports: devices have one. */
const PORT = 1
const PORTLESS: ReadonlySet<string> = new Set(['DEVICE_FATAL', 'DEVICE_SPEED_CHANGE'])

const isOfDevice = (event: string): boolean => (deviceEvents as readonly string[]).includes(event)

/** Raises an event for the program of a context: of `object`, the port or the device. */
export const raise = (context: Context, object: CoreObject | undefined, event: string, rule: ActingRule): void => {
  if (event === '' || context.isClosed || !context.device.isAlive) return
  const type = AsyncEventType.values[event as keyof typeof AsyncEventType.values]
  const cause = causeOfRule(rule)
  if (isOfDevice(event)) {
    raiseInContext(context, { type, port: PORTLESS.has(event) ? undefined : PORT }, cause)
    return
  }
  if (object === undefined) return
  raiseObjectEvent(object, type)
  reportFailure({ kind: 'event', device: context.device.name, event: type, cause }, context.device, context)
}

/** The device fails: all its queue pairs go to ERR, and its programs get DEVICE_FATAL. */
const failDevice = ({ contexts }: Device, rule: ActingRule): void => {
  for (const context of contexts) {
    for (const object of context.handles.slots) {
      if (object === undefined || !queuePairClasses.includes(object.class.name)) continue
      try {
        const entry = methodOf(context, object.class, MODIFY, 'modify')
        void invokeTyped(context, entry, object.handle, { state: QpState.values.ERR }, deviceFailure)
      } catch (error) {
        // A queue pair in RESET has no way to ERR, and nothing to flush.
        if (!(error instanceof CallError)) throw error
      }
    }
    raise(context, undefined, 'DEVICE_FATAL', rule)
  }
}

export class Happenings {
  readonly #outages: Outages
  readonly #sources: FaultSources
  /** Fulfilled when what rules let happen to devices now has happened. */
  done: Promise<void> = Promise.resolve()

  constructor(outages: Outages, sources: FaultSources) {
    this.#outages = outages
    this.#sources = sources
  }

  happen(devices: readonly Device[], pid: number, fault: ActingRule & { readonly happening: Happening }): void {
    const sources = this.#sources
    const { happening } = fault
    if (!happens(happening)) return
    const { signal, stop } = happening
    if (signal !== '') sources.signal(pid, signal)
    if (stop > 0) {
      sources.signal(pid, 'STOP')
      void sources.wait(stop).then(() => sources.signal(pid, 'CONT'))
    }
    if (!changesDevice(happening) && !changesFabric(happening)) return
    // Not at once: the device may be in the middle of a poll.
    this.done = sources.wait(0).then(() => this.#change(devices, fault))
  }

  /** The device tells nothing any more, or nothing of half of its queue pairs. */
  #silence(device: Device, { number, text }: ActingRule, isHalf: boolean): void {
    if (device.driver.canBeSilent !== true) return
    device.taps.silenced = { rule: { number, text }, isHalf }
    if (!isHalf) this.#sources.cutOff(device)
  }

  #change(devices: readonly Device[], fault: ActingRule & { readonly happening: Happening }): void {
    const { link, gid, cable, router, manager, gone, fatal } = fault.happening
    if (cable !== '') {
      const between = cable.between === CABLE_ON_WAY ? undefined : cable.between
      this.#outages.disturb(devices, { kind: 'cable', between }, cable.lasts, fault.scope)
    }
    if (router !== '') this.#outages.disturb(devices, { kind: 'router', name: router.name }, router.lasts, fault.scope)
    if (manager > 0) this.#outages.disturb(devices, { kind: 'manager' }, manager, fault.scope)
    for (const device of devices) {
      if (device.isAlive && link > 0) this.#outages.setLink(device, false, link, fault.scope)
      if (device.isAlive && gid > 0) this.#sources.moveGid(device, gid)
      if (device.isAlive && fatal === 'qps') failDevice(device, fault)
      else if (device.isAlive && fatal !== '') this.#silence(device, fault, fatal === 'half')
      if (device.isAlive && gone > 0) this.#sources.remove(device, gone)
    }
  }
}
