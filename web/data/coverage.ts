/*
 * What time the numbers of the page are of: sentences for tables, charts and strip if it is not the whole session.
 */
import type { Session } from '../../src/tools/record/reader.ts'
import { countText, durationText, plural, timeText } from '../format.ts'
import type { Kept } from './memory.ts'
import type { Facts } from './store.ts'

/** Parts of the session below this share of it are not mentioned. */
const MIN_SHARE = 0.001

/**
 * What a list lacks, after its number of entries: `; 120 later ones did not fit into the page's memory`. Empty:
 * nothing.
 */
export const omittedText = ({ omitted, keepsNewest }: Kept<unknown>): string =>
  omitted === 0
    ? ''
    : `; ${countText(omitted)} ${keepsNewest ? 'earlier' : 'later'} ${omitted === 1 ? 'one' : 'ones'} did not fit into the page's memory`

export const coverageTexts = (facts: Facts, session: Session): string[] => {
  const texts: string[] = []
  if (session.header.isCapture === true)
    texts.push(
      'Made of a capture: requests are rebuilt from packets, devices are addresses, and what programs called, polled or received is not known',
    )
  const inFile = session.end - session.start
  if (session.overwritten > 0)
    texts.push(
      `The file has the last ${durationText(inFile)}: ${plural(session.overwritten, 'earlier event')} ${session.overwritten === 1 ? 'was' : 'were'} overwritten`,
    )
  const duration = session.end - facts.start
  if (facts.coveredFrom !== undefined && duration > 0 && facts.covered < (1 - MIN_SHARE) * duration)
    texts.push(
      `Totals, rates and charts are of the ${durationText(facts.covered)} that were read, ${countText(facts.events)} events from ${timeText(facts.coveredFrom - facts.start)} s on`,
    )
  return texts
}
