/*
 * The finding that a queue pair sends to a peer that is connected to another one, although its sends succeed: UC has no
 * acknowledgements, and those of RC may go around a ring of queue pairs. If sends fail, the finding is of the failure.
 * And the finding that a message of UC was dropped, because its peer does not receive.
 */
import { findings } from '../../../spec/check/findings.ts'
import { PostQueue } from '../../../spec/session.ts'
import { WcStatus } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import { attributeTable, hasReachedRtr, isConnectedTo } from '../connection.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { stateOf, typeOf } from '../objects.ts'

export const createPeerDetector = (services: DetectorServices): Detector => {
  const { objects, deviceWithGid } = services
  /** `KnownObject.id` of the queue pairs of which a send has succeeded since their creation or RESET. */
  const checked = new Set<number>()
  return {
    on: {
      completed(request, { status }) {
        const { owner, queue } = request
        if (queue !== PostQueue.SEND || status !== WcStatus.values.SUCCESS || checked.has(owner)) return
        checked.add(owner)
        const qp = objects.find(owner)
        const peer = qp && services.peerOf(qp)
        if (qp === undefined || peer === undefined) return
        if (typeOf(qp) === 'UC' && typeOf(peer) === 'UC') {
          const why = peer.destruction === undefined ? `is in ${stateOf(peer)}` : 'was destroyed'
          const isLive = peer.destruction === undefined && hasReachedRtr(peer)
          // The peer may end later.
          if (isLive && isConnectedTo(peer, qp, deviceWithGid)) checked.delete(owner)
          if (!isLive)
            services.report('message-dropped', services.occurrenceAtPost(qp, request), {
              text: `${qp.name} ${requestText(request)} was dropped: its peer, ${peer.nameWithProgram}, ${why}`,
              advice:
                'keep the queue pair of the receiver, in RTR or RTS and connected to the sender, until the last message has arrived',
              objects: [qp, peer],
            })
        }
        if (peer.destruction !== undefined || !hasReachedRtr(peer)) return
        if (typeOf(qp) !== typeOf(peer) || isConnectedTo(peer, qp, deviceWithGid)) return
        services.report('peer-connected-elsewhere', services.occurrenceAtPost(qp, request), {
          severity: 'warning',
          text: `${qp.name} sends to ${peer.nameWithProgram}: ${findings['peer-connected-elsewhere'].title}`,
          details: attributeTable(qp, peer),
          objects: [qp, peer],
        })
      },
      queueReset(owner) {
        checked.delete(owner)
      },
    },
  }
}
