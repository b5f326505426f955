/*
 * `userdma schema`: every class, method and attribute with its type (R13): those of a device, from its own description;
 * or all declared ones, each with the drivers that have it.
 */

import { namedSocket, userSocket } from '../../daemon/client/user-socket.ts'
import { oneDevicePerDriver } from '../../drivers/registered.ts'
import { openSystem } from '../../library/open/system.ts'
import { classesWithClients } from '../../services/clients.ts'
import { DRIVER_FIRST } from '../../spec/classes/ids.ts'
import { classes } from '../../spec/classes.ts'
import { jsonText } from '../../spec/printable.ts'
import type { ObjectClass } from '../../spec/schema/schema.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { schemaOptions } from '../command-line/options.ts'
import {
  type DriversOf,
  type JsonAttribute,
  type JsonClass,
  type JsonMethod,
  type JsonType,
  type Schema,
  schemaOf,
} from '../schema-json.ts'

type SchemaOptions = OptionsOf<typeof schemaOptions>

const neverCalled = (): never => {
  throw new Error('a device that exists only for its description was called')
}

/** One device of every driver; they can be described, and not called. */
export const describedDevices = (): ReturnType<typeof oneDevicePerDriver> =>
  oneDevicePerDriver(classesWithClients(neverCalled))

/** All declared classes: the common ones, and drivers' own. */
export const declaredSchema = (): Schema => {
  const devices = describedDevices()
  const driverClasses = new Map<string, ObjectClass>()
  for (const { sharedTable } of devices)
    for (const { class: cls } of sharedTable.byName.values())
      if (!classes.some(({ name }) => name === cls.name)) driverClasses.set(cls.name, cls)
  /** Empty for classes that only the system-wide device (R18) has: it has no driver. */
  const driversOf: DriversOf = (className, method) =>
    devices
      .filter(({ sharedTable }) => {
        const found = sharedTable.byName.get(className)
        return found !== undefined && (method === undefined || method in found.class.methods)
      })
      .map(({ driver }) => driver.name)
  return schemaOf([...classes, ...driverClasses.values()], { driversOf })
}

const deviceSchema = (socket: string, device: string): Schema => {
  const system = openSystem({ socket })
  try {
    return schemaOf(system.interface(device), { device })
  } finally {
    system.close()
  }
}

// ---- text ----

/** The limits of a number, with a space before them; empty if it has none. */
const range = (min: number | undefined, max: number | undefined): string => {
  if (min === undefined && max === undefined) return ''
  return max === undefined ? ` ≥ ${min}` : min === undefined ? ` ≤ ${max}` : ` ${min}…${max}`
}

/** A type in a few words. */
export const typeText = (type: JsonType): string => {
  switch (type.kind) {
    case 'u8':
    case 'u16':
    case 'u32':
      return `${type.kind}${range(type.min, type.max)}`
    case 'u64':
      return type.kind
    case 'bytes':
      return `${type.size} bytes`
    case 'blob':
      return `up to ${type.max} bytes`
    case 'enum':
    case 'flags':
      return `${type.enumeration}${type.kind === 'flags' ? ' bits' : ''}, u${8 * type.size}`
    case 'ref':
      return `handle of ${type.class}`
    case 'fd':
      return `descriptor of ${type.class}`
    case 'record':
      return `record of ${type.size} bytes`
    case 'list':
      return `up to ${type.max} records of ${type.size} bytes`
  }
}

/** An id of a class or attribute; those of drivers in hexadecimal. */
const idText = (id: number): string => (id < DRIVER_FIRST ? String(id) : `0x${id.toString(16)}`)

/** `arrow`: → for an input, ← for an output. */
const attributeText = (arrow: string, { name, id, optional, type }: JsonAttribute): string[] => [
  `    ${arrow} ${name}${optional ? '?' : ''}: ${typeText(type)} (${idText(id)})`,
  ...(type.kind === 'record' || type.kind === 'list'
    ? type.fields.map(field => `        ${String(field.offset).padStart(3)} ${field.name}: ${typeText(field.type)}`)
    : []),
]

/** Names of the blocks of 32 call numbers (`Block` of spec/schema/schema.ts); the last four are reserved. */
const BLOCKS = ['common', 'management', 'driver', 'experimental', '4', '5', '6', '7']
/** A call number, with the name of its block and its number within the block. */
export const callText = (call: number): string => `${call}, ${BLOCKS[call >> 5]} ${call % 32}`

/** The drivers that have a class or method, as the end of a line. `undefined`: the schema is that of a device. */
const driversText = (drivers: readonly string[] | undefined): string => {
  if (drivers === undefined) return ''
  return drivers.length === 0 ? '; no driver has it' : `; ${drivers.join(', ')}`
}

const methodText = (
  { name, call, drivers, in: inputs, out }: JsonMethod,
  classDrivers: JsonClass['drivers'],
): string[] => [
  `  ${name} (${callText(call)})${drivers?.join() === classDrivers?.join() ? '' : driversText(drivers)}`,
  ...inputs.flatMap(attribute => attributeText('→', attribute)),
  ...out.flatMap(attribute => attributeText('←', attribute)),
]

/** How calls name objects of a class. */
const NAMED: Readonly<Record<ObjectClass['identity'], string>> = {
  handle: 'named by handles',
  fd: 'named by descriptors',
  fixed: 'exists already',
}
export const namedBy = (identity: ObjectClass['identity']): string => NAMED[identity]

/**
 * The output of `userdma schema`: classes with their methods, inputs (→) and outputs (←), `?` behind the name of an
 * optional one; then enumerations, large values in hexadecimal.
 */
export const schemaText = ({ classes: described, enumerations }: Schema): string => {
  const lines = described.flatMap(cls => [
    `class ${cls.name} (${idText(cls.id)}), ${namedBy(cls.identity)}${
      cls.global ? ', global' : ''
    }${driversText(cls.drivers)}`,
    ...cls.methods.flatMap(method => methodText(method, cls.drivers)),
    '',
  ])
  for (const [name, values] of Object.entries(enumerations)) {
    const words = Object.entries(values).map(
      ([word, value]) => `${word} ${value < 1024 ? value : `0x${value.toString(16)}`}`,
    )
    lines.push(`${name}: ${words.join(', ')}`)
  }
  return `${lines.join('\n')}\n`
}

/** The command. Throws UsageError. */
export const schema = ({ socket, device, json }: SchemaOptions): void => {
  const found = device === undefined ? declaredSchema() : deviceSchema(namedSocket(socket) ?? userSocket(), device)
  process.stdout.write(json ? `${jsonText(found, 2)}\n` : schemaText(found))
}
