/*
 * A client and a device of different releases (R47): the class for a client that knows declaration `known`, on a device
 * with declaration `own`.
 *
 * Numbers and layouts never change their meaning, so the two differ only in what one of them lacks. Inputs: what the
 * device does not know it refuses, or ignores if the client allows that; required inputs that the client does not know
 * are missing, and refused. Outputs have the size of the larger declaration: the client sees zeros in fields that the
 * device lacks, and has room for those that it does not know. A required output that the device lacks is reported here,
 * before the call.
 */
import { CallError } from '../errno.ts'
import { lacksMethod } from './lacking.ts'
import type { Attribute, Attributes, Kind, Method, ObjectClass } from './schema.ts'

const merged = (known: Kind, own: Kind): Kind =>
  (known.kind === 'record' && own.kind === 'record') || (known.kind === 'list' && own.kind === 'list')
    ? { ...own, fields: { ...own.fields, ...known.fields } }
    : own

const outOf = (path: string, known: Attributes, own: Attributes): Attributes => {
  const all: Record<string, Attribute> = { ...own }
  for (const [name, attribute] of Object.entries(known)) {
    const deviceMember = own[name]
    if (deviceMember !== undefined) all[name] = { ...deviceMember, of: merged(attribute.of, deviceMember.of) }
    else if (!attribute.optional)
      throw new CallError('EOPNOTSUPP', `${path}: the device does not return ${name}; its release is too old`)
  }
  return all
}

const agreed = new WeakMap<Method, WeakMap<Method, ObjectClass>>()

/** A method by its own name; inherited properties such as `constructor` are not methods. */
const ownMethod = (cls: ObjectClass | undefined, name: string): Method | undefined =>
  cls !== undefined && Object.hasOwn(cls.methods, name) ? cls.methods[name] : undefined

/** The class with which to call method `name`. Throws CallError EOPNOTSUPP with a message if it cannot be called. */
export const agreedClass = (known: ObjectClass, own: ObjectClass | undefined, name: string): ObjectClass => {
  const path = `${known.name}.${name}`
  const knownMethod = ownMethod(known, name)
  const deviceMember = ownMethod(own, name)
  if (own === undefined || deviceMember === undefined) throw new CallError('EOPNOTSUPP', lacksMethod(known.name, name))
  if (knownMethod === undefined) return own
  let byOwn = agreed.get(knownMethod)
  if (byOwn === undefined) {
    byOwn = new WeakMap()
    agreed.set(knownMethod, byOwn)
  }
  let cls = byOwn.get(deviceMember)
  if (cls === undefined) {
    const method = {
      ...deviceMember,
      in: { ...deviceMember.in, ...knownMethod.in },
      out: outOf(path, knownMethod.out, deviceMember.out),
    }
    cls = { ...own, methods: { [name]: method } }
    byOwn.set(deviceMember, cls)
  }
  return cls
}

/** An attribute that the device lacks, as the object dialect reports it; `path`: class and method. */
export const unknownAttribute = (path: string, name: string): CallError =>
  new CallError('EPROTONOSUPPORT', `${path}: the attribute ${name} is unknown to the device`)

/**
 * Throws CallError EPROTONOSUPPORT if `args` has an attribute that `method` lacks; skips those that the method refuses
 * for its own reason.
 */
export const checkKnown = (path: string, method: Method, args: Readonly<Record<string, unknown>>): void => {
  for (const name in args)
    if (method.in[name]?.of === undefined && args[name] !== undefined && method.refused?.[name]?.why === undefined)
      throw unknownAttribute(path, name)
}
