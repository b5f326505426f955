/*
 * The objects that a call created, from its result: for chains that are undone, and for calls whose caller has ended
 * (R16).
 */
import type { Result } from '../../uapi/call.ts'
import type { Context, CoreObject } from '../model.ts'
import { findHandle } from '../objects/handles.ts'
import { undoObjects } from '../objects/lifetime.ts'

/** Returns the object that a call created; additional ones (pd.createAhs) are added to `more`. */
export const recordCreated = (context: Context, result: Result, more: CoreObject[]): CoreObject | undefined => {
  const { object, descriptors, also } = result
  if (also !== undefined) for (const handle of also) more.push(findHandle(context.handles, handle) as CoreObject)
  const own = descriptors === undefined ? undefined : descriptors.find(({ attribute }) => attribute === 'object')
  if (own !== undefined) return context.device.core.descriptors.get(own.object)
  return object === undefined ? undefined : findHandle(context.handles, object)
}

/**
 * The caller of a call has ended: when the call ends, the objects that it created are destroyed, and so are `others`,
 * which may be in use until then. Errors are ignored.
 */
export const undoWhenDone = (
  context: Context,
  call: Promise<Result>,
  others: readonly (CoreObject | undefined)[] = [],
): void => {
  const { descriptors: known } = context.device.core
  const undo = (result?: Result): void => {
    const more = [...(result?.descriptors ?? []).map(({ object }) => known.get(object))] as CoreObject[]
    const own = result && recordCreated(context, result, more)
    undoObjects(context, [...others, own, ...more])
  }
  call.then(undo, () => undo())
}
