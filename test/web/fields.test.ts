/*
 * Fields of packets with their bytes, as the page shows them.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { opcodes } from '../../src/spec/wire/opcodes.ts'
import { fieldNames, packetHeaders } from '../../web/packet/fields.ts'

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
