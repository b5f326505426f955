/*
 * Packets for scattered memory (transport/engine/scheduling.ts) that wait until others had their turn, as copies: the
 * packets behind them in the port do not wait.
 */
import { OP_RESPONSE, opcodeFlags } from '../../spec/wire/opcodes.ts'
import type { Arena } from '../../transport/wire/arena.ts'
import { bthOpcode } from '../../transport/wire/bth.ts'

export interface WaitingPacket {
  readonly qpn: number
  readonly bytes: Uint8Array
  readonly peer: number
  readonly isMarked: boolean
}

/** The window of four queue pairs. */
const MAX_BYTES = 1 << 20

/** Requests and responses for a queue pair are ordered each for themselves. */
const keyOf = (qpn: number, arena: Arena, at: number): number =>
  (opcodeFlags[bthOpcode(arena.view, at)] & OP_RESPONSE) === 0 ? qpn : ~qpn

export class WaitingPackets {
  readonly #packets: (WaitingPacket & { readonly key: number })[] = []
  /** Number of packets, by key. */
  readonly #counts = new Map<number, number>()
  #bytes = 0

  get size(): number {
    return this.#packets.length
  }

  get isFull(): boolean {
    return this.#bytes >= MAX_BYTES
  }

  /** Whether packets wait that the one at `at` must not overtake. */
  isBehind(qpn: number, arena: Arena, at: number): boolean {
    return this.#counts.has(keyOf(qpn, arena, at))
  }

  add(qpn: number, arena: Arena, at: number, length: number, peer: number, isMarked: boolean): void {
    const key = keyOf(qpn, arena, at)
    this.#packets.push({ key, qpn, bytes: arena.bytes.slice(at, at + length), peer, isMarked })
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1)
    this.#bytes += length
  }

  take(): WaitingPacket | undefined {
    const packet = this.#packets.shift()
    if (packet === undefined) return undefined
    const left = this.#counts.get(packet.key)! - 1
    if (left === 0) this.#counts.delete(packet.key)
    else this.#counts.set(packet.key, left)
    this.#bytes -= packet.bytes.length
    return packet
  }
}
