/*
 * Buffers of one size in an arena, shared by the ports of a link so that none can starve another: each port has a few
 * guaranteed buffers, and the others are first come, first served. A buffer counts for the port that took it until the
 * receiver has released it.
 */

export interface RunPool {
  readonly size: number
  /** Takes a buffer for `owner`; -1 if its guaranteed ones are used and no other is available. */
  take(owner: number): number
  give(buffer: number): void
  offsetOf(buffer: number): number
  /** The buffer that contains an offset of the arena; -1 if there is none. */
  bufferAt(offset: number): number
  ownerOf(buffer: number): number
  addOwner(owner: number): void
  removeOwner(owner: number): void
  /** Number of the owner's buffers in use. */
  usedBy(owner: number): number
  /** Number of free buffers. */
  free(): number
}

/**
 * `count` buffers of `size` bytes at `base`, for owners 0 … `owners` - 1. `share`: number of guaranteed buffers of each
 * owner; fewer with many owners, but at least one, so that at most half of all buffers are guaranteed.
 */
export const createRunPool = (base: number, size: number, count: number, owners: number, share: number): RunPool => {
  const stack = Int32Array.from({ length: count }, (_, i) => count - 1 - i)
  const owner = new Int32Array(count).fill(-1)
  const used = new Int32Array(owners)
  const present = new Uint8Array(owners)
  let free = count
  let guarantee = share
  /** Number of buffers that must stay free for the guarantees of other owners. */
  let owed = 0

  const settle = (): void => {
    const number = present.reduce((sum, p) => sum + p, 0)
    guarantee = Math.max(1, Math.min(share, Math.floor(count / 2 / Math.max(number, 1))))
    owed = 0
    for (let o = 0; o < owners; o++) if (present[o]) owed += Math.max(0, guarantee - used[o])
  }

  return {
    size,
    take: o => {
      if (used[o] < guarantee) {
        if (free === 0) return -1
        owed--
      } else if (free <= owed) return -1
      used[o]++
      const buffer = stack[--free]
      owner[buffer] = o
      return buffer
    },
    give: buffer => {
      const o = owner[buffer]
      if (o < 0) throw new Error(`run buffer ${buffer} was released twice`)
      owner[buffer] = -1
      stack[free++] = buffer
      if (--used[o] < guarantee && present[o]) owed++
    },
    offsetOf: buffer => base + buffer * size,
    bufferAt: offset => {
      const buffer = Math.floor((offset - base) / size)
      return buffer >= 0 && buffer < count ? buffer : -1
    },
    ownerOf: buffer => owner[buffer],
    addOwner: o => {
      present[o] = 1
      settle()
    },
    removeOwner: o => {
      present[o] = 0
      settle()
    },
    usedBy: o => used[o],
    free: () => free,
  }
}
