/*
 * The story of a finding: what is kept, which objects it has, what is one line, and which is marked.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createCause } from '../../../src/spec/check/causes.ts'
import type { StoryLine } from '../../../src/spec/check/finding.ts'
import { AsyncEventType, QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { because } from '../../../src/spec/reason.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { NewEvent, ProcessLog } from '../../../src/tools/check/story/log.ts'
import { requestScenario } from './requests.ts'

const { RECEIVE } = PostQueue
const { SEND } = WrOpcode.values
const { RESET, RTS, ERR } = QpState.values
const receive = { queue: RECEIVE, opcode: -1 }

const texts = (story: readonly StoryLine[] = []): string[] =>
  story.map(({ object, text, count, isDecisive }) => `${isDecisive ? '=> ' : ''}${object}: ${text} (${count})`)

/** The story of the finding that queue pair 1 waits for the peer. */
const storyOf = (
  scenario: ReturnType<typeof requestScenario>,
  cause = createCause('NO_ANSWER', { retryCnt: 2, tries: 3 }),
) => {
  scenario.fail(cause)
  return scenario.found.at(-1)?.story ?? []
}

/** As `storyOf`, of a program that waits. */
const storyOfWait = (
  { checker, found }: ReturnType<typeof requestScenario>,
  id: 'events-unacknowledged' | 'idle-queues' = 'idle-queues',
) => {
  checker.event({
    event: 'waits',
    time: 0,
    device: 'rxe0',
    deviceNumber: 0,
    context: 0,
    program: { pid: 1, command: 'client' },
    wait: { id, text: 'it waits', cq: 1 },
  })
  return found.at(-1)?.story ?? []
}

test('a story has both ends in the order of time, and repeats as one line', () => {
  const scenario = requestScenario()
  const { peer, post, complete, poll, advance } = scenario
  for (let i = 0; i < 400; i++) {
    advance(10)
    const filled = post({ ...receive, owner: peer, number: 2, index: i, wrId: BigInt(i + 1) })
    const sent = post({ opcode: SEND, index: i, wrId: BigInt(1000 + i) })
    complete(sent)
    complete(filled, WcStatus.values.SUCCESS, { message: sent })
    poll(2 * (i + 1))
  }
  const story = storyOf(scenario)
  assert.deepEqual(texts(story), [
    'QP 0x1: modified to RTS (1)',
    'QP 0x2: modified to RTS (1)',
    'QP 0x2: posted receive wr_id 1 to 400, 64 bytes each (400)',
    'QP 0x1: posted SEND wr_id 1000 to 1399, 64 bytes each (400)',
    'QP 0x1: completed SEND wr_id 1000 to 1399 (400)',
    'QP 0x2: received 64 bytes each from QP 0x1 into receive wr_id 1 to 400 (400)',
    'CQ 1: polled 800 completions (400)',
  ])
  assert.deepEqual([story[2]!.since, story[2]!.time, story[2]!.stack], [10, 4000, ['posted']])
})

test('completions with numbers that repeat have the first and the last one', () => {
  const scenario = requestScenario()
  for (let i = 0; i < 40; i++) scenario.complete(scenario.post({ opcode: SEND, index: i, wrId: BigInt(i % 16) }))
  const completed = texts(storyOf(scenario)).filter(text => text.includes('completed'))
  assert.deepEqual(completed, ['QP 0x1: completed SEND wr_id 0 … 7 (40)'])
})

test('a call begins a part of the story, in which the same is another line', () => {
  const scenario = requestScenario()
  const { qp, call, post } = scenario
  post({ opcode: SEND })
  call('rc_qp', 'modify', qp, { state: RESET })
  post({ opcode: SEND })
  const lines = texts(storyOf(scenario)).filter(text => text.startsWith('QP 0x1'))
  assert.deepEqual(
    lines.map(line => line.replace(/ wr_id.*/, '')),
    ['QP 0x1: modified to RTS (1)', 'QP 0x1: posted SEND', 'QP 0x1: modified to RESET (1)', 'QP 0x1: posted SEND'],
  )
})

test('lines about calls have the thread that made them all, others none', () => {
  const scenario = requestScenario()
  const { call, cq, qp, post } = scenario
  call('rc_qp', 'modify', qp, {}, { thread: 7 })
  call('cq', 'reqNotify', cq, { solicitedOnly: 0 }, { thread: 8 })
  call('rc_qp', 'modify', qp, {}, { refused: { errno: Errno.EINVAL, reason: because`` }, thread: 7 })
  call('cq', 'reqNotify', cq, { solicitedOnly: 0 }, { thread: 8 })
  call('cq', 'reqNotify', cq, { solicitedOnly: 0 }, { thread: 9 })
  post({ opcode: SEND })
  assert.deepEqual(
    storyOfWait(scenario)
      .slice(-5)
      .map(({ event, thread }) => [event, thread]),
    [
      ['called', 7],
      ['called', 8],
      ['refused call', 7],
      ['called', undefined],
      ['posted', undefined],
    ],
  )
})

test('an event that a move to ERR raises comes after the move, which is noted when the call has ended', () => {
  const scenario = requestScenario()
  const { call, qp, fail, advance } = scenario
  fail(createCause('LAST_WQE', {}), { event: AsyncEventType.values.QP_LAST_WQE_REACHED })
  advance(10)
  call('rc_qp', 'modify', qp, { state: ERR })
  assert.deepEqual(texts(storyOfWait(scenario)).slice(-2), [
    'QP 0x1: modified to ERR (1)',
    'QP 0x1: raised the event QP_LAST_WQE_REACHED (1)',
  ])
})

test('a wait for a datagram has what its last receiver did, and to which queue pair', () => {
  const scenario = requestScenario()
  const { checker, create, post, complete } = scenario
  const client = create('ud_qp', {}, { qpNum: 3 })
  const server = { id: 90, handle: 90, class: { name: 'ud_qp' } }
  checker.event({
    event: 'called',
    ...{ time: 0, device: 'rxe0', deviceNumber: 0, context: 1, class: 'ud_qp', method: 'create', why: 'call' },
    program: { pid: 2, command: 'server' },
    object: server,
    args: {},
    out: { qpNum: 4 },
    stack: [],
  })
  const datagram = { opcode: SEND, destination: { gid: new Uint8Array(16), qkey: 1 }, wrId: 1n }
  const filled = post({ ...receive, owner: server.id, number: 4, wrId: 5n })
  const sent = post({ ...datagram, owner: client, number: 3, destQpn: 4 })
  complete(sent)
  complete(filled, WcStatus.values.SUCCESS, { message: sent })
  post({ ...datagram, owner: server.id, number: 4, destQpn: 4 })
  assert.deepEqual(texts(storyOfWait(scenario)).slice(-5), [
    'QP 0x3: posted SEND wr_id 1, 64 bytes, to QP 0x4 (1)',
    'QP 0x3: completed SEND wr_id 1 (1)',
    'QP 0x4: posted receive wr_id 5, 64 bytes (1)',
    'QP 0x4: received 64 bytes from QP 0x3 into receive wr_id 5 (1)',
    'QP 0x4: posted SEND wr_id 1, 64 bytes, to QP 0x4 (1)',
  ])
})

test('RESET that drops receives is decisive for a wait, unless receives are posted again', () => {
  const scenario = requestScenario()
  const { checker, peer, call, post } = scenario
  for (let i = 0; i < 3; i++) post({ ...receive, owner: peer, number: 2, index: i })
  call('rc_qp', 'modify', peer, { state: RESET })
  checker.requests.queueReset(peer)
  call('rc_qp', 'modify', peer, { state: RTS })
  assert.equal(
    texts(storyOfWait(scenario)).filter(text => text === '=> QP 0x2: dropped 3 outstanding receives (1)').length,
    1,
  )
  const again = requestScenario()
  again.post({ ...receive, owner: again.peer, number: 2 })
  again.checker.requests.queueReset(again.peer)
  again.post({ ...receive, owner: again.peer, number: 2 })
  assert.doesNotMatch(texts(storyOfWait(again)).join('\n'), /=>/)
})

test('a wait for acknowledgements is explained by no event', () => {
  for (const [id, isMarked] of [
    ['idle-queues', true],
    ['events-unacknowledged', false],
  ] as const) {
    const scenario = requestScenario()
    scenario.post({ ...receive, index: 0 })
    scenario.call('rc_qp', 'modify', scenario.qp, { state: RESET })
    scenario.checker.requests.queueReset(scenario.qp)
    const story = storyOfWait(scenario, id)
    assert.equal(
      story.some(({ isDecisive }) => isDecisive),
      isMarked,
      id,
    )
  }
})

test('a refused call is decisive for a wait, unless the call succeeds later', () => {
  const refusedModify = (isRepeated: boolean): string => {
    const scenario = requestScenario()
    const { qp, call } = scenario
    call('rc_qp', 'modify', qp, {}, { refused: { errno: Errno.EINVAL, reason: because`` } })
    if (isRepeated) call('rc_qp', 'modify', qp, { state: RTS })
    return texts(storyOfWait(scenario)).join('\n')
  }
  assert.match(refusedModify(false), /=> QP 0x1: ibv_modify_qp was refused: EINVAL/)
  assert.doesNotMatch(refusedModify(true), /=>/)
})

test('the destroyed region and the failed post are decisive for failures', () => {
  const gone = requestScenario()
  gone.destroy('mr', gone.region)
  const cause = createCause('LKEY_DEREGISTERED', { key: 0x100, rangeStart: 0n, rangeEnd: 1n })
  assert.match(texts(storyOf(gone, cause)).join('\n'), /=> MR 0x100: deregistered/)
  const refused = requestScenario()
  refused.post({ opcode: SEND })
  const noRight = createCause('LKEY_UNKNOWN', { key: 5 })
  assert.match(texts(storyOf(refused, noRight)).join('\n'), /=> QP 0x1: posted SEND/)
})

test('events that wait to be read are told', () => {
  const scenario = requestScenario({ hasChannel: true, unreadEvents: (_context, channel) => (channel ? 2 : 1) })
  assert.deepEqual(texts(storyOf(scenario)).slice(-2), [
    ': 1 asynchronous event is not read (1)',
    'COMP_CHANNEL 1: 2 events are not read (2)',
  ])
})

test('the crash of a program is about no object', () => {
  const scenario = requestScenario()
  scenario.post({ opcode: SEND })
  const program = { pid: 1, command: 'client' }
  scenario.checker.event({ event: 'died', program, stack: ['main'], time: 9, signal: 'SIGSEGV', isInOurs: false })
  assert.ok(texts(storyOf(scenario)).includes(': the program crashed (1)'), texts(storyOf(scenario)).join('\n'))
})

test('findings that are about no hang and no failure have no story', () => {
  const scenario = requestScenario()
  scenario.call('rc_qp', 'destroy', scenario.qp, {}, { why: 'close' })
  assert.deepEqual(
    scenario.found.map(({ id, story }) => [id, story]),
    [['leak', undefined]],
  )
})

const eventOf = (kind: number, time: number, numbers: Partial<NewEvent> = {}): NewEvent =>
  Object.assign(new NewEvent().begin(kind, time), numbers)

test('the last 4,096 events of a process and 64 of each object are kept, and what was overwritten is counted', () => {
  const log = new ProcessLog(undefined)
  const [busy, idle] = [log.subject(1), log.subject(2)]
  const note = (subject: typeof busy, time: number): void =>
    log.note(subject, eventOf(0, time, { wrId: 2n ** 64n - 1n }))
  for (let i = 0; i < 100; i++) note(idle, i)
  for (let i = 0; i < 10_000; i++) note(busy, 1000 + i)
  const ofIdle = log.eventsOf(0, new Set([2]))
  assert.deepEqual([ofIdle.events.length, ofIdle.overwritten, ofIdle.events[0]!.time], [64, 36, 36])
  assert.equal(ofIdle.events[0]!.wrId, 2n ** 64n - 1n)
  const ofBusy = log.eventsOf(0, new Set([1]))
  assert.deepEqual([ofBusy.events.length, ofBusy.overwritten], [4096, 10_000 - 4096])
})

test('completions and polls of a part are one event each, and a poll has the time of what follows', () => {
  const log = new ProcessLog(undefined)
  const subject = log.subject(1)
  const complete = (time: number, amount: number): void =>
    log.complete(subject, eventOf(1, time, { wrId: BigInt(time), amount }))
  const kept = (now: number) =>
    log
      .eventsOf(now)
      .events.map(({ kind, since, time, amount, count, firstWrId, wrId }) => [
        kind,
        since,
        time,
        amount,
        count,
        firstWrId,
        wrId,
      ])
  complete(1, 64)
  log.poll(subject, 6, 1)
  complete(4, 64)
  log.poll(subject, 6, 2)
  assert.deepEqual(kept(9), [
    [1, 1, 4, 64, 2, 1n, 4n],
    [6, 4, 9, 3, 2, 0n, 0n],
  ])
  complete(10, 8)
  log.beginPart()
  complete(11, 8)
  assert.deepEqual(
    kept(12).map(([kind, , time]) => [kind, time]),
    [
      [1, 4],
      [6, 9],
      [1, 10],
      [1, 11],
    ],
  )
})

test('ten thousand objects with a million events need bounded memory', () => {
  const log = new ProcessLog(undefined)
  const subjects = Array.from({ length: 10_000 }, (_, id) => log.subject(id))
  const note = (i: number): void => log.note(subjects[i % 10_000]!, eventOf(0, i))
  for (let i = 0; i < 200_000; i++) note(i)
  const before = process.memoryUsage().arrayBuffers
  for (let i = 200_000; i < 1_000_000; i++) note(i)
  assert.ok(process.memoryUsage().arrayBuffers - before < 2 ** 24)
  const { events, overwritten } = log.eventsOf(0)
  assert.ok(events.length <= 4096 + 2 ** 16)
  assert.equal(events.length + overwritten, 1_000_000)
})
