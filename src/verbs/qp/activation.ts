/*
 * How queue pairs without a peer get from RESET to ready to send (IBA 10.3.1): step by step with `activate`, or at
 * their creation with `active` (R7). Which steps, and what can be chosen, is the type's own.
 */

import { checkOptions } from '../checks/options.ts'
import { combineSteps } from './connection.ts'

/** Made ready to send at once. */
export interface ActiveOptions<A> {
  /** Made ready to send, with one call (R7), as `activate` does it afterwards. */
  readonly active?: boolean | A
}

/** A queue pair without a peer, which becomes ready by itself. */
export interface Activatable<A> {
  /** From RESET to ready to send. */
  activate(options?: A): void
}

/** What a type says: its class, the words of what can be chosen, and the steps as `modify` takes them. */
export interface Activation<A> {
  readonly cls: { readonly name: string }
  readonly words: object
  steps(chosen: A): readonly object[]
}

interface Initial {
  readonly initial?: object
}

/** What was chosen, with `initial` having all that makes the queue pair ready, if that is wanted. */
export const atCreation = <A extends object, O extends ActiveOptions<A> & Initial>(
  { cls, words, steps }: Activation<A>,
  options: O,
): Omit<O, 'initial'> & Initial => {
  const { active = false } = options
  if (active === false) return options
  const chosen = active === true ? ({} as A) : active
  checkOptions(`${cls.name}.create`, 'active', chosen, words)
  return { ...options, initial: { ...combineSteps(steps(chosen)), ...options.initial } }
}

/** From RESET to ready to send. */
export const activate = <A extends object>(
  qp: { modify(step: object): void },
  { words, steps }: Activation<A>,
  options: A,
): void => {
  checkOptions('qp.activate', 'options', options, words)
  for (const step of steps(options)) qp.modify(step)
}
