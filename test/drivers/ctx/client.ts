/*
 * A client of a ctx device in this process: reads and writes a context's mapped queues as a program does.
 */
import {
  type Caller,
  type Context,
  type Core,
  createLocalSpace,
  type FdObject,
  invokeNow,
  type MappedChunk,
  openContext,
  opsIoctl,
  opsMap,
  opsWrite,
  readEvents,
} from '../../../src/core/index.ts'
import { Classes } from '../../../src/spec/classes.ts'
import {
  CTX_EXPECTED,
  CTX_HEADER_BYTES,
  CtxHeader,
  CtxInfo,
  CtxIoctl,
  CtxKind,
  CtxRecord,
  CtxSend,
  CtxWord,
} from '../../../src/spec/drivers/ctx.ts'
import { CallError } from '../../../src/spec/errno.ts'
import type { Fields, RecordOf } from '../../../src/spec/schema/schema.ts'
import { encodeRecords, readRecord, viewOf } from '../../../src/uapi/scalar.ts'

const MEMORY_BYTES = 1 << 17

/** A caller whose addresses are offsets in its `bytes`. */
export const flatCaller = (): Caller & { readonly bytes: Uint8Array } => {
  const bytes = new Uint8Array(MEMORY_BYTES)
  const checkedOffset = (address: bigint, length: number): number => {
    const offset = Number(address)
    if (offset + length > MEMORY_BYTES) throw new CallError('EFAULT', `${length} bytes at ${address}`)
    return offset
  }
  return {
    bytes,
    memory: createLocalSpace(),
    copyIn: (address, length) => bytes.slice(checkedOffset(address, length), Number(address) + length),
    copyOut: (address, source) => bytes.set(source, checkedOffset(address, source.length)),
    descriptor: fd => fd,
  }
}

export const decode = <F extends Fields>(fields: F, bytes: Uint8Array, at = 0): RecordOf<F> =>
  readRecord(viewOf(bytes), at, fields, 'test') as unknown as RecordOf<F>

type Info = RecordOf<typeof CtxInfo>

/** The mapped memory of a context. */
interface Mapped {
  readonly chunk: MappedChunk
  readonly info: Info
}

/** `word` is a CtxWord. */
const wordAt = ({ chunk }: Mapped, word: number): number => (chunk.at >> 2) + word
const getWord = (mapped: Mapped, word: number): number => mapped.chunk.words[wordAt(mapped, word)] >>> 0
export const setWord = (mapped: Mapped, word: number, value: number): void => {
  mapped.chunk.words[wordAt(mapped, word)] = value
}

/** Consumes the next message; undefined if there is none. */
export const receive = (mapped: Mapped) => {
  const { chunk, info } = mapped
  const consumed = getWord(mapped, CtxWord.HEADER_CONSUMER)
  if (consumed === getWord(mapped, CtxWord.HEADER_PRODUCER)) return undefined
  const headerAt = chunk.at + info.headersAt + (consumed % info.headerCount) * CTX_HEADER_BYTES
  const header = decode(CtxHeader, chunk.bytes, headerAt)
  const isEager = header.kind === CtxKind.values.EAGER
  const buffers = chunk.at + (isEager ? info.eagerAt : info.expectedAt)
  const start = buffers + header.slot * (isEager ? info.eagerBytes : info.expectedBytes)
  const data = chunk.bytes.slice(start, start + header.length)
  if (isEager) setWord(mapped, CtxWord.EAGER_CONSUMER, getWord(mapped, CtxWord.EAGER_CONSUMER) + 1)
  setWord(mapped, CtxWord.HEADER_CONSUMER, consumed + 1)
  return { ...header, data }
}

interface Client {
  readonly context: Context
  readonly caller: ReturnType<typeof flatCaller>
  readonly fd: FdObject
  ioctl(request: number, argument?: Uint8Array): Uint8Array
  map(): Mapped
  /**
   * Sends an eager message to context number `receiver`. With `place`: a fragment of the message that the receiver
   * expects in buffer `slot`. Returns the result of write(2).
   */
  send(
    receiver: number,
    tag: bigint,
    data: Uint8Array,
    place?: { readonly slot: number; readonly offset: number },
  ): number
  /** The next record of read(2); EAGAIN if there is none. */
  readNotification(): RecordOf<typeof CtxRecord>
}

/** Opens a device and a descriptor of interface `interfaceName` (CtxInterface). */
export const openClient = (core: Core, deviceName: string, interfaceName: string): Client => {
  const device = core.devices.get(deviceName)
  if (device === undefined) throw new Error(`no device ${deviceName}`)
  const context = openContext(device, { isOpened: true })
  const caller = flatCaller()
  const args = { name: new TextEncoder().encode(interfaceName) }
  const { descriptors } = invokeNow(context, Classes.driver_ops, 'create', 0, args, caller)
  const fd = core.descriptors.get(descriptors?.[0].object as number) as FdObject
  const ioctl = (request: number, argument = new Uint8Array(64)): Uint8Array => {
    caller.bytes.set(argument)
    opsIoctl(fd, caller, request, 0n)
    return caller.bytes.slice(0, argument.length)
  }
  return {
    context,
    caller,
    fd,
    ioctl,
    map() {
      const [offset, length, isWritable] = [0, 4096, true]
      const chunk = opsMap(fd, caller, offset, length, isWritable)
      return { chunk, info: decode(CtxInfo, ioctl(CtxIoctl.INFO)) }
    },
    send(receiver, tag, data, place) {
      const { slot = 0, offset = 0 } = place ?? {}
      const flags = place ? CTX_EXPECTED : 0
      const head = encodeRecords(CtxSend, [{ destination: receiver, flags, slot, offset, tag }])
      caller.bytes.set(head)
      caller.bytes.set(data, head.length)
      return opsWrite(fd, caller, 0n, head.length + data.length)
    },
    readNotification: () => decode(CtxRecord, readEvents(fd)[0].bytes),
  }
}
