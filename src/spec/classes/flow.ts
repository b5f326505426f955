/*
 * Class `flow`: a flow steering rule (Linux: CREATE_FLOW), which directs packets of a port to a queue pair by their
 * headers, and may count the packets. The driver defines the possible headers.
 */
import { FlowFlags, FlowSpecFlags, FlowSpecType, FlowType } from '../enums.ts'
import {
  at,
  bytes,
  CREATE,
  DESTROY,
  enumOf,
  flagsOf,
  list,
  method,
  objectClass,
  optional,
  QUERY,
  ref,
  u8,
  u16,
  u32,
} from '../schema/schema.ts'
import { ClassId } from './ids.ts'

/** Bytes of the largest filter (uapi/linux/flow-layout.ts), that of IPv6. */
export const FLOW_HEADER_BYTES = 40

/** A header to match in the bits of `mask`, or an action. ACTION_TAG puts `tag` into completions. */
export const FlowSpec = {
  type: at(0, enumOf(0, FlowSpecType)),
  value: at(4, bytes(0, FLOW_HEADER_BYTES)),
  mask: at(4 + FLOW_HEADER_BYTES, bytes(0, FLOW_HEADER_BYTES)),
  flags: at(4 + 2 * FLOW_HEADER_BYTES, flagsOf(0, FlowSpecFlags)),
  tag: at(8 + 2 * FLOW_HEADER_BYTES, u32(0)),
}

/** Maximum specs of a rule, as in Linux. */
export const MAX_FLOW_SPECS = 10

export const Flow = objectClass('flow', ClassId.flow, {
  methods: {
    /** Exactly one of `rawQp` and `udQp` is required. Rules with a lower `priority` are matched first. */
    create: method(CREATE, {
      in: {
        rawQp: optional(ref(1, 'raw_packet_qp')),
        udQp: optional(ref(2, 'ud_qp')),
        type: enumOf(3, FlowType),
        priority: u16(4),
        port: u8(5, { min: 1 }),
        flags: flagsOf(6, FlowFlags),
        specs: list(7, FlowSpec, MAX_FLOW_SPECS),
        counters: optional(ref(8, 'counters')),
      },
      out: {},
      driverAttributes: true,
      needs: 'RAW_PACKETS',
    }),
    query: method(QUERY, {
      in: {},
      out: { type: enumOf(64, FlowType), priority: u16(65), port: u8(66), specs: list(67, FlowSpec, MAX_FLOW_SPECS) },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
