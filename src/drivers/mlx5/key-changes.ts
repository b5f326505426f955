/*
 * Work requests that set the ranges of keys over other keys (UMR: mlx5dv_wr_mr_list, …_interleaved, …_mkey_configure),
 * or invalidate them. The requests take effect when they are fetched, before those that are posted later, with a fence
 * after those before have completed; to the engine they are requests that do nothing. key-ranges.ts reads the ranges.
 */
import { type Configurable, IndirectSpace } from '../../core/memory/indirect.ts'
import { findKey, type MemoryTable } from '../../core/memory/region-table.ts'
import { KeyAccess } from '../../spec/drivers/mlx5-queues.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { rangesOf } from './key-ranges.ts'
import { signatureOf } from './signature/signature.ts'
import { type PsvTable, SignedSpace } from './signature/signed-space.ts'

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC } = AccessFlags.values

/** ibv_access_flags of `KeyAccess`. */
export const accessOf = (bits: number): number =>
  ((bits & KeyAccess.LOCAL_WRITE) === 0 ? 0 : LOCAL_WRITE) |
  ((bits & KeyAccess.REMOTE_WRITE) === 0 ? 0 : REMOTE_WRITE) |
  ((bits & KeyAccess.REMOTE_READ) === 0 ? 0 : REMOTE_READ) |
  ((bits & KeyAccess.ATOMIC) === 0 ? 0 : REMOTE_ATOMIC)

/** What a request sets; undefined values stay. */
interface NewRanges {
  /** Four words a range. */
  readonly octowords: Uint32Array
  /** Bytes of each range of a key of fixed ranges (KSM). */
  readonly entityBytes: number | undefined
  readonly length: bigint | undefined
  readonly start: bigint | undefined
  readonly access: number | undefined
  /** Bytes of a BSF (signature/signature.ts); empty: the key has no signatures any more. */
  readonly bsf: Uint8Array | undefined
}

interface KeyChange {
  readonly key: number
  /** The key gets no ranges. */
  readonly isFree: boolean
  /** Undefined: an invalidation. */
  readonly ranges: NewRanges | undefined
}

export interface KeyChanger {
  /** Sets a protection signature value. False: the domain has none of the number. */
  setPsv(number: number, hi: number, lo: number): boolean
  /** Whether the key is one that requests may change. */
  has(key: number): boolean
  /** False: the change is refused. */
  change(change: KeyChange): boolean
}

const isConfigurable = (space: IndirectSpace): space is IndirectSpace & { readonly configurable: Configurable } =>
  space.configurable !== undefined

const LARGEST_LENGTH = BigInt(Number.MAX_SAFE_INTEGER)

/** False: the key can have no signatures, or none like this. */
const setSignature = (space: IndirectSpace, bsf: Uint8Array): boolean => {
  const signature = bsf.length === 0 ? undefined : signatureOf(bsf)
  if (!(space instanceof SignedSpace)) return bsf.length === 0
  space.signature = signature
  return signature !== undefined || bsf.length === 0
}

/** Changes keys of the protection domain with this id. */
export const keyChanger = (table: MemoryTable, pd: number, psvs: PsvTable): KeyChanger => {
  /** The ranges of a key that may be changed; undefined: it is no such key. */
  const spaceOf = (row: number): (IndirectSpace & { readonly configurable: Configurable }) | undefined => {
    const space = row < 0 || table.pd[row] !== pd ? undefined : table.spaces[table.space[row]!]
    return space instanceof IndirectSpace && isConfigurable(space) ? space : undefined
  }
  return {
    setPsv: (number, hi, lo) => psvs.set(pd, number, hi, lo),
    has: key => spaceOf(findKey(table, key)) !== undefined,
    change({ key, isFree, ranges }) {
      const row = findKey(table, key)
      const space = spaceOf(row)
      if (space === undefined) return false
      if (ranges === undefined || isFree) {
        space.configure([], 1)
        table.length[row] = 0
        if (space instanceof SignedSpace) space.signature = undefined
        return true
      }
      const { octowords, length, start, access, bsf } = ranges
      const { configurable } = space
      // a key of ranges of any length has no entities
      if (configurable.entityBytes !== undefined && ranges.entityBytes !== undefined)
        configurable.entityBytes = ranges.entityBytes
      if (octowords.length > 0) {
        const parts = rangesOf(octowords, configurable.entityBytes)
        if (parts === undefined || parts.octowords > configurable.maxEntries) return false
        space.configure(parts.entries, parts.repeats)
      }
      if (bsf !== undefined && !setSignature(space, bsf)) return false
      const isSigned = space instanceof SignedSpace
      const bytes = length ?? BigInt(isSigned ? space.memoryBytes : table.length[row]!)
      // the ranges have perhaps become shorter
      const isWithin = bytes <= LARGEST_LENGTH && Number(bytes) <= space.length
      const accessible = isWithin && isSigned ? space.resize(Number(bytes)) : Number(bytes)
      table.length[row] = isWithin && accessible !== undefined ? accessible : 0
      if (access !== undefined) table.access[row] = access
      if (start !== undefined) {
        table.iovaHi[row] = Number(start >> 32n)
        table.iovaLo[row] = Number(start & 0xffff_ffffn)
      }
      return isWithin && accessible !== undefined
    },
  }
}
