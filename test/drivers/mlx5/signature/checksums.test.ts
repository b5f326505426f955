/*
 * Checksums of block signatures: check values of the catalogue of parametrised CRC algorithms (the CRC of 123456789),
 * of RFC 3720, appendix B.4, and of RFC 1071.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { crc32c, crc64, crcT10, ipChecksum } from '../../../../src/drivers/mlx5/signature/checksums.ts'
import { SigKind } from '../../../../src/drivers/mlx5/signature/layout.ts'
import {
  computeValue,
  type Domain,
  decodeValue,
  encodeValue,
} from '../../../../src/drivers/mlx5/signature/signature.ts'
import { arenaOver } from '../../../../src/transport/wire/arena.ts'

const digits = new TextEncoder().encode('x123456789x')

it('CRC-32C', () => {
  assert.equal(crc32c(digits, 1, 10, 0xffff_ffff), 0xe306_9283)
  assert.equal(crc32c(new Uint8Array(32), 0, 32, 0xffff_ffff), 0x8a91_36aa)
  const ascending = Uint8Array.from({ length: 32 }, (_, i) => i)
  assert.equal(crc32c(ascending, 0, 32, 0xffff_ffff), 0x46dd_794e)
})

it('CRC-64 XP10 (NVME)', () => {
  const value = new Uint32Array(2)
  crc64(digits, 1, 10, 0xffff_ffff, 0xffff_ffff, value)
  assert.deepEqual([...value], [0xae8b_1486, 0x0a79_9888])
})

it('CRC-16 of T10-DIF', () => {
  assert.equal(crcT10(digits, 1, 10, 0), 0xd0db)
})

it('IP checksum', () => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7)
  assert.equal(ipChecksum(bytes, 0, 8, 0), 0x220d)
})

it('CRC-32, which is stored little-endian; tags of T10-DIF are big-endian', () => {
  const domain: Domain = {
    kind: SigKind.CRC32,
    block: 9,
    bytes: 4,
    psv: 1,
    increments: true,
    escape: 0,
    tagMask: 0xffff,
  }
  const psv = { pd: 1, hi: 0xffff_ffff, lo: 0, isFailed: false }
  const value = new Uint32Array(2)
  computeValue(domain, psv, 0, arenaOver(digits), 1, value)
  assert.deepEqual([...value], [0xcbf4_3926, 0])
  const bytes = new Uint8Array(8)
  encodeValue(domain, value, bytes, 0)
  assert.deepEqual([...bytes], [0x26, 0x39, 0xf4, 0xcb, 0, 0, 0, 0])
  const t10: Domain = { ...domain, kind: SigKind.T10_CRC, bytes: 8 }
  computeValue(t10, { ...psv, hi: 0x1234, lo: 100 }, 5, arenaOver(digits), 1, value)
  encodeValue(t10, value, bytes, 0)
  assert.deepEqual([...bytes], [0xd0, 0xdb, 0x12, 0x34, 0, 0, 0, 105])
  const again = new Uint32Array(2)
  decodeValue(t10, bytes, 0, again)
  assert.deepEqual(again, value)
})
