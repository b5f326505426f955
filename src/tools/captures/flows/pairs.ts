/*
 * Joins the flows of both directions of a connection by an answer whose PSN only one flow has sent.
 */
import { psnDifference } from '../../../transport/wire/bth.ts'
import { type Flow, MAX_GAP, type PeerSource, RING } from './flow.ts'

/** PSNs of requests that were sent last, for finding the peer of a flow of answers. */
const RECENT = 1 << 17

export const hashOf = (a: number, b: number, c: number, d: number): number => {
  let hash =
    Math.imul(a, 0x9e37_79b1) ^ Math.imul(b, 0x85eb_ca6b) ^ Math.imul(c, 0xc2b2_ae35) ^ Math.imul(d, 0x27d4_eb2f)
  hash ^= hash >>> 15
  hash = Math.imul(hash, 0x2c1b_3c6d)
  return hash ^ (hash >>> 13)
}

export class PairTable {
  readonly #flows: readonly Flow[]
  /** By hash of both addresses and PSN: number of a flow plus one; negative: several. */
  #recent = new Int32Array(RECENT)

  constructor(flows: readonly Flow[]) {
    this.#flows = flows
  }

  remember(flow: Flow, psn: number): void {
    const number = flow.number + 1
    const slot = hashOf(flow.source, flow.destination, psn, flow.service) & (RECENT - 1)
    const known = this.#recent[slot]
    const other = known === 0 ? undefined : this.#flows[Math.abs(known) - 1]
    const isRival =
      other !== undefined &&
      other !== flow &&
      other.peer === undefined &&
      other.source === flow.source &&
      other.destination === flow.destination &&
      other.nextPsn >= 0 &&
      Math.abs(psnDifference(psn, other.nextPsn)) < RING * 4
    this.#recent[slot] = isRival ? -number : number
  }

  /** Finds the requester of an answer by its PSN, if only one can be it. */
  pairByPsn(flow: Flow, psn: number): void {
    const slot = hashOf(flow.destination, flow.source, psn, flow.service) & (RECENT - 1)
    const number = this.#recent[slot]
    if (number <= 0) return
    const peer = this.#flows[number - 1]
    // A queue pair that is connected to itself looks like two that the capture shows one half of each.
    if (
      peer === flow ||
      peer.peer !== undefined ||
      peer.source !== flow.destination ||
      peer.destination !== flow.source
    )
      return
    const behind = psnDifference(peer.nextPsn, psn)
    if (behind > 0 && behind < MAX_GAP) this.pair(flow, peer, 'PSN')
  }

  pair(flow: Flow, peer: Flow, source: PeerSource): void {
    flow.peer = peer
    flow.peerSource = source
    peer.peer = flow
    peer.peerSource = source
  }
}
