/*
 * GUID and GIDs of a device, derived as by Linux's rxe in the recordings.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { identify } from '../../../src/core/devices/identity.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

test('as recorded: GUID and GIDs of MAC 52:54:00:77:00:02 with 10.77.0.2', () => {
  const mac = Uint8Array.of(0x52, 0x54, 0, 0x77, 0, 2)
  const { guid, gids, ...rest } = identify(ipv4(10, 77, 0, 2), { mac, name: 'enp1s0', index: 2 })
  assert.equal(hex(guid), '505400fffe770002')
  assert.deepEqual(gids.map(hex), ['fe80000000000000505400fffe770002', '00000000000000000000ffff0a4d0002'])
  assert.deepEqual(rest, { interfaceName: 'enp1s0', interfaceIndex: 2 })
})

test('if the interface has no MAC, a locally administered MAC is derived from the address', () => {
  for (const mac of [undefined, new Uint8Array(6)]) {
    const { guid } = identify(ipv4(127, 0, 0, 1), { ...(mac && { mac }), name: 'lo', index: 1 })
    assert.equal(hex(guid), '00007ffffe000001')
  }
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      (a, b) => {
        const identityOf = (octets: Uint8Array) => identify(ipv4(...octets), { name: 'lo', index: 1 })
        const isSame = hex(a) === hex(b)
        assert.equal(hex(identityOf(a).guid) === hex(identityOf(b).guid), isSame)
        assert.equal(identityOf(a).guid[0], 0, 'locally administered: the EUI-64 inverts the bit')
      },
    ),
  )
})

test('the identity copies the address of the caller', () => {
  const address = ipv4(127, 0, 0, 9)
  const { gids } = identify(address, { name: 'lo', index: 1 })
  address.fill(0)
  assert.equal(hex(gids[1]), '00000000000000000000ffff7f000009')
})
