/*
 * The source address for a destination, and the errno without one.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { EACCES } from '../../../src/host/errno.ts'
import { hasNative } from '../../../src/host/native.ts'
import { sourceAddress } from '../../../src/host/net/route.ts'
import { parseAddress } from '../../../src/wire/address.ts'

const sourceFor = (destination: string) => sourceAddress(parseAddress(destination) as Uint8Array, 0)

it('a loopback destination has a source address, and a refused destination an errno', {
  skip: !hasNative() && 'koffi is missing',
}, () => {
  assert.deepEqual(sourceFor('127.0.0.9'), parseAddress('127.0.0.1'))
  // Broadcasts are refused for sockets without SO_BROADCAST.
  assert.equal(sourceFor('127.255.255.255'), -EACCES)
})
