/*
 * Programs write arbitrary data into their rings. They affect no honest program, and leave nothing. The attacks are
 * random, from a seed.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { RecvWqe, RingHeader, SendWqe } from '../../../../src/spec/drivers/mapped-rings.ts'
import { errnoOf } from '../../../core/fixture.ts'
import { createRandomSource, type RandomSource } from '../../../random/model/random.ts'
import {
  assertNothingLeft,
  connectQps,
  type Machine,
  machine,
  makeCq,
  makeQp,
  modify,
  program,
  Qps,
  query,
  register,
  type TestQp,
  toInit,
  toRtr,
  toRts,
} from '../../rxe/machine.ts'
import { exchange, makeEnd } from '../../rxe/pair.ts'
import { isIntact, type MappedRing, pollAll, postReceive, postSend } from '../../rxe/provider.ts'
import { makeQpWithSrq, makeSrq, modifySrq } from '../../rxe/srq-and-xrc.ts'

/** Actions of all attackers per seed. */
const OPERATIONS = 500
/** The ibv_wr_opcode values from RDMA_WRITE to SEND_WITH_INV, FLUSH and ATOMIC_WRITE. */
const OPCODES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15]
/** More bytes than the fields of `SendWqe` and of `RecvWqe` have. */
const MAX_SEND_WQE = 256
const MAX_RECV_WQE = 64
const DMA_LENGTHS = [0, 1, 8, 64, 4096, 65536, 65537, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]

/** A hostile program with two connected queue pairs, which share an SRQ if `sharesSrq`. */
const createAttacker = (m: Machine, device: number, sharesSrq = false) => {
  const p = program(m, device)
  const cq = makeCq(p, 15)
  const srq = sharesSrq ? makeSrq(p) : undefined
  const createQp = () => (srq === undefined ? makeQp(p, cq) : makeQpWithSrq(p, cq, srq))
  const qps = [createQp(), createQp()] as const
  connectQps(qps[0], qps[1])
  return { p, cq, srq, qps, mr: register(p, 8192) }
}
type Attacker = ReturnType<typeof createAttacker>

/** Any u32, usually below 20. */
const anyU32 = (random: RandomSource): number => (random.hits(0.7) ? random.int(20) : random.u32())
const anyKey = ({ mr }: Attacker, random: RandomSource): number =>
  random.hits(0.7) ? random.pick([mr.lkey, mr.rkey]) : random.u32()

const actions: Readonly<Record<string, (attacker: Attacker, qp: TestQp, random: RandomSource) => void>> = {
  'garbage in a ring': (attacker, qp, random) => {
    const { view } = random.pick([qp.send, qp.receive, attacker.cq.ring])
    const start = RingHeader.DATA + random.int(view.byteLength - RingHeader.DATA)
    const length = Math.min(1 + random.int(400), view.byteLength - start)
    random.fill(new Uint8Array(view.buffer, view.byteOffset + start, length))
  },
  'an index': (attacker, qp, random) => {
    const ring: MappedRing = random.pick([qp.send, qp.send, qp.receive, attacker.cq.ring])
    if (random.hits(0.7)) ring.producer = anyU32(random)
    else ring.consumer = anyU32(random)
  },
  'the size of a ring': (attacker, qp, random) => {
    const { view } = random.pick([qp.send, qp.receive, attacker.cq.ring])
    view.setUint32(random.pick([RingHeader.LOG2_ELEMENT, RingHeader.INDEX_MASK]), anyU32(random), true)
  },
  'a request': (attacker, qp, random) => {
    const { mr } = attacker
    const sges = Array.from({ length: random.int(4) }, () => ({
      address: random.hits(0.9) ? mr.address + random.int(9000) : random.u32() * 0x1_0000,
      length: random.hits(0.8) ? random.int(3000) : random.u32(),
      lkey: anyKey(attacker, random),
    }))
    postSend(qp.send, {
      opcode: random.hits(0.95) ? random.pick(OPCODES) : random.u32(),
      flags: random.hits(0.9) ? random.int(16) : random.u32(),
      imm: anyKey(attacker, random),
      sges: random.hits(0.9) ? sges.slice(0, 2) : sges,
      remote: mr.address + random.int(9000),
      rkey: anyKey(attacker, random),
      ...(random.hits(0.2) && { dmaLength: random.pick(DMA_LENGTHS) }),
      ...(random.hits(0.2) && { numSge: anyU32(random) }),
    })
  },
  'a mutated request': (attacker, qp, random) => {
    actions['a request'](attacker, qp, random)
    const { view, log2, mask } = qp.send
    const at = RingHeader.DATA + (((qp.send.producer - 1) & mask) << log2)
    const fields = Object.values(SendWqe)
    for (let mutations = 1 + random.int(4); mutations > 0 && at + MAX_SEND_WQE < view.byteLength; mutations--)
      view.setUint32(at + random.pick(fields), anyU32(random), true)
  },
  'a receive request': (attacker, qp, random) => {
    const { mr } = attacker
    const sges = [{ address: mr.address + random.int(9000), length: random.int(4000), lkey: anyKey(attacker, random) }]
    postReceive(qp.receive, 1n, sges, random.hits(0.8) ? 1 : anyU32(random))
    const { view, log2, mask } = qp.receive
    const at = RingHeader.DATA + (((qp.receive.producer - 1) & mask) << log2)
    if (random.hits(0.2) && at + MAX_RECV_WQE < view.byteLength)
      view.setUint32(at + random.pick(Object.values(RecvWqe)), anyU32(random), true)
  },
  'completions taken': ({ cq }, _qp, random) => {
    const { producer, consumer, mask } = cq.ring
    const doesPollEnd = producer <= mask && consumer <= mask
    if (doesPollEnd && random.hits(0.8)) pollAll(cq.ring)
  },
  'a modified SRQ': ({ srq }, _qp, random) => {
    if (srq === undefined) return
    errnoOf(() => modifySrq(srq, random.hits(0.5) ? { maxWr: 1 + random.int(30) } : { limit: random.int(8) }))
  },
  'back to RTS': (attacker, qp) => {
    const peer = attacker.qps[0] === qp ? attacker.qps[1] : attacker.qps[0]
    modify(qp, { state: Qps.RESET })
    modify(qp, toInit())
    modify(qp, toRtr(peer.qpn, attacker.p.rxe.device.state.identity.gids[1]))
    modify(qp, toRts())
  },
  'another state': (_attacker, qp, random) => {
    const { state } = query(qp)
    if (state === Qps.RTS) modify(qp, { state: random.pick([Qps.SQD, Qps.ERR, Qps.RESET]) })
    else if (state === Qps.SQD) modify(qp, { state: Qps.RTS })
  },
}
const names = Object.keys(actions)

const run = (seed: number): void => {
  const random = createRandomSource(seed)
  const m = machine()
  const honest = [makeEnd(m, 0), makeEnd(m, 1)] as const
  connectQps(honest[0].qp, honest[1].qp)
  const attackers = [createAttacker(m, 0), createAttacker(m, 1), createAttacker(m, 0, true)]
  const programs = [...honest.map(({ p }) => p), ...attackers.map(({ p }) => p)]
  const history: string[] = []
  try {
    for (let i = 0; i < OPERATIONS; i++) {
      const attacker = random.pick(attackers)
      const name = random.pick(names)
      history.push(name)
      actions[name](attacker, random.pick(attacker.qps), random)
      if (random.hits(0.5)) m.settle()
      if (random.hits(0.1)) m.tick()
      if (i % 40 === 0) {
        // in both directions by turns
        const [sender, receiver] = i % 80 === 0 ? honest : [honest[1], honest[0]]
        exchange(m, sender, receiver, i)
        for (const { rings } of programs)
          for (const ring of rings.live) assert.ok(isIntact(ring), 'bytes outside a ring were written')
      }
    }
    for (const p of programs) p.close()
    assertNothingLeft(m, programs)
  } catch (error) {
    throw new Error(`seed ${seed}, after ${history.slice(-12).join(', ')}`, { cause: error })
  }
}

describe('programs that write arbitrary data into their rings', () => {
  for (const seed of [1, 2, 3, 4]) it(`affect no other program, seed ${seed}`, () => run(seed))
})
