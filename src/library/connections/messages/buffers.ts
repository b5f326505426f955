/*
 * Buffers for the frames of `connection.messages()`, shared by all connections of a protection domain: a connection
 * takes one for a receive or a SEND, and gives it back. The buffers lie in slabs, which are registered when they are
 * needed and deregistered when nothing uses them. Must not know frames or connections.
 */
import type { MemoryRegion, Slice } from '../../verbs/mr/region.ts'
import type { ProtectionDomain } from '../../verbs/pd.ts'

/** Maximum bytes of a slab, unless one buffer is longer, and its maximum of buffers. */
const SLAB_BYTES = 2 ** 17
const SLAB_BUFFERS = 32
/** Buffers of the first slab: an idle connection has so many receives. */
const FIRST_SLAB_BUFFERS = 4

interface Slab {
  readonly pool: BufferPool
  readonly region: MemoryRegion
  readonly view: DataView
  readonly size: number
  /** Buffers that were given back. */
  readonly free: FrameBuffer[]
  /** Buffers that were ever taken: the others have touched no memory. */
  made: number
}

/** Registered memory for one frame: its bytes begin at `at` of `view`, `bytes` and the region. */
export class FrameBuffer {
  readonly slab: Slab
  readonly at: number
  #slice: Slice

  constructor(slab: Slab, at: number, length: number) {
    this.slab = slab
    this.at = at
    this.#slice = slab.region.slice(at, length)
  }

  get view(): DataView {
    return this.slab.view
  }

  get bytes(): Uint8Array {
    return this.slab.region.buffer
  }

  /** No request uses the buffer any more. */
  giveBack(): void {
    this.slab.pool.add(this)
  }

  /** The first `length` bytes. Remembers the last slice, since most frames have the length of the one before. */
  slice(length: number): Slice {
    if (this.#slice.length !== length) this.#slice = this.slab.region.slice(this.at, length)
    return this.#slice
  }
}

export class BufferPool {
  readonly #pd: ProtectionDomain
  /** Bytes of a buffer. */
  readonly length: number
  /** Slabs with buffers to take; those that nothing uses come last. */
  readonly #open = new Set<Slab>()
  /** Buffers of all slabs, and those in use. */
  #buffers = 0
  #used = 0
  /** A slab that nothing uses: kept while other slabs are in use. */
  #spare: Slab | undefined

  constructor(pd: ProtectionDomain, length: number) {
    this.#pd = pd
    this.length = length
  }

  /** Throws RdmaError if memory cannot be registered. */
  take(): FrameBuffer {
    const slab = this.#open.values().next().value ?? this.#register()
    if (slab === this.#spare) this.#spare = undefined
    const buffer = slab.free.pop() ?? new FrameBuffer(slab, slab.made++ * this.length, this.length)
    this.#used++
    if (slab.free.length === 0 && slab.made === slab.size) this.#open.delete(slab)
    return buffer
  }

  /** Takes all or none. Throws RdmaError as `take`. */
  takeMany(count: number): FrameBuffer[] {
    const taken: FrameBuffer[] = []
    try {
      while (taken.length < count) taken.push(this.take())
    } catch (error) {
      for (const buffer of taken) buffer.giveBack()
      throw error
    }
    return taken
  }

  /** Takes a buffer back, see `giveBack`. */
  add(buffer: FrameBuffer): void {
    const { slab } = buffer
    slab.free.push(buffer)
    this.#used--
    this.#open.add(slab)
    if (slab.free.length < slab.made) return
    this.#open.delete(slab)
    if (this.#used > 0 && this.#spare === undefined) {
      this.#spare = slab
      this.#open.add(slab)
    } else this.#deregister(slab)
    if (this.#used === 0 && this.#spare !== undefined) {
      this.#deregister(this.#spare)
      this.#spare = undefined
    }
  }

  #register(): Slab {
    const most = Math.min(SLAB_BUFFERS, Math.max(1, Math.floor(SLAB_BYTES / this.length)))
    const size = Math.min(most, Math.max(FIRST_SLAB_BUFFERS, this.#buffers))
    const region = this.#pd.register(new Uint8Array(size * this.length))
    const slab: Slab = { pool: this, region, view: new DataView(region.buffer.buffer), size, free: [], made: 0 }
    this.#buffers += size
    this.#open.add(slab)
    return slab
  }

  #deregister(slab: Slab): void {
    this.#open.delete(slab)
    this.#buffers -= slab.size
    slab.region.close()
  }
}

const poolsByDomain = new WeakMap<ProtectionDomain, Map<number, BufferPool>>()

/** The buffers of `length` bytes of a protection domain. */
export const bufferPool = (pd: ProtectionDomain, length: number): BufferPool => {
  const pools = poolsByDomain.get(pd) ?? new Map<number, BufferPool>()
  poolsByDomain.set(pd, pools)
  const pool = pools.get(length) ?? new BufferPool(pd, length)
  pools.set(length, pool)
  return pool
}
