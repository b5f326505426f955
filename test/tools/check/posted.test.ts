/*
 * Findings about requests as the program posts them: lists with one element for all, immediate data in the order of the
 * host, READs into one buffer, and refused posts that the program ignores.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Errno } from '../../../src/spec/errno.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { WrOpcode } from '../../../src/spec/work.ts'
import { LKEY, requestScenario, START } from './requests.ts'

const { RDMA_READ, RDMA_WRITE } = WrOpcode.values

test('requests of one list with the same elements: READs are a warning, sends and receives a note', () => {
  for (const [queue, number, opcode, severity, what] of [
    [PostQueue.SEND, 1, RDMA_READ, 'warning', /from READ wr_id 7 on, .*: all results are written to the same memory$/],
    [PostQueue.SEND, 1, RDMA_WRITE, 'note', /from WRITE wr_id 7 on, .*: all send the same bytes$/],
    [PostQueue.RECEIVE, 1, 0, 'note', /from receive wr_id 7 on, .*: their messages overwrite each other$/],
  ] as const) {
    const s = requestScenario()
    s.told({ event: 'sharedElements', queue, number, wrId: 7n, count: 4, opcode })
    assert.deepEqual(s.ids(), [`shared-elements ${severity}`])
    assert.match(s.found[0]!.text, what)
    assert.match(s.found[0]!.text, /^4 requests of one list of QP 0x1,/)
  }
})

test('an element beside num_sge 0 is a finding if it is of a region, a note after sends with elements, and of a receive', () => {
  const foundOf = (isLeft: number, address: number, bytes: number, lkey: number, queue: number = PostQueue.SEND) => {
    const s = requestScenario()
    s.told({ event: 'elementsUnused', queue, number: 1, wrId: 7n, address, bytes, lkey, isLeft })
    return s
  }
  assert.deepEqual(foundOf(0, START, 64, LKEY + 1).ids(), [])
  assert.deepEqual(foundOf(0, START + 4095, 2, LKEY).ids(), [])
  const all = foundOf(0, START, 4096, LKEY)
  assert.deepEqual(all.ids(), ['elements-unused warning'])
  assert.match(all.found[0]!.text, /^send wr_id 7 of QP 0x1 has num_sge 0, and an element of 4096 bytes of MR 0x100 /)
  assert.deepEqual(foundOf(1, START, 64, LKEY).ids(), ['elements-unused note'])
  assert.deepEqual(foundOf(0, START, 64, LKEY, PostQueue.RECEIVE).ids(), ['elements-unused note'])
})

test('READs into one buffer are found as they were posted, and once', () => {
  const s = requestScenario()
  s.told({ event: 'readsOverlap', number: 1, wrId: 1n, address: START })
  assert.deepEqual(s.ids(), ['receive-overlap note'])
  assert.match(
    s.found[0]!.text,
    /^the READ or atomic wr_id 1 of QP 0x1 was posted while an earlier one was outstanding/,
  )
  // The device sees both outstanding.
  for (const wrId of [0n, 1n]) s.post({ opcode: RDMA_READ, wrId })
  assert.equal(s.found.length, 1)
})

const ignoring = () => {
  const s = requestScenario()
  const refuse = (wrId: bigint): void =>
    s.checker.event({
      event: 'refusedPost',
      ...{ time: 1, device: 'rxe0', deviceNumber: 0, context: 0, program: { pid: 1, command: 'client' } },
      ...{ queue: PostQueue.SEND, number: 1, wrId, error: Errno.ENOMEM, state: 3, stack: ['post'] },
      request: { opcode: RDMA_WRITE, flags: 0, elements: 1, length: 8n, addressLow: 0, unsignaled: 0 },
    })
  return { ...s, refuse }
}
const IGNORED = 'queue-full warning'

test('a program that waits for a refused request has ignored it', () => {
  const s = ignoring()
  s.refuse(7n)
  s.poll(3)
  s.checker.event({
    event: 'waits',
    ...{ time: 2, device: 'rxe0', deviceNumber: 0, context: 0, program: { pid: 1, command: 'client' } },
    wait: { id: 'idle-queues', text: 'nothing can complete', qpns: [1] },
  })
  assert.ok(s.ids().includes(IGNORED), s.ids().join())
  assert.ok(
    s.found.some(({ text }) =>
      text.includes('and the program waits: it waits for room, or takes the request for posted'),
    ),
  )
})

test('a program that posts again, makes room, or ends after a refused post has not ignored it', () => {
  const cases: readonly ((s: ReturnType<typeof ignoring>) => void)[] = [
    s => s.post({ wrId: 7n }),
    s => {
      s.post({ wrId: 9n })
      s.post({ wrId: 7n })
    },
    s => {
      s.poll(1)
      s.post({ wrId: 9n })
    },
    s => s.post({ wrId: 9n, queue: PostQueue.RECEIVE, opcode: -1 }),
    () => {},
  ]
  for (const [i, run] of cases.entries()) {
    const s = ignoring()
    s.refuse(7n)
    run(s)
    s.destroy('rc_qp', s.qp)
    assert.ok(!s.ids().includes(IGNORED), `case ${i}: ${s.ids().join()}`)
  }
})
