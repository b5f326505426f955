/*
 * The opcode records of spec/wire/opcodes.ts agree with the list of an independent decoder, and the tables for hot code
 * agree with the records.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { creditCounts, headers, rnrTimerMicroseconds } from '../../../src/spec/wire/headers.ts'
import type { HeadersOf } from '../../../src/spec/wire/opcodes.ts'
import * as spec from '../../../src/spec/wire/opcodes.ts'
import { fixture } from '../../paths.ts'

const { headerAt, opcodeByNumber, opcodeFlags, opcodeHeaderBytes, opcodeNumber, opcodes } = spec

test('opcodes and headers are those of the independent list', () => {
  const listed = new Map(
    readFileSync(fixture('wire', 'opcodes.txt'), 'utf8')
      .trimEnd()
      .split('\n')
      .map(line => line.trim().split(' '))
      .map(([number, name, ...list]) => [name, { number: Number.parseInt(number, 16), list }] as const),
  )
  for (const { name, opcode, headers: list, role } of opcodes) {
    // our own
    if (name === 'CNP' || name.startsWith('SRD_') || name.startsWith('DC_')) continue
    const wanted = listed.get(name)
    assert.ok(wanted, name)
    // the independent list lacks XRCETH
    const withoutXrceth = name.startsWith('XRC_') && role === 'request' ? list.slice(1) : list
    if (name.startsWith('XRC_') && role === 'request') assert.equal(list[0], 'XRCETH')
    assert.deepEqual(
      withoutXrceth.map(header => `${header}:${headers[header].bytes}`),
      wanted.list,
      name,
    )
    assert.equal(opcode, wanted.number, name)
  }
  // UC has no responses, READs, atomics, FLUSHes and invalidates, and UD only SEND_ONLY.
  const names = new Set<string>(opcodes.map(o => o.name))
  const absent = [...listed.keys()].filter(name => !names.has(name))
  assert.ok(
    absent.every(name => /^UC_(READ|ACK|ATOMIC|COMPARE|FETCH|FLUSH|SEND_.*_INV)|^UD_(?!SEND_ONLY(_IMM)?$)/.test(name)),
  )
  assert.equal(opcodes.length, 25 + 12 + 2 + 25 + 1 + 8 + 4, 'RC, UC, UD, XRC, CNP, SRD, DC')
})

test('opcodes have their numbers', () => {
  assert.equal(opcodeNumber.RC_SEND_FIRST, 0)
  assert.equal(opcodeNumber.RC_FLUSH, 0x1c)
  assert.equal(opcodeNumber.RC_ATOMIC_WRITE, 0x1d)
  assert.equal(opcodeNumber.UC_WRITE_ONLY_IMM, 0x2b)
  assert.equal(opcodeNumber.UD_SEND_ONLY_IMM, 0x65)
  assert.equal(opcodeNumber.CNP, 0x81)
  assert.equal(opcodeNumber.XRC_SEND_ONLY_INV, 0xb7)
  assert.equal(opcodeByNumber[0x15], undefined, 'reserved')
})

test('dense tables agree with the records, and have no unknown opcodes', () => {
  for (let number = 0; number < 256; number++) {
    const opcode = opcodeByNumber[number]
    const flags = opcodeFlags[number]
    assert.equal(opcodeHeaderBytes[number], opcode?.headerBytes ?? 0)
    if (opcode === undefined) {
      assert.equal(flags, 0)
      for (const at of Object.values(headerAt)) assert.equal(at[number], 0)
      continue
    }
    const has = (bit: number): boolean => (flags & bit) !== 0
    assert.equal(has(spec.OP_REQUEST), opcode.role === 'request')
    assert.equal(has(spec.OP_RESPONSE), opcode.role === 'response')
    assert.equal(has(spec.OP_FIRST), opcode.position === 'first')
    assert.equal(has(spec.OP_MIDDLE), opcode.position === 'middle')
    assert.equal(has(spec.OP_LAST), opcode.position === 'last')
    assert.equal(has(spec.OP_ONLY), opcode.position === 'only')
    assert.equal(has(spec.OP_PAYLOAD), opcode.hasPayload)
    assert.equal(has(spec.OP_SEND), opcode.kind === 'send')
    assert.equal(has(spec.OP_WRITE), opcode.kind === 'write')
    assert.equal(has(spec.OP_READ), opcode.kind === 'read')
    assert.equal(has(spec.OP_ATOMIC), opcode.kind === 'atomic')
    assert.equal(has(spec.OP_FLUSH), opcode.kind === 'flush')
    assert.equal(has(spec.OP_ATOMIC_WRITE), opcode.kind === 'atomic_write')
    assert.equal(has(spec.OP_CNP), opcode.kind === 'cnp')
    assert.equal(has(spec.OP_SOLICITED), opcode.canBeSolicited)
    assert.equal(has(spec.OP_ACK), opcode.headers.includes('AETH'))
    assert.equal(has(spec.OP_IMM), opcode.headers.includes('ImmDt'))
    assert.equal(has(spec.OP_INV), opcode.headers.includes('IETH'))
    assert.equal(has(spec.OP_RETH), opcode.headers.includes('RETH'))
    let at = headers.BTH.bytes
    for (const header of opcode.headers) {
      assert.ok(header !== 'BTH')
      assert.equal(headerAt[header][number], at, `${opcode.name} ${header}`)
      at += headers[header].bytes
    }
    assert.equal(at, opcode.headerBytes)
  }
})

test('the solicited-event bit belongs to packets that complete a receive WQE', () => {
  const names = opcodes.filter(o => o.canBeSolicited && o.transport === 'RC').map(o => o.name)
  assert.deepEqual(names, [
    'RC_SEND_LAST',
    'RC_SEND_LAST_IMM',
    'RC_SEND_ONLY',
    'RC_SEND_ONLY_IMM',
    'RC_WRITE_LAST_IMM',
    'RC_WRITE_ONLY_IMM',
    'RC_SEND_LAST_INV',
    'RC_SEND_ONLY_INV',
  ])
})

test('header fields fill their headers without gap or overlap', () => {
  for (const [name, header] of Object.entries(headers)) {
    let bit = 0
    for (const [field, [first, width]] of Object.entries(header.fields)) {
      assert.equal(first, bit, `${name}.${field}`)
      bit += width
    }
    assert.equal(bit, header.bytes * 8, name)
  }
})

test('RNR timers grow from code 1 to 31, and code 0 is the longest; there are 31 credit counts', () => {
  assert.equal(rnrTimerMicroseconds.length, 32)
  assert.equal(rnrTimerMicroseconds[27], 122_880)
  assert.equal(Math.max(...rnrTimerMicroseconds), rnrTimerMicroseconds[0])
  for (let code = 2; code < 32; code++) assert.ok(rnrTimerMicroseconds[code] > rnrTimerMicroseconds[code - 1])
  assert.equal(creditCounts.length, 31)
  assert.equal(creditCounts[30], 32_768)
})

// `satisfies` is checked by tsc.
test('the types say which headers a packet has', () => {
  type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false
  const same = [
    true satisfies Same<HeadersOf<'RC_SEND_ONLY'>, never>,
    true satisfies Same<HeadersOf<'RC_WRITE_ONLY_IMM'>, 'RETH' | 'ImmDt'>,
    true satisfies Same<HeadersOf<'RC_FLUSH'>, 'FETH' | 'RETH'>,
    true satisfies Same<HeadersOf<'UC_SEND_LAST_IMM'>, 'ImmDt'>,
    true satisfies Same<HeadersOf<'UD_SEND_ONLY_IMM'>, 'DETH' | 'ImmDt'>,
    true satisfies Same<HeadersOf<'XRC_SEND_MIDDLE'>, 'XRCETH'>,
    true satisfies Same<HeadersOf<'XRC_ATOMIC_ACK'>, 'AETH' | 'AtomicAckETH'>,
    true satisfies Same<HeadersOf<'XRC_FETCH_ADD'>, 'XRCETH' | 'AtomicETH'>,
    true satisfies Same<HeadersOf<'CNP'>, never>,
  ]
  assert.ok(same.every(Boolean))
})
