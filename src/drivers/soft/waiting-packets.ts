/*
 * Packets for scattered memory (transport/engine/scheduling.ts) that wait until others had their turn, as copies: the
 * packets behind them in the port do not wait.
 */
import type { Account } from '../../core/model.ts'
import { PeerTable, type Receiver } from '../../core/objects/peer-table.ts'
import { OP_RESPONSE, opcodeFlags } from '../../spec/wire/opcodes.ts'
import type { Arena } from '../../transport/wire/arena.ts'
import { bthOpcode } from '../../transport/wire/bth.ts'

interface WaitingPacket {
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

interface Kept extends WaitingPacket {
  readonly key: number
  readonly account: Account | undefined
}

export class WaitingPackets {
  readonly #packets: Kept[] = []
  /** Number of packets, by key. */
  readonly #counts = new Map<number, number>()
  /** Of the bytes: programs that have scattered memory share them. */
  readonly #table = new PeerTable('bytes of packets that wait for scattered memory', MAX_BYTES, 1)

  get size(): number {
    return this.#packets.length
  }

  /** Whether packets wait that the one at `at` must not overtake. */
  isBehind(qpn: number, arena: Arena, at: number): boolean {
    return this.#counts.has(keyOf(qpn, arena, at))
  }

  /** Keeps a packet for the receiver; false if its account may have no more bytes. */
  add(receiver: Receiver, arena: Arena, at: number, length: number, peer: number, isMarked: boolean): boolean {
    if (!this.#table.take(receiver, length)) return false
    const { context, qpn } = receiver
    const key = keyOf(qpn, arena, at)
    const bytes = arena.bytes.slice(at, at + length)
    this.#packets.push({ key, qpn, bytes, peer, isMarked, account: context?.account })
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1)
    return true
  }

  take(): WaitingPacket | undefined {
    const packet = this.#packets.shift()
    if (packet === undefined) return undefined
    const left = this.#counts.get(packet.key)! - 1
    if (left === 0) this.#counts.delete(packet.key)
    else this.#counts.set(packet.key, left)
    this.#table.release(packet.account, packet.bytes.length)
    return packet
  }
}
