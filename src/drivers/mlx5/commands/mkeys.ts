/*
 * Firmware commands for memory keys (CREATE_MKEY and QUERY_MKEY). A key is a region of class `mr`: of user memory (access
 * mode MTT), or over ranges of other keys (KLM, and KSM with ranges of one size). The program chooses the lowest byte of
 * the key. A key that is made free (`free`, `umr_en`) has no ranges; work requests set them (key-changes.ts).
 */
import { answered } from '../../../core/devices/driver.ts'
import { createOwned, type Owned } from '../../../core/dispatch/owned.ts'
import type { CallContext, CoreObject } from '../../../core/model.ts'
import { addParent } from '../../../core/objects/lifetime.ts'
import { Mr } from '../../../spec/classes/mr.ts'
import { MAX_INDIRECT_ENTRIES } from '../../../spec/drivers/mlx5.ts'
import { Commands } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import type { RecordOf } from '../../../spec/drivers/mlx5-firmware/fields.ts'
import { type createMkeyIn, klm, type mkc } from '../../../spec/drivers/mlx5-firmware/memory.ts'
import { Bsf } from '../../../spec/drivers/mlx5-signature.ts'
import { AccessFlags, MrKind } from '../../../spec/enums.ts'
import { PAGE_BYTES } from '../../../spec/memory.ts'
import { decodeFields } from '../../../uapi/firmware/fields.ts'
import { creation, objectCommand, refuseCommand } from './handler.ts'
import { findPd, findUmem } from './lookup.ts'
import { placeInUmem } from './umem.ts'

type MkeyContext = RecordOf<typeof mkc>
type MkeyInput = RecordOf<typeof createMkeyIn>

/** MLX5_MKC_ACCESS_MODE_… */
const AccessMode = { MTT: 1, KLM: 2, KSM: 3 } as const
/** No queue pair: the key serves all of its domain. */
const ANY_QP = 0xff_ffff
const MAX_LOG_ENTITY = 31
const OCTOWORD_BYTES = 16

/** What QUERY_MKEY tells. */
interface Mkey {
  readonly context: MkeyContext
  /** The first two ranges, or zeros. */
  readonly translations: Uint8Array
}

const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC, RELAXED_ORDERING } = AccessFlags.values

const accessOf = ({ lw, rr, rw, a, relaxed_ordering_write, relaxed_ordering_read }: MkeyContext): number =>
  (lw === 1 ? LOCAL_WRITE : 0) |
  (rr === 1 ? REMOTE_READ : 0) |
  (rw === 1 ? REMOTE_WRITE : 0) |
  (a === 1 ? REMOTE_ATOMIC : 0) |
  (relaxed_ordering_write === 1 || relaxed_ordering_read === 1 ? RELAXED_ORDERING : 0)

/** Fields that ask for what no capability tells. */
const UNSUPPORTED = ['sync_umr', 'crypto_en', 'length64', 'small_fence_on_rdma_read_response'] as const

const checkContext = (context: MkeyContext, { input_mkey_index, pg_access, data_direct }: MkeyInput): void => {
  const { bsf_en, umr_en, bsf_octword_size } = context
  if (bsf_en === 1 && (umr_en !== 1 || bsf_octword_size !== Bsf.BYTES / OCTOWORD_BYTES))
    refuseCommand(
      'unsupportedFeature',
      `bsf_en 1, umr_en ${umr_en}, bsf_octword_size ${bsf_octword_size}: keys with signatures have umr_en 1 and ${Bsf.BYTES / OCTOWORD_BYTES}`,
    )
  for (const field of UNSUPPORTED)
    if (context[field] !== 0) refuseCommand('unsupportedFeature', `${field} ${context[field]}; it must be 0`)
  if (input_mkey_index !== 0) refuseCommand('unsupportedFeature', `input_mkey_index ${input_mkey_index}; it must be 0`)
  if (pg_access !== 0)
    refuseCommand('unsupportedFeature', 'pg_access 1: the device has no on-demand paging of commands')
  if (data_direct !== 0) refuseCommand('unsupportedFeature', 'data_direct 1; it must be 0')
  if (context.qpn !== ANY_QP)
    refuseCommand(
      'badValue',
      `qpn 0x${context.qpn.toString(16)}; it must be 0x${ANY_QP.toString(16)}, for all queue pairs`,
    )
}

/** A key of user memory: its pages, from an offset on; the first address selects the place in the first page. */
const createOfUmem = (
  call: CallContext,
  object: CoreObject,
  pd: CoreObject,
  context: MkeyContext,
  { mkey_umem_id, mkey_umem_offset }: MkeyInput,
): Owned | Promise<Owned> => {
  const umem = findUmem(call, 'mkey_umem_id', mkey_umem_id)
  const log = Math.max(context.log_page_size, Math.log2(PAGE_BYTES))
  if (log > MAX_LOG_ENTITY)
    refuseCommand('badValue', `log_page_size ${context.log_page_size}; at most ${MAX_LOG_ENTITY}`)
  const pageMask = (1n << BigInt(log)) - 1n
  const access = accessOf(context)
  const first = placeInUmem(call, umem, mkey_umem_offset, 1, (access & LOCAL_WRITE) !== 0)
  const start = (first & ~pageMask) + (context.start_addr & pageMask)
  const { address, length } = umem.state
  const systemMask = BigInt(PAGE_BYTES - 1)
  const end = (address + length + systemMask) & ~systemMask
  if (start < (address & ~systemMask) || start + context.len > end)
    refuseCommand(
      'outsideUmem',
      `len ${context.len} from page ${(first & ~pageMask).toString(16)} on; the user memory ends before`,
    )
  // the call is of the process whose memory it is (placeInUmem)
  return answered(
    createOwned(call, object, Mr, {
      pd,
      start,
      length: context.len,
      iova: context.start_addr,
      access,
      keyByte: context.mkey_7_0,
    }),
    owned => {
      addParent(object, umem)
      return owned
    },
  )
}

/** A key over ranges of other keys. */
const createIndirect = (
  call: CallContext,
  object: CoreObject,
  pd: CoreObject,
  context: MkeyContext,
  { klm_pas_mtt, translations_octword_actual_size: count }: MkeyInput,
  isKsm: boolean,
): Owned | Promise<Owned> => {
  if (count < 1 || count > MAX_INDIRECT_ENTRIES)
    refuseCommand('badValue', `translations_octword_actual_size ${count}; 1 to ${MAX_INDIRECT_ENTRIES}`)
  if (context.translations_octword_size < count)
    refuseCommand(
      'badValue',
      `translations_octword_size ${context.translations_octword_size} is less than the ${count} of the input`,
    )
  if (klm_pas_mtt.length < count * klm.bytes)
    refuseCommand('shortInput', `${klm_pas_mtt.length} bytes of ranges; ${count} have ${count * klm.bytes}`)
  const { log_page_size: log } = context
  if (isKsm && log > MAX_LOG_ENTITY) refuseCommand('badValue', `log_entity_size ${log}; at most ${MAX_LOG_ENTITY}`)
  const entries = Array.from({ length: count }, (_, i) => {
    const { byte_count, mkey, address } = decodeFields(klm, klm_pas_mtt.subarray(i * klm.bytes, (i + 1) * klm.bytes))
    if (!isKsm && byte_count === 0) refuseCommand('badValue', `byte_count 0 of range ${i}`)
    return { key: mkey, length: isKsm ? 2 ** log : byte_count, address }
  })
  return createOwned(call, object, Mr, {
    pd,
    kind: MrKind.values.INDIRECT,
    start: 0n,
    length: context.len,
    iova: context.start_addr,
    access: accessOf(context),
    keyByte: context.mkey_7_0,
    entries,
  })
}

/** A key whose ranges work requests set. */
const createFree = (
  call: CallContext,
  object: CoreObject,
  pd: CoreObject,
  { free, umr_en, en_rinval, bsf_en, translations_octword_size: maxEntries, mkey_7_0 }: MkeyContext,
  mode: number,
): Owned | Promise<Owned> => {
  if (free !== 1 || umr_en !== 1 || mode !== AccessMode.KLM)
    refuseCommand(
      'unsupportedFeature',
      `free ${free}, umr_en ${umr_en}, access mode ${mode}: keys that work requests change have free 1, umr_en 1 and mode KLM (2)`,
    )
  if (maxEntries < 1 || maxEntries > MAX_INDIRECT_ENTRIES)
    refuseCommand('badValue', `translations_octword_size ${maxEntries}; 1 to ${MAX_INDIRECT_ENTRIES}`)
  return createOwned(call, object, Mr, {
    pd,
    kind: MrKind.values.INDIRECT,
    start: 0n,
    length: 0n,
    iova: 0n,
    access: 0,
    keyByte: mkey_7_0,
    entries: [],
    maxEntries,
    isRevocable: en_rinval,
    hasSignatures: bsf_en,
  })
}

const createKey = (call: CallContext, object: CoreObject, input: MkeyInput): Owned | Promise<Owned> => {
  const context = input.memory_key_mkey_entry
  checkContext(context, input)
  const pd = findPd(call, context.pd)
  const mode = context.access_mode_1_0 | (context.access_mode_4_2 << 2)
  if (context.free === 1 || context.umr_en === 1 || context.en_rinval === 1)
    return createFree(call, object, pd, context, mode)
  if (mode === AccessMode.MTT) return createOfUmem(call, object, pd, context, input)
  if (mode !== AccessMode.KLM && mode !== AccessMode.KSM)
    refuseCommand('badValue', `access mode ${mode}; there are MTT (1), KLM (2) and KSM (3)`)
  return createIndirect(call, object, pd, context, input, mode === AccessMode.KSM)
}

/** Two ranges. */
const TRANSLATION_BYTES = 16

export const mkeyCommands = [
  creation(Commands.CREATE_MKEY, ({ call, input }, object) =>
    answered(createKey(call, object, input), ({ object: target, out }) => {
      const key = (out as { lkey: number }).lkey
      const translations = new Uint8Array(2 * TRANSLATION_BYTES)
      translations.set(input.klm_pas_mtt.subarray(0, translations.length))
      const own: Mkey = { context: input.memory_key_mkey_entry, translations }
      return { out: { mkey_index: key >>> 8 }, target, own }
    }),
  ),
  objectCommand(Commands.QUERY_MKEY, (_given, { own }) => {
    const { context, translations } = own as Mkey
    return {
      memory_key_mkey_entry: context,
      bsf0_klm0_pas_mtt0_1: translations.subarray(0, TRANSLATION_BYTES),
      bsf1_klm1_pas_mtt2_3: translations.subarray(TRANSLATION_BYTES),
    }
  }),
]
