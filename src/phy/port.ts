/*
 * A port to a network: sends and receives runs of UDP payloads, each with a record of addresses
 * (docs/decisions/engines-without-io.md). The memory link, UDP and layers that wrap any port, such as faults, implement
 * this interface.
 *
 * The port owns the bytes: a sender builds its run in a reservation of the port; a receiver reads a run where the port
 * has put it, and releases it. The port also owns the ICRC, since only it knows the IP header, which the ICRC covers:
 * it writes the ICRCs of sent packets, and drops and counts received packets with wrong ones.
 */
import type { Arena } from '../wire/arena.ts'

/** Path and headers of a flow's packets. Addresses are 16 bytes: IPv6, or IPv4 as ::ffff:a.b.c.d. */
export interface FlowAddress {
  readonly source: Uint8Array
  readonly destination: Uint8Array
  /** UDP source port. */
  readonly sourcePort: number
  readonly trafficClass: number
  readonly hopLimit: number
  /** IPv6 flow label, 20 bits. */
  readonly flowLabel: number
}

/**
 * A received run: `count` packets of `packetBytes` bytes, the last of `lastBytes`, from `offset` of the arena on.
 */
export interface ReceivedRun {
  offset: number
  packetBytes: number
  count: number
  lastBytes: number
  /** The number of the source address among the port's peers; -1 if no flow to it is open. */
  peer: number
  /** Path and headers of the run's packets, for GRH, tracer and pcap. */
  flowAddress: FlowAddress
  /** IPv4 identification of the first packet. The following ones count up at least while `requireSeal` demands it. */
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
  dropped: number
}

/** The outcome of a run, for taps; those after 'wrong icrc' are faults of a layer. */
export type TapOutcome = 'passed' | 'wrong icrc' | 'dropped' | 'corrupted' | 'duplicated' | 'reordered' | 'delayed'

/** A run as a tap sees it. The port reuses the record, so do not keep it or the bytes. */
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

/** A record for runs that a port passes to its tap. */
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

/** Gets every run that a port sends and receives, including ICRCs; it must not change them, and must not throw. */
export type PortTap = (run: TappedRun) => void

/** Bytes of `Port.staging`. */
export const STAGING_BYTES = 0x1_0000

/** Bytes of `Port.scratch`. */
export const SCRATCH_BYTES = 4160

export interface Port {
  readonly arena: Arena
  /** Offset of SCRATCH_BYTES bytes in the arena for the port's owner. */
  readonly scratch: number
  /** Maximum packets of a run. */
  readonly maxPackets: number
  /** Maximum packets of a run that has only single-packet messages; absent where short runs have no advantage. */
  readonly maxSinglePacketRun?: number | undefined
  /** Maximum bytes of a run. */
  readonly maxBytes: number
  /** Maximum path MTU of the link in bytes, when the port was created. */
  readonly pathMtu: number
  /**
   * Maximum window bytes (payload, and 64 per packet) that a queue pair should have unacknowledged; absent where no
   * buffer can overflow.
   */
  readonly windowBytes?: number | undefined
  /**
   * Maximum window bytes that all queue pairs of this port together should have unacknowledged at one peer; absent
   * where no buffer can overflow.
   */
  readonly sharedWindowBytes?: number | undefined
  readonly counters: PortCounters

  /**
   * Adds a local address (of the GID table); no effect if the port has it, or for a link-local address that the system
   * lacks or another socket or port uses. Throws SystemError if the system does not allow it, and an Error if another
   * port of a memory link has it and it is not link-local. `claim` 'spare': another process may take over the address.
   */
  addAddress(address: Uint8Array, claim?: 'own' | 'spare'): void
  /** Stops receiving on an address. A port with sockets loses packets of flows from it until it is added again. */
  removeAddress(address: Uint8Array): void
  /**
   * Joins a multicast group: runs to it are received here, including this port's own; no effect if it was joined.
   * Throws SystemError if the system does not allow it; a UDP port may need an address of the group's family, and
   * throws a RangeError without one.
   */
  joinGroup(group: Uint8Array): void
  /**
   * Called when the device's network interface was replaced by another one: link-local destinations and groups use the
   * new one. Absent if the port does not depend on an interface's index.
   */
  setInterface?(interfaceIndex: number): void
  leaveGroup(group: Uint8Array): void
  /**
   * Opens a flow. Returns its number, which equal records share. Throws a RangeError for a record with a value out of
   * range, or that this port cannot send.
   */
  openFlow(address: FlowAddress): number
  /** Opens an open flow once more: it needs one more `closeFlow`. Throws an Error if it is not open. */
  reopenFlow(flow: number): void
  closeFlow(flow: number): void
  /** The number of this source address in `ReceivedRun.peer`, while a flow to it is open; -1 otherwise. */
  peerOf(address: Uint8Array): number

  /**
   * As of `TransmitSink` in transport/types.ts. The ICRCs of a run are written when `commit` returns, unless the port
   * omits them (`requireSeal`); fault layers may change its bytes until the next call of these three functions.
   */
  reserve(bytes: number): number
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
  /** Ends a poll: sends committed runs, and releases the reservation. */
  flush(): void

  /**
   * Receives the next run with correct ICRCs; false if there is none, or if it has to wait for `release`. Its bytes are
   * valid until `release`.
   */
  receive(run: ReceivedRun): boolean
  /** Releases all runs received since the last `release`. */
  release(): void
  /**
   * Called to schedule the device: a run has arrived at an empty port, or, at a port with sockets, a `reserve` that
   * failed may succeed now. It must not call `receive`.
   */
  wake: (() => void) | null

  /**
   * The object that receives messages at this port, set by its owner; null while the owner needs packets. This property
   * and the next three are absent from ports that cannot pass messages without packets.
   */
  receiver?: object | null | undefined
  /** Offset of STAGING_BYTES bytes in the arena, which all ports of the arena share. */
  readonly staging?: number | undefined
  /** The `receiver` of the port at a flow's destination; null if there is none, or if packets must be sent to it. */
  receiverOf?: ((flow: number) => object | null) | undefined
  /** The `ReceivedRun.peer` that the destination sees for runs of a flow. */
  peerAt?: ((flow: number) => number) | undefined
  /** Whether runs may wait to be received. Absent from ports that cannot tell. */
  isWaiting?: (() => boolean) | undefined

  /** The tap or null; set by `addTap` of tap.ts, through which several taps share it. */
  tap: PortTap | null
  /**
   * +1 when a tap or a layer begins to need real ICRCs, and identifications that count up within a run; -1 when it no
   * longer does. Without this need a port may omit them.
   */
  requireSeal(change: 1 | -1): void
  /**
   * Reserves a buffer of `bytes` bytes, at most `maxBytes`, in the arena for a layer that keeps packets, until
   * `releaseLayerBuffer`. Returns its offset, or -1 if none is free.
   */
  takeLayerBuffer(bytes: number): number
  releaseLayerBuffer(offset: number): void

  /** For layers that delay packets: when to call `onTimeout` next (µs), Infinity for never. */
  nextTimeout(): number
  onTimeout(now: number): void
  close(): void
}
