/*
 * The leaks of a report: they come after all other findings, and many of one program are one block, with a line for
 * each kind of object and place of its creation.
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

/** The blocks of leaks, each with its line feed. `isDetailed`: each leak is one. */
export const leakBlocks = (
  leaks: readonly Finding[],
  symbols: Symbols,
  isDetailed: boolean,
): { readonly severity: Severity; readonly text: string }[] =>
  groupedBy(leaks, ({ program, device }) => `${program?.pid} ${device}`).flatMap(group =>
    isDetailed || group.length <= MAX_SINGLE
      ? group.map(leak => ({ severity: leak.severity, text: `${findingText(leak, symbols)}\n` }))
      : [{ severity: group[0]!.severity, text: `${blockOf(group, symbols)}\n` }],
  )
