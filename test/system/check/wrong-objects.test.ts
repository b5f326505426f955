/*
 * `userdma check` on calls with pointers that are those of no object, of a destroyed one, or of one of another context
 * (test/programs/check/wrong_objects.c): each call is refused, and told with its function, argument and what the
 * pointer is. docs/reference/arguments.md has the table (WRITE_DOCS=1 writes it).
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { requiredArguments } from '../../../src/tools/check/arguments.ts'
import { repoRoot } from '../../paths.ts'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript } from './checking.ts'

const program = ownProgram('wrong_objects')
const page = join(repoRoot, 'docs', 'reference', 'arguments.md')

/** What a pointer is, in the words of the page, and the finding with the end of its text. */
const kinds = {
  wild: ['to no memory', 'refused-call', /is called with 0x\w+ for .*: there is no memory; /],
  memory: ['to other memory', 'refused-call', /is called with 0x\w+ for .*: there is memory, but no such object; /],
  kind: ['to another object', 'refused-call', /is called with 0x\w+ for .*: there is an MW; /],
  freed: ['to a destroyed object', /^(?:use-after-destroy|double-destroy)$/, /, which was \w+(?: already)?$/],
  foreign: ['of another context', 'refused-call', /, which is of another device context /],
  null: ['NULL', 'refused-call', /is called with NULL for /],
} as const
type Kind = keyof typeof kinds
const columns: readonly Kind[] = ['null', 'wild', 'memory', 'kind', 'freed', 'foreign']

interface Call {
  readonly name: string
  readonly argument: string
  readonly kind: Kind
}

const callOf = (line: string): Call => {
  const [, name = '', argument = '', kind = ''] = /^(\S+) (.*) (\S+)$/.exec(line) ?? []
  assert.ok(Object.hasOwn(kinds, kind), line)
  return { name, argument, kind: kind as Kind }
}

/** Every first object may not be NULL either (gone.test.ts): the calls of the program's other rows are such. */
const markdown = (calls: readonly Call[]): string => {
  const rows = new Map<string, Set<Kind>>()
  for (const { name, argument, kind } of calls) {
    const key = `| \`${name}\` | ${argument} |`
    rows.set(key, (rows.get(key) ?? new Set()).add(kind))
  }
  for (const [name, positions] of Object.entries(requiredArguments))
    for (const argument of Object.values(positions)) rows.set(`| \`${name}\` | ${argument} |`, new Set(['null']))
  const cells = (told: ReadonlySet<Kind>) => columns.map(kind => (told.has(kind) ? 'yes' : '')).join(' | ')
  return `${[
    '# Wrong pointers',
    '',
    'What [`userdma check`](cli.md#check) tells of pointers in calls, each as an error with the function, the argument and',
    'the stack, before the call can crash; of a destroyed object also where it was created and destroyed. The table has the',
    'calls that a test makes: every call that takes an object judges it in the same way. The first object of a call may not',
    'be NULL either. Objects are known by their addresses, since the program got them from the library. Only other pointers',
    'are looked at, by a system call that fails where there is no memory.',
    '',
    `| function | argument | ${columns.map(kind => kinds[kind][0]).join(' | ')} |`,
    `|---|---|${columns.map(() => '---|').join('')}`,
    ...[...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, told]) => `${key} ${cells(told)} |`),
    '',
    'Written by `test/system/check/wrong-objects.test.ts`.',
  ].join('\n')}\n`
}

describe('pointers to no object', { skip: lacking(program) }, () => {
  it('each call is refused and told, and the program goes on', async t => {
    const { found, stdout, stderr, status } = await checkScript(t, program)
    const calls = stdout.split('\n').filter(Boolean).map(callOf)
    assert.ok(calls.length > 60 && stdout.endsWith('ibv_post_recv bad_wr null\n'), stdout + stderr)
    assert.notEqual(status, 1, stderr)
    const missing = calls.filter(({ name, argument, kind }) => {
      const [, id, text] = kinds[kind]
      return !found.some(
        one =>
          one.text.startsWith(`${name} `) &&
          (typeof id === 'string' ? one.id === id : id.test(one.id)) &&
          text.test(one.text) &&
          (kind === 'freed' || kind === 'foreign' || one.text.includes(argument)) &&
          one.severity === (argument === 'bad_wr' ? 'warning' : 'error'),
      )
    })
    assert.deepEqual(missing, [], found.map(({ id, text }) => `${id}: ${text}`).join('\n'))
    if (process.env.WRITE_DOCS) writeFileSync(page, markdown(calls))
    assert.equal(readFileSync(page, 'utf8'), markdown(calls), 'WRITE_DOCS=1 writes the page')
  })
})
