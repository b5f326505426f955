/*
 * Rings have the sizes and headers that Linux's driver had in recordings of programs (test/uapi/abilog.ts), and indices
 * never lead outside them.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  createRing,
  elementAt,
  loadConsumer,
  loadProducer,
  ringMask,
  storeConsumer,
  storeProducer,
} from '../../../src/core/memory/rings.ts'
import { RecvWqe, RingHeader, RingSge, SendWqe, Wc } from '../../../src/spec/drivers/mapped-rings.ts'
import { mappedLayout } from '../../../src/spec/drivers/ring-layout.ts'
import { type LoggedCall, type LoggedIoctl, type LoggedMmap, readAbilog } from '../../uapi/abilog.ts'
import { isIntact, testRings } from '../rxe/provider.ts'

const u32 = (bytes: Uint8Array, at: number): number =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, true)

/** Each successful create of an object of this type (UVERBS_OBJECT_…), and the mmap calls that follow it directly. */
const mappingsOf = (log: string, object: number): { call: LoggedIoctl; maps: LoggedMmap[] }[] => {
  const found: { call: LoggedIoctl; maps: LoggedMmap[] }[] = []
  let last: { call: LoggedIoctl; maps: LoggedMmap[] } | undefined
  for (const call of readAbilog(log) as LoggedCall[]) {
    if (call.kind === 'mmap') last?.maps.push(call)
    else last = undefined
    if (call.kind === 'ioctl' && call.object === object && call.method === CREATE && call.errno === 0) {
      last = { call, maps: [] }
      found.push(last)
    }
  }
  return found
}

const attribute = (call: LoggedIoctl, id: number) => call.attributes.find(a => a.id === id)

/** A new ring must have the size and header of the recorded mapping. */
const assertNewRingIsLike = (map: LoggedMmap, elements: number, bytes: number, name: string): void => {
  const ring = createRing(testRings(), elements, bytes)
  assert.equal(ring.area.length, map.length, `${name}: bytes to map`)
  assert.equal(ring.log2Element, u32(map.head, RingHeader.LOG2_ELEMENT), `${name}: log2 of the bytes of an element`)
  assert.equal(ring.mask, u32(map.head, RingHeader.INDEX_MASK), `${name}: mask`)
  const head = ring.area.bytes.subarray(ring.area.at, ring.area.at + map.head.length)
  assert.deepEqual(head, map.head, `${name}: header`)
}

// Numbers of rdma/ib_user_ioctl_cmds.h.
const UVERBS_OBJECT_CQ = 3
const UVERBS_OBJECT_QP = 4
const CREATE = 0
const UVERBS_ATTR_CREATE_CQ_CQE = 1
const UVERBS_ATTR_CREATE_QP_SRQ_HANDLE = 3
const UVERBS_ATTR_CREATE_QP_CAP = 8

for (const log of ['ibv_rc_pingpong.client.abilog', 'objects.abilog']) {
  test(`${log}: completion queues are mapped as recorded`, () => {
    const mapped = mappingsOf(log, UVERBS_OBJECT_CQ)
    assert.ok(mapped.length > 0)
    for (const { call, maps } of mapped) {
      assert.equal(maps.length, 1)
      const cqe = Number(attribute(call, UVERBS_ATTR_CREATE_CQ_CQE)!.data)
      assertNewRingIsLike(maps[0], cqe, 2 ** Wc.ELEMENT_SHIFT, `line ${call.line}`)
    }
  })

  test(`${log}: queue pairs are mapped as recorded, the receive queue first`, () => {
    // excludes QPs with an SRQ and extended QPs, whose mappings differ
    const mapped = mappingsOf(log, UVERBS_OBJECT_QP).filter(
      ({ call, maps }) => maps.length === 2 && !attribute(call, UVERBS_ATTR_CREATE_QP_SRQ_HANDLE),
    )
    assert.ok(mapped.length > 0)
    for (const { call, maps } of mapped) {
      // struct ib_uverbs_qp_cap before the call
      const cap = attribute(call, UVERBS_ATTR_CREATE_QP_CAP)!.before!
      const [sends, receives, sendSges, receiveSges, inline] = [0, 4, 8, 12, 16].map(offset => u32(cap, offset))
      assertNewRingIsLike(maps[0], receives, RecvWqe.SGE + receiveSges * RingSge.BYTES, `line ${call.line}: receive`)
      const data = Math.max(sendSges * RingSge.BYTES, inline)
      assertNewRingIsLike(maps[1], sends, SendWqe.SGE + data, `line ${call.line}: send`)
    }
  })
}

test('a ring holds the requested number of requests; number and size of elements are powers of two', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 0, max: 2000 }), (elements, bytes) => {
      const ring = createRing(testRings(), elements, bytes)
      assert.equal(ring.mask, ringMask(mappedLayout, elements))
      assert.ok(ring.mask >= elements && (ring.mask & (ring.mask + 1)) === 0)
      assert.ok(elements === 0 || ring.mask < 2 * elements + 1, 'the number of elements is not larger than needed')
      assert.ok(2 ** ring.log2Element >= Math.max(64, bytes))
      assert.ok(bytes <= 64 ? ring.log2Element === 6 : 2 ** ring.log2Element < 2 * bytes)
      assert.ok(RingHeader.DATA + (ring.mask + 1) * 2 ** ring.log2Element <= ring.area.length)
    }),
  )
})

test('any index that a program writes stays inside the ring', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 300 }),
      fc.integer({ min: 1, max: 400 }),
      fc.array(fc.integer({ min: -(2 ** 31), max: 2 ** 32 - 1 }), { minLength: 1, maxLength: 20, size: 'max' }),
      (elements, bytes, indices) => {
        const ring = createRing(testRings(), elements, bytes)
        const { area } = ring
        const { LOG2_ELEMENT, INDEX_MASK, PRODUCER, CONSUMER } = RingHeader
        for (const index of indices) {
          const at = elementAt(ring, index)
          assert.ok(at >= area.at + RingHeader.DATA && at + 2 ** ring.log2Element <= area.at + area.length)
          // a program can write any value to the header and indices
          for (const offset of [LOG2_ELEMENT, INDEX_MASK, PRODUCER, CONSUMER])
            ring.area.view.setInt32(area.at + offset, index | 0, true)
          assert.ok(loadProducer(ring) <= ring.mask && loadProducer(ring) >= 0)
          assert.ok(loadConsumer(ring) <= ring.mask && loadConsumer(ring) >= 0)
          assert.equal(elementAt(ring, index), at, 'mask and size are copies that the program cannot change')
        }
      },
    ),
  )
})

test('published indices are masked, and nothing is written outside the ring', () => {
  const ring = createRing(testRings(), 3, 64)
  storeProducer(ring, 7)
  storeConsumer(ring, 6)
  const { at } = ring.area
  assert.equal(ring.area.view.getUint32(at + RingHeader.PRODUCER, true), 3)
  assert.equal(ring.area.view.getUint32(at + RingHeader.CONSUMER, true), 2)
  assert.ok(isIntact(ring.area))
})
