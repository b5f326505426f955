/*
 * Programs that go on with failing completions, in virtual time.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { WcStatus } from '../../../src/spec/work.ts'
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
    texts: (): readonly string[] => s.checker.relapses.map(({ text }) => text),
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
  assert.deepEqual(s.checker.relapses[0]?.stack, ['posted'])
  s.destroy('rc_qp', s.qp)
  assert.equal(s.texts().length, 1)
  assert.deepEqual(s.ids(), [])
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
