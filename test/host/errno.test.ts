import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { test } from 'node:test'
import { errnoName, errnoNumber, SystemError } from '../../src/host/errno.ts'

test('errnoName and errnoNumber have the numbers of node:os', () => {
  for (const [name, number] of Object.entries(constants.errno)) {
    assert.equal(errnoNumber(name), number)
    assert.equal(errnoNumber(errnoName(number)), number, name)
  }
})

test('errnoName returns the customary name of a number with two names, and accepts negative numbers', () => {
  assert.equal(errnoName(95), 'EOPNOTSUPP')
  assert.equal(errnoNumber('ENOTSUP'), 95)
  assert.equal(errnoName(11), 'EAGAIN')
  assert.equal(errnoName(-5), 'EIO')
})

test('numbers that node:os lacks have names, and an unknown number n is "errno n"', () => {
  assert.equal(errnoName(121), 'EREMOTEIO')
  assert.equal(errnoNumber('ESHUTDOWN'), 108)
  assert.equal(errnoName(4095), 'errno 4095')
  assert.equal(errnoNumber('ENOSUCHNAME'), undefined)
})

test('a SystemError of a negative number has the positive number, its name and the call', () => {
  const error = new SystemError('mmap', -12, 'too much')
  assert.deepEqual([error.errno, error.code, error.call], [12, 'ENOMEM', 'mmap'])
  assert.equal(error.message, 'mmap: ENOMEM: too much')
})
