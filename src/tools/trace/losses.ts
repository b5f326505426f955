/*
 * Packets of a capture with what became of them: a loss is seen on arrival, later than the packet was sent. So the
 * newest packets wait here for a while, and a lost packet is one frame with a comment.
 */
import { BTH_BYTES } from '../../transport/wire/bth.ts'
import { flowHash } from '../../transport/wire/flow.ts'
import type { PcapngPacket } from './pcapng.ts'

/** Packets that wait at least, also if they are older than `hold`. */
const MIN_WAITING = 1024
/** The newest packets that wait at most: as many as may be in flight on links (transport/phy/links/). */
const MOST_WAITING = 2 ** 16
/** How many are over it when the oldest are written. */
const SLACK = 2 ** 12

interface Waiting {
  readonly keys: readonly [copy: string, packet: string]
  packet: PcapngPacket
}

/**
 * Opcode, flags, destination queue pair and PSN, and the path; the first key has the identification too: it tells the
 * copies of a packet apart that are in flight at the same time.
 */
const keysOf = ({ payload, flow, identification }: PcapngPacket): Waiting['keys'] => {
  let packet = ''
  if (payload.length >= BTH_BYTES) {
    const view = new DataView(payload.buffer, payload.byteOffset, BTH_BYTES)
    packet = `${view.getUint32(0)} ${view.getUint32(4)} ${view.getUint32(8)} ${flowHash(flow)}`
  }
  return [`${packet} ${identification & 0xffff}`, packet]
}

interface Losses {
  /** Adds a packet that was sent, or received from outside. Its bytes must not change until it is written. */
  sent(packet: PcapngPacket): void
  /** What happened on arrival to a packet: the comment of the packet that waits, else of one more frame. */
  arrived(packet: PcapngPacket, outcome: string): void
  /** Writes the packets that waited at the last call too: their losses would have been seen. */
  flushOld(): void
  /** Writes all packets. */
  flush(): void
}

/**
 * Passes packets to `write` in the order in which they were sent. `hold`: microseconds for which a packet waits, the
 * longest time in which it may be lost.
 */
export const createLosses = (write: (packet: PcapngPacket) => void, hold = 0): Losses => {
  let waiting: Waiting[] = []
  /** How many of them waited at the last `flushOld`. */
  let old = 0
  /** How many wait when the oldest are looked at again. */
  let limit = 2 * MIN_WAITING
  const newest = new Map<string, Waiting>()
  const writeFirst = (count: number): void => {
    const ready = waiting.slice(0, count)
    waiting = waiting.slice(count)
    old = Math.max(0, old - count)
    for (const one of ready) for (const key of one.keys) if (newest.get(key) === one) newest.delete(key)
    for (const { packet } of ready) write(packet)
  }
  /** Writes packets older than `hold`. */
  const writeHeld = (now: number): void => {
    const held = waiting.findIndex(({ packet }) => packet.time > now - hold)
    const most = waiting.length - MIN_WAITING
    const count = hold === 0 || held < 0 ? most : Math.min(held, most)
    writeFirst(Math.max(count, waiting.length - MOST_WAITING))
    limit = Math.max(2 * MIN_WAITING, waiting.length + Math.max(MIN_WAITING, waiting.length >> 1))
    limit = Math.min(limit, MOST_WAITING + SLACK)
  }
  const sent = (packet: PcapngPacket): void => {
    const one = { keys: keysOf(packet), packet }
    waiting.push(one)
    for (const key of one.keys) newest.set(key, one)
    if (waiting.length >= limit) writeHeld(packet.time)
  }
  return {
    sent,
    arrived(packet, outcome) {
      const [copy, same] = keysOf(packet)
      const known = newest.get(copy) ?? newest.get(same)
      if (known === undefined || known.packet.comment !== undefined) sent({ ...packet, comment: outcome })
      else known.packet = { ...known.packet, comment: outcome }
    },
    flushOld() {
      writeFirst(old)
      old = waiting.length
    },
    flush: () => writeFirst(waiting.length),
  }
}
