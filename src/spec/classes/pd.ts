/*
 * Class `pd`: a protection domain (IBA 10.2.3). `destroy` is refused with EBUSY while objects use the domain.
 * `createAhs` creates many address handles with one call, all or none; `destroyAhs` destroys many (R25).
 */
import { at, CREATE, DESTROY, list, method, objectClass, optional, u32 } from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'
import { IbAddress, OpaAddress, QpAddress } from './qp/qp.ts'

/** Maximum address handles of one call. */
export const MAX_AHS = 0xffff

const handles = { handle: at(0, u32(0)) }

export const Pd = objectClass('pd', ClassId.pd, {
  methods: {
    create: method(CREATE, { in: {}, out: {}, driverAttributes: true }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    createAhs: method(CallNumber.pd.createAhs, {
      in: {
        addresses: list(1, QpAddress, MAX_AHS),
        /** For links with LIDs. A device accepts the list of its link (spec/links.ts). */
        ibAddresses: optional(list(2, IbAddress, MAX_AHS)),
        opaAddresses: optional(list(3, OpaAddress, MAX_AHS)),
      },
      out: { handles: list(64, handles, MAX_AHS) },
      undoable: true,
      driverAttributes: true,
    }),
    destroyAhs: method(CallNumber.pd.destroyAhs, { in: { handles: list(1, handles, MAX_AHS) }, out: {} }),
  },
})
