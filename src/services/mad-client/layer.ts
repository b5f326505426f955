/*
 * The MAD layer (R40; IBA 13) owns queue pairs 0 and 1 of every device that has them, and passes received datagrams to
 * services and agents. A service receives requests of a class on all devices. An agent receives requests of a class on
 * one device, and sends with a transaction engine (src/services/mad-engine).
 *
 * A response goes to the agent with the upper half of the response's transaction id. A request goes to the service or
 * agent that is registered for the request's class, version, method and OUI. If none is registered for a GET or SET,
 * the device answers (`ManagementPort.answer`). If the device does not, the layer answers "method or attribute not
 * supported", as in Linux. Requests to queue pair 0 are answered by the subnet's agents, before they get here.
 */
import { registerClient } from '../../core/devices/clients.ts'
import type { MadAddress, ManagementPort } from '../../core/driver-contract.ts'
import type { Core, Device } from '../../core/model.ts'
import { type CallError, callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import { GSI_QPN, MAD_BASE_VERSION } from '../../spec/wire/mad.ts'
import {
  CLASS_PORT_INFO,
  isSubnetManagement,
  MAD_STATUS_UNSUPPORTED,
  MadClass,
  MadMethod,
} from '../../spec/wire/management.ts'
import { SMI_QPN } from '../../spec/wire/subnet.ts'
import { type MadFields, madFields, respond, tidHigh } from '../../transport/wire/mad/management.ts'
import { MadAgentEngine, type SendOptions, type SendOutcome } from '../mad-engine/agent.ts'
import { type MadClaim, Registrations } from '../mad-engine/registrations.ts'

/** Receives requests of a class on every device. */
export interface MadService extends MadClaim {
  receive(device: Device, mad: Uint8Array, from: MadAddress): void
}

/** Callbacks of an agent. */
interface MadConsumer<T> {
  /** `message`: a request or response. If the engine does not do RMPP, it is one datagram. */
  receive(message: Uint8Array, from: MadAddress): void
  /** `message`: the message that was sent. */
  ended(tag: T, outcome: SendOutcome, message: Uint8Array): void
  /** See `AgentOwner` (src/services/mad-engine/agent.ts). */
  reserve?(bytes: number): boolean
  release?(bytes: number): void
}

export interface MadAgentOptions {
  /** The requests that the agent receives; undefined: only responses. */
  readonly claim: MadClaim | undefined
  /** As in `AgentOptions` (src/services/mad-engine/agent.ts). */
  readonly engineDoesRmpp: boolean
  /** Default: 1. */
  readonly qpn?: number
}

export interface MadAgent<T> {
  /** Number of unfinished sends. */
  readonly outstanding: number
  /** As `MadAgentEngine.send`. Throws CallError EIO if the device was removed. */
  send(message: Uint8Array, to: MadAddress, options: SendOptions<T>): boolean
  /** As `MadAgentEngine.abort`. */
  abort(tag: T): void
  /** As `MadAgentEngine.isTransfer`. */
  isTransfer(message: Uint8Array, mgmtClass: number): boolean
  /** Unregisters the agent. Its unfinished sends end as aborted. */
  close(): void
}

interface MadEnvironment {
  /** Microseconds. */
  readonly now: () => number
  /** Called when datagrams wait for the devices' next poll. */
  wake?(): void
}

type Receiver = Pick<MadService, 'receive'>

interface AgentReceiver extends Receiver, Pick<MadAgentEngine<MadAddress, unknown>, 'nextTimeout' | 'onTimeout'> {}

/** Queue pairs 0 and 1 of a device, and the receivers of their datagrams. */
interface MadPort {
  readonly queuePair: ManagementPort
  /** Queue pair 0; undefined: the port has no subnet management. */
  subnetQueuePair: ManagementPort | undefined
  readonly claims: Registrations<Receiver>
  /** Agents by the upper half of their transaction ids. */
  readonly agents: Map<number, AgentReceiver>
}

/** Of a port: after this number of repeated datagrams and ended sends, `onTimeout` leaves the rest to its next call. */
const MAX_TIMER_STEPS = 64
/** As in Linux, upper halves of transaction ids are below this number. */
const TID_HIGH_END = 2 ** 24

export class MadLayer {
  readonly #environment: MadEnvironment
  readonly #ports = new Map<Device, MadPort>()
  readonly #services = new Set<MadService>()
  readonly close: () => void
  /** The upper half of transaction ids of the newest agent; 0: there was none. */
  #lastTidHigh = 0
  /** No agent's timer is due before this time. */
  #nextTimer = Number.POSITIVE_INFINITY

  constructor(core: Core, environment: MadEnvironment) {
    this.#environment = environment
    this.close = registerClient(core, {
      name: 'mad',
      add: device => this.#add(device),
      remove: device => {
        this.#ports.get(device)?.queuePair.close()
        this.#ports.get(device)?.subnetQueuePair?.close()
        this.#ports.delete(device)
      },
    })
  }

  /** Whether the layer has queue pair 1 of the device. */
  hasQueuePair(device: Device): boolean {
    return this.#ports.has(device)
  }

  /**
   * Registers a service on all devices, later ones too. The returned function unregisters it. Throws CallError EBUSY
   * if, on a device, another service or agent has one of the methods.
   */
  register(service: MadService): () => void {
    const unregister = (): void => {
      this.#services.delete(service)
      for (const { claims } of this.#ports.values()) claims.remove(service, service)
    }
    try {
      for (const [device, port] of this.#ports) addService(service, device, port)
    } catch (error) {
      unregister()
      throw error
    }
    this.#services.add(service)
    return unregister
  }

  /**
   * Creates an agent on a device. Throws CallError: EINVAL if another agent or service has one of the methods; EIO if
   * the layer does not have queue pair 1 of the device; EPROTONOSUPPORT if the port has no subnet management.
   */
  createAgent<T>(
    device: Device,
    { claim, engineDoesRmpp, qpn = GSI_QPN }: MadAgentOptions,
    consumer: MadConsumer<T>,
  ): MadAgent<T> {
    const port = this.#portOf(device)
    const queuePair = qpn === GSI_QPN ? port.queuePair : port.subnetQueuePair
    if (queuePair === undefined) throw noSubnetManagement
    const highTid = this.#freeTidHigh(port)
    const engine = new MadAgentEngine<MadAddress, T>(
      { highTid, engineDoesRmpp },
      {
        transmit: (mad, to) => {
          queuePair.send(mad, to)
          this.#environment.wake?.()
        },
        wakeAt: time => {
          this.#nextTimer = Math.min(this.#nextTimer, time)
        },
        deliver: (message, from) => consumer.receive(message, from),
        ended: (tag, outcome, message) => consumer.ended(tag, outcome, message),
        reserve: bytes => consumer.reserve?.(bytes) ?? true,
        release: bytes => consumer.release?.(bytes),
      },
    )
    const receiver: AgentReceiver = {
      receive: (_device, mad, from) => engine.onMad(mad, from, this.#environment.now()),
      nextTimeout: () => engine.nextTimeout(),
      onTimeout: (now, max) => engine.onTimeout(now, max),
    }
    if (claim !== undefined && !port.claims.add(claim, receiver))
      throw callError.EINVAL`${the.method('mad_agent.create')}: ${the.attribute('methods')}: one of them is taken for class ${claim.mgmtClass}`
    port.agents.set(highTid, receiver)
    return {
      get outstanding() {
        return engine.outstanding
      },
      abort: tag => engine.abort(tag),
      isTransfer: (message, mgmtClass) => engine.isTransfer(message, mgmtClass),
      send: (message, to, options) => {
        if (this.#portOf(device) !== port) throw noQueuePair1(device)
        return engine.send(message, to, options, this.#environment.now())
      },
      close: () => {
        if (claim !== undefined) port.claims.remove(claim, receiver)
        port.agents.delete(highTid)
        engine.close()
      },
    }
  }

  /** Sends a datagram from queue pair 1 of a device; false if it was lost locally. The caller wakes the device. */
  send(device: Device, mad: Uint8Array, to: MadAddress): boolean {
    return this.#ports.get(device)?.queuePair.send(mad, to) ?? false
  }

  // ---- time ----

  /** When `onTimeout` must be called next, µs; Infinity: never. */
  nextTimeout(): number {
    return this.#nextTimer
  }

  /** Returns whether a timer was due. */
  onTimeout(now: number): boolean {
    if (now < this.#nextTimer) return false
    this.#nextTimer = Number.POSITIVE_INFINITY
    for (const { agents } of this.#ports.values()) {
      let budget = MAX_TIMER_STEPS
      for (const [highTid, agent] of [...agents]) {
        if (budget > 0 && agent.nextTimeout() <= now) {
          budget -= agent.onTimeout(now, budget)
          // Round robin: at the next call, other agents come first.
          if (agents.delete(highTid)) agents.set(highTid, agent)
        }
        this.#nextTimer = Math.min(this.#nextTimer, agent.nextTimeout())
      }
    }
    return true
  }

  // ---- internal ----

  #portOf(device: Device): MadPort {
    const port = this.#ports.get(device)
    if (port === undefined) throw noQueuePair1(device)
    return port
  }

  /** An upper half of transaction ids that no agent of the port has. */
  #freeTidHigh({ agents }: MadPort): number {
    do {
      this.#lastTidHigh = (this.#lastTidHigh % (TID_HIGH_END - 1)) + 1
    } while (agents.has(this.#lastTidHigh))
    return this.#lastTidHigh
  }

  #add(device: Device): boolean {
    const queuePair = device.driver.openManagement?.(device, (mad, from) => this.#receive(device, GSI_QPN, mad, from))
    if (queuePair === undefined) return false
    const subnetQueuePair = device.driver.openSubnetManagement?.(device, (mad, from) =>
      this.#receive(device, SMI_QPN, mad, from),
    )
    const port: MadPort = { queuePair, subnetQueuePair, claims: new Registrations(), agents: new Map() }
    this.#ports.set(device, port)
    for (const service of this.#services) addService(service, device, port)
    return true
  }

  #receive(device: Device, qpn: number, mad: Uint8Array, from: MadAddress): void {
    const madPort = this.#ports.get(device)
    const fields = madFields(mad)
    if (madPort === undefined || !isValid(fields, qpn)) return
    const { queuePair, claims, agents } = madPort
    const receiver = fields.isResponse ? agents.get(tidHigh(fields.tid)) : claims.find(fields)
    if (receiver !== undefined) receiver.receive(device, mad, from)
    else if (qpn === GSI_QPN && (fields.method === GET || fields.method === SET)) {
      queuePair.send(queuePair.answer?.(mad) ?? respond(mad, MAD_STATUS_UNSUPPORTED), from)
      this.#environment.wake?.()
    }
  }
}

const addService = (service: MadService, { name }: Device, { claims }: MadPort): void => {
  if (!claims.add(service, service))
    throw callError.EBUSY`a method of management class ${service.mgmtClass} is taken on ${name}`
}

const noQueuePair1 = ({ name }: Device): CallError => callError.EIO`device ${name} has no queue pair 1`

const noSubnetManagement = callError.EPROTONOSUPPORT`${the.method('mad_agent.create')}: ${the.attribute('qpn')}: a RoCE port has no subnet management (0)`

const { GET, SET, SEND } = MadMethod

/**
 * Whether a queue pair accepts a datagram (IBA 13.5): the classes of subnet management at queue pair 0, all others at
 * 1; of communication management only connection messages (method Send) and ClassPortInfo.
 */
const isValid = ({ baseVersion, mgmtClass, method, attribute }: MadFields, qpn: number): boolean =>
  baseVersion === MAD_BASE_VERSION &&
  isSubnetManagement(mgmtClass) === (qpn === SMI_QPN) &&
  (mgmtClass !== MadClass.COMMUNICATION || method === SEND || attribute === CLASS_PORT_INFO)
