/*
 * Every uverbs call of Linux with its counterpart here (R41, R42): a method of one or several classes, or the reason
 * why there is none. The list joins names.ts, write.ts, ioctl.ts and absent.ts; docs/reference/linux-abi.md is
 * generated from it, and test/uapi/every-call.test.ts checks every call of it.
 */
import { absentCommands, absentIoctls } from './absent.ts'
import { ioctlMethods } from './ioctl.ts'
import { ExtendedCommands, ioctlNames, LinuxObject, type LinuxObjectName, WriteCommands } from './names.ts'
import { EXTENDED, writeCommands } from './write.ts'

export interface LinuxCall {
  readonly dialect: 'write' | 'ioctl'
  /** Linux's name of the command; of an ioctl OBJECT.METHOD. */
  readonly name: string
  /** Number of the command (bit 31: extended), or of the object. */
  readonly number: number
  /** Number of the method of an ioctl. */
  readonly methodNumber?: number
  /** Names of the attributes of an ioctl, by number. */
  readonly attributes: readonly string[]
  /** The counterpart: `method` of each of `classes`; undefined and empty if there is none. */
  readonly classes: readonly string[]
  readonly method: string | undefined
  /** The call carries any write command (INVOKE_WRITE), so that it has no method of its own. */
  readonly carriesCommand: boolean
  /** The reason why there is no counterpart (absent.ts). */
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
    carriesCommand: false,
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
      carriesCommand: found?.converter === 'invokeWrite',
      absent: absences[`${object}.${method}`],
    }
  })

/** Write commands, extended commands, then ioctls, each in the order of their numbers. */
export const linuxCalls: readonly LinuxCall[] = [
  ...Object.entries(WriteCommands).map(([name, number]) => commandOf(name, number)),
  ...Object.entries(ExtendedCommands).map(([name, number]) => commandOf(name, EXTENDED + number)),
  ...(Object.keys(ioctlNames) as LinuxObjectName[]).flatMap(ioctlsOf),
]

const key = (dialect: LinuxCall['dialect'], number: number, method?: number): string => `${dialect} ${number} ${method}`
const byNumber = new Map(linuxCalls.map(call => [key(call.dialect, call.number, call.methodNumber), call]))

/** The call with this number: a command's number (with bit 31 if extended), or the numbers of object and method. */
export const linuxCall = (dialect: LinuxCall['dialect'], number: number, method?: number): LinuxCall | undefined =>
  byNumber.get(key(dialect, number, method))
