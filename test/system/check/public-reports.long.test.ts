/* docs/reference/public-reports.md: each command says what its row says. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { before, describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { cleanEnvironment, lacking, ownProgram, run, suiteScope, temporaryFolder, userdma } from '../programs.ts'

const page = readFileSync(join(repoRoot, 'docs', 'reference', 'public-reports.md'), 'utf8')

const quoted = (cell: string): readonly string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, text]) => text!)

/** The rows of the table: its report, what goes wrong, the command, and what that says. */
const rows = page
  .split('\n')
  .filter(line => /^\| .+ #\d+ \|/.test(line))
  .map(line => {
    const [report = '', , command = '', says = ''] = line.slice(2, -2).split(' | ')
    return { report, command: quoted(command)[0]!, says: quoted(says) }
  })

describe('public reports', { skip: lacking('cc', ownProgram('public_reports'), ownProgram('rails')) }, () => {
  const scope = suiteScope()
  let folder = ''
  before(() => {
    folder = temporaryFolder(scope)
    const source = join(repoRoot, 'test', 'programs', 'check', 'public_reports.c')
    const libraries = ['-libverbs', '-lrdmacm']
    const output = join(folder, 'public_reports-asan')
    spawnSync('cc', ['-g', '-fsanitize=address', '-o', output, source, ...libraries])
  })

  it('are eleven', () => assert.equal(rows.length, 11))

  for (const { report, command, says } of rows)
    it(report, async t => {
      const folders = [folder, dirname(ownProgram('public_reports')), dirname(ownProgram('rails')), dirname(userdma)]
      const PATH = [...folders, process.env.PATH].join(delimiter)
      const { stdout, stderr } = await run(t, 'sh', ['-fc', command], { env: cleanEnvironment({ PATH }) })
      for (const text of says) assert.ok((stdout + stderr).includes(text), `"${text}" is not in\n${stdout}${stderr}`)
    })
})
