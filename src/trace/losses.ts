/*
 * Packets of a capture with what became of them: a loss is seen on arrival, later than the packet was sent. So the
 * newest packets wait here for a while, and a lost packet is one frame with a comment.
 */
import { BTH_BYTES } from '../wire/bth.ts'
import { flowHash } from '../wire/flow.ts'
import type { PcapngPacket } from './pcapng.ts'

/** Packets that wait. */
const MAX_WAITING = 1024

interface Waiting {
  readonly key: string
  packet: PcapngPacket
}

/** Opcode, flags, destination queue pair and PSN, and the path. */
const keyOf = ({ payload, flow }: PcapngPacket): string => {
  if (payload.length < BTH_BYTES) return ''
  const view = new DataView(payload.buffer, payload.byteOffset, BTH_BYTES)
  return `${view.getUint32(0)} ${view.getUint32(4)} ${view.getUint32(8)} ${flowHash(flow)}`
}

export interface Losses {
  /** Adds a packet that was sent, or received from outside. Its bytes must not change until it is written. */
  sent(packet: PcapngPacket): void
  /** What happened on arrival to a packet: the comment of the packet that waits, else of one more frame. */
  arrived(packet: PcapngPacket, outcome: string): void
  /** Writes the packets that waited at the last call too: their losses would have been seen. */
  flushOld(): void
  /** Writes all packets. */
  flush(): void
}

/** Passes packets to `write` in the order in which they were sent. */
export const createLosses = (write: (packet: PcapngPacket) => void): Losses => {
  let waiting: Waiting[] = []
  /** How many of them waited at the last `flushOld`. */
  let old = 0
  const newest = new Map<string, Waiting>()
  const writeFirst = (count: number): void => {
    const ready = waiting.slice(0, count)
    waiting = waiting.slice(count)
    old = Math.max(0, old - count)
    for (const one of ready) if (newest.get(one.key) === one) newest.delete(one.key)
    for (const { packet } of ready) write(packet)
  }
  const sent = (packet: PcapngPacket): void => {
    const one = { key: keyOf(packet), packet }
    waiting.push(one)
    newest.set(one.key, one)
    if (waiting.length >= 2 * MAX_WAITING) writeFirst(MAX_WAITING)
  }
  return {
    sent,
    arrived(packet, outcome) {
      const known = newest.get(keyOf(packet))
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
