/*
 * Classes `flow_matcher` and `flow_action`, and rules with a matcher (mlx5dv_create_flow; root tables of mlx5dv_dr): in
 * the tables of received and of sent frames. The checks are those of Linux (fs.c of mlx5_ib).
 */
import { driverClass } from '../../../core/devices/driver.ts'
import { findObject } from '../../../core/dispatch/invoke.ts'
import type { CallContext, CoreObject } from '../../../core/model.ts'
import { addParent } from '../../../core/objects/lifetime.ts'
import { ActionField, SET_ACTION, setAction } from '../../../spec/drivers/mlx5-firmware/flow.ts'
import {
  FlowAction,
  FlowMatcher,
  FlowTableType,
  LAST_FLOW_TABLE_TYPE,
  MatcherFlowFlags,
  ReformatType,
} from '../../../spec/drivers/mlx5-flow.ts'
import { FlowFlags, FlowType, nameIn } from '../../../spec/enums.ts'
import { callError } from '../../../spec/errno.ts'
import { because, type Place, type Reason, the } from '../../../spec/reason.ts'
import { ETHERNET_BYTES, VLAN_BYTES } from '../../../spec/wire/ethernet.ts'
import { decodeFields } from '../../../uapi/firmware/fields.ts'
import type { DevxObject } from '../commands/handler.ts'
import { stateOf } from '../state.ts'
import type { EditedHeader, FieldSetting, FrameEdits } from './frame-edits.ts'
import { type MatchMask, readMask, readMatch } from './match-parameters.ts'
import { receiverOf } from './raw-qp-class.ts'
import { defaultMiss, type FlowCounter, type FrameReceiver, link } from './steering.ts'

/** Lowest priority (Linux's MLX5_IB_FLOW_LAST_PRIO). */
export const LAST_PRIORITY = 15
/** Of completions. */
export const TAG_MASK = 0xff_ffff

/** What firmware commands make for rules: `own` of their `devx_obj`. */
export interface FrameTarget {
  readonly receiver: FrameReceiver
}
export interface FlowCounters {
  readonly counts: Float64Array
  readonly size: number
}

const { NIC_RX, NIC_TX } = FlowTableType

/** Throws CallError: EINVAL for a table that Linux does not know, EOPNOTSUPP for one that the device does not have. */
const checkTable = (where: Place, type: bigint): void => {
  if (type > LAST_FLOW_TABLE_TYPE)
    throw callError.EINVAL`${where}: table type ${type}; Linux knows 0 to ${LAST_FLOW_TABLE_TYPE}`
  if (type !== NIC_RX && type !== NIC_TX)
    throw callError.EOPNOTSUPP`${where}: table type ${type}: the device has NIC_RX (${NIC_RX}) and NIC_TX (${NIC_TX})`
}

// ---- matchers ----

interface Matcher {
  readonly mask: MatchMask
  readonly isEgress: boolean
  readonly priority: number
}

export const matcherClass = driverClass<typeof FlowMatcher, Matcher>(FlowMatcher, {
  create(_call, object, { mask, type, priority, criteria, flags = 0, tableType }) {
    const where = the.method('flow_matcher.create')
    if (type !== FlowType.values.NORMAL)
      throw callError.EOPNOTSUPP`${where}: type ${nameIn(FlowType.values, type) ?? type}: matchers are of type NORMAL`
    // Linux: the table's type is for new programs, and EGRESS for old ones
    const table = tableType ?? ((flags & FlowFlags.values.EGRESS) === 0 ? NIC_RX : NIC_TX)
    if (tableType !== undefined && flags !== 0)
      throw callError.EINVAL`${where}: attributes flags and tableType exclude each other`
    checkTable(where, table)
    object.state = { mask: readMask(mask, criteria), isEgress: table === NIC_TX, priority }
    return {}
  },
  destroy: () => ({}),
})

// ---- actions ----

/**
 * Most settings of an action, and bytes of a header (capabilities max_modify_header_actions, max_encap_header_size).
 */
export const MAX_SETTINGS = 16
export const MAX_HEADER_BYTES = 128

interface EditedField {
  readonly places: readonly { readonly header: EditedHeader; readonly bit: number }[]
  readonly width: number
}
const field = (header: EditedHeader, byte: number, width: number, bit = 0): EditedField => ({
  places: [{ header, bit: byte * 8 + bit }],
  width,
})
const fieldOfIp = (byte4: number, byte6: number, bit6: number, width: number): EditedField => ({
  places: [
    { header: 'ipv4', bit: byte4 * 8 },
    { header: 'ipv6', bit: byte6 * 8 + bit6 },
  ],
  width,
})
const fields: Readonly<Record<number, EditedField>> = {
  [ActionField.OUT_SMAC_47_16]: field('eth', 6, 32),
  [ActionField.OUT_SMAC_15_0]: field('eth', 10, 16),
  [ActionField.OUT_DMAC_47_16]: field('eth', 0, 32),
  [ActionField.OUT_DMAC_15_0]: field('eth', 4, 16),
  [ActionField.OUT_IP_DSCP]: fieldOfIp(1, 0, 4, 6),
  [ActionField.OUT_TCP_SPORT]: field('tcp', 0, 16),
  [ActionField.OUT_TCP_DPORT]: field('tcp', 2, 16),
  [ActionField.OUT_IP_TTL]: fieldOfIp(8, 7, 0, 8),
  [ActionField.OUT_UDP_SPORT]: field('udp', 0, 16),
  [ActionField.OUT_UDP_DPORT]: field('udp', 2, 16),
  [ActionField.OUT_SIPV4]: field('ipv4', 12, 32),
  [ActionField.OUT_DIPV4]: field('ipv4', 16, 32),
  [ActionField.OUT_FIRST_VID]: field('vlan', 0, 12, 4),
}

const readSettings = (bytes: Uint8Array): readonly FieldSetting[] => {
  const where = because`${the.method('flow_action.create')}: ${the.attribute('settings')}`
  const count = bytes.length / setAction.bytes
  if (!Number.isInteger(count))
    throw callError.EINVAL`${where}: ${bytes.length} bytes; an action has ${setAction.bytes}`
  if (count > MAX_SETTINGS) throw callError.ENOSPC`${where}: ${count} actions; the device has at most ${MAX_SETTINGS}`
  return Array.from({ length: count }, (_, i) => {
    const { action_type, field, offset, length, data } = decodeFields(setAction, bytes.subarray(i * setAction.bytes))
    const known = fields[field]
    if (action_type !== SET_ACTION || known === undefined)
      throw callError.EINVAL`${where}: action ${i}: type ${action_type}, field 0x${field.toString(16)}: the device sets (1) fields ${Object.values(
        ActionField,
      )
        .map(one => `0x${one.toString(16)}`)
        .join(', ')}`
    // 0 stands for all 32
    const width = length === 0 ? 32 : length
    if (offset + width > known.width)
      throw callError.EINVAL`${where}: action ${i}: bits ${offset} to ${offset + width - 1}; the field has ${known.width}`
    const shift = known.width - offset - width
    return {
      places: known.places.map(({ header, bit }) => ({ header, bit: bit + shift })),
      width,
      value: data,
    }
  })
}

const { L2_TUNNEL_TO_L2, L2_TO_L2_TUNNEL, L3_TUNNEL_TO_L2, L2_TO_L3_TUNNEL } = ReformatType

const readReformat = (type: bigint, table: bigint, given: Uint8Array | undefined): FrameEdits => {
  const where = the.method('flow_action.create')
  const isSent = type === L2_TO_L2_TUNNEL || type === L2_TO_L3_TUNNEL
  if (type > L2_TO_L3_TUNNEL) throw callError.EINVAL`${where}: ${the.attribute('reformat')}: ${type}; there are 0 to 3`
  if (isSent !== (table === NIC_TX))
    throw callError.EOPNOTSUPP`${where}: reformat ${type}: headers are put on as frames are sent, and taken off as they arrive`
  // Linux does not look at the header of a plain decapsulation
  const header = type === L2_TUNNEL_TO_L2 ? undefined : given
  if (type !== L2_TUNNEL_TO_L2) {
    if (header === undefined) throw callError.EINVAL`${where}: reformat ${type}: attribute header is missing`
    const isEthernet = header.length === ETHERNET_BYTES || header.length === ETHERNET_BYTES + VLAN_BYTES
    if (header.length > MAX_HEADER_BYTES || header.length < ETHERNET_BYTES || (type === L3_TUNNEL_TO_L2 && !isEthernet))
      throw callError.EINVAL`${where}: ${the.attribute('header')}: ${header.length} bytes; ${type === L3_TUNNEL_TO_L2 ? `an Ethernet header has ${ETHERNET_BYTES} or ${ETHERNET_BYTES + VLAN_BYTES}` : `${ETHERNET_BYTES} to ${MAX_HEADER_BYTES} are possible`}`
  }
  return {
    takesOff: !isSent,
    ethernet: type === L3_TUNNEL_TO_L2 ? header : undefined,
    settings: [],
    outer: isSent ? header : undefined,
    dropsEthernet: type === L2_TO_L3_TUNNEL,
  }
}

interface Action {
  readonly edits: FrameEdits
  readonly isEgress: boolean
  readonly isReformat: boolean
}

const noEdits: FrameEdits = {
  takesOff: false,
  ethernet: undefined,
  settings: [],
  outer: undefined,
  dropsEthernet: false,
}

export const actionClass = driverClass<typeof FlowAction, Action>(FlowAction, {
  create(_call, object, { settings, tableType, reformat, header }) {
    const where = the.method('flow_action.create')
    checkTable(where, tableType)
    if ((settings === undefined) === (reformat === undefined))
      throw callError.EINVAL`${where}: either attribute settings or reformat is necessary`
    object.state = {
      edits:
        reformat === undefined
          ? { ...noEdits, settings: readSettings(settings!) }
          : readReformat(reformat, tableType, header),
      isEgress: tableType === NIC_TX,
      isReformat: reformat !== undefined,
    }
    return {}
  },
  destroy: () => ({}),
})

// ---- rules ----

interface MatcherFlow {
  readonly rawQp?: CoreObject
  readonly matchValue?: Uint8Array
  readonly destination?: number
  readonly actions?: readonly { readonly handle: number }[]
  readonly flowTag?: number
  readonly flowCounters?: readonly { readonly handle: number }[]
  readonly counterOffset?: number
  readonly matcherFlags?: number
}

const { DEFAULT_MISS, DROP } = MatcherFlowFlags
const invalid = (reason: Reason | string): never => {
  throw callError.EINVAL`${the.method('flow.create')}: ${reason}`
}

/**
 * What a firmware command made, which the rule uses from now on. Throws CallError EINVAL if another command made it.
 */
const commandObject = <T>(call: CallContext, flow: CoreObject, handle: number, command: string, use: string): T => {
  const object = findObject(call.context, 'devx_obj', handle, call.entry) as CoreObject<DevxObject>
  if (object.state.command !== command)
    invalid(because`${the.attribute(use)}: object ${handle} is of ${object.state.command}, not of ${command}`)
  addParent(flow, object)
  return object.state.own as T
}

/** Undefined: the frames are dropped. */
const receiverFor = (
  call: CallContext,
  flow: CoreObject,
  isEgress: boolean,
  { rawQp, destination, matcherFlags = 0 }: MatcherFlow,
): FrameReceiver | undefined => {
  const named = [rawQp, destination, matcherFlags === 0 ? undefined : matcherFlags].filter(one => one !== undefined)
  if (named.length > 1 || matcherFlags === (DROP | DEFAULT_MISS))
    invalid('of a queue pair, another destination, drop and default miss, one is possible')
  if (isEgress) {
    if (rawQp !== undefined || destination !== undefined) invalid('frames that are sent have no receivers here')
    if (matcherFlags === DROP) return undefined
    return matcherFlags === DEFAULT_MISS ? defaultMiss : link
  }
  if (matcherFlags === DEFAULT_MISS) return defaultMiss
  if (matcherFlags === DROP) return undefined
  if (rawQp !== undefined) return receiverOf(rawQp, stateOf(call).soft)
  if (destination === undefined)
    return invalid('received frames need a queue pair, another destination, drop or default miss')
  return commandObject<FrameTarget>(call, flow, destination, 'CREATE_TIR', 'destination').receiver
}

const counterFor = (call: CallContext, flow: CoreObject, args: MatcherFlow): FlowCounter | undefined => {
  const { flowCounters: [given] = [], counterOffset = 0 } = args
  if (given === undefined) return undefined
  const counters = commandObject<FlowCounters>(call, flow, given.handle, 'ALLOC_FLOW_COUNTER', 'flowCounters')
  if (counterOffset >= counters.size)
    invalid(
      because`${the.attribute('counterOffset')}: ${counterOffset}: the object has ${counters.size} counters, from 0`,
    )
  return { counts: counters.counts, index: counterOffset }
}

const editsFor = (
  call: CallContext,
  flow: CoreObject,
  isEgress: boolean,
  args: MatcherFlow,
): FrameEdits | undefined => {
  const { actions = [] } = args
  const states = actions.map(({ handle }) => {
    const action = findObject(call.context, FlowAction.name, handle, call.entry) as CoreObject<Action>
    if (action.state.isEgress !== isEgress)
      invalid(because`${the.attribute('actions')}: ${handle} is for the other type of table`)
    addParent(flow, action)
    return action.state
  })
  const [first, second] = states
  // Linux: one action of each kind; the device tells no reformat_and_modify_action
  if (second !== undefined)
    invalid(because`${the.attribute('actions')}: a rule has one action: settings, or a reformat`)
  return first?.edits
}

/** Creates a rule with a matcher. Throws CallError, as Linux. */
export const createMatcherFlow = (
  call: CallContext,
  flow: CoreObject,
  matcherObject: CoreObject,
  args: MatcherFlow,
): { readonly remove: () => void; readonly priority: number } => {
  const { mask, isEgress, priority } = matcherObject.state as Matcher
  const { matchValue, flowTag = 0 } = args
  if (matchValue === undefined) return invalid(because`${the.attribute('matchValue')} is missing`)
  if (priority > LAST_PRIORITY)
    throw callError.ENOMEM`${the.method('flow.create')}: the matcher has priority ${priority}; 0 to ${LAST_PRIORITY} are possible`
  if (flowTag > TAG_MASK) invalid(because`${the.attribute('flowTag')}: 0x${flowTag.toString(16)} has more than 24 bits`)
  const receiver = receiverFor(call, flow, isEgress, args)
  const counter = counterFor(call, flow, args)
  const edits = editsFor(call, flow, isEgress, args)
  const { steering, egress } = stateOf(call).station!
  const remove = (isEgress ? egress : steering).add({
    type: FlowType.values.NORMAL,
    priority,
    ...readMatch(mask, matchValue),
    doesNotTrap: false,
    receiver,
    tag: flowTag,
    ...(counter !== undefined && { counter }),
    ...(edits !== undefined && { edits }),
  })
  return { remove, priority }
}
