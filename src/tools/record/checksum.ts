/*
 * The checksum of a block (docs/reference/session-file.md): it tells a block that was not written to its end, or whose
 * bytes were changed. Not against forgers.
 */

/** Fletcher's checksum of the 32-bit words of `view`'s first `length` bytes, little-endian, zero-extended. */
export const checksum = (view: DataView, length: number): number => {
  let sum = 0
  let sums = 0
  const words = length & ~3
  for (let at = 0; at < words; at += 4) {
    sum = (sum + view.getInt32(at, true)) | 0
    sums = (sums + sum) | 0
  }
  for (let at = words; at < length; at++) {
    sum = (sum + (view.getUint8(at) << (8 * (at - words)))) | 0
    sums = (sums + sum) | 0
  }
  return (sum ^ ((sums << 16) | (sums >>> 16))) >>> 0
}
