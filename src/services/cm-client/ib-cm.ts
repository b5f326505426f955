/*
 * InfiniBand's connection manager (IBA 12) as the connection protocol of devices with queue pair 1, as Linux's ib_cm
 * for cma.c. The engine (src/services/cm-engine) runs the protocol, and the MAD layer carries its messages. The caller
 * supplies the time.
 */

import { hasGid, hasLids } from '../../core/devices/gids.ts'
import type { ConnectionEnd, ConnectionListeners, ConnectionProtocol } from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import { CM_CLASS, CM_CLASS_VERSION, GSI_QPN, MAD_METHOD_SEND } from '../../spec/wire/mad.ts'
import { isLoopbackIpv4, isSameAddress } from '../../transport/wire/address.ts'
import type { CmConnection } from '../cm-engine/connection.ts'
import { CmEngine } from '../cm-engine/engine.ts'
import type { SubnetRoutes } from '../ib-sa/port.ts'
import type { MadLayer } from '../mad-client/layer.ts'
import { Family, isAny } from '../socket-address.ts'
import { IbConnection } from './connection.ts'
import { type EventHost, handleEvent } from './events.ts'
import { addressAlong, type IbPort, pathBack, pathOf, pathRecord, serviceIdOf } from './path.ts'

export interface IbCmEnvironment {
  /** Microseconds. */
  readonly now: () => number
  /** An unpredictable u32. */
  readonly random: () => number
  /** `isClosed`: only devices of this process are reachable (memory link). */
  readonly routing?: { readonly isClosed?: boolean }
  /** Called when messages wait for the devices' next poll. */
  readonly wake?: () => void
  /**
   * Whether unanswered messages to peers in this machine are repeated after milliseconds. For programs in this process:
   * a daemon's programs may take long to answer, and each repetition of a request would be answered by an MRA.
   */
  readonly repeatsEarly?: boolean
}

/** The part of the MAD layer that the connection manager uses. */
export type Mads = Pick<MadLayer, 'register' | 'send' | 'hasQueuePair' | 'createAgent'>

/** As Linux's rxe, an exponent: 4.096 µs · 2^n. */
const ACK_DELAY = 15
/** Microseconds until a message to a peer in the same machine is first repeated (`CmEnvironment.firstRepetition`). */
const NEAR_REPETITION = 8_000

/** A listener on one device. */
interface Listener {
  readonly port: IbPort
  readonly end: ConnectionEnd
}

export class IbCm implements EventHost {
  readonly engine: CmEngine
  readonly close: () => void
  readonly #environment: IbCmEnvironment
  readonly #mads: Mads
  readonly #ports = new Map<Device, IbPort>()
  /** By service id. */
  readonly #listeners = new Map<bigint, Set<Listener>>()
  readonly #connections = new Map<CmConnection, IbConnection>()
  readonly #routesOf: ((device: Device, mads: Mads) => SubnetRoutes) | undefined
  #nextNumber = 1

  /** `routesOf`: of a port with LIDs. */
  constructor(mads: Mads, environment: IbCmEnvironment, routesOf?: (device: Device, mads: Mads) => SubnetRoutes) {
    this.#routesOf = routesOf
    this.#environment = environment
    this.#mads = mads
    this.engine = new CmEngine({
      random: environment.random,
      caGuid: number => this.portOf(number)?.caGuid ?? 0n,
      ackDelay: () => ACK_DELAY,
      hasGid: (number, gid) => {
        const port = this.portOf(number)
        return port !== undefined && hasGid(port.device, gid)
      },
      firstRepetition: ({ remoteGid }) =>
        environment.repeatsEarly === true && this.#isNear(remoteGid) ? NEAR_REPETITION : 0,
    })
    this.close = mads.register({
      mgmtClass: CM_CLASS,
      classVersion: CM_CLASS_VERSION,
      oui: 0,
      methods: [MAD_METHOD_SEND],
      receive: (device, mad, from) => {
        const port = this.#ports.get(device)
        if (port === undefined) return
        this.engine.onMad(mad, pathBack(port, from), environment.now())
        this.flush()
      },
    })
  }

  /** Undefined if the device has no queue pair 1, or it is in use. */
  open(device: Device, listeners: ConnectionListeners): ConnectionProtocol | undefined {
    if (!this.#mads.hasQueuePair(device)) return undefined
    const { engine } = this
    const { buffer, byteOffset } = device.attributes.nodeGuid
    const caGuid = new DataView(buffer, byteOffset).getBigUint64(0)
    const number = this.#nextNumber++
    const port: IbPort = { number, device, caGuid, listeners }
    this.#ports.set(device, port)
    const routes = hasLids(device) ? this.#routesOf?.(device, this.#mads) : undefined
    device.taps.isConnected = qpn => engine.hasQpn(number, qpn)
    return {
      hasDatagrams: true,
      get size() {
        return engine.countOf(number)
      },
      listen: end => this.#listen({ port, end }),
      create: end => {
        const connection = new IbConnection(this, port, engine.create(pathOf(port, end)))
        this.bind(connection, end)
        return connection
      },
      pathRecord: (end, connection) =>
        pathRecord(port, end, connection instanceof IbConnection ? connection.cm : undefined),
      ...(routes && {
        resolveRoute: (end, timeout, done) =>
          routes.resolveRoute(end, serviceIdOf(end, end.destination), timeout, done),
        datagramKeys: end => routes.datagramKeys(end),
        joinGroup: (end, group, report) => routes.joinGroup(end, group, report),
      }),
      close: () => {
        routes?.close()
        device.taps.isConnected = undefined
        engine.removeDevice(number)
        // The engine may have removed a connection earlier, for example after the answer to a SIDR_REQ.
        for (const [cm, connection] of this.#connections) if (connection.port === port) this.#connections.delete(cm)
        this.#ports.delete(device)
      },
    }
  }

  #listen(listener: Listener): () => void {
    const { end } = listener
    const serviceId = serviceIdOf(end, end.source)
    let listeners = this.#listeners.get(serviceId)
    if (listeners === undefined) {
      listeners = new Set()
      this.#listeners.set(serviceId, listeners)
      this.engine.listen(serviceId)
    }
    const listening = listeners.add(listener)
    return () => {
      if (!listening.delete(listener) || listening.size > 0) return
      this.engine.unlisten(serviceId)
      this.#listeners.delete(serviceId)
    }
  }

  /** Whether packets to this GID stay in this machine. */
  #isNear(gid: Uint8Array): boolean {
    if (this.#environment.routing?.isClosed === true || isLoopbackIpv4(gid)) return true
    for (const port of this.#ports.values()) if (hasGid(port.device, gid)) return true
    return false
  }

  // ---- time ----

  now(): number {
    return this.#environment.now()
  }

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

  // ---- for connection.ts and events.ts ----

  portOf(number: number): IbPort | undefined {
    for (const port of this.#ports.values()) if (port.number === number) return port
    return undefined
  }

  ibListener(serviceId: bigint, gid: Uint8Array, port: IbPort): ConnectionEnd | undefined {
    for (const { end, port: listening } of this.#listeners.get(serviceId) ?? []) {
      const { source } = end
      if (listening !== port || source?.family !== Family.IB) continue
      if (isAny(source) || isSameAddress(source.address, gid)) return end
    }
    return undefined
  }

  connectionOf(cm: CmConnection): IbConnection | undefined {
    return this.#connections.get(cm)
  }

  bind(connection: IbConnection, end: ConnectionEnd): void {
    connection.end = end
    this.#connections.set(connection.cm, connection)
  }

  release({ cm }: IbConnection): void {
    this.#connections.delete(cm)
  }

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
      const port = this.portOf(path.device)
      if (port !== undefined) sent = this.#mads.send(port.device, mad, addressAlong(path, GSI_QPN)) || sent
    }
    return sent
  }
}
