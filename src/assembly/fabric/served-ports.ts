/*
 * The InfiniBand ports of other processes at the switches of this one (`--fabric …,serve=yes`): each has a connection
 * to a socket, and with it a port of the memory link, as a device of this process has.
 */
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import { holdFile, removeHeld } from '../../host/held-file.ts'
import { accept, close, listen, peerCredentials } from '../../host/net/sockets.ts'
import type { FabricSpec } from '../../settings/fabric.ts'
import { PortState } from '../../spec/enums.ts'
import type { ManagementPath, PortSubnet, SubnetPort, SubnetSettings } from '../../spec/subnet-port.ts'
import type { Port, PortFabric } from '../../transport/phy/port.ts'
import {
  controlMessage,
  FABRIC_VERSION,
  type FabricPeer,
  type PortMessage,
  readPortMessage,
  type SwitchMessage,
} from './messages.ts'
import { Trunk } from './trunk.ts'

interface ServedPortsParts {
  /** Cables a port to a switch. Throws an Error if none is free. */
  readonly cable: (port: SubnetPort) => void
  /** Where the manager of these switches is; `at`: at the port with this description. */
  readonly manager: FabricSpec['manager']
  /** A port of the memory link. Throws an Error if there is no further one. */
  readonly attach: () => Port
  readonly kick: () => void
  readonly guard: (name: string, body: () => void) => () => void
  readonly log: (line: string) => void
}

/** Connections, those that have said nothing too. */
const MAX_CONNECTIONS = 128
/** Of a connection, that have not ended. */
const MAX_DISTURBANCES = 1024
/** Microseconds within which a connection says what it is. */
const HELLO_TIME = 10_000_000

const { ACTIVE } = PortState.values

type Hello = Extract<PortMessage, { kind: 'hello' }>

/** A port of another process. */
class ServedPort implements SubnetPort, PortFabric {
  readonly identity: SubnetPort['identity']
  readonly addresses: readonly Uint8Array[]
  readonly isTrunk = true
  description: string
  capabilityMask: number
  settings: SubnetSettings
  subnet: PortSubnet | undefined
  changed: () => void = () => {}
  readonly #link: Port
  readonly #say: (message: SwitchMessage, mayLose?: boolean) => void

  constructor(hello: Hello, link: Port, say: (message: SwitchMessage, mayLose?: boolean) => void) {
    this.identity = hello.identity
    this.addresses = hello.addresses
    this.description = hello.description
    this.capabilityMask = hello.capabilityMask
    this.settings = hello.settings
    this.#link = link
    this.#say = say
  }

  get lid(): number {
    const { state, lid } = this.settings
    return state === ACTIVE ? lid : 0
  }

  reached(dlid: number): readonly object[] {
    return this.subnet?.reached(dlid) ?? []
  }

  lost(dlid: number, packets: number): void {
    this.subnet?.lost(dlid, packets)
  }

  attach(subnet: PortSubnet | undefined): void {
    this.subnet = subnet
  }

  set(change: Partial<SubnetSettings>): void {
    this.settings = { ...this.settings, ...change }
    this.#say({ kind: 'set', change })
    this.rerouted()
    this.changed()
  }

  rerouted(): void {
    this.#link.setFabric?.(this)
  }

  reregister(): void {
    this.#say({ kind: 'reregister' })
  }

  deliver(mad: Uint8Array, path: ManagementPath): void {
    this.#say({ kind: 'deliver', mad, path }, true)
  }
}

interface Connection {
  readonly trunk: Trunk
  /** What ends disturbances of the port's daemon, by their number. */
  readonly disturbed: Map<number, () => void>
  readonly since: number
  port: ServedPort | undefined
}

export class ServedPorts {
  readonly #parts: ServedPortsParts
  readonly #path: string
  readonly #fd: number
  /** A descriptor of the socket's file (held-file.ts). */
  readonly #file: number
  readonly #watch: Watch
  readonly #connections = new Set<Connection>()
  /** Whether `peers` may be others than those that were sent. */
  #isStale = false
  #sentPeers = ''

  /** Throws SystemError if another process serves `path`. */
  constructor(path: string, parts: ServedPortsParts) {
    this.#parts = parts
    this.#path = path
    this.#fd = listen(path)
    this.#file = holdFile(path)
    this.#watch = watch(
      this.#fd,
      { readable: true },
      parts.guard('the socket of InfiniBand ports', () => this.#accept()),
    )
  }

  close(): void {
    this.#watch.stop()
    removeHeld(this.#path, this.#file)
    close(this.#file)
    close(this.#fd)
    for (const connection of [...this.#connections]) this.#remove(connection)
  }

  #accept(): void {
    for (let fd = accept(this.#fd); fd >= 0; fd = accept(this.#fd))
      if (this.#connections.size >= MAX_CONNECTIONS || peerCredentials(fd).uid !== process.geteuid?.()) close(fd)
      else this.#begin(fd)
  }

  #begin(fd: number): void {
    const { guard, kick, log } = this.#parts
    const trunk = new Trunk(fd, {
      guard,
      kick,
      onControl: bytes => this.#onMessage(connection, bytes),
      onEnd: reason => {
        if (connection.port !== undefined) log(`userdma daemon: ${connection.port.description} is gone: ${reason}`)
        this.#remove(connection)
        kick()
      },
    })
    const connection: Connection = { trunk, disturbed: new Map(), since: nowMicroseconds(), port: undefined }
    this.#connections.add(connection)
  }

  #remove(connection: Connection): void {
    if (!this.#connections.delete(connection)) return
    connection.trunk.close()
    for (const end of connection.disturbed.values()) end()
    connection.port?.subnet?.removed()
    this.#isStale = true
  }

  /** False: it is no message of a port. */
  #onMessage(connection: Connection, bytes: Uint8Array): boolean {
    const message = readPortMessage(bytes)
    const { port } = connection
    if (message === undefined || (message.kind === 'hello') !== (port === undefined)) return false
    switch (message.kind) {
      case 'hello':
        this.#welcome(connection, message)
        break
      case 'send':
        port!.subnet?.send(message.mad, message.path)
        break
      case 'news':
        port!.capabilityMask = message.capabilityMask
        port!.description = message.description
        port!.subnet?.news(message.news)
        break
      case 'lost':
        port!.lost(message.dlid, message.packets)
        break
      case 'disturb':
        this.#disturb(connection, message)
        break
      case 'end':
        connection.disturbed.get(message.number)?.()
        connection.disturbed.delete(message.number)
    }
    return true
  }

  #disturb({ port, disturbed }: Connection, { number, disturbance }: Extract<PortMessage, { kind: 'disturb' }>): void {
    if (disturbed.size >= MAX_DISTURBANCES) return
    const end = port!.subnet?.disturb(disturbance)
    if (end !== undefined) disturbed.set(number, end)
    else if (disturbance.kind !== 'lid') {
      const what = disturbance.kind === 'cable' ? `cable ${disturbance.between?.join(':') ?? 'on its way'}` : 'manager'
      this.#parts.log(`userdma daemon: a fault rule of ${port!.description}: there is no ${what}`)
    }
  }

  get #hasManager(): boolean {
    const { manager } = this.#parts
    return typeof manager === 'object'
      ? [...this.#connections].some(({ port }) => port?.description === manager.at)
      : manager === 'embedded'
  }

  #welcome(connection: Connection, hello: Hello): void {
    const { trunk } = connection
    const say = (message: SwitchMessage, mayLose = false): void => trunk.sendControl(controlMessage(message), mayLose)
    const { attach, cable } = this.#parts
    try {
      if (hello.version !== FABRIC_VERSION)
        throw new Error(
          `it speaks version ${hello.version} of the protocol of InfiniBand ports, and the switches speak ${FABRIC_VERSION}: both need the same version of userdma`,
        )
      const link = attach()
      trunk.open(link)
      const port = new ServedPort(hello, link, say)
      port.changed = () => {
        this.#isStale = true
      }
      port.rerouted()
      cable(port)
      connection.port = port
      say({ kind: 'welcome', hasManager: this.#hasManager })
      this.#sentPeers = ''
      this.#isStale = true
    } catch (error) {
      say({ kind: 'refused', reason: (error as Error).message.slice(0, 256) })
    }
  }

  /** Tells all ports which there are, if that has changed. */
  #tellPeers(): void {
    this.#isStale = false
    const peers = [...this.#connections].flatMap(({ port }): readonly FabricPeer[] => {
      if (port === undefined || port.lid === 0) return []
      const { lid, addresses, settings, identity } = port
      return [{ lid, addresses, gid: Uint8Array.of(...settings.gidPrefix, ...identity.portGuid) }]
    })
    const message = controlMessage({ kind: 'peers', peers })
    const text = Buffer.from(message).toString('latin1')
    if (text === this.#sentPeers) return
    this.#sentPeers = text
    for (const { port, trunk } of this.#connections) if (port !== undefined) trunk.sendControl(message)
  }

  // ---- turns ----

  poll(now: number): boolean {
    let hadWork = false
    for (const connection of this.#connections) {
      hadWork = connection.trunk.poll(now) || hadWork
      if (connection.port === undefined && now - connection.since >= HELLO_TIME) this.#remove(connection)
    }
    if (this.#isStale) this.#tellPeers()
    return hadWork
  }

  nextTimeout(): number {
    let next = Number.POSITIVE_INFINITY
    for (const { trunk, port, since } of this.#connections)
      next = Math.min(next, trunk.nextTimeout(), port === undefined ? since + HELLO_TIME : Number.POSITIVE_INFINITY)
    return next
  }
}
