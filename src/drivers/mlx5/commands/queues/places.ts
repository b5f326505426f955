/*
 * Where firmware commands put queues: in user memory (UMEM), at offsets; and what queues they name by numbers. Only
 * objects of the caller's context are found. Linux marks all user memory of a command as valid, so the bits for that
 * mean nothing.
 */

import type { CallContext, CoreObject } from '../../../../core/model.ts'
import { addParent } from '../../../../core/objects/lifetime.ts'
import { DoorbellRecord } from '../../../../spec/drivers/mlx5-queues.ts'
import type { CqObject, SrqObject } from '../../../soft/state.ts'
import { stateOf } from '../../state.ts'
import { refuseCommand } from '../handler.ts'
import { findUmem } from '../lookup.ts'
import type { SyndromeName } from '../status.ts'
import { placeInUmem } from '../umem.ts'

/** Unit of `page_offset`. */
const OFFSET_BYTES = 64

/** The fields of a command that say where a queue is. */
interface QueuePlace {
  /** Of the field with the user memory's number. */
  readonly field: string
  readonly umem: number
  readonly offset: bigint
  readonly pageOffset?: number
  readonly bytes: number
  readonly needsWrite?: boolean
}

/**
 * The address of a queue in the program; `object`, the new `devx_obj`, uses the user memory from now on. Throws
 * CommandRefused.
 */
export const placeOf = (call: CallContext, object: CoreObject, place: QueuePlace): bigint => {
  const { field, umem: number, offset, pageOffset = 0, bytes, needsWrite = false } = place
  const umem = findUmem(call, field, number)
  const address = placeInUmem(call, umem, offset + BigInt(pageOffset * OFFSET_BYTES), bytes, needsWrite)
  if (!object.parents.includes(umem)) addParent(object, umem)
  return address
}

export const recordPlaceOf = (
  call: CallContext,
  object: CoreObject,
  { dbr_umem_id, dbr_addr }: { readonly dbr_umem_id: number; readonly dbr_addr: bigint },
): bigint =>
  placeOf(call, object, { field: 'dbr_umem_id', umem: dbr_umem_id, offset: dbr_addr, bytes: DoorbellRecord.BYTES })

const hex = (number: number): string => `0x${number.toString(16)}`

const requireOwn = <T extends CoreObject>(
  { context }: CallContext,
  found: T | undefined,
  syndrome: SyndromeName,
  what: string,
): T => (found?.context === context ? found : refuseCommand(syndrome, what))

/** The completion queue. Refuses with `noSuchCq`. */
export const findCq = (call: CallContext, field: string, number: number): CqObject =>
  requireOwn(call, stateOf(call).soft.cqs.get(number), 'noSuchCq', `${field} ${hex(number)}`)

/** The shared receive queue. Refuses with `noSuchReceiveQueue`. */
export const findShared = (call: CallContext, field: string, number: number): SrqObject => {
  const { srqns, srqs } = stateOf(call).soft
  const slot = srqns.rowOf(number)
  return requireOwn(call, slot < 0 ? undefined : srqs.get(slot), 'noSuchReceiveQueue', `${field} ${hex(number)}`)
}

/** Refuses a field that asks for what the device does not have. */
export const refuseFeatures = (fields: Readonly<Record<string, number>>): void => {
  for (const [field, value] of Object.entries(fields))
    if (value !== 0) refuseCommand('unsupportedFeature', `${field} ${value}; the device has only 0`)
}
