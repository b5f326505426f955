/*
 * Class `ah`: an address handle (IBA 10.2.2.2, 11.2.2), the destination of datagrams. Address handle and queue pair
 * must belong to the same protection domain. Only the object dialect has query and modify.
 */
import { CREATE, DESTROY, MODIFY, method, objectClass, optional, QUERY, record, ref, u64 } from '../schema/schema.ts'
import { ClassId } from './ids.ts'
import { ethernetOf, IbAddress, OpaAddress, QpAddress } from './qp/qp.ts'

/** A device accepts the attributes of its link (spec/links.ts). */
const linkAttributes = {
  ibAddress: optional(record(4, IbAddress)),
  opaAddress: optional(record(5, OpaAddress)),
  ...ethernetOf(6, 7),
}

export const Ah = objectClass('ah', ClassId.ah, {
  methods: {
    create: method(CREATE, {
      in: { pd: ref(1, 'pd'), address: record(2, QpAddress), userHandle: u64(3), ...linkAttributes },
      out: {},
      driverAttributes: true,
    }),
    query: method(QUERY, {
      in: {},
      out: {
        address: record(64, QpAddress),
        ibAddress: optional(record(65, IbAddress)),
        opaAddress: optional(record(66, OpaAddress)),
        ...ethernetOf(67, 68),
      },
    }),
    /** Changes the destination of later requests. */
    modify: method(MODIFY, { in: { address: record(2, QpAddress), ...linkAttributes }, out: {} }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
