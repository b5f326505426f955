/*
 * userdma.py, userdma.rs and userdma.go (shim/languages/): lends of programs in other languages are checked, and do
 * nothing without `userdma check`; their faults act.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { longOnly } from '../../long-run.ts'
import { repoRoot } from '../../paths.ts'
import { findTool } from '../../tools.ts'
import { cleanEnvironment, lacking, runUserdma, suiteScope, temporaryFolder } from '../programs.ts'

const sources = join(repoRoot, 'test', 'system', 'check', 'languages')
const files = join(repoRoot, 'shim', 'languages')

/** Not every machine has it. */
const without = (tool: string): string | false => findTool(tool) === undefined && `${tool} is missing`

describe('memory that programs of other languages lend', () => {
  const scope = suiteScope()
  let folder = ''
  const library = (): string => join(folder, 'libpeers.so')

  const make = (words: readonly string[], cwd = folder, env = {}): void => {
    const { status, stderr } = spawnSync(words[0]!, words.slice(1), {
      cwd,
      env: { ...process.env, ...env },
      encoding: 'utf8',
    })
    assert.equal(status, 0, stderr)
  }
  before(() => {
    folder = temporaryFolder(scope)
    make(['cc', '-w', '-g', '-shared', '-fPIC', '-o', library(), join(sources, 'peers.c'), '-libverbs'])
  })

  /** The program finds a late READ under `check`, and runs without. */
  const assertChecked = async (words: readonly string[], env = {}): Promise<void> => {
    const environment = cleanEnvironment({ LD_LIBRARY_PATH: folder, ...env })
    const checked = await runUserdma(scope, ['check', '--private', '--', ...words, 'checked'], { env: environment })
    assert.match(
      checked.stderr,
      /^userdma check: error not-lent: .* READ wr_id 1 .* \(pool\): .* for reading \(request 1\); taken back .* before$/m,
    )
    assert.match(checked.stderr, /^userdma check: 1 error$/m)
    const plain = await runUserdma(scope, ['run', '--private', '--', ...words, 'plain'], { env: environment })
    assert.equal(plain.status, 0, plain.stderr)
  }

  it('Python', { skip: lacking('cc', 'python3') }, () =>
    assertChecked(['python3', join(sources, 'lend.py'), library()], {
      PYTHONPATH: files,
      PYTHONDONTWRITEBYTECODE: '1',
    }),
  )

  it('Rust', { skip: longOnly || lacking('cc') || without('rustc') }, async () => {
    const program = join(folder, 'lend-rs')
    const warnings = ['-D', 'warnings', '--edition', '2021']
    make(['rustc', ...warnings, '-L', folder, '-l', 'peers', '-o', program, join(sources, 'lend.rs')])
    await assertChecked([program])
  })

  it('Go', { skip: longOnly || lacking('cc') || without('go') }, async () => {
    const module = join(folder, 'lend')
    mkdirSync(join(module, 'userdma'), { recursive: true })
    cpSync(join(sources, 'lend.go'), join(module, 'main.go'))
    cpSync(join(files, 'userdma.go'), join(module, 'userdma', 'userdma.go'))
    writeFileSync(join(module, 'go.mod'), 'module lend\n\ngo 1.17\n')
    make(['go', 'build', '-o', 'lend-go', '.'], module, { CGO_LDFLAGS: `-L${folder}`, GOFLAGS: '-mod=mod' })
    await assertChecked([join(module, 'lend-go')])
  })
})
