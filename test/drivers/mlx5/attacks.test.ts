/*
 * What hostile and unlucky programs do to mlx5 devices: random requests and counters, lists with loops, queues that are
 * resized and reset at bad times. Nothing crashes, other programs go on, and destroyed objects leave nothing.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Cq } from '../../../src/spec/classes/cq.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { Srq } from '../../../src/spec/classes/srq.ts'
import { CompletionKind } from '../../../src/spec/drivers/mlx5-queues.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { inLongRun } from '../../long-run.ts'
import { type Machine, machine, type Program, program, RDMA_WRITE, SEND } from './machine.ts'

const { REQUEST } = CompletionKind

/** Numbers below `limit`, from a seed (mulberry32). */
const randomFrom =
  (seed: number) =>
  (limit: number): number => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % limit
  }

const settle = (m: Machine, turns = 30): void => {
  for (let i = 0; i < turns; i++) for (const device of m.devices) device.poll(m.time.now)
}

const pair = (options: Parameters<typeof program>[2] = {}, queues = {}) => {
  const m = machine(2)
  const [a, b] = [program(m, 0, options), program(m, 1, options)]
  const [qa, qb] = [a.queuePair('rc', queues), b.queuePair('rc', queues)]
  qa.connect(qb, 1)
  qb.connect(qa, 0)
  const write = (): number =>
    qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: b.address, rkey: b.region.rkey } })
  return { m, a, b, qa, qb, write }
}

describe('a completion queue', () => {
  it('that the program has emptied can be made smaller', () => {
    const { a, m, write } = pair({ entries: 64 }, { sends: 64 })
    for (let i = 0; i < 40; i++) write()
    settle(m)
    assert.equal(a.poll().length, 40)
    a.resize(16)
    write()
    settle(m)
    assert.deepEqual(
      a.poll().map(({ kind, counter }) => [kind, counter]),
      [[REQUEST, 40]],
    )
  })

  it('has entries of 128 bytes whose first half is zeros, if it is padded, and none of 64 bytes', () => {
    const { a, m, write } = pair({ entries: 16, entryBytes: 128, isPadded: true })
    a.pages.bytes.fill(0x55, a.cq.at, a.cq.at + 64)
    write()
    settle(m)
    const first = a.pages.bytes.slice(a.cq.at, a.cq.at + 64)
    assert.deepEqual([a.poll().map(({ kind }) => kind), first], [[REQUEST], new Uint8Array(64)])
    assert.throws(() => program(m, 0, { entryBytes: 64, isPadded: true }), /only entries of 128 bytes/)
  })

  it('that is full is not resized, since no entry is left that tells the program', () => {
    const { a, m, write } = pair({ entries: 16 })
    for (let i = 0; i < 16; i++) write()
    settle(m)
    const shared = a.pages.shared()
    assert.throws(() => a.resize(64), /EBUSY.*16|all 16 entries/)
    assert.equal(a.pages.shared(), shared)
    assert.equal(a.poll(1).length, 1)
    a.resize(64)
    assert.equal(a.poll().length, 15)
  })

  it('is refused, and its doorbell record left as it is, if the record is in memory that the program may not write', t => {
    const { a } = pair()
    const { bytes, memory, addressOf } = a.pages
    const [at, record] = [a.pages.take(4096), a.pages.take(4096)]
    bytes.fill(0x55, record, record + 8)
    const shared = a.pages.shared()
    const adopt = memory.adopt!.bind(memory)
    t.mock.method(memory as Required<typeof memory>, 'adopt', (...args: Parameters<typeof adopt>) => {
      if (args[0] === addressOf(record)) throw new CallError('EFAULT', 'read-only')
      return adopt(...args)
    })
    const queue = { cqe: 63, userHandle: 5n, compVector: 0, entryBytes: 64 }
    const places = { bufferAddress: addressOf(at), doorbellAddress: addressOf(record) }
    assert.throws(() => a.call(Cq, 'create', 0, { ...queue, ...places }), /read-only/)
    assert.deepEqual(bytes.slice(record, record + 8), new Uint8Array(8).fill(0x55))
    assert.equal(a.pages.shared(), shared)
  })

  it('is not resized to what it cannot have', () => {
    const { a } = pair()
    for (const [cqe, entryBytes, message] of [
      [0xffff_ffff, 64, /4294967296 is no power of two/],
      [99, 64, /100 is no power of two/],
      [63, 0, /entries of 0 bytes/],
      [63, 65_535, /entries of 65535 bytes/],
    ] as const)
      assert.throws(() => a.call(Cq, 'modify', a.cq.object, { cqe, bufferAddress: 0n, entryBytes }), message)
  })
})

describe('a queue pair', () => {
  it('goes on with its requests if a move to RESET is refused', () => {
    const { a, m, qa, write } = pair()
    write()
    settle(m)
    assert.equal(a.poll().length, 1)
    assert.throws(() => qa.modify({ state: QpState.values.RESET, timeout: 14 }))
    write()
    settle(m)
    assert.deepEqual(
      a.poll().map(({ kind, counter }) => [kind, counter]),
      [[REQUEST, 1]],
    )
  })

  it('refuses sizes that the device lacks, and says which', () => {
    const { a, qa } = pair()
    const shared = a.pages.shared()
    const base = {
      pd: a.pd,
      sendCq: a.cq.object,
      recvCq: a.cq.object,
      cap: { maxSendWr: 1, maxRecvWr: 1, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 },
      userHandle: 0n,
      bufferAddress: a.pages.addressOf(a.pages.take(4096)),
      doorbellAddress: a.pages.addressOf(a.cq.record + 4),
      sendBlocks: 16,
      receiveRequests: 16,
      receiveShift: 4,
      uidx: 1,
    }
    for (const [change, message] of [
      [{ sendBlocks: 0xffff_ffff }, /sq_wqe_count: 4294967295/],
      [{ sendBlocks: 3 }, /sq_wqe_count: 3/],
      [{ receiveRequests: 0x8000_0000 }, /rq_wqe_count: 2147483648/],
      [{ receiveShift: 0 }, /rq_wqe_shift: 0/],
      [{ receiveShift: 0xffff_ffff }, /rq_wqe_shift: 4294967295/],
      [{ qpFlags: 0xffff_ffff }, /flags 0xffffffff/],
      [{}, /not aligned to 8 bytes/],
    ] as const)
      assert.throws(() => a.call(RcQp, 'create', 0, { ...base, ...change }), message)
    assert.equal(a.pages.shared(), shared)
    assert.ok(qa.qpn > 0)
  })
})

/** A good pair on the same devices exchanges messages. */
const assertOthersGoOn = (m: Machine, a: Program, b: Program): void => {
  const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
  qa.connect(qb, 1)
  qb.connect(qa, 0)
  qb.receive(b.element(0, 64))
  qa.post({ opcode: SEND, data: [a.element(0, 64)] })
  let got = 0
  m.runUntil(() => {
    got += a.poll().length
    return got === 1
  })
  qa.destroy()
  qb.destroy()
}

describe('hostile bytes', () => {
  for (const kind of ['rc', 'ud'] as const)
    it(`in the queues and records of ${kind} queue pairs harm nobody else`, () => {
      const random = randomFrom(kind === 'rc' ? 1 : 2)
      const m = machine(2)
      const [a, b] = [program(m, 0), program(m, 1)]
      const good = [program(m, 0), program(m, 1)] as const
      const shared = a.pages.shared()
      const rounds = kind === 'rc' ? 25 : inLongRun(25, 8) // those of datagrams take ten times as long
      for (let round = 0; round < rounds; round++) {
        const sends = 2 ** random(6)
        const sizes = { sends, receives: 2 ** random(6), sges: 2 ** random(4), inline: random(900) }
        const [qa, qb] = [a.queuePair(kind, sizes), b.queuePair(kind, sizes)]
        if (kind === 'rc') {
          qa.connect(qb, 1)
          qb.connect(qa, 0)
        } else for (const qp of [qa, qb]) qp.activate()
        for (let i = 0; i < 20; i++) {
          const raw = Uint8Array.from({ length: 16 * random(12) }, () => (random(3) === 0 ? random(256) : 0))
          if (random(2) === 0)
            qa.post({
              opcode: [0, 1, 8, 9, 10, 11, 16, 17, 18, 0x25, random(256)][random(11)]!,
              raw,
              flags: random(256),
            })
          else {
            // every block of the queue, with a number of segments from 0 to 63
            for (let at = qa.sendsAt; at < qa.sendsAt + sends * 64; at++)
              if (random(4) === 0) a.pages.bytes[at] = random(256)
            qa.ringSends(random(8) === 0 ? random(0x1_0000) : random(64))
          }
          if (random(4) === 0) qb.ringReceives(random(0x1_0000))
          settle(m, 2)
          a.poll(50)
          b.poll(50)
          if (random(10) === 0) a.pages.view.setUint32(a.cq.record, random(0xffff_ffff))
        }
        if (random(3) === 0) {
          qa.fail()
          settle(m, 2)
        }
        qa.destroy()
        qb.destroy()
        if (round % 10 === 0) assertOthersGoOn(m, ...good)
      }
      assert.equal(a.pages.shared(), shared)
    })

  it('in the list of a shared queue may be a loop', () => {
    const random = randomFrom(3)
    const { m, a, b, qa } = pair()
    const srq = b.sharedReceives(16, 2)
    const qb = b.queuePair('rc', { srq: srq.object })
    for (let round = 0; round < 50; round++) {
      for (let at = srq.at; at < srq.at + 16 * 64; at++) b.pages.bytes[at] = random(256)
      b.pages.view.setUint32(srq.record, random(0xffff_ffff))
      qa.reset()
      qb.reset()
      qa.connect(qb, 1)
      qb.connect(qa, 0)
      qa.post({ opcode: SEND, data: [a.element(0, 8)] })
      settle(m)
      a.poll()
      b.poll()
    }
    qb.destroy()
    srq.destroy()
    const good = [program(m, 0), program(m, 1)] as const
    assertOthersGoOn(m, ...good)
  })

  it('of a shared queue that is created are refused by name', () => {
    const { b } = pair()
    const base = { pd: b.pd, limit: 0, userHandle: 0n, bufferAddress: 0n, doorbellAddress: 0n }
    for (const [change, message] of [
      [{ maxWr: 0xffff_ffff, maxSge: 1 }, /4294967296 is no power of two/],
      [{ maxWr: 15, maxSge: 0xffff_ffff }, /maxSge/],
      [{ maxWr: 15, maxSge: 1, srqFlags: 0x8000_0000 }, /flags 0x80000000/],
    ] as const)
      assert.throws(() => b.call(Srq, 'create', 0, { ...base, ...change }), message)
  })
})
