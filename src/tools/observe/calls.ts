/*
 * Calls of observed programs, decoded by the tables of the dialects (uapi/linux/), with the results of the kernel. What
 * the tables do not know stays bytes.
 */
import { Classes } from '../../spec/classes.ts'
import { knownAbis } from '../../spec/drivers/known.ts'
import { CallError, callError } from '../../spec/errno.ts'
import type { ObjectClass } from '../../spec/schema/schema.ts'
import {
  type Answer,
  type Call,
  type CallerView,
  type Decoded,
  isAnswer,
  type Result,
  type Schema,
} from '../../uapi/call.ts'
import { decodeVerbsIoctl } from '../../uapi/linux/ioctl.ts'
import { IoctlHeader } from '../../uapi/linux/ioctl-message.ts'
import { decodeUcma } from '../../uapi/linux/ucma.ts'
import { decodeUmadIoctl, decodeUmadRead, decodeUmadWrite, type UmadMode } from '../../uapi/linux/umad.ts'
import { decodeWrite } from '../../uapi/linux/write.ts'
import { CallEntry, FileKind } from './file-layout.ts'
import type { ObservedContext } from './objects.ts'
import type { MemoryRange, ObservedCall } from './records.ts'

const classesByName: Readonly<Record<string, ObjectClass | undefined>> = Classes
const classesById = new Map(Object.values(Classes).map((cls: ObjectClass) => [cls.id, cls]))

/** Every class, for the driver that a message names. */
const schemaOf = (driverId: number): Schema => ({
  driverId,
  linux: knownAbis[driverId],
  classById: id => classesById.get(id),
  classByName: name => classesByName[name],
})

/** Reads from recorded ranges. Throws CallError EFAULT for other memory. */
const copyFrom =
  (ranges: readonly MemoryRange[]) =>
  (address: bigint, length: number): Uint8Array => {
    const found = ranges.find(
      range => range.address <= address && address + BigInt(length) <= range.address + BigInt(range.bytes.length),
    )
    if (found === undefined) {
      if (length === 0) return new Uint8Array()
      throw callError.EFAULT`${length} bytes at 0x${address.toString(16)} were not observed`
    }
    const at = Number(address - found.address)
    return found.bytes.slice(at, at + length)
  }

/** A call as the tables know it, or the name of one that they do not know. */
type DecodedCall =
  | { readonly view: CallerView; readonly call: Call; readonly result: Result | undefined }
  | { readonly view: CallerView; readonly attempt: string }

/** RDMA_DRIVER_UNKNOWN. */
const UNKNOWN_DRIVER = 0

const driverOf = ({ argument, ranges }: ObservedCall): number => {
  const message = ranges.find(({ address }) => address === argument)?.bytes
  if (message === undefined || message.length < IoctlHeader.bytes) return UNKNOWN_DRIVER
  return new DataView(message.buffer, message.byteOffset).getUint32(IoctlHeader.driverId, true)
}

const decode = (
  view: CallerView,
  { entry, fileKind, fd, request, argument }: ObservedCall,
  mode: UmadMode,
): Decoded | Answer => {
  if (fileKind === FileKind.VERBS)
    return entry === CallEntry.IOCTL
      ? decodeVerbsIoctl(view, Number(request & 0xffffffffn), argument)
      : decodeWrite(view, argument, Number(request))
  if (fileKind === FileKind.CM && entry === CallEntry.WRITE) {
    const channel = { object: fd, fd, reportsTo: () => true, kindOf: () => 'channel' as const }
    return decodeUcma(view, channel, argument, Number(request))
  }
  if (fileKind === FileKind.MAD) {
    const file = { object: fd, fd, mode }
    if (entry === CallEntry.IOCTL) return decodeUmadIoctl(view, file, Number(request & 0xffffffffn), argument)
    return (entry === CallEntry.READ ? decodeUmadRead : decodeUmadWrite)(view, file, argument, Number(request))
  }
  const name = entry === CallEntry.IOCTL ? `ioctl 0x${request.toString(16)}` : `write of ${request} bytes`
  return { ret: 0, installs: [], attempt: name }
}

/** The memory that a call has left, where it differs from what it read, else what it read. */
const readResult = (decoded: Decoded, after: ObservedCall): Result => {
  try {
    return decoded.readResult?.({ copyIn: copyFrom(after.ranges) }, after.result) ?? { out: {} }
  } catch (error) {
    if (error instanceof CallError) return { out: {} }
    throw error
  }
}

const viewOf = (
  before: ObservedCall,
  classOf: (handle: number) => ObjectClass | undefined,
  hasContext: boolean,
): CallerView => {
  const isIoctl = before.entry === CallEntry.IOCTL && before.fileKind === FileKind.VERBS
  return {
    schema: schemaOf(isIoctl ? driverOf(before) : UNKNOWN_DRIVER),
    copyIn: copyFrom(before.ranges),
    copyOut: () => {},
    classOf,
    hasContext: hasContext || before.fileKind !== FileKind.VERBS,
  }
}

/** The method of a call that has not returned, as `class.method`; undefined: it is not known. As `decodeCall`. */
export const methodOf = (
  before: ObservedCall,
  classOf: (handle: number) => ObjectClass | undefined,
  { isOpen, mode }: Pick<ObservedContext, 'isOpen' | 'mode'>,
): string | undefined => {
  const decoded = decode(viewOf(before, classOf, isOpen), before, { ...mode })
  return isAnswer(decoded) ? undefined : `${decoded.call.class.name}.${decoded.call.methodName}`
}

/**
 * Decodes a call from its records before and after. `classOf`: as in CallerView.
 */
export const decodeCall = (
  before: ObservedCall,
  after: ObservedCall,
  classOf: (handle: number) => ObjectClass | undefined,
  context: Pick<ObservedContext, 'isOpen' | 'mode'>,
): DecodedCall => {
  const view = viewOf(before, classOf, context.isOpen)
  const decoded = decode(view, before, context.mode)
  if (isAnswer(decoded)) return { view, attempt: decoded.attempt ?? 'a call that is not known' }
  return { view, call: decoded.call, result: after.result < 0 ? undefined : readResult(decoded, after) }
}

const { COMPLETIONS } = FileKind
const EVENT_BYTES = { completion: 8, async: 16 } as const
/** By struct ib_uverbs_async_event_desc. */
const ASYNC_TYPE_OFFSET = 8

/** The events in the memory that a read of an event descriptor has filled, each as a call that takes one event. */
export const decodeEvents = ({
  fileKind,
  fd,
  ranges,
}: ObservedCall): Extract<DecodedCall, { readonly call: Call }>[] => {
  const bytes = ranges[0]?.bytes ?? new Uint8Array()
  const values = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const cls = fileKind === COMPLETIONS ? Classes.comp_channel : Classes.async_fd
  const size = fileKind === COMPLETIONS ? EVENT_BYTES.completion : EVENT_BYTES.async
  const view: CallerView = {
    schema: schemaOf(UNKNOWN_DRIVER),
    copyIn: copyFrom(ranges),
    copyOut: () => {},
    classOf: () => undefined,
    hasContext: true,
  }
  return Array.from({ length: Math.floor(bytes.length / size) }, (_, i) => {
    const at = i * size
    const first = values.getBigUint64(at, true)
    const out =
      fileKind === COMPLETIONS
        ? { userHandle: first }
        : { element: first, type: values.getUint32(at + ASYNC_TYPE_OFFSET, true) }
    const call: Call = { class: cls, methodName: 'getEvent', method: cls.methods.getEvent, object: fd, args: {} }
    return { view, call, result: { out } }
  })
}
