/*
 * Creation of a queue pair directly in a state (R7): its create may name a state, and the attributes that modify needs
 * to reach the state. After the create handler, the device's modify runs once for each transition, with the attributes
 * that spec/qp-states.ts lists for it. If a transition fails, the queue pair is destroyed, and the create fails.
 */
import { CallError, callError, type ErrnoName } from '../../spec/errno.ts'
import { planTransitions, type QpTypeName, type Step } from '../../spec/qp-states.ts'
import { because, Reason, the } from '../../spec/reason.ts'
import { DESTROY, MODIFY } from '../../spec/schema/schema.ts'
import { requireOpen } from '../dispatch/invoke.ts'
import { findEntry } from '../dispatch/lookup.ts'
import type { AnyHandler, AnyResult, CallContext, HandlerValues } from '../model.ts'
import { runDestroy } from './lifetime.ts'

/** The transitions for a set of arguments. Cached: consecutive creates usually have the same arguments. */
interface TransitionPlan {
  /** Names of the arguments, in their order in the call. */
  readonly names: readonly string[]
  /** The requested state. Undefined: none. -1: there is no plan yet. */
  readonly state: number | undefined
  readonly steps: readonly Step[]
}

const namesOf = (args: HandlerValues): readonly string[] => Object.keys(args).filter(name => args[name] !== undefined)

/** Whether the plan was made for these names and this state. False if an argument is present but undefined. */
const fitsPlan = ({ names, state }: TransitionPlan, args: HandlerValues): boolean => {
  if (args.state !== state) return false
  let i = 0
  for (const name in args) if (args[name] === undefined || names[i++] !== name) return false
  return i === names.length
}

/**
 * A create handler that runs `create` and then the transitions. `modifyAttributes`: names of the arguments that modify
 * has too. Throws EINVAL before `create` if the arguments do not fit the state, or the device has no modify of this
 * class. Throws what `create` or modify throws.
 */
export const createInState = (
  type: QpTypeName,
  modifyAttributes: readonly string[],
  create: AnyHandler,
): AnyHandler => {
  let planWithoutState: TransitionPlan = { names: [], state: undefined, steps: [] }
  let planWithState: TransitionPlan = { names: [], state: -1, steps: [] }

  const stepsFor = (call: CallContext, args: HandlerValues): readonly Step[] => {
    if (fitsPlan(planWithState, args)) return planWithState.steps
    if (fitsPlan(planWithoutState, args)) return planWithoutState.steps
    const refuse = (reason: Reason): never => {
      throw callError.EINVAL`${the.method(`${call.entry.class.name}.create`)}: ${reason}`
    }
    const modifyArguments = modifyAttributes.filter(name => args[name] !== undefined && name !== 'state')
    const state = args.state as number | undefined
    if (state === undefined) {
      if (modifyArguments.length > 0)
        return refuse(
          because`${the.attribute('state')} is missing; attributes ${the.attributes(...modifyArguments)} require it`,
        )
      planWithoutState = { names: namesOf(args), state, steps: [] }
      return planWithoutState.steps
    }
    const steps = planTransitions(type, state, modifyArguments)
    if (steps instanceof Reason) return refuse(steps)
    planWithState = { names: namesOf(args), state, steps }
    return steps
  }

  return (call, object, args, core) => {
    const steps = stepsFor(call, args)
    if (steps.length === 0) return create(call, object, args, core)
    const { context, device, caller, why } = call
    const modify = findEntry(device.table, object.class.id, MODIFY)
    if (modify === undefined)
      throw callError.EINVAL`${the.method(`${call.entry.class.name}.create`)}: ${the.attribute('state')}: the device cannot change queue pairs of this class`

    const destroyAndThrow = (error: unknown): never => {
      const destroy = findEntry(device.table, object.class.id, DESTROY)
      if (destroy !== undefined) runDestroy(context, destroy, object, 'undo')
      throw asCreateError(object.class.name, error)
    }
    const modifyCall: CallContext = {
      context,
      device,
      caller,
      why,
      entry: modify,
      descriptors: undefined,
      alsoCreated: undefined,
    }
    /** Continues after an asynchronous handler; EIO if the context was closed or the device removed meanwhile. */
    const continueSteps = (result: AnyResult, from: number): AnyResult | Promise<AnyResult> => {
      requireOpen(call)
      return runSteps(result, from)
    }
    const runSteps = (result: AnyResult, from: number): AnyResult | Promise<AnyResult> => {
      for (let i = from; i < steps.length; i++) {
        const { state, attributes } = steps[i]!
        const values: HandlerValues = { state }
        for (const name of attributes) values[name] = args[name]
        const out = modify.run(modifyCall, object, values, modify.core)
        if (out instanceof Promise) return out.then(() => continueSteps(result, i + 1))
      }
      return result
    }
    const created = create(call, object, args, core)
    if (created instanceof Promise)
      return created.then(out => catchFailure(() => continueSteps(out, 0), destroyAndThrow))
    return catchFailure(() => runSteps(created, 0), destroyAndThrow)
  }
}

/** Changes the method's name in an error of modify to `create`. */
const asCreateError = (cls: string, error: unknown): unknown =>
  error instanceof CallError && error.reason.subject.method === `${cls}.modify`
    ? new CallError(error.code as ErrnoName, error.reason.withMethod(`${cls}.create`))
    : error

/** Runs `body`. If it throws or rejects, calls `destroyAndThrow` with the error. */
const catchFailure = (
  body: () => AnyResult | Promise<AnyResult>,
  destroyAndThrow: (error: unknown) => never,
): AnyResult | Promise<AnyResult> => {
  try {
    const out = body()
    return out instanceof Promise ? out.catch(destroyAndThrow) : out
  } catch (error) {
    return destroyAndThrow(error)
  }
}
