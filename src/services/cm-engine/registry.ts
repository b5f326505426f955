/*
 * Lookup tables of connections, received SIDR_REQs and listeners. Ids are random: other hosts can hardly guess them.
 */
import { because } from '../../spec/reason.ts'
import { addressKey, isSameAddress } from '../../transport/wire/address.ts'
import { type CmConnection, type CmPath, peerAddress } from './connection.ts'
import { CmError } from './error.ts'

/** Kinds of keys besides the connection's own id; each kind has its own map. */
type KeyName = keyof CmConnection['keys']

/** Includes the address, because peers choose their CA GUIDs: two peers may have the same GUID. */
const peerKey = (path: CmPath, caGuid: bigint, number: number): string =>
  `${addressKey(peerAddress(path))}/${caGuid}/${number}`
const localKey = ({ path }: CmConnection, qpn: number): string => `${path.device}/${qpn}`
/** Queue pairs 0 and 1 are for management. */
const isConnectable = (qpn: number): boolean => qpn > 1
const requestKey = (path: CmPath, requestId: number): string => `${addressKey(peerAddress(path))}/${requestId}`

export class CmRegistry {
  readonly #random: () => number
  readonly #byLocalId = new Map<number, CmConnection>()
  readonly #maps: Readonly<Record<KeyName, Map<string, CmConnection>>> = {
    /** By the peer's address, CA GUID and communication id: finds duplicates of a REQ. */
    remoteId: new Map(),
    /** By the peer's address, CA GUID and QPN: finds stale connections. */
    remoteQpn: new Map(),
    /** By our device and QPN: connections that have not ended and are not in TIMEWAIT. */
    localQpn: new Map(),
    /** By the sender's address and request id: finds duplicates of a SIDR_REQ. */
    request: new Map(),
  }
  /** Service ids with a listener. */
  readonly listeners = new Set<bigint>()

  /** `random` returns a u32. */
  constructor(random: () => number) {
    this.#random = random
  }

  /** Number of connections and received SIDR_REQs. */
  get size(): number {
    return this.#byLocalId.size + this.#maps.request.size
  }

  /** Replaces the connection's key of this kind. */
  #set(name: KeyName, connection: CmConnection, key: string): void {
    this.#clear(name, connection)
    connection.keys[name] = key
    this.#maps[name].set(key, connection)
  }

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

  /** Gives a connection that is used again a new id: peers treat a REQ with a known id as a duplicate. */
  renew(connection: CmConnection): void {
    this.#byLocalId.delete(connection.localId)
    connection.localId = this.newId()
    this.add(connection)
  }

  /** Registers the peer's id and queue pair. */
  addPeer(connection: CmConnection): void {
    const { path, remoteCaGuid, remoteId, agreed } = connection
    this.#set('remoteId', connection, peerKey(path, remoteCaGuid, remoteId))
    if (isConnectable(agreed.remoteQpn))
      this.#set('remoteQpn', connection, peerKey(path, remoteCaGuid, agreed.remoteQpn))
  }

  /**
   * Assigns our queue pair to the connection. Throws CmError EINVAL if another connection has the queue pair: the peer
   * would end the other connection as stale. Any number of connections may have QPNs 0 and 1.
   */
  claimQpn(connection: CmConnection, qpn: number): void {
    const key = localKey(connection, qpn)
    const other = this.#maps.localQpn.get(key)
    if (other !== undefined && other !== connection)
      throw new CmError(because`queue pair ${qpn} is connected already, or about to be`)
    this.releaseQpn(connection)
    connection.agreed.localQpn = qpn
    if (isConnectable(qpn)) this.#set('localQpn', connection, key)
  }

  releaseQpn(connection: CmConnection): void {
    this.#clear('localQpn', connection)
  }

  addRequest(connection: CmConnection): void {
    this.#set('request', connection, requestKey(connection.path, connection.remoteId))
  }

  /** The peer may use its queue pair for another connection: a connection in TIMEWAIT is not stale. */
  releaseRemoteQpn(connection: CmConnection): void {
    this.#clear('remoteQpn', connection)
  }

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

  /** The connection with our id, if `from` leads to its peer: another host may have sniffed the id. */
  byLocalId(from: CmPath, localId: number): CmConnection | undefined {
    const connection = this.#byLocalId.get(localId)
    return connection !== undefined && isSameAddress(peerAddress(connection.path), peerAddress(from))
      ? connection
      : undefined
  }

  /** `remoteId` 0: not known yet. */
  byIds(from: CmPath, localId: number, remoteId: number): CmConnection | undefined {
    const connection = this.byLocalId(from, localId)
    return connection?.remoteId === remoteId ? connection : undefined
  }

  /** `from`: the path back to the peer. */
  byRemoteId(from: CmPath, caGuid: bigint, remoteId: number): CmConnection | undefined {
    return this.#maps.remoteId.get(peerKey(from, caGuid, remoteId))
  }

  byRemoteQpn(from: CmPath, caGuid: bigint, qpn: number): CmConnection | undefined {
    return this.#maps.remoteQpn.get(peerKey(from, caGuid, qpn))
  }

  byRequest(from: CmPath, requestId: number): CmConnection | undefined {
    return this.#maps.request.get(requestKey(from, requestId))
  }

  ofDevice(device: number): CmConnection[] {
    const all = [...this.#byLocalId.values(), ...this.#maps.request.values()]
    return all.filter(({ path }) => path.device === device)
  }
}
