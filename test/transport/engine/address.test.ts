/*
 * The upper half of a 64-bit address, after a number was added to its lower half.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { upperWord } from '../../../src/transport/engine/address.ts'

it('a sum of 2^32 or more carries into the upper half, which wraps', () => {
  assert.equal(upperWord(1, 0xffff_ffff), 1)
  assert.equal(upperWord(1, 0x1_0000_0000), 2)
  assert.equal(upperWord(0xffff_ffff, 0xffff_ffff), 0xffff_ffff)
  assert.equal(upperWord(0xffff_ffff, 0x1_0000_0000), 0)
})
