/*
 * Inline data between pointers: a request of mlx5 may have both, as UCX writes them. The engine gathers from regions
 * only. So the send queue in the program's memory, where the inline data are, becomes a region that no call tells of,
 * when the first such request is fetched. Like the request itself, the program may not change them until the
 * completion.
 */
import { createLocalSpace } from '../../core/memory/local-space.ts'
import { addRegion } from '../../core/memory/region-table.ts'
import { removeRegion } from '../../core/memory/windows.ts'
import type { Device } from '../../core/model.ts'
import { CallError } from '../../spec/errno.ts'

/** Local reads only. */
const NO_RIGHTS = 0
const NO_KEY = 0

export class InlineRegion {
  readonly #device: Pick<Device, 'memory'>
  readonly #pd: number
  readonly #queue: Uint8Array
  #row = -1

  /** `pd`: the id of the protection domain. `queue`: its first byte is at address 0 of the region. */
  constructor(device: Pick<Device, 'memory'>, pd: number, queue: Uint8Array) {
    this.#device = device
    this.#pd = pd
    this.#queue = queue
  }

  /** The key of the region; one that is no region's if the device has none left. */
  get key(): number {
    if (this.#row < 0 && !this.#register()) return NO_KEY
    return this.#device.memory.key[this.#row]!
  }

  #register(): boolean {
    // without `locate`: its bytes have no address for native copies
    const { locate: _, ...space } = createLocalSpace()
    const start = BigInt(space.add(this.#queue))
    try {
      this.#row = addRegion(this.#device.memory, this.#pd, start, 0n, this.#queue.length, NO_RIGHTS, space)
    } catch (error) {
      if (!(error instanceof CallError)) throw error
    }
    return this.#row >= 0
  }

  /** The queue pair is destroyed. */
  end(): void {
    if (this.#row >= 0) removeRegion(this.#device.memory, this.#row)
    this.#row = -1
  }
}
