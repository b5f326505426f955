/*
 * Two connected queue pairs in the model: their areas of client memory and keys, posted and completed requests, and the
 * expected memory. Each end has its own protection domain, so the owner of a written byte is known. Each life of a
 * pair, from RESET to RESET, starts with the current memory. checks.ts checks, operations.ts posts.
 */
import { QpState } from '../../src/spec/enums.ts'
import { Service } from '../../src/spec/wire/services.ts'
import { Access } from '../../src/transport/types.ts'
import type { Region } from './memory.ts'
import type { ModelNode, ReceiveRequest, SendRequest } from './node.ts'
import type { RandomSource } from './random.ts'

const { INIT, RTR, RTS } = QpState.values

/** Expected effect of one send request. */
export interface Operation {
  readonly kind: string
  readonly request: SendRequest
  /** The side on which it must fail, or 'no', and the allowed statuses. */
  readonly fatal: 'no' | 'local' | 'remote'
  readonly statuses: readonly number[]
  /** A datagram: the destination; undefined: the peer. */
  readonly destination?: End
  /** It may still succeed although it puts the peer in error. */
  readonly maySucceed?: boolean
  /** Index of its message among those for the peer. */
  messageIndex?: number
  /** It consumes a receive WQE of the peer. `opcode`: the completion's; `status`: of the receive. */
  readonly message?: {
    readonly data: Uint8Array
    readonly imm: number | undefined
    readonly opcode: number
    readonly status: number
    readonly invalidates: number | undefined
    /** A datagram: the source queue pair. */
    readonly source?: number
  }
  /** It changes the peer's target; offset in its memory. */
  readonly write?: { readonly at: number; readonly data: Uint8Array }
  /** Final contents of its elements. */
  readonly read?: Uint8Array
  /** It binds or invalidates a window of its own end. */
  readonly binds?: Region
  readonly invalidates?: Region
  /** An atomic on the word at an offset of the peer's memory. */
  readonly atomic?: { readonly at: number; executed: number; original: bigint }
}

/** A posted operation of an unreliable service. */
export interface SentOperation {
  readonly operation: Operation
  readonly from: End
  /** All its packets have lower numbers in the network; undefined while more may be sent. */
  endNumber: number | undefined
}

/** Sizes in bytes. */
export const SOURCE_BYTES = 0x8000
export const TARGET_BYTES = 0x2000
export const MESSAGE_BYTES = 0x1400
/** Number of 64-bit words for atomics, behind the target. */
export const WORDS = 8
/** The first id of receive requests; those of sends are smaller. */
export const FIRST_RECEIVE_ID = 0x4000_0000
/** Numbers of buffers for receives, and of result buffers for READs and atomics. */
export const RECEIVE_SLOTS = 12
export const READ_SLOTS = 12
export const ATOMIC_SLOTS = 64
/** Client memory of one end. */
export const END_BYTES = TARGET_BYTES + (RECEIVE_SLOTS + READ_SLOTS + 2) * MESSAGE_BYTES + 0x1000

export interface Areas {
  readonly source: number
  readonly target: number
  readonly words: number
  readonly buffers: number
  readonly results: number
  readonly atomics: number
}

export interface End {
  readonly name: string
  /** The number of its node, and the node. */
  readonly node: number
  readonly host: ModelNode
  readonly pd: number
  readonly areas: Areas
  /** Its own key of the source, memory that all ends of a node share: data of sends, WRITEs and the peer's READs. */
  readonly sourceKey: number
  /** Target and atomic words, for the peer. */
  readonly target: Region
  /** Receive buffers and results: LOCAL_WRITE only. */
  readonly local: Region
  nextKey(): number
  /** All ends of the simulation. */
  readonly neighbours: readonly End[]
  pair: Pair
  peer: End
  qpn: number
  row: number
  srqn: number
  /** The Q_Key that datagrams to this end must carry. */
  qkey: number
  /** First PSN of its requests in this life. */
  psn: number
  maxRdAtomic: number

  // Since the last RESET.
  sends: Operation[]
  /** Sends that have ended, and those that succeeded. */
  endedSends: number
  succeededSends: number
  hasFailed: boolean
  receives: ReceiveRequest[]
  received: number
  /** Messages that the peer posted, in order, and the number received. */
  incoming: Operation[]
  arrived: number
  /** Unreliable: messages for this end that have been sent. */
  transmitted: number
  /** Atomics that the peer posted, in order, and the number executed. */
  atomics: Operation[]
  executed: number
  /** The test moved the queue pair to the error state. */
  isForcedToError: boolean
  isDraining: boolean
  /** Requests up to this one must complete before the peer's target may change. */
  fencedUntil: number
  /** The target after all successful requests, and after all posted ones. */
  completedTarget: Uint8Array
  plannedTarget: Uint8Array
  readonly words: BigUint64Array
  /** The first request that must fail, and the number of PSNs of the requests that have ended. */
  fatalAt: number
  ackedPsns: number
  hasReceiveFailed: boolean
  /** Windows of this life; the second list has those that are bound for the peer. */
  ownWindows: Region[]
  usableWindows: Region[]
  /** Unreliable: operations posted to this end, in all lives, whose packets may still arrive. */
  sentOperations: SentOperation[]
}

export interface Pair {
  readonly name: string
  /** A `Service` value; XRC_INI for an initiator (the first end) with its target. */
  readonly service: number
  /** The receives of each end come from an SRQ of its own. */
  hasSrq: boolean
  readonly ends: readonly [End, End]
  mtu: number
  maxSge: number
  signalsAll: boolean
  life: number
  /** The reason why the outcome is unpredictable: a forged packet was right in everything that a receiver can check. */
  unpredictableBecause: string | undefined
  /** Turns until it ends, -1 while it lives. */
  turnsToEnd: number
  /** No send is posted until all have ended. */
  isSettling: boolean
  /** An end failed as expected, or was moved to error by the test. */
  isFailing: boolean
}

/** Allocates memory and keys for an end. */
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
  const target = memory.allocate(TARGET_BYTES + WORDS * 8)
  const local = memory.allocate((RECEIVE_SLOTS + READ_SLOTS) * MESSAGE_BYTES + ATOMIC_SLOTS * 8)
  const results = local + RECEIVE_SLOTS * MESSAGE_BYTES
  const areas = {
    source,
    target,
    words: target + TARGET_BYTES,
    buffers: local,
    results,
    atomics: results + READ_SLOTS * MESSAGE_BYTES,
  }
  const access = Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC | Access.FLUSH_GLOBAL
  const sourceKey = nextKey()
  memory.register(sourceKey, pd, source, SOURCE_BYTES, Access.REMOTE_READ)
  const end = {
    name,
    node,
    host,
    pd,
    areas,
    sourceKey,
    target: memory.register(nextKey(), pd, target, TARGET_BYTES + WORDS * 8, access | Access.LOCAL_WRITE),
    local: memory.register(
      nextKey(),
      pd,
      local,
      (RECEIVE_SLOTS + READ_SLOTS) * MESSAGE_BYTES + ATOMIC_SLOTS * 8,
      Access.LOCAL_WRITE,
    ),
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

/** Forgets posted requests; memory keeps its contents. */
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

/** Datagrams need no connection: they go to any UD end. */
export const isDatagram = (pair: Pair): boolean => pair.service === Service.UD
export const isReliable = (pair: Pair): boolean => pair.service !== Service.UC && !isDatagram(pair)

/** The service of one end. */
export const serviceOf = (end: End): number =>
  end.pair.service === Service.XRC_INI && end === end.pair.ends[1] ? Service.XRC_TGT : end.pair.service

/** XRC is one-way: a target only receives, an initiator only sends. */
export const canSend = (end: End): boolean => serviceOf(end) !== Service.XRC_TGT
export const canReceive = (end: End): boolean => serviceOf(end) !== Service.XRC_INI

/** Posted sends without a known outcome. */
export const outstanding = (end: End): number => end.sends.length - end.endedSends

/**
 * Forgets operations that can no longer take effect: the network has sent `sent` packets, and will deliver none before
 * number `oldest`.
 */
export const forgetSent = (end: End, sent: number, oldest: number): void => {
  end.sentOperations = end.sentOperations.filter(one => {
    const { id } = one.operation.request
    const isOver = id < one.from.endedSends || one.from.sends[id] !== one.operation
    if (isOver) one.endNumber ??= sent
    return one.endNumber === undefined || one.endNumber > oldest
  })
}

/** Whether every posted send has ended; unsignaled ones have no completion. */
export const isFinished = (pair: Pair): boolean =>
  pair.ends.every(end => outstanding(end) === 0 || end.host.queues[end.row].sends.length === 0)

/** All rights of a peer. */
const REMOTE_ACCESS = Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC | Access.FLUSH_GLOBAL
const INIT_ATTRIBUTES = { pkeyIndex: 0, access: REMOTE_ACCESS }

/** RESET to RTS for datagrams; both ends have the same Q_Key. */
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

/** RESET to RTS with random attributes; XRC targets sometimes only to RTR. */
export const connect = (pair: Pair, random: RandomSource): void => {
  pair.life++
  pair.unpredictableBecause = undefined
  pair.turnsToEnd = -1
  pair.isSettling = false
  pair.isFailing = false
  pair.mtu = random.pick([256, 256, 512, 1024, 1024, 2048, 4096])
  for (const end of pair.ends) {
    // So far from the PSNs of the last lives that their packets do not count as new.
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
