/*
 * The listeners of each service id, and the choice of a listener for a request (Linux: cma_find_listener).
 */
import type { CmEngine } from '../../cm/engine.ts'
import { isSameAddress } from '../../wire/address.ts'
import { rdmaCmServiceId } from '../../wire/mad/mad.ts'
import type { CmDevice, Identifier } from './identifier.ts'
import { Family, isAny, isLoopback, type SocketAddress } from './socket-address.ts'

export const serviceIdOf = ({ portSpace }: Identifier, address: SocketAddress): bigint =>
  address.family === Family.IB ? address.serviceId : rdmaCmServiceId(portSpace, address.port)

/** How well a listener matches a request. A better match is larger. */
const NONE = 0
const WILDCARD_OF_BOTH_FAMILIES = 1
const WILDCARD = 2
const LOOPBACK = 3
const EXACT = 4

/**
 * The match of a listener with a request to address `local` that arrived at device `arrival`. `isOfHost`: this host has
 * sent the request.
 */
const matchOf = (listener: Identifier, local: SocketAddress, arrival: CmDevice, isOfHost: boolean): number => {
  const { source, device, onlyDevice, onlyIpv6 } = listener
  if (source === undefined || (onlyDevice !== undefined && onlyDevice !== arrival)) return NONE
  // An AF_IB address may be of either family.
  const isSameFamily = source.family === local.family || source.family === Family.IB
  if (isAny(source)) {
    if (isSameFamily) return WILDCARD
    return source.family === Family.INET6 && !onlyIpv6 ? WILDCARD_OF_BOTH_FAMILIES : NONE
  }
  if (!isSameFamily || device !== arrival) return NONE
  if (isSameAddress(source.address, local.address)) return EXACT
  // For this host, a loopback address stands for every address of the device.
  return isOfHost && (isLoopback(source) || isLoopback(local)) ? LOOPBACK : NONE
}

export class Listeners {
  readonly #engine: CmEngine
  /** Listening identifiers by service id. */
  readonly #services = new Map<bigint, Set<Identifier>>()

  constructor(engine: CmEngine) {
    this.#engine = engine
  }

  get count(): number {
    let count = 0
    for (const ids of this.#services.values()) count += ids.size
    return count
  }

  /** `source`: the identifier's. */
  add(id: Identifier, source: SocketAddress): void {
    const serviceId = serviceIdOf(id, source)
    let ids = this.#services.get(serviceId)
    if (ids === undefined) {
      ids = new Set()
      this.#services.set(serviceId, ids)
      this.#engine.listen(serviceId)
    }
    ids.add(id)
  }

  /** Call before the state changes from LISTEN. No effect in other states. */
  remove(id: Identifier): void {
    if (id.state !== 'LISTEN' || id.source === undefined) return
    const serviceId = serviceIdOf(id, id.source)
    const ids = this.#services.get(serviceId)
    ids?.delete(id)
    if (ids === undefined || ids.size > 0) return
    this.#engine.unlisten(serviceId)
    this.#services.delete(serviceId)
  }

  /**
   * The listener to a service at an address of a device. A specific address has precedence over a wildcard. `isOfHost`:
   * this host has sent the request.
   */
  find(serviceId: bigint, local: SocketAddress, device: CmDevice, isOfHost: boolean): Identifier | undefined {
    let best: Identifier | undefined
    let bestMatch = NONE
    for (const id of this.#services.get(serviceId) ?? []) {
      const match = matchOf(id, local, device, isOfHost)
      if (match > bestMatch) [best, bestMatch] = [id, match]
    }
    return best
  }

  /**
   * Any listener that is bound by AF_IB to this GID or a wildcard. If there is one, requests to the GID have no rdma_cm
   * header: then `find` chooses the listener, with the GID as an AF_IB address.
   */
  findIb(serviceId: bigint, gid: Uint8Array, device: CmDevice | undefined): Identifier | undefined {
    for (const id of this.#services.get(serviceId) ?? []) {
      const { source, onlyDevice } = id
      if (onlyDevice !== undefined && onlyDevice !== device) continue
      if (source?.family === Family.IB && (isAny(source) || isSameAddress(source.address, gid))) return id
    }
    return undefined
  }
}
