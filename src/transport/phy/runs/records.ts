/*
 * Records of the runs in flight on a link. They are rows of typed arrays, linked by `next` into a receiver's queue or
 * the free list. The arrays are replaced when they grow, so read them from the table each time.
 */

export interface RunRecords {
  /** Number of the buffer (transport/phy/runs/pool.ts) that contains the run. */
  buffer: Int32Array
  /** Offset of the first packet in the arena. */
  offset: Int32Array
  /** Bytes of each packet except the last. */
  packetBytes: Int32Array
  /** Number of packets. */
  count: Int32Array
  /** Bytes of the last packet. */
  lastBytes: Int32Array
  /** Number of the flow (flow-table.ts). */
  flow: Int32Array
  /** 1 if the ICRCs have been written. */
  isSealed: Uint8Array
  /** 1 if a switch has marked the packets (ECN). */
  isMarked: Uint8Array
  /** Routers that the packets have crossed. */
  hops: Uint8Array
  /** IPv4 identification of the first packet. */
  identification: Int32Array
  /** The next run; -1: none. */
  next: Int32Array
  /** The first free record; -1: none. */
  free: number
}

/** A table of `count` records (at least one). When all are in use, the number of records is doubled. */
export const createRunRecords = (count: number): RunRecords => {
  const column = (): Int32Array => new Int32Array(count)
  const records = {
    buffer: column(),
    offset: column(),
    packetBytes: column(),
    count: column(),
    lastBytes: column(),
    flow: column(),
    isSealed: new Uint8Array(count),
    isMarked: new Uint8Array(count),
    hops: new Uint8Array(count),
    identification: column(),
    next: column(),
    free: -1,
  }
  addFree(records, 0)
  return records
}

/** Adds the records from row `first` on to the free list. */
const addFree = (records: RunRecords, first: number): void => {
  const { next } = records
  for (let run = next.length - 1; run >= first; run--) {
    next[run] = records.free
    records.free = run
  }
}

const grow = (records: RunRecords): void => {
  const oldCount = records.next.length
  const copied = <T extends Int32Array | Uint8Array>(old: T, copy: T): T => {
    copy.set(old)
    return copy
  }
  const doubled = (old: Int32Array): Int32Array => copied(old, new Int32Array(oldCount * 2))
  const doubledFlags = (old: Uint8Array): Uint8Array => copied(old, new Uint8Array(oldCount * 2))
  records.buffer = doubled(records.buffer)
  records.offset = doubled(records.offset)
  records.packetBytes = doubled(records.packetBytes)
  records.count = doubled(records.count)
  records.lastBytes = doubled(records.lastBytes)
  records.flow = doubled(records.flow)
  records.isSealed = doubledFlags(records.isSealed)
  records.isMarked = doubledFlags(records.isMarked)
  records.hops = doubledFlags(records.hops)
  records.identification = doubled(records.identification)
  records.next = doubled(records.next)
  addFree(records, oldCount)
}

/**
 * Returns the row of a new record: unmarked, no hops, identification 0, `next` -1. The caller sets the other columns.
 */
export const allocateRecord = (records: RunRecords): number => {
  if (records.free < 0) grow(records)
  const run = records.free
  records.free = records.next[run]
  records.next[run] = -1
  records.isMarked[run] = 0
  records.hops[run] = 0
  records.identification[run] = 0
  return run
}

export const freeRecord = (records: RunRecords, run: number): void => {
  records.next[run] = records.free
  records.free = run
}
