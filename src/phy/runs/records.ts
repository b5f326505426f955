/*
 * Records of the runs in flight on a link: buffer, place, sizes, flow. They are rows of typed arrays that are replaced
 * when they grow (read them from the table each time), linked by `next` into a receiver's queue or the free list. A
 * buffer may hold many runs, so only their bytes bound their number.
 */

export interface RunRecords {
  buffer: Int32Array
  /** Of the first packet, in the arena. */
  offset: Int32Array
  packetBytes: Int32Array
  count: Int32Array
  lastBytes: Int32Array
  flow: Int32Array
  /** 1 when the ICRCs are in place. */
  sealed: Uint8Array
  /** The run behind it, -1 for none. */
  next: Int32Array
  /** First free record, -1 if all are used. */
  free: number
}

/** A table with room for `count` runs, at least one, before it grows. */
export const createRunRecords = (count: number): RunRecords => {
  const column = (): Int32Array => new Int32Array(count)
  const records = {
    buffer: column(),
    offset: column(),
    packetBytes: column(),
    count: column(),
    lastBytes: column(),
    flow: column(),
    sealed: new Uint8Array(count),
    next: column(),
    free: -1,
  }
  addFree(records, 0)
  return records
}

/** Puts the records from `from` on into the free list, the lowest first. */
const addFree = (records: RunRecords, from: number): void => {
  const { next } = records
  for (let run = next.length - 1; run >= from; run--) {
    next[run] = records.free
    records.free = run
  }
}

const grow = (records: RunRecords): void => {
  const before = records.next.length
  const bigger = (old: Int32Array): Int32Array => {
    const made = new Int32Array(before * 2)
    made.set(old)
    return made
  }
  records.buffer = bigger(records.buffer)
  records.offset = bigger(records.offset)
  records.packetBytes = bigger(records.packetBytes)
  records.count = bigger(records.count)
  records.lastBytes = bigger(records.lastBytes)
  records.flow = bigger(records.flow)
  const sealed = new Uint8Array(before * 2)
  sealed.set(records.sealed)
  records.sealed = sealed
  records.next = bigger(records.next)
  addFree(records, before)
}

/** A record for a new run at the end of its queue; its other columns are undefined. */
export const allocateRecord = (records: RunRecords): number => {
  if (records.free < 0) grow(records)
  const run = records.free
  records.free = records.next[run]
  records.next[run] = -1
  return run
}

export const freeRecord = (records: RunRecords, run: number): void => {
  records.next[run] = records.free
  records.free = run
}
