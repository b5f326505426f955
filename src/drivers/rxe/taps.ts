/*
 * The taps of the soft device (core/driver-contract.ts): rows and words of the engine become objects and requests.
 */
import type { DeviceTaps, PostedRequest, RequestReader, RequestTaps } from '../../core/driver-contract.ts'
import type { CoreObject } from '../../core/model.ts'
import type { RequestElement } from '../../spec/check/requests.ts'
import { joinWords, TWO_32 } from '../../spec/memory.ts'
import { SendFlags, SRQN_SHIFT, WrOpcode } from '../../spec/work.ts'
import type { Engine } from '../../transport/engine/engine.ts'
import { Completion, Flush, Receive, Send, Sge, type WorkTaps } from '../../transport/engine/types.ts'
import { polledCompletions } from './rings/completion-ring.ts'
import { loadReceive, pendingReceives, type ReceiveQueue } from './rings/receive-queue.ts'
import { pendingSends } from './rings/work-source.ts'
import type { CqObject, QpObject, RxeState, SrqObject } from './state.ts'

const { RDMA_WRITE, RDMA_WRITE_WITH_IMM, RDMA_READ } = WrOpcode.values
const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, ATOMIC_WRITE, FLUSH } = WrOpcode.values
const { SIGNALED } = SendFlags.values
/** Mask of the send flags of an XRC request. The higher bits are the number of an SRQ. */
const SEND_FLAGS = (1 << SRQN_SHIFT) - 1

/** Opcodes whose requests name memory of the peer. */
const remoteOperations: ReadonlySet<number> = new Set([
  RDMA_WRITE,
  RDMA_WRITE_WITH_IMM,
  RDMA_READ,
  ATOMIC_CMP_AND_SWP,
  ATOMIC_FETCH_AND_ADD,
  ATOMIC_WRITE,
  FLUSH,
])

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
  return opcode === ATOMIC_CMP_AND_SWP || opcode === ATOMIC_FETCH_AND_ADD ? 8 : words[at + Send.LENGTH]
}

/** The destination of the datagram at `words[at]` (`Send`); undefined if its address handle (`flow`) was destroyed. */
const destinationOf = (ahs: RxeState['ahs'], words: Uint32Array, at: number): PostedRequest['destination'] => {
  for (const { flow, address } of ahs.values())
    if (flow === words[at + Send.FLOW]) return { gid: address.dgid, qkey: words[at + Send.QKEY] }
  return undefined
}

/** The send at `words[at]` (`Send`) of the queue pair in `row`. */
const sendAt = (
  { ahs, engine }: RxeState,
  row: number,
  qp: QpObject,
  words: Uint32Array,
  at: number,
): PostedRequest => {
  const isDatagram = qp.class.name === 'ud_qp'
  const isXrc = qp.class.name.startsWith('xrc_')
  const opcode = words[at + Send.OPCODE]
  const flags = words[at + Send.FLAGS]
  const hasRemote = !isDatagram && remoteOperations.has(opcode) && words[at + Send.REFUSED] === 0
  return {
    wrId: joinWords(words[at + Send.ID_HI], words[at + Send.ID_LO]),
    opcode,
    flags: isXrc ? flags & SEND_FLAGS : flags,
    isSignaled: (flags & SIGNALED) !== 0 || engine().signalsAll(row),
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
    destination: isDatagram ? destinationOf(ahs, words, at) : undefined,
  }
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

/** SRQs by their queues. An XRC target gets its SRQ by each packet, so the SRQ is no parent of it. */
const sharedOwners = new WeakMap<ReceiveQueue, SrqObject>()

const sharedOwnerOf = (queue: ReceiveQueue, { srqs }: RxeState): SrqObject | undefined => {
  const known = sharedOwners.get(queue)
  if (known !== undefined) return known
  for (const srq of srqs.values())
    if (srq.state.queue === queue) {
      sharedOwners.set(queue, srq)
      return srq
    }
  return undefined
}

/** The object whose receives the queue pair in `row` takes: itself, or an SRQ; undefined if the SRQ was destroyed. */
const receiveOwnerOf = (device: RxeState, row: number): QpObject | SrqObject | undefined => {
  const queue = device.rings[row]?.receive
  return queue?.isShared ? sharedOwnerOf(queue, device) : device.qps[row]
}

/** The engine's taps. `watched`: the device's. */
export const engineTaps = (device: RxeState, watched: DeviceTaps): WorkTaps => ({
  watched,
  inError(qpn, isInError) {
    if (isInError) device.inError.add(qpn)
    else device.inError.delete(qpn)
    watched.inError?.(qpn, isInError)
  },
  loaded(row, words, at) {
    const qp = device.qps[row]
    if (qp !== undefined) watched.requests?.loaded(qp, sendAt(device, row, qp, words, at))
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
})

/** Receives may have been posted to the queue of the row. */
export const tapReceives = (device: RxeState, taps: RequestTaps, row: number): void => {
  const qp = device.qps[row]
  const owner = receiveOwnerOf(device, row)
  if (qp !== undefined && owner !== undefined) taps.receivesPosted(owner, qp)
}

/** A completion (`Completion`) was written to a CQ, or is lost. */
export const tapCompletion = (
  device: RxeState,
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

const engineOf = ({ context }: CoreObject): Engine => (context!.device.state as RxeState).engine()

const NO_RECEIVES: readonly PostedRequest[] = []
/** Buffer for one receive, with more elements than any device allows (max_sge, max_srq_sge). */
const words = new Uint32Array(Receive.SGE + 1024 * Sge.WORDS)

/** Maximum rounds of `settle`: each executes as much as a turn of the event loop. */
const MAX_ROUNDS = 16

export const requestReader: RequestReader = {
  *queuesOf(context) {
    const { qps, srqs } = context.device.state as RxeState
    for (const qp of qps) if (qp?.context === context) yield qp
    for (const srq of srqs.values()) if (srq.context === context) yield srq
  },
  receives(object, from) {
    const queue = queueOf(object)
    const count = queue === undefined ? 0 : pendingReceives(queue) - from
    if (queue === undefined || count <= 0) return NO_RECEIVES
    return Array.from({ length: count }, (_, i) => {
      loadReceive(queue, queue.takenIndex + from + i, words, 0)
      return receiveAt(words, 0)
    })
  },
  completions: ({ state }) => {
    const ring = state as CqObject['state']
    return { polled: polledCompletions(ring), written: ring.completions }
  },
  peerOf(qp) {
    const { row, address } = (qp as QpObject).state
    return address && { gid: address.dgid, qpn: engineOf(qp).query(row).destQpn }
  },
  hasMember: ({ state }, group) => (state as RxeState).groups.rowsOf(group).length > 0,
  pendingSends: qp => pendingSends((qp as QpObject).state.send),
  settle(qp) {
    const { row, send } = (qp as QpObject).state
    const device = qp.context!.device.state as RxeState
    const peer = device.failures.peerOf(row)?.state
    if (pendingSends(send) > 0) device.catchUp(row)
    for (let round = 0; round < MAX_ROUNDS && pendingSends(send) > 0; round++) {
      const hasPeerWorked = peer !== undefined && peer !== device && peer.pollNow()
      if (!device.pollNow() && !hasPeerWorked) return
    }
  },
  window: qp => engineOf(qp).windowOf((qp as QpObject).state.row),
}
