/*
 * LEGACY attributes (src/uapi/linux/legacy.ts).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CallError } from '../../../src/spec/errno.ts'
import { WriteCommands } from '../../../src/spec/linux/names.ts'
import type { Call } from '../../../src/uapi/call.ts'
import { encodeLinux } from '../../../src/uapi/linux/encode.ts'
import { encodings } from '../../../src/uapi/linux/envelope.ts'
import { EntryPoint, packLegacy, unpackLegacy } from '../../../src/uapi/linux/legacy.ts'
import { ARENA, rxeSchema } from '../fake-view.ts'

const { WRITE, IOCTL } = EntryPoint

const rcQp = rxeSchema.classByName('rc_qp')!
const modify: Call = {
  class: rcQp,
  methodName: 'modify',
  method: rcQp.methods.modify,
  object: 3,
  args: { state: 1 },
}

/** Encodes a call with a LEGACY attribute. Throws all errors but a CallError. */
const encodeOrRefuse = (attribute: Uint8Array): void => {
  try {
    encodeLinux(modify, attribute)
  } catch (error) {
    if (!(error instanceof CallError)) throw error
  }
}

test('a forged LEGACY attribute is encoded or throws a CallError', () => {
  const seeds = encodings(modify, rxeSchema, ARENA).map(({ legacy }) => legacy)
  const { GET_CONTEXT, ALLOC_PD, CREATE_AH, QUERY_MR, CREATE_CQ } = WriteCommands
  const numbers = [GET_CONTEXT, ALLOC_PD, CREATE_AH, QUERY_MR, CREATE_CQ]
  for (const [number, seed] of numbers.flatMap(number => seeds.map(seed => [number, seed] as const)))
    for (let at = 0; at + 4 <= seed.length; at += 4) {
      // Overwrites each word, also the command number, with another command number.
      const bytes = seed.slice()
      new DataView(bytes.buffer).setUint32(at, number, true)
      encodeOrRefuse(bytes)
    }
  const changed = fc
    .tuple(fc.constantFrom(...seeds), fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 5 }), fc.nat(200))
    .map(([seed, changes, cut]) => {
      const bytes = seed.slice(0, cut < 100 ? cut : undefined)
      for (const [at, byte] of changes) if (at < bytes.length) bytes[at] = byte
      return bytes
    })
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 80, size: 'max' }), changed), bytes => {
      encodeOrRefuse(bytes)
    }),
    { numRuns: 2000 },
  )
})

test('a LEGACY attribute with an ioctl about another class is EINVAL', () => {
  const port = rxeSchema.classByName('port')!
  const query: Call = {
    class: port,
    methodName: 'queryGidEntry',
    method: port.methods.queryGidEntry,
    object: 0,
    args: {},
  }
  const queryAttributes = encodings(query, rxeSchema, ARENA).map(({ legacy }) => legacy)
  assert.notEqual(queryAttributes.length, 0)
  for (const legacy of queryAttributes)
    assert.throws(() => encodeLinux(modify, legacy), { code: 'EINVAL', message: /rc_qp/ })
})

test('a LEGACY attribute with an ioctl of wrong length is EINVAL', () => {
  const ioctls = encodings(modify, rxeSchema, ARENA)
    .map(({ legacy }) => unpackLegacy(legacy))
    .filter(({ entryPoint }) => entryPoint === IOCTL)
  assert.notEqual(ioctls.length, 0)
  for (const { parts } of ioctls) {
    const [message, ...memory] = parts
    assert.ok(message)
    // The header has 24 bytes; 8 bytes have the object and the method, but no attribute count.
    for (const length of [0, 8, 23, 24, message.length - 1])
      assert.throws(
        () => encodeLinux(modify, packLegacy({ entryPoint: IOCTL, parts: [message.slice(0, length), ...memory] })),
        { code: 'EINVAL', message: /has no ioctl/ },
        `${length} bytes`,
      )
  }
})

test('a malformed LEGACY attribute is EINVAL', () => {
  const valid = [...packLegacy({ entryPoint: WRITE, parts: [Uint8Array.of(1, 2)] })]
  for (const [bytes, message] of [
    [valid.slice(0, 3), /has at least 4 bytes, not 3/],
    [valid.with(0, 0), /names entryPoint 0/],
    [valid.with(0, 3), /names entryPoint 3/],
    [valid.with(1, 7), /7 as its second byte/],
    [valid.slice(0, 7), /ends within a part/],
    [valid.slice(0, -1), /ends within a part/],
    [valid.with(4, 3), /ends within a part/],
    [valid.with(7, 255), /ends within a part/],
    [[...valid, 0], /continues after its last part/],
  ] as const)
    assert.throws(() => unpackLegacy(Uint8Array.from(bytes)), { code: 'EINVAL', message })
})

test('LEGACY attributes are packed and unpacked', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(WRITE, IOCTL),
      fc.array(fc.uint8Array({ maxLength: 50, size: 'max' }), { maxLength: 5 }),
      (entryPoint, parts) => {
        assert.deepEqual(unpackLegacy(packLegacy({ entryPoint, parts })), { entryPoint, parts })
      },
    ),
  )
})
