/*
 * A hash of words under a secret key: HalfSipHash-1-3 (Aumasson, Bernstein), with the words alone. Whoever does not
 * know the key cannot choose words with one hash; of weaker functions, differences of words cancel out under every key.
 * Nothing is allocated.
 */

/** Of the first `count` words. `key`: a random u32. Returns an i32. */
export const hashWords = (key: number, words: Uint32Array, count: number): number => {
  const k0 = key | 0
  const k1 = Math.imul(key, 0x9e37_79b1)
  let v0 = k0
  let v1 = k1
  let v2 = k0 ^ 0x6c79_6765
  let v3 = k1 ^ 0x7465_6462
  // one round for each word, then three
  for (let i = 0; i < count + 3; i++) {
    const word = i < count ? words[i]! : 0
    if (i === count) v2 ^= 0xff
    v3 ^= word
    v0 = (v0 + v1) | 0
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0
    v0 = (v0 << 16) | (v0 >>> 16)
    v2 = (v2 + v3) | 0
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2
    v0 = (v0 + v3) | 0
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0
    v2 = (v2 + v1) | 0
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2
    v2 = (v2 << 16) | (v2 >>> 16)
    v0 ^= word
  }
  return v1 ^ v3
}
