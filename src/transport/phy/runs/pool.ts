/*
 * Buffers of one size in an arena, shared by the ports of a link. The owner of a buffer is the port that took it, until
 * the receiver has released the buffer. Each port has a few guaranteed buffers, so that no port can starve another. The
 * other buffers are first come, first served.
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
 * `maxGuarantee` guaranteed buffers. With many owners each has fewer, but at least one, so that about half of the
 * buffers remain for all.
 */
export const createRunPool = (
  base: number,
  size: number,
  count: number,
  maxOwners: number,
  maxGuarantee: number,
): RunPool => {
  /** The free buffers: the first `freeCount` entries. */
  const freeBuffers = Int32Array.from({ length: count }, (_, i) => count - 1 - i)
  /** By buffer: its owner; -1 if it is free. */
  const ownerOf = new Int32Array(count).fill(-1)
  /** By owner: number of buffers in use. */
  const used = new Int32Array(maxOwners)
  /** By owner: 1 if it was added and not removed. */
  const isPresent = new Uint8Array(maxOwners)
  let freeCount = count
  /** Number of buffers guaranteed to each owner. */
  let guarantee = maxGuarantee
  /**
   * Number of free buffers that are guaranteed to owners. Greater than `freeCount` if other owners had taken too many
   * buffers before an owner was added.
   */
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
      const buffer = freeBuffers[--freeCount]
      ownerOf[buffer] = owner
      return buffer
    },
    release: buffer => {
      const owner = ownerOf[buffer]
      if (owner < 0) throw new Error(`run buffer ${buffer} was released twice`)
      ownerOf[buffer] = -1
      freeBuffers[freeCount++] = buffer
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
