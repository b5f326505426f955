/*
 * Advice that depends on the cause of a finding, and the objects that the finding names.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Cause, createCause } from '../../../src/spec/check/causes.ts'
import type { ThreadWait } from '../../../src/spec/check/thread-waits.ts'
import { SRQ_CLASSES } from '../../../src/spec/classes/ids.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { WrOpcode } from '../../../src/spec/work.ts'
import { LKEY, requestScenario, START } from './requests.ts'

test('ends that poll get no advice about a message: they may wait for a completion that was polled', () => {
  const thread = (pid: number, kind: 'poll' | 'mutex'): ThreadWait => ({
    ...{ pid, command: '', tid: pid, kind, object: '', action: '', stack: [], since: 0 },
  })
  const cycle = (kind: 'poll' | 'mutex') => {
    const { checker, found } = requestScenario()
    const graph = { shape: 'cycle', first: [0, 1], threads: [thread(1, 'poll'), thread(2, kind)], more: 0 } as const
    const at = { time: 0, device: 'rxe0', deviceNumber: 0, context: 0, program: { pid: 1, command: 'client' } }
    checker.event({ event: 'waits', ...at, wait: { id: 'deadlock', text: 'they wait', graph } })
    return found.at(-1)?.advice
  }
  assert.match(cycle('mutex') ?? '', /^release the lock/)
  assert.match(cycle('poll') ?? '', /^find in the story .* or a completion that was polled before$/)
})

const adviceFor = (cause: Cause): string | undefined => {
  const s = requestScenario()
  s.fail(cause)
  return s.found.at(-1)?.advice
}

test('requests of a wrong length get advice for their own cause', () => {
  assert.match(adviceFor(createCause('INLINE_TOO_LONG', {})) ?? '', /^request a larger max_inline_data/)
  assert.match(adviceFor(createCause('ATOMIC_LENGTH', { length: 4 })) ?? '', /of 8 bytes, for its result$/)
  assert.equal(adviceFor(createCause('RECEIVE_TOO_SHORT', { bufferBytes: 64, length: 100 })), undefined)
})

test('a receive of UD that is too short for the GRH only is told about the GRH', () => {
  for (const [bufferBytes, isTold] of [
    [64, true],
    [60, false],
  ] as const) {
    const s = requestScenario()
    const qp = s.create('ud_qp', {}, { qpNum: 9 })
    const cause = createCause('RECEIVE_TOO_SHORT', { bufferBytes, length: 104 })
    const origin = { deviceNumber: 0, context: 0, program: { pid: 1, command: 'client' }, peerDevice: 0 }
    s.checker.event({
      event: 'failed',
      ...origin,
      time: 1,
      failure: { kind: 'drop', device: 'rxe0', qpn: 9, count: 1, cause },
    })
    assert.ok(qp > 0)
    assert.equal(s.found.at(-1)?.advice?.includes('40 bytes longer'), isTold || undefined)
  }
})

test('an unknown lkey names the region that contains the address', () => {
  const s = requestScenario()
  s.fail({ id: 'LKEY_UNKNOWN', args: { key: 7, accessStart: BigInt(START + 100) } })
  assert.equal(s.found[0]?.details[0], `the address 0x10064 is in MR 0x100 of 4096 bytes, whose lkey is 0x100`)
  assert.ok(s.found[0]?.objects.some(({ name }) => name.startsWith(`MR 0x${LKEY.toString(16)}`)))
  const outside = requestScenario()
  outside.fail({ id: 'LKEY_UNKNOWN', args: { key: 7, accessStart: BigInt(START + 4096) } })
  assert.deepEqual(outside.found[0]?.details, [])
})

test('what librdmacm has set is advised in terms of rdma_conn_param', () => {
  const s = requestScenario()
  s.fail(createCause('NO_READS', {}))
  assert.equal(s.found.at(-1)?.advice, undefined)
  const cm = requestScenario({ stack: ['/usr/lib/librdmacm.so.1 rdma_get_cm_event', 'main'] })
  cm.fail(createCause('NO_READS', {}))
  assert.match(cm.found.at(-1)?.advice ?? '', /^set initiator_depth of rdma_conn_param/)
})

test('a post to a queue pair that was reset says so, a post before the first connection names RESET', () => {
  const { RESET, RTS } = QpState.values
  for (const wasConnected of [true, false]) {
    const s = requestScenario()
    const qp = s.create('rc_qp', {}, { qpNum: 9 })
    if (wasConnected) for (const state of [RTS, RESET]) s.call('rc_qp', 'modify', qp, { state })
    s.checker.event({
      event: 'refusedPost',
      ...{ time: 1, device: 'rxe0', deviceNumber: 0, context: 0, program: { pid: 1, command: 'client' }, stack: [] },
      ...{ queue: PostQueue.SEND, number: 9, wrId: 1n, error: Errno.EINVAL, state: RESET },
    })
    assert.match(s.found[0]?.text ?? '', wasConnected ? /: it was reset$/ : /: RESET$/)
    assert.match(
      s.found[0]?.advice ?? '',
      wasConnected ? /connected and then reset/ : /^move the queue pair to RTS before the first send/,
    )
  }
})

test('a full shared receive queue is named with its size', () => {
  const s = requestScenario()
  for (const kind of SRQ_CLASSES) {
    const srq = s.create(kind, { maxWr: 10 }, { maxWr: 16 })
    s.checker.event({
      event: 'refusedPost',
      ...{ time: 1, device: 'rxe0', deviceNumber: 0, context: 0, program: { pid: 1, command: 'client' }, stack: [] },
      ...{ queue: PostQueue.SHARED, number: srq, wrId: 1n, error: Errno.ENOMEM, state: 0 },
    })
    assert.match(s.found.pop()?.text ?? '', /^receive on \w*SRQ \d+, wr_id 1: .*: max_wr is 16$/, kind)
  }
})

const { RDMA_WRITE, ATOMIC_FETCH_AND_ADD } = WrOpcode.values

/** The finding of a request with an unknown rkey. `member`: what the other member of its union has. */
const unknownKey = (
  key: number,
  address: number,
  { opcode = RDMA_WRITE, member = 0, isBatch = false }: { opcode?: number; member?: number; isBatch?: boolean } = {},
) => {
  const s = requestScenario({
    postStack: (_context, queue) => (queue === PostQueue.BATCH && !isBatch ? [] : ['posted']),
  })
  if (member !== 0) s.told({ event: 'otherMember', number: 1, address, rkey: member, opcode })
  s.fail({ id: 'RKEY_UNKNOWN', args: { key, accessStart: BigInt(address) } }, { opcode, isCauseAtPeer: true })
  return s.found.at(-1)
}

test('an rkey in the other member of the union is told if it is that of a region with the address', () => {
  const read = unknownKey(0, START, { member: LKEY })
  assert.match(
    read?.details.join('; ') ?? '',
    /wr\.atomic\.rkey of the request is 0x100, that of MR 0x100 .*wr\.rdma\.rkey is 0/,
  )
  assert.match(
    read?.advice ?? '',
    /^set remote_addr and rkey in wr\.rdma: WRITE takes them from there, not from wr\.atomic$/,
  )
  const atomic = unknownKey(0, START, { member: LKEY, opcode: ATOMIC_FETCH_AND_ADD })
  assert.match(atomic?.advice ?? '', /^set remote_addr and rkey in wr\.atomic/)
  for (const other of [
    unknownKey(0, START, { member: LKEY + 1 }),
    unknownKey(0, START + 4096, { member: LKEY }),
    unknownKey(7, START, { member: LKEY }),
  ])
    assert.doesNotMatch(`${other?.advice}`, /wr\.atomic/)
})

test('an opcode that may not have been set is told if all else of a WRITE is 0 too', () => {
  assert.match(unknownKey(0, 0)?.advice ?? '', /^set opcode: 0/)
  for (const [key, address, options] of [
    [0, 8, {}],
    [7, 0, {}],
    [0, 0, { opcode: ATOMIC_FETCH_AND_ADD }],
    [0, 0, { isBatch: true }],
  ] as const)
    assert.doesNotMatch(`${unknownKey(key, address, options)?.advice}`, /^set opcode/)
})

test('rkey 0 is advised by the address: only if that has arrived, the structure that both were in is looked at', () => {
  assert.match(
    unknownKey(0, START)?.advice ?? '',
    /^look at the structure .*: the address has arrived, the rkey has not/,
  )
  assert.match(
    unknownKey(0, START + 4096)?.advice ?? '',
    /^compare the rkey of the request with that of the peer's region/,
  )
})

test('a peer that does not answer is looked for in the network only if its device is of another daemon', () => {
  for (const [state, isKnown] of [
    [QpState.values.RTS, true],
    [undefined, false],
  ] as const) {
    const s = requestScenario()
    const peer = { qpn: 77, address: '::ffff:1.2.3.4', ...(state !== undefined && { state }) }
    s.fail(createCause('NO_ANSWER', { tries: 1, retryCnt: 0 }), { peer })
    assert.match(s.found.at(-1)?.advice ?? '', isKnown ? /^choose timeout and retry_cnt/ : /^check address, route/)
  }
})
