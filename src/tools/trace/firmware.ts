/*
 * Firmware commands of mlx5 (DEVX) in traced calls: the bytes of command and answer as records of their fields, by the
 * declarations of spec/drivers/mlx5-firmware.
 */
import { Devx, DevxObj } from '../../spec/drivers/mlx5-devx.ts'
import { Commands, capabilityStructs, commandHeader, commandOf } from '../../spec/drivers/mlx5-firmware/commands.ts'
import type { Field, FieldValues, Struct } from '../../spec/drivers/mlx5-firmware/fields.ts'
import type { AnyRecord, AnyValue, Attributes, Fields, Kind } from '../../spec/schema/schema.ts'
import { decodeFields } from '../../uapi/firmware/fields.ts'
import type { ReadMessage } from './message.ts'

const kindOf = (field: Field): Kind => {
  switch (field.kind) {
    case 'bits':
      return field.width === 24 ? { kind: 'u32', max: 0xff_ffff } : { kind: 'u32' }
    case 'long':
      return { kind: 'u64' }
    case 'raw':
      return { kind: 'bytes', size: field.bytes }
    case 'rest':
      return { kind: 'blob', max: 0xffff }
    case 'nested':
      return { kind: 'record', fields: fieldsOf(field.struct) }
  }
}

/** Like a field of a record of the model; the offsets are not used. */
const fieldsOf = (struct: Struct): Fields =>
  Object.fromEntries(Object.entries(struct.fields).map(([name, field]) => [name, { offset: 0, type: kindOf(field) }]))

/** A struct, and with `opMod` the modifier before it. */
const shown = (struct: Struct, bytes: Uint8Array, opMod = 0): { type: Kind; value: AnyRecord } => {
  const modifier: Fields = opMod === 0 ? {} : { op_mod: { offset: 0, type: { kind: 'u32' } } }
  const values = decodeFields(struct, bytes) as FieldValues as AnyRecord
  return {
    type: { kind: 'record', fields: { ...modifier, ...fieldsOf(struct) } },
    value: opMod === 0 ? values : { op_mod: opMod, ...values },
  }
}

/** The struct of an answer: of capabilities, that of their kind. */
const answerOf = (opcode: number, opMod: number): Struct | undefined => {
  const out = commandOf(opcode)?.out
  const capability = opcode === Commands.QUERY_HCA_CAP.opcode ? capabilityStructs[opMod >> 1] : undefined
  return capability === undefined
    ? out
    : { bytes: 272, fields: { capability: { kind: 'nested', at: 0x80, struct: capability } } }
}

/** Puts a value in place of another, under another name. */
const replaced = (
  attributes: Attributes,
  message: ReadMessage,
  from: string,
  to: string,
  { type, value }: { readonly type: Kind; readonly value: AnyValue },
): { attributes: Attributes; message: ReadMessage } => ({
  attributes: Object.fromEntries(
    Object.entries(attributes)
      .filter(([name]) => name !== 'outBytes')
      .map(([name, attribute]) => (name === from ? [to, { ...attribute, type }] : [name, attribute])),
  ),
  message: { ...message, values: { ...message.values, [to]: value } },
})

interface Call {
  readonly class: { readonly name: string }
  readonly in: Attributes
  readonly out: Attributes
  readonly args: ReadMessage
  readonly result: ReadMessage
}

/** The call with the fields of its command; the call itself if it gives none that is known. */
export const withCommandFields = <C extends Call>(call: C): C => {
  const { input } = call.args.values
  if ((call.class.name !== Devx.name && call.class.name !== DevxObj.name) || !(input instanceof Uint8Array)) return call
  const { opcode, op_mod: opMod } = decodeFields(commandHeader, input)
  const command = commandOf(opcode)
  if (command === undefined) return call
  const given = replaced(
    call.in,
    call.args,
    'input',
    command.name,
    shown(command.in ?? { bytes: 16, fields: {} }, input, opMod),
  )
  const shownCall = { ...call, in: given.attributes, args: given.message }
  const { output } = call.result.values
  const struct = answerOf(opcode, opMod)
  if (!(output instanceof Uint8Array) || struct === undefined) return shownCall
  const answered = replaced(call.out, call.result, 'output', 'output', shown(struct, output))
  return { ...shownCall, out: answered.attributes, result: answered.message }
}
