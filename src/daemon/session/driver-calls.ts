/*
 * The dialect for ioctl, write and mmap on a driver's own descriptor (R28). Only the driver knows the meaning of these
 * calls: they are not methods of a class. So the dialect decodes nothing. It runs the call and returns the answer.
 * Traces show the call with the name of the driver's interface.
 */

import { opsIoctl, opsMap, opsWrite } from '../../core/devices/driver-ops.ts'
import type { Dialect } from '../../core/dispatch/dispatch.ts'
import type { Caller, FdObject, OpsState } from '../../core/model.ts'
import { CtxIoctl } from '../../spec/drivers/ctx.ts'
import { CallError } from '../../spec/errno.ts'
import { MessageType } from '../../spec/session.ts'
import type { Request } from '../../uapi/session-codec.ts'

/** From mmap(2). */
const PROT_WRITE = 2

/** A call on a descriptor, from the session's message. */
export type DriverCall = Pick<Request, 'type' | 'request' | 'argument' | 'buffer' | 'length' | 'offset' | 'protection'>

const requestNames = new Map(Object.entries(CtxIoctl).map(([name, request]) => [request, name]))

const textOf = ({ type, request, argument, length, offset }: DriverCall): string => {
  if (type === MessageType.IOCTL)
    return `ioctl(${requestNames.get(request) ?? `0x${request.toString(16)}`}, 0x${argument.toString(16)})`
  return type === MessageType.WRITE ? `write(${length})` : `mmap(${length}, ${offset})`
}

const nameOf = ({ class: cls, state }: FdObject): string =>
  cls.name === 'driver_ops' ? (state as OpsState).name : cls.name

/** `fd`: the descriptor of the call. Calls fail unless its class is `driver_ops`. */
export const driverDialect =
  (fd: FdObject, caller: Caller): Dialect<readonly [DriverCall]> =>
  (view, call) => {
    // Traces include the memory that the driver reads and writes.
    const recorded: Caller = {
      ...caller,
      copyIn: (address, length) => view.copyIn(address, length),
      copyOut: (address, bytes) => view.copyOut(address, bytes),
    }
    const { type, request, argument, buffer, length, offset, protection } = call
    const attempt = `${nameOf(fd)}: ${textOf(call)}`
    try {
      const ret =
        type === MessageType.IOCTL
          ? opsIoctl(fd, recorded, request, argument)
          : type === MessageType.WRITE
            ? opsWrite(fd, recorded, buffer, Number(length))
            : opsMap(fd, recorded, Number(offset), Number(length), (protection & PROT_WRITE) !== 0).offset
      return { ret, installs: [], attempt }
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      return { ret: -error.errno, installs: [], reason: error.message, attempt }
    }
  }
