/*
 * Registrations of agents for methods of classes.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { methodsOf, Registrations } from '../../../src/services/mad-engine/registrations.ts'
import { MadClass, MadMethod, VENDOR_OUI_OFFSET } from '../../../src/spec/wire/management.ts'
import { madFields } from '../../../src/transport/wire/mad/management.ts'
import { plainMad } from './pair.ts'

const { VENDOR_OUI_FIRST: VENDOR } = MadClass
const { GET, SET } = MadMethod

/** The fields of a datagram with the bytes of an OUI. */
const fieldsOf = (mgmtClass: number, oui: number) => {
  const mad = plainMad(mgmtClass, GET, 1)
  mad.set([oui >> 16, oui >> 8, oui], VENDOR_OUI_OFFSET)
  return madFields(mad)
}

it('a vendor class has agents for each OUI; other classes have no OUI', () => {
  const registrations = new Registrations<string>()
  const claim = { mgmtClass: VENDOR, classVersion: 1, methods: [GET] }
  assert.ok(registrations.add({ ...claim, oui: 0x123456 }, 'first'))
  assert.ok(registrations.add({ ...claim, oui: 0x123457 }, 'second'))
  assert.ok(!registrations.add({ ...claim, oui: 0x123457 }, 'third'))
  assert.ok(registrations.add({ ...claim, mgmtClass: MadClass.PERFORMANCE, oui: 0 }, 'fourth'))
  assert.deepEqual(
    [fieldsOf(VENDOR, 0x123456), fieldsOf(VENDOR, 0x123457), fieldsOf(VENDOR, 1)].map(one => registrations.find(one)),
    ['first', 'second', undefined],
  )
  assert.equal(registrations.find(fieldsOf(MadClass.PERFORMANCE, 0x123456)), 'fourth')
})

it('only the agent of a method can remove its registration', () => {
  const registrations = new Registrations<string>()
  const claim = { mgmtClass: MadClass.PERFORMANCE, classVersion: 1, oui: 0, methods: [GET] }
  registrations.add(claim, 'first')
  registrations.remove({ ...claim, methods: [GET, SET] }, 'second')
  assert.equal(registrations.find(fieldsOf(MadClass.PERFORMANCE, 0)), 'first')
  registrations.remove(claim, 'first')
  assert.equal(registrations.find(fieldsOf(MadClass.PERFORMANCE, 0)), undefined)
})

it('bit 0 of a mask of methods is the lowest bit of its first byte', () => {
  const mask = new Uint8Array(16)
  mask.set([0b10, 1], 0)
  mask[15] = 0x80
  assert.deepEqual(methodsOf(mask), [1, 8, 127])
  assert.deepEqual(methodsOf(new Uint8Array(0)), [])
})
