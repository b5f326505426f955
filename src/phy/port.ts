/*
 * A port to a network: runs of UDP payloads are sent and received, each with a record of addresses
 * (docs/decisions/engines-without-io.md). The memory link, UDP and the layers that wrap any port (faults, pcap, tracer)
 * implement this interface.
 *
 * The port owns the bytes: a sender builds its run in a reservation of the port, a receiver reads a run where the port
 * has put it and releases it. The port also owns the ICRC, since only it knows the IP header that the ICRC covers: it
 * seals what is sent, and drops and counts what is received with a wrong one.
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

/** A received run; the port refills one such record, so do not keep it. */
export interface ReceivedRun {
  offset: number
  packetBytes: number
  count: number
  lastBytes: number
  /** The number of the source address among the peers that flows were opened to; -1 if there is no flow to it. */
  peer: number
  /** The flow record of the sender, for GRH, tracer and pcap. */
  from: FlowAddress
  /** IPv4 identification of the first packet; it counts up within the run. */
  identification: number
}

/** The record before the first run was received. */
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
  from: noAddress,
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

/** The outcome of a run, for taps. Only a fault layer drops, changes or delays runs. */
export type TapOutcome = 'passed' | 'wrong icrc' | 'dropped' | 'corrupted' | 'duplicated' | 'reordered' | 'delayed'

/** A run as a tap sees it; the port refills one such record, so keep neither it nor the bytes. */
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

/** A record for the run that a port shows its tap. */
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

/** Sees every run that a port sends and receives, ICRCs included; it must not change them, and must not throw. */
export type PortTap = (run: TappedRun) => void

/** Bytes of `Port.staging`. */
export const STAGING_BYTES = 0x1_0000

/** Bytes of `Port.scratch`. */
export const SCRATCH_BYTES = 4160

export interface Port {
  readonly arena: Arena
  /** Offset of SCRATCH_BYTES in the arena for the port's owner. */
  readonly scratch: number
  readonly maxPackets: number
  /** Packets of one run of single-packet messages; absent where shorter runs gain nothing. */
  readonly soonPackets?: number | undefined
  readonly maxBytes: number
  /** Largest path MTU in bytes that fits the link, when the port was made. */
  readonly pathMtu: number
  /**
   * Maximum window bytes (payload, and 64 per packet) that a sender should have unacknowledged; absent where nothing
   * can overflow.
   */
  readonly windowBytes?: number | undefined
  /** The same for all senders of this port together, to one peer. */
  readonly sharedWindowBytes?: number | undefined
  readonly counters: PortCounters

  /**
   * Adds a local address (of the GID table); one that the port has is ignored. Throws SystemError if the system does
   * not allow it. `spare`: another process may take the address over.
   */
  addAddress(address: Uint8Array, claim?: 'own' | 'spare'): void
  /** Stops receiving on an address; flows from it lose what they send until it is added again. */
  removeAddress(address: Uint8Array): void
  /**
   * Joins a multicast group: runs to it arrive here, also those that this port sends; one that the port has joined is
   * ignored. Throws SystemError as `addAddress`.
   */
  joinGroup(group: Uint8Array): void
  /**
   * The port's interface was replaced: link-local destinations and groups use the new one. Absent where no interface
   * matters.
   */
  moveTo?(interfaceIndex: number): void
  leaveGroup(group: Uint8Array): void
  /**
   * Opens a path to a destination: returns its number, which equal records share. Throws a RangeError for a record that
   * no header can hold, or that this port cannot send.
   */
  openFlow(address: FlowAddress): number
  /** Opens an open flow once more: it stays open until one more `closeFlow`. */
  holdFlow(flow: number): void
  closeFlow(flow: number): void
  /** The number by which `ReceivedRun.peer` names this source address, while a flow to it is open; -1 otherwise. */
  peerOf(address: Uint8Array): number

  /**
   * As `TransmitSink` in transport/types.ts. A run is sealed when `commit` returns; fault layers may change its bytes
   * until the next `commit` or `flush`.
   */
  reserve(bytes: number): number
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
  /** Ends a turn of sending: committed runs are sent, and the reservation is released. */
  flush(): void

  /**
   * The next run, with correct ICRCs; false if there is none, or it has to wait for the next `release`. Its bytes stay
   * valid until `release`.
   */
  receive(run: ReceivedRun): boolean
  /** Releases all runs received since the last `release`. */
  release(): void
  /** Called when a run arrives at an empty port, to schedule the device. It must not receive in the call. */
  wake: (() => void) | null

  /**
   * Ports of one process that pass messages without packets (absent on others): the receiver of this port, set by its
   * owner; null while all must be packets.
   */
  receiver?: object | null | undefined
  /** Offset of STAGING_BYTES in the arena, which all ports of the arena share. */
  readonly staging?: number | undefined
  /** The receiver of a flow; null if there is none, or it must be sent packets. */
  receiverOf?: ((flow: number) => object | null) | undefined
  /** `ReceivedRun.peer` of the runs of that flow. */
  peerAt?: ((flow: number) => number) | undefined
  /** Whether runs wait to be received. */
  isWaiting?: (() => boolean) | undefined

  /** The tap, or null; set by `addTap` of tap.ts, which lets several share it. */
  tap: PortTap | null
  /** For ports that can omit ICRCs: +1 while a user needs the real bytes, -1 afterwards. */
  requireSeal(change: 1 | -1): void
  /**
   * Reserves up to `maxBytes` of the arena for a layer that keeps packets, until `giveRoom`: returns an offset, or -1.
   */
  takeRoom(bytes: number): number
  giveRoom(offset: number): void

  /** For layers that delay packets: when to call `onTimeout` next (µs), Infinity for never. */
  nextTimeout(): number
  onTimeout(now: number): void
  close(): void
}
