/*
 * The network of devices in this process (docs/decisions/one-provider.md): soft devices joined by memory, or on sockets
 * of this machine, driven by the program's own turns. Memory and `dgram` need no native code.
 *
 * Work moves when the program has posted (once for all that was posted in one go), when it polls a queue that is empty,
 * when packets arrive and when a timer of a device comes. What was posted is looked at in a microtask, so that what is
 * answered at once needs no turn of the event loop; after BUDGET of them without one, timers and sockets of the
 * program have their turn.
 */

import { clientClasses } from '../../clients/classes.ts'
import { MadLayer } from '../../clients/mad/layer.ts'
import { RdmaCm } from '../../clients/rdma-cm/rdma-cm.ts'
import { createCore, unregister } from '../../core/devices/registry.ts'
import { expire } from '../../core/events/events.ts'
import { nextDue } from '../../core/events/thresholds.ts'
import type { Core, Device as CoreDevice } from '../../core/model.ts'
import { identityOf } from '../../drivers/rxe/address/host-identity.ts'
import { identify } from '../../drivers/rxe/address/identity.ts'
import { createRxeDevice, type RxeDevice } from '../../drivers/rxe/device.ts'
import { Where } from '../../drivers/rxe/rings/posts.ts'
import { createSocketPort, type SocketLink, useNativeCrc } from '../../drivers/rxe/socket-ports.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { nextTurn, onNextTurn } from '../../host/event-loop/next-turn.ts'
import { createSlices } from '../../host/event-loop/slices.ts'
import { secureRandom } from '../../host/random.ts'
import { type FaultPort, withFaults } from '../../phy/faults/layer.ts'
import { parseFaults } from '../../phy/faults/rules.ts'
import { createMemorySwitch, memorySwitchBytes, type Path } from '../../phy/memory.ts'
import { CallError } from '../../spec/errno.ts'
import { type Link, links, paths } from '../../uapi/tool.ts'
import { parseAddress } from '../../wire/address.ts'
import { plainArena } from '../../wire/arena.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import { checkChoice, checkFunction, formatValue, invalidArgument, rdmaError, refused, rethrow } from '../error.ts'
import { showAs } from '../show.ts'
import { observe, publishWaits, type TracedCall } from './observe.ts'

/** Joins the devices of this process that are opened on it. */
export interface Network {
  /**
   * Adds a device of any driver, which `make` registers (`createCtxDevice` of userdma/drivers, or one of your own);
   * `open({ network, device: name })` opens it. The function that is answered removes it, whoever has it open. Throws
   * RdmaError EEXIST for a name that is in use.
   */
  addDevice(make: (core: Core) => CoreDevice): () => void
  /** Faults from now on, as `--fault` of the command line has them; the empty text ends them. */
  setFaults(text: string): void
  /**
   * Writes every packet of its soft devices, those that are opened later too, to a file as pcapng, until the function
   * that is answered is called. The file gets mode 0600; messages are packets meanwhile. Throws RdmaError EINVAL for a
   * file that cannot be written, as a symbolic link or another user's.
   */
  capture(path: string): () => void
  /** Calls `handler` after each call on a device of it, until the function that is answered is called. */
  trace(handler: (call: TracedCall) => void): () => void
}

/** Options of `createNetwork`. */
export interface NetworkOptions {
  /** Faults of every packet, see `Network.setFaults`. */
  readonly fault?: string
  /**
   * What joins the devices: memory of this process (default), or sockets on their addresses, which this machine must
   * have: `udp` reaches every RoCE device (needs the package koffi), `dgram` its like.
   */
  readonly link?: Link
  /**
   * How messages pass through memory: 'direct', the default, from buffer to buffer where nobody looks at packets or
   * disturbs them, or always as 'packets'. What programs see is the same.
   */
  readonly path?: Path
  /**
   * Integers from 0 to 2^32 - 1, from which the first keys of memory and numbers of queue pairs come. Default: the
   * system's generator, so that nobody foresees them; one of your own makes them repeatable.
   */
  readonly random?: () => number
}

export interface AttachedDevice {
  readonly rxe: RxeDevice
  readonly port: FaultPort
  /** Resolves once all its objects are gone. */
  remove(): Promise<void>
}

export interface LocalNetwork extends Network {
  readonly core: Core
  readonly link: Link
  /** Devices that were added so far, those that are gone included. */
  added: number
  add(name: string, address: string): AttachedDevice
  /** The soft device with this name. */
  softDevice(name: string): AttachedDevice | undefined
  /** Work may have been posted: it is looked at when what the program is doing has ended. */
  kick(): void
  /** A call may have changed something: the next drive looks. */
  touch(): void
  /** A call has been made: the time of an event, which it may have set, is not missed. */
  mindTimes(): void
  drive(): boolean
  /** A promise for the next turn of the event loop, if there was none for long. */
  pause(): Promise<void> | undefined
  /** Long work goes on in the next turn of the event loop. */
  isResting(): boolean
}

/** Turns of devices that keep each other busy before others have their turn. */
const TURNS = 64
/** Microseconds of one drive. */
const LONGEST_DRIVE = 1000
/** Drives, and waits of programs, between two turns of the event loop. */
const BUDGET = 256
/** Idle drives, of some 20 ns each, of which one looks at the clock. */
const LOOKS = 32
const LONGEST_TIMER = 2 ** 31 - 1

const faultRules = (text: string) => {
  if (typeof text !== 'string')
    throw invalidArgument(
      'network.setFaults',
      `fault ${formatValue(text)} is no text`,
      'write "drop=1%", or "" for none',
    )
  try {
    return parseFaults(text)
  } catch (error) {
    throw invalidArgument('network.setFaults', (error as Error).message)
  }
}

/** Milliseconds from now to a time, for a timer. */
const delayTo = (due: number): number =>
  Math.min(Math.max(Math.ceil((due - nowMicroseconds()) / 1000), 1), LONGEST_TIMER)

/** A client of the subsystem with timers; µs. */
interface Timed {
  nextTimeout(): number
  onTimeout(now: number): boolean
}

/**
 * Drives devices: now, soon, and when their timers come. `quiet`: between two drives nothing happens but what
 * `touch` and timers tell of, so that polling an empty queue costs next to nothing.
 */
const createDriver = (core: Core, devices: readonly RxeDevice[], quiet: boolean, clients: () => readonly Timed[]) => {
  let touched = true
  /** A call was made since the last drive: it may have set a time of the device's. */
  let called = true
  let driving = false
  let scheduled = false
  /** A drive has ended before its work; it goes on in the next turn. */
  let resting = false
  let budget = BUDGET
  let looks = LOOKS
  let timer: NodeJS.Timeout | undefined
  let timerDue = Number.POSITIVE_INFINITY
  let clientTimer: NodeJS.Timeout | undefined
  let clientsDue = Number.POSITIVE_INFINITY

  const pollAll = (now: number): boolean => {
    let progress = false
    const isTime = now >= timerDue
    if (isTime) disarm()
    // Every post names its queue pair, so that idle ones cost nothing.
    for (let i = 0; i < devices.length; i++)
      if (isTime || devices[i]!.hasWork()) progress = devices[i]!.poll(now, Where.CHANGED) || progress
    return (isTime && expire(core, now)) || progress
  }
  /** What was posted is looked at, and what of it needs no turn is done. */
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
    mindClients()
    let due = nextDue(core)
    for (let i = 0; i < devices.length; i++) due = Math.min(due, devices[i]!.nextTimeout())
    if (due >= timerDue) return
    clearTimeout(timer)
    timerDue = due
    timer = setTimeout(onTimer, delayTo(due))
  }
  /** A process needs not go on for a connection or a response that nobody waits for: this timer does not keep it. */
  const mindClients = (): void => {
    let due = Number.POSITIVE_INFINITY
    for (const client of clients()) due = Math.min(due, client.nextTimeout())
    if (due >= clientsDue) return
    clearTimeout(clientTimer)
    clientsDue = due
    clientTimer = setTimeout(onClientTimer, delayTo(due)).unref()
  }
  const onClientTimer = (): void => {
    clientsDue = Number.POSITIVE_INFINITY
    for (const client of clients()) client.onTimeout(nowMicroseconds())
    mindClients()
  }
  const mindTimes = (): void => {
    mindClients()
    if (nextDue(core) < timerDue) armTimer()
  }
  const onTimer = (): void => {
    // It may come a little early: it is looked at who is due, and armed again, in any case.
    timerDue = Number.NEGATIVE_INFINITY
    touched = true
    drive()
  }
  /** Whether a timer has come, without a look at the clock each time: that makes a double on the heap. */
  const timerCame = (): boolean => {
    if (timerDue === Number.POSITIVE_INFINITY || --looks > 0) return false
    looks = LOOKS
    return nowMicroseconds() >= timerDue
  }
  const drive = (): boolean => {
    if (driving || (quiet && !touched && !timerCame())) return false
    driving = true
    touched = false
    let worked = ring()
    // Often that was all, and nobody waits for a time, which is dear to ask for.
    let busy = timerDue !== Number.POSITIVE_INFINITY || hasWork()
    if (!busy) {
      driving = false
      // What completed may have begun the time of a threshold, and sets no other.
      if (called) armTimer()
      else mindTimes()
      called = false
      return worked
    }
    const start = nowMicroseconds()
    for (let turn = 0, now = start; turn < TURNS && busy && now - start < LONGEST_DRIVE; turn++) {
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
  /** Long messages take their time: others in this process have theirs in between. */
  const driveNextTurn = (): void => {
    touched = true
    if (resting) return
    resting = true
    scheduled = true
    onNextTurn(resume)
  }
  const resume = (): void => {
    resting = false
    later()
  }
  const later = (): void => {
    scheduled = false
    drive()
  }
  const renew = (): void => {
    budget = BUDGET
    if (scheduled && !resting) later()
  }
  /** A turn of the event loop gives a new budget, and does what waits because the last one was used up. */
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
  return { drive, kick, touch, mindTimes, pause, isResting: () => resting, stop: disarm }
}

/** Objects of devices that were closed, destroyed in one turn of the event loop: some 0.3 ms. */
const ENDED_IN_TURN = 32
const throwOn = (error: unknown): never => {
  throw error
}

/** Devices of a network of memory at once. */
const MOST_DEVICES = 64

const networks = new WeakSet<object>()
/** Whether it was made by `createNetwork`. */
export const isNetwork = (value: unknown): value is LocalNetwork => networks.has(value as object)

const networkWords: Words<NetworkOptions> = { fault: true, link: true, path: true, random: true }

/** Makes a network of this process. Throws RdmaError EINVAL for an option that is wrong. */
export const createNetwork = (options: NetworkOptions = {}): Network => {
  checkOptions('createNetwork', 'options', options, networkWords)
  const { fault = '', link = 'memory', path = 'direct', random = secureRandom } = options
  checkChoice('createNetwork', 'link', link, links)
  checkChoice('createNetwork', 'path', path, paths)
  checkFunction('createNetwork', 'random', random)
  let madsOrNone: MadLayer | undefined
  let cmOrNone: RdmaCm | undefined
  const clients: Timed[] = []
  /** Made when somebody makes an agent or connects first: until then queue pair 1 of each device is the program's. */
  const mads = (): MadLayer => {
    if (madsOrNone === undefined) {
      madsOrNone = new MadLayer(core, { now: nowMicroseconds, wake: kick })
      clients.push(madsOrNone)
    }
    return madsOrNone
  }
  const cm = (): RdmaCm => {
    if (cmOrNone === undefined) {
      const routing = link === 'memory' ? { closed: true } : {}
      cmOrNone = new RdmaCm(core, mads(), { now: nowMicroseconds, random: secureRandom, routing, wake: kick })
      clients.push(cmOrNone)
    }
    return cmOrNone
  }
  const endings = createSlices(undefined, ENDED_IN_TURN)
  const core = createCore({
    now: nowMicroseconds,
    random,
    classes: clientClasses(cm, mads),
    run: job => endings.begin(job, throwOn),
  })
  const memory =
    link === 'memory'
      ? createMemorySwitch({ arena: plainArena(memorySwitchBytes()), sealing: 'demand', path })
      : undefined
  if (memory === undefined) useNativeCrc()
  const devices: RxeDevice[] = []
  const attached = new Map<string, AttachedDevice>()
  const { drive, kick, touch, mindTimes, pause, isResting, stop } = createDriver(
    core,
    devices,
    link === 'memory',
    () => clients,
  )
  let rules = faultRules(fault)

  const observed = observe(core, attached)

  const attach = (name: string, address: string) => {
    const bytes = parseAddress(address)
    if (bytes === undefined) throw invalidArgument('open', `address "${address}" is no IPv4 or IPv6 address`)
    const taken = devices.find(({ state }) => state.identity.gids.some(gid => String(gid) === String(bytes)))
    if (taken !== undefined) throw refused('EADDRINUSE', 'open', `${taken.device.name} of this network has ${address}`)
    if (memory !== undefined) {
      if (memory.stat().ports === MOST_DEVICES)
        throw refused(
          'ENOSPC',
          'open',
          `the network has ${MOST_DEVICES} devices, the most it can have`,
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
    added: 0,
    drive,
    kick,
    touch,
    mindTimes,
    pause,
    isResting,
    add(name, address) {
      const { port: bare, identity } = attach(name, address)
      const port = withFaults(bare, name, rules)
      let rxe: RxeDevice
      try {
        rxe = createRxeDevice(core, { name, identity, port, now: nowMicroseconds })
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
          // Peers of its connections hear that they end.
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
      // What was held back leaves.
      touch()
      kick()
    },
  }
  networks.add(network)
  showAs(network, 'Network', () => ({ link, path, devices: [...core.devices.keys()], faults: rules.length }))
  return network
}
