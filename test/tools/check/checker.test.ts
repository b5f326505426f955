/*
 * Findings of the checker about calls and failures, in virtual time.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lossByRule, parseFaults } from '../../../src/faults/rules.ts'
import { type Cause, createCause } from '../../../src/spec/check/causes.ts'
import type { Failure } from '../../../src/spec/check/failures.ts'
import type { Finding } from '../../../src/spec/check/finding.ts'
import type { CheckedCall, CheckedFailure, ObjectName, RequestFacts } from '../../../src/spec/check/program-events.ts'
import { AsyncEventType, CmPortSpace, CqKind, Mtu, QpFlags, QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { because, coded } from '../../../src/spec/reason.ts'
import { PostQueue, UNKNOWN_NUMBER } from '../../../src/spec/session.ts'
import { SendFlags, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { Checker } from '../../../src/tools/check/checker.ts'
import { type CheckerSources, noSources } from '../../../src/tools/check/detector.ts'
import { workRequest } from './requests.ts'

const { RESET, INIT, RTR, RTS, SQD, ERR } = QpState.values
const { COMM_EST, CQ_ERR, QP_FATAL, QP_ACCESS_ERR } = AsyncEventType.values
const { RETRY_EXC_ERR, REM_ACCESS_ERR } = WcStatus.values
const { MTU_256, MTU_1024, MTU_2048 } = Mtu.values
const client = { pid: 1, command: 'client' }
const gidOf = (device: string): Uint8Array => new Uint8Array(16).fill(Number(device.slice(3)) + 1)

/** A checker of the devices rxe0 and rxe1. */
const scenario = (sources: Partial<CheckerSources> = {}) => {
  const found: Finding[] = []
  let time = 0
  let ids = 0
  const checker = new Checker(finding => found.push(finding), {
    ...noSources,
    deviceWithGid: gid => [0, 1].find(device => gidOf(`rxe${device}`)[0] === gid[0]),
    postStack: (_context, queue, number) => (queue === PostQueue.SEND ? [`post to ${number}`] : []),
    ...sources,
  })
  const call = (changes: Partial<CheckedCall> & Pick<CheckedCall, 'class' | 'method'>): void => {
    time += 1000
    const origin = { device: 'rxe0', deviceNumber: 0, context: 0 }
    const defaults = { time, ...origin, program: client, object: undefined, args: {}, out: {}, why: 'call' as const }
    checker.event({ event: 'called', ...defaults, stack: [`${changes.class}.${changes.method}`], ...changes })
  }
  const create = (
    name: string,
    args: Record<string, unknown> = {},
    out: Record<string, unknown> = {},
    device = 'rxe0',
  ): ObjectName => {
    const object = { id: ids++, handle: ids, class: { name } }
    call({ class: name, method: 'create', object, args, out, device })
    return object
  }
  const modify = (object: ObjectName, args: Record<string, unknown>): void =>
    call({ class: object.class.name, method: 'modify', object, args })
  const destroy = (object: ObjectName, changes: Partial<CheckedCall> = {}): void =>
    call({ class: object.class.name, method: 'destroy', object, ...changes })
  /** A request fails, or an event is raised. The peer, if the failure has one, is on rxe0. */
  const fail = (
    failure: Partial<Failure> & { readonly cause: Cause },
    changes: Partial<Omit<CheckedFailure, 'failure'>> = {},
  ): void => {
    time += 1000
    checker.event({
      event: 'failed',
      time,
      deviceNumber: 0,
      context: 0,
      program: client,
      failure: {
        kind: 'send',
        device: 'rxe0',
        opcode: WrOpcode.values.RDMA_WRITE,
        wrId: 5n,
        status: RETRY_EXC_ERR,
        ...failure,
      },
      peerDevice: failure.peer === undefined ? undefined : 0,
      ...changes,
    })
  }
  /** Queue pair `qpn` of rxe0 in RTS, connected to queue pair `peer` of rxe0 with path MTU 1024; its PSNs are 7. */
  const connected = (qpn: number, peer: number, changes: Record<string, unknown> = {}, name = 'rc_qp'): ObjectName => {
    const qp = create(name, { cap: { maxSendWr: 1, maxRecvWr: 1 } }, { qpNum: qpn })
    modify(qp, { state: INIT })
    const address = { dgid: gidOf('rxe0'), sgidIndex: 0 }
    const rtr = { address, destQpn: peer, pathMtu: MTU_1024, rqPsn: 7, maxDestRdAtomic: 1 }
    modify(qp, { state: RTR, ...rtr, ...changes })
    modify(qp, { state: RTS, sqPsn: 7, maxRdAtomic: 1, timeout: 14, ...changes })
    return qp
  }
  const idsFound = (): string[] => found.map(({ id, severity }) => `${id} ${severity}`)
  return { checker, found, ids: idsFound, create, modify, destroy, fail, call, connected }
}

/** The origin of a refused post. */
const poster = { time: 1, device: 'rxe0', deviceNumber: 0, context: 0, program: client, wrId: 5n, stack: [] }

/** A request of queue pair 1 fails because queue pair `peer`, which is in `state`, does not answer. */
const noAnswer = (peer: number, state: number | 'none' = RTS) => ({
  qpn: 1,
  cause: createCause('NO_ANSWER', { tries: 3, retryCnt: 2 }),
  peer: { qpn: peer, address: '::1', state },
})

test('a peer that no device has at the address of a request is compared with those of the own device', () => {
  for (const [name, attributes, isTold] of [
    ['dct_qp', {}, true],
    ['rc_qp', { destQpn: 1 }, true],
    ['rc_qp', { destQpn: 3 }, false],
  ] as const) {
    const { found, create, modify, fail } = scenario()
    create('dci_qp', {}, { qpNum: 1 })
    modify(create(name, {}, { qpNum: 2 }), { state: RTR, ...attributes })
    fail(
      { qpn: 1, cause: createCause('DC_NO_ANSWER', {}), peer: { qpn: 2, address: '::9' } },
      { peerDevice: undefined },
    )
    const [{ id, text, details = [], advice } = {}] = found
    assert.equal(id, 'no-answer')
    assert.match(text ?? '', /the peer is QP 0x2 at ::9$/)
    const told = 'QP 0x2 of process 1 (client) is of rxe0, which does not have the address ::9'
    assert.deepEqual(details, isTold ? [told] : [])
    assert.equal(/^compare the address/.test(advice ?? ''), isTold)
  }
})

test('two PSNs that one end has exchanged are told; others are not', () => {
  for (const [mine, theirs, isTold] of [
    [{ rqPsn: 1, sqPsn: 2 }, { rqPsn: 1, sqPsn: 2 }, true],
    [{ rqPsn: 1, sqPsn: 2 }, { rqPsn: 1, sqPsn: 1 }, false],
    [{ rqPsn: 1, sqPsn: 2 }, { rqPsn: 3, sqPsn: 4 }, false],
  ] as const) {
    const { found, fail, connected } = scenario()
    connected(1, 2, mine)
    connected(2, 1, theirs)
    fail(noAnswer(2))
    assert.equal(found[0]?.id, 'psn-mismatch')
    assert.equal(
      found[0].details.some(line => /one of them has exchanged rq_psn and sq_psn/.test(line)),
      isTold,
    )
  }
})

test('an XRC target of two openers is compared with its initiator, also after one of them has closed it', () => {
  for (const closed of ['none', 'first', 'last']) {
    const { ids, create, destroy, fail, connected } = scenario()
    connected(1, 2, {}, 'xrc_ini_qp')
    const first = connected(2, 1, { rqPsn: 8 }, 'xrc_tgt_qp')
    const last = create('xrc_tgt_qp', {}, { qpNum: 2 })
    if (closed === 'first') destroy(first)
    if (closed === 'last') destroy(last)
    fail(noAnswer(2))
    assert.equal(ids().at(-1), 'psn-mismatch error', closed)
  }
})

test('the connection of an XRC target is checked when its last opener closes it', () => {
  const { ids, create, destroy, connected } = scenario()
  const first = connected(2, 3, {}, 'xrc_tgt_qp')
  const last = create('xrc_tgt_qp', {}, { qpNum: 2 })
  destroy(first, { stack: ['first'] })
  assert.deepEqual(ids(), [])
  destroy(last, { stack: ['last'] })
  assert.deepEqual(ids(), ['no-peer-qp warning'])
})

test('when one opener resets an XRC target, its reported failures are forgotten for all openers', () => {
  const { ids, create, modify, destroy, fail, connected } = scenario()
  const first = connected(2, 3, {}, 'xrc_tgt_qp')
  const last = create('xrc_tgt_qp', {}, { qpNum: 2 })
  fail({ ...noAnswer(3, 'none'), qpn: 2 })
  assert.deepEqual(ids(), ['no-peer-qp error'])
  modify(last, { state: RESET })
  modify(last, { state: RTR, address: { dgid: gidOf('rxe0'), sgidIndex: 0 }, destQpn: 3 })
  destroy(last)
  destroy(first)
  assert.deepEqual(ids(), ['no-peer-qp error', 'no-peer-qp warning'])
})

test('when one opener closes an XRC target, its failures and the reports of them are not forgotten', () => {
  const reported = scenario()
  const opener = reported.connected(2, 3, {}, 'xrc_tgt_qp')
  const other = reported.create('xrc_tgt_qp', {}, { qpNum: 2 })
  reported.fail({ ...noAnswer(3, 'none'), qpn: 2 })
  for (const object of [opener, other]) reported.destroy(object)
  assert.deepEqual(reported.ids(), ['no-peer-qp error'])
  const failed = scenario()
  failed.connected(1, 2, {}, 'xrc_ini_qp')
  const first = failed.connected(2, 1, {}, 'xrc_tgt_qp')
  failed.create('xrc_tgt_qp', {}, { qpNum: 2 })
  failed.fail({ kind: 'event', qpn: 2, event: QP_ACCESS_ERR, cause: createCause('REMOTE_ENDED', {}) })
  failed.destroy(first)
  failed.fail(noAnswer(2, ERR))
  assert.deepEqual(failed.ids(), ['peer-ended error'])
})

test('an rkey is looked up on the device of the peer', () => {
  const { found, call, fail, connected } = scenario()
  connected(1, 2)
  const key = { lkey: 0x700, rkey: 0x700 }
  for (const deviceNumber of [1, 0]) {
    const object = { id: 900 + deviceNumber, handle: 0, class: { name: 'mr' } }
    const args = { length: BigInt(64 + deviceNumber) }
    call({ class: 'mr', method: 'create', object, args, out: key, device: `rxe${deviceNumber}`, deviceNumber })
  }
  const cause = createCause('RKEY_NO_RIGHT', { key: 0x700, right: 'REMOTE_WRITE' })
  const peer = { qpn: 2, address: '::1' }
  fail({ qpn: 1, status: REM_ACCESS_ERR, cause, peer, isCauseAtPeer: true }, { peerDevice: 1 })
  assert.deepEqual(
    found[0]?.objects.map(({ name }) => name.replace(/ of process.*/, '')),
    ['QP 0x1', 'MR 0x700 of 65 bytes'],
  )
})

test('a datagram that is too long is reported with the stack of its post', () => {
  const { found, create, fail } = scenario()
  create('ud_qp', {}, { qpNum: 1 })
  fail({ kind: 'drop', qpn: 1, cause: createCause('DATAGRAM_TOO_LONG', { length: 2000, mtu: 1024 }) })
  assert.deepEqual(
    found.flatMap(({ moments }) => moments.map(({ action, stack }) => [action, ...stack])),
    [['posted', 'post to 1']],
  )
})

test('a peer in ERR is reported with its first failure', () => {
  const s = scenario()
  s.connected(1, 2)
  s.connected(2, 1)
  s.fail({ kind: 'event', qpn: 2, event: QP_ACCESS_ERR, cause: createCause('REMOTE_ENDED', {}) })
  s.fail(noAnswer(2, ERR))
  assert.deepEqual(s.ids(), ['peer-ended error'])
  assert.match(s.found[0]!.text, /the peer failed first: /)
})

test('a failure before RESET does not explain a peer in ERR', () => {
  const s = scenario()
  s.connected(1, 2)
  const two = s.connected(2, 1)
  s.fail({ kind: 'event', qpn: 2, event: QP_ACCESS_ERR, cause: createCause('REMOTE_ENDED', {}) })
  s.modify(two, { state: RESET })
  s.fail(noAnswer(2, ERR))
  assert.deepEqual(s.ids(), ['peer-in-error error'])
})

test('events that are no failures do not hide the first failure of a peer in ERR', () => {
  const s = scenario()
  s.connected(1, 2)
  s.connected(2, 1)
  s.fail({ kind: 'event', qpn: 2, event: COMM_EST, cause: createCause('ESTABLISHED', {}) })
  s.fail({ kind: 'event', qpn: 2, event: QP_ACCESS_ERR, cause: createCause('REMOTE_ENDED', {}) })
  s.fail(noAnswer(2, ERR))
  assert.deepEqual(s.ids(), ['peer-ended error'])
})

test('an attribute of modify that is undefined is not changed', () => {
  const s = scenario()
  const one = s.connected(1, 2, { pathMtu: MTU_2048 })
  s.connected(2, 1)
  s.modify(one, { state: undefined, pathMtu: undefined, minRnrTimer: 5 })
  s.destroy(one)
  assert.deepEqual(s.ids(), ['path-mtu-mismatch warning'])
})

test('PSNs of a queue pair in SQD are compared', () => {
  const s = scenario()
  const one = s.connected(1, 2, { sqPsn: 9 })
  s.connected(2, 1)
  s.modify(one, { state: SQD })
  s.destroy(one)
  assert.deepEqual(s.ids(), ['psn-mismatch warning'])
})

test('different PSNs at the two ends are a warning at destruction if no failure has reported them', () => {
  const silent = scenario()
  const destroyed = silent.connected(1, 2, { sqPsn: 9 })
  silent.connected(2, 1)
  silent.destroy(destroyed)
  assert.deepEqual(silent.ids(), ['psn-mismatch warning'])

  const reported = scenario()
  const other = reported.connected(1, 2, { sqPsn: 9 })
  reported.connected(2, 1)
  reported.fail(noAnswer(2))
  reported.destroy(other)
  assert.deepEqual(reported.ids(), ['psn-mismatch error'])
})

test("more unpolled READs than the peer's max_dest_rd_atomic are a warning if max_rd_atomic is above it too", () => {
  const { RDMA_WRITE, RDMA_READ, ATOMIC_FETCH_AND_ADD } = WrOpcode.values
  const readsOf = (count: number): number[] => new Array<number>(count).fill(RDMA_READ)
  const peerMaxDestRdAtomic = 2
  for (const [maxRdAtomic, opcodes, polling, expected] of [
    [4, [], 'unpolled', []],
    [4, [RDMA_WRITE, RDMA_WRITE, RDMA_WRITE, ...readsOf(2)], 'unpolled', []],
    [4, readsOf(3), 'unpolled', ['rd-atomic-exceeds warning']],
    [4, [RDMA_READ, RDMA_WRITE, RDMA_READ, ATOMIC_FETCH_AND_ADD], 'unpolled', ['rd-atomic-exceeds warning']],
    [4, readsOf(20), 'polled', []],
    [2, readsOf(3), 'unpolled', []],
  ] as const) {
    const s = scenario()
    const cq = s.create('cq')
    const one = s.connected(1, 2, { maxRdAtomic, maxDestRdAtomic: 1 })
    s.connected(2, 1, { maxRdAtomic: 1, maxDestRdAtomic: peerMaxDestRdAtomic })
    for (const [index, opcode] of opcodes.entries()) {
      const request = workRequest({ owner: one.id, opcode, index, isSignaled: index % 2 === 1 })
      const { requests } = s.checker
      requests.posted(request)
      requests.ended(request)
      if (polling === 'unpolled' || index % 2 === 0) continue
      // The completion of every second READ implies the one before.
      const cqPosition = (index + 1) / 2
      const outcome = { status: WcStatus.values.SUCCESS, opcode: 0, bytes: 0, solicited: false, message: undefined }
      requests.completed(request, { ...outcome, cq: cq.id, cqPosition, qp: one.id })
      requests.polled(cq.id, cqPosition)
    }
    s.destroy(one)
    const found = s.ids().filter(id => id.startsWith('rd-atomic'))
    assert.deepEqual(found, expected, `${maxRdAtomic} ${opcodes} ${polling}`)
  }
})

test('a connection to a queue pair that never existed is a warning, to a destroyed queue pair is not', () => {
  const s = scenario()
  s.destroy(s.connected(1, 2))
  const one = s.connected(3, 4)
  s.destroy(s.connected(4, 3))
  s.destroy(one)
  assert.deepEqual(s.ids(), ['no-peer-qp warning'])
  assert.match(s.found[0]!.text, /QP 0x1 .* was connected to QP 0x2, which never existed$/)
})

/** The checker forgets the oldest destroyed objects beyond this number. */
const MAX_DESTROYED = 4096

test('a queue pair that the checker may not know, or may have forgotten, is not missing', () => {
  const unchecked = scenario({ hasUnchecked: () => true })
  unchecked.destroy(unchecked.connected(1, 2))
  assert.deepEqual(unchecked.ids(), [])
  const forgetful = scenario()
  const one = forgetful.connected(1, 2)
  for (let i = 0; i <= MAX_DESTROYED; i++) forgetful.destroy(forgetful.create('pd'))
  forgetful.destroy(one)
  assert.deepEqual(forgetful.ids(), [])
})

test('a handle names its latest object, also after an earlier one is forgotten', () => {
  const s = scenario()
  const cq = { handle: 77, class: { name: 'cq' } }
  const [earlier, later] = [
    { ...cq, id: 8999 },
    { ...cq, id: 9000 },
  ]
  s.call({ class: 'cq', method: 'create', object: earlier, stack: ['earlier'] })
  s.destroy(earlier)
  s.call({ class: 'cq', method: 'create', object: later, stack: ['later'] })
  for (let i = 0; i <= MAX_DESTROYED; i++) s.destroy(s.create('pd'))
  s.fail({ kind: 'event', event: CQ_ERR, cause: createCause('CQ_FULL', { cq: cq.handle, entries: 4 }) })
  assert.equal(s.found[0]?.objects[0]?.history[0]?.stack[0], 'later')
})

test('objects of two contexts of a process with one handle have names of their own', () => {
  const s = scenario()
  const create = (context: number, handle: number, id: number) =>
    s.call({ class: 'cq', method: 'create', context, object: { id, handle, class: { name: 'cq' } }, stack: [] })
  create(1, 7, 9001)
  create(2, 7, 9002)
  create(2, 8, 9003)
  assert.deepEqual(
    [s.checker.cqNumber(1, 7), s.checker.cqNumber(2, 7), s.checker.cqNumber(2, 8), s.checker.cqNumber(2, 9)],
    ['7', '7 of context 2', '8', '9'],
  )
})

test('a finding has the creation of an object and its eight latest changes', () => {
  const s = scenario()
  const one = s.connected(1, 2)
  for (let i = 0; i < 20; i++) s.modify(one, { minRnrTimer: i })
  s.fail({ qpn: 1, cause: createCause('LKEY_UNKNOWN', { key: 7 }) })
  const { history } = s.found[0]!.objects[0]!
  assert.deepEqual([history[0]?.action, history.length], ['created', 9])
})

test('a bad response between ends with different path MTUs is a path MTU mismatch', () => {
  const findingsOfRead = (pathMtu: number): string[] => {
    const s = scenario()
    s.connected(1, 2, { pathMtu })
    s.connected(2, 1)
    const { BAD_RESP_ERR } = WcStatus.values
    s.fail({ qpn: 1, status: BAD_RESP_ERR, cause: createCause('BAD_RESPONSE', { opcode: WrOpcode.values.RDMA_READ }) })
    return s.ids()
  }
  assert.deepEqual(findingsOfRead(MTU_1024), ['peer-refused error'])
  assert.deepEqual(findingsOfRead(MTU_256), ['path-mtu-mismatch error'])
})

test('two queue pairs that successively reconnect with new PSNs are no mismatch', () => {
  const s = scenario()
  const one = s.connected(1, 2)
  const two = s.connected(2, 1)
  for (const qp of [one, two]) {
    s.modify(qp, { state: RESET })
    s.modify(qp, { state: INIT })
    s.modify(qp, { state: RTR, address: { dgid: gidOf('rxe0'), sgidIndex: 0 }, destQpn: qp === one ? 2 : 1, rqPsn: 50 })
    s.modify(qp, { state: RTS, sqPsn: 50 })
  }
  s.destroy(one)
  s.destroy(two)
  assert.deepEqual(s.ids(), [])
})

test("a finding about an access beyond a key's range has the number of bytes", () => {
  const s = scenario()
  s.connected(1, 2)
  const range = { key: 0x700, accessStart: 90n, accessEnd: 4200n, rangeStart: 100n, rangeEnd: 4196n }
  s.fail({ qpn: 1, cause: createCause('LKEY_RANGE', range) })
  assert.deepEqual(s.found[0]?.details, [
    "the access of 4110 bytes begins 10 bytes before the start and ends 4 bytes after the end of the key's range of 4096 bytes",
  ])
})

test('a finding about an access beyond a range recognizes an address that was encoded wrongly', () => {
  const [rangeStart, rangeEnd] = [0x55b7_8936_5480n, 0x55b7_8936_5488n]
  const hintFor = (accessStart: bigint) => {
    const s = scenario()
    s.connected(1, 2)
    const range = { key: 0x700, accessStart, accessEnd: accessStart + 16n, rangeStart, rangeEnd }
    s.fail({ qpn: 1, cause: createCause('RKEY_RANGE', range) })
    return s.found[0]?.details?.slice(1)
  }
  const as32Bits = (text: string) => [
    `${text} has the lower 32 bits of 0x55b789365484, which is in the range: it was cut to 32 bits`,
  ]
  assert.deepEqual(hintFor(0x8936_5484n), as32Bits('0x89365484'))
  assert.deepEqual(hintFor(0xffff_ffff_8936_5484n), as32Bits('0xffffffff89365484'))
  assert.deepEqual(hintFor(0x8054_3689_b755_0000n), [
    '0x80543689b7550000 is 0x55b789365480, which is in the range, in the other byte order',
  ])
  for (const address of [rangeStart, rangeStart - 1n, rangeEnd, 0x8936_547fn, 0x8936_5488n, 0n])
    assert.deepEqual(hintFor(address), [], `0x${address.toString(16)}`)
})

test('an address of another region is named with that region', () => {
  const s = scenario()
  s.connected(1, 2)
  s.create('mr', { start: 0x7f00_0000_0000n, length: 4096n, iova: 0x7f00_0000_0000n }, { lkey: 0x700, rkey: 0x700 })
  s.create('mr', { start: 0x7f11_0000_0000n, length: 4096n, iova: 0x7f11_0000_0000n }, { lkey: 0x800, rkey: 0x800 })
  const [accessStart, rangeStart] = [0x7f11_0000_0100n, 0x7f00_0000_0000n]
  const range = { key: 0x700, accessStart, accessEnd: accessStart + 8n, rangeStart, rangeEnd: rangeStart + 4096n }
  s.fail({ qpn: 1, isCauseAtPeer: true, cause: createCause('RKEY_RANGE', range) }, { peerDevice: 0 })
  assert.equal(s.found[0]?.details?.[1], '0x7f1100000100 is in MR 0x800 of 4096 bytes, whose rkey is 0x800')
})

test('a finding about an unknown key names the region with the key in the other byte order', () => {
  const s = scenario()
  s.create('mr', { length: 8n }, { lkey: 0x1122_33ff, rkey: 0x1122_33ff })
  for (const [qpn, key] of [
    [1, 0xff33_2211],
    [2, 0x1234_5678],
  ] as const) {
    s.connected(qpn, 9)
    s.fail({ qpn, isCauseAtPeer: true, cause: createCause('RKEY_UNKNOWN', { key }) }, { peerDevice: 0 })
  }
  assert.deepEqual(
    s.found.map(({ details }) => details),
    [['0xff332211 is 0x112233ff, a key of MR 0x112233ff of 8 bytes, in the other byte order'], []],
  )
})

test("rkey 0xff is UCX's remote flush without a key: the advice names its setting", () => {
  const s = scenario()
  for (const [qpn, key] of [
    [1, 0xff],
    [2, 0x1ff],
  ] as const) {
    s.connected(qpn, 9)
    s.fail({ qpn, isCauseAtPeer: true, cause: createCause('RKEY_UNKNOWN', { key }) }, { peerDevice: 0 })
  }
  assert.deepEqual(
    s.found.map(({ advice = '' }) => advice.includes('UCX_FENCE_MODE=weak')),
    [true, false],
  )
})

test('repeated findings are counted, and reported once per stack', () => {
  const s = scenario()
  s.connected(1, 2)
  s.connected(3, 2)
  for (const qpn of [1, 1, 1, 3]) s.fail({ qpn, cause: createCause('LKEY_UNKNOWN', { key: 7 }) })
  assert.deepEqual(s.ids(), ['unknown-lkey error', 'unknown-lkey error'])
  assert.deepEqual(s.checker.counts, [3, 1])
})

test('a mistake with the same stack in many processes of a program is one finding', () => {
  const s = scenario()
  for (let pid = 1; pid <= 1000; pid++)
    s.fail({ cause: createCause('LKEY_UNKNOWN', { key: 7 }) }, { program: { pid, command: 'child' } })
  s.fail({ cause: createCause('LKEY_UNKNOWN', { key: 7 }) }, { program: { pid: 1001, command: 'other' } })
  assert.deepEqual(s.checker.counts, [1000, 1])
})

test('UC accepts any PSN at the start of a message', () => {
  const s = scenario()
  const one = s.connected(1, 2, { sqPsn: 9 }, 'uc_qp')
  s.connected(2, 1, {}, 'uc_qp')
  s.destroy(one)
  assert.deepEqual(s.ids(), [])
})

test('an event of a queue pair with a remote peer is a finding if no CQ event reports it', () => {
  const s = scenario()
  s.connected(1, 2, { address: { dgid: gidOf('rxe7'), sgidIndex: 0 } })
  s.fail({ kind: 'event', qpn: 1, event: QP_FATAL, cause: createCause('COMPLETION_LOST', { cq: 1, entries: 4 }) })
  assert.deepEqual(s.ids(), [])
  s.fail({ kind: 'event', qpn: 1, event: QP_ACCESS_ERR, cause: createCause('RKEY_UNKNOWN', { key: 1 }) })
  assert.deepEqual(s.ids(), ['unknown-rkey error'])
})

test('handles are numbered per context, and a renamed device keeps its objects', () => {
  const s = scenario()
  const createCq = (id: number, context: number): void =>
    s.call({
      class: 'cq',
      method: 'create',
      object: { id, handle: 0, class: { name: 'cq' } },
      out: { cqe: 4 },
      context,
      stack: [`context ${context}`],
    })
  createCq(100, 1)
  createCq(101, 2)
  s.connected(1, 2)
  const cause = createCause('CQ_FULL', { cq: 0, entries: 4 })
  s.fail({ kind: 'event', event: CQ_ERR, cause, device: 'renamed' }, { context: 1 })
  s.fail({ qpn: 1, cause: createCause('LKEY_UNKNOWN', { key: 7 }), device: 'renamed' })
  assert.deepEqual(
    s.found.map(({ device, objects }) => [device, objects[0]?.history[0]?.stack[0]]),
    [
      ['renamed', 'context 1'],
      ['renamed', 'rc_qp.create'],
    ],
  )
})

test('a resized CQ and a reregistered region have their new size', () => {
  const s = scenario()
  const cq = s.create('cq', { cqe: 1 }, { cqe: 1 })
  s.call({ class: 'cq', method: 'modify', object: cq, args: { cqe: 8 }, out: { cqe: 8 } })
  s.create('rc_qp', { sendCq: cq, recvCq: cq, cap: { maxSendWr: 4, maxRecvWr: 4 } }, { qpNum: 1 })
  assert.deepEqual(s.ids(), [])
  const mr = s.create('mr', { length: 8n }, { lkey: 1, rkey: 1 })
  s.call({
    class: 'mr',
    method: 'modify',
    object: mr,
    args: { translation: { length: 16n } },
    out: { lkey: 1, rkey: 1 },
  })
  s.destroy(mr, { refused: { errno: Errno.EBUSY, reason: because`in use` } })
  assert.match(s.found[0]!.text, /MR 0x1 of 16 bytes cannot be deregistered, it is in use \(EBUSY\)/)
})

test('flushed requests, drained queues, and access errors that the requester reports are no findings', () => {
  const s = scenario()
  s.connected(1, 2)
  s.fail({ kind: 'flush', qpn: 1, cause: createCause('FLUSHED', { state: ERR }) })
  s.fail({ kind: 'event', qpn: 1, event: QP_FATAL, cause: createCause('DRAINED', {}) })
  s.fail({ kind: 'event', qpn: 1, event: QP_ACCESS_ERR, cause: createCause('RKEY_UNKNOWN', { key: 1 }) })
  assert.deepEqual(s.ids(), [])
})

test('objects that are not destroyed are leaks with the stack of their creation, except on a removed device', () => {
  const s = scenario()
  const pd = s.create('pd')
  const mr = s.create('mr', { pd, length: 8n }, { lkey: 1, rkey: 1 })
  s.destroy(mr, { why: 'close', stack: [] })
  s.destroy(pd, { why: 'remove', stack: [] })
  assert.deepEqual(s.ids(), ['leak warning'])
  assert.deepEqual(s.found[0]?.moments[0]?.stack, ['mr.create'])
})

test('a refused destroy names four of the existing users, and the number of the others', () => {
  const s = scenario()
  const pd = s.create('pd')
  const refused = { errno: Errno.EBUSY, reason: because`in use` }
  const windows = Array.from({ length: 7 }, () => s.create('mw', { pd }))
  s.destroy(windows[0]!)
  s.destroy(pd, { refused })
  assert.match(s.found[0]!.text, /it is used by MW 3, MW 4, MW 5, MW 6 and 2 more \(EBUSY\)/)
  assert.equal(s.found[0]!.objects.length, 5)
})

test('calls refused for their arguments are reported with the reason, for missing features as notes', () => {
  const s = scenario()
  s.call({ class: 'rc_qp', method: 'modify', refused: { errno: Errno.EINVAL, reason: because`no pathMtu` } })
  s.call({ class: 'ah', method: 'create', refused: { errno: Errno.ENODATA, reason: because`GID index 200 is empty` } })
  // The checker has no class for device memory.
  s.call({ class: 'dm', method: 'create', refused: { errno: Errno.EINVAL, reason: because`none here` } })
  const origin = { time: 1, device: 'rxe0', deviceNumber: 0, context: 0, program: client, stack: [] }
  // ENOSPC is no error of an argument.
  s.checker.event({
    event: 'refusedAttempt',
    ...origin,
    attempt: 'QUERY_DEVICE',
    errno: Errno.ENOSPC,
    reason: because`short`,
  })
  s.checker.event({
    event: 'refusedAttempt',
    ...origin,
    attempt: 'MODIFY_QP',
    errno: Errno.EINVAL,
    reason: because`attribute mask`,
  })
  s.call({ class: 'mw', method: 'create', refused: { errno: Errno.EOPNOTSUPP, reason: because`no such type` } })
  assert.deepEqual(
    s.found.map(({ id, text }) => `${id}: ${text}`),
    [
      'refused-call: EINVAL: no pathMtu',
      'refused-call: ENODATA: GID index 200 is empty',
      'refused-call: MODIFY_QP: EINVAL: attribute mask',
      'refused-call: EOPNOTSUPP: no such type',
    ],
  )
  assert.deepEqual(s.ids().slice(2), ['refused-call warning', 'refused-call note'])
})

test('a call refused for a limit that no query returns is a note', () => {
  const s = scenario()
  const refused = { errno: Errno.EINVAL, reason: coded('unknown-limit')`1024 is not in 0 to 960` }
  s.call({ class: 'rc_qp', method: 'create', refused })
  assert.deepEqual(s.ids(), ['refused-call note'])
})

test('what a program leaves that ends by a reported refusal is a note, unless it went on', () => {
  const refused = { errno: Errno.EINVAL, reason: coded('unknown-bits')`access has unknown bits` }
  const injected = { errno: Errno.ENOMEM, reason: coded('injected')`injected by fault rule 1` }
  const leftAfter = (goOn: (s: ReturnType<typeof scenario>, pd: ObjectName) => void): string | undefined => {
    const s = scenario()
    const pd = s.create('pd')
    goOn(s, pd)
    s.destroy(pd, { why: 'close' })
    return s.found.find(({ id }) => id === 'leak')?.severity
  }
  const refuse = (reason: NonNullable<CheckedCall['refused']>) => (s: ReturnType<typeof scenario>) =>
    s.call({ class: 'mr', method: 'create', refused: reason })
  assert.equal(leftAfter(refuse(refused)), 'note')
  assert.equal(leftAfter(refuse(injected)), 'warning')
  const goingOn = (s: ReturnType<typeof scenario>, pd: ObjectName): void => {
    refuse(refused)(s)
    s.create('mr', { pd })
  }
  assert.equal(leftAfter(goingOn), 'warning')
})

test('receives of an SRQ do not count towards the size of a CQ, and a counting CQ has no size', () => {
  const s = scenario()
  const srq = s.create('srq')
  const cap = { maxSendWr: 1, maxRecvWr: 100 }
  const cq = s.create('cq', { cqe: 4 }, { cqe: 4 })
  s.create('rc_qp', { sendCq: cq, recvCq: cq, srq, cap }, { qpNum: 1 })
  const counting = s.create('cq', { cqe: 4, kind: CqKind.values.COUNTING }, { cqe: 4 })
  s.create('rc_qp', { sendCq: counting, recvCq: counting, cap }, { qpNum: 2 })
  assert.deepEqual(s.ids(), [])
})

test('1000 distinct findings are reported, further ones are counted as omissions', () => {
  const s = scenario()
  for (let i = 0; i < 1100; i++)
    s.call({
      class: 'rc_qp',
      method: 'modify',
      stack: [`at ${'x'.repeat(i)}`],
      refused: { errno: Errno.EINVAL, reason: because`no` },
    })
  assert.equal(s.found.length, 1000)
  assert.deepEqual(s.checker.omissions, [{ id: 'findings', count: 100 }])
})

test('a refused post is a finding about the state, the full queue, or the arguments', () => {
  const s = scenario()
  s.connected(1, 2)
  const { EINVAL, ENOMEM } = Errno
  const { SEND, RECEIVE, SHARED } = PostQueue
  const cases: readonly (readonly [queue: number, state: number, error: number, id: string])[] = [
    [SEND, RTR, EINVAL, 'post-wrong-state warning'],
    [SEND, RTS, EINVAL, 'refused-call warning'],
    [SEND, RTS, ENOMEM, 'queue-full note'],
    [RECEIVE, RESET, EINVAL, 'post-wrong-state warning'],
    [RECEIVE, INIT, ENOMEM, 'queue-full note'],
    [RECEIVE, INIT, EINVAL, 'refused-call warning'],
    // An SRQ has no state.
    [SHARED, RESET, EINVAL, 'refused-call warning'],
  ]
  for (const [queue, state, error] of cases)
    s.checker.event({ event: 'refusedPost', ...poster, number: 1, queue, state, error })
  assert.deepEqual(
    s.ids(),
    cases.map(([, , , id]) => id),
  )
  assert.match(s.found[0]!.text, /^send on QP 0x1, wr_id 5: .*: RTR$/)
})

test('a refused post is reported with the broken rule', () => {
  const s = scenario()
  const limits = { maxSendSge: 4, maxRecvSge: 2, maxInlineData: 64 }
  s.create('rc_qp', { cap: {} }, { qpNum: 1, cap: limits })
  const srq = s.create('srq', { maxSge: 1 })
  const { SEND, RECEIVE, SHARED } = PostQueue
  const { ATOMIC_FETCH_AND_ADD } = WrOpcode.values
  const valid = { opcode: WrOpcode.values.SEND, flags: 0, elements: 1, length: 8n, addressLow: 0, unsignaled: 0 }
  const cases: readonly (readonly [queue: number, Partial<RequestFacts>, text: RegExp])[] = [
    [SEND, { elements: 5 }, /^bad-request send on QP 0x1, .*: it has 5 .* max_send_sge is 4$/],
    [RECEIVE, { elements: 3 }, /^bad-request receive on QP 0x1, .* max_recv_sge is 2$/],
    [SHARED, { elements: 2 }, /^bad-request receive on SRQ \d+, .* max_sge is 1$/],
    [
      SEND,
      { flags: SendFlags.values.INLINE, length: 65n },
      /^request-length .*: it has 65 bytes inline, and max_inline_data is 64$/,
    ],
    [
      SEND,
      { opcode: ATOMIC_FETCH_AND_ADD, addressLow: 0x1004 },
      /^atomic-misaligned .*: its remote address modulo 8 is 4$/,
    ],
    [
      SEND,
      { opcode: ATOMIC_FETCH_AND_ADD, length: 4n },
      /^request-length .*: it has 4 bytes for the result of an atomic$/,
    ],
    [SEND, { opcode: WrOpcode.values.BIND_MW }, /^bind-refused send on QP 0x1, /],
    // The preload library reports length 0 for several elements.
    [SEND, { opcode: ATOMIC_FETCH_AND_ADD, elements: 2, length: 0n }, /^refused-call send on QP 0x1/],
  ]
  for (const [queue, changes] of cases)
    s.checker.event({
      event: 'refusedPost',
      ...poster,
      queue,
      number: queue === SHARED ? srq.handle : 1,
      error: Errno.EINVAL,
      state: RTS,
      request: { ...valid, ...changes },
    })
  assert.equal(s.found.length, cases.length)
  cases.forEach(([, , text], i) => {
    assert.match(`${s.found[i]!.id} ${s.found[i]!.text}`, text)
    assert.equal(s.found[i]!.severity, 'warning')
  })
})

test('a refused bind, and a receive for a queue pair with an SRQ, are reported with the reason', () => {
  const s = scenario()
  const srq = s.create('srq', { maxSge: 1 })
  s.create('rc_qp', { cap: {}, srq }, { qpNum: 1 })
  const request = { opcode: WrOpcode.values.BIND_MW, flags: 0, elements: 0, length: 0n, addressLow: 0, unsignaled: 0 }
  for (const [queue, error] of [
    [PostQueue.SEND, Errno.EPERM],
    [PostQueue.SEND, Errno.EINVAL],
    [PostQueue.RECEIVE, Errno.EINVAL],
  ] as const)
    s.checker.event({ event: 'refusedPost', ...poster, queue, number: 1, error, state: RTS, request })
  const texts = [/different protection domains$/, /do not fit the window$/, /post to the SRQ$/]
  texts.forEach((text, i) => {
    assert.match(s.found[i]!.text, text)
  })
})

test('a finding about a full send queue says if the last sends are unsignaled', () => {
  const textAfter = (unsignaled: number, flags = 0): string => {
    const s = scenario()
    s.create('rc_qp', { cap: { maxSendWr: 8 }, flags }, { qpNum: 1 })
    const request = { opcode: 0, flags: 0, elements: 1, length: 8n, addressLow: 0, unsignaled }
    s.checker.event({
      event: 'refusedPost',
      ...poster,
      queue: PostQueue.SEND,
      number: 1,
      error: Errno.ENOMEM,
      state: RTS,
      request,
    })
    return s.found[0]!.text
  }
  const title = 'a request was posted to a full queue'
  assert.match(
    textAfter(8),
    /the last 8 of the sends in it are not signaled .*, and max_send_wr is 8: on an adapter no completion frees/,
  )
  assert.match(textAfter(3), new RegExp(`${title}: the last 3 of the sends in it are not signaled`))
  assert.match(textAfter(0), new RegExp(`${title}$`))
  assert.match(textAfter(8, QpFlags.values.SQ_SIG_ALL), new RegExp(`${title}$`))
})

/** A call that a library has refused. */
const libraryRefusal = {
  time: 1,
  device: 'rxe0',
  deviceNumber: 0,
  context: 0 as number | undefined,
  program: client,
  errno: Errno.EINVAL as number,
  facts: [] as readonly bigint[],
  stack: ['main'],
}

test('a refusal of the library is about the device of its object, and names the function without its version', () => {
  const s = scenario()
  s.create('cm_id', { userHandle: 0x5000n })
  const ofIdentifier = { object: 0x5000n, context: undefined, device: 'rdma_cm', facts: [0n] }
  s.checker.event({ event: 'refusedByLibrary', ...libraryRefusal, function: 'rdma_disconnect', ...ofIdentifier })
  const versioned = { object: 0n, errno: Errno.EOPNOTSUPP, facts: [1n, 0n, 1n] }
  s.checker.event({ event: 'refusedByLibrary', ...libraryRefusal, function: '_ibv_query_gid_ex', ...versioned })
  assert.equal(s.found[0]?.device, 'rxe0')
  assert.match(s.found[1]?.text ?? '', /^ibv_query_gid_ex: EOPNOTSUPP: flags is 0x1, and only 0 is defined/)
})

test('a refusal of a library without a known reason, or with a name that is no function, is no finding', () => {
  const s = scenario()
  for (const [name, errno] of [
    ['rdma_connect', Errno.ECONNREFUSED],
    ['rdma_resolve_addr', Errno.ENODEV],
    ['ibv_no_such', Errno.EINVAL],
    ['toString', Errno.EINVAL],
    ['ibv_\n', Errno.EINVAL],
  ] as const)
    s.checker.event({ event: 'refusedByLibrary', ...libraryRefusal, function: name, object: 0n, errno })
  assert.deepEqual(s.ids(), [])
})

/** A struct sockaddr_in. */
const socketAddress = (port: number): Uint8Array => {
  const bytes = new Uint8Array(128)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, 2, true)
  view.setUint16(2, port)
  return bytes
}

test('a connection to the port of a listener in the other byte order is found, unless somebody listens there', () => {
  for (const [use, isFound] of [
    ['none', true],
    ['chosen port', true],
    ['right port', false],
    ['another listener there', false],
    ['listener ended', false],
    ['not listening', false],
  ] as const) {
    const s = scenario()
    const step = (method: string, object: ObjectName, args: Record<string, unknown> = {}, out = {}): void =>
      s.call({ class: 'cm_id', method, object, args, out })
    const listen = (port: number): ObjectName => {
      const id = s.create('cm_id')
      step('bind', id, { address: socketAddress(use === 'chosen port' ? 0 : port) })
      if (use !== 'not listening') step('listen', id)
      step('query', id, {}, { addresses: { source: socketAddress(port) } })
      return id
    }
    const listener = listen(7471)
    if (use === 'another listener there') listen(12061)
    if (use === 'listener ended') s.destroy(listener)
    const id = s.create('cm_id')
    step('resolveAddress', id, { destination: socketAddress(use === 'right port' ? 7471 : 12061) })
    step('connect', id)
    assert.deepEqual(s.ids(), isFound ? ['port-byte-order warning'] : [], use)
    if (isFound) assert.match(s.found[0]!.text, /port 12061, where nobody listens; CM_ID 1 .* listens at port 7471,/)
  }
})

test('a connection of an identifier without a queue pair is found; a request for datagrams needs none', () => {
  for (const [portSpace, method, qpNum, isFound] of [
    [CmPortSpace.values.TCP, 'connect', 0, true],
    [CmPortSpace.values.TCP, 'connect', 5, false],
    [CmPortSpace.values.UDP, 'connect', 0, false],
    [CmPortSpace.values.UDP, 'accept', 0, true],
  ] as const) {
    const s = scenario()
    const id = s.create('cm_id', { portSpace })
    const parameters = { qpNum, retryCount: 1, rnrRetryCount: 1, flowControl: 0, srq: 0 }
    s.call({ class: 'cm_id', method, object: id, args: { parameters } })
    assert.deepEqual(s.ids(), isFound ? ['conn-param-uninitialised warning'] : [], `${method} ${qpNum}`)
    if (isFound) assert.match(s.found[0]!.text, /has no queue pair, and qp_num of rdma_conn_param is 0$/)
  }
})

test('an own queue pair that rdma_disconnect leaves in RTS with receives is a note when it is destroyed', () => {
  for (const [use, isFound] of [
    ['none', true],
    ['of rdma_create_qp', false],
    ['moved to ERR', false],
    ['no receives', false],
    ['not disconnected', false],
  ] as const) {
    const s = scenario()
    const qp = s.connected(1, 2)
    const id = s.create('cm_id')
    s.call({ class: 'cm_id', method: 'connect', object: id, args: { parameters: { qpNum: 1 } } })
    const receive = workRequest({ id: 1, owner: qp.id, queue: PostQueue.RECEIVE })
    if (use !== 'no receives') s.checker.requests.posted(receive)
    const queuePair = use === 'of rdma_create_qp' ? { queuePair: 1 } : {}
    if (use !== 'not disconnected') s.call({ class: 'cm_id', method: 'disconnect', object: id, ...queuePair })
    if (use === 'moved to ERR') s.modify(qp, { state: ERR })
    s.checker.event({
      event: 'calling',
      object: qp.id,
      class: 'rc_qp',
      method: 'destroy',
      program: client,
      args: {},
      stack: [],
    })
    s.destroy(qp)
    const found = s.found.filter(one => one.id === 'qp-after-disconnect')
    assert.equal(found.length, isFound ? 1 : 0, use)
    if (isFound) assert.match(found[0]!.text, /^QP 0x1 stayed in RTS after rdma_disconnect of CM_ID 2/)
  }
})

test('acknowledgements of more events than were read are found, with the object and the CQ of the last event', () => {
  const s = scenario()
  const [cq, other] = [s.create('cq', { cqe: 1 }, { cqe: 1 }), s.create('cq', { cqe: 1 }, { cqe: 1 })]
  const event = { ...poster, event: 'overacknowledged', number: cq.handle } as const
  s.checker.event({ ...event, acknowledged: 2, read: 1, otherCq: UNKNOWN_NUMBER })
  s.checker.event({ ...event, acknowledged: 1, read: 0, otherCq: other.handle })
  assert.deepEqual(
    s.found.map(({ id, text }) => `${id}: ${text}`),
    [
      'events-overacknowledged: ibv_ack_cq_events acknowledges 2 events of CQ 1, and only 1 of them was read and not acknowledged yet',
      'events-overacknowledged: ibv_ack_cq_events acknowledges 1 event of CQ 1, and none was read and not acknowledged yet; the event that this thread has read last is of CQ 2',
    ],
  )
})

test('a rule that delays packets for less than the ACK timeout explains no missing answer; one that is longer does', () => {
  for (const [rule, timeout, isReason] of [
    ['dir=both,delay=0.001', 8, false],
    ['dir=both,delay=20', 8, true],
    ['dir=both,delay=0.3,jitter=0.3', 8, true],
    ['dir=both,delay=20', 18, false],
    ['drop=0.1,delay=0.001', 18, true],
    ['rate=1000', 18, true],
  ] as const) {
    const [parsed] = parseFaults(rule)
    const { found, fail, connected, checker } = scenario({ lossTo: () => lossByRule(parsed!) })
    connected(2, 1)
    connected(1, 2, { timeout, retryCnt: 2 })
    fail(noAnswer(2))
    checker.event({ event: 'contextEnds', context: 0, how: 'exit', pendingSends: undefined })
    assert.equal(found[0]?.text.includes('the fault rule') ?? false, isReason, rule)
    const soon = found[0]?.details.find(line => line.startsWith('timeout 8 is 1.0 ms: with retry_cnt 2'))
    assert.equal(soon !== undefined, timeout === 8 && !isReason, rule)
  }
})

test('a peer that is not connected, beside a queue pair of its process that nobody names, is not the one that was meant', () => {
  const { found, fail, connected, create } = scenario()
  create('rc_qp', { cap: { maxSendWr: 1, maxRecvWr: 1 } }, { qpNum: 2 })
  connected(1, 2)
  connected(3, 1)
  fail(noAnswer(2, INIT))
  assert.equal(found[0]?.id, 'peer-not-ready')
  assert.match(
    found[0]?.details[0] ?? '',
    /^QP 0x2 is not connected, and QP 0x3 of the same process is, to QP 0x1 of this/,
  )
  assert.match(found[0]?.advice ?? '', /^take the qp_num of QP 0x3 for dest_qp_num/)
})

test('threads that wait for each other are told with the message that one of them has dropped, if it waits for messages', () => {
  const thread = { pid: 1, command: 'client', tid: 1, object: '', action: '', stack: [], since: 0 }
  for (const [name, pid, kind, isTold] of [
    ['uc_qp', 1, 'poll', true],
    ['uc_qp', 2, 'poll', false],
    ['uc_qp', 1, 'mutex', false],
    ['rc_qp', 1, 'poll', false],
  ] as const) {
    const { checker, found, connected, fail } = scenario()
    const { id } = connected(1, 2, {}, name)
    // Devices tell of drops more rarely.
    for (let i = 0; i < 27; i++) checker.requests.receiverNotReady(id)
    fail({ kind: 'drop', qpn: 1, count: 16, cause: createCause('NO_RECEIVE', {}) })
    const graph = { shape: 'cycle', first: [0], threads: [{ ...thread, pid, kind }], more: 0 } as const
    const at = { time: 9000, device: 'rxe0', deviceNumber: 0, context: 0, program: client, stack: [] }
    checker.event({ event: 'waits', ...at, wait: { id: 'deadlock', text: 'they wait', graph } })
    const { text, advice } = found.find(({ id }) => id === 'deadlock') ?? {}
    const cause =
      ': QP 0x1 of process 1 (client) dropped at least 27 messages, which nobody repeats: no receive request is posted'
    assert.equal(text, `they wait${isTold ? cause : ''}`)
    assert.equal(/^post as many receives/.test(advice ?? ''), isTold)
  }
})
