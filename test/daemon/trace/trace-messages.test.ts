/*
 * The contents of a call's record (R46).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MAX_RECORDED_BYTES, recordingCaller } from '../../../src/daemon/trace/trace-messages.ts'
import { Sink } from '../../../src/drivers/null/device.ts'
import { AttributeFlag } from '../../../src/spec/classes/ids.ts'
import { CallError } from '../../../src/spec/errno.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'
import { type AnyValues, type ObjectClass, u32 } from '../../../src/spec/schema/schema.ts'
import { type Access, messagesOf } from '../../../src/tools/trace/call-messages.ts'
import { callJson, callLine } from '../../../src/tools/trace/calls.ts'
import { isSelected } from '../../../src/tools/trace/select.ts'
import type { Call, CallerView, Result } from '../../../src/uapi/call.ts'
import { ENTRY_HEADER, encodeChain } from '../../../src/uapi/object/chain.ts'
import { ATTRIBUTE, HEADER, INDIRECT_BYTES } from '../../../src/uapi/object/format.ts'
import { testCaller } from '../../core/fixture.ts'
import { fakeView, rxeClasses } from '../../uapi/fake-view.ts'

const cq = rxeClasses.find(({ name }) => name === 'cq')!
/** A driver's CQ class: `destroy` returns an attribute `colour`, `modify` a number with the name of a record of rxe. */
const coloured: ObjectClass = {
  ...cq,
  methods: {
    ...cq.methods,
    destroy: { ...cq.methods.destroy, out: { ...cq.methods.destroy.out, colour: u32(0x8009) } },
    modify: { ...cq.methods.modify, out: { ...cq.methods.modify.out, queue: u32(0x8000) } },
  },
}
const byName = new Map<string, ObjectClass>(rxeClasses.map(cls => [cls.name, cls]))
byName.set('sink', Sink).set('cq', coloured)
const view: CallerView = {
  ...fakeView(),
  schema: {
    driverId: 0,
    classById: id => [...byName.values()].find(cls => cls.id === id),
    classByName: name => byName.get(name),
  },
}

const callOf = (className: string, methodName: string, object = 0, args: AnyValues = {}): Call => {
  const cls = byName.get(className)!
  return { class: cls, methodName, method: cls.methods[methodName], object, args }
}
const recordOf = (call: Call, outcome: Result | CallError): TraceRecord => ({
  time: 0,
  duration: 0,
  pid: 1,
  tid: 1,
  fd: 3,
  command: 'x',
  device: 'null0',
  dialect: 'object',
  call: JSON.parse(JSON.stringify(messagesOf(view, call, outcome))),
  ret: outcome instanceof CallError ? -outcome.errno : 0,
})
const lineOf = (call: Call, outcome: Result): string =>
  callLine(recordOf(call, outcome)).slice('[pid 1 x] fd 3 '.length)

test('private classes and driver attributes of common classes are shown by name', () => {
  const take = callOf('sink', 'take', 3, { data: Uint8Array.of(1, 2, 3) })
  assert.equal(lineOf(take, { out: {} }), 'sink.take(object 3, data 010203) = 0 <0.000000>')
  assert.equal(
    lineOf(callOf('sink', 'query', 3), { out: { taken: 7n } }),
    'sink.query(object 3) = 0 {taken 7} <0.000000>',
  )
  assert.match(lineOf(callOf('cq', 'modify', 4, { cqe: 8 }), { out: { cqe: 8, queue: 5 } }), /\{cqe 8, queue 5\}/)
  assert.equal(callJson(recordOf(take, { out: {} })).class, 'sink')
  assert.ok(isSelected(recordOf(take, { out: {} }), { classes: new Set(['sink']) }))
  const destroy = callOf('cq', 'destroy', 4)
  assert.equal(
    lineOf(destroy, { out: { compEvents: 0, asyncEvents: 0, colour: 9 } }),
    'cq.destroy(object 4) = 0 {compEvents 0, asyncEvents 0, colour 9} <0.000000>',
  )
})

test('methods of private classes within a chain are shown by name', () => {
  const entries = encodeChain([
    { call: callOf('pd', 'create') },
    { call: callOf('sink', 'create', 0, { pd: 0 }), refs: { pd: 0 } },
  ])
  const record = recordOf(callOf('interface', 'chain', 0, { entries, onError: 0 }), { out: { done: 0, error: 0 } })
  assert.match(callLine(record), /entries \[pd\.create\(\), sink\.create\(pd entry 0\)\]/)
  assert.deepEqual(
    record.call?.declared?.map(declaration => `${declaration.class}.${declaration.method}`),
    ['sink.create'],
  )
})

test('one access is recorded once, also if many attributes of a chain’s entry have its address', () => {
  const [address, bytes] = [0x1000n, Uint8Array.of(1, 2, 3)]
  const ATTRIBUTES = 100
  const ATTRIBUTE_BYTES = ATTRIBUTE + INDIRECT_BYTES
  const messageBytes = HEADER + ATTRIBUTES * ATTRIBUTE_BYTES
  const entries = new Uint8Array(ENTRY_HEADER + messageBytes)
  const data = new DataView(entries.buffer)
  // The entry's header, and the message's.
  data.setUint8(0, Sink.methods.take.call)
  data.setUint32(4, messageBytes, true)
  data.setUint16(ENTRY_HEADER, messageBytes, true)
  data.setUint16(ENTRY_HEADER + 2, Sink.id, true)
  for (let i = 0; i < ATTRIBUTES; i++) {
    const at = ENTRY_HEADER + HEADER + i * ATTRIBUTE_BYTES
    data.setUint16(at, ATTRIBUTE_BYTES, true)
    // The device ignores all but the first attribute.
    data.setUint16(at + 2, i === 0 ? Sink.methods.take.in.data.id : 0x9000 + i, true)
    data.setUint32(at + 4, AttributeFlag.INDIRECT, true)
    data.setBigUint64(at + ATTRIBUTE, address, true)
    data.setBigUint64(at + ATTRIBUTE + 8, BigInt(bytes.length), true)
  }
  const access: Access = { direction: 'in', address, bytes }
  const chain = callOf('interface', 'chain', 0, { entries, onError: 0 })
  const { pointed } = messagesOf(view, chain, { out: { done: 1, error: 0 } }, [access])
  assert.deepEqual(pointed, [[0, 'in', '0x1000', Buffer.from(bytes).toString('base64')]])
})

test('a class of a driver is declared, also if it shares a method with a common class', () => {
  const pd = byName.get('pd')!
  const own: ObjectClass = { ...pd, name: 'domain', id: 0x8100 }
  const destroy = { methodName: 'destroy', method: pd.methods.destroy, object: 1, args: {} }
  const declared = (cls: ObjectClass) => messagesOf(view, { ...destroy, class: cls }, { out: {} }).declared
  assert.equal(declared(pd), undefined)
  assert.deepEqual(
    declared(own)?.map(({ class: name }) => name),
    ['domain'],
  )
})

test('a record has no declarations of methods that spec/ declares', () => {
  for (const { call, outcome } of [
    { call: callOf('pd', 'create'), outcome: { object: 1, out: {} } },
    { call: callOf('rc_qp', 'postSend', 1), outcome: { out: { badWr: 0 } } },
  ])
    assert.equal(recordOf(call, outcome).call?.declared, undefined)
})

test('long values are in `memory` of the record, and are shown', () => {
  const data = new Uint8Array(60_000).fill(0xab)
  const record = recordOf(callOf('sink', 'take', 3, { data }), { out: {} })
  assert.equal(record.call?.memory?.length, 1)
  assert.match(callLine(record), /sink\.take\(object 3, data (ab){32}… \(60000 bytes\)\) = 0/)
  const entries = Array.from({ length: 900 }, (_, i) => ({
    gid: new Uint8Array(16),
    index: i,
    port: 1,
    type: 2,
    ifindex: 0,
  }))
  const table = recordOf(callOf('device', 'queryGidTable'), { out: { entries } })
  assert.equal(((callJson(table).out as AnyValues).entries as unknown[]).length, 900)
})

test('the record of a refused call has no answer, and the record of an unencodable call has no messages', () => {
  const refused = recordOf(callOf('sink', 'query', 3), new CallError('ENOENT', 'gone'))
  assert.equal(refused.call?.answer, '')
  assert.match(callLine(refused), /sink\.query\(object 3\) = -1 ENOENT/)
  const wrong = recordOf(callOf('sink', 'take', 3), { out: {} })
  assert.deepEqual([wrong.call?.message, wrong.call?.answer], ['', ''])
})

test('the recorded bytes of a call are limited', () => {
  const accesses: Access[] = []
  const MEBIBYTE = 2 ** 20
  const caller = recordingCaller({ ...testCaller(), copyIn: (_, length) => new Uint8Array(length) }, accesses)
  // After the first omitted access, all accesses are omitted.
  const recordedPairs = Math.floor(MAX_RECORDED_BYTES / (MEBIBYTE + 8))
  for (let i = 0; i < 100; i++) caller.copyIn(BigInt(i), i % 2 === 0 ? MEBIBYTE : 8)
  assert.deepEqual(
    accesses.map(({ address }) => Number(address)),
    Array.from({ length: 2 * recordedPairs }, (_, i) => i),
  )
})
