/*
 * Arguments that a program wrote by hand: those of `device.call`, of objects of any class, of `modify`. In this process
 * no codec stands between a program and core, and core checks numbers only, so the rest is looked at here, before
 * anything has happened. Calls that the library makes of its own options need none of it.
 */
import type { AnyValues, ObjectClass } from '../spec/schema.ts'
import { checkValue } from '../uapi/scalar.ts'
import { refusing } from './error.ts'

/**
 * Throws RdmaError EINVAL for an argument that is no value of its attribute. What is missing, and what the class does
 * not have, the device says itself.
 */
export const checkArguments = (cls: ObjectClass, method: string, args: object): void => {
  const known = cls.methods[method]?.in
  if (known === undefined) return
  const call = `${cls.name}.${method}`
  refusing(call, () => {
    for (const name in known) {
      const value = (args as AnyValues)[name]
      if (value !== undefined) checkValue(`attribute ${name}`, known[name].of, value)
    }
  })
}
