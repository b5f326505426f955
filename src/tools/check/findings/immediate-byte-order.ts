/*
 * Finding immediate-byte-order: immediate data in the order of the host.
 */
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { hex, type KnownObject } from '../objects.ts'
import { type FindingContent, type Occurrence, POSTED } from '../reporting.ts'

interface HostOrders {
  /** Reports it as the error that explains the death of a receiver, if a send of the queue pair has had it. */
  explains(sender: KnownObject, content: Required<Pick<FindingContent, 'text' | 'moments'>>): number | undefined
}
export const HOST_ORDERS: Topic<HostOrders> = { name: 'immediate data in the order of the host' }

export const createImmediateDetector = (services: DetectorServices): Detector => {
  /** The last of each queue pair. */
  const latest = new WeakMap<KnownObject, { readonly occurrence: Occurrence; readonly text: string }>()
  services.tell(HOST_ORDERS, {
    explains(sender, { text, moments }) {
      const found = latest.get(sender)
      return (
        found &&
        services.report('immediate-byte-order', found.occurrence, {
          ...{ severity: 'error', text: `${found.text}; ${text}`, moments, objects: [sender] },
        })
      )
    },
  })
  const inHostOrder = (told: ProgramEvent<'immediateInHostOrder'>, qp: KnownObject): void => {
    const text = `imm_data of send wr_id ${told.wrId} of ${qp.name} is ${hex(told.data >>> 0)} in network byte order, which the receiver's ntohl returns`
    const occurrence = { ...told, ...POSTED }
    latest.set(qp, { occurrence, text })
    services.report('immediate-byte-order', occurrence, { text, objects: [qp] })
  }
  return { on: { immediateInHostOrder: inHostOrder } }
}
