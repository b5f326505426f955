/*
 * Completion rings lose no completion before an overrun. A program that corrupts its index harms only itself.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type CqRing, createCqRing, resizeCqRing } from '../../../src/drivers/rings/completion-ring.ts'
import { pushCompletion } from '../../../src/drivers/soft/completion-queue.ts'
import { RingHeader, Wc } from '../../../src/spec/drivers/mapped-rings.ts'
import { WcFlags } from '../../../src/spec/work.ts'
import { Completion } from '../../../src/transport/engine/types.ts'
import { isIntact, type MappedRing, mapRing, pollAll, pollCq, type TestRings, testRings } from '../rxe/provider.ts'

/** A completion in the engine's layout (`Completion`). */
const completionOf = (id: number, fields: Partial<Record<keyof typeof Completion, number>> = {}): Uint32Array => {
  const completion = new Uint32Array(Completion.WORDS)
  completion[Completion.ID_LO] = id
  for (const [name, value] of Object.entries(fields)) completion[Completion[name as keyof typeof Completion]] = value
  return completion
}

interface Queue {
  readonly memory: TestRings
  readonly cq: CqRing
  ring: MappedRing
}
const makeQueue = (cqe: number): Queue => {
  const memory = testRings()
  const cq = createCqRing(memory, cqe)
  return { memory, cq, ring: mapRing(cq.ring.area) }
}

test('a completion has the layout of ib_uverbs_wc', () => {
  const { cq, ring } = makeQueue(4)
  const completion = completionOf(0x55667788, {
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
  assert.ok(pushCompletion(cq, completion))
  const wc = new Uint8Array(ring.view.buffer, ring.view.byteOffset + RingHeader.DATA, 48)
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
      '00', // padding
  )
  // an invalidated key is in host byte order
  assert.ok(pushCompletion(cq, completionOf(1, { FLAGS: WcFlags.values.WITH_INV, IMM: 0x01020304 })))
  assert.equal(ring.view.getUint32(RingHeader.DATA + 2 ** Wc.ELEMENT_SHIFT + Wc.IMM, true), 0x01020304)
})

test('completions come in order around the ring as long as the program consumes', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.tuple(fc.nat(20), fc.nat(20)), { maxLength: 50, size: 'max' }),
      (cqe, steps) => {
        const { cq, ring } = makeQueue(cqe)
        let pushed = 0
        let polled = 0
        for (const [push, poll] of steps) {
          for (let i = 0; i < push && pushed - polled < ring.mask; i++)
            assert.ok(pushCompletion(cq, completionOf(pushed++)))
          for (let i = 0; i < poll; i++) {
            const completion = pollCq(ring)
            if (completion) assert.equal(completion.id, BigInt(polled++))
            else assert.equal(polled, pushed)
          }
        }
        assert.equal(cq.hasOverrun, false)
        assert.ok(isIntact(cq.ring.area))
      },
    ),
  )
})

test('a consumer index beyond the producer index causes no false overrun', () => {
  // Debian's extended CQ calls advance the consumer index once too often at the end of a poll
  const { cq, ring } = makeQueue(7)
  for (let round = 0; round < 100; round++) {
    assert.ok(pushCompletion(cq, completionOf(2 * round)), `round ${round}`)
    assert.ok(pushCompletion(cq, completionOf(2 * round + 1)), `round ${round}`)
    ring.consumer = (ring.producer + 1) & ring.mask
    // the next completion fills the slot before the consumer index: the program sees an empty ring
    assert.ok(pushCompletion(cq, completionOf(1000 + round)), `round ${round}`)
  }
  for (let burst = 1; burst < ring.mask; burst++)
    for (let round = 0; round < 10; round++) {
      for (let i = 0; i < burst; i++) assert.ok(pushCompletion(cq, completionOf(i)), `burst of ${burst}`)
      ring.consumer = (ring.producer + 1) & ring.mask
    }
  // a whole round of completions fits, and the program sees all but one
  for (let i = 0; i <= ring.mask; i++) assert.ok(pushCompletion(cq, completionOf(i)), `completion ${i}`)
  assert.equal(pollAll(ring).length, ring.mask)
  assert.equal(cq.hasOverrun, false)
})

test('nothing is written outside the ring, although a program writes any index', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 9 }),
      fc.array(fc.oneof(fc.constant('push' as const), fc.integer({ min: 0, max: 2 ** 32 - 1 })), {
        maxLength: 60,
        size: 'max',
      }),
      (cqe, steps) => {
        const { cq, ring } = makeQueue(cqe)
        for (const step of steps) {
          if (step === 'push') pushCompletion(cq, completionOf(1))
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

test('a resize keeps waiting completions in order, and is refused below their number', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 12 }),
      fc.nat(40),
      fc.nat(12),
      fc.integer({ min: 1, max: 30 }),
      (cqe, polledBefore, waiting, newCqe) => {
        const q = makeQueue(cqe)
        let id = 0
        for (let i = 0; i < polledBefore; i++) {
          pushCompletion(q.cq, completionOf(id++))
          pollCq(q.ring)
        }
        const count = Math.min(waiting, q.ring.mask)
        const first = id
        for (let i = 0; i < count; i++) pushCompletion(q.cq, completionOf(id++))
        const old = q.cq.ring
        const freed = resizeCqRing(q.memory, q.cq, newCqe)
        if (count > newCqe) {
          assert.equal(freed, undefined)
          assert.equal(q.cq.ring, old)
          assert.equal(q.memory.live.size, 1)
        } else {
          assert.equal(freed, old)
          q.memory.free(old)
          q.ring = mapRing(q.cq.ring.area)
          assert.ok(q.ring.mask >= newCqe)
        }
        while (id - first < q.ring.mask) assert.ok(pushCompletion(q.cq, completionOf(id++)))
        assert.equal(pushCompletion(q.cq, completionOf(id)), false)
        assert.deepEqual(
          pollAll(q.ring).map(completion => Number(completion.id)),
          Array.from({ length: id - first }, (_, i) => first + i),
        )
        assert.ok(isIntact(q.cq.ring.area))
      },
    ),
  )
})

test('a resize without memory changes nothing', () => {
  const q = makeQueue(3)
  pushCompletion(q.cq, completionOf(5))
  q.memory.allocationsLeft = 0
  assert.throws(() => resizeCqRing(q.memory, q.cq, 100), { code: 'ENOMEM' })
  assert.equal(pollCq(q.ring)?.id, 5n)
  assert.equal(q.memory.live.size, 1)
})
