/*
 * The queue of packets that a fault layer delays. It keeps copies of them until enough other packets have passed, or
 * until their delay has ended and the rate limits admit them. A packet's delay begins at the first `onTimeout` after it
 * was queued. The queue is bounded, like that of any link. `Tag` is the layer's own data about a packet.
 */

/** Maximum packets in the queue, as tc-netem's limit. */
export const MAX_DELAYED = 1000
/** Maximum packet length: path MTU 4096 and all headers. */
export const MAX_DELAYED_BYTES = 4224
/** Number of slots that are allocated together. */
const CHUNK = 50

/** A queued packet, or the one that was just taken; its bytes are valid until the next `hold`. */
export interface DelayedPacket<Tag> {
  readonly bytes: Uint8Array
  readonly offset: number
  readonly length: number
  readonly tag: Tag
  /** Number of packets that must still pass it; Infinity if only time counts. */
  passing: number
  /** Delay in microseconds, and bits of the rules (decider.ts) whose rate limits apply after it. */
  readonly wait: number
  limits: number
  /** When its delay ends (µs); Infinity until `onTimeout` sets it. `order` decides among packets with the same time. */
  due: number
  readonly order: number
  /** Whether it has become ready. */
  hasLeft: boolean
}

export interface DelayQueue<Tag> {
  /** Number of queued packets, and of those that are ready to leave. */
  readonly count: number
  readonly ready: number
  /**
   * Copies a packet into the queue until `passing` others have passed, or until `wait` microseconds have passed and the
   * rate limits admit it. False if the queue is full or the packet too long.
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
  /** Counts `count` packets that pass those in the queue. */
  pass(count: number): void
  /** Number of packets that may pass before a queued one must leave. */
  untilNext(): number
  /** Takes the packet that leaves next; undefined if none is ready. */
  take(): DelayedPacket<Tag> | undefined
  /** Makes all packets ready, in order of time. */
  readyAll(): void
  /** Drops all packets. */
  clear(): void
  /** When to call `onTimeout` next (µs); Infinity for never. */
  nextTimeout(): number
  /** Makes packets ready whose time has come; true if there was one. */
  onTimeout(now: number): boolean
}

/** `departure`: `FaultDecider.departure`, for a packet of `length` bytes with this tag. */
export const createDelayQueue = <Tag>(
  departure: (limits: number, time: number, length: number, tag: Tag) => number,
): DelayQueue<Tag> => {
  /**
   * Packets whose delay has not begun; those whose delay has, as a heap by its end; those that wait for others to pass,
   * which are in one of the former too; those that are ready.
   */
  let fresh: DelayedPacket<Tag>[] = []
  const timed: DelayedPacket<Tag>[] = []
  let passed: DelayedPacket<Tag>[] = []
  let ready: DelayedPacket<Tag>[] = []
  const slots: { readonly bytes: Uint8Array; readonly offset: number }[] = []
  let count = 0
  let nextOrder = 0

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
  /** Removes packets that have left, because others passed them, from the top of the heap. */
  const dropLeft = (): void => {
    while (timed.length > 0 && timed[0].hasLeft) pop()
  }
  const makeReady = (packet: DelayedPacket<Tag>): void => {
    packet.hasLeft = true
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
      const packet = { ...slot, length, tag, passing, wait, limits, due: Infinity, order: nextOrder++, hasLeft: false }
      fresh.push(packet)
      if (passing < Infinity) passed.push(packet)
      count++
      return true
    },
    pass: packets => {
      if (passed.length === 0) return
      for (const packet of passed) {
        packet.passing -= packets
        if (packet.passing <= 0 && !packet.hasLeft) makeReady(packet)
      }
      passed = passed.filter(({ hasLeft }) => !hasLeft)
    },
    untilNext: () => {
      let min = Number.POSITIVE_INFINITY
      for (const { passing, hasLeft } of passed) if (!hasLeft && passing < min) min = passing
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
      const waiting = [...timed, ...fresh].filter(({ hasLeft }) => !hasLeft)
      for (const packet of waiting.sort((a, b) => (isBefore(a, b) ? -1 : 1))) makeReady(packet)
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
      dropLeft()
      // The delay of a new packet begins at the next `onTimeout`.
      return fresh.some(({ hasLeft }) => !hasLeft) ? 0 : timed.length > 0 ? timed[0].due : Infinity
    },
    onTimeout: now => {
      const before = ready.length
      for (const packet of fresh) {
        if (packet.hasLeft) continue
        packet.due = now + packet.wait
        push(packet)
      }
      fresh = []
      for (dropLeft(); timed.length > 0 && timed[0].due <= now; dropLeft()) {
        const packet = timed[0]
        pop()
        // After the delay, the rate limits admit packets one after the other.
        if (packet.limits !== 0) {
          packet.due = departure(packet.limits, packet.due, packet.length, packet.tag)
          packet.limits = 0
          push(packet)
        } else makeReady(packet)
      }
      return ready.length > before
    },
  }
}
