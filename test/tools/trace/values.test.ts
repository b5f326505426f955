/*
 * Values of attributes as text and as JSON.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  at,
  blob,
  bytes,
  enumeration,
  enumOf,
  flagsOf,
  list,
  record,
  u8,
  u16,
  u32,
  u64,
} from '../../../src/spec/schema/schema.ts'
import { bytesText, gidText } from '../../../src/tools/trace/bytes.ts'
import { valueJson, valueText, WHOLE } from '../../../src/tools/trace/values.ts'

/** Twelve fields, f0 to f11, of one byte. */
const fields = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`f${i}`, at(i, u8(0))]))
const names = Object.keys(fields)
/** 0, 1, 2, 0, 1, 2, … */
const withZeros = Object.fromEntries(names.map((name, i) => [name, i % 3]))

const fromHex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/[^0-9a-f]/g, ''), 'hex'))

describe('values as text', () => {
  it('addresses are in their usual notation', () => {
    assert.equal(gidText(fromHex('0000000000000000 0000ffff 0a4d0002')), '::ffff:10.77.0.2')
    assert.equal(gidText(fromHex('fe80 0000 0000 0000 5054 00ff fe12 3456')), 'fe80::5054:ff:fe12:3456')
    assert.equal(gidText(new Uint8Array(16)), '::')
    assert.equal(gidText(fromHex('0000000000000000 0000000000000001')), '::1')
    assert.equal(gidText(fromHex('fd00000000000000 0000000000000000')), 'fd00::')
    assert.equal(gidText(fromHex('20010000 00000001 00000000 00000001')), '2001:0:0:1::1')
    assert.equal(gidText(fromHex('00010010 01000001 10010010 0100000a')), '1:10:100:1:1001:10:100:a')
  })

  it('addresses, except IPv4-mapped ones, have the notation of the URL parser', () => {
    const word = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff }))
    fc.assert(
      fc.property(fc.array(word, { minLength: 8, maxLength: 8 }), words => {
        const address = Uint8Array.from(words.flatMap(w => [w >> 8, w & 255]))
        const text = gidText(address)
        // The URL parser also follows RFC 5952, but writes IPv4-mapped addresses in hexadecimal.
        if (!text.startsWith('::ffff:')) assert.equal(new URL(`http://[${text}]/`).hostname, `[${text}]`)
        else assert.match(text, /^::ffff:(\d+\.\d+\.\d+\.\d+|[0-9a-f:]+)$/)
      }),
    )
  })

  it('byte arrays are abridged', () => {
    assert.equal(bytesText(Uint8Array.of(1, 255)), '01ff')
    assert.equal(bytesText(new Uint8Array(0)), '(no bytes)')
    assert.equal(bytesText(new Uint8Array(100), 2), '0000… (100 bytes)')
  })

  it('enumerations and flags are shown by name; keys, PSNs and numbers from 4 GiB on in hexadecimal', () => {
    const color = enumeration('color', { RED: 1, GREEN: 2, BLUE: 4, ALL: 7 })
    assert.equal(valueText('retryCnt', u8(1).type, 7), '7')
    assert.equal(valueText('rkey', u32(1).type, 6719), '0x1a3f')
    assert.equal(valueText('rqPsn', u32(1, { max: 0xffffff }).type, 1), '0x1')
    assert.equal(valueText('pkeyIndex', u16(1).type, 11), '11')
    assert.equal(valueText('length', u64(1).type, 1048576n), '1048576')
    assert.equal(valueText('start', u64(1).type, 0x7fff12345000n), '0x7fff12345000')
    assert.equal(valueText('c', enumOf(1, color).type, 2), 'GREEN')
    assert.equal(valueText('c', enumOf(1, color).type, 3), '3')
    assert.equal(valueText('c', flagsOf(1, color).type, 0), '0')
    assert.equal(valueText('c', flagsOf(1, color).type, 5), 'RED|BLUE')
    assert.equal(valueText('c', flagsOf(1, color).type, 7), 'RED|GREEN|BLUE')
    assert.equal(valueText('c', flagsOf(1, color).type, 0x80000002), 'GREEN|0x80000000')
    assert.equal(valueText('guid', bytes(1, 8).type, fromHex('0000 00ff fe12 3456')), '0000:00ff:fe12:3456')
    assert.deepEqual(valueJson(flagsOf(1, color).type, 5), ['RED', 'BLUE'])
    assert.deepEqual(valueJson(flagsOf(1, color).type, 0), [])
  })

  it('records are shown without zero fields; only 8 fields and 4 records are shown', () => {
    assert.equal(
      valueText('r', record(1, fields).type, withZeros),
      '{f1 1, f2 2, f4 1, f5 2, f7 1, f8 2, f10 1, f11 2}',
    )
    const ones = Object.fromEntries(names.map(name => [name, 1]))
    assert.match(valueText('r', record(1, fields).type, ones), /f7 1, …}$/)
    assert.equal(valueText('r', record(1, fields).type, {}), '{}')
    const many = Array.from({ length: 7 }, (_, i) => ({ f1: i + 1 }))
    assert.equal(valueText('l', list(1, fields, 9).type, many), '[{f1 1}, {f1 2}, {f1 3}, {f1 4}, … 3 more]')
    assert.deepEqual(valueJson(record(1, fields).type, ones), ones)
  })

  it('the style WHOLE shows zeros, all fields, records and bytes', () => {
    const allFields = Object.entries(withZeros).map(([name, value]) => `${name} ${value}`)
    assert.equal(valueText('r', record(1, fields).type, withZeros, WHOLE), `{${allFields.join(', ')}}`)
    const many = Array.from({ length: 7 }, (_, i) => ({ f1: i }))
    assert.equal(
      valueText('l', list(1, fields, 9).type, many, WHOLE),
      `[${many.map(({ f1 }) => `{f1 ${f1}}`).join(', ')}]`,
    )
    assert.equal(valueText('b', blob(1, 100).type, new Uint8Array(100), WHOLE), '00'.repeat(100))
    assert.match(valueText('b', blob(1, 100).type, new Uint8Array(100)), /^(00){32}… \(100 bytes\)$/, 'abridged')
  })

  it('three or more printable bytes are quoted', () => {
    const text = (chars: string): string => valueText('b', blob(1, 100).type, new TextEncoder().encode(chars))
    assert.equal(text('ctx.userdma.2'), '"ctx.userdma.2"')
    assert.equal(text('say "no"'), '"say \\"no\\""')
    assert.equal(text('a\n b'), '610a2062')
    assert.equal(text('ab'), '6162')
  })
})
