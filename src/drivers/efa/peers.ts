/*
 * Addresses of the network and the port's flows to them: those of address handles and of queue pairs that talk to them, and
 * strangers, which have sent packets and are forgotten when they are many.
 */
import { addressText, isSameAddress } from '../../transport/wire/address.ts'
import type { EfaState } from './device-state.ts'
import { HOP_LIMIT } from './engine-common.ts'
import type { Peer } from './state.ts'

/** Sources of packets that have no address handle here; with one more, the oldest without requests is forgotten. */
const MAX_STRANGERS = 4096
/** The UDP source port of all packets. */
const SOURCE_PORT = 4791

/** Opens a flow to an address. Throws as `Port.openFlow`. */
export const openPeer = ({ port, gid, peers, now }: EfaState, address: Uint8Array): Peer => {
  const text = addressText(address)
  let peer = peers.byText.get(text)
  if (peer === undefined) {
    const flow = port.openFlow({
      source: gid,
      destination: address,
      sourcePort: SOURCE_PORT,
      trafficClass: 0,
      hopLimit: HOP_LIMIT,
      flowLabel: 0,
    })
    const number = peers.free.pop() ?? peers.byText.size
    peer = { number, address: address.slice(), text, flow, uses: 0, ahs: new Map(), source: -1, heardAt: now }
    peers.byText.set(text, peer)
  }
  peer.uses++
  return peer
}

export const closePeer = ({ port, peers }: EfaState, peer: Peer): void => {
  if (--peer.uses > 0) return
  peers.byText.delete(peer.text)
  peers.free.push(peer.number)
  if (peers.bySource[peer.source] === peer) peers.bySource[peer.source] = undefined
  port.closeFlow(peer.flow)
}

/** Sends a packet that was built at `at` of the port's memory. */
export const commit = ({ port, counts }: EfaState, at: number, bytes: number, { flow }: Peer): void => {
  port.commit(at, bytes, 1, bytes, flow)
  counts.tx_pkts++
  counts.tx_bytes += bytes
}

const forgetStranger = (efa: EfaState, peer: Peer): void => {
  efa.peers.strangers.delete(peer)
  closePeer(efa, peer)
}

/** Forgets strangers without requests that were not heard since `time`. */
export const forgetStrangers = (efa: EfaState, time: number): void => {
  for (const peer of efa.peers.strangers.keys()) if (peer.uses === 1 && peer.heardAt <= time) forgetStranger(efa, peer)
}

/** Forgets the oldest stranger without requests; false if all have some. */
const forgetOldest = (efa: EfaState): boolean => {
  const { strangers } = efa.peers
  // those that were heard since the last time stay
  for (const [peer, heardAt] of strangers)
    if (peer.heardAt !== heardAt) {
      strangers.delete(peer)
      strangers.set(peer, peer.heardAt)
    } else if (peer.uses === 1) {
      forgetStranger(efa, peer)
      return true
    }
  return false
}

/** The peer of the received run; undefined if there are too many that have sent requests. */
export const sourcePeer = (efa: EfaState): Peer | undefined => {
  const { run, now, peers } = efa
  const { peer: number, flowAddress } = run
  const known = number < 0 ? undefined : peers.bySource[number]
  if (known !== undefined && isSameAddress(known.address, flowAddress.source)) {
    known.heardAt = now
    return known
  }
  let peer = peers.byText.get(addressText(flowAddress.source))
  if (peer === undefined) {
    if (peers.strangers.size >= MAX_STRANGERS && !forgetOldest(efa)) return undefined
    try {
      peer = openPeer(efa, flowAddress.source)
    } catch {
      return undefined
    }
    peers.strangers.set(peer, now)
  }
  peer.heardAt = now
  const source = efa.port.peerOf(peer.address)
  if (source >= 0) {
    peers.bySource[source] = peer
    peer.source = source
  }
  return peer
}
