/*
 * The compile phase (R5, R20): core's and a driver's method tables become one dense dispatch table per device.
 *
 * Two banks of classes (common, private), each as long as its highest class id. Per class eight pointers to blocks,
 * each block as long as its highest method. A class that the driver lists without methods is core's own, a class that
 * it does not list is absent, a method set to `null` is removed, and a driver's attributes are added to the method's.
 * Devices share equal tables, those with the same declarations and handlers. Attributes of other links are omitted, and
 * so are attributes that refer to objects of a class that the device does not have; where a method has a version for
 * the link, that version is used (R27).
 */
import { Device } from '../../spec/classes/device/device.ts'
import { QpTypes } from '../../spec/classes/qp/qp.ts'
import { CallError } from '../../spec/errno.ts'
import { type AddressRole, absentOn, addressRoles, type LinkName, Links, whyAbsent } from '../../spec/links.ts'
import type { QpTypeName } from '../../spec/qp-states.ts'
import {
  type Attribute,
  type Attributes,
  type Capability,
  CREATE,
  CREATE_FD,
  checkClasses,
  DESTROY,
  type Method,
  type Methods,
  MODIFY,
  Block as Numbers,
  type ObjectClass,
  type RefusedArgument,
} from '../../spec/schema/schema.ts'
import { type ReferenceAttribute, shapeOf } from '../../uapi/argument-check.ts'
import type { AnyHandler, Bank, ClassTable, DispatchTable, Driver, DriverClass, Entry, TablePool } from '../model.ts'
import { createInState } from '../objects/create-in-state.ts'
import { PRIVATE } from './lookup.ts'

export const createPool = (): TablePool => ({
  classes: new Map(),
  devices: new Map(),
  identities: new WeakMap(),
  nextIdentity: 1,
})

const absent: AnyHandler = call => {
  const { entry } = call
  throw new CallError('EOPNOTSUPP', `${entry.class.name}.${entry.name}: core has no implementation of this method`)
}

// ---- one class ----

const mergeAttributes = (where: string, base: Attributes, added: Attributes | undefined): Attributes => {
  if (added === undefined) return base
  for (const [name, attribute] of Object.entries(added)) {
    if (attribute.id < PRIVATE)
      throw new Error(`${where}: a driver's attribute ${name} has id ${attribute.id}; a driver's ids start at 0x8000`)
    if (base[name] !== undefined)
      throw new Error(`${where}: the driver's attribute ${name} exists in the common method`)
  }
  return { ...base, ...added }
}

const references = (attributes: Attributes): ReferenceAttribute[] =>
  Object.entries(attributes).flatMap(([name, { of, optional }]) =>
    of.kind === 'ref' || of.kind === 'fd' ? [{ name, class: of.class, fd: of.kind === 'fd', optional }] : [],
  )

const kindOf = ({ id, identity }: ObjectClass, call: number): Entry['kind'] => {
  if (identity === 'fixed') return id === Device.id && call === Device.methods.open.call ? 'open' : 'other'
  if (call === CREATE || call === CREATE_FD) return 'create'
  return call === DESTROY ? 'destroy' : 'other'
}

/**
 * Core's entry for the class of the driver's `line`; empty for a private class. Throws an Error for an invalid line.
 */
const coreLine = (driver: string, line: DriverClass, core: ReadonlyMap<string, DriverClass>): DriverClass => {
  const { class: cls } = line
  const own = core.get(cls.name)
  if (own !== undefined) {
    if (own.class.id === cls.id) return own
    throw new Error(
      `driver ${driver}: class ${cls.name} has id ${cls.id}, the common class of that name has ${own.class.id}`,
    )
  }
  if (cls.id < PRIVATE)
    throw new Error(
      `driver ${driver}: there is no common class ${cls.name}; ids of a driver's own classes start at 0x8000, not ${cls.id}`,
    )
  return { class: cls, handlers: {}, additions: {}, methods: {} }
}

/**
 * The method on a device of this link. Where an attribute that RoCE requires is absent, the link's own attribute is
 * required instead.
 */
const methodForLink = (link: LinkName | undefined, method: Method): Method => {
  if (link === undefined) return method
  const absent = absentOn(link).filter(name => method.in[name] !== undefined || method.out[name] !== undefined)
  if (absent.length === 0) return method
  const without = (attributes: Attributes): Attributes =>
    Object.fromEntries(Object.entries(attributes).filter(([name]) => !absent.includes(name)))
  const refused = absent
    .filter(name => method.in[name] !== undefined)
    .map(name => [name, { id: method.in[name].id, code: 'EINVAL', why: whyAbsent(link, name) }])
  const needed = new Set(
    absent
      .filter(name => method.in[name]?.optional === false)
      .map(name => Links[link].attributes[addressRoles.get(name) as AddressRole]),
  )
  const own = Object.entries(without(method.in)).map(([name, one]) => [
    name,
    needed.has(name) ? { ...one, optional: false } : one,
  ])
  const all = { ...method.refused, ...Object.fromEntries(refused) }
  return { ...method, in: Object.fromEntries(own), out: without(method.out), refused: all }
}

/** The method without attributes that the driver does not support. */
const supportedMethod = (where: string, lacks: Readonly<Record<string, string>>, method: Method): Method => {
  const names = Object.keys(lacks).filter(name => method.in[name] !== undefined)
  // Queries do not return them either.
  const left = Object.entries(method.out).filter(([name, { optional }]) => !(optional && lacks[name] !== undefined))
  const out: Attributes = Object.fromEntries(left)
  if (names.length === 0) return left.length === Object.keys(method.out).length ? method : { ...method, out }
  const into: Record<string, Attribute> = { ...method.in }
  const refused: Record<string, RefusedArgument> = { ...method.refused }
  for (const name of names) {
    const { id, optional } = method.in[name]
    if (!optional) throw new Error(`${where}: attribute ${name} is mandatory and cannot be unsupported`)
    delete into[name]
    refused[name] = { id, code: 'EOPNOTSUPP', why: `attribute ${name}: ${lacks[name]}` }
  }
  return { ...method, in: into, out, refused }
}

/** Optional attributes that refer to an object of a class that is not in `has`. */
const attributesWithoutClass = (attributes: Attributes, has: ReadonlySet<string>): [string, Attribute, string][] =>
  Object.entries(attributes).flatMap(([name, one]): [string, Attribute, string][] =>
    (one.of.kind === 'ref' || one.of.kind === 'fd') && one.optional && !has.has(one.of.class)
      ? [[name, one, one.of.class]]
      : [],
  )

/** The method without attributes that refer to classes that the device does not have. */
const methodForDevice = (method: Method, has: ReadonlySet<string>): Method => {
  const [into, out] = [attributesWithoutClass(method.in, has), attributesWithoutClass(method.out, has)]
  if (into.length + out.length === 0) return method
  const without = (attributes: Attributes, removed: typeof into): Attributes =>
    Object.fromEntries(Object.entries(attributes).filter(([name]) => !removed.some(([one]) => one === name)))
  const refused: Record<string, RefusedArgument> = { ...method.refused }
  for (const [name, { id }, cls] of into)
    refused[name] = { id, code: 'EOPNOTSUPP', why: `attribute ${name}: this device has no class ${cls}` }
  return { ...method, in: without(method.in, into), out: without(method.out, out), refused }
}

/** The handler, which throws EPERM for a program without the capability; core's own calls need none. */
const withPermission = (cls: ObjectClass, name: string, needs: Capability, handler: AnyHandler): AnyHandler => {
  const refusal = `${cls.name}.${name}: the process lacks CAP_${needs}; run it as root, or with that capability`
  return (call, object, args, core) => {
    if (call.why === 'call' && call.caller.allows?.(needs) === false) throw new CallError('EPERM', refusal)
    return handler(call, object, args, core)
  }
}

/** Controlled Q_Keys (IBA 10.2.5): programs need CAP_NET_RAW to set them, unless the system allows them to all. */
const CONTROLLED_QKEYS = 0x8000_0000

const withQkeyCheck = (where: string, handler: AnyHandler): AnyHandler => {
  return (call, object, args, core) => {
    const { qkey } = args
    const isControlled = typeof qkey === 'number' && (qkey & CONTROLLED_QKEYS) !== 0
    if (
      isControlled &&
      call.why === 'call' &&
      !call.device.core.privilegedQkeys &&
      call.caller.allows?.('NET_RAW') === false
    )
      throw new CallError(
        'EPERM',
        `${where}: Q_Keys from 0x80000000 are for processes with CAP_NET_RAW, unless \`rdma system set privileged-qkey on\` allows them to all`,
      )
    return handler(call, object, args, core)
  }
}

/** The function that runs a method: the handler, with a check of permissions, or with creation in a state. */
const runnerOf = (cls: ObjectClass, name: string, method: Method, given: AnyHandler): AnyHandler => {
  const permitted = method.needs === undefined ? given : withPermission(cls, name, method.needs, given)
  const isModify = method.call === MODIFY && method.in.qkey !== undefined
  const handler = isModify ? withQkeyCheck(`${cls.name}.${name}`, permitted) : permitted
  const type = (QpTypes as Readonly<Record<string, QpTypeName | undefined>>)[cls.name]
  if (type === undefined || method.call !== CREATE) return handler
  const changes = Object.values(cls.methods).find(one => one.call === MODIFY)?.in ?? {}
  return createInState(
    type,
    Object.keys(method.in).filter(name => changes[name] !== undefined),
    handler,
  )
}

/** The line for devices of this link (R27): its variants replace the common handlers. */
const lineForLink = (link: LinkName | undefined, line: DriverClass): DriverClass => {
  const own = link === undefined ? undefined : line.variants?.[link]
  return own === undefined ? line : { ...line, handlers: { ...line.handlers, ...own } }
}

const mergeClass = (
  { name: driver, link }: Driver,
  given: DriverClass,
  core: DriverClass,
  has: ReadonlySet<string>,
): ClassTable => {
  const [line, own] = [lineForLink(link, given), lineForLink(link, core)]
  const { name } = line.class
  const declared: Methods = { ...own.class.methods, ...line.class.methods, ...line.methods }
  for (const method of [...Object.keys(line.handlers), ...Object.keys(line.additions)])
    if (!Object.hasOwn(declared, method)) throw new Error(`driver ${driver}: class ${name} has no method ${method}`)
  for (const [method, { call }] of Object.entries(line.methods))
    if (call < Numbers.DRIVER_FAST)
      throw new Error(
        `driver ${driver}: ${name}.${method} has call number ${call}; a driver's own methods start at ${Numbers.DRIVER_FAST}`,
      )

  const provided: [string, AnyHandler, Method][] = []
  for (const [methodName, base] of Object.entries(declared)) {
    const override = line.handlers[methodName]
    const handler = override === undefined ? own.handlers[methodName] : override
    if (!handler) continue
    const where = `driver ${driver}: ${name}.${methodName}`
    const added = line.additions[methodName]
    if (added !== undefined && !base.driverAttributes)
      throw new Error(`${where}: the method is declared to take no attributes of a driver`)
    const declaredMethod = {
      ...base,
      in: mergeAttributes(where, base.in, added?.in),
      out: mergeAttributes(where, base.out, added?.out),
    }
    const method = methodForDevice(methodForLink(link, supportedMethod(where, line.lacks ?? {}, declaredMethod)), has)
    provided.push([methodName, handler, method])
  }
  const cls: ObjectClass = {
    ...own.class,
    methods: Object.fromEntries(provided.map(([methodName, , method]) => [methodName, method])),
  }

  const blocks: ((Entry | undefined)[] | undefined)[] = [undefined, undefined, undefined, undefined]
  blocks.push(undefined, undefined, undefined, undefined)
  for (const [methodName, handler, method] of provided) {
    const block = blocks[method.call >> 5] ?? []
    blocks[method.call >> 5] = block
    while (block.length <= (method.call & 31)) block.push(undefined)
    const run = runnerOf(cls, methodName, method, handler)
    const named = references(method.in)
    block[method.call & 31] = {
      class: cls,
      name: methodName,
      method,
      run,
      refused: undefined,
      handler: run,
      core: own.handlers[methodName] ?? absent,
      kind: kindOf(cls, method.call),
      references: named,
      required: Object.keys(method.in).filter(name => !method.in[name].optional),
      shape: shapeOf(method.in),
      returned: references(method.out),
    }
  }
  return { class: cls, blocks }
}

// ---- sharing ----

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

/** The classes that attributes of a line's methods refer to and the device does not have. */
const classesLackedBy = (line: DriverClass, own: DriverClass, has: ReadonlySet<string>): string[] => {
  const declared = [...Object.values(own.class.methods), ...Object.values(line.class.methods)]
  const all = [...declared, ...Object.values(line.methods), ...Object.values(line.additions)]
  const lacked = all.flatMap(({ in: into = {}, out = {} }) => [
    ...attributesWithoutClass(into, has),
    ...attributesWithoutClass(out, has),
  ])
  return [...new Set(lacked.map(([, , cls]) => cls))].sort()
}

const keyOf = (
  pool: TablePool,
  link: LinkName | undefined,
  given: DriverClass,
  own: DriverClass,
  has: ReadonlySet<string>,
): string => {
  const line = lineForLink(link, given)
  const parts = [link ?? '', identity(pool, line.class), identity(pool, own)]
  for (const name of Object.keys(line.handlers).sort()) parts.push(`${name}=${identity(pool, line.handlers[name])}`)
  for (const name of Object.keys(line.methods).sort()) parts.push(`${name}:${identity(pool, line.methods[name])}`)
  for (const name of Object.keys(line.additions).sort()) {
    const added = line.additions[name]
    parts.push(`${name}+${identity(pool, added.in)}/${identity(pool, added.out)}`)
  }
  for (const [name, why] of Object.entries(line.lacks ?? {}).sort()) parts.push(`${name}-${why}`)
  for (const name of classesLackedBy(line, own, has)) parts.push(`-${name}`)
  return parts.join(' ')
}

const bank = (tables: readonly ClassTable[], isPrivate: boolean): Bank => {
  const slots: (ClassTable | undefined)[] = []
  for (const table of tables) {
    const { id } = table.class
    if (id >= PRIVATE !== isPrivate) continue
    while (slots.length <= (id & 0x7fff)) slots.push(undefined)
    slots[id & 0x7fff] = table
  }
  return slots
}

/** The dispatch table of a device with these classes. */
export const assemble = (tables: readonly ClassTable[]): DispatchTable => ({
  common: bank(tables, false),
  private: bank(tables, true),
  byName: new Map(tables.map(table => [table.class.name, table])),
})

/**
 * The dispatch table for devices of `driver`, shared through `pool`; release it with `releaseTable`. Throws an Error
 * that names driver, class and method if the driver's table is invalid.
 */
export const compile = (pool: TablePool, core: ReadonlyMap<string, DriverClass>, driver: Driver): DispatchTable => {
  const lines = driver.classes.map(line => ({ line, own: coreLine(driver.name, line, core) }))
  const has = new Set(lines.map(({ line }) => line.class.name))
  const keys = lines.map(({ line, own }) => keyOf(pool, driver.link, line, own, has))
  const deviceKey = [...keys].sort().join('\n')
  const found = pool.devices.get(deviceKey)
  if (found !== undefined) {
    found.uses++
    return found.table
  }
  const tables = lines.map(({ line, own }, i) => pool.classes.get(keys[i])?.table ?? mergeClass(driver, line, own, has))
  const listed = new Set(tables.map(table => table.class.name))
  if (listed.size < tables.length) throw new Error(`driver ${driver.name}: a class is listed twice`)
  // Classes that the device does not have are checked as well: a method may refer to them.
  const others = [...core.values()].filter(line => !listed.has(line.class.name)).map(line => line.class)
  checkClasses([...tables.map(table => table.class), ...others])

  tables.forEach((table, i) => {
    const shared = pool.classes.get(keys[i])
    if (shared !== undefined) shared.uses++
    else pool.classes.set(keys[i], { table, uses: 1 })
  })
  const table = assemble(tables)
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
