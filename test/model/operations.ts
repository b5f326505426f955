/*
 * The table of what the model test posts: each kind of operation is an entry that makes a request and says what it
 * shall do to the peer's memory, to its receive queue and to its own, or where and how it must fail. A new operation of
 * the engine is a new entry. What becomes of it is checked in checks.ts.
 */
import { SendFlags, WcOpcode, WcStatus, WrOpcode } from '../../src/spec/work.ts'
import type { Element, ReceiveRequest, SendRequest } from './node.ts'
import {
  ATOMIC_SLOTS,
  type End,
  MESSAGE_BYTES,
  type Operation,
  READ_SLOTS,
  RECEIVE_SLOTS,
  SOURCE_BYTES,
  TARGET_BYTES,
  WORDS,
} from './pair.ts'
import type { Chance } from './random.ts'

const wr = WrOpcode.values
const wc = WcOpcode.values
const { FENCE, SIGNALED, SOLICITED, INLINE } = SendFlags.values
const { LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_PROT_ERR, REM_INV_REQ_ERR, REM_ACCESS_ERR, SUCCESS } = WcStatus.values

interface Kind {
  readonly name: string
  readonly weight: number
  /** The operation that `end` posts; undefined if it cannot now. */
  make(end: End, chance: Chance): Operation | undefined
}

/** A key that nothing has: those that are given out are even. */
const badKey = (chance: Chance): number => (chance.u32() | 1) >>> 0

/** Most bytes of a message of the pair: five packets, as its receive buffers. */
export const bufferBytes = (end: End): number => Math.min(5 * end.pair.mtu, MESSAGE_BYTES)

const lengthOf = (end: End, chance: Chance): number =>
  chance.hits(0.3) ? chance.int(80) : chance.hits(0.1) ? end.pair.mtu : chance.int(bufferBytes(end) + 1)

/** A stretch of memory as one element, or as several; some may be empty. */
const split = (at: number, length: number, key: number, most: number, chance: Chance): Element[] => {
  const elements: Element[] = []
  let from = at
  let left = length
  for (let n = chance.hits(0.6) ? 1 : 1 + chance.int(most); n > 1; n--) {
    const piece = chance.int(left + 1)
    elements.push({ at: from, length: piece, key })
    from += piece
    left -= piece
  }
  elements.push({ at: from, length: left, key })
  return elements
}

/** A request with flags of chance, and nothing in it. */
const plain = (end: End, chance: Chance, opcode: number, more: Partial<SendRequest> = {}): SendRequest => ({
  id: end.sends.length,
  opcode,
  flags:
    (chance.hits(0.8) ? SIGNALED : 0) |
    (chance.hits(0.15) ? FENCE : 0) |
    (chance.hits(0.3) ? SOLICITED : 0) |
    (more.inline === undefined ? 0 : INLINE),
  sges: [],
  imm: 0,
  remote: 0,
  rkey: 0,
  compare: 0n,
  swap: 0n,
  refused: 0,
  ...more,
})

/** Bytes of the source, and how a request names them: in elements, or inline. */
const payload = (end: End, chance: Chance, length: number) => {
  const at = end.areas.source + chance.int(SOURCE_BYTES - length + 1)
  const data = end.host.memory.bytes.slice(at, at + length)
  if (length <= 200 && chance.hits(0.3)) return { data, more: { inline: data } }
  return { data, more: { sges: split(at, length, end.sourceKey, end.pair.maxSge, chance) } }
}

const none = { fatal: 'no', statuses: [] } as const

const send = (imm: boolean) => (end: End, chance: Chance) => {
  const { data, more } = payload(end, chance, lengthOf(end, chance))
  const value = imm ? chance.u32() : undefined
  const opcode = imm ? wr.SEND_WITH_IMM : wr.SEND
  return {
    kind: imm ? 'SEND_WITH_IMM' : 'SEND',
    request: plain(end, chance, opcode, { ...more, imm: value ?? 0 }),
    ...none,
    message: { data, imm: value, opcode: wc.RECV, status: SUCCESS, invalidates: undefined },
  }
}

const write = (imm: boolean) => (end: End, chance: Chance) => {
  const { peer } = end
  const { data, more } = payload(end, chance, lengthOf(end, chance))
  const to = chance.int(TARGET_BYTES - data.length + 1)
  const value = imm ? chance.u32() : undefined
  const request = plain(end, chance, imm ? wr.RDMA_WRITE_WITH_IMM : wr.RDMA_WRITE, {
    ...more,
    imm: value ?? 0,
    remote: peer.areas.target + to,
    rkey: data.length === 0 && chance.hits(0.5) ? badKey(chance) : peer.target.key,
  })
  const message = imm && {
    message: { data, imm: value, opcode: wc.RECV_RDMA_WITH_IMM, status: SUCCESS, invalidates: undefined },
  }
  return {
    kind: imm ? 'WRITE_WITH_IMM' : 'WRITE',
    request,
    ...none,
    write: { at: peer.areas.target + to, data },
    ...message,
  }
}

/** The slot for results of request number `id`; undefined while an earlier request may still write there. */
const slotOf = (end: End, id: number, slots: number): number | undefined =>
  id - slots >= end.done ? undefined : id % slots

/** Reads the source, which nobody changes, or the target as all requests before have left it. */
const read = (fromTarget: boolean) => (end: End, chance: Chance) => {
  const id = end.sends.length
  const slot = slotOf(end, id, READ_SLOTS)
  if (slot === undefined) return undefined
  const { peer } = end
  const length = lengthOf(end, chance)
  const from = chance.int((fromTarget ? TARGET_BYTES : SOURCE_BYTES) - length + 1)
  const at = (fromTarget ? peer.areas.target : peer.areas.source) + from
  const to = end.areas.results + slot * MESSAGE_BYTES
  if (fromTarget) end.fenceTo = id
  return {
    kind: fromTarget ? 'READ back' : 'READ',
    request: plain(end, chance, wr.RDMA_READ, {
      sges: split(to, length, end.local.key, end.pair.maxSge, chance),
      remote: at,
      rkey: fromTarget ? peer.target.key : peer.sourceKey,
    }),
    ...none,
    read: fromTarget ? peer.planned.slice(from, from + length) : peer.host.memory.bytes.slice(at, at + length),
  }
}

const atomic = (swap: boolean) => (end: End, chance: Chance) => {
  const id = end.sends.length
  const slot = slotOf(end, id, ATOMIC_SLOTS)
  if (slot === undefined) return undefined
  const { peer } = end
  const at = peer.areas.words + 8 * chance.int(WORDS)
  const value = (BigInt(chance.u32()) << 32n) | BigInt(chance.u32())
  // half of the comparisons are with what the word is now, unless an atomic on the way changes it
  const now = BigInt.asUintN(64, peer.host.memory.words.getBigUint64(at, true))
  return {
    kind: swap ? 'CMP_AND_SWP' : 'FETCH_AND_ADD',
    request: plain(end, chance, swap ? wr.ATOMIC_CMP_AND_SWP : wr.ATOMIC_FETCH_AND_ADD, {
      sges: split(end.areas.atomics + 8 * slot, 8, end.local.key, end.pair.maxSge, chance),
      remote: at,
      rkey: peer.target.key,
      compare: swap && chance.hits(0.5) ? now : value,
      swap: value,
    }),
    ...none,
    atomic: { at, executed: 0, before: 0n },
  }
}

/** Another request, spoilt, so that the peer refuses it. */
const remotely =
  (make: Kind['make'], status: number, change: (end: End, chance: Chance) => Partial<SendRequest>) =>
  (end: End, chance: Chance): Operation | undefined => {
    const operation = make(end, chance)
    if (operation === undefined) return undefined
    const { kind, request } = operation
    const length = request.inline?.length ?? request.sges.reduce((sum, sge) => sum + sge.length, 0)
    // without data a key means nothing
    if (length === 0) return undefined
    const bad = { ...request, ...change(end, chance) }
    return { kind: `bad ${kind}`, request: bad, fatal: 'remote', statuses: [status] }
  }
const wrongKey = (_end: End, chance: Chance): Partial<SendRequest> => ({ rkey: badKey(chance) })
const readOnlyKey = (end: End): Partial<SendRequest> => ({ rkey: end.peer.sourceKey, remote: end.peer.areas.source })
const privateKey = (end: End): Partial<SendRequest> => ({ rkey: end.peer.local.key, remote: end.peer.areas.buffers })
const ownKey = (end: End): Partial<SendRequest> => ({ rkey: end.target.key, remote: end.areas.target })
const outside = (end: End): Partial<SendRequest> => ({ remote: end.peer.areas.target + TARGET_BYTES + WORDS * 8 })
const misaligned = (end: End): Partial<SendRequest> => ({ remote: end.peer.areas.words + 4 })

const localKey = (end: End, chance: Chance): Operation => {
  const length = 1 + lengthOf(end, chance)
  const key = chance.pick([badKey(chance), end.peer.sourceKey])
  return {
    kind: 'SEND of a wrong key',
    request: plain(end, chance, wr.SEND, { sges: [{ at: end.areas.source, length, key }] }),
    fatal: 'local',
    statuses: [LOC_PROT_ERR],
  }
}

const readIntoSource = (end: End, chance: Chance): Operation => ({
  kind: 'READ into what is not to be written',
  request: plain(end, chance, wr.RDMA_READ, {
    sges: [{ at: end.areas.source, length: 1 + lengthOf(end, chance), key: end.sourceKey }],
    remote: end.peer.areas.source,
    rkey: end.peer.sourceKey,
  }),
  fatal: 'local',
  statuses: [LOC_PROT_ERR],
})

const nonsense = (end: End, chance: Chance): Operation => ({
  kind: 'unknown opcode',
  request: plain(end, chance, chance.pick([100, 200, 255, 0x7fff_ffff])),
  fatal: 'local',
  statuses: [LOC_QP_OP_ERR],
})

const tooLong = (end: End, chance: Chance): Operation => {
  const most = bufferBytes(end)
  const { data, more } = payload(end, chance, most + 1 + chance.int(end.pair.mtu))
  return {
    kind: 'SEND of too much',
    request: plain(end, chance, wr.SEND, more),
    fatal: 'remote',
    statuses: [REM_INV_REQ_ERR],
    message: { data, imm: undefined, opcode: wc.RECV, status: LOC_LEN_ERR, invalidates: undefined },
  }
}

/** The peer gives a key for this message to revoke, or has none of that number. */
const sendInvalidate = (known: boolean) => (end: End, chance: Chance) => {
  const { peer } = end
  const { data, more } = payload(end, chance, lengthOf(end, chance))
  const key = known ? peer.nextKey() : badKey(chance)
  if (known) peer.lent.push(peer.host.memory.register(key, peer.pd, peer.areas.target, 64, 0, true))
  return {
    kind: known ? 'SEND_WITH_INV' : 'SEND_WITH_INV of a wrong key',
    request: plain(end, chance, wr.SEND_WITH_INV, { ...more, imm: key }),
    message: { data, imm: undefined, opcode: wc.RECV, status: known ? SUCCESS : REM_INV_REQ_ERR, invalidates: key },
    // the data came, so the sender may be told that all went well
    ...(known ? none : ({ fatal: 'remote', mayPass: true, statuses: [] } as const)),
  }
}

export const kinds: readonly Kind[] = [
  { name: 'SEND', weight: 20, make: send(false) },
  { name: 'SEND_WITH_IMM', weight: 10, make: send(true) },
  { name: 'SEND_WITH_INV', weight: 4, make: sendInvalidate(true) },
  { name: 'WRITE', weight: 25, make: write(false) },
  { name: 'WRITE_WITH_IMM', weight: 10, make: write(true) },
  { name: 'READ', weight: 12, make: read(false) },
  { name: 'READ back', weight: 8, make: read(true) },
  { name: 'CMP_AND_SWP', weight: 6, make: atomic(true) },
  { name: 'FETCH_AND_ADD', weight: 6, make: atomic(false) },
]

/** Operations that end the life of the pair. */
export const fatalKinds: readonly Kind[] = [
  { name: 'WRITE, wrong key', weight: 2, make: remotely(write(false), REM_ACCESS_ERR, wrongKey) },
  { name: 'WRITE, read-only key', weight: 1, make: remotely(write(false), REM_ACCESS_ERR, readOnlyKey) },
  { name: "WRITE, the peer's private key", weight: 1, make: remotely(write(true), REM_ACCESS_ERR, privateKey) },
  { name: "WRITE, another domain's key", weight: 1, make: remotely(write(false), REM_ACCESS_ERR, ownKey) },
  { name: 'WRITE, outside', weight: 1, make: remotely(write(false), REM_ACCESS_ERR, outside) },
  { name: 'READ, wrong key', weight: 1, make: remotely(read(false), REM_ACCESS_ERR, wrongKey) },
  { name: 'READ, private key', weight: 1, make: remotely(read(false), REM_ACCESS_ERR, privateKey) },
  { name: 'atomic, read-only key', weight: 1, make: remotely(atomic(false), REM_ACCESS_ERR, readOnlyKey) },
  { name: 'atomic, misaligned', weight: 1, make: remotely(atomic(true), REM_INV_REQ_ERR, misaligned) },
  { name: 'SEND of too much', weight: 2, make: tooLong },
  { name: 'SEND_WITH_INV of a wrong key', weight: 1, make: sendInvalidate(false) },
  { name: 'SEND of a wrong key', weight: 2, make: localKey },
  { name: 'READ into what is not to be written', weight: 1, make: readIntoSource },
  { name: 'unknown opcode', weight: 1, make: nonsense },
]

/** Posts an operation of `end`, and plans what it does. */
export const post = (end: End, kind: Kind, chance: Chance): Operation | undefined => {
  const made = kind.make(end, chance)
  if (made === undefined) return undefined
  const changes = made.write !== undefined || made.atomic !== undefined
  const fenced = changes && end.fenceTo >= end.done
  const operation = fenced ? { ...made, request: { ...made.request, flags: made.request.flags | FENCE } } : made
  const { peer } = end
  end.sends.push(operation)
  if (operation.fatal !== 'no' && end.fatalAt === Number.POSITIVE_INFINITY) end.fatalAt = operation.request.id
  if (operation.message !== undefined) operation.place = peer.incoming.push(operation) - 1
  if (operation.write !== undefined) peer.planned.set(operation.write.data, operation.write.at - peer.areas.target)
  if (operation.atomic !== undefined) peer.atomics.push(operation)
  end.host.queues[end.row].sends.push(operation.request)
  return operation
}

/** Posts a receive request, if there is a buffer. */
export const postReceive = (end: End, chance: Chance): boolean => {
  const id = end.receives.length
  if (id - end.received >= RECEIVE_SLOTS) return false
  const at = end.areas.buffers + (id % RECEIVE_SLOTS) * MESSAGE_BYTES
  const request: ReceiveRequest = {
    id: id + 0x4000_0000,
    sges: split(at, bufferBytes(end), end.local.key, end.pair.maxSge, chance),
  }
  end.receives.push(request)
  end.host.queues[end.row].receives.push(request)
  return true
}
