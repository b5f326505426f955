/*
 * Finds what a firmware command names by numbers. Only objects of the caller's context are found, those of verbs and of
 * commands.
 */
import type { CallContext, CoreObject } from '../../../core/model.ts'
import { objectOfNumber } from '../numbers.ts'
import { refuseCommand } from './handler.ts'
import type { Umem } from './umem.ts'

const hex = (number: number): string => `0x${number.toString(16)}`

/** The protection domain. Refuses with `noSuchPd`. */
export const findPd = ({ context }: CallContext, number: number): CoreObject =>
  objectOfNumber(context, 'pd', number) ?? refuseCommand('noSuchPd', `pd ${hex(number)}`)

/** The doorbell page. Refuses with `noSuchUar`. */
export const findUar = ({ context }: CallContext, number: number): CoreObject =>
  objectOfNumber(context, 'uar', number) ?? refuseCommand('noSuchUar', `uar_page ${hex(number)}`)

/** User memory. `field`: its name in the command. Refuses with `noSuchUmem`. */
export const findUmem = ({ context }: CallContext, field: string, number: number): CoreObject<Umem> =>
  (objectOfNumber(context, 'umem', number) as CoreObject<Umem> | undefined) ??
  refuseCommand('noSuchUmem', `${field} ${hex(number)}`)

/** The completion vector of an event queue (DEVX_QUERY_EQN). Refuses with `noSuchEq`. */
export const vectorOf = ({ device }: CallContext, eqn: number): number => {
  const vector = eqn - FIRST_EQN
  if (vector < 0 || vector >= device.numCompVectors)
    refuseCommand(
      'noSuchEq',
      `c_eqn ${eqn}; those of completions are ${FIRST_EQN} to ${FIRST_EQN + device.numCompVectors - 1}`,
    )
  return vector
}

/** Linux has event queues of its own before those of completions. */
const FIRST_EQN = 4
export const eqnOf = (vector: number): number => FIRST_EQN + vector
