/*
 * Flows and peers of the ports of one link (docs/decisions/engines-without-io.md). A flow is a path to a destination,
 * with a FlowAddress as its record. Equal records of one port have the same number. A peer of a port is the destination
 * address of one or more flows; its number also identifies the source of received packets. If a flow is closed while
 * its runs are in flight, it exists until they have arrived, because their receiver reads its record.
 */
import { ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import { isSameAddress } from '../wire/address.ts'
import { type Flow, makeFlow } from '../wire/icrc.ts'
import { addressWords, createKeyTable } from './key-table.ts'
import type { FlowAddress } from './port.ts'

// Words of a flow's key. Word 0 is the number of the link's port; SOURCE_PORT is the UDP port.
const SOURCE = 1
const DESTINATION = 5
const SOURCE_PORT_CLASS_HOPS = 9
const FLOW_LABEL = 10
/** InfiniBand's service level, and above it the number of the GRH's GIDs plus one; 0 on RoCE v2. */
const LEVEL_AND_GRH = 11
const FLOW_WORDS = 12
const GRH_SHIFT = 4
const ADDRESS_WORDS = 4
/** In word 0 of a peer's key, beside the port's number. */
const ROCE_V1_PEER = 0x8000_0000

const requireRange = (name: string, value: number, max: number): void => {
  if (!Number.isInteger(value) || value < 0 || value > max)
    throw new RangeError(`flow: ${name} is an integer from 0 to ${max}, not ${value}`)
}

/** Throws a RangeError if a value does not fit in a header. */
export const requireFlowRanges = (address: FlowAddress): void => {
  requireRange('sourcePort', address.sourcePort, 0xffff)
  requireRange('trafficClass', address.trafficClass, 0xff)
  requireRange('hopLimit', address.hopLimit, 0xff)
  requireRange('flowLabel', address.flowLabel, 0xfffff)
  requireRange('sl', address.sl ?? 0, 15)
}

/** The number of a port that shares its table with no other port. */
export const ONLY_PORT = 0

export interface FlowTable {
  /**
   * Opens a flow of a port; the record is copied. Throws a RangeError if a value does not fit in a header, or if the
   * addresses are not both IPv4, both IPv6, or both LIDs.
   */
  open(port: number, address: FlowAddress): number
  /** Opens an open flow once more, so that it needs one more `close`. Throws an Error if it is not open. */
  reopen(port: number, flow: number): void
  /** Throws an Error if the flow is not open. */
  close(port: number, flow: number): void
  closeAll(port: number): void
  isOpen(port: number, flow: number): boolean
  /** Keeps a flow while a run of it is in flight, until `release`. */
  retain(flow: number): void
  release(flow: number): void
  recordOf(flow: number): FlowAddress
  icrcFlowOf(flow: number): Flow
  /** The keys of all flows. The array is replaced when the table grows, so do not keep it. */
  words(): Uint32Array
  /** The port that has opened the flow. */
  portOf(flow: number): number
  /** Whether the flow's addresses are LIDs. */
  hasLids(flow: number): boolean
  /** Index in `words` of the first word of a flow's source or destination address. */
  sourceAt(flow: number): number
  destinationAt(flow: number): number
  /**
   * The number of a port's peer; -1 if no open flow of the port has this destination. The address is four words from
   * index `at` on. On RoCE v1 an address is another peer than on v2: adapters drop packets of the other version.
   */
  peerOf(port: number, words: Uint32Array, at: number, isRoceV1?: boolean): number
  /** Whether the flow is one of RoCE v1. */
  isRoceV1(flow: number): boolean
  /** Increases whenever the result of `peerOf` or the meaning of a flow number may change. */
  version(): number
  /** Number of flows that are open or have runs in flight. */
  size(): number
}

/** Whether the address is ::ffff:a.b.c.d. */
const isIpv4 = (words: Uint32Array, at: number): boolean =>
  words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0xffff

/** Whether the address is a LID (transport/wire/address.ts). */
const isLid = (words: Uint32Array, at: number): boolean =>
  words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0xfffe

/** Throws a RangeError for addresses that are not both of one kind. */
const icrcFlow = (address: FlowAddress): Flow => makeFlow({ ...address, destinationPort: ROCE_UDP_PORT })

const isSameRecord = (a: FlowAddress, b: FlowAddress): boolean =>
  a.sourcePort === b.sourcePort &&
  a.trafficClass === b.trafficClass &&
  a.hopLimit === b.hopLimit &&
  a.flowLabel === b.flowLabel &&
  isSameAddress(a.source, b.source) &&
  isSameAddress(a.destination, b.destination) &&
  (a.sl ?? 0) === (b.sl ?? 0) &&
  (a.grh === undefined
    ? b.grh === undefined
    : b.grh !== undefined &&
      isSameAddress(a.grh.source, b.grh.source) &&
      isSameAddress(a.grh.destination, b.grh.destination))

const copyOf = ({ source, destination, sourcePort, trafficClass, hopLimit, flowLabel, sl, grh }: FlowAddress) => ({
  source: source.slice(),
  destination: destination.slice(),
  sourcePort,
  trafficClass,
  hopLimit,
  flowLabel,
  ...(sl !== undefined && { sl }),
  ...(grh !== undefined && { grh: { source: grh.source.slice(), destination: grh.destination.slice() } }),
})

export const createFlowTable = (): FlowTable => {
  const flows = createKeyTable(FLOW_WORDS)
  const peers = createKeyTable(1 + ADDRESS_WORDS)
  /** The GIDs of the GRHs of flows. */
  const grhs = createKeyTable(2 * ADDRESS_WORDS)
  const records: FlowAddress[] = []
  /** Computed on first use: most flows of the memory link never need ICRCs. */
  const icrcFlows: (Flow | undefined)[] = []
  /** By flow: number of `open` and `reopen` calls without `close`. Runs in flight are not counted here. */
  const opened: number[] = []
  const peerOfFlow: number[] = []
  const key = new Uint32Array(FLOW_WORDS)
  const peerKey = new Uint32Array(1 + ADDRESS_WORDS)
  const grhKey = new Uint32Array(2 * ADDRESS_WORDS)

  const release = (flow: number): void => {
    const grh = flows.keys[flow * FLOW_WORDS + LEVEL_AND_GRH] >>> GRH_SHIFT
    if (flows.release(flow) && grh > 0) grhs.release(grh - 1)
  }
  /** The number of a GRH's GIDs, plus one; 0 without one. Each flow has a reference. */
  const acquireGrh = ({ grh }: FlowAddress): number => {
    if (grh === undefined) return 0
    addressWords(grh.source, grhKey, 0)
    addressWords(grh.destination, grhKey, ADDRESS_WORDS)
    return grhs.acquire(grhKey, 0) + 1
  }
  const requireOpen = (port: number, flow: number): void => {
    if (!isOpen(port, flow)) throw new Error(`flow ${flow} is not open`)
  }
  const close = (port: number, flow: number): void => {
    requireOpen(port, flow)
    opened[flow]--
    peers.release(peerOfFlow[flow])
    release(flow)
  }
  const isOpen = (port: number, flow: number): boolean =>
    flows.refCount(flow) > 0 && opened[flow] > 0 && flows.keys[flow * FLOW_WORDS] === port

  return {
    open: (port, address) => {
      requireFlowRanges(address)
      key[0] = port
      addressWords(address.source, key, SOURCE)
      addressWords(address.destination, key, DESTINATION)
      key[SOURCE_PORT_CLASS_HOPS] = (address.sourcePort << 16) | (address.trafficClass << 8) | address.hopLimit
      key[FLOW_LABEL] = address.flowLabel
      const isOfOneKind =
        isIpv4(key, SOURCE) === isIpv4(key, DESTINATION) && isLid(key, SOURCE) === isLid(key, DESTINATION)
      if (!isOfOneKind) icrcFlow(address) // throws a RangeError
      const grh = acquireGrh(address)
      key[LEVEL_AND_GRH] = ((grh << GRH_SHIFT) | (address.sl ?? 0)) >>> 0
      const sizeBefore = flows.size
      const flow = flows.acquire(key, 0)
      if (flows.size === sizeBefore) {
        if (grh > 0) grhs.release(grh - 1)
      } else {
        // A reused number keeps its record if the record is the same.
        if (records[flow] === undefined || !isSameRecord(records[flow], address)) {
          records[flow] = copyOf(address)
          icrcFlows[flow] = undefined
        }
        opened[flow] = 0
      }
      opened[flow]++
      peerKey[0] = grh > 0 && !isLid(key, DESTINATION) ? (port | ROCE_V1_PEER) >>> 0 : port
      for (let i = 0; i < ADDRESS_WORDS; i++) peerKey[1 + i] = key[DESTINATION + i]
      peerOfFlow[flow] = peers.acquire(peerKey, 0)
      return flow
    },
    reopen: (port, flow) => {
      requireOpen(port, flow)
      opened[flow]++
      flows.retain(flow)
      peers.retain(peerOfFlow[flow])
    },
    close,
    closeAll: port => {
      for (let flow = 0; flow < records.length; flow++) while (isOpen(port, flow)) close(port, flow)
    },
    isOpen,
    retain: flow => flows.retain(flow),
    release,
    recordOf: flow => records[flow],
    icrcFlowOf: flow => {
      icrcFlows[flow] ??= icrcFlow(records[flow])
      return icrcFlows[flow]
    },
    words: () => flows.keys,
    portOf: flow => flows.keys[flow * FLOW_WORDS],
    hasLids: flow => isLid(flows.keys, flow * FLOW_WORDS + SOURCE),
    sourceAt: flow => flow * FLOW_WORDS + SOURCE,
    destinationAt: flow => flow * FLOW_WORDS + DESTINATION,
    isRoceV1: flow =>
      flows.keys[flow * FLOW_WORDS + LEVEL_AND_GRH] >>> GRH_SHIFT > 0 && !isLid(flows.keys, flow * FLOW_WORDS + SOURCE),
    peerOf: (port, words, at, isRoceV1 = false) => {
      peerKey[0] = isRoceV1 ? (port | ROCE_V1_PEER) >>> 0 : port
      for (let i = 0; i < ADDRESS_WORDS; i++) peerKey[1 + i] = words[at + i]
      return peers.find(peerKey, 0)
    },
    version: () => flows.version + peers.version,
    size: () => flows.size,
  }
}
