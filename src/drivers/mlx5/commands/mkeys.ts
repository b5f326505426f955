/*
 * Firmware commands for memory keys (CREATE_MKEY and QUERY_MKEY). A key is a region of class `mr`: of user memory
 * (access mode MTT), or over ranges of other keys (KLM, also in a block that repeats, and KSM with ranges of one size).
 * The program chooses the lowest byte of the key. Work requests may change one over other keys (`umr_en`,
 * key-changes.ts), which has no ranges if it is made free.
 */
import { answered } from '../../../core/devices/driver.ts'
import { createOwned, type Owned } from '../../../core/dispatch/owned.ts'
import type { CallContext, CoreObject } from '../../../core/model.ts'
import { addParent } from '../../../core/objects/lifetime.ts'
import { Mr } from '../../../spec/classes/mr.ts'
import { MAX_INDIRECT_ENTRIES, MAX_LOG_ENTITY } from '../../../spec/drivers/mlx5.ts'
import { Commands } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import type { RecordOf } from '../../../spec/drivers/mlx5-firmware/fields.ts'
import type { createMkeyIn, mkc } from '../../../spec/drivers/mlx5-firmware/memory.ts'
import { AccessFlags, MrKind } from '../../../spec/enums.ts'
import { PAGE_BYTES } from '../../../spec/memory.ts'
import { rangesOf } from '../key-ranges.ts'
import { Bsf } from '../signature/layout.ts'
import { creation, objectCommand, refuseCommand } from './handler.ts'
import { findPd, findUmem } from './lookup.ts'
import { placeInUmem } from './umem.ts'

type MkeyContext = RecordOf<typeof mkc>
type MkeyInput = RecordOf<typeof createMkeyIn>

/** MLX5_MKC_ACCESS_MODE_… */
const AccessMode = { MTT: 1, KLM: 2, KSM: 3 } as const
/** No queue pair: the key serves all of its domain. */
const ANY_QP = 0xff_ffff
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

/** The ranges of the input, without the padding. */
const rangesOfInput = ({ klm_pas_mtt, translations_octword_actual_size: count }: MkeyInput, logEntity?: number) => {
  if (count > MAX_INDIRECT_ENTRIES)
    refuseCommand('badValue', `translations_octword_actual_size ${count}; at most ${MAX_INDIRECT_ENTRIES}`)
  if (klm_pas_mtt.length < count * OCTOWORD_BYTES)
    refuseCommand('shortInput', `${klm_pas_mtt.length} bytes of ranges; ${count} have ${count * OCTOWORD_BYTES}`)
  const view = new DataView(klm_pas_mtt.buffer, klm_pas_mtt.byteOffset)
  const words = Uint32Array.from({ length: (count * OCTOWORD_BYTES) / 4 }, (_, i) => view.getUint32(4 * i))
  const ranges = rangesOf(words, logEntity === undefined ? undefined : 2 ** logEntity)
  if (ranges === undefined)
    return refuseCommand(
      'badValue',
      `a block of ${words[3]! & 0xffff} ranges that repeats ${words[2]} times, in ${count} octowords`,
    )
  const { octowords } = ranges
  if (words.subarray(4 * octowords).some(word => word !== 0))
    refuseCommand(
      'badValue',
      `range ${octowords} has ${logEntity === undefined ? 'byte_count' : 'mkey'} 0, and others follow`,
    )
  return ranges
}

/**
 * A key over ranges of other keys. If work requests may change it (`umr_en`), it needs no ranges now, and is perhaps
 * not valid (`free`).
 */
const createIndirect = (
  call: CallContext,
  object: CoreObject,
  pd: CoreObject,
  context: MkeyContext,
  input: MkeyInput,
  isKsm: boolean,
): Owned | Promise<Owned> => {
  const { free, umr_en, en_rinval, bsf_en, translations_octword_size: size, log_page_size: log } = context
  if (isKsm && log > MAX_LOG_ENTITY) refuseCommand('badValue', `log_entity_size ${log}; at most ${MAX_LOG_ENTITY}`)
  if (umr_en === 0 && (free === 1 || en_rinval === 1))
    refuseCommand('unsupportedFeature', `free ${free}, en_rinval ${en_rinval}: keys with these have umr_en 1`)
  if (isKsm && bsf_en === 1) refuseCommand('unsupportedFeature', 'bsf_en 1: keys with signatures are of mode KLM (2)')
  if (size > MAX_INDIRECT_ENTRIES || (umr_en === 1 && size < 1))
    refuseCommand('badValue', `translations_octword_size ${size}; 1 to ${MAX_INDIRECT_ENTRIES}`)
  const { entries, repeats, octowords } = rangesOfInput(input, isKsm ? log : undefined)
  if (octowords > size)
    refuseCommand('badValue', `translations_octword_size ${size} is less than the ${octowords} of the input`)
  if (octowords === 0 && umr_en === 0) refuseCommand('badValue', 'no ranges; a key without umr_en 1 has some')
  // of signatures nothing is known before the first request
  const isEmpty = free === 1 || bsf_en === 1 || octowords === 0
  return createOwned(call, object, Mr, {
    pd,
    kind: MrKind.values.INDIRECT,
    start: 0n,
    length: isEmpty ? 0n : context.len,
    iova: isEmpty ? 0n : context.start_addr,
    access: free === 1 ? 0 : accessOf(context),
    keyByte: context.mkey_7_0,
    entries: isEmpty ? [] : entries.map(({ stride = 0, ...range }) => ({ ...range, stride })),
    repeats,
    ...(umr_en === 1 && {
      maxEntries: size,
      isRevocable: en_rinval,
      hasSignatures: bsf_en,
      ...(isKsm && { logEntity: log }),
    }),
  })
}

const createKey = (call: CallContext, object: CoreObject, input: MkeyInput): Owned | Promise<Owned> => {
  const context = input.memory_key_mkey_entry
  checkContext(context, input)
  const pd = findPd(call, context.pd)
  const mode = context.access_mode_1_0 | (context.access_mode_4_2 << 2)
  const { free, umr_en, en_rinval } = context
  if (mode === AccessMode.KLM || mode === AccessMode.KSM)
    return createIndirect(call, object, pd, context, input, mode === AccessMode.KSM)
  if (mode !== AccessMode.MTT) refuseCommand('badValue', `access mode ${mode}; there are MTT (1), KLM (2) and KSM (3)`)
  if (free === 1 || umr_en === 1 || en_rinval === 1)
    refuseCommand(
      'unsupportedFeature',
      `free ${free}, umr_en ${umr_en}, en_rinval ${en_rinval}: work requests change keys of modes KLM (2) and KSM (3) only`,
    )
  return createOfUmem(call, object, pd, context, input)
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
