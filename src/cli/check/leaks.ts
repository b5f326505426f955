/*
 * The leaks of a report: they come after all other findings, and many of one program are one block, with a line for
 * each kind of object and place of its creation. Those that follow from a mistake are one line, without a severity.
 */
import { counted } from '../../base/text.ts'
import type { Finding } from '../../spec/check/finding.ts'
import type { Severity } from '../../spec/check/severity.ts'
import { printable } from '../../spec/printable.ts'
import { callersOf, findingText, headText, type Symbols } from '../../tools/check/finding-text.ts'

/** Leaks of a program that are printed one by one. */
const MAX_SINGLE = 4

const groupedBy = <T>(all: readonly T[], keyOf: (one: T) => string): T[][] => {
  const groups = new Map<string, T[]>()
  for (const one of all) {
    const group = groups.get(keyOf(one))
    if (group === undefined) groups.set(keyOf(one), [one])
    else group.push(one)
  }
  return [...groups.values()]
}

/** The block of many leaks of one program. */
const blockOf = (leaks: readonly Finding[], symbols: Symbols): string => {
  const stackOf = ({ moments }: Finding): readonly string[] => moments[0]?.stack ?? []
  const groups = groupedBy(leaks, leak => [leak.left, ...stackOf(leak)].join('\n'))
  const lines = groups.map(group => {
    const [leak] = group
    const callers = callersOf(stackOf(leak!), symbols)
    return `  ${counted(group.length, printable(leak?.left ?? 'object'))}${callers === '' ? '' : `: ${callers}`}`
  })
  return [
    headText({ ...leaks[0]!, text: `${leaks.length} objects were never destroyed` }),
    ...lines,
    '  advice: destroy objects in reverse order of creation before ibv_close_device; `--notes` shows each leak',
    '',
  ].join('\n')
}

/** The line of what a program has left that ended because of a mistake. */
const lineOf = (leaks: readonly Finding[]): string => {
  const kinds = [...new Set(leaks.map(({ left }) => left))].join(', ')
  const were = leaks.length === 1 ? 'was' : 'were'
  const text = `${counted(leaks.length, 'object')} (${kinds}) ${were} left at exit after the error; \`--notes\` shows each`
  return `${headText({ ...leaks[0]!, text })}\n`
}

interface LeakBlock {
  readonly severity: Severity | undefined
  readonly text: string
}

/** The blocks of leaks, each with its line feed. `isDetailed`: each leak is one. */
export const leakBlocks = (leaks: readonly Finding[], symbols: Symbols, isDetailed: boolean): LeakBlock[] =>
  groupedBy(leaks, ({ program, device, follows }) => `${program?.pid} ${device} ${follows}`).flatMap<LeakBlock>(
    group => {
      const [{ severity, follows }] = group as [Finding]
      if (isDetailed || (follows === undefined && group.length <= MAX_SINGLE))
        return group.map(leak => ({ severity, text: `${findingText(leak, symbols)}\n` }))
      return follows === undefined
        ? [{ severity, text: `${blockOf(group, symbols)}\n` }]
        : [{ severity: undefined, text: `${lineOf(group)}\n` }]
    },
  )
