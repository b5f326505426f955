/*
 * Class `mw`: a memory window (IBA 10.6.7), an rkey for part of a memory region. Work requests, not methods, grant and
 * revoke its access: BIND_MW and LOCAL_INV on a queue pair, or a peer's SEND with invalidate. Peers of every queue pair
 * of the protection domain can use a window of type 1, which gets a new rkey with each bind. Only the peer of the queue
 * pair that bound it can use a window of type 2 (here 2B); its bind request chooses the low byte of the rkey.
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
