/*
 * Class `mr`: a memory region of the caller's memory (IBA 10.6). `start` is its address in the caller's memory, `iova`
 * the address by which work requests name it; both must have the same offset in their page.
 */
import { AccessFlags } from '../enums.ts'
import { CREATE, DESTROY, flagsOf, method, objectClass, QUERY, ref, u32, u64 } from '../schema.ts'
import { ClassId } from './ids.ts'

export const Mr = objectClass('mr', ClassId.mr, {
  methods: {
    create: method(CREATE, {
      in: { pd: ref(1, 'pd'), start: u64(2), length: u64(3), iova: u64(4), access: flagsOf(5, AccessFlags) },
      out: { lkey: u32(64), rkey: u32(65) },
      driverAttributes: true,
    }),
    query: method(QUERY, { in: {}, out: { lkey: u32(64), rkey: u32(65), length: u64(66), iova: u64(67) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
