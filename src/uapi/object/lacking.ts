/*
 * The error message for a method that the device lacks, for all dialects. The errno is EPROTONOSUPPORT for a Linux
 * ioctl, otherwise EOPNOTSUPP.
 */
import { classes } from '../../spec/classes.ts'
import type { ObjectClass } from '../../spec/schema/schema.ts'

export const lacksMethod = (className: string, method: string): string => `this device has no ${className}.${method}`

/**
 * The message for a class id and a call number. `deviceClass`: the device's class with this id, if there is one.
 * Unknown classes and methods are shown as numbers.
 */
export const lacksCall = (deviceClass: ObjectClass | undefined, classId: number, call: number): string => {
  const cls = deviceClass ?? classes.find(({ id }) => id === classId)
  if (cls === undefined) return `this device has no class ${classId}`
  const declared = classes.find(({ id }) => id === classId)?.methods ?? {}
  const methodName = Object.keys(declared).find(name => declared[name]!.call === call)
  if (methodName !== undefined) return lacksMethod(cls.name, methodName)
  return deviceClass === undefined
    ? `this device has no class ${cls.name}`
    : `class ${cls.name} of this device has no method ${call}`
}
