/*
 * Calls of observed programs, decoded by the tables of the dialects (uapi/linux/), with the results of the kernel. What
 * the tables do not know stays bytes.
 */
import { Classes } from '../spec/classes.ts'
import { CallError } from '../spec/errno.ts'
import { UmadIoctl } from '../spec/linux/umad.ts'
import { CallEntry, FileKind } from '../spec/observe.ts'
import type { ObjectClass } from '../spec/schema/schema.ts'
import {
  type Answer,
  type Call,
  type CallerView,
  type Decoded,
  isAnswer,
  type Result,
  type Schema,
} from '../uapi/call.ts'
import { decodeVerbsIoctl } from '../uapi/linux/ioctl.ts'
import { IoctlHeader } from '../uapi/linux/ioctl-message.ts'
import { decodeUcma } from '../uapi/linux/ucma.ts'
import { decodeWrite } from '../uapi/linux/write.ts'
import type { MemoryRange, ObservedCall } from './records.ts'

const classesByName: Readonly<Record<string, ObjectClass | undefined>> = Classes
const classesById = new Map(Object.values(Classes).map((cls: ObjectClass) => [cls.id, cls]))

/** Every class, for the driver that a message names. */
const schemaOf = (driverId: number): Schema => ({
  driverId,
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
      throw new CallError('EFAULT', `${length} bytes at 0x${address.toString(16)} were not observed`)
    }
    const at = Number(address - found.address)
    return found.bytes.slice(at, at + length)
  }

/** A call as the tables know it, or the name of one that they do not know. */
export type DecodedCall =
  | { readonly view: CallerView; readonly call: Call; readonly result: Result | undefined }
  | { readonly view: CallerView; readonly attempt: string }

/** RDMA_DRIVER_UNKNOWN. */
const UNKNOWN_DRIVER = 0

const driverOf = ({ argument, ranges }: ObservedCall): number => {
  const message = ranges.find(({ address }) => address === argument)?.bytes
  if (message === undefined || message.length < IoctlHeader.bytes) return UNKNOWN_DRIVER
  return new DataView(message.buffer, message.byteOffset).getUint32(IoctlHeader.driverId, true)
}

const decode = (view: CallerView, { entry, fileKind, fd, request, argument }: ObservedCall): Decoded | Answer => {
  if (fileKind === FileKind.VERBS)
    return entry === CallEntry.IOCTL
      ? decodeVerbsIoctl(view, Number(request & 0xffffffffn), argument)
      : decodeWrite(view, argument, Number(request))
  if (fileKind === FileKind.CM && entry === CallEntry.WRITE) {
    const channel = { object: fd, fd, reportsTo: () => true, kindOf: () => 'channel' as const }
    return decodeUcma(view, channel, argument, Number(request))
  }
  const name = entry === CallEntry.IOCTL ? `ioctl 0x${request.toString(16)}` : `write of ${request} bytes`
  return { ret: 0, installs: [], attempt: name }
}

/** The name of a call on a umad file. */
const madMethodOf = ({ entry, request }: ObservedCall): string | undefined => {
  if (entry === CallEntry.WRITE) return 'mad_agent.send'
  const { REGISTER_AGENT, REGISTER_AGENT2, UNREGISTER_AGENT } = UmadIoctl
  if (request === BigInt(UNREGISTER_AGENT)) return 'mad_agent.destroy'
  return request === BigInt(REGISTER_AGENT) || request === BigInt(REGISTER_AGENT2) ? 'mad_agent.create' : undefined
}

/** The memory that a call has left, where it differs from what it read, else what it read. */
const readResult = (decoded: Decoded, after: ObservedCall): Result => {
  try {
    return decoded.readResult?.({ copyIn: copyFrom(after.ranges) }) ?? { out: {} }
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
  hasContext: boolean,
): string | undefined => {
  if (before.fileKind === FileKind.MAD) return madMethodOf(before)
  const decoded = decode(viewOf(before, classOf, hasContext), before)
  return isAnswer(decoded) ? undefined : `${decoded.call.class.name}.${decoded.call.methodName}`
}

/**
 * Decodes a call from its records before and after. `classOf`: as in CallerView. `hasContext`: whether a context is
 * open on the descriptor.
 */
export const decodeCall = (
  before: ObservedCall,
  after: ObservedCall,
  classOf: (handle: number) => ObjectClass | undefined,
  hasContext: boolean,
): DecodedCall => {
  const view = viewOf(before, classOf, hasContext)
  const decoded = decode(view, before)
  if (isAnswer(decoded)) return { view, attempt: decoded.attempt ?? 'a call that is not known' }
  return { view, call: decoded.call, result: after.result < 0 ? undefined : readResult(decoded, after) }
}
