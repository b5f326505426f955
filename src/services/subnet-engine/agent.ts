/*
 * The attributes of a node, by name: what its agent answers to Get, and does on Set (IBA 14.2.5). A modifier that names
 * no block or port of the node, and a Set of an invalid value, are answered with a status (node.ts).
 */
import {
  FIRST_MULTICAST_LID,
  GUID_BLOCK,
  LFT_BLOCK,
  MELLANOX,
  MFT_BLOCK,
  MFT_PORTS,
  NO_PORT,
  PERMISSIVE_LID,
  PhysicalState,
  PKEY_BLOCK,
  PortState,
} from '../../spec/wire/subnet.ts'
import type { SmAttribute, SmAttributeName } from '../../transport/wire/mad/subnet.ts'
import { guidBlocks, type NodePort, type PortInfo } from './port.ts'

/** The tables of a switch. */
export interface SwitchTables {
  readonly info: SmAttribute<'SwitchInfo'>
  /** The output port by LID; NO_PORT: none. */
  readonly linear: Uint8Array
  /** Masks of ports, by multicast LID and group of MFT_PORTS ports. */
  readonly multicast: Uint16Array
  /** Groups of MFT_PORTS ports. */
  readonly positions: number
}

export const createTables = (ports: number, linearCap: number, multicastCap: number): SwitchTables => {
  const positions = Math.ceil((ports + 1) / MFT_PORTS)
  return {
    info: {
      linearFdbCap: linearCap,
      randomFdbCap: 0,
      multicastFdbCap: multicastCap,
      linearFdbTop: 0,
      defaultPort: 0,
      defaultMulticastPrimaryPort: 0,
      defaultMulticastNotPrimaryPort: 0,
      lifeTime: 0,
      portStateChange: false,
      optimizedSlToVl: 0,
      lidsPerPort: 0,
      partitionEnforcementCap: 0,
      inboundEnforcementCap: false,
      outboundEnforcementCap: false,
      filterRawInboundCap: false,
      filterRawOutboundCap: false,
      enhancedPort0: true,
      multicastFdbTop: 0,
    },
    linear: new Uint8Array(linearCap).fill(NO_PORT),
    multicast: new Uint16Array(multicastCap * positions),
    positions,
  }
}

/** What the agent acts on: the node, and the port that a request came in by. */
export interface AgentTarget {
  readonly node: {
    readonly ports: readonly NodePort[]
    readonly tables: SwitchTables | undefined
    readonly description: Uint8Array
    nodeInfo(inPort: NodePort): SmAttribute<'NodeInfo'>
    /** Link states that a Set of PortInfo asks for. */
    setPhysical(port: NodePort, state: number): void
  }
  readonly inPort: NodePort
}

interface Handler<N extends SmAttributeName> {
  /** Undefined: the modifier is invalid. */
  get(target: AgentTarget, modifier: number): SmAttribute<N> | undefined
  /** False: a value is invalid, and nothing was set. */
  set?(target: AgentTarget, modifier: number, value: SmAttribute<N>): boolean
}

/** The port of a modifier. Adapters take 0 for the port that the request came in by. */
const portOf = ({ node, inPort }: AgentTarget, number: number): NodePort | undefined =>
  number === 0 && node.tables === undefined ? inPort : node.ports.find(port => port.number === number)

const block = <T>(list: readonly T[], index: number, size: number): T[] | undefined =>
  index * size < list.length ? list.slice(index * size, (index + 1) * size) : undefined

/** Writes a block of a list; false if the list has no such block. */
const setBlock = <T>(
  list: { [index: number]: T; readonly length: number },
  from: number,
  values: readonly T[],
): boolean => {
  if (from >= list.length) return false
  for (const [i, value] of values.entries()) if (from + i < list.length) list[from + i] = value
  return true
}

/** Whether management may set the state of a link, from its state now. */
const mayBecome = (now: number, next: number): boolean => {
  if (next === PortState.NO_CHANGE || next === PortState.DOWN) return true
  if (next === PortState.ARMED) return now === PortState.INIT || now === PortState.ARMED
  return next === PortState.ACTIVE && (now === PortState.ARMED || now === PortState.ACTIVE)
}

/** Values of enabled widths and speeds that mean: no change, all that are supported. */
const ALL = { width: 0xff, speed: 0xf, extendedSpeed: 0x1f } as const
const enabled = (value: number, now: number, supported: number, all: number): number => {
  if (value === 0) return now
  return value === all ? supported : value & supported
}

/** Fields of a PortInfo that a Set writes as they are (14.2.5.6, those of type RW without a rule of their own). */
const PLAIN = [
  'mKey',
  'mKeyLeasePeriod',
  'mKeyProtectBits',
  'vlHighLimit',
  'hoqLife',
  'vlStallCount',
  'partitionEnforcementInbound',
  'partitionEnforcementOutbound',
  'filterRawInbound',
  'filterRawOutbound',
  'subnetTimeout',
  'localPhysicalErrors',
  'overrunErrors',
  'multicastPKeyTrapSuppression',
] as const
/** Those of end ports only. */
const OF_END_PORTS = ['gidPrefix', 'lid', 'smLid', 'smSl', 'clientReregister'] as const
/** Counters of violations: a Set writes 0 only. */
const VIOLATIONS = ['mKeyViolations', 'pKeyViolations', 'qKeyViolations'] as const

const isUnicast = (lid: number): boolean => lid > 0 && lid < FIRST_MULTICAST_LID

const setPortInfo = (target: AgentTarget, port: NodePort, value: PortInfo): boolean => {
  const { info } = port
  const { node } = target
  const isManagementPort = node.tables !== undefined && port.number === 0
  const isEndPort = node.tables === undefined || isManagementPort
  if (!mayBecome(info.portState, value.portState)) return false
  if (value.physicalState > PhysicalState.DISABLED || value.lmc !== 0) return false
  if (isEndPort && (!isUnicast(value.lid) || !(isUnicast(value.smLid) || value.smLid === PERMISSIVE_LID))) return false
  if (value.neighborMtu !== 0 && (value.neighborMtu > info.mtuCap || value.neighborMtu > 5)) return false
  if (value.operationalVls > info.vlCap) return false
  const write = (names: readonly (keyof PortInfo)[]): void =>
    void Object.assign(info, Object.fromEntries(names.map(name => [name, value[name]])))
  write(PLAIN)
  if (isEndPort) write(OF_END_PORTS)
  for (const name of VIOLATIONS) if (value[name] === 0) info[name] = 0
  const { linkWidthSupported, linkSpeedSupported, linkSpeedExtSupported } = info
  info.linkWidthEnabled = enabled(value.linkWidthEnabled, info.linkWidthEnabled, linkWidthSupported, ALL.width)
  info.linkSpeedEnabled = enabled(value.linkSpeedEnabled, info.linkSpeedEnabled, linkSpeedSupported, ALL.speed)
  info.linkSpeedExtEnabled = enabled(
    value.linkSpeedExtEnabled,
    info.linkSpeedExtEnabled,
    linkSpeedExtSupported,
    ALL.extendedSpeed,
  )
  if (value.linkDownDefaultState !== 0) info.linkDownDefaultState = value.linkDownDefaultState
  if (value.neighborMtu !== 0) info.neighborMtu = value.neighborMtu
  if (value.operationalVls !== 0) info.operationalVls = value.operationalVls
  if (isManagementPort) {
    if (value.portState !== PortState.NO_CHANGE && value.portState !== PortState.DOWN) info.portState = value.portState
  } else if (value.portState === PortState.DOWN || value.physicalState !== PhysicalState.NO_CHANGE)
    node.setPhysical(port, value.physicalState)
  else if (value.portState !== PortState.NO_CHANGE) info.portState = value.portState
  return true
}

const switchPort = ({ node }: AgentTarget, number: number): NodePort | undefined =>
  node.ports.find(port => port.number === number)

/** The range of the multicast table that a modifier names: index of the first entry, and step between entries. */
const multicastPlace = ({ positions, info }: SwitchTables, modifier: number): number | undefined => {
  const [position, first] = [modifier >>> 28, (modifier & 0x1ff) * MFT_BLOCK]
  return position < positions && first < info.multicastFdbCap ? first * positions + position : undefined
}

export const attributeHandlers: { readonly [N in SmAttributeName]?: Handler<N> } = {
  NodeDescription: { get: ({ node }) => ({ text: node.description }) },
  NodeInfo: { get: ({ node, inPort }) => node.nodeInfo(inPort) },
  SwitchInfo: {
    get: ({ node }) => node.tables?.info,
    set({ node: { tables } }, _modifier, value) {
      if (tables === undefined || value.linearFdbTop >= tables.info.linearFdbCap) return false
      tables.info.linearFdbTop = value.linearFdbTop
      tables.info.multicastFdbTop = value.multicastFdbTop
      tables.info.defaultPort = value.defaultPort
      tables.info.defaultMulticastPrimaryPort = value.defaultMulticastPrimaryPort
      tables.info.defaultMulticastNotPrimaryPort = value.defaultMulticastNotPrimaryPort
      tables.info.lifeTime = value.lifeTime
      // Setting the bit clears it.
      if (value.portStateChange) tables.info.portStateChange = false
      return true
    },
  },
  GUIDInfo: {
    get(target, modifier) {
      const port = portOf(target, 0)
      const guids = port && modifier < guidBlocks(port) ? block(port.guids, modifier, GUID_BLOCK) : undefined
      return guids && { guids }
    },
    set(target, modifier, { guids }) {
      const port = portOf(target, 0)
      // The first GUID is the port's own.
      return (
        port !== undefined &&
        setBlock(port.guids, modifier * GUID_BLOCK, modifier === 0 ? [port.guids[0]!, ...guids.slice(1)] : guids)
      )
    },
  },
  PortInfo: {
    // The highest bit of the modifier says that the manager knows extended speeds.
    get(target, modifier) {
      const port = portOf(target, modifier & 0xff)
      return port && { ...port.info, localPort: target.inPort.number }
    },
    set(target, modifier, value) {
      const port = portOf(target, modifier & 0xff)
      return port !== undefined && setPortInfo(target, port, value)
    },
  },
  MlnxExtendedPortInfo: {
    // No port has FDR10.
    get: (target, modifier) =>
      target.node.nodeInfo(target.inPort).vendorId === MELLANOX && portOf(target, modifier & 0xff) !== undefined
        ? { stateChangeEnable: 0, linkSpeedSupported: 0, linkSpeedEnabled: 0, linkSpeedActive: 0 }
        : undefined,
  },
  P_KeyTable: {
    get(target, modifier) {
      const pkeys = block(portOf(target, modifier >>> 16)?.pkeys ?? [], modifier & 0xffff, PKEY_BLOCK)
      return pkeys && { pkeys }
    },
    set(target, modifier, { pkeys }) {
      const port = portOf(target, modifier >>> 16)
      return port !== undefined && setBlock(port.pkeys, (modifier & 0xffff) * PKEY_BLOCK, pkeys)
    },
  },
  SLtoVLMappingTable: {
    get(target, modifier) {
      const [input, port] = [(modifier >> 8) & 0xff, portOf(target, modifier & 0xff)]
      return port && { lanes: port.slToVl.get(input) ?? Array<number>(16).fill(0) }
    },
    set(target, modifier, { lanes }) {
      const [input, port] = [(modifier >> 8) & 0xff, portOf(target, modifier & 0xff)]
      const isSwitch = target.node.tables !== undefined
      if (port === undefined || (input !== 0 && !(isSwitch && switchPort(target, input)))) return false
      port.slToVl.set(input, lanes)
      return true
    },
  },
  VLArbitrationTable: {
    get(target, modifier) {
      const entries = portOf(target, modifier & 0xff)?.vlArbitration[(modifier >>> 16) - 1]
      return entries && { entries }
    },
    set(target, modifier, { entries }) {
      const [port, index] = [portOf(target, modifier & 0xff), (modifier >>> 16) - 1]
      if (port?.vlArbitration[index] === undefined) return false
      port.vlArbitration[index] = entries
      return true
    },
  },
  LinearForwardingTable: {
    get({ node: { tables } }, modifier) {
      const from = modifier * LFT_BLOCK
      if (tables === undefined || from >= tables.linear.length) return undefined
      return { ports: Array.from(tables.linear.subarray(from, from + LFT_BLOCK)) }
    },
    set: ({ node: { tables } }, modifier, { ports }) =>
      tables !== undefined && setBlock(tables.linear, modifier * LFT_BLOCK, ports),
  },
  MulticastForwardingTable: {
    get({ node: { tables } }, modifier) {
      const from = tables && multicastPlace(tables, modifier)
      if (tables === undefined || from === undefined) return undefined
      return { masks: Array.from({ length: MFT_BLOCK }, (_, i) => tables.multicast[from + i * tables.positions] ?? 0) }
    },
    set({ node: { tables } }, modifier, { masks }) {
      const from = tables && multicastPlace(tables, modifier)
      if (tables === undefined || from === undefined) return false
      for (const [i, mask] of masks.entries()) {
        const at = from + i * tables.positions
        if (at < tables.multicast.length) tables.multicast[at] = mask
      }
      return true
    },
  },
}
