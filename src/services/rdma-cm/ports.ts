/*
 * Ports of rdma_cm, by the rules of Linux's cma_check_port. They are independent of TCP and UDP ports.
 * Users have shares of the ephemeral ports of each port space (core/objects/limits.ts).
 */

import type { Account, Limit } from '../../core/model.ts'
import { createLimit, take } from '../../core/objects/limits.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { callError, codedError } from '../../spec/errno.ts'
import { isLinkLocal, isSameAddress } from '../../transport/wire/address.ts'
import { Family, isAny } from '../socket-address.ts'

/** A bound identifier. */
export interface PortHolder {
  /** CmPortSpace. */
  readonly portSpace: number
  /** Undefined until `bind` has returned the port. */
  readonly source: SocketAddress | undefined
  /** If set, the only device that the identifier may use. */
  readonly onlyDevice: object | undefined
  readonly reuseAddress: boolean
  /** IPv6 only: the wildcard address does not include IPv4. */
  readonly onlyIpv6: boolean
}

/** Linux's default of net.ipv4.ip_local_port_range. */
const FIRST_EPHEMERAL = 32768
const LAST_EPHEMERAL = 60999
const EPHEMERAL_PORTS = LAST_EPHEMERAL - FIRST_EPHEMERAL + 1
/** A user may have this many ephemeral ports, also beyond its share. */
const MIN_SHARE = 64

export const portKey = (portSpace: number, port: number): number => portSpace * 0x1_0000 + port

/**
 * Why `holder` cannot bind to `source`, whose port `other` has; undefined: it can. `mayShare`: both holders reuse
 * addresses.
 */
const conflict = (
  holder: PortHolder,
  source: SocketAddress,
  other: PortHolder,
  mayShare: boolean,
): 'EADDRINUSE' | 'EADDRNOTAVAIL' | undefined => {
  const otherSource = other.source
  if (holder.onlyDevice !== undefined && other.onlyDevice !== undefined && holder.onlyDevice !== other.onlyDevice)
    return undefined
  if (otherSource === undefined || mayShare) return undefined
  // An AF_IB address may be of either family.
  const isAfIb = source.family === Family.IB || otherSource.family === Family.IB
  const isSameFamily = isAfIb || source.family === otherSource.family
  const ipv6Holder = source.family === Family.INET6 ? holder : other
  if (!isSameFamily && ipv6Holder.onlyIpv6) return undefined
  if (isAny(source) || isAny(otherSource)) return 'EADDRNOTAVAIL'
  if (!isSameFamily || !isSameAddress(source.address, otherSource.address)) return undefined
  // Interfaces of one network card, such as VLANs, may have the same link-local address.
  return isLinkLocal(source.address) && source.scope !== otherSource.scope ? undefined : 'EADDRINUSE'
}

export class PortTable {
  readonly #random: () => number
  readonly #holders = new Map<number, Set<PortHolder>>()
  /** Of holders of ephemeral ports, by port space. */
  readonly #limits = new Map<number, Limit>()
  /** Releases a holder of an ephemeral port from its limit. */
  readonly #releases = new Map<PortHolder, () => void>()

  /** `random` returns a u32. */
  constructor(random: () => number) {
    this.#random = random
  }

  /**
   * Binds `holder` to the port of `source`; 0: to a free ephemeral port. Returns the port. Throws CallError EADDRINUSE,
   * EADDRNOTAVAIL.
   */
  bind(holder: PortHolder, source: SocketAddress, account: Account | undefined): number {
    const port = source.port === 0 ? this.#freePort(holder.portSpace) : source.port
    const key = portKey(holder.portSpace, port)
    const others = this.#holders.get(key)
    for (const other of others ?? [])
      this.#throwIf(conflict(holder, source, other, holder.reuseAddress && other.reuseAddress), port)
    if (port >= FIRST_EPHEMERAL && port <= LAST_EPHEMERAL)
      this.#releases.set(holder, take(this.#limitOf(holder.portSpace), account, 'cm_id'))
    if (others === undefined) this.#holders.set(key, new Set([holder]))
    else others.add(holder)
    return port
  }

  /** Throws CallError if another holder's address conflicts, even if both holders reuse addresses. */
  checkListen(holder: PortHolder, source: SocketAddress): void {
    for (const other of this.#holders.get(portKey(holder.portSpace, source.port)) ?? [])
      if (other !== holder) this.#throwIf(conflict(holder, source, other, false), source.port)
  }

  /** No effect if the holder is not bound. */
  release(holder: PortHolder): void {
    if (holder.source === undefined) return
    const key = portKey(holder.portSpace, holder.source.port)
    const holders = this.#holders.get(key)
    if (!holders?.delete(holder)) return
    if (holders.size === 0) this.#holders.delete(key)
    this.#releases.get(holder)?.()
    this.#releases.delete(holder)
  }

  #limitOf(portSpace: number): Limit {
    const settings = { minimum: MIN_SHARE, errno: 'EADDRNOTAVAIL', advice: 'destroy some identifiers' } as const
    const limit = this.#limits.get(portSpace) ?? createLimit('ephemeral ports', EPHEMERAL_PORTS, settings)
    this.#limits.set(portSpace, limit)
    return limit
  }

  #throwIf(code: 'EADDRINUSE' | 'EADDRNOTAVAIL' | undefined, port: number): void {
    if (code !== undefined) throw codedError(code, 'port-in-use')`cm_id: port ${port} is in use`
  }

  /** A free ephemeral port. Throws CallError EADDRNOTAVAIL. */
  #freePort(portSpace: number): number {
    const start = this.#random() % EPHEMERAL_PORTS
    for (let i = 0; i < EPHEMERAL_PORTS; i++) {
      const port = FIRST_EPHEMERAL + ((start + i) % EPHEMERAL_PORTS)
      if (!this.#holders.has(portKey(portSpace, port))) return port
    }
    throw callError.EADDRNOTAVAIL`cm_id: every ephemeral port is in use`
  }
}
