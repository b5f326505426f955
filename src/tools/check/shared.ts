/*
 * What several detectors of a checker share: the first one that asks makes it, so their order does not matter for that.
 */
import type { DetectorServices, Topic } from './detector.ts'

/** `make` may return undefined: this checker has it not. */
export const shared =
  <T extends object | undefined>(topic: Topic<NonNullable<T>>, make: (services: DetectorServices) => T) =>
  (services: DetectorServices): T => {
    const known = services.ask(topic)
    if (known !== undefined) return known
    const made = make(services)
    if (made !== undefined) services.tell(topic, made)
    return made
  }
