/* The accessors of the BTH agree with the table-driven codec. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import * as bth from '../../../src/transport/wire/bth.ts'
import { emitPacket } from '../../../src/transport/wire/packet.ts'
import { anyPacket } from './arbitrary.ts'

const { bytes, view } = plainArena(512)

test('P_Keys that differ only in the membership bit are of one partition', () => {
  assert.ok(bth.doPkeysMatch(0xffff, 0x7fff) && bth.doPkeysMatch(0x1234, 0x9234))
  assert.ok(!bth.doPkeysMatch(0xffff, 0xfffe) && !bth.doPkeysMatch(0x4000, 0))
  assert.ok(!bth.doPkeysMatch(0x1234, 0x1234), 'two limited members')
  assert.ok(!bth.doPkeysMatch(0x8000, 0x8000) && !bth.doPkeysMatch(0, 0x8000), 'no P_Keys')
})

test('each accessor reads its field of any packet', () => {
  fc.assert(
    fc.property(anyPacket, fc.nat({ max: 99 }), (packet, at) => {
      const { BTH, payload } = packet
      bytes.set(emitPacket(packet), at)
      assert.equal(bth.bthOpcode(view, at), opcodeNumber[packet.name])
      assert.equal(bth.bthSolicited(view, at), BTH.se)
      assert.equal(bth.bthMigReq(view, at), BTH.migReq)
      assert.equal(bth.bthPadCount(view, at), -payload.length & 3)
      assert.equal(bth.bthVersion(view, at), BTH.tver)
      assert.equal(bth.bthPkey(view, at), BTH.pkey)
      assert.equal(bth.bthFecn(view, at), BTH.fecn)
      assert.equal(bth.bthBecn(view, at), BTH.becn)
      assert.equal(bth.bthDestQp(view, at), BTH.destQp)
      assert.equal(bth.bthAckReq(view, at), BTH.ackReq)
      assert.equal(bth.bthPsn(view, at), BTH.psn)
    }),
  )
})

test('putBth writes what the table-driven codec writes, and no other bytes', () => {
  fc.assert(
    fc.property(anyPacket, fc.nat({ max: 99 }), (packet, at) => {
      const BTH = { ...packet.BTH, tver: 0, fecn: false, becn: false, resv6: 0, resv7: 0 }
      const expected = emitPacket({ ...packet, BTH }).subarray(0, bth.BTH_BYTES)
      bytes.fill(0xee)
      const flags =
        (BTH.se ? bth.BTH_SOLICITED : 0) |
        (BTH.migReq ? bth.BTH_MIGREQ : 0) |
        ((-packet.payload.length & 3) << bth.BTH_PAD_SHIFT)
      const ackReq = BTH.ackReq ? bth.BTH_ACKREQ : 0
      const otherPsn = 5
      bth.putBth(view, at, opcodeNumber[packet.name], flags, BTH.pkey, BTH.destQp, ackReq | otherPsn)
      assert.equal(bth.bthPsn(view, at), otherPsn)
      bth.putBthPsn(view, at, ackReq | BTH.psn)
      assert.deepEqual(bytes.slice(at, at + bth.BTH_BYTES), expected.slice())
      assert.ok(bytes.every((byte, i) => byte === 0xee || (i >= at && i < at + bth.BTH_BYTES)))
    }),
  )
})
