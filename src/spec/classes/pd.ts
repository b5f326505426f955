/*
 * Class `pd`: a protection domain (IBA 10.2.3). `destroy` is refused with EBUSY while objects use the domain.
 * `createAhs` creates many address handles with one call, all or none; `destroyAhs` destroys many (R25). `advise` tells
 * which ranges of on-demand regions will be accessed (Linux: ADVISE_MR).
 */
import { AdviseFlags } from '../enums.ts'
import { at, CREATE, DESTROY, flagsOf, list, method, objectClass, optional, u32, u64 } from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'
import { IbAddress, OpaAddress, QpAddress } from './qp/qp.ts'

/** Maximum address handles of one call. */
export const MAX_AHS = 0xffff

/** ib_uverbs_sge: a range of the region with this lkey. */
const AdvisedRange = { address: at(0, u64(0)), length: at(8, u32(0)), lkey: at(12, u32(0)) }
/** A Linux attribute has at most 65,535 bytes. */
const MAX_ADVISED_RANGES = 4095

const handles = { handle: at(0, u32(0)) }

export const Pd = objectClass('pd', ClassId.pd, {
  methods: {
    create: method(CREATE, { in: {}, out: {}, driverAttributes: true }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    createAhs: method(CallNumber.pd.createAhs, {
      role: 'creates',
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
    destroyAhs: method(CallNumber.pd.destroyAhs, {
      role: 'destroys',
      in: { handles: list(1, handles, MAX_AHS) },
      out: {},
    }),
    advise: method(CallNumber.pd.advise, {
      role: 'changes',
      in: {
        /** A value of MrAdvice; Linux refuses others with EOPNOTSUPP. */
        advice: u64(1),
        flags: flagsOf(2, AdviseFlags),
        ranges: list(3, AdvisedRange, MAX_ADVISED_RANGES),
      },
      out: {},
    }),
  },
})
