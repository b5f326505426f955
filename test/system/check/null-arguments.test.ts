/*
 * `userdma check` on calls with NULL for an argument (test/programs/check/null_arguments.c): each function and argument
 * of tools/check/arguments.ts is refused, and named.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { requiredArguments } from '../../../src/tools/check/arguments.ts'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript } from './checking.ts'

const program = ownProgram('null_arguments')

/** verbs.h passes another function of libibverbs, whose wrapper has no such argument in a program of this version. */
const withoutCall = ['ibv_query_port 3']

describe('NULL for arguments', { skip: lacking(program) }, () => {
  it('each is refused and named, and the program goes on', async t => {
    const { found, stdout, stderr, status } = await checkScript(t, program)
    const all = Object.entries(requiredArguments).flatMap(([name, positions]) =>
      Object.keys(positions).map(position => `${name} ${position}`),
    )
    const called = stdout.split('\n').filter(Boolean)
    assert.deepEqual([...called, ...withoutCall].sort(), all.sort(), stderr)
    const texts = found.map(({ id, severity, text }) => `${id} ${severity}: ${text}`)
    const expected = called.map(line => {
      const [name = '', position = ''] = line.split(' ')
      const argument = requiredArguments[name]?.[Number(position)]
      return `refused-call error: ${name} is called with NULL for its argument ${position}, ${argument}: without the checker it crashes`
    })
    assert.deepEqual(
      expected.filter(text => !texts.includes(text)),
      [],
      `${texts.join('\n')}\n${stderr}`,
    )
    assert.notEqual(status, 1, stderr)
  })
})
