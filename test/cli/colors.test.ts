/*
 * Who gets severities in color.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { paintFor } from '../../src/cli/colors.ts'
import { cleanEnvironment, runUserdma } from '../system/programs.ts'

const terminal = { isTTY: true }
const red = '\x1b[1;31merror\x1b[0m'

it('a terminal without NO_COLOR does; --color decides otherwise', () => {
  const env = { TERM: 'xterm' }
  const cases = [
    [undefined, terminal, env, red],
    ['auto', terminal, env, red],
    ['auto', terminal, { ...env, NO_COLOR: '' }, red],
    ['auto', terminal, { ...env, NO_COLOR: '1' }, 'error'],
    ['auto', terminal, { TERM: 'dumb' }, 'error'],
    // A pipe, and a file of --output.
    ['auto', { isTTY: false }, env, 'error'],
    ['auto', undefined, env, 'error'],
    ['always', undefined, { NO_COLOR: '1' }, red],
    ['never', terminal, env, 'error'],
  ] as const
  for (const [color, stream, variables, text] of cases)
    assert.equal(paintFor({ ...(color && { color }) }, stream, variables)('error', 'error'), text, `${color}`)
})

it('commands that print severities have the option', async t => {
  const env = cleanEnvironment({ NO_COLOR: '1' })
  for (const args of [
    ['explain', 'stale-rkey'],
    ['check', '--explain', 'stale-rkey'],
  ]) {
    const { stdout } = await runUserdma(t, [...args, '--color', 'always'], { env })
    assert.ok(stdout.startsWith(`stale-rkey (${red}): `), stdout)
    assert.ok((await runUserdma(t, args, { env })).stdout.startsWith('stale-rkey (error): '))
  }
})
