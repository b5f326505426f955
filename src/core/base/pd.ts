/*
 * Core's own protection domains (R22), and batches of address handles (R25): each handle is created and destroyed by
 * the device's own methods, including hooks. A batch is all or nothing.
 */
import { Ah } from '../../spec/classes/ah.ts'
import { Pd } from '../../spec/classes/pd.ts'
import { CallError } from '../../spec/errno.ts'
import { type AnyRecord, CREATE, DESTROY } from '../../spec/schema/schema.ts'
import { driverClass } from '../devices/driver.ts'
import { execute, methodOf } from '../dispatch/invoke.ts'
import type { CoreObject } from '../model.ts'
import { findHandle } from '../objects/handles.ts'
import { undoObjects } from '../objects/lifetime.ts'

const atEntry = (index: number, error: unknown): unknown =>
  error instanceof CallError ? new CallError(error.code as 'EINVAL', `entry ${index}: ${error.message}`) : error

export const pdClass = driverClass(Pd, {
  create: () => ({}),
  destroy: () => ({}),

  createAhs(call, pd, { addresses, ibAddresses, opaAddresses }) {
    const { context, caller } = call
    const entry = methodOf(context, Ah, CREATE, 'create')
    const created: CoreObject[] = []
    // A device has only one of these attributes, that of its link.
    const named: Record<string, AnyRecord[] | undefined> = {
      ibAddress: ibAddresses,
      opaAddress: opaAddresses,
      address: addresses,
    }
    const [name, wanted = []] = Object.entries(named).find(([, list]) => list !== undefined) ?? ['address']
    try {
      for (const address of wanted) {
        const result = execute(context, entry, 0, { pd: pd.handle, [name]: address, userHandle: 0n }, caller)
        if (result instanceof Promise) throw new Error('ah.create is asynchronous; a batch needs a synchronous one')
        created.push(findHandle(context.handles, result.object as number) as CoreObject)
      }
    } catch (error) {
      undoObjects(context, created)
      throw atEntry(created.length, error)
    }
    call.made = { objects: created, descriptors: [] }
    return { handles: created.map(({ handle }) => ({ handle })) }
  },

  destroyAhs({ context, caller }, pd, { handles }) {
    const entry = methodOf(context, Ah, DESTROY, 'destroy')
    const seen = new Set<number>()
    for (const [index, { handle }] of handles.entries()) {
      const ah = findHandle(context.handles, handle)
      const refuse = (code: 'ENOENT' | 'EINVAL' | 'EBUSY', reason: string): never => {
        throw new CallError(code, `pd.destroyAhs: entry ${index}: handle ${handle} ${reason}`)
      }
      if (ah === undefined || seen.has(handle)) return refuse('ENOENT', ah ? 'is named twice' : 'does not exist')
      if (ah.class.id !== Ah.id) refuse('EINVAL', `is of class ${ah.class.name}, not ah`)
      if (!ah.parents.includes(pd)) refuse('EINVAL', 'belongs to another protection domain')
      if (ah.uses > 0) refuse('EBUSY', 'is used')
      seen.add(handle)
    }
    // Nothing fails after this line.
    for (const { handle } of handles) execute(context, entry, handle, {}, caller)
    return {}
  },
})
