/*
 * A port to a network: sends and receives runs of packets (docs/decisions/engines-without-io.md). A packet is a UDP
 * payload. The memory link, UDP, and layers that wrap any port, such as faults, implement this interface.
 *
 * The port owns the bytes: a sender builds a run in a reservation of the port, and a receiver reads and releases a run
 * in the port's memory. The port also writes and checks ICRCs, because they cover the IP header, which only the port
 * knows. It drops and counts packets with wrong ICRCs.
 */
import type { PacketOutcome } from '../../spec/faults.ts'
import type { PacketFlow } from '../../spec/wire/flow.ts'
import type { Arena } from '../wire/arena.ts'

/** Path and headers of a flow's packets. */
export type FlowAddress = PacketFlow

/** `count` packets of `packetBytes` bytes, the last of `lastBytes`, from `offset` of the arena on. */
export interface ReceivedRun {
  offset: number
  packetBytes: number
  count: number
  lastBytes: number
  /** The port's number of the source address; -1 if no flow to this address is open. */
  peer: number
  /** Path and headers of the packets, for GRH, tracer and pcap. */
  flowAddress: FlowAddress
  /** IPv4 identification of the first packet. While `requireSeal` demands it, those of later packets count up. */
  identification: number
}

/** The flow record of an empty `ReceivedRun`. */
export const noAddress: FlowAddress = {
  source: new Uint8Array(16),
  destination: new Uint8Array(16),
  sourcePort: 0,
  trafficClass: 0,
  hopLimit: 0,
  flowLabel: 0,
}

/** A record for `Port.receive` to fill. */
export const emptyRun = (): ReceivedRun => ({
  offset: 0,
  packetBytes: 0,
  count: 0,
  lastBytes: 0,
  peer: -1,
  flowAddress: noAddress,
  identification: 0,
})

export interface PortCounters {
  sentPackets: number
  sentBytes: number
  receivedPackets: number
  receivedBytes: number
  icrcErrors: number
  /** Packets that could not be sent. */
  dropped: number
}

/** The outcome of a run. */
export type TapOutcome = PacketOutcome

/** A run for a tap. The port reuses the record and the bytes, so a tap must not keep them. */
export interface TappedRun {
  direction: 'sent' | 'received'
  outcome: TapOutcome
  arena: Arena
  offset: number
  packetBytes: number
  count: number
  lastBytes: number
  flow: FlowAddress
  identification: number
}

export const emptyTappedRun = (arena: Arena, direction: TappedRun['direction']): TappedRun => ({
  direction,
  outcome: 'passed',
  arena,
  offset: 0,
  packetBytes: 0,
  count: 0,
  lastBytes: 0,
  flow: noAddress,
  identification: 0,
})

/** Gets every run that a port sends and receives, with ICRCs. It must not change the run, and must not throw. */
export type PortTap = (run: TappedRun) => void

/** Bytes of `Port.staging`. */
export const STAGING_BYTES = 0x1_0000

/** Bytes of `Port.scratch`. */
export const SCRATCH_BYTES = 4160

/** Flows that peers may have made by their packets: the others are for what programs name. */
export const flowsOfPeers = ({ maxFlows = Number.POSITIVE_INFINITY }: Port): number => maxFlows / 2

/** An InfiniBand port's way into the fabric of its subnet, which decides where packets to a LID arrive. */
export interface PortFabric {
  /** The LID with which the port sends; 0: it is not ACTIVE, and sends nothing; PERMISSIVE_LID: it has all LIDs. */
  readonly lid: number
  /**
   * Behind the port are others, in another process or behind links that take time: it is a member of each group whose
   * packets reach it, and gets none of its own back.
   */
  readonly isTrunk?: boolean
  /** What the ports that packets to `dlid` reach have given to `setFabric`; at most one, but for multicast. */
  reached(dlid: number): readonly object[]
  /** So many packets to `dlid` have reached no port. */
  lost(dlid: number, packets: number): void
}

/** A VLAN interface, by which packets of an address leave. */
interface PortVlan {
  readonly id: number
  readonly index: number
}

/** What a port knows of simulated links and their routers, by their names. */
export interface PortLinks {
  /** Whether packets of a flow cross a router on their way now. */
  crosses(flow: FlowAddress, direction: 'sent' | 'received', router: string): boolean
  /** A rule has lost a packet of a flow at a router. */
  lostAt(flow: FlowAddress, direction: 'sent' | 'received', router: string): void
  /** Where packets of a flow wait since their class is paused, or were lost since it is lossy while another is not. */
  heldClass(flow: FlowAddress): HeldClass | undefined
  /**
   * Where links of a flow, or nodes, have lost packets that they would lose again; undefined: nowhere, or by chance.
   */
  lossOf(flow: FlowAddress): PathLoss | undefined
}

/** A class of simulated links that the other end of one pauses, or that has lost packets in front of it. */
export interface HeldClass {
  readonly dscp: number
  readonly name: string
  /** Names of the ends of the link. */
  readonly from: string
  readonly to: string
  /** Lost packets, and a lossless class of the link; undefined: the class is paused. */
  readonly lossy?: { readonly lost: number; readonly lossless: string }
}

/** `to`: of a link. `mtu`: of the link, bytes of an IP packet, if packets were longer. */
export interface PathLoss {
  readonly packets: number
  readonly reason: 'mtu' | 'ttl' | 'route'
  readonly from: string
  readonly to: string | undefined
  readonly mtu: number
}

export interface Port {
  readonly arena: Arena
  /** Offset of SCRATCH_BYTES bytes in the arena for the port's owner. */
  readonly scratch: number
  /** Maximum packets of a run. */
  readonly maxPackets: number
  /** Maximum packets of a run of single-packet messages; absent if short runs have no advantage. */
  readonly maxSinglePacketRun?: number | undefined
  /** Maximum number of open flows. Absent: any number. */
  readonly maxFlows?: number | undefined
  /** Maximum bytes of a run. */
  readonly maxBytes: number
  /** Maximum path MTU of the link in bytes, when the port was created. */
  readonly pathMtu: number
  /**
   * Maximum window bytes (payload plus 64 per packet) that a queue pair should have unacknowledged. Absent if no buffer
   * can overflow.
   */
  readonly windowBytes?: number | undefined
  /** Bytes that a queue pair may have unacknowledged on a port without `windowBytes`. Default: the engine's. */
  readonly pathBytes?: number | undefined
  /** As `windowBytes`, for all queue pairs of this port together that send to one peer. */
  readonly sharedWindowBytes?: number | undefined
  /** Whether flows of RoCE v1 may be opened, which have no UDP datagrams. Default: false. */
  readonly hasRoceV1?: boolean | undefined
  /** Each group that the port joins takes a descriptor. */
  readonly hasGroupSockets: boolean
  /** Simulated links. Absent: there are none. */
  readonly links?: PortLinks | undefined
  /** Hop limit of the system's route between two addresses; undefined: not known. Absent: the default. */
  readonly hopLimitOf?: ((source: Uint8Array, destination: Uint8Array) => number | undefined) | undefined
  /** The first router on the way to an address; undefined: none. Absent: there is none. */
  readonly routerTo?: ((address: Uint8Array) => string | undefined) | undefined
  readonly counters: PortCounters

  /**
   * Adds a local address (of the GID table). No effect if the port already has the address, or if a link-local address
   * is not available. Throws SystemError if the system does not allow the address, and an Error if another port of the
   * memory link has it. `claim` 'spare': another process may take the address over; 'own', the default: it may not.
   * `vlan`: the address is that of a VLAN interface; `index` 0: of none.
   */
  addAddress(address: Uint8Array, claim?: 'own' | 'spare', vlan?: PortVlan): void
  /** The VLAN of an address of a memory link; undefined: none. Absent: the system adds the tag. */
  readonly vlanOf?: ((address: Uint8Array) => number | undefined) | undefined
  /** Stops receiving on an address. A port with sockets then loses packets of flows from this address. */
  removeAddress(address: Uint8Array): void
  /**
   * Joins a multicast group: runs to the group are received here, including this port's own. No effect if the port is a
   * member. Throws SystemError if the system does not allow it. A UDP port may need an address of the group's family,
   * and throws a RangeError without one.
   */
  joinGroup(group: Uint8Array): void
  /**
   * Called when the device's network interface was replaced by another one: the port then uses the new one for
   * link-local destinations and for groups. Throws SystemError if a group cannot be joined on it; the port has joined
   * the others. Absent if the port does not depend on an interface's index.
   */
  setInterface?(interfaceIndex: number): void
  leaveGroup(group: Uint8Array): void
  /**
   * Gives an InfiniBand port, which has no addresses, its fabric. To be called again when an answer of the fabric may
   * have changed. Absent from ports to other machines.
   */
  setFabric?: ((fabric: PortFabric) => void) | undefined
  /**
   * Opens a flow. Returns its number; equal records have the same number. Throws a RangeError if a value is out of
   * range, or if this port cannot send on this path; SystemError, with the system's errno, if a UDP port has no route.
   */
  openFlow(address: FlowAddress): number
  /** Opens an open flow once more, so that it needs one more `closeFlow`. Throws an Error if it is not open. */
  reopenFlow(flow: number): void
  closeFlow(flow: number): void
  /** What the packets of an open flow have: a port with sockets may have chosen another source port. */
  recordOf(flow: number): FlowAddress
  /** The number of this source address in `ReceivedRun.peer`; -1 if no flow to this address is open. */
  peerOf(address: Uint8Array, isRoceV1?: boolean): number

  /**
   * As in `TransmitSink` (transport/engine/types.ts). When `commit` returns, the ICRCs are written, unless the port
   * omits them (`requireSeal`). A fault layer may change the bytes of the run until the next call of these three
   * functions.
   */
  reserve(bytes: number): number
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
  /** Ends a poll: sends committed runs, and releases the reservation. */
  flush(): void

  /**
   * Receives the next run with correct ICRCs; its bytes are valid until `release`. False if there is none, or if the
   * next run has to wait for `release`.
   */
  receive(run: ReceivedRun): boolean
  /** Releases all runs received since the last `release`. */
  release(): void
  /**
   * Called to schedule the device: a run has arrived at an empty port, or (ports with sockets) a failed `reserve` may
   * succeed now. It must not call `receive`.
   */
  wake: (() => void) | null

  /**
   * For messages without packets: the object that receives them at this port, set by the port's owner; null while the
   * owner needs packets. This property and the next three are absent from ports that always need packets.
   */
  receiver?: object | null | undefined
  /** Offset of STAGING_BYTES bytes in the arena, shared by all ports of the arena. */
  readonly staging?: number | undefined
  /** The `receiver` of the port at a flow's destination; null if packets must be sent. */
  receiverOf?: ((flow: number) => object | null) | undefined
  /** The `ReceivedRun.peer` that the destination sees for runs of a flow. */
  peerAt?: ((flow: number) => number) | undefined
  /** Whether runs may wait to be received. Absent if unknown. */
  isWaiting?: (() => boolean) | undefined

  /** Set by `addTap` (tap.ts), which supports several taps. */
  tap: PortTap | null
  /**
   * +1: a tap or a layer now needs real ICRCs, and identifications that count up within a run; -1: it no longer does.
   * If nobody needs them, a port may omit ICRCs.
   */
  requireSeal(change: 1 | -1): void
  /**
   * Takes a buffer of `bytes` bytes (at most `maxBytes`) in the arena, for a layer that keeps packets. Returns its
   * offset; -1 if none is free.
   */
  takeLayerBuffer(bytes: number): number
  releaseLayerBuffer(offset: number): void

  /** For layers that delay packets: when to call `onTimeout` next, µs; Infinity: never. */
  nextTimeout(): number
  onTimeout(now: number): void
  close(): void
}
