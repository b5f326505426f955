/*
 * Socket addresses of rdma_cm.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { emitAddress, Family, parseAddress } from '../../../src/services/socket-address.ts'
import { ipv6 } from '../../drivers/rxe/machine.ts'
import { byGid, ip6 } from './hosts.ts'

it('an address is a copy of its bytes, also of bytes in a Buffer', () => {
  for (const original of [ip6(7, 7471), byGid(ip6(7, 7471))]) {
    const bytes = Buffer.from(emitAddress(original))
    const parsed = parseAddress(bytes)
    bytes.fill(0)
    assert.ok(parsed?.family === Family.INET6 || parsed?.family === Family.IB)
    assert.deepEqual(parsed.address, ipv6(7))
  }
})
