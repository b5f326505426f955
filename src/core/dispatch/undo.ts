/*
 * Finds the objects that a call created, from its result, and destroys them: for failed chains (R16), and for
 * calls whose result nobody gets.
 */
import type { Result } from '../../uapi/call.ts'
import type { Context, CoreObject } from '../model.ts'
import { findHandle } from '../objects/handles.ts'
import { undoObjects } from '../objects/lifetime.ts'

/**
 * Returns the object that a call created, and appends its further objects to `additional`: those of
 * `Result.createdObjects`, and descriptors that are results (`createDescriptor`).
 */
export const createdBy = (context: Context, result: Result, additional: CoreObject[]): CoreObject | undefined => {
  const { object, descriptors, createdObjects } = result
  if (createdObjects !== undefined)
    for (const handle of createdObjects) additional.push(findHandle(context.handles, handle) as CoreObject)
  let created = object === undefined ? undefined : findHandle(context.handles, object)
  if (descriptors !== undefined)
    for (const { object: number, attribute } of descriptors) {
      const fd = context.device.core.descriptors.get(number)
      if (attribute === 'object') created = fd
      else if (fd !== undefined) additional.push(fd)
    }
  return created
}

/**
 * Undoes a successful call whose result its caller does not get: puts back what the call took, then destroys the
 * objects that it created, so that no event of a destroyed object is put back. Also destroys `others`.
 */
export const undoResult = (
  context: Context,
  result: Result,
  others: readonly (CoreObject | undefined)[] = [],
): void => {
  result.putBack?.()
  const additional: CoreObject[] = []
  const created = createdBy(context, result, additional)
  undoObjects(context, [...others, created, ...additional])
}

/**
 * Undoes an asynchronous call when it ends. Also destroys `others`, which the call may use until its end. Ignores the
 * call's error.
 */
export const undoWhenDone = (
  context: Context,
  call: Promise<Result>,
  others: readonly (CoreObject | undefined)[] = [],
): void => {
  call.then(
    result => undoResult(context, result, others),
    () => undoObjects(context, others),
  )
}
