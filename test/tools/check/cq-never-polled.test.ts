/*
 * The finding cq-never-polled: of a full CQ that nobody has polled, only if the program has polled others meanwhile.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createCause } from '../../../src/spec/check/causes.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import { requestScenario } from './requests.ts'

/**
 * The program polls the other CQ so often between the first completion and the last, and this one before the last or
 * not.
 */
const toldOf = (polls: number, isPolled = false): readonly string[] => {
  const s = requestScenario()
  const sends = s.create('cq', {}, { cqe: 4 })
  s.complete(s.post(), WcStatus.values.SUCCESS, { intoCq: sends })
  for (let i = 1; i <= polls; i++) s.checker.requests.polled(s.cq, i)
  if (isPolled) s.checker.requests.polled(sends, 1)
  s.checker.event({
    ...{ event: 'failed', time: 0, deviceNumber: 0, context: 0, program: undefined, peerDevice: undefined },
    failure: {
      kind: 'event',
      device: 'rxe0',
      event: AsyncEventType.values.CQ_ERR,
      cause: createCause('CQ_FULL', { cq: sends, entries: 4 }),
    },
  })
  return s.found.map(({ id }) => id)
}

test('a full CQ that was never polled, while another one was', () => {
  assert.deepEqual(toldOf(3), ['cq-overrun', 'cq-never-polled'])
})

test('not of a program that has not polled yet, nor of a CQ that was polled', () => {
  assert.deepEqual(toldOf(0), ['cq-overrun'])
  assert.deepEqual(toldOf(9, true), ['cq-overrun'])
})
