/*
 * Work requests of EFA, as a program has written them to its rings (spec/drivers/efa-queues.ts). A program can write
 * anything at any time: everything is read once and checked.
 */

import type { PostedRequest } from '../../core/driver-contract.ts'
import { type MemoryTable, rowAt } from '../../core/memory/region-table.ts'
import {
  EfaOperation,
  InlineBytes,
  KEY_MASK,
  ReceiveControl,
  ReceiveDescriptor,
  SendControl,
  SendDescriptor,
  SendElement,
} from '../../spec/drivers/efa-queues.ts'
import { SendFlags, WrOpcode } from '../../spec/work.ts'
import { Limits } from './attributes.ts'
import { loadDoorbell } from './doorbells.ts'
import {
  type Element,
  NO_TIMER,
  type QueuePair,
  type Receive,
  type ReceiveQueue,
  type Request,
  type SendQueue,
} from './state.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation

export const NO_INLINE = -1
const MAX_INLINE = InlineBytes[128]

const NO_BYTES = new Uint8Array(0)

const element = (): Element => ({ hi: 0, lo: 0, length: 0, key: 0, written: 0 })

/** `elements`, `inline`: room for those of a descriptor; default: none. */
export const emptyRequest = (qp: QueuePair, elements: readonly Element[] = [], inline = NO_BYTES): Request => ({
  qp,
  order: 0,
  id: 0,
  id1: 0,
  id2: 0,
  id3: 0,
  operation: 0,
  hasImm: false,
  imm: 0,
  ah: 0,
  destQpn: 0,
  qkey: 0,
  elements,
  count: 0,
  inlineLength: NO_INLINE,
  inline,
  length: 0,
  remoteHi: 0,
  remoteLo: 0,
  rkey: 0,
  remoteLength: 0,
  message: 0,
  peer: undefined,
  sent: 0,
  done: 0,
  rnrTries: 0,
  destination: undefined,
  isWaiting: false,
  heardAt: 0,
  timer: NO_TIMER,
})

/** The record into which a device reads sends. */
export const sendRecord = (qp: QueuePair): Request =>
  emptyRequest(qp, Array.from({ length: Limits.maxSendSges }, element), new Uint8Array(MAX_INLINE))

/** A copy with what is valid. */
export const copyRequest = (request: Request): Request => ({
  ...request,
  elements: request.elements.slice(0, request.count).map(one => ({ ...one })),
  inline: request.inlineLength === NO_INLINE ? NO_BYTES : request.inline.slice(0, request.inlineLength),
})

/** The key of the memory table whose 24 bits a program has; 0, which no region has, if there is none. */
export const tableKey = (table: MemoryTable, key: number): number => {
  const row = rowAt(table, key)
  return row < 0 ? 0 : table.key[row]!
}

const setKey = (table: MemoryTable, key: number, into: Element): void => {
  into.written = key & KEY_MASK
  into.key = tableKey(table, into.written)
}

/** The key that a program writes into descriptors. */
export const descriptorKey = (key: number): number => key >>> 8

const readElement = (table: MemoryTable, view: DataView, at: number, into: Element): void => {
  into.length = view.getUint32(at + SendElement.LENGTH, true)
  setKey(table, view.getUint32(at + SendElement.KEY, true), into)
  into.lo = view.getUint32(at + SendElement.ADDRESS, true)
  into.hi = view.getUint32(at + SendElement.ADDRESS + 4, true)
}

/** Number of descriptors that the program has written and the device has not read, at most the ring's. */
export const pendingSends = ({ doorbell, taken, depth }: SendQueue): number =>
  Math.min((loadDoorbell(doorbell) - taken) & 0xffff, depth)

/** Reads the next send. */
export const readSend = (table: MemoryTable, qp: QueuePair, queue: SendQueue, into: Request): void => {
  const { view, bytes } = queue.ring
  const at = queue.ring.at + (queue.taken & (queue.depth - 1)) * queue.bytes
  queue.taken++
  const control = view.getUint8(at + SendDescriptor.CONTROL_1)
  const size = view.getUint16(at + SendDescriptor.LENGTH, true)
  into.qp = qp
  into.order = qp.loaded++
  into.id = view.getUint16(at + SendDescriptor.REQUEST_ID, true)
  if (queue.hasLongIds) {
    into.id1 = view.getUint16(at + SendDescriptor.REQUEST_ID_EXTENDED, true)
    into.id2 = view.getUint16(at + SendDescriptor.REQUEST_ID_EXTENDED + 2, true)
    into.id3 = view.getUint16(at + SendDescriptor.REQUEST_ID_EXTENDED + 4, true)
  }
  into.operation = control & SendControl.OPERATION_MASK
  into.hasImm = (control & SendControl.HAS_IMM) !== 0
  into.imm = view.getUint32(at + SendDescriptor.IMM, true)
  into.ah = view.getUint16(at + SendDescriptor.AH, true)
  into.destQpn = view.getUint16(at + SendDescriptor.DEST_QPN, true)
  into.qkey = view.getUint32(at + SendDescriptor.QKEY, true)
  const isRdma = into.operation === RDMA_READ || into.operation === RDMA_WRITE
  const dataAt = at + (isRdma ? SendDescriptor.RDMA_DATA : SendDescriptor.DATA)
  const room = queue.bytes - (dataAt - at)
  if (isRdma) {
    into.remoteLength = view.getUint32(at + SendDescriptor.REMOTE_LENGTH, true)
    into.rkey = view.getUint32(at + SendDescriptor.REMOTE_KEY, true)
    into.remoteLo = view.getUint32(at + SendDescriptor.REMOTE_ADDRESS, true)
    into.remoteHi = view.getUint32(at + SendDescriptor.REMOTE_ADDRESS + 4, true)
  }
  into.count = 0
  into.length = 0
  into.inlineLength = NO_INLINE
  if ((control & SendControl.INLINE) !== 0) {
    into.inlineLength = Math.min(size, room, MAX_INLINE)
    into.length = size
    for (let i = 0; i < into.inlineLength; i++) into.inline[i] = bytes[dataAt + i]!
  } else {
    into.count = Math.min(size, isRdma ? Limits.maxRdmaSges : Limits.maxSendSges, Math.floor(room / SendElement.BYTES))
    for (let i = 0; i < into.count; i++) {
      const one = into.elements[i]!
      readElement(table, view, dataAt + i * SendElement.BYTES, one)
      into.length += one.length
    }
  }
  into.peer = undefined
  into.message = 0
  into.sent = 0
  into.done = 0
  into.rnrTries = 0
  into.destination = undefined
}

/** The request id as the program has written it. */
export const idOf = ({ id, id1, id2, id3 }: Request): bigint =>
  BigInt(id) | (BigInt(id1) << 16n) | (BigInt(id2) << 32n) | (BigInt(id3) << 48n)

/** ibv_wr_opcode of a send. */
export const wrOpcode = ({ operation, hasImm }: Request): number => {
  const { values } = WrOpcode
  if (operation === SEND) return hasImm ? values.SEND_WITH_IMM : values.SEND
  if (operation === RDMA_WRITE) return hasImm ? values.RDMA_WRITE_WITH_IMM : values.RDMA_WRITE
  return values.RDMA_READ
}

const postedElements = (elements: readonly Element[], count: number): PostedRequest['elements'] =>
  elements.slice(0, count).map(({ hi, lo, length, written }) => ({ address: hi * 2 ** 32 + lo, length, lkey: written }))

/** A send for watchers. `gid`: of its address handle. */
export const postedSend = (request: Request, gid: Uint8Array | undefined): PostedRequest => {
  const { elements, count, length, inlineLength, operation, remoteHi, remoteLo, rkey, destQpn, qkey } = request
  const { SIGNALED, INLINE } = SendFlags.values
  return {
    wrId: idOf(request),
    opcode: wrOpcode(request),
    flags: SIGNALED | (inlineLength === NO_INLINE ? 0 : INLINE),
    isSignaled: true,
    length,
    elements: postedElements(elements, count),
    destQpn,
    destination: gid && { gid, qkey },
    remote: operation === SEND ? undefined : { address: remoteHi * 2 ** 32 + remoteLo, length, rkey },
  }
}

// ---- receives ----

export const emptyReceive = (): Receive => ({
  id: 0,
  elements: Array.from({ length: Limits.maxReceiveSges }, element),
  count: 0,
  length: 0,
})

/** Number of elements that the program has written and the device has not read, at most the ring's. */
export const pendingElements = ({ doorbell, taken, depth }: ReceiveQueue): number =>
  Math.min((loadDoorbell(doorbell) - taken) & 0xffff, depth)

export const pendingReceives = ({ receive }: QueuePair): number =>
  receive === undefined ? 0 : pendingElements(receive)

/** Reads the receive at element `index`; returns its number of elements in the ring. */
const readReceive = (
  table: MemoryTable,
  queue: ReceiveQueue,
  index: number,
  available: number,
  into: Receive,
): number => {
  const { view } = queue.ring
  into.count = 0
  into.length = 0
  let read = 0
  while (read < available) {
    const at = queue.ring.at + ((index + read) & (queue.depth - 1)) * ReceiveDescriptor.BYTES
    const control = view.getUint32(at + ReceiveDescriptor.KEY_AND_CONTROL, true)
    if (read === 0) into.id = view.getUint16(at + ReceiveDescriptor.REQUEST_ID, true)
    read++
    if (into.count < Limits.maxReceiveSges) {
      const one = into.elements[into.count++]!
      one.lo = view.getUint32(at + ReceiveDescriptor.ADDRESS, true)
      one.hi = view.getUint32(at + ReceiveDescriptor.ADDRESS + 4, true)
      one.length = view.getUint16(at + ReceiveDescriptor.LENGTH, true)
      setKey(table, control, one)
      into.length += one.length
    }
    if ((control & ReceiveControl.LAST) !== 0) break
  }
  return read
}

/** Takes the oldest receive; false if there is none. */
export const takeReceive = (table: MemoryTable, queue: ReceiveQueue, into: Receive): boolean => {
  const available = pendingElements(queue)
  if (available === 0) return false
  queue.taken += readReceive(table, queue, queue.taken, available, into)
  return true
}

/** A receive for watchers. */
export const postedReceive = ({ id, elements, count, length }: Receive): PostedRequest => ({
  wrId: BigInt(id),
  opcode: -1,
  flags: 0,
  isSignaled: true,
  length,
  elements: postedElements(elements, count),
  remote: undefined,
  destQpn: undefined,
  destination: undefined,
})

/** Receives that no message has taken, without the first `from`. */
export const postedReceives = (table: MemoryTable, queue: ReceiveQueue, from: number): PostedRequest[] => {
  const all: PostedRequest[] = []
  const receive = emptyReceive()
  const available = pendingElements(queue)
  for (let read = 0, number = 0; read < available; number++) {
    read += readReceive(table, queue, queue.taken + read, available - read, receive)
    if (number >= from) all.push(postedReceive(receive))
  }
  return all
}

/** Sends that are posted and not completed, read or not. */
export const outstandingSends = ({ send, active, ended }: QueuePair): number =>
  send === undefined ? 0 : pendingSends(send) + active.size + ended.size
