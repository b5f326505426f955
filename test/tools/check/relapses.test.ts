/*
 * Programs that go on with failing completions, in virtual time.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import { QUEUES } from '../../../src/tools/check/queues/queues.ts'
import { requestScenario } from './requests.ts'

const { SUCCESS, RETRY_EXC_ERR, WR_FLUSH_ERR } = WcStatus.values

const scenario = () => {
  const s = requestScenario()
  let polled = 0
  const completes = (request: WorkRequest, status: number): void => {
    s.advance(1)
    s.complete(request, status)
    s.poll(++polled)
  }
  return {
    ...s,
    texts: (): readonly string[] => s.checker.need(QUEUES).relapses.all.map(({ text }) => text),
    completes,
    /** Posts, and polls the completion. */
    tries: (status: number, owner = s.qp): void => completes(s.post({ owner }), status),
    /** Posts some, and polls their completions then. */
    triesSeveral(count: number, first: number, others: number): void {
      const requests = Array.from({ length: count }, () => s.post())
      for (const [i, request] of requests.entries()) s.complete(request, i === 0 ? first : others)
      polled += count
      s.poll(polled)
    },
    reset: () => s.checker.requests.queueReset(s.qp),
  }
}

it('posts after polled failures are told, with the stack of one', () => {
  const s = scenario()
  s.tries(RETRY_EXC_ERR)
  for (let i = 0; i < 2; i++) s.tries(WR_FLUSH_ERR)
  assert.deepEqual(s.texts(), [])
  for (let i = 0; i < 5; i++) {
    s.tries(WR_FLUSH_ERR)
    // Another queue pair works.
    for (let j = 0; j < 3; j++) s.tries(SUCCESS, s.peer)
  }
  assert.deepEqual(s.texts(), [
    'QP 0x1 of process 1 (client) was not made anew after its failure: the program has posted to it 7 times more, each time after it had polled the failure before',
  ])
  assert.deepEqual(s.checker.need(QUEUES).relapses.all[0]?.stack, ['posted'])
  s.checker.event({ event: 'portEvent', device: 0, type: AsyncEventType.values.PORT_ACTIVE, gids: [] })
  for (let i = 0; i < 2; i++) s.tries(WR_FLUSH_ERR)
  assert.deepEqual(s.ids(), [])
  s.reset()
  assert.deepEqual(s.ids(), ['failure-ignored warning'])
  assert.match(
    s.found[0]?.text ?? '',
    /^QP 0x1 has failed \(WRITE wr_id \d+: RETRY_EXC_ERR\), and 9 requests that the program has posted to it after it had polled a failure were flushed$/,
  )
  assert.match(s.found[0]?.details.join() ?? '', /^2 posts of them since PORT_ACTIVE/)
  s.reset()
  assert.equal(s.found.length, 1)
})

it('flushes that follow from a move to ERR by the program, and three posts in all, are no finding', () => {
  const moved = scenario()
  for (let i = 0; i < 8; i++) moved.tries(WR_FLUSH_ERR)
  moved.reset()
  const few = scenario()
  few.tries(RETRY_EXC_ERR)
  for (let i = 0; i < 2; i++) few.tries(WR_FLUSH_ERR)
  few.reset()
  assert.deepEqual([...moved.ids(), ...few.ids()], [])
})

it('what was outstanding at the failure is none, nor what is posted while a list of completions is worked through', () => {
  const s = scenario()
  s.triesSeveral(8, RETRY_EXC_ERR, WR_FLUSH_ERR)
  s.triesSeveral(8, WR_FLUSH_ERR, WR_FLUSH_ERR)
  assert.deepEqual(s.texts(), [])
})

it('a queue pair that is made anew and works is none, one that fails again and again is', () => {
  const failing = scenario()
  const working = scenario()
  for (let i = 0; i < 6; i++) {
    failing.tries(RETRY_EXC_ERR)
    failing.reset()
    working.tries(RETRY_EXC_ERR)
    working.reset()
    working.tries(SUCCESS)
  }
  assert.match(
    failing.texts().at(-1) ?? '',
    /^QP 0x1 .* took the place of one that had failed, and failed too: 6 failures/,
  )
  assert.deepEqual(working.texts(), [])
  // A success in the end mends all.
  failing.tries(SUCCESS)
  assert.deepEqual(failing.texts(), [])
})

it('connections that are closed flush their receives, and are none', () => {
  const s = scenario()
  for (let i = 0; i < 6; i++) {
    s.triesSeveral(2, WR_FLUSH_ERR, WR_FLUSH_ERR)
    s.reset()
  }
  assert.deepEqual(s.texts(), [])
})

it('a program that posts no more to the queue pair, and goes on with others, has recovered', () => {
  const s = scenario()
  for (let i = 0; i < 6; i++) s.tries(RETRY_EXC_ERR)
  assert.equal(s.texts().length, 1)
  for (let i = 0; i < 20; i++) s.tries(SUCCESS, s.peer)
  assert.deepEqual(s.texts(), [])
})
