/* Random packet records for property tests. */
import fc from 'fast-check'
import { type BitField, type HeaderName, headers } from '../../../src/spec/wire/headers.ts'
import { type Opcode, opcodes } from '../../../src/spec/wire/opcodes.ts'
import type { WellFormedPacket } from '../../../src/transport/wire/packet.ts'

const fieldOf = ([, width]: BitField): fc.Arbitrary<unknown> => {
  if (width === 1) return fc.boolean()
  return width === 64 ? fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) : fc.integer({ min: 0, max: 2 ** width - 1 })
}

/** `opcode` and `padCnt` are left out: the encoder derives them from the packet's name and payload. */
const headerOf = (header: HeaderName): fc.Arbitrary<Record<string, unknown>> =>
  fc.record(
    Object.fromEntries(
      Object.entries<BitField>(headers[header].fields)
        .filter(([field]) => header !== 'BTH' || (field !== 'opcode' && field !== 'padCnt'))
        .map(([field, bits]) => [field, fieldOf(bits)]),
    ),
    { noNullPrototype: true },
  )

const somePayload = fc.uint8Array({ maxLength: 70, size: 'max' })

export const packetWith = (opcode: Opcode): fc.Arbitrary<WellFormedPacket> =>
  (opcode.hasPayload ? somePayload : fc.constant(new Uint8Array(0))).chain(payload => {
    const padCnt = -payload.length & 3
    const pad = fc.option(
      fc.uint8Array({ minLength: padCnt, maxLength: padCnt }).filter(bytes => bytes.some(byte => byte !== 0)),
      { nil: undefined },
    )
    return fc
      .record({
        ...Object.fromEntries(opcode.headers.map(header => [header, headerOf(header)])),
        BTH: headerOf('BTH'),
        pad: padCnt > 0 ? pad : fc.constant(undefined),
        icrc: fc.integer({ min: 0, max: 0xffff_ffff }),
      })
      .map(({ pad: nonzeroPad, ...record }) => ({
        kind: 'packet',
        name: opcode.name,
        payload,
        ...record,
        ...(nonzeroPad !== undefined && { pad: nonzeroPad }),
      })) as unknown as fc.Arbitrary<WellFormedPacket>
  })

export const anyPacket: fc.Arbitrary<WellFormedPacket> = fc.constantFrom(...opcodes).chain(packetWith)
