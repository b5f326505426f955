/*
 * The order of posts and completions under torment, with the polls.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { ORDERS } from '../../../src/tools/check/request-orders.ts'
import { requestScenario } from './requests.ts'

const { SUCCESS, REM_ACCESS_ERR, WR_FLUSH_ERR } = WcStatus.values

test('completions have the time of their poll, and errors are told from what they flush', () => {
  const s = requestScenario({ tormentName: id => `rxe0/p/object${id}` })
  for (const status of [SUCCESS, REM_ACCESS_ERR, WR_FLUSH_ERR]) {
    s.advance(10)
    s.complete(s.post({ opcode: WrOpcode.values.SEND }), status)
  }
  s.advance(5)
  s.poll(2)
  const completed =
    s.checker
      .ask(ORDERS)?.()
      .filter(({ event }) => event === 'completed') ?? []
  assert.deepEqual(
    completed.map(({ time, polled, isError = false }) => [time, polled, isError]),
    [
      [10, 35, false],
      [20, 35, true],
      [30, undefined, false],
    ],
  )
})
