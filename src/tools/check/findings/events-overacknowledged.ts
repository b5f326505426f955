/*
 * Finding events-overacknowledged: a program acknowledges more events of an object than it has read.
 */
import { counted } from '../../../base/text.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'

type Told = ProgramEvent<'overacknowledged' | 'asyncOveracknowledged'>

const textOf = (call: string, count: number, object: KnownObject, read: number): string => {
  const rest = read === 0 ? 'none was' : `only ${read} of them ${read === 1 ? 'was' : 'were'}`
  return `${call} acknowledges ${counted(count, 'event')} of ${object.name}, and ${rest} read and not acknowledged yet`
}

export const createAcknowledgementDetector = (services: DetectorServices): Detector => {
  const report = (event: Told, text: string, ...objects: readonly KnownObject[]): void => {
    const advice = 'acknowledge the event of the CQ that ibv_get_cq_event has returned'
    services.report('events-overacknowledged', event, { text, ...(objects.length > 1 && { advice }), objects })
  }
  return {
    on: {
      overacknowledged(event, cq) {
        const text = textOf('ibv_ack_cq_events', event.acknowledged, cq, event.read)
        const other = services.objects.byHandle(event.context, 'cq', event.otherCq)
        if (other === undefined || other === cq || other.destruction !== undefined) report(event, text, cq)
        else report(event, `${text}; the event that this thread has read last is of ${other.name}`, cq, other)
      },
      asyncOveracknowledged(event, object) {
        report(event, textOf('ibv_ack_async_event', 1, object, event.read), object)
      },
    },
  }
}
