/*
 * What tools do on the devices of each driver, and on those of the library (tool-table.ts). docs/reference/tools.md has
 * the table; in the long run, with WRITE_DOCS set, this test writes it.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { casesOf, inLongRun, longOnly } from '../../long-run.ts'
import { repoRoot } from '../../paths.ts'
import { lacking, suiteScope } from '../programs.ts'
import { COLUMNS, type Column, PROGRAM } from './tool-runs.ts'
import { type Row, rows } from './tool-table.ts'

const page = join(repoRoot, 'docs/reference/tools.md')
const LIBRARIES = ['mlx5', 'efa'].map(name => `/etc/libibverbs.d/${name}.driver`)

const SLOTS = 'libmlx5 counts the slots of queues itself, with adapters too'
const COUNTS = 'the library counts requests with the indices that this kind would hold back'

/** Why a device lacks something; by tool and kind (a pattern), and device. */
const ABSENT: readonly (readonly [tool: string, kind: RegExp, columns: readonly Column[], reason: string])[] = [
  ['--torment', /^(limit|queue)$/, ['mlx5'], SLOTS],
  ['--torment', /^fields$/, ['mlx5'], 'libmlx5 takes no undefined field from a completion in error'],
  ['--torment', /^queue$/, ['library'], COUNTS],
  ['--torment', /^queue$/, ['efa'], 'libefa counts the slots of queues itself, with adapters too'],
  ['--torment', /^limit$/, ['efa'], 'libefa rounds the entries of a CQ up before the call'],
  ['--torment', /^relaxed$/, ['efa'], 'before version 50, libefa has no WRITEs'],
  ['--torment', /^adapter$/, ['efa'], 'no other adapter in the table has SRD'],
  ['--fault', /^call, delay$/, ['library'], 'calls of devices in the process are synchronous; refused with a sentence'],
  ['--fault', /^page$/, ['efa'], 'as on adapters, EFA has no regions with on-demand paging'],
  ['--fault', /^page$/, ['library'], 'the memory of the library’s regions is always there: it has no on-demand paging'],
  ['--record', /^windows/, ['efa'], 'SRD has a window of 512 packets per pair of queue pairs, which does not change'],
  ['--record', /not armed$/, ['library'], 'the library arms its completion queues itself'],
  [
    'stat --qps',
    /./,
    ['library'],
    'a network in the program has no daemon; `network.stats()` has counters, recordings have waits',
  ],
  ['stat --health', /./, ['library'], 'a network in the program has no daemon; its errors are rejections of its calls'],
  ['stat --health', /failed/, ['efa'], 'a refused request does not end an SRD queue pair'],
  ['metrics', /./, ['library'], 'a network in the program has no daemon; `network.stats()`'],
  ['top', /./, ['library'], 'a network in the program has no daemon; `network.stats()`'],
  ['trace', /^failures/, ['library'], 'the program gets the error with its cause; `network.trace` has calls'],
  ['trace --abi', /./, ['library'], 'calls of the library have no bytes'],
  ['captures', /explain/, ['efa'], 'the packets of SRD are not public: `explain` knows those of RoCE'],
  [
    'check',
    /^--hang$/,
    ['library'],
    'Node.js sees when nothing is left to wait for; virtual time rejects waits that nothing can end',
  ],
]

const reasonOf = ({ tool, kind }: Row, column: Column): string | undefined =>
  ABSENT.find(([of, kinds, columns]) => of === tool && kinds.test(kind) && columns.includes(column))?.[3]

const inCode = (text: string): string => (/^[-\w ]*$/.test(text) && text.startsWith('--') ? `\`${text}\`` : text)
const start = ({ tool, kind }: Row): string => `| ${inCode(tool)} | ${inCode(kind)} |`

describe('tools and devices', { skip: lacking(PROGRAM, ...LIBRARIES) }, () => {
  const scope = suiteScope()
  const lines: string[] = []
  const reasons: string[] = []
  /** The number of a reason below the table. */
  const noteOf = (reason: string): number => {
    if (!reasons.includes(reason)) reasons.push(reason)
    return reasons.indexOf(reason) + 1
  }
  const written = readFileSync(page, 'utf8')
  const isWriting = process.env.WRITE_DOCS !== undefined && inLongRun(true, false)

  for (const row of casesOf(rows, ({ isOrdinary }) => isOrdinary === true))
    it(`${row.tool}: ${row.kind}`, async () => {
      const seen = await row.look(scope)
      const cells = COLUMNS.map(column => {
        if (seen.has(column)) return 'yes'
        const reason = reasonOf(row, column)
        assert.ok(reason !== undefined, `${column}: not seen, and no reason is known`)
        return `– (${noteOf(reason)})`
      })
      lines.push(`${start(row)} ${cells.join(' | ')} |`)
      if (isWriting) return
      const line = written.split('\n').find(one => one.startsWith(start(row)))
      const withoutNotes = (text: string | undefined): string | undefined => text?.replaceAll(/ \(\d+\)/g, '')
      const help = 'docs/reference/tools.md: in the long run, run this test with WRITE_DOCS=1'
      assert.equal(withoutNotes(lines.at(-1)), withoutNotes(line), help)
    })

  it('are the table of docs/reference/tools.md', { skip: longOnly }, () => {
    const table = [
      `| tool | kind | ${COLUMNS.join(' | ')} |`,
      '|---|---|---|---|---|---|',
      ...lines,
      '',
      ...reasons.map((reason, i) => `${i + 1}. ${reason}`),
    ].join('\n')
    const text = `${written.slice(0, written.indexOf('| tool |'))}${table}\n`
    if (isWriting) writeFileSync(page, text)
    else assert.equal(text, written)
  })
})
