/*
 * Two connected queue pairs of the model: their areas of client memory and keys, their requests, and the expected
 * memory. A life of a pair is the time from RESET to RESET.
 */
import { QpState } from '../../../src/spec/enums.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { Access } from '../../../src/transport/engine/types.ts'
import type { Region } from './memory.ts'
import type { ModelNode, ReceiveRequest, SendRequest } from './node.ts'
import type { RandomSource } from './random.ts'

const { INIT, RTR, RTS } = QpState.values

/** A send request and its expected effect. */
export interface Operation {
  readonly kind: string
  readonly request: SendRequest
  /** The side on which the request must fail; `statuses`: the allowed statuses of its completion. */
  readonly fatal: 'no' | 'local' | 'remote'
  readonly statuses: readonly number[]
  /** Of a datagram; undefined: the peer. */
  readonly destination?: End
  /** Index in the peer's `incoming`. */
  messageIndex?: number
  /** For a receive WQE of the peer. `opcode`, `status`: of the receive's completion. */
  readonly message?: {
    readonly data: Uint8Array
    readonly imm: number | undefined
    readonly opcode: number
    readonly status: number
    readonly invalidates: number | undefined
    /** The source queue pair of a datagram. */
    readonly source?: number
  }
  /** A change of the peer's target; `at`: offset in the peer's memory. */
  readonly write?: { readonly at: number; readonly data: Uint8Array }
  /** Final contents of the request's elements. */
  readonly read?: Uint8Array
  /** Windows of the request's own end. */
  readonly binds?: Region
  readonly invalidates?: Region
  /** `at`: offset of the word in the peer's memory. */
  readonly atomic?: { readonly at: number; executed: number; original: bigint }
}

/** An operation of an unreliable service that was sent. */
interface SentOperation {
  readonly operation: Operation
  readonly from: End
  /** All packets of the operation have lower numbers in the network; undefined while more may be sent. */
  endNumber: number | undefined
}

/** Sizes in bytes. */
export const SOURCE_BYTES = 0x8000
export const TARGET_BYTES = 0x2000
export const MESSAGE_BYTES = 0x1400
/** 64-bit words for atomics, after the target. */
export const WORDS = 8
/** Ids of sends are smaller. */
export const FIRST_RECEIVE_ID = 0x4000_0000
/** Receive buffers, and result buffers of READs and atomics. */
export const RECEIVE_SLOTS = 12
export const READ_SLOTS = 12
export const ATOMIC_SLOTS = 64
const TARGET_REGION_BYTES = TARGET_BYTES + 8 * WORDS
const LOCAL_REGION_BYTES = (RECEIVE_SLOTS + READ_SLOTS) * MESSAGE_BYTES + 8 * ATOMIC_SLOTS
/** Client memory of one end, at most. */
export const END_BYTES = TARGET_BYTES + (RECEIVE_SLOTS + READ_SLOTS + 2) * MESSAGE_BYTES + 0x1000

const REMOTE_ACCESS = Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC | Access.FLUSH_GLOBAL

/** Offsets in the node's memory. */
interface Areas {
  readonly source: number
  readonly target: number
  readonly words: number
  readonly buffers: number
  readonly results: number
  readonly atomics: number
}

export interface End {
  readonly name: string
  /** The number of the node. */
  readonly node: number
  readonly host: ModelNode
  readonly pd: number
  readonly areas: Areas
  /** Of the source: memory that all ends of a node share. */
  readonly sourceKey: number
  /** With the atomic words. */
  readonly target: Region
  /** Receive buffers and results. */
  readonly local: Region
  nextKey(): number
  /** All ends of the simulation. */
  readonly neighbours: readonly End[]
  pair: Pair
  peer: End
  qpn: number
  row: number
  srqn: number
  /** Of datagrams to this end. */
  qkey: number
  /** First PSN of this life. */
  psn: number
  maxRdAtomic: number

  // Since the last RESET.
  sends: Operation[]
  endedSends: number
  succeededSends: number
  hasFailed: boolean
  receives: ReceiveRequest[]
  received: number
  /** Messages that the peer posted; `arrived`: how many were received. */
  incoming: Operation[]
  arrived: number
  /** Unreliable: messages sent to this end. */
  transmitted: number
  /** Atomics that the peer posted; `executed`: how many were executed. */
  atomics: Operation[]
  executed: number
  /** The test moved the queue pair to the error state. */
  isForcedToError: boolean
  isDraining: boolean
  /** Requests up to this id must complete before the peer's target may change. */
  fencedUntil: number
  /** The target after all successful requests, and after all posted requests. */
  completedTarget: Uint8Array
  plannedTarget: Uint8Array
  readonly words: BigUint64Array
  /** The first request that must fail; `ackedPsns`: number of PSNs of the requests that have ended. */
  fatalAt: number
  ackedPsns: number
  hasReceiveFailed: boolean
  /** Windows of this life; `usableWindows`: those that the peer may use. */
  ownWindows: Region[]
  usableWindows: Region[]
  /** Unreliable: operations to this end, of all lives, whose packets may still arrive. */
  sentOperations: SentOperation[]
}

export interface Pair {
  readonly name: string
  /** A `Service`; XRC_INI: the first end is the initiator. */
  readonly service: number
  /** Each end has an SRQ. */
  hasSrq: boolean
  readonly ends: readonly [End, End]
  mtu: number
  maxSge: number
  signalsAll: boolean
  life: number
  /** A forged packet was right in everything that a receiver can check. */
  unpredictableBecause: string | undefined
  /** -1: not ending. */
  turnsToEnd: number
  /** No send is posted until all sends have ended. */
  isSettling: boolean
  /** An end failed as expected, or the test moved it to error. */
  isFailing: boolean
}

export const createEnd = (
  name: string,
  node: number,
  host: ModelNode,
  pd: number,
  source: number,
  nextKey: () => number,
  neighbours: readonly End[],
): End => {
  const { memory } = host
  const target = memory.allocate(TARGET_REGION_BYTES)
  const local = memory.allocate(LOCAL_REGION_BYTES)
  const results = local + RECEIVE_SLOTS * MESSAGE_BYTES
  const areas = {
    source,
    target,
    words: target + TARGET_BYTES,
    buffers: local,
    results,
    atomics: results + READ_SLOTS * MESSAGE_BYTES,
  }
  const sourceKey = nextKey()
  memory.register(sourceKey, pd, source, SOURCE_BYTES, Access.REMOTE_READ)
  const end = {
    name,
    node,
    host,
    pd,
    areas,
    sourceKey,
    target: memory.register(nextKey(), pd, target, TARGET_REGION_BYTES, REMOTE_ACCESS | Access.LOCAL_WRITE),
    local: memory.register(nextKey(), pd, local, LOCAL_REGION_BYTES, Access.LOCAL_WRITE),
    nextKey,
    neighbours,
    qpn: 0,
    srqn: 0,
    qkey: 0,
    row: -1,
    psn: 0,
    maxRdAtomic: 1,
    completedTarget: new Uint8Array(TARGET_BYTES),
    plannedTarget: new Uint8Array(TARGET_BYTES),
    words: new BigUint64Array(WORDS),
    sentOperations: [],
  }
  // `createPair` sets peer and pair.
  return beginLife(end as unknown as End)
}

/** Starts a life: the expected memory is the present memory. */
export const beginLife = (end: End): End => {
  const { bytes, words } = end.host.memory
  for (const region of end.ownWindows ?? []) end.host.memory.deregister(region)
  const fresh = {
    sends: [],
    endedSends: 0,
    succeededSends: 0,
    hasFailed: false,
    receives: [],
    received: 0,
    incoming: [],
    arrived: 0,
    transmitted: 0,
    atomics: [],
    executed: 0,
    isForcedToError: false,
    isDraining: false,
    fencedUntil: -1,
    fatalAt: Number.POSITIVE_INFINITY,
    ackedPsns: 0,
    hasReceiveFailed: false,
    ownWindows: [],
    usableWindows: [],
  }
  Object.assign(end, fresh)
  end.completedTarget.set(bytes.subarray(end.areas.target, end.areas.target + TARGET_BYTES))
  end.plannedTarget.set(end.completedTarget)
  for (let i = 0; i < WORDS; i++) end.words[i] = words.getBigUint64(end.areas.words + 8 * i, true)
  return end
}

export const createPair = (name: string, service: number, a: End, b: End): Pair => {
  const pair: Pair = {
    name,
    service,
    hasSrq: false,
    ends: [a, b],
    mtu: 256,
    maxSge: 4,
    signalsAll: false,
    life: 0,
    unpredictableBecause: undefined,
    turnsToEnd: -1,
    isSettling: false,
    isFailing: false,
  }
  a.peer = b
  b.peer = a
  a.pair = pair
  b.pair = pair
  return pair
}

/** A datagram goes to any UD end. */
export const isDatagram = (pair: Pair): boolean => pair.service === Service.UD
export const isReliable = (pair: Pair): boolean => pair.service !== Service.UC && !isDatagram(pair)

export const serviceOf = (end: End): number =>
  end.pair.service === Service.XRC_INI && end === end.pair.ends[1] ? Service.XRC_TGT : end.pair.service

/** XRC is one-way: a target only receives, an initiator only sends. */
export const canSend = (end: End): boolean => serviceOf(end) !== Service.XRC_TGT
export const canReceive = (end: End): boolean => serviceOf(end) !== Service.XRC_INI

/** Sends without a known outcome. */
export const outstanding = (end: End): number => end.sends.length - end.endedSends

/**
 * Forgets operations that can take no effect. `sent`: number of the network's next packet; packets with numbers below
 * `oldest` will not arrive.
 */
export const forgetSent = (end: End, sent: number, oldest: number): void => {
  end.sentOperations = end.sentOperations.filter(one => {
    const { id } = one.operation.request
    const isOver = id < one.from.endedSends || one.from.sends[id] !== one.operation
    if (isOver) one.endNumber ??= sent
    return one.endNumber === undefined || one.endNumber > oldest
  })
}

/** Unsignaled requests have no completion: an empty send queue shows their end. */
export const isFinished = (pair: Pair): boolean =>
  pair.ends.every(end => outstanding(end) === 0 || end.host.queues[end.row].sends.length === 0)

const INIT_ATTRIBUTES = { pkeyIndex: 0, access: REMOTE_ACCESS }

/** RESET to RTS; both ends have the same Q_Key. */
const connectDatagrams = (pair: Pair, random: RandomSource): void => {
  const qkey = random.u32() & 0x7fff_ffff
  for (const end of pair.ends) {
    const { engine } = end.host
    end.qkey = qkey
    engine.modify(end.row, INIT, { pkeyIndex: 0, qkey })
    engine.modify(end.row, RTR, { pathMtu: pair.mtu })
    engine.modify(end.row, RTS, { sqPsn: end.psn })
  }
}

/** RESET to RTS; XRC targets sometimes only to RTR. */
export const connect = (pair: Pair, random: RandomSource): void => {
  pair.life++
  pair.unpredictableBecause = undefined
  pair.turnsToEnd = -1
  pair.isSettling = false
  pair.isFailing = false
  pair.mtu = random.pick([256, 256, 512, 1024, 1024, 2048, 4096])
  for (const end of pair.ends) {
    // Far from the PSNs of the last life: its packets must not count as new.
    end.psn = (end.psn + 0x30_0000 + random.int(0x1000)) & 0xff_ffff
    end.maxRdAtomic = 1 + random.int(4)
  }
  if (isDatagram(pair)) {
    connectDatagrams(pair, random)
    return
  }
  for (const end of pair.ends) {
    const { engine } = end.host
    const { peer } = end
    engine.modify(end.row, INIT, INIT_ATTRIBUTES)
    const path = { destQpn: peer.qpn, rqPsn: peer.psn, pathMtu: pair.mtu, flow: peer.node, peer: peer.node }
    const resources = { minRnrTimer: 1 + random.int(8), maxDestRdAtomic: peer.maxRdAtomic + random.int(2) }
    engine.modify(end.row, RTR, isReliable(pair) && canReceive(end) ? { ...path, ...resources } : path)
  }
  for (const end of pair.ends) {
    if (!canSend(end) && random.hits(0.5)) continue
    const retries = { timeout: 8 + random.int(3), retryCnt: 7, rnrRetry: 7, maxRdAtomic: end.maxRdAtomic }
    end.host.engine.modify(end.row, RTS, { sqPsn: end.psn, ...(isReliable(pair) && retries) })
  }
}
