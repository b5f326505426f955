/* ICRCs are computed by their definition, written to packets, and verified. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { ICRC_BYTES } from '../../../src/spec/wire/headers.ts'
import { opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import { type Arena, arenaOver, plainArena } from '../../../src/transport/wire/arena.ts'
import { type CrcEngine, useCrcEngine } from '../../../src/transport/wire/crc.ts'
import { emitFrame, type Ipv4Frame, type Ipv6Frame } from '../../../src/transport/wire/frame.ts'
import {
  countRightIcrcs,
  findIdentification,
  icrcOf,
  icrcOfFlush,
  makeFlow,
  sealIcrc,
  sealIcrcs,
  verifyIcrc,
} from '../../../src/transport/wire/icrc.ts'
import { emitPacket } from '../../../src/transport/wire/packet.ts'
import { anyPacket } from './arbitrary.ts'

const FLUSH = opcodeNumber.RC_FLUSH
const ETHERNET_BYTES = 14
/** Offset in a packet of the byte with FECN and BECN, which the ICRC does not cover. */
const FECN_BECN = 4
const MAX_UDP_PAYLOAD = 65_507

/** A `sealIcrc` that writes the ICRC of `compute`. */
const sealBy =
  (compute: typeof icrcOf): typeof sealIcrc =>
  (arena, offset, length, flow, identification) =>
    arena.view.setUint32(offset + length - ICRC_BYTES, compute(arena, offset, length, flow, identification), true)

/** The ICRC by its definition, of a frame without trailer. */
const byDefinition = (frame: Ipv4Frame | Ipv6Frame): number => {
  const masked = emitFrame(frame).subarray(ETHERNET_BYTES)
  const udp = frame.kind === 'ipv4' ? 20 : 40
  if (frame.kind === 'ipv4') {
    // traffic class, TTL, header checksum
    for (const at of [1, 8, 10, 11]) masked[at] = 0xff
  } else {
    // traffic class and flow label, hop limit
    masked[0] |= 0x0f
    for (const at of [1, 2, 3, 7]) masked[at] = 0xff
  }
  // UDP checksum, and the byte of FECN and BECN
  for (const at of [udp + 6, udp + 7, udp + 8 + FECN_BECN]) masked[at] = 0xff
  return crc32(Buffer.concat([Buffer.alloc(8, 0xff), masked.subarray(0, -ICRC_BYTES)]))
}

const u16 = fc.integer({ min: 0, max: 0xffff })
const u8 = fc.integer({ min: 0, max: 255 })
const bytesOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const common = {
  destinationMac: bytesOf(6),
  sourceMac: bytesOf(6),
  sourcePort: u16,
  destinationPort: u16,
  trafficClass: u8,
  hopLimit: u8,
  udpChecksum: u16,
  payload: fc.oneof(anyPacket.map(emitPacket), fc.uint8Array({ minLength: 16, maxLength: 2000, size: 'max' })),
}
const ipv4: fc.Arbitrary<Ipv4Frame> = fc.record({
  ...common,
  kind: fc.constant('ipv4' as const),
  source: bytesOf(4),
  destination: bytesOf(4),
  identification: u16,
  dontFragment: fc.boolean(),
})
const ipv6: fc.Arbitrary<Ipv6Frame> = fc.record({
  ...common,
  kind: fc.constant('ipv6' as const),
  source: bytesOf(16),
  destination: bytesOf(16),
  flowLabel: fc.integer({ min: 0, max: 0xf_ffff }),
})
const anyFrame = fc.oneof(ipv4, ipv6)
const identificationOf = (frame: Ipv4Frame | Ipv6Frame): number => (frame.kind === 'ipv4' ? frame.identification : 0)

describe('ICRC', () => {
  test('equals the definition for any addresses, ports, lengths, identification and flags', () => {
    fc.assert(
      fc.property(anyFrame, fc.nat({ max: 50 }), (frame, offset) => {
        const { payload } = frame
        const arena = plainArena(payload.length + 50)
        arena.bytes.set(payload, offset)
        const icrc = icrcOf(arena, offset, payload.length, makeFlow(frame), identificationOf(frame))
        assert.equal(icrc >>> 0, byDefinition(frame))
        // the identification wraps at 65536
        assert.equal(icrcOf(arena, offset, payload.length, makeFlow(frame), identificationOf(frame) + 65_536), icrc)
      }),
      { numRuns: 300 },
    )
  })

  test('equals the definition for packets of up to the maximum length', () => {
    for (const length of [16, 4096, 40_000, MAX_UDP_PAYLOAD]) {
      const payload = Uint8Array.from({ length }, (_, i) => i * 7)
      const mac = new Uint8Array(6)
      const otherFields = { sourcePort: 49_152, destinationPort: 4791, trafficClass: 0, hopLimit: 64 }
      const frame: Ipv4Frame = {
        kind: 'ipv4',
        destinationMac: mac,
        sourceMac: mac,
        source: Uint8Array.of(127, 0, 0, 1),
        destination: Uint8Array.of(127, 0, 0, 2),
        ...otherFields,
        identification: 0xfffe,
        dontFragment: true,
        payload,
      }
      assert.equal(icrcOf(arenaOver(payload), 0, length, makeFlow(frame), 0xfffe) >>> 0, byDefinition(frame))
    }
  })

  test('IPv4 addresses may be 4 bytes or mapped into 16', () => {
    const mapped = (...tail: number[]): Uint8Array => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...tail)
    const ports = { sourcePort: 1, destinationPort: 4791 }
    const short = makeFlow({ source: Uint8Array.of(1, 2, 3, 4), destination: Uint8Array.of(5, 6, 7, 8), ...ports })
    assert.deepEqual(makeFlow({ source: mapped(1, 2, 3, 4), destination: mapped(5, 6, 7, 8), ...ports }), short)
    assert.equal(short.version, 4)
    const other = mapped(5, 6, 7, 8)
    other[0] = 0xfe
    assert.throws(
      () => makeFlow({ source: mapped(1, 2, 3, 4), destination: other, ...ports }),
      /two IPv4 .* or two IPv6/,
    )
    assert.throws(() => makeFlow({ source: new Uint8Array(5), destination: new Uint8Array(4), ...ports }), RangeError)
    assert.throws(() => makeFlow({ source: other, destination: new Uint8Array(15), ...ports }), RangeError)
    assert.throws(() => makeFlow({ source: other, destination: other, ...ports, sourcePort: 65_536 }), /not 65536/)
  })
})

describe('seal and verify', () => {
  type Seal = typeof sealIcrc
  type AnyFrame = Ipv4Frame | Ipv6Frame
  /** The packet of a frame with the ICRC of `seal`. */
  const sealed = (seal: Seal, frame: AnyFrame): Arena => {
    const arena = arenaOver(frame.payload.slice())
    seal(arena, 0, frame.payload.length, makeFlow(frame), identificationOf(frame))
    return arena
  }
  const isValid = (arena: Arena, frame: AnyFrame, identification = identificationOf(frame)): boolean =>
    verifyIcrc(arena, 0, arena.bytes.length, makeFlow(frame), identification)
  /** Asserts that another identification or length, or a flipped bit, makes a packet invalid. */
  const assertChangesNoticed = (arena: Arena, frame: AnyFrame, otherIdentification: number, flippedBit: number) => {
    if (frame.kind === 'ipv4' && otherIdentification !== frame.identification)
      assert.ok(!isValid(arena, frame, otherIdentification))
    assert.ok(!isValid(arenaOver(arena.bytes.slice(0, -1)), frame))
    const bit = flippedBit % (arena.bytes.length * 8)
    const byte = bit >> 3
    // byte 0 is the opcode, which selects the kind of ICRC
    if (byte === 0 || byte === FECN_BECN) return
    const flipped = arena.bytes.slice()
    flipped[byte] ^= 0x80 >> (bit & 7)
    assert.ok(!isValid(arenaOver(flipped), frame), `bit ${bit}`)
  }

  test('a sealed packet is valid; a flipped bit, another identification or another length is not', () => {
    fc.assert(
      fc.property(anyFrame, u16, fc.nat(), (frame, otherIdentification, flippedBit) => {
        const packet = sealed(sealIcrc, frame)
        assert.deepEqual(packet.bytes.subarray(0, -ICRC_BYTES), frame.payload.subarray(0, -ICRC_BYTES))
        assert.ok(isValid(packet, frame))
        assertChangesNoticed(packet, frame, otherIdentification, flippedBit)
      }),
    )
  })

  test('a FLUSH is sealed for rdma_rxe, and both forms are accepted', () => {
    fc.assert(
      fc.property(anyFrame, u16, fc.nat(), ({ payload, ...fields }, otherIdentification, flippedBit) => {
        const frame = { ...fields, payload: payload.with(0, FLUSH) }
        for (const seal of [sealBy(icrcOf), sealBy(icrcOfFlush)]) {
          assert.ok(isValid(sealed(seal, frame), frame))
          assertChangesNoticed(sealed(seal, frame), frame, otherIdentification, flippedBit)
        }
        assert.deepEqual(sealed(sealIcrc, frame).bytes, sealed(sealBy(icrcOfFlush), frame).bytes)
      }),
    )
  })

  test("rdma_rxe's form for a FLUSH is invalid for other packets", () => {
    fc.assert(
      fc.property(anyFrame, frame => {
        fc.pre(frame.payload[0] !== FLUSH)
        assert.ok(!isValid(sealed(sealBy(icrcOfFlush), frame), frame))
      }),
    )
  })

  test('a packet that is too short for an ICRC is invalid', () => {
    const flow = makeFlow({
      source: new Uint8Array(4),
      destination: new Uint8Array(4),
      sourcePort: 1,
      destinationPort: 2,
    })
    for (let length = 0; length < 16; length++) assert.equal(verifyIcrc(plainArena(16), 0, length, flow, 0), false)
  })

  test('the identification is found from the ICRC alone, and almost never for a wrong packet', () => {
    let passed = 0
    fc.assert(
      fc.property(anyFrame, fc.nat(0xffff), fc.nat(), (frame, expected, flip) => {
        const arena = arenaOver(frame.payload.slice())
        const length = frame.payload.length
        const flow = makeFlow(frame)
        const real = identificationOf(frame)
        sealIcrc(arena, 0, length, flow, real)
        // IPv6 has no identification: the expected one is returned.
        const wanted = flow.version === 4 ? real : expected
        assert.equal(findIdentification(arena, 0, length, flow, expected), wanted)
        assert.equal(findIdentification(arena, 0, length, flow, real), real)
        if (arena.bytes[0] === FLUSH || flip % length === FECN_BECN) return
        arena.bytes[flip % length] ^= 1 + (flip % 255)
        const other = findIdentification(arena, 0, length, flow, expected)
        if (flow.version === 6) assert.equal(other, -1)
        else if (other >= 0) passed++
      }),
    )
    assert.ok(passed < 3, `${passed} wrong packets passed`)
  })

  test('the identification is found in a FLUSH of rdma_rxe too', () => {
    fc.assert(
      fc.property(anyFrame, fc.nat(0xffff), (frame, expected) => {
        const arena = arenaOver(frame.payload.slice())
        arena.bytes[0] = FLUSH
        const flow = makeFlow(frame)
        const length = frame.payload.length
        const real = flow.version === 4 ? identificationOf(frame) : expected
        sealIcrc(arena, 0, length, flow, real)
        assert.equal(findIdentification(arena, 0, length, flow, expected), real)
      }),
    )
  })
})

describe('sealIcrcs and countRightIcrcs', () => {
  /** The number of the engine's registers. */
  const MAX_PACKETS = 64
  /** An engine that computes CRCs by address, as native code does. */
  const engineOver = (arena: Arena): CrcEngine & { readonly calls: { batch: number } } => {
    const calls = { batch: 0 }
    const registers = new Int32Array(MAX_PACKETS)
    const crc = (address: number, length: number, seed: number): number =>
      crc32(arena.bytes.subarray(address - arena.address, address - arena.address + length), seed >>> 0)
    return {
      name: 'test',
      minLength: 64,
      crc,
      calls,
      batch: {
        registers,
        crc(address, length, stride, count) {
          calls.batch++
          for (let i = 0; i < count; i++) registers[i] = crc(address + i * stride, length, registers[i]) | 0
        },
      },
    }
  }
  const flows = [
    makeFlow({ source: new Uint8Array(4), destination: new Uint8Array(4), sourcePort: 9, destinationPort: 4791 }),
    makeFlow({ source: new Uint8Array(16), destination: new Uint8Array(16), sourcePort: 9, destinationPort: 4791 }),
  ]

  for (const hasEngine of [true, false])
    test(`agree with sealIcrc and verifyIcrc ${hasEngine ? 'with an engine' : 'without an engine'}`, t => {
      const arena = { ...plainArena(200 * 200), address: hasEngine ? 0x1000 : 0 }
      if (hasEngine) useCrcEngine(engineOver(arena), arena)
      t.after(() => useCrcEngine(undefined))
      fc.assert(
        fc.property(
          fc.integer({ min: 16, max: 200 }),
          fc.integer({ min: 1, max: 2 * MAX_PACKETS + 3 }),
          u16,
          fc.constantFrom(...flows),
          fc.nat(),
          fc.option(fc.nat()),
          fc.nat(),
          (length, count, identification, flow, seed, flush, change) => {
            const { bytes } = arena
            for (let i = 0; i < length * count; i++) bytes[i] = Math.imul(i + seed, 0x9e37_79b1) >>> 24
            const flushIndex = flush === null ? -1 : flush % count
            for (let i = 0; i < count; i++) bytes[i * length] = i === flushIndex ? FLUSH : opcodeNumber.RC_SEND_ONLY
            sealIcrcs(arena, 0, length, count, flow, identification)
            for (let i = 0; i < count; i++)
              assert.ok(verifyIcrc(arena, i * length, length, flow, (identification + i) & 0xffff))
            const right = (): number => countRightIcrcs(arena, 0, length, count, flow, identification)
            // rdma_rxe's ICRC of a FLUSH counts as wrong
            const expected = flushIndex < 0 ? count : flushIndex
            assert.equal(right(), expected)
            const changedAt = change % (length * count)
            if (changedAt % length === FECN_BECN) return
            bytes[changedAt] ^= 0x10
            assert.equal(right(), Math.min(Math.floor(changedAt / length), expected))
          },
        ),
        { numRuns: 60 },
      )
    })

  test('call the engine once for as many packets as it has registers', t => {
    const arena = { ...plainArena(200 * 200), address: 0x1000 }
    const engine = engineOver(arena)
    useCrcEngine(engine, arena)
    t.after(() => useCrcEngine(undefined))
    engine.calls.batch = 0
    sealIcrcs(arena, 0, 100, MAX_PACKETS + 1, flows[0], 0)
    assert.equal(engine.calls.batch, 2)
    assert.equal(countRightIcrcs(arena, 0, 100, MAX_PACKETS, flows[0], 0), MAX_PACKETS)
    assert.equal(engine.calls.batch, 3)
    // the engine's minimum is 64 bytes; the ICRCs of the first call cover 72 bytes, of the second call 56
    sealIcrcs(arena, 0, 40, 2, flows[0], 0)
    assert.equal(engine.calls.batch, 4)
    sealIcrcs(arena, 0, 32, 2, flows[0], 0)
    assert.equal(engine.calls.batch, 4)
  })
})
