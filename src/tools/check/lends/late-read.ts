/*
 * READs that get other bytes than their advertisement told of: another one has told of the same bytes since.
 */
import type { WorkRequest } from '../../../spec/check/requests.ts'
import type { DetectorServices } from '../detector.ts'
import { aboutAccess, ago, bytesText, hashOf, messageMoment, messageText, type Told } from './told.ts'

/** Reports a READ that gets other bytes than those that `told` told of. `newer`: the advertisements since. */
export const checkLateRead = (
  services: DetectorServices,
  told: Told,
  request: WorkRequest | undefined,
  newer: readonly Told[],
): void => {
  const [other] = newer
  if (other === undefined || told.hash === undefined) return
  const { region, event } = told
  const hash = hashOf(services, region, event.start, event.end)
  if (hash === undefined || hash === told.hash) return
  const does = `reads ${bytesText(told)}, which are not those that ${messageText(told)} told its peer ${ago(services, event.time)}: ${messageText(other)} has told the same bytes since, ${ago(services, other.event.time)}`
  const moments = [messageMoment(services, other, 'told again')]
  services.report('late-read', ...aboutAccess(services, told, request, 'READ', does, moments))
}
