/*
 * Linux's encoding of a flow steering rule (ib_uverbs_flow_attr of CREATE_FLOW, ib_user_verbs.h): a sequence of specs,
 * each {u32 type, u16 size, u16 reserved}. The spec of a header is followed by two filters, the values and the masks of
 * its fields; the spec of an action, except ACTION_DROP, by a u32 and padding.
 *
 * The size of a spec tells the length of its filters: programs built with older headers have shorter ones, with newer
 * headers longer ones. Little-endian, except the filters, which are in the packet's byte order.
 */
import { FlowSpecType } from '../enums.ts'

export interface FlowFilter {
  /** Bytes of the filter as Linux 6.1 knows it. */
  readonly bytes: number
  /** The big-endian u32 at offset `at` of the filter may have only its lower `bits` bits set. */
  readonly limit?: { readonly at: number; readonly bits: number }
  /** The spec cannot have the flag INNER: it is no inner header of a tunnel. */
  readonly outermost?: true
}

const { values } = FlowSpecType
/** By type of the spec (`FlowSpecType`); Linux refuses rules with other header types. */
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
 * Types of actions: FIRST is the lowest (IB_FLOW_SPEC_ACTION_TAG); HANDLE and COUNT name an object (a flow action, a
 * set of counters), so that they have no spec in class `flow`.
 */
export const FlowAction = { FIRST: 0x1000, HANDLE: 0x1002, COUNT: 0x1003 } as const

/** Bytes of the header of a spec. */
export const FLOW_SPEC_HEADER_BYTES = 8
/** Bytes of the spec of an action other than ACTION_DROP: header, u32, padding. */
export const FLOW_ACTION_BYTES = 16
/** The specs of a rule with n specs have at most n times this many bytes. */
export const MAX_FLOW_SPEC_BYTES = 88
