/*
 * Slots of objects in the engine's tables, and QP numbers. A freed QP number is not reused soon, because late packets
 * may name the destroyed QP.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createSlots } from '../../../src/drivers/soft/slots.ts'
import { createNumbers, FIRST_QPN } from '../../../src/drivers/soft/state.ts'

test('live values keep distinct slots, and freed slots are reused', () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.nat(100)), { maxLength: 200, size: 'max' }), steps => {
      const slots = createSlots<{ id: number }>()
      const live = new Map<number, { id: number }>()
      let max = 0
      for (const step of steps) {
        if (step === null || live.size === 0) {
          const value = { id: live.size }
          const slot = slots.add(value)
          assert.ok(!live.has(slot))
          live.set(slot, value)
        } else {
          const slot = [...live.keys()][step % live.size]
          slots.remove(slot)
          live.delete(slot)
        }
        max = Math.max(max, live.size)
        assert.equal(slots.size(), live.size)
        for (const [slot, value] of live) {
          assert.equal(slots.get(slot), value)
          assert.ok(slot < max, 'slots stay dense')
        }
      }
    }),
  )
})

test('removing a value twice is an internal error', () => {
  const slots = createSlots<string>()
  slots.remove(slots.add('a'))
  assert.throws(() => slots.remove(0), /free/)
})

test('QP numbers are assigned in order from 17 on, are unique while in use, and have 24 bits', () => {
  const numbers = createNumbers(FIRST_QPN)
  const first = numbers.take()
  assert.equal(first, 17)
  numbers.bind(first, 5)
  assert.equal(numbers.rowOf(17), 5)
  assert.equal(numbers.rowOf(18), -1)
  numbers.free(17)
  assert.equal(numbers.rowOf(17), -1)
  assert.equal(numbers.take(), 18, 'the freed number is not used next')
  // the last number is 0xfffffe, because 0xffffff is for multicast
  let number = 0
  for (let i = 0; i < 0xfffffe - 18; i++) {
    number = numbers.take()
    numbers.free(number)
  }
  assert.equal(number, 0xfffffe)
  assert.equal(numbers.take(), 17)
  assert.equal(numbers.take(), 19, '18 is in use')
})

test('numbers that are reused come back at once, the newest first that is not held', () => {
  const held = new Set<number>()
  const numbers = createNumbers(FIRST_QPN, 0, number => held.has(number))
  const [first, second] = [numbers.take(), numbers.take()]
  numbers.bind(first, 3)
  numbers.free(first)
  numbers.free(second)
  assert.deepEqual([numbers.take(), numbers.take(), numbers.take()], [second, first, second + 1])
  assert.equal(numbers.rowOf(first), -1)
  numbers.free(first)
  numbers.free(second)
  held.add(second)
  assert.deepEqual([numbers.take(), numbers.take()], [first, second + 2])
  held.clear()
  assert.equal(numbers.take(), second)
})

test('QP numbers start at a given offset from 17, and wrap from any start', () => {
  const first = (offset: number): number => createNumbers(FIRST_QPN, offset).take()
  assert.equal(first(1000), 1017)
  assert.equal(first(0xffff_ffff), 17 + (0xffff_ffff % (0xfffffe - 17 + 1)))
  const numbers = createNumbers(FIRST_QPN, 0xfffffe - 17)
  const qpn = numbers.take()
  numbers.bind(qpn, 3)
  assert.deepEqual([qpn, numbers.take(), numbers.rowOf(0xfffffe)], [0xfffffe, 17, 3])
  numbers.bind(1, 4)
  assert.equal(numbers.rowOf(1), 4, 'the queue pair of the general services keeps its number')
})
