/*
 * What a caller is told who asks a device for a method that it lacks (EOPNOTSUPP, to an ioctl of Linux
 * EPROTONOSUPPORT): one sentence, whichever way the call came – a command or ioctl of Linux, a message, an entry of a
 * chain, a call in this process.
 */
import { classes } from '../classes.ts'
import type { ObjectClass } from './schema.ts'

export const lacksMethod = (className: string, method: string): string => `this device has no ${className}.${method}`

/**
 * The same for who knows numbers only. `own`: the device's class with this id, if it has one. Names are those of core's
 * classes; of others the numbers are told.
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
