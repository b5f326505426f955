/*
 * Rings that hold exactly the requested number of requests (kind `queue` of torment, spec/check/torment.ts). The slots
 * of a ring are a power of two, and the user library posts as long as it sees a free slot. So the device publishes a
 * consumer index that is behind its own by the number of spare slots. The spare slots look occupied.
 */
import { type Ring, storeConsumer } from '../../core/memory/rings.ts'

/**
 * Releases the slots before `index`: publishes a consumer index that is lower by the number of spare slots. In rxe's
 * layout (`RingMemory.mayHideSlots`) one slot always stays empty, so `mask - capacity` slots are spare.
 */
export const releaseSlots = (ring: Ring, index: number): void =>
  storeConsumer(ring, index - (ring.mask - ring.capacity))

/** Limits a ring, from which no element was taken yet, to `capacity` elements. */
export const exactRing = (ring: Ring, capacity: number): Ring => {
  const exact = { ...ring, capacity }
  releaseSlots(exact, 0)
  return exact
}
