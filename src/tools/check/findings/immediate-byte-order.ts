/*
 * Finding immediate-byte-order: immediate data in the order of the host. Both ends may agree on it, so it is a note.
 * But it may explain a lack of receives, or the death of its receiver.
 */
import { swap32 } from '../../../spec/memory.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { hex, type KnownObject } from '../objects.ts'
import { POSTED } from '../reporting.ts'

interface Sent {
  readonly wrId: bigint
  readonly line: string
}

/** The immediate data of the send with this wr_id of a queue pair, or of its last one, if it looks so: a line. */
export const IMMEDIATES: Topic<(qp: KnownObject, wrId?: bigint) => string | undefined> = { name: 'immediates' }

export const createImmediateDetector = (services: DetectorServices): Detector => {
  /** Oldest first. The preload library tells only the first ones. */
  const sent = new WeakMap<KnownObject, Sent[]>()
  services.tell(IMMEDIATES, (qp, wrId) => sent.get(qp)?.findLast(one => wrId === undefined || one.wrId === wrId)?.line)
  return {
    on: {
      immediateInHostOrder(event, qp) {
        const { wrId, data } = event
        const text = `imm_data of send wr_id ${wrId} of ${qp.name} is ${hex(data >>> 0)} in network byte order, which the receiver's ntohl returns`
        services.report('immediate-byte-order', { ...event, ...POSTED }, { text, objects: [qp] })
        const all = sent.get(qp) ?? []
        sent.set(qp, all)
        all.push({ wrId, line: `${text}: ${swap32(data)} without htonl` })
      },
    },
  }
}
