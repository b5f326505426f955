/*
 * Calls on a `driver_ops` descriptor (R28): the driver's own ioctl, write and mmap.
 *
 * Core checks that the descriptor is a driver's, that its context is open and its device exists. The driver defines
 * request numbers and bytes. If the interface has no function for a call, the call fails as on a Linux file: ioctl with
 * ENOTTY, write with EINVAL, mmap with ENODEV. On a descriptor of another class ioctl fails with ENOTTY, write and mmap
 * with EINVAL. After the `driver_ops` was destroyed, the context closed or the device removed, all fail with EIO.
 */
import { CallError, callError, gone } from '../../spec/errno.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import { because } from '../../spec/reason.ts'
import type { OpsCall, OpsState } from '../driver-contract.ts'
import type { MappedChunk } from '../memory/mappable-memory.ts'
import type { Caller, FdObject } from '../model.ts'

const MAX_WRITE_BYTES = 1 << 20

const callOn = (fd: FdObject, caller: Caller, systemCall: 'ioctl' | 'write' | 'mmap'): OpsCall => {
  const { context } = fd
  const { device } = context
  if (fd.class.name !== 'driver_ops')
    throw new CallError(
      systemCall === 'ioctl' ? 'ENOTTY' : 'EINVAL',
      because`${systemCall}: the descriptor is of class ${fd.class.name}`,
    )
  if (fd.isClosed || context.isClosed || !device.isAlive)
    throw gone`${systemCall}: the descriptor was closed or destroyed, its context closed, or device ${device.name} removed`
  return { fd: fd as FdObject<OpsState>, context, device, caller }
}

/** ioctl(2); returns the driver's value. */
export const opsIoctl = (fd: FdObject, caller: Caller, request: number, argument: bigint): number => {
  const call = callOn(fd, caller, 'ioctl')
  const { ops, name } = call.fd.state
  if (ops.ioctl === undefined) throw callError.ENOTTY`interface ${name} has no ioctl`
  return ops.ioctl(call, request >>> 0, argument)
}

/**
 * write(2): `length` bytes at `address` of the caller's memory. Returns the number of accepted bytes. Throws EMSGSIZE
 * above MAX_WRITE_BYTES.
 */
export const opsWrite = (fd: FdObject, caller: Caller, address: bigint, length: number): number => {
  const call = callOn(fd, caller, 'write')
  const { ops, name } = call.fd.state
  if (ops.write === undefined) throw callError.EINVAL`interface ${name} does not support write`
  if (length > MAX_WRITE_BYTES)
    throw callError.EMSGSIZE`a write of ${length} bytes; at most ${MAX_WRITE_BYTES} are allowed`
  return ops.write(call, caller.copyIn(address, length))
}

/**
 * mmap(2): the memory of `length` bytes at `offset`. Throws EINVAL for bytes that do not exist, for length 0, and for
 * an offset that is no multiple of the page size.
 */
export const opsMap = (
  fd: FdObject,
  caller: Caller,
  offset: number,
  length: number,
  isWritable: boolean,
): MappedChunk => {
  const call = callOn(fd, caller, 'mmap')
  const { ops, name } = call.fd.state
  if (ops.mmap === undefined) throw callError.ENODEV`interface ${name} has no memory to map`
  if (!(Number.isSafeInteger(offset) && offset >= 0 && offset % PAGE_BYTES === 0 && length > 0))
    throw callError.EINVAL`mmap: ${length} bytes at ${offset}: the length must not be 0, and the offset must be a multiple of ${PAGE_BYTES}`
  const chunk = ops.mmap(call, offset, length, isWritable)
  if (length > chunk.length) throw callError.EINVAL`mmap: ${length} bytes at ${offset}; only ${chunk.length} exist`
  return chunk
}
