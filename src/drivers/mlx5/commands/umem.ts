/*
 * Class `devx_umem`: memory of the program for firmware commands, registered as a region but without a key. Commands
 * name it by its number, and places in it by offsets. An object in it uses it: its deregistration fails with EBUSY
 * then.
 *
 * The checks are those of Linux (devx_umem_get, ib_umem_get): EINVAL for an empty range, one at the end of the address
 * space, REMOTE_WRITE without LOCAL_WRITE, page sizes without 4096; EFAULT for pages that do not exist or do not permit
 * the access.
 */
import { driverClass } from '../../../core/devices/driver.ts'
import type { AddressSpace } from '../../../core/memory/address-space.ts'
import { type CallContext, type CoreObject, Lifecycle } from '../../../core/model.ts'
import { DevxUmem } from '../../../spec/drivers/mlx5-devx.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { callError, gone } from '../../../spec/errno.ts'
import { PAGE_BYTES } from '../../../spec/memory.ts'
import { because, the } from '../../../spec/reason.ts'
import { contextOf } from '../context.ts'
import { giveNumber, takeNumber } from '../numbers.ts'
import { refuseCommand } from './handler.ts'

const { LOCAL_WRITE, REMOTE_WRITE } = AccessFlags.values
const ADDRESS_LIMIT = 1n << 64n

export interface Umem {
  /** In commands. */
  readonly number: number
  readonly address: bigint
  readonly length: bigint
  /** ibv_access_flags. */
  readonly access: number
  readonly memory: AddressSpace
  /** The program has unmapped a part: nothing is made in it any more. */
  isUnmapped: boolean
  readonly unregister: (() => void) | undefined
}

const hex = (value: bigint | number): string => `0x${value.toString(16)}`

interface Checked {
  readonly address: bigint
  readonly bytes: number
  readonly access: number
}

const check = (address: bigint, length: bigint, access: number, pageSizes: bigint): Checked => {
  const where = because`${the.method('devx_umem.create')}: ${length} bytes at ${hex(address)}`
  if (length === 0n) throw callError.EINVAL`${where}: the range is empty`
  if (address + length > ADDRESS_LIMIT - BigInt(PAGE_BYTES) || length > BigInt(Number.MAX_SAFE_INTEGER))
    throw callError.EINVAL`${where} reach the end of the address space`
  if ((access & REMOTE_WRITE) !== 0 && (access & LOCAL_WRITE) === 0)
    throw callError.EINVAL`${the.method('devx_umem.create')}: access ${hex(access)} has REMOTE_WRITE without LOCAL_WRITE: add LOCAL_WRITE`
  if ((pageSizes & BigInt(PAGE_BYTES)) === 0n)
    throw callError.EINVAL`${the.method('devx_umem.create')}: page sizes ${hex(pageSizes)} lack ${hex(PAGE_BYTES)}, that of this system`
  return { address, bytes: Number(length), access }
}

const register = (
  { context, caller }: CallContext,
  object: CoreObject<Umem>,
  { address, bytes, access }: Checked,
): { umem: number } => {
  if (object.life !== Lifecycle.CREATING)
    throw gone`${the.method('devx_umem.create')}: the context was closed, or its device removed, during the call`
  const { memory } = caller
  const hi = Number(address >> 32n)
  const lo = Number(address & 0xffff_ffffn)
  const needsWrite = (access & LOCAL_WRITE) !== 0
  if (!memory.check(hi, lo, bytes, needsWrite))
    throw callError.EFAULT`${the.method('devx_umem.create')}: the ${bytes} bytes at ${hex(address)} are not all mapped, or not ${needsWrite ? 'writable' : 'readable'}`
  const unregister = memory.register?.(hi, lo, bytes, () => {
    object.state.isUnmapped = true
  })
  const number = giveNumber(context, 'umem', object)
  object.state = { number, address, length: BigInt(bytes), access, memory, isUnmapped: false, unregister }
  return { umem: number }
}

export const umemClass = driverClass<typeof DevxUmem, Umem>(DevxUmem, {
  create(call, object, { address, length, access = 0, pageSizes = ADDRESS_LIMIT - 1n, file }) {
    if (contextOf(call.context).uid === undefined)
      throw callError.EINVAL`${the.method('devx_umem.create')}: the context was opened without MLX5DV_CONTEXT_FLAGS_DEVX`
    if (file !== undefined)
      throw callError.EOPNOTSUPP`${the.method('devx_umem.create')}: user memory of a dma-buf: register a buffer`
    const checked = check(address, length, access, pageSizes)
    const preparing = call.caller.memory.prepareCheck?.(
      Number(address >> 32n),
      Number(address & 0xffff_ffffn),
      checked.bytes,
      (access & LOCAL_WRITE) !== 0,
    )
    return preparing === undefined
      ? register(call, object, checked)
      : preparing.then(() => register(call, object, checked))
  },
  destroy({ context }, { state }) {
    takeNumber(context, 'umem', state.number)
    state.unregister?.()
    return {}
  },
})

/**
 * The address in the program of `bytes` bytes at an offset. `needsWrite`: the device writes there. Refuses with
 * `outsideUmem`.
 */
export const placeInUmem = (
  { caller }: CallContext,
  { state }: CoreObject<Umem>,
  offset: bigint,
  bytes: number,
  needsWrite: boolean,
): bigint => {
  const { number, address, length, access, memory, isUnmapped } = state
  const where = `umem ${hex(number)} has ${length} bytes`
  if (isUnmapped) refuseCommand('outsideUmem', `${where}, and the program has unmapped some`)
  if (memory !== caller.memory) refuseCommand('outsideUmem', `${where} of another process`)
  if (offset + BigInt(bytes) > length)
    refuseCommand('outsideUmem', `${where}; ${bytes} at offset ${hex(offset)} asked for`)
  if (needsWrite && (access & LOCAL_WRITE) === 0)
    refuseCommand('outsideUmem', `${where}, which the device may not write: it was registered without LOCAL_WRITE`)
  return address + offset
}
