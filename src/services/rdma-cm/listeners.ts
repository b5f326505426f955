/*
 * The listeners of each port, and the choice of a listener for a request (Linux: cma_find_listener, cma_listen_on_all).
 */
import type { PeerRequest } from '../../core/driver-contract.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { QpType } from '../../spec/enums.ts'
import { isSameAddress } from '../../transport/wire/address.ts'
import { Family, isAny, isLoopback } from '../socket-address.ts'
import type { CmDevice, Identifier } from './identifier.ts'
import { portKey } from './ports.ts'

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

/** Whether requests to a listener may arrive at a device. */
const listensOn = ({ device, onlyDevice, qpType }: Identifier, candidate: CmDevice): boolean =>
  (device ?? onlyDevice ?? candidate) === candidate &&
  (qpType !== QpType.values.UD || candidate.protocol.hasDatagrams === true)

/** By the devices on which a listener listens: ends that. */
type Ends = Map<CmDevice, () => void>

export class Listeners {
  readonly #ports = new Map<number, Map<Identifier, Ends>>()

  get count(): number {
    let count = 0
    for (const ids of this.#ports.values()) count += ids.size
    return count
  }

  /** Listens on those of `devices` that the identifier may use. Throws CallError of the protocol; then on none. */
  add(id: Identifier, { port }: SocketAddress, devices: Iterable<CmDevice>): void {
    const ends: Ends = new Map()
    try {
      for (const device of devices) if (listensOn(id, device)) ends.set(device, device.protocol.listen(id))
    } catch (error) {
      for (const end of ends.values()) end()
      throw error
    }
    const key = portKey(id.portSpace, port)
    const ids = this.#ports.get(key)
    if (ids === undefined) this.#ports.set(key, new Map([[id, ends]]))
    else ids.set(id, ends)
  }

  /** Call before the state changes from LISTEN. No effect in other states. */
  remove(id: Identifier): void {
    if (id.state !== 'LISTEN' || id.source === undefined) return
    const key = portKey(id.portSpace, id.source.port)
    const ids = this.#ports.get(key)
    for (const end of ids?.get(id)?.values() ?? []) end()
    ids?.delete(id)
    if (ids?.size === 0) this.#ports.delete(key)
  }

  /** Listens on a new device, for the identifiers that may use it. `report`: gets errors of the protocol. */
  addDevice(
    device: CmDevice,
    mayUse: (id: Identifier, device: CmDevice) => boolean,
    report: (error: unknown) => void,
  ): void {
    for (const ids of this.#ports.values())
      for (const [id, ends] of ids)
        if (listensOn(id, device) && mayUse(id, device))
          try {
            ends.set(device, device.protocol.listen(id))
          } catch (error) {
            report(error)
          }
  }

  removeDevice(device: CmDevice): void {
    for (const ids of this.#ports.values())
      for (const ends of ids.values()) {
        ends.get(device)?.()
        ends.delete(device)
      }
  }

  /**
   * The listener for a request that arrived at a device. A specific address has precedence over a wildcard. `isOfHost`:
   * this host has sent the request.
   */
  find({ portSpace, local }: PeerRequest, device: CmDevice, isOfHost: boolean): Identifier | undefined {
    let best: Identifier | undefined
    let bestMatch = NONE
    for (const [id, ends] of this.#ports.get(portKey(portSpace, local.port)) ?? []) {
      const match = ends.has(device) ? matchOf(id, local, device, isOfHost) : NONE
      if (match > bestMatch) [best, bestMatch] = [id, match]
    }
    return best
  }
  /** A listener at the port of a request, for which `find` has none, that is bound to another address. */
  elsewhere({ portSpace, local }: PeerRequest): Identifier | undefined {
    const ids = this.#ports.get(portKey(portSpace, local.port))?.keys() ?? []
    return [...ids].find(({ source }) => source !== undefined && !isAny(source))
  }
}
