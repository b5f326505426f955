/*
 * Executes firmware commands by the table of spec/drivers/mlx5-firmware/commands.ts. What Linux checks before the
 * firmware gets the command fails with Linux's errno. What the firmware refuses fails with EREMOTEIO, and the output
 * has status and syndrome.
 */
import { answered } from '../../../core/devices/driver.ts'
import type { CallContext, CoreObject } from '../../../core/model.ts'
import {
  answerHeader,
  type CommandMethod,
  type CommandName,
  commandHeader,
  commandOf,
  type FirmwareCommand,
  GENERAL_COMMANDS,
} from '../../../spec/drivers/mlx5-firmware/commands.ts'
import type { FieldValues } from '../../../spec/drivers/mlx5-firmware/fields.ts'
import { AnsweredError, CallError, callError } from '../../../spec/errno.ts'
import { because, the } from '../../../spec/reason.ts'
import { decodeFields, encodeFieldsInto } from '../../../uapi/firmware/fields.ts'
import { contextOf } from '../context.ts'
import { CommandRefused, type Given, type Made, refuseCommand, type Subject } from './handler.ts'
import type { Identity } from './identity.ts'
import { CommandStatus, Syndromes } from './status.ts'
import { handlers } from './table.ts'

export interface Executed {
  readonly output: Uint8Array
  /** Of a create. */
  readonly command: CommandName
  readonly number: number
  readonly made: Made<FirmwareCommand> | undefined
}

const nameOf = (opcode: number): string => commandOf(opcode)?.name ?? `command 0x${opcode.toString(16)}`

/** Commands that Linux gives for contexts without DEVX, too. */
const FOR_ALL: readonly number[] = [0x100, 0x762, 0x752]

/** Throws CallError EINVAL for what Linux does not pass to the firmware. */
const checkAsLinux = (
  call: CallContext,
  method: CommandMethod,
  header: { readonly opcode: number; readonly vhca_tunnel_id: number },
): (FirmwareCommand & { readonly name: string }) | undefined => {
  const { opcode, vhca_tunnel_id } = header
  const where = because`${the.method(`${call.entry.class.name}.${call.entry.name}`)}: ${nameOf(opcode)}`
  if (method !== 'general' && vhca_tunnel_id !== 0)
    throw callError.EINVAL`${where}: vhca_tunnel_id is ${vhca_tunnel_id}; it must be 0`
  if (contextOf(call.context).uid === undefined && !FOR_ALL.includes(opcode))
    throw callError.EINVAL`${where}: the context was opened without MLX5DV_CONTEXT_FLAGS_DEVX`
  const command = commandOf(opcode)
  const isGeneral = method === 'general' && opcode >= GENERAL_COMMANDS.first && opcode < GENERAL_COMMANDS.end
  if (command?.method !== method && !isGeneral)
    throw callError.EINVAL`${where}: Linux does not take this command here${command && `, but as one of ${command.method}`}`
  return command
}

const checkLengths = (command: FirmwareCommand, bytes: Uint8Array, outBytes: number): void => {
  const least = command.minInput ?? command.in!.bytes
  if (bytes.length < least) refuseCommand('shortInput', `${bytes.length} bytes; at least ${least}`)
  if (outBytes < command.out!.bytes) refuseCommand('shortOutput', `${outBytes} bytes; at least ${command.out!.bytes}`)
}

/** What the firmware answers to a CallError of the object model. EIO is one of a context that ends: it stays. */
const syndromeOf = (error: unknown): CommandRefused | undefined => {
  if (error instanceof CommandRefused) return error
  if (!(error instanceof CallError) || error.code === 'EIO') return undefined
  const { message, code } = error
  if (code === 'ENOMEM' || code === 'EMFILE' || code === 'ENFILE') return new CommandRefused(Syndromes.limit, message)
  if (code === 'EBUSY') return new CommandRefused(Syndromes.inUse, message)
  return new CommandRefused(Syndromes.refused, message)
}

/**
 * The error for a program, whose output has status and syndrome. Other errors than refusals are returned as they are.
 */
const refusalOf = (call: CallContext, opcode: number, outBytes: number, error: unknown): unknown => {
  const refused = syndromeOf(error)
  if (refused === undefined) return error
  const { number, status } = refused.syndrome
  const output = new Uint8Array(Math.max(outBytes, answerHeader.bytes))
  encodeFieldsInto(answerHeader, output, { status: CommandStatus[status], syndrome: number })
  return new AnsweredError(
    'EREMOTEIO',
    because`${the.method(`${call.entry.class.name}.${call.entry.name}`)}: ${nameOf(opcode)}: ${status} (0x${CommandStatus[status].toString(16)}), syndrome 0x${number.toString(16)}: ${refused.message}`,
    { output },
  )
}

const outputOf = (command: FirmwareCommand, outBytes: number, values: FieldValues): Uint8Array => {
  const output = new Uint8Array(outBytes)
  encodeFieldsInto(command.out!, output, values)
  return output
}

/**
 * Executes a command. `object`: the `devx_obj` that a create makes, otherwise the call's object. `about`: the object of
 * a modify or query. Throws CallError: EINVAL as Linux, AnsweredError EREMOTEIO as the firmware.
 */
export const execute = (
  call: CallContext,
  method: CommandMethod,
  object: CoreObject,
  bytes: Uint8Array,
  outBytes: number,
  about?: { readonly identity: Identity | undefined; readonly subject: Subject },
): Executed | Promise<Executed> => {
  const header = decodeFields(commandHeader, bytes)
  const command = checkAsLinux(call, method, header)
  const { opcode } = header
  const input = command?.in === undefined ? undefined : (decodeFields(command.in, bytes) as FieldValues)
  if (about !== undefined) {
    const { identity } = about
    const number = input?.[command!.number!]
    if (identity === undefined || command?.of !== identity.command || number !== identity.number)
      throw callError.EINVAL`${the.method(`devx.${method}`)}: ${nameOf(opcode)}: the handle is not of the object of the command`
  }
  // one object of Linux is one value
  if (command?.name === 'CREATE_PSV' && input?.num_psv !== 1)
    throw callError.EINVAL`${the.method('devx_obj.create')}: CREATE_PSV: num_psv is ${String(input?.num_psv)}; it must be 1`
  const fail = (error: unknown): never => {
    throw refusalOf(call, opcode, outBytes, error)
  }
  try {
    const handler = handlers.get(opcode)
    if (command?.in === undefined || handler === undefined) return refuseCommand('unsupportedCommand', nameOf(opcode))
    checkLengths(command, bytes, outBytes)
    const given = { call, input, opMod: header.op_mod, bytes, outBytes } as Given<never>
    const finish = (result: unknown): Executed => {
      const made = method === 'create' ? (result as Made<FirmwareCommand>) : undefined
      const values = (made === undefined ? result : made.out) as FieldValues
      const output = outputOf(command, outBytes, values)
      return { output, command: command.name as CommandName, number: Number(values[command.number ?? ''] ?? 0), made }
    }
    const result = answered(handler(given, object, about?.subject), finish)
    return result instanceof Promise ? result.catch(fail) : result
  } catch (error) {
    return fail(error)
  }
}
