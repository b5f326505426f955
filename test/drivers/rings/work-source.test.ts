/*
 * Work requests in rxe's rings are copied to the engine's layout (`queueWork`). Invalid contents are refused or
 * bounded.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createReceiveQueue, type RingReceives } from '../../../src/drivers/rings/receive-queue.ts'
import { createSendQueue, type RingSends } from '../../../src/drivers/rings/send-queue.ts'
import { type QpQueues, queueWork, resetQueues } from '../../../src/drivers/soft/queues.ts'
import { RingHeader, SendWqe } from '../../../src/spec/drivers/mapped-rings.ts'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { BindMw, Flush, Receive, Send, Sge, type WorkSource } from '../../../src/transport/engine/types.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import {
  Flag,
  isIntact,
  type MappedRing,
  mapRing,
  postReceive,
  postSend,
  type SendRequest,
  type SgeRecord,
  testRings,
  Wr,
  writeSend,
} from '../rxe/provider.ts'

const MAX_SGE = 4
const INLINE = 64
const ROW = 3
/** Guard words around the copied request, and their contents. */
const MARGIN = 8
const MARK = 0xa5a5a5a5

interface Setup {
  readonly rings: QpQueues & { send: RingSends; receive: RingReceives }
  readonly work: WorkSource
  readonly send: MappedRing
  readonly receive: MappedRing
  /** The send request with this index, modulo 2^32; undefined if it is not posted. */
  load(index: number): Uint32Array | undefined
  /** Consumes a receive request; undefined if none is posted. */
  take(): Uint32Array | undefined
}

const setUp = (elements = 7): Setup => {
  const memory = testRings()
  const send = createSendQueue(memory, elements, MAX_SGE, INLINE)
  const receive = createReceiveQueue(memory, elements, MAX_SGE)
  const rings = { send, receive }
  const rows: QpQueues[] = []
  rows[ROW] = rings
  const work = queueWork(rows)
  const copied = (length: number, copy: (target: Uint32Array, at: number) => boolean): Uint32Array | undefined => {
    const target = new Uint32Array(length + 2 * MARGIN).fill(MARK)
    const isPosted = copy(target, MARGIN)
    const outside = [...target.subarray(0, MARGIN), ...target.subarray(MARGIN + length)]
    assert.ok(
      outside.every(word => word === MARK),
      'nothing is written outside of the request',
    )
    if (isPosted) return target.slice(MARGIN, MARGIN + length)
    assert.ok(
      target.every(word => word === MARK),
      'nothing is written if there is no request',
    )
    return undefined
  }
  return {
    rings,
    work,
    send: mapRing(send.ring.area),
    receive: mapRing(receive.ring.area),
    load: index => copied(Send.SGE + MAX_SGE * Sge.WORDS, (target, at) => work.loadSend(ROW, index, target, at)),
    take: () => copied(Receive.SGE + MAX_SGE * Sge.WORDS, (target, at) => work.takeReceive(ROW, target, at)),
  }
}

/** Posts a request to a new queue, and returns the copy. */
const postAndLoad = (request: SendRequest): Uint32Array => {
  const qp = setUp()
  assert.ok(postSend(qp.send, request))
  const words = qp.load(0)
  assert.ok(words)
  return words
}

const sges: readonly SgeRecord[] = [
  { address: 0x1_2345_6780, length: 100, lkey: 0xfffffffe },
  { address: 0x7fff_0000_1000, length: 0, lkey: 2 },
  { address: 8, length: 28, lkey: 3 },
]
/** Bytes of `sges`. */
const SGES_BYTES = 128

const { LOC_LEN_ERR, LOC_QP_OP_ERR } = WcStatus.values
const { BIND_MW, LOCAL_INV, FLUSH, ATOMIC_WRITE } = WrOpcode.values
/** The low 8 bits of `Send.REFUSED` are the status of the completion. */
const STATUS_MASK = 0xff

for (const [name, opcode] of Object.entries(Wr)) {
  test(`${name}: all fields arrive`, () => {
    const isAtomic = opcode === Wr.CAS || opcode === Wr.FAA
    const words = postAndLoad({
      opcode,
      id: 0x1122334455667788n,
      flags: Flag.SIGNALED | Flag.FENCE | Flag.SOLICITED,
      imm: 0x0a0b0c0d,
      sges,
      remote: 0x1_0000_0ff8,
      rkey: 0x89abcdef,
      compareAdd: 0x8000_0000_0000_0001n,
      swap: 0xfedc_ba98_7654_3210n,
    })
    assert.equal(words[Send.REFUSED], 0)
    assert.equal(words[Send.OPCODE], opcode)
    assert.equal(words[Send.FLAGS], Flag.SIGNALED | Flag.FENCE | Flag.SOLICITED)
    assert.deepEqual([words[Send.ID_HI], words[Send.ID_LO]], [0x11223344, 0x55667788])
    assert.equal(words[Send.IMM], 0x0a0b0c0d)
    assert.deepEqual([words[Send.REMOTE_HI], words[Send.REMOTE_LO]], [1, 0xff8])
    assert.equal(words[Send.RKEY], 0x89abcdef)
    if (isAtomic) {
      assert.deepEqual([words[Send.COMPARE_HI], words[Send.COMPARE_LO]], [0x80000000, 1])
      assert.deepEqual([words[Send.SWAP_HI], words[Send.SWAP_LO]], [0xfedcba98, 0x76543210])
    }
    assert.equal(words[Send.SGES], 3)
    assert.equal(words[Send.LENGTH], SGES_BYTES)
    assert.deepEqual(
      [0, 1, 2].map(i => [...words.subarray(Send.SGE + i * Sge.WORDS, Send.SGE + (i + 1) * Sge.WORDS)]),
      [
        [0x23456780, 1, 100, 0xfffffffe],
        [0x1000, 0x7fff, 0, 2],
        [8, 0, 28, 3],
      ],
      'low and high half of the address, length and lkey of each SGE',
    )
  })
}

test('immediate data is big-endian, the key to invalidate is in host order', () => {
  for (const [opcode, bytes] of [
    [Wr.SEND_IMM, [1, 2, 3, 4]],
    [Wr.WRITE_IMM, [1, 2, 3, 4]],
    [Wr.SEND_INV, [4, 3, 2, 1]],
  ] as const) {
    const qp = setUp()
    writeSend(qp.send, { opcode })
    bytes.forEach((byte, i) => {
      qp.send.view.setUint8(RingHeader.DATA + SendWqe.IMM + i, byte)
    })
    qp.send.producer = 1
    assert.equal(qp.load(0)?.[Send.IMM], 0x01020304, `opcode ${opcode}`)
  }
})

test('a wrong total length is replaced by the sum of the elements', () => {
  // ibv_wr_set_sge_list of rdma-core 44 stores the first element's length times the number of elements.
  const words = postAndLoad({ opcode: Wr.SEND, sges, dmaLength: 300 })
  assert.equal(words[Send.LENGTH], SGES_BYTES)
  assert.equal(words[Send.REFUSED], 0)
})

test('elements of more than 2^31 bytes in total are a length error', () => {
  const big = { address: 0, length: 0xffffffff, lkey: 1 }
  const words = postAndLoad({ opcode: Wr.WRITE, sges: [big, big, big, big], dmaLength: 4 })
  assert.equal(words[Send.REFUSED] & STATUS_MASK, LOC_LEN_ERR)
  assert.equal(words[Send.LENGTH], 0)
  assert.equal(words[Send.SGES], 0)
  const longest = { address: 0, length: 2 ** 31, lkey: 1 }
  assert.equal(postAndLoad({ opcode: Wr.WRITE, sges: [longest] })[Send.REFUSED], 0)
  assert.equal(
    postAndLoad({ opcode: Wr.WRITE, sges: [longest, { ...longest, length: 1 }] })[Send.REFUSED] & STATUS_MASK,
    LOC_LEN_ERR,
  )
})

test('BIND_MW, LOCAL_INV and FLUSH have operands and no data, even if they name SGEs', () => {
  const loadWith = (opcode: number, fill: (view: DataView, at: number) => void): Uint32Array => {
    const qp = setUp()
    writeSend(qp.send, { opcode, sges, flags: Flag.SIGNALED | Flag.INLINE, numSge: MAX_SGE + 7 })
    fill(qp.send.view, RingHeader.DATA)
    qp.send.producer = 1
    const words = qp.load(0)
    assert.ok(words)
    assert.deepEqual([words[Send.REFUSED], words[Send.SGES], words[Send.LENGTH]], [0, 0, 0])
    assert.equal(words[Send.FLAGS], Flag.SIGNALED)
    return words
  }
  const bind = loadWith(BIND_MW, (view, at) => {
    view.setBigUint64(at + SendWqe.REMOTE, 0x1111_2222_3333_4444n, true)
    view.setBigUint64(at + SendWqe.MW_LENGTH, 0x5_0000_0006n, true)
    view.setUint32(at + SendWqe.MW_LKEY, 0xa1, true)
    view.setUint32(at + SendWqe.MW_KEY, 0xa2, true)
    view.setUint32(at + SendWqe.MW_NEW_KEY, 0xa3, true)
    view.setUint32(at + SendWqe.MW_ACCESS, 0xa4, true)
  })
  const words = ['HI', 'LO', 'LENGTH_HI', 'LENGTH_LO', 'LKEY', 'WINDOW', 'KEY', 'ACCESS'] as const
  assert.deepEqual(
    words.map(name => bind[BindMw[name]]),
    [0x1111_2222, 0x3333_4444, 5, 6, 0xa1, 0xa2, 0xa3, 0xa4],
  )
  const localInv = loadWith(LOCAL_INV, (view, at) => view.setUint32(at + SendWqe.IMM, 0x0102_0304, true))
  assert.equal(localInv[Send.IMM], 0x0102_0304)
  const flush = loadWith(FLUSH, (view, at) => {
    view.setBigUint64(at + SendWqe.REMOTE, 0x1111_2222_3333_4444n, true)
    view.setUint32(at + SendWqe.DMA_LENGTH, 100, true)
    view.setUint32(at + SendWqe.FLUSH_RKEY, 0xbeef, true)
    view.setUint8(at + SendWqe.FLUSH_PLACEMENT, 1)
    view.setUint8(at + SendWqe.FLUSH_SELECTIVITY, 2)
  })
  assert.deepEqual(
    [Send.REMOTE_LO, Send.RKEY, Flush.LENGTH, Flush.PLACEMENT, Flush.SELECTIVITY].map(word => flush[word]),
    [0x3333_4444, 0xbeef, 100, 1, 2],
  )
})

test('an ATOMIC WRITE has its 8 bytes in the request, even without the inline flag', () => {
  const data = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8])
  const qp = setUp()
  writeSend(qp.send, { opcode: ATOMIC_WRITE, inline: data, rkey: 0xbeef, dmaLength: 0xffff_ffff })
  qp.send.view.setUint32(RingHeader.DATA + SendWqe.FLAGS, Flag.SIGNALED, true)
  qp.send.producer = 1
  const words = qp.load(0)
  assert.ok(words)
  assert.deepEqual([words[Send.REFUSED], words[Send.LENGTH], words[Send.RKEY]], [0, 8, 0xbeef])
  const arena = plainArena(16)
  const [start, at, chunk, stride] = [0, 4, 8, 8]
  qp.work.copyInline(ROW, words[Send.INLINE_AT], start, arena, at, chunk, stride, words[Send.LENGTH])
  assert.deepEqual(arena.bytes.slice(at, at + 8), data)
})

test('too many elements and unknown opcodes are refused', () => {
  assert.equal(postAndLoad({ opcode: Wr.SEND, numSge: MAX_SGE + 1 })[Send.REFUSED] & STATUS_MASK, LOC_QP_OP_ERR)
  assert.equal(postAndLoad({ opcode: Wr.SEND, numSge: 0xffffffff })[Send.REFUSED] & STATUS_MASK, LOC_QP_OP_ERR)
  for (const opcode of [10, 11, 12, 13, 16, 31, 32, 64, 0x80000000, 0xffffffff])
    assert.equal(postAndLoad({ opcode })[Send.REFUSED] & STATUS_MASK, LOC_QP_OP_ERR, `opcode ${opcode}`)
})

test('a refused request keeps its identifier for the completion', () => {
  const words = postAndLoad({ opcode: 77, id: 0x1122334455667788n, sges })
  assert.deepEqual([words[Send.ID_HI], words[Send.ID_LO]], [0x11223344, 0x55667788])
  assert.deepEqual([words[Send.SGES], words[Send.LENGTH]], [0, 0])
})

test('inline data up to the limit is copied in chunks, also without the inline flag', () => {
  const data = Uint8Array.from({ length: INLINE }, (_, i) => i + 1)
  const qp = setUp()
  postSend(qp.send, { opcode: Wr.SEND, inline: data })
  const words = qp.load(0)!
  assert.deepEqual([words[Send.SGES], words[Send.LENGTH], words[Send.REFUSED]], [0, INLINE, 0])
  assert.equal(words[Send.FLAGS] & Flag.INLINE, Flag.INLINE)
  const arena = plainArena(4096)
  const [start, at, chunk, stride, total] = [10, 100, 20, 50, 45]
  qp.work.copyInline(ROW, words[Send.INLINE_AT], start, arena, at, chunk, stride, total)
  assert.deepEqual(arena.bytes.slice(100, 120), data.slice(10, 30))
  assert.deepEqual(arena.bytes.slice(150, 170), data.slice(30, 50))
  assert.deepEqual(arena.bytes.slice(200, 206), Uint8Array.from([...data.slice(50, 55), 0]))

  assert.equal(
    postAndLoad({ opcode: Wr.SEND, inline: data, dmaLength: INLINE + 1 })[Send.REFUSED] & STATUS_MASK,
    LOC_LEN_ERR,
  )
  assert.equal(
    postAndLoad({ opcode: Wr.SEND, inline: data, dmaLength: 0xffffffff })[Send.REFUSED] & STATUS_MASK,
    LOC_LEN_ERR,
  )
  // ibv_wr_set_inline_data of rdma-core 44 sets no flag.
  const flagless = postAndLoad({ opcode: Wr.SEND, sges: [], dmaLength: 12, flags: Flag.SIGNALED })
  assert.deepEqual(
    [flagless[Send.FLAGS] & Flag.INLINE, flagless[Send.LENGTH], flagless[Send.REFUSED]],
    [Flag.INLINE, 12, 0],
  )
  const empty = postAndLoad({ opcode: Wr.SEND, sges: [], flags: Flag.SIGNALED })
  assert.deepEqual([empty[Send.FLAGS] & Flag.INLINE, empty[Send.LENGTH], empty[Send.REFUSED]], [0, 0, 0])
})

test('a send request is loaded by its index, which counts modulo 2^32, only if it is posted', () => {
  const qp = setUp(3)
  let index = 0xffff_fff0
  qp.send.producer = index & qp.send.mask
  qp.send.consumer = qp.send.producer
  qp.rings.send.retiredIndex = qp.send.producer
  for (let round = 0; round < 40; round++) {
    assert.equal(qp.load(index), undefined)
    assert.ok(postSend(qp.send, { opcode: Wr.SEND, id: BigInt(round) }))
    assert.equal(qp.load(index)![Send.ID_LO], round)
    qp.work.retireSend(ROW, 1)
    index = (index + 1) >>> 0
    assert.equal(qp.send.consumer, index & qp.send.mask, 'the program sees free slots again')
  }
})

test('receive requests are consumed once, in order, and their slots are free immediately', () => {
  const qp = setUp(3)
  for (let round = 0; round < 20; round++) {
    assert.equal(qp.take(), undefined)
    assert.ok(postReceive(qp.receive, BigInt(2 * round), sges))
    assert.ok(postReceive(qp.receive, 0xffffffff00000000n + BigInt(round), []))
    const full = qp.take()!
    assert.deepEqual([full[Receive.ID_LO], full[Receive.SGES], full[Receive.LENGTH]], [2 * round, 3, SGES_BYTES])
    assert.deepEqual([...full.subarray(Receive.SGE, Receive.SGE + 4)], [0x23456780, 1, 100, 0xfffffffe])
    const empty = qp.take()!
    assert.deepEqual([empty[Receive.ID_HI], empty[Receive.SGES], empty[Receive.LENGTH]], [0xffffffff, 0, 0])
    assert.equal(qp.receive.consumer, qp.receive.producer)
  }
})

test('a receive request with more SGEs than the queue allows is a buffer of zero bytes; lengths are limited to 2^32 - 1', () => {
  const qp = setUp()
  postReceive(qp.receive, 1n, sges, MAX_SGE + 1)
  const words = qp.take()!
  assert.deepEqual([words[Receive.SGES], words[Receive.LENGTH], words[Receive.ID_LO]], [0, 0, 1])
  const big = { address: 0, length: 0xffffffff, lkey: 1 }
  postReceive(qp.receive, 2n, [big, big])
  assert.equal(qp.take()![Receive.LENGTH], 0xffffffff, 'the sum is limited to 2^32 - 1')
})

test('garbage in rings and indices is refused or executed within bounds', () => {
  const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
  fc.assert(
    fc.property(
      fc.array(u32, { minLength: 60, maxLength: 400, size: 'max' }),
      fc.array(u32, { minLength: 1, maxLength: 8 }),
      u32,
      (noise, indices, seed) => {
        const qp = setUp(3)
        for (const { area } of [qp.rings.send.ring, qp.rings.receive.ring])
          for (let i = 0; i < area.length / 4; i++)
            area.view.setUint32(area.at + 4 * i, noise[(i + seed) % noise.length], true)
        const arena = plainArena(4096)
        for (const index of indices) {
          const words = qp.load(index)
          if (words) {
            const isRefused = words[Send.REFUSED] !== 0
            assert.ok(words[Send.SGES] <= MAX_SGE)
            assert.ok(words[Send.LENGTH] <= 2 ** 31)
            if (isRefused) assert.deepEqual([words[Send.SGES], words[Send.LENGTH]], [0, 0])
            const { area } = qp.rings.send.ring
            const at = words[Send.INLINE_AT]
            const length = words[Send.LENGTH]
            if (words[Send.FLAGS] & Flag.INLINE && !isRefused) {
              assert.ok(length <= INLINE)
              assert.ok(at >= area.at && at + length <= area.at + area.length)
              qp.work.copyInline(ROW, at, 0, arena, 0, INLINE, INLINE, length)
            } else if (!isRefused) {
              const lengths = Array.from(
                { length: words[Send.SGES] },
                (_, i) => words[Send.SGE + i * Sge.WORDS + Sge.LENGTH],
              )
              assert.equal(
                length,
                lengths.reduce((sum, sgeLength) => sum + sgeLength, 0),
              )
            }
          }
          const taken = qp.take()
          assert.ok(!taken || taken[Receive.SGES] <= MAX_SGE)
          qp.work.retireSend(ROW, 1)
          qp.send.producer = index
          qp.receive.producer = seed ^ index
        }
        assert.ok(isIntact(qp.rings.send.ring.area) && isIntact(qp.rings.receive.ring.area))
      },
    ),
  )
})

test('a reset empties both queues for device and program', () => {
  const qp = setUp()
  for (let i = 0; i < 3; i++) {
    postSend(qp.send, { opcode: Wr.SEND })
    postReceive(qp.receive, 0n, [])
  }
  qp.take()
  qp.work.retireSend(ROW, 2)
  resetQueues(qp.rings)
  assert.deepEqual([qp.send.producer, qp.send.consumer, qp.receive.producer, qp.receive.consumer], [0, 0, 0, 0])
  assert.equal(qp.load(0), undefined)
  assert.equal(qp.take(), undefined)
  postSend(qp.send, { opcode: Wr.READ })
  assert.equal(qp.load(0)![Send.OPCODE], Wr.READ)
})
