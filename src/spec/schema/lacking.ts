/*
 * The message of the error that a caller gets for a method that the device lacks: EOPNOTSUPP, or EPROTONOSUPPORT for a
 * Linux ioctl. It is the same for Linux's write commands and ioctls, the messages and chain entries of the object
 * dialect, and a call in this process.
 */
import { classes } from '../classes.ts'
import type { ObjectClass } from './schema.ts'

export const lacksMethod = (className: string, method: string): string => `this device has no ${className}.${method}`

/**
 * The same for a class id and a call number. `deviceClass`: the device's class with this id, if there is one. Without a
 * known name the class or method is shown as its number.
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
