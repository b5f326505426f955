/*
 * Creation directly in a state (R7): a queue pair is created with all of its attributes, including its address, and
 * moved to the requested state; if a step fails, everything is undone. Core follows the state table
 * (spec/qp-states.ts): each step is the device's own modify with the attributes that the table lists for it, so a
 * driver needs no code for it.
 */
import { CallError, type ErrnoName } from '../../spec/errno.ts'
import { planTransitions, type QpTypeName, type Step } from '../../spec/qp-states.ts'
import { DESTROY, MODIFY } from '../../spec/schema/schema.ts'
import { findEntry } from '../dispatch/lookup.ts'
import type { AnyHandler, AnyResult, CallContext, HandlerValues } from '../model.ts'
import { runDestroy } from './lifetime.ts'

/** The steps of a creation. Cached, since consecutive creations usually have the same. */
interface TransitionPlan {
  /** Names of the arguments, in order. */
  readonly names: readonly string[]
  readonly state: number | undefined
  readonly steps: readonly Step[]
}

const namesOf = (args: HandlerValues): readonly string[] => Object.keys(args).filter(name => args[name] !== undefined)

/** Whether the arguments have the names for which the steps were planned. */
const fitsPlan = ({ names, state }: TransitionPlan, args: HandlerValues): boolean => {
  if (args.state !== state) return false
  let i = 0
  for (const name in args) if (args[name] === undefined || names[i++] !== name) return false
  return i === names.length
}

/** `create`, followed by the steps. `initial`: the attributes of the steps, not of `create`. */
export const createInState = (type: QpTypeName, initial: readonly string[], create: AnyHandler): AnyHandler => {
  /** The last plans for objects created without a state, and with one. */
  let without: TransitionPlan = { names: [], state: undefined, steps: [] }
  let into: TransitionPlan = { names: [], state: -1, steps: [] }

  const planFor = (call: CallContext, args: HandlerValues): readonly Step[] => {
    if (fitsPlan(into, args)) return into.steps
    if (fitsPlan(without, args)) return without.steps
    const refuse = (reason: string): never => {
      throw new CallError('EINVAL', `${call.entry.class.name}.create: ${reason}`)
    }
    const given = initial.filter(name => args[name] !== undefined && name !== 'state')
    const state = args.state as number | undefined
    if (state === undefined) {
      if (given.length > 0) return refuse(`attribute state is missing; attributes ${given.join(', ')} require it`)
      without = { names: namesOf(args), state, steps: [] }
      return without.steps
    }
    const steps = planTransitions(type, state, given)
    if (typeof steps === 'string') return refuse(steps)
    into = { names: namesOf(args), state, steps }
    return steps
  }

  return (call, object, args, core) => {
    // Nothing is created if there is no valid plan.
    const plan = planFor(call, args)
    if (plan.length === 0) return create(call, object, args, core)
    const { context, device, caller, why } = call
    const modify = findEntry(device.table, object.class.id, MODIFY)
    if (modify === undefined)
      throw new CallError(
        'EINVAL',
        `${call.entry.class.name}.create: attribute state: the device cannot change queue pairs of this class`,
      )

    const failed = (error: unknown): never => {
      const destroy = findEntry(device.table, object.class.id, DESTROY)
      if (destroy !== undefined) runDestroy(context, destroy, object, 'undo')
      throw asCreation(object.class.name, error)
    }
    const step: CallContext = { context, device, caller, why, entry: modify, descriptors: undefined, made: undefined }
    const runSteps = (created: AnyResult, from = 0): AnyResult | Promise<AnyResult> => {
      for (let i = from; i < plan.length; i++) {
        const { state, attributes } = plan[i]
        const values: HandlerValues = { state }
        for (const name of attributes) values[name] = args[name]
        const out = modify.run(step, object, values, modify.core)
        if (out instanceof Promise) return out.then(() => runSteps(created, i + 1))
      }
      return created
    }
    const made = create(call, object, args, core)
    if (made instanceof Promise) return made.then(out => orFail(() => runSteps(out), failed))
    return orFail(() => runSteps(made), failed)
  }
}

/** The error of a step as an error of the create: the attributes have the same names. */
const asCreation = (cls: string, error: unknown): unknown => {
  const own = `${cls}.modify: `
  if (!(error instanceof CallError) || !error.message.startsWith(own)) return error
  return new CallError(error.code as ErrnoName, `${cls}.create: ${error.message.slice(own.length)}`)
}

const orFail = (
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
