/*
 * Class `dm`: device memory (Linux: DM_ALLOC, DM_FREE), registered as a region of kind DEVICE. Of the drivers here mlx5
 * has the class.
 */
import { CREATE, DESTROY, method, objectClass, QUERY, u32, u64 } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

export const Dm = objectClass('dm', ClassId.dm, {
  methods: {
    /** `length` in bytes. `alignment`: log2 of the required alignment in bytes. */
    create: method(CREATE, { in: { length: u64(1), alignment: u32(2, { max: 63 }) }, out: {}, driverAttributes: true }),
    query: method(QUERY, { in: {}, out: { length: u64(64), alignment: u32(65) }, driverAttributes: true }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
