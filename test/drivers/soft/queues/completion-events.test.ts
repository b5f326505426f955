/*
 * Completion events of all combinations of vector, channel, arming and completion (R34, R35; IBA 11.4.2.2).
 */
import assert from 'node:assert/strict'
import { describe, it, test } from 'node:test'
import { type EventQueue, invokeNow } from '../../../../src/core/index.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import {
  assertNothingLeft,
  connectQps,
  machine,
  makeChannel,
  makeCq,
  makeQp,
  type Program,
  program,
  register,
} from '../../rxe/machine.ts'
import { sgeOf } from '../../rxe/pair.ts'
import { Flag, mapRing, pollAll, postReceive, postSend, Wr } from '../../rxe/provider.ts'

const messages = {
  plain: { bytes: 64, flags: 0 },
  solicited: { bytes: 64, flags: Flag.SOLICITED },
  /** Longer than the buffer: the receive fails. */
  failing: { bytes: 256, flags: 0 },
} as const
type MessageName = keyof typeof messages

/** `calls` has `solicitedOnly` of each ibv_req_notify_cq; `raises` has the completions that then raise an event. */
const armings: Readonly<
  Record<string, { readonly calls: readonly number[]; readonly raises: readonly MessageName[] }>
> = {
  none: { calls: [], raises: [] },
  next: { calls: [0], raises: ['plain', 'solicited', 'failing'] },
  solicited: { calls: [1], raises: ['solicited', 'failing'] },
  'solicited, then next': { calls: [1, 0], raises: ['plain', 'solicited', 'failing'] },
  'next, then solicited': { calls: [0, 1], raises: ['plain', 'solicited', 'failing'] },
}

const setUp = () => {
  const m = machine()
  const [sender, receiver] = [program(m, 0), program(m, 1)]
  const channels = { A: makeChannel(receiver), B: makeChannel(receiver) }
  const source = register(sender, 4096)
  const target = register(receiver, 4096)
  return { m, sender, receiver, channels, source, target }
}
type Setup = ReturnType<typeof setUp>

const requestNotify = (p: Program, handle: number, solicitedOnly: number): void => {
  invokeNow(p.context, Cq, 'reqNotify', handle, { solicitedOnly }, p.caller)
}

/** A connection whose receives complete to a new CQ. `cookie` is the CQ's user handle. */
const connect = (
  { m, sender, receiver, channels, source, target }: Setup,
  { vector, channel, cookie }: { vector: number; channel?: 'A' | 'B'; cookie: bigint },
) => {
  const { context, caller, rings } = receiver
  const { object, out } = invokeNow(
    context,
    Cq,
    'create',
    0,
    { cqe: 15, userHandle: cookie, compVector: vector, ...(channel && { channel: channels[channel].fd }) },
    caller,
  )
  const { queue } = out as unknown as { queue: { offset: bigint } }
  const cq = { handle: object!, cqe: out.cqe, ring: mapRing(rings.at(queue.offset)) }
  const receivingQp = makeQp(receiver, makeCq(receiver), { recvCq: cq })
  const sendingQp = makeQp(sender, makeCq(sender))
  connectQps(sendingQp, receivingQp)
  return {
    cq,
    arm: (solicitedOnly: number) => requestNotify(receiver, cq.handle, solicitedOnly),
    send(name: MessageName) {
      const { bytes, flags } = messages[name]
      postReceive(receivingQp.receive, 1n, [sgeOf(target, 0, 128)])
      postSend(sendingQp.send, { opcode: Wr.SEND, flags, sges: [sgeOf(source, 0, bytes)] })
      m.settle()
      assert.equal(pollAll(cq.ring).length, 1)
    },
    vector: () => invokeNow(context, Cq, 'query', cq.handle, {}, caller).out.compVector,
    destroy() {
      invokeNow(context, RcQp, 'destroy', receivingQp.handle, {}, caller)
      return { ...invokeNow(context, Cq, 'destroy', cq.handle, {}, caller).out }
    },
  }
}

/** Reads up to `limit` waiting events and returns their cookies. */
const readEvents = (queue: EventQueue, limit = 99): bigint[] =>
  queue.take(limit).map(({ bytes }) => new DataView(bytes.buffer).getBigUint64(0, true))

describe('every combination', () => {
  for (const channel of [undefined, 'A', 'B'] as const)
    for (const vector of [0, 1])
      it(`of arming and completion: channel ${channel}, vector ${vector}`, () => {
        const setup = setUp()
        const { channels } = setup
        let cookie = 1n
        for (const [arming, { calls, raises }] of Object.entries(armings))
          for (const name of Object.keys(messages) as MessageName[]) {
            const connection = connect(setup, { vector, cookie: ++cookie, ...(channel && { channel }) })
            assert.equal(connection.vector(), vector)
            for (const solicitedOnly of calls) connection.arm(solicitedOnly)
            connection.send(name)
            const expected = channel !== undefined && raises.includes(name) ? [cookie] : []
            const combination = `armed: ${arming}, ${name}`
            for (const other of ['A', 'B'] as const)
              assert.deepEqual(readEvents(channels[other].queue), other === channel ? expected : [], combination)
            // After a failed receive the QP is in error.
            if (name !== 'failing') {
              // The second completion raises no event.
              connection.send(name)
              assert.deepEqual(channels.A.queue.queue.length + channels.B.queue.queue.length, 0, combination)
            }
            assert.deepEqual(connection.destroy(), { compEvents: expected.length, asyncEvents: 0 }, combination)
          }
        for (const p of [setup.sender, setup.receiver]) p.close()
        assertNothingLeft(setup.m, [setup.sender, setup.receiver])
      })
})

test('CQs share vectors and channels, and each CQ counts its own read events', () => {
  const setup = setUp()
  const { A, B } = setup.channels
  const isOnB = (i: number): boolean => i % 3 === 0
  const connections = Array.from({ length: 12 }, (_, i) =>
    connect(setup, { vector: i & 1, channel: isOnB(i) ? 'B' : 'A', cookie: BigInt(100 + i) }),
  )
  const rounds = 3
  for (let round = 0; round < rounds; round++)
    for (const connection of connections) {
      connection.arm(0)
      connection.send('plain')
    }
  const onA = connections.flatMap((_, i) => (isOnB(i) ? [] : [BigInt(100 + i)]))
  // One event of each CQ of channel A, four more, and none of channel B.
  const read = readEvents(A.queue, onA.length + 4)
  assert.deepEqual(read, [...onA, ...onA.slice(0, 4)])
  connections.forEach((connection, i) => {
    const compEvents = read.filter(cookie => cookie === BigInt(100 + i)).length
    assert.deepEqual(connection.destroy(), { compEvents, asyncEvents: 0 }, `queue ${i}`)
  })
  assert.deepEqual([A.queue.queue.length, B.queue.queue.length], [0, 0], 'unread events were dropped with their CQ')
})
