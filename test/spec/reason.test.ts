/*
 * Reasons of refusals: their words, what they are about, and their JSON.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { CallError, callError, gone } from '../../src/spec/errno.ts'
import {
  because,
  coded,
  decodeReason,
  encodeReason,
  fieldOf,
  listOf,
  modelWords,
  Reason,
  reasonFrom,
  the,
} from '../../src/spec/reason.ts'

const place = because`${the.method('cq.create', 'CREATE_CQ')}: ${the.attribute('cqe')}`
const example = because`${place}: ${coded('out-of-range')`${9n} is above ${8}`}, of ${listOf([1, the.member('maxCqe')])}`

it('an audience has its own words for nouns, also of parts', () => {
  assert.equal(String(example), 'cq.create (CREATE_CQ): attribute cqe: 9 is above 8, of 1, maxCqe')
  const words = { ...modelWords, method: () => 'ibv_create_cq', attribute: () => 'cqe', member: () => 'max_cqe' }
  assert.equal(example.text(words), 'ibv_create_cq: cqe: 9 is above 8, of 1, max_cqe')
})

it('the message of a refusal is its reason in the object model’s words', () => {
  const error = callError.EINVAL`${example}`
  assert.deepEqual([error.message, error.code, error.reason.code], [String(example), 'EINVAL', 'out-of-range'])
  assert.match(error.stack ?? '', /^CallError: cq\.create \(CREATE_CQ\): attribute cqe: 9 is above 8/)
  assert.equal(new CallError('EIO', 'a driver’s own text').message, 'a driver’s own text')
  assert.equal(gone`no device`.reason.code, 'gone')
})

it('the subject is the method and the attribute at the start', () => {
  const modify = the.method('rc_qp.modify')
  for (const [reason, subject] of [
    [example, { method: 'cq.create', attribute: 'cqe' }],
    [because`${modify}: no`, { method: 'rc_qp.modify' }],
    [because`${modify}: ${the.addressField('sl')} 9`, { method: 'rc_qp.modify', attribute: 'address' }],
    [because`${the.attribute('cap.maxSendWr')}: 9`, { attribute: 'cap.maxSendWr' }],
    [because`no ${modify} of ${the.attribute('cqe')}`, {}],
  ] as const)
    assert.deepEqual(reason.subject, subject, reason.text())
  assert.equal(because`${modify}: no`.withMethod('rc_qp.create').text(), 'rc_qp.create: no')
  assert.equal(because`${because`${modify}: no`} more`.withMethod('rc_qp.create').text(), 'rc_qp.create: no more')
  assert.equal(because`${modify}: no`.text(modelWords, 'rc_qp.modify'), 'no')
  assert.equal(because`${modify}: no`.text(modelWords, 'rc_qp.create'), 'rc_qp.modify: no')
})

it('a field is named behind the attribute that has it', () => {
  assert.equal(String(fieldOf(place, '[2].dgid')), 'cq.create (CREATE_CQ): attribute cqe[2].dgid')
  assert.equal(String(fieldOf('record', '.a')), 'record.a')
  assert.equal(fieldOf(place, ''), place)
})

it('JSON keeps code, arguments and nouns; a reason without them is text', () => {
  const read = reasonFrom(JSON.parse(JSON.stringify(example)))!
  assert.deepEqual([read.text(), read.code, read.subject], [example.text(), example.code, example.subject])
  assert.deepEqual(read.coded?.arguments, ['9', 8])
  assert.equal(JSON.stringify(because`port ${9} is used`), '"port 9 is used"')
  assert.deepEqual(JSON.parse(JSON.stringify(coded('port-in-use')`port ${9}`)), ['port-in-use', ['port ', ''], 9])
})

it('any JSON is read: a reason, or none', () => {
  fc.assert(
    fc.property(fc.jsonValue(), data => {
      const reason = reasonFrom(data)
      assert.ok(reason === undefined || typeof reason.text() === 'string')
      assert.equal(typeof decodeReason(JSON.stringify(data)).text(), 'string')
    }),
  )
  for (const data of [['x', 'y'], [null, ['', ''], { method: [1] }], 5, null]) assert.equal(reasonFrom(data), undefined)
  assert.equal(reasonFrom([null, ['a ', ''], { later: ['x', 'y'] }])?.text(), 'a x, y')
  let deep: unknown = 'x'
  for (let i = 0; i < 50_000; i++) deep = [null, ['', ''], deep]
  assert.equal(reasonFrom(deep), undefined)
})

it('bytes of a reason: JSON, or text that is cut off; other text is a reason too', () => {
  const decoded = (reason: Reason, max: number): Reason =>
    decodeReason(new TextDecoder().decode(encodeReason(reason, max)))
  assert.deepEqual(decoded(example, 1000).subject, example.subject)
  assert.deepEqual([decoded(example, 90).text(), decoded(example, 90).subject], [example.text(), {}])
  for (const max of [3, 10, 63]) {
    const long = new Reason(undefined, ['é"😀'.repeat(100)], [])
    assert.ok(encodeReason(long, max).length <= max)
    assert.ok(long.text().startsWith(decoded(long, max).text()))
  }
  assert.equal(decodeReason('refused').text(), 'refused')
})
