/*
 * Core's own protection domains (R22), and batches of address handles (R25). Each handle of a batch is created and
 * destroyed by the device's own methods, with their hooks. A batch is all or nothing, unless the driver or a hook
 * refuses a destroy.
 */
import { Ah } from '../../spec/classes/ah.ts'
import { Pd } from '../../spec/classes/pd.ts'
import { CallError, callError, type ErrnoName } from '../../spec/errno.ts'
import { because, coded, type Reason, the } from '../../spec/reason.ts'
import { type AnyRecord, CREATE, DESTROY, type Out } from '../../spec/schema/schema.ts'
import type { Result } from '../../uapi/call.ts'
import { driverClass } from '../devices/driver.ts'
import { execute, methodOf } from '../dispatch/invoke.ts'
import { type CoreObject, Lifecycle } from '../model.ts'
import { findHandle } from '../objects/handles.ts'
import { undoObjects } from '../objects/lifetime.ts'
import { adviceTaker } from './advise.ts'

/** Adds the index of the list's entry to the error's message. */
const errorOfEntry = (index: number, error: unknown): unknown =>
  error instanceof CallError ? new CallError(error.code as ErrnoName, because`entry ${index}: ${error.reason}`) : error

type CreateAhsResult = Out<typeof Pd.methods.createAhs>

/** Waits for all calls, then rejects with the first error, if any. */
const awaitAll = async (calls: readonly Promise<Result>[]): Promise<Record<never, never>> => {
  for (const outcome of await Promise.allSettled(calls)) if (outcome.status === 'rejected') throw outcome.reason
  return {}
}

export const pdClass = driverClass(Pd, {
  create: () => ({}),
  destroy: () => ({}),
  advise: adviceTaker(),

  createAhs(call, pd, { addresses, ibAddresses, opaAddresses }) {
    const { context, caller } = call
    const createMethod = methodOf(context, Ah, CREATE, 'create')
    const created: CoreObject[] = []
    // Keyed by the attribute of ah.create. A device has only the list of its link.
    const lists: Record<string, AnyRecord[] | undefined> = {
      ibAddress: ibAddresses,
      opaAddress: opaAddresses,
      address: addresses,
    }
    const [name, list = []] = Object.entries(lists).find(([, records]) => records !== undefined) ?? ['address']
    const recordHandle = ({ object: handle = 0 }: Result): void => {
      const object = findHandle(context.handles, handle)
      if (object === undefined) throw callError.ENOENT`handle ${handle} was destroyed meanwhile`
      created.push(object)
    }
    const undoAndThrow = (error: unknown): never => {
      undoObjects(context, created)
      throw errorOfEntry(created.length, error)
    }
    const createRemaining = (): CreateAhsResult | Promise<CreateAhsResult> => {
      try {
        while (created.length < list.length) {
          const address = list[created.length]
          const result = execute(context, createMethod, 0, { pd: pd.handle, [name]: address, userHandle: 0n }, caller)
          if (result instanceof Promise) return result.then(recordHandle).then(createRemaining, undoAndThrow)
          recordHandle(result)
        }
      } catch (error) {
        return undoAndThrow(error)
      }
      call.alsoCreated = { objects: created, descriptors: [] }
      return { handles: created.map(({ handle }) => ({ handle })) }
    }
    return createRemaining()
  },

  destroyAhs({ context, caller }, pd, { handles }) {
    const destroyMethod = methodOf(context, Ah, DESTROY, 'destroy')
    const seen = new Set<number>()
    for (const [index, { handle }] of handles.entries()) {
      const ah = findHandle(context.handles, handle)
      const refuse = (code: 'ENOENT' | 'EINVAL' | 'EBUSY', reason: Reason | string): never => {
        throw new CallError(code, because`${the.method('pd.destroyAhs')}: entry ${index}: handle ${handle} ${reason}`)
      }
      if (ah === undefined || seen.has(handle)) return refuse('ENOENT', ah ? 'is named twice' : 'does not exist')
      if (ah.class.id !== Ah.id) refuse('EINVAL', `is of class ${ah.class.name}, not ah`)
      if (!ah.parents.includes(pd)) refuse('EINVAL', 'belongs to another protection domain')
      if (ah.life === Lifecycle.CREATING) refuse('ENOENT', 'is still being created')
      if (ah.life !== Lifecycle.LIVE) refuse('EBUSY', 'is being destroyed')
      if (ah.uses > 0) refuse('EBUSY', coded('in-use')`is used`)
      seen.add(handle)
    }
    // Only the driver or a hook can refuse now. No call can use the handles meanwhile.
    const pending: Promise<Result>[] = []
    try {
      for (const { handle } of handles) {
        const result = execute(context, destroyMethod, handle, {}, caller)
        if (result instanceof Promise) pending.push(result)
      }
    } catch (error) {
      if (pending.length === 0) throw error
      pending.push(Promise.reject(error))
    }
    return pending.length === 0 ? {} : awaitAll(pending)
  },
})
