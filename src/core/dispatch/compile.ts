/*
 * The compile phase (R5, R20): core's and a driver's method tables become one dense dispatch table per device.
 *
 * A table has two banks of classes: common classes, and the driver's own. A class has eight blocks of 32 methods. The
 * rules:
 * - A method has the driver's handler, or else core's. `null` in the driver's table removes the method.
 * - On a device of a link, the link's variant of a handler replaces the handler (R27).
 * - Attributes are core's and the driver's, without attributes of other links, attributes that the driver does not
 *   support, and optional references to classes that the device does not have.
 *
 * Devices whose declarations and handlers are equal share tables.
 */
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { DRIVER_FIRST } from '../../spec/classes/ids.ts'
import { QpTypes } from '../../spec/classes/qp/qp.ts'
import { callError } from '../../spec/errno.ts'
import {
  type AddressRole,
  absentOn,
  addressRoles,
  type LinkName,
  Links,
  optionalOfAddresses,
  whyAbsent,
} from '../../spec/links.ts'
import type { QpTypeName } from '../../spec/qp-states.ts'
import { because, the } from '../../spec/reason.ts'
import {
  type Attribute,
  type Attributes,
  Block as CallNumberBlock,
  type Capability,
  CREATE,
  CREATE_FD,
  checkClasses,
  DESTROY,
  type Method,
  type Methods,
  MODIFY,
  type ObjectClass,
  type RefusedArgument,
} from '../../spec/schema/schema.ts'
import { shapeOf } from '../../uapi/argument-check.ts'
import type { Driver, DriverClass } from '../driver-contract.ts'
import type { AnyHandler, Bank, ClassTable, DispatchTable, Entry, ReferenceAttribute, TablePool } from '../model.ts'
import { createInState } from '../objects/create-in-state.ts'

export const createPool = (): TablePool => ({
  classes: new Map(),
  devices: new Map(),
  identities: new WeakMap(),
  nextIdentity: 1,
})

/** Core's handler of a method that core does not implement. */
const noCoreVersion: AnyHandler = call => {
  const { entry } = call
  throw callError.EOPNOTSUPP`${the.method(`${entry.class.name}.${entry.name}`)}: core has no implementation of this method`
}

// ---- one class ----

/**
 * A method's attributes with those that the driver adds. Throws an Error for an id below 0x8000 or a name that exists;
 * `subject` begins its message.
 */
const mergeAttributes = (subject: string, base: Attributes, added: Attributes | undefined): Attributes => {
  if (added === undefined) return base
  for (const [name, attribute] of Object.entries(added)) {
    if (attribute.id < DRIVER_FIRST)
      throw new Error(`${subject}: a driver's attribute ${name} has id ${attribute.id}; a driver's ids start at 0x8000`)
    if (base[name] !== undefined)
      throw new Error(`${subject}: the driver's attribute ${name} exists in the common method`)
  }
  return { ...base, ...added }
}

const referencesOf = (attributes: Attributes): ReferenceAttribute[] =>
  Object.entries(attributes).flatMap(([name, { type }]) =>
    type.kind === 'ref' || type.kind === 'fd' ? [{ name, class: type.class, isFd: type.kind === 'fd' }] : [],
  )

const kindOf = ({ id, identity }: ObjectClass, call: number): Entry['kind'] => {
  if (identity === 'fixed') return id === DeviceClass.id && call === DeviceClass.methods.open.call ? 'open' : 'other'
  if (call === CREATE || call === CREATE_FD) return 'create'
  return call === DESTROY ? 'destroy' : 'other'
}

/**
 * Core's declaration of a class that the driver lists; for a driver's own class, one without handlers. Throws an Error
 * if a common class has the same name but another id, or if a driver's own class has an id below 0x8000.
 */
const coreClassOf = (
  driver: string,
  { class: cls }: DriverClass,
  coreClasses: ReadonlyMap<string, DriverClass>,
): DriverClass => {
  const coreClass = coreClasses.get(cls.name)
  if (coreClass !== undefined) {
    if (coreClass.class.id === cls.id) return coreClass
    throw new Error(
      `driver ${driver}: class ${cls.name} has id ${cls.id}, the common class of that name has ${coreClass.class.id}`,
    )
  }
  if (cls.id < DRIVER_FIRST)
    throw new Error(
      `driver ${driver}: there is no common class ${cls.name}; ids of a driver's own classes start at 0x8000, not ${cls.id}`,
    )
  return { class: cls, handlers: {}, additions: {}, methods: {} }
}

/** Whether it is an attribute of a path; other things have an address too, as memory and sockets have. */
const isOfPath = (name: string, attribute: Attribute | undefined): boolean => {
  const type = attribute?.type
  return optionalOfAddresses.has(name)
    ? type !== undefined
    : (type?.kind === 'record' || type?.kind === 'list') && type.fields.dgid !== undefined
}

/**
 * The method on a device of this link. If an attribute that RoCE requires is absent on the link, the link's own
 * attribute is required instead.
 */
const methodForLink = (link: LinkName | undefined, method: Method): Method => {
  if (link === undefined) return method
  const absent = absentOn(link).filter(name => isOfPath(name, method.in[name]) || isOfPath(name, method.out[name]))
  if (absent.length === 0) return method
  const withoutAbsent = (attributes: Attributes): Attributes =>
    Object.fromEntries(Object.entries(attributes).filter(([name]) => !absent.includes(name)))
  const absentInputs = absent.filter(name => method.in[name] !== undefined)
  const refused = absentInputs.map(name => [
    name,
    { id: method.in[name]!.id, code: 'EINVAL', why: whyAbsent(link, name) },
  ])
  const requiredInstead = new Set(
    absentInputs
      .filter(name => method.in[name]!.optional === false)
      .map(name => Links[link].attributes[addressRoles.get(name) as AddressRole]),
  )
  const inputs = Object.entries(withoutAbsent(method.in)).map(([name, attribute]) => [
    name,
    requiredInstead.has(name) ? { ...attribute, optional: false } : attribute,
  ])
  const allRefused = { ...method.refused, ...Object.fromEntries(refused) }
  return { ...method, in: Object.fromEntries(inputs), out: withoutAbsent(method.out), refused: allRefused }
}

/**
 * The method without attributes that the driver does not support. `unsupported`: the reason for each, by name. Throws
 * an Error for a mandatory argument; `subject` begins its message.
 */
const supportedMethod = (subject: string, unsupported: Readonly<Record<string, string>>, method: Method): Method => {
  const unsupportedInputs = Object.keys(unsupported).filter(name => method.in[name] !== undefined)
  const results = Object.entries(method.out)
  const supportedResults = results.filter(([name, { optional }]) => !(optional && unsupported[name] !== undefined))
  if (unsupportedInputs.length === 0 && supportedResults.length === results.length) return method
  const out: Attributes = Object.fromEntries(supportedResults)
  if (unsupportedInputs.length === 0) return { ...method, out }
  const inputs: Record<string, Attribute> = { ...method.in }
  const refused: Record<string, RefusedArgument> = { ...method.refused }
  for (const name of unsupportedInputs) {
    const { id, optional } = method.in[name]!
    if (!optional) throw new Error(`${subject}: attribute ${name} is mandatory and cannot be unsupported`)
    delete inputs[name]
    refused[name] = { id, code: 'EOPNOTSUPP', why: because`${the.attribute(name)}: ${unsupported[name]}` }
  }
  return { ...method, in: inputs, out, refused }
}

/** Optional attributes that refer to a class that is not in `classNames`: name, attribute, class. */
const attributesWithoutClass = (
  attributes: Attributes,
  classNames: ReadonlySet<string>,
): [string, Attribute, string][] =>
  Object.entries(attributes).flatMap(([name, attribute]): [string, Attribute, string][] =>
    (attribute.type.kind === 'ref' || attribute.type.kind === 'fd') &&
    attribute.optional &&
    !classNames.has(attribute.type.class)
      ? [[name, attribute, attribute.type.class]]
      : [],
  )

/** The method without optional attributes that refer to classes that the device does not have. */
const methodForDevice = (method: Method, classNames: ReadonlySet<string>): Method => {
  const removedInputs = attributesWithoutClass(method.in, classNames)
  const removedResults = attributesWithoutClass(method.out, classNames)
  if (removedInputs.length + removedResults.length === 0) return method
  const without = (attributes: Attributes, removed: typeof removedInputs): Attributes =>
    Object.fromEntries(Object.entries(attributes).filter(([name]) => !removed.some(([other]) => other === name)))
  const refused: Record<string, RefusedArgument> = { ...method.refused }
  for (const [name, { id }, cls] of removedInputs)
    refused[name] = { id, code: 'EOPNOTSUPP', why: because`${the.attribute(name)}: this device has no class ${cls}` }
  return { ...method, in: without(method.in, removedInputs), out: without(method.out, removedResults), refused }
}

/** The handler with a check: EPERM if the calling process lacks the capability. */
const withPermission = (cls: ObjectClass, name: string, capability: Capability, handler: AnyHandler): AnyHandler => {
  const own = capability === 'RAW_PACKETS' ? ', or with a daemon of your own' : ''
  return (call, object, args, core) => {
    if (call.caller.allows?.(capability) === false)
      throw callError.EPERM`${the.method(`${cls.name}.${name}`)}: the process lacks CAP_NET_RAW; run it as root, or with that capability${own}`
    return handler(call, object, args, core)
  }
}

/**
 * Set in controlled Q_Keys (IBA 10.2.5). Programs need CAP_NET_RAW to use them, unless `allowsPrivilegedQkeys` is set.
 */
const CONTROLLED_QKEY_BIT = 0x8000_0000

/** The modify handler of a queue pair class with a check of `qkey`: EPERM. `subject` begins the message. */
const withQkeyCheck = (subject: string, handler: AnyHandler): AnyHandler => {
  return (call, object, args, core) => {
    const { qkey } = args
    const isControlled = typeof qkey === 'number' && (qkey & CONTROLLED_QKEY_BIT) !== 0
    if (isControlled && !call.device.core.allowsPrivilegedQkeys && call.caller.allows?.('NET_RAW') === false)
      throw callError.EPERM`${the.method(subject)}: Q_Keys from 0x80000000 are for processes with CAP_NET_RAW, unless \`rdma system set privileged-qkey on\` allows them to all`
    return handler(call, object, args, core)
  }
}

/** The handler with checks of permissions. A queue pair's create can also set its state (`createInState`). */
const runnerOf = (cls: ObjectClass, name: string, method: Method, unchecked: AnyHandler): AnyHandler => {
  const permitted = method.needs === undefined ? unchecked : withPermission(cls, name, method.needs, unchecked)
  const setsQkey = method.call === MODIFY && method.in.qkey !== undefined
  const handler = setsQkey ? withQkeyCheck(`${cls.name}.${name}`, permitted) : permitted
  const type = (QpTypes as Readonly<Record<string, QpTypeName | undefined>>)[cls.name]
  if (type === undefined || method.call !== CREATE) return handler
  const modifyAttributes = Object.values(cls.methods).find(({ call }) => call === MODIFY)?.in ?? {}
  return createInState(
    type,
    Object.keys(method.in).filter(name => modifyAttributes[name] !== undefined),
    handler,
  )
}

/** The class with the handlers for devices of this link (R27). */
const withVariantsOf = (link: LinkName | undefined, cls: DriverClass): DriverClass => {
  const variants = link === undefined ? undefined : cls.variants?.[link]
  return variants === undefined ? cls : { ...cls, handlers: { ...cls.handlers, ...variants } }
}

/** The table of one class of a device. `classNames`: names of the device's classes. */
const mergeClass = (
  { name: driver, link }: Driver,
  listedClass: DriverClass,
  core: DriverClass,
  classNames: ReadonlySet<string>,
): ClassTable => {
  const [driverClass, coreClass] = [withVariantsOf(link, listedClass), withVariantsOf(link, core)]
  const { name } = driverClass.class
  const declared: Methods = { ...coreClass.class.methods, ...driverClass.class.methods, ...driverClass.methods }
  for (const method of [...Object.keys(driverClass.handlers), ...Object.keys(driverClass.additions)])
    if (!Object.hasOwn(declared, method)) throw new Error(`driver ${driver}: class ${name} has no method ${method}`)
  for (const [method, { call }] of Object.entries(driverClass.methods))
    if (call < CallNumberBlock.DRIVER_FAST)
      throw new Error(
        `driver ${driver}: ${name}.${method} has call number ${call}; a driver's own methods start at ${CallNumberBlock.DRIVER_FAST}`,
      )

  const provided: [string, AnyHandler, Method][] = []
  for (const [methodName, base] of Object.entries(declared)) {
    const override = driverClass.handlers[methodName]
    const handler = override === undefined ? coreClass.handlers[methodName] : override
    if (!handler) continue
    const subject = `driver ${driver}: ${name}.${methodName}`
    const added = driverClass.additions[methodName]
    if (added !== undefined && !base.driverAttributes)
      throw new Error(`${subject}: the method is declared to take no attributes of a driver`)
    const declaredMethod = {
      ...base,
      in: mergeAttributes(subject, base.in, added?.in),
      out: mergeAttributes(subject, base.out, added?.out),
    }
    const method = methodForDevice(
      methodForLink(link, supportedMethod(subject, driverClass.unsupported ?? {}, declaredMethod)),
      classNames,
    )
    provided.push([methodName, handler, method])
  }
  const cls: ObjectClass = {
    ...coreClass.class,
    methods: Object.fromEntries(provided.map(([methodName, , method]) => [methodName, method])),
  }

  return { class: cls, blocks: blocksOf(cls, coreClass, provided) }
}

/** The blocks of a class (`ClassTable`). `provided`: name, handler and declaration of its methods. */
const blocksOf = (
  cls: ObjectClass,
  coreClass: DriverClass,
  provided: readonly (readonly [string, AnyHandler, Method])[],
): ClassTable['blocks'] => {
  const blocks: ((Entry | undefined)[] | undefined)[] = Array.from({ length: 8 }, () => undefined)
  for (const [methodName, handler, method] of provided) {
    const block = blocks[method.call >> 5] ?? []
    blocks[method.call >> 5] = block
    while (block.length <= (method.call & 31)) block.push(undefined)
    const run = runnerOf(cls, methodName, method, handler)
    block[method.call & 31] = {
      class: cls,
      name: methodName,
      method,
      run,
      onRefused: undefined,
      handler: run,
      core: coreClass.handlers[methodName] ?? noCoreVersion,
      kind: kindOf(cls, method.call),
      references: referencesOf(method.in),
      required: Object.keys(method.in).filter(name => !method.in[name]!.optional),
      shape: shapeOf(method.in),
      returned: referencesOf(method.out),
    }
  }
  return blocks
}

// ---- sharing ----

/** A text that identifies a handler or declaration: '' for undefined, '-' for null, else a number. */
const identity = (pool: TablePool, value: object | null | undefined): string => {
  if (value === null) return '-'
  if (value === undefined) return ''
  let number = pool.identities.get(value)
  if (number === undefined) {
    number = pool.nextIdentity++
    pool.identities.set(value, number)
  }
  return String(number)
}

/** Classes that optional attributes of the class's methods refer to, and that the device does not have. */
const missingClasses = (
  driverClass: DriverClass,
  coreClass: DriverClass,
  classNames: ReadonlySet<string>,
): string[] => {
  const declared = [...Object.values(coreClass.class.methods), ...Object.values(driverClass.class.methods)]
  const all = [...declared, ...Object.values(driverClass.methods), ...Object.values(driverClass.additions)]
  const removed = all.flatMap(({ in: inputs = {}, out: results = {} }) => [
    ...attributesWithoutClass(inputs, classNames),
    ...attributesWithoutClass(results, classNames),
  ])
  return [...new Set(removed.map(([, , cls]) => cls))].sort()
}

/** Classes with the same key can share a table. */
const keyOf = (
  pool: TablePool,
  link: LinkName | undefined,
  listedClass: DriverClass,
  coreClass: DriverClass,
  classNames: ReadonlySet<string>,
): string => {
  const driverClass = withVariantsOf(link, listedClass)
  // `coreClassOf` makes a new `coreClass` for a driver's own class.
  const coreIdentity = coreClass.class.id < DRIVER_FIRST ? identity(pool, coreClass) : ''
  const parts = [link ?? '', identity(pool, driverClass.class), coreIdentity]
  for (const name of Object.keys(driverClass.handlers).sort())
    parts.push(`${name}=${identity(pool, driverClass.handlers[name])}`)
  for (const name of Object.keys(driverClass.methods).sort())
    parts.push(`${name}:${identity(pool, driverClass.methods[name])}`)
  for (const name of Object.keys(driverClass.additions).sort()) {
    const added = driverClass.additions[name]!
    parts.push(`${name}+${identity(pool, added.in)}/${identity(pool, added.out)}`)
  }
  for (const [name, why] of Object.entries(driverClass.unsupported ?? {}).sort()) parts.push(`${name}-${why}`)
  for (const name of missingClasses(driverClass, coreClass, classNames)) parts.push(`-${name}`)
  return parts.join(' ')
}

const bank = (tables: readonly ClassTable[], isPrivate: boolean): Bank => {
  const slots: (ClassTable | undefined)[] = []
  for (const table of tables) {
    const { id } = table.class
    const isDriversOwn = id >= DRIVER_FIRST
    if (isDriversOwn !== isPrivate) continue
    const slot = isPrivate ? id - DRIVER_FIRST : id
    while (slots.length <= slot) slots.push(undefined)
    slots[slot] = table
  }
  return slots
}

/** The dispatch table of a device with these classes. */
export const createTable = (tables: readonly ClassTable[]): DispatchTable => ({
  common: bank(tables, false),
  private: bank(tables, true),
  byName: new Map(tables.map(table => [table.class.name, table])),
})

/**
 * The dispatch table for devices of `driver`, shared through `pool`; to be released with `releaseTable`. Throws an
 * Error if the driver's table is invalid.
 */
export const compile = (pool: TablePool, core: ReadonlyMap<string, DriverClass>, driver: Driver): DispatchTable => {
  const pairs = driver.classes.map(driverClass => ({
    driverClass,
    coreClass: coreClassOf(driver.name, driverClass, core),
  }))
  const classNames = new Set(pairs.map(({ driverClass }) => driverClass.class.name))
  const keys = pairs.map(({ driverClass, coreClass }) => keyOf(pool, driver.link, driverClass, coreClass, classNames))
  const deviceKey = [...keys].sort().join('\n')
  const existing = pool.devices.get(deviceKey)
  if (existing !== undefined) {
    existing.uses++
    return existing.table
  }
  const tables = pairs.map(
    ({ driverClass, coreClass }, i) =>
      pool.classes.get(keys[i]!)?.table ?? mergeClass(driver, driverClass, coreClass, classNames),
  )
  const listed = new Set(tables.map(table => table.class.name))
  if (listed.size < tables.length) throw new Error(`driver ${driver.name}: a class is listed twice`)
  // Also checks classes that the device does not have: a method may refer to them.
  const others = [...core.values()].map(other => other.class).filter(cls => !listed.has(cls.name))
  checkClasses([...tables.map(table => table.class), ...others])

  tables.forEach((table, i) => {
    const shared = pool.classes.get(keys[i]!)
    if (shared !== undefined) shared.uses++
    else pool.classes.set(keys[i]!, { table, uses: 1 })
  })
  const table = createTable(tables)
  pool.devices.set(deviceKey, { table, classes: keys, uses: 1 })
  return table
}

/** Releases a table returned by `compile`. */
export const releaseTable = (pool: TablePool, table: DispatchTable): void => {
  for (const [key, shared] of pool.devices) {
    if (shared.table !== table || --shared.uses > 0) continue
    pool.devices.delete(key)
    for (const classKey of shared.classes) {
      const cls = pool.classes.get(classKey)!
      if (--cls.uses === 0) pool.classes.delete(classKey)
    }
  }
}
