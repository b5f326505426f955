/*
 * IP over the device (RFC 4391; R31, R40): a client of the subsystem that joins IP engines (src/services/ip-engine)
 * with UD queue pairs of devices. Each interface has its own queue pair. The link-layer address of the interface is the
 * QPN and a GID of the device. The caller supplies the time.
 */

import { registerClient } from '../../core/devices/clients.ts'
import type { DatagramPort } from '../../core/driver-contract.ts'
import type { Account, Context, Core, Device } from '../../core/model.ts'
import { addTo, createLimit, removeFrom, requireShare } from '../../core/objects/limits.ts'
import { PeerTable } from '../../core/objects/peer-table.ts'
import { CallError, callError, gone } from '../../spec/errno.ts'
import { because, the } from '../../spec/reason.ts'
import { addressText, isLinkLocal, isMappedIpv4, isMulticastGid } from '../../transport/wire/address.ts'
import { ENCAPSULATION_BYTES, IPOIB_QKEY, type LinkAddress } from '../../transport/wire/ipoib.ts'
import { IpError } from '../ip-engine/error.ts'
import { IpInterface } from '../ip-engine/interface.ts'

interface IpEnvironment {
  /** Microseconds. */
  readonly now: () => number
  /** Returns a u32. */
  readonly random: () => number
  /** Called when packets wait for the devices' next poll. */
  readonly wake?: () => void
}

const HOP_LIMIT = 64
/** Prefix lengths, bits. */
const DEFAULT_IPV4_PREFIX = 24
const DEFAULT_IPV6_PREFIX = 64
/** Maximum number of interfaces of all programs, on all devices. */
const MAX_INTERFACES = 256

/**
 * The destination GID of packets to a multicast GID. If the local GID is IPv4-mapped, RoCE sends with an IPv4 header,
 * which cannot hold an MGID of RFC 4391. Then the destination is 239.255.0.0/16 (RFC 2365, 6.1) with the MGID's last
 * two bytes. Several MGIDs may have the same IPv4 address; the payload's IP address tells them apart.
 */
const wireGid = (mgid: Uint8Array, localGid: Uint8Array): Uint8Array =>
  isMappedIpv4(localGid)
    ? Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 239, 255, mgid[14]!, mgid[15]!)
    : mgid

/** The link of an interface: a queue pair and its multicast groups. */
class IpPort {
  readonly gid: Uint8Array
  /** That of all packets. */
  readonly pkey: number
  readonly queuePair: DatagramPort
  /** By link-layer group: number of joins without a leave. Several IP groups may map to one link-layer group. */
  readonly #groups = new Map<string, number>()

  /** Throws CallError EOPNOTSUPP if the device has no GID or no queue pairs for clients. */
  constructor(device: Device, account: Account | undefined, receive: (packet: Uint8Array) => void) {
    const gids = device.ports[0]?.gids.entries.flatMap(entry => entry?.gid ?? []) ?? []
    const gid = gids.find(candidate => !isLinkLocal(candidate)) ?? gids[0]
    const queuePair = gid && device.driver.openDatagrams?.(device, IPOIB_QKEY, account, receive)
    if (gid === undefined || queuePair === undefined)
      throw callError.EOPNOTSUPP`${the.method('ip_interface.create')}: device ${device.name} has no GID or no UD queue pairs for clients`
    this.gid = gid
    this.pkey = device.ports[0]!.pkeys[0]!
    this.queuePair = queuePair
  }

  join({ gid }: LinkAddress): void {
    const group = wireGid(gid, this.gid)
    const key = addressText(group)
    const uses = this.#groups.get(key) ?? 0
    if (uses === 0) this.queuePair.join(group)
    this.#groups.set(key, uses + 1)
  }

  leave({ gid }: LinkAddress): void {
    const group = wireGid(gid, this.gid)
    const key = addressText(group)
    const uses = this.#groups.get(key) ?? 0
    if (uses > 1) this.#groups.set(key, uses - 1)
    else if (this.#groups.delete(key)) this.queuePair.leave(group)
  }

  send(bytes: Uint8Array, { qpn, gid }: LinkAddress): boolean {
    return this.queuePair.send(bytes, {
      localGid: this.gid,
      remoteGid: isMulticastGid(gid) ? wireGid(gid, this.gid) : gid,
      qpn,
      pkey: this.pkey,
      flowLabel: 0,
      trafficClass: 0,
      hopLimit: HOP_LIMIT,
    })
  }
}

export interface DeviceInterface {
  readonly device: Device
  /** Of the program that created the interface; undefined for this process. */
  readonly account: Account | undefined
  readonly ip: IpInterface
  readonly port: IpPort
}

export class IpOverDevice {
  readonly #environment: IpEnvironment
  readonly #devices = new Set<Device>()
  readonly #interfaces = new Set<DeviceInterface>()
  readonly #limit = createLimit('IP interfaces', MAX_INTERFACES)
  readonly #neighbours = new PeerTable('bytes of IP neighbours and packets for them', Number.POSITIVE_INFINITY, 1)
  /** Datagrams that wait in sockets. */
  readonly datagrams = new PeerTable('bytes of datagrams of IP sockets', Number.POSITIVE_INFINITY, 1)
  readonly #close: () => void

  constructor(core: Core, environment: IpEnvironment) {
    this.#environment = environment
    this.#close = registerClient(core, {
      name: 'ipoib',
      add: device => {
        if (device.driver.openDatagrams === undefined) return false
        this.#devices.add(device)
        return true
      },
      remove: device => {
        this.#devices.delete(device)
        for (const iface of this.#interfaces) if (iface.device === device) this.remove(iface)
      },
    })
  }

  close(): void {
    this.#close()
  }

  /** Number of interfaces. */
  get size(): number {
    return this.#interfaces.size
  }

  // ---- time ----

  /** When `onTimeout` must be called next, µs; Infinity: never. */
  nextTimeout(): number {
    let next = Number.POSITIVE_INFINITY
    if (this.size > 0) for (const { ip } of this.#interfaces) next = Math.min(next, ip.nextTimeout())
    return next
  }

  /** Returns whether a timer was due. */
  onTimeout(now: number): boolean {
    let progress = false
    for (const iface of this.#interfaces) {
      if (now < iface.ip.nextTimeout()) continue
      iface.ip.onTimeout(now)
      this.#flush(iface)
      progress = true
    }
    return progress
  }

  // ---- interfaces ----

  /**
   * Creates an interface for a program's context. `address`: 16 bytes. Throws CallError: EINVAL for a wrong address or
   * prefix length, EADDRINUSE, EOPNOTSUPP, ENOMEM beyond a share, and EADDRNOTAVAIL if the port cannot join a group.
   */
  create(
    context: Context,
    address: Uint8Array,
    prefixLength = isMappedIpv4(address) ? DEFAULT_IPV4_PREFIX : DEFAULT_IPV6_PREFIX,
  ): DeviceInterface {
    const { device, account } = context
    if (!this.#devices.has(device))
      throw callError.EOPNOTSUPP`${the.method('ip_interface.create')}: device ${device.name} has no UD queue pairs for clients`
    requireShare(this.#limit, account, the.method('ip_interface.create'))
    for (const { ip } of this.#interfaces)
      if (ip.prefix.isOwn(address))
        throw callError.EADDRINUSE`${the.method('ip_interface.create')}: an interface has ${addressText(address)} already`
    // Packets come in a poll of the device, thus only after `created` is assigned.
    const port = new IpPort(device, account, packet => this.#receive(created, packet))
    let created: DeviceInterface
    try {
      const { qpn, mtu } = port.queuePair
      const ip = new IpInterface({
        address,
        prefixLength,
        link: { qpn, gid: port.gid },
        mtu: mtu - ENCAPSULATION_BYTES,
        pkey: port.pkey,
        random: this.#environment.random,
        join: group => port.join(group),
        leave: group => port.leave(group),
        reserve: bytes => this.#neighbours.take({ context, qpn }, bytes),
        release: bytes => this.#neighbours.release(account, bytes),
      })
      created = { device, account, ip, port }
    } catch (error) {
      port.queuePair.close()
      throw asCallError('ip_interface.create', error)
    }
    this.#interfaces.add(created)
    addTo(this.#limit, account)
    return created
  }

  exists(iface: DeviceInterface): boolean {
    return this.#interfaces.has(iface)
  }

  /** No effect when repeated. */
  remove(iface: DeviceInterface): void {
    if (!this.#interfaces.delete(iface)) return
    removeFrom(this.#limit, iface.account)
    iface.ip.shutDown()
    iface.port.queuePair.close()
  }

  /**
   * Runs `body` with the engine of an interface, and sends the resulting packets. Throws CallError: EIO if the
   * interface was removed, or the engine's error. `call` begins the error message.
   */
  withEngine<T>(call: string, iface: DeviceInterface, body: (ip: IpInterface, now: number) => T): T {
    if (!this.exists(iface)) throw gone`${the.method(call)}: the interface was removed`
    try {
      return body(iface.ip, this.#environment.now())
    } catch (error) {
      throw asCallError(call, error)
    } finally {
      this.#flush(iface)
    }
  }

  #receive(iface: DeviceInterface, packet: Uint8Array): void {
    iface.ip.receive(packet, this.#environment.now())
    this.#flush(iface)
  }

  #flush({ ip, port }: DeviceInterface): void {
    let sent = false
    for (let frame = ip.pollTransmit(); frame !== undefined; frame = ip.pollTransmit()) {
      if (port.send(frame.bytes, frame.to)) sent = true
      else ip.countDropped(1)
    }
    if (sent) this.#environment.wake?.()
  }
}

/** Converts an IpError, which is a mistake of the program. Returns other errors as they are. */
const asCallError = (call: string, error: unknown): unknown =>
  error instanceof IpError ? new CallError(error.code, because`${the.method(call)}: ${error.message}`) : error
