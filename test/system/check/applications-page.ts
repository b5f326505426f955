/*
 * The page docs/reference/check-applications.md: applications, devices, and what `userdma check` tells of each. A cell
 * has the indices of the rows of known-findings.ts that explain its findings.
 */
import type { Application, Device } from './applications.ts'
import { devices } from './applications.ts'
import type { KnownFinding } from './known-findings.ts'

/** The numbers of known findings by cell; the page's own. */
type Cells = Map<string, Set<string>>

const columns = Object.keys(devices) as Device[]
const titles: Readonly<Record<Device, string>> = { rxe: 'rxe', mlx5: 'mlx5', efa: 'EFA' }

const keyOf = (name: string, device: Device): string => `${name} | ${device}`
export const cellOf = (cells: Cells, { name }: Application, device: Device): Set<string> => {
  const key = keyOf(name, device)
  const found = cells.get(key) ?? new Set<string>()
  cells.set(key, found)
  return found
}

/** A known finding as the page names it. */
const nameOf = ({ id, source }: KnownFinding): string => `${id}: ${source}`
export const rowsOf = (rows: readonly KnownFinding[]): string[] => [...new Set(rows.map(nameOf))]

const REASONS = '## Why\n'
const escaped = (text: string): string => text.replaceAll('|', '\\|')
const code = (name: string): string => (name.startsWith('`') ? name : `\`${escaped(name)}\``)

/** The cells of a page. */
export const readCells = (page: string): Cells => {
  const [table = '', reasons = ''] = page.split(REASONS)
  const names = new Map<string, string>()
  for (const [, number, id, source] of reasons.matchAll(/^(\d+)\. \[`([-\w]+)`\].* Source: (.*)\.$/gm))
    names.set(number!, `${id}: ${source}`)
  const cells: Cells = new Map()
  for (const line of table.split('\n')) {
    const [, name, ...texts] = line.split(/(?<!\\) ?\| ?/)
    if (name === undefined || !name.startsWith('`')) continue
    for (const [i, device] of columns.entries())
      cells.set(
        keyOf(name.slice(1, -1).replaceAll('\\|', '|'), device),
        new Set([...(texts[i] ?? '').matchAll(/\((\d+)\)/g)].flatMap(([, number]) => names.get(number!) ?? [])),
      )
  }
  return cells
}

/** The page's text. */
export const pageOf = (all: readonly Application[], known: readonly KnownFinding[], cells: Cells): string => {
  const used: KnownFinding[] = []
  const textOf = (name: string): string => {
    const row = known.find(one => nameOf(one) === name)
    if (row === undefined) return ''
    if (!used.includes(row)) used.push(row)
    return `\`${row.id}\` (${used.indexOf(row) + 1})`
  }
  const rows = all.flatMap((one, i) => [
    ...(all[i - 1]?.group === one.group ? [] : [`| **${one.group}** |${columns.map(() => '  |').join('')}`]),
    `| ${code(one.name)} | ${columns
      .map(device => {
        if (!one.devices.includes(device)) return '–'
        return [...(cells.get(keyOf(one.name, device)) ?? [])].map(textOf).filter(Boolean).sort().join(', ') || 'silent'
      })
      .join(' | ')} |`,
  ])
  return [
    '# What check tells of applications',
    '',
    'The programs of Debian 12 among the [applications](applications.md) under [`userdma check`](cli.md#check), with the',
    'suppressions that it ships ([list](suppressions.md)): the errors and warnings on each device. Each has been compared with',
    'the source of the program: the reason is below. Those that depend on the timing are not in every run. `–`: the program',
    'does not run on the device, or has no other code for it. `npm run test:long -- check/applications` runs all, and fails',
    'for others.',
    '',
    `| program | ${columns.map(device => titles[device]).join(' | ')} |`,
    `|---${'|---'.repeat(columns.length)}|`,
    ...rows,
    '',
    REASONS,
    ...used.map(
      ({ id, severity, source, why }, i) =>
        `${i + 1}. [\`${id}\`](../findings.md#${id}) (${severity}): ${why}. Source: ${source}.`,
    ),
    '',
    'Written by `WRITE_DOCS=1 npm run test:long -- check/applications`.',
    '',
  ].join('\n')
}
