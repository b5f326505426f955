/*
 * Class `mw`: a memory window (IBA 10.6.7), an rkey for part of a memory region. BIND_MW grants access; LOCAL_INV, or a
 * peer's SEND with invalidate, revokes it. A window of type 1 is valid on all queue pairs of the protection domain, and
 * gets a new rkey with each bind. A window of type 2 (here 2B) is valid only on the queue pair that bound the window;
 * the bind request chooses the low byte of the rkey.
 */
import { AccessFlags, MwType } from '../enums.ts'
import { CREATE, DESTROY, enumOf, flagsOf, method, objectClass, QUERY, ref, u32, u64 } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

export const Mw = objectClass('mw', ClassId.mw, {
  methods: {
    create: method(CREATE, {
      in: { pd: ref(1, 'pd'), type: enumOf(2, MwType) },
      out: { rkey: u32(64) },
      driverAttributes: true,
    }),
    /** Length and access are 0 while the window is not bound. */
    query: method(QUERY, {
      in: {},
      out: {
        rkey: u32(64),
        type: enumOf(65, MwType),
        iova: u64(66),
        length: u64(67),
        access: flagsOf(68, AccessFlags),
        /** Type 2: number of the queue pair; otherwise 0. */
        qpNum: u32(69),
      },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
