/*
 * The classes of IP over the device: interfaces, and sockets whose datagrams wait here until the program takes them.
 */
import { driverClass } from '../../core/devices/driver.ts'
import { postRecord } from '../../core/events/events.ts'
import type { CoreObject, DriverClass, FdObject } from '../../core/model.ts'
import type { IpSocket as EngineSocket, IpEnd, SocketProtocol } from '../../ip/sockets.ts'
import { IpInterface, IpSocket, SOCKET_ROOM } from '../../spec/classes/device/ip.ts'
import { CallError } from '../../spec/errno.ts'
import type { DeviceInterface, IpOverDevice } from './ip-over-device.ts'

/** Bytes charged for a waiting datagram in addition to its payload. */
const DATAGRAM_OVERHEAD = 256

/** Contents of the record that makes the descriptor readable; `receive` returns the datagrams. */
const READABLE = new Uint8Array(8)

interface Datagram {
  readonly from: IpEnd
  readonly payload: Uint8Array
}

/** A program's socket. */
class ProgramSocket {
  readonly on: DeviceInterface
  readonly socket: EngineSocket
  readonly #object: FdObject
  readonly #waiting: Datagram[] = []
  #freeBytes = SOCKET_ROOM
  overflowed = 0

  constructor(service: IpOverDevice, object: FdObject, on: DeviceInterface, protocol: SocketProtocol, port: number) {
    this.#object = object
    this.on = on
    this.socket = service.use('ip_socket.create', on, ip =>
      ip.open(protocol, port, (from, payload) => this.#received({ from, payload })),
    )
  }

  get waiting(): number {
    return this.#waiting.length
  }

  #received(datagram: Datagram): void {
    const bytes = datagram.payload.length + DATAGRAM_OVERHEAD
    if (bytes > this.#freeBytes) {
      this.overflowed++
      return
    }
    this.#freeBytes -= bytes
    if (this.#waiting.push(datagram) === 1) postRecord(this.#object, READABLE)
  }

  take(): Datagram {
    const datagram = this.#waiting.shift()
    if (datagram === undefined) throw new CallError('EAGAIN', 'ip_socket.receive: no datagram is pending')
    this.#freeBytes += datagram.payload.length + DATAGRAM_OVERHEAD
    if (this.#waiting.length === 0) this.#object.sink.take(Number.POSITIVE_INFINITY)
    return datagram
  }
}

const bigints = <K extends string>(counters: Readonly<Record<K, number>>): Record<K, bigint> =>
  Object.fromEntries(Object.entries<number>(counters).map(([name, value]) => [name, BigInt(value)])) as Record<
    K,
    bigint
  >

/** `service` returns the client; called at the first call of a class. */
export const ipClasses = (service: () => IpOverDevice): readonly DriverClass[] => {
  const facts = ({ port: { port, gid }, ip }: DeviceInterface) => ({ qpn: port.qpn, gid: gid.slice(), mtu: ip.mtu })

  const interfaceClass = driverClass<typeof IpInterface, DeviceInterface>(IpInterface, {
    create({ context }, object, { address, prefixLength }) {
      object.state = service().create(context, address.slice(), prefixLength)
      return facts(object.state)
    },
    query(_call, { state: iface }) {
      const { ip } = iface
      return {
        ...facts(iface),
        address: ip.prefix.address.slice(),
        prefixLength: ip.prefix.length,
        neighbours: ip.counts.neighbours,
        statistics: bigints(ip.counters),
      }
    },
    destroy(_call, { state: iface }) {
      service().end(iface)
      return {}
    },
  })

  const socketClass = driverClass<typeof IpSocket, ProgramSocket>(IpSocket, {
    create(_call, object, { interface: on, protocol, port = 0 }) {
      const { state: iface } = on as CoreObject<DeviceInterface>
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
    destroy(_call, { state: { on, socket } }) {
      // Leaves the socket's groups. An interface that was removed with its device or context has left them already.
      if (service().has(on)) on.ip.close(socket)
      return {}
    },
    send(_call, { state: { on, socket } }, { address, port, payload }) {
      service().use('ip_socket.send', on, (ip, now) => ip.send(socket, { address, port }, payload, now))
      return {}
    },
    receive(_call, { state }) {
      const { from, payload } = state.take()
      return { ...from, payload }
    },
    join(_call, { state: { on, socket } }, { group }) {
      service().use('ip_socket.join', on, ip => ip.join(socket, group))
      return {}
    },
    leave(_call, { state: { on, socket } }, { group }) {
      service().use('ip_socket.leave', on, ip => ip.leave(socket, group))
      return {}
    },
  })

  return [interfaceClass, socketClass]
}
