/*
 * Calls between a client and a device of different releases (R47): merges the client's declaration of a class (`known`)
 * with the device's.
 *
 * Numbers and layouts never change their meaning. Declarations differ only in attributes and fields that one of them
 * lacks.
 * - Inputs: a device refuses an unknown input, or ignores it if the client permits that. The device refuses a call
 *   without a required input.
 * - Outputs: the merged class has the fields of both declarations. A field that the device lacks is zero. If the device
 *   lacks a required output, `agreedClass` throws before the call.
 */
import { CallError, callError } from '../../spec/errno.ts'
import { type Place, the } from '../../spec/reason.ts'
import type { Attribute, Attributes, Kind, Method, ObjectClass } from '../../spec/schema/schema.ts'
import { lacksMethod } from './lacking.ts'

const mergeKinds = (known: Kind, device: Kind): Kind =>
  (known.kind === 'record' && device.kind === 'record') || (known.kind === 'list' && device.kind === 'list')
    ? { ...device, fields: { ...device.fields, ...known.fields } }
    : device

const mergeOutputs = (path: Place, known: Attributes, device: Attributes): Attributes => {
  const outputs: Record<string, Attribute> = { ...device }
  for (const [name, attribute] of Object.entries(known)) {
    const deviceAttribute = device[name]
    if (deviceAttribute !== undefined)
      outputs[name] = { ...deviceAttribute, type: mergeKinds(attribute.type, deviceAttribute.type) }
    else if (!attribute.optional)
      throw callError.EOPNOTSUPP`${path}: the device does not return ${name}; its release is too old`
  }
  return outputs
}

/** Results of `agreedClass`, by the client's method and the device's. */
const agreedClasses = new WeakMap<Method, WeakMap<Method, ObjectClass>>()

/** A method by its name. Inherited properties such as `constructor` are not methods. */
const ownMethod = (cls: ObjectClass | undefined, name: string): Method | undefined =>
  cls !== undefined && Object.hasOwn(cls.methods, name) ? cls.methods[name] : undefined

/**
 * The class with which the client encodes a call of method `name`. Throws CallError EOPNOTSUPP with a message if the
 * device lacks the method or one of its required outputs.
 */
export const agreedClass = (known: ObjectClass, device: ObjectClass | undefined, name: string): ObjectClass => {
  const path = the.method(`${known.name}.${name}`)
  const knownMethod = ownMethod(known, name)
  const deviceMethod = ownMethod(device, name)
  if (device === undefined || deviceMethod === undefined)
    throw new CallError('EOPNOTSUPP', lacksMethod(known.name, name))
  if (knownMethod === undefined) return device
  let byDeviceMethod = agreedClasses.get(knownMethod)
  if (byDeviceMethod === undefined) {
    byDeviceMethod = new WeakMap()
    agreedClasses.set(knownMethod, byDeviceMethod)
  }
  let cls = byDeviceMethod.get(deviceMethod)
  if (cls === undefined) {
    const method = {
      ...deviceMethod,
      in: { ...deviceMethod.in, ...knownMethod.in },
      out: mergeOutputs(path, knownMethod.out, deviceMethod.out),
    }
    cls = { ...device, methods: { [name]: method } }
    byDeviceMethod.set(deviceMethod, cls)
  }
  return cls
}

/** The error of the object dialect for an attribute that the device's method lacks; `path`: `class.method`. */
export const unknownAttribute = (path: Place, { in: attributes, refused = {} }: Method, name: string): CallError => {
  const names = Object.keys(attributes).filter(known => refused[known]?.why === undefined)
  const known = names.length === 0 ? 'none' : names.join(', ')
  return callError.EPROTONOSUPPORT`${path}: the attribute ${name} is unknown to the device; there are ${known}`
}

/**
 * Throws CallError EPROTONOSUPPORT if `args` has an attribute that `method` does not know. Attributes in
 * `method.refused` are skipped: the call refuses them with its own message.
 */
export const checkKnown = (path: Place, method: Method, args: Readonly<Record<string, unknown>>): void => {
  for (const name in args) {
    // Inherited properties such as `constructor` have neither `type` nor `why`.
    const isKnown = method.in[name]?.type !== undefined
    const isRefused = method.refused?.[name]?.why !== undefined
    if (args[name] !== undefined && !isKnown && !isRefused) throw unknownAttribute(path, method, name)
  }
}
