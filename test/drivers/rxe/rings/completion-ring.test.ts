/*
 * Completion rings: the device counts free entries, so no completion is lost or overwritten; a program that corrupts
 * its index harms only itself.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type CqRing,
  createCqRing,
  pushCompletion,
  resizeCqRing,
} from '../../../../src/drivers/rxe/rings/completion-ring.ts'
import { Completion } from '../../../../src/transport/types.ts'
import { isIntact, type Mapped, mapRing, pollAll, pollCq, type TestRings, testRings } from '../provider.ts'

const words = (id: number, more: Partial<Record<keyof typeof Completion, number>> = {}): Uint32Array => {
  const completion = new Uint32Array(Completion.WORDS)
  completion[Completion.ID_LO] = id
  for (const [name, value] of Object.entries(more)) completion[Completion[name as keyof typeof Completion]] = value
  return completion
}

interface Queue {
  readonly memory: TestRings
  readonly cq: CqRing
  ring: Mapped
}
const queue = (cqe: number): Queue => {
  const memory = testRings()
  const cq = createCqRing(memory, cqe)
  return { memory, cq, ring: mapRing(cq.ring.area) }
}

test('a completion has the layout of ib_uverbs_wc', () => {
  const { cq, ring } = queue(4)
  const all = words(0x55667788, {
    ID_HI: 0x11223344,
    STATUS: 5,
    OPCODE: 128,
    BYTES: 4096,
    IMM: 0x0a0b0c0d,
    QPN: 17,
    SRC_QPN: 18,
    FLAGS: 2,
    VENDOR: 9,
    PKEY_INDEX: 3,
    SL: 4,
  })
  assert.ok(pushCompletion(cq, all))
  const wc = new Uint8Array(ring.view.buffer, ring.view.byteOffset + 384, 48)
  assert.equal(
    Buffer.from(wc).toString('hex'),
    '8877665544332211' + // wr_id
      '05000000' + // status
      '80000000' + // opcode
      '09000000' + // vendor_err
      '00100000' + // byte_len
      '0a0b0c0d' + // imm_data, big-endian
      '11000000' + // qp_num
      '12000000' + // src_qp
      '02000000' + // wc_flags
      '0300' + // pkey_index
      '0000' + // slid
      '04' + // sl
      '00' + // dlid_path_bits
      '01' + // port_num
      '00',
  )
  // An invalidated key is in host byte order.
  assert.ok(pushCompletion(cq, words(1, { FLAGS: 8, IMM: 0x01020304 })))
  assert.equal(ring.view.getUint32(384 + 128 + 24, true), 0x01020304)
})

test('a CQ holds its capacity; one more overruns it, and it accepts no others', () => {
  const { cq, ring } = queue(3)
  for (let i = 0; i < 3; i++) assert.ok(pushCompletion(cq, words(i)))
  assert.equal(cq.overrun, false)
  assert.equal(pushCompletion(cq, words(3)), false)
  assert.equal(cq.overrun, true)
  assert.deepEqual(
    pollAll(ring).map(({ id }) => id),
    [0n, 1n, 2n],
  )
})

test('completions come in order around the ring as long as the program consumes', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.tuple(fc.nat(20), fc.nat(20)), { maxLength: 50 }),
      (cqe, steps) => {
        const { cq, ring } = queue(cqe)
        let pushed = 0
        let polled = 0
        for (const [push, poll] of steps) {
          for (let i = 0; i < push && pushed - polled < ring.mask; i++) assert.ok(pushCompletion(cq, words(pushed++)))
          for (let i = 0; i < poll; i++) {
            const one = pollCq(ring)
            if (one) assert.equal(one.id, BigInt(polled++))
            else assert.equal(polled, pushed)
          }
        }
        assert.equal(cq.overrun, false)
        assert.ok(isIntact(cq.ring.area))
      },
    ),
  )
})

test("a consumer index beyond the producer's causes no false overrun, however often", () => {
  // Debian's extended CQ calls advance once too often at the end of a poll.
  const { cq, ring } = queue(7)
  for (let round = 0; round < 100; round++) {
    assert.ok(pushCompletion(cq, words(2 * round)), `round ${round}`)
    assert.ok(pushCompletion(cq, words(2 * round + 1)), `round ${round}`)
    ring.consumer = (ring.producer + 1) & ring.mask
    // The next completion fills the consumer's slot, and the consumer does not see it.
    assert.ok(pushCompletion(cq, words(1000 + round)), `round ${round}`)
  }
  for (let burst = 1; burst < ring.mask; burst++)
    for (let round = 0; round < 10; round++) {
      for (let i = 0; i < burst; i++) assert.ok(pushCompletion(cq, words(i)), `burst of ${burst}`)
      ring.consumer = (ring.producer + 1) & ring.mask
    }
  // A completion in a skipped slot reaches it; from there on the whole ring is usable.
  for (let i = 0; i <= ring.mask; i++) assert.ok(pushCompletion(cq, words(i)), `completion ${i}`)
  assert.equal(pollAll(ring).length, ring.mask)
  assert.equal(cq.overrun, false)
})

test('whatever a program writes to its index, nothing is written outside the ring', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 9 }),
      fc.array(fc.oneof(fc.constant('push' as const), fc.integer({ min: 0, max: 2 ** 32 - 1 })), { maxLength: 60 }),
      (cqe, steps) => {
        const { cq, ring } = queue(cqe)
        for (const step of steps) {
          if (step === 'push') pushCompletion(cq, words(1))
          else {
            ring.consumer = step
            ring.producer = ~step
          }
          assert.ok(cq.outstanding >= 0 && cq.outstanding <= ring.mask)
          assert.ok(cq.producer >= 0 && cq.producer <= ring.mask)
        }
        assert.ok(isIntact(cq.ring.area))
      },
    ),
  )
})

test('resize moves waiting completions, in order, up and down and around the end', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 12 }),
      fc.nat(40),
      fc.nat(12),
      fc.integer({ min: 1, max: 30 }),
      (cqe, before, waiting, next) => {
        const q = queue(cqe)
        let id = 0
        for (let i = 0; i < before; i++) {
          pushCompletion(q.cq, words(id++))
          pollCq(q.ring)
        }
        const wait = Math.min(waiting, q.ring.mask)
        const first = id
        for (let i = 0; i < wait; i++) pushCompletion(q.cq, words(id++))
        const old = q.cq.ring
        const freed = resizeCqRing(q.memory, q.cq, next)
        if (wait > next) {
          assert.equal(freed, undefined)
          assert.equal(q.cq.ring, old)
          assert.equal(q.memory.live.size, 1)
        } else {
          assert.equal(freed, old)
          q.memory.free(old)
          q.ring = mapRing(q.cq.ring.area)
          assert.ok(q.ring.mask >= next)
        }
        // The ring continues from there.
        while (id - first < q.ring.mask) assert.ok(pushCompletion(q.cq, words(id++)))
        assert.deepEqual(
          pollAll(q.ring).map(one => Number(one.id)),
          Array.from({ length: id - first }, (_, i) => first + i),
        )
        assert.ok(isIntact(q.cq.ring.area))
      },
    ),
  )
})

test('a resize without memory changes nothing', () => {
  const q = queue(3)
  pushCompletion(q.cq, words(5))
  q.memory.left = 0
  assert.throws(() => resizeCqRing(q.memory, q.cq, 100), { code: 'ENOMEM' })
  assert.equal(pollCq(q.ring)?.id, 5n)
  assert.equal(q.memory.live.size, 1)
})
