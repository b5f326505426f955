/*
 * The queue of packets that a fault layer delays. It keeps a copy of a packet until enough other packets have overtaken
 * it, or until its delay has ended and the rate limits admit it. `hold` does not know the time, so the delay begins at
 * the next `onTimeout`. The queue is bounded. `Tag` is the layer's own data about a packet.
 */

/** Maximum packets in the queue, as tc-netem's limit. */
export const MAX_DELAYED = 1000
/** Maximum packet length: path MTU 4096 and all headers. */
export const MAX_DELAYED_BYTES = 4224
/** Packet slots that are allocated together. */
const CHUNK_SLOTS = 50

/** A queued packet, or the packet that was taken last. The bytes of a taken packet are valid until the next `hold`. */
export interface DelayedPacket<Tag> {
  readonly bytes: Uint8Array
  readonly offset: number
  readonly length: number
  readonly tag: Tag
  /** Number of packets that must still overtake this packet; Infinity if only time counts. */
  passesLeft: number
  /** Delay, µs. */
  readonly delayTime: number
  /** Bits of the rules (decider.ts) whose rate limits apply after the delay; then 0. */
  rateLimits: number
  /** When the delay ends, µs, then when the rate limits admit the packet; Infinity before the delay begins. */
  dueTime: number
  /** Among packets with equal `dueTime`, the lowest leaves first. */
  readonly order: number
  /** Whether the packet may leave. */
  isReady: boolean
}

interface DelayQueue<Tag> {
  /** Number of queued packets, and of packets that are ready to leave. */
  readonly count: number
  readonly ready: number
  /**
   * Queues a copy of a packet until `passesLeft` packets have overtaken it, or until `delayTime` µs have passed and the
   * rate limits admit it. False if the queue is full or the packet too long.
   */
  hold(
    bytes: Uint8Array,
    offset: number,
    length: number,
    tag: Tag,
    passesLeft: number,
    delayTime: number,
    rateLimits: number,
  ): boolean
  /** `count` packets overtake those in the queue. 0: only makes packets with `passesLeft` 0 ready. */
  pass(count: number): void
  /** Number of overtaking packets after which a queued packet becomes ready; Infinity: none waits for packets. */
  untilNext(): number
  /** Takes the packet that leaves next; undefined if none is ready. */
  take(): DelayedPacket<Tag> | undefined
  /** Makes all packets ready, in the order of `dueTime`; last those whose delay has not begun. */
  readyAll(): void
  /** Makes the packets ready that wait for nothing else, and for which `isMeant` is true, in the order of `hold`. */
  readyIf(isMeant: (packet: DelayedPacket<Tag>) => boolean): void
  /** Drops all packets. */
  clear(): void
  /** When to call `onTimeout` next, µs; 0: immediately; Infinity: never. */
  nextTimeout(): number
  /** Begins the delay of new packets, and makes due packets ready; true if any became ready. */
  onTimeout(now: number): boolean
}

/** `departure`: as `FaultDecider.departure`, for a packet of `length` bytes with this tag. */
export const createDelayQueue = <Tag>(
  departure: (rateLimits: number, time: number, length: number, tag: Tag) => number,
): DelayQueue<Tag> => {
  /** Packets whose delay has not begun. */
  let unstarted: DelayedPacket<Tag>[] = []
  /** Packets whose delay has begun: a heap by `dueTime`. */
  const timed: DelayedPacket<Tag>[] = []
  /** Packets of `unstarted` and `timed` that become ready when other packets have overtaken them. */
  let passable: DelayedPacket<Tag>[] = []
  /** Packets that are ready; some are still in `timed`. */
  let ready: DelayedPacket<Tag>[] = []
  const freeSlots: { readonly bytes: Uint8Array; readonly offset: number }[] = []
  let count = 0
  let nextOrder = 0

  const isBefore = (a: DelayedPacket<Tag>, b: DelayedPacket<Tag>): boolean =>
    a.dueTime < b.dueTime || (a.dueTime === b.dueTime && a.order < b.order)
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
  /** Removes ready packets from the top of the heap. */
  const removeReady = (): void => {
    while (timed.length > 0 && timed[0].isReady) pop()
  }
  const makeReady = (packet: DelayedPacket<Tag>): void => {
    packet.isReady = true
    ready.push(packet)
  }

  return {
    get count() {
      return count
    },
    get ready() {
      return ready.length
    },
    hold: (bytes, offset, length, tag, passesLeft, delayTime, rateLimits) => {
      if (length > MAX_DELAYED_BYTES || count >= MAX_DELAYED) return false
      if (freeSlots.length === 0) {
        const chunk = new Uint8Array(CHUNK_SLOTS * MAX_DELAYED_BYTES)
        for (let i = CHUNK_SLOTS - 1; i >= 0; i--) freeSlots.push({ bytes: chunk, offset: i * MAX_DELAYED_BYTES })
      }
      const slot = freeSlots.pop() as (typeof freeSlots)[number]
      slot.bytes.set(bytes.subarray(offset, offset + length), slot.offset)
      const packet = {
        ...slot,
        length,
        tag,
        passesLeft,
        delayTime,
        rateLimits,
        dueTime: Infinity,
        order: nextOrder++,
        isReady: false,
      }
      unstarted.push(packet)
      if (passesLeft < Infinity) passable.push(packet)
      count++
      return true
    },
    pass: packets => {
      if (passable.length === 0) return
      for (const packet of passable) {
        packet.passesLeft -= packets
        if (packet.passesLeft <= 0 && !packet.isReady) makeReady(packet)
      }
      passable = passable.filter(({ isReady }) => !isReady)
      // The delay of a ready packet need not begin; `nextTimeout` would be 0 for it.
      unstarted = unstarted.filter(({ isReady }) => !isReady)
    },
    untilNext: () => {
      let min = Number.POSITIVE_INFINITY
      for (const { passesLeft, isReady } of passable) if (!isReady && passesLeft < min) min = passesLeft
      return min
    },
    take: () => {
      const packet = ready.shift()
      if (packet === undefined) return undefined
      count--
      freeSlots.push({ bytes: packet.bytes, offset: packet.offset })
      return packet
    },
    readyAll: () => {
      const waiting = [...timed, ...unstarted].filter(({ isReady }) => !isReady)
      for (const packet of waiting.sort((a, b) => (isBefore(a, b) ? -1 : 1))) makeReady(packet)
      timed.length = 0
      unstarted = []
      passable = []
    },
    readyIf: isMeant => {
      const isHeld = (packet: DelayedPacket<Tag>): boolean =>
        !packet.isReady && packet.delayTime === Infinity && isMeant(packet)
      const held = [...timed, ...unstarted].filter(isHeld)
      for (const packet of held.sort((a, b) => a.order - b.order)) makeReady(packet)
      unstarted = unstarted.filter(({ isReady }) => !isReady)
    },
    clear: () => {
      timed.length = 0
      unstarted = []
      passable = []
      ready = []
      freeSlots.length = 0
      count = 0
    },
    nextTimeout: () => {
      removeReady()
      // The delay of a new packet begins at the next `onTimeout`.
      if (unstarted.length > 0) return 0
      return timed.length > 0 ? timed[0].dueTime : Infinity
    },
    onTimeout: now => {
      const before = ready.length
      for (const packet of unstarted) {
        packet.dueTime = now + packet.delayTime
        push(packet)
      }
      unstarted = []
      for (removeReady(); timed.length > 0 && timed[0].dueTime <= now; removeReady()) {
        const packet = timed[0]
        pop()
        // After the delay, the packet waits for the rate limits.
        if (packet.rateLimits !== 0) {
          packet.dueTime = departure(packet.rateLimits, packet.dueTime, packet.length, packet.tag)
          packet.rateLimits = 0
          push(packet)
        } else makeReady(packet)
      }
      return ready.length > before
    },
  }
}
