/*
 * The subnet of a daemon's InfiniBand ports whose switches are another process's (`--fabric socket=PATH`): for each
 * port a trunk to the switches. A LID of another port leads into the trunk, and the switches do the rest. They say
 * which LIDs there are (`peers`), so that a LID that no port has is known here.
 */
import { hostname } from 'node:os'
import { SystemError } from '../../host/errno.ts'
import { close, connect, peerCredentials } from '../../host/net/sockets.ts'
import { PortState } from '../../spec/enums.ts'
import type { PortSubnet, SubnetPort } from '../../spec/subnet-port.ts'
import { FIRST_MULTICAST_LID, PERMISSIVE_LID } from '../../spec/wire/subnet.ts'
import type { Port, PortFabric } from '../../transport/phy/port.ts'
import { isSameAddress } from '../../transport/wire/address.ts'
import { controlMessage, FABRIC_VERSION, type FabricPeer, type PortMessage, readSwitchMessage } from './messages.ts'
import { Trunk } from './trunk.ts'

interface RemoteSubnetParts {
  /** A port of the memory link. */
  readonly attach: () => Port
  readonly kick: () => void
  readonly guard: (name: string, body: () => void) => () => void
  readonly log: (line: string) => void
}

interface Cabled {
  readonly trunk: Trunk
  readonly port: SubnetPort
  /** Undefined: the switches have not answered. */
  hasManager: boolean | undefined
}

const { ACTIVE, DOWN } = PortState.values

export class RemoteSubnet {
  readonly #path: string
  readonly #parts: RemoteSubnetParts
  readonly #cabled = new Map<SubnetPort, Cabled>()
  #peers: ReadonlyMap<number, FabricPeer> = new Map()
  #settled = (): void => {}
  #disturbances = 0

  constructor(path: string, parts: RemoteSubnetParts) {
    this.#path = path
    this.#parts = parts
  }

  close(): void {
    for (const { trunk } of this.#cabled.values()) trunk.close()
    this.#cabled.clear()
  }

  /** Cables a port to the switches. Throws an Error with a message for people if they are not there. */
  attach(port: SubnetPort): void {
    const { guard, kick, log } = this.#parts
    const describe = (): string => `${hostname()} ${port.description}`
    const trunk = new Trunk(this.#connect(port), {
      guard,
      kick,
      onControl: bytes => this.#onMessage(cabled, bytes),
      onEnd: reason => {
        this.#cabled.delete(port)
        log(`userdma daemon: ${port.description} has no switch any more: ${reason}`)
        port.set({ state: DOWN, lid: 0 })
        this.#tellSettled()
      },
    })
    const cabled: Cabled = { trunk, port, hasManager: undefined }
    this.#cabled.set(port, cabled)
    const uplink = this.#parts.attach()
    trunk.open(uplink)
    const fabric: PortFabric = {
      lid: PERMISSIVE_LID,
      isTrunk: true,
      reached: dlid => (dlid >= FIRST_MULTICAST_LID || dlid === port.settings.lid ? [port] : []),
      lost: () => {},
    }
    uplink.setFabric?.(fabric)
    const say = (message: PortMessage, mayLose = false): void => trunk.sendControl(controlMessage(message), mayLose)
    const subnet: PortSubnet = {
      send: (mad, path) => say({ kind: 'send', mad, path }, true),
      news: news =>
        say({ kind: 'news', news, capabilityMask: port.capabilityMask, description: describe() }, 'key' in news),
      reached: dlid => {
        if (dlid === port.settings.lid) return [port]
        return dlid >= FIRST_MULTICAST_LID || this.#peers.has(dlid) ? [fabric] : []
      },
      lost: (dlid, packets) => say({ kind: 'lost', dlid, packets }, true),
      disturb: disturbance => {
        const number = ++this.#disturbances
        say({ kind: 'disturb', number, disturbance })
        return disturbance.kind === 'lid' ? undefined : () => say({ kind: 'end', number })
      },
      removed: () => {
        this.#cabled.delete(port)
        trunk.close()
      },
    }
    const { identity, capabilityMask, settings, addresses } = port
    const own = { description: describe(), identity, capabilityMask, settings, addresses }
    say({ kind: 'hello', version: FABRIC_VERSION, ...own })
    port.attach(subnet)
  }

  #connect({ description }: SubnetPort): number {
    try {
      const fd = connect(this.#path)
      // Who serves the path decides where packets go, and what the port is.
      const { uid } = peerCredentials(fd)
      if (uid === process.geteuid?.()) return fd
      close(fd)
      throw new Error(
        `device ${description}: user ${uid} serves ${this.#path}, and switches are of the daemon's own user`,
      )
    } catch (error) {
      if (!(error instanceof SystemError)) throw error
      throw new Error(
        `device ${description}: no daemon serves InfiniBand ports at ${this.#path} (${error.message}); start it with --fabric …,serve=yes`,
        { cause: error },
      )
    }
  }

  /** False: it is no message of the switches. */
  #onMessage(cabled: Cabled, bytes: Uint8Array): boolean {
    const message = readSwitchMessage(bytes)
    if (message === undefined) return false
    const { port } = cabled
    switch (message.kind) {
      case 'welcome':
        cabled.hasManager = message.hasManager
        break
      case 'refused':
        cabled.hasManager = false
        this.#parts.log(`userdma daemon: the switches refuse ${port.description}: ${message.reason}`)
        break
      case 'set':
        port.set(message.change)
        break
      case 'reregister':
        port.reregister()
        break
      case 'deliver':
        port.deliver(message.mad, message.path)
        break
      case 'peers':
        this.#peers = new Map(message.peers.map(peer => [peer.lid, peer]))
        for (const each of this.#cabled.keys()) each.rerouted()
    }
    this.#tellSettled()
    return true
  }

  /** The GID of the port that has this IP address, or GID. */
  gidOf(address: Uint8Array): Uint8Array | undefined {
    for (const { gid, addresses } of this.#peers.values())
      if ([gid, ...addresses].some(each => isSameAddress(each, address))) return gid
    return undefined
  }

  // ---- turns ----

  get #isSettled(): boolean {
    return [...this.#cabled.values()].every(
      ({ hasManager, port }) => hasManager === false || (hasManager === true && port.settings.state === ACTIVE),
    )
  }

  #tellSettled(): void {
    if (this.#isSettled) this.#settled()
  }

  /** Resolves when the ports are ACTIVE that a manager configures, at the latest after so many milliseconds. */
  settled(milliseconds: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, milliseconds)
      this.#settled = () => {
        clearTimeout(timer)
        resolve()
      }
      this.#tellSettled()
    })
  }

  nextTimeout(): number {
    let next = Number.POSITIVE_INFINITY
    for (const { trunk } of this.#cabled.values()) next = Math.min(next, trunk.nextTimeout())
    return next
  }

  onTimeout(now: number): boolean {
    let hadWork = false
    for (const { trunk } of this.#cabled.values()) hadWork = trunk.poll(now) || hadWork
    return hadWork
  }
}
