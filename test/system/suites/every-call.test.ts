/*
 * The calls of uverbs and rdma_cm that the programs `EVERY_CALL` make end as on Linux 6.12's rxe (R41, R42), except
 * those that the fixture lists with a reason.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { departures, EVERY_CALL, expectedHere, onLinux } from '../../every-call.ts'
import { isEmpty, lacking, ownProgram, run, startDaemon } from '../programs.ts'

const programs = EVERY_CALL.map(ownProgram)

describe('every call', { skip: lacking(...programs) }, () => {
  it('ends as on Linux’s rxe, unless it is listed with a reason', async t => {
    // The address of test/linux/peer's guest, which made the calls on Linux.
    const daemon = await startDaemon(t, { devices: ['rxe0@10.77.0.2'] })
    const lines: string[] = []
    for (const program of programs) {
      const { status, stdout, stderr } = await run(t, program, [], { env: daemon.env })
      assert.deepEqual([status, stderr], [0, ''])
      lines.push(...stdout.trimEnd().split('\n'))
    }
    assert.deepEqual(lines, expectedHere)
    await daemon.settled(isEmpty)
  })

  it('that is listed ends differently on Linux', () => {
    for (const [line, here] of departures.flatMap(({ lines }) => lines)) {
      assert.ok(onLinux.includes(line), line)
      assert.ok(!line.endsWith(` ${here}`), line)
    }
  })
})
