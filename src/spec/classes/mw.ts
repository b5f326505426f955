/*
 * Class `mw`: a memory window (IBA 10.6.7), a key for part of a memory region whose rights are granted and revoked by
 * work requests, not by methods: BIND_MW and LOCAL_INV on a queue pair, or a peer's SEND with invalidate. A window of
 * type 1 works with every queue pair of its protection domain and gets a new key with each bind. A window of type 2
 * (here 2B) works with the queue pair that bound it, and the bind request chooses the key's low byte.
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
