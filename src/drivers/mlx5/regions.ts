/*
 * Class `mr` of mlx5 devices. A region has one key, also without rights for peers, unless torment separates lkey and
 * rkey: programs keep it when they add such rights. Firmware commands choose the key's lowest byte, and make regions of
 * kind INDIRECT, whose memory are ranges of other keys.
 */

import type { MrState } from '../../core/base/mr.ts'
import { answered, driverClass } from '../../core/devices/driver.ts'
import { type IndirectEntry, IndirectSpace } from '../../core/memory/indirect.ts'
import { addRegion, joinKeys, rkeyOf, setKeyByte } from '../../core/memory/region-table.ts'
import type { CallContext, CoreObject } from '../../core/model.ts'
import { chargeMemory, orRelease, releaseMemory } from '../../core/objects/limits.ts'
import { Mr } from '../../spec/classes/mr.ts'
import { Mlx5Attributes } from '../../spec/drivers/mlx5.ts'
import { MrKind } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { because, the } from '../../spec/reason.ts'
import { SignedSpace } from './signature/signed-space.ts'
import { stateOf } from './state.ts'

const { INDIRECT } = MrKind.values

interface Mlx5Region extends MrState {
  /** Charged to the context's account; of kind INDIRECT. */
  readonly bytes?: number
  readonly indirect?: IndirectSpace
}

interface IndirectArguments {
  readonly pd: CoreObject
  readonly iova: bigint
  readonly length: bigint
  readonly access: number
  readonly maxEntries?: number | undefined
  readonly isRevocable?: number | undefined
  readonly hasSignatures?: number | undefined
  readonly logEntity?: number | undefined
  readonly repeats?: number | undefined
}

/** Makes a region over ranges of other keys, and returns its row. Throws CallError EINVAL, ENOMEM. */
const createIndirect = (
  call: CallContext,
  object: CoreObject<Mlx5Region>,
  { pd, iova, length, access, maxEntries, isRevocable, hasSignatures, logEntity, repeats }: IndirectArguments,
  entries: readonly IndirectEntry[],
): number => {
  const { context, device } = call
  const { memory: table } = device
  if ((maxEntries === undefined && entries.length === 0) || entries.some(entry => entry.length < 1))
    throw callError.EINVAL`${the.method('mr.create')}: ${the.attribute('entries')}: one or more, each of one byte or more, or none with maxEntries`
  const entityBytes = logEntity === undefined ? undefined : 2 ** logEntity
  const configurable =
    maxEntries === undefined ? undefined : { maxEntries, isRevocable: isRevocable === 1, entityBytes }
  const bytes = IndirectSpace.bytesFor(Math.max(maxEntries ?? 0, entries.length))
  const { account } = context
  chargeMemory(account, because`${the.method('mr.create')}: ${the.attribute('entries')}`, bytes)
  let space: IndirectSpace | undefined
  return orRelease(
    () => {
      space?.end()
      releaseMemory(account, bytes)
    },
    () => {
      space =
        hasSignatures === 1 && configurable !== undefined
          ? new SignedSpace(table, pd.id, configurable, stateOf(call).signatures)
          : new IndirectSpace(table, pd.id, entries, configurable, repeats)
      const longest = Math.min(space.length, Number.MAX_SAFE_INTEGER)
      if ((length < 1n && configurable === undefined) || length > BigInt(longest))
        throw callError.EINVAL`${the.method('mr.create')}: ${the.attribute('length')}: ${length} is not in 1 to the ${longest} of the entries`
      if (iova + length > 1n << 64n)
        throw callError.EINVAL`${the.method('mr.create')}: ${length} bytes at iova 0x${iova.toString(16)} reach the end of the address space`
      const row = addRegion(table, pd.id, 0n, iova, Number(length), access >>> 0, space)
      object.state = { row, iova, special: { kind: INDIRECT }, bytes, indirect: space }
      return row
    },
  )
}

export const mrClass = driverClass<typeof Mr, Mlx5Region, typeof Mlx5Attributes.mr>(
  Mr,
  {
    create(call, object, { keyByte, entries, maxEntries, ...others }, core) {
      const { isRevocable, hasSignatures, logEntity, repeats, ...args } = others
      const { memory: table } = call.device
      if ((args.kind === INDIRECT) !== (entries !== undefined))
        throw callError.EINVAL`${the.method('mr.create')}: ${the.attribute('entries')} belongs to regions of kind INDIRECT, which need it`
      if (entries !== undefined) {
        const ranges = entries.map(({ key, address, length, stride }) => ({ key, address, length, stride }))
        const row = createIndirect(call, object, { ...others, maxEntries }, ranges)
        if (keyByte !== undefined) setKeyByte(table, row, keyByte)
        const key = table.key[row]!
        const { indirect } = object.state
        if (indirect instanceof SignedSpace) indirect.key = key
        return { lkey: key, rkey: key }
      }
      return answered(core(call, object, args), out => {
        const { row } = object.state
        if (keyByte === undefined) return { ...out, rkey: rkeyOf(table, row) }
        joinKeys(table, row)
        const key = setKeyByte(table, row, keyByte)
        return { ...out, lkey: key, rkey: key }
      })
    },
    destroy(call, object, args, core) {
      const { bytes, indirect } = object.state
      const out = core(call, object, args)
      indirect?.end()
      if (bytes !== undefined) releaseMemory(call.context.account, bytes)
      return out
    },
  },
  Mlx5Attributes.mr,
)
