/*
 * Stored addresses, and the flows of paths.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flowAddress, type StoredAddress, storedAddress } from '../../../../src/drivers/soft/address/path.ts'
import { ipv4, path } from '../../rxe/machine.ts'

const peer = ipv4(10, 0, 0, 1)
const newDevice = () => ({ lastAddress: undefined as StoredAddress | undefined, paths: { hopLimitOf: () => 64 } })
const noLids = { dlid: 0, srcPathBits: 0 }

test('equal addresses are stored once, others separately; every hop limit becomes 64', () => {
  const device = newDevice()
  const stored = storedAddress(device, path(peer))
  assert.deepEqual(stored, { ...path(peer, { hopLimit: 64 }), ...noLids })
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
    assert.deepEqual(storedAddress(device, path(peer, change)), {
      ...path(peer, { ...change, hopLimit: 64 }),
      ...noLids,
    })
  }
})

test('equal addresses with different next hops are stored separately', () => {
  const device = newDevice()
  const stored = storedAddress(device, path(peer))
  const [dmac, otherDmac] = [Uint8Array.of(2, 0, 0, 0, 0, 1), Uint8Array.of(2, 0, 0, 0, 0, 2)]
  const withMac = storedAddress(device, path(peer), dmac)
  assert.deepEqual([stored.dmac, withMac.dmac], [undefined, dmac])
  assert.equal(storedAddress(device, path(peer), dmac.slice()), withMac)
  assert.deepEqual(storedAddress(device, path(peer), otherDmac).dmac, otherDmac)
  assert.equal(storedAddress(device, path(peer)).dmac, undefined)
})

test('a stored address is a copy, also of bytes in a Buffer', () => {
  const device = newDevice()
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

test('the UDP source port is that of the flow label or of both QPNs; of datagrams alone that of theirs, as rxe', () => {
  const portOf = (flowLabel: number, qpn?: number, destQpn?: number): number =>
    flowAddress(peer, path(peer, { flowLabel }), { qpn, destQpn }).sourcePort
  // values of rdma_flow_label_to_udp_sport and rdma_calc_flow_label
  assert.equal(portOf(1), 0xc001)
  assert.equal(portOf(0xfffff), 0xc000 | (0x3fff ^ 0x3f))
  assert.equal(portOf(0, 17, 18), 0xc000 | 306)
  const product = 0xff_ffffn * 0xff_fffen
  const folded = product ^ (product >> 20n)
  const label = Number((folded ^ (folded >> 40n)) & 0xf_ffffn)
  assert.equal(portOf(0, 0xff_ffff, 0xff_fffe), 0xc000 | ((label & 0x3fff) ^ (label >> 14)))
  assert.equal(portOf(0, 18, 17), portOf(0, 17, 18))
  assert.equal(portOf(0), 0xc000)
  // hash_32(17, 14) and hash_32(1, 14)
  assert.deepEqual([portOf(0, 17), portOf(5, 1)], [0xc000 | 0x1f94, 0xc000 | 0x1872])
})
