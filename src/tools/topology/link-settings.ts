/*
 * The settings of a link: `{ rate: 40gbit, delay: 1us, queue: 2mb, mark: 5kb-200kb-1%, loss: 0%, mtu: 9000 }`.
 */

import { linkQuantities } from '../../base/quantities.ts'
import { LineRate, Marking } from '../../spec/congestion.ts'
import type { LinkSettings } from '../../transport/phy/links/graph.ts'
import { type Section, SIZES, withUnit } from './section.ts'

/** A path MTU of 256 with the headers of RoCEv2 (transport/phy/udp/window.ts), and the most of a veth interface. */
export const MIN_MTU = 352
export const MAX_MTU = 65_535

export const LINK_KEYS = ['rate', 'delay', 'queue', 'mark', 'loss', 'mtu']
export const DEFAULT_LINK: LinkSettings = { rate: LineRate.DEFAULT, delay: 1, queue: 2e6, marking: Marking }

/** `5kb-200kb-1%`, or `none`. */
const readMarking = (section: Section, fallback: LinkSettings['marking']): LinkSettings['marking'] => {
  if (!section.has('mark')) return fallback
  const text = section.text('mark')
  if (text === 'none') return undefined
  const [min, max, share, ...others] = text.split('-')
  const marking = {
    min: withUnit(min, SIZES) ?? Number.NaN,
    max: withUnit(max, SIZES) ?? Number.NaN,
    probability: (share === undefined ? undefined : linkQuantities.loss.read(share)) ?? Number.NaN,
  }
  if (others.length > 0 || !(marking.min < marking.max) || Number.isNaN(marking.probability))
    section.complain('mark', `"${text}": give MIN-MAX-PROBABILITY, for example 5kb-200kb-1%, or none`)
  return marking
}

/** The settings of a link; `fallback` has those that are absent. */
export const readSettings = (section: Section, fallback: LinkSettings): LinkSettings => ({
  rate: section.rate('rate', fallback.rate),
  delay: section.time('delay', fallback.delay),
  queue: section.size('queue', fallback.queue, 1500, 1e9),
  marking: readMarking(section, fallback.marking),
  loss: section.probability('loss', fallback.loss ?? 0),
  ...(section.has('mtu')
    ? { mtu: section.integer('mtu', undefined, MIN_MTU, MAX_MTU) }
    : fallback.mtu !== undefined && { mtu: fallback.mtu }),
})
