/*
 * Programs of every transport service between two daemons on loopback: a few cases of matrix.ts.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { loopbackText } from '../../loopback.ts'
import { assertOutcomes } from '../failures/outcomes.ts'
import { assertFaultsInjected, isEmpty, lacking, ownProgram, suiteScope } from '../programs.ts'
import { caseTitle, fewCases, matrixPrograms, runMatrixCase, startTwoDaemons, type TwoDaemons } from './matrix.ts'
import { runPair } from './pingpong.ts'

const skip = lacking(...matrixPrograms, ownProgram('outcomes'), ownProgram('soak'))

describe('two daemons, every service', { skip }, () => {
  const suite = suiteScope()
  let daemons: TwoDaemons
  before(async () => {
    daemons = await startTwoDaemons(suite, { addresses: [loopbackText(61), loopbackText(62)] })
  })

  for (const one of fewCases) it(caseTitle(one), t => runMatrixCase(t, daemons, one))

  it('refused requests end as the specification says', async t => {
    const program = ownProgram('outcomes')
    const { client, server } = await runPair(t, daemons[0], ['-g', '1'], { program, clientDaemon: daemons[1] })
    assert.deepEqual([client.stderr, server.stderr], ['', ''])
    assertOutcomes('userdma', client.stdout, server.stdout)
  })

  it('leaves nothing behind', async () => {
    for (const daemon of daemons) await daemon.settled(isEmpty)
  })

  it('soak transfers every byte with losses on both sides', async t => {
    const fault = 'drop=0.02,dup=0.01,reorder=0.01,seed=9'
    const lossy = await startTwoDaemons(t, { addresses: [loopbackText(63), loopbackText(64)], fault })
    const args = ['-g', '1', '-b', '5000000', '-T', '14']
    const { client, server } = await runPair(t, lossy[0], args, { program: ownProgram('soak'), clientDaemon: lossy[1] })
    for (const { status, stdout, stderr } of [client, server]) {
      assert.equal(status, 0, stdout + stderr)
      assert.match(stdout, /every byte is right/)
    }
    await assertFaultsInjected(...lossy)
    for (const daemon of lossy) await daemon.settled(isEmpty)
  })
})
