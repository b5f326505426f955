/*
 * Makes the object of the model that a firmware command creates.
 */
import { answered } from '../../../../core/devices/driver.ts'
import { createOwned, destroyOwned, type Owned } from '../../../../core/dispatch/owned.ts'
import type { CallContext, CoreObject, HandlerValues } from '../../../../core/model.ts'
import type { ObjectClass } from '../../../../spec/schema/schema.ts'
import { endSubscriptions } from '../events/subscriptions.ts'

/** `finish`: what the command returns; if it throws, the object is destroyed. */
export const makeObject = <M>(
  call: CallContext,
  object: CoreObject,
  cls: ObjectClass,
  args: HandlerValues,
  finish: (owned: Owned) => M,
): (M & { readonly end: () => void }) | Promise<M & { readonly end: () => void }> =>
  answered(createOwned(call, object, cls, args), owned => {
    try {
      return { ...finish(owned), end: () => endSubscriptions(object) }
    } catch (error) {
      destroyOwned({ ...call, why: 'undo' }, object, owned.object)
      throw error
    }
  })
