/*
 * Findings about buffers, in virtual time.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { AccessFlags, MrKind } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { because } from '../../../src/spec/reason.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { SendFlags, WrOpcode } from '../../../src/spec/work.ts'
import { LKEY, requestScenario, START, workRequest } from './requests.ts'

const { SEND, RDMA_READ, RDMA_WRITE, RDMA_WRITE_WITH_IMM } = WrOpcode.values
const { FENCE } = SendFlags.values

/** Fields of a request for a range of the region. */
const at = (offset: number, length: number) => ({ length, elements: [{ address: START + offset, length, lkey: LKEY }] })
const receive = (offset: number, length: number): Partial<WorkRequest> => ({
  queue: PostQueue.RECEIVE,
  opcode: -1,
  ...at(offset, length),
})

it('a region is not deregistered by a refused call, and its end with the context is no mistake', () => {
  for (const ending of [{ refused: { errno: Errno.EBUSY, reason: because`` } }, { why: 'close' as const }]) {
    const s = requestScenario()
    s.post()
    s.call('mr', 'destroy', s.region, {}, ending)
    // A refused call is a finding too, "destroy-busy".
    const regionFindings = s.ids().filter(id => id.startsWith('region-in-use'))
    assert.deepEqual(regionFindings, [])
  }
})

it('a fenced send may have the data of an outstanding READ, so changes to its buffer are no finding', () => {
  for (const [readEnds, isPolled, flags, ids] of [
    [false, false, FENCE, []],
    [false, false, 0, ['send-buffer-changed warning']],
    // The data may come late, until the completion was polled.
    [true, false, FENCE, []],
    [true, true, FENCE, ['send-buffer-changed warning']],
  ] as const) {
    const s = requestScenario()
    // A receive writes to its buffer too, but no fence waits for it.
    s.post(receive(2000, 64))
    const read = s.post({ opcode: RDMA_READ })
    if (readEnds) s.complete(read)
    if (isPolled) s.poll(1)
    const send = s.post({ opcode: SEND, flags })
    s.changeSampledBytes()
    if (!readEnds) s.complete(read)
    s.complete(send)
    assert.deepEqual(s.ids(), ids)
  }
})

it("the buffer of a READ is the program's again when its data has come, and a device may write there before", () => {
  const remote = { address: START + 1024, length: 64, rkey: LKEY }
  for (const [change, ids] of [
    ['before', ['send-buffer-changed warning']],
    ['after', []],
    ['peer', []],
    ['own send', ['send-buffer-changed warning']],
  ] as const) {
    const s = requestScenario()
    const read = s.post({ opcode: RDMA_READ, remote, ...at(0, 64) })
    if (change === 'peer')
      s.end(s.post({ owner: s.peer, number: 2, ...at(2048, 64), remote: { ...remote, address: START } }))
    if (change === 'own send') s.end(s.post({ opcode: SEND, ...at(512, 64) }))
    if (change !== 'after') s.changeSampledBytes()
    s.checker.accessed(0, LKEY, 0, START + 1024, 64, AccessFlags.values.REMOTE_READ, 2)
    if (change === 'after') s.changeSampledBytes()
    s.complete(read)
    assert.deepEqual(s.ids(), ids, change)
  }
})

it('the first 16 sends of a queue and then every 16th are checked', () => {
  const s = requestScenario()
  const checked: number[] = []
  for (let index = 0; index < 100; index++) {
    const request = s.post({ index })
    s.changeSampledBytes()
    s.complete(request)
    s.poll(index + 1)
    if (s.ids().length > checked.length) checked.push(index)
  }
  const first = Array.from({ length: 16 }, (_, index) => index)
  assert.deepEqual(checked, [...first, 16, 32, 48, 64, 80, 96])
})

it("with the option buffers: 'all', all bytes of all sends are checked", () => {
  for (const [buffers, ids] of [
    ['sampled', []],
    ['all', ['send-buffer-changed warning']],
  ] as const) {
    const s = requestScenario({ buffers })
    // not among the first 16, and no multiple of 16
    const request = s.post({ index: 17 })
    s.changeOtherBytes()
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
  assert.ok(!s.ids().includes('receive-overlap warning'), 'the third message was polled before the fourth arrived')
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

it('overwriting a message that a program of the TypeScript library may have polled is no finding', () => {
  const s = requestScenario({ isLibrary: true })
  s.complete(s.post(receive(0, 100)))
  s.complete(s.post(receive(0, 100)))
  // The library frees a CQE with its next poll: the first message may have been polled.
  assert.deepEqual(s.ids(), [])
  s.complete(s.post(receive(0, 100)))
  assert.deepEqual(s.ids(), ['receive-overlap warning'], 'the second message cannot have been polled')
})

it('an SRQ receive that was lost with the queue pair that had taken it is not outstanding', () => {
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

it('a poll of another CQ does not poll a message', () => {
  const s = requestScenario()
  s.complete(s.post(receive(0, 100)))
  s.checker.requests.polled(s.create('cq'), 1)
  s.complete(s.post(receive(0, 100)))
  assert.deepEqual(s.ids(), ['receive-overlap warning'])
})

it('a receive stays outstanding when a later receive completes', () => {
  const s = requestScenario()
  s.post(receive(0, 100))
  s.complete(s.post(receive(200, 100)))
  assert.deepEqual(s.ids(), [])
  s.post(receive(0, 100))
  assert.deepEqual(s.ids(), ['receive-overlap note'])
})

it('two messages overlap only in the bytes that they have written, also in buffers of several elements', () => {
  const buffer = (...offsets: readonly number[]): Partial<WorkRequest> => ({
    queue: PostQueue.RECEIVE,
    opcode: -1,
    length: 100 * offsets.length,
    elements: offsets.map(offset => ({ address: START + offset, length: 100, lkey: LKEY })),
  })
  // Elements have 100 bytes, so byte 101 of a message is the first of the second element.
  for (const [offsets, bytes, otherOffsets, otherBytes, isOverlap] of [
    [[0, 1000], 100, [500, 1000], 100, false],
    [[0, 1000], 101, [500, 1000], 101, true],
    [[0, 1000], 100, [1000, 500], 100, false],
    [[0, 1000], 101, [1000, 500], 100, true],
    [[1000, 500], 100, [0, 1000], 100, false],
    [[1000, 500], 100, [0, 1000], 101, true],
  ] as const) {
    const s = requestScenario()
    const [one, other] = [s.post(buffer(...offsets)), s.post(buffer(...otherOffsets))]
    s.forget()
    s.complete({ ...one, length: bytes })
    s.complete({ ...other, length: otherBytes })
    assert.deepEqual(s.ids(), isOverlap ? ['receive-overlap warning'] : [], `${offsets}, ${otherOffsets}, ${bytes}`)
  }
})

it('requests before a reset of the queue pair cause no findings after it', () => {
  const s = requestScenario()
  const send = s.post()
  s.complete(s.post(receive(200, 100)))
  s.post(receive(400, 100))
  s.checker.requests.queueReset(s.qp)
  s.changeSampledBytes()
  s.end(send)
  s.complete(s.post(receive(200, 100)))
  s.post(receive(400, 100))
  assert.deepEqual(s.ids(), [])
})

it('equal addresses of different regions overlap only if they are the same memory', () => {
  const s = requestScenario()
  const { ZERO_BASED } = AccessFlags.values
  const [iova, start, other] = [BigInt(START), 0x90000n, 0xa0000n]
  // the address of `s.region`, but other memory
  s.register({ start, iova, length: 4096n }, LKEY + 1)
  // both with address 0
  s.register({ start, iova: start, length: 4096n, access: ZERO_BASED }, LKEY + 2)
  s.register({ start: other, iova: other, length: 4096n, access: ZERO_BASED }, LKEY + 3)
  // the address and memory of `s.region`
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
  // Every 16th of the later overlaps is reported with its own stack.
  call = 'another call'
  postMany(16)
  assert.equal(s.found.length, 2, 'one finding for each call')
  assert.deepEqual(s.ids(), new Array(516).fill('receive-overlap note'))
})

it('unmapping memory of a region is a note; with a request outstanding, a warning that names the request', () => {
  const s = requestScenario()
  s.checker.event({ event: 'unmapped', object: s.region })
  assert.deepEqual(s.ids(), ['region-unmapped note'])
  s.post()
  s.checker.event({ event: 'unmapped', object: s.region })
  assert.deepEqual(s.ids(), ['region-unmapped note', 'region-unmapped warning'])
  assert.match(s.found[1]!.text, /while QP 0x1 has WRITE wr_id \d+ outstanding$/)
})

it('a send buffer that is changed between the post and the fetch is found, not that of a fenced send', () => {
  for (const [flags, ids] of [
    [0, ['send-buffer-changed warning']],
    [SendFlags.values.FENCE, []],
  ] as const) {
    const s = requestScenario()
    s.hashAtPost()
    s.end(s.post())
    assert.deepEqual(s.ids(), [])
    s.changeSampledBytes()
    s.end(s.post({ flags }))
    assert.deepEqual(s.ids(), ids)
  }
})

it('a change after the device has finished the send is found, if no device may have written and the peer has not answered', () => {
  type Scenario = ReturnType<typeof requestScenario>
  const remote = (offset: number, rkey = LKEY) => ({ remote: { address: START + offset, length: 64, rkey } })
  const atStart = at(0, 64)
  for (const [events, ids] of [
    [{}, ['send-buffer-changed warning']],
    // Writes to other bytes, or before the send.
    [
      { during: (s: Scenario) => s.complete(s.post({ opcode: RDMA_READ, ...at(1000, 64) })) },
      ['send-buffer-changed warning'],
    ],
    [{ before: (s: Scenario) => s.complete(s.post({ ...receive(0, 64) })) }, ['send-buffer-changed warning']],
    [{ during: (s: Scenario) => s.end(s.post({ opcode: RDMA_READ, ...atStart })) }, []],
    [{ during: (s: Scenario) => s.post({ opcode: RDMA_READ, ...atStart }) }, []],
    [{ before: (s: Scenario) => s.post({ ...receive(0, 64) }) }, []],
    // WRITEs of the first queue pair to the same memory, and to an unknown key.
    [{ during: (s: Scenario) => s.end(s.post({ opcode: RDMA_WRITE, index: 1, ...at(1000, 64), ...remote(0) })) }, []],
    [
      { during: (s: Scenario) => s.end(s.post({ opcode: RDMA_WRITE, index: 1, ...at(1000, 64), ...remote(0, 7) })) },
      [],
    ],
    [
      { during: (s: Scenario) => s.end(s.post({ opcode: RDMA_WRITE, index: 1, ...at(1000, 64), ...remote(2000) })) },
      ['send-buffer-changed warning'],
    ],
    // Answers of the peer.
    [{ during: (s: Scenario) => s.complete(s.post(receive(2000, 64))) }, []],
    [{ during: (s: Scenario) => s.end(s.post({ owner: s.peer, number: 2, ...at(1000, 64), ...remote(2000) })) }, []],
  ] as const) {
    const { before, during }: { before?: (s: Scenario) => void; during?: (s: Scenario) => void } = events
    const s = requestScenario()
    s.hashAtPost()
    before?.(s)
    s.advance(1)
    const send = s.post({ opcode: SEND, ...atStart })
    s.end(send)
    s.advance(1)
    during?.(s)
    s.told({ event: 'sendChanged', number: 1, index: send.index })
    s.told({ event: 'sendChanged', number: 1, index: send.index })
    assert.deepEqual(s.ids(), ids, String(during ?? before))
  }
})

it('a change that was found at the fetch or at the end is not found again at the poll', () => {
  const s = requestScenario()
  s.hashAtPost()
  const send = s.post()
  s.changeSampledBytes()
  s.end(send)
  s.told({ event: 'sendChanged', number: 1, index: send.index })
  assert.deepEqual(s.ids(), ['send-buffer-changed warning'])
})
