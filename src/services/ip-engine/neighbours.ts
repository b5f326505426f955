/*
 * The neighbour cache of one interface: link-layer addresses by IP address, resolved by solicitations (ARP: RFC 826;
 * IPv6: RFC 4861, 7.3). Packets wait until their neighbour is resolved. Entries and waiting packets are bounded. Times
 * are microseconds.
 */
import { copyOfBytes } from '../../spec/memory.ts'
import { isSameAddress } from '../../transport/wire/address.ts'
import type { LinkAddress } from '../../transport/wire/ipoib.ts'

/** RFC 4861, 10: RETRANS_TIMER, MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT, REACHABLE_TIME. */
const RETRANS_TIMER = 1_000_000
const MAX_SOLICITATIONS = 3
const REACHABLE_TIME = 30_000_000

/**
 * `entries`: maximum neighbours. `unresolved`: with this many unresolved neighbours, a full cache evicts one of them.
 * `waiting`: maximum waiting packets of all neighbours together. `waitingEach`: maximum of one neighbour.
 */
export const NeighbourLimits = { entries: 1024, unresolved: 256, waiting: 256, waitingEach: 16 } as const

export interface NeighbourHost {
  /** Solicits an address: at `link`, or by multicast if `link` is unknown. */
  solicit(address: Uint8Array, link: LinkAddress | undefined): void
  transmit(frame: Uint8Array, to: LinkAddress): void
  /** Charges memory of an entry or a waiting packet; false: there is none. */
  reserve(bytes: number): boolean
  release(bytes: number): void
  /** Counts packets that the cache has dropped. */
  countDropped(packets: number): void
}

/** An estimate of the memory of an entry, and of a waiting packet in addition to its bytes. */
const ENTRY_BYTES = 1024
const PACKET_OVERHEAD = 256

interface Neighbour {
  readonly key: string
  readonly address: Uint8Array
  /** Undefined: not resolved yet (state INCOMPLETE of RFC 4861). */
  link: LinkAddress | undefined
  /** Until this time `link` is used without a solicitation (state REACHABLE). */
  confirmedUntil: number
  /** Number of unanswered solicitations; 0: no answer is expected. */
  solicitations: number
  /** When the answer to a solicitation is late. */
  deadline: number
  /** Packets that wait for `link`. */
  readonly waiting: Uint8Array[]
}

const isSameLink = (a: LinkAddress, b: LinkAddress): boolean => a.qpn === b.qpn && isSameAddress(a.gid, b.gid)

const keyOf = (address: Uint8Array): string => address.join('.')

export class NeighbourCache {
  readonly #host: NeighbourHost
  /** In the order of their creation or last confirmation. */
  readonly #entries = new Map<string, Neighbour>()
  /** Entries without a link-layer address, first solicited first. */
  readonly #unresolved = new Set<Neighbour>()
  /** Solicited entries. All have the same timeout, so the first has the earliest deadline. */
  readonly #solicited = new Set<Neighbour>()
  /** Waiting packets of all entries. */
  #waiting = 0

  constructor(host: NeighbourHost) {
    this.#host = host
  }

  get counts(): { readonly entries: number; readonly waiting: number } {
    return { entries: this.#entries.size, waiting: this.#waiting }
  }

  nextTimeout(): number {
    const [first] = this.#solicited
    return first?.deadline ?? Number.POSITIVE_INFINITY
  }

  onTimeout(now: number): void {
    for (const entry of [...this.#solicited]) {
      if (entry.deadline > now) return
      if (entry.solicitations >= MAX_SOLICITATIONS) this.#remove(entry)
      else this.#solicit(entry, now)
    }
  }

  /** Sends a packet, or keeps it until the neighbour is resolved. Solicits an unconfirmed neighbour. */
  send(address: Uint8Array, frame: Uint8Array, now: number): void {
    const entry = this.#entries.get(keyOf(address)) ?? this.#add(address, undefined)
    if (entry === undefined) {
      this.#host.countDropped(1)
      return
    }
    if (entry.solicitations === 0 && entry.confirmedUntil <= now) this.#solicit(entry, now)
    if (entry.link !== undefined) this.#host.transmit(frame, entry.link)
    else this.#queue(entry, frame)
  }

  /**
   * A neighbour has sent its link-layer address. `canCreate`: an unknown neighbour gets an entry, because it has
   * requested our address and packets to it are likely.
   */
  learn(address: Uint8Array, link: LinkAddress, canCreate: boolean, now: number): void {
    const known = this.#entries.get(keyOf(address))
    if (known === undefined && !canCreate) return
    const entry = known ?? this.#add(address, link)
    if (entry === undefined) return
    entry.link = link
    this.#unresolved.delete(entry)
    entry.solicitations = 0
    entry.confirmedUntil = now + REACHABLE_TIME
    this.#solicited.delete(entry)
    this.#entries.delete(entry.key)
    this.#entries.set(entry.key, entry)
    for (const frame of this.#takeWaiting(entry, entry.waiting.length)) this.#host.transmit(frame, link)
  }

  /**
   * A neighbour has advertised its link-layer address (RFC 4861, 7.2.5). Without `isOverride`, another address than the
   * known one is not used, but the next packet solicits the neighbour.
   */
  learnAdvertised(address: Uint8Array, link: LinkAddress, isOverride: boolean, now: number): void {
    const known = this.#entries.get(keyOf(address))
    if (isOverride || known?.link === undefined || isSameLink(known.link, link)) this.learn(address, link, false, now)
    else known.confirmedUntil = Math.min(known.confirmedUntil, now)
  }

  /** A resolved neighbour has answered a solicitation without its link-layer address, which is thus still the same. */
  confirm(address: Uint8Array, now: number): void {
    const link = this.#entries.get(keyOf(address))?.link
    if (link !== undefined) this.learn(address, link, false, now)
  }

  /** Removes all entries, and drops waiting packets. */
  clear(): void {
    for (const entry of [...this.#entries.values()]) this.#remove(entry)
  }

  /** Undefined: there is no memory for an entry. */
  #add(address: Uint8Array, link: LinkAddress | undefined): Neighbour | undefined {
    if (this.#entries.size >= NeighbourLimits.entries) this.#remove(this.#evictionCandidate())
    if (!this.#host.reserve(ENTRY_BYTES)) return undefined
    const key = keyOf(address)
    // The caller may use its array again before the next solicitation.
    const copy = copyOfBytes(address)
    const entry: Neighbour = { key, address: copy, link, confirmedUntil: 0, solicitations: 0, deadline: 0, waiting: [] }
    this.#entries.set(key, entry)
    if (link === undefined) this.#unresolved.add(entry)
    return entry
  }

  /**
   * The entry to evict: an unresolved one if `NeighbourLimits.unresolved` entries are unresolved, else a resolved one.
   * So addresses that do not answer cannot evict all neighbours, and soliciting hosts cannot evict all unresolved
   * entries.
   */
  #evictionCandidate(): Neighbour {
    if (this.#unresolved.size < NeighbourLimits.unresolved)
      for (const entry of this.#entries.values()) if (entry.link !== undefined) return entry
    const [first] = this.#unresolved
    return first!
  }

  #remove(entry: Neighbour): void {
    this.#entries.delete(entry.key)
    this.#solicited.delete(entry)
    this.#unresolved.delete(entry)
    this.#host.release(ENTRY_BYTES)
    this.#drop(entry, entry.waiting.length)
  }

  /** Takes the oldest waiting packets of an entry. */
  #takeWaiting(entry: Neighbour, count: number): Uint8Array[] {
    const taken = entry.waiting.splice(0, count)
    this.#waiting -= taken.length
    for (const { length } of taken) this.#host.release(length + PACKET_OVERHEAD)
    return taken
  }

  #drop(entry: Neighbour, count: number): void {
    if (count > 0) this.#host.countDropped(this.#takeWaiting(entry, count).length)
  }

  #solicit(entry: Neighbour, now: number): void {
    entry.solicitations++
    entry.deadline = now + RETRANS_TIMER
    this.#solicited.delete(entry)
    this.#solicited.add(entry)
    this.#host.solicit(entry.address, entry.link)
  }

  /**
   * Keeps a packet until the neighbour is resolved. If the neighbour has `waitingEach` packets, its oldest packet is
   * dropped. If all neighbours together have `waiting` packets, or there is no memory, the new packet is dropped.
   */
  #queue(entry: Neighbour, frame: Uint8Array): void {
    if (entry.waiting.length >= NeighbourLimits.waitingEach) this.#drop(entry, 1)
    if (this.#waiting >= NeighbourLimits.waiting || !this.#host.reserve(frame.length + PACKET_OVERHEAD)) {
      this.#host.countDropped(1)
      return
    }
    entry.waiting.push(frame)
    this.#waiting++
  }
}
