/*
 * `userdma check` on programs that poll extended CQs in batches (test/programs/check/extended_polls.c).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript } from './checking.ts'

const program = ownProgram('extended_polls')

describe('batches of extended CQs', { skip: lacking(program) }, () => {
  it('nothing is found in programs that reuse the receive of a completion within the batch', async t => {
    // `high`: descriptors above 4096
    const cases = ['deregisters', 'reposts', 'resizes', 'polls_in_both_ways', 'threads']
    const script = `set -e; for i in ${cases.join(' ')}; do ${program} $i >&2; done; ${program} deregisters high >&2`
    const { found, status, stderr } = await checkScript(t, script)
    assert.deepEqual(
      found.map(({ id, text }) => `${id}: ${text}`),
      [],
    )
    assert.equal(status, 0, stderr)
  })

  for (const [name, expected] of [
    ['deregisters_early', ['region-in-use']],
    // The CQ is destroyed within the poll.
    ['renews_in_batch', ['poll-misused']],
    ['deregisters_early_after_renewal', ['poll-misused', 'region-in-use']],
    ['overwrites', ['receive-overlap']],
  ] as const)
    it(`${name}: ${expected.join(', ')}`, async t => {
      const { found, stderr } = await checkScript(t, `${program} ${name} >&2`)
      assert.deepEqual(
        found
          .filter(({ severity }) => severity !== 'note')
          .map(({ id, severity }) => `${id} ${severity}`)
          .sort(),
        expected.map(id => `${id} warning`),
        stderr,
      )
    })
})
