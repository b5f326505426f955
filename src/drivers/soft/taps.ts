/*
 * The taps of the soft device (core/driver-contract.ts): rows and words of the engine become objects and requests.
 */
import type { DeviceTaps, PostedRequest, RequestReader, RequestTaps } from '../../core/driver-contract.ts'
import type { CoreObject } from '../../core/model.ts'
import type { RequestElement } from '../../spec/check/requests.ts'
import { joinWords, TWO_32 } from '../../spec/memory.ts'
import { ATOMIC_BYTES, isAtomic, isRemote, SendFlags, SRQN_SHIFT, WrOpcode } from '../../spec/work.ts'
import type { Engine } from '../../transport/engine/engine.ts'
import { Completion, Flush, Receive, Send, Sge, type WorkTaps } from '../../transport/engine/types.ts'
import { lidOf } from '../../transport/wire/address.ts'
import { arenaOver } from '../../transport/wire/arena.ts'
import { polledCompletions } from './completion-queue.ts'
import { causeOfLostDatagram } from './lid-causes.ts'
import { routerHazardOf } from './path-causes.ts'
import type { ReceiveQueue } from './queues.ts'
import type { CqObject, QpObject, SoftState, SrqObject } from './state.ts'

const { FLUSH, ATOMIC_CMP_AND_SWP } = WrOpcode.values
const { SIGNALED } = SendFlags.values
/** Mask of the send flags of an XRC request. The higher bits are the number of an SRQ. */
const SEND_FLAGS = (1 << SRQN_SHIFT) - 1

const elementsAt = (words: Uint32Array, at: number, count: number): RequestElement[] => {
  const elements = new Array<RequestElement>(count)
  for (let i = 0, sge = at; i < count; i++, sge += Sge.WORDS)
    elements[i] = {
      address: words[sge + Sge.HI] * TWO_32 + words[sge + Sge.LO],
      length: words[sge + Sge.LENGTH],
      lkey: words[sge + Sge.LKEY],
    }
  return elements
}

const remoteBytes = (opcode: number, words: Uint32Array, at: number): number => {
  if (opcode === FLUSH) return words[at + Flush.LENGTH]
  return isAtomic(opcode) ? ATOMIC_BYTES : words[at + Send.LENGTH]
}

/** The destination of the datagram at `words[at]` (`Send`); undefined if its address handle was destroyed. */
const destinationOf = (
  { queues, paths }: SoftState,
  row: number,
  words: Uint32Array,
  at: number,
): PostedRequest['destination'] => {
  const address = words[at + Send.REFUSED] === 0 ? queues[row]?.destinations?.address() : undefined
  if (address === undefined) return undefined
  const gid = paths.datagramAddress(address)
  const hasNoGrh = lidOf(gid) >= 0 && !address.isGlobal
  return { gid, qkey: words[at + Send.QKEY], ...(hasNoGrh && { hasNoGrh }) }
}

/** The target of an initiator of DC, which it is connected to when it fetches a request. */
const targetOf = (
  { paths }: SoftState,
  { state: { targetQpn, address } }: QpObject,
): Pick<PostedRequest, 'destQpn' | 'destination'> => ({
  destQpn: targetQpn,
  destination: address && { gid: paths.peerAddress(address), qkey: 0 },
})

/** The send at `words[at]` (`Send`) of the queue pair in `row`. */
const sendAt = (device: SoftState, row: number, qp: QpObject, words: Uint32Array, at: number): PostedRequest => {
  const isDatagram = qp.class.name === 'ud_qp'
  const isXrc = qp.class.name.startsWith('xrc_')
  const opcode = words[at + Send.OPCODE]
  const flags = words[at + Send.FLAGS]
  const hasRemote = !isDatagram && isRemote(opcode) && words[at + Send.REFUSED] === 0
  const send: PostedRequest = {
    wrId: joinWords(words[at + Send.ID_HI], words[at + Send.ID_LO]),
    opcode,
    flags: isXrc ? flags & SEND_FLAGS : flags,
    isSignaled: (flags & SIGNALED) !== 0 || device.engine().signalsAll(row),
    length: words[at + Send.LENGTH],
    elements: elementsAt(words, at + Send.SGE, words[at + Send.SGES]),
    remote: hasRemote
      ? {
          address: words[at + Send.REMOTE_HI] * TWO_32 + words[at + Send.REMOTE_LO],
          length: remoteBytes(opcode, words, at),
          rkey: words[at + Send.RKEY],
        }
      : undefined,
    destQpn: isDatagram ? words[at + Send.DEST_QPN] & 0xff_ffff : undefined,
    destination: isDatagram ? destinationOf(device, row, words, at) : undefined,
  }
  const posted = qp.state.targetQpn === undefined ? send : { ...send, ...targetOf(device, qp) }
  if (opcode !== ATOMIC_CMP_AND_SWP) return posted
  const expected = joinWords(words[at + Send.COMPARE_HI], words[at + Send.COMPARE_LO])
  return { ...posted, swap: { expected, value: joinWords(words[at + Send.SWAP_HI], words[at + Send.SWAP_LO]) } }
}

/** The receive at `words[at]` (`Receive`). */
const receiveAt = (words: Uint32Array, at: number): PostedRequest => ({
  wrId: joinWords(words[at + Receive.ID_HI], words[at + Receive.ID_LO]),
  opcode: -1,
  flags: 0,
  isSignaled: true,
  length: words[at + Receive.LENGTH],
  elements: elementsAt(words, at + Receive.SGE, words[at + Receive.SGES]),
  remote: undefined,
  destQpn: undefined,
  destination: undefined,
})

/** An XRC target gets its SRQ by each packet, so the SRQ is no parent of it. */
const sharedOwnerOf = (queue: ReceiveQueue, { srqs, srqOwners }: SoftState): SrqObject | undefined => {
  const known = srqOwners.get(queue)
  if (known !== undefined) return known
  for (const srq of srqs.values())
    if (srq.state.queue === queue) {
      srqOwners.set(queue, srq)
      return srq
    }
  return undefined
}

/** The object whose receives the queue pair in `row` takes: itself, or an SRQ; undefined if the SRQ was destroyed. */
const receiveOwnerOf = (device: SoftState, row: number): QpObject | SrqObject | undefined => {
  const queue = device.queues[row]?.receive
  return queue?.isShared ? sharedOwnerOf(queue, device) : device.qps[row]
}

/** The engine's taps. `watched`: the device's. */
export const engineTaps = (device: SoftState, watched: DeviceTaps): WorkTaps => {
  /** Of the last loaded send: row, place and length of inline data. */
  let inlineRow = 0
  let inlineAt = 0
  let inlineLength = 0
  const copyInline = (to: Uint8Array): void =>
    device.queues[inlineRow]?.send.copyInline(inlineAt, 0, arenaOver(to), 0, inlineLength, inlineLength, inlineLength)
  return {
    watched,
    inError(qpn, isInError) {
      if (isInError) device.inError.add(qpn)
      else device.inError.delete(qpn)
      watched.inError?.(qpn, isInError)
    },
    loaded(row, words, at) {
      const qp = device.qps[row]
      if (qp === undefined) return
      inlineRow = row
      inlineAt = words[at + Send.INLINE_AT]
      inlineLength = words[at + Send.LENGTH]
      watched.requests?.loaded(qp, sendAt(device, row, qp, words, at), copyInline)
    },
    retired(row, count, isFlushed) {
      const qp = device.qps[row]
      if (qp !== undefined) watched.requests?.retired(qp, count, isFlushed)
    },
    taken(row, words, at) {
      const qp = device.qps[row]
      const owner = receiveOwnerOf(device, row)
      if (qp !== undefined && owner !== undefined) watched.requests?.taken(qp, owner, receiveAt(words, at))
    },
    notReady(row) {
      const qp = device.qps[row]
      if (qp !== undefined) watched.requests?.notReady(qp)
    },
  }
}

/** Receives may have been posted to the queue of the row. */
export const tapReceives = (device: SoftState, taps: RequestTaps, row: number): void => {
  const qp = device.qps[row]
  const owner = receiveOwnerOf(device, row)
  if (qp !== undefined && owner !== undefined) taps.receivesPosted(owner, qp)
}

/** A completion (`Completion`) was written to a CQ, or is lost. */
export const tapCompletion = (
  device: SoftState,
  taps: RequestTaps,
  cq: CqObject,
  words: Uint32Array,
  solicited: boolean,
  isWritten: boolean,
): void => {
  const qpn = words[Completion.QPN]
  const row = device.qpns.rowOf(qpn)
  const qp = row < 0 ? undefined : device.qps[row]
  if (qp === undefined) return
  taps.completed(qp, cq, {
    status: words[Completion.STATUS],
    opcode: words[Completion.OPCODE],
    bytes: words[Completion.BYTES],
    sourceQpn: words[Completion.SRC_QPN],
    solicited,
    position: isWritten ? cq.state.completions : 0,
  })
}

/** Not a shared receive queue: a queue pair, or a work queue of mlx5. */
const isQp = (object: CoreObject): object is QpObject => (object as QpObject).state.receive !== undefined

const queueOf = (object: CoreObject): ReceiveQueue | undefined => {
  if (isQp(object)) return object.state.receive.isShared ? undefined : object.state.receive
  return (object as SrqObject).state.queue
}

const engineOf = ({ context }: CoreObject): Engine => (context!.device.state as SoftState).engine()

/** Maximum rounds of `settle`: each executes as much as a turn of the event loop. */
const MAX_ROUNDS = 16

export const requestReader: RequestReader = {
  *queuesOf(context) {
    const { qps, srqs } = context.device.state as SoftState
    for (const qp of qps) if (qp?.context === context) yield qp
    for (const srq of srqs.values()) if (srq.context === context) yield srq
  },
  receives(object, from) {
    const receives: PostedRequest[] = []
    queueOf(object)?.visit(from, words => receives.push(receiveAt(words, 0)))
    return receives
  },
  completions: ({ state }) => {
    const queue = state as CqObject['state']
    return { polled: polledCompletions(queue), written: queue.completions, lastError: queue.lastError }
  },
  peerOf(qp) {
    const { row, address } = (qp as QpObject).state
    const { paths } = qp.context!.device.state as SoftState
    return address && { gid: paths.peerAddress(address), qpn: engineOf(qp).query(row).destQpn }
  },
  hasMember: ({ state }, group) => (state as SoftState).groups.rowsOf(group).length > 0,
  whyLost: causeOfLostDatagram,
  routerHazard: routerHazardOf,
  pendingSends: qp => (qp as QpObject).state.send.pending(),
  unannouncedSends: qp => (qp as QpObject).state.send.unannounced?.(qp.state.qpn) ?? 0,
  settle(qp) {
    const { row, send } = (qp as QpObject).state
    const device = qp.context!.device.state as SoftState
    const peer = device.failures.peerOf(row)?.state
    if (!send.isEmpty()) device.catchUp(row)
    for (let round = 0; round < MAX_ROUNDS && !send.isEmpty(); round++) {
      const hasPeerWorked = peer !== undefined && peer !== device && peer.pollNow()
      if (!device.pollNow() && !hasPeerWorked) return
    }
  },
  timeouts(qp) {
    const { retryCnt, retriesLeft } = engineOf(qp).query((qp as QpObject).state.row)
    return retryCnt - retriesLeft
  },
  window: qp => engineOf(qp).windowOf((qp as QpObject).state.row),
}
