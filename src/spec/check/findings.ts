/*
 * The kinds of mistakes that `userdma check` finds, by id. Ids keep their meaning. A row is in the folder beside, in the file
 * of its id, or of the detector that reports it with others.
 */

import { type CauseName, causes } from './causes.ts'
import type { FindingRow } from './finding-row.ts'
import { adapterError } from './findings/adapter-error.ts'
import { adapterLimit, adapterMemlock, adapterOperation, forkUnsafe } from './findings/adapters.ts'
import { arrayTooShort } from './findings/array-too-short.ts'
import { atomicMisaligned } from './findings/atomic-misaligned.ts'
import { badRequest } from './findings/bad-request.ts'
import { batchMisused } from './findings/batch-misused.ts'
import { bindRefused } from './findings/bind-refused.ts'
import { bothReceive } from './findings/both-receive.ts'
import { receiveOverlap, regionInUse, regionUnmapped, sendBufferChanged } from './findings/buffers.ts'
import { cmConnectedAgain, cmNotConfirmed, cmRefusedUsed } from './findings/cm-answers.ts'
import { cmIdDestroyedEarly, connParamUninitialised, receivesAfterAccept } from './findings/cm-ids.ts'
import { completionsUnpolled } from './findings/completions-unpolled.ts'
import { connectedToItself } from './findings/connected-to-itself.ts'
import { connectionWaits } from './findings/connection-waits.ts'
import { contextInherited } from './findings/context-inherited.ts'
import { cqOverrun } from './findings/cq-overrun.ts'
import { cqTooSmall } from './findings/cq-too-small.ts'
import { deadlock } from './findings/deadlock.ts'
import { descriptorClosed } from './findings/descriptor-closed.ts'
import { destroyBusy } from './findings/destroy-busy.ts'
import { elementsUnused } from './findings/elements-unused.ts'
import { endlessRnr } from './findings/endless-rnr.ts'
import { eventIgnored } from './findings/event-ignored.ts'
import { eventsOveracknowledged } from './findings/events-overacknowledged.ts'
import { eventsUnacknowledged } from './findings/events-unacknowledged.ts'
import { failureIgnored } from './findings/failure-ignored.ts'
import { doubleDestroy, useAfterDestroy } from './findings/gone.ts'
import { idleQueues } from './findings/idle-queues.ts'
import { immediateByteOrder } from './findings/immediate-byte-order.ts'
import { infiniteTimeout } from './findings/infinite-timeout.ts'
import { invalidRequest } from './findings/invalid-request.ts'
import { keyMismatch } from './findings/key-mismatch.ts'
import { keyNotConfigured } from './findings/key-not-configured.ts'
import { leak } from './findings/leak.ts'
import { lateRead, lateWrite, lentTwice } from './findings/learnt.ts'
import { lentChanged, notLent, takenBackEarly } from './findings/lends.ts'
import { bufferFreed, forkOutstanding, frameReturned } from './findings/lifetimes.ts'
import { listPostedAgain } from './findings/list-posted-again.ts'
import { listenerAddress } from './findings/listener-address.ts'
import { lkeyNoRight } from './findings/lkey-no-right.ts'
import { lkeyOtherPd } from './findings/lkey-other-pd.ts'
import { localOutOfBounds } from './findings/local-out-of-bounds.ts'
import { localUnmapped } from './findings/local-unmapped.ts'
import { lostWakeup } from './findings/lost-wakeup.ts'
import { memoryGone } from './findings/memory-gone.ts'
import { messageDropped } from './findings/message-dropped.ts'
import { noAnswer } from './findings/no-answer.ts'
import { noPeerQp } from './findings/no-peer-qp.ts'
import { noRdAtomic } from './findings/no-rd-atomic.ts'
import { noReceivePosted } from './findings/no-receive-posted.ts'
import { notSignaled } from './findings/not-signaled.ts'
import { pollMisused, threadPromise } from './findings/orders.ts'
import { pathMtuMismatch } from './findings/path-mtu-mismatch.ts'
import { peerConnectedElsewhere } from './findings/peer-connected-elsewhere.ts'
import { peerEnded } from './findings/peer-ended.ts'
import { peerGone } from './findings/peer-gone.ts'
import { peerInError } from './findings/peer-in-error.ts'
import { peerNotReady } from './findings/peer-not-ready.ts'
import { peerRefused } from './findings/peer-refused.ts'
import { pollInHandler } from './findings/poll-in-handler.ts'
import { polledAfterDestroy } from './findings/polled-after-destroy.ts'
import { portByteOrder } from './findings/port-byte-order.ts'
import { portNotActive } from './findings/port-not-active.ts'
import { privateFile } from './findings/private-file.ts'
import { programDied } from './findings/program-died.ts'
import { programEnded } from './findings/program-ended.ts'
import { psnMismatch } from './findings/psn-mismatch.ts'
import { qpAfterDisconnect } from './findings/qp-after-disconnect.ts'
import { qpNoRight } from './findings/qp-no-right.ts'
import { atomicMixedWithWrite, bufferReused, counterShared, race, readThenWriteUnfenced } from './findings/races.ts'
import { rdAtomicExceeds } from './findings/rd-atomic-exceeds.ts'
import { receiveTooShort } from './findings/receive-too-short.ts'
import { lateReceives, receivesShort } from './findings/receives.ts'
import { refusedCall } from './findings/refused-call.ts'
import { postWrongState, queueFull } from './findings/refused-post.ts'
import { remoteOutOfBounds } from './findings/remote-out-of-bounds.ts'
import { remoteUnmapped } from './findings/remote-unmapped.ts'
import { requestLength } from './findings/request-length.ts'
import { rkeyNoRight } from './findings/rkey-no-right.ts'
import { rkeyOtherPd } from './findings/rkey-other-pd.ts'
import { neverSignaled, sendsLost, sendsUnpolled, undefinedFlags } from './findings/sends.ts'
import { serviceMismatch } from './findings/service-mismatch.ts'
import { sharedElements } from './findings/shared-elements.ts'
import { slowMemory } from './findings/slow-memory.ts'
import { staleLkey } from './findings/stale-lkey.ts'
import { staleRkey } from './findings/stale-rkey.ts'
import { swapRepeated } from './findings/swap-repeated.ts'
import { unknownLkey } from './findings/unknown-lkey.ts'
import { unknownRkey } from './findings/unknown-rkey.ts'
import { windowNotBound } from './findings/window-not-bound.ts'
import { wrongGrh } from './findings/wrong-grh.ts'
import { wrongLid } from './findings/wrong-lid.ts'

// In the order of docs/findings.md; each inner object is a line of several.
export const table = {
  // ---- connections: the attributes of both ends ----
  ...{ 'no-peer-qp': noPeerQp, 'peer-not-ready': peerNotReady, 'peer-in-error': peerInError },
  ...{ 'peer-connected-elsewhere': peerConnectedElsewhere, 'service-mismatch': serviceMismatch },
  ...{ 'path-mtu-mismatch': pathMtuMismatch, 'psn-mismatch': psnMismatch, 'rd-atomic-exceeds': rdAtomicExceeds },
  ...{ 'no-receive-posted': noReceivePosted, 'no-answer': noAnswer, 'wrong-lid': wrongLid, 'wrong-grh': wrongGrh },
  ...{ 'port-not-active': portNotActive, 'peer-refused': peerRefused, 'key-mismatch': keyMismatch },
  ...{ 'message-dropped': messageDropped, 'invalid-request': invalidRequest, 'infinite-timeout': infiniteTimeout },
  ...{ deadlock, 'endless-rnr': endlessRnr, 'swap-repeated': swapRepeated, 'both-receive': bothReceive },
  ...{ 'connection-waits': connectionWaits, 'idle-queues': idleQueues, 'peer-gone': peerGone },
  ...{ 'connected-to-itself': connectedToItself },
  // ---- rdma_cm ----
  ...{ 'cm-id-destroyed-early': cmIdDestroyedEarly, 'conn-param-uninitialised': connParamUninitialised },
  ...{ 'receives-after-accept': receivesAfterAccept },
  // ---- remote memory ----
  ...{ 'stale-rkey': staleRkey, 'unknown-rkey': unknownRkey, 'rkey-other-pd': rkeyOtherPd },
  ...{ 'remote-out-of-bounds': remoteOutOfBounds, 'rkey-no-right': rkeyNoRight, 'qp-no-right': qpNoRight },
  ...{ 'window-not-bound': windowNotBound, 'bind-refused': bindRefused, 'remote-unmapped': remoteUnmapped },
  ...{ 'peer-ended': peerEnded, 'atomic-misaligned': atomicMisaligned },
  // ---- local memory ----
  ...{ 'stale-lkey': staleLkey, 'unknown-lkey': unknownLkey, 'lkey-other-pd': lkeyOtherPd },
  ...{ 'local-out-of-bounds': localOutOfBounds, 'key-not-configured': keyNotConfigured, 'lkey-no-right': lkeyNoRight },
  ...{ 'local-unmapped': localUnmapped, 'slow-memory': slowMemory, 'region-in-use': regionInUse },
  ...{ 'region-unmapped': regionUnmapped, 'memory-gone': memoryGone, 'private-file': privateFile, 'not-lent': notLent },
  ...{ 'taken-back-early': takenBackEarly, 'lent-changed': lentChanged, 'late-write': lateWrite },
  ...{ 'late-read': lateRead, 'lent-twice': lentTwice, 'send-buffer-changed': sendBufferChanged },
  ...{ 'buffer-freed': bufferFreed, 'array-too-short': arrayTooShort, 'frame-returned': frameReturned },
  ...{ 'descriptor-closed': descriptorClosed, 'fork-outstanding': forkOutstanding },
  ...{ 'context-inherited': contextInherited, 'receive-overlap': receiveOverlap, 'shared-elements': sharedElements },
  ...{ 'list-posted-again': listPostedAgain, 'elements-unused': elementsUnused },
  ...{ 'immediate-byte-order': immediateByteOrder, 'program-ended': programEnded },
  // ---- requests ----
  ...{ 'bad-request': badRequest, 'batch-misused': batchMisused, 'failure-ignored': failureIgnored },
  ...{ 'poll-in-handler': pollInHandler, 'poll-misused': pollMisused, 'thread-promise': threadPromise },
  ...{ 'no-rd-atomic': noRdAtomic, 'adapter-error': adapterError, 'request-length': requestLength },
  ...{ 'receive-too-short': receiveTooShort },
  // ---- queues and events ----
  ...{ 'cq-overrun': cqOverrun, 'cq-too-small': cqTooSmall, 'events-unacknowledged': eventsUnacknowledged },
  ...{ 'events-overacknowledged': eventsOveracknowledged, 'cm-refused-used': cmRefusedUsed },
  ...{ 'cm-connected-again': cmConnectedAgain, 'cm-not-confirmed': cmNotConfirmed },
  ...{ 'qp-after-disconnect': qpAfterDisconnect, 'port-byte-order': portByteOrder },
  ...{ 'listener-address': listenerAddress, 'never-signaled': neverSignaled, 'sends-unpolled': sendsUnpolled },
  ...{ 'undefined-flags': undefinedFlags, 'not-signaled': notSignaled, 'late-receives': lateReceives },
  ...{ 'receives-short': receivesShort, 'lost-wakeup': lostWakeup, 'completions-unpolled': completionsUnpolled },
  ...{ 'polled-after-destroy': polledAfterDestroy },
  // ---- order of accesses (--races) ----
  ...{ race, 'counter-shared': counterShared, 'read-then-write-unfenced': readThenWriteUnfenced },
  ...{ 'buffer-reused': bufferReused, 'atomic-mixed-with-write': atomicMixedWithWrite },
  // ---- objects ----
  ...{ 'destroy-busy': destroyBusy, 'use-after-destroy': useAfterDestroy, 'event-ignored': eventIgnored },
  ...{ 'double-destroy': doubleDestroy, 'program-died': programDied, 'refused-call': refusedCall },
  ...{ 'post-wrong-state': postWrongState, 'sends-lost': sendsLost, 'queue-full': queueFull },
  // ---- limits and operations of other adapters (--like) ----
  ...{ 'adapter-limit': adapterLimit, 'adapter-operation': adapterOperation, 'adapter-memlock': adapterMemlock },
  ...{ 'fork-unsafe': forkUnsafe, leak },
} satisfies Record<string, FindingRow>

/** Ids of findings. */
export type FindingId = keyof typeof table
export const findings: Readonly<Record<FindingId, FindingRow>> = table
export const findingIds = Object.keys(table) as readonly FindingId[]

export const isFindingId = (text: string): text is FindingId => Object.hasOwn(table, text)

const byCause = new Map<CauseName, FindingId>(
  findingIds.flatMap(id => (findings[id].causes ?? []).map(cause => [cause, id] as const)),
)

/** What to do about a kind of finding, each sentence without its full stop; empty: that depends on the case. */
export const adviceOfKind = (id: FindingId): readonly string[] => {
  const { advice, causes: names = [] } = findings[id]
  if (advice !== undefined) return [advice]
  const byAdvice = new Map<string, CauseName[]>()
  for (const name of names) {
    const own = causes[name].advice
    if (own !== undefined) byAdvice.set(own, [...(byAdvice.get(own) ?? []), name])
  }
  return [...byAdvice].map(([own, of]) => `${of.join(', ')}: ${own}`)
}

/** The finding to which a cause belongs. */
export const findingOfCause = (cause: CauseName): FindingId | undefined => byCause.get(cause)
