/*
 * One program creates as many CQs, SRQs and queue pairs as query_device reports.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Limits } from '../../../src/drivers/soft/attributes.ts'
import { lacking, ownProgram, run, startDaemon } from '../programs.ts'

const program = ownProgram('many_objects')

describe('the maximum number of objects of a device', { skip: lacking(program) }, () => {
  // The program has another CQ.
  for (const [kind, max] of [
    ['cq', Limits.maxCq - 1],
    ['srq', Limits.maxSrq],
    ['qp', Limits.maxQp],
  ] as const)
    it(`${kind}: ${max}`, async t => {
      const daemon = await startDaemon(t)
      const { stdout } = await run(t, program, [kind, `${max}`], { env: daemon.env })
      assert.match(stdout, new RegExp(`^(${max} of ${max}, \\d+ mappings\n){3}$`))
    })
})
