/*
 * Flow steering of mlx5 devices beside the rules of verbs (mlx5dv_create_flow, and mlx5dv_dr in root tables): the
 * classes of matchers and actions, the attributes of a rule that has a matcher, and Linux's objects and methods for
 * them (mlx5_user_ioctl_cmds.h). Masks and values are those of mlx5_ifc.h (mlx5-firmware/flow.ts).
 */
import { Flow } from '../classes/flow.ts'
import { FlowFlags, FlowType } from '../enums.ts'
import {
  driverBlob,
  driverDestruction,
  driverEnum,
  driverFlags,
  driverHandle,
  driverInput,
  driverNewHandle,
  driverObjectMethod,
  driverRecords,
  type IoctlMethod,
  optionalAttribute,
} from '../linux/ioctl.ts'
import { value } from '../linux/layout.ts'
import { LinuxObject } from '../linux/names.ts'
import {
  at,
  blob,
  CREATE,
  DESTROY,
  list,
  method,
  objectClass,
  optional,
  ref,
  u8,
  u16,
  u32,
  u64,
} from '../schema/schema.ts'

/** The length of an attribute is a u16. */
const MAX_BYTES = 0xffff

/**
 * mlx5_ib_uapi_flow_table_type: tables that rules are in. Received frames, sent frames, and what the device does not
 * have.
 */
export const FlowTableType = { NIC_RX: 0n, NIC_TX: 1n, FDB: 2n, RDMA_RX: 3n, RDMA_TX: 4n } as const
/** The last one that rdma-core 65 knows (RDMA_TRANSPORT_TX). */
export const LAST_FLOW_TABLE_TYPE = 6n

/** Which fields rules match. `criteria`: the sections of `mask` that count. `flags`: EGRESS, of old programs. */
export const FlowMatcher = objectClass('flow_matcher', 0x8010, {
  methods: {
    create: method(CREATE, {
      in: {
        mask: blob(1, MAX_BYTES),
        type: u8(2),
        priority: u16(3),
        criteria: u8(4),
        flags: optional(u32(5)),
        tableType: optional(u64(6)),
      },
      out: {},
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})

/** mlx5_ib_uapi_flow_action_packet_reformat_type. */
export const ReformatType = {
  L2_TUNNEL_TO_L2: 0n,
  L2_TO_L2_TUNNEL: 1n,
  L3_TUNNEL_TO_L2: 2n,
  L2_TO_L3_TUNNEL: 3n,
} as const

/**
 * A change of frames: `settings` (set_action_in) of header fields, or a header that is put on or taken off
 * (`reformat`).
 */
export const FlowAction = objectClass('flow_action', 0x8011, {
  methods: {
    create: method(CREATE, {
      in: {
        settings: optional(blob(1, MAX_BYTES)),
        tableType: u64(2),
        reformat: optional(u64(3)),
        header: optional(blob(4, MAX_BYTES)),
      },
      out: {},
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})

/** MLX5_IB_ATTR_CREATE_FLOW_FLAGS_…: frames that match go on as if no rule had matched; or they are dropped. */
export const MatcherFlowFlags = { DEFAULT_MISS: 1, DROP: 2 } as const
/** MLX5_IB_CREATE_FLOW_MAX_FLOW_ACTIONS, and the counters of a rule. */
const MAX_ACTIONS = 2
const MAX_COUNTERS = 1
const Handle = { handle: at(0, u32(0)) }

/** Of `create` of a rule with a matcher. `destination`, `counters`: objects of firmware commands. */
export const flowAttributes = {
  create: {
    in: {
      matcher: optional(ref(0x8000, 'flow_matcher')),
      matchValue: optional(blob(0x8001, MAX_BYTES)),
      destination: optional(u32(0x8002)),
      actions: optional(list(0x8003, Handle, MAX_ACTIONS)),
      flowTag: optional(u32(0x8004)),
      flowCounters: optional(list(0x8005, Handle, MAX_COUNTERS)),
      counterOffset: optional(u32(0x8006)),
      matcherFlags: optional(u32(0x8007)),
    },
    out: {},
  },
} as const

const { create } = Flow.methods
const Mlx5Flow = objectClass('flow', Flow.id, {
  methods: {
    create: method(CREATE, { ...create, in: { ...create.in, ...flowAttributes.create.in } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})

/** MLX5_IB_OBJECT_FLOW_MATCHER */
const MATCHER_OBJECT = 0x1003
const { FLOW, FLOW_ACTION } = LinuxObject

/** UVERBS_METHOD_FLOW_ACTION_DESTROY, the second of its object; the first attribute is the handle. */
const actionDestruction = (): IoctlMethod => {
  const own = driverDestruction('FLOW_ACTION_DESTROY', FLOW_ACTION, FlowAction)
  return { ...own, number: 1, attributes: own.attributes.map(one => ({ ...one, id: 0 })) }
}

export const flowMethods: readonly IoctlMethod[] = [
  driverObjectMethod('FLOW_MATCHER_CREATE', MATCHER_OBJECT, 0, FlowMatcher, 'create', [
    driverNewHandle,
    driverBlob('mask', 1),
    // libmlx5 asks for NORMAL only, whose payload is the priority
    driverEnum('type', 1, value(0, 2, 'priority')),
    driverInput(value(0, 1, 'criteria')),
    optionalAttribute(driverFlags('flags', FlowFlags.values.EGRESS)),
    optionalAttribute(driverInput(value(0, 8, 'tableType'))),
  ]),
  driverDestruction('FLOW_MATCHER_DESTROY', MATCHER_OBJECT, FlowMatcher),
  {
    ...driverObjectMethod('CREATE_FLOW', FLOW, 0, Mlx5Flow, 'create', [
      driverNewHandle,
      driverBlob('matchValue', 1),
      optionalAttribute(driverHandle('rawQp', ['raw_packet_qp'])),
      optionalAttribute(driverHandle('destination', ['devx_obj'])),
      driverHandle('matcher', ['flow_matcher']),
      optionalAttribute(driverRecords('actions', 4)),
      optionalAttribute(driverInput(value(0, 4, 'flowTag'))),
      optionalAttribute(driverRecords('flowCounters', 4)),
      optionalAttribute(driverInput(value(0, 4, 'counterOffset'))),
      optionalAttribute(driverFlags('matcherFlags', MatcherFlowFlags.DEFAULT_MISS | MatcherFlowFlags.DROP)),
    ]),
    impliedArguments: { type: FlowType.values.NORMAL, priority: 0, port: 1, flags: 0, specs: [] },
  },
  driverDestruction('DESTROY_FLOW', FLOW, Mlx5Flow),
  driverObjectMethod('FLOW_ACTION_CREATE_MODIFY_HEADER', FLOW_ACTION, 0, FlowAction, 'create', [
    driverNewHandle,
    driverBlob('settings', 8),
    driverInput(value(0, 8, 'tableType')),
  ]),
  driverObjectMethod('FLOW_ACTION_CREATE_PACKET_REFORMAT', FLOW_ACTION, 1, FlowAction, 'create', [
    driverNewHandle,
    driverInput(value(0, 8, 'reformat')),
    driverInput(value(0, 8, 'tableType')),
    optionalAttribute(driverBlob('header', 1)),
  ]),
  actionDestruction(),
]
