/*
 * Moves queue pairs without a peer from RESET to ready to send (IBA 10.3.1): by `activate`, or at creation with
 * `active` (R7). The type defines the steps and their options.
 */

import { checkOptions } from '../checks/options.ts'
import { combineSteps } from './connection.ts'

/** Options of a queue pair that is created ready to send. */
export interface ActiveOptions<A> {
  /** Creates it ready to send with one call (R7), like a later `activate` with these options. */
  readonly active?: boolean | A
}

/** A queue pair without a peer. */
export interface Activatable<A> {
  /** Moves it from RESET to ready to send. */
  activate(options?: A): void
}

/** Definition of a type: its class, its option names, and the steps as arguments of `modify`. */
export interface Activation<A> {
  readonly cls: { readonly name: string }
  readonly optionNames: object
  steps(chosen: A): readonly object[]
}

interface Initial {
  readonly initial?: object
}

/** The options; with `active`, `initial` has all attributes that make the queue pair ready to send. */
export const atCreation = <A extends object, O extends ActiveOptions<A> & Initial>(
  { cls, optionNames, steps }: Activation<A>,
  options: O,
): Omit<O, 'initial'> & Initial => {
  const { active = false } = options
  if (active === false) return options
  const chosen = active === true ? ({} as A) : active
  checkOptions(`${cls.name}.create`, 'active', chosen, optionNames)
  return { ...options, initial: { ...combineSteps(steps(chosen)), ...options.initial } }
}

/** Moves it from RESET to ready to send. */
export const activate = <A extends object>(
  qp: { modify(step: object): void },
  { optionNames, steps }: Activation<A>,
  options: A,
): void => {
  checkOptions('qp.activate', 'options', options, optionNames)
  for (const step of steps(options)) qp.modify(step)
}
