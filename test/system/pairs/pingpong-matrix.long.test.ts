/*
 * All cases of pingpong.ts.
 */
import { before, describe, it } from 'node:test'
import { lacking, startDaemon, suiteScope, type TestDaemon, TWO_DEVICES } from '../programs.ts'
import { allCases, caseName, runCase } from './pingpong.ts'

const ITERATIONS = 1000

describe('ibv_rc_pingpong, all cases', { skip: lacking('ibv_rc_pingpong') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  for (const one of allCases()) it(caseName(one), t => runCase(t, daemon, one, ITERATIONS))
})
