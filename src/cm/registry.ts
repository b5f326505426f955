/*
 * Lookup tables: connections by our id, by the peer's id, and by our and the peer's queue pair; received SIDR_REQs by
 * their sender; listeners by service id. Ids are random numbers, so that peers cannot predict them.
 */
import { isSameAddress } from '../wire/address.ts'
import type { CmConnection, CmListener, CmPath } from './connection.ts'
import { CmError } from './error.ts'

/** Kinds of keys besides the connection's own id; each kind has its own map. */
type KeyName = keyof CmConnection['keys']

/** A peer chooses its CA GUID, so its GID is part of the key: peers with the same GUID are distinct. */
const peerKey = ({ remoteGid }: CmPath, caGuid: bigint, number: number): string =>
  `${remoteGid.join('.')}/${caGuid}/${number}`
const localKey = ({ path }: CmConnection, qpn: number): string => `${path.device}/${qpn}`
/** Queue pairs 0 and 1 are for management and cannot be connected. */
const isConnectable = (qpn: number): boolean => qpn > 1
const requestKey = ({ remoteGid }: CmPath, requestId: number): string => `${remoteGid.join('.')}/${requestId}`

const ALL_BITS = (1n << 64n) - 1n

export interface CmListenOptions {
  /** Significant bits of the service id; default: all. */
  readonly serviceMask?: bigint
  /** The device to listen on; undefined: all devices, including later ones. */
  readonly device?: number | undefined
  /** Maximum number of requests that wait for the consumer; default: unlimited. */
  readonly backlog?: number
}

export class CmRegistry {
  readonly #random: () => number
  readonly #byLocalId = new Map<number, CmConnection>()
  readonly #maps: Readonly<Record<KeyName, Map<string, CmConnection>>> = {
    /** By the peer's address, CA GUID and communication id: finds duplicates of a REQ. */
    remoteId: new Map(),
    /** By the peer's address, CA GUID and QPN: finds stale connections. */
    remoteQpn: new Map(),
    /** By our device and queue pair: connections that are neither ended nor in TIMEWAIT. */
    localQpn: new Map(),
    /** By the sender's GID and its request id: finds duplicates of a SIDR_REQ. */
    request: new Map(),
  }
  /** Listeners to a single service id, by that id: one for each device, or one for all. */
  readonly #listeners = new Map<bigint, CmListener[]>()
  /** Listeners to ranges of service ids. */
  readonly #ranges: CmListener[] = []

  /** `random` returns a u32. */
  constructor(random: () => number) {
    this.#random = random
  }

  /** Number of connections and received SIDR_REQs. */
  get size(): number {
    return this.#byLocalId.size + this.#maps.request.size
  }

  /** Registers the connection under this key, instead of its previous key of the same kind. */
  #set(name: KeyName, connection: CmConnection, key: string): void {
    this.#clear(name, connection)
    connection.keys[name] = key
    this.#maps[name].set(key, connection)
  }

  /** Removes the connection's key of this kind. */
  #clear(name: KeyName, connection: CmConnection): void {
    const { keys } = connection
    const map = this.#maps[name]
    if (keys[name] !== '' && map.get(keys[name]) === connection) map.delete(keys[name])
    keys[name] = ''
  }

  /** An unused id; never 0. */
  newId(): number {
    for (;;) {
      const id = this.#random() >>> 0
      if (id !== 0 && !this.#byLocalId.has(id)) return id
    }
  }

  add(connection: CmConnection): void {
    this.#byLocalId.set(connection.localId, connection)
  }

  /** Gives a connection a new id before it is used again: peers treat a REQ with a known id as a duplicate. */
  renew(connection: CmConnection): void {
    this.#byLocalId.delete(connection.localId)
    connection.localId = this.newId()
    this.add(connection)
  }

  /** Records the peer's id and queue pair. */
  addPeer(connection: CmConnection): void {
    const { path, remoteCaGuid, remoteId, agreed } = connection
    this.#set('remoteId', connection, peerKey(path, remoteCaGuid, remoteId))
    if (isConnectable(agreed.remoteQpn))
      this.#set('remoteQpn', connection, peerKey(path, remoteCaGuid, agreed.remoteQpn))
  }

  /**
   * Assigns our queue pair to the connection. Throws CmError EINVAL if another connection has it: the peer would end
   * that one as stale. QPNs 0 and 1 are not claimed: any number of connections may have them.
   */
  claimQpn(connection: CmConnection, qpn: number): void {
    const key = localKey(connection, qpn)
    const other = this.#maps.localQpn.get(key)
    if (other !== undefined && other !== connection)
      throw new CmError('EINVAL', `queue pair ${qpn} is connected already, or about to be`)
    this.releaseQpn(connection)
    connection.agreed.localQpn = qpn
    if (isConnectable(qpn)) this.#set('localQpn', connection, key)
  }

  releaseQpn(connection: CmConnection): void {
    this.#clear('localQpn', connection)
  }

  /** Registers a received SIDR_REQ. */
  addRequest(connection: CmConnection): void {
    this.#set('request', connection, requestKey(connection.path, connection.remoteId))
  }

  /**
   * Removes the key of the peer's queue pair, which the peer may now use for another connection: a connection in
   * TIMEWAIT is not found as a stale one.
   */
  releaseRemoteQpn(connection: CmConnection): void {
    this.#clear('remoteQpn', connection)
  }

  /** Removes the peer's id and keys. */
  removePeer(connection: CmConnection): void {
    this.releaseRemoteQpn(connection)
    this.#clear('remoteId', connection)
    connection.remoteId = 0
  }

  remove(connection: CmConnection): void {
    this.#clear('request', connection)
    this.removePeer(connection)
    this.releaseQpn(connection)
    if (this.#byLocalId.get(connection.localId) === connection) this.#byLocalId.delete(connection.localId)
  }

  /**
   * The connection with our id `localId`, if the path `from` leads to its peer: an id alone could be guessed or
   * sniffed.
   */
  byLocalId(from: CmPath, localId: number): CmConnection | undefined {
    const connection = this.#byLocalId.get(localId)
    return connection !== undefined && isSameAddress(connection.path.remoteGid, from.remoteGid) ? connection : undefined
  }

  /** The connection with our id `localId` and the peer's id `remoteId` (0: not known yet). */
  byIds(from: CmPath, localId: number, remoteId: number): CmConnection | undefined {
    const connection = this.byLocalId(from, localId)
    return connection?.remoteId === remoteId ? connection : undefined
  }

  /** The connection with the peer's id; `from`: the path back to the peer. */
  byRemoteId(from: CmPath, caGuid: bigint, remoteId: number): CmConnection | undefined {
    return this.#maps.remoteId.get(peerKey(from, caGuid, remoteId))
  }

  /** The connection with the peer's queue pair. */
  byRemoteQpn(from: CmPath, caGuid: bigint, qpn: number): CmConnection | undefined {
    return this.#maps.remoteQpn.get(peerKey(from, caGuid, qpn))
  }

  /** The received SIDR_REQ with this request id. */
  byRequest(from: CmPath, requestId: number): CmConnection | undefined {
    return this.#maps.request.get(requestKey(from, requestId))
  }

  ofDevice(device: number): CmConnection[] {
    const all = [...this.#byLocalId.values(), ...this.#maps.request.values()]
    return all.filter(({ path }) => path.device === device)
  }

  /** Throws CmError EADDRINUSE if another listener for the device, or for all, has one of the service ids. */
  listen(serviceId: bigint, options: CmListenOptions): CmListener {
    const { serviceMask = ALL_BITS, device, backlog = Number.POSITIVE_INFINITY } = options
    const isRange = serviceMask !== ALL_BITS
    const candidates = isRange ? [...this.#listeners.values()].flat() : (this.#listeners.get(serviceId) ?? [])
    const isTaken = [...candidates, ...this.#ranges].some(
      other =>
        ((serviceId ^ other.serviceId) & serviceMask & other.serviceMask) === 0n &&
        (device === other.device || device === undefined || other.device === undefined),
    )
    if (isTaken) throw new CmError('EADDRINUSE', `service id 0x${serviceId.toString(16)} has a listener`)
    const listener = { serviceId: serviceId & serviceMask, serviceMask, device, backlog, waiting: 0 }
    if (isRange) this.#ranges.push(listener)
    else if (candidates.length > 0) candidates.push(listener)
    else this.#listeners.set(serviceId, [listener])
    return listener
  }

  unlisten(listener: CmListener): void {
    const { serviceId, serviceMask } = listener
    const listeners = serviceMask === ALL_BITS ? (this.#listeners.get(serviceId) ?? []) : this.#ranges
    const index = listeners.indexOf(listener)
    if (index >= 0) listeners.splice(index, 1)
    if (listeners !== this.#ranges && listeners.length === 0) this.#listeners.delete(serviceId)
  }

  /** Removes the listeners for this device; those for all devices stay. */
  unlistenDevice(device: number): void {
    const all = [...this.#listeners.values()].flat()
    for (const listener of [...all, ...this.#ranges]) if (listener.device === device) this.unlisten(listener)
  }

  listenerFor(serviceId: bigint, device: number): CmListener | undefined {
    const accepts = (listener: CmListener): boolean => listener.device === undefined || listener.device === device
    return (
      this.#listeners.get(serviceId)?.find(accepts) ??
      this.#ranges.find(range => (serviceId & range.serviceMask) === range.serviceId && accepts(range))
    )
  }
}
