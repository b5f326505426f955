/*
 * The operations of the model test: valid requests (requests.ts makes them), requests that must fail with a status, and
 * the operations of each service.
 */
import { flushPlacement } from '../../../src/spec/wire/headers.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { SendFlags, SRQN_SHIFT, WcOpcode, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import type { ReceiveRequest, SendRequest } from './node.ts'
import {
  type End,
  FIRST_RECEIVE_ID,
  isReliable,
  MESSAGE_BYTES,
  type Operation,
  RECEIVE_SLOTS,
  TARGET_BYTES,
  WORDS,
} from './pair.ts'
import type { RandomSource } from './random.ts'
import * as make from './requests.ts'

const wr = WrOpcode.values
const wc = WcOpcode.values
const { FENCE } = SendFlags.values
const { LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_PROT_ERR, MW_BIND_ERR, REM_INV_REQ_ERR, REM_ACCESS_ERR } = WcStatus.values
const { badKey, plain } = make

interface Kind {
  readonly name: string
  readonly weight: number
  readonly make: make.Make
  /** Whether UC has it too. */
  readonly alsoUc?: true
}

const kinds: readonly Kind[] = [
  { name: 'SEND', weight: 20, make: make.send({ imm: false }), alsoUc: true },
  { name: 'SEND_WITH_IMM', weight: 10, make: make.send({ imm: true }), alsoUc: true },
  { name: 'SEND_WITH_INV', weight: 4, make: make.sendInvalidate({ isKeyKnown: true }) },
  { name: 'WRITE', weight: 25, make: make.write({ imm: false }), alsoUc: true },
  { name: 'WRITE_WITH_IMM', weight: 10, make: make.write({ imm: true }), alsoUc: true },
  { name: 'READ', weight: 12, make: make.read({ fromTarget: false }) },
  { name: 'READ of the target', weight: 8, make: make.read({ fromTarget: true }) },
  { name: 'CMP_AND_SWP', weight: 6, make: make.atomic({ isCompareSwap: true }) },
  { name: 'FETCH_AND_ADD', weight: 6, make: make.atomic({ isCompareSwap: false }) },
  { name: 'ATOMIC_WRITE', weight: 5, make: make.atomicWrite },
  { name: 'FLUSH', weight: 4, make: make.flush(flushPlacement.GLOBAL) },
  { name: 'MEMCPY', weight: 3, make: make.copy, alsoUc: true },
  { name: 'BIND_MW', weight: 3, make: make.bindWindow, alsoUc: true },
  { name: 'LOCAL_INV', weight: 3, make: make.localInvalidate, alsoUc: true },
]

/** A valid request with a change that the peer refuses. */
const refusedByPeer =
  (valid: make.Make, status: number, change: (end: End, random: RandomSource) => Partial<SendRequest>): make.Make =>
  (end, random) => {
    const operation = valid(end, random)
    if (operation === undefined) return undefined
    const { kind, request } = operation
    const length = request.inline?.length ?? request.sges.reduce((sum, sge) => sum + sge.length, 0)
    // A request without data does not check the key.
    if (length === 0) return undefined
    const bad = { ...request, ...change(end, random) }
    return { kind: `bad ${kind}`, request: bad, fatal: 'remote', statuses: [status] }
  }
const wrongKey = (_end: End, random: RandomSource): Partial<SendRequest> => ({ rkey: badKey(random) })
const readOnlyKey = (end: End): Partial<SendRequest> => ({ rkey: end.peer.sourceKey, remote: end.peer.areas.source })
const keyWithoutRemoteAccess = (end: End): Partial<SendRequest> => ({
  rkey: end.peer.local.key,
  remote: end.peer.areas.buffers,
})
const keyOfOtherDomain = (end: End): Partial<SendRequest> => ({ rkey: end.target.key, remote: end.areas.target })
/** The first byte after the target and the atomic words. */
const outside = (end: End): Partial<SendRequest> => ({ remote: end.peer.areas.target + TARGET_BYTES + WORDS * 8 })
const misaligned = (end: End): Partial<SendRequest> => ({ remote: end.peer.areas.words + 4 })

const failedLocally =
  (kind: string, status: number, request: (end: End, random: RandomSource) => SendRequest): make.Make =>
  (end, random) => ({ kind, request: request(end, random), fatal: 'local', statuses: [status] })

const sendWithWrongKey = failedLocally('SEND with a wrong key', LOC_PROT_ERR, (end, random) => {
  const length = 1 + make.drawLength(end, random)
  const key = random.pick([badKey(random), end.peer.sourceKey])
  return plain(end, random, wr.SEND, { sges: [{ at: end.areas.source, length, key }] })
})
const readIntoReadOnly = failedLocally('READ into read-only memory', LOC_PROT_ERR, (end, random) =>
  plain(end, random, wr.RDMA_READ, {
    sges: [{ at: end.areas.source, length: 1 + make.drawLength(end, random), key: end.sourceKey }],
    remote: end.peer.areas.source,
    rkey: end.peer.sourceKey,
  }),
)
const unknownOpcode = failedLocally('unknown opcode', LOC_QP_OP_ERR, (end, random) =>
  plain(end, random, random.pick([100, 200, 255, 0x7fff_ffff])),
)
const invalidateWrongKey = failedLocally('LOCAL_INV of a wrong key', LOC_QP_OP_ERR, (end, random) =>
  plain(end, random, wr.LOCAL_INV, { imm: random.pick([badKey(random), end.target.key]) }),
)
const bindWrongKey = failedLocally('BIND_MW of a wrong key', MW_BIND_ERR, (end, random) => {
  const bind = { window: random.pick([badKey(random), end.target.key]), at: end.areas.target, length: 8, access: 0 }
  return plain(end, random, wr.BIND_MW, { bind })
})

/** A copy needs two elements. */
const withTwoElements =
  (copy: make.Make): make.Make =>
  (end, random) =>
    end.pair.maxSge < 2 ? undefined : copy(end, random)
const copyIntoReadOnly = failedLocally('MEMCPY into read-only memory', LOC_PROT_ERR, (end, random) => {
  const length = 1 + make.drawLength(end, random)
  const [source, target] = [end.areas.results, end.areas.source]
  const sges = [
    { at: source, length, key: end.local.key },
    { at: target, length, key: end.sourceKey },
  ]
  return plain(end, random, wr.MEMCPY, { sges })
})
const unequalCopy = failedLocally('MEMCPY of unequal lengths', LOC_LEN_ERR, (end, random) => {
  const sges = [end.areas.source, end.areas.results].map((at, i) => ({ at, length: 8 + i, key: end.local.key }))
  return plain(end, random, wr.MEMCPY, { sges: random.pick([sges, sges.slice(1), []]) })
})

const tooLong: make.Make = (end, random) => {
  const { data, more } = make.payload(end, random, make.bufferBytes(end) + 1 + random.int(end.pair.mtu))
  return {
    kind: 'SEND that is too long',
    request: plain(end, random, wr.SEND, more),
    fatal: 'remote',
    statuses: [REM_INV_REQ_ERR],
    message: { data, imm: undefined, opcode: wc.RECV, status: LOC_LEN_ERR, invalidates: undefined },
  }
}

/** They end the life of the pair, or put the send queue in error. */
const fatalKinds: readonly Kind[] = [
  { name: 'WRITE, wrong key', weight: 2, make: refusedByPeer(make.write({ imm: false }), REM_ACCESS_ERR, wrongKey) },
  {
    name: 'WRITE, read-only key',
    weight: 1,
    make: refusedByPeer(make.write({ imm: false }), REM_ACCESS_ERR, readOnlyKey),
  },
  {
    name: 'WRITE, a key without remote access',
    weight: 1,
    make: refusedByPeer(make.write({ imm: true }), REM_ACCESS_ERR, keyWithoutRemoteAccess),
  },
  {
    name: "WRITE, another domain's key",
    weight: 1,
    make: refusedByPeer(make.write({ imm: false }), REM_ACCESS_ERR, keyOfOtherDomain),
  },
  { name: 'WRITE, outside', weight: 1, make: refusedByPeer(make.write({ imm: false }), REM_ACCESS_ERR, outside) },
  {
    name: 'READ, wrong key',
    weight: 1,
    make: refusedByPeer(make.read({ fromTarget: false }), REM_ACCESS_ERR, wrongKey),
  },
  {
    name: 'READ, a key without remote access',
    weight: 1,
    make: refusedByPeer(make.read({ fromTarget: false }), REM_ACCESS_ERR, keyWithoutRemoteAccess),
  },
  {
    name: 'atomic, read-only key',
    weight: 1,
    make: refusedByPeer(make.atomic({ isCompareSwap: false }), REM_ACCESS_ERR, readOnlyKey),
  },
  {
    name: 'atomic, misaligned',
    weight: 1,
    make: refusedByPeer(make.atomic({ isCompareSwap: true }), REM_INV_REQ_ERR, misaligned),
  },
  {
    name: 'ATOMIC_WRITE, read-only key',
    weight: 1,
    make: refusedByPeer(make.atomicWrite, REM_ACCESS_ERR, readOnlyKey),
  },
  { name: 'ATOMIC_WRITE, misaligned', weight: 1, make: refusedByPeer(make.atomicWrite, REM_INV_REQ_ERR, misaligned) },
  { name: 'FLUSH, persistent', weight: 1, make: make.flush(flushPlacement.PERSISTENT) },
  { name: 'SEND that is too long', weight: 2, make: tooLong },
  { name: 'SEND_WITH_INV of a wrong key', weight: 1, make: make.sendInvalidate({ isKeyKnown: false }) },
  { name: 'SEND with a wrong key', weight: 2, make: sendWithWrongKey, alsoUc: true },
  { name: 'READ into read-only memory', weight: 1, make: readIntoReadOnly },
  { name: 'unknown opcode', weight: 1, make: unknownOpcode, alsoUc: true },
  { name: 'LOCAL_INV of a wrong key', weight: 1, make: invalidateWrongKey, alsoUc: true },
  { name: 'BIND_MW of a wrong key', weight: 1, make: bindWrongKey, alsoUc: true },
  { name: 'MEMCPY into read-only memory', weight: 1, make: withTwoElements(copyIntoReadOnly), alsoUc: true },
  { name: 'MEMCPY of unequal lengths', weight: 1, make: withTwoElements(unequalCopy), alsoUc: true },
]

/** A request that RC refuses: UC ignores it without notifying the sender. */
const ignoredByPeer =
  (refused: make.Make): make.Make =>
  (end, random) => {
    const operation = refused(end, random)
    return operation && { kind: `ignored ${operation.kind}`, request: operation.request, fatal: 'no', statuses: [] }
  }
const ucKinds: readonly Kind[] = [
  ...kinds.filter(kind => kind.alsoUc),
  {
    name: 'WRITE, wrong key',
    weight: 1,
    make: ignoredByPeer(refusedByPeer(make.write({ imm: false }), REM_ACCESS_ERR, wrongKey)),
  },
  {
    name: 'WRITE, outside',
    weight: 1,
    make: ignoredByPeer(refusedByPeer(make.write({ imm: false }), REM_ACCESS_ERR, outside)),
  },
  {
    name: 'WRITE, a key without remote access',
    weight: 1,
    make: ignoredByPeer(refusedByPeer(make.write({ imm: false }), REM_ACCESS_ERR, keyWithoutRemoteAccess)),
  },
  { name: 'SEND that is too long', weight: 1, make: ignoredByPeer(tooLong) },
]
const unsupported =
  (request: make.Make): make.Make =>
  (end, random) => {
    const operation = request(end, random)
    return (
      operation && {
        kind: `${operation.kind}, unsupported`,
        request: operation.request,
        fatal: 'local',
        statuses: [LOC_QP_OP_ERR],
      }
    )
  }
/** Fatal operations that UC has too, and operations that it lacks. */
const ucFatalKinds: readonly Kind[] = [
  ...fatalKinds.filter(kind => kind.alsoUc),
  ...kinds
    .filter(kind => !kind.alsoUc)
    .map(kind => ({
      ...kind,
      make: unsupported(kind.make),
    })),
]

const datagramKinds: readonly Kind[] = [
  { name: 'datagram', weight: 20, make: make.datagram({ hasWrongQkey: false }) },
  { name: 'datagram, wrong Q_Key', weight: 2, make: make.datagram({ hasWrongQkey: true }) },
  { name: 'datagram that is too long', weight: 1, make: make.longDatagram },
]
/** UD has only SEND: the invalid requests of UC that are SENDs, and requests that UD lacks. */
const datagramFatalKinds: readonly Kind[] = [
  ...ucFatalKinds.filter(kind => /SEND with a wrong key|unknown opcode|_AND_|READ/.test(kind.name)),
  { name: 'WRITE', weight: 1, make: unsupported(make.write({ imm: false })) },
  { name: 'WRITE_WITH_IMM', weight: 1, make: unsupported(make.write({ imm: true })) },
]

const sendToUnknownSrq: make.Make = (end, random) => {
  const request = plain(end, random, wr.SEND)
  const flags = request.flags | ((end.peer.srqn + 1 + random.int(1000)) << SRQN_SHIFT)
  return {
    kind: 'SEND to an unknown SRQ',
    request: { ...request, flags },
    fatal: 'remote',
    statuses: [REM_INV_REQ_ERR],
  }
}
const xrcFatalKinds = [...fatalKinds, { name: 'SEND to an unknown SRQ', weight: 4, make: sendToUnknownSrq }]

/** Valid and invalid operations by service. */
const tables: Readonly<Record<number, readonly [good: readonly Kind[], bad: readonly Kind[]]>> = {
  [Service.RC]: [kinds, fatalKinds],
  [Service.UC]: [ucKinds, ucFatalKinds],
  [Service.UD]: [datagramKinds, datagramFatalKinds],
  [Service.XRC_INI]: [kinds, xrcFatalKinds],
}

/** An operation of the pair's service. */
export const chooseKind = (end: End, isFatal: boolean, random: RandomSource): Kind =>
  random.weighted(tables[end.pair.service][isFatal ? 1 : 0])

/** Posts an operation of `end` and records its expected effect; undefined if it is impossible now. */
export const post = (end: End, kind: Kind, random: RandomSource): Operation | undefined => {
  const drawn = kind.make(end, random)
  if (drawn === undefined) return undefined
  const changesTarget = drawn.write !== undefined || drawn.atomic !== undefined
  const isFenced = changesTarget && end.fencedUntil >= end.endedSends
  const { peer } = end
  const { flags } = drawn.request
  // An XRC request that names no SRQ goes to the peer's.
  const srqFlags = end.pair.service === Service.XRC_INI && flags >> SRQN_SHIFT === 0 ? peer.srqn << SRQN_SHIFT : 0
  const operation = { ...drawn, request: { ...drawn.request, flags: flags | (isFenced ? FENCE : 0) | srqFlags } }
  end.sends.push(operation)
  if (operation.fatal !== 'no' && end.fatalAt === Number.POSITIVE_INFINITY) end.fatalAt = operation.request.id
  if (operation.message !== undefined) operation.messageIndex = peer.incoming.push(operation) - 1
  if (operation.write !== undefined)
    peer.plannedTarget.set(operation.write.data, operation.write.at - peer.areas.target)
  if (operation.atomic !== undefined) peer.atomics.push(operation)
  const reachesPeer = operation.message !== undefined || operation.write !== undefined
  if (!isReliable(end.pair) && operation.fatal === 'no' && reachesPeer) {
    const to = operation.destination ?? peer
    to.sentOperations.push({ operation, from: end, endNumber: undefined })
  }
  end.host.queues[end.row].sends.push(operation.request)
  return operation
}

/** Returns false if no buffer is free. */
export const postReceive = (end: End, random: RandomSource): boolean => {
  const id = end.receives.length
  if (id - end.received >= RECEIVE_SLOTS) return false
  const at = end.areas.buffers + (id % RECEIVE_SLOTS) * MESSAGE_BYTES
  const request: ReceiveRequest = {
    id: FIRST_RECEIVE_ID + id,
    sges: make.split(at, make.bufferBytes(end), end.local.key, end.pair.maxSge, random),
  }
  end.receives.push(request)
  end.host.queues[end.row].receives.push(request)
  return true
}
