/*
 * How Linux packs what a rule of steering matches and does (ib_uverbs_flow_attr of CREATE_FLOW, ib_user_verbs.h): one
 * spec behind the other, each {u32 type, u16 size, u16 reserved} and, of a header, a filter of values and one of masks.
 *
 * A filter may be shorter than here, from programs of older headers, or longer, from newer ones; that the size tells.
 * Actions have a word instead, and padding. Little-endian but for the filters, which are the packet's bytes.
 */
import { FlowSpecType } from '../enums.ts'

export interface FlowFilter {
  /** Bytes of the filter as Linux 6.1 knows it. */
  readonly bytes: number
  /** A word (big-endian) at `at` has so many bits at most. */
  readonly limit?: { readonly at: number; readonly bits: number }
  /** There is none within a tunnel. */
  readonly outermost?: true
}

const { values } = FlowSpecType
/** By type of the header; Linux takes no rule about the others. */
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

/** What else can be at the place of a type: an object that is no spec of the class `flow`. */
export const FlowAction = { FIRST: 0x1000, HANDLE: 0x1002, COUNT: 0x1003 } as const

/** Bytes of a spec's header; of an action with a word. */
export const FLOW_SPEC_HEADER = 8
export const FLOW_ACTION = 16
/** Most specs of a rule, and most bytes that they take on average. */
export const FLOW_SPECS = 10
export const FLOW_SPEC_ROOM = 88
