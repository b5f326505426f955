/*
 * The story of a finding as a ladder: a column for each process, or for each object if one process has all of them, and
 * a row for each event, with its line of source.
 */
import { useState } from 'preact/hooks'
import type { Story, StoryLine } from '../../src/spec/check/finding.ts'
import { times } from '../../src/spec/check/story.ts'
import { printable } from '../../src/spec/printable.ts'
import { timeText } from '../format.ts'
import { Prose } from './prose.tsx'
import { Caller, StackView } from './stack.tsx'

/** The most columns; further processes or objects share the last. */
const MAX_LANES = 4

const processOf = ({ pid, command, host }: StoryLine): string =>
  [pid === undefined ? 'this process' : `${command ?? ''} ${pid}`, ...(host === undefined ? [] : [`on ${host}`])].join(
    ' ',
  )

const distinct = (lines: Story, nameOf: (line: StoryLine) => string): string[] => [...new Set(lines.map(nameOf))]

export const StoryView = ({ story, start }: { readonly story: Story; readonly start: number }) => {
  const lines = story.filter(({ event }) => event !== 'overwritten')
  const lost = story.find(({ event }) => event === 'overwritten')
  if (lines.length === 0) return null
  const processes = distinct(lines, processOf)
  const laneOf = processes.length > 1 ? processOf : ({ object }: StoryLine): string => object
  const lanes = distinct(lines, laneOf)
  const shown = lanes.slice(0, MAX_LANES)
  const columnOf = (line: StoryLine): number => Math.min(lanes.indexOf(laneOf(line)), MAX_LANES - 1)
  return (
    <section>
      <h4>What happened before</h4>
      {lost !== undefined && (
        <p class="quiet">
          <Prose text={lost.text} />
        </p>
      )}
      <table class="story">
        <thead>
          <tr>
            <th>time</th>
            {shown.map((name, i) => (
              <th key={name}>{printable(i === MAX_LANES - 1 && lanes.length > MAX_LANES ? 'others' : name)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {lines.map((line, row) => (
            <tr key={`${row} ${line.time}`} class={line.isDecisive ? 'decisive' : ''}>
              <td class="mono">{timeText(line.time - start)} s</td>
              {shown.map((name, column) => (
                <td key={name}>
                  {column === columnOf(line) && <Event line={line} isNamed={laneOf(line) !== line.object} />}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  )
}

/** `isNamed`: with its object. */
const Event = ({ line, isNamed }: { readonly line: StoryLine; readonly isNamed: boolean }) => {
  const { object, text, stack, isDecisive } = line
  const what = `${isNamed && object !== '' ? `${object} ` : ''}${text}${times(line)}`
  return (
    <>
      {isDecisive && <strong>decisive: </strong>}
      <Prose text={what} />
      {stack.length > 0 && <Source stack={stack} />}
    </>
  )
}

/** The stack is made when it is looked at: a story may have hundreds. */
const Source = ({ stack }: Pick<StoryLine, 'stack'>) => {
  const [isOpen, setIsOpen] = useState(false)
  return (
    <details class="quiet" onToggle={({ currentTarget }) => setIsOpen(currentTarget.open)}>
      <summary>
        <Caller stack={stack} />
      </summary>
      {isOpen && <StackView stack={stack} />}
    </details>
  )
}
