/*
 * The commands that programs write(2) to rdma_cm files (R41, R43; Linux's rdma_user_cm.h), by the table of
 * spec/linux/ucma.ts: a header and a struct, which has the address of the response. Errors are those of Linux's ucma.c.
 */

import { MAX_OPTION_BYTES } from '../../spec/classes/connections/cm_id.ts'
import { ADDRESS_BYTES, SOCKADDR_BYTES } from '../../spec/classes/connections/cm_parameters.ts'
import { CallError, callError } from '../../spec/errno.ts'
import {
  absentUcmaCommands,
  SOCKADDR_IN6_BYTES,
  UCMA_HEADER_BYTES,
  type UcmaCommand,
  ucmaCommands,
} from '../../spec/linux/ucma.ts'
import { because } from '../../spec/reason.ts'
import type { AnyRecord, AnyValues } from '../../spec/schema/schema.ts'
import type { Answer, CallerView, Decoded } from '../call.ts'
import { viewOf, writeScalar } from '../scalar.ts'
import { answering, answeringAs, callOf, declaredMethod, readResponse, refuse } from './caller.ts'
import { type CompiledLayout, compileLayout, type Facts, readCells, writeCells } from './cells.ts'
import { writeRoute } from './ucma-route.ts'

/** The channel that is written to, and the caller's other descriptors. */
export interface UcmaChannel {
  /** Core's number of the channel. */
  readonly object: number
  /** The descriptor's number in the caller. */
  readonly fd: number
  /** Whether the events of an object go to the channel with descriptor `fd` in the caller. */
  reportsTo(handle: number, fd: number): boolean
  /** The kind of a descriptor of the caller. */
  kindOf(fd: number): 'channel' | 'other' | 'closed'
}

interface CompiledCommand {
  readonly command: UcmaCommand
  readonly in: CompiledLayout
  readonly out: CompiledLayout | undefined
}

const compiledCommands: readonly CompiledCommand[] = ucmaCommands.map(command => {
  const { in: attributes, out: results } = declaredMethod(command.class, command.method)
  const { out, name } = command
  return {
    command,
    in: compileLayout(name, command.in, attributes),
    out: out && compileLayout(name, out, results),
  }
})

/** RDMA_USER_CM_CMD_WRITE_CM_EVENT. */
const LAST_COMMAND = 24

/**
 * The command with a number; QUERY has a row for each option. Throws CallError: EINVAL for a number that is too high,
 * the error of Linux for a command that is absent here.
 */
const findCommand = (number: number, body: DataView): CompiledCommand => {
  if (number > LAST_COMMAND) throw callError.EINVAL`rdma_cm command ${number}: there are 0 to ${LAST_COMMAND}`
  const absent = absentUcmaCommands[number]
  if (absent !== undefined) throw new CallError(absent.code, because`${absent.name}: ${absent.why}`)
  const rows = compiledCommands.filter(({ command }) => command.number === number)
  return rows.find(({ command: { option } }) => option && body.getUint32(option.at, true) === option.value) ?? rows[0]!
}

/** Bytes of the largest request struct. */
const MAX_STRUCT_BYTES = Math.max(...ucmaCommands.map(({ in: { size } }) => size))

/** A sockaddr_in6 or sockaddr_in at `at`, extended to a sockaddr_storage. */
const storageAt = (body: Uint8Array, at: number): Uint8Array => {
  const storage = new Uint8Array(ADDRESS_BYTES)
  storage.set(body.subarray(at, at + SOCKADDR_IN6_BYTES))
  return storage
}

/** An address in a struct; undefined if absent. Throws CallError EINVAL for a wrong length. */
const readAddress = (
  { name }: UcmaCommand,
  body: Uint8Array,
  { at, length, attribute, optional }: NonNullable<UcmaCommand['addresses']>[number],
): Uint8Array | undefined => {
  const isIn6Field = length === undefined
  const storage = isIn6Field ? storageAt(body, at) : body.slice(at, at + ADDRESS_BYTES)
  const family = viewOf(storage).getUint16(0, true)
  const size = SOCKADDR_BYTES[family] ?? 0
  const claimed = isIn6Field ? size : viewOf(body).getUint16(length, true)
  const isAbsent = (isIn6Field ? family : claimed) === 0
  if (optional && isAbsent) return undefined
  const isUnknownFamily = size === 0
  const isTooLong = isIn6Field && size > SOCKADDR_IN6_BYTES
  if (isUnknownFamily || claimed !== size || isTooLong)
    throw callError.EINVAL`${name}: attribute ${attribute}: ${claimed} bytes for an address of family ${family}`
  return storage
}

/** The checks that Linux makes before it looks up the object. Reads addresses into `args`. */
const checkStruct = ({ command }: CompiledCommand, body: Uint8Array, inLength: number, args: AnyValues): void => {
  const {
    name,
    in: { size },
    minBytes = 0,
    acceptedByte,
    reserved,
    addresses = [],
  } = command
  if (inLength < minBytes) throw callError.EINVAL`${name}: a struct of ${inLength} bytes; it has at least ${minBytes}`
  // Linux reads the fields after `minBytes` only if the struct has them all.
  if (minBytes > 0 && inLength < size) body.fill(0, minBytes)
  if (acceptedByte !== undefined) {
    const { at, values } = acceptedByte
    const byte = body[at]!
    if (values === 'nonzero' ? byte === 0 : !values.includes(byte))
      throw callError.EINVAL`${name}: the byte at ${at} is ${byte}, not ${values === 'nonzero' ? values : values.join(' or ')}`
  }
  if (reserved !== undefined && body.subarray(reserved.at, reserved.at + reserved.bytes).some(byte => byte !== 0))
    throw callError.EINVAL`${name}: its reserved bytes are not 0`
  for (const address of addresses) {
    const storage = readAddress(command, body, address)
    if (storage !== undefined) args[address.attribute] = storage
  }
}

/** Reads memory of the caller that becomes an attribute, and then checks values, as Linux does. */
const readMemory = (
  view: CallerView,
  { name, userMemory, implemented }: UcmaCommand,
  struct: DataView,
  args: AnyValues,
): void => {
  if (userMemory !== undefined) {
    const length = struct.getUint32(userMemory.length, true)
    if (length > MAX_OPTION_BYTES)
      throw callError.EINVAL`${name}: an option of ${length} bytes; at most ${MAX_OPTION_BYTES} are allowed`
    args[userMemory.attribute] = view.copyIn(struct.getBigUint64(userMemory.address, true), length)
  }
  if (implemented === undefined) return
  const number = struct.getUint32(implemented.at, true)
  if (!implemented.values.includes(number))
    throw callError.ENOSYS`${name}: the u32 at ${implemented.at} is ${number}, not ${implemented.values.join(' or ')}`
}

/** Reads arguments for which a struct has no cells, and removes arguments that the struct marks as absent. */
const readSpecialFields = (
  { inlineBytes, omittedIfZero, ignored }: UcmaCommand,
  body: Uint8Array,
  args: AnyValues,
): void => {
  if (inlineBytes !== undefined)
    args[inlineBytes.attribute] = body.slice(inlineBytes.at, inlineBytes.at + body[inlineBytes.length]!)
  if (omittedIfZero !== undefined && body[omittedIfZero.at] === 0)
    for (const name of omittedIfZero.attributes) delete args[name]
  if (ignored !== undefined && viewOf(body).getUint16(ignored.at, true) === ignored.value)
    delete args[ignored.attribute]
}

/**
 * Throws CallError: ENOENT if the object of a command does not exist, EINVAL if its events do not go to the channel
 * with descriptor `fd`. If the struct names the channel and `fd` is not an rdma_cm channel: ENOENT if `fd` is closed,
 * otherwise EINVAL.
 */
const checkObject = (
  view: CallerView,
  channel: UcmaChannel,
  command: UcmaCommand,
  handle: number,
  fd: number,
): void => {
  const { name } = command
  if (command.currentChannelAt !== undefined && channel.kindOf(fd) !== 'channel')
    throw new CallError(
      channel.kindOf(fd) === 'closed' ? 'ENOENT' : 'EINVAL',
      because`${name}: descriptor ${fd} is not an rdma_cm channel`,
    )
  // The object of a create is the identifier that joins a multicast group.
  const className = command.method === 'create' ? 'cm_id' : command.class
  if (view.classOf(handle)?.name !== className) throw callError.ENOENT`${name}: there is no ${className} ${handle}`
  if (!channel.reportsTo(handle, fd)) throw callError.EINVAL`${name}: ${className} ${handle} is of another channel`
}

/**
 * Writes path records, each as struct ib_path_rec_data {u32 flags, u32 reserved, record}, and their number. Returns the
 * part of the response that a buffer of `outLength` bytes gets.
 */
const writeList = (
  bytes: Uint8Array,
  list: NonNullable<UcmaCommand['list']>,
  records: readonly AnyRecord[],
  outLength: number,
): Uint8Array => {
  const view = viewOf(bytes)
  view.setUint32(list.count, records.length, true)
  records.forEach(({ flags, record }, i) => {
    const at = list.at + i * list.size
    view.setUint32(at, flags as number, true)
    writeScalar(view, at + 8, 64, { kind: 'bytes', size: 64 }, record as Uint8Array)
  })
  // Linux writes a record only if the room is larger than the record (ucma_query_path): a record that fits exactly is
  // not written.
  const fitting = Math.max(0, Math.ceil((outLength - list.at) / list.size) - 1)
  return bytes.subarray(0, list.at + Math.min(fitting, records.length) * list.size)
}

/** Decodes a write(2) to an rdma_cm file of the `length` bytes at `address`. */
export const decodeUcma = (view: CallerView, channel: UcmaChannel, address: bigint, length: number): Decoded | Answer =>
  answeringAs((onName): Decoded => {
    if (length < UCMA_HEADER_BYTES)
      throw callError.EINVAL`an rdma_cm command has at least ${UCMA_HEADER_BYTES} bytes, not ${length}`
    const written = view.copyIn(address, Math.min(length, UCMA_HEADER_BYTES + MAX_STRUCT_BYTES))
    const header = viewOf(written)
    const inLength = header.getUint16(4, true)
    const outLength = header.getUint16(6, true)
    if (inLength + UCMA_HEADER_BYTES > length)
      throw callError.EINVAL`the header says ${inLength} bytes, ${length - UCMA_HEADER_BYTES} were written`
    const body = new Uint8Array(MAX_STRUCT_BYTES)
    body.set(written.subarray(UCMA_HEADER_BYTES))
    const found = findCommand(header.getUint32(0, true), viewOf(body))
    const { command } = found
    onName(`ucma ${command.name}`)
    const facts: Facts = {}
    const args: AnyValues = {}
    checkStruct(found, body, inLength, args)
    const needed = command.minResponseBytes ?? command.out?.size ?? 0
    const checkOutLength = (): void => {
      if (outLength >= needed) return
      throw callError.ENOSPC`${command.name}: the response has ${needed} bytes, there is room for ${outLength}`
    }
    if (!command.checksObjectFirst) checkOutLength()
    const struct = body.subarray(0, command.in.size)
    // values are checked below: Linux first looks up the object
    readCells(found.in, struct, args, facts, false)
    if (command.channel !== undefined) args[command.channel] = channel.fd
    const channelFd =
      command.currentChannelAt === undefined ? channel.fd : viewOf(body).getInt32(command.currentChannelAt, true)
    const handle = facts.object ?? (args.id as number | undefined)
    if (handle !== undefined) checkObject(view, channel, command, handle, channelFd)
    readMemory(view, command, viewOf(body), args)
    checkOutLength()
    readCells(found.in, struct, args, facts, true)
    readSpecialFields(command, body, args)
    const object = command.class === 'cm_channel' ? channel.object : facts.object
    const call = callOf(view, command.class, command.method, object, args)
    const response = command.response === undefined ? 0n : viewOf(body).getBigUint64(command.response, true)
    return {
      call,
      legacy: () => undefined,
      answer: outcome =>
        answering(() => {
          if (outcome instanceof CallError) return refuse(outcome)
          if (found.out !== undefined) {
            let bytes: Uint8Array = new Uint8Array(found.out.layout.size)
            writeCells(found.out, bytes, outcome.out, outcome.object === undefined ? {} : { object: outcome.object })
            if (command.list !== undefined)
              bytes = writeList(bytes, command.list, outcome.out[command.list.attribute] as AnyRecord[], outLength)
            if (command.hasRouteLayout)
              writeRoute(bytes, outcome.out.addresses as AnyRecord, (outcome.out.paths ?? []) as AnyRecord[])
            view.copyOut(response, bytes.subarray(0, Math.min(outLength, bytes.length)))
          }
          return { ret: length, installs: [] }
        }),
      readResult: after => {
        const { out: compiled } = found
        if (compiled === undefined) return { out: {} }
        return readResponse(compiled, after.copyIn(response, Math.min(outLength, compiled.layout.size)))
      },
    }
  })
