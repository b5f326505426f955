/*
 * Moves queue pairs without a peer (UD, GSI, SMI) to RTS (IBA 10.3.1): by `activate`, or at creation with the option
 * `active` (R7).
 */
import { checkOptions } from '../arguments/options.ts'
import { combineSteps, modifyInSteps } from './connection.ts'

/** The option that creates a queue pair in RTS. */
export interface ActiveOptions<A> {
  /** Creates the queue pair in RTS, with the options of `activate`. true: default options. Default: false. */
  readonly active?: boolean | A | undefined
}

/** A queue pair without a peer. */
export interface Activatable<A> {
  /**
   * Moves the queue pair from RESET to RTS. If a step after the first fails, the queue pair moves back to RESET. Throws
   * RdmaError EINVAL.
   */
  activate(options?: A): void
}

/** The activation of a queue pair type. `steps`: the arguments of `modify` for each step to RTS. */
export interface Activation<A> {
  readonly cls: { readonly name: string }
  readonly optionNames: object
  steps(options: A): readonly object[]
}

interface WithInitial {
  readonly initial?: object | undefined
}

/** The options, with `initial` set from `active`: the attributes of all steps to RTS. Throws RdmaError EINVAL. */
export const activeAtCreation = <A extends object, O extends ActiveOptions<A> & WithInitial>(
  { cls, optionNames, steps }: Activation<A>,
  options: O,
): Omit<O, 'initial'> & WithInitial => {
  const { active = false } = options
  if (active === false) return options
  const activeOptions = active === true ? ({} as A) : active
  checkOptions(`${cls.name}.create`, 'active', activeOptions, optionNames)
  return { ...options, initial: { ...combineSteps(steps(activeOptions)), ...options.initial } }
}

/** `Activatable.activate`. */
export const activate = <A extends object>(
  qp: { readonly state: string; modify(step: object): void },
  { optionNames, steps }: Activation<A>,
  options: A,
): void => {
  checkOptions('qp.activate', 'options', options, optionNames)
  modifyInSteps('qp.activate', qp, steps(options))
}
