/*
 * Fields of packets with their bytes, as the page shows them.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { opcodes } from '../../src/spec/wire/opcodes.ts'
import { fieldNames, packetHeaders, packetValue } from '../../web/packet/fields.ts'

test('every header of every opcode is shown, and every bit is in one field', () => {
  for (const { opcode, headers, headerBytes } of opcodes) {
    const bytes = new Uint8Array(headerBytes)
    bytes[0] = opcode
    const shown = packetHeaders(bytes)
    assert.deepEqual(
      shown.map(({ name }) => name),
      ['BTH', ...headers],
    )
    let at = 0
    for (const { start, end, fields } of shown) {
      assert.equal(start, at)
      at = end
      const covered = new Set(
        fields.flatMap(field => Array.from({ length: field.end - field.start }, (_, i) => field.start + i)),
      )
      assert.deepEqual(
        [...covered],
        Array.from({ length: end - start }, (_, i) => start + i),
      )
    }
    assert.equal(at, headerBytes)
  }
})

test('headers that are cut off are left out', () => {
  assert.deepEqual(packetHeaders(new Uint8Array(11)), [])
  const cut = new Uint8Array(20)
  cut[0] = 0x06 // WRITE_FIRST, with a RETH of 16 bytes
  assert.deepEqual(
    packetHeaders(cut).map(({ name }) => name),
    ['BTH'],
  )
})

test("fields have Wireshark's names", () => {
  for (const name of [
    'infiniband.bth.opcode',
    'infiniband.bth.destqp',
    'infiniband.bth.psn',
    'infiniband.bth.a',
    'infiniband.bth.p_key',
    'infiniband.reth.va',
    'infiniband.reth.r_key',
    'infiniband.reth.dmalen',
    'infiniband.aeth.syndrome',
    'infiniband.aeth.msn',
    'infiniband.deth.q_key',
    'infiniband.immdt',
    'infiniband.ieth',
    'infiniband.atomiceth.swapdt',
  ])
    assert.ok(fieldNames.includes(name), name)
})

test('values are shown with their bits, and as people read them', () => {
  const bytes = new Uint8Array(16)
  // ACKNOWLEDGE with pad count 2, P_Key 0xffff, destination 0x12, acknowledge requested, PSN 0x123456, NAK 0x60, MSN 7.
  bytes.set([0x11, 0x20, 0xff, 0xff, 0, 0, 0, 0x12, 0x80, 0x12, 0x34, 0x56, 0x60, 0, 0, 7])
  const shown = packetHeaders(bytes).flatMap(({ fields }) => fields)
  for (const [filter, value, text, bits] of [
    ['bth.opcode', 0x11, '0x11  RC_ACKNOWLEDGE', ''],
    ['bth.padcnt', 2, '2 B', 'bits 2–3'],
    ['bth.p_key', 0xffff, '0xffff', ''],
    ['bth.destqp', 0x12, '0x000012  18', ''],
    ['bth.a', true, '1', 'bit 0'],
    ['bth.resv7', 0, '0x00', 'bits 1–7'],
    ['bth.psn', 0x123456, '0x123456', ''],
    ['aeth.msn', 7, '7', ''],
  ] as const) {
    const field = shown.find(one => one.filter === `infiniband.${filter}`)
    assert.deepEqual([field?.value, field?.text, field?.bits], [value, text, bits], filter)
  }
})

test('a filter finds the value of every field that is shown, and no other', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60, size: 'max' }), bytes => {
      const shown = new Map(
        packetHeaders(bytes).flatMap(({ fields }) => fields.map(({ filter, value }) => [filter, value] as const)),
      )
      for (const name of fieldNames) assert.equal(packetValue(bytes, name), shown.get(name), name)
    }),
  )
})
