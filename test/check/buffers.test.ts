/*
 * Findings about buffers, in virtual time.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { WorkRequest } from '../../src/spec/check/requests.ts'
import { AccessFlags, MrKind } from '../../src/spec/enums.ts'
import { Errno } from '../../src/spec/errno.ts'
import { PostQueue } from '../../src/spec/session.ts'
import { SendFlags, WrOpcode } from '../../src/spec/work.ts'
import { LKEY, requestScenario, START, workRequest } from './requests.ts'

const { SEND, RDMA_READ, RDMA_WRITE_WITH_IMM } = WrOpcode.values
const { FENCE } = SendFlags.values

/** Fields of a request for a range of the region. */
const at = (offset: number, length: number) => ({ length, elements: [{ address: START + offset, length, lkey: LKEY }] })
const receive = (offset: number, length: number): Partial<WorkRequest> => ({
  queue: PostQueue.RECEIVE,
  opcode: -1,
  ...at(offset, length),
})

it('deregistering a region with requests outstanding is an error for sends, a warning for receives', () => {
  const send = requestScenario()
  send.post()
  send.destroy('mr', send.region)
  assert.deepEqual(send.ids(), ['region-in-use error'])
  const received = requestScenario()
  received.post(receive(0, 64))
  received.destroy('mr', received.region)
  assert.deepEqual(received.ids(), ['region-in-use warning'])
  const unused = requestScenario()
  unused.complete(unused.post())
  unused.poll(1)
  unused.post({ elements: [{ address: START, length: 64, lkey: LKEY + 1 }] })
  unused.post({ elements: [{ address: START, length: 0, lkey: LKEY }] })
  unused.destroy('mr', unused.region)
  assert.deepEqual(unused.ids(), [])
})

it('a region is not deregistered by a refused call, and its end with the context is no mistake', () => {
  for (const ending of [{ refused: { errno: Errno.EBUSY, reason: '' } }, { why: 'close' as const }]) {
    const s = requestScenario()
    s.post()
    s.complete(s.post())
    s.call('mr', 'destroy', s.region, {}, ending)
    assert.deepEqual(
      s.ids().filter(id => id.startsWith('region-in-use')),
      [],
    )
  }
})

it('a change to the buffer of an outstanding send is found, a change to that of a READ is not', () => {
  for (const [opcode, ids] of [
    [SEND, ['send-buffer-changed warning']],
    [RDMA_READ, []],
  ] as const) {
    const s = requestScenario()
    const same = s.post({ opcode })
    s.complete(same)
    const changed = s.post({ opcode, ...at(1000, 64) })
    s.digests.sampledDigest++
    s.complete(changed)
    assert.deepEqual(s.ids(), ids)
  }
})

it('a fenced send may have the data of an outstanding READ, so changes to its buffer are no finding', () => {
  for (const [readEnds, flags, ids] of [
    [false, FENCE, []],
    [false, 0, ['send-buffer-changed warning']],
    [true, FENCE, ['send-buffer-changed warning']],
  ] as const) {
    const s = requestScenario()
    s.post(receive(2000, 64))
    const read = s.post({ opcode: RDMA_READ })
    if (readEnds) s.complete(read)
    const send = s.post({ opcode: SEND, flags })
    s.digests.sampledDigest++
    if (!readEnds) s.complete(read)
    s.complete(send)
    assert.deepEqual(s.ids(), ids)
  }
})

it('the first 16 sends of a queue and then every 16th are checked', () => {
  const s = requestScenario()
  const SENDS = 1000
  let checked = 0
  for (let index = 0; index < SENDS; index++) {
    const request = s.post({ index })
    s.digests.sampledDigest++
    const before = s.checker.counts[0] ?? 0
    s.complete(request)
    checked += (s.checker.counts[0] ?? 0) - before
  }
  assert.equal(checked, 16 + Math.floor((SENDS - 1) / 16))
})

it("with buffers 'all', all bytes of all sends are checked", () => {
  for (const [buffers, ids] of [
    ['sampled', []],
    ['all', ['send-buffer-changed warning']],
  ] as const) {
    const s = requestScenario({ buffers })
    const request = s.post({ index: 17 })
    s.digests.otherDigest++
    s.complete(request)
    assert.deepEqual(s.ids(), ids)
  }
})

it('overlapping receives are a note, and a warning if a message overwrites an unpolled message', () => {
  const s = requestScenario()
  const first = s.post(receive(0, 100))
  s.post(receive(100, 100))
  assert.deepEqual(s.ids(), [])
  const second = s.post(receive(50, 100))
  assert.deepEqual(s.ids(), ['receive-overlap note'])
  s.complete({ ...first, length: 20 })
  s.complete({ ...second, length: 20 })
  assert.deepEqual(s.ids(), ['receive-overlap note'], 'short messages do not overlap')
  s.poll(2)
  const [third, fourth] = [s.post(receive(0, 100)), s.post(receive(0, 100))]
  s.complete(third)
  s.poll(3)
  s.complete(fourth)
  assert.ok(!s.ids().includes('receive-overlap warning'), 'the first message was polled before the second arrived')
  for (const one of [s.post(receive(0, 100)), s.post(receive(0, 100))]) s.complete(one)
  assert.deepEqual([...new Set(s.ids())], ['receive-overlap note', 'receive-overlap warning'])
})

it('WRITEs with immediate data do not overwrite messages, because they do not write to the buffers of receives', () => {
  const s = requestScenario()
  const receives = [s.post(receive(0, 100)), s.post(receive(0, 100))]
  const message = workRequest({ opcode: RDMA_WRITE_WITH_IMM })
  for (const one of receives) s.complete(one, undefined, { message })
  assert.deepEqual(s.ids(), ['receive-overlap note'])
})

it('a message that a program of the TypeScript library may have polled is not overwritten', () => {
  const s = requestScenario({ isLibrary: true })
  s.complete(s.post(receive(0, 100)))
  s.complete(s.post(receive(0, 100)))
  assert.deepEqual(s.ids(), [], 'the library frees a CQE with its next poll')
  s.complete(s.post(receive(0, 100)))
  assert.deepEqual(s.ids(), ['receive-overlap warning'])
})

it('a receive of an SRQ that was lost with its queue pair is not outstanding', () => {
  const s = requestScenario()
  const shared = { owner: s.create('srq'), queue: PostQueue.SHARED, opcode: -1, ...at(0, 100) }
  s.checker.requests.receiveLost(s.post(shared))
  s.checker.requests.receiveLost(s.post(shared))
  s.destroy('mr', s.region)
  assert.deepEqual(s.ids(), [])
})

it('a message whose completion was lost with its CQ, or whose queue pair was reset, may be overwritten', () => {
  for (const end of ['none', 'cq', 'qp']) {
    const s = requestScenario()
    const shared = { owner: s.create('srq'), queue: PostQueue.SHARED, opcode: -1, ...at(0, 100) }
    const otherCq = s.create('cq')
    s.complete(s.post(shared), undefined, { qp: s.qp })
    if (end === 'cq') s.destroy('cq', s.cq)
    if (end === 'qp') s.checker.requests.queueReset(s.qp)
    s.forget()
    s.complete(s.post(shared), undefined, { intoCq: otherCq, qp: s.qp })
    assert.deepEqual(s.ids(), end === 'none' ? ['receive-overlap warning'] : [], end)
  }
})

it('polls of another CQ, and the end of another request, leave a request as it is', () => {
  const s = requestScenario()
  s.complete(s.post(receive(0, 100)))
  s.checker.requests.polled(s.create('cq'), 1)
  const [first, second] = [s.post(receive(0, 100)), s.post(receive(200, 100))]
  s.complete(second)
  assert.deepEqual(s.ids(), [])
  s.post(receive(0, 100))
  assert.deepEqual(s.ids(), ['receive-overlap note'], 'the first receive is outstanding')
  s.complete(first)
  assert.deepEqual(s.ids(), ['receive-overlap note', 'receive-overlap warning'])
})

it('only the bytes of a message overlap, also in buffers of several elements', () => {
  const buffer = (...offsets: readonly number[]): Partial<WorkRequest> => ({
    queue: PostQueue.RECEIVE,
    opcode: -1,
    length: 100 * offsets.length,
    elements: offsets.map(offset => ({ address: START + offset, length: 100, lkey: LKEY })),
  })
  for (const [bytes, ids] of [
    [100, []],
    [101, ['receive-overlap warning']],
  ] as const) {
    for (const offsets of [
      [
        [0, 1000],
        [500, 1000],
      ],
      [
        [0, 1000],
        [1000, 500],
      ],
      [
        [1000, 500],
        [0, 1000],
      ],
    ] as const) {
      const s = requestScenario()
      const [one, other] = offsets.map(each => s.post(buffer(...each))) as [WorkRequest, WorkRequest]
      s.forget()
      s.complete({ ...one, length: one.elements[0]!.address === START ? bytes : 100 })
      s.complete({ ...other, length: other.elements[0]!.address === START + 1000 ? 100 : bytes })
      assert.deepEqual(s.ids(), ids, JSON.stringify(offsets))
    }
  }
})

it('after a reset, requests are compared with later ones only', () => {
  const s = requestScenario()
  const send = s.post()
  const receives = [s.post(receive(200, 100)), s.post(receive(400, 100))]
  s.complete(receives[0]!)
  s.checker.requests.queueReset(s.qp)
  s.digests.sampledDigest++
  s.end(send)
  s.complete(s.post(receive(200, 100)))
  s.post(receive(400, 100))
  assert.deepEqual(s.ids(), [])
})

it('equal addresses of different regions overlap only if they are the same memory', () => {
  const s = requestScenario()
  const { ZERO_BASED } = AccessFlags.values
  const [iova, start, other] = [BigInt(START), 0x90000n, 0xa0000n]
  s.register({ start, iova, length: 4096n }, LKEY + 1)
  s.register({ start, iova: start, length: 4096n, access: ZERO_BASED }, LKEY + 2)
  s.register({ start: other, iova: other, length: 4096n, access: ZERO_BASED }, LKEY + 3)
  s.register({ start: iova, iova, length: 4096n }, LKEY + 4)
  const postAt = (address: number, lkey: number) =>
    s.post({ ...receive(0, 64), elements: [{ address, length: 64, lkey }] })
  postAt(START, LKEY)
  postAt(START, LKEY + 1)
  postAt(0, LKEY + 2)
  postAt(0, LKEY + 3)
  assert.deepEqual(s.ids(), [])
  postAt(START, LKEY + 4)
  assert.deepEqual(s.ids(), ['receive-overlap note'])
})

it('regions of files overlap only themselves, and regions without memory nothing', () => {
  const { FILE, NULL } = MrKind.values
  for (const [kind, ids] of [
    [FILE, ['receive-overlap note', 'receive-overlap warning']],
    [NULL, []],
  ] as const) {
    const s = requestScenario()
    for (const lkey of [LKEY + 1, LKEY + 2]) s.register({ start: 0n, iova: 0n, length: 4096n, kind }, lkey)
    const postTo = (lkey: number) => s.post({ ...receive(0, 64), elements: [{ address: 0, length: 64, lkey }] })
    const [first] = [postTo(LKEY + 1), postTo(LKEY + 2)]
    assert.deepEqual(s.ids(), [])
    const second = postTo(LKEY + 1)
    for (const one of [first, second]) s.complete(one)
    assert.deepEqual(s.ids(), ids)
  }
})

it('all overlapping receives are counted, and a second call that posts such receives is found', () => {
  let call = 'the loop'
  let stacks = 0
  const s = requestScenario({
    postStack() {
      stacks++
      return [call]
    },
  })
  const postMany = (count: number): void => {
    for (let i = 0; i < count; i++) s.post(receive(0, 64))
  }
  postMany(501)
  assert.deepEqual(s.ids(), new Array(500).fill('receive-overlap note'))
  assert.ok(stacks < 250, `${stacks} stacks were read for 500 overlaps`)
  call = 'another call'
  postMany(32)
  assert.equal(s.found.length, 2)
  assert.deepEqual(s.ids(), new Array(532).fill('receive-overlap note'))
})

it('buffers of sends may overlap, buffers of READs may not', () => {
  const s = requestScenario()
  s.post(at(0, 64))
  s.post(at(0, 64))
  assert.deepEqual(s.ids(), [])
  s.post({ opcode: RDMA_READ, ...at(200, 64) })
  s.post({ opcode: RDMA_READ, ...at(200, 64) })
  assert.deepEqual(s.ids(), ['receive-overlap note'])
})

it('unmapping memory of a region is a note; a warning that names an outstanding request', () => {
  const s = requestScenario()
  s.checker.unmapped(s.region)
  assert.deepEqual(s.ids(), ['region-unmapped note'])
  s.post()
  s.checker.unmapped(s.region)
  assert.deepEqual(s.ids(), ['region-unmapped note', 'region-unmapped warning'])
  assert.match(s.found[1]!.text, /while QP 0x1 has WRITE wr_id \d+ outstanding$/)
})
