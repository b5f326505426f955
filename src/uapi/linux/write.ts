/*
 * Linux's write() dialect (R41): the headers of a command, and their lengths. command.ts handles the rest.
 *
 * The return value is the number of written bytes. Errors are the kernel's (test/fixtures/abi/raw.out): EINVAL if the
 * length differs from the header's, ENOSPC for a too small request, and for a too small response buffer of a basic
 * command. The response of an extended command is truncated.
 */
import { callError } from '../../spec/errno.ts'
import { WriteCommands } from '../../spec/linux/names.ts'
import { EXTENDED, type WriteCommand } from '../../spec/linux/write.ts'
import { type Answer, type CallerView, type Decoded, isAnswer } from '../call.ts'
import { viewOf } from '../scalar.ts'
import { answering, answeringAs, type DriverInput, type UserBuffer } from './caller.ts'
import { type CommandParts, type CompiledCommand, clearRequest, deviceCommand, readCommand } from './command.ts'
import { EntryPoint, packLegacy } from './legacy.ts'

/**
 * Offsets of the fields of struct ib_uverbs_cmd_hdr and, from `response` on, of struct ib_uverbs_ex_cmd_hdr, the second
 * header of an extended command. A word has 4 bytes; in an extended command, 8.
 */
export const WriteHeader = {
  /** u32. Fields that count words are u16. */
  command: 0,
  inWords: 4,
  outWords: 6,
  /** u64. In a basic command with a response, the first field of the request. */
  response: 8,
  providerInWords: 16,
  providerOutWords: 18,
  /** u32. */
  reserved: 20,
} as const
/** Bytes of the two headers. */
export const HEADER = 8
const EX_HEADER = 16

/** Offset of the request in the buffer. */
export const requestStart = (extended: boolean): number => (extended ? HEADER + EX_HEADER : HEADER)

/** The request in the buffer, without the driver's input. */
export const requestIn = (command: WriteCommand, bytes: Uint8Array): Uint8Array => {
  const start = requestStart(command.isExtended)
  if (command.isExtended) return bytes.subarray(start, start + viewOf(bytes).getUint16(WriteHeader.inWords, true) * 8)
  return bytes.subarray(start, command.hasDriverBytes ? start + command.minRequestBytes : bytes.length)
}

/** Undefined for an empty buffer. */
const bufferAt = (address: bigint, length: number): UserBuffer | undefined =>
  length === 0 ? undefined : { address, length }

const inputOf = (bytes: Uint8Array): DriverInput => ({ length: bytes.length, bytes: () => bytes })

/** The parts of a command without a second header. Throws CallError. */
const plainParts = (found: CompiledCommand, bytes: Uint8Array): CommandParts => {
  const { command } = found
  const header = viewOf(bytes)
  const words = header.getUint16(WriteHeader.inWords, true)
  const outLength = header.getUint16(WriteHeader.outWords, true) * 4
  if (words * 4 !== bytes.length)
    throw callError.EINVAL`${command.name}: in_words says ${words * 4} bytes, ${bytes.length} were written`
  if (bytes.length < HEADER + command.minRequestBytes)
    throw callError.ENOSPC`${command.name}: the request must have ${HEADER + command.minRequestBytes} bytes and has ${bytes.length}`
  if (outLength < command.minResponseBytes)
    throw callError.ENOSPC`${command.name}: the response has ${command.minResponseBytes} bytes, there is room for ${outLength}`
  const end = command.hasDriverBytes ? HEADER + command.minRequestBytes : bytes.length
  const response = command.out === undefined ? 0n : header.getBigUint64(WriteHeader.response, true)
  const coreOut = command.hasDriverBytes ? command.minResponseBytes : outLength
  return {
    request: bytes.subarray(HEADER, end),
    response: command.out === undefined ? undefined : { address: response, length: coreOut },
    driverInput: inputOf(bytes.subarray(end)),
    driverResponse:
      command.hasDriverBytes && command.out !== undefined
        ? bufferAt(response + BigInt(coreOut), outLength - coreOut)
        : undefined,
  }
}

/** The parts of an extended command. Throws CallError. */
const extendedParts = (found: CompiledCommand, bytes: Uint8Array): CommandParts => {
  const { command } = found
  const start = HEADER + EX_HEADER
  if (bytes.length < start)
    throw callError.EINVAL`${command.name}: its headers must have ${start} bytes and have ${bytes.length}`
  const header = viewOf(bytes)
  const inLength = header.getUint16(WriteHeader.inWords, true) * 8
  const outLength = header.getUint16(WriteHeader.outWords, true) * 8
  const response = header.getBigUint64(WriteHeader.response, true)
  const driverIn = header.getUint16(WriteHeader.providerInWords, true) * 8
  const driverOut = header.getUint16(WriteHeader.providerOutWords, true) * 8
  if (inLength + driverIn !== bytes.length - start)
    throw callError.EINVAL`${command.name}: the words say ${inLength + driverIn} bytes, ${bytes.length - start} were written`
  if (inLength < command.minRequestBytes)
    throw callError.ENOSPC`${command.name}: the request must have ${command.minRequestBytes} bytes and has ${inLength}`
  if (header.getUint32(WriteHeader.reserved, true) !== 0)
    throw callError.EINVAL`${command.name}: the reserved word of the header is set`
  if (response !== 0n) {
    if (outLength + driverOut === 0) throw callError.EINVAL`${command.name}: a response without length`
  } else if (outLength + driverOut !== 0) throw callError.EINVAL`${command.name}: a length without a response`
  return {
    request: bytes.subarray(start, start + inLength),
    response: bufferAt(response, outLength),
    driverInput: inputOf(bytes.subarray(start + inLength)),
    driverResponse: bufferAt(response + BigInt(outLength), driverOut),
  }
}

/** in_words and provider_in_words are u16, in words of 8 bytes. */
const MAX_COMMAND_BYTES = HEADER + EX_HEADER + 2 * 0xffff * 8

/** Bytes of a DESTROY_CQ with its header. */
const DESTROY_CQ_BYTES = 24
/** The length with which rdma-core 18 and 19 write a DESTROY_CQ. Linux reads all of its bytes nevertheless. */
const SHORT_DESTROY_CQ_BYTES = 16

const isShortDestroyCq = (bytes: Uint8Array): boolean =>
  bytes.length === SHORT_DESTROY_CQ_BYTES &&
  viewOf(bytes).getUint32(WriteHeader.command, true) === WriteCommands.DESTROY_CQ &&
  viewOf(bytes).getUint16(WriteHeader.inWords, true) * 4 === SHORT_DESTROY_CQ_BYTES

const decodeShortDestroyCq = (view: CallerView, address: bigint): Decoded | Answer => {
  const bytes = view.copyIn(address, DESTROY_CQ_BYTES)
  viewOf(bytes).setUint16(WriteHeader.inWords, DESTROY_CQ_BYTES / 4, true)
  const decoded = decodeWriteBytes(view, bytes)
  if (isAnswer(decoded)) return decoded
  return {
    ...decoded,
    answer: outcome => {
      const answer = decoded.answer(outcome)
      return answer.ret === DESTROY_CQ_BYTES ? { ...answer, ret: SHORT_DESTROY_CQ_BYTES } : answer
    },
  }
}

/** Decodes a write(2) to a uverbs file of the `length` bytes at `address`. */
export const decodeWrite = (view: CallerView, address: bigint, length: number): Decoded | Answer =>
  answering(() => {
    if (length < HEADER) throw callError.EINVAL`a command has at least ${HEADER} bytes, not ${length}`
    if (length > MAX_COMMAND_BYTES)
      throw callError.EINVAL`a command has at most ${MAX_COMMAND_BYTES} bytes, not ${length}`
    const bytes = view.copyIn(address, length)
    return isShortDestroyCq(bytes) ? decodeShortDestroyCq(view, address) : decodeWriteBytes(view, bytes)
  })

/** Decodes a write(2) to a uverbs file from bytes in this process. */
export const decodeWriteBytes = (view: CallerView, bytes: Uint8Array): Decoded | Answer =>
  answeringAs((onName): Decoded => {
    if (bytes.length < HEADER) throw callError.EINVAL`a command has at least ${HEADER} bytes, not ${bytes.length}`
    const number = viewOf(bytes).getUint32(WriteHeader.command, true)
    const found = deviceCommand(view, number, onName)
    const parts = (number & EXTENDED ? extendedParts : plainParts)(found, bytes)
    const decoded = readCommand(view, found, parts)
    return {
      call: decoded.call,
      legacy: () => {
        const residue = bytes.slice()
        clearRequest(decoded, requestIn(found.command, residue))
        return packLegacy({ entryPoint: EntryPoint.WRITE, parts: [residue] })
      },
      answer: outcome => {
        const answer = answering(() => decoded.answer(outcome))
        return answer.ret === 0 ? { ...answer, ret: bytes.length } : answer
      },
      readResult: decoded.readResult,
    }
  })
