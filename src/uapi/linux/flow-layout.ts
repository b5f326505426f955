/*
 * Linux's encoding of a flow steering rule (ib_uverbs_flow_attr of CREATE_FLOW, ib_user_verbs.h): a sequence of specs,
 * each with the header {u32 type, u16 size, u16 reserved}. For a packet header two filters follow, the values and the
 * masks of its fields. For an action except ACTION_DROP a u32 and padding follow.
 *
 * The length of the filters, which follows from `size`, differs between versions of Linux's headers. Little-endian,
 * except the filters, which are in the packet's byte order.
 */
import { FlowSpecType } from '../../spec/enums.ts'

export interface FlowFilter {
  /** Bytes of the filter in Linux 6.1. */
  readonly bytes: number
  /** In the big-endian u32 at offset `at`, only the lower `bits` bits may be set. */
  readonly limit?: { readonly at: number; readonly bits: number }
  /** The spec cannot have the flag INNER. */
  readonly outermost?: true
}

const { values } = FlowSpecType
/** By type of the spec (`FlowSpecType`). Linux refuses other header types. */
export const flowFilters: Readonly<Record<number, FlowFilter | undefined>> = {
  [values.ETH]: { bytes: 16 },
  [values.IPV4]: { bytes: 12 },
  [values.IPV6]: { bytes: 40, limit: { at: 32, bits: 20 } },
  [values.ESP]: { bytes: 8 },
  [values.TCP]: { bytes: 4 },
  [values.UDP]: { bytes: 4 },
  [values.VXLAN_TUNNEL]: { bytes: 4, limit: { at: 0, bits: 24 }, outermost: true },
  [values.GRE]: { bytes: 8 },
  [values.MPLS]: { bytes: 4 },
}

/**
 * Types of actions. FIRST: the lowest (IB_FLOW_SPEC_ACTION_TAG). HANDLE and COUNT name an object (a flow action, a set
 * of counters) and have no spec in class `flow`.
 */
export const FlowAction = { FIRST: 0x1000, HANDLE: 0x1002, COUNT: 0x1003 } as const

export const FLOW_SPEC_HEADER_BYTES = 8
/** Header, u32 and padding. */
export const FLOW_ACTION_BYTES = 16
/** Maximum bytes per spec, on average over the specs of a rule. */
export const MAX_FLOW_SPEC_BYTES = 88
