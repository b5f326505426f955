/*
 * Every uverbs call of Linux with its counterpart here (R41, R42): a method of one or several classes, or the reason
 * why there is none. It joins names.ts, write.ts, ioctl.ts and absent.ts; docs/reference/linux-abi.md is generated from
 * it, and a test walks it.
 */
import { absentCommands, absentIoctls } from './absent.ts'
import { ioctlMethods } from './ioctl.ts'
import { ExtendedCommands, ioctlNames, LinuxObject, type LinuxObjectName, WriteCommands } from './names.ts'
import { EXTENDED, writeCommands } from './write.ts'

export interface LinuxCall {
  readonly dialect: 'write' | 'ioctl'
  /** Linux's name, of an ioctl OBJECT.METHOD. */
  readonly name: string
  /** Number of the command (bit 31: extended), or of the object. */
  readonly number: number
  /** Number of the method of an ioctl. */
  readonly methodNumber?: number
  /** Names of the attributes of an ioctl, by number. */
  readonly attributes: readonly string[]
  /** The counterpart: `classes` × `method`; undefined if absent, or if the call carries any command (INVOKE_WRITE). */
  readonly classes: readonly string[]
  readonly method: string | undefined
  readonly carries: boolean
  readonly absent: string | undefined
}

const absences: Readonly<Record<string, string | undefined>> = { ...absentCommands, ...absentIoctls }

const commandOf = (name: string, number: number): LinuxCall => {
  const found = writeCommands.find(command => command.name === name)
  return {
    dialect: 'write',
    name,
    number,
    attributes: [],
    classes: found?.classes ?? [],
    method: found?.method,
    carries: false,
    absent: absences[name],
  }
}

const ioctlsOf = (object: LinuxObjectName): LinuxCall[] =>
  Object.entries<readonly string[]>(ioctlNames[object]).map(([method, attributes], methodNumber) => {
    const number = LinuxObject[object]
    const found = ioctlMethods.find(one => one.object === number && one.number === methodNumber)
    return {
      dialect: 'ioctl',
      name: `${object}.${method}`,
      number,
      methodNumber,
      attributes,
      classes: found?.method === undefined ? [] : found.classes,
      method: found?.method,
      carries: found?.converter === 'invokeWrite',
      absent: absences[`${object}.${method}`],
    }
  })

/** In the order of dialects and numbers. */
export const linuxCalls: readonly LinuxCall[] = [
  ...Object.entries(WriteCommands).map(([name, number]) => commandOf(name, number)),
  ...Object.entries(ExtendedCommands).map(([name, number]) => commandOf(name, EXTENDED + number)),
  ...(Object.keys(ioctlNames) as LinuxObjectName[]).flatMap(ioctlsOf),
]

const key = (dialect: LinuxCall['dialect'], number: number, method?: number): string => `${dialect} ${number} ${method}`
const byNumber = new Map(linuxCalls.map(call => [key(call.dialect, call.number, call.methodNumber), call]))

/** The call with this number: of a command with bit 31 if it is extended, or of an object and its method. */
export const linuxCall = (dialect: LinuxCall['dialect'], number: number, method?: number): LinuxCall | undefined =>
  byNumber.get(key(dialect, number, method))
