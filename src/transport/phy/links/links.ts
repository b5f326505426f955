/*
 * Links with rate, delay, queue, marking and loss between hosts and switches, in virtual time: packets and times go in,
 * packets and the next time come out. No I/O, no clock; randomness comes from a seed.
 *
 * A queue needs no events: packets of a link leave in order at a fixed rate, so the time at which a packet arrives at
 * the other end is known when it is sent, and the bytes in front of the link are the time until it is free times its
 * rate. What waits is one event per packet and hop: its arrival. Packets are numbers of slots in typed arrays; nothing
 * is allocated per packet once the arrays have grown. A heap has the links with packets in flight, by their first
 * arrival.
 *
 * A switch drops what exceeds its queue, marks by RED on the queue's length when the packet comes (only packets whose
 * ECN field says that the sender reacts), and chooses among shortest paths by a hash of the flow. A router does too,
 * and drops what no router forwards: packets whose TTL ends, and those of one link (link-local addresses, groups, RoCE
 * v1). Links may go down: then routes are computed anew. A host's own queue in front of its link has no limit and no
 * marking: its port looks at `busyUntil`. Not modelled: buffers that ports of a switch share, and the time that a
 * switch or router takes.
 *
 * A link with classes (class-queues.ts) may be paused, so the time at which a packet leaves is not known when it comes:
 * its packets wait in queues, and the heap has an event too for each packet that such a link has sent.
 */
import { createRandom } from '../../../base/random.ts'
import { type Arena, plainArena } from '../../wire/arena.ts'
import { ECN_CE, ECN_MASK } from '../../wire/flow.ts'
import { type ClassCounts, ClassQueues, FRAME, NONE, PAUSE_FRAME_BYTES } from './class-queues.ts'
import { type LinkTopology, type Routes, routesOf } from './graph.ts'

interface LinksOptions {
  readonly topology: LinkTopology
  readonly seed: number
  /** Bytes of a packet that are kept; the rest is not carried, only its length. */
  readonly keptBytes: number
  /** Bytes of a packet on the link beside BTH to ICRC; default `FRAME_BYTES`. */
  readonly overhead?: number
  /** A packet has arrived at a host whose inbox was empty. */
  readonly arrived: (host: number) => void
  /**
   * A packet is lost: it is released after the call. `node`: where; `direction`: the directed link that has lost it, or
   * -1: the node has not forwarded it.
   */
  readonly lost?: (packet: number, reason: LossReason, node: number, direction: number) => void
  /** A pause of a host has ended, so `busyUntil` may be earlier. */
  readonly resumed?: (host: number) => void
}

/**
 * Why a packet is lost. Of a link: its queue was full, by chance, longer than the MTU, it was down. At a node: the TTL
 * ended, no router forwards the packet, there was no path. By a rule for packets that cross a router.
 */
export type LossReason = 'overflow' | 'chance' | 'mtu' | 'down' | 'ttl' | 'scope' | 'route' | 'rule'

/** Preamble, Ethernet header, IPv4 and UDP headers, FCS and the gap between frames. */
export const FRAME_BYTES = 8 + 14 + 20 + 8 + 4 + 12
/** Of these, IPv4 and UDP headers count in an MTU. */
export const IP_UDP_BYTES = 28

/** Counts of one direction of a link. */
interface DirectionStats {
  packets: number
  /** With `overhead`. */
  bytes: number
  marked: number
  /** Lost because the queue was full, by chance, and because of the MTU. */
  overflowed: number
  lost: number
  tooLong: number
  /** Lost because the link was down while they were on it. */
  cut: number
  /** Bytes in front of the link: the most that there were, and the mean over time. */
  maxQueue: number
  meanQueue: number
  /** In the order of the link's classes. */
  classes: readonly ClassCounts[]
}

/** Counts of a node: packets that it has forwarded, and those that it has not. */
interface NodeStats {
  forwarded: number
  /** A router: the TTL had ended. */
  expired: number
  /** A router: packets that no router forwards (`NOT_ROUTED`). */
  unroutable: number
  /** There was no path. */
  pathless: number
}

/** In `hops` of `Links.send`, beside the TTL: no router forwards the packet. */
export const NOT_ROUTED = 0x100
/** In `hops` too, from this bit on: the packet's DSCP. */
export const DSCP_SHIFT = 9
const DSCP_MASK = 0x3f
const TTL_MASK = 0xff
/** In the packet's `Slot.FROM`, above the host's number. */
const HOPS_SHIFT = 16
const HOST_MASK = 0xffff
const DEFAULT_HOPS = 64

export interface Links {
  /** The paths between nodes, at present. */
  readonly routes: Routes
  /** Has the kept bytes of packets. Replaced when it grows. */
  readonly arena: Arena
  /** Number of packets that have reached their host. */
  readonly delivered: number
  /** When to call `poll` next, µs; Infinity: nothing is in flight. */
  nextAt(): number
  /** Moves packets up to time `now`. */
  poll(now: number): void
  /**
   * Sends a packet of `length` bytes (BTH to ICRC), whose first bytes are at `at` of `bytes`, from `host` to `to`.
   * `hash`: 32 bits that are equal for the packets of a flow; `ecn`: its ECN field; `tag`: 30 bits of the caller's;
   * `hops`: its TTL, perhaps NOT_ROUTED, and its DSCP. False: it is lost, because there is no path.
   */
  send(
    host: number,
    to: number,
    hash: number,
    ecn: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    now: number,
    tag?: number,
    hops?: number,
  ): boolean
  /** The directed links that a packet of a flow would take now; undefined: there is no path. */
  directionsOf(host: number, to: number, hash: number): readonly number[] | undefined
  /** The nodes that it would pass, without the hosts. */
  pathOf(host: number, to: number, hash: number): readonly number[] | undefined
  /** From now on these links are down. What is on them when it should arrive is lost, and their pauses end. */
  setDown(isDown: (link: number) => boolean, now: number): void
  /** The sender of a direction pauses these classes of its other end (as bits), until they are taken back. */
  setStorm(direction: number, classes: number, isOn: boolean, now: number): void
  /**
   * When the packets that the host has sent so far have left it, without those of paused classes, µs; Infinity: too
   * many are paused.
   */
  busyUntil(host: number): number
  /** Whether a packet has arrived at the host. */
  hasArrived(host: number): boolean
  /** Takes the oldest packet that has arrived at the host, until `release`; -1: none. */
  receive(host: number): number
  /** Of a packet. */
  offsetOf(packet: number): number
  lengthOf(packet: number): number
  sourceOf(packet: number): number
  destinationOf(packet: number): number
  ecnOf(packet: number): number
  /** What is left of its TTL. */
  ttlOf(packet: number): number
  tagOf(packet: number): number
  release(packet: number): void
  /** Bytes in front of directed link `direction` (`Routes`). */
  queueOf(direction: number, now: number): number
  /** Counts of the classes of a directed link, in their order. */
  classesOf(direction: number, now: number): readonly ClassCounts[]
  /** By directed link. */
  stats(now: number): DirectionStats[]
  /** By node. */
  nodeStats(): readonly NodeStats[]
  /** Starts counts and queue lengths anew. */
  resetStats(now: number): void
}

const FIRST_SLOTS = 1024
/** Words of a packet's slot; words 2 and 3 are the double ARRIVAL: when the packet arrives at the next node. */
const enum Slot {
  /** The next packet of its link, inbox or the free list. */
  NEXT = 0,
  /** The host's number, and above it `hops` of `send`, of which routers take one. */
  FROM = 1,
  TO = 4,
  HASH = 5,
  SIZE = 6,
  /** The lower two bits; above them the caller's tag. */
  ECN = 7,
  /** The kept bytes. */
  KEPT = 8,
}
const ARRIVAL = 1
/** In `Slot.TO`: a frame with pauses, of the classes in `Slot.HASH`. */
const PAUSES = -1
const TAG_SHIFT = 2
/** Up to so many bytes, a loop copies faster than `set`. */
const LOOP_BYTES = 64
const MAX_RANDOM = 2 ** 32

/** Mixes a flow's hash with a node's salt (murmur3's finalizer, public domain). */
const mix = (hash: number, salt: number): number => {
  let h = hash ^ Math.imul(salt + 1, 0x9e37_79b1)
  h = Math.imul(h ^ (h >>> 16), 0x85eb_ca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2_ae35)
  return (h ^ (h >>> 16)) >>> 0
}

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: per packet, with one table of slots
export const createLinks = ({
  topology,
  seed,
  keptBytes,
  overhead = FRAME_BYTES,
  arrived,
  lost: onLost,
  resumed,
}: LinksOptions): Links => {
  const { hosts, links, switches, routers = 0 } = topology
  const firstRouter = hosts + switches
  let routes: Routes
  let groups: Int32Array
  /** By group: where its directed links begin in `choices`; its end is the next one's beginning. */
  let choiceStart: Int32Array
  let choices: Int32Array
  const isDown = new Uint8Array(links.length)
  const route = (): void => {
    routes = routesOf(topology, link => isDown[link] !== 0)
    const { members } = routes
    groups = routes.groups
    const starts = new Int32Array(members.length + 1)
    members.forEach((links, group) => {
      starts[group + 1] = starts[group] + links.length
    })
    choiceStart = starts
    choices = Int32Array.from(members.flatMap(links => [...links]))
  }
  route()
  const nodeStats = Array.from(
    { length: firstRouter + routers },
    (): NodeStats => ({ forwarded: 0, expired: 0, unroutable: 0, pathless: 0 }),
  )
  const random = createRandom(seed)
  const slotBytes = (Slot.KEPT * 4 + keptBytes + 63) & ~63
  const slotWords = slotBytes >> 2

  // ---- by directed link ----
  const directions = 2 * links.length
  const column = (value: (i: number) => number): Float64Array =>
    Float64Array.from({ length: directions }, (_, i) => value(i))
  const target = Int32Array.from({ length: directions }, (_, i) => links[i >> 1].ends[1 - (i & 1)])
  const origin = Int32Array.from({ length: directions }, (_, i) => links[i >> 1].ends[i & 1])
  const isFromHost = Uint8Array.from({ length: directions }, (_, i) => (origin[i] < hosts ? 1 : 0))
  const byteTime = column(i => 8e6 / links[i >> 1].rate)
  const delay = column(i => links[i >> 1].delay)
  const limit = column(i => (isFromHost[i] ? Number.POSITIVE_INFINITY : links[i >> 1].queue))
  const loss = column(i => (links[i >> 1].loss ?? 0) * MAX_RANDOM)
  const mtu = column(i => links[i >> 1].mtu ?? Number.POSITIVE_INFINITY)
  const markMin = column(i => (isFromHost[i] ? undefined : links[i >> 1].marking?.min) ?? Number.POSITIVE_INFINITY)
  const markMax = column(i => links[i >> 1].marking?.max ?? Number.POSITIVE_INFINITY)
  const markShare = column(i => (links[i >> 1].marking?.probability ?? 0) * MAX_RANDOM)
  const busy = column(() => 0)
  /** Undefined: no link has classes. */
  const classes = links.some(({ classes = [] }) => classes.length > 0) ? new ClassQueues(topology) : undefined
  /** Packets in flight, in the order of arrival. Beyond the directions it is always NONE: see the heap. */
  const head = new Int32Array(2 * directions).fill(NONE)
  const tail = new Int32Array(directions).fill(NONE)
  // counts; `area`: queue length integrated over time up to `areaAt`
  const packets = column(() => 0)
  const bytesSent = column(() => 0)
  const marked = column(() => 0)
  const overflowed = column(() => 0)
  const lost = column(() => 0)
  const tooLong = column(() => 0)
  const cut = column(() => 0)
  const maxQueue = column(() => 0)
  const area = column(() => 0)
  const areaAt = column(() => 0)
  let statsSince = 0

  // ---- by packet: `Slot`, in one place, because a packet is rarely in the cache when it arrives ----
  let slots = FIRST_SLOTS
  let arena = plainArena(slots * slotBytes)
  let words = new Int32Array(arena.bytes.buffer)
  let doubles = new Float64Array(arena.bytes.buffer)
  let free = NONE
  let used = 0

  // ---- by host ----
  const inboxHead = new Int32Array(hosts).fill(NONE)
  const inboxTail = new Int32Array(hosts).fill(NONE)
  let delivered = 0
  /** By host: its directed links. */
  const uplinks: number[][] = Array.from({ length: hosts }, () => [])
  for (let i = 0; i < directions; i++) if (isFromHost[i]) uplinks[origin[i]].push(i)

  // ---- heap of directed links with packets in flight, by the first arrival; and, as `directions` + direction, of
  // those with classes that are sending, by the end of that ----
  const heap = new Int32Array(2 * directions)
  const key = new Float64Array(2 * directions)
  let heapSize = 0

  const push = (direction: number, at: number): void => {
    let i = heapSize++
    while (i > 0) {
      const parent = (i - 1) >> 2
      if (key[parent] <= at) break
      heap[i] = heap[parent]
      key[i] = key[parent]
      i = parent
    }
    heap[i] = direction
    key[i] = at
  }
  /** Gives the first link another key, or takes it out if its queue is empty. */
  const replaceTop = (): void => {
    let direction = heap[0]
    let at: number
    if (head[direction] === NONE) {
      if (--heapSize === 0) return
      direction = heap[heapSize]
      at = key[heapSize]
    } else at = arrivalOf(head[direction])
    let i = 0
    for (;;) {
      const first = 4 * i + 1
      if (first >= heapSize) break
      const end = first + 4 < heapSize ? first + 4 : heapSize
      let child = first
      let least = key[first]
      for (let other = first + 1; other < end; other++) {
        if (key[other] >= least) continue
        child = other
        least = key[other]
      }
      if (least >= at) break
      heap[i] = heap[child]
      key[i] = key[child]
      i = child
    }
    heap[i] = direction
    key[i] = at
  }

  const grow = (): void => {
    slots *= 2
    const larger = plainArena(slots * slotBytes)
    larger.bytes.set(arena.bytes)
    arena = larger
    words = new Int32Array(arena.bytes.buffer)
    doubles = new Float64Array(arena.bytes.buffer)
  }
  const takeSlot = (): number => {
    if (free !== NONE) {
      const slot = free
      free = words[slot * slotWords + Slot.NEXT]
      return slot
    }
    if (used === slots) grow()
    return used++
  }
  const release = (slot: number): void => {
    words[slot * slotWords + Slot.NEXT] = free
    free = slot
  }
  const arrivalOf = (slot: number): number => doubles[((slot * slotWords) >> 1) + ARRIVAL]

  /** Bytes of what a link is sending. */
  const restOf = (direction: number, now: number): number =>
    busy[direction] > now ? (busy[direction] - now) / byteTime[direction] : 0
  const queueOf = (direction: number, now: number): number =>
    classes === undefined ? restOf(direction, now) : restOf(direction, now) + classes.waitingOf(direction)

  const classesOf = (direction: number, now: number): readonly ClassCounts[] =>
    classes?.stats(direction, now, restOf(direction, now)) ?? []

  /** Integrates the queue's length up to `now`: it falls at the link's rate until the link is free. */
  const integrate = (direction: number, now: number): void => {
    const start = areaAt[direction]
    areaAt[direction] = now
    if (classes !== undefined) area[direction] += classes.waitingOf(direction) * (now - start)
    const until = Math.min(busy[direction], now)
    if (until <= start) return
    const before = (busy[direction] - start) / byteTime[direction]
    const after = (busy[direction] - until) / byteTime[direction]
    area[direction] += ((before + after) / 2) * (until - start)
  }

  /** Whether RED marks a packet, which is then marked. `most`: the share at `max`, of MAX_RANDOM. */
  const mark = (slot: number, queue: number, min: number, max: number, most: number): boolean => {
    const field = slot * slotWords + Slot.ECN
    if (queue < min || (words[field] & ECN_MASK) === 0) return false
    if (queue < max && random() >= ((queue - min) / (max - min)) * most) return false
    words[field] |= ECN_CE
    return true
  }

  const drop = (slot: number, reason: LossReason, node: number, direction = NONE): void => {
    onLost?.(slot, reason, node, direction)
    release(slot)
  }

  /** The packet is on the link from now on, and will arrive. */
  const launch = (direction: number, slot: number, arrival: number): void => {
    const at = slot * slotWords
    doubles[(at >> 1) + ARRIVAL] = arrival
    words[at + Slot.NEXT] = NONE
    if (head[direction] === NONE) {
      head[direction] = slot
      push(direction, arrival)
    } else words[tail[direction] * slotWords + Slot.NEXT] = slot
    tail[direction] = slot
  }

  /** Puts a packet into the queue of a link, or drops it. `from`: the direction that has brought it; NONE: its host. */
  const transmit = (direction: number, slot: number, now: number, from: number): void => {
    if (classes?.has(direction)) {
      enqueue(classes, direction, slot, now, from)
      return
    }
    const at = slot * slotWords
    const size = words[at + Slot.SIZE]
    const bytes = size + overhead
    const queue = queueOf(direction, now)
    if (size + IP_UDP_BYTES > mtu[direction]) {
      tooLong[direction]++
      drop(slot, 'mtu', origin[direction], direction)
      return
    }
    if (queue + bytes > limit[direction]) {
      overflowed[direction]++
      drop(slot, 'overflow', origin[direction], direction)
      return
    }
    if (loss[direction] > 0 && random() < loss[direction]) {
      lost[direction]++
      drop(slot, 'chance', origin[direction], direction)
      return
    }
    if (mark(slot, queue, markMin[direction], markMax[direction], markShare[direction])) marked[direction]++
    integrate(direction, now)
    if (queue + bytes > maxQueue[direction]) maxQueue[direction] = queue + bytes
    packets[direction]++
    bytesSent[direction] += bytes
    busy[direction] = Math.max(busy[direction], now) + bytes * byteTime[direction]
    launch(direction, slot, busy[direction] + delay[direction])
  }

  /** `transmit` for a link with classes. */
  const enqueue = (queues: ClassQueues, direction: number, slot: number, now: number, from: number): void => {
    const at = slot * slotWords
    const size = words[at + Slot.SIZE]
    const bytes = size + overhead
    const dscp = (words[at + Slot.FROM] >>> (HOPS_SHIFT + DSCP_SHIFT)) & DSCP_MASK
    const row = queues.rowOf(direction, dscp)
    const counts = queues.counts[row]
    const holder = queues.holderOf(from, dscp)
    const rest = restOf(direction, now)
    const queue = queues.lengthOf(row, rest)
    if (size + IP_UDP_BYTES > mtu[direction]) {
      tooLong[direction]++
      drop(slot, 'mtu', origin[direction], direction)
      return
    }
    if (holder !== NONE && !queues.hasRoom(holder, bytes)) {
      queues.counts[holder].noRoom++
      overflowed[from]++
      drop(slot, 'overflow', origin[from], from)
      return
    }
    const isLimited = isFromHost[direction] === 0 && (holder === NONE || !queues.isLossless(row))
    if (isLimited && queue + bytes > queues.limit[row]) {
      counts.overflowed++
      overflowed[direction]++
      drop(slot, 'overflow', origin[direction], direction)
      return
    }
    if (loss[direction] > 0 && random() < loss[direction]) {
      lost[direction]++
      drop(slot, 'chance', origin[direction], direction)
      return
    }
    const { markMin, markMax, markProbability } = queues
    if (
      isFromHost[direction] === 0 &&
      mark(slot, queue, markMin[row], markMax[row], markProbability[row] * MAX_RANDOM)
    ) {
      counts.marked++
      marked[direction]++
    }
    integrate(direction, now)
    packets[direction]++
    bytesSent[direction] += bytes
    const frame = queues.put(row, slot, bytes, holder, rest)
    maxQueue[direction] = Math.max(maxQueue[direction], queueOf(direction, now))
    serve(queues, frame, now)
    serve(queues, direction, now)
  }

  /** A link with classes that sends nothing begins to send, if it may. */
  const serve = (queues: ClassQueues, direction: number, now: number): void => {
    if (direction === NONE || !queues.isIdle(direction)) return
    integrate(direction, now)
    let slot = queues.take(direction)
    if (slot === NONE) return
    let bytes = PAUSE_FRAME_BYTES
    if (slot === FRAME) {
      slot = takeSlot()
      words[slot * slotWords + Slot.TO] = PAUSES
      words[slot * slotWords + Slot.HASH] = queues.frame(direction)
    } else bytes = words[slot * slotWords + Slot.SIZE] + overhead
    busy[direction] = now + bytes * byteTime[direction]
    push(directions + direction, busy[direction])
    launch(direction, slot, busy[direction] + delay[direction])
  }

  const pause = (queues: ClassQueues, direction: number, mask: number, now: number): void => {
    if (!queues.pause(direction, mask, now)) return
    serve(queues, direction, now)
    if (isFromHost[direction] !== 0) resumed?.(links[direction >> 1].ends[direction & 1])
  }

  /** The directed link on which a node sends a packet; -1: there is no path. */
  const routeOf = (node: number, to: number, hash: number): number => {
    const group = groups[node * hosts + to]
    if (group < 0) return NONE
    const start = choiceStart[group]
    const count = choiceStart[group + 1] - start
    return choices[count === 1 ? start : start + (mix(hash, node) % count)]
  }

  const directionsOf = (host: number, to: number, hash: number): readonly number[] | undefined => {
    const path: number[] = []
    for (let node = host; node !== to; node = target[path.at(-1)!]) {
      const direction = routeOf(node, to, hash)
      if (direction === NONE) return undefined
      path.push(direction)
    }
    return path
  }

  /** Forwards a packet that has reached a switch or router. */
  const forward = (node: number, slot: number, now: number, from: number): void => {
    const at = slot * slotWords
    const counts = nodeStats[node]
    if (node >= firstRouter) {
      const hops = words[at + Slot.FROM] >>> HOPS_SHIFT
      if ((hops & NOT_ROUTED) !== 0 || (hops & TTL_MASK) <= 1) {
        if ((hops & NOT_ROUTED) !== 0) counts.unroutable++
        else counts.expired++
        drop(slot, (hops & NOT_ROUTED) !== 0 ? 'scope' : 'ttl', node)
        return
      }
      words[at + Slot.FROM] -= 1 << HOPS_SHIFT
    }
    const direction = routeOf(node, words[at + Slot.TO], words[at + Slot.HASH])
    if (direction === NONE) {
      counts.pathless++
      drop(slot, 'route', node)
      return
    }
    counts.forwarded++
    transmit(direction, slot, now, from)
  }

  /** A link with classes has sent what it was sending. */
  const sent = (direction: number, now: number): void => {
    if (classes === undefined) return
    serve(classes, classes.end(direction), now)
    serve(classes, direction, now)
  }

  /** A frame with pauses has arrived, unless the link is down: it is about the opposite direction. */
  const gotPauses = (direction: number, slot: number, now: number): void => {
    const mask = words[slot * slotWords + Slot.HASH]
    release(slot)
    if (classes !== undefined && isDown[direction >> 1] === 0) pause(classes, direction ^ 1, mask, now)
  }

  const deliver = (host: number, slot: number): void => {
    words[slot * slotWords + Slot.NEXT] = NONE
    delivered++
    const wasEmpty = inboxHead[host] === NONE
    if (wasEmpty) inboxHead[host] = slot
    else words[inboxTail[host] * slotWords + Slot.NEXT] = slot
    inboxTail[host] = slot
    if (wasEmpty) arrived(host)
  }

  return {
    get routes() {
      return routes
    },
    get arena() {
      return arena
    },
    get delivered() {
      return delivered
    },
    nextAt: () => (heapSize === 0 ? Number.POSITIVE_INFINITY : key[0]),
    poll(now) {
      while (heapSize > 0 && key[0] <= now) {
        const direction = heap[0]
        const time = key[0]
        if (direction >= directions) {
          replaceTop()
          sent(direction - directions, time)
          continue
        }
        const slot = head[direction]
        const at = slot * slotWords
        head[direction] = words[at + Slot.NEXT]
        replaceTop()
        if (words[at + Slot.TO] === PAUSES) {
          gotPauses(direction, slot, time)
          continue
        }
        const node = target[direction]
        if (isDown[direction >> 1] !== 0) {
          cut[direction]++
          drop(slot, 'down', origin[direction], direction)
        } else if (node < hosts) deliver(node, slot)
        else forward(node, slot, time, direction)
      }
    },
    send(host, to, hash, ecn, bytes, at, length, now, tag = 0, hops = DEFAULT_HOPS) {
      const direction = routeOf(host, to, hash)
      const slot = takeSlot()
      const kept = length < keptBytes ? length : keptBytes
      const offset = slot * slotBytes + 4 * Slot.KEPT
      if (kept > LOOP_BYTES) arena.bytes.set(bytes.subarray(at, at + kept), offset)
      else for (let i = 0; i < kept; i++) arena.bytes[offset + i] = bytes[at + i]
      const word = slot * slotWords
      words[word + Slot.FROM] = (hops << HOPS_SHIFT) | host
      words[word + Slot.TO] = to
      words[word + Slot.HASH] = hash
      words[word + Slot.SIZE] = length
      words[word + Slot.ECN] = (tag << TAG_SHIFT) | ecn
      if (direction === NONE) {
        nodeStats[host].pathless++
        drop(slot, 'route', host)
      } else transmit(direction, slot, now, NONE)
      return direction !== NONE
    },
    pathOf: (host, to, hash) =>
      directionsOf(host, to, hash)
        ?.slice(0, -1)
        .map(direction => target[direction]),
    directionsOf,
    setDown(down, now) {
      const before = isDown.slice()
      isDown.forEach((_, link) => {
        isDown[link] = down(link) ? 1 : 0
      })
      route()
      if (classes === undefined) return
      for (let direction = 0; direction < directions; direction++) {
        const link = direction >> 1
        if (isDown[link] > before[link]) pause(classes, direction, 0, now)
        if (isDown[link] < before[link]) serve(classes, classes.renew(direction), now)
      }
    },
    setStorm(direction, mask, isOn, now) {
      if (classes !== undefined) serve(classes, classes.setStorm(direction, mask, isOn), now)
    },
    busyUntil(host) {
      let until = 0
      for (const direction of uplinks[host]) {
        const end =
          classes === undefined ? busy[direction] : busy[direction] + classes.openBytes(direction) * byteTime[direction]
        if (end > until) until = end
      }
      return until
    },
    hasArrived: host => inboxHead[host] !== NONE,
    receive(host) {
      const slot = inboxHead[host]
      if (slot !== NONE) inboxHead[host] = words[slot * slotWords + Slot.NEXT]
      return slot
    },
    offsetOf: slot => slot * slotBytes + 4 * Slot.KEPT,
    lengthOf: slot => words[slot * slotWords + Slot.SIZE],
    sourceOf: slot => words[slot * slotWords + Slot.FROM] & HOST_MASK,
    destinationOf: slot => words[slot * slotWords + Slot.TO],
    ecnOf: slot => words[slot * slotWords + Slot.ECN] & ECN_MASK,
    ttlOf: slot => (words[slot * slotWords + Slot.FROM] >>> HOPS_SHIFT) & TTL_MASK,
    tagOf: slot => words[slot * slotWords + Slot.ECN] >>> TAG_SHIFT,
    release,
    queueOf,
    classesOf,
    stats: now =>
      Array.from({ length: directions }, (_, i) => {
        integrate(i, now)
        return {
          packets: packets[i],
          bytes: bytesSent[i],
          marked: marked[i],
          overflowed: overflowed[i],
          lost: lost[i],
          tooLong: tooLong[i],
          cut: cut[i],
          maxQueue: maxQueue[i],
          meanQueue: now > statsSince ? area[i] / (now - statsSince) : 0,
          classes: classesOf(i, now),
        }
      }),
    nodeStats: () => nodeStats,
    resetStats(now) {
      for (const counts of [packets, bytesSent, marked, overflowed, lost, tooLong, cut, maxQueue, area]) counts.fill(0)
      areaAt.fill(now)
      statsSince = now
      classes?.reset(now)
    },
  }
}
