/*
 * The detectors of every checker, and those of one that can be told, or asked for, what they need. Their order is that of the
 * findings of one event.
 */

import type { Detector, DetectorServices } from './detector.ts'
import { createAdapterDetector } from './findings/adapters.ts'
import { createAddressDetector } from './findings/address-destroyed.ts'
import { createArrayDetector } from './findings/array-too-short.ts'
import { createBatchDetector } from './findings/batch-misused.ts'
import { createCmAnswerDetector } from './findings/cm-answers.ts'
import { createCmIdDetector } from './findings/cm-ids.ts'
import { createUnpolledDetector } from './findings/completions-unpolled.ts'
import { createSelfConnectionDetector } from './findings/connected-to-itself.ts'
import { createInheritanceDetector } from './findings/context-inherited.ts'
import { createCqSizeDetector } from './findings/cq-too-small.ts'
import { createDatagramDetector } from './findings/datagrams.ts'
import { createDeadlockDetector } from './findings/deadlock.ts'
import { createDescriptorDetector } from './findings/descriptor-closed.ts'
import { createUnusedElementsDetector } from './findings/elements-unused.ts'
import { createIgnoredEventDetector } from './findings/event-ignored.ts'
import { createAcknowledgementDetector } from './findings/events-overacknowledged.ts'
import { createFailureDetector } from './findings/failed-requests.ts'
import { createGoneDetector } from './findings/gone.ts'
import { createIgnoredPosts } from './findings/ignored-posts.ts'
import { createImmediateDetector } from './findings/immediate-byte-order.ts'
import { createTimeoutDetector } from './findings/infinite-timeout.ts'
import { createLateAccessDetector } from './findings/late-access.ts'
import { createLeakDetector } from './findings/leak.ts'
import { createLentTwiceDetector } from './findings/lent-twice.ts'
import { createLifetimeDetector } from './findings/lifetimes.ts'
import { createPostedAgainDetector } from './findings/list-posted-again.ts'
import { createMemoryGoneDetector } from './findings/memory-gone.ts'
import { createNotLentDetector } from './findings/not-lent.ts'
import { createOrderDetector } from './findings/orders.ts'
import { createOutageDetector } from './findings/outages.ts'
import { createPeerDetector } from './findings/peer-connected-elsewhere.ts'
import { createPeerGoneDetector } from './findings/peer-gone.ts'
import { createHandlerDetector } from './findings/poll-in-handler.ts'
import { createLatePollDetector } from './findings/polled-after-destroy.ts'
import { createCmPortDetector } from './findings/port-byte-order.ts'
import { createDeadPostDetector } from './findings/posted-dead.ts'
import { createPrivateFileDetector } from './findings/private-file.ts'
import { createCmDisconnectDetector } from './findings/qp-after-disconnect.ts'
import { createRaceDetector } from './findings/races.ts'
import { createOverlapDetector } from './findings/receive-overlap.ts'
import { createRefusalDetector } from './findings/refused-call.ts'
import { createRefusedPostDetector } from './findings/refused-post.ts'
import { createRegionUseDetector } from './findings/region-in-use.ts'
import { createSendChangeDetector } from './findings/send-buffer-changed.ts'
import { createSharedElementsDetector } from './findings/shared-elements.ts'
import { createSwaps } from './findings/swap-repeated.ts'
import { createTakenBackDetector } from './findings/taken-back-early.ts'
import { createUnfitEndsDetector } from './findings/unfit-ends.ts'
import { createLidPathDetector } from './findings/wrong-grh.ts'
import { latestRequests } from './latest-requests.ts'
import { learnt } from './lends/learnt.ts'
import { createLendDetector } from './lends/lends.ts'
import { lentRequests } from './lends/lent-requests.ts'
import { lentMemory } from './lends/memory.ts'
import { peerRequests } from './lends/peer-requests.ts'
import { outstandingRequests } from './outstanding.ts'
import { createQueueDetector } from './queues/queues.ts'
import { createRequestOrders } from './request-orders.ts'
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
