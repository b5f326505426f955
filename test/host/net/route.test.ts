/*
 * The source address for a destination, the route from a source address, and the errno without one.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { EACCES, EADDRNOTAVAIL } from '../../../src/host/errno.ts'
import { hasNative } from '../../../src/host/native.ts'
import { routeError, sourceAddress } from '../../../src/host/net/route.ts'
import { parseAddress } from '../../../src/transport/wire/address.ts'

const sourceFor = (destination: string) => sourceAddress(parseAddress(destination) as Uint8Array, 0)

it('a loopback destination has a source address, and a refused destination an errno', {
  skip: !hasNative() && 'koffi is missing',
}, () => {
  assert.deepEqual(sourceFor('127.0.0.9'), parseAddress('127.0.0.1'))
  // Broadcasts are refused for sockets without SO_BROADCAST.
  assert.equal(sourceFor('127.255.255.255'), -EACCES)
})

it('a route leads from one address to another; without one there is an errno', {
  skip: !hasNative() && 'koffi is missing',
}, () => {
  const errorBetween = (source: string, destination: string) =>
    routeError(parseAddress(source) as Uint8Array, parseAddress(destination) as Uint8Array, 0)
  assert.equal(errorBetween('127.0.0.1', '127.0.0.9'), 0)
  assert.equal(errorBetween('127.0.0.1', '127.255.255.255'), -EACCES)
  // TEST-NET-1: no route, or none from loopback
  assert.ok(errorBetween('127.0.0.1', '192.0.2.1') < 0)
  assert.equal(errorBetween('192.0.2.1', '127.0.0.1'), -EADDRNOTAVAIL)
})
