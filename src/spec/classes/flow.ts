/*
 * Class `flow`: a rule that steers packets of a port to a queue pair by what is in their headers, and may count them
 * (Linux: CREATE_FLOW). Which headers can be matched is the driver's. No driver here has it: EOPNOTSUPP.
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

/** Bytes of the longest header that can be matched: IPv6 with its addresses. */
export const FLOW_HEADER_BYTES = 40

/**
 * One header, or an action. Of a header the bits of `value` that are set in `mask` must be the packet's; `tag` is what
 * completions carry by ACTION_TAG.
 */
export const FlowSpec = {
  type: at(0, enumOf(0, FlowSpecType)),
  value: at(4, bytes(0, FLOW_HEADER_BYTES)),
  mask: at(4 + FLOW_HEADER_BYTES, bytes(0, FLOW_HEADER_BYTES)),
  flags: at(4 + 2 * FLOW_HEADER_BYTES, flagsOf(0, FlowSpecFlags)),
  tag: at(8 + 2 * FLOW_HEADER_BYTES, u32(0)),
}

const MOST_SPECS = 10

export const Flow = objectClass('flow', ClassId.flow, {
  methods: {
    /** One of the queue pairs must be given. Lower numbers of `priority` are looked at first. */
    create: method(CREATE, {
      in: {
        rawQp: optional(ref(1, 'raw_packet_qp')),
        udQp: optional(ref(2, 'ud_qp')),
        type: enumOf(3, FlowType),
        priority: u16(4),
        port: u8(5, { min: 1 }),
        flags: flagsOf(6, FlowFlags),
        specs: list(7, FlowSpec, MOST_SPECS),
        counters: optional(ref(8, 'counters')),
      },
      out: {},
      driverAttributes: true,
      needs: 'NET_RAW',
    }),
    query: method(QUERY, {
      in: {},
      out: { type: enumOf(64, FlowType), priority: u16(65), port: u8(66), specs: list(67, FlowSpec, MOST_SPECS) },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
