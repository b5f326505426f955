/*
 * Dialects (core/dispatch/dispatch.ts): of ioctls in Linux's format and in our own, of writes to rdma_cm channels, and
 * of ioctls, writes and reads on umad files.
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

/** The second (32 bits) and third argument of ioctl(2). */
type Ioctl = readonly [request: number, argument: bigint]

/** For requests that are calls of the object dialect. */
const objectIoctl: Dialect<Ioctl> = (view, request, argument) =>
  decodeObject(view, callOfRequest(request) as number, argument)

/** The object dialect has its own magic number in ioctl requests. */
export const ioctlDialect = (request: number): { name: 'ioctl' | 'object'; dialect: Dialect<Ioctl> } =>
  callOfRequest(request) === undefined
    ? { name: 'ioctl', dialect: decodeVerbsIoctl }
    : { name: 'object', dialect: objectIoctl }

/** The dialect of writes to an rdma_cm channel. `fd`: the channel's descriptor number in the caller. */
export const ucmaDialect = (
  channel: FdObject,
  fd: number,
  caller: Caller,
): Dialect<readonly [address: bigint, length: number]> => {
  const { context } = channel
  /** `Caller.descriptor`, without a look-up of the channel itself. */
  const coreFdOf = (callerFd: number): number | undefined =>
    callerFd === fd ? channel.handle : caller.descriptor(callerFd)
  /** Whether the identifier with this handle reports its events on the channel behind a descriptor of the caller. */
  const reportsTo = (handle: number, callerFd: number): boolean => {
    const eventChannel = findHandle(context.handles, handle)?.events?.route.channel
    return eventChannel !== undefined && eventChannel.handle === coreFdOf(callerFd)
  }
  const kindOf = (callerFd: number): 'channel' | 'other' | 'closed' => {
    const coreFd = coreFdOf(callerFd)
    if (coreFd === undefined) return caller.file?.(callerFd) === undefined ? 'closed' : 'other'
    return context.device.core.descriptors.get(coreFd)?.class === channel.class ? 'channel' : 'other'
  }
  return (view, address, length) => decodeUcma(view, { object: channel.handle, fd, reportsTo, kindOf }, address, length)
}

/** The ABI has a mode per umad file: whether the header has a P_Key index. */
const umadModes = new WeakMap<FdObject, UmadMode>()

const umadFile = (channel: FdObject, fd: number): UmadFile => {
  const mode = umadModes.get(channel) ?? { hasPkeys: false, isUsed: false }
  umadModes.set(channel, mode)
  return { object: channel.handle, fd, mode }
}

/** The dialects of system calls on a umad file. `fd`: the file's descriptor number in the caller. */
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
