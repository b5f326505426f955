/*
 * The identity of a device on this machine, from its address.
 */
import assert from 'node:assert/strict'
import { networkInterfaces } from 'node:os'
import { test } from 'node:test'
import { identityOf } from '../../src/assembly/host-identity.ts'
import type { NetworkInterface } from '../../src/host/net/interfaces.ts'
import { parseAddress } from '../../src/transport/wire/address.ts'

const hex = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString('hex')

/** The last three bytes of the MAC from which a GUID is derived. */
const macEnd = (guid: Uint8Array): string | undefined => hex(guid.subarray(5))

test('a device has the MAC of the interface with its address; without such an interface, lo and a derived MAC', () => {
  for (const [name, addresses = []] of Object.entries(networkInterfaces()))
    for (const { address, mac, family } of addresses) {
      if (family === 'IPv6' && address.startsWith('fe80')) continue
      const identity = identityOf({ address })
      assert.equal(identity.interfaceName, name)
      if (mac !== '00:00:00:00:00:00') assert.equal(macEnd(identity.guid), mac.replaceAll(':', '').slice(6))
      assert.equal(hex(identity.gids[1]), hex(parseAddress(address)))
    }
  // 192.0.2.0/24 is for documentation (RFC 5737): no interface has the address.
  const identity = identityOf({ address: '192.0.2.77' })
  assert.equal(identity.interfaceName, 'lo')
  assert.equal(hex(identity.guid), '0000c0fffe00024d', 'from 192.0.2.77, c000024d')
  assert.throws(() => identityOf({ address: 'nowhere' }), /"nowhere"/)
})

test('the index of lo is that of the table of interfaces, since some containers have no /sys', () => {
  const lo = { name: 'lo', index: 9 } as NetworkInterface
  const interfaces = { withAddress: () => undefined, links: () => new Map([[lo.index, lo]]) }
  assert.equal(identityOf({ address: '192.0.2.77' }, interfaces).interfaceIndex, lo.index)
})
