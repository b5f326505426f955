/*
 * Class `dmah`: a DMA handle, hints for the processor caches to which a device writes (Linux: DMAH_ALLOC, DMAH_FREE;
 * TPH of PCI Express, 6.17). Regions refer to one (`mr.create`). Of the drivers here mlx5 has the class; it accepts the
 * hints, and needs none of them, since it writes with a processor.
 */
import { TphMemType } from '../enums.ts'
import { CREATE, DESTROY, enumOf, method, objectClass, optional, u8, u32 } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

export const Dmah = objectClass('dmah', ClassId.dmah, {
  methods: {
    /** `cpuId`: a processor on which the caller may run. `ph`: the processing hint. */
    create: method(CREATE, {
      in: { cpuId: optional(u32(1)), tphMemType: optional(enumOf(2, TphMemType)), ph: optional(u8(3, { max: 3 })) },
      out: {},
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
