/*
 * Random operations between two engines over a link that drops, duplicates, reorders and corrupts: memory equals a
 * model, every request completes exactly once, in order and with success, at every path MTU; PSNs wrap.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { WcFlags, WcOpcode } from '../../src/spec/work.ts'
import { createRandom, joinNodes, type LinkOptions } from './link.ts'
import { createNode, type NodeOptions, type SendSpec, type TestNode } from './node.ts'
import { CAS, FAA, FENCE, READ, SEND, SEND_IMM, SIGNALED, SOLICITED, WRITE, WRITE_IMM } from './requests.ts'

const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values

/** Client memory: sources of sends, targets of READs, targets of the peer's WRITEs, receive buffers, atomic words. */
const SOURCE = 0
const RESULTS = 0x1_0000
const TARGET = 0x2_0000
const BUFFERS = 0x3_0000
const WORDS = 0xc_0000
const MEMORY = 0xc_1000
const AREA = 0x1_0000
const SLOTS = 16

interface Side {
  readonly node: TestNode
  readonly row: number
  /** Expected final memory after the peer's WRITEs and atomics. */
  readonly target: Uint8Array
  readonly words: BigUint64Array
  posted: number
  /** Checks of completed sends, by id. */
  readonly checks: ((side: Side) => void)[]
  /** Expected received messages, in order. */
  readonly expected: { data: Uint8Array; imm: number | undefined; isWrite: boolean }[]
  received: number
  receives: number
  seen: number
  sendsDone: number
}

const run = (seed: number, mtu: number, operations: number, link: LinkOptions, options: NodeOptions = {}): void => {
  const random = createRandom(seed)
  const int = (n: number): number => Math.floor(random() * n)
  // receive WQEs are mostly posted, but not always
  const readiness = 0.15
  const bufferBytes = Math.min(6 * mtu, 0x8000)
  const start = [0xfffff0, 0x1000 + int(1000)]
  const sides = [0, 1].map((i): Side => {
    const node = createNode({ memoryBytes: MEMORY, ...options })
    const row = node.createQp(0x10 + i)
    for (let at = 0; at < AREA; at++) node.memory[SOURCE + at] = int(256)
    return {
      node,
      row,
      target: new Uint8Array(AREA),
      words: new BigUint64Array(16),
      posted: 0,
      checks: [],
      expected: [],
      received: 0,
      receives: 0,
      seen: 0,
      sendsDone: 0,
    }
  }) as [Side, Side]
  const wire = joinNodes([sides[0].node, sides[1].node], link, random)
  sides.forEach((side, i) => {
    side.node.connect(side.row, {
      destQpn: 0x10 + 1 - i,
      pathMtu: mtu,
      sqPsn: start[i],
      rqPsn: start[1 - i],
      timeout: 8,
      maxRdAtomic: 1 + int(4),
      maxDestRdAtomic: 4,
      minRnrTimer: 5,
    })
    wire.bind(i, 0x10 + i, side.row)
  })

  const slice = (side: Side, at: number, length: number): Uint8Array => side.node.memory.slice(at, at + length)
  const split = (at: number, length: number): { at: number; length: number }[] => {
    if (random() < 0.6) return [{ at, length }]
    const first = int(length + 1)
    const second = int(length - first + 1)
    return [
      { at, length: first },
      { at: at + first, length: second },
      { at: at + first + second, length: length - first - second },
    ]
  }

  /** Posts one random operation from `side` to its peer and applies it to the model. */
  const postOne = (side: Side, peer: Side): void => {
    const id = side.posted++
    const length = random() < 0.3 ? int(80) : int(bufferBytes + 1)
    const at = SOURCE + int(AREA - length)
    const flags = (random() < 0.8 ? SIGNALED : 0) | (random() < 0.2 ? FENCE : 0) | (random() < 0.3 ? SOLICITED : 0)
    // SEND, SEND with immediate, WRITE, WRITE with immediate, READ, compare and swap, fetch and add
    const kind = int(7)
    const spec: SendSpec = { id, opcode: WRITE, flags }
    let check = (): void => {}
    if (kind <= 3) {
      const data = slice(side, at, length)
      if (length <= 200 && random() < 0.3) spec.inline = data
      else spec.sges = split(at, length)
      const isWrite = kind >= 2
      const withImm = kind === 1 || kind === 3
      const imm = withImm ? int(0x1_0000_0000) : undefined
      spec.opcode = isWrite ? (withImm ? WRITE_IMM : WRITE) : withImm ? SEND_IMM : SEND
      if (imm !== undefined) spec.imm = imm
      if (isWrite) {
        const to = int(AREA - length)
        spec.remote = TARGET + to
        peer.target.set(data, to)
      }
      if (!isWrite || withImm) peer.expected.push({ data, imm, isWrite })
    } else if (kind === 4) {
      const from = SOURCE + int(AREA - length)
      // targets of concurrent READs must not overlap: at most 4 are in flight, and a slot is reused 16 later
      const to = RESULTS + (id % 2) * (AREA / 2)
      spec.opcode = READ
      spec.remote = from
      spec.sges = split(to, length)
      // Fenced, so that no two READs write to the same address at the same time.
      spec.flags = flags | FENCE | SIGNALED
      check = () => assert.deepEqual(slice(side, to, length), slice(peer, from, length), `READ ${id}`)
    } else {
      const index = int(16)
      const before = peer.words[index]
      const to = RESULTS + AREA - 8 - (id % 512) * 8
      const add = BigInt(int(0x1_0000_0000)) << BigInt(int(32))
      const compare = random() < 0.5 ? before : add
      const isSwap = kind === 5
      spec.opcode = isSwap ? CAS : FAA
      spec.remote = WORDS + index * 8
      spec.sges = [{ at: to, length: 8 }]
      spec.flags = flags | FENCE | SIGNALED
      spec.compare = isSwap ? compare : add
      spec.swap = add
      peer.words[index] = isSwap ? (before === compare ? add : before) : BigInt.asUintN(64, before + add)
      check = () => assert.equal(side.node.words.getBigUint64(to, true), before, `atomic ${id}`)
    }
    side.checks[id] = check
    side.node.post(side.row, spec)
  }

  const postReceive = (side: Side): void => {
    const id = side.receives++
    const at = BUFFERS + (id % SLOTS) * 0x8000
    side.node.postReceive(side.row, { id: 1_000_000 + id, sges: split(at, bufferBytes) })
  }

  const onCompletions = (side: Side): void => {
    for (; side.seen < side.node.cqes.length; side.seen++) {
      const c = side.node.cqes[side.seen]
      assert.equal(
        c.status,
        0,
        `${side === sides[0] ? 'first' : 'second'} side: request ${c.id} has status ${c.status}`,
      )
      if (c.id < 1_000_000) {
        assert.ok(c.id >= side.sendsDone, `request ${c.id} completes out of order, after ${side.sendsDone - 1}`)
        side.sendsDone = c.id + 1
        side.checks[c.id](side)
      } else {
        const id = c.id - 1_000_000
        assert.equal(id, side.received, 'receives complete in order')
        const { data, imm, isWrite } = side.expected[side.received++]
        assert.equal(c.bytes, data.length)
        assert.equal((c.flags & WcFlags.values.WITH_IMM) !== 0 ? c.imm : undefined, imm)
        assert.equal(c.opcode, isWrite ? RECV_RDMA_WITH_IMM : RECV)
        if (!isWrite) assert.deepEqual(slice(side, BUFFERS + (id % SLOTS) * 0x8000, data.length), data, `message ${id}`)
      }
    }
  }

  let left = operations
  let idle = 0
  while (left > 0 || idle < 3) {
    sides.forEach((side, i) => {
      const peer = sides[1 - i]
      while (left > 0 && side.posted - side.node.queues[side.row].retired < 24 && random() < 0.7) {
        left--
        postOne(side, peer)
      }
      while (side.receives - side.received < SLOTS && random() < readiness) postReceive(side)
    })
    idle = wire.step() ? 0 : idle + 1
    for (const side of sides) onCompletions(side)
  }
  assert.equal(sides[0].posted + sides[1].posted, operations)
  if (link.drop !== undefined) assert.ok(sides[0].node.engine.counters.retransmissions > 10, 'losses were repaired')
  const rnr = sides[0].node.engine.counters.sentRnr + sides[1].node.engine.counters.sentRnr
  if (options.windowBytes === undefined) assert.ok(rnr > 0, 'a receiver was not ready')
  sides.forEach((side, i) => {
    const queue = side.node.queues[side.row]
    assert.equal(queue.retired, side.posted, `all requests of side ${i} are complete`)
    assert.equal(side.received, side.expected.length, `all messages to side ${i} arrived`)
    assert.deepEqual(slice(side, TARGET, AREA), side.target, `memory of side ${i}`)
    assert.deepEqual(new BigUint64Array(side.node.memory.slice(WORDS, WORDS + 128).buffer), side.words)
    assert.equal(side.node.engine.nextTimeout(), Number.POSITIVE_INFINITY, 'no timer is left')
    assert.deepEqual(side.node.events, ['COMM_EST'].slice(0, side.node.events.length))
  })
}

const bad: LinkOptions = { drop: 0.02, duplicate: 0.02, reorder: 0.03, corrupt: 0.01 }

describe('random operations between two engines', () => {
  for (const mtu of [256, 512, 1024, 2048, 4096])
    it(`give the right result over a bad link, path MTU ${mtu}`, () => run(mtu, mtu, 2000, bad))
  it('give the right result over a good link', () => run(1, 1024, 1000, {}))
  it('give the right result over a very bad link', () =>
    run(2, 1024, 400, { drop: 0.08, duplicate: 0.1, reorder: 0.2, corrupt: 0.02 }))
  it('give the right result with runs of one packet and a window of two', () =>
    run(3, 1024, 600, bad, { maxPackets: 1, windowBytes: 2100 }))
  it('give the right result with small runs', () => run(4, 256, 600, bad, { maxBytes: 1000, windowBytes: 8000 }))
  it('give the right result with runs that are flushed early', () => run(5, 256, 600, bad, { soonPackets: 3 }))
  for (const mtu of [256, 1024])
    it(`give the right result with READs in parts, path MTU ${mtu}`, () =>
      run(mtu + 1, mtu, 2000, bad, { windowBytes: 9 * mtu, boundReads: true }))
})
