/*
 * Senders to a UDP port. A sender is a source (address, UDP port, traffic class, hop limit) and the local address to
 * which it sends. For each sender: the flow record of its runs, the ICRC's flow, and the next expected IPv4
 * identification. Any host can send, so the table is cleared when it has MAX_SENDERS senders.
 */
import { ROCE_UDP_PORT } from '../../../spec/wire/headers.ts'
import { type Flow, makeFlow } from '../../wire/icrc.ts'
import { type FlowTable, ONLY_PORT } from '../flow-table.ts'
import { createKeyTable } from '../key-table.ts'
import type { FlowAddress } from '../port.ts'

/** By receive buffer: the source of its packets, as in `UdpBatches`. */
interface SourceColumns {
  readonly addresses: ArrayLike<number>
  readonly ports: ArrayLike<number>
  readonly trafficClasses: ArrayLike<number>
  readonly hopLimits: ArrayLike<number>
}

export interface Senders {
  /**
   * The number of the sender of the packets in receive buffer `buffer`; adds a new sender. `destination`: the port's
   * address that has received them; `localNumber`: its number.
   */
  findOrAdd(columns: SourceColumns, buffer: number, destination: Uint8Array, localNumber: number): number
  recordOf(sender: number): FlowAddress
  icrcFlowOf(sender: number): Flow
  /** The sender's peer number in the flow table; -1 if no flow has the sender as destination. */
  peerOf(sender: number): number
  /** The identification to try first: the last one plus 1, modulo 65,536; 0 for a new sender. */
  nextIdentification(sender: number): number
  /** Stores the identification of the sender's last packet. */
  recordIdentification(sender: number, identification: number): void
  /**
   * Whether the peer probably numbers the segments of a message 0, 1, 2 …, as Linux's unconnected sockets do: it has
   * sent identification 0. rdma_rxe uses a counter.
   */
  numbersSegments(peer: number): boolean
  /** Forgets a peer whose number may be reused. */
  forgetPeer(peer: number): void
  /** Clears the table if it is full. Call this only while no sender's number is in use. */
  clearIfFull(): void
}

/** Words of a key: address (4 words), port and traffic class and hop limit, number of the local address. */
const KEY_WORDS = 6
const MAX_SENDERS = 4096

export const createSenders = (flows: FlowTable): Senders => {
  const key = new Uint32Array(KEY_WORDS)
  let table = createKeyTable(KEY_WORDS)
  let records: FlowAddress[] = []
  let icrcFlows: Flow[] = []
  /** By sender: its peer, and the version of the flow table for which the peer is valid. */
  let peers: number[] = []
  let versions: number[] = []
  /** By sender: the next expected identification. */
  let nextIdentifications: number[] = []
  /** By peer: 1 if it has sent identification 0. */
  let sentZero = new Uint8Array(16)

  const peerOf = (sender: number): number => {
    const version = flows.version()
    if (versions[sender] !== version) {
      peers[sender] = flows.peerOf(ONLY_PORT, table.keys, sender * KEY_WORDS)
      versions[sender] = version
    }
    return peers[sender]
  }

  const addSender = (destination: Uint8Array): number => {
    const sender = table.acquire(key, 0)
    const source = new Uint8Array(16)
    for (let i = 0; i < 16; i++) source[i] = key[i >> 2] >>> (8 * (3 - (i & 3)))
    const sourcePort = key[4] >>> 16
    records[sender] = {
      source,
      destination,
      sourcePort,
      trafficClass: (key[4] >>> 8) & 0xff,
      hopLimit: key[4] & 0xff,
      flowLabel: 0,
    }
    icrcFlows[sender] = makeFlow({ source, destination, sourcePort, destinationPort: ROCE_UDP_PORT })
    versions[sender] = -1
    nextIdentifications[sender] = 0
    return sender
  }

  return {
    findOrAdd: (columns, buffer, destination, localNumber) => {
      for (let i = 0; i < 4; i++) key[i] = columns.addresses[4 * buffer + i]
      key[4] = (columns.ports[buffer] << 16) | (columns.trafficClasses[buffer] << 8) | columns.hopLimits[buffer]
      key[5] = localNumber
      const sender = table.find(key, 0)
      // The local number may now belong to another group.
      return sender >= 0 && records[sender].destination === destination ? sender : addSender(destination)
    },
    recordOf: sender => records[sender],
    icrcFlowOf: sender => icrcFlows[sender],
    peerOf,
    nextIdentification: sender => nextIdentifications[sender],
    recordIdentification: (sender, identification) => {
      nextIdentifications[sender] = (identification + 1) & 0xffff
      if (identification !== 0) return
      const peer = peerOf(sender)
      if (peer < 0) return
      if (peer >= sentZero.length) {
        // `peer` is at least 16
        const larger = new Uint8Array(2 * peer)
        larger.set(sentZero)
        sentZero = larger
      }
      sentZero[peer] = 1
    },
    numbersSegments: peer => peer >= 0 && peer < sentZero.length && sentZero[peer] === 1,
    forgetPeer: peer => {
      if (peer < sentZero.length) sentZero[peer] = 0
    },
    clearIfFull: () => {
      if (table.size < MAX_SENDERS) return
      table = createKeyTable(KEY_WORDS)
      records = []
      icrcFlows = []
      versions = []
      peers = []
      nextIdentifications = []
    },
  }
}
