/*
 * rdma_cm: connections by IP addresses and ports (R17, R18), a client of the subsystem. Each device has a connection
 * protocol (core/driver-contract.ts): the driver's own, or InfiniBand's connection manager. Rules, events and errors
 * follow Linux's cma.c.
 *
 * An identifier gets a device when it is bound to an address that is no wildcard, or when its destination is resolved.
 * A listener bound to a wildcard listens on all devices, also on later ones, unless it was created for one device. When
 * a device is removed, its identifiers get DEVICE_REMOVAL.
 */
import { registerClient } from '../../core/devices/clients.ts'
import { findGid, hasLids, holdGid, releaseGid } from '../../core/devices/gids.ts'
import type {
  Connection,
  ConnectionListeners,
  ConnectionParameters,
  ConnectionProtocol,
  PeerRequest,
  Refusal,
} from '../../core/driver-contract.ts'
import { hasFailureHandlers, reportFailure } from '../../core/failures.ts'
import type { Context, Core, Device } from '../../core/model.ts'
import { createCause } from '../../spec/check/causes.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { CmEventType, CmPortSpace, QpType } from '../../spec/enums.ts'
import { CallError, callError, Errno } from '../../spec/errno.ts'
import { coded, the } from '../../spec/reason.ts'
import { rejReason } from '../../spec/wire/mad.ts'
import { addressText, isMulticastGid, isSameAddress } from '../../transport/wire/address.ts'
import { PKEY_FULL_MEMBER } from '../../transport/wire/bth.ts'
import { rdmaCmServiceId } from '../../transport/wire/mad/mad.ts'
import { anyAddress, Family, isAny, isLoopback } from '../socket-address.ts'
import { CmDevices, hasAddress, type Routing } from './devices.ts'
import { type CmDevice, Identifier, type IdOwner } from './identifier.ts'
import { Listeners } from './listeners.ts'
import { type EventDetails, eventDetails, UDP_QKEY } from './parameters.ts'
import { PortTable } from './ports.ts'

export interface RdmaCmEnvironment {
  /** An unpredictable u32. */
  readonly random: () => number
  readonly routing?: Routing
  /** Whether a context may connect a queue pair of the device. Absent: yes. */
  readonly mayConnect?: (client: Context, device: Device, qpn: number) => boolean
  /** Whether the program of a context sees a device (network namespaces). Absent: yes. */
  readonly sees?: (client: Context, device: Device) => boolean
}

/** The connection protocol of devices whose drivers have none; undefined: it does not support the device. */
interface CommonProtocol {
  open(device: Device, listeners: ConnectionListeners): ConnectionProtocol | undefined
}

const NO_DATA = new Uint8Array(0)
/** Maximum unread requests of a listener. Larger backlogs, and 0, mean this number. */
const MAX_BACKLOG = 1024

/** QPNs and PSNs have 24 bits. */
const MASK_24 = 0xff_ffff

const { TCP, UDP, IPOIB, IB } = CmPortSpace.values
/** The lower 16 bits of a service id are the port, the upper bits the port space. */
const PORT_BITS = 0xffffn
/** By the identifier's port space: port spaces of service ids to which the identifier can be bound. */
const boundSpaces: Readonly<Record<number, readonly number[]>> = { [IB]: [IB, TCP, UDP], [TCP]: [TCP], [UDP]: [UDP] }
const {
  ADDR_RESOLVED,
  ADDR_ERROR,
  ROUTE_RESOLVED,
  ROUTE_ERROR,
  UNREACHABLE,
  REJECTED,
  DISCONNECTED,
  ADDR_CHANGE,
  DEVICE_REMOVAL,
} = CmEventType.values

export class RdmaCm {
  readonly devices: CmDevices
  readonly #core: Core
  readonly #environment: RdmaCmEnvironment
  readonly #ports: PortTable
  readonly #listeners = new Listeners()
  /** The identifiers bound to each device. */
  readonly #bound = new Map<CmDevice, Set<Identifier>>()
  /** MACs of devices whose MAC may change (bonds). */
  readonly #macs = new Map<CmDevice, string>()
  readonly close: () => void
  /** Number of identifiers. */
  #idCount = 0

  constructor(core: Core, common: CommonProtocol, environment: RdmaCmEnvironment) {
    this.#core = core
    this.#environment = environment
    this.#ports = new PortTable(environment.random)
    this.devices = new CmDevices(environment.routing ?? {})
    this.close = registerClient(core, {
      name: 'rdma_cm',
      add: device => {
        const listeners: ConnectionListeners = {
          request: (request, connection) => this.#request(device, request, connection),
        }
        const protocol = device.driver.openConnections?.(device, listeners) ?? common.open(device, listeners)
        if (protocol === undefined) return false
        const cmDevice = this.devices.add(device, protocol)
        this.#bound.set(cmDevice, new Set())
        this.#listeners.addDevice(
          cmDevice,
          (id, { device: added }) => this.#sees(id, added),
          error => core.report(error),
        )
        return true
      },
      remove: device => {
        const cmDevice = this.devices.remove(device)
        if (cmDevice !== undefined) this.#removeDevice(cmDevice)
      },
    })
  }

  get counts(): { identifiers: number; listeners: number; connections: number } {
    let connections = 0
    for (const { protocol } of this.devices.all()) connections += protocol.size
    return { identifiers: this.#idCount, listeners: this.#listeners.count, connections }
  }

  /** The identifiers that have a device. */
  *boundIdentifiers(): Iterable<Identifier> {
    for (const ids of this.#bound.values()) yield* ids
  }

  /** The identifiers of programs, also those without a device. */
  *identifiersOfPrograms(): Iterable<Identifier> {
    for (const { contexts } of [this.#core.system, ...this.#core.devices.values()].filter(one => one !== undefined))
      for (const { handles } of contexts)
        for (const object of handles.slots)
          if (object?.class.name === 'cm_id' && 'state' in object) yield object.state as Identifier
  }

  /** The QPNs of a device whose connection has ended, and whether the program has read the event DISCONNECTED. */
  disconnectedQps(device: Device): ReadonlyMap<number, boolean> {
    const found = new Map<number, boolean>()
    for (const [{ device: bound }, ids] of this.#bound)
      if (bound === device)
        for (const { qpn, state, unreadEvents } of ids)
          if (state === 'DISCONNECT' && qpn !== 0) found.set(qpn, unreadEvents === 0)
    return found
  }

  // ---- identifiers: wrong use throws CallError ----

  /** `qpType` 0: RC. Port spaces UDP and IPOIB always have UD. */
  create(owner: IdOwner, portSpace: number, qpType: number, onlyDevice?: CmDevice): Identifier {
    const isDatagram = portSpace === UDP || portSpace === IPOIB
    const type = isDatagram ? QpType.values.UD : qpType || QpType.values.RC
    if (portSpace === TCP && type === QpType.values.UD)
      throw callError.EINVAL`${the.method('cm_id.create')}: TCP has no datagrams`
    this.#idCount++
    const psn = this.#environment.random() & MASK_24
    return new Identifier(owner, onlyDevice, portSpace, type, psn, UDP_QKEY)
  }

  /** Binds an identifier to a local address. Port 0: a free port. */
  bind(id: Identifier, address: SocketAddress): void {
    if (id.state !== 'IDLE')
      throw callError.EINVAL`${the.method('cm_id.bind')}: the identifier is in state ${id.state}, not IDLE`
    const end = this.#devicesOf(id).endToBind(address, id.onlyDevice)
    const source = this.#bindPort(id, address)
    id.state = 'ADDR_BOUND'
    id.source = source
    id.destination ??= anyAddress(source.family)
    if (end !== undefined) this.#attach(id, end.device, end.localGid)
  }

  /**
   * Resolves a destination to a device and GIDs. The event ADDR_RESOLVED follows, or ADDR_ERROR if no device (ENODEV)
   * has the source address. An identifier that is not bound is first bound to `source`; otherwise `source` is ignored.
   * Throws CallError if the system has no route.
   */
  resolveAddress(id: Identifier, destination: SocketAddress, source: SocketAddress | undefined): void {
    // As in Linux, the source of a link-local destination has the same scope.
    if (id.state === 'IDLE') this.bind(id, source ?? { ...anyAddress(destination.family), scope: destination.scope })
    if (id.state !== 'ADDR_BOUND')
      throw callError.EINVAL`${the.method('cm_id.resolveAddress')}: the identifier is in state ${id.state}, not IDLE or ADDR_BOUND`
    if (id.source?.family !== destination.family)
      throw callError.EINVAL`${the.method('cm_id.resolveAddress')}: source and destination are of different families`
    if (this.#raiseInjected(id, ADDR_ERROR)) return
    try {
      const { device, localGid, localAddress, remoteGid } = this.#devicesOf(id).route(
        destination,
        id.source,
        id.onlyDevice,
      )
      const pkey = partitionOf(device, destination)
      id.destination = destination
      this.#attach(id, device, localGid)
      id.pkey = pkey
      if (isAny(id.source)) id.source = { ...id.source, address: localAddress }
      id.remoteGid = remoteGid
      id.flowLabel = this.#environment.random() & 0xf_ffff || 1
      id.state = 'ADDR_RESOLVED'
      this.#notify(id, ADDR_RESOLVED, {})
    } catch (error) {
      if (!(error instanceof CallError && error.code === 'ENODEV')) throw error
      this.#notify(id, ADDR_ERROR, { status: -error.errno })
    }
  }

  /** The event ROUTE_RESOLVED follows, or ROUTE_ERROR. `timeout`: ms, of a query; 0: the protocol's default. */
  resolveRoute(id: Identifier, timeout = 0): void {
    if (!this.#mayResolveRoute(id, 'cm_id.resolveRoute')) return
    const { protocol } = id.device!
    if (protocol.resolveRoute === undefined) {
      this.#enterRouteResolved(id, undefined)
      return
    }
    id.state = 'ROUTE_QUERY'
    try {
      const cancel = protocol.resolveRoute(id, timeout, path => {
        id.cancelQuery = undefined
        if (typeof path !== 'number') this.#enterRouteResolved(id, path)
        else {
          id.state = 'ADDR_RESOLVED'
          this.#notify(id, ROUTE_ERROR, { status: path })
        }
      })
      // The answer may have come during the call.
      if (id.state === 'ROUTE_QUERY') id.cancelQuery = cancel
    } catch (error) {
      id.state = 'ADDR_RESOLVED'
      throw error
    }
  }

  /** Sets a path record instead of resolving the route. The event ROUTE_RESOLVED follows. */
  setRoute(id: Identifier, path: Uint8Array): void {
    if (this.#mayResolveRoute(id, 'cm_id.setOption')) this.#enterRouteResolved(id, path)
  }

  /** False: the injected event was raised. */
  #mayResolveRoute(id: Identifier, call: string): boolean {
    if (id.state !== 'ADDR_RESOLVED')
      throw callError.EINVAL`${the.method(call)}: the identifier is in state ${id.state}, not ADDR_RESOLVED`
    return !this.#raiseInjected(id, ROUTE_ERROR)
  }

  #enterRouteResolved(id: Identifier, chosenPath: Uint8Array | undefined): void {
    id.state = 'ROUTE_RESOLVED'
    id.chosenPath = chosenPath
    // As on Linux, half the ACK timeout, so the exponent is 1 lower. From it follows the ACK timeout in the REQ, which
    // is the peer's (services/cm-engine/timeout.ts). An ACK timeout of 0 (none) says nothing about the path.
    id.packetLifeTime = id.ackTimeout ? id.ackTimeout - 1 : undefined
    const { device, localGid, remoteGid } = id
    if (device && localGid && remoteGid) id.neighbour = this.devices.neighbourOf(device, localGid, remoteGid)
    this.#notify(id, ROUTE_RESOLVED, {})
  }

  /** Sends a request. */
  connect(id: Identifier, parameters: ConnectionParameters): void {
    const { device, state } = id
    if (state !== 'ROUTE_RESOLVED' || device === undefined)
      throw callError.EINVAL`${the.method('cm_id.connect')}: the identifier is in state ${state}, not ROUTE_RESOLVED`
    if (id.isRequest)
      throw callError.EINVAL`${the.method('cm_id.connect')}: the identifier belongs to a connection request of the peer`
    requireDatagrams('cm_id.connect', id)
    this.#requireQueuePair(id, parameters.qpNum, 'cm_id.connect')
    if (this.#failConnection(id)) return
    // After a rejection the identifier keeps its connection, for another request.
    const previous = id.connection
    const connection = previous ?? device.protocol.create(id)
    id.connection = connection
    id.state = 'CONNECT'
    id.isAnswered = false
    try {
      connection.connect(parameters)
    } catch (error) {
      id.state = state
      id.connection = previous
      if (previous === undefined) connection.destroy()
      throw error
    }
    id.setQpn(parameters)
  }

  listen(id: Identifier, backlog: number): void {
    if (id.state === 'IDLE') this.bind(id, anyAddress(Family.INET))
    const { source } = id
    if (id.state !== 'ADDR_BOUND' || source === undefined)
      throw callError.EINVAL`${the.method('cm_id.listen')}: the identifier is in state ${id.state}, not IDLE or ADDR_BOUND`
    this.#ports.checkListen(id, source)
    if (id.device !== undefined) requireDatagrams('cm_id.listen', id)
    this.#listeners.add(id, source, this.#devicesOf(id).all())
    // No identifier with REUSEADDR may share the address and port of a listener.
    id.reuseAddress = false
    id.backlog = backlog > 0 && backlog < MAX_BACKLOG ? backlog : MAX_BACKLOG
    id.state = 'LISTEN'
  }

  /**
   * Accepts a request. Without parameters: confirms the peer's response. If the answer cannot be sent, the connection
   * is rejected.
   */
  accept(id: Identifier, parameters: ConnectionParameters | undefined): void {
    const { connection } = id
    const canAnswer = parameters !== undefined || connection?.confirm !== undefined
    if (id.state !== 'CONNECT' || connection === undefined || !canAnswer)
      throw new CallError(
        'EINVAL',
        coded(
          'connection-state',
        )`${the.method('cm_id.accept')}: the identifier is in state ${id.state} and has nothing to accept`,
      )
    if (parameters !== undefined) this.#requireQueuePair(id, parameters.qpNum, 'cm_id.accept')
    id.removeFromBacklog()
    const { isUnaccepted } = id
    id.isUnaccepted = false
    if (this.#failConnection(id)) return
    if (parameters !== undefined && id.isDatagram) id.qkey = parameters.qkey || id.qkey
    try {
      if (parameters === undefined) connection.confirm?.()
      else connection.accept(parameters)
    } catch (error) {
      id.isUnaccepted = isUnaccepted
      rejectIfPossible(connection)
      throw error
    }
    id.setQpn(parameters)
    // As if the peer had disconnected, which learns nothing.
    if (id.injected?.type !== DISCONNECTED) return
    id.state = 'DISCONNECT'
    this.#raiseInjected(id, DISCONNECTED, {})
  }

  /** Refuses a request or a response. */
  reject(id: Identifier, privateData: Uint8Array, reason: number): void {
    const { connection } = id
    if (connection === undefined) throw callError.EINVAL`${the.method('cm_id.reject')}: there is nothing to reject`
    id.removeFromBacklog()
    connection.reject(privateData, reason)
    id.isRejected = id.isRequest
  }

  /** As in Linux, no effect in other states of a connection than established and disconnected by the peer. */
  disconnect(id: Identifier): void {
    // As in Linux: no effect on a listener on one device; a listener on all devices has no connection in ib_cm
    // (EINVAL).
    if (id.isListening && id.device !== undefined) return
    if (id.connection === undefined) throw callError.EINVAL`${the.method('cm_id.disconnect')}: there is no connection`
    id.connection.disconnect()
  }

  /** Establishes the connection. Call if the queue pair receives data before the peer's confirmation (rdma_notify). */
  establish(id: Identifier): void {
    if (id.connection === undefined) throw callError.EINVAL`${the.method('cm_id.notify')}: there is no connection`
    id.connection.establish?.()
  }

  /** Destroys the identifier and its connection. */
  destroy(id: Identifier): void {
    this.#idCount--
    id.removeFromBacklog()
    this.#listeners.remove(id)
    id.cancelQuery?.()
    this.#detach(id)
    this.#ports.release(id)
    id.source = undefined
    id.state = 'IDLE'
    id.owner.destroyed?.()
    const { connection } = id
    if (connection === undefined) return
    id.connection = undefined
    connection.destroy()
  }

  /**
   * Call when the MAC of a device's interface has changed. Identifiers that were bound with another MAC get
   * ADDR_CHANGE: ARP caches of peers may be wrong (Linux: after the failover of a bond).
   */
  hardwareAddressChanged(device: Device, mac: Uint8Array): void {
    const cmDevice = this.devices.forDevice(device)
    if (cmDevice === undefined) return
    const text = mac.join(':')
    if (this.#macs.get(cmDevice) === text) return
    this.#macs.set(cmDevice, text)
    const bound = [...(this.#bound.get(cmDevice) ?? [])].filter(
      ({ mac: macWhenBound }) => macWhenBound !== undefined && macWhenBound !== text,
    )
    this.#core.runJob(this.#notifyBound(cmDevice, bound, ADDR_CHANGE, {}))
  }

  /**
   * Call when the MAC of a device's neighbour has changed. Identifiers whose route was resolved with another MAC get
   * UNREACHABLE: the peer may be another host (Linux: cma_netevent_callback).
   */
  neighbourChanged(device: Device, address: Uint8Array, mac: string): void {
    const cmDevice = this.devices.forDevice(device)
    if (cmDevice === undefined) return
    const affected: Identifier[] = []
    for (const id of this.#bound.get(cmDevice) ?? []) {
      const { neighbour, remoteGid } = id
      if (neighbour === undefined || remoteGid === undefined || !isSameAddress(remoteGid, address)) continue
      if (neighbour.mac !== undefined && neighbour.mac !== mac) affected.push(id)
      neighbour.mac = mac
    }
    if (affected.length > 0)
      this.#core.runJob(this.#notifyBound(cmDevice, affected, UNREACHABLE, { status: -Errno.ETIMEDOUT }))
  }

  /** Raises an event of each identifier that is still bound to the device. Yields after each. */
  *#notifyBound(device: CmDevice, ids: readonly Identifier[], type: number, details: EventDetails): Generator<void> {
    for (const id of ids) {
      // Meanwhile the identifier may have been destroyed, or its device removed.
      if (this.#bound.get(device)?.has(id)) this.#notify(id, type, details)
      yield
    }
  }

  // ---- requests of peers ----

  /** As `ConnectionListeners.request`, at a device. */
  #request(device: Device, request: PeerRequest, connection: Connection): Identifier | Refusal {
    const cmDevice = this.devices.forDevice(device)
    if (cmDevice === undefined) return 'NO_LISTENER'
    const { local, peer, path, qpType } = request
    const isOfHost = this.devices.isToHost(path)
    // As in Linux (validate_net_dev), a request of another host is to an address of the device, and is not from a
    // loopback address, a group or the wildcard.
    const isPossible =
      isOfHost ||
      local.family === Family.IB ||
      (hasAddress(device, local.address) && !isLoopback(peer) && !isMulticastGid(peer.address) && !isAny(peer))
    if (!isPossible) return 'WRONG_ADDRESS'
    const listener = this.#listeners.find(request, cmDevice, isOfHost)
    if (listener === undefined) {
      this.#tellElsewhere(device, request)
      return 'NO_LISTENER'
    }
    if (passiveType(listener.qpType) !== passiveType(qpType)) return 'WRONG_TYPE'
    // Beyond the backlog, or without room for an identifier, the request is dropped.
    const id = listener.unreadRequests.size < listener.backlog ? listener.owner.createRequest(listener) : undefined
    if (id === undefined) return 'BUSY'
    id.source = local
    id.destination = peer
    id.state = 'CONNECT'
    id.isRequest = true
    id.isUnaccepted = true
    id.connection = connection
    id.remoteGid = path.remoteGid
    id.flowLabel = path.flowLabel ?? 0
    id.tos = path.trafficClass ?? 0
    id.packetLifeTime = path.packetLifeTime
    this.#attach(id, cmDevice, path.localGid)
    listener.unreadRequests.add(id)
    id.listener = listener
    return id
  }

  /** A request found no listener: reports one at its port that is bound to another address. */
  #tellElsewhere(device: Device, request: PeerRequest): void {
    const { source, object } = this.#listeners.elsewhere(request) ?? {}
    if (source === undefined || object === undefined || !hasFailureHandlers(this.#core)) return
    const textOf = ({ address, port }: SocketAddress): string => `${addressText(address)}, port ${port}`
    const { peer, local } = request
    const ends = { peer: addressText(peer.address), requested: textOf(local), bound: textOf(source) }
    const cause = createCause('LISTENS_ELSEWHERE', { ...ends, number: object.handle })
    reportFailure({ kind: 'wait', device: device.name, cause }, device, object.context)
  }

  // ---- internal ----

  #sees({ object }: Identifier, device: Device): boolean {
    const context = object?.context
    return context === undefined || this.#environment.sees?.(context, device) !== false
  }

  /** The devices that the identifier may use. */
  #devicesOf(id: Identifier): CmDevices {
    if (this.#environment.sees === undefined) return this.devices
    return this.devices.only(device => this.#sees(id, device))
  }

  #notify(id: Identifier, type: number, details: EventDetails): void {
    id.owner.event(type, details)
  }

  /** Raises the injected event, if it is of this type. */
  #raiseInjected(id: Identifier, type: number, details: EventDetails = { status: -Errno.ETIMEDOUT }): boolean {
    const { injected } = id
    if (injected?.type !== type) return false
    id.endCall()
    injected.report()
    this.#notify(id, type, details)
    return true
  }

  /** Fails a connection by the injected event, before anything is sent: it ends as if the identifier were destroyed. */
  #failConnection(id: Identifier): boolean {
    const type = id.injected?.type
    if (type === undefined || type === DISCONNECTED) return false
    const { connection } = id
    id.connection = undefined
    connection?.destroy()
    if (!id.isRequest) id.state = 'ROUTE_RESOLVED'
    const rejection = eventDetails({ status: rejReason.CONSUMER_DEFINED, privateData: NO_DATA }, false)
    return this.#raiseInjected(id, type, type === REJECTED ? rejection : undefined)
  }

  /** Binds the identifier to the port of an address, or to a free port. Returns the address with the port. */
  #bindPort(id: Identifier, address: SocketAddress): SocketAddress {
    const account = id.object?.context?.account
    if (address.family !== Family.IB) return { ...address, port: this.#ports.bind(id, address, account) }
    // A mask of 0 asks for a free port.
    const wanted = Number(address.serviceId & address.serviceMask & PORT_BITS)
    const { portSpace } = id
    id.portSpace = portSpaceOf(id, address)
    try {
      const port = this.#ports.bind(id, { ...address, port: wanted }, account)
      return { ...address, port, serviceId: rdmaCmServiceId(id.portSpace, port), serviceMask: (1n << 64n) - 1n }
    } catch (error) {
      id.portSpace = portSpace
      throw error
    }
  }

  /**
   * Throws CallError EPERM if the queue pair belongs to another user: a REQ with this QPN would make the peer end the
   * queue pair's connection as stale.
   */
  #requireQueuePair({ object, device }: Identifier, qpNum: number, call: string): void {
    const qpn = qpNum & MASK_24
    if (qpn === 0 || object?.context === undefined || device === undefined) return
    if (this.#environment.mayConnect?.(object.context, device.device, qpn) === false)
      throw callError.EPERM`${the.method(call)}: ${qpn} is not a queue pair of this user on device ${device.device.name}`
  }

  #attach(id: Identifier, device: CmDevice, localGid: Uint8Array): void {
    this.#detach(id)
    id.device = device
    const { gids } = device.device.ports[0]!
    id.heldGid = findGid(gids, localGid)
    if (id.heldGid >= 0) holdGid(gids, id.heldGid)
    id.mac = this.#macs.get(device)
    id.localGid = localGid
    this.#bound.get(device)?.add(id)
  }

  /** The identifier is no longer bound to its device, if it has one. */
  #detach(id: Identifier): void {
    if (id.device === undefined) return
    this.#bound.get(id.device)?.delete(id)
    if (id.heldGid >= 0) releaseGid(id.device.device.ports[0]!.gids, id.heldGid)
    id.heldGid = -1
  }

  #removeDevice(device: CmDevice): void {
    this.#listeners.removeDevice(device)
    device.protocol.close()
    const bound = this.#bound.get(device) ?? []
    this.#bound.delete(device)
    for (const id of bound) {
      this.#listeners.remove(id)
      this.#ports.release(id)
      id.connection = undefined
      id.device = undefined
      id.heldGid = -1
      id.state = 'DEVICE_REMOVAL'
    }
    this.#macs.delete(device)
    this.#core.runJob(this.#notifyRemoval(bound))
  }

  /** Raises DEVICE_REMOVAL of each identifier. Yields after each. */
  *#notifyRemoval(ids: Iterable<Identifier>): Generator<void> {
    for (const id of ids) {
      // Meanwhile the identifier may have been destroyed.
      if (id.state === 'DEVICE_REMOVAL') this.#notify(id, DEVICE_REMOVAL, {})
      yield
    }
  }
}

/** The port space of an AF_IB address (Linux: cma_select_ib_ps). Throws CallError EPROTONOSUPPORT. */
const portSpaceOf = ({ portSpace }: Identifier, { serviceId, serviceMask }: SocketAddress): number => {
  const mask = serviceMask & ~PORT_BITS
  const found = boundSpaces[portSpace]?.find(space => (serviceId & mask) === (rdmaCmServiceId(space, 0) & mask))
  if (found !== undefined) return found
  throw callError.EPROTONOSUPPORT`${the.method('cm_id.bind')}: service id 0x${serviceId.toString(16)} is not of port space 0x${portSpace.toString(16)}`
}

/**
 * The P_Key of an AF_IB address on InfiniBand (Linux: cma_resolve_ib_dev); undefined for others. Throws CallError
 * ENODEV if the device is not in its partition.
 */
const partitionOf = ({ device }: CmDevice, { family, pkey }: SocketAddress): number | undefined => {
  if (family !== Family.IB || !hasLids(device)) return undefined
  if (device.ports[0]!.pkeys.some(own => own !== 0 && ((own ^ pkey) & ~PKEY_FULL_MEMBER) === 0)) return pkey
  throw callError.ENODEV`${the.method('cm_id.resolveAddress')}: ${device.name} is not in the partition of the address's P_Key 0x${pkey.toString(16)}`
}

/** The type of the passive side's queue pair: of an XRC initiator's, the target's. */
const passiveType = (qpType: number): number => (qpType === QpType.values.XRC_INI ? QpType.values.XRC_TGT : qpType)

/** After a failed `accept`, as in Linux. No effect if the connection's state does not allow it. */
const rejectIfPossible = (connection: Connection): void => {
  try {
    connection.reject(NO_DATA, rejReason.CONSUMER_DEFINED)
  } catch (error) {
    if (!(error instanceof CallError)) throw error
  }
}

/** Throws CallError EOPNOTSUPP for an identifier for datagrams on a device whose protocol has none. */
export const requireDatagrams = (method: string, { isDatagram, device }: Identifier): void => {
  if (isDatagram && device?.protocol.hasDatagrams !== true)
    throw callError.EOPNOTSUPP`${the.method(method)}: connections of ${device?.device.name} have no datagrams`
}
