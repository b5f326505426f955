/*
 * The two ring layouts, rxe and compact: the engine reads the same requests, and the library the same completions.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { findableMemory } from '../../../src/core/memory/mappable-memory.ts'
import { createRing, mappedRings, type Ring, storeConsumer, storeProducer } from '../../../src/core/memory/rings.ts'
import { createCqRing } from '../../../src/drivers/rings/completion-ring.ts'
import { createReceiveQueue } from '../../../src/drivers/rings/receive-queue.ts'
import { slabRings } from '../../../src/drivers/rings/ring-memory.ts'
import { createSendQueue } from '../../../src/drivers/rings/send-queue.ts'
import { pushCompletion } from '../../../src/drivers/soft/completion-queue.ts'
import { queueWork } from '../../../src/drivers/soft/queues.ts'
import { open } from '../../../src/library/index.ts'
import type { RingBytes } from '../../../src/library/verbs/carrier.ts'
import { CompletionCursor } from '../../../src/library/verbs/cq/completion.ts'
import { RemoteRange } from '../../../src/library/verbs/mr/remote-memory.ts'
import {
  putAtomic,
  putBind,
  putDestination,
  putFlush,
  putImmediate,
  putInline,
  putInvalidate,
  putMany,
  putOne,
  putReceive,
  putRemote,
  putSend,
  putWord,
} from '../../../src/library/verbs/qp/requests.ts'
import {
  consume,
  nextSlot,
  oldestCompletion,
  outstandingRequests,
  type ProgramRing,
  produce,
  programRing,
} from '../../../src/library/verbs/ring.ts'
import { CqKind } from '../../../src/spec/enums.ts'
import { flushPlacement, flushSelectivity } from '../../../src/spec/wire/headers.ts'
import { SendFlags, WrOpcode } from '../../../src/spec/work.ts'
import { Completion, Send, Sge } from '../../../src/transport/engine/types.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'

const MAX_SGE = 3
const MAX_INLINE = 64
const layouts = { rxe: () => mappedRings(findableMemory()), compact: () => slabRings() }
type LayoutName = keyof typeof layouts
const layoutNames = Object.keys(layouts) as LayoutName[]

/** The program's side of a device's ring; `index`: where the program begins. */
const programSide = ({ area, headerAt, elementsAt, layout }: Ring, index = 0): ProgramRing => {
  const bytes: RingBytes = { headerAt, elementsAt, bytes: area.bytes, view: area.view, words: area.words }
  return Object.assign(programRing({ layout, ring: () => bytes }, { offset: 0n, size: 0 }), { index })
}

/**
 * Both sides of a send queue and a receive queue of four requests each. With `flowOffset`, the send queue has
 * datagrams: the flow of an address handle is the handle's number plus `flowOffset`.
 */
const createQueues = (name: LayoutName, flowOffset?: number) => {
  const memory = layouts[name]()
  const send = createSendQueue(memory, 4, MAX_SGE, MAX_INLINE)
  const destinations =
    flowOffset === undefined
      ? undefined
      : {
          pd: 0,
          byHandle: (number: number) => number + flowOffset,
          // All requests name an address handle, none has an address vector.
          qpn: undefined,
          byVector: () => -2,
          address: () => undefined,
          hold: () => {},
          close: () => {},
        }
  const receive = createReceiveQueue(memory, 4, MAX_SGE)
  const work = queueWork([{ send, receive, destinations }])
  return { send, receive, ring: programSide(send.ring), receiveRing: programSide(receive.ring), work }
}

const u32 = fc.integer({ min: 0, max: 0xffffffff })
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
const slice = fc.record({ hi: u32, lo: u32, length: fc.nat(0x100_0000), lkey: u32 })
const local = fc.oneof(slice, fc.array(slice, { maxLength: MAX_SGE, size: 'max' }))
const anyRequest = fc.record({
  opcode: fc.constantFrom(...Object.values(WrOpcode.values)),
  id: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
  flags: fc.nat(7),
  local,
  inline: fc.option(fc.uint8Array({ maxLength: MAX_INLINE, size: 'max' }), { nil: undefined }),
  address: u64,
  rkey: u32,
  qpnOrNewRkey: u32,
  qkeyOrLkey: u32,
  operand: u64,
  swap: u64,
  length: u32,
})
type Request = typeof anyRequest extends fc.Arbitrary<infer T> ? T : never

const { RDMA_WRITE, RDMA_WRITE_WITH_IMM, SEND_WITH_IMM, SEND_WITH_INV, RDMA_READ, LOCAL_INV } = WrOpcode.values
const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, BIND_MW, FLUSH, ATOMIC_WRITE } = WrOpcode.values
const DATALESS = [LOCAL_INV, BIND_MW, FLUSH] as number[]
const REMOTE = [RDMA_READ, RDMA_WRITE, RDMA_WRITE_WITH_IMM, ATOMIC_WRITE] as number[]
const WITH_OPERANDS = [ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, BIND_MW, FLUSH] as number[]
/** Opcodes whose requests use the word of the immediate data. */
const WITH_IMMEDIATE = [SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE_WITH_IMM, LOCAL_INV, BIND_MW] as number[]
/** Opcodes whose payload may be inline. */
const SENDS = [WrOpcode.values.SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE, RDMA_WRITE_WITH_IMM] as number[]

/**
 * Writes a request as library/verbs/qp/operations.ts does. `length` is also the immediate data or the rkey to
 * invalidate.
 */
const post = (ring: ProgramRing, request: Request, isDatagram: boolean): void => {
  const at = nextSlot(ring)
  const { opcode, address, rkey, qpnOrNewRkey, qkeyOrLkey } = request
  const remote = new RemoteRange(address, rkey, request.length)
  const inline = SENDS.includes(opcode) ? request.inline : undefined
  const hasSlices = !DATALESS.includes(opcode) && opcode !== ATOMIC_WRITE && inline === undefined
  const slices = hasSlices ? request.local : []
  putSend(ring, at, opcode, request.id, inline ? request.flags | SendFlags.values.INLINE : request.flags)
  if (inline) putInline(ring, at, inline)
  else if (Array.isArray(slices)) putMany(ring, at, slices)
  else putOne(ring, at, slices)
  const addressHandle = 1 + (rkey % 1000)
  if (isDatagram) putDestination(ring, at, addressHandle, qpnOrNewRkey & 0xffffff, qkeyOrLkey)
  if (opcode === SEND_WITH_IMM || opcode === RDMA_WRITE_WITH_IMM) putImmediate(ring, at, request.length)
  if (opcode === SEND_WITH_INV || opcode === LOCAL_INV) putInvalidate(ring, at, request.length)
  if (REMOTE.includes(opcode)) putRemote(ring, at, remote)
  if (opcode === ATOMIC_CMP_AND_SWP || opcode === ATOMIC_FETCH_AND_ADD)
    putAtomic(ring, at, remote, request.operand, request.swap)
  if (opcode === ATOMIC_WRITE) putWord(ring, at, request.operand)
  if (opcode === FLUSH) putFlush(ring, at, remote, remote.length, flushPlacement.GLOBAL, flushSelectivity.REGION)
  if (opcode === BIND_MW) putBind(ring, at, rkey, qpnOrNewRkey, qkeyOrLkey, address, request.length, request.flags)
  produce(ring)
}

/** The words of a request. Words that differ between the layouts are 0: unused words, and the offset of inline data. */
const usedWords = (words: Uint32Array, isDatagram: boolean): number[] => {
  const opcode = words[Send.OPCODE]
  const used = Array.from(words.subarray(0, Send.SGE + words[Send.SGES] * Sge.WORDS))
  used[Send.INLINE_AT] = 0
  const clear = (...unused: number[]): void => {
    for (const word of unused) used[word] = 0
  }
  const hasOperands = WITH_OPERANDS.includes(opcode)
  if (isDatagram) clear(Send.RKEY, Send.COMPARE_HI, Send.SWAP_LO, Send.SWAP_HI)
  else if (!hasOperands) clear(Send.COMPARE_LO, Send.COMPARE_HI, Send.SWAP_LO, Send.SWAP_HI)
  if (!WITH_IMMEDIATE.includes(opcode)) clear(Send.IMM)
  const hasRemote = hasOperands || REMOTE.includes(opcode)
  if (!hasRemote && !isDatagram) clear(Send.RKEY, Send.REMOTE_LO, Send.REMOTE_HI)
  return used
}

describe('requests', () => {
  for (const isDatagram of [false, true])
    it(`${isDatagram ? 'of datagrams ' : ''}become the same words in both layouts`, () => {
      const { SEND } = WrOpcode.values
      const requestOf = isDatagram
        ? anyRequest.filter(({ opcode }) => opcode === SEND || opcode === SEND_WITH_IMM)
        : anyRequest
      fc.assert(
        fc.property(fc.array(requestOf, { minLength: 1, maxLength: 12 }), requests => {
          const queues = layoutNames.map(name => createQueues(name, isDatagram ? 100 : undefined))
          requests.forEach((posted, i) => {
            const [first, second] = queues.map(({ ring, work }) => {
              post(ring, posted, isDatagram)
              const words = new Uint32Array(64)
              assert.ok(work.loadSend(0, i, words, 0))
              const arena = plainArena(128)
              if (words[Send.FLAGS] & SendFlags.values.INLINE)
                work.copyInline(0, words[Send.INLINE_AT], 0, arena, 0, 128, 128, words[Send.LENGTH])
              work.retireSend(0, 1)
              assert.equal(outstandingRequests(ring), 0)
              return { words: usedWords(words, isDatagram), inline: [...arena.bytes] }
            })
            assert.deepEqual(second, first)
          })
        }),
      )
    })

  it('of receive queues become the same words in both layouts', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ id: fc.nat({ max: 2 ** 53 - 1 }), local }), { maxLength: 12 }), requests => {
        const queues = layoutNames.map(name => createQueues(name))
        for (const { id, local: slices } of requests) {
          const [first, second] = queues.map(({ receive, receiveRing }) => {
            putReceive(receiveRing, nextSlot(receiveRing), id, slices)
            produce(receiveRing)
            const words = new Uint32Array(32)
            assert.ok(receive.take(words, 0))
            return [...words]
          })
          assert.deepEqual(second, first)
        }
      }),
    )
  })
})

describe('rings', () => {
  it('have at least the requested elements at any index; compact rings fill all slots', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 64 }), u32, (elements, start) => {
        for (const name of layoutNames) {
          const ring = createRing(layouts[name](), elements, 64)
          storeProducer(ring, start)
          storeConsumer(ring, start)
          const program = programSide(ring, start)
          let posted = 0
          while (nextSlot(program) >= 0) {
            produce(program)
            posted++
          }
          assert.equal(posted, ring.capacity)
          assert.ok(posted >= elements)
          if (name === 'compact') assert.equal(posted, 2 ** Math.ceil(Math.log2(elements)))
          assert.equal(outstandingRequests(program), posted)
        }
      }),
    )
  })
})

describe('a queue pair', () => {
  for (const rings of ['compact', 'mapped'] as const)
    it(`has room for as many requests as it reports, with ${rings} rings`, async () => {
      const device = await open({ rings })
      const cq = device.cq({ entries: 64 })
      const qp = device.pd().rcQp({ sendCq: cq, maxSendWr: 16, maxRecvWr: 0 })
      const { maxSendWr, maxRecvWr } = qp.query().cap
      // Rings of rxe hold 2^n - 1 elements. A queue pair accepts what the program asked for.
      assert.deepEqual([maxSendWr, maxRecvWr, cq.entries], [16, 0, rings === 'compact' ? 64 : 127])
      qp.connect(qp.endpoint)
      for (let i = 0; i < maxSendWr; i++) qp.send(new Uint8Array(4), { id: i })
      assert.equal(qp.pending, maxSendWr)
      assert.throws(() => qp.send(new Uint8Array(4)), { code: 'ENOMEM' })
      assert.throws(() => qp.receive(), { code: 'ENOMEM' })
      await device.close()
    })
})

describe('completions', () => {
  it('of both layouts have the same values, over many rounds of the ring', () => {
    const completion = fc.array(u32, { minLength: Completion.WORDS, maxLength: Completion.WORDS })
    fc.assert(
      fc.property(fc.array(completion, { maxLength: 40, size: 'max' }), completions => {
        const queues = layoutNames.map(name => {
          const cq = createCqRing(layouts[name](), 4, CqKind.values.EXTENDED)
          const ring = programSide(cq.ring)
          return { cq, ring, cursor: new CompletionCursor(ring, true) }
        })
        for (const words of completions) {
          const [first, second] = queues.map(({ cq, ring, cursor }) => {
            assert.ok(pushCompletion(cq, Uint32Array.from(words), () => 1234.5))
            cursor.at = oldestCompletion(ring)
            const { id, ok, statusName, opcodeName, bytes, qpn, immediate, invalidated, sourceQpn, hasGrh } = cursor
            const { timestamp } = cursor
            consume(ring)
            return [id, ok, statusName, opcodeName, bytes, qpn, immediate, invalidated, sourceQpn, hasGrh, timestamp]
          })
          assert.deepEqual(second, first)
          // The timestamp has the clock's microseconds as nanoseconds.
          assert.equal(first.at(-1), 1234500)
        }
      }),
    )
  })

  it('fill a compact queue to the last slot, and then overrun the queue, at any index', () => {
    for (const start of [0, 0x7fffffff, -3]) {
      const cq = createCqRing(slabRings(), 4)
      cq.producer = start
      cq.consumer = start
      storeProducer(cq.ring, start)
      storeConsumer(cq.ring, start)
      const ring = programSide(cq.ring, start)
      const words = new Uint32Array(Completion.WORDS)
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 4; i++) assert.ok(pushCompletion(cq, words))
        for (let i = 0; i < 4; i++) {
          assert.ok(oldestCompletion(ring) >= 0)
          consume(ring)
        }
        assert.equal(oldestCompletion(ring), -1)
      }
      for (let i = 0; i < 4; i++) assert.ok(pushCompletion(cq, words))
      assert.equal(pushCompletion(cq, words), false)
    }
  })
})
