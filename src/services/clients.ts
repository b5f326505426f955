/*
 * The clients of the subsystem that serve programs (R31, R40). They start in the order of the table `starters`. Core
 * adds a device to them in this order and removes it in reverse order, and they stop in reverse order. So a client may
 * use the clients before it in the table. If a client fails to start, clients that do not use it work.
 */
import { coreClasses } from '../core/base/all.ts'
import { driverClass } from '../core/devices/driver.ts'
import type { CoreOptions } from '../core/devices/registry.ts'
import type { DriverClass } from '../core/driver-contract.ts'
import type { Core } from '../core/model.ts'
import type { LinkConditions } from '../settings/fabric.ts'
import type { SubnetPort } from '../spec/subnet-port.ts'
import { IbCm, type IbCmEnvironment } from './cm-client/ib-cm.ts'
import type { SubnetRoutes } from './ib-sa/port.ts'
import { ipClasses } from './ip-client/classes.ts'
import { IpOverDevice } from './ip-client/ip-over-device.ts'
import { madClasses } from './mad-client/classes.ts'
import { MadLayer } from './mad-client/layer.ts'
import { cmClasses } from './rdma-cm/classes.ts'
import { RdmaCm, type RdmaCmEnvironment } from './rdma-cm/rdma-cm.ts'
import type { EmbeddedSubnet, SubnetEnvironment } from './subnet-client/embedded-subnet.ts'

interface ClientTypes {
  /** Queue pair 1 of every device, and its agents. */
  readonly mad: MadLayer
  /** InfiniBand's connection manager. */
  readonly ib_cm: IbCm
  /** Connections by address and port. */
  readonly rdma_cm: RdmaCm
  /** IP over the device. */
  readonly ipoib: IpOverDevice
}
type ClientName = keyof ClientTypes

const starters: { readonly [N in ClientName]: (clients: Clients) => ClientTypes[N] } = {
  mad: ({ core, environment }) => new MadLayer(core, environment),
  ib_cm: clients =>
    new IbCm(
      clients.use('mad'),
      clients.environment,
      (device, mads) => new clients.subnetCode.Routes(device, mads, clients.environment.random),
    ),
  rdma_cm: clients => new RdmaCm(clients.core, clients.use('ib_cm'), clients.environment),
  ipoib: ({ core, environment }) => new IpOverDevice(core, environment),
}
/** In the order of their start. */
export const clientNames = Object.keys(starters) as readonly ClientName[]

/** The subnet and what asks it, which only InfiniBand ports need. */
interface SubnetCode {
  readonly Subnet: typeof EmbeddedSubnet
  readonly Routes: typeof SubnetRoutes
}

/** Takes 30 ms. */
export const importSubnet = async (): Promise<SubnetCode> => {
  const { EmbeddedSubnet: Subnet } = await import('./subnet-client/embedded-subnet.ts')
  const { SubnetRoutes: Routes } = await import('./ib-sa/port.ts')
  return { Subnet, Routes }
}

/** What InfiniBand ports are cabled to. */
export interface Subnet extends TimedClient {
  /** Throws an Error if there is no place for the port. */
  attach(port: SubnetPort): void
  /**
   * Pulls or plugs the cables between two switches. Returns false if there are none. Absent: another process has them.
   */
  setCable?(a: string, b: string, isPlugged: boolean): boolean
  /**
   * What the links between two switches do to packets; undefined: what the fabric says. Returns false if there are
   * none. Throws an Error if there is no place for it. Absent: another process has them.
   */
  setConditions?(a: string, b: string, conditions: LinkConditions | undefined): boolean
  /** Resolves when the ports are ACTIVE that a manager configures; undefined: they are. Absent: its owner knows. */
  configured?(): Promise<void> | undefined
  close(): void
}

interface TimedClient {
  nextTimeout(): number
  onTimeout(now: number): boolean
}

/** What the clients need of their process. */
export type ClientEnvironment = IbCmEnvironment &
  RdmaCmEnvironment &
  SubnetEnvironment & {
    /** The subnet of InfiniBand ports; default: one of this process. */
    readonly subnet?: Subnet
  }

export class Clients {
  readonly core: Core
  readonly environment: ClientEnvironment
  readonly #started: Partial<{ -readonly [N in ClientName]: ClientTypes[N] }> = {}
  readonly #timed: TimedClient[] = []
  #subnet: Subnet | undefined
  #subnetCode: SubnetCode | undefined

  constructor(core: Core, environment: ClientEnvironment) {
    this.core = core
    this.environment = environment
  }

  /**
   * Returns a client. If the client has not started, first starts the clients before it in the table, then the client.
   * Throws the error of the client's start. Errors of earlier clients are reported to core.
   */
  use<N extends ClientName>(name: N): ClientTypes[N] {
    const started = this.#started[name]
    if (started !== undefined) return started as ClientTypes[N]
    for (const earlier of clientNames.slice(0, clientNames.indexOf(name)))
      try {
        this.use(earlier)
      } catch (error) {
        this.core.report(error)
      }
    return this.#start(name)
  }

  #start<N extends ClientName>(name: N): ClientTypes[N] {
    const client = starters[name](this)
    this.#started[name] = client
    if ('onTimeout' in client) this.#timed.push(client)
    return client
  }

  /** Before the first InfiniBand port is made. */
  async loadSubnet(): Promise<void> {
    this.#subnetCode ??= await importSubnet()
  }

  /** Throws an Error before `loadSubnet`. */
  get subnetCode(): SubnetCode {
    if (this.#subnetCode === undefined) throw new Error('an InfiniBand port was made before loadSubnet')
    return this.#subnetCode
  }

  set subnetCode(code: SubnetCode) {
    this.#subnetCode = code
  }

  /** The subnet of InfiniBand ports, which starts with the first use. */
  get subnet(): Subnet {
    if (this.#subnet === undefined) {
      this.#subnet = this.environment.subnet ?? new this.subnetCode.Subnet(this.environment)
      this.#timed.push(this.#subnet)
    }
    return this.#subnet
  }

  /** See `Subnet`; also false if no InfiniBand port has been made. */
  setCable(a: string, b: string, isPlugged: boolean): boolean {
    return this.#subnet?.setCable?.(a, b, isPlugged) ?? false
  }

  /** See `Subnet`. */
  configured(): Promise<void> | undefined {
    return this.#subnet?.configured?.()
  }

  /** See `Subnet`; also false if no InfiniBand port has been made. */
  setConditions(a: string, b: string, conditions: LinkConditions | undefined): boolean {
    return this.#subnet?.setConditions?.(a, b, conditions) ?? false
  }

  /** When `onTimeout` must be called next, µs; Infinity: never. */
  nextTimeout(): number {
    // Hot path: called after every call and poll of a program in this process. No iterator.
    let next = Number.POSITIVE_INFINITY
    for (let i = 0; i < this.#timed.length; i++) next = Math.min(next, this.#timed[i]!.nextTimeout())
    return next
  }

  /** False if no client had a due timer. */
  onTimeout(now: number): boolean {
    let progress = false
    for (const client of this.#timed) progress = client.onTimeout(now) || progress
    return progress
  }

  /** Functions that stop the clients, in reverse order, and then the subnet. */
  get stopSteps(): readonly (() => void)[] {
    const ofClients = [...clientNames].reverse().map(name => () => this.#started[name]?.close())
    return [...ofClients, () => this.#subnet?.close()]
  }
}

/** A line of a device's table: the class with the handlers of core. */
const asListed = ({ class: cls }: DriverClass): DriverClass => driverClass(cls)

/** The classes of a core with clients. A method starts the client that it needs. */
export const classesWithClients = (
  clients: () => Clients,
): Required<Pick<CoreOptions, 'classes' | 'clientClasses'>> => {
  const overManagement = madClasses(() => clients().use('mad'))
  const connections = cmClasses(() => clients().use('rdma_cm'))
  const overDatagrams = ipClasses(() => clients().use('ipoib'))
  return {
    classes: [...coreClasses, ...overManagement, ...connections, ...overDatagrams],
    clientClasses: [
      { needs: ['openManagement'], classes: overManagement.map(asListed) },
      { needs: ['openManagement', 'openConnections'], classes: connections.map(asListed) },
      { needs: ['openDatagrams'], classes: overDatagrams.map(asListed) },
    ],
  }
}
