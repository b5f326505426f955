/*
 * The story of a finding: what happened to the objects concerned before it, of both ends in the order of time
 * (`StoryLine` in finding.ts). Findings about a hang, a failed request or a wait have one.
 */
import type { StoryLine } from './finding.ts'
import { type FindingId, findings } from './findings.ts'

/** The lines that a report has of a story without `--story`. */
export const STORY_LINES = 12

/** What is behind the text of a line that stands for several. */
export const times = ({ count, event }: StoryLine): string =>
  count > 1 && event !== 'unread events' && event !== 'overwritten' ? `, ${count} times` : ''

/** Whether findings of this kind have a story. */
export const hasStory = (id: FindingId): boolean => {
  const { causes, statuses, wait, story = causes ?? statuses ?? wait } = findings[id]
  return story !== undefined && story !== 'none'
}
