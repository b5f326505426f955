/*
 * The network of devices in this process (docs/decisions/one-provider.md): soft devices connected by memory or by
 * sockets of this machine, driven by the program's own event loop. Memory and `dgram` need no native code.
 *
 * A drive runs when the program has posted (once for everything posted in one go), polls an empty CQ, when packets
 * arrive, and when a device's timer expires. Posted requests are processed in a microtask, so that an immediate answer
 * needs no turn of the event loop; after BUDGET drives without one, the program's timers and sockets get a turn.
 */

import { Clients, classesWithClients } from '../../clients/clients.ts'
import { createCore, STEPS_PER_TURN, unregister } from '../../core/devices/registry.ts'
import { expire } from '../../core/events/events.ts'
import { nextDue } from '../../core/events/thresholds.ts'
import type { Core, Device as CoreDevice } from '../../core/model.ts'
import { identityOf } from '../../drivers/rxe/address/host-identity.ts'
import { identify } from '../../drivers/rxe/address/identity.ts'
import { createRxeDevice, type RxeDevice } from '../../drivers/rxe/device.ts'
import { Where } from '../../drivers/rxe/rings/posts.ts'
import { createSocketPort, type SocketLink, useNativeCrc } from '../../drivers/rxe/socket-ports.ts'
import { createTorment, PIECE_BYTES } from '../../drivers/rxe/torment/torment.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { nextTurn, onNextTurn } from '../../host/event-loop/next-turn.ts'
import { createSlices } from '../../host/event-loop/slices.ts'
import { secureRandom } from '../../host/random.ts'
import { type FaultPort, withFaults } from '../../phy/faults/layer.ts'
import { parseFaults } from '../../phy/faults/rules.ts'
import { createMemorySwitch, memorySwitchBytes, type Path } from '../../phy/memory.ts'
import { isSeed, SEED_RANGE } from '../../spec/check/torment.ts'
import { CallError } from '../../spec/errno.ts'
import { type Link, links, paths } from '../../uapi/tool.ts'
import { parseAddress } from '../../wire/address.ts'
import { plainArena } from '../../wire/arena.ts'
import type { CheckOptions } from '../check/options.ts'
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import { checkChoice, checkFunction, formatValue, invalidArgument, rdmaError, refused, rethrow } from '../error.ts'
import { showAs } from '../objects/show.ts'
import { observe, publishWaits, type TracedCall } from './observe.ts'

/** Connects the devices of this process that are opened on it. */
export interface Network {
  /**
   * Adds a device of any driver, which `make` creates (`createCtxDevice` of userdma/drivers, or your own); `open({
   * network, device: name })` opens it. The returned function removes it, even while it is open. Throws RdmaError
   * EEXIST if the name is in use.
   */
  addDevice(make: (core: Core) => CoreDevice): () => void
  /** Replaces the fault rules, in the syntax of `--fault`; an empty text removes them. */
  setFaults(text: string): void
  /**
   * Captures every packet of its soft devices, later ones included, to a pcapng file, until the returned function is
   * called. The file gets mode 0600; meanwhile messages travel as packets. Throws RdmaError EINVAL for a file that
   * cannot be written, such as a symbolic link or another user's.
   */
  capture(path: string): () => void
  /** Calls `handler` after each call on one of its devices, until the returned function is called. */
  trace(handler: (call: TracedCall) => void): () => void
}

/** Options of `createNetwork`. */
export interface NetworkOptions {
  /** Fault rules, see `Network.setFaults`. */
  readonly fault?: string
  /**
   * What connects the devices: memory of this process (default), or sockets on their addresses, which this machine must
   * have: `udp` reaches every RoCE device (needs the package koffi), `dgram` only other `dgram` devices.
   */
  readonly link?: Link
  /**
   * How messages pass through memory: 'direct', the default, from buffer to buffer unless packets are captured or
   * faulted; or always as 'packets'. Programs see no difference.
   */
  readonly path?: Path
  /**
   * Integers from 0 to 2^32 - 1, for the first memory keys and queue pair numbers. Default: the system's generator, so
   * that they are unpredictable; your own makes them repeatable.
   */
  readonly random?: () => number
  /** Checks all devices that are opened on it, see `OpenOptions.check`. Default: false. */
  readonly check?: boolean | CheckOptions
  /**
   * A seed, an integer from 0 to 2^32 - 1: the devices do what the specification allows and hardware rarely does, as
   * with `userdma check --torment`. Default: the usual.
   */
  readonly torment?: number
}

export interface AttachedDevice {
  readonly rxe: RxeDevice
  readonly port: FaultPort
  /** Resolves once all its objects are destroyed. */
  remove(): Promise<void>
}

export interface LocalNetwork extends Network {
  readonly core: Core
  readonly link: Link
  readonly check: boolean | CheckOptions | undefined
  /** Devices added so far, including removed ones. */
  added: number
  add(name: string, address: string): AttachedDevice
  /** The soft device with this name. */
  softDevice(name: string): AttachedDevice | undefined
  /** Work may have been posted: drives after the current task of the program. */
  kick(): void
  /** A call may have changed something: the next drive polls everything. */
  touch(): void
  /** A call was made: a timer that it may have set must not be missed. */
  scheduleTimers(): void
  drive(): boolean
  /** A promise for the next turn of the event loop, if there has been none for long. */
  pause(): Promise<void> | undefined
  /** Whether a drive stopped before its work was done; the next turn of the event loop continues it. */
  awaitsNextTurn(): boolean
}

/** Maximum rounds of one drive: devices that keep each other busy let the event loop run between drives. */
const MAX_ROUNDS = 64
/** Maximum microseconds of one drive. */
const LONGEST_DRIVE = 1000
/** Maximum drives, and waits of programs, between two turns of the event loop. */
const BUDGET = 256
/** The clock is read in one idle drive out of this many: a drive takes some 20 ns. */
const CLOCK_INTERVAL = 32
const LONGEST_TIMER = 2 ** 31 - 1

const faultRules = (text: string) => {
  if (typeof text !== 'string')
    throw invalidArgument(
      'network.setFaults',
      `fault ${formatValue(text)} is not a string`,
      'write "drop=1%", or "" for none',
    )
  try {
    return parseFaults(text)
  } catch (error) {
    throw invalidArgument('network.setFaults', (error as Error).message)
  }
}

/** Milliseconds from now to a time, for setTimeout. */
const delayTo = (due: number): number =>
  Math.min(Math.max(Math.ceil((due - nowMicroseconds()) / 1000), 1), LONGEST_TIMER)

/**
 * Drives devices: now, soon, or when their timers expire. `quiet`: between two drives nothing can happen except what
 * `touch` and timers report, so that polling an empty CQ costs almost nothing.
 */
const createDriver = (core: Core, devices: readonly RxeDevice[], quiet: boolean, clients: Clients) => {
  let touched = true
  /** A call was made since the last drive: it may have set a timer. */
  let called = true
  let driving = false
  let scheduled = false
  /** A drive stopped before its work was done; the next turn of the event loop continues it. */
  let continues = false
  let budget = BUDGET
  let untilClockRead = CLOCK_INTERVAL
  let timer: NodeJS.Timeout | undefined
  let timerDue = Number.POSITIVE_INFINITY
  let clientTimer: NodeJS.Timeout | undefined
  let clientsDue = Number.POSITIVE_INFINITY

  const pollAll = (now: number): boolean => {
    let progress = false
    const hasExpired = now >= timerDue
    if (hasExpired) disarm()
    // Every post names its queue pair, so that idle ones cost nothing.
    for (let i = 0; i < devices.length; i++)
      if (hasExpired || devices[i]!.hasWork()) progress = devices[i]!.poll(now, Where.CHANGED) || progress
    return (hasExpired && expire(core, now)) || progress
  }
  /** Processes posted requests that need no turn of the event loop. */
  const ring = (): boolean => {
    let found = false
    for (let i = 0; i < devices.length; i++) found = devices[i]!.ring() || found
    return found
  }
  const hasWork = (): boolean => {
    for (let i = 0; i < devices.length; i++) if (devices[i]!.hasWork()) return true
    return false
  }
  const disarm = (): void => {
    clearTimeout(timer)
    timerDue = Number.POSITIVE_INFINITY
  }
  const armTimer = (): void => {
    scheduleClients()
    let due = nextDue(core)
    for (let i = 0; i < devices.length; i++) due = Math.min(due, devices[i]!.nextTimeout())
    if (due >= timerDue) return
    clearTimeout(timer)
    timerDue = due
    timer = setTimeout(onTimer, delayTo(due))
  }
  /**
   * The timer of clients does not keep the process alive, since the program may not wait for their connections and
   * packets.
   */
  const scheduleClients = (): void => {
    const due = clients.nextTimeout()
    if (due >= clientsDue) return
    clearTimeout(clientTimer)
    clientsDue = due
    clientTimer = setTimeout(onClientTimer, delayTo(due)).unref()
  }
  const onClientTimer = (): void => {
    clientsDue = Number.POSITIVE_INFINITY
    clients.onTimeout(nowMicroseconds())
    scheduleClients()
  }
  const scheduleTimers = (): void => {
    scheduleClients()
    if (nextDue(core) < timerDue) armTimer()
  }
  const onTimer = (): void => {
    // The timer may fire slightly early; it is checked and armed again in any case.
    timerDue = Number.NEGATIVE_INFINITY
    touched = true
    drive()
  }
  /** Whether a timer has expired, without reading the clock each time, which allocates a double. */
  const hasTimerExpired = (): boolean => {
    if (timerDue === Number.POSITIVE_INFINITY || --untilClockRead > 0) return false
    untilClockRead = CLOCK_INTERVAL
    return nowMicroseconds() >= timerDue
  }
  const drive = (): boolean => {
    if (driving || (quiet && !touched && !hasTimerExpired())) return false
    driving = true
    touched = false
    let worked = ring()
    // Usually all work is done now, and computing the next timeout is expensive.
    let busy = timerDue !== Number.POSITIVE_INFINITY || hasWork()
    if (!busy) {
      driving = false
      // A completion may have started the timer of event moderation, and no other.
      if (called) armTimer()
      else scheduleTimers()
      called = false
      return worked
    }
    const start = nowMicroseconds()
    for (let round = 0, now = start; round < MAX_ROUNDS && busy && now - start < LONGEST_DRIVE; round++) {
      const progress = pollAll(now)
      worked = progress || worked
      busy = progress && hasWork()
      now = nowMicroseconds()
    }
    driving = false
    publishWaits(devices)
    if (busy) driveNextTurn()
    armTimer()
    called = false
    return worked
  }
  /** Long messages take time; the rest of the process gets turns in between. */
  const driveNextTurn = (): void => {
    touched = true
    if (continues) return
    continues = true
    scheduled = true
    onNextTurn(resume)
  }
  const resume = (): void => {
    continues = false
    later()
  }
  const later = (): void => {
    scheduled = false
    drive()
  }
  const renew = (): void => {
    budget = BUDGET
    if (scheduled && !continues) later()
  }
  /** Takes one from the budget; false if it is used up. The next turn of the event loop renews it. */
  const spend = (): boolean => {
    if (budget === BUDGET) onNextTurn(renew)
    if (budget === 0) return false
    budget--
    return true
  }
  const kick = (): void => {
    touched = true
    if (scheduled) return
    scheduled = true
    if (spend()) queueMicrotask(later)
  }
  const pause = (): Promise<void> | undefined => (spend() ? undefined : nextTurn())
  const touch = (): void => {
    touched = true
    called = true
  }
  return { drive, kick, touch, scheduleTimers, pause, awaitsNextTurn: () => continues, stop: disarm }
}

const throwOn = (error: unknown): never => {
  throw error
}

/** Maximum simultaneous devices of a memory network. */
const MAX_DEVICES = 64

const networks = new WeakSet<object>()
/** Whether the value is a network of `createNetwork`. */
export const isNetwork = (value: unknown): value is LocalNetwork => networks.has(value as object)

const networkOptionNames: KnownOptions<NetworkOptions> = {
  fault: true,
  link: true,
  path: true,
  random: true,
  check: true,
  torment: true,
}

/** Creates a network in this process. Throws RdmaError EINVAL for an invalid option. */
export const createNetwork = (options: NetworkOptions = {}): Network => {
  checkOptions('createNetwork', 'options', options, networkOptionNames)
  const { fault = '', link = 'memory', path = 'direct', random = secureRandom, check, torment: seed } = options
  checkChoice('createNetwork', 'link', link, links)
  checkChoice('createNetwork', 'path', path, paths)
  checkFunction('createNetwork', 'random', random)
  if (seed !== undefined && !isSeed(seed))
    throw invalidArgument('createNetwork', `torment ${formatValue(seed)} is no seed`, `a seed is ${SEED_RANGE}`)
  const slices = createSlices(undefined, STEPS_PER_TURN)
  const core = createCore({
    now: nowMicroseconds,
    random,
    classes: classesWithClients(() => clients),
    run: job => slices.begin(job, throwOn),
  })
  /** Clients start when a call needs one: until then queue pair 1 of each device is the program's. */
  const clients = new Clients(core, {
    now: nowMicroseconds,
    random: secureRandom,
    routing: link === 'memory' ? { closed: true } : {},
    wake: () => kick(),
  })
  const memory =
    link === 'memory'
      ? createMemorySwitch({ arena: plainArena(memorySwitchBytes()), sealing: 'demand', path })
      : undefined
  if (memory === undefined) useNativeCrc()
  const devices: RxeDevice[] = []
  const attached = new Map<string, AttachedDevice>()
  const { drive, kick, touch, scheduleTimers, pause, awaitsNextTurn, stop } = createDriver(
    core,
    devices,
    link === 'memory',
    clients,
  )
  const torment =
    seed === undefined ? undefined : createTorment({ seed, most: Number.POSITIVE_INFINITY }, plainArena(PIECE_BYTES))
  let rules = faultRules(fault)

  const observed = observe(core, attached)

  const attach = (name: string, address: string) => {
    const bytes = parseAddress(address)
    if (bytes === undefined) throw invalidArgument('open', `address "${address}" is not an IPv4 or IPv6 address`)
    const taken = devices.find(({ state }) => state.identity.gids.some(gid => String(gid) === String(bytes)))
    if (taken !== undefined)
      throw refused(
        'EADDRINUSE',
        'open',
        `address: ${formatValue(address)} is the address of ${taken.device.name} on this network`,
      )
    if (memory !== undefined) {
      if (memory.stat().ports === MAX_DEVICES)
        throw refused(
          'ENOSPC',
          'open',
          `the network has ${MAX_DEVICES} devices, the most it can have`,
          'close one first',
        )
      return { port: memory.attach(), identity: identify(bytes, { name: 'local', index: 0 }) }
    }
    const identity = identityOf({ address })
    try {
      return { port: createSocketPort(link as SocketLink, { name, address }, identity), identity }
    } catch (error) {
      throw error instanceof CallError ? rdmaError(error, 'open') : invalidArgument('open', (error as Error).message)
    }
  }

  const network: LocalNetwork = {
    core,
    link,
    check,
    added: 0,
    drive,
    kick,
    touch,
    scheduleTimers,
    pause,
    awaitsNextTurn,
    add(name, address) {
      const { port: bare, identity } = attach(name, address)
      const port = withFaults(bare, name, rules)
      let rxe: RxeDevice
      try {
        rxe = createRxeDevice(core, { name, identity, port, now: nowMicroseconds, torment })
      } catch (error) {
        port.close()
        throw error
      }
      if (link !== 'memory') port.wake = kick
      network.added++
      devices.push(rxe)
      const soft: AttachedDevice = {
        rxe,
        port,
        remove() {
          // Tells the peers of the device's connections that they end.
          touch()
          drive()
          devices.splice(devices.indexOf(rxe), 1)
          attached.delete(name)
          observed.removed(name)
          if (devices.length === 0) stop()
          return new Promise(ended => unregister(rxe.device, ended))
        },
      }
      attached.set(name, soft)
      observed.added(name, soft)
      return soft
    },
    softDevice: name => attached.get(name),
    capture: observed.capture,
    trace: observed.trace,
    addDevice(make) {
      checkFunction('network.addDevice', 'make', make)
      const device = rethrow('network.addDevice', () => make(core))
      return () => {
        if (device.alive) unregister(device)
      }
    },
    setFaults(text) {
      rules = faultRules(text)
      for (const { port } of attached.values()) port.setFaults(rules)
      // Sends the messages that were held back.
      touch()
      kick()
    },
  }
  networks.add(network)
  showAs(network, 'Network', () => ({ link, path, devices: [...core.devices.keys()], faults: rules.length }))
  return network
}
