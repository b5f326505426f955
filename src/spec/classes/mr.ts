/*
 * Class `mr`: a region of the caller's memory (IBA 10.6). `start` is the address in the caller's memory, `iova` the
 * address for work requests; `start` and `iova` must have the same offset in their page. `rkey` is 0 without remote
 * rights. `modify` changes memory, protection domain or access flags, and keeps the lkey (Linux: REREG_MR).
 *
 * Other kinds of regions:
 * - FILE: pages of a memory file or dma-buf (`file`), from byte `start`
 * - NULL: addresses from `iova` without memory: writes are discarded, reads return zeros; `start` is ignored
 * - IMPLICIT: the whole address space of the caller; `start`, `length` and `iova` are ignored
 * - DEVICE: memory of a `dm`, from byte `start`; with access flag ZERO_BASED, and `iova` 0
 * - INDIRECT: ranges of other keys, which only drivers make, from their own attributes; `start` is ignored
 */
import { AccessFlags, MrKind } from '../enums.ts'
import {
  at,
  CREATE,
  DESTROY,
  enumOf,
  flagsOf,
  MODIFY,
  method,
  objectClass,
  optional,
  QUERY,
  record,
  ref,
  u32,
  u64,
} from '../schema/schema.ts'
import { ClassId } from './ids.ts'

/** The registered memory and its addresses. */
const Translation = { start: at(0, u64(0)), length: at(8, u64(0)), iova: at(16, u64(0)) }

export const Mr = objectClass('mr', ClassId.mr, {
  methods: {
    create: method(CREATE, {
      in: {
        pd: ref(1, 'pd'),
        start: u64(2),
        length: u64(3),
        iova: u64(4),
        access: flagsOf(5, AccessFlags),
        kind: optional(enumOf(6, MrKind)),
        /** The caller's file descriptor of a memory file or dma-buf. EBADF if it is negative. */
        file: optional(u32(7)),
        dm: optional(ref(8, 'dm')),
        /** Not for on-demand regions. */
        dmah: optional(ref(9, 'dmah')),
      },
      out: { lkey: u32(64), rkey: u32(65) },
      driverAttributes: true,
    }),
    query: method(QUERY, {
      in: {},
      out: {
        lkey: u32(64),
        rkey: u32(65),
        length: u64(66),
        iova: u64(67),
        kind: optional(enumOf(68, MrKind)),
        /**
         * Of on-demand regions: pages that accesses have found missing, the number of these accesses, pages of
         * `advise`.
         */
        pageFaults: optional(u64(69)),
        pageFaultsHandled: optional(u64(70)),
        pagesPrefetched: optional(u64(71)),
      },
    }),
    modify: method(MODIFY, {
      in: {
        translation: optional(record(1, Translation)),
        pd: optional(ref(2, 'pd')),
        access: optional(flagsOf(3, AccessFlags)),
      },
      out: { lkey: u32(64), rkey: u32(65) },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
