/*
 * Addresses of the network and the port's flows to them: those of address handles, of queue pairs that talk to them,
 * and of senders whose packets a queue pair has taken (docs/decisions/shares.md). Strangers, whose packets were
 * refused, keep their flows too, and are forgotten when they are many.
 */
import type { Receiver } from '../../core/objects/peer-table.ts'
import { addressText, isSameAddress } from '../../transport/wire/address.ts'
import type { EfaState } from './device-state.ts'
import { HOP_LIMIT } from './engine-common.ts'
import type { Peer, QueuePair, Sender } from './state.ts'

/** With one more stranger, the oldest is forgotten. */
const MAX_STRANGERS = 4096
/**
 * Strangers that become known in one poll: each costs system calls. Packets of others are not refused, but come again.
 */
const MAX_OPENED = 16
/** The UDP source port of all packets. */
const SOURCE_PORT = 4791

/** Opens a flow to an address. Throws as `Port.openFlow`. */
export const openPeer = (efa: EfaState, address: Uint8Array): Peer => {
  const { peers } = efa
  const text = addressText(address)
  const known = peers.byText.get(text)
  if (known === undefined) return addPeer(efa, address, text)
  // who is needed is no stranger any more
  if (!peers.strangers.delete(known)) known.uses++
  return known
}

const addPeer = (efa: EfaState, address: Uint8Array, text: string): Peer => {
  const { peers, now } = efa
  const peer = {
    number: peers.free.pop() ?? peers.byText.size,
    address: address.slice(),
    text,
    flow: 0,
    uses: 1,
    ahs: new Map(),
    source: -1,
    heardAt: now,
    senders: new Map(),
  }
  try {
    peer.flow = openFlow(efa, address)
  } catch (error) {
    peers.free.push(peer.number)
    throw error
  }
  peers.byText.set(text, peer)
  return peer
}

/** If the port has no more flows, strangers go. */
const openFlow = (efa: EfaState, address: Uint8Array): number => {
  const { port, gid } = efa
  const path = {
    ...{ source: gid, destination: address, sourcePort: SOURCE_PORT },
    ...{ trafficClass: 0, hopLimit: HOP_LIMIT, flowLabel: 0 },
  }
  try {
    return port.openFlow(path)
  } catch (error) {
    if (!(error instanceof RangeError) || !forgetOldest(efa)) throw error
    return port.openFlow(path)
  }
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

/** Forgets strangers that were not heard since `time`. */
export const forgetStrangers = (efa: EfaState, time: number): void => {
  for (const peer of efa.peers.strangers.keys()) if (peer.heardAt <= time) forgetStranger(efa, peer)
}

/** Forgets the oldest stranger; false if there is none. */
const forgetOldest = (efa: EfaState): boolean => {
  const { strangers } = efa.peers
  // those that were heard since the last time stay
  for (const [peer, heardAt] of strangers)
    if (peer.heardAt !== heardAt) {
      strangers.delete(peer)
      strangers.set(peer, peer.heardAt)
    } else {
      forgetStranger(efa, peer)
      return true
    }
  return false
}

/** Notes the sender of the received run. */
export const noteSender = (efa: EfaState): void => {
  const { run, sender, now } = efa
  const { source } = run.flowAddress
  for (let i = 0; i < 16; i++) sender.address[i] = source[i]!
  sender.peer = peerOf(efa, source)
  if (sender.peer !== undefined) sender.peer.heardAt = now
}

const peerOf = ({ run, port, peers }: EfaState, source: Uint8Array): Peer | undefined => {
  // A run may have been received before its address became known. All peers have flows, and so a number of the port.
  const number = run.peer < 0 ? port.peerOf(source) : run.peer
  if (number < 0) return undefined
  const noted = peers.bySource[number]
  if (noted !== undefined && isSameAddress(noted.address, source)) return noted
  const peer = peers.byText.get(addressText(source))
  if (peer !== undefined) {
    peers.bySource[number] = peer
    peer.source = number
  }
  return peer
}

/** The sender of the received run, with a flow for a refusal; undefined if there are too many. */
export const strangerToRefuse = (efa: EfaState): Peer | undefined => {
  const { sender, peers } = efa
  if (sender.peer !== undefined) return sender.peer
  if (efa.opened === MAX_OPENED) return undefined
  efa.opened++
  if (peers.strangers.size >= MAX_STRANGERS) forgetOldest(efa)
  const peer = openSender(efa, sender)
  if (peer !== undefined) peers.strangers.set(peer, efa.now)
  return peer
}

const openSender = (efa: EfaState, sender: Sender): Peer | undefined => {
  try {
    sender.peer = openPeer(efa, sender.address)
  } catch {
    // No route, or no flow.
  }
  return sender.peer
}

export const receiverOf = ({ object: { context }, qpn }: QueuePair): Receiver => ({ context, qpn })

/**
 * Takes a new sender for a queue pair: the peer is used once more. Undefined if the account may have no more of them.
 */
export const takeSender = (efa: EfaState, qp: QueuePair): Peer | undefined => {
  const { sender, senders, addresses } = efa
  const receiver = receiverOf(qp)
  const account = receiver.context?.account
  if (!senders.take(receiver)) return undefined
  const held = sender.peer?.senders.get(account?.payer) ?? 0
  if (held === 0 && !addresses.take(receiver)) {
    senders.release(account)
    return undefined
  }
  const { peer } = sender
  if (peer === undefined) openSender(efa, sender)
  else if (!efa.peers.strangers.delete(peer)) peer.uses++
  if (sender.peer === undefined) {
    senders.release(account)
    addresses.release(account)
    return undefined
  }
  sender.peer.senders.set(account?.payer, held + 1)
  return sender.peer
}

/** Undoes `takeSender`. */
export const releaseSender = (efa: EfaState, { object }: QueuePair, peer: Peer): void => {
  const account = object.context?.account
  const held = peer.senders.get(account?.payer)!
  efa.senders.release(account)
  if (held > 1) peer.senders.set(account?.payer, held - 1)
  else {
    peer.senders.delete(account?.payer)
    efa.addresses.release(account)
  }
  closePeer(efa, peer)
}
