/*
 * Send queues without doorbell record (send_dbr_mode NO_DBR_EXT): the program stores the beginning of its last request
 * in the doorbell page.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { contextOf } from '../../../../src/drivers/mlx5/context.ts'
import type { DoorbellPage } from '../../../../src/drivers/mlx5/doorbell-register.ts'
import { Uar } from '../../../../src/spec/drivers/mlx5.ts'
import { BLOCK_BYTES, CompletionKind } from '../../../../src/spec/drivers/mlx5-queues.ts'
import { completionsOf } from '../../machine.ts'
import { assertErrno, assertRefused } from '../firmware.ts'
import { machine, program, RDMA_WRITE } from '../machine.ts'

const { REQUEST } = CompletionKind
const SENDS = 64
const REGISTER = 0x600

const setUp = () => {
  const m = machine(2)
  const [a, b] = [program(m, 0, { commands: true }), program(m, 1)]
  const [qa, qb] = [a.queuePair('rc', { sends: SENDS, isRecordless: true }), b.queuePair('rc')]
  qa.connect(qb, 1)
  qb.connect(qa, 0)
  const uar = contextOf(a.context).numbers.get('uar')!.get(a.firmware!.uar)!
  const { view, at } = (uar.state as DoorbellPage).page
  const { view: queue } = a.pages
  const ring = (first: number): void => {
    const control = qa.sendsAt + (first & (SENDS - 1)) * BLOCK_BYTES
    for (const offset of [0, 4]) view.setUint32(at + REGISTER + offset, queue.getUint32(control + offset))
  }
  const write = (offset: number): number =>
    qa.post(
      {
        opcode: RDMA_WRITE,
        data: [a.element(offset, 8)],
        remote: { address: b.address + BigInt(offset), rkey: b.region.rkey },
      },
      false,
    )
  return { m, a, b, qa, qb, uar, view, at, ring, write }
}

describe('a send queue without doorbell record', () => {
  it('sends what its register tells, round after round, and nothing before', () => {
    const { m, a, b, ring, write } = setUp()
    for (let i = 0; i < a.bytes.length; i++) a.bytes[i] = i * 7
    for (let n = 0; n < 300; n += 3) {
      const posted = [0, 1, 2].map(i => write(8 * (n + i)))
      for (const device of m.devices) device.poll(0)
      assert.equal(a.poll().length, 0)
      ring(posted[2]!)
      const seen = completionsOf(m, a, 3)
      assert.deepEqual(
        seen.map(({ kind, counter }) => [kind, counter]),
        posted.map(first => [REQUEST, first & 0xffff]),
      )
    }
    assert.deepEqual(b.bytes.slice(0, 2400), a.bytes.slice(0, 2400))
  })

  it('ignores stores that are not its own, and bears any', () => {
    const { m, a, qa, view, at, ring, write } = setUp()
    const first = write(0)
    view.setUint32(at + REGISTER, (first << 8) | RDMA_WRITE)
    view.setUint32(at + REGISTER + 4, ((qa.qpn + 1) << 8) | 3)
    for (const device of m.devices) device.poll(0)
    assert.equal(a.poll().length, 0)
    ring(first)
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
    for (let i = 0; i < 10_000; i++) {
      view.setUint32(at + REGISTER, Math.imul(i, 0x9e37_79b1) >>> 0)
      view.setUint32(at + REGISTER + 4, ((qa.qpn << 8) | (i & 0xff)) >>> 0)
      m.devices[0]!.poll(0)
      a.poll()
    }
    qa.destroy()
  })

  it('begins anew after RESET', () => {
    const { m, a, qa, qb, ring, write } = setUp()
    ring(write(0))
    completionsOf(m, a, 1)
    qa.reset()
    qb.reset()
    qa.connect(qb, 1)
    qb.connect(qa, 0)
    const first = write(8)
    assert.equal(first, 0)
    ring(first)
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
  })

  it('has the register of its page for itself, and keeps the page', () => {
    const { a, qa, uar } = setUp()
    const make = () => a.queuePair('rc', { isRecordless: true })
    assertRefused(make, 'inUse', /doorbell page/)
    assertErrno(() => a.call(Uar, 'destroy', uar.handle, {}), 'EBUSY')
    qa.destroy()
    make().destroy()
    a.call(Uar, 'destroy', uar.handle, {})
  })
})
