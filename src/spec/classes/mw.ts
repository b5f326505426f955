/*
 * Class `mw`: a memory window (IBA 10.6.7), a key for part of a memory region whose rights are given and taken by work
 * requests. Binding and invalidating are no methods but requests on a queue pair (BIND_MW, LOCAL_INV), or a peer's SEND
 * with invalidate. Type 1: its key works for every queue pair of the protection domain and changes with each bind; type
 * 2 (2B): it works for the queue pair that bound it, and the binder chooses the key's low byte.
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
    /** Of a window that is not bound length and access are 0. */
    query: method(QUERY, {
      in: {},
      out: {
        rkey: u32(64),
        type: enumOf(65, MwType),
        iova: u64(66),
        length: u64(67),
        access: flagsOf(68, AccessFlags),
        /** Type 2: the queue pair's number; else 0. */
        qpNum: u32(69),
      },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
