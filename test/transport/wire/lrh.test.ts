/* InfiniBand's headers and CRCs of packets. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressText, lidAddress, lidOf } from '../../../src/transport/wire/address.ts'
import { arenaOver } from '../../../src/transport/wire/arena.ts'
import { icrcOf, makeFlow } from '../../../src/transport/wire/icrc.ts'
import { fabricHeaders, vcrcOf } from '../../../src/transport/wire/lrh.ts'

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.replace(/ /g, ''), 'hex'))
/**
 * BTH, RETH and payload of the sample packets of the InfiniBand Architecture Specification (7.8.3), and room for an
 * ICRC.
 */
const transport = hex(
  '0a202487 0087b1b3 000dec2a 01710a1c 015d4002 38f27a05 0000000e bb884d85 fd5cfba4 728bc069 0ed40000 00000000',
)
const local = {
  source: lidAddress(0x17d2),
  destination: lidAddress(0x375c),
  sourcePort: 0,
  trafficClass: 0,
  hopLimit: 0,
  flowLabel: 0,
  sl: 1,
}
const gid = (high: number, low: number): Uint8Array => {
  const bytes = new Uint8Array(16)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(high))
  new DataView(bytes.buffer).setBigUint64(8, BigInt(low))
  return bytes
}
const global = {
  ...local,
  trafficClass: 0x12,
  hopLimit: 0x10,
  flowLabel: 0x34567,
  grh: { source: gid(0x125, 0x26), destination: gid(0x117, 0x96) },
}

test('a LID is an address, as text too', () => {
  assert.equal(lidOf(lidAddress(0xbeef)), 0xbeef)
  assert.equal(lidOf(new Uint8Array(16)), -1)
  assert.equal(addressText(lidAddress(7)), 'LID 7')
})

test('LRH and ICRC of a local packet are those of the sample packet', () => {
  assert.deepEqual(fabricHeaders(local, transport.length), hex('0012375c000e17d2'))
  const icrc = icrcOf(arenaOver(transport), 0, transport.length, makeFlow({ ...local, destinationPort: 0 }), 0)
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, icrc, true)
  assert.deepEqual(bytes, hex('9625b75a'))
})

test('a GRH has the fields of the flow; the ICRC covers its GIDs, but not what routers change', () => {
  const headers = fabricHeaders(global, transport.length)
  assert.deepEqual(
    headers,
    hex('0013375c001817d2 61234567 00301b10 0000000000000125 0000000000000026 0000000000000117 0000000000000096'),
  )
  const icrc = (flow: typeof global): number =>
    icrcOf(arenaOver(transport), 0, transport.length, makeFlow({ ...flow, destinationPort: 0 }), 0)
  assert.equal(icrc({ ...global, trafficClass: 0, flowLabel: 0, hopLimit: 1, source: lidAddress(9) }), icrc(global))
  assert.notEqual(icrc({ ...global, grh: { ...global.grh, source: gid(1, 1) } }), icrc(global))
})

test('the VCRC of a packet and its VCRC is the same number for all packets', () => {
  const residueOf = (bytes: Uint8Array): number => {
    const vcrc = vcrcOf(bytes)
    return vcrcOf(Uint8Array.of(...bytes, vcrc & 0xff, vcrc >> 8))
  }
  assert.equal(residueOf(transport), residueOf(hex('00')))
  assert.notEqual(vcrcOf(transport), vcrcOf(transport.slice(1)))
})
