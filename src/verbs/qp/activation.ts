/*
 * The way to RTS (IBA 10.3.1) of queue pairs without a peer, which are UD, GSI and SMI: by `activate`, or with the
 * option `active` at their creation (R7). Each type defines the steps and their options.
 */

import { checkOptions } from '../arguments/options.ts'
import { combineSteps } from './connection.ts'

/** The option of a creation in RTS. */
export interface ActiveOptions<A> {
  /** Creates the queue pair in RTS (R7), as a later `activate` with these options would move it. Default: false. */
  readonly active?: boolean | A
}

/** A queue pair without a peer. */
export interface Activatable<A> {
  /** Moves it from RESET to RTS. Throws RdmaError EINVAL. */
  activate(options?: A): void
}

/** The activation of a type: its class, the names of the options, and the arguments of `modify` for each step. */
export interface Activation<A> {
  readonly cls: { readonly name: string }
  readonly optionNames: object
  steps(options: A): readonly object[]
}

interface WithInitial {
  readonly initial?: object
}

/**
 * The options of a creation, with `initial` set as `active` requires: the attributes of all steps to RTS. Throws
 * RdmaError EINVAL.
 */
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

/** Moves a queue pair from RESET to RTS. Throws RdmaError EINVAL. */
export const activate = <A extends object>(
  qp: { modify(step: object): void },
  { optionNames, steps }: Activation<A>,
  options: A,
): void => {
  checkOptions('qp.activate', 'options', options, optionNames)
  for (const step of steps(options)) qp.modify(step)
}
