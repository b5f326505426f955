/*
 * Advice about on-demand regions (Linux: ib_uverbs_advise_mr; ibv_advise_mr(3)): brings pages into memory before they
 * are accessed. Without FLUSH the call returns at once, and as in Linux, pages that cannot be read are no error.
 *
 * PREFETCH_NO_FAULT has no effect: it updates an adapter's page table, and accesses here use the program's.
 */
import type { Pd } from '../../spec/classes/pd.ts'
import { AccessFlags, AdviseFlags, MrAdvice } from '../../spec/enums.ts'
import { CallError, type ErrnoName } from '../../spec/errno.ts'
import { PAGE_BYTES, wholePages } from '../../spec/memory.ts'
import { because, type Reason, the } from '../../spec/reason.ts'
import type { In } from '../../spec/schema/schema.ts'
import { OnDemandSpace } from '../memory/on-demand.ts'
import { addressHi, addressLo, findRegion, resolve } from '../memory/region-table.ts'
import { findWindow } from '../memory/windows.ts'
import type { CallContext, Context, CoreObject, Device } from '../model.ts'

const { PREFETCH, PREFETCH_WRITE, PREFETCH_NO_FAULT } = MrAdvice.values
const { LOCAL_WRITE } = AccessFlags.values
/** Maximum calls of a context whose pages are still being prefetched; further ones without FLUSH have no effect. */
const MAX_PENDING = 16

interface Range {
  readonly space: OnDemandSpace
  readonly hi: number
  readonly lo: number
  readonly length: number
}

type Arguments = In<typeof Pd.methods.advise, CoreObject>
const refuse = (errno: ErrnoName, reason: Reason | string): never => {
  throw new CallError(errno, because`${the.method('pd.advise')}: ${reason}`)
}

/**
 * With what a driver refuses keys of the ranges: without an on-demand region, of a window, of another domain, for
 * reading.
 */
interface KeyRefusals {
  readonly unknown: ErrnoName
  readonly window: ErrnoName
  readonly otherDomain: ErrnoName
  readonly readOnly: ErrnoName
}
/** Of Linux's rxe, which looks for a region with all that is needed (lookup_mr). */
const RXE_REFUSALS: KeyRefusals = { unknown: 'EINVAL', window: 'EINVAL', otherDomain: 'EINVAL', readOnly: 'EINVAL' }

/** Undefined: outside its region, which is an error only with FLUSH. */
const rangeOf = (
  { memory }: Device,
  pd: CoreObject,
  { address, length, lkey }: Arguments['ranges'][number],
  needsWrite: boolean,
  refusals: KeyRefusals,
): Range | undefined => {
  const row = findRegion(memory, lkey)
  const space = memory.spaces[memory.space[row] ?? -1]
  const refuseKey = (why: keyof KeyRefusals, reason: string): never =>
    refuse(refusals[why], `lkey 0x${lkey.toString(16)}: ${reason}`)
  if (findWindow(memory, lkey) >= 0) refuseKey('window', 'is the key of a memory window')
  if (!(space instanceof OnDemandSpace)) return refuseKey('unknown', 'no on-demand region has it')
  if (memory.pd[row] !== pd.id) refuseKey('otherDomain', 'its region is of another protection domain')
  if (needsWrite && (memory.access[row]! & LOCAL_WRITE) === 0)
    refuseKey('readOnly', 'its region has no LOCAL_WRITE, which PREFETCH_WRITE needs')
  const [hi, lo] = [Number(address >> 32n), Number(address & 0xffff_ffffn)]
  if (resolve(memory, pd.id, lkey, hi, lo, length, 0, 0) < 0) return undefined
  return { space, hi: addressHi(memory, row, hi, lo), lo: addressLo(memory, row, lo), length }
}

/** Rejects with EFAULT at the first range that is not all mapped. */
const prefetch = async (ranges: readonly (Range | undefined)[], needsWrite: boolean): Promise<Record<never, never>> => {
  for (const range of ranges) {
    if (range === undefined) return refuse('EFAULT', 'a range is not inside its region')
    const { space, hi, lo, length } = range
    await space.memory.prepareCheck?.(hi, lo, length, needsWrite)
    if (!space.memory.check(hi, lo, length, needsWrite))
      refuse('EFAULT', `the ${length} bytes of a range are not all mapped, or not permitted`)
    await space.memory.prefetch?.(hi, lo, length)
    space.prefetchedPages += wholePages((lo % PAGE_BYTES) + length) / PAGE_BYTES
  }
  return {}
}

const pending = new WeakMap<Context, number>()

/** The method throws EOPNOTSUPP, EINVAL, and those of `refusals`; with FLUSH also EFAULT. */
export const adviceTaker =
  (refusals: KeyRefusals = RXE_REFUSALS) =>
  ({ device, context }: CallContext, pd: CoreObject, { advice, flags, ranges }: Arguments) => {
    if (device.extended.odpGeneralCaps === 0n) refuse('EOPNOTSUPP', `device ${device.name} has no on-demand paging`)
    // as in Linux 7.3
    if (advice > 0xffff_ffffn) refuse('EINVAL', `advice ${advice} is above 2^32 - 1`)
    const kind = Number(advice)
    if (kind !== PREFETCH && kind !== PREFETCH_WRITE && kind !== PREFETCH_NO_FAULT)
      refuse('EOPNOTSUPP', `advice ${advice} is none of 0 (PREFETCH), 1 (PREFETCH_WRITE) and 2 (PREFETCH_NO_FAULT)`)
    if (ranges.length === 0) refuse('EINVAL', because`${the.attribute('ranges')}: at least one is needed`)
    const needsWrite = kind === PREFETCH_WRITE
    const found = ranges.map(range => rangeOf(device, pd, range, needsWrite, refusals))
    if (kind === PREFETCH_NO_FAULT) return {}
    if (flags & AdviseFlags.values.FLUSH) return prefetch(found, needsWrite)
    const calls = pending.get(context) ?? 0
    if (calls < MAX_PENDING) {
      pending.set(context, calls + 1)
      prefetch(found, needsWrite)
        .catch(() => {})
        .finally(() => pending.set(context, pending.get(context)! - 1))
    }
    return {}
  }
