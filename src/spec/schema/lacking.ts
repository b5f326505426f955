/*
 * The sentence for a caller that uses a method which the device lacks (EOPNOTSUPP; for an ioctl of Linux
 * EPROTONOSUPPORT). It is the same for a command or ioctl of Linux, a message, a chain entry, and a call in this
 * process.
 */
import { classes } from '../classes.ts'
import type { ObjectClass } from './schema.ts'

export const lacksMethod = (className: string, method: string): string => `this device has no ${className}.${method}`

/**
 * The sentence for a caller that has numbers only. `own`: the device's class with this id, if there is one. Core's
 * classes are named; others are shown as numbers.
 */
export const lacksCall = (own: ObjectClass | undefined, classId: number, call: number): string => {
  const cls = own ?? classes.find(({ id }) => id === classId)
  if (cls === undefined) return `this device has no class ${classId}`
  const declared = classes.find(({ id }) => id === classId)?.methods ?? {}
  const name = Object.keys(declared).find(one => declared[one]!.call === call)
  if (name !== undefined) return lacksMethod(cls.name, name)
  return own === undefined
    ? `this device has no class ${cls.name}`
    : `class ${cls.name} of this device has no method ${call}`
}
