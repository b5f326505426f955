/*
 * The classes of links (LinkSettings.classes): a queue for each class and direction, of which a link takes packets in
 * proportion to weights (deficit round robin, Shreedhar and Varghese 1995), and the pauses of lossless classes (PFC,
 * IEEE 802.1Qbb). links.ts moves the packets; this file knows them as numbers, and has no time but the one it is given.
 *
 * A switch counts what it has got by a link in a lossless class and not sent on. Beyond `xoff` it sends the other end a
 * frame that pauses the class, and at `xon` one that ends the pause. The pause lasts until then, as if it were
 * refreshed. So a full queue fills the queues before it, hop by hop, and all flows of the class wait that share one of
 * them.
 */
import type { LinkClass, LinkSettings, LinkTopology } from './graph.ts'

/** No packet, row or direction. */
export const NONE = -1
/** In place of a packet or class: a frame with pauses. */
export const FRAME = -2
/** Bytes of a frame with pauses on the link: preamble, 64 bytes, and the gap between frames. */
export const PAUSE_FRAME_BYTES = 8 + 64 + 12
/** Bytes of a turn of a class with weight 1, more than a packet has. */
const QUANTUM = 9216
const DSCPS = 64
const FIRST_SLOTS = 1024
/** Bytes of paused packets in front of a host's link beyond which its port takes no packet of any class. */
const HOST_QUEUE = 2 ** 22

/** Counts of a class in one direction of a link, from the start or `reset`. */
export interface ClassCounts {
  readonly name: string
  readonly isLossless: boolean
  packets: number
  bytes: number
  marked: number
  /** Lost because the queue was full. */
  overflowed: number
  /** Lost at the other end because its buffer for what this link brings was full. */
  noRoom: number
  /** Bytes that wait in front of the link: now, and at most. */
  queue: number
  maxQueue: number
  /** Bytes from this direction that the other end has not sent on; of a lossless class. */
  held: number
  maxHeld: number
  /** Pauses that the sender of this direction has sent to its other end, and those that it has got. */
  pausesSent: number
  pauses: number
  /** Whether it is paused. */
  isPaused: boolean
  /** µs. */
  pausedTime: number
}

/** Bytes of the longest packet on a link: path MTU 4096 with all headers. */
const LONGEST_PACKET = 4096 + 256

/**
 * Bytes that still come when a switch has decided to pause: the packet that its frame waits for, one that the other end
 * has begun, the one that was too much, the frame, and what is on the link both ways.
 */
export const headroomOf = ({ rate, delay }: Pick<LinkSettings, 'rate' | 'delay'>): number =>
  3 * LONGEST_PACKET + 2 * PAUSE_FRAME_BYTES + Math.ceil((2 * delay * rate) / 8e6)

/** A class with what it has of its link. */
const settingsOf = ({ queue, marking, pause, name, weight }: LinkClass, link: LinkSettings) => ({
  ...{ name, weight, pause },
  queue: queue ?? link.queue,
  marking: marking === 'none' ? undefined : (marking ?? link.marking),
  buffer: pause === undefined ? 0 : (pause.buffer ?? pause.xoff + headroomOf(link)),
})

export class ClassQueues {
  // ---- by direction ----
  /** Its classes are `#count` rows from here on. */
  readonly #first: Int32Array
  readonly #count: Uint8Array
  /** By link: the class of a DSCP. */
  readonly #classOf: readonly (Uint8Array | undefined)[]
  /** Row of the packet that is being sent, FRAME or NONE. */
  readonly #serving: Int32Array
  readonly #servingBytes: Float64Array
  /** Row that counts the packet that is being sent; NONE: none. */
  readonly #servingHolder: Int32Array
  /** Class whose turn it is. */
  readonly #turn: Uint8Array
  readonly #waiting: Float64Array
  /** 1: a frame with pauses is to be sent. */
  readonly #hasFrame: Uint8Array
  /** Classes, as bits, that its last frame has paused, and that it pauses always (a storm). */
  readonly #sentMask: Uint8Array
  readonly #stormMask: Uint8Array

  // ---- by row: a class in a direction ----
  readonly limit: Float64Array
  readonly markMin: Float64Array
  readonly markMax: Float64Array
  readonly markProbability: Float64Array
  readonly counts: readonly ClassCounts[]
  readonly #direction: Int32Array
  readonly #isLossless: Uint8Array
  readonly #quantum: Float64Array
  readonly #deficit: Float64Array
  readonly #head: Int32Array
  readonly #tail: Int32Array
  readonly #bytes: Float64Array
  readonly #xoff: Float64Array
  readonly #xon: Float64Array
  readonly #buffer: Float64Array
  readonly #held: Float64Array
  readonly #isPausing: Uint8Array
  readonly #pausedSince: Float64Array

  // ---- by packet ----
  #next = new Int32Array(FIRST_SLOTS)
  #size = new Float64Array(FIRST_SLOTS)
  #holder = new Int32Array(FIRST_SLOTS)

  constructor({ links }: LinkTopology) {
    const directions = 2 * links.length
    this.#first = new Int32Array(directions)
    this.#count = new Uint8Array(directions)
    const rows = Array.from({ length: directions }, (_, direction) => {
      const link = links[direction >> 1]
      const { classes = [] } = link
      this.#count[direction] = classes.length
      return classes.map(one => ({ one: settingsOf(one, link), direction }))
    })
    for (let i = 1; i < directions; i++) this.#first[i] = this.#first[i - 1] + this.#count[i - 1]
    this.#classOf = links.map(({ classes }) => {
      if (classes === undefined) return undefined
      const classOf = new Uint8Array(DSCPS)
      classes.forEach(({ dscps }, i) => {
        for (const dscp of dscps) classOf[dscp] = i
      })
      return classOf
    })
    this.#serving = new Int32Array(directions).fill(NONE)
    this.#servingBytes = new Float64Array(directions)
    this.#servingHolder = new Int32Array(directions).fill(NONE)
    this.#turn = new Uint8Array(directions)
    this.#waiting = new Float64Array(directions)
    this.#hasFrame = new Uint8Array(directions)
    this.#sentMask = new Uint8Array(directions)
    this.#stormMask = new Uint8Array(directions)

    const all = rows.flat()
    const column = (value: (one: (typeof all)[number]['one']) => number): Float64Array =>
      Float64Array.from(all, ({ one }) => value(one))
    this.limit = column(({ queue }) => queue)
    this.markMin = column(({ marking }) => marking?.min ?? Number.POSITIVE_INFINITY)
    this.markMax = column(({ marking }) => marking?.max ?? Number.POSITIVE_INFINITY)
    this.markProbability = column(({ marking }) => marking?.probability ?? 0)
    this.counts = all.map(({ one: { name, pause } }) => ({
      ...{ name, isLossless: pause !== undefined, packets: 0, bytes: 0, marked: 0, overflowed: 0, noRoom: 0 },
      ...{ queue: 0, maxQueue: 0, held: 0, maxHeld: 0, pausesSent: 0, pauses: 0, isPaused: false, pausedTime: 0 },
    }))
    this.#direction = Int32Array.from(all, ({ direction }) => direction)
    this.#isLossless = Uint8Array.from(all, ({ one }) => (one.pause === undefined ? 0 : 1))
    this.#quantum = column(({ weight }) => weight * QUANTUM)
    this.#deficit = column(() => 0)
    this.#head = new Int32Array(all.length).fill(NONE)
    this.#tail = new Int32Array(all.length).fill(NONE)
    this.#bytes = column(() => 0)
    this.#xoff = column(({ pause }) => pause?.xoff ?? 0)
    this.#xon = column(({ pause }) => pause?.xon ?? 0)
    this.#buffer = column(({ buffer }) => buffer)
    this.#held = column(() => 0)
    this.#isPausing = new Uint8Array(all.length)
    this.#pausedSince = column(() => 0)
  }

  /** Whether a direction has classes. */
  has(direction: number): boolean {
    return this.#count[direction] > 0
  }

  rowOf(direction: number, dscp: number): number {
    return this.#first[direction] + this.#classOf[direction >> 1]![dscp]
  }

  /** The row that counts packets which a switch has got from a direction; NONE: no lossless class. */
  holderOf(direction: number, dscp: number): number {
    if (direction === NONE || this.#count[direction] === 0) return NONE
    const row = this.rowOf(direction, dscp)
    return this.#isLossless[row] === 0 ? NONE : row
  }

  isLossless(row: number): boolean {
    return this.#isLossless[row] !== 0
  }

  /** Bytes that wait in a queue, and are being sent, of which `rest` have not left. */
  lengthOf(row: number, rest: number): number {
    return this.#bytes[row] + (this.#serving[this.#direction[row]] === row ? rest : 0)
  }

  /** Bytes that wait in front of a link. */
  waitingOf(direction: number): number {
    return this.#waiting[direction]
  }

  hasRoom(holder: number, bytes: number): boolean {
    return this.#held[holder] + bytes <= this.#buffer[holder]
  }

  /**
   * Puts a packet into a queue; `holder`: the row that counts it, or NONE. `rest`: see `lengthOf`. Returns the
   * direction on which a frame has to be sent; NONE: none.
   */
  put(row: number, packet: number, bytes: number, holder: number, rest: number): number {
    if (packet >= this.#next.length) this.#grow(packet)
    this.#next[packet] = NONE
    this.#size[packet] = bytes
    this.#holder[packet] = holder
    if (this.#head[row] === NONE) this.#head[row] = packet
    else this.#next[this.#tail[row]] = packet
    this.#tail[row] = packet
    this.#bytes[row] += bytes
    this.#waiting[this.#direction[row]] += bytes
    const counts = this.counts[row]
    counts.packets++
    counts.bytes += bytes
    counts.maxQueue = Math.max(counts.maxQueue, this.lengthOf(row, rest))
    if (holder === NONE) return NONE
    this.#held[holder] += bytes
    this.counts[holder].maxHeld = Math.max(this.counts[holder].maxHeld, this.#held[holder])
    if (this.#isPausing[holder] !== 0 || this.#held[holder] <= this.#xoff[holder]) return NONE
    this.#isPausing[holder] = 1
    return this.#requestFrame(this.#direction[holder] ^ 1)
  }

  isIdle(direction: number): boolean {
    return this.#serving[direction] === NONE
  }

  /**
   * Takes what an idle link sends next: a packet, FRAME (see `frame`), or NONE. The link is not idle then until `end`.
   */
  take(direction: number): number {
    if (this.#hasFrame[direction] !== 0) {
      this.#serving[direction] = FRAME
      return FRAME
    }
    const row = this.#choose(direction)
    if (row === NONE) return NONE
    const packet = this.#head[row]
    const bytes = this.#size[packet]
    this.#head[row] = this.#next[packet]
    this.#bytes[row] -= bytes
    this.#waiting[direction] -= bytes
    this.#deficit[row] -= bytes
    if (this.#head[row] === NONE) this.#deficit[row] = 0
    this.#serving[direction] = row
    this.#servingBytes[direction] = bytes
    this.#servingHolder[direction] = this.#holder[packet]
    return packet
  }

  /** The row whose turn it is; NONE: no class has a packet that may be sent. */
  #choose(direction: number): number {
    const first = this.#first[direction]
    const count = this.#count[direction]
    for (let tries = 0; tries <= count; tries++) {
      const row = first + this.#turn[direction]
      if (this.#maySend(row) && this.#deficit[row] >= this.#size[this.#head[row]]) return row
      // a class that does not use its turn keeps nothing of it
      if (!this.#maySend(row)) this.#deficit[row] = 0
      this.#turn[direction] = (this.#turn[direction] + 1) % count
      this.#deficit[first + this.#turn[direction]] += this.#quantum[first + this.#turn[direction]]
    }
    return NONE
  }

  #maySend(row: number): boolean {
    return this.#head[row] !== NONE && !this.counts[row].isPaused
  }

  /** The classes that the frame pauses, as bits, which is being sent now. */
  frame(direction: number): number {
    this.#hasFrame[direction] = 0
    const mask = this.#pausesBy(direction)
    const begun = mask & ~this.#sentMask[direction]
    for (let i = 0; i < this.#count[direction]; i++)
      if ((begun & (1 << i)) !== 0) this.counts[this.#first[direction] + i].pausesSent++
    this.#sentMask[direction] = mask
    return mask
  }

  #pausesBy(direction: number): number {
    let mask = this.#stormMask[direction]
    const first = this.#first[direction ^ 1]
    for (let i = 0; i < this.#count[direction]; i++) if (this.#isPausing[first + i] !== 0) mask |= 1 << i
    return mask
  }

  /** The link has sent what `take` has returned. Returns the direction on which a frame has to be sent; NONE: none. */
  end(direction: number): number {
    const holder = this.#servingHolder[direction]
    this.#serving[direction] = NONE
    this.#servingHolder[direction] = NONE
    if (holder === NONE) return NONE
    this.#held[holder] -= this.#servingBytes[direction]
    if (this.#isPausing[holder] === 0 || this.#held[holder] > this.#xon[holder]) return NONE
    this.#isPausing[holder] = 0
    return this.#requestFrame(this.#direction[holder] ^ 1)
  }

  /** A frame has paused these classes of a direction, and no others. Returns whether a pause has ended. */
  pause(direction: number, mask: number, now: number): boolean {
    let hasEnded = false
    for (let i = 0; i < this.#count[direction]; i++) {
      const row = this.#first[direction] + i
      const counts = this.counts[row]
      const isPaused = (mask & (1 << i)) !== 0
      if (isPaused === counts.isPaused) continue
      counts.isPaused = isPaused
      if (isPaused) {
        counts.pauses++
        this.#pausedSince[row] = now
      } else {
        counts.pausedTime += now - this.#pausedSince[row]
        hasEnded = true
      }
    }
    return hasEnded
  }

  /**
   * A link is up again: its ends know of no pauses. Returns the direction on which a frame has to be sent; NONE: none.
   */
  renew(direction: number): number {
    return this.has(direction) && this.#pausesBy(direction) !== 0 ? this.#requestFrame(direction) : NONE
  }

  /** From now on frames of a direction always pause these classes (as bits), or no longer. */
  setStorm(direction: number, mask: number, isOn: boolean): number {
    if (isOn) this.#stormMask[direction] |= mask
    else this.#stormMask[direction] &= ~mask
    return this.#requestFrame(direction)
  }

  #requestFrame(direction: number): number {
    this.#hasFrame[direction] = 1
    return direction
  }

  /** Bytes in front of a host's link that may leave; Infinity: so many are paused that the port has to wait. */
  openBytes(direction: number): number {
    let open = this.#waiting[direction]
    for (let i = 0; i < this.#count[direction]; i++) {
      const row = this.#first[direction] + i
      if (this.counts[row].isPaused) open -= this.#bytes[row]
    }
    return this.#waiting[direction] - open > HOST_QUEUE ? Number.POSITIVE_INFINITY : open
  }

  /** Counts of the classes of a direction; `rest`: see `lengthOf`. */
  stats(direction: number, now: number, rest: number): ClassCounts[] {
    return Array.from({ length: this.#count[direction] }, (_, i) => {
      const row = this.#first[direction] + i
      const counts = this.counts[row]
      const running = counts.isPaused ? now - this.#pausedSince[row] : 0
      return {
        ...counts,
        queue: this.lengthOf(row, rest),
        held: this.#held[row],
        pausedTime: counts.pausedTime + running,
      }
    })
  }

  reset(now: number): void {
    this.#pausedSince.fill(now)
    for (const counts of this.counts) {
      const none = { packets: 0, bytes: 0, marked: 0, overflowed: 0, noRoom: 0, maxQueue: 0, maxHeld: 0, pauses: 0 }
      Object.assign(counts, none, { pausesSent: 0, pausedTime: 0 })
    }
  }

  #grow(packet: number): void {
    const slots = Math.max(2 * this.#next.length, packet + 1)
    const [next, size, holder] = [new Int32Array(slots), new Float64Array(slots), new Int32Array(slots)]
    next.set(this.#next)
    size.set(this.#size)
    holder.set(this.#holder)
    this.#next = next
    this.#size = size
    this.#holder = holder
  }
}
