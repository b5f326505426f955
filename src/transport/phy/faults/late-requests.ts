/*
 * Kind `late` of torment (spec/check/torment.ts): a WRITE or READ of lent bytes waits at the device that receives it,
 * until their owner uses them otherwise. All later requests of its flow wait behind it, in order. So a wait ends before
 * the requester sends again (`LateSite.maxWait`), and in half of the decisions at the next message behind, for which
 * the owner may wait itself.
 */
import { headerAt, opcodeByNumber } from '../../../spec/wire/opcodes.ts'
import { bthOpcode } from '../../wire/bth.ts'
import { flowKeyOf } from './flows.ts'
import type { Decisions, HoldEnd } from './torment-decisions.ts'

/** Maximum packets that wait at a device; with more, all go on. */
const MAX_PACKETS = 256
/** How long a request may wait after its queue pair has ended, µs. */
const MAX_ORPHANED = 1_000_000
/** While requests wait, the device asks so often what programs have declared, µs. */
const ASK_INTERVAL = 1000

/** What a request accesses; its address in halves. */
interface LateRange {
  readonly key: number
  readonly hi: number
  readonly lo: number
  readonly length: number
  readonly isRead: boolean
}

/** What a port does not know: queue pairs, their timeouts, and lends. */
export interface LateSite {
  /** Microseconds, the clock of `Port.onTimeout`. */
  now(): number
  /** The longest wait of a request to this queue pair, µs; 0: none may wait. */
  maxWait(qpn: number): number
  /** See `LentWatch` (core/memory/region-table.ts). */
  watch(qpn: number, range: LateRange, onUse: () => void): (() => void) | undefined
  /** Reads what programs have declared. */
  update(): void
}

/** A flow whose requests wait. */
interface Held {
  readonly qpn: number
  readonly sender: number
  readonly object: string
  /** Whether messages may wait behind the request. */
  readonly holdsMessages: boolean
  until: number
  /** The owner has used the bytes. */
  isUsed: boolean
  /** The queue pair of the requests has ended. */
  isOrphaned: boolean
  packets: number
  stop: () => void
  readonly end: HoldEnd
}

/**
 * The packet at `at`, to a queue pair; `sender`: see `senderOf`. `object`, `flow`, `psn`: for the identity of a
 * decision.
 */
interface LatePacket {
  readonly view: DataView
  readonly at: number
  readonly qpn: number
  readonly sender: number
  readonly object: string
  readonly flow: string
  readonly psn: number
}

const rangeOf = (view: DataView, at: number): LateRange | undefined => {
  const opcode = bthOpcode(view, at)
  const { kind } = opcodeByNumber[opcode]!
  const reth = headerAt.RETH[opcode]!
  if (reth === 0 || (kind !== 'write' && kind !== 'read')) return undefined
  const header = at + reth
  const length = view.getUint32(header + 12)
  return length === 0
    ? undefined
    : {
        key: view.getUint32(header + 8),
        hi: view.getUint32(header),
        lo: view.getUint32(header + 4),
        length,
        isRead: kind === 'read',
      }
}

export class LateRequests {
  readonly #decisions: Decisions
  readonly #site: LateSite
  /** By `flowKeyOf`. */
  readonly #held = new Map<number, Held>()
  /** By object: how many waits came to their ends; later ones are shorter. */
  readonly #idle = new Map<string, number>()
  #packets = 0
  #nextAsk = 0

  constructor(decisions: Decisions, site: LateSite) {
    this.#decisions = decisions
    this.#site = site
  }

  /** Whether a received packet waits, until `onTimeout` releases its flow. */
  holds(packet: LatePacket): boolean {
    const { view, at } = packet
    const opcode = bthOpcode(view, at)
    const known = opcodeByNumber[opcode]
    if (known === undefined || known.role === 'response') return false
    const key = flowKeyOf(view, at)
    const held = this.#held.get(key) ?? this.#begin(key, packet)
    if (held === undefined) return false
    held.packets++
    this.#packets++
    const isMessage = known.kind === 'send' || headerAt.ImmDt[opcode] !== 0
    if (isMessage && !held.holdsMessages) held.until = 0
    if (this.#packets >= MAX_PACKETS) for (const one of this.#held.values()) one.until = 0
    return true
  }

  /** Whether the flow of a packet waits. */
  has(view: DataView, at: number): boolean {
    return this.#held.size > 0 && this.#held.has(flowKeyOf(view, at))
  }

  #begin(key: number, { view, at, qpn, sender, object, flow, psn }: LatePacket): Held | undefined {
    const range = rangeOf(view, at)
    if (range === undefined || !this.#decisions.mayAct('late')) return undefined
    const most = this.#site.maxWait(qpn)
    if (most === 0) return undefined
    this.#site.update()
    // Set below: nobody uses the bytes before.
    let held: Held | undefined
    const use = (): void => {
      if (held !== undefined) Object.assign(held, { isUsed: true, until: 0 })
    }
    const stop = this.#site.watch(qpn, range, use)
    if (stop === undefined) return undefined
    const decision = this.#decisions.decide('late', object, `${flow}.psn`, psn)
    const wait = Math.floor(decision?.bound(most / (1 + (this.#idle.get(object) ?? 0))) ?? 0)
    if (decision === undefined || wait === 0) {
      stop()
      return undefined
    }
    const now = this.#site.now()
    const holdsMessages = decision.below(2) === 0
    decision.note(
      () =>
        `a ${range.isRead ? 'READ' : 'WRITE'} of ${range.length} bytes for QP 0x${qpn.toString(16)} waits until their owner uses them, at most ${wait} µs`,
    )
    held = {
      ...{ qpn, sender, object, holdsMessages, until: now + wait, isUsed: false, isOrphaned: false, packets: 0, stop },
      end: decision.hold(now, () => {
        held!.until = 0
      }),
    }
    this.#held.set(key, held)
    return held
  }

  /** A queue pair ends. Its requests, of which `isOf` is true, may wait longer. */
  requesterEnds(isOf: (qpn: number, sender: number) => boolean): void {
    for (const held of this.#held.values())
      if (held.until > 0 && !held.isOrphaned && isOf(held.qpn, held.sender)) {
        held.isOrphaned = true
        held.until = this.#site.now() + MAX_ORPHANED
      }
  }

  /** The queue pair to which requests go ends. */
  receiverEnds(qpn: number): void {
    for (const held of this.#held.values()) if (held.qpn === qpn) held.until = 0
  }

  nextTimeout(): number {
    if (this.#held.size === 0) return Number.POSITIVE_INFINITY
    let next = this.#nextAsk
    for (const { until } of this.#held.values()) next = Math.min(next, until)
    return next
  }

  /** `release` gets the flows that wait no longer, by `flowKeyOf`. */
  onTimeout(now: number, release: (flow: number) => void): void {
    if (this.#held.size === 0) return
    if (now >= this.#nextAsk) {
      this.#nextAsk = now + ASK_INTERVAL
      this.#site.update()
    }
    for (const [key, held] of this.#held) if (held.until <= now) this.#release(key, held, now, release)
  }

  #release(key: number, held: Held, now: number, release: (flow: number) => void): void {
    this.#held.delete(key)
    this.#packets -= held.packets
    if (!held.isUsed) this.#idle.set(held.object, (this.#idle.get(held.object) ?? 0) + 1)
    held.stop()
    held.end(now, false)
    release(key)
  }

  /** All flows go on. */
  releaseAll(): void {
    for (const [key, held] of this.#held) this.#release(key, held, this.#site.now(), () => {})
  }
}
