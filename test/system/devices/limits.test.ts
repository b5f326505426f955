/*
 * Each limit that a device reports is granted when it is used at its full value, one at a time
 * (test/programs/uverbs/limits.c). docs/reference/limits.md has the results; with WRITE_DOCS set, this test writes them
 * there.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { loopbackText } from '../../loopback.ts'
import { repoRoot } from '../../paths.ts'
import { lacking, ownProgram, run, startDaemon } from '../programs.ts'

const program = ownProgram('limits')
const page = join(repoRoot, 'docs/reference/limits.md')
const DRIVERS = ['rxe', 'mlx5', 'efa'] as const
const LIBRARIES = ['mlx5', 'efa'].map(name => `/etc/libibverbs.d/${name}.driver`)

/** libmlx5 counts sends in blocks of 64 bytes, with adapters too: the page says how many. */
const isCountOfBlocks = (use: string): boolean => /^max_qp_wr \| .* sends/.test(use)

describe('limits', { skip: lacking(program, ...LIBRARIES) }, () => {
  it('that a device reports are granted', async t => {
    const cells = new Map<string, string[]>()
    const devices = DRIVERS.map((driver, i) => `${driver}_0@${loopbackText(41 + i)},driver=${driver}`)
    const { env } = await startDaemon(t, { devices })
    for (const [column, driver] of DRIVERS.entries()) {
      const { stdout, stderr, status } = await run(t, program, [`${driver}_0`], { env })
      assert.deepEqual([stderr, status], ['', 0], stdout)
      for (const line of stdout.trimEnd().split('\n')) {
        const [limit, how, value, result] = line.split(' | ')
        const use = `${limit} | ${how}`
        const row = cells.get(use) ?? DRIVERS.map(() => '–')
        row[column] = result === 'granted' ? `${value}` : `${value}: ${result}`
        cells.set(use, row)
        if (driver !== 'mlx5' || !isCountOfBlocks(use)) assert.equal(result, 'granted', `${driver}: ${line}`)
      }
    }
    const table = [
      `| limit | use | ${DRIVERS.join(' | ')} |`,
      '|---|---|---|---|---|',
      ...[...cells].map(([use, row]) => `| ${use} | ${row.join(' | ')} |`),
    ].join('\n')
    const text = readFileSync(page, 'utf8')
    const start = text.indexOf('| limit |')
    if (process.env.WRITE_DOCS !== undefined) writeFileSync(page, `${text.slice(0, start)}${table}\n`)
    else assert.equal(text.slice(start), `${table}\n`, 'docs/reference/limits.md: run this test with WRITE_DOCS=1')
  })
})
