/*
 * Finding connected-to-itself: a queue pair names itself as its peer; or it sends a datagram to itself after one of
 * another queue pair at this address, to which it sends nothing: wc.qp_num was taken for wc.src_qp.
 */
import { QpState } from '../../../spec/enums.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { hex, type KnownObject } from '../objects.ts'
import type { FindingContent, Occurrence } from '../reporting.ts'

/** A datagram to the own queue pair, until its program sends one to `peer`. */
interface OwnDatagram {
  readonly peer: KnownObject
  readonly occurrence: Occurrence
  readonly content: FindingContent
}

export const createSelfConnectionDetector = (services: DetectorServices): Detector => {
  const { objects } = services
  /** By queue pair: the sender of the last datagram, unless it was answered. */
  const heard = new Map<number, KnownObject>()
  const own = new Map<number, OwnDatagram>()
  return {
    on: {
      modified(call, qp) {
        if (qp.isQp && call.args.state === QpState.values.RTR && services.peerOf(qp) === qp)
          services.report('connected-to-itself', call, { text: `${qp.name} is connected to itself`, objects: [qp] })
      },
      completed(_request, { message, qp }) {
        if (message?.destination === undefined || message.owner === qp) return
        const peer = objects.find(message.owner)
        if (peer !== undefined) heard.set(qp, peer)
      },
      posted(request) {
        const { destination, destQpn, owner } = request
        const peer = destination && (heard.get(owner) ?? own.get(owner)?.peer)
        const qp = peer && objects.find(owner)
        if (qp === undefined || peer === undefined || services.targetDeviceOf(request, qp) !== peer.device) return
        if (destQpn === peer.qpn) {
          heard.delete(owner)
          own.delete(owner)
        } else if (destQpn === qp.qpn && qp.device === peer.device && !own.has(owner))
          own.set(owner, {
            peer,
            occurrence: services.occurrenceAtPost(qp, request),
            content: {
              severity: 'warning',
              text: `${qp.name} ${requestText(request)} goes to ${qp.name} itself: the datagram before came from ${peer.nameWithProgram} at this address, which gets none`,
              advice: `answer to wc.src_qp, ${hex(peer.qpn ?? 0)}: wc.qp_num is the queue pair that has received`,
              objects: [qp, peer],
            },
          })
      },
      ends(_call, { id }) {
        const told = own.get(id)
        if (told !== undefined) services.report('connected-to-itself', told.occurrence, told.content)
        heard.delete(id)
        own.delete(id)
      },
    },
  }
}
