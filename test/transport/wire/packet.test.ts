/*
 * parsePacket and emitPacket are inverse.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { opcodeFlags, opcodes } from '../../../src/spec/wire/opcodes.ts'
import { arenaOver } from '../../../src/transport/wire/arena.ts'
import { checkPacket, emitPacket, type PacketOf, parsePacket } from '../../../src/transport/wire/packet.ts'
import { anyPacket, packetWith } from './arbitrary.ts'

const bth = {
  se: true,
  migReq: false,
  tver: 0,
  pkey: 0xffff,
  fecn: false,
  becn: false,
  resv6: 0,
  destQp: 0x12_3456,
  ackReq: true,
  resv7: 0,
  psn: 0xab_cdef,
}

describe('record → bytes → record', () => {
  for (const opcode of opcodes) {
    test(opcode.name, () => {
      fc.assert(
        fc.property(packetWith(opcode), packet => assert.deepEqual(parsePacket(emitPacket(packet)), packet)),
        { numRuns: 30 },
      )
    })
  }
})

test('bytes → record → bytes, for any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80, size: 'max' }), bytes =>
      assert.deepEqual(emitPacket(parsePacket(bytes)), bytes),
    ),
  )
})

test('bytes → record → bytes, for packets with a byte changed or the end cut off', () => {
  fc.assert(
    fc.property(anyPacket, fc.nat(), fc.integer({ min: 1, max: 255 }), fc.nat({ max: 40 }), (packet, at, flip, cut) => {
      const bytes = emitPacket(packet)
      bytes[at % bytes.length] ^= flip
      const shorter = bytes.subarray(0, Math.max(0, bytes.length - cut))
      assert.deepEqual(emitPacket(parsePacket(bytes)), bytes)
      assert.deepEqual(emitPacket(parsePacket(shorter)), shorter.slice())
    }),
  )
})

test('a record with another PSN gives different bytes', () => {
  fc.assert(
    fc.property(anyPacket, packet => {
      const changed = { ...packet, BTH: { ...packet.BTH, psn: packet.BTH.psn ^ 1 } }
      assert.notDeepEqual(emitPacket(changed), emitPacket(packet))
    }),
  )
})

test('the bytes of a WRITE with immediate', () => {
  const packet: PacketOf<'RC_WRITE_ONLY_IMM'> = {
    kind: 'packet',
    name: 'RC_WRITE_ONLY_IMM',
    BTH: bth,
    RETH: { va: 0x0102_0304_0506_0708n, rkey: 0x1122_3344, dmaLen: 5 },
    ImmDt: { immDt: 0xdead_beef },
    payload: Uint8Array.of(1, 2, 3, 4, 5),
    icrc: 0x0403_0201,
  }
  assert.equal(
    Buffer.from(emitPacket(packet)).toString('hex'),
    '0bb0ffff0012345680abcdef' + '010203040506070811223344' + '00000005' + 'deadbeef' + '0102030405000000' + '01020304',
  )
})

test('the bytes of an XRC FLUSH, in which the XRCETH comes first', () => {
  const packet: PacketOf<'XRC_FLUSH'> = {
    kind: 'packet',
    name: 'XRC_FLUSH',
    BTH: bth,
    XRCETH: { resv8: 0, xrcSrq: 0x77_0001 },
    FETH: { resv26: 0, sel: 1, plt: 3 },
    RETH: { va: 0x1000n, rkey: 9, dmaLen: 64 },
    payload: new Uint8Array(0),
    icrc: 0,
  }
  assert.equal(
    Buffer.from(emitPacket(packet)).toString('hex'),
    'bc80ffff0012345680abcdef' + '00770001' + '00000013' + '0000000000001000' + '0000000900000040' + '00000000',
  )
})

test('opaque records keep bytes and reason', () => {
  const reasonOf = (bytes: number[]): string => {
    const packet = parsePacket(Uint8Array.from(bytes))
    assert.ok(packet.kind === 'opaque')
    assert.deepEqual(packet.bytes, Uint8Array.from(bytes))
    return packet.reason
  }
  // Flags 0x30 are a pad count of 3.
  const packet = (opcode: number, flags: number, length: number): number[] => [
    opcode,
    flags,
    ...Array(length - 2).fill(0),
  ]
  // Opcodes of RC packets: 4 SEND_ONLY, 6 WRITE_FIRST, 0x11 ACKNOWLEDGE.
  assert.equal(reasonOf([]), 'shorter than a BTH and an ICRC')
  assert.equal(reasonOf(packet(4, 0, 15)), 'shorter than a BTH and an ICRC')
  assert.equal(reasonOf(packet(0x15, 0, 16)), 'unknown opcode 0x15')
  assert.equal(reasonOf(packet(0x41, 0, 40)), 'unknown opcode 0x41')
  assert.equal(reasonOf(packet(4, 0, 17)), 'length is not a multiple of four bytes')
  assert.equal(reasonOf(packet(6, 0, 28)), "shorter than its opcode's headers, pad and ICRC")
  assert.equal(reasonOf(packet(4, 0x30, 16)), "shorter than its opcode's headers, pad and ICRC")
  assert.equal(reasonOf(packet(0x11, 0, 24)), 'an opcode without payload has more bytes than its headers and ICRC')
  assert.equal(reasonOf(packet(0x11, 0x10, 24)), 'an opcode without payload has more bytes than its headers and ICRC')
})

test('checkPacket accepts exactly the packets that parse', () => {
  fc.assert(
    fc.property(fc.oneof(anyPacket.map(emitPacket), fc.uint8Array({ maxLength: 60, size: 'max' })), bytes => {
      const fault = checkPacket(arenaOver(bytes).view, 0, bytes.length)
      assert.equal(fault === 0, parsePacket(bytes).kind === 'packet')
      if (fault === 0) assert.notEqual(opcodeFlags[bytes[0]], 0)
    }),
  )
})

test('a record that does not fit is refused with field, value and range', () => {
  const ack: PacketOf<'RC_ACKNOWLEDGE'> = {
    kind: 'packet',
    name: 'RC_ACKNOWLEDGE',
    BTH: bth,
    AETH: { syndrome: 0x1f, msn: 1 },
    payload: new Uint8Array(0),
    icrc: 0,
  }
  assert.throws(() => emitPacket({ ...ack, BTH: { ...bth, psn: 1 << 24 } }), {
    name: 'RangeError',
    message: 'RC_ACKNOWLEDGE: BTH.psn is number 16777216, allowed is an integer from 0 to 16777215',
  })
  assert.throws(() => emitPacket({ ...ack, AETH: { syndrome: -1, msn: 1 } }), /AETH\.syndrome is number -1/)
  const withoutMsn = { syndrome: 0 } as object as (typeof ack)['AETH']
  assert.throws(() => emitPacket({ ...ack, AETH: withoutMsn }), /AETH\.msn is missing, allowed is an integer/)
  assert.throws(
    () => emitPacket({ ...ack, payload: new Uint8Array(4) }),
    /RC_ACKNOWLEDGE has no payload, but .* 4 bytes/,
  )
  assert.throws(() => emitPacket({ ...ack, icrc: 2 ** 32 }), /icrc is 4294967296/)
  assert.throws(() => emitPacket({ ...ack, pad: Uint8Array.of(1) }), /0 bytes has 0 pad bytes, not 1/)
  const { AETH: _, ...without } = ack
  assert.throws(() => emitPacket(without as typeof ack), /RC_ACKNOWLEDGE needs a AETH/)
  assert.throws(() => emitPacket({ ...ack, name: 'RC_NONSENSE' as 'RC_ACKNOWLEDGE' }), /RC_NONSENSE is not an opcode/)
})
