/*
 * Requests and completions of observed programs, from their posts and polls.
 */
import assert from 'node:assert/strict'
import { beforeEach, describe, it } from 'node:test'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { SendFlags, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import type { ObservedCompletion, ObservedPost } from '../../../src/tools/observe/records.ts'
import { ObservedRequests, type RequestQueue } from '../../../src/tools/observe/requests.ts'

const { SIGNALED, INLINE } = SendFlags.values
const { SEND, RDMA_WRITE, ATOMIC_FETCH_AND_ADD, FLUSH } = WrOpcode.values
const { SUCCESS, WR_FLUSH_ERR, LOC_PROT_ERR } = WcStatus.values
const CQ = 30
const QP = 20

const queueOf = (queue: number, signalsAll = false): RequestQueue => ({
  owner: QP,
  queue,
  number: 0x11,
  signalsAll,
  outstanding: [],
  stacks: new Map(),
  stacksById: new Map(),
  posted: 0,
  failed: undefined,
})
const post = (wrId: bigint, more: Partial<ObservedPost> = {}): ObservedPost => ({
  wrId,
  remoteAddress: 0x9000n,
  opcode: SEND,
  flags: 0,
  rkey: 5,
  destQpn: 0,
  elements: [
    { address: 0x1000, length: 60, lkey: 1 },
    { address: 0x2000, length: 4, lkey: 1 },
  ],
  ...more,
})
const completion = (wrId: bigint, status: number = SUCCESS): ObservedCompletion => ({
  wrId,
  status,
  opcode: 0,
  vendorErr: 0,
  bytes: 64,
  qpn: 0x11,
})

describe('requests of observed programs', () => {
  let events: string[] = []
  let seen: WorkRequest[] = []
  let requests: ObservedRequests
  beforeEach(() => {
    events = []
    seen = []
    const log = (kind: string) => (request: WorkRequest) => void events.push(`${kind} ${request.wrId}`)
    requests = new ObservedRequests({
      posted: request => void seen.push(request),
      ended: log('ended'),
      completed: (request, { cq, cqPosition, status }) =>
        void events.push(`completed ${request.wrId} status ${status}: ${cqPosition} of ${cq}`),
      receiveLost: log('lost'),
      receiverNotReady: () => {},
      polled: (cq, count) => void events.push(`polled ${count} of ${cq}`),
      queueReset: owner => void events.push(`reset ${owner}`),
    })
  })

  it('have their lengths, memory and numbers', () => {
    const queue = queueOf(PostQueue.SEND)
    const posts = [
      post(1n),
      post(2n, { opcode: RDMA_WRITE, flags: SIGNALED }),
      post(3n, { opcode: ATOMIC_FETCH_AND_ADD }),
      post(4n, { flags: INLINE, destQpn: 9 }),
      post(5n, { opcode: -1 }),
      post(7n, { opcode: FLUSH, elements: [] }),
    ]
    requests.post(queue, posts, 77, ['main'])
    requests.post(queueOf(PostQueue.SEND, true), [post(6n)], 78, [])
    assert.deepEqual(
      seen.map(({ id, index, time, length, elements, remote, isSignaled, destQpn }) => [
        id,
        index,
        time,
        length,
        elements.length,
        remote?.length,
        isSignaled,
        destQpn,
      ]),
      [
        [1, 0, 77, 64, 2, undefined, false, undefined],
        [2, 1, 77, 64, 2, 64, true, undefined],
        [3, 2, 77, 8, 2, 8, false, undefined],
        [4, 3, 77, 64, 0, undefined, false, 9],
        [5, 4, 77, 64, 2, undefined, true, undefined],
        [6, 5, 77, 0, 0, 0, false, undefined],
        [7, 0, 78, 64, 2, undefined, true, undefined],
      ],
    )
    assert.deepEqual(seen[1].remote, { address: 0x9000, length: 64, rkey: 5 })
    assert.deepEqual([queue.stacks.get(2), queue.stacksById.get(3n)], [['main'], ['main']])
  })

  it('of a send queue end in order, with the earlier ones; of a receive queue each for itself', () => {
    const [sends, receives] = [queueOf(PostQueue.SEND), queueOf(PostQueue.RECEIVE)]
    for (const queue of [sends, receives]) requests.post(queue, [post(1n), post(2n), post(3n)], 0, [])
    assert.equal(requests.complete(sends, completion(2n), CQ, QP)?.wrId, 2n)
    assert.equal(requests.complete(receives, completion(2n, LOC_PROT_ERR), CQ, QP)?.wrId, 2n)
    assert.equal(requests.complete(receives, completion(3n, WR_FLUSH_ERR), CQ, QP)?.wrId, 3n)
    assert.equal(requests.complete(sends, completion(2n), CQ, QP), undefined)
    requests.polled(CQ)
    assert.deepEqual(events, [
      'ended 1',
      'ended 2',
      'completed 2 status 0: 1 of 30',
      `completed 2 status ${LOC_PROT_ERR}: 2 of 30`,
      `completed 3 status ${WR_FLUSH_ERR}: 3 of 30`,
      'polled 3 of 30',
    ])
    assert.deepEqual(
      [sends.outstanding, receives.outstanding].map(list => list.map(({ wrId }) => wrId)),
      [[3n], [1n]],
    )
    assert.equal(receives.failed?.wrId, 2n)
  })

  it('that were refused are the last ones, and their numbers are free again', () => {
    const [sends, receives] = [queueOf(PostQueue.SEND), queueOf(PostQueue.RECEIVE)]
    for (const queue of [sends, receives]) {
      requests.post(queue, [post(1n), post(2n), post(3n)], 0, [])
      requests.refuse(queue, 2)
    }
    requests.post(sends, [post(4n)], 0, [])
    assert.deepEqual(events, ['ended 2', 'ended 3', 'lost 2', 'lost 3'])
    assert.deepEqual(
      sends.outstanding.map(({ wrId, index }) => [wrId, index]),
      [
        [1n, 0],
        [4n, 1],
      ],
    )
    requests.reset(QP, [sends])
    assert.deepEqual([events.at(-1), sends.outstanding.length, sends.posted], ['reset 20', 0, 0])
  })
})
