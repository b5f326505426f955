/*
 * What several detectors of a checker share: the first one that asks makes it, so their order does not matter for that.
 */
import type { DetectorServices, Topic } from './detector.ts'

export const shared = <T>(
  name: string,
  make: (services: DetectorServices) => T,
): ((services: DetectorServices) => T) => {
  const topic: Topic<T> = { name }
  return services => {
    const known = services.ask(topic)
    if (known !== undefined) return known
    const made = make(services)
    services.tell(topic, made)
    return made
  }
}
