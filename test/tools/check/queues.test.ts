/*
 * Findings about queues, in virtual time (microseconds).
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createCause } from '../../../src/spec/check/causes.ts'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { AsyncEventType, QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { SendFlags, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { LKEY, requestScenario, START } from './requests.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = WrOpcode.values
const { FENCE } = SendFlags.values
const { SRQ_LIMIT_REACHED } = AsyncEventType.values
const { SUCCESS, LOC_PROT_ERR, WR_FLUSH_ERR, REM_ACCESS_ERR } = WcStatus.values
const rnrExceeded = createCause('RNR_EXCEEDED', { rnrNaks: 3, rnrRetry: 2 })

it('sends beyond max_send_wr without a polled completion are found, also with `index` after a RESET', () => {
  const s = requestScenario()
  let index = 0
  const complete = (count: number): void => {
    for (let i = 0; i < count; i++) s.complete(s.post({ index: index++ }))
  }
  complete(8)
  s.poll(1)
  complete(1)
  assert.deepEqual(s.ids(), [])
  complete(1)
  assert.deepEqual(s.ids(), [])
  s.poll(2)
  assert.deepEqual(s.ids(), ['sends-unpolled warning'])
  assert.match(s.found[0]!.text, /has 9 sends posted of which no completion was polled, and max_send_wr is 8/)
  s.forget()
  s.checker.requests.queueReset(s.qp)
  index = 0
  complete(8)
  assert.deepEqual(s.ids(), [])
})

it('a program that polls when a post is refused may fill its queue', () => {
  const s = requestScenario()
  for (let index = 0; index < 12; index++) s.complete(s.post({ index }))
  s.checker.event({
    event: 'refusedPost',
    ...{ time: 1, device: 'rxe0', deviceNumber: 0, context: 0, program: { pid: 1, command: 'client' }, stack: [] },
    ...{ queue: PostQueue.SEND, number: 1, wrId: 12n, error: Errno.ENOMEM, state: QpState.values.RTS },
  })
  s.poll(1)
  assert.ok(!s.ids().includes('sends-unpolled warning'))
})

it('a sender whose sends succeed, and whose peer is connected to another queue pair, is found once', () => {
  const s = requestScenario()
  const address = { dgid: new Uint8Array(16), sgidIndex: 1 }
  s.complete(s.post())
  assert.deepEqual(s.ids(), [])
  s.checker.requests.queueReset(s.qp)
  s.call('rc_qp', 'modify', s.peer, { destQpn: 7, address })
  s.complete(s.post())
  s.complete(s.post())
  assert.deepEqual(s.ids(), ['peer-connected-elsewhere warning'])
})

it('flushed sends have completions, so they are no row of unsignaled sends', () => {
  const s = requestScenario()
  for (let i = 0; i < 20; i++) s.complete(s.post({ isSignaled: false }), WR_FLUSH_ERR)
  assert.deepEqual(s.ids(), [])
})

it('a reset ends a row of unsignaled sends', () => {
  const s = requestScenario()
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 8; i++) s.end(s.post({ isSignaled: false }))
    s.checker.requests.queueReset(s.qp)
  }
  assert.deepEqual(s.ids(), [])
})

it('a message that is answered RNR NAK again and again for a second is a finding before a receive comes', () => {
  const s = requestScenario()
  const notReady = (times: number) => {
    for (let i = 0; i < times; i++) s.checker.requests.receiverNotReady(s.qp)
  }
  notReady(100)
  assert.deepEqual(s.ids(), [])
  s.advance(1_000_000)
  notReady(2)
  assert.deepEqual(s.ids(), ['late-receives warning'])
  // A receiver that has posted receives is only slower than the sender.
  s.complete(s.post({ queue: PostQueue.RECEIVE, opcode: -1 }))
  s.advance(1_000_000)
  notReady(100)
  assert.deepEqual(s.ids(), ['late-receives warning', 'late-receives warning'])
})

it('a message that its sender repeats without limit is no late receive until the receive comes', () => {
  const s = requestScenario({ findsWaits: true })
  s.call('rc_qp', 'modify', s.peer, { rnrRetry: 7 })
  for (let i = 0; i < 100; i++) s.checker.requests.receiverNotReady(s.qp)
  s.advance(1_000_000)
  s.checker.requests.receiverNotReady(s.qp)
  assert.deepEqual(s.ids(), [])
  s.advance(1_000_000)
  s.post({ queue: PostQueue.RECEIVE, opcode: -1 })
  assert.deepEqual(s.ids(), ['late-receives note'])
  assert.match(s.found[0]!.text, /first receive at least 1000.0 ms after a message had come/)
})

it('the first receive of an SRQ is a finding if a message arrived before it', () => {
  const s = requestScenario()
  const srq = s.create('srq')
  const qp = s.create('rc_qp', { srq: { id: srq, handle: srq, class: { name: 'srq' } } }, { qpNum: 3 })
  s.checker.requests.receiverNotReady(qp)
  s.post({ owner: srq, queue: PostQueue.SHARED, opcode: -1 })
  assert.deepEqual(s.ids(), ['late-receives warning'])
})

it('the first receive of an unreliable queue pair is not late: earlier messages were dropped', () => {
  const s = requestScenario({ peerClass: 'uc_qp' })
  s.checker.requests.receiverNotReady(s.peer)
  s.post({ owner: s.peer, queue: PostQueue.RECEIVE, opcode: -1 })
  assert.deepEqual(s.ids(), [])
})

it('a CQ that was armed and then polled in part is found when it is destroyed, unless the rest was polled', () => {
  for (const [polledLater, ids] of [
    [1, ['lost-wakeup warning', 'completions-unpolled note']],
    [2, []],
  ] as const) {
    const s = requestScenario()
    s.complete(s.post())
    s.complete(s.post())
    s.call('cq', 'reqNotify', s.cq)
    s.poll(1)
    s.advance(500_000)
    s.poll(polledLater)
    s.advance(1_000_000)
    assert.deepEqual(s.ids(), [])
    s.destroy('cq', s.cq)
    assert.deepEqual(s.ids(), ids)
  }
})

it('a completion after the poll in part raises an event', () => {
  const s = requestScenario()
  s.complete(s.post())
  s.complete(s.post())
  s.call('cq', 'reqNotify', s.cq)
  s.poll(1)
  s.complete(s.post())
  s.advance(2_000_000)
  s.destroy('cq', s.cq)
  assert.deepEqual(s.ids(), ['completions-unpolled note'])
})

it('deregistering a region before the completion of its request is polled is a warning, unless it was flushed', () => {
  for (const [polled, status, ids] of [
    [0, SUCCESS, ['region-in-use warning']],
    [1, SUCCESS, []],
    [0, WR_FLUSH_ERR, []],
  ] as const) {
    const s = requestScenario()
    s.complete(s.post(), status)
    s.poll(polled)
    s.destroy('mr', s.region)
    assert.deepEqual(s.ids(), ids)
  }
})

it('unpolled completions of a queue pair that was reset or destroyed use no memory, also not of an SRQ', () => {
  for (const isShared of [false, true]) {
    const s = requestScenario()
    const srq = s.create('srq')
    const shared = { owner: srq, queue: PostQueue.SHARED }
    const receive = s.post({ queue: PostQueue.RECEIVE, ...(isShared && shared), opcode: -1 })
    s.complete(receive, SUCCESS, { qp: s.qp })
    s.checker.requests.queueReset(s.qp)
    s.destroy('mr', s.region)
    assert.deepEqual(s.ids(), [])
  }
})

it('an element of length 0 uses no memory of its region', () => {
  const s = requestScenario()
  const elements = [
    { address: START, length: 0, lkey: LKEY },
    { address: 0, length: 64, lkey: LKEY + 0x100 },
  ]
  s.post({ elements })
  s.complete(s.post({ elements }))
  s.destroy('mr', s.region)
  assert.deepEqual(s.ids(), [])
})

it('a CQ that is armed while it has completions, and not polled for a second, is a lost wake-up', () => {
  const s = requestScenario()
  const arm = (): void => s.call('cq', 'reqNotify', s.cq)
  s.complete(s.post())
  arm()
  s.poll(1)
  s.advance(5_000_000)
  s.complete(s.post())
  assert.deepEqual(s.ids(), [], 'the program polled after arming')
  arm()
  s.advance(10_000)
  s.complete(s.post())
  assert.deepEqual(s.ids(), [], 'the program may still poll')
  arm()
  s.advance(2_000_000)
  s.complete(s.post())
  assert.deepEqual(s.ids(), ['lost-wakeup warning'])
  assert.match(s.found[0]!.text, /was armed with 2 unpolled completions in it/)
})

it('unsolicited completions are no lost wake-up if the CQ is armed for solicited ones', () => {
  const s = requestScenario()
  const arm = (): void => s.call('cq', 'reqNotify', s.cq, { solicitedOnly: 1 })
  s.complete(s.post())
  arm()
  s.advance(2_000_000)
  s.complete(s.post(), SUCCESS, { solicited: true })
  assert.deepEqual(s.ids(), [])
  arm()
  s.advance(2_000_000)
  s.complete(s.post())
  assert.deepEqual(s.ids(), ['lost-wakeup warning'])
})

it('destroying a CQ that has a channel and completions, but was never armed or polled, is a lost wake-up', () => {
  for (const [use, isFound] of [
    ['none', true],
    ['arm', false],
    ['poll', false],
    ['flush', false],
    ['armed by a store', false],
    ['early destroy', false],
    ['no channel', false],
  ] as const) {
    const s = requestScenario({ hasChannel: use !== 'no channel' })
    const armed = use === 'armed by a store' ? { wasArmed: true as const } : {}
    const complete = (): void => s.complete(s.post(), use === 'flush' ? WR_FLUSH_ERR : SUCCESS, armed)
    complete()
    s.advance(use === 'early destroy' ? 1000 : 2_000_000)
    if (use === 'arm') s.call('cq', 'reqNotify', s.cq)
    if (use === 'poll') s.poll(1)
    complete()
    assert.deepEqual(s.ids(), [], use)
    s.destroy('cq', s.cq)
    assert.equal(s.ids().includes('lost-wakeup warning'), isFound, use)
    if (isFound) assert.match(s.found[0]!.text, /was never armed .* no event for 2 completions in it$/)
  }
})

it('destroying a CQ that waits for solicited messages is a lost wake-up if only others came, and none is polled', () => {
  for (const [use, isFound] of [
    ['none', true],
    ['solicited before', false],
    ['poll', false],
    ['arm', false],
    ['own sends', false],
    ['early destroy', false],
    ['no channel', false],
  ] as const) {
    const s = requestScenario({ hasChannel: use !== 'no channel' })
    const receive = (solicited: boolean): void =>
      s.complete(s.post({ queue: PostQueue.RECEIVE }), SUCCESS, { solicited, message: s.post() })
    if (use === 'solicited before') {
      receive(true)
      s.poll(1)
    }
    s.call('cq', 'reqNotify', s.cq, { solicitedOnly: 1 })
    if (use === 'own sends') s.complete(s.post())
    else receive(false)
    if (use === 'arm') s.call('cq', 'reqNotify', s.cq, { solicitedOnly: 0 })
    if (use === 'poll') s.poll(1)
    s.advance(use === 'early destroy' ? 1000 : 2_000_000)
    s.destroy('cq', s.cq)
    const texts = s.found.filter(({ id }) => id === 'lost-wakeup').map(({ text }) => text)
    assert.equal(
      texts.some(text =>
        /1 completion came that is not solicited: the sender, QP 0x1 .*, sets no IBV_SEND_SOL/.test(text),
      ),
      isFound,
      `${use}: ${texts.join()}`,
    )
  }
})

it('a CQ of the TypeScript library, whose channel the library creates, is not taken for one that was never armed', () => {
  const s = requestScenario({ hasChannel: true, isLibrary: true })
  s.complete(s.post())
  s.complete(s.post())
  s.advance(2_000_000)
  s.destroy('cq', s.cq)
  assert.deepEqual(s.ids(), ['completions-unpolled note'])
})

it('a lost wake-up of the TypeScript library does not count the completion that may be polled', () => {
  const s = requestScenario({ isLibrary: true })
  for (let i = 0; i < 3; i++) s.complete(s.post())
  s.call('cq', 'reqNotify', s.cq)
  s.advance(2_000_000)
  s.complete(s.post())
  // The library frees a CQE only with its next poll, so the first of the 3 may be polled.
  assert.match(s.found[0]!.text, /was armed with 2 unpolled completions in it/)
})

it('completions that were never polled are a note, a warning if one is an error, no finding if flushed', () => {
  for (const [status, ids] of [
    [SUCCESS, ['completions-unpolled note']],
    [REM_ACCESS_ERR, ['completions-unpolled warning']],
    [WR_FLUSH_ERR, []],
  ] as const) {
    const s = requestScenario()
    s.complete(s.post())
    s.poll(1)
    s.complete(s.post(), status)
    s.destroy('cq', s.cq)
    assert.deepEqual(s.ids(), ids)
  }
})

it('a completion of a request that failed because its program ended is no unpolled completion', () => {
  const s = requestScenario()
  s.fail(createCause('LOCAL_ENDED', {}))
  s.complete(s.post(), LOC_PROT_ERR)
  s.destroy('cq', s.cq)
  assert.deepEqual(s.ids(), ['program-ended note'])
})

it('an RNR failure has the counts of the peer’s receives and of the outstanding messages', () => {
  const s = requestScenario()
  const receive = s.post({ owner: s.peer, queue: PostQueue.RECEIVE, opcode: -1 })
  s.complete(receive)
  s.complete(s.post({ owner: s.peer, queue: PostQueue.RECEIVE, opcode: -1 }), WR_FLUSH_ERR)
  s.end(s.post({ opcode: SEND }))
  s.post({ opcode: SEND })
  s.post({ opcode: SEND })
  s.fail(rnrExceeded)
  assert.equal(s.found.at(-1)?.details[0], 'QP 0x2 has had 2 receives, and messages took 1; QP 0x1 sends 2 more')
})

it('an RNR failure of SRD says which receives EFA does not count', () => {
  const s = requestScenario({ peerClass: 'driver_qp' })
  s.post({ opcode: SEND })
  s.fail(rnrExceeded)
  const [counts, drops] = s.found.at(-1)!.details
  assert.match(counts!, /^QP 0x2 has had 0 receives/)
  assert.match(drops!, /num_sge 0.* libefa drops it, though ibv_post_recv returns 0$/)
})

it('an RNR failure of an XRC target has no counts of receives: its SRQ is unknown', () => {
  const s = requestScenario({ peerClass: 'xrc_tgt_qp' })
  s.post({ opcode: SEND })
  s.fail(rnrExceeded)
  assert.equal(s.found.at(-1)?.id, 'no-receive-posted')
  assert.ok(s.found.at(-1)!.details.every(line => !line.includes('has had')))
})

// ---- messages that wait for receives ----

it('messages that waited for a receive are a note at the end of the queue pair, a warning if they dominate', () => {
  for (const [receiver, messages, waiting, milliseconds, ids, rnrRetry = 2] of [
    ['rc', 20, 11, 200, ['receives-short note'], 7],
    ['rc', 20, 0, 0, []],
    ['rc', 20, 1, 1, ['receives-short note']],
    ['rc', 20, 11, 1, ['receives-short warning']],
    ['rc', 4, 3, 1, ['receives-short note']],
    ['rc', 20, 1, 200, ['receives-short warning']],
    ['srq', 20, 1, 1, ['receives-short note']],
    ['xrc', 20, 1, 1, ['receives-short note']],
  ] as const) {
    const s = requestScenario({ ...(receiver === 'xrc' && { peerClass: 'xrc_tgt_qp' }) })
    const owner = receiver === 'rc' ? s.peer : s.create(receiver === 'srq' ? 'srq' : 'xrc_srq')
    const srq = { id: owner, handle: owner, class: { name: 'srq' } }
    s.call('rc_qp', 'modify', s.qp, { rnrRetry })
    const qp = receiver === 'srq' ? s.create('rc_qp', { srq }, { qpNum: 3 }) : s.peer
    const queue = receiver === 'rc' ? PostQueue.RECEIVE : PostQueue.SHARED
    for (let i = 0; i < messages; i++) {
      const message = s.post({ opcode: SEND, index: i, wrId: BigInt(i) })
      s.advance(5000)
      const receive = (): WorkRequest => s.post({ owner, queue, opcode: -1, elements: [], index: i })
      const before = i === 0 || i > waiting ? receive() : undefined
      if (before === undefined) s.checker.requests.receiverNotReady(qp)
      if (before === undefined) s.advance(1000 * milliseconds)
      s.complete(before ?? receive(), SUCCESS, { message, qp })
      s.complete(message)
      s.poll(2 * (i + 1))
    }
    s.forget()
    s.checker.requests.queueReset(qp)
    assert.deepEqual(s.ids(), ids, `${receiver} ${messages} ${waiting} ${milliseconds}`)
    if (waiting !== 11 || rnrRetry === 7) continue
    assert.equal(
      s.found.at(-1)!.text,
      '11 of 20 messages for QP 0x2 waited for a receive, 11.0 ms in total, at most 1.0 ms, the first is SEND wr_id 1 of QP 0x1; with rnr_retry 2 a longer wait fails the send',
    )
    assert.deepEqual(s.found.at(-1)!.moments[0]!.stack, ['posted'])
  }
})

// ---- sends that are lost ----

const { ERR, RESET } = QpState.values

it('sends that are outstanding at the end of their queue pair are lost, with what is known of each', () => {
  const s = requestScenario()
  s.complete(s.post({ opcode: SEND }))
  s.poll(1)
  const receive = s.post({ owner: s.peer, queue: PostQueue.RECEIVE, opcode: -1 })
  const delivered = s.post({ opcode: SEND, index: 1, wrId: 10n })
  s.complete(receive, SUCCESS, { message: delivered })
  s.post({ opcode: SEND, index: 2, wrId: 11n })
  s.post({ opcode: RDMA_READ, index: 3, wrId: 12n })
  s.post({ opcode: WrOpcode.values.RDMA_WRITE, index: 4, wrId: 13n, elements: [] })
  s.call('rc_qp', 'destroy', s.qp, {}, { pendingSends: 6 })
  assert.deepEqual(s.ids(), ['sends-lost warning'])
  assert.equal(
    s.found[0]!.text,
    'QP 0x1 was destroyed with 6 sends outstanding: SEND wr_id 10, 64 bytes: the peer has received it, its answer has not come; SEND wr_id 11, 64 bytes: the peer has not received it; READ wr_id 12, 64 bytes: its data has not come; WRITE wr_id 13, 64 bytes: the peer may have it in part and 2 more',
  )
})

it('a complete send is a note unless the program has polled, or the peer has answered', () => {
  for (const [what, ids] of [
    ['nothing', ['sends-lost note']],
    ['polled', []],
    ['answered', []],
    ['failed', ['no-receive-posted error']],
  ] as const) {
    const s = requestScenario()
    s.complete(s.post({ opcode: SEND }))
    if (what === 'polled') s.poll(1)
    if (what === 'answered') s.complete(s.post({ queue: PostQueue.RECEIVE, opcode: -1 }))
    if (what === 'failed') s.fail(rnrExceeded)
    s.call('rc_qp', 'modify', s.qp, { state: RESET }, { pendingSends: 0 })
    assert.deepEqual(s.ids(), ids, what)
  }
})

it('a send that is posted in ERR loses nothing; one before it does, as a note if the program polls the flush', () => {
  for (const [pendingSends, polls, ids] of [
    [0, 0, []],
    [1, 0, ['sends-lost warning']],
    [1, 2, ['sends-lost note']],
  ] as const) {
    const s = requestScenario()
    s.complete(s.post())
    s.poll(1)
    const early = pendingSends === 1 ? s.post({ index: 1 }) : undefined
    s.call('rc_qp', 'modify', s.qp, { state: ERR }, { pendingSends })
    if (early) s.complete(early, WR_FLUSH_ERR)
    s.complete(s.post({ index: 1 + pendingSends }), WR_FLUSH_ERR)
    s.poll(1 + polls)
    s.checker.requests.queueReset(s.qp)
    s.call('rc_qp', 'modify', s.qp, { state: RESET }, { pendingSends: 0 })
    assert.deepEqual(s.ids(), ids)
  }
})

// ---- address handles ----

it('an address handle is destroyed before the completion of its send is polled', () => {
  const address = { dgid: new Uint8Array(16).fill(3) }
  for (const [what, count] of [
    ['outstanding', 1],
    ['unpolled', 1],
    ['polled', 0],
    ['another handle', 0],
  ] as const) {
    const s = requestScenario()
    const name = (id: number, cls: string) => ({ id, handle: id, class: { name: cls } })
    const pd = name(s.create('pd'), 'pd')
    const ah = s.create('ah', { pd, address })
    if (what === 'another handle') s.create('ah', { pd, address })
    const owner = s.create('ud_qp', { pd, sendCq: name(s.cq, 'cq') }, { qpNum: 9 })
    const send = s.post({ owner, number: 9, opcode: SEND, destQpn: 1, destination: { gid: address.dgid, qkey: 0 } })
    if (what !== 'outstanding') s.complete(send)
    if (what === 'polled') s.poll(1)
    s.forget()
    s.destroy('ah', ah)
    assert.deepEqual(s.ids(), new Array(count).fill('message-dropped note'), what)
  }
})

it('a send without a fence that needs the end of a READ of its queue is found, unless it may know that end', () => {
  const at = (offset: number): Partial<WorkRequest> => ({
    elements: [{ address: START + offset, length: 64, lkey: LKEY }],
  })
  const remote = (address: number): Partial<WorkRequest> => ({ remote: { address, length: 64, rkey: 7 } })
  const read = { opcode: RDMA_READ, isSignaled: false, ...at(0), ...remote(0x9000) }
  const send = { opcode: SEND, ...at(32) }
  const write = { opcode: RDMA_WRITE, ...at(512), ...remote(0x9020) }
  type Scenario = ReturnType<typeof requestScenario>
  const cases: readonly [name: string, ids: readonly string[], run: (s: Scenario) => void][] = [
    ['its bytes', ['buffer-reused error'], s => void s.post({ index: 1, ...send })],
    ["the peer's bytes", ['read-then-write-unfenced error'], s => void s.post({ index: 1, ...write })],
    ['a fence', [], s => void s.post({ index: 1, flags: FENCE, ...send })],
    [
      'a fence between',
      [],
      s => {
        s.post({ index: 1, opcode: SEND, flags: FENCE, ...at(512) })
        s.post({ index: 2, ...send })
      },
    ],
    ['other bytes', [], s => void s.post({ index: 1, ...send, ...at(64) })],
    ["other bytes of the peer's", [], s => void s.post({ index: 1, ...write, ...remote(0x9040) })],
    [
      'bytes of another region of the peer',
      [],
      s => void s.post({ index: 1, ...write, remote: { address: 0x9000, length: 64, rkey: 8 } }),
    ],
    [
      'a later completion was polled',
      [],
      s => {
        s.complete(s.post({ index: 1, opcode: SEND, ...at(512) }))
        s.poll(1)
        s.post({ index: 2, ...send })
        s.post({ index: 3, ...write })
      },
    ],
  ]
  for (const [name, ids, run] of cases) {
    const s = requestScenario()
    s.end(s.post({ index: 0, ...read }))
    run(s)
    assert.deepEqual(s.ids(), ids, name)
  }
})

it('of the TypeScript library it is unknown whether the program knows the end of a READ that has ended', () => {
  for (const [ends, ids] of [
    [false, ['buffer-reused error']],
    [true, []],
  ] as const) {
    const s = requestScenario({ isLibrary: true })
    const read = s.post({ opcode: RDMA_READ, index: 0 })
    if (ends) s.complete(read)
    s.post({ opcode: SEND, index: 1 })
    assert.deepEqual(s.ids(), ids)
  }
})

it('sends without a fence are told with their own stacks at first, then they count', () => {
  let post = 0
  const s = requestScenario({ postStack: () => [`post ${post}`] })
  s.end(s.post({ opcode: RDMA_READ, isSignaled: false }))
  for (post = 1; post <= 100; post++) s.post({ index: post, opcode: SEND })
  assert.equal(s.found.length, 64)
  assert.equal(s.ids().length, 100)
})

it('a message without a receive of an SRQ is told with what became of its limit', () => {
  type Scenario = ReturnType<typeof requestScenario>
  const raise = (s: Scenario, srq: number): void => {
    s.advance(5000)
    s.fail(createCause('SRQ_LIMIT', { srq, limit: 8 }), { kind: 'event', event: SRQ_LIMIT_REACHED })
  }
  const refill = (s: Scenario, srq: number): void => {
    s.post({ owner: srq, queue: PostQueue.SHARED, opcode: -1 })
  }
  const arm = (s: Scenario, srq: number): void => s.call('srq', 'modify', srq, { limit: 8 })
  const cases: readonly [unread: number, limit: number, (s: Scenario, srq: number) => void, RegExp | undefined][] = [
    [0, 8, () => {}, /^srq_limit 8 of ibv_create_srq is ignored/],
    [0, 0, () => {}, undefined],
    // Armed, and not reached.
    [0, 8, arm, undefined],
    [
      0,
      0,
      (s, srq) => {
        arm(s, srq)
        raise(s, srq)
        refill(s, srq)
      },
      /srq_limit 8\) came 0 ms before and has disarmed the limit; receives posted since: 1; nothing/,
    ],
    [
      0,
      0,
      (s, srq) => {
        arm(s, srq)
        raise(s, srq)
        arm(s, srq)
      },
      undefined,
    ],
    [
      1,
      0,
      (s, srq) => {
        arm(s, srq)
        raise(s, srq)
      },
      /an event of the device is not read/,
    ],
  ]
  for (const [unread, limit, run, told] of cases) {
    const s = requestScenario({ unreadEvents: () => unread })
    const srq = s.create('srq', { limit })
    s.create('rc_qp', { srq: { id: srq, handle: srq, class: { name: 'srq' } } }, { qpNum: 9 })
    run(s, srq)
    s.fail(rnrExceeded, { peer: { qpn: 9, address: '' } })
    const { details = [], advice } = s.found.at(-1) ?? {}
    const lines = details.filter(line => /srq_limit/.test(line))
    assert.equal(lines.length, told === undefined ? 0 : 1)
    if (told !== undefined) assert.match(lines[0]!, told)
    assert.equal(/SRQ/.test(advice ?? ''), told !== undefined)
  }
})

it('two ends that both wait for a message are told with the messages that each has posted', () => {
  const s = requestScenario()
  for (let i = 0; i < 3; i++) s.complete(s.post({ opcode: SEND, index: i }))
  const at = { time: 0, device: 'rxe0', deviceNumber: 0, context: 0, program: { pid: 1, command: 'client' }, stack: [] }
  s.checker.event({ event: 'waits', ...at, wait: { id: 'both-receive', text: 'both', qpns: [1, 2] } })
  assert.deepEqual(s.found.at(-1)?.details, ['posted so far: 3 messages by QP 0x1, 0 messages by QP 0x2'])
})

it('a sender that waits without end for a receive is told with the place of the last receive of the peer', () => {
  const s = requestScenario()
  const at = { time: 0, device: 'rxe0', deviceNumber: 0, context: 0, program: { pid: 1, command: 'client' }, stack: [] }
  const wait = { id: 'endless-rnr', text: 'waits', qpns: [1, 2] } as const
  s.checker.event({ event: 'waits', ...at, wait })
  assert.deepEqual(s.found.at(-1)?.moments.slice(1), [], 'it has none')
  for (const wrId of [7n, 8n]) s.post({ owner: s.peer, number: 2, queue: PostQueue.RECEIVE, wrId })
  s.checker.event({ event: 'waits', ...at, wait: { ...wait, text: 'waits still' } })
  assert.deepEqual(
    s.found
      .at(-1)
      ?.moments.slice(1)
      .map(({ action, stack }) => [action, stack]),
    [["the peer's last receive, wr_id 8, posted", ['posted']]],
  )
})
