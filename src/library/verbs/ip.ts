/*
 * IP over a device (RFC 4391; classes `ip_interface`, `ip_socket`): interfaces, ping, and UDP sockets.
 */
import { MAX_TIMER_DELAY } from '../../host/event-loop/clock.ts'
import { IpInterfaceClass, IpSocketClass } from '../../spec/classes/device/ip.ts'
import { IpProtocol } from '../../spec/enums.ts'
import { MAX_MTU_BYTES } from '../../spec/mtu.ts'
import type { Out } from '../../spec/schema/schema.ts'
import { addressText, parseAddress } from '../../transport/wire/address.ts'
import { checkOptions, type KnownOptions } from './arguments/options.ts'
import type { AnyCall } from './carrier.ts'
import {
  checkBytes,
  checkInteger,
  checkText,
  deviceClosedError,
  formatValue,
  invalidArgument,
  RdmaError,
  refused,
} from './error.ts'
import { type AbortOptions, type Arrivals, checkAbortOptions, checkSignal } from './mailbox.ts'
import { descriptorCloser } from './objects/object.ts'
import { showAs } from './objects/show.ts'
import { defineVerbsClass, SHOWN, VerbsObject } from './objects/verbs-object.ts'
import { CLOSED, closeDisposed, type DeviceContext, type Plan, plan } from './plan.ts'

/** Options of `device.ip`. */
export interface IpOptions {
  /**
   * Address with prefix length: '10.9.0.1/24' or 'fd00:9::1/64'. Default length: /24 for IPv4, /64 for IPv6. All
   * addresses with this prefix are on the link.
   */
  readonly address: string
}

/** Options of `IpInterface.ping`. */
export interface PingOptions extends AbortOptions {
  /** Milliseconds until the ping fails; default 5000. */
  readonly timeout?: number | undefined
  /** Payload of the echo request in bytes; default 56. */
  readonly size?: number | undefined
}

/** Options of `IpInterface.udp`. */
export interface UdpOptions {
  /** Local port; default: a free one. */
  readonly port?: number | undefined
}

/** Address and port of a UDP socket. */
export interface UdpEndpoint {
  /** IPv4 or IPv6 address as text. */
  readonly address: string
  /** 1 to 65535. */
  readonly port: number
}

/** A received datagram, with the address and port of its sender. */
export interface UdpDatagram extends UdpEndpoint {
  /** A copy of the payload. */
  readonly payload: Uint8Array
}

/**
 * A UDP socket of an interface. Its receive queue holds 212,992 bytes; a datagram counts as its payload and 256 bytes.
 * Datagrams that do not fit are dropped.
 */
export interface UdpSocket extends Arrivals<UdpDatagram>, Disposable, AsyncIterable<UdpDatagram> {
  /** Local port. */
  readonly port: number
  /**
   * Sends a datagram. Throws RdmaError ENETUNREACH for an address that is not on the link, EMSGSIZE if the payload is
   * longer than the interface's MTU less 28 bytes (48 bytes with IPv6).
   */
  send(payload: Uint8Array, receiver: UdpEndpoint): void
  /** Joins a multicast group, to receive its datagrams. Throws RdmaError EADDRINUSE, EINVAL, ENOMEM. */
  join(group: string): void
  /** Leaves the group. Throws RdmaError EADDRNOTAVAIL if the socket is not a member. */
  leave(group: string): void
  /** Closes the socket and frees its port. */
  close(): void
}

/** An interface of IP over a device (class `ip_interface`). */
export interface IpInterface extends Disposable {
  /** Handle of the object. */
  readonly handle: number
  /** Address of the interface as text. */
  readonly address: string
  /** MTU: the maximum bytes of an IP packet. */
  readonly mtu: number
  /** All attributes, as declared in the class: link-layer address, prefix, neighbours, counters. Throws RdmaError. */
  query(): Out<typeof IpInterfaceClass.methods.query>
  /**
   * Sends an echo request, and resolves with the milliseconds until the answer. Rejects with the signal's reason, or
   * RdmaError: ETIMEDOUT, ENETUNREACH, EMSGSIZE; ERR_CLOSED if the device is closed or removed.
   */
  ping(address: string, options?: PingOptions): Promise<number>
  /** Opens a UDP socket. Throws RdmaError EADDRINUSE, ENOMEM. */
  udp(options?: UdpOptions): UdpSocket
  /** Destroys the interface. Throws RdmaError EBUSY while it has sockets. */
  close(): void
}

const ipOptionNames: KnownOptions<IpOptions> = { address: true }
const pingOptionNames: KnownOptions<PingOptions> = { timeout: true, size: true, signal: true }
const udpOptionNames: KnownOptions<UdpOptions> = { port: true }

const DEFAULT_PING_MILLISECONDS = 5000
const DEFAULT_PING_BYTES = 56
const HIGHEST_PORT = 65535
/** Bytes of a record that announces received data. */
const ANNOUNCEMENT_BYTES = 8

const addressOf = (call: string, text: string): Uint8Array => {
  checkText(call, 'address', text)
  const bytes = parseAddress(text)
  if (bytes === undefined)
    throw invalidArgument(
      call,
      `address ${formatValue(text)} is not an IPv4 or IPv6 address`,
      'write 10.9.0.2 or fd00:9::2',
    )
  return bytes
}

/** Opens a socket of `protocol` (IpProtocol) on the interface with handle `ipInterface`. */
const openSocket = (context: DeviceContext, ipInterface: number, protocol: number, port: number) => {
  const { carrier, waiters } = context
  const { object: handle } = carrier.call(IpSocketClass, 'create', 0, { interface: ipInterface, protocol, port })
  const waiterId = waiters.add()
  let isEnded = false
  let currentHandle = handle
  const wake = (): void => waiters.wake(waiterId)
  const markEnded = (): void => {
    isEnded = true
    waiters.remove(waiterId)
  }
  // A record only announces datagrams. The datagrams stay at the device until `poll`.
  carrier.descriptors.read(handle, ANNOUNCEMENT_BYTES, wake, markEnded)
  const close = descriptorCloser(carrier, IpSocketClass, handle, () => {
    currentHandle = CLOSED
    markEnded()
    closeDisposed(context)
  })
  /** `carrier.call` on this socket; refused after `close`. */
  const anyCall: AnyCall = (cls, method, _object, args) => carrier.call(cls, method, currentHandle, args)
  const call = anyCall as typeof carrier.call
  const hasDatagrams = (): boolean => !isEnded && !waiters.isOver && call(IpSocketClass, 'query', 0, {}).out.waiting > 0
  const poll = (): UdpDatagram | undefined => {
    carrier.drive('ip_socket.poll')
    try {
      const { address, port: senderPort, payload } = call(IpSocketClass, 'receive', 0, {}).out
      return { address: addressText(address), port: senderPort, payload }
    } catch (error) {
      if (error instanceof RdmaError && error.code === 'EAGAIN') return undefined
      throw error
    }
  }
  const wait = async (options: AbortOptions = {}): Promise<void> => {
    checkAbortOptions('ip_socket.wait', options)
    const { signal } = options
    signal?.throwIfAborted()
    const turn = carrier.overdueTurn()
    if (turn !== undefined) await turn
    if (isEnded || waiters.isOver) await carrier.clock.inVain?.()
    else if (!hasDatagrams()) await carrier.clock.watch('ip_socket.wait', waiters.wait(waiterId, signal))
  }
  const arrivals = async function* (options: AbortOptions = {}): AsyncGenerator<UdpDatagram> {
    checkAbortOptions('ip_socket.arrivals', options)
    const { signal } = options
    if (isEnded || waiters.isOver) await carrier.clock.inVain?.()
    while (!isEnded && !waiters.isOver) {
      const datagram = poll()
      if (datagram === undefined) await wait({ signal })
      else yield datagram
    }
  }
  return {
    port: call(IpSocketClass, 'query', 0, {}).out.port,
    send: (payload: Uint8Array, receiver: UdpEndpoint): void => {
      const address = addressOf('ip_socket.send', receiver.address)
      call(IpSocketClass, 'send', 0, { address, port: receiver.port, payload })
    },
    changeGroup: (method: 'join' | 'leave', group: string): void => {
      call(IpSocketClass, method, 0, { group: addressOf(`ip_socket.${method}`, group) })
    },
    poll,
    wait,
    arrivals,
    close,
  }
}

const openUdp = (context: DeviceContext, ipInterface: number, port: number): UdpSocket => {
  const socket = openSocket(context, ipInterface, IpProtocol.values.UDP, port)
  const { poll, wait, arrivals, close } = socket
  const self: UdpSocket = {
    port: socket.port,
    send(payload, receiver) {
      checkBytes('ip_socket.send', 'payload', payload)
      if (typeof receiver !== 'object' || receiver === null)
        throw invalidArgument('ip_socket.send', 'the receiver is missing', 'give { address, port }')
      checkInteger('ip_socket.send', 'port', receiver.port, 1, HIGHEST_PORT)
      if (payload.length > MAX_MTU_BYTES)
        throw refused('EMSGSIZE', 'ip_socket.send', `${payload.length} bytes do not fit a packet`)
      socket.send(payload, receiver)
    },
    join: group => socket.changeGroup('join', group),
    leave: group => socket.changeGroup('leave', group),
    poll,
    wait,
    arrivals,
    [Symbol.asyncIterator]: () => arrivals(),
    close,
    [Symbol.dispose]: close,
  }
  showAs(self, 'UdpSocket', () => ({ port: socket.port }))
  return self
}

class IpInterfaceObject extends VerbsObject implements IpInterface {
  readonly #address: Uint8Array
  readonly mtu: number
  #sequence = 0

  constructor(context: DeviceContext, handle: number, address: Uint8Array, mtu: number) {
    super(context, handle)
    this.#address = address
    this.mtu = mtu
  }

  get cls(): typeof IpInterfaceClass {
    return IpInterfaceClass
  }

  get address(): string {
    return addressText(this.#address)
  }

  override [SHOWN]() {
    return { handle: this.handle, address: this.address }
  }

  query() {
    return this.context.carrier.call(IpInterfaceClass, 'query', this.handle, {}).out
  }

  async ping(address: string, options: PingOptions = {}): Promise<number> {
    const call = 'ip_interface.ping'
    checkOptions(call, 'options', options, pingOptionNames)
    const { timeout = DEFAULT_PING_MILLISECONDS, size = DEFAULT_PING_BYTES, signal } = options
    checkInteger(call, 'timeout', timeout, 1, MAX_TIMER_DELAY)
    checkInteger(call, 'size', size, 0, MAX_MTU_BYTES)
    checkSignal(call, options)
    const target = addressText(addressOf(call, address))
    signal?.throwIfAborted()
    const socket = openSocket(this.context, this.handle, IpProtocol.values.ICMP, 0)
    const timedOut = new AbortController()
    const { clock } = this.context.carrier
    const timer = clock.after(timeout, 'program', () => timedOut.abort())
    const anySignal = signal === undefined ? timedOut.signal : AbortSignal.any([timedOut.signal, signal])
    const sequence = this.#sequence++ & 0xffff
    const start = clock.now()
    try {
      // On an ICMP socket `port` is the sequence number of the echo request and of the echo reply.
      socket.send(new Uint8Array(size), { address, port: sequence })
      for await (const answer of socket.arrivals({ signal: anySignal }))
        if (answer.port === sequence && answer.address === target) return (clock.now() - start) / 1000
    } catch (error) {
      if (!timedOut.signal.aborted || signal?.aborted) throw error
      throw refused('ETIMEDOUT', call, `${address} has not answered within ${timeout} ms`)
    } finally {
      clock.clear(timer)
      socket.close()
    }
    throw deviceClosedError(call, 'closed or removed')
  }

  udp(options: UdpOptions = {}): UdpSocket {
    checkOptions('ip_socket.create', 'options', options, udpOptionNames)
    const { port = 0 } = options
    checkInteger('ip_socket.create', 'port', port, 0, HIGHEST_PORT)
    return openUdp(this.context, this.handle, port)
  }
}
defineVerbsClass(IpInterfaceObject, 'ip_interface', 'IpInterface')

export const ipPlan = (context: DeviceContext, options: IpOptions): Plan<IpInterface> => {
  const call = 'ip_interface.create'
  checkOptions(call, 'options', options, ipOptionNames)
  checkText(call, 'address', options.address)
  const [text = '', prefixLength, ...extraParts] = options.address.split('/')
  if (extraParts.length > 0 || (prefixLength !== undefined && !/^\d{1,3}$/.test(prefixLength)))
    throw invalidArgument(
      call,
      `address ${formatValue(options.address)} is not an address with a prefix length`,
      'write 10.9.0.1/24',
    )
  const address = addressOf(call, text)
  const args = { address, ...(prefixLength !== undefined && { prefixLength: Number(prefixLength) }) }
  return plan(IpInterfaceClass, args, ({ object, out }) => new IpInterfaceObject(context, object, address, out.mtu))
}
