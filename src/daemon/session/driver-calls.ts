/*
 * The dialect for ioctl, write and mmap on a driver's own descriptor (R28). Only the driver knows the meaning of these
 * calls. So the dialect decodes nothing: it runs the call and returns the answer.
 */

import { opsIoctl, opsMap, opsWrite } from '../../core/devices/driver-ops.ts'
import type { Dialect } from '../../core/dispatch/dispatch.ts'
import type { OpsState } from '../../core/driver-contract.ts'
import type { Caller, FdObject } from '../../core/model.ts'
import { CtxIoctl } from '../../spec/drivers/ctx.ts'
import { CallError } from '../../spec/errno.ts'
import { MessageType } from '../../spec/session.ts'
import type { Request } from '../../uapi/session-codec.ts'

/** From mmap(2). */
const PROT_WRITE = 2

/** A call on a descriptor, from the session's message. */
type DriverCall = Pick<Request, 'type' | 'request' | 'argument' | 'buffer' | 'length' | 'offset' | 'protection'>

const requestNames = new Map(Object.entries(CtxIoctl).map(([name, request]) => [request, name]))

const textOf = ({ type, request, argument, length, offset }: DriverCall): string => {
  if (type === MessageType.IOCTL)
    return `ioctl(${requestNames.get(request) ?? `0x${request.toString(16)}`}, 0x${argument.toString(16)})`
  return type === MessageType.WRITE ? `write(${length})` : `mmap(${length}, ${offset})`
}

const nameOf = ({ class: cls, state }: FdObject): string =>
  cls.name === 'driver_ops' ? (state as OpsState).name : cls.name

const run = (fd: FdObject, caller: Caller, call: DriverCall): number => {
  const { type, request, argument, buffer, length, offset, protection } = call
  if (type === MessageType.IOCTL) return opsIoctl(fd, caller, request, argument)
  if (type === MessageType.WRITE) return opsWrite(fd, caller, buffer, Number(length))
  return opsMap(fd, caller, Number(offset), Number(length), (protection & PROT_WRITE) !== 0).offset
}

/** `fd`: the descriptor of the call. If its class is not `driver_ops`, calls fail. */
export const driverDialect =
  (fd: FdObject, caller: Caller): Dialect<readonly [DriverCall]> =>
  (view, call) => {
    // Traces include the memory that the driver reads and writes.
    const recorded: Caller = {
      ...caller,
      copyIn: (address, length) => view.copyIn(address, length),
      copyOut: (address, bytes) => view.copyOut(address, bytes),
    }
    const attempt = `${nameOf(fd)}: ${textOf(call)}`
    try {
      return { ret: run(fd, recorded, call), installs: [], attempt }
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      return { ret: -error.errno, installs: [], reason: error.reason, attempt }
    }
  }
