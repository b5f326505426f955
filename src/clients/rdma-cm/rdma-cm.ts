/*
 * rdma_cm: connections by IP addresses and ports (R17, R18), a client of the subsystem. The InfiniBand connection
 * manager (src/cm) runs the protocol, and the MAD layer carries its messages. Rules, events and errors follow Linux's
 * cma.c. The caller supplies the time.
 *
 * An identifier gets a device when it is bound to an address that is no wildcard, or when its destination is resolved.
 * A listener bound to a wildcard listens on all devices, also on later ones, unless it was created for one device. When
 * a device is removed, its identifiers get DEVICE_REMOVAL.
 */
import type { CmConnection, CmPath } from '../../cm/connection.ts'
import { CmEngine } from '../../cm/engine.ts'
import { CmError } from '../../cm/error.ts'
import { registerClient } from '../../core/devices/clients.ts'
import type { MadAddress } from '../../core/driver-contract.ts'
import type { Context, Core, Device } from '../../core/model.ts'
import { CmEventType, CmPortSpace, QpType } from '../../spec/enums.ts'
import { CallError, Errno } from '../../spec/errno.ts'
import { DEFAULT_PKEY } from '../../spec/wire/headers.ts'
import {
  CM_CLASS,
  CM_CLASS_VERSION,
  GSI_QPN,
  MAD_METHOD_SEND,
  privateDataBytes,
  rejReason,
  sidrStatus,
} from '../../spec/wire/mad.ts'
import { isSameAddress } from '../../wire/address.ts'
import { isSamePartition } from '../../wire/bth.ts'
import { rdmaCmServiceId } from '../../wire/mad/mad.ts'
import type { MadLayer } from '../mad/layer.ts'
import { type EventHost, handleEvent } from './connection-events.ts'
import { CmDevices, type Routing } from './devices.ts'
import {
  type ChosenPath,
  type CmDevice,
  type ConnectionParameters,
  type EventDetails,
  Identifier,
  type IdOwner,
} from './identifier.ts'
import { Listeners, serviceIdOf } from './listeners.ts'
import { connectionData, HOP_LIMIT, privateDataOf, replyData, requestData, UDP_QKEY } from './parameters.ts'
import { PACKET_LIFE_TIME } from './path-record.ts'
import { PortTable } from './ports.ts'
import { anyAddress, Family, isAny, type SocketAddress } from './socket-address.ts'

export interface RdmaCmEnvironment {
  /** Microseconds. */
  readonly now: () => number
  /** An unpredictable u32. */
  readonly random: () => number
  readonly routing?: Routing
  /** Whether a context may connect a queue pair of the device. Absent: yes. */
  readonly mayConnect?: (client: Context, device: Device, qpn: number) => boolean
  /** Called when messages wait for the devices' next poll. */
  readonly wake?: () => void
  /**
   * Whether unanswered messages to peers in this machine are repeated after milliseconds. For programs in this process:
   * a daemon's programs may take long to answer, and each repetition of a request would be answered by an MRA.
   */
  readonly repeatsEarly?: boolean
}

/** The part of the MAD layer that rdma_cm uses. */
export type Mads = Pick<MadLayer, 'register' | 'send' | 'hasQueuePair'>

/** Values of Linux's cma.c and rxe. Timeouts are exponents: 4.096 µs · 2^n. */
const RESPONSE_TIMEOUT = 20
const ACK_DELAY = 15
/** How often the connection manager repeats a message. */
const MAX_RETRIES = 15
/** Microseconds until a message to a peer in the same machine is first repeated (`CmEnvironment.firstRepetition`). */
const NEAR_REPETITION = 8_000
/** The maximum of retry_cnt and rnr_retry. */
const MAX_QP_RETRIES = 7
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

export class RdmaCm implements EventHost {
  readonly engine: CmEngine
  readonly devices: CmDevices
  readonly #core: Core
  readonly #environment: RdmaCmEnvironment
  readonly #mads: Mads
  readonly #ports: PortTable
  readonly #listeners: Listeners
  readonly #idsByConnection = new Map<CmConnection, Identifier>()
  /** The identifiers bound to each device. */
  readonly #bound = new Map<CmDevice, Set<Identifier>>()
  /** MACs of devices whose MAC may change (bonds). */
  readonly #macs = new Map<CmDevice, string>()
  readonly #close: () => void
  /** Number of identifiers. */
  #idCount = 0

  constructor(core: Core, mads: Mads, environment: RdmaCmEnvironment) {
    this.#core = core
    this.#environment = environment
    this.#mads = mads
    this.#ports = new PortTable(environment.random)
    this.devices = new CmDevices(environment.routing ?? {})
    this.engine = new CmEngine({
      random: environment.random,
      caGuid: number => this.devices.byNumber(number)?.caGuid ?? 0n,
      ackDelay: () => ACK_DELAY,
      hasGid: (number, gid) => this.devices.hasGid(number, gid),
      firstRepetition: ({ remoteGid }) =>
        environment.repeatsEarly === true && this.devices.isNear(remoteGid) ? NEAR_REPETITION : 0,
    })
    this.#listeners = new Listeners(this.engine)
    const unregisterService = mads.register({
      mgmtClass: CM_CLASS,
      classVersion: CM_CLASS_VERSION,
      oui: 0,
      methods: [MAD_METHOD_SEND],
      receive: (device, mad, from) => {
        const cmDevice = this.devices.forDevice(device)
        if (cmDevice !== undefined) this.#receive(cmDevice, mad, from)
      },
    })
    const unregister = registerClient(core, {
      name: 'rdma_cm',
      add: device => {
        if (!mads.hasQueuePair(device)) return false
        this.#bound.set(this.devices.add(device), new Set())
        return true
      },
      remove: device => {
        const cmDevice = this.devices.remove(device)
        if (cmDevice !== undefined) this.#removeDevice(cmDevice)
      },
    })
    this.#close = () => {
      unregister()
      unregisterService()
    }
  }

  close(): void {
    this.#close()
  }

  get counts(): { identifiers: number; listeners: number; connections: number } {
    return { identifiers: this.#idCount, listeners: this.#listeners.count, connections: this.engine.size }
  }

  // ---- time ----

  /** When `onTimeout` must be called next, µs; Infinity: never. */
  nextTimeout(): number {
    return this.engine.nextTimeout()
  }

  /** Returns whether a timer was due. */
  onTimeout(now: number): boolean {
    if (now < this.engine.nextTimeout()) return false
    this.engine.onTimeout(now)
    this.flush()
    return true
  }

  // ---- identifiers: wrong use throws CallError ----

  /** `qpType` 0: RC. Port spaces UDP and IPOIB always have UD. */
  create(owner: IdOwner, portSpace: number, qpType: number, onlyDevice?: CmDevice): Identifier {
    const isDatagram = portSpace === UDP || portSpace === IPOIB
    const type = isDatagram ? QpType.values.UD : qpType || QpType.values.RC
    if (portSpace === TCP && type === QpType.values.UD)
      throw new CallError('EINVAL', 'cm_id.create: TCP has no datagrams')
    this.#idCount++
    const psn = this.#environment.random() & MASK_24
    return new Identifier(owner, onlyDevice, portSpace, type, psn, UDP_QKEY)
  }

  /** Binds an identifier to a local address. Port 0: a free port. */
  bind(id: Identifier, address: SocketAddress): void {
    if (id.state !== 'IDLE')
      throw new CallError('EINVAL', `cm_id.bind: the identifier is in state ${id.state}, not IDLE`)
    const device = this.devices.deviceToBind(address, id.onlyDevice)
    const source = this.#bindPort(id, address)
    id.state = 'ADDR_BOUND'
    id.source = source
    id.destination ??= anyAddress(source.family)
    if (device !== undefined) this.#attach(id, device, source.address)
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
      throw new CallError(
        'EINVAL',
        `cm_id.resolveAddress: the identifier is in state ${id.state}, not IDLE or ADDR_BOUND`,
      )
    if (id.source?.family !== destination.family)
      throw new CallError('EINVAL', 'cm_id.resolveAddress: source and destination are of different families')
    if (this.#raiseInjected(id, ADDR_ERROR)) return
    try {
      const { device, localGid, remoteGid } = this.devices.route(destination, id.source, id.onlyDevice)
      id.destination = destination
      this.#attach(id, device, localGid)
      if (isAny(id.source)) id.source = { ...id.source, address: localGid }
      id.remoteGid = remoteGid
      id.flowLabel = this.#environment.random() & 0xf_ffff || 1
      id.state = 'ADDR_RESOLVED'
      this.#notify(id, ADDR_RESOLVED, {})
    } catch (error) {
      if (!(error instanceof CallError && error.code === 'ENODEV')) throw error
      this.#notify(id, ADDR_ERROR, { status: -error.errno })
    }
  }

  /** The event ROUTE_RESOLVED follows. */
  resolveRoute(id: Identifier): void {
    this.#enterRouteResolved(id, 'cm_id.resolveRoute', undefined)
  }

  /** Sets a route instead of resolving it. The event ROUTE_RESOLVED follows. */
  setRoute(id: Identifier, path: ChosenPath): void {
    this.#enterRouteResolved(id, 'cm_id.setOption', path)
  }

  #enterRouteResolved(id: Identifier, call: string, chosenPath: ChosenPath | undefined): void {
    if (id.state !== 'ADDR_RESOLVED')
      throw new CallError('EINVAL', `${call}: the identifier is in state ${id.state}, not ADDR_RESOLVED`)
    if (this.#raiseInjected(id, ROUTE_ERROR)) return
    id.state = 'ROUTE_RESOLVED'
    id.chosenPath = chosenPath
    // As on Linux, half the ACK timeout, so the exponent is 1 lower. From it follows the ACK timeout in the REQ, which is
    // the peer's (cm/timeout.ts). An ACK timeout of 0 (none) says nothing about the path.
    id.packetLifeTime = id.ackTimeout ? id.ackTimeout - 1 : undefined
    const { device, localGid, remoteGid } = id
    if (device && localGid && remoteGid) id.neighbour = this.devices.neighbourOf(device, localGid, remoteGid)
    this.#notify(id, ROUTE_RESOLVED, {})
  }

  /** Sends a REQ, or a SIDR_REQ for datagrams. */
  connect(id: Identifier, parameters: ConnectionParameters): void {
    if (id.state !== 'ROUTE_RESOLVED')
      throw new CallError('EINVAL', `cm_id.connect: the identifier is in state ${id.state}, not ROUTE_RESOLVED`)
    if (id.isRequest)
      throw new CallError('EINVAL', 'cm_id.connect: the identifier belongs to a connection request of the peer')
    const path = this.#pathOf(id)
    this.#requireQueuePair(id, parameters.qpNum, 'cm_id.connect')
    const serviceId = serviceIdOf(id, id.destination as SocketAddress)
    const privateData = privateDataOf(parameters)
    // After a rejection the identifier keeps its connection, for another REQ.
    const connection = id.connection ?? this.engine.create(path)
    try {
      if (id.qpType === QpType.values.UD)
        this.engine.resolve(
          connection,
          {
            path,
            serviceId,
            privateData: requestData(id, privateData, privateDataBytes.SIDR_REQ, 'cm_id.connect'),
            responseTimeout: RESPONSE_TIMEOUT,
            maxCmRetries: MAX_RETRIES,
          },
          this.#environment.now(),
        )
      else
        this.engine.connect(
          connection,
          {
            path,
            serviceId,
            transport: id.transport ?? 'RC',
            ...offerOf(id, parameters),
            retryCount: Math.min(MAX_QP_RETRIES, parameters.retryCount),
            privateData: requestData(id, privateData, privateDataBytes.REQ, 'cm_id.connect'),
            remoteResponseTimeout: RESPONSE_TIMEOUT,
            localResponseTimeout: RESPONSE_TIMEOUT,
            maxCmRetries: MAX_RETRIES,
          },
          this.#environment.now(),
        )
    } catch (error) {
      if (connection !== id.connection) this.engine.destroy(connection, this.#environment.now())
      throw asCallError(error)
    }
    id.state = 'CONNECT'
    id.connection = connection
    this.#idsByConnection.set(connection, id)
    this.#failConnection(id, connection)
    this.flush()
  }

  listen(id: Identifier, backlog: number): void {
    if (id.state === 'IDLE') this.bind(id, anyAddress(Family.INET))
    const { source } = id
    if (id.state !== 'ADDR_BOUND' || source === undefined)
      throw new CallError('EINVAL', `cm_id.listen: the identifier is in state ${id.state}, not IDLE or ADDR_BOUND`)
    this.#ports.checkListen(id, source)
    // No identifier with REUSEADDR may share the address and port of a listener.
    id.reuseAddress = false
    this.#listeners.add(id, source)
    id.backlog = backlog > 0 && backlog < MAX_BACKLOG ? backlog : MAX_BACKLOG
    id.state = 'LISTEN'
  }

  /**
   * Accepts a request with a REP or SIDR_REP. Without parameters: confirms the peer's REP with an RTU. If the message
   * cannot be sent, the connection is rejected.
   */
  accept(id: Identifier, parameters: ConnectionParameters | undefined): void {
    const { connection } = id
    if (id.state !== 'CONNECT' || connection === undefined)
      throw new CallError('EINVAL', `cm_id.accept: the identifier is in state ${id.state} and has nothing to accept`)
    if (parameters !== undefined) this.#requireQueuePair(id, parameters.qpNum, 'cm_id.accept')
    id.removeFromBacklog()
    try {
      if (parameters === undefined) this.engine.ready(connection)
      else if (id.qpType === QpType.values.UD) {
        id.qkey = parameters.qkey || id.qkey
        this.engine.replyToResolve(connection, {
          status: sidrStatus.SUCCESS,
          qpn: parameters.qpNum & MASK_24,
          qkey: id.qkey,
          privateData: replyData(privateDataOf(parameters), privateDataBytes.SIDR_REP, 'cm_id.accept'),
        })
      } else
        this.engine.reply(
          connection,
          {
            ...offerOf(id, parameters),
            privateData: replyData(privateDataOf(parameters), privateDataBytes.REP, 'cm_id.accept'),
          },
          this.#environment.now(),
        )
    } catch (error) {
      this.#rejectAfterFailedAccept(id, connection)
      throw asCallError(error)
    }
    id.isUnaccepted = false
    this.#failConnection(id, connection)
    this.flush()
  }

  /** Rejects the request, as in Linux. No effect if the connection's state does not allow a REJ. */
  #rejectAfterFailedAccept(id: Identifier, connection: CmConnection): void {
    try {
      if (id.qpType === QpType.values.UD) this.engine.replyToResolve(connection, { status: sidrStatus.REJECT })
      else this.engine.reject(connection, { reason: rejReason.CONSUMER_DEFINED }, this.#environment.now())
      this.flush()
    } catch (error) {
      if (!(error instanceof CmError)) throw error
    }
  }

  /** Refuses a request or a REP with a REJ or SIDR_REP. */
  reject(id: Identifier, privateData: Uint8Array, reason: number): void {
    const { connection } = id
    if (connection === undefined) throw new CallError('EINVAL', 'cm_id.reject: there is nothing to reject')
    id.removeFromBacklog()
    try {
      if (id.qpType === QpType.values.UD)
        this.engine.replyToResolve(connection, {
          status: sidrStatus.REJECT,
          privateData: replyData(privateData, privateDataBytes.SIDR_REP, 'cm_id.reject'),
        })
      else
        this.engine.reject(
          connection,
          { reason, privateData: replyData(privateData, privateDataBytes.REJ, 'cm_id.reject') },
          this.#environment.now(),
        )
    } catch (error) {
      throw asCallError(error)
    }
    this.flush()
  }

  /** Sends a DREQ, or answers the peer's DREQ. As in Linux, no effect in other states of a connection. */
  disconnect(id: Identifier): void {
    const { connection } = id
    // As in Linux: no effect on a listener on one device; a listener on all devices has no connection in ib_cm (EINVAL).
    if (id.isListening && id.device !== undefined) return
    if (connection === undefined) throw new CallError('EINVAL', 'cm_id.disconnect: there is no connection')
    const now = this.#environment.now()
    if (connection.state === 'DREQ_RCVD') this.engine.confirmDisconnect(connection, now)
    else if (connection.state === 'ESTABLISHED') this.engine.disconnect(connection, now)
    this.flush()
  }

  /** Establishes the connection. Call if the queue pair receives data before the RTU (rdma_notify, COMM_EST). */
  establish(id: Identifier): void {
    const { connection } = id
    if (connection === undefined) throw new CallError('EINVAL', 'cm_id.notify: there is no connection')
    if (connection.state === 'ESTABLISHED')
      throw new CallError('EISCONN', 'cm_id.notify: the connection is established already')
    try {
      this.engine.establish(connection)
    } catch (error) {
      throw asCallError(error)
    }
    this.flush()
  }

  /** Destroys the identifier and its connection. */
  destroy(id: Identifier): void {
    this.#idCount--
    id.removeFromBacklog()
    this.#listeners.remove(id)
    if (id.device !== undefined) this.#bound.get(id.device)?.delete(id)
    this.#ports.release(id)
    id.source = undefined
    id.state = 'IDLE'
    id.owner.destroyed?.()
    const { connection } = id
    if (connection === undefined) return
    id.connection = undefined
    this.#idsByConnection.delete(connection)
    this.engine.destroy(connection, this.#environment.now())
    this.flush()
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

  // ---- EventHost, for connection-events.ts ----

  idOf(connection: CmConnection): Identifier | undefined {
    return this.#idsByConnection.get(connection)
  }

  now(): number {
    return this.#environment.now()
  }

  listenerFor({ serviceId, path }: CmConnection, local: SocketAddress, device: CmDevice): Identifier | undefined {
    return this.#listeners.find(serviceId, local, device, this.devices.isOfHost(path.remoteGid))
  }

  ibListener(serviceId: bigint, gid: Uint8Array, device: CmDevice | undefined): Identifier | undefined {
    return this.#listeners.findIb(serviceId, gid, device)
  }

  attachRequest(id: Identifier, connection: CmConnection, device: CmDevice): void {
    id.state = 'CONNECT'
    id.isRequest = true
    id.isUnaccepted = true
    id.connection = connection
    const { localGid, remoteGid, flowLabel, trafficClass, packetLifeTime } = connection.path
    id.remoteGid = remoteGid
    id.flowLabel = flowLabel
    id.trafficClass = trafficClass
    id.packetLifeTime = packetLifeTime
    this.#attach(id, device, localGid)
    this.#idsByConnection.set(connection, id)
  }

  /** Sends the engine's messages and reports its events. */
  flush(): void {
    let sent = this.#transmit()
    for (let event = this.engine.pollEvent(); event !== undefined; event = this.engine.pollEvent()) {
      handleEvent(this, event)
      // The owner may have answered the event.
      sent = this.#transmit() || sent
    }
    if (sent) this.#environment.wake?.()
  }

  /** Sends the engine's messages; true if any was sent. */
  #transmit(): boolean {
    let sent = false
    for (let message = this.engine.pollTransmit(); message !== undefined; message = this.engine.pollTransmit()) {
      const { path, mad } = message
      const device = this.devices.byNumber(path.device)
      const { localGid, remoteGid, pkey, flowLabel, trafficClass, hopLimit } = path
      const to = { localGid, remoteGid, qpn: GSI_QPN, pkey, flowLabel, trafficClass, hopLimit }
      if (device !== undefined) sent = this.#mads.send(device.device, mad, to) || sent
    }
    return sent
  }

  // ---- internal ----

  #notify(id: Identifier, type: number, details: EventDetails): void {
    id.owner.event(type, details)
  }

  /** Raises the injected event, if it is of this type. */
  #raiseInjected(id: Identifier, type: number, details: EventDetails = { status: -Errno.ETIMEDOUT }): boolean {
    const { injected } = id
    if (injected?.type !== type) return false
    id.injected = undefined
    injected.report()
    this.#notify(id, type, details)
    return true
  }

  /**
   * Fails a connection by the injected event, before its message is sent and can be answered. For a failure to connect,
   * the peer gets a REJ, as from an end whose time is over. DISCONNECTED comes as if the peer had sent a DREQ, and the
   * peer learns nothing.
   */
  #failConnection(id: Identifier, connection: CmConnection): void {
    const type = id.injected?.type
    if (type === undefined) return
    if (type === DISCONNECTED) {
      id.state = 'DISCONNECT'
      this.#raiseInjected(id, type, {})
      return
    }
    const isDatagram = id.qpType === QpType.values.UD
    if (isDatagram) {
      this.#idsByConnection.delete(connection)
      id.connection = undefined
      this.engine.destroy(connection, this.#environment.now())
    } else this.engine.reject(connection, { reason: rejReason.TIMEOUT }, this.#environment.now())
    if (id.state === 'CONNECT' && !id.isRequest) id.state = 'ROUTE_RESOLVED'
    const rejection = { status: rejReason.CONSUMER_DEFINED, connection: connectionData(new Uint8Array(0)) }
    this.#raiseInjected(id, type, type === REJECTED ? rejection : undefined)
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
      throw new CallError('EPERM', `${call}: ${qpn} is not a queue pair of this user on device ${device.device.name}`)
  }

  #attach(id: Identifier, device: CmDevice, localGid: Uint8Array): void {
    if (id.device !== undefined && id.device !== device) this.#bound.get(id.device)?.delete(id)
    id.device = device
    id.mac = this.#macs.get(device)
    id.localGid = localGid
    this.#bound.get(device)?.add(id)
  }

  #pathOf(id: Identifier): CmPath {
    const { device, localGid, remoteGid, flowLabel, trafficClass, chosenPath, packetLifeTime } = id
    if (device === undefined || localGid === undefined || remoteGid === undefined)
      throw new CallError('EINVAL', 'cm_id.connect: the address is not resolved')
    if (chosenPath !== undefined) {
      if (!this.devices.hasGid(device.number, chosenPath.path.localGid))
        throw new CallError('EINVAL', `cm_id.connect: the source GID of the path is not a GID of ${device.device.name}`)
      if (!isSamePartition(chosenPath.path.pkey, DEFAULT_PKEY))
        throw new CallError(
          'ENOENT',
          `cm_id.connect: ${device.device.name} is not in the partition of the path's P_Key 0x${chosenPath.path.pkey.toString(16)}; its P_Key is 0xffff`,
        )
      return { device: device.number, ...chosenPath.path }
    }
    const path = pathThrough(device, { localGid, remoteGid, flowLabel, trafficClass, pkey: DEFAULT_PKEY })
    return packetLifeTime === undefined ? path : { ...path, packetLifeTime }
  }

  #receive(device: CmDevice, mad: Uint8Array, from: MadAddress): void {
    this.engine.onMad(mad, pathThrough(device, from), this.#environment.now())
    this.flush()
  }

  #removeDevice(device: CmDevice): void {
    this.engine.removeDevice(device.number)
    const bound = this.#bound.get(device) ?? []
    this.#bound.delete(device)
    for (const id of bound) {
      this.#listeners.remove(id)
      this.#ports.release(id)
      // The engine may have removed the connection earlier, for example after the answer to a SIDR_REQ.
      if (id.connection !== undefined) this.#idsByConnection.delete(id.connection)
      id.connection = undefined
      id.device = undefined
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
  throw new CallError(
    'EPROTONOSUPPORT',
    `cm_id.bind: service id 0x${serviceId.toString(16)} is not of port space 0x${portSpace.toString(16)}`,
  )
}

type PathEnds = Pick<CmPath, 'localGid' | 'remoteGid' | 'flowLabel' | 'trafficClass' | 'pkey'>

const pathThrough = (
  { number, device }: CmDevice,
  { localGid, remoteGid, flowLabel, trafficClass, pkey }: PathEnds,
): CmPath => ({
  device: number,
  localGid,
  remoteGid,
  pkey,
  mtu: device.ports[0]!.attributes.activeMtu,
  flowLabel,
  trafficClass,
  hopLimit: HOP_LIMIT,
  sl: 0,
  packetLifeTime: PACKET_LIFE_TIME,
})

/** The fields of a REQ or REP about this end's queue pair. */
const offerOf = ({ startingPsn, ece }: Identifier, parameters: ConnectionParameters) => ({
  ece,
  qpn: parameters.qpNum & MASK_24,
  startingPsn,
  responderResources: parameters.responderResources,
  initiatorDepth: parameters.initiatorDepth,
  flowControl: parameters.flowControl !== 0,
  rnrRetryCount: Math.min(MAX_QP_RETRIES, parameters.rnrRetryCount),
  srq: parameters.srq !== 0,
})

/** Converts a CmError or RangeError, which is a mistake of the program. Returns other errors as they are. */
const asCallError = (error: unknown): unknown => {
  if (error instanceof CmError) return new CallError(error.code, `cm_id: ${error.message}`)
  return error instanceof RangeError ? new CallError('EINVAL', `cm_id: ${error.message}`) : error
}
