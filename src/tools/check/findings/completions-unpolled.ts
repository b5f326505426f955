/*
 * Completions that are left in a CQ that is destroyed, unless all were flushed.
 */
import { counted } from '../../../base/text.ts'
import { nameIn } from '../../../spec/enums.ts'
import { WcStatus } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { type UnpolledCompletion, unpolledCompletions } from '../queues/unpolled.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values

/** Whether a request failed. Not if it failed because its program ended: finding `program-ended`. */
const isFailed = ({ completion: { status }, qp }: UnpolledCompletion): boolean =>
  status !== SUCCESS && status !== WR_FLUSH_ERR && qp.failure?.cause.id !== 'LOCAL_ENDED'

export const createUnpolledDetector = (services: DetectorServices): Detector => {
  const unpolled = unpolledCompletions(services)
  return {
    on: {
      called({ class: name, method, refused, stack }, cq) {
        if (name !== 'cq' || method !== 'destroy' || refused !== undefined) return
        const left = unpolled.of(cq)
        unpolled.cqDestroyed(cq.id)
        const failed = left.find(isFailed)
        const first = failed ?? left.find(({ completion: { status } }) => status === SUCCESS)
        if (first === undefined) return
        const owner = services.objects.find(first.request.owner)
        const one = `${requestText(first.request)}: ${nameIn(WcStatus.values, first.completion.status)}`
        services.report('completions-unpolled', services.occurrenceAt(cq, stack), {
          text: `${cq.name} ends with ${counted(left.length, 'completion')} that the program never polled: ${one}`,
          severity: failed === undefined ? 'note' : 'warning',
          moments: [services.postMoment(first.request)],
          objects: [cq, owner],
        })
      },
    },
  }
}
