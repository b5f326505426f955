/*
 * A caller in this process whose arguments do not point to memory.
 */
import { callError } from '../../spec/errno.ts'
import { noMemory } from '../memory/address-space.ts'
import type { Caller } from '../model.ts'

/** `owner` begins the EFAULT message. Descriptors in arguments are core's numbers of fd objects, not translated. */
export const callerWithoutMemory = (owner: string): Caller => {
  const refuse = (): never => {
    throw callError.EFAULT`${owner} has no memory that arguments could point to`
  }
  return { memory: noMemory, copyIn: refuse, copyOut: refuse, descriptor: number => number }
}
