/*
 * Address handles that are destroyed before the program has polled the completions of sends to their address.
 */
import type { Stack } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import { sendQueues } from '../queues/sends.ts'
import { unpolledCompletions } from '../queues/unpolled.ts'

export const createAddressDetector = (services: DetectorServices): Detector => {
  const [sends, unpolled] = [sendQueues(services), unpolledCompletions(services)]

  const destroyed = (ah: KnownObject, stack: Stack): void => {
    const { dgid } = ah
    const pd = ah.uses.get('pd')
    if (dgid === undefined || pd === undefined) return
    const isSame = (gid: Uint8Array | undefined): boolean => gid?.every((byte, i) => byte === dgid[i]) === true
    // Another handle of the address: the sends may have used that one.
    for (const other of pd.users) if (other !== ah && isSame(other.dgid)) return
    for (const owner of pd.users) {
      if (owner.class !== 'ud_qp') continue
      const cq = owner.uses.get('sendCq')
      const isOfAddress = ({ owner: id, destination }: WorkRequest): boolean =>
        id === owner.id && isSame(destination?.gid)
      const waiting = sends.outstandingOf(owner.id).find(isOfAddress)
      const sent = cq && unpolled.of(cq).find(({ request }) => isOfAddress(request))?.request
      const last = sends.lastUnknown(owner)
      const request = waiting ?? sent ?? (last && isOfAddress(last) ? last : undefined)
      if (request === undefined) continue
      const fate = waiting === undefined ? 'here it was sent' : 'it still waits, and is dropped'
      services.report('message-dropped', services.occurrenceAt(ah, stack), {
        text: `${ah.name} was destroyed before the completion of ${requestText(request)} of ${owner.name} was polled: an adapter may drop the datagram; ${fate}`,
        advice: 'destroy an address handle after the completions of its sends were polled',
        moments: [services.postMoment(request)],
        objects: [ah, owner],
      })
      return
    }
  }

  return {
    on: {
      called({ class: name, method, refused, why, stack }, ah) {
        if (name === 'ah' && method === 'destroy' && why === 'call' && refused === undefined) destroyed(ah, stack)
      },
    },
  }
}
