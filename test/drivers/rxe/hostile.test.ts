/*
 * Programs that write arbitrary data into the rings shared with their device: garbage or nearly correct requests,
 * indices, counts, sizes. Nothing in core, driver, engines and link throws or hangs, no byte outside rings and
 * registered memory changes, honest programs on the same devices are not affected, and in the end nothing is left.
 * Seeded; a failure prints the seed and the last steps.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { RecvWqe, RingHeader, SendWqe } from '../../../src/spec/drivers/rxe-rings.ts'
import { type Chance, createChance } from '../../model/random.ts'
import {
  assertNothingLeft,
  errnoOf,
  join,
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
} from './machine.ts'
import { end, exchange } from './pair.ts'
import { isIntact, type Mapped, pollAll, postReceive, postSend } from './provider.ts'
import { makeSharedQp, makeSrq, modifySrq } from './shared.ts'

const OPERATIONS = 2000
const OPCODES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15]
const MORE_LENGTHS = [0, 1, 8, 64, 4096, 65536, 65537, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]

/** A hostile program: two connected queue pairs, one CQ, some memory; `shares`: the queue pairs share an SRQ. */
const intruder = (m: Machine, device: number, shares = false) => {
  const p = program(m, device)
  const cq = makeCq(p, 15)
  const srq = shares ? makeSrq(p) : undefined
  const make = () => (srq === undefined ? makeQp(p, cq) : makeSharedQp(p, cq, srq))
  const qps = [make(), make()] as const
  join(qps[0], qps[1])
  return { p, cq, srq, qps, mr: register(p, 8192) }
}
type Intruder = ReturnType<typeof intruder>

/** Any number, usually a plausible one. */
const number = (chance: Chance): number => (chance.hits(0.7) ? chance.int(20) : chance.u32())
const anyKey = ({ mr }: Intruder, chance: Chance): number =>
  chance.hits(0.7) ? chance.pick([mr.lkey, mr.rkey]) : chance.u32()

/** Actions of a hostile program, by name. */
const tricks: Readonly<Record<string, (one: Intruder, qp: TestQp, chance: Chance) => void>> = {
  'garbage in a ring': (one, qp, chance) => {
    const { view } = chance.pick([qp.send, qp.receive, one.cq.ring])
    const from = RingHeader.DATA + chance.int(view.byteLength - RingHeader.DATA)
    const length = Math.min(1 + chance.int(400), view.byteLength - from)
    chance.fill(new Uint8Array(view.buffer, view.byteOffset + from, length))
  },
  'an index': (one, qp, chance) => {
    const ring: Mapped = chance.pick([qp.send, qp.send, qp.receive, one.cq.ring])
    if (chance.hits(0.7)) ring.producer = number(chance)
    else ring.consumer = number(chance)
  },
  'the size of a ring': (one, qp, chance) => {
    const { view } = chance.pick([qp.send, qp.receive, one.cq.ring])
    view.setUint32(chance.pick([RingHeader.LOG2_ELEMENT, RingHeader.INDEX_MASK]), number(chance), true)
  },
  'a request': (one, qp, chance) => {
    const { mr } = one
    const sges = Array.from({ length: chance.int(4) }, () => ({
      address: chance.hits(0.9) ? mr.address + chance.int(9000) : chance.u32() * 0x1_0000,
      length: chance.hits(0.8) ? chance.int(3000) : chance.u32(),
      lkey: anyKey(one, chance),
    }))
    postSend(qp.send, {
      opcode: chance.hits(0.95) ? chance.pick(OPCODES) : chance.u32(),
      flags: chance.hits(0.9) ? chance.int(16) : chance.u32(),
      imm: anyKey(one, chance),
      sges: chance.hits(0.9) ? sges.slice(0, 2) : sges,
      remote: mr.address + chance.int(9000),
      rkey: anyKey(one, chance),
      ...(chance.hits(0.2) && { claimed: chance.pick(MORE_LENGTHS) }),
      ...(chance.hits(0.2) && { count: number(chance) }),
    })
  },
  'a request, spoilt': (one, qp, chance) => {
    tricks['a request'](one, qp, chance)
    const { view, log2, mask } = qp.send
    const at = RingHeader.DATA + (((qp.send.producer - 1) & mask) << log2)
    const fields = Object.values(SendWqe)
    for (let left = 1 + chance.int(4); left > 0 && at + 256 < view.byteLength; left--)
      view.setUint32(at + chance.pick(fields), number(chance), true)
  },
  'a receive request': (one, qp, chance) => {
    const { mr } = one
    const sges = [{ address: mr.address + chance.int(9000), length: chance.int(4000), lkey: anyKey(one, chance) }]
    postReceive(qp.receive, 1n, sges, chance.hits(0.8) ? 1 : number(chance))
    const { view, log2, mask } = qp.receive
    const at = RingHeader.DATA + (((qp.receive.producer - 1) & mask) << log2)
    if (chance.hits(0.2) && at + 64 < view.byteLength)
      view.setUint32(at + chance.pick(Object.values(RecvWqe)), number(chance), true)
  },
  'completions taken': ({ cq }, _qp, chance) => {
    if (cq.ring.producer <= cq.ring.mask && cq.ring.consumer <= cq.ring.mask && chance.hits(0.8)) pollAll(cq.ring)
  },
  'a shared queue, changed': ({ srq }, _qp, chance) => {
    if (srq === undefined) return
    errnoOf(() => modifySrq(srq, chance.hits(0.5) ? { maxWr: 1 + chance.int(30) } : { limit: chance.int(8) }))
  },
  'back to RTS': (one, qp) => {
    const peer = one.qps[0] === qp ? one.qps[1] : one.qps[0]
    modify(qp, { state: Qps.RESET })
    modify(qp, toInit())
    modify(qp, toRtr(peer.qpn, one.p.rxe.state.identity.gids[1]))
    modify(qp, toRts())
  },
  'another state': (_one, qp, chance) => {
    const { state } = query(qp)
    if (state === Qps.RTS) modify(qp, { state: chance.pick([Qps.SQD, Qps.ERR, Qps.RESET]) })
    else if (state === Qps.SQD) modify(qp, { state: Qps.RTS })
  },
}
const names = Object.keys(tricks)

const run = (seed: number, operations: number): void => {
  const chance = createChance(seed)
  const m = machine()
  const honest = [end(m, 0), end(m, 1)] as const
  join(honest[0].qp, honest[1].qp)
  const intruders = [intruder(m, 0), intruder(m, 1), intruder(m, 0, true)]
  const programs = [...honest.map(({ p }) => p), ...intruders.map(({ p }) => p)]
  const last: string[] = []
  try {
    for (let i = 0; i < operations; i++) {
      const one = chance.pick(intruders)
      const name = chance.pick(names)
      last.push(name)
      tricks[name](one, chance.pick(one.qps), chance)
      if (chance.hits(0.5)) m.settle()
      if (chance.hits(0.1)) m.tick()
      if (i % 40 === 0) {
        exchange(m, honest[i % 80 === 0 ? 0 : 1], honest[i % 80 === 0 ? 1 : 0], i)
        for (const { rings } of programs) for (const ring of rings.live) assert.ok(isIntact(ring), 'beside a ring')
      }
    }
    for (const p of programs) p.close()
    assertNothingLeft(m, programs)
  } catch (error) {
    throw new Error(`seed ${seed}, after ${last.slice(-12).join(', ')}`, { cause: error })
  }
}

describe('programs that write arbitrary data into their rings', () => {
  for (const seed of [1, 2, 3, 4]) it(`affect no other program, seed ${seed}`, () => run(seed, OPERATIONS / 4))
})
