/*
 * `userdma schema`: every class, method and attribute with its type (R13): those of a device, from its own description;
 * or all declared ones, each with the drivers that have it.
 */
import { classesWithClients } from '../../clients/clients.ts'
import { knownDevices } from '../../drivers/known.ts'
import { classes } from '../../spec/classes.ts'
import { Block, type ObjectClass } from '../../spec/schema/schema.ts'
import {
  type DriversOf,
  type JsonAttribute,
  type JsonClass,
  type JsonMethod,
  type JsonType,
  type Schema,
  schemaOf,
} from '../../spec/schema/schema-json.ts'
import { namedSocket, userSocket } from '../../verbs/remote/user-socket.ts'
import { openSystem } from '../../verbs/system.ts'
import { UsageError } from '../fail.ts'
import type { QueryOptions } from './stat.ts'

/** As commander parses them. */
export interface SchemaOptions extends QueryOptions {
  readonly device?: string
}

const neverCalled = (): never => {
  throw new Error('a device that is only described was called')
}

/** A device of every driver, only to be described. */
export const describedDevices = (): ReturnType<typeof knownDevices> => knownDevices(classesWithClients(neverCalled))

/** All declarations: the common classes, and drivers' own. */
export const declaredSchema = (): Schema => {
  const devices = describedDevices()
  const own = new Map<string, ObjectClass>()
  for (const { shared } of devices)
    for (const { class: cls } of shared.byName.values())
      if (!classes.some(({ name }) => name === cls.name)) own.set(cls.name, cls)
  /** The system-wide device has the global classes without a driver. */
  const driversOf: DriversOf = (className, method) =>
    devices
      .filter(({ shared }) => {
        const found = shared.byName.get(className)
        return found !== undefined && (method === undefined || method in found.class.methods)
      })
      .map(({ driver }) => driver.name)
  return schemaOf([...classes, ...own.values()], { driversOf })
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

const attributeText = (arrow: string, { name, id, optional, type }: JsonAttribute): string[] => [
  `    ${arrow} ${name}${optional ? '?' : ''}: ${typeText(type)} (${id < 0x8000 ? id : `0x${id.toString(16)}`})`,
  ...(type.kind === 'record' || type.kind === 'list'
    ? type.fields.map(field => `        ${String(field.offset).padStart(3)} ${field.name}: ${typeText(field.type)}`)
    : []),
]

const BLOCKS = ['common', 'management', 'driver', 'experimental', '4', '5', '6', '7']
/** A call number with its block and the number in the block. */
export const callText = (call: number): string => `${call}, ${BLOCKS[call >> 5]} ${call % Block.MANAGEMENT}`

const support = (drivers: readonly string[] | undefined): string => {
  if (drivers === undefined) return ''
  return drivers.length === 0 ? '; no driver has it' : `; ${drivers.join(', ')}`
}

const methodText = ({ name, call, drivers, in: into, out }: JsonMethod, ofClass: JsonClass['drivers']): string[] => [
  `  ${name} (${callText(call)})${drivers?.join() === ofClass?.join() ? '' : support(drivers)}`,
  ...into.flatMap(attribute => attributeText('→', attribute)),
  ...out.flatMap(attribute => attributeText('←', attribute)),
]

const NAMED: Readonly<Record<ObjectClass['identity'], string>> = {
  handle: 'named by handles',
  fd: 'named by descriptors',
  fixed: 'exists already',
}
export const namedBy = (identity: ObjectClass['identity']): string => NAMED[identity]

/** The output of `userdma schema`: classes, their methods, with inputs (→) and outputs (←); `?` marks optional ones. */
export const schemaText = ({ classes: all, enumerations }: Schema): string => {
  const lines = all.flatMap(cls => [
    `class ${cls.name} (${cls.id < 0x8000 ? cls.id : `0x${cls.id.toString(16)}`}), ${namedBy(cls.identity)}${
      cls.global ? ', global' : ''
    }${support(cls.drivers)}`,
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

export const schema = ({ socket, device, json }: SchemaOptions): void => {
  if (socket !== undefined && device === undefined)
    throw new UsageError('--socket selects a daemon; select one of its devices with --device')
  const found = device === undefined ? declaredSchema() : deviceSchema(namedSocket(socket) ?? userSocket(), device)
  process.stdout.write(json ? `${JSON.stringify(found, null, 2)}\n` : schemaText(found))
}
