/*
 * Creation right into a state (R7): a queue pair is made with all of its attributes, addressing included, and taken to
 * the state that the caller wants, or nothing of it is left. Core walks the state table (spec/qp-states.ts): each step
 * is the device's own modify, with what the table has that step take, so a driver does nothing for it.
 */
import { CallError } from '../spec/errno.ts'
import { planTransitions, type QpTypeName } from '../spec/qp-states.ts'
import { DESTROY, MODIFY } from '../spec/schema.ts'
import { runDestroy } from './lifetime.ts'
import { findEntry } from './lookup.ts'
import type { AnyHandler, AnyResult, CallContext, HandlerValues } from './model.ts'

/** `create`, which then walks. `initial`: the attributes that are of the walk and not of the creation. */
export const intoState =
  (type: QpTypeName, initial: readonly string[], create: AnyHandler): AnyHandler =>
  (call, object, args, core) => {
    const given = initial.filter(name => args[name] !== undefined && name !== 'state')
    if (args.state === undefined && given.length === 0) return create(call, object, args, core)
    const { context, entry, device } = call
    const refuse = (reason: string): never => {
      throw new CallError('EINVAL', `${entry.class.name}.create: ${reason}`)
    }
    if (args.state === undefined) return refuse(`attribute state is missing: it says how far ${given.join(', ')} reach`)
    // Nothing is made for a plan that cannot be.
    const plan = planTransitions(type, args.state as number, given)
    if (typeof plan === 'string') return refuse(plan)
    const modify = findEntry(device.table, object.class.id, MODIFY)
    if (modify === undefined) return refuse('attribute state: the device cannot change queue pairs of this class')

    const failed = (error: unknown): never => {
      const destroy = findEntry(device.table, object.class.id, DESTROY)
      if (destroy !== undefined) runDestroy(context, destroy, object, 'undo')
      throw error
    }
    const step: CallContext = { ...call, entry: modify }
    const walk = (made: AnyResult, from = 0): AnyResult | Promise<AnyResult> => {
      for (let i = from; i < plan.length; i++) {
        const { state, attributes } = plan[i]
        const values: HandlerValues = { state }
        for (const name of attributes) values[name] = args[name]
        const out = modify.run(step, object, values, modify.core)
        if (out instanceof Promise) return out.then(() => walk(made, i + 1))
      }
      return made
    }
    const made = create(call, object, args, core)
    if (made instanceof Promise) return made.then(out => guarded(() => walk(out), failed))
    return guarded(() => walk(made), failed)
  }

const guarded = (
  body: () => AnyResult | Promise<AnyResult>,
  failed: (error: unknown) => never,
): AnyResult | Promise<AnyResult> => {
  try {
    const out = body()
    return out instanceof Promise ? out.catch(failed) : out
  } catch (error) {
    return failed(error)
  }
}
