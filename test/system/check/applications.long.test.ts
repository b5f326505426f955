/*
 * Programs of the distribution under `userdma check` on each kind of device (applications.ts): every error and warning
 * is known, with its source (known-findings.ts), and is in the table of docs/reference/check-applications.md. Some
 * depend on the timing, so a run may have fewer. With WRITE_DOCS set, those that are new in a cell are written.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { isFailure, type Severity } from '../../../src/spec/check/severity.ts'
import { repoRoot } from '../../paths.ts'
import { findTool } from '../../tools.ts'
import { cleanEnvironment, freePort, lacking, runUserdma, suiteScope, temporaryFolder } from '../programs.ts'
import { type Application, applications, DAT_CONF, type Device, devices, UCX_BATCH } from './applications.ts'
import { cellOf, pageOf, readCells, rowsOf } from './applications-page.ts'
import type { FindingJson } from './checking.ts'
import { applicationFindings, type KnownFinding, knownFindings } from './known-findings.ts'
import { isOfProgram } from './real-programs.ts'

const PAGE = join(repoRoot, 'docs', 'reference', 'check-applications.md')

const known = [...knownFindings, ...applicationFindings]

const framesOf = ({ moments, objects }: FindingJson) =>
  [...moments, ...objects.flatMap(({ history }) => history)].flatMap(({ frames }) => frames)

/**
 * The rows that explain a finding: those of its program before those of many. A row also covers findings of a lower
 * severity.
 */
const rowsFor = (found: FindingJson): readonly KnownFinding[] => {
  const rows = rowsOfAll(found)
  const own = rows.filter(({ programs: names }) => !names.some(name => name.endsWith('*')))
  return own.length > 0 ? own : rows
}
const rowsOfAll = (found: FindingJson): readonly KnownFinding[] =>
  known.filter(
    row =>
      row.id === found.id &&
      isFailure(row.severity, found.severity as Severity) &&
      row.programs.some(pattern => isOfProgram(pattern, found.program.command)) &&
      (row.text?.test(found.text) ?? true) &&
      (row.stackFunction === undefined || framesOf(found).some(frame => frame.function === row.stackFunction)),
  )

/** MPI programs by the word in a script. */
const COMPILERS = { OPEN_MPI_CHECK: 'mpicc.openmpi', MPICH_CHECK: 'mpicc.mpich' } as const

describe('programs of the distribution under userdma check', () => {
  const suite = suiteScope()
  const programs: Record<string, string> = {}
  const cells = readCells(readFileSync(PAGE, 'utf8'))
  before(() => {
    for (const [word, name] of Object.entries(COMPILERS)) {
      const compiler = findTool(name)
      if (compiler === undefined) continue
      programs[word] = join(temporaryFolder(suite), 'mpi_check')
      const source = join(repoRoot, 'test', 'system', 'suites', 'mpi_check.c')
      const { status, stderr } = spawnSync(compiler, ['-o', programs[word], source], { encoding: 'utf8' })
      assert.equal(status, 0, stderr)
    }
  })

  const run = async (scope: typeof suite, { script, env }: Application, device: Device) => {
    const folder = temporaryFolder(scope)
    writeFileSync(join(folder, 'dat.conf'), DAT_CONF)
    writeFileSync(join(folder, 'batch'), UCX_BATCH)
    const { option, words, env: ofDevice } = devices[device]
    const values = { ...words, ...programs, FOLDER: folder, PORT: `${await freePort()}` }
    const fillIn = (text: string): string =>
      Object.entries(values).reduce(
        (filled, [word, value]) => filled.replace(new RegExp(`\\b${word}\\b`, 'g'), value),
        text,
      )
    const own = Object.entries(env).map(([name, value]) => [name, fillIn(value)])
    const output = join(folder, 'findings')
    const options = ['--private', '--json', '--fail-on', 'never', '-o', output, '--device', option]
    const ended = await runUserdma(scope, ['check', ...options, '--', 'sh', '-c', fillIn(script)], {
      env: cleanEnvironment({ ...ofDevice, ...Object.fromEntries(own) }),
    })
    const found = readFileSync(output, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map(line => JSON.parse(line) as FindingJson)
      .filter(one => 'id' in one && one.severity !== 'note')
    return { ...ended, found }
  }

  for (const one of applications)
    for (const device of one.devices)
      it(`${one.name}, ${device}`, { skip: lacking(...one.needs) }, async t => {
        const { status, stdout, stderr, found } = await run(t, one, device)
        assert.equal(status, 0, `${stdout.slice(-2000)}\n${stderr.slice(-2000)}`)
        const texts = found.filter(finding => rowsFor(finding).length === 0)
        assert.deepEqual(
          texts.map(({ id, severity, text, moments }) => [
            `${severity} ${id}: ${text}`,
            ...moments.flatMap(({ frames }) => frames.map(({ function: name, object }) => name || object)),
          ]),
          [],
          'findings that known-findings.ts does not explain',
        )
        const now = rowsOf(found.flatMap(rowsFor))
        const cell = cellOf(cells, one, device)
        const fresh = now.filter(row => !cell.has(row))
        for (const row of fresh) cell.add(row)
        if (process.env.WRITE_DOCS !== undefined) writeFileSync(PAGE, pageOf(applications, known, cells))
        else assert.deepEqual(fresh, [], 'not in the table: WRITE_DOCS=1 adds it')
      })

  it('the page is made of the table', () => {
    const text = pageOf(applications, known, cells)
    if (process.env.WRITE_DOCS !== undefined) writeFileSync(PAGE, text)
    assert.equal(readFileSync(PAGE, 'utf8'), text)
  })
})
