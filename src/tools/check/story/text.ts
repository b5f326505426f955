/*
 * The story of a finding (spec/check/finding.ts) as text: one line for each event, with the line of source that made
 * it.
 */
import type { Stack, Story, StoryLine } from '../../../spec/check/finding.ts'
import { callerText, type Frame, ownFrame } from '../../../spec/check/frames.ts'
import { times } from '../../../spec/check/story.ts'
import type { TormentedRequest } from '../../../spec/check/torment-orders.ts'

/** `main (a.c:9)`: the first frame in a file of the program; empty: unknown. */
const sourceText = (frames: readonly Frame[]): string => {
  const frame = ownFrame(frames)
  return frame === undefined || (frame.function === '' && frame.file === undefined) ? '' : callerText(frame)
}

/** The last `most` lines, among them the decisive ones and what was overwritten. */
export const shortStory = (story: Story, most: number): Story => {
  const lines = story.filter(({ event }) => event !== 'overwritten')
  if (most === 0 || lines.length === 0) return []
  const decisive = lines.filter(({ isDecisive }) => isDecisive)
  const others = lines.filter(({ isDecisive }) => !isDecisive)
  const room = Math.max(0, most - decisive.length)
  const kept = new Set([...decisive.slice(-most), ...others.slice(Math.max(0, others.length - room))])
  return story.filter(line => kept.has(line) || line.event === 'overwritten')
}

/** `1.2 ms`; less than a millisecond has more digits. */
const millisecondsText = (microseconds: number): string => {
  const ms = Math.max(0, microseconds) / 1000
  return ms >= 10_000 ? `${(ms / 1000).toFixed(1)} s` : ms >= 1 ? `${ms.toFixed(1)} ms` : `${ms.toFixed(3)} ms`
}

const whoOf = ({ pid, command, host, thread }: StoryLine): string => {
  const names = [
    ...(pid === undefined ? [] : [`${pid} (${command ?? ''})`]),
    ...(host === undefined ? [] : [`on ${host}`]),
    ...(thread === undefined || thread === pid ? [] : [`thread ${thread}`]),
  ]
  return names.join(' ')
}

/** The lines of text, without indentation; none: there is no story. `time`: of the finding. */
export const storyLines = (
  story: Story,
  time: number,
  framesOf: (stack: Stack) => readonly Frame[],
  most: number,
): string[] => {
  const shown = shortStory(story, most)
  const lines = shown.filter(({ event }) => event !== 'overwritten')
  if (lines.length === 0) return []
  const all = story.filter(({ event }) => event !== 'overwritten').length
  const lost = story.find(({ event }) => event === 'overwritten')
  const notes = [
    ...(lines.length < all ? [`${lines.length} of ${all} lines, --story all has the others`] : []),
    ...(lost === undefined ? [] : [lost.text]),
    ...(lines.some(({ isDecisive }) => isDecisive) ? ['=> is the decisive one'] : []),
  ]
  return [
    `story${notes.length === 0 ? '' : ` (${notes.join('; ')})`}`,
    ...columnLines(lines, line => `${millisecondsText(time - line.time)} before`, framesOf),
  ]
}

/** The accesses of `--who`, with the times since the first. `range`: as it was given. */
export const accessLines = (story: Story, range: string, framesOf: (stack: Stack) => readonly Frame[]): string[] => {
  const lines = story.filter(({ event }) => event !== 'overwritten')
  const lost = story.find(({ event }) => event === 'overwritten')
  const [{ since, time } = { time: 0 }] = lines
  const first = since ?? time
  const notes = lost === undefined ? '' : ` (${lost.text})`
  if (lines.length === 0) return [`who touched ${range}: nobody: no registered memory has these bytes, or no request`]
  return [`who touched ${range}${notes}:`, ...columnLines(lines, line => millisecondsText(line.time - first), framesOf)]
}

/** How many lines are shown before the first difference of two orders, and from it on. */
const SHOWN_BEFORE = 3
const SHOWN_FROM = 9

/** Two orders of posts and completions from their first difference on, with times since the first line of each. */
export const differingLines = (
  one: readonly TormentedRequest[],
  other: readonly TormentedRequest[],
  framesOf: (stack: Stack) => readonly Frame[],
): readonly (readonly string[])[] => {
  const isSame = (line: TormentedRequest, i: number): boolean =>
    line.name === other[i]?.name && line.text === other[i].text
  const different = one.findIndex((line, i) => !isSame(line, i))
  const from = Math.max(0, (different < 0 ? one.length : different) - SHOWN_BEFORE)
  return [one, other].map(lines => {
    const [{ time: first } = { time: 0 }] = lines
    const shown = lines.slice(from, from + SHOWN_BEFORE + SHOWN_FROM)
    const told = shown.map(line => ({
      ...line,
      text: line.event === 'posted' ? `posted ${line.text}` : `completion of ${line.text}`,
    }))
    return shown.length === 0 ? [] : columnLines(told, line => millisecondsText(line.time - first), framesOf)
  })
}

/** One line of text for each, with what `timeOf` says of its time. */
const columnLines = (
  lines: Story,
  timeOf: (line: StoryLine) => string,
  framesOf: (stack: Stack) => readonly Frame[],
): string[] => {
  // Who did it is said if there are several.
  const isShared = new Set(lines.map(whoOf)).size > 1
  const columns = lines.map(line => [timeOf(line), isShared ? whoOf(line) : '', line.object] as const)
  const width = (at: 0 | 1 | 2): number => Math.max(...columns.map(column => column[at].length))
  const [before, names, objects] = [width(0), width(1), width(2)]
  return lines.map((line, i) => {
    const [when, who, object] = columns[i]!
    const source = sourceText(framesOf(line.stack))
    return [
      line.isDecisive ? '=>' : '  ',
      when.padStart(before),
      ...(names === 0 ? [] : [` ${who.padEnd(names)}`]),
      ...(objects === 0 ? [] : [` ${object.padEnd(objects)}`]),
      ` ${line.text}${times(line)}${source && `: ${source}`}`,
    ].join(' ')
  })
}
