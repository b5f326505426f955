/*
 * Gives firmware commands (DEVX) as a program of machine.ts does through libmlx5's mlx5dv_devx_…: by structs of fields.
 */
import assert from 'node:assert/strict'
import {
  CommandStatus,
  type StatusName,
  type SyndromeName,
  Syndromes,
} from '../../../src/drivers/mlx5/commands/status.ts'
import { contextOf } from '../../../src/drivers/mlx5/context.ts'
import { Devx, DevxObj, DevxUmem } from '../../../src/spec/drivers/mlx5-devx.ts'
import { answerHeader, commandHeader, type FirmwareCommand } from '../../../src/spec/drivers/mlx5-firmware/commands.ts'
import {
  bits,
  long,
  type PartOf,
  type RecordOf,
  type Struct,
  struct,
} from '../../../src/spec/drivers/mlx5-firmware/fields.ts'
import { AnsweredError, CallError, type ErrnoName } from '../../../src/spec/errno.ts'
import { decodeFields, encodeFields, encodeFieldsInto } from '../../../src/uapi/firmware/fields.ts'
import type { Program } from './machine.ts'

/** An entry of the list in CREATE_MKEY. */
export const klm = struct(16, {
  byte_count: bits(0x0, 32),
  mkey: bits(0x20, 32),
  address: long(0x40),
})

type InputOf<C> = C extends { readonly in: infer S extends Struct } ? PartOf<S> : never
type OutputOf<C> = C extends { readonly out: infer S extends Struct } ? RecordOf<S> : never

interface Extra {
  readonly opMod?: number
  /** Bytes of the output; default those of the struct. */
  readonly outBytes?: number
  /** Bytes of a field `rest`. */
  readonly restBytes?: number
}

/** The bytes of a command. */
export const commandBytes = (command: FirmwareCommand, fields: object, { opMod = 0, restBytes = 0 }: Extra = {}) => {
  const bytes = encodeFields(command.in!, fields as PartOf<Struct>, restBytes)
  encodeFieldsInto(commandHeader, bytes, { opcode: command.opcode, op_mod: opMod })
  return bytes
}

/** A program whose context may give commands. */
export const withCommands = (program: Program) => {
  contextOf(program.context).uid ??= 1
  const give = (method: 'command' | 'modify' | 'query', input: Uint8Array, outBytes: number, handle?: number) =>
    program.call<{ output: Uint8Array }>(Devx, method, 0, { input, outBytes, ...(handle !== undefined && { handle }) })
      .out.output
  const create = (input: Uint8Array, outBytes: number) =>
    program.call<{ output: Uint8Array }>(DevxObj, 'create', 0, { input, outBytes })
  return {
    give,
    createBytes: create,
    general: <C extends FirmwareCommand>(command: C, fields: InputOf<C>, extra: Extra = {}): OutputOf<C> =>
      decodeFields(
        command.out!,
        give('command', commandBytes(command, fields, extra), extra.outBytes ?? command.out!.bytes),
      ) as OutputOf<C>,
    create<C extends FirmwareCommand>(command: C, fields: InputOf<C>, extra: Extra = {}) {
      const { object, out } = create(commandBytes(command, fields, extra), extra.outBytes ?? command.out!.bytes)
      return { handle: object, out: decodeFields(command.out!, out.output) as OutputOf<C> }
    },
    about: <C extends FirmwareCommand>(
      command: C,
      handle: number,
      fields: InputOf<C>,
      extra: Extra = {},
    ): OutputOf<C> =>
      decodeFields(
        command.out!,
        give(
          command.method as 'modify' | 'query',
          commandBytes(command, fields, extra),
          extra.outBytes ?? command.out!.bytes,
          handle,
        ),
      ) as OutputOf<C>,
    destroy: (handle: number): void => void program.call(DevxObj, 'destroy', handle, {}),
    /** Registers memory of the program's region, 256 KiB; returns handle and number. */
    umem(offset = 0, bytes = 1 << 18, access = 1) {
      const { object, out } = program.call<{ umem: number }>(DevxUmem, 'create', 0, {
        address: program.address + BigInt(offset),
        length: BigInt(bytes),
        access,
      })
      return { handle: object, id: out.umem }
    },
    deregister: (handle: number): void => void program.call(DevxUmem, 'destroy', handle, {}),
  }
}

/** Asserts that the firmware refuses the command, with the syndrome in its output. */
export const assertRefused = (body: () => unknown, syndrome: SyndromeName, text = /./): void => {
  try {
    body()
  } catch (error) {
    assert.ok(error instanceof AnsweredError, String(error))
    assert.equal(error.code, 'EREMOTEIO')
    const { status, syndrome: number } = decodeFields(answerHeader, error.out.output as Uint8Array)
    const name = Object.keys(Syndromes).find(one => Syndromes[one as SyndromeName].number === number)
    assert.equal(name, syndrome, error.message)
    assert.equal(status, CommandStatus[Syndromes[syndrome].status as StatusName])
    assert.match(error.message, text)
    return
  }
  assert.fail('the command was not refused')
}

/** Asserts that Linux would not pass the command on. */
export const assertErrno = (body: () => unknown, errno: ErrnoName, text = /./): void =>
  assert.throws(body, error => {
    assert.ok(error instanceof CallError && !(error instanceof AnsweredError), String(error))
    assert.equal(error.code, errno, error.message)
    assert.match(error.message, text)
    return true
  })
