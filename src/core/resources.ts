/*
 * Lists the objects of a device that have handles, as netlink reports them.
 *
 * There may be very many, so `objectsOf` examines STEP handles per step and yields `undefined` between steps. Objects
 * may be created and destroyed between the steps.
 */
import { type Context, type CoreObject, type Device, Lifecycle } from './model.ts'

const STEP = 1024

/** The open contexts whose opening call was made, oldest first. */
export function* openedContexts(device: Device): Generator<Context> {
  for (const context of device.contexts) if (context.isOpened && !context.isClosed) yield context
}

/** The live objects of these classes in `openedContexts`, ordered by context and handle; `undefined` between steps. */
export function* objectsOf(device: Device, classes: ReadonlySet<string>): Generator<CoreObject | undefined> {
  let remaining = STEP
  for (const { handles } of openedContexts(device))
    for (let handle = 0; handle < handles.slots.length; handle++) {
      const object = handles.slots[handle]
      if (object !== undefined && object.life === Lifecycle.LIVE && classes.has(object.class.name)) yield object
      if (--remaining > 0) continue
      remaining = STEP
      yield undefined
    }
}

/** Number of objects of these classes, also of contexts that are being closed. */
export const countOf = (device: Device, classes: ReadonlySet<string>): number => {
  let sum = 0
  for (const name of classes) sum += device.counts[name] ?? 0
  return sum
}

/** The protection domain of an object; undefined if it has none. */
export const pdOf = ({ parents }: CoreObject): CoreObject | undefined =>
  parents.find(({ class: { name } }) => name === 'pd')
