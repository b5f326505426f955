/*
 * A port to a network: runs of UDP payloads go out, runs come in, each with the record of addresses beside it
 * (docs/decisions/engines-without-io.md). The memory link, UDP and the layers that wrap any port (faults, pcap, tracer)
 * all have this shape. A port knows no queue pairs.
 *
 * The port owns the bytes: a sender builds its run in room that the port reserved, a receiver reads a run where the
 * port has put it and gives it back. The ICRC is the port's too, since only the port knows the IP header that the ICRC
 * covers: it seals what goes out and drops, and counts, what comes in with a wrong one.
 */
import type { Arena } from '../wire/arena.ts'

/**
 * Where packets of a flow go to, and how their headers look. Addresses are 16 bytes: IPv6, or IPv4 as ::ffff:a.b.c.d.
 */
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

/** A run as it was received; the port refills one such record, so nothing may keep it. */
export interface ReceivedRun {
  offset: number
  packetBytes: number
  count: number
  lastBytes: number
  /**
   * The number of the source address among the peers that flows were opened to; -1 for an address nobody here talks to.
   */
  peer: number
  /** The flow record of the sender, for GRH, tracer and pcap. */
  from: FlowAddress
  /** IPv4 identification of the first packet; it counts up within the run. */
  identification: number
}

/** The record of a run that nobody received yet. */
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

/** What became of a run that a tap is shown. Only a fault layer shows what it dropped, changed or held back. */
export type TapOutcome = 'passed' | 'wrong icrc' | 'dropped' | 'corrupted' | 'duplicated' | 'reordered' | 'delayed'

/** A run as a tap sees it; the port refills one such record, so nothing may keep it, nor the bytes. */
export interface TappedRun {
  direction: 'sent' | 'received'
  fate: TapOutcome
  arena: Arena
  offset: number
  packetBytes: number
  count: number
  lastBytes: number
  flow: FlowAddress
  identification: number
}

/** A record for the one run at a time that a port shows its tap. */
export const emptyTappedRun = (arena: Arena, direction: TappedRun['direction']): TappedRun => ({
  direction,
  fate: 'passed',
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
  /** Offset of SCRATCH_BYTES in the arena that nobody but the port's owner uses, to put together what it hands on. */
  readonly scratch: number
  readonly maxPackets: number
  /** A run of messages of one packet each ends after so many, to leave early; absent where that gains nothing. */
  readonly soonPackets?: number | undefined
  readonly maxBytes: number
  /** Largest path MTU in bytes that fits the link, when the port was made. */
  readonly pathMtu: number
  /**
   * Most bytes (payload, and 64 a packet) that a sender should have unacknowledged; absent where nothing can overflow.
   */
  readonly windowBytes?: number | undefined
  /** The same for all senders of this port together, to one peer. */
  readonly sharedWindowBytes?: number | undefined
  readonly counters: PortCounters

  /**
   * One more local address on which this port receives (those of the GID table); one that it has already is nothing.
   * Throws SystemError for one that the system does not give. `spare`: somebody else may take it for his own later.
   */
  addAddress(address: Uint8Array, claim?: 'own' | 'spare'): void
  /** Nothing is received there any more, and what flows from it send is lost, until it is added again. */
  removeAddress(address: Uint8Array): void
  /**
   * From now on runs to this multicast address arrive here too, also those that this port sends itself; a group that it
   * is in already is nothing. Throws SystemError as `addAddress`.
   */
  joinGroup(group: Uint8Array): void
  /**
   * Another interface is there in place of the port's own: link-local destinations are reached, and groups heard, by
   * that one from now on. Absent where no interface matters.
   */
  moveTo?(interfaceIndex: number): void
  leaveGroup(group: Uint8Array): void
  /**
   * A path to a destination: its number, shared by equal records. Throws a RangeError for a record that no header can
   * hold, and for one that this port cannot send.
   */
  openFlow(address: FlowAddress): number
  /** As if an open flow were opened once more: it stays open, and means the same path, until one more `closeFlow`. */
  holdFlow(flow: number): void
  closeFlow(flow: number): void
  /** The number by which `ReceivedRun.peer` names this source address, while a flow to it is open; -1 otherwise. */
  peerOf(address: Uint8Array): number

  /**
   * As `TransmitSink` in transport/types.ts. A run is sealed, if it is to be, when `commit` returns; its bytes are the
   * sender's to damage until the next `commit` or `flush`.
   */
  reserve(bytes: number): number
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
  /** Ends a turn of sending: what was committed leaves now, and what is left of the room reserved goes back. */
  flush(): void

  /**
   * The next run, with ICRCs right; false if there is none now, or it has to wait for the next `release`. The run stays
   * where it is until `release`.
   */
  receive(run: ReceivedRun): boolean
  /** Gives the bytes of all runs received since the last `release` back to the port. */
  release(): void
  /**
   * Called when a run arrives where none waited, so that the device gets its turn. It must not receive there and then.
   */
  wake: (() => void) | null

  /**
   * Ports of one process that hand messages on without packets (none of this is there on others): who receives here,
   * set by the port's owner; null while all that arrives must be packets.
   */
  receiver?: object | null | undefined
  /** Offset of STAGING_BYTES in the arena for what is handed on: the same room for all ports that share the arena. */
  readonly staging?: number | undefined
  /** The receiver that a flow leads to; null if it is to be reached with packets only, or nobody's. */
  receiverOf?: ((flow: number) => object | null) | undefined
  /** `ReceivedRun.peer` of what that flow carries. */
  peerAt?: ((flow: number) => number) | undefined
  /** Whether runs wait to be received. */
  isWaiting?: (() => boolean) | undefined

  /** The one tap, or null; set through `addTap` of tap.ts, which lets several share it. */
  tap: PortTap | null
  /**
   * For ports that can do without ICRCs between sender and receiver: +1 while somebody wants the real bytes, -1 when no
   * longer.
   */
  requireSeal(change: 1 | -1): void
  /**
   * At most `maxBytes` of the arena for a layer to keep packets in, until `giveRoom`: an offset, or -1 if there is none
   * now.
   */
  takeRoom(bytes: number): number
  giveRoom(offset: number): void

  /** For layers that hold packets back: when to call `onTimeout` next (µs), Infinity for never. */
  nextTimeout(): number
  onTimeout(now: number): void
  close(): void
}
