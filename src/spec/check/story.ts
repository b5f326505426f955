/*
 * The story of a finding: what happened to the objects concerned before it, of both ends in the order of time
 * (`StoryLine` in finding.ts). Findings about a hang, a failed request or a wait have one.
 */
import type { StoryLine } from './finding.ts'
import { type FindingId, findings } from './findings.ts'
import { isWaitId } from './waits.ts'

/** The lines that a report has of a story without `--story`. */
export const STORY_LINES = 12

/** What is behind the text of a line that stands for several. */
export const times = ({ count, event }: StoryLine): string =>
  count > 1 && event !== 'unread events' && event !== 'overwritten' ? `, ${count} times` : ''

/** Findings about a hang or a failure whose rows have no cause and no status. */
const others: ReadonlySet<FindingId> = new Set<FindingId>([
  'program-died',
  'program-ended',
  'event-ignored',
  'post-wrong-state',
  'queue-full',
  'sends-lost',
  'late-receives',
  'completions-unpolled',
  'cm-not-confirmed',
  'cm-refused-used',
])

/** Findings whose reason is in the post of a request. */
export const aboutRequests: ReadonlySet<FindingId> = new Set<FindingId>([
  'stale-lkey',
  'unknown-lkey',
  'lkey-other-pd',
  'local-out-of-bounds',
  'lkey-no-right',
  'unknown-rkey',
  'rkey-other-pd',
  'remote-out-of-bounds',
  'rkey-no-right',
  'atomic-misaligned',
  'bad-request',
  'request-length',
  'no-rd-atomic',
  'receive-too-short',
  'post-wrong-state',
  'queue-full',
])

/** About a region of which no request is told: nothing happened but the calls of its history. */
const NO_REQUEST: FindingId = 'region-unmapped'

/** Whether findings of this kind have a story. */
export const hasStory = (id: FindingId): boolean => {
  if (id === NO_REQUEST) return false
  const { causes, statuses } = findings[id]
  return causes !== undefined || statuses !== undefined || others.has(id) || isWaitId(id)
}
