/*
 * Buffers of one size in an arena, shared by the ports of a link, their owners. Each port has a few guaranteed buffers,
 * so that no port can starve another. The other buffers are first come, first served. A buffer counts for the port that
 * took it until the receiver has released it.
 */

export interface RunPool {
  /** Takes a buffer; -1 if there is none for this owner. */
  take(owner: number): number
  /** Frees a buffer. Throws an Error if it is free. */
  release(buffer: number): void
  offsetOf(buffer: number): number
  /** The buffer that contains an offset of the arena; -1 if there is none. */
  bufferAt(offset: number): number
  addOwner(owner: number): void
  removeOwner(owner: number): void
  /** Number of the owner's buffers in use. */
  usedBy(owner: number): number
  /** Number of free buffers. */
  free(): number
}

/**
 * `count` buffers of `size` bytes at `base`, for up to `maxOwners` owners with numbers from 0 on. Each owner has
 * `maxGuarantee` guaranteed buffers; with many owners fewer, but at least one.
 */
export const createRunPool = (
  base: number,
  size: number,
  count: number,
  maxOwners: number,
  maxGuarantee: number,
): RunPool => {
  /** The free buffers: the first `freeCount` entries. */
  const stack = Int32Array.from({ length: count }, (_, i) => count - 1 - i)
  /** By buffer: its owner; -1 if it is free. */
  const ownerOf = new Int32Array(count).fill(-1)
  /** By owner: number of buffers in use. */
  const used = new Int32Array(maxOwners)
  /** By owner: 1 if it was added and not removed. */
  const isPresent = new Uint8Array(maxOwners)
  let freeCount = count
  let guarantee = maxGuarantee
  /** Number of buffers that must stay free because they are guaranteed. */
  let reservedCount = 0

  const updateGuarantee = (): void => {
    const owners = isPresent.reduce((sum, present) => sum + present, 0)
    guarantee = Math.max(1, Math.min(maxGuarantee, Math.floor(count / 2 / Math.max(owners, 1))))
    reservedCount = 0
    for (let owner = 0; owner < maxOwners; owner++)
      if (isPresent[owner]) reservedCount += Math.max(0, guarantee - used[owner])
  }

  return {
    take: owner => {
      if (used[owner] < guarantee) {
        if (freeCount === 0) return -1
        reservedCount--
      } else if (freeCount <= reservedCount) return -1
      used[owner]++
      const buffer = stack[--freeCount]
      ownerOf[buffer] = owner
      return buffer
    },
    release: buffer => {
      const owner = ownerOf[buffer]
      if (owner < 0) throw new Error(`run buffer ${buffer} was released twice`)
      ownerOf[buffer] = -1
      stack[freeCount++] = buffer
      if (--used[owner] < guarantee && isPresent[owner]) reservedCount++
    },
    offsetOf: buffer => base + buffer * size,
    bufferAt: offset => {
      const buffer = Math.floor((offset - base) / size)
      return buffer >= 0 && buffer < count ? buffer : -1
    },
    addOwner: owner => {
      isPresent[owner] = 1
      updateGuarantee()
    },
    removeOwner: owner => {
      isPresent[owner] = 0
      updateGuarantee()
    },
    usedBy: owner => used[owner],
    free: () => freeCount,
  }
}
