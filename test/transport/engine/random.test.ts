/*
 * Random operations between two engines over a bad link, compared with a model. Every request must complete once, in
 * order and with success.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { WcFlags, WcOpcode } from '../../../src/spec/work.ts'
import { createRandom, type LinkOptions, linkNodes } from './link.ts'
import { createNode, type NodeOptions, type SendSpec, type TestNode } from './node.ts'
import { CAS, FAA, FENCE, READ, SEND, SEND_IMM, SIGNALED, SOLICITED, WRITE, WRITE_IMM } from './requests.ts'

const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values

// offsets in client memory
/** Data of SENDs, WRITEs and the peer's READs. */
const SOURCE = 0
/** Results of READs and atomics. */
const RESULTS = 0x1_0000
/** Target of the peer's WRITEs. */
const TARGET = 0x2_0000
/** Receive buffers. */
const BUFFERS = 0x3_0000
/** Target of the peer's atomics. */
const WORDS = 0xc_0000
const MEMORY_BYTES = 0xc_1000
/** Size of SOURCE, RESULTS and TARGET. */
const AREA_BYTES = 0x1_0000
const RECEIVE_BUFFERS = 16
const RECEIVE_BUFFER_BYTES = 0x8000
/** The ID of the first receive. IDs of sends are lower. */
const FIRST_RECEIVE_ID = 1_000_000
const OPCODES = [SEND, SEND_IMM, WRITE, WRITE_IMM, READ, CAS, FAA]

interface Side {
  readonly node: TestNode
  readonly row: number
  /** The expected contents of TARGET, after the peer's WRITEs. */
  readonly target: Uint8Array
  /** The expected contents of WORDS, after the peer's atomics. */
  readonly words: BigUint64Array
  postedSends: number
  /** Checks of results, by the ID of the completed send. */
  readonly checks: (() => void)[]
  /** Expected received messages, in order. */
  readonly expected: { data: Uint8Array; imm: number | undefined; isWrite: boolean }[]
  completedReceives: number
  postedReceives: number
  checkedCqes: number
  /** Sends complete in order: the next CQE has this ID or a higher one. */
  nextSendId: number
}

/** Both nodes have the same `options`. */
const run = (seed: number, mtu: number, operations: number, link: LinkOptions, options: NodeOptions = {}): void => {
  const random = createRandom(seed)
  const int = (n: number): number => Math.floor(random() * n)
  // low: sometimes a message arrives before a receive is posted
  const receiveProbability = 0.15
  const maxMessageBytes = Math.min(6 * mtu, RECEIVE_BUFFER_BYTES)
  /** The first PSN of each side. The PSNs of side 0 wrap soon. */
  const firstPsns = [0xfffff0, 0x1000 + int(1000)]
  const sides = [0, 1].map((i): Side => {
    const node = createNode({ memoryBytes: MEMORY_BYTES, ...options })
    const row = node.createQp(0x10 + i)
    for (let at = 0; at < AREA_BYTES; at++) node.memory[SOURCE + at] = int(256)
    return {
      node,
      row,
      target: new Uint8Array(AREA_BYTES),
      words: new BigUint64Array(16),
      postedSends: 0,
      checks: [],
      expected: [],
      completedReceives: 0,
      postedReceives: 0,
      checkedCqes: 0,
      nextSendId: 0,
    }
  }) as [Side, Side]
  const wire = linkNodes([sides[0].node, sides[1].node], link, random)
  sides.forEach((side, i) => {
    side.node.connect(side.row, {
      destQpn: 0x10 + 1 - i,
      pathMtu: mtu,
      sqPsn: firstPsns[i],
      rqPsn: firstPsns[1 - i],
      timeout: 8,
      maxRdAtomic: 1 + int(4),
      maxDestRdAtomic: 4,
      minRnrTimer: 5,
    })
    wire.bind(i, 0x10 + i, side.row)
  })

  const memoryAt = (side: Side, at: number, length: number): Uint8Array => side.node.memory.slice(at, at + length)
  /** Returns one SGE, or three SGEs that may be empty. */
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

  /** Posts a random operation, and applies it to the model. */
  const postOne = (side: Side, peer: Side): void => {
    const id = side.postedSends++
    const length = random() < 0.3 ? int(80) : int(maxMessageBytes + 1)
    const at = SOURCE + int(AREA_BYTES - length)
    const flags = (random() < 0.8 ? SIGNALED : 0) | (random() < 0.2 ? FENCE : 0) | (random() < 0.3 ? SOLICITED : 0)
    const opcode = OPCODES[int(OPCODES.length)]
    const isWrite = opcode === WRITE || opcode === WRITE_IMM
    const isSwap = opcode === CAS
    const spec: SendSpec = { id, opcode, flags }
    let check = (): void => {}
    if (isWrite || opcode === SEND || opcode === SEND_IMM) {
      const data = memoryAt(side, at, length)
      if (length <= 200 && random() < 0.3) spec.inline = data
      else spec.sges = split(at, length)
      const hasImm = opcode === SEND_IMM || opcode === WRITE_IMM
      const imm = hasImm ? int(0x1_0000_0000) : undefined
      if (imm !== undefined) spec.imm = imm
      if (isWrite) {
        const targetOffset = int(AREA_BYTES - length)
        spec.remote = TARGET + targetOffset
        peer.target.set(data, targetOffset)
      }
      if (!isWrite || hasImm) peer.expected.push({ data, imm, isWrite })
    } else if (opcode === READ) {
      const remote = SOURCE + int(AREA_BYTES - length)
      const result = RESULTS + (id % 2) * (AREA_BYTES / 2)
      spec.remote = remote
      spec.sges = split(result, length)
      // fenced, because two READs may have one result address
      spec.flags = flags | FENCE | SIGNALED
      check = () => assert.deepEqual(memoryAt(side, result, length), memoryAt(peer, remote, length), `READ ${id}`)
    } else {
      const index = int(16)
      const before = peer.words[index]
      const result = RESULTS + AREA_BYTES - 8 - (id % 512) * 8
      /** The value to add or to swap in. */
      const operand = BigInt(int(0x1_0000_0000)) << BigInt(int(32))
      const compare = random() < 0.5 ? before : operand
      spec.remote = WORDS + index * 8
      spec.sges = [{ at: result, length: 8 }]
      spec.flags = flags | FENCE | SIGNALED
      spec.compare = isSwap ? compare : operand
      spec.swap = operand
      if (!isSwap) peer.words[index] = BigInt.asUintN(64, before + operand)
      else if (before === compare) peer.words[index] = operand
      check = () => assert.equal(side.node.words.getBigUint64(result, true), before, `atomic ${id}`)
    }
    side.checks[id] = check
    side.node.post(side.row, spec)
  }

  const postReceive = (side: Side): void => {
    const id = side.postedReceives++
    const at = BUFFERS + (id % RECEIVE_BUFFERS) * RECEIVE_BUFFER_BYTES
    side.node.postReceive(side.row, { id: FIRST_RECEIVE_ID + id, sges: split(at, maxMessageBytes) })
  }

  const onCompletions = (side: Side): void => {
    for (; side.checkedCqes < side.node.cqes.length; side.checkedCqes++) {
      const c = side.node.cqes[side.checkedCqes]
      assert.equal(
        c.status,
        0,
        `${side === sides[0] ? 'first' : 'second'} side: request ${c.id} has status ${c.status}`,
      )
      if (c.id < FIRST_RECEIVE_ID) {
        assert.ok(c.id >= side.nextSendId, `request ${c.id} completes out of order, after ${side.nextSendId - 1}`)
        side.nextSendId = c.id + 1
        side.checks[c.id]()
      } else {
        const id = c.id - FIRST_RECEIVE_ID
        assert.equal(id, side.completedReceives, 'receives complete in order')
        const { data, imm, isWrite } = side.expected[side.completedReceives++]
        assert.equal(c.bytes, data.length)
        assert.equal((c.flags & WcFlags.values.WITH_IMM) !== 0 ? c.imm : undefined, imm)
        assert.equal(c.opcode, isWrite ? RECV_RDMA_WITH_IMM : RECV)
        if (!isWrite)
          assert.deepEqual(
            memoryAt(side, BUFFERS + (id % RECEIVE_BUFFERS) * RECEIVE_BUFFER_BYTES, data.length),
            data,
            `message ${id}`,
          )
      }
    }
  }

  let remaining = operations
  /** Whether no packet is in flight and no timer runs. */
  let isIdle = false
  while (remaining > 0 || !isIdle) {
    sides.forEach((side, i) => {
      const peer = sides[1 - i]
      while (remaining > 0 && side.postedSends - side.node.queues[side.row].retired < 24 && random() < 0.7) {
        remaining--
        postOne(side, peer)
      }
      while (side.postedReceives - side.completedReceives < RECEIVE_BUFFERS && random() < receiveProbability)
        postReceive(side)
    })
    isIdle = !wire.step()
    for (const side of sides) onCompletions(side)
  }
  assert.equal(sides[0].postedSends + sides[1].postedSends, operations)
  if (link.drop !== undefined) assert.ok(sides[0].node.engine.counters.retransmissions > 10, 'losses were repaired')
  const rnr = sides[0].node.engine.counters.sentRnr + sides[1].node.engine.counters.sentRnr
  // with a small window, messages may be so slow that all receives are posted in time
  if (options.windowBytes === undefined) assert.ok(rnr > 0, 'a receiver was not ready')
  sides.forEach((side, i) => {
    const queue = side.node.queues[side.row]
    assert.equal(queue.retired, side.postedSends, `all requests of side ${i} are complete`)
    assert.equal(side.completedReceives, side.expected.length, `all messages to side ${i} arrived`)
    assert.deepEqual(memoryAt(side, TARGET, AREA_BYTES), side.target, `memory of side ${i}`)
    assert.deepEqual(new BigUint64Array(side.node.memory.slice(WORDS, WORDS + 128).buffer), side.words)
    assert.equal(side.node.engine.nextTimeout(), Number.POSITIVE_INFINITY, 'no timer is left')
    assert.deepEqual(side.node.events, [])
  })
}

const badLink: LinkOptions = { drop: 0.02, duplicate: 0.02, reorder: 0.03, corrupt: 0.01 }

describe('random operations between two engines', () => {
  for (const mtu of [256, 512, 1024, 2048, 4096])
    it(`give the right result over a bad link, path MTU ${mtu}`, () => run(mtu, mtu, 2000, badLink))
  it('give the right result over a good link', () => run(1, 1024, 1000, {}))
  it('give the right result over a very bad link', () =>
    run(2, 1024, 400, { drop: 0.08, duplicate: 0.1, reorder: 0.2, corrupt: 0.02 }))
  it('give the right result with runs of one packet and a window of two', () =>
    run(3, 1024, 600, badLink, { maxPackets: 1, windowBytes: 2100 }))
  it('give the right result with small runs', () => run(4, 256, 600, badLink, { maxBytes: 1000, windowBytes: 8000 }))
  it('give the right result with at most three single packets in a run', () =>
    run(5, 256, 600, badLink, { maxSinglePacketRun: 3 }))
  for (const mtu of [256, 1024])
    it(`give the right result with READs in parts, path MTU ${mtu}`, () =>
      run(mtu + 1, mtu, 2000, badLink, { windowBytes: 9 * mtu, boundReads: true }))
})
