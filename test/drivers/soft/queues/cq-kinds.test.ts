/*
 * Counting and extended completion queues of the soft device (R11), and all combinations of vectors and channels (R34).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { completed, invokeNow } from '../../../../src/core/index.ts'
import { loadProducer } from '../../../../src/core/memory/rings.ts'
import { type CqRing, createCqRing } from '../../../../src/drivers/rings/completion-ring.ts'
import { slabRings } from '../../../../src/drivers/rings/ring-memory.ts'
import { pushCompletion } from '../../../../src/drivers/soft/completion-queue.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { RingHeader, Wc } from '../../../../src/spec/drivers/mapped-rings.ts'
import { CqKind } from '../../../../src/spec/enums.ts'
import { Completion } from '../../../../src/transport/engine/types.ts'
import { errnoOf } from '../../../core/fixture.ts'
import {
  assertNothingLeft,
  connectQps,
  type Machine,
  machine,
  makeChannel,
  makeCq,
  makeQp,
  type Program,
  program,
  Qps,
  register,
  type TestCq,
} from '../../rxe/machine.ts'
import { completions, sgeOf } from '../../rxe/pair.ts'
import { Flag, mapRing, postReceive, postSend, Wr } from '../../rxe/provider.ts'

const { EXTENDED, COUNTING } = CqKind.values

/** A CQ with cqe 15 and vector 1. */
const makeCqOfKind = (p: Program, kind: number, channel?: number): TestCq => {
  const args = { cqe: 15, userHandle: 5n, compVector: 1, kind, ...(channel !== undefined && { channel }) }
  const { object, out } = invokeNow(p.context, Cq, 'create', 0, args, p.caller)
  const { queue } = out as unknown as { queue: { offset: bigint } }
  return { handle: object!, cqe: out.cqe, ring: mapRing(p.rings.at(queue.offset)) }
}
const query = (p: Program, { handle }: TestCq) => invokeNow(p.context, Cq, 'query', handle, {}, p.caller).out

/** Two connected queue pairs; the receiver completes to a CQ of `kind`. */
const pairWith = (m: Machine, kind: number, hasChannel = false) => {
  const [a, b] = [program(m, 0), program(m, 1)]
  const cq = makeCq(a, 63)
  const channel = hasChannel ? makeChannel(b) : undefined
  const cqOfKind = makeCqOfKind(b, kind, channel?.fd)
  const [sender, receiver] = [makeQp(a, cq), makeQp(b, cqOfKind)]
  connectQps(sender, receiver)
  const [source, target] = [register(a, 64), register(b, 64)]
  const send = (count: number) => {
    for (let i = 0; i < count; i++) {
      postReceive(receiver.receive, BigInt(i), [sgeOf(target, 0, 64)])
      postSend(sender.send, { id: 1n, opcode: Wr.SEND, flags: Flag.SIGNALED, sges: [sgeOf(source, 0, 8)] })
      m.settle()
      completions(cq)
    }
  }
  return { a, b, cqOfKind, channel, send, receiver }
}

test('a counting CQ counts more completions than its cqe without an overrun, and cannot be resized', () => {
  const m = machine()
  const { a, b, cqOfKind, send } = pairWith(m, COUNTING)
  send(100)
  const { kind, completions: count, errors, compVector } = query(b, cqOfKind)
  assert.deepEqual({ kind, count, errors, compVector }, { kind: COUNTING, count: 100n, errors: 0n, compVector: 1 })
  // the program reads the count at the offset of a ring's producer index
  const { area, headerAt } = (m.devices[1].device.state.cqs.values()[0].state as CqRing).ring
  assert.equal(area.view.getUint32(headerAt + RingHeader.PRODUCER, true), 100)
  assert.equal(
    errnoOf(() => invokeNow(b.context, Cq, 'modify', cqOfKind.handle, { cqe: 100 }, b.caller)),
    'EINVAL',
  )
  a.close()
  b.close()
  assertNothingLeft(m, [a, b])
})

test('a counting CQ raises an event at its threshold, and counts failures', () => {
  const m = machine()
  const { b, cqOfKind, channel, send, receiver } = pairWith(m, COUNTING, true)
  const notify = () => invokeNow(b.context, Cq, 'reqNotify', cqOfKind.handle, { solicitedOnly: 0 }, b.caller)
  invokeNow(b.context, Cq, 'modify', cqOfKind.handle, { count: 4 }, b.caller)
  notify()
  send(3)
  assert.equal(channel?.queue.queue.length, 0)
  send(1)
  assert.equal(channel?.queue.queue.length, 1)
  postReceive(receiver.receive, 9n, [])
  invokeNow(b.context, RcQp, 'modify', receiver.handle, { state: Qps.ERR }, b.caller)
  m.settle()
  const { completions: completed, errors, count, period } = query(b, cqOfKind)
  // four messages and a flushed receive
  assert.deepEqual([completed, errors, count, period], [5n, 1n, 4, 0])
})

test('a call may resize a CQ and set its moderation; a call without changes is EINVAL, flags are EOPNOTSUPP', () => {
  const m = machine(1)
  const p = program(m)
  const cq = makeCqOfKind(p, EXTENDED)
  invokeNow(p.context, Cq, 'modify', cq.handle, { cqe: 40, count: 4, period: 9 }, p.caller)
  const { cqe, count, period } = query(p, cq)
  // cqe is rounded up to 2^n - 1
  assert.deepEqual([cqe, count, period], [63, 4, 9])
  assert.equal(
    errnoOf(() => invokeNow(p.context, Cq, 'modify', cq.handle, {}, p.caller)),
    'EINVAL',
  )
  const create = () =>
    invokeNow(p.context, Cq, 'create', 0, { cqe: 1, userHandle: 0n, compVector: 0, flags: 1 }, p.caller)
  assert.equal(errnoOf(create), 'EOPNOTSUPP')
})

test('the count of a counting CQ wraps at 2^32 in the ring, and continues in the device', () => {
  const cq = createCqRing(slabRings(), 0, COUNTING)
  cq.completions = 2 ** 32 - 1
  assert.ok(pushCompletion(cq, new Uint32Array(Completion.WORDS)))
  assert.equal(loadProducer(cq.ring), 0)
  assert.equal(cq.completions, 2 ** 32)
})

test('an extended CQ has a timestamp per completion, in nanoseconds of the device’s clock', () => {
  const m = machine()
  const { cqOfKind, send } = pairWith(m, EXTENDED)
  // µs
  m.now = 5_000_000.25
  send(1)
  const { ring } = m.devices[1].device.state.cqs.values()[0].state as CqRing
  assert.equal(ring.area.view.getBigUint64(ring.elementsAt + Wc.TIMESTAMP, true), 5_000_000_250n)
  m.now += 1
  send(1)
  assert.equal(
    ring.area.view.getBigUint64(ring.elementsAt + 2 ** Wc.ELEMENT_SHIFT + Wc.TIMESTAMP, true),
    5_000_001_250n,
  )
  assert.equal(completions(cqOfKind).length, 2)
})

test('each vector works with each channel and without a channel (R34)', () => {
  const m = machine()
  const p = program(m)
  const channels = [undefined, makeChannel(p), makeChannel(p)]
  for (const compVector of [0, 1])
    for (const channel of channels)
      for (const kind of Object.values(CqKind.values)) {
        const userHandle = BigInt(compVector * 100 + channels.indexOf(channel) * 10 + kind)
        const args = { cqe: 3, userHandle, compVector, kind, ...(channel && { channel: channel.fd }) }
        const { object } = invokeNow(p.context, Cq, 'create', 0, args, p.caller)
        invokeNow(p.context, Cq, 'reqNotify', object!, { solicitedOnly: 0 }, p.caller)
        const cq = p.context.handles.slots[object!]!
        // the first completion raises an event; the second raises none, because the CQ is not armed again
        completed(cq.events!, false)
        completed(cq.events!, false)
        for (const other of channels) {
          const records = other?.queue.queue.splice(0) ?? []
          assert.deepEqual(
            records.map(({ bytes }) => new DataView(bytes.buffer).getBigUint64(0, true)),
            other !== undefined && other === channel ? [userHandle] : [],
          )
        }
        const { compEvents } = invokeNow(p.context, Cq, 'destroy', object!, {}, p.caller).out
        assert.equal(compEvents, channel === undefined ? 0 : 1)
      }
  assert.throws(() => invokeNow(p.context, Cq, 'create', 0, { cqe: 3, userHandle: 0n, compVector: 2 }, p.caller), {
    code: 'EINVAL',
    message: /the device has vectors 0 to 1/,
  })
})
