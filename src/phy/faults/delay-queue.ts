/*
 * Packets that a fault layer delays: copied until enough others have passed them, or until their delay is over and the
 * rate limit admits them. A packet's delay begins with the first `onTimeout` after it was queued. The queue is bounded,
 * as that of any link. `Tag` belongs to a packet.
 */

/** Maximum packets in the queue, as tc-netem's limit. */
export const MAX_DELAYED = 1000
/** Longest packet: path MTU 4096 and all headers. */
export const MAX_DELAYED_BYTES = 4224
/** Slots that are made at once. */
const CHUNK = 50

/** A packet in the queue, or the one that was just taken out; its bytes stay until the next `hold`. */
export interface DelayedPacket<Tag> {
  readonly bytes: Uint8Array
  readonly offset: number
  readonly length: number
  readonly tag: Tag
  /** Packets that must still pass it; Infinity if only time counts. */
  passing: number
  /** Delay in microseconds, and the rate limits that apply after it. */
  readonly wait: number
  limits: number
  /** When it leaves, Infinity until that is known; and its place among those with the same time. */
  due: number
  readonly order: number
  gone: boolean
}

export interface DelayQueue<Tag> {
  /** Packets that wait, and packets that may leave. */
  readonly count: number
  readonly ready: number
  /**
   * Copies a packet into the queue until `passing` others have passed, or `wait` microseconds and the limits behind it
   * are over. False if the queue is full, or the packet too long.
   */
  hold(
    bytes: Uint8Array,
    offset: number,
    length: number,
    tag: Tag,
    passing: number,
    wait: number,
    limits: number,
  ): boolean
  /** `count` packets pass those in the queue. */
  pass(count: number): void
  /** How many packets may pass before one of the queue must leave. */
  untilNext(): number
  /** The packet that leaves next; undefined if none is ready. */
  take(): DelayedPacket<Tag> | undefined
  /** Makes all packets ready, in the order of time. */
  readyAll(): void
  /** Drops all packets. */
  clear(): void
  nextTimeout(): number
  /** True if something became ready. */
  onTimeout(now: number): boolean
}

/** `departure`: the time at which a packet that arrives at `time` has passed the limits (dice.ts). */
export const createDelayQueue = <Tag>(
  departure: (limits: number, time: number, length: number, tag: Tag) => number,
): DelayQueue<Tag> => {
  /**
   * Packets without a time yet; those with one, as a heap, the first at 0; those that others pass; those that may
   * leave.
   */
  let fresh: DelayedPacket<Tag>[] = []
  const timed: DelayedPacket<Tag>[] = []
  let passed: DelayedPacket<Tag>[] = []
  let ready: DelayedPacket<Tag>[] = []
  const slots: { readonly bytes: Uint8Array; readonly offset: number }[] = []
  let count = 0
  let orders = 0

  const isBefore = (a: DelayedPacket<Tag>, b: DelayedPacket<Tag>): boolean =>
    a.due < b.due || (a.due === b.due && a.order < b.order)
  const push = (packet: DelayedPacket<Tag>): void => {
    let i = timed.length
    for (; i > 0 && isBefore(packet, timed[(i - 1) >> 1]); i = (i - 1) >> 1) timed[i] = timed[(i - 1) >> 1]
    timed[i] = packet
  }
  const pop = (): void => {
    const last = timed.pop() as DelayedPacket<Tag>
    if (timed.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child + 1 < timed.length && isBefore(timed[child + 1], timed[child])) child++
      if (child >= timed.length || !isBefore(timed[child], last)) break
      timed[i] = timed[child]
      i = child
    }
    timed[i] = last
  }
  /** Removes packets from the heap's top that have left in another way. */
  const settle = (): void => {
    while (timed.length > 0 && timed[0].gone) pop()
  }
  const leave = (packet: DelayedPacket<Tag>): void => {
    packet.gone = true
    ready.push(packet)
  }

  return {
    get count() {
      return count
    },
    get ready() {
      return ready.length
    },
    hold: (bytes, offset, length, tag, passing, wait, limits) => {
      if (length > MAX_DELAYED_BYTES || count >= MAX_DELAYED) return false
      if (slots.length === 0) {
        const chunk = new Uint8Array(CHUNK * MAX_DELAYED_BYTES)
        for (let i = CHUNK - 1; i >= 0; i--) slots.push({ bytes: chunk, offset: i * MAX_DELAYED_BYTES })
      }
      const slot = slots.pop() as (typeof slots)[number]
      slot.bytes.set(bytes.subarray(offset, offset + length), slot.offset)
      const packet = { ...slot, length, tag, passing, wait, limits, due: Infinity, order: orders++, gone: false }
      fresh.push(packet)
      if (passing < Infinity) passed.push(packet)
      count++
      return true
    },
    pass: packets => {
      if (passed.length === 0) return
      for (const packet of passed) {
        packet.passing -= packets
        if (packet.passing <= 0 && !packet.gone) leave(packet)
      }
      passed = passed.filter(({ gone }) => !gone)
    },
    untilNext: () => {
      let min = Number.POSITIVE_INFINITY
      for (const { passing, gone } of passed) if (!gone && passing < min) min = passing
      return min
    },
    take: () => {
      const packet = ready.shift()
      if (packet === undefined) return undefined
      count--
      slots.push({ bytes: packet.bytes, offset: packet.offset })
      return packet
    },
    readyAll: () => {
      const waiting = [...timed, ...fresh].filter(({ gone }) => !gone)
      for (const packet of waiting.sort((a, b) => (isBefore(a, b) ? -1 : 1))) leave(packet)
      timed.length = 0
      fresh = []
      passed = []
    },
    clear: () => {
      timed.length = 0
      fresh = []
      passed = []
      ready = []
      slots.length = 0
      count = 0
    },
    nextTimeout: () => {
      settle()
      // a packet without a time gets it now
      return fresh.some(({ gone }) => !gone) ? 0 : timed.length > 0 ? timed[0].due : Infinity
    },
    onTimeout: now => {
      const before = ready.length
      for (const packet of fresh) {
        if (packet.gone) continue
        packet.due = now + packet.wait
        push(packet)
      }
      fresh = []
      for (settle(); timed.length > 0 && timed[0].due <= now; settle()) {
        const packet = timed[0]
        pop()
        // the delay is over; the rate limits then admit packets one after the other
        if (packet.limits !== 0) {
          packet.due = departure(packet.limits, packet.due, packet.length, packet.tag)
          packet.limits = 0
          push(packet)
        } else leave(packet)
      }
      return ready.length > before
    },
  }
}
