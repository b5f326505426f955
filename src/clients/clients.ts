/*
 * The clients of the subsystem (R31, R40): one table defines the order in which they are started. Core adds a device to
 * them in that order and removes it in reverse order, so that a client may use those above it; they are stopped in
 * reverse order too. A client that fails to start, as a whole or with one device, does not affect the others.
 */
import { coreClasses } from '../core/base/all.ts'
import type { Core, DriverClass } from '../core/model.ts'
import { ipClasses } from './ipoib/classes.ts'
import { IpOverDevice } from './ipoib/ip-over-device.ts'
import { madClasses } from './mad/classes.ts'
import { MadLayer } from './mad/layer.ts'
import { cmClasses } from './rdma-cm/classes.ts'
import { RdmaCm, type RdmaCmEnvironment } from './rdma-cm/rdma-cm.ts'

interface ClientTypes {
  /** Queue pair 1 of every device, and agents of it. */
  readonly mad: MadLayer
  /** Connections by address and port. */
  readonly rdma_cm: RdmaCm
  /** IP over the device. */
  readonly ipoib: IpOverDevice
}
export type ClientName = keyof ClientTypes

const begin: { readonly [N in ClientName]: (clients: Clients) => ClientTypes[N] } = {
  mad: ({ core, environment }) => new MadLayer(core, environment),
  rdma_cm: clients => new RdmaCm(clients.core, clients.use('mad'), clients.environment),
  ipoib: ({ core, environment }) => new IpOverDevice(core, environment),
}
/** In the order in which they are started. */
export const clientNames = Object.keys(begin) as readonly ClientName[]

/** A client that has timers. */
interface Timed {
  nextTimeout(): number
  onTimeout(now: number): boolean
}

export class Clients {
  readonly core: Core
  readonly environment: RdmaCmEnvironment
  readonly #begun: Partial<{ -readonly [N in ClientName]: ClientTypes[N] }> = {}
  readonly #timed: Timed[] = []

  constructor(core: Core, environment: RdmaCmEnvironment) {
    this.core = core
    this.environment = environment
  }

  /**
   * A client, which is started now if it was not yet, after those above it. Throws its error; a client above it that
   * fails is started again next time.
   */
  use<N extends ClientName>(name: N): ClientTypes[N] {
    const known = this.#begun[name]
    if (known !== undefined) return known as ClientTypes[N]
    for (const above of clientNames.slice(0, clientNames.indexOf(name)))
      try {
        this.use(above)
      } catch (error) {
        this.core.report(error)
      }
    return this.#begin(name)
  }

  #begin<N extends ClientName>(name: N): ClientTypes[N] {
    const client = begin[name](this)
    this.#begun[name] = client
    if ('onTimeout' in client) this.#timed.push(client)
    return client
  }

  /** When `onTimeout` must be called next, µs; Infinity for never. */
  nextTimeout(): number {
    // After every call and drive of a program in this process: no iterator is made.
    let next = Number.POSITIVE_INFINITY
    for (let i = 0; i < this.#timed.length; i++) next = Math.min(next, this.#timed[i]!.nextTimeout())
    return next
  }

  /** True if there was anything to do. */
  onTimeout(now: number): boolean {
    let progress = false
    for (const client of this.#timed) progress = client.onTimeout(now) || progress
    return progress
  }

  /** Steps that stop them, in reverse order. */
  get endings(): readonly (() => void)[] {
    return [...clientNames].reverse().map(name => () => this.#begun[name]?.close())
  }
}

/** The classes of a core with clients, which are started when a call arrives. */
export const classesWithClients = (clients: () => Clients): readonly DriverClass[] => [
  ...coreClasses,
  ...madClasses(() => clients().use('mad')),
  ...cmClasses(() => clients().use('rdma_cm')),
  ...ipClasses(() => clients().use('ipoib')),
]
