/*
 * The system calls on uverbs, rdma_cm and umad descriptors as dialects of core: selects the dialect of each request.
 */
import type { Dialect } from '../../core/dispatch/dispatch.ts'
import type { Caller, FdObject } from '../../core/model.ts'
import { findHandle } from '../../core/objects/handles.ts'
import { decodeVerbsIoctl } from '../../uapi/linux/ioctl.ts'
import { decodeUcma } from '../../uapi/linux/ucma.ts'
import {
  decodeUmadIoctl,
  decodeUmadRead,
  decodeUmadWrite,
  type UmadFile,
  type UmadMode,
} from '../../uapi/linux/umad.ts'
import { callOfRequest, decodeObject } from '../../uapi/object/dialect.ts'

/** Request (32 bits) and argument of an ioctl. */
type Ioctl = readonly [request: number, argument: bigint]

const objectIoctl: Dialect<Ioctl> = (view, request, argument) =>
  decodeObject(view, callOfRequest(request) as number, argument)

/** The dialect of an ioctl: our requests have their own magic number, all others are Linux's. */
export const ioctlDialect = (request: number): { name: 'ioctl' | 'object'; dialect: Dialect<Ioctl> } =>
  callOfRequest(request) === undefined
    ? { name: 'ioctl', dialect: decodeVerbsIoctl }
    : { name: 'object', dialect: objectIoctl }

/** The dialect of writes to an rdma_cm channel; `fd` is its descriptor number in the caller. */
export const ucmaDialect = (
  channel: FdObject,
  fd: number,
  caller: Caller,
): Dialect<readonly [address: bigint, length: number]> => {
  const { context } = channel
  /** Core's number of a descriptor of the caller. */
  const coreFdOf = (callerFd: number): number | undefined =>
    callerFd === fd ? channel.handle : caller.descriptor(callerFd)
  const reportsTo = (handle: number, callerFd: number): boolean => {
    const events = findHandle(context.handles, handle)?.events?.route.channel
    return events !== undefined && events.handle === coreFdOf(callerFd)
  }
  const kindOf = (callerFd: number): 'channel' | 'other' | 'closed' => {
    const coreFd = coreFdOf(callerFd)
    if (coreFd === undefined) return caller.file?.(callerFd) === undefined ? 'closed' : 'other'
    return context.device.core.descriptors.get(coreFd)?.class === channel.class ? 'channel' : 'other'
  }
  return (view, address, length) =>
    decodeUcma(view, { object: channel.handle, fd, holds: reportsTo, kindOf }, address, length)
}

const modes = new WeakMap<FdObject, UmadMode>()

/** A umad channel; `fd` is its descriptor number in the caller. */
const umadFile = (channel: FdObject, fd: number): UmadFile => {
  const mode = modes.get(channel) ?? { hasPkeys: false, isUsed: false }
  modes.set(channel, mode)
  return { object: channel.handle, fd, mode }
}

/** The dialects of such a channel. */
export const umadDialects = (
  channel: FdObject,
  fd: number,
): {
  readonly ioctl: Dialect<Ioctl>
  readonly write: Dialect<readonly [address: bigint, length: number]>
  readonly read: Dialect<readonly [address: bigint, length: number]>
} => {
  const file = umadFile(channel, fd)
  return {
    ioctl: (view, request, argument) => decodeUmadIoctl(view, file, request, argument),
    write: (view, address, length) => decodeUmadWrite(view, file, address, length),
    read: (view, address, length) => decodeUmadRead(view, file, address, length),
  }
}
