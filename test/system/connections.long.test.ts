/*
 * 200 programs of rdma_cm that are killed (test/system/killed-rdmacm.ts).
 */
import { describe, it } from 'node:test'
import { dieInEveryState } from './killed-rdmacm.ts'
import { lacking, startDaemon } from './programs.ts'
import { UCMA_PROGRAM } from './ucma.ts'

describe('killed programs', { skip: lacking(UCMA_PROGRAM) }, () => {
  it('leave nothing: 200 killed in every state, some while stopped', async t => {
    await dieInEveryState(t, await startDaemon(t), 40)
  })
})
