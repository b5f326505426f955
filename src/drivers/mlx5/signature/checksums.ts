/*
 * The checksums of block signatures: CRC-16 of T10-DIF, the IP checksum, CRC-32C and CRC-64 XP10, which catalogues of
 * CRCs call NVME. CRC-32 is the ICRC's (transport/wire/crc.ts). All start from a seed; where the standards complement
 * the result, it is complemented. Values of 64 bits are two u32.
 */

/** Table of a reflected CRC of 32 bits. */
const reflectedTable = (polynomial: number): Int32Array =>
  Int32Array.from({ length: 256 }, (_, byte) => {
    let register = byte
    for (let bit = 0; bit < 8; bit++) register = (register >>> 1) ^ (register & 1 ? polynomial : 0)
    return register
  })

const castagnoli = reflectedTable(0x82f6_3b78)

/** CRC-32C of RFC 3720. */
export const crc32c = (bytes: Uint8Array, from: number, to: number, seed: number): number => {
  let register = seed | 0
  for (let at = from; at < to; at++) register = castagnoli[(register ^ bytes[at]!) & 0xff]! ^ (register >>> 8)
  return ~register >>> 0
}

const [nvmeHi, nvmeLo] = (() => {
  const hi = new Int32Array(256)
  const lo = new Int32Array(256)
  for (let byte = 0; byte < 256; byte++) {
    let [high, low] = [0, byte]
    for (let bit = 0; bit < 8; bit++) {
      const isOdd = (low & 1) === 1
      low = (low >>> 1) | (high << 31)
      high >>>= 1
      if (isOdd) {
        high ^= 0x9a6c_9329
        low ^= 0xac4b_c9b5
      }
    }
    hi[byte] = high
    lo[byte] = low
  }
  return [hi, lo]
})()

/** CRC-64 XP10: the halves (hi, lo) go to `into`. */
export const crc64 = (
  bytes: Uint8Array,
  from: number,
  to: number,
  seedHi: number,
  seedLo: number,
  into: Uint32Array,
): void => {
  let high = seedHi | 0
  let low = seedLo | 0
  for (let at = from; at < to; at++) {
    const index = (low ^ bytes[at]!) & 0xff
    low = ((low >>> 8) | (high << 24)) ^ nvmeLo[index]!
    high = (high >>> 8) ^ nvmeHi[index]!
  }
  into[0] = ~high
  into[1] = ~low
}

const t10 = Uint16Array.from({ length: 256 }, (_, byte) => {
  let register = byte << 8
  for (let bit = 0; bit < 8; bit++) register = (register << 1) ^ (register & 0x8000 ? 0x8bb7 : 0)
  return register
})

/** CRC-16 of T10-DIF (SBC-3). */
export const crcT10 = (bytes: Uint8Array, from: number, to: number, seed: number): number => {
  let register = seed
  for (let at = from; at < to; at++) register = ((register << 8) & 0xffff) ^ t10[(register >>> 8) ^ bytes[at]!]!
  return register
}

/** IP checksum (RFC 1071) of an even number of bytes. */
export const ipChecksum = (bytes: Uint8Array, from: number, to: number, seed: number): number => {
  let sum = seed
  for (let at = from; at < to; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
