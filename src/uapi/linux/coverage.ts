/*
 * Every uverbs call of Linux (R41, R42) with its method here, or the reason why there is none: joins names.ts,
 * write.ts and ioctl.ts of spec/linux with absent.ts.
 */
import { ioctlMethods } from '../../spec/linux/ioctl.ts'
import {
  ExtendedCommands,
  ioctlNames,
  LinuxObject,
  type LinuxObjectName,
  WriteCommands,
} from '../../spec/linux/names.ts'
import { EXTENDED, writeCommands } from '../../spec/linux/write.ts'
import { absentCommands, absentIoctls } from './absent.ts'

export interface LinuxCall {
  readonly dialect: 'write' | 'ioctl'
  /** Linux's name of the command, or OBJECT.METHOD of an ioctl. */
  readonly name: string
  /** Number of the command (bit 31: extended), or of the object. */
  readonly number: number
  /** Only for an ioctl. */
  readonly methodNumber?: number
  /** Names of the attributes of an ioctl, by number. */
  readonly attributes: readonly string[]
  /** The classes that have `method`; empty if the call has no method here. */
  readonly classes: readonly string[]
  readonly method: string | undefined
  /** The call is INVOKE_WRITE, which carries a write command. */
  readonly carriesCommand: boolean
  /** Why the call has no method here. */
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

export const linuxCalls: readonly LinuxCall[] = [
  ...Object.entries(WriteCommands).map(([name, number]) => commandOf(name, number)),
  ...Object.entries(ExtendedCommands).map(([name, number]) => commandOf(name, EXTENDED + number)),
  ...(Object.keys(ioctlNames) as LinuxObjectName[]).flatMap(ioctlsOf),
]

const key = (dialect: LinuxCall['dialect'], number: number, method?: number): string => `${dialect} ${number} ${method}`
const byNumber = new Map(linuxCalls.map(call => [key(call.dialect, call.number, call.methodNumber), call]))

/**
 * `number`: of the command (with bit 31 if extended), or of the ioctl's object. `method`: the number of the ioctl's
 * method.
 */
export const linuxCall = (dialect: LinuxCall['dialect'], number: number, method?: number): LinuxCall | undefined =>
  byNumber.get(key(dialect, number, method))
