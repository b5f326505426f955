/*
 * Findings about buffers of outstanding requests: freed, copied by fork, or in the stack frame of a function that
 * returns.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { ProgramEvent } from '../../../src/spec/check/program-events.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { LKEY, requestScenario, START } from './requests.ts'

/** As in src/tools/check/findings/lifetimes.ts. */
const MAX_AWAITED = 64
const AWAITED_MICROSECONDS = 1_000_000

/** A report that the memory of the first send of queue pair 1, which has wr_id 7, was freed. */
const freed = (changes: Partial<ProgramEvent<'bufferFreed'>> = {}): ProgramEvent<'bufferFreed'> => ({
  event: 'bufferFreed',
  time: 0,
  device: 'rxe0',
  deviceNumber: 0,
  context: 0,
  program: { pid: 1, command: 'client' },
  queue: PostQueue.SEND,
  number: 1,
  wrId: 7n,
  index: 0,
  address: START,
  more: 0,
  stack: ['free'],
  ...changes,
})

/** A receive WQE of a new SRQ. */
const postToSrq = (s: ReturnType<typeof requestScenario>) => {
  const srq = s.create('srq')
  return { srq, request: s.post({ owner: srq, queue: PostQueue.SHARED, opcode: -1, wrId: 7n }) }
}

it('memory of a finished unsignaled send, and memory of requests of a reset queue, may be freed', () => {
  const s = requestScenario()
  s.end(s.post({ wrId: 7n, isSignaled: false }))
  s.checker.event(freed())
  s.post({ wrId: 8n, index: 1 })
  s.checker.requests.queueReset(s.qp)
  s.checker.event(freed({ wrId: 8n }))
  assert.deepEqual(s.ids(), [])
})

it('memory of a receive whose completion was lost with its CQ, or whose queue pair was reset, may be freed', () => {
  for (const end of ['none', 'CQ destroyed', 'queue pair reset']) {
    const s = requestScenario()
    const { srq, request } = postToSrq(s)
    s.complete(request, undefined, { qp: s.qp })
    if (end === 'CQ destroyed') s.destroy('cq', s.cq)
    if (end === 'queue pair reset') s.checker.requests.queueReset(s.qp)
    s.forget()
    s.checker.event(freed({ queue: PostQueue.SHARED, number: srq }))
    assert.deepEqual(s.ids(), end === 'none' ? ['buffer-freed warning'] : [], end)
  }
})

it('memory of a request whose completion was lost in a full CQ may be freed', () => {
  const s = requestScenario()
  const request = s.post({ wrId: 7n })
  s.end(request)
  const completion = {
    status: 0,
    opcode: 0,
    bytes: 64,
    cq: s.cq,
    cqPosition: 0, // the CQ is full
    solicited: false,
    qp: s.qp,
    message: undefined,
  }
  s.checker.requests.completed(request, completion)
  s.checker.event(freed())
  assert.deepEqual(s.ids(), [])
})

it('memory of a receive of an SRQ may be freed after the queue pair that took it was destroyed', () => {
  const s = requestScenario()
  const { srq, request } = postToSrq(s)
  s.checker.requests.receiveLost(request)
  s.checker.event(freed({ queue: PostQueue.SHARED, number: srq }))
  assert.deepEqual(s.ids(), [])
})

it('memory beside that of a request may be freed', () => {
  const s = requestScenario()
  s.post({ wrId: 7n })
  for (const address of [START - 1, START + 64]) s.checker.event(freed({ address }))
  assert.deepEqual(s.ids(), [])
  s.checker.event(freed({ address: START + 63 }))
  assert.deepEqual(s.ids(), ['buffer-freed error'])
})

it('memory that is freed before the device fetches the send is found if the fetch follows within a second', () => {
  for (const [delay, ids] of [
    [AWAITED_MICROSECONDS - 1, ['buffer-freed error']],
    [AWAITED_MICROSECONDS, []],
  ] as const) {
    const s = requestScenario()
    s.checker.event(freed())
    assert.deepEqual(s.ids(), [])
    s.advance(delay)
    s.post({ wrId: 7n })
    assert.deepEqual(s.ids(), ids)
  }
})

it('a report about a send that the device has not fetched does not apply to other sends', () => {
  const s = requestScenario()
  s.checker.event(freed({ index: 1 }))
  s.post({ wrId: 7n, index: 0 })
  s.post({ wrId: 7n, index: 1, owner: s.peer })
  s.post({ wrId: 8n, index: 1 })
  assert.deepEqual(s.ids(), [])
  const reset = requestScenario()
  reset.checker.event(freed())
  reset.checker.requests.queueReset(reset.qp)
  reset.post({ wrId: 7n })
  assert.deepEqual(reset.ids(), [], 'sends after a RESET')
})

it('a report about an ended send does not apply to a later send', () => {
  const s = requestScenario()
  s.end(s.post({ wrId: 7n, isSignaled: false }))
  s.checker.event(freed())
  s.post({ wrId: 7n })
  assert.deepEqual(s.ids(), [])
})

it('a late report is not about a later request with the same memory and wr_id', () => {
  const s = requestScenario()
  s.end(s.post({ wrId: 7n, isSignaled: false }))
  s.post({ wrId: 7n, index: 1 })
  s.checker.event(freed({ index: 0 }))
  assert.deepEqual(s.ids(), [])
  s.checker.event(freed({ index: 1 }))
  assert.deepEqual(s.ids(), ['buffer-freed error'])
})

it('expired reports about sends that were not fetched leave room for others', () => {
  const s = requestScenario()
  for (let index = 1; index <= MAX_AWAITED; index++) s.checker.event(freed({ index }))
  s.advance(AWAITED_MICROSECONDS)
  s.checker.event(freed())
  s.post({ wrId: 7n })
  assert.deepEqual(s.ids(), ['buffer-freed error'])
})

it('memory of a deregistered region, and of a region whose iova differs from its address, is no finding', () => {
  const deregistered = requestScenario()
  deregistered.post({ wrId: 7n })
  deregistered.destroy('mr', deregistered.region)
  deregistered.forget()
  deregistered.checker.event(freed())
  assert.deepEqual(deregistered.ids(), [])
  const translated = requestScenario()
  const TRANSLATED_LKEY = LKEY + 0x100
  translated.register({ start: BigInt(START), iova: 0n, length: 4096n }, TRANSLATED_LKEY)
  translated.post({ wrId: 7n, elements: [{ address: START, length: 64, lkey: TRANSLATED_LKEY }] })
  translated.checker.event(freed())
  assert.deepEqual(translated.ids(), [])
})

it('a fork that copies the memory of outstanding requests is a warning', () => {
  for (const [isCopied, ids] of [
    [true, ['fork-outstanding warning']],
    [undefined, ['fork-outstanding warning']],
    [false, []],
  ] as const) {
    const s = requestScenario({ isCopiedByFork: () => isCopied })
    s.post({ wrId: 7n })
    s.checker.event({ ...freed(), event: 'forkedOutstanding' })
    assert.deepEqual(s.ids(), ids)
  }
  const finished = requestScenario({ isCopiedByFork: () => true })
  finished.complete(finished.post({ wrId: 7n }), 1)
  finished.checker.event({ ...freed(), event: 'forkedOutstanding' })
  assert.match(finished.found[0].text, /^process \d+ forked before the completion of /)
})
