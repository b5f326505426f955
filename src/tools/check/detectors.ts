/*
 * The detectors of every checker, and those of one that can be told, or asked for, what they need. Their order is that of the
 * findings of one event.
 */
import { createAdapterDetector } from './adapters.ts'
import { createArrayDetector } from './array-too-short.ts'
import { createBatchDetector } from './batches.ts'
import { createCmAnswerDetector } from './cm-answers.ts'
import { createCmDisconnectDetector } from './cm-disconnects.ts'
import { createCmIdDetector } from './cm-ids.ts'
import { createCmPortDetector } from './cm-ports.ts'
import { createSelfConnectionDetector } from './connected-to-itself.ts'
import { createInheritanceDetector } from './context-inherited.ts'
import { createCqSizeDetector } from './cq-too-small.ts'
import { createDatagramDetector } from './datagrams.ts'
import { createDescriptorDetector } from './descriptor-closed.ts'
import type { Detector, DetectorServices } from './detector.ts'
import { createAcknowledgementDetector } from './events-overacknowledged.ts'
import { createFailureDetector } from './failed.ts'
import { createGoneDetector } from './gone.ts'
import { createIgnoredEventDetector } from './ignored-events.ts'
import { createIgnoredPosts } from './ignored-posts.ts'
import { createImmediateDetector } from './immediate-byte-order.ts'
import { createTimeoutDetector } from './infinite-timeout.ts'
import { latestRequests } from './latest-requests.ts'
import { createLeakDetector } from './leak.ts'
import { createLateAccessDetector } from './lends/late-access.ts'
import { learnt } from './lends/learnt.ts'
import { createLendDetector } from './lends/lends.ts'
import { lentRequests } from './lends/lent-requests.ts'
import { createLentTwiceDetector } from './lends/lent-twice.ts'
import { lentMemory } from './lends/memory.ts'
import { createNotLentDetector } from './lends/not-lent.ts'
import { peerRequests } from './lends/peer-requests.ts'
import { createTakenBackDetector } from './lends/taken-back-early.ts'
import { createLidPathDetector } from './lid-paths.ts'
import { createLifetimeDetector } from './lifetimes.ts'
import { createPostedAgainDetector } from './list-posted-again.ts'
import { createMemoryGoneDetector } from './memory-gone.ts'
import { createOrderDetector } from './orders.ts'
import { createOutageDetector } from './outages.ts'
import { outstandingRequests } from './outstanding.ts'
import { createPeerDetector } from './peers.ts'
import { createHandlerDetector } from './poll-in-handler.ts'
import { createLatePollDetector } from './polled-after-destroy.ts'
import { createDeadPostDetector } from './posted-dead.ts'
import { createPrivateFileDetector } from './private-files.ts'
import { createAddressDetector } from './queues/address-destroyed.ts'
import { createUnpolledDetector } from './queues/completions-unpolled.ts'
import { createUnusedElementsDetector } from './queues/elements-unused.ts'
import { createQueueDetector } from './queues/queues.ts'
import { createRaceDetector } from './races/detector.ts'
import { createOverlapDetector } from './receive-overlap.ts'
import { createRefusalDetector } from './refusals.ts'
import { createRefusedPostDetector } from './refused-post.ts'
import { createRegionUseDetector } from './region-in-use.ts'
import { createRequestOrders } from './request-orders.ts'
import { createSendChangeDetector } from './send-buffer-changed.ts'
import { createSharedElementsDetector } from './shared-elements.ts'
import { createSwaps } from './swaps.ts'
import { createUnfitEndsDetector } from './unfit-ends.ts'
import { createDeadlockDetector } from './waits/deadlock.ts'
import { createPeerGoneDetector } from './waits/peer-gone.ts'
import { createWaitReports } from './waits/report.ts'
import { createWho } from './who.ts'

type Create = (services: DetectorServices) => Detector | undefined

const creates: readonly Create[] = [
  createQueueDetector,
  createAddressDetector,
  createUnpolledDetector,
  createUnusedElementsDetector,
  createOutageDetector,
  createIgnoredEventDetector,
  createRefusalDetector,
  createCqSizeDetector,
  createTimeoutDetector,
  createSelfConnectionDetector,
  createUnfitEndsDetector,
  createLeakDetector,
  createIgnoredPosts,
  createSwaps,
  latestRequests,
  createMemoryGoneDetector,
  createPrivateFileDetector,
  createLendDetector,
  createTakenBackDetector,
  createNotLentDetector,
  lentRequests,
  lentMemory,
  learnt,
  createLentTwiceDetector,
  peerRequests,
  createLateAccessDetector,
  createOverlapDetector,
  createSendChangeDetector,
  createRegionUseDetector,
  outstandingRequests,
  createDatagramDetector,
  createLidPathDetector,
  createAdapterDetector,
  createCmIdDetector,
  createCmPortDetector,
  createCmDisconnectDetector,
  createCmAnswerDetector,
  createPeerDetector,
  createInheritanceDetector,
  createArrayDetector,
  createDescriptorDetector,
  createAcknowledgementDetector,
  createDeadPostDetector,
  createSharedElementsDetector,
  createImmediateDetector,
  createPostedAgainDetector,
  createHandlerDetector,
  createLatePollDetector,
  createDeadlockDetector,
  createPeerGoneDetector,
  createLifetimeDetector,
  createRaceDetector,
  createWho,
  createRequestOrders,
  createBatchDetector,
  createOrderDetector,
  createGoneDetector,
  createRefusedPostDetector,
  createFailureDetector,
]

export const createDetectors = (services: DetectorServices): readonly Detector[] => {
  const detectors = creates.flatMap(create => create(services) ?? [])
  return [...detectors, createWaitReports(services, detectors)]
}
