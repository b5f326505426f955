/*
 * "Did you mean" in messages about mistyped names.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { didYouMean } from '../../src/base/suggest.ts'
import { runUserdma } from '../system/programs.ts'

test('the nearest name is suggested, a word unlike all is not', () => {
  const names = ['stale-rkey', 'stale-lkey', 'queue-full']
  assert.equal(didYouMean('stale-rkye', names), ', did you mean "stale-rkey"?')
  assert.equal(didYouMean('QUEUE_FULL', names), ', did you mean "queue-full"?')
  for (const word of ['', 'x', 'race', 'y'.repeat(1000)]) assert.equal(didYouMean(word, names), '')
})

for (const [args, suggestion] of [
  [['explain', 'RETRY_EXEC_ERR'], 'RETRY_EXC_ERR'],
  [['explain', 'stale-rky'], 'stale-rkey'],
  [['check', '--explain', 'quene-full'], 'queue-full'],
  [['sstat'], 'stat'],
  [['stat', '--jsno'], '--json'],
] as const)
  test(`userdma ${args.join(' ')}`, async t => {
    const { status, stderr } = await runUserdma(t, args)
    assert.equal(status, 2)
    assert.match(stderr, new RegExp(`did you mean "?${suggestion}"?\\?`, 'i'))
  })
