/*
 * Stored addresses, and the flows of paths.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flowAddress, type StoredAddress, storedAddress } from '../../../../src/drivers/rxe/address/path.ts'
import { ipv4, path } from '../machine.ts'

const peer = ipv4(10, 0, 0, 1)

test('equal addresses are stored once, others separately; every hop limit becomes 64', () => {
  const device: { lastAddress: StoredAddress | undefined } = { lastAddress: undefined }
  const stored = storedAddress(device, path(peer))
  assert.deepEqual(stored, path(peer, { hopLimit: 64 }))
  assert.equal(storedAddress(device, path(peer.slice(), { hopLimit: 9 })), stored)
  for (const change of [
    { dgid: ipv4(10, 0, 0, 2) },
    { flowLabel: 1 },
    { sgidIndex: 2 },
    { trafficClass: 1 },
    { sl: 1 },
    { staticRate: 1 },
    { isGlobal: 0 },
    { port: 2 },
  ]) {
    device.lastAddress = stored
    assert.deepEqual(storedAddress(device, path(peer, change)), path(peer, { ...change, hopLimit: 64 }))
  }
})

test('equal addresses with different next hops are stored separately', () => {
  const device: { lastAddress: StoredAddress | undefined } = { lastAddress: undefined }
  const stored = storedAddress(device, path(peer))
  const [dmac, otherDmac] = [Uint8Array.of(2, 0, 0, 0, 0, 1), Uint8Array.of(2, 0, 0, 0, 0, 2)]
  const withMac = storedAddress(device, path(peer), dmac)
  assert.deepEqual([stored.dmac, withMac.dmac], [undefined, dmac])
  assert.equal(storedAddress(device, path(peer), dmac.slice()), withMac)
  assert.deepEqual(storedAddress(device, path(peer), otherDmac).dmac, otherDmac)
  assert.equal(storedAddress(device, path(peer)).dmac, undefined)
})

test('a stored address is a copy, also of bytes in a Buffer', () => {
  const device: { lastAddress: StoredAddress | undefined } = { lastAddress: undefined }
  const [gid, dmac] = [Buffer.from(peer), Buffer.of(2, 0, 0, 0, 0, 1)]
  const stored = storedAddress(device, path(gid), dmac)
  gid.fill(0)
  dmac.fill(0)
  assert.deepEqual(stored.dgid, peer)
  assert.deepEqual(stored.dmac, Uint8Array.of(2, 0, 0, 0, 0, 1))
  assert.notEqual(storedAddress(device, path(gid), dmac), stored)
})

test('a flow label has 20 bits', () => {
  assert.equal(flowAddress(peer, path(peer, { flowLabel: 0xffff_ffff })).flowLabel, 0xf_ffff)
})
