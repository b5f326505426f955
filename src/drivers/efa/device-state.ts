/*
 * The state of an EFA device.
 */
import type { Bytes } from '../../core/memory/address-space.ts'
import type { CallContext, Device } from '../../core/model.ts'
import type { PeerTable } from '../../core/objects/peer-table.ts'
import type { Timers } from '../../transport/engine/timers.ts'
import type { Memory } from '../../transport/engine/types.ts'
import type { Port, ReceivedRun } from '../../transport/phy/port.ts'
import type { QueueScan } from './scan.ts'
import type {
  AddressHandle,
  Arrival,
  CqObject,
  Element,
  Numbers,
  Pair,
  Peer,
  QpObject,
  Receive,
  ReceivedFrom,
  Request,
  Sender,
} from './state.ts'
import type { EfaTorment } from './torment.ts'
import type { Turns } from './turns.ts'

/** The state of a device and its engine. The parts of the engine are functions that get it. */
export interface EfaState {
  /** Tells it from other receivers of packets. */
  readonly kind: 'efa'
  /** The only GID: the device's address. */
  readonly gid: Uint8Array
  readonly port: Port
  /** Bytes of a packet's payload. */
  readonly mtu: number
  /** The device is registered after its state is made. */
  readonly device: () => Device<EfaState>
  /** The counters of Linux's driver, and what else `userdma stat` shows. */
  readonly counts: Counts
  /** Of the last poll, µs. */
  now: number

  // objects
  /** By QPN. */
  readonly qps: Map<number, QpObject>
  readonly cqs: Map<number, CqObject>
  /** The queues whose doorbells are read: queue pairs, and completion queues with a channel. */
  readonly scan: QueueScan<QpObject | CqObject>
  readonly ahs: Map<number, AddressHandle>
  readonly qpns: Numbers
  readonly cqNumbers: Numbers
  readonly ahNumbers: Numbers

  // memory of programs (memory.ts)
  /** Undefined before the first access. */
  memory: Memory | undefined
  /** A buffer through which messages within the process pass; its first bytes are for the GRH of a datagram. */
  readonly scratch: Bytes
  /** For the range of a peer, until the next one. */
  readonly range: Element
  /** The send and the receive that are being executed, and what arrives. */
  request: Request | undefined
  readonly receive: Receive
  readonly arrival: Arrival

  // addresses (peers.ts)
  readonly peers: Peers

  // requests that are executed later
  /** Long READs and WRITEs within the process, a part at each poll. */
  readonly transfers: Request[]
  readonly turns: Turns
  /** Retransmissions of pairs, waits for receives and for data of READs: by row (deadlines.ts). */
  readonly timers: Timers
  readonly timed: (Request | Pair | undefined)[]
  readonly timerRows: number[]

  // packets (srd/)
  readonly run: ReceivedRun
  /** Pairs that may have something to send, or have sent all. */
  readonly ready: Set<Pair>
  /** `ReceivedFrom` of all queue pairs, and the addresses that they have. */
  readonly senders: PeerTable
  readonly addresses: PeerTable
  /** WRITEs with immediate data of which packets are missing, and READs whose data is not acknowledged. */
  readonly writes: PeerTable
  readonly responses: PeerTable
  /** The sender of the received run. */
  readonly sender: Sender
  /** Peers that were opened in this poll to refuse packets. */
  opened: number
  /** To acknowledge at the end of the poll. */
  readonly toAcknowledge: ReceivedFrom[]
  forgetAt: number

  /** With `--torment`. */
  torment: EfaTorment | undefined
}

/** Whether a receiver of packets (`Port.receiver`) is a device of EFA. */
export const isEfaState = (receiver: object | null | undefined): receiver is EfaState =>
  (receiver as Partial<EfaState> | null | undefined)?.kind === 'efa'

/** What is known of addresses. */
interface Peers {
  /** By text of the address. */
  readonly byText: Map<string, Peer>
  /** Numbers of closed peers. */
  readonly free: number[]
  /** By the port's number of the source address. */
  readonly bySource: (Peer | undefined)[]
  /**
   * Peers that neither an address handle nor a queue pair needs, and when a packet came last. Oldest first. Their
   * packets were refused: any of them may be forgotten.
   */
  readonly strangers: Map<Peer, number>
}

export const stateOf = ({ device }: CallContext): EfaState => device.state as EfaState

/** The counters of Linux's driver, and what else `userdma stat` shows. */
export const createCounts = () => ({
  tx_bytes: 0,
  tx_pkts: 0,
  rx_bytes: 0,
  rx_pkts: 0,
  rx_drops: 0,
  send_bytes: 0,
  send_wrs: 0,
  recv_bytes: 0,
  recv_wrs: 0,
  rdma_read_wrs: 0,
  rdma_read_bytes: 0,
  rdma_read_wr_err: 0,
  rdma_read_resp_bytes: 0,
  rdma_write_wrs: 0,
  rdma_write_bytes: 0,
  rdma_write_wr_err: 0,
  rdma_write_recv_bytes: 0,
  retrans_bytes: 0,
  retrans_pkts: 0,
  retrans_timeout_events: 0,
  unresponsive_remote_events: 0,
})
type Counts = ReturnType<typeof createCounts>
