/*
 * `userdma completion` and `userdma man`: every command and option of the help is in the scripts and on the page.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { runUserdma } from '../../system/programs.ts'
import { requireTool, scratchFolder } from '../../tools.ts'

const folder = scratchFolder()

it('the scripts and the page have every command and option', async t => {
  const { stdout: help } = await runUserdma(t, ['help'])
  const commands = [...help.matchAll(/^ {2}([a-z]+) /gm)].map(match => match[1] ?? '').filter(name => name !== 'help')
  assert.ok(commands.includes('run') && commands.includes('completion'))
  const { stdout: runHelp } = await runUserdma(t, ['run', '--help'])
  const options = [...runHelp.matchAll(/^ {2}(?:-\w, )?--([\w-]+)/gm)].map(match => match[1] ?? '')
  assert.ok(options.includes('socket'))
  for (const args of [['completion', 'bash'], ['completion', 'zsh'], ['completion', 'fish'], ['man']]) {
    const { status, stdout } = await runUserdma(t, args)
    assert.equal(status, 0)
    const plain = stdout.replaceAll('\\-', '-')
    for (const word of [...commands, ...options]) assert.match(plain, new RegExp(`\\b${word}\\b`), `${args}: ${word}`)
  }
  assert.equal((await runUserdma(t, ['completion', 'csh'])).status, 2)
})

it('bash completes commands, options, files and programs', async t => {
  if (!requireTool('bash', t)) return
  const script = join(folder, 'userdma.bash')
  writeFileSync(script, (await runUserdma(t, ['completion', 'bash'])).stdout)
  writeFileSync(join(folder, 'own-file'), '')
  const complete = (...words: readonly string[]): readonly string[] => {
    const program = `. ${script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _userdma; printf '%s\\n' "\${COMPREPLY[@]}"`
    const { stdout } = spawnSync('bash', ['-c', program, 'bash', 'userdma', ...words], {
      cwd: folder,
      encoding: 'utf8',
    })
    return stdout.trim().split('\n')
  }
  assert.deepEqual(complete('fau'), ['fault'])
  assert.deepEqual(complete('fault', 's'), ['show', 'set'])
  assert.deepEqual(complete('fault', 'show', '--j'), ['--json'])
  assert.deepEqual(complete('run', '--priv'), ['--private'])
  assert.deepEqual(complete('run', '--socket', 'own'), ['own-file'])
  assert.ok(complete('run', '--socket', 'x', '--', 'prin').includes('printf'))
  assert.ok(complete('trace', 'prin').includes('printf'))
})

for (const [shell, check] of [
  ['zsh', '-n'],
  ['fish', '--no-execute'],
] as const)
  it(`${shell} accepts its script`, {
    skip: spawnSync(shell, ['-c', '']).error !== undefined && 'it is not installed',
  }, async t => {
    const { stdout } = await runUserdma(t, ['completion', shell])
    const path = join(folder, `userdma.${shell}`)
    writeFileSync(path, stdout)
    const { status, stderr } = spawnSync(shell, [check, path], { encoding: 'utf8' })
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
  })
