/*
 * The source address for a destination, the route from a source address, and the errno without one.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { EACCES, EADDRNOTAVAIL } from '../../../src/host/errno.ts'
import { hasNative } from '../../../src/host/native.ts'
import { routeError, sourceAddress } from '../../../src/host/net/route.ts'
import { routeIn } from '../../../src/host/net/route-messages.ts'
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

it('a route message has the interface, the next router and the hop limit', () => {
  const attribute = (type: number, bytes: readonly number[]): number[] => [4 + bytes.length, 0, type, 0, ...bytes]
  const message = (kind: number, attributes: readonly number[]): Uint8Array => {
    const body = [2, 32, 32, 0, 254, 0, 0, kind, 0, 0, 0, 0, ...attributes]
    return Uint8Array.of(16 + body.length, 0, 0, 0, 24, 0, ...new Array<number>(10).fill(0), ...body)
  }
  const [RTA_OIF, RTA_GATEWAY, RTA_METRICS, RTAX_HOPLIMIT, UNICAST, LOCAL] = [4, 5, 8, 10, 1, 2]
  const out = attribute(RTA_OIF, [3, 0, 0, 0])
  assert.deepEqual(routeIn(message(UNICAST, out)), { interfaceIndex: 3, gateway: undefined, hopLimit: undefined })
  const metrics = attribute(RTA_METRICS, attribute(RTAX_HOPLIMIT, [7, 0, 0, 0]))
  assert.deepEqual(routeIn(message(UNICAST, [...out, ...attribute(RTA_GATEWAY, [10, 0, 0, 1]), ...metrics])), {
    interfaceIndex: 3,
    gateway: parseAddress('10.0.0.1'),
    hopLimit: 7,
  })
  assert.equal(routeIn(message(LOCAL, out)), undefined)
})
