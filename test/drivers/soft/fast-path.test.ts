/*
 * The fast path (transport/engine/loopback/fast-path.ts): which requests take it. Its results are tested by
 * loopback-equivalence.test.ts.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { invokeNow } from '../../../src/core/index.ts'
import { Limits } from '../../../src/drivers/soft/attributes.ts'
import type { DeviceTorment, Torment } from '../../../src/drivers/soft/torment/torment.ts'
import { Mr } from '../../../src/spec/classes/mr.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { collectGarbage } from '../../tools.ts'
import {
  connectQps,
  type Machine,
  machine,
  makeCq,
  makeQp,
  modify,
  type Program,
  program,
  Qps,
  register,
} from '../rxe/machine.ts'
import { completions, sgeOf } from '../rxe/pair.ts'
import { postReceive, postSend, type SendRequest } from '../rxe/provider.ts'
import { makeQpWithSrq, makeSrq } from '../rxe/srq-and-xrc.ts'

const { SEND, RDMA_WRITE, RDMA_READ } = WrOpcode.values

/**
 * Two programs with connected queue pairs and `bytes` bytes of memory, which JavaScript can access if `isLocatable`.
 */
const connected = (bytes: number, isLocatable = true, torment?: Torment) => {
  const m = machine(2, { path: 'direct', torment })
  const [a, b] = [0, 1].map(device => {
    const p = program(m, device)
    if (!isLocatable) Object.assign(p.space, { locate: undefined })
    const cq = makeCq(p, 63)
    return { p, cq, qp: makeQp(p, cq), mr: register(p, bytes) }
  })
  connectQps(a.qp, b.qp)
  m.settle()
  return { m, a, b }
}

/** Device 0 learns of the program's posts, but is not polled. */
const ringDoorbells = (m: Machine, { context }: Program, handle: number): void => {
  m.devices[0].onDoorbell(context, handle)
  m.devices[0].scanChanged()
}

describe('at the doorbell, an idle queue pair executes', () => {
  for (const [name, opcode, isFast] of [
    ['a SEND', SEND, true],
    ['a WRITE', RDMA_WRITE, true],
    ['a READ', RDMA_READ, true],
    ['no WRITE with two elements', RDMA_WRITE, false],
  ] as const)
    it(name, () => {
      const { m, a, b } = connected(4096)
      postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 4096)])
      const sges = isFast ? [sgeOf(a.mr, 0, 4096)] : [sgeOf(a.mr, 0, 2048), sgeOf(a.mr, 2048, 2048)]
      postSend(a.qp.send, { opcode, sges, remote: b.mr.address, rkey: b.mr.rkey })
      ringDoorbells(m, a.p, a.qp.handle)
      assert.equal(completions(a.cq).length, isFast ? 1 : 0)
    })
})

it('the receive of an SRQ that the fast path has taken but not used is flushed in ERR', () => {
  const m = machine(2, { path: 'direct' })
  const [sender, receiver] = [program(m, 0), program(m, 1)]
  const [sendCq, receiveCq] = [makeCq(sender), makeCq(receiver)]
  const srq = makeSrq(receiver)
  const [sendingQp, receivingQp] = [makeQp(sender, sendCq), makeQpWithSrq(receiver, receiveCq, srq)]
  connectQps(sendingQp, receivingQp)
  m.settle()
  const [source, target] = [register(sender, 64), register(receiver, 64)]
  // A receive with two elements is for the slow path.
  postReceive(srq.ring, 7n, [sgeOf(target, 0, 32), sgeOf(target, 32, 32)])
  postSend(sendingQp.send, { opcode: SEND, sges: [sgeOf(source, 0, 64)] })
  ringDoorbells(m, sender, sendingQp.handle)
  assert.equal(srq.ring.consumer, 1, 'the receive was taken')
  invokeNow(sender.context, RcQp, 'destroy', sendingQp.handle, {}, sender.caller)
  modify(receivingQp, { state: Qps.ERR })
  assert.deepEqual(
    completions(receiveCq).map(({ id, status }) => [id, status]),
    [[7, WcStatus.values.WR_FLUSH_ERR]],
  )
})

it('a poll continues with requests that the doorbell has left', () => {
  const { m, a, b } = connected(0x10_0000)
  // The slow path's responder writes to `space`; the fast path does not.
  let slowWrites = 0
  const { write } = b.p.space
  b.p.space.write = (...copy) => {
    slowWrites++
    return write(...copy)
  }
  const postWrite = (sges: NonNullable<SendRequest['sges']>) =>
    postSend(a.qp.send, { opcode: RDMA_WRITE, sges, remote: b.mr.address, rkey: b.mr.rkey })
  for (let i = 0; i < 4; i++) postWrite([sgeOf(a.mr, 0, 0x10_0000)])
  ringDoorbells(m, a.p, a.qp.handle)
  assert.equal(completions(a.cq).length, 1, 'a doorbell executes 1 MiB')
  m.settle()
  assert.equal(completions(a.cq).length, 3)
  assert.equal(slowWrites, 0)
  postWrite([sgeOf(a.mr, 0, 1), sgeOf(a.mr, 1, 1)])
  m.settle()
  assert.equal(slowWrites, 1, 'two elements are for the slow path')
})

it('requests that the fast path leaves to the slow path keep no blocks of the pool', () => {
  const { m, a, b } = connected(64)
  const usedWords = () => m.devices[0].device.state.engine().stat().poolWords
  const send = () => {
    const sges = [sgeOf(a.mr, 0, 32), sgeOf(a.mr, 32, 32)]
    postSend(a.qp.send, { opcode: RDMA_WRITE, sges, remote: b.mr.address, rkey: b.mr.rkey })
    ringDoorbells(m, a.p, a.qp.handle)
    m.settle()
  }
  send()
  const before = usedWords()
  for (let i = 0; i < 10; i++) send()
  assert.equal(completions(a.cq).length, 11)
  assert.equal(usedWords(), before)
})

it('requests of programs whose memory JavaScript cannot access are loaded once', () => {
  let loads = 0
  // Only wraps the source of requests.
  const counting = {
    port: port => port,
    limits: () => Limits,
    random: () => undefined,
    reuses: () => false,
    attach: () =>
      ({
        environment(plain) {
          const { loadSend } = plain.work
          return Object.assign(plain, {
            work: {
              ...plain.work,
              loadSend(...request: Parameters<typeof loadSend>) {
                const isPosted = loadSend(...request)
                if (isPosted) loads++
                return isPosted
              },
            },
          })
        },
        poll: () => false,
        nextTimeout: () => Number.POSITIVE_INFINITY,
        withoutDelays: run => run(),
        entriesOf: (_cq, _requested, capacity) => capacity,
        limitQueues() {},
      }) as Partial<DeviceTorment> as DeviceTorment,
  } as Pick<Torment, 'port' | 'limits' | 'random' | 'reuses' | 'attach'> as Torment
  for (const isLocatable of [false, true]) {
    const { m, a, b } = connected(64, isLocatable, counting)
    loads = 0
    for (let i = 0; i < 5; i++) {
      const sges = [sgeOf(a.mr, 0, 64)]
      postSend(a.qp.send, { opcode: RDMA_WRITE, sges, remote: b.mr.address, rkey: b.mr.rkey })
      ringDoorbells(m, a.p, a.qp.handle)
      m.settle()
    }
    assert.equal(completions(a.cq).length, 5)
    assert.equal(loads, 5)
  }
})

it('executed requests keep no memory alive', async () => {
  const { m, a, b } = connected(64)
  const transfer = (): WeakRef<object>[] => {
    const regions = Array.from({ length: 15 }, () => [register(a.p, 64), register(b.p, 64)] as const)
    for (const [source, { address, rkey }] of regions)
      postSend(a.qp.send, { opcode: RDMA_WRITE, sges: [sgeOf(source, 0, 64)], remote: address, rkey })
    m.settle()
    const owners = [a.p, b.p]
    return regions.flatMap(ends =>
      ends.map(({ handle, address, bytes }, i) => {
        invokeNow(owners[i].context, Mr, 'destroy', handle, {}, owners[i].caller)
        owners[i].space.remove(address)
        return new WeakRef(bytes)
      }),
    )
  }
  const memory = transfer()
  assert.equal(completions(a.cq).length, 15)
  await new Promise(setImmediate) // a WeakRef keeps its target until the end of the turn
  collectGarbage()
  assert.equal(memory.filter(bytes => bytes.deref() !== undefined).length, 0)
})
