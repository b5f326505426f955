/*
 * Bytes that a program has lent for reading, and changes before a peer has read them.
 */
import { LendHash } from '../../../spec/lends.ts'
import type { DetectorServices } from '../detector.ts'
import { hashOfBytes } from '../keys.ts'
import { moment } from '../objects.ts'
import type { Region } from './memory.ts'
import type { Lend } from './table.ts'

/** Some accesses are compared: the first, fourth, sixteenth … of a lend, or all. */
const isCompared = (accesses: number): boolean => (accesses & (accesses - 1)) === 0 && (accesses & 0x55555555) !== 0

/** A peer reads bytes of a lend: compares them with what they were. */
export const compareLent = (services: DetectorServices, lend: Lend, { object, start, end }: Region): void => {
  const { sources } = services
  lend.accesses++
  if (lend.hash === undefined || !(sources.buffers === 'all' || isCompared(lend.accesses))) return
  if (lend.start < start || lend.end > end) return
  const hash = hashOfBytes(services, object, lend.start, Math.min(lend.end, lend.start + LendHash.bytes))
  if (hash === undefined || hash === lend.hash) return
  lend.hash = undefined
  services.report('lent-changed', services.occurrenceAt(object, lend.stack, 'lent'), {
    text: `the program has changed bytes of ${object.name} that it has lent for reading${lend.label === '' ? '' : ` (${lend.label})`}, before a peer has read them`,
    moments: [moment('read', sources.now(), [])],
    objects: [object],
  })
}
