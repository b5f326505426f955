/*
 * Invariants of the model test: each request completes exactly once, in order, with the expected status, and its data
 * is in memory then; memory changes only where an outstanding request allows it. At the end memory is the result of
 * the successful requests, and possibly of part of the next ones. When a forged packet makes the outcome unpredictable
 * (`Pair.unpredictableBecause`), only order, exactly-once and the bounds of memory are checked.
 */
import assert from 'node:assert/strict'
import { AsyncEventType, QpState } from '../../../src/spec/enums.ts'
import { SendFlags, SendKind, sendOperations, WcFlags, WcOpcode, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import type { Region } from './memory.ts'
import { type Completed, GRH_BYTES, GRH_FILL, type ReceiveRequest, type SendRequest } from './node.ts'
import {
  type End,
  FIRST_RECEIVE_ID,
  isDatagram,
  isReliable,
  type Operation,
  outstanding,
  type Pair,
  TARGET_BYTES,
  WORDS,
} from './pair.ts'

const { SUCCESS, WR_FLUSH_ERR, RETRY_EXC_ERR, LOC_ACCESS_ERR } = WcStatus.values
const { WITH_IMM, WITH_INV } = WcFlags.values
const { SIGNALED, SOLICITED } = SendFlags.values
const { FLUSH, MEMCPY } = WrOpcode.values
const { SQE, ERR } = QpState.values
const { COMM_EST, SQ_DRAINED, QP_LAST_WQE_REACHED } = AsyncEventType.values

export const createStatistics = () => ({
  /** Send requests. */
  succeeded: 0,
  failed: 0,
  flushed: 0,
  /** Received messages. */
  messages: 0,
  /** Requests that failed because the network exhausted their retries. */
  lost: 0,
  /** Lives of pairs. */
  lives: 0,
  /** Lives with an unpredictable outcome. */
  unpredictable: 0,
  /** Attacks on idle pairs (exact.ts). */
  attacks: 0,
})
type Statistics = ReturnType<typeof createStatistics>

const stateOf = (end: End): number => end.host.engine.query(end.row).state
/** Only unreliable queue pairs have the state SQE. */
const isSendQueueInError = (end: End): boolean =>
  stateOf(end) === ERR || (stateOf(end) === SQE && !isReliable(end.pair))
const nameOf = (end: End, operation: Operation): string =>
  `${end.name} request ${operation.request.id} (${operation.kind})`

const totalOf = (request: SendRequest): number =>
  request.inline?.length ?? request.sges.reduce((sum, sge) => sum + sge.length, 0)

/** Packets of the request or of its response; 0 for local requests. */
const psnsOf = (end: End, { request }: Operation): number =>
  sendOperations[request.opcode]?.kind === SendKind.LOCAL ? 0 : Math.max(1, Math.ceil(totalOf(request) / end.pair.mtu))

const doOverlap = (a: NonNullable<Operation['write']>, b: NonNullable<Operation['write']>): boolean =>
  a.at < b.at + b.data.length && b.at < a.at + a.data.length

const memoryOf = (end: End, at: number, length: number): Uint8Array => end.host.memory.bytes.subarray(at, at + length)

const assertSame = (actual: Uint8Array, expected: Uint8Array, subject: () => string): void => {
  if (Buffer.compare(actual, expected) === 0) return
  const at = actual.findIndex((byte, i) => byte !== expected[i])
  assert.fail(`${subject()}: byte ${at} of ${expected.length} is ${actual[at]}, not ${expected[at]}`)
}

/** The elements that a READ, an atomic or a copy writes to: the first one of a copy is its source. */
const writtenBy = ({ opcode, sges }: SendRequest): SendRequest['sges'] => (opcode === MEMCPY ? sges.slice(1) : sges)

// ---- sends ----

const onSendSucceeded = (end: End, operation: Operation, statistics: Statistics): void => {
  const { peer, pair } = end
  const { request, write, message, read, atomic } = operation
  statistics.succeeded++
  end.succeededSends++
  if (message !== undefined) (operation.destination ?? peer).transmitted++
  if (operation.binds?.isLive) end.usableWindows.push(operation.binds)
  if (pair.unpredictableBecause !== undefined) return
  if (operation.binds !== undefined) assert.ok(operation.binds.isLive, `${nameOf(end, operation)}: it is not bound`)
  if (operation.invalidates !== undefined)
    assert.ok(!operation.invalidates.isLive, `${nameOf(end, operation)}: the key is still valid`)
  assert.ok(operation.fatal === 'no', `${nameOf(end, operation)} succeeded, although it cannot`)
  if (!isReliable(pair)) return
  if (message !== undefined)
    assert.ok(peer.arrived > operation.messageIndex!, `${nameOf(end, operation)} completed before its message arrived`)
  if (write !== undefined) {
    peer.completedTarget.set(write.data, write.at - peer.areas.target)
    const laterSends = end.sends.slice(request.id + 1)
    const mayBeOverwritten = laterSends.some(next => next.write !== undefined && doOverlap(next.write, write))
    if (!mayBeOverwritten)
      assertSame(memoryOf(peer, write.at, write.data.length), write.data, () => nameOf(end, operation))
  }
  if (read !== undefined && read.length > 0) {
    const { at } = writtenBy(request)[0]
    assertSame(memoryOf(end, at, read.length), read, () => nameOf(end, operation))
  }
  if (atomic !== undefined) {
    assert.equal(atomic.executed, 1, `${nameOf(end, operation)} was executed ${atomic.executed} times`)
    const result = end.host.memory.words.getBigUint64(request.sges[0].at, true)
    assert.equal(result, atomic.original, `${nameOf(end, operation)}: its result`)
  }
}

/** Checks the first failed request of an end. */
const onSendFailed = (end: End, operation: Operation, status: number, statistics: Statistics): void => {
  const { peer, pair } = end
  end.hasFailed = true
  pair.isFailing = true
  statistics.failed++
  if (pair.unpredictableBecause !== undefined) return
  const subject = `${nameOf(end, operation)} has status ${status}`
  const isExpected = operation.request.id === end.fatalAt && operation.statuses.includes(status)
  if (status === WR_FLUSH_ERR) {
    assert.ok(end.isForcedToError || peer.fatalAt < peer.sends.length, `${subject}, although no request was wrong`)
  } else if (!isExpected) {
    assert.equal(status, RETRY_EXC_ERR, `${subject}; allowed: ${operation.statuses}`)
    // A peer in the error state does not answer; else the network exhausted the retries.
    if (stateOf(peer) !== ERR) statistics.lost++
  }
}

const retireSend = (end: End): void => {
  end.ackedPsns += psnsOf(end, end.sends[end.endedSends])
  end.endedSends++
}

/** Unsignaled requests before `id` have succeeded. */
const completeUnsignaled = (end: End, id: number, statistics: Statistics): void => {
  while (end.endedSends < id) {
    const operation = end.sends[end.endedSends]
    const hasCompletion = end.hasFailed || end.pair.signalsAll || (operation.request.flags & SIGNALED) !== 0
    assert.ok(!hasCompletion, `${nameOf(end, operation)} has no completion`)
    onSendSucceeded(end, operation, statistics)
    retireSend(end)
  }
}

/** Without a failure an empty send queue means that the remaining requests, which are unsignaled, have succeeded. */
const completeTrailing = (end: End, statistics: Statistics): void => {
  if (!end.hasFailed && end.host.queues[end.row].sends.length === 0)
    completeUnsignaled(end, end.sends.length, statistics)
}

export const onSendCompleted = (end: End, completion: Completed, statistics: Statistics): void => {
  const operation = end.sends[completion.id]
  assert.ok(
    operation !== undefined && completion.id >= end.endedSends,
    `${end.name}: request ${completion.id} completes out of order, after ${end.endedSends - 1}`,
  )
  assert.equal(completion.qpn, end.qpn)
  completeUnsignaled(end, completion.id, statistics)
  if (completion.status === SUCCESS) {
    assert.ok(!end.hasFailed, `${nameOf(end, operation)} succeeds after one that failed`)
    const { flags, opcode } = operation.request
    assert.ok(
      end.pair.signalsAll || (flags & SIGNALED) !== 0,
      `${nameOf(end, operation)} is unsignaled, but has a completion`,
    )
    assert.equal(completion.opcode, sendOperations[opcode].completion)
    // A FLUSH has its length in `compare`; a copy has two elements of its length.
    const { compare } = operation.request
    const total = totalOf(operation.request)
    const length = opcode === MEMCPY ? total / 2 : total
    assert.equal(completion.bytes, opcode === FLUSH ? Number(compare) : length)
    onSendSucceeded(end, operation, statistics)
  } else if (end.hasFailed) {
    assert.equal(completion.status, WR_FLUSH_ERR, `${nameOf(end, operation)} after one that failed`)
    statistics.flushed++
  } else onSendFailed(end, operation, completion.status, statistics)
  if (completion.status !== SUCCESS) assert.ok(completion.isSolicited)
  // The first failed request completes just before the state changes.
  if (completion.status === WR_FLUSH_ERR) assert.ok(isSendQueueInError(end), `${nameOf(end, operation)} is flushed`)
  retireSend(end)
}

// ---- receives ----

export const onReceiveCompleted = (end: End, completion: Completed, statistics: Statistics): void => {
  const request = end.receives[end.received]
  assert.equal(completion.id, request?.id, `${end.name}: receive requests complete in order`)
  assert.equal(completion.qpn, end.qpn)
  end.received++
  const subject = `${end.name} receive ${completion.id - FIRST_RECEIVE_ID}`
  if (completion.status !== SUCCESS) {
    assert.ok(completion.isSolicited)
    if (completion.status === WR_FLUSH_ERR) assert.equal(stateOf(end), ERR, `${subject} is flushed`)
    const isFirstFailure = !end.hasReceiveFailed
    end.hasReceiveFailed = true
    if (completion.status === WR_FLUSH_ERR) return
    assert.ok(isFirstFailure, `${subject} has status ${completion.status} after one that failed`)
    if (end.pair.unpredictableBecause !== undefined) return
    const { peer } = end
    const failing = peer.sends[peer.fatalAt]
    const expected = failing?.message?.status ?? LOC_ACCESS_ERR
    assert.ok(
      failing !== undefined && completion.status === expected,
      `${subject} has status ${completion.status}, although no request was wrong`,
    )
    if (failing.message !== undefined)
      assert.equal(failing.messageIndex, end.arrived, `${subject}: messages before it are missing`)
    return
  }
  assert.ok(!end.hasReceiveFailed, `${subject} succeeds after one that failed`)
  statistics.messages++
  if (!isReliable(end.pair)) {
    end.arrived++
    const isKnown =
      end.pair.unpredictableBecause !== undefined ||
      // findLast, because the message is usually one of the newest.
      end.sentOperations.findLast(
        one => one.operation.message && !wrongMessage(end, one.operation, request, completion),
      ) !== undefined
    assert.ok(isKnown, `${subject} is not a message that was sent`)
    return
  }
  const operation = end.incoming[end.arrived++]
  if (end.pair.unpredictableBecause !== undefined) return
  assert.ok(operation !== undefined, `${subject}: this message was not sent`)
  const wrong = wrongMessage(end, operation, request, completion)
  assert.equal(wrong, undefined, `${subject} of ${nameOf(end.peer, operation)}`)
  assert.ok(operation.request.id >= end.peer.succeededSends, `${subject}: after its request completed`)
}

/** How a completion differs from the message of `operation`; undefined if it does not. */
const wrongMessage = (
  end: End,
  operation: Operation,
  receive: ReceiveRequest,
  completion: Completed,
): string | undefined => {
  const { data, imm, opcode, status, invalidates, source } = operation.message!
  if (status !== SUCCESS) return 'it cannot succeed'
  const grhBytes = isDatagram(end.pair) ? GRH_BYTES : 0
  const expectedBytes = grhBytes + data.length
  if (source !== undefined && completion.sourceQpn !== source) return 'source'
  if (completion.bytes !== expectedBytes) return `${completion.bytes} bytes, not ${expectedBytes}`
  if (((completion.flags & WITH_IMM) !== 0 ? completion.imm : undefined) !== imm) return 'immediate'
  if (((completion.flags & WITH_INV) !== 0 ? completion.imm : undefined) !== invalidates) return 'invalidated key'
  if (end.ownWindows.some(window => window.key === invalidates && window.isLive))
    return 'the invalidated key is still valid'
  if (completion.opcode !== opcode) return 'opcode'
  if (completion.isSolicited !== ((operation.request.flags & SOLICITED) !== 0)) return 'solicited'
  if (opcode !== WcOpcode.values.RECV) return undefined
  const { at } = receive.sges[0]
  if (memoryOf(end, at, grhBytes).some(byte => byte !== GRH_FILL)) return 'GRH'
  return Buffer.compare(memoryOf(end, at + grhBytes, data.length), data) === 0 ? undefined : 'data'
}

export const onEvent = (end: End, type: number): void => {
  if (type === COMM_EST) return
  if (type === SQ_DRAINED) {
    assert.ok(end.isDraining, `${end.name}: drained, which was not requested`)
    end.isDraining = false
    return
  }
  const { peer, pair } = end
  if (type === QP_LAST_WQE_REACHED) {
    assert.ok(pair.hasSrq && stateOf(end) === ERR, `${end.name}: LAST_WQE_REACHED without an SRQ or before ERR`)
    return
  }
  const isExplained = pair.unpredictableBecause !== undefined || peer.fatalAt < peer.sends.length
  assert.ok(isExplained && stateOf(end) === ERR, `${end.name} has event ${type}, although no request was wrong`)
}

// ---- memory ----

/** Whether a range lies within the consecutive elements of a request. */
const isInside = (request: { sges: SendRequest['sges'] }, at: number, length: number): boolean => {
  if (request.sges.length === 0) return false
  const start = request.sges[0].at
  return at >= start && at + length <= start + request.sges.reduce((sum, sge) => sum + sge.length, 0)
}

/** Only buffers of the oldest receive WQE and of READs and atomics in flight may change. */
const checkLocalWrite = (end: End, at: number, length: number): void => {
  const receive = end.receives[end.received]
  if (receive !== undefined && isInside(receive, at, length)) return
  for (let i = end.endedSends; i < end.sends.length; i++) {
    const { read, atomic, request } = end.sends[i]
    if ((read !== undefined || atomic !== undefined) && isInside({ sges: writtenBy(request) }, at, length)) return
  }
  assert.fail(`${end.name}: ${length} bytes are written at ${at}, where nothing is expected`)
}

/** Only contents of WRITEs whose packets may still arrive are allowed. A range may cover adjacent WRITEs. */
const checkTargetWrite = (end: End, at: number, length: number): void => {
  const { peer } = end
  const { bytes } = end.host.memory
  const writes = isReliable(end.pair)
    ? peer.sends.slice(peer.succeededSends, Math.min(peer.sends.length, peer.fatalAt))
    : end.sentOperations.map(one => one.operation)
  let from = at
  while (from < at + length) {
    let reached = from
    for (const { write } of writes) {
      if (write === undefined || from < write.at) continue
      let to = from
      const limit = Math.min(at + length, write.at + write.data.length)
      while (to < limit && bytes[to] === write.data[to - write.at]) to++
      if (to > reached) reached = to
    }
    assert.ok(reached > from, `${end.name}: byte ${from - end.areas.target} of the target was written unexpectedly`)
    from = reached
  }
}

export const onWrote = (end: End, region: Region, at: number, length: number): void => {
  if (region === end.local) checkLocalWrite(end, at, length)
  else {
    assert.ok(region === end.target || region.isWindow, `${end.name}: a write through a key for reading`)
    if (end.pair.unpredictableBecause === undefined) checkTargetWrite(end, at, length)
  }
}

export const onAtomic = (end: End, region: Region, at: number, before: bigint): void => {
  assert.ok(region === end.target, `${end.name}: an atomic through a key for reading`)
  const after = end.host.memory.words.getBigUint64(at, true)
  const index = (at - end.areas.words) / 8
  if (end.pair.unpredictableBecause === undefined) {
    const operation = end.atomics[end.executed]
    assert.ok(operation !== undefined, `${end.name}: an atomic that was not requested`)
    const subject = nameOf(end.peer, operation)
    const { request } = operation
    assert.ok(request.id >= end.peer.succeededSends && request.id < end.peer.fatalAt, `${subject} is executed too late`)
    assert.equal(at, request.remote, `${subject} is executed on another word, or another atomic twice`)
    assert.equal(before, end.words[index], `${subject}: the word before`)
    const isCompareSwap = operation.kind === 'CMP_AND_SWP'
    const sum = BigInt.asUintN(64, before + request.compare)
    const swapped = before === request.compare ? request.swap : before
    assert.equal(after, isCompareSwap ? swapped : sum, `${subject}: the word after`)
    operation.atomic!.executed++
    operation.atomic!.original = before
    end.executed++
  }
  if (Number.isInteger(index) && index >= 0 && index < WORDS) end.words[index] = after
}

/** Outstanding requests before the first that fails locally. */
const inFlight = (end: End): Operation[] => {
  const failing = end.sends[end.fatalAt]
  return end.sends.slice(end.succeededSends, failing?.fatal === 'local' ? end.fatalAt : end.sends.length)
}

export const onBound = (end: End, region: Region): void =>
  assert.ok(
    inFlight(end).some(operation => operation.binds === region),
    `${end.name}: a bound window that no request names`,
  )

export const onInvalidated = (end: End, region: Region): void => {
  if (inFlight(end).some(operation => operation.invalidates === region) || end.pair.unpredictableBecause !== undefined)
    return
  const expected = end.incoming[end.arrived]?.message?.invalidates
  assert.equal(region.key, expected, `${end.name}: an invalidated key that the next message does not name`)
}

/** The target has the result of the successful requests and of part of the next ones. */
const isTargetExpected = (end: End): boolean => {
  const { peer, pair } = end
  const memory = memoryOf(end, end.areas.target, TARGET_BYTES)
  const image = end.completedTarget.slice()
  if (Buffer.compare(memory, image) === 0) return true
  for (let i = peer.succeededSends; i < peer.sends.length && i < peer.fatalAt; i++) {
    const { write } = peer.sends[i]
    if (write === undefined) continue
    for (let done = 0; done < write.data.length; done += pair.mtu) {
      image.set(write.data.subarray(done, done + pair.mtu), write.at - end.areas.target + done)
      if (Buffer.compare(memory, image) === 0) return true
    }
  }
  return false
}

/** Called when the life of a pair ends. `isFlushed`: the queue pair was in ERR, so all requests must have completed. */
export const checkEnd = (end: End, isFlushed: boolean, statistics: Statistics): void => {
  const { pair, host } = end
  completeTrailing(end, statistics)
  if (isFlushed) {
    assert.equal(outstanding(end), 0, `${end.name}: requests that never complete`)
    const { sends, receives } = host.queues[end.row]
    assert.equal(sends.length, 0, `${end.name}: requests that were never fetched`)
    // WQEs of an SRQ are not flushed.
    const unconsumed = pair.hasSrq ? receives.length : 0
    assert.equal(receives.length, unconsumed, `${end.name}: receive requests that were never consumed`)
    assert.equal(end.received + unconsumed, end.receives.length, `${end.name}: receive requests that never complete`)
  }
  if (pair.unpredictableBecause !== undefined) return
  // Messages may be lost or find no receive WQE, but not nearly all.
  const isLossTooHigh = !isReliable(pair) && end.transmitted >= 60 && end.arrived < end.transmitted / 10
  assert.ok(!isLossTooHigh, `${end.name}: ${end.arrived} of ${end.transmitted} messages have arrived`)
  assert.ok(
    !isReliable(pair) || isTargetExpected(end),
    `${end.name}: the target differs from the result of the requests`,
  )
  for (let i = 0; i < WORDS; i++)
    assert.equal(host.memory.words.getBigUint64(end.areas.words + 8 * i, true), end.words[i], `${end.name}: word ${i}`)
}

/** The target is the result of all posted requests if all have succeeded. */
export const checkFinished = (pair: Pair, statistics: Statistics): void => {
  for (const end of pair.ends) completeTrailing(end, statistics)
  if (pair.unpredictableBecause !== undefined || pair.isFailing || !isReliable(pair)) return
  for (const end of pair.ends) {
    const memory = memoryOf(end, end.areas.target, TARGET_BYTES)
    assertSame(memory, end.plannedTarget, () => `${end.name}: the target at the end`)
  }
}
