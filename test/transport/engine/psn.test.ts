/*
 * PSN arithmetic modulo 2^24.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { psnAdd, psnDifference, psnDistance } from '../../../src/transport/engine/psn.ts'

it('PSNs add, subtract and compare across the wrap', () => {
  assert.equal(psnAdd(0xffffff, 1), 0)
  assert.equal(psnAdd(5, 0x80_0000), 0x80_0005)
  assert.equal(psnDistance(0xfffffe, 3), 5)
  assert.equal(psnDistance(3, 0xfffffe), 0xfffffb)
  assert.equal(psnDifference(3, 0xfffffe), 5)
  assert.equal(psnDifference(0xfffffe, 3), -5)
  assert.equal(psnDifference(0x80_0000, 0), -0x80_0000)
  assert.equal(psnDifference(0x7f_ffff, 0), 0x7f_ffff)
  assert.equal(psnDifference(7, 7), 0)
})
