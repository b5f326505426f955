/*
 * Programs of every transport service between two daemons on loopback, in short: one case of each kind, refused
 * requests, and a soak with losses. matrix.long.test.ts has the full matrix.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { loopbackText } from '../../loopback.ts'
import { assertOutcomes } from '../failures/outcomes.ts'
import { isEmpty, lacking, ownProgram, suiteScope } from '../programs.ts'
import { caseTitle, fewCases, matrixPrograms, runMatrixCase, startTwo, type Two } from './matrix.ts'
import { runPair } from './pingpong.ts'

const skip = lacking(...matrixPrograms, ownProgram('outcomes'), ownProgram('soak'))

describe('two daemons, every service', { skip }, () => {
  const suite = suiteScope()
  let two: Two
  before(async () => {
    two = await startTwo(suite, { addresses: [loopbackText(61), loopbackText(62)], link: 'udp' })
  })

  for (const one of fewCases) it(caseTitle(one), t => runMatrixCase(t, two, one))

  it('refused requests end as the specification says', async t => {
    const program = ownProgram('outcomes')
    const { client, server } = await runPair(t, two[0], ['-g', '1'], { program, clientDaemon: two[1] })
    assert.deepEqual([client.stderr, server.stderr], ['', ''])
    assertOutcomes('userdma', client.stdout, server.stdout)
  })

  it('leaves nothing behind', async () => {
    for (const daemon of two) await daemon.settled(isEmpty)
  })

  it('a soak test: every byte and every atomic result is right while each side loses packets', async t => {
    const fault = 'drop=0.02,dup=0.01,reorder=0.01,seed=9'
    const bad = await startTwo(t, { addresses: [loopbackText(63), loopbackText(64)], link: 'udp', fault })
    const args = ['-g', '1', '-b', '5000000', '-T', '14']
    const { client, server } = await runPair(t, bad[0], args, { program: ownProgram('soak'), clientDaemon: bad[1] })
    for (const { status, stdout, stderr } of [client, server]) {
      assert.equal(status, 0, stdout + stderr)
      assert.match(stdout, /every byte is right/)
    }
    for (const daemon of bad) await daemon.settled(isEmpty)
  })
})
