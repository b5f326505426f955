/*
 * The finding that rdma_disconnect leaves a queue pair of the program's own in RTS, which it does not move to ERR.
 */

import type { CheckedCall } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { QpState } from '../../../spec/enums.ts'
import { PostQueue } from '../../../spec/session.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'

const { RTS } = QpState.values

export const createCmDisconnectDetector = (services: DetectorServices): Detector => {
  /** The number of the queue pair that an identifier connects, by `CoreObject.id` of the identifier. */
  const qpns = new Map<number, number>()
  /** Receives that are outstanding, by `CoreObject.id` of the queue pair. */
  const receives = new Map<number, number>()
  /** By `CoreObject.id` of the queue pair: the call of rdma_disconnect, and the identifier. */
  const disconnected = new Map<number, { readonly call: CheckedCall; readonly id: KnownObject }>()

  const countReceive = ({ owner, queue }: WorkRequest, step: 1 | -1): void => {
    if (queue !== PostQueue.RECEIVE) return
    const count = (receives.get(owner) ?? 0) + step
    if (count > 0) receives.set(owner, count)
    else receives.delete(owner)
  }

  const disconnects = (call: CheckedCall, id: KnownObject): void => {
    const qpn = qpns.get(id.id)
    const qp = qpn === undefined ? undefined : services.objects.qpOfProgram(id.program, qpn)
    if (qp !== undefined && qp.attributes.state === RTS) disconnected.set(qp.id, { call, id })
  }

  /** A queue pair, or the identifier, is about to be destroyed. */
  const ends = (qp: KnownObject): void => {
    const known = disconnected.get(qp.id)
    const count = receives.get(qp.id) ?? 0
    disconnected.delete(qp.id)
    if (known === undefined || qp.attributes.state !== RTS || count === 0) return
    const { call, id } = known
    const text = `${qp.name} stayed in RTS after rdma_disconnect of ${id.name}, because rdma_create_qp has not created it; ${count} of its receives ${count === 1 ? 'was' : 'were'} not flushed`
    services.report('qp-after-disconnect', call, { text, objects: [qp, id] })
  }

  return {
    on: {
      posted: request => countReceive(request, 1),
      completed: request => countReceive(request, -1),
      queueReset(owner) {
        receives.delete(owner)
      },
      calling({ method }, object) {
        if (method !== 'destroy') return
        if (object.isQp) ends(object)
      },
      called(call, object) {
        const { method, refused, args, queuePair } = call
        if (refused !== undefined) return
        if (object.isQp && (method === 'destroy' || (method === 'modify' && args.state !== undefined)))
          disconnected.delete(object.id)
        if (object.class !== 'cm_id') return
        const { qpNum } = (args.parameters ?? {}) as { readonly qpNum?: number }
        // The daemon itself moves a queue pair that the call names (attribute qp).
        if ((method === 'connect' || method === 'accept') && qpNum !== undefined && args.qp === undefined)
          qpns.set(object.id, qpNum)
        // Without a queue pair of rdma_create_qp.
        if (method === 'disconnect' && queuePair === undefined) disconnects(call, object)
        if (method === 'destroy') qpns.delete(object.id)
      },
    },
  }
}
