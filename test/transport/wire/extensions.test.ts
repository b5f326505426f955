/*
 * The accessors of extension headers agree with the table-driven codec.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { HeaderName } from '../../../src/spec/wire/headers.ts'
import { headers } from '../../../src/spec/wire/headers.ts'
import { headerAt, opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import { arenaOver, plainArena } from '../../../src/transport/wire/arena.ts'
import * as ext from '../../../src/transport/wire/extensions.ts'
import { emitPacket, type HeaderRecord, type WellFormedPacket } from '../../../src/transport/wire/packet.ts'
import { anyPacket } from './arbitrary.ts'

/** Headers of InfiniBand; those of SRD and DC are tested with the driver. */
type Extension = Exclude<HeaderName, 'BTH' | 'SRDETH' | 'SRDAETH' | 'SRDNAK' | 'DCETH' | 'DCAETH'>
type Check<H extends Extension> = (record: HeaderRecord<H>, view: DataView, at: number) => void
const hi = (value: bigint): number => Number(value >> 32n)
const lo = (value: bigint): number => Number(value & 0xffff_ffffn)

const reads: { [H in Extension]: Check<H> } = {
  RETH: (record, v, at) => {
    assert.equal(ext.rethVaHi(v, at), hi(record.va))
    assert.equal(ext.rethVaLo(v, at), lo(record.va))
    assert.equal(ext.rethRkey(v, at), record.rkey)
    assert.equal(ext.rethDmaLen(v, at), record.dmaLen)
  },
  AETH: (record, v, at) => {
    assert.equal(ext.aethSyndrome(v, at), record.syndrome)
    assert.equal(ext.aethMsn(v, at), record.msn)
  },
  AtomicETH: (record, v, at) => {
    assert.equal(ext.atomicVaHi(v, at), hi(record.va))
    assert.equal(ext.atomicVaLo(v, at), lo(record.va))
    assert.equal(ext.atomicRkey(v, at), record.rkey)
    assert.equal(ext.atomicSwapHi(v, at), hi(record.swapDt))
    assert.equal(ext.atomicSwapLo(v, at), lo(record.swapDt))
    assert.equal(ext.atomicCompareHi(v, at), hi(record.cmpDt))
    assert.equal(ext.atomicCompareLo(v, at), lo(record.cmpDt))
  },
  AtomicAckETH: (record, v, at) => {
    assert.equal(ext.atomicAckHi(v, at), hi(record.origRemDt))
    assert.equal(ext.atomicAckLo(v, at), lo(record.origRemDt))
  },
  DETH: (record, v, at) => {
    assert.equal(ext.dethQkey(v, at), record.qkey)
    assert.equal(ext.dethSrcQp(v, at), record.srcQp)
  },
  ImmDt: (record, v, at) => assert.equal(ext.immediate(v, at), record.immDt),
  IETH: (record, v, at) => assert.equal(ext.iethRkey(v, at), record.rkey),
  FETH: (record, v, at) => {
    assert.equal(ext.fethSelectivity(v, at), record.sel)
    assert.equal(ext.fethPlacement(v, at), record.plt)
  },
  XRCETH: (record, v, at) => assert.equal(ext.xrcethSrq(v, at), record.xrcSrq),
}

const puts: { [H in Extension]: Check<H> } = {
  RETH: (r, v, at) => ext.putReth(v, at, hi(r.va), lo(r.va), r.rkey, r.dmaLen),
  AETH: (r, v, at) => ext.putAeth(v, at, r.syndrome, r.msn),
  AtomicETH: (r, v, at) =>
    ext.putAtomicEth(v, at, hi(r.va), lo(r.va), r.rkey, hi(r.swapDt), lo(r.swapDt), hi(r.cmpDt), lo(r.cmpDt)),
  AtomicAckETH: (r, v, at) => ext.putAtomicAck(v, at, hi(r.origRemDt), lo(r.origRemDt)),
  DETH: (r, v, at) => ext.putDeth(v, at, r.qkey, r.srcQp),
  ImmDt: (r, v, at) => ext.putImmediate(v, at, r.immDt),
  IETH: (r, v, at) => ext.putIeth(v, at, r.rkey),
  FETH: (r, v, at) => ext.putFeth(v, at, r.sel, r.plt),
  XRCETH: (r, v, at) => ext.putXrceth(v, at, r.xrcSrq),
}

/** The record with reserved fields zero, as the put functions write them. */
const withoutReserved = (packet: WellFormedPacket): WellFormedPacket =>
  Object.fromEntries(
    Object.entries(packet).map(([key, record]) => [
      key,
      key in headers
        ? Object.fromEntries(
            Object.entries(record).map(([field, value]) => [field, /^resv\d+$/.test(field) ? 0 : value]),
          )
        : record,
    ]),
  ) as unknown as WellFormedPacket

test('each accessor reads and writes its field', () => {
  const seen = new Set<string>()
  const { bytes: written, view: writtenView } = plainArena(64)
  /** Unaligned. */
  const putAt = 3
  fc.assert(
    fc.property(anyPacket, original => {
      const packet = withoutReserved(original)
      const bytes = emitPacket(packet)
      const { view } = arenaOver(bytes)
      const records = packet as unknown as Record<Extension, never>
      for (const header of Object.keys(reads) as Extension[]) {
        const at = headerAt[header][opcodeNumber[packet.name]]
        assert.equal(at !== 0, header in packet)
        if (at === 0) continue
        seen.add(header)
        const read: Check<never> = reads[header]
        read(records[header], view, at)
        const size = headers[header].bytes
        written.fill(0xee)
        const put: Check<never> = puts[header]
        put(records[header], writtenView, putAt)
        assert.deepEqual(written.slice(putAt, putAt + size), bytes.slice(at, at + size), header)
        assert.ok(
          written.every((byte, i) => byte === 0xee || (i >= putAt && i < putAt + size)),
          header,
        )
      }
    }),
    { numRuns: 500 },
  )
  assert.equal(seen.size, Object.keys(reads).length)
})
