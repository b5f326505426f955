/*
 * Firmware commands by which the programs of machine.ts make their queues, by name.
 */
import { invokeNow } from '../../../src/core/index.ts'
import type { Caller, Context } from '../../../src/core/model.ts'
import { contextOf } from '../../../src/drivers/mlx5/context.ts'
import { Uar } from '../../../src/spec/drivers/mlx5.ts'
import { Devx, DevxObj, DevxUmem } from '../../../src/spec/drivers/mlx5-devx.ts'
import {
  type CommandName,
  Commands,
  commandHeader,
  type FirmwareCommand,
} from '../../../src/spec/drivers/mlx5-firmware/commands.ts'
import type { FieldValues } from '../../../src/spec/drivers/mlx5-firmware/fields.ts'
import { AccessFlags } from '../../../src/spec/enums.ts'
import { decodeFields, encodeFields, encodeFieldsInto } from '../../../src/uapi/firmware/fields.ts'

type Fields = Record<string, unknown>

/** `start`, `bytes`: the program's pages, which are one UMEM. */
export const firmwareOf = (context: Context, caller: Caller, start: bigint, bytes: number) => {
  contextOf(context).uid ??= 1
  const umemOf = (address: bigint, length: number, access: number = AccessFlags.values.LOCAL_WRITE) =>
    invokeNow(context, DevxUmem, 'create', 0, { address, length: BigInt(length), access }, caller)
  const inputOf = (name: CommandName, fields: Fields, opMod: number): Uint8Array => {
    const command: FirmwareCommand = Commands[name]
    const input = encodeFields(command.in!, fields as never)
    encodeFieldsInto(commandHeader, input, { opcode: command.opcode, op_mod: opMod })
    return input
  }
  const outputOf = (name: CommandName, output: Uint8Array): FieldValues =>
    decodeFields((Commands[name] as FirmwareCommand).out!, output) as FieldValues
  const outBytes = (name: CommandName): number => (Commands[name] as FirmwareCommand).out!.bytes
  const about = (
    method: 'modify' | 'query',
    handle: number,
    name: CommandName,
    fields: Fields,
    opMod = 0,
  ): FieldValues => {
    const args = { handle, input: inputOf(name, fields, opMod), outBytes: outBytes(name) }
    return outputOf(name, invokeNow(context, Devx, method, 0, args, caller).out.output)
  }
  const numbers = (kind: string): number => [...contextOf(context).numbers.get(kind)!.keys()][0]!
  invokeNow(context, Uar, 'create', 0, { type: 1n }, caller)
  const umem = umemOf(start, bytes).out.umem
  return {
    umemOf,
    /** Numbers of the program's UMEM, protection domain and doorbell page, and of the event queue of vector 0. */
    umem,
    pd: numbers('pd'),
    uar: numbers('uar'),
    eqn: invokeNow(context, Devx, 'queryEqn', 0, { vector: 0 }, caller).out.eqn,
    create(name: CommandName, fields: Fields): { object: number; number: number } {
      const args = { input: inputOf(name, fields, 0), outBytes: outBytes(name) }
      const { object, out } = invokeNow(context, DevxObj, 'create', 0, args, caller)
      const number = outputOf(name, out.output)[(Commands[name] as FirmwareCommand).number!] as number
      return { object: object!, number }
    },
    modify: (handle: number, name: CommandName, fields: Fields, opMod = 0) =>
      about('modify', handle, name, fields, opMod),
    query: (handle: number, name: CommandName, fields: Fields) => about('query', handle, name, fields),
    destroy: (handle: number): void => void invokeNow(context, DevxObj, 'destroy', handle, {}, caller),
  }
}
export type Firmware = ReturnType<typeof firmwareOf>
