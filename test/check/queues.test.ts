/*
 * Findings about queues, from scripts of requests, completions and polls in virtual time.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { PostQueue } from '../../src/spec/session.ts'
import { WcStatus } from '../../src/spec/work.ts'
import { requestWorld } from './requests.ts'

const { SUCCESS, WR_FLUSH_ERR, REM_ACCESS_ERR } = WcStatus.values

it('more unsignaled sends in a row than the queue holds are found once', () => {
  const w = requestWorld()
  const post = (isSignaled: boolean): void => w.end(w.post({ isSignaled }))
  for (let i = 0; i < 100; i++) post(i % 8 === 7)
  assert.deepEqual(w.ids(), [])
  for (let i = 0; i < 20; i++) post(false)
  assert.deepEqual(w.ids(), ['never-signaled warning'])
  assert.match(w.found[0]!.text, /has had 9 unsignaled sends in a row, and its queue holds 8/)
})

it('the first receive is late if a message came before it; a receive of a queue that ran empty is not', () => {
  const w = requestWorld()
  const receive = () => w.post({ queue: PostQueue.RECEIVE, opcode: -1 })
  w.checker.requests.starved(w.qp)
  w.time(5000)
  const first = receive()
  assert.deepEqual(w.ids(), ['late-receives warning'])
  w.complete(first)
  w.checker.requests.starved(w.qp)
  receive()
  assert.equal(w.found.length, 1)
})

it('a region is in use until the completion of its request is polled', () => {
  for (const polled of [0, 1]) {
    const w = requestWorld()
    w.complete(w.post())
    w.poll(polled)
    w.destroy('mr', w.region)
    assert.deepEqual(w.ids(), polled === 0 ? ['region-in-use warning'] : [])
  }
})

it('a CQ that is armed with completions in it and then not polled for a second has lost a wake-up', () => {
  const w = requestWorld()
  const arm = (): void => w.call('cq', 'reqNotify', w.cq)
  w.complete(w.post())
  arm()
  w.poll(1)
  w.time(5_000_000)
  w.complete(w.post())
  assert.deepEqual(w.ids(), [], 'the program polled after arming')
  arm()
  w.time(10_000)
  w.complete(w.post())
  assert.deepEqual(w.ids(), [], 'the program may still poll')
  arm()
  w.time(2_000_000)
  w.complete(w.post())
  assert.deepEqual(w.ids(), ['lost-wakeup warning'])
  assert.match(w.found[0]!.text, /was armed with 2 unpolled completions in it/)
})

it('completions that nobody polled: a note, a warning for errors, nothing for flushed requests', () => {
  for (const [status, ids] of [
    [SUCCESS, ['completions-unpolled note']],
    [REM_ACCESS_ERR, ['completions-unpolled warning']],
    [WR_FLUSH_ERR, []],
  ] as const) {
    const w = requestWorld()
    w.complete(w.post())
    w.poll(1)
    w.complete(w.post(), status)
    w.destroy('cq', w.cq)
    assert.deepEqual(w.ids(), ids)
  }
})

it('an RNR failure has the number of receives that the peer has had, and of messages still to come', () => {
  const w = requestWorld()
  const receive = w.post({ owner: w.peer, queue: PostQueue.RECEIVE, opcode: -1 })
  w.complete(receive)
  w.complete(w.post({ owner: w.peer, queue: PostQueue.RECEIVE, opcode: -1 }), WR_FLUSH_ERR)
  w.post({ opcode: 2 })
  w.post({ opcode: 2 })
  w.failRnr()
  assert.equal(w.found.at(-1)?.details[0], 'QP 0x2 has had 2 receives, and messages took 1; QP 0x1 sends 2 more')
})
