/*
 * A write command of Linux without its headers: what write() and the ioctl INVOKE_WRITE have in common (R41,
 * spec/linux/write.ts).
 *
 * As in the kernel, only zeros may follow the struct of a request and its tail (tail.ts), otherwise the error is
 * EOPNOTSUPP. The rest of a longer response buffer is filled with zeros.
 */
import { QpTypes } from '../../spec/classes/qp/qp.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { type LinkName, Links } from '../../spec/links.ts'
import { COMMAND_MASK, EXTENDED, type WriteCommand, writeCommands } from '../../spec/linux/write.ts'
import type { AnyValues, Method } from '../../spec/schema/schema.ts'
import type { Answer, Call, CallerView, Result } from '../call.ts'
import { lacksMethod } from '../object/lacking.ts'
import {
  callOf,
  classNameOf,
  type DriverInput,
  declaredMethod,
  driverPart,
  factsOf,
  fill,
  GET_CONTEXT_AGAIN,
  hasMethodOnDevice,
  isOpenAgain,
  isZero,
  type LayoutByClass,
  layoutByClass,
  readResponse,
  refuse,
  responseStruct,
  type UserBuffer,
  writeDriverPart,
} from './caller.ts'
import { type CompiledLayout, type Facts, readCells, residue, writeCells } from './cells.ts'
import { linuxCall } from './coverage.ts'
import { badLegacy } from './legacy.ts'
import { clearTail, readTail, restoreTail } from './tail.ts'

/** A command with its layouts. */
export interface CompiledCommand {
  readonly command: WriteCommand
  readonly in: LayoutByClass
  readonly out: LayoutByClass | undefined
}

/** The parts of a command, located by the headers of write() or by the attributes of the ioctl. */
export interface CommandParts {
  /** The core's part of the request, at least `command.minRequestBytes` bytes. */
  readonly request: Uint8Array
  /** Room for the core's part of the response. */
  readonly response: UserBuffer | undefined
  readonly driverInput: DriverInput
  readonly driverResponse: UserBuffer | undefined
}

export interface DecodedCommand {
  /** The layout of the request. */
  readonly compiled: CompiledLayout
  readonly call: Call
  readonly facts: Facts
  readonly args: AnyValues
  /** Writes the response; `ret` of a successful Answer is 0. Throws CallError. */
  answer(outcome: Result | CallError): Answer
  /** As `Decoded.readResult`. */
  readResult(after: Pick<CallerView, 'copyIn'>): Result
}

/** By number; for an extended command with bit EXTENDED. */
const compiledCommands = new Map<number, CompiledCommand>()
for (const command of writeCommands) {
  const { out } = command
  compiledCommands.set((command.isExtended ? EXTENDED : 0) + command.number, {
    command,
    in: layoutByClass(command.name, command.classes, command.in, command.method, 'in'),
    out: out === undefined ? undefined : layoutByClass(command.name, command.classes, out, command.method, 'out'),
  })
}

/**
 * `number`: with bit EXTENDED for an extended command. Throws CallError: EINVAL for other high bits, EOPNOTSUPP for a
 * command that Linux does not have, or that has no method here. `onName` gets Linux's name of the command.
 */
export const findCommand = (number: number, onName?: (name: string) => void): CompiledCommand => {
  if ((number & ~(EXTENDED | COMMAND_MASK)) !== 0)
    throw callError.EINVAL`command 0x${(number >>> 0).toString(16)} has unknown flags`
  const known = linuxCall('write', number >>> 0)
  if (known === undefined)
    throw callError.EOPNOTSUPP`command 0x${(number >>> 0).toString(16)}: Linux 7.3 has no such command`
  onName?.(known.name)
  const found = compiledCommands.get(number >>> 0)
  if (found !== undefined) return found
  throw callError.EOPNOTSUPP`${known.name}: ${known.absent}`
}

/** `findCommand`; also throws CallError EOPNOTSUPP if the device lacks the command's method. */
export const deviceCommand = (view: CallerView, number: number, onName: (name: string) => void): CompiledCommand => {
  const found = findCommand(number, onName)
  const { classes, method, name: title } = found.command
  if (!hasMethodOnDevice(view, classes, method))
    throw callError.EOPNOTSUPP`${title}: ${lacksMethod(classes[0]!, method)}`
  return found
}

/**
 * One handle may be the value of several attributes (`byClass`): keeps the attribute for the object's class. If none
 * matches, keeps the first, so that core refuses the call.
 */
const chooseByClass = (view: CallerView, { choices }: CompiledLayout, values: AnyValues): void => {
  if (choices.length === 0) return
  const name = view.classOf(values[choices[0]!.attribute] as number)?.name
  const chosen = choices.find(({ type }) => type.kind === 'ref' && type.class === name) ?? choices[0]
  for (const choice of choices) if (choice !== chosen) delete values[choice.attribute]
}

/** Turns a command into a call. Throws CallError. */
export const readCommand = (view: CallerView, found: CompiledCommand, parts: CommandParts): DecodedCommand => {
  const { command } = found
  const { link } = view.schema
  const { layout } = found.in(command.classes[0]!, link)
  let { request } = parts
  const tail = request.subarray(Math.min(layout.size, request.length))
  if (request.length < layout.size) {
    const padded = new Uint8Array(layout.size)
    padded.set(request)
    request = padded
  } else if (layout.tail === undefined && !isZero(tail))
    throw callError.EOPNOTSUPP`${command.name}: bytes after the ${layout.size} of its struct are not 0`

  const facts: Facts = {}
  const args: AnyValues = { ...command.impliedArguments }
  // the first read finds the class, which determines the attributes
  let className = command.classes[0]!
  if (command.classes.length > 1) {
    readCells(found.in(className, link), request, {}, facts, false)
    className = classNameOf(view, command.classes, facts, parts.driverInput)
  }
  const struct = found.in(className, link)
  const isQpChange = command.method === 'modify' && Object.hasOwn(QpTypes, className)
  readCells(struct, request, args, facts, true, isQpChange ? view.schema.linux?.qpModifications : undefined)
  className = classNameOf(view, command.classes, facts, parts.driverInput)
  chooseByClass(view, struct, args)
  readTail(command, declaredMethod(className, command.method).in, request, tail, args)

  const isAgain = isOpenAgain(view, className, command.method)
  const call = isAgain
    ? callOf(view, 'device', 'query', 0, {})
    : callOf(view, className, command.method, facts.object, args)
  const part = command.hasDriverBytes ? driverPart(view, call, parts.driverInput, parts.driverResponse) : undefined
  return {
    compiled: struct,
    call,
    facts,
    args,
    answer: outcome => {
      if (outcome instanceof CallError) return refuse(outcome)
      const { response } = parts
      writeDriverPart(view, part, outcome)
      let installs: Answer['installs'] = []
      if (found.out !== undefined && response !== undefined) {
        const written = responseStruct(found.out(className, link), outcome, response)
        fill(view, response, written.bytes)
        installs = written.installs
      }
      return isAgain ? refuse(GET_CONTEXT_AGAIN) : { ret: 0, installs }
    },
    readResult: after => {
      const { response } = parts
      const compiled = found.out?.(className, link)
      if (compiled === undefined || response === undefined) return { out: {} }
      return readResponse(compiled, after.copyIn(response.address, Math.min(response.length, compiled.layout.size)))
    },
  }
}

/** Zeroes the bytes of a request that the call's arguments restore. */
export const clearRequest = ({ compiled, args, facts }: DecodedCommand, request: Uint8Array): void => {
  const { layout } = compiled
  const struct = new Uint8Array(layout.size)
  struct.set(request.subarray(0, layout.size))
  request.set(residue(compiled, struct, args, facts).subarray(0, request.length))
  clearTail(layout, request)
}

/**
 * The link whose attributes a method has. Core's declaration has the attributes of all links, and counts as RoCE's. If
 * a method has no attributes of a link but refuses some, the link is iWARP. Otherwise undefined.
 */
const linkOf = ({ in: attributes, refused }: Method): LinkName | undefined =>
  (['roce', 'ib', 'opa'] as const).find(link =>
    Object.values(Links[link].attributes).some(name => attributes[name] !== undefined),
  ) ?? (refused === undefined ? undefined : 'iwarp')

/** Message for a LEGACY attribute with a command or method `name` of other classes. */
export const notOfClass = (name: string, call: Call): string =>
  `has ${name}, which is not a call of class ${call.class.name}`

/**
 * The inverse of `clearRequest`: writes the arguments of a call into a cleared request. Throws CallError EINVAL if the
 * command is for other classes.
 */
export const restoreRequest = (found: CompiledCommand, call: Call, request: Uint8Array): void => {
  const { name, classes } = found.command
  if (!classes.includes(call.class.name)) throw badLegacy(notOfClass(name, call))
  const compiled = found.in(call.class.name, linkOf(call.method))
  const { layout } = compiled
  const struct = new Uint8Array(layout.size)
  struct.set(request.subarray(0, layout.size))
  writeCells(compiled, struct, call.args, factsOf(call))
  request.set(struct.subarray(0, request.length))
  restoreTail(layout, call, request)
}
