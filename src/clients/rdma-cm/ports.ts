/*
 * Ports of rdma_cm: numbers in a port space to which identifiers are bound, by the rules of Linux's cma_check_port.
 * They are independent of TCP and UDP ports.
 *
 * So that no user can take all ephemeral ports, a limited user may hold half of those that no other user holds, as of
 * the daemon's descriptors.
 */
import { CallError } from '../../spec/errno.ts'
import { isSameAddress } from '../../wire/address.ts'
import { Family, isAny, type SocketAddress } from './socket-address.ts'

/** A bound identifier. */
export interface PortHolder {
  readonly portSpace: number
  readonly source: SocketAddress | undefined
  /** The only device that the identifier may use. */
  readonly only: object | undefined
  readonly reuseAddress: boolean
  /** IPv6 only: the wildcard address does not include IPv4. */
  readonly onlyIpv6: boolean
}

/** Ephemeral ports, Linux's net.ipv4.ip_local_port_range. */
const FIRST = 32768
const COUNT = 60999 - FIRST + 1
/** A limited user may always hold so many of them. */
const MINIMUM = 64

const key = (portSpace: number, port: number): number => portSpace * 0x1_0000 + port

const conflict = (
  a: PortHolder,
  source: SocketAddress,
  b: PortHolder,
  mayShare: boolean,
): 'EADDRINUSE' | 'EADDRNOTAVAIL' | undefined => {
  const other = b.source
  if (a.only !== undefined && b.only !== undefined && a.only !== b.only) return undefined
  if (other === undefined || mayShare) return undefined
  // An AF_IB address may be of either family.
  const isAfIb = source.family === Family.IB || other.family === Family.IB
  const isSameFamily = isAfIb || source.family === other.family
  if (!isSameFamily && (source.family === Family.INET6 ? a : b).onlyIpv6) return undefined
  if (isAny(source) || isAny(other)) return 'EADDRNOTAVAIL'
  return isSameFamily && isSameAddress(source.address, other.address) ? 'EADDRINUSE' : undefined
}

export class PortTable {
  readonly #random: () => number
  readonly #holders = new Map<number, Set<PortHolder>>()
  /** Holders of ephemeral ports: their number by port space, and by port space and user; and each one's keys. */
  readonly #held = new Map<string, number>()
  readonly #counted = new Map<PortHolder, readonly string[]>()

  /** `random` returns a u32. */
  constructor(random: () => number) {
    this.#random = random
  }

  /**
   * Binds `holder` to the port of `source`, or to a free one if that is 0. Returns the port. `user`: the holder's, if it
   * is limited. Throws CallError EADDRINUSE, EADDRNOTAVAIL.
   */
  bind(holder: PortHolder, source: SocketAddress, user?: number): number {
    const port = source.port === 0 ? this.#ephemeral(holder.portSpace) : source.port
    const place = key(holder.portSpace, port)
    const others = this.#holders.get(place)
    for (const other of others ?? [])
      this.#refuse(conflict(holder, source, other, holder.reuseAddress && other.reuseAddress), port)
    if (port >= FIRST && port < FIRST + COUNT) this.#count(holder, user)
    if (others === undefined) this.#holders.set(place, new Set([holder]))
    else others.add(holder)
    return port
  }

  /** Throws CallError if another holder is bound to the port: then `holder` may not listen. */
  checkListen(holder: PortHolder, source: SocketAddress): void {
    for (const other of this.#holders.get(key(holder.portSpace, source.port)) ?? [])
      if (other !== holder) this.#refuse(conflict(holder, source, other, false), source.port)
  }

  release(holder: PortHolder): void {
    if (holder.source === undefined) return
    const place = key(holder.portSpace, holder.source.port)
    const holders = this.#holders.get(place)
    if (!holders?.delete(holder)) return
    if (holders.size === 0) this.#holders.delete(place)
    this.#add(this.#counted.get(holder) ?? [], -1)
    this.#counted.delete(holder)
  }

  #heldBy(name: string): number {
    return this.#held.get(name) ?? 0
  }

  /** Names without holders have no entry. */
  #add(names: readonly string[], change: 1 | -1): void {
    for (const name of names) {
      const held = this.#heldBy(name) + change
      if (held === 0) this.#held.delete(name)
      else this.#held.set(name, held)
    }
  }

  #count(holder: PortHolder, user: number | undefined): void {
    const all = `${holder.portSpace}`
    const names = [all]
    if (user !== undefined) {
      const own = `${holder.portSpace} of user ${user}`
      const held = this.#heldBy(own)
      const others = this.#heldBy(all) - held
      const max = Math.max(MINIMUM, (COUNT - others) >> 1)
      if (held >= max)
        throw new CallError(
          'EADDRNOTAVAIL',
          `cm_id: user ${user} holds ${held} ephemeral ports and may hold ${max}, half of those that no other user holds`,
        )
      names.push(own)
    }
    this.#add(names, 1)
    this.#counted.set(holder, names)
  }

  #refuse(code: 'EADDRINUSE' | 'EADDRNOTAVAIL' | undefined, port: number): void {
    if (code !== undefined) throw new CallError(code, `cm_id: port ${port} is in use`)
  }

  #ephemeral(portSpace: number): number {
    const start = this.#random() % COUNT
    for (let i = 0; i < COUNT; i++) {
      const port = FIRST + ((start + i) % COUNT)
      if (!this.#holders.has(key(portSpace, port))) return port
    }
    throw new CallError('EADDRNOTAVAIL', 'cm_id: every ephemeral port is in use')
  }
}
