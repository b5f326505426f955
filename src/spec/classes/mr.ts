/*
 * Class `mr`: a memory region of the caller's memory (IBA 10.6). `start` is its address in the caller's memory, `iova`
 * the address by which work requests name it; both must have the same offset in their page. A modify registers it anew,
 * in part or whole, under its key; Linux calls that re-registration.
 *
 * Other kinds of region: FILE, pages of a memory file (`file`), from byte `start` on; NULL, where length counts and
 * addresses begin at `iova`; IMPLICIT, all memory of the caller at its own addresses, whatever `start`, `length` and
 * `iova` are; DEVICE, of a `dm`.
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

/** What is registered and how it is addressed. */
export const Translation = { start: at(0, u64(0)), length: at(8, u64(0)), iova: at(16, u64(0)) }

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
        /** Number of one of the caller's file descriptors: a memory file's. */
        file: optional(u32(7, { max: 0x7fffffff })),
        dm: optional(ref(8, 'dm')),
      },
      out: { lkey: u32(64), rkey: u32(65) },
      driverAttributes: true,
    }),
    query: method(QUERY, {
      in: {},
      out: { lkey: u32(64), rkey: u32(65), length: u64(66), iova: u64(67), kind: optional(enumOf(68, MrKind)) },
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
