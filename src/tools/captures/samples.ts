/*
 * Packets of a capture that are looked for in other captures: a number for each, by which the same packet is known at
 * another point, and a sample of them with their times. All captures keep the same packets: those whose numbers have
 * the most zeros, so that memory is bounded and samples still have packets in common.
 */
import { OP_REQUEST, opcodeFlags, TRANSPORT_MASK } from '../../spec/wire/opcodes.ts'
import type { RawPacket } from './file.ts'
import type { Located } from './located.ts'

/** Packets that are kept. */
const MAX_SAMPLE = 1 << 17
/** Bits of the words of a BTH that count: not the operation and its flags, the marks of switches, and AckReq. */
const COUNTED = [TRANSPORT_MASK * 2 ** 24 + 0xffff, 0x00ff_ffff, 0x00ff_ffff] as const
const LOW_BITS = 1 << 21

const mixed = (hash: number, word: number): number => {
  const next = Math.imul(hash ^ word, 0x9e37_79b1)
  return next ^ (next >>> 15)
}

/**
 * A number of 53 bits for a packet, the same wherever it is seen: its addresses (numbers of one table), IP
 * identification, length, service, queue pair and PSN, and whether it is a request. Packets that were sent again have
 * the same, unless their identification tells. What a cut frame with several packets does not show is not part of it
 * (joined.ts).
 */
export const packetNumber = ({ arena }: RawPacket, located: Located): number => {
  const { at, source, destination, identification, length } = located
  let high = mixed(mixed(0x1234_5678, source), destination)
  let low = mixed(mixed(0x2bad_cafe, identification), length)
  high = mixed(high, opcodeFlags[arena.view.getUint8(at)] & OP_REQUEST)
  for (let i = 0; i < COUNTED.length; i++) {
    const word = arena.view.getUint32(at + 4 * i) & COUNTED[i]
    high = mixed(high, word)
    low = mixed(low, Math.imul(word, 0x85eb_ca6b))
  }
  return (high >>> 0) * LOW_BITS + (low >>> 11)
}

interface Sampled {
  readonly time: number
  readonly source: number
  readonly destination: number
  /** How often the capture has it. */
  count: number
}

export class PacketSample {
  readonly #packets = new Map<number, Sampled>()
  /** A packet is kept if these lowest bits of its number are zero. */
  #mask = 0

  add(number: number, time: number, { source, destination }: Located): void {
    if ((number & this.#mask) !== 0) return
    const known = this.#packets.get(number)
    if (known !== undefined) {
      known.count++
      return
    }
    if (this.#packets.size === MAX_SAMPLE) {
      this.#mask = 2 * this.#mask + 1
      for (const kept of this.#packets.keys()) if ((kept & this.#mask) !== 0) this.#packets.delete(kept)
      if ((number & this.#mask) !== 0) return
    }
    this.#packets.set(number, { time, source, destination, count: 1 })
  }

  /** Calls `use` for each packet that both have once. */
  common(other: PacketSample, use: (here: Sampled, there: Sampled) => void): void {
    for (const [number, here] of this.#packets) {
      const there = other.#packets.get(number)
      if (here.count === 1 && there?.count === 1) use(here, there)
    }
  }
}
