/*
 * Senders to a UDP port. For each source (address, UDP port, traffic class, hop limit, and the local address): the flow
 * record of its runs, the headers that its ICRCs cover, and the next expected IPv4 identification. Any host can send,
 * so the table is bounded: it is cleared when it is full.
 */
import { ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import { type Flow, makeFlow } from '../../wire/icrc.ts'
import type { FlowTable } from '../flow-table.ts'
import { createKeyTable } from '../key-table.ts'
import type { FlowAddress } from '../port.ts'

/** The source of each receive buffer, as in `UdpBatches`. */
export interface SourceColumns {
  readonly addresses: ArrayLike<number>
  readonly ports: ArrayLike<number>
  readonly trafficClasses: ArrayLike<number>
  readonly hopLimits: ArrayLike<number>
}

export interface Senders {
  /** The number of the sender of a receive buffer to `destination`, which is the port's address number `local`. */
  find(batches: SourceColumns, buffer: number, destination: Uint8Array, local: number): number
  recordOf(sender: number): FlowAddress
  icrcFlowOf(sender: number): Flow
  /** The sender's number among the peers of the flow table; -1 if no flow has it as destination. */
  peerOf(sender: number): number
  /** The identification to try first: the last one plus 1. */
  nextIdentification(sender: number): number
  sawIdentification(sender: number, identification: number): void
  /** Whether the peer has sent identification 0, as Linux's unconnected sockets do, but rdma_rxe does not. */
  peerCounts(peer: number): boolean
  /** The number may be reused for another peer. */
  forgetPeer(peer: number): void
  /** Called when no sender number is in use: the table may be cleared. */
  settle(): void
}

const WORDS = 6
const MAX_SENDERS = 4096

export const createSenders = (flows: FlowTable): Senders => {
  const key = new Uint32Array(WORDS)
  let table = createKeyTable(WORDS)
  let records: FlowAddress[] = []
  let icrcFlows: Flow[] = []
  let versions: number[] = []
  let peers: number[] = []
  let next: number[] = []
  let counting = new Uint8Array(16)

  const peerOf = (sender: number): number => {
    const version = flows.version()
    if (versions[sender] !== version) {
      peers[sender] = flows.peerOf(0, table.keys, sender * WORDS)
      versions[sender] = version
    }
    return peers[sender]
  }

  const add = (destination: Uint8Array): number => {
    const sender = table.take(key, 0)
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
    next[sender] = 0
    return sender
  }

  return {
    find: (batches, buffer, destination, local) => {
      for (let i = 0; i < 4; i++) key[i] = batches.addresses[4 * buffer + i]
      key[4] = (batches.ports[buffer] << 16) | (batches.trafficClasses[buffer] << 8) | batches.hopLimits[buffer]
      key[5] = local
      const sender = table.find(key, 0)
      // The port's address number may be that of another group by now.
      return sender >= 0 && records[sender].destination === destination ? sender : add(destination)
    },
    recordOf: sender => records[sender],
    icrcFlowOf: sender => icrcFlows[sender],
    peerOf,
    nextIdentification: sender => next[sender],
    sawIdentification: (sender, identification) => {
      next[sender] = (identification + 1) & 0xffff
      if (identification !== 0) return
      const peer = peerOf(sender)
      if (peer < 0) return
      if (peer >= counting.length) {
        const bigger = new Uint8Array(2 * peer)
        bigger.set(counting)
        counting = bigger
      }
      counting[peer] = 1
    },
    peerCounts: peer => peer >= 0 && peer < counting.length && counting[peer] === 1,
    forgetPeer: peer => {
      if (peer < counting.length) counting[peer] = 0
    },
    settle: () => {
      if (table.size < MAX_SENDERS) return
      table = createKeyTable(WORDS)
      records = []
      icrcFlows = []
      versions = []
      peers = []
      next = []
    },
  }
}
