/*
 * Numbers by which firmware commands name objects of their context that have no number of their own: protection and
 * transport domains, doorbell pages, user memory. A command reaches only those of its own context. Queues have the
 * numbers of the soft device.
 */
import type { Context, CoreObject } from '../../core/model.ts'
import { numberFromId } from '../../core/objects/lifetime.ts'
import { contextOf } from './context.ts'

/** With the largest number. */
const Largest = {
  pd: 0xff_ffff,
  transportDomain: 0xff_ffff,
  xrcd: 0xff_ffff,
  uar: 0xffff,
  var: 0xffff,
  umem: 0x7fff_ffff,
} as const
type NumberKind = keyof typeof Largest

/** Gives an object a number, which is not 0, until `takeNumber`. */
export const giveNumber = (context: Context, kind: NumberKind, object: CoreObject): number => {
  const { numbers } = contextOf(context)
  let table = numbers.get(kind)
  if (table === undefined) {
    table = new Map()
    numbers.set(kind, table)
  }
  const largest = Largest[kind]
  let number = numberFromId(object, largest)
  while (table.has(number)) number = (number % largest) + 1
  table.set(number, object)
  return number
}

export const takeNumber = (context: Context, kind: NumberKind, number: number): void => {
  contextOf(context).numbers.get(kind)?.delete(number)
}

export const objectOfNumber = (context: Context, kind: NumberKind, number: number): CoreObject | undefined =>
  contextOf(context).numbers.get(kind)?.get(number)
