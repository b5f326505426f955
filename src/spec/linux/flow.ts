/*
 * Linux's encoding of a flow steering rule (ib_uverbs_flow_attr of CREATE_FLOW, ib_user_verbs.h): specs in sequence,
 * each {u32 type, u16 size, u16 reserved} and, for a header, a filter of values and one of masks.
 *
 * The size of a spec says how long its filters are: shorter from programs of older headers, longer from newer ones. An
 * action has a word and padding instead. Little-endian except the filters, which are bytes of the packet.
 */
import { FlowSpecType } from '../enums.ts'

export interface FlowFilter {
  /** Bytes of the filter as Linux 6.1 knows it. */
  readonly bytes: number
  /** The word (big-endian) at `at` has at most this many significant bits. */
  readonly limit?: { readonly at: number; readonly bits: number }
  /** The spec cannot be an inner header of a tunnel. */
  readonly outermost?: true
}

const { values } = FlowSpecType
/** By type of the header; Linux accepts no rule for other types. */
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

/** Types that name an object instead of a spec of class `flow`. */
export const FlowAction = { FIRST: 0x1000, HANDLE: 0x1002, COUNT: 0x1003 } as const

/** Bytes of a spec's header; of an action with a word. */
export const FLOW_SPEC_HEADER = 8
export const FLOW_ACTION = 16
/** Maximum specs of a rule, and their maximum bytes on average. */
export const FLOW_SPECS = 10
export const FLOW_SPEC_ROOM = 88
