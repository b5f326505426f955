/*
 * The classes of IP over the device: interfaces and sockets. Received datagrams of a socket are queued here.
 */
import { driverClass } from '../../core/devices/driver.ts'
import type { DriverClass } from '../../core/driver-contract.ts'
import { postRecord } from '../../core/events/events.ts'
import type { CoreObject, FdObject } from '../../core/model.ts'
import type { PeerTable } from '../../core/objects/peer-table.ts'
import { onUndelivered } from '../../core/undelivered.ts'
import { IpInterfaceClass, IpSocketClass, SOCKET_RECEIVE_BYTES } from '../../spec/classes/device/ip.ts'
import { callError } from '../../spec/errno.ts'
import { copyOfBytes } from '../../spec/memory.ts'
import { the } from '../../spec/reason.ts'
import type { IpEnd, IpSocket, SocketProtocol } from '../ip-engine/sockets.ts'
import type { DeviceInterface, IpOverDevice } from './ip-over-device.ts'

/** Bytes charged for a queued datagram in addition to its payload. */
const DATAGRAM_OVERHEAD = 256

const sizeOf = ({ payload }: Datagram): number => payload.length + DATAGRAM_OVERHEAD

/** An event record of zeros: while one is unread, the socket's descriptor is readable. */
const READABLE = new Uint8Array(8)

interface Datagram {
  readonly from: IpEnd
  readonly payload: Uint8Array
}

class ProgramSocket {
  readonly interface: DeviceInterface
  readonly socket: IpSocket
  readonly #object: FdObject
  readonly #table: PeerTable
  readonly #waiting: Datagram[] = []
  #freeBytes = SOCKET_RECEIVE_BYTES
  /** Number of datagrams dropped because the queue was full, or the share of memory used up. */
  overflowed = 0

  constructor(service: IpOverDevice, object: FdObject, iface: DeviceInterface, protocol: SocketProtocol, port: number) {
    this.#object = object
    this.#table = service.datagrams
    this.interface = iface
    this.socket = service.withEngine('ip_socket.create', iface, ip =>
      ip.open(protocol, port, (from, payload) => this.#received({ from, payload })),
    )
  }

  get waiting(): number {
    return this.#waiting.length
  }

  #received(datagram: Datagram): void {
    const bytes = sizeOf(datagram)
    const { context } = this.#object
    const { qpn } = this.interface.port.queuePair
    if (bytes > this.#freeBytes || !this.#table.take({ context, qpn }, bytes)) {
      this.overflowed++
      return
    }
    this.#freeBytes -= bytes
    if (this.#waiting.push(datagram) === 1) postRecord(this.#object, READABLE)
  }

  /** Removes and returns the oldest datagram. Throws CallError EAGAIN if there is none. */
  take(): Datagram {
    const datagram = this.#waiting.shift()
    if (datagram === undefined) throw callError.EAGAIN`${the.method('ip_socket.receive')}: no datagram is pending`
    this.#release(sizeOf(datagram))
    if (this.#waiting.length === 0) this.#object.sink.take(Number.POSITIVE_INFINITY)
    return datagram
  }

  /** Puts a datagram back at the front after its delivery failed. */
  putBack(datagram: Datagram): void {
    if (this.#object.isClosed) return
    // May become negative: other datagrams may have used the space.
    this.#freeBytes -= sizeOf(datagram)
    this.#table.add(this.#object.context.account, sizeOf(datagram))
    if (this.#waiting.unshift(datagram) === 1) postRecord(this.#object, READABLE)
  }

  /** Drops all datagrams. */
  clear(): void {
    for (const datagram of this.#waiting.splice(0)) this.#release(sizeOf(datagram))
  }

  #release(bytes: number): void {
    this.#freeBytes += bytes
    this.#table.release(this.#object.context.account, bytes)
  }
}

/** Counters as values of u64 attributes. */
const toBigints = <K extends string>(counters: Readonly<Record<K, number>>): Record<K, bigint> =>
  Object.fromEntries(Object.entries<number>(counters).map(([name, value]) => [name, BigInt(value)])) as Record<
    K,
    bigint
  >

/** `service` returns the client, and starts it if necessary. */
export const ipClasses = (service: () => IpOverDevice): readonly DriverClass[] => {
  const linkAttributes = ({ port: { queuePair, gid }, ip }: DeviceInterface) => ({
    qpn: queuePair.qpn,
    gid: gid.slice(),
    mtu: ip.mtu,
  })

  const interfaceClass = driverClass<typeof IpInterfaceClass, DeviceInterface>(IpInterfaceClass, {
    create({ context }, object, { address, prefixLength }) {
      object.state = service().create(context, copyOfBytes(address), prefixLength)
      return linkAttributes(object.state)
    },
    query(_call, { state: iface }) {
      const { ip } = iface
      return {
        ...linkAttributes(iface),
        address: ip.prefix.address.slice(),
        prefixLength: ip.prefix.length,
        neighbours: ip.counts.neighbours,
        statistics: toBigints(ip.counters),
      }
    },
    destroy(_call, { state: iface }) {
      service().remove(iface)
      return {}
    },
  })

  const socketClass = driverClass<typeof IpSocketClass, ProgramSocket>(IpSocketClass, {
    create(_call, object, { interface: interfaceObject, protocol, port = 0 }) {
      const { state: iface } = interfaceObject as CoreObject<DeviceInterface>
      object.state = new ProgramSocket(
        service(),
        object as CoreObject as FdObject,
        iface,
        protocol as SocketProtocol,
        port,
      )
      return {}
    },
    query: (_call, { state: { socket, waiting, overflowed } }) => ({
      protocol: socket.protocol,
      port: socket.port,
      waiting,
      overflowed: BigInt(overflowed),
    }),
    destroy(_call, { state }) {
      state.clear()
      state.interface.ip.close(state.socket)
      return {}
    },
    send(_call, { state: { interface: iface, socket } }, { address, port, payload }) {
      service().withEngine('ip_socket.send', iface, (ip, now) => ip.send(socket, { address, port }, payload, now))
      return {}
    },
    receive(call, { state }) {
      const datagram = state.take()
      onUndelivered(call, () => state.putBack(datagram))
      const { from, payload } = datagram
      return { ...from, payload }
    },
    join(_call, { state: { interface: iface, socket } }, { group }) {
      service().withEngine('ip_socket.join', iface, ip => ip.join(socket, group))
      return {}
    },
    leave(_call, { state: { interface: iface, socket } }, { group }) {
      service().withEngine('ip_socket.leave', iface, ip => ip.leave(socket, group))
      return {}
    },
  })

  return [interfaceClass, socketClass]
}
