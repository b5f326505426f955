/*
 * Bytes that are told to a peer again with another content, though the first peer may still come.
 */
import type { Detector, DetectorServices } from '../detector.ts'
import { learnt } from '../lends/learnt.ts'
import { ago, bytesText, messageMoment, messageStack, messageText } from '../lends/told.ts'

export const createLentTwiceDetector = (services: DetectorServices): Detector | undefined => {
  const told = learnt(services)
  if (told === undefined) return undefined

  const advertised = (): void => {
    const [before, again] = told.again ?? []
    if (before === undefined || again === undefined) return
    if (before.used > 0 || told.isAnswered(before) || before.hash === undefined || before.hash === again.hash) return
    // A peer that refuses a connection has answered.
    if (again.hash === undefined || 'call' in before.event.message) return
    const { region, event } = again
    const owner = services.objects.find(event.qp)
    if (owner === undefined) return
    services.report('lent-twice', services.occurrenceAt(region, messageStack(services, again), 'told again'), {
      text: `${messageText(again)} of ${owner.name} tells of ${bytesText(again)}, whose content was changed since ${messageText(before)} told of them ${ago(services, before.event.time)}, and that peer has neither accessed them nor answered`,
      moments: [messageMoment(services, before, 'told')],
      objects: [region, owner],
    })
  }

  return { on: { advertised } }
}
