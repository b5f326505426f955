/*
 * Finding immediate-byte-order: immediate data in the order of the host. Both ends may agree on it, so it is a note.
 * But it may explain a lack of receives, or the death of its receiver.
 */
import { swap32 } from '../../../spec/memory.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { hex, type KnownObject } from '../objects.ts'
import { type FindingContent, type Occurrence, POSTED } from '../reporting.ts'

interface Immediates {
  /** A line, if a send of the queue pair has had such data. */
  lineOf(sender: KnownObject): string | undefined
  /** Reports it then as the error that explains the death of a receiver. */
  explains(sender: KnownObject, content: Required<Pick<FindingContent, 'text' | 'moments'>>): number | undefined
}
export const IMMEDIATES: Topic<Immediates> = { name: 'immediate data in the order of the host' }

export const createImmediateDetector = (services: DetectorServices): Detector => {
  /** The last of each queue pair. */
  const latest = new WeakMap<KnownObject, { occurrence: Occurrence; text: string; data: number }>()
  services.tell(IMMEDIATES, {
    lineOf(sender) {
      const found = latest.get(sender)
      return found && `${found.text}: ${swap32(found.data)} without htonl`
    },
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
  return {
    on: {
      immediateInHostOrder(event, qp) {
        const { wrId, data } = event
        const text = `imm_data of send wr_id ${wrId} of ${qp.name} is ${hex(data >>> 0)} in network byte order, which the receiver's ntohl returns`
        const occurrence = { ...event, ...POSTED }
        latest.set(qp, { occurrence, text, data })
        services.report('immediate-byte-order', occurrence, { text, objects: [qp] })
      },
    },
  }
}
