/*
 * The network of devices in this process (docs/decisions/one-provider.md): soft devices connected by memory or by
 * sockets of this machine. The links memory and `dgram` need no native code.
 *
 * The program's event loop drives the devices: a drive polls them until they have no work. Drives run
 * - in a microtask after the program has posted or made a call, and when an asynchronous call ends;
 * - when the program polls an empty CQ, an event queue or a UDP socket, or waits for a completion;
 * - when a client (connection manager, IP) has work;
 * - when packets arrive;
 * - when a device's timer expires.
 * Microtasks run before timers and sockets of the program. Therefore only BUDGET drives in microtasks and waits are
 * allowed in a turn of the event loop; further drives and waits continue in the next turn.
 */

import { assemble } from '../../assembly/assembly.ts'
import { countersOf } from '../../assembly/counters.ts'
import { checkFabricRules } from '../../assembly/fabric-rules.ts'
import { identityOf } from '../../assembly/host-identity.ts'
import { moveGid } from '../../assembly/move-gid.ts'
import { createRandom } from '../../base/random.ts'
import { identify } from '../../core/devices/identity.ts'
import { STEPS_PER_TURN, unregister } from '../../core/devices/registry.ts'
import { NO_EVENT, ScanScope } from '../../core/driver-contract.ts'
import { expire, raisePort } from '../../core/events/events.ts'
import { nextDue } from '../../core/events/thresholds.ts'
import type { CallingProcess, Core } from '../../core/model.ts'
import { libraryDriver, type SoftDevice } from '../../drivers/registered.ts'
import { createProgramFaults } from '../../faults/program-faults.ts'
import { type FaultRule, noFaults, type RuleScope, targetOf } from '../../faults/rule.ts'
import { formatRule, lossByRule, parseFaults } from '../../faults/rules.ts'
import {
  type Clock,
  MAX_TIMER_DELAY,
  nextTurnOf,
  realClock,
  sleepOn,
  type Timer,
  waitAtLeast,
} from '../../host/event-loop/clock.ts'
import { createSlices } from '../../host/event-loop/slices.ts'
import { commandName, roleOf } from '../../host/process-status.ts'
import { secureRandom } from '../../host/random.ts'
import type { Clients } from '../../services/clients.ts'
import {
  isSeed,
  kindsOf,
  readHold,
  SEED_RANGE,
  type TormentKind,
  type TormentSetting,
  tormentOf,
} from '../../spec/check/torment.ts'
import { LineRate } from '../../spec/congestion.ts'
import { CallError } from '../../spec/errno.ts'
import { effectsIn, sumFaultRuleCounts } from '../../spec/faults.ts'
import { injectFaults } from '../../tools/clients/faults/inject.ts'
import { lossesOf } from '../../tools/clients/faults/losses.ts'
import { type FaultPort, withFaults } from '../../transport/phy/faults/layer.ts'
import { longestStay } from '../../transport/phy/links/graph.ts'
import type { PacketCarrier } from '../../transport/phy/links/packet-carrier.ts'
import { isSameAddress, parseAddress, reasonUnusable } from '../../transport/wire/address.ts'
import { links, paths } from '../../uapi/tool.ts'
import { checkOptions, checkRecord, copyOfValue, copyRecord, type KnownOptions } from '../verbs/arguments/options.ts'
import type { DeviceCounters } from '../verbs/carrier.ts'
import {
  checkChoice,
  checkFunction,
  formatValue,
  invalidArgument,
  rdmaError,
  refused,
  rethrow,
} from '../verbs/error.ts'
import { checkAbortOptions } from '../verbs/mailbox.ts'
import { showAs } from '../verbs/objects/show.ts'
import { closeAtThreadEnd, forgetThreadEnd } from '../verbs/thread-end.ts'
import {
  type AttachedDevice,
  checkRecording,
  type LocalNetwork,
  type Network,
  type NetworkOptions,
  networks,
  type TormentOptions,
} from './contract.ts'
import { checkFabric, fabricOptions } from './infiniband.ts'
import { compileTopology, lineRateOf, requirePaths } from './links.ts'
import { DeviceMarks } from './marks.ts'
import { observe, publishWaits } from './observe.ts'
import { createClockedLinks, linkStats } from './virtual/clocked-links.ts'
import { explore } from './virtual/explore.ts'
import { createHosts } from './virtual/hosts.ts'
import { createVirtualClock, type VirtualClock } from './virtual/virtual-clock.ts'

/** Maximum rounds of one drive, so that the event loop runs while devices keep each other busy. */
const MAX_ROUNDS = 64
/** Microseconds after which a drive starts no further round. */
const LONGEST_DRIVE = 1000
/** Maximum drives of `kick`, and waits of programs, in one turn of the event loop. */
const BUDGET = 256
/** One of CLOCK_INTERVAL idle drives reads the clock, because reading takes longer than the rest of the drive. */
const CLOCK_INTERVAL = 32

/** This process, as fault rules select it. A browser has none. */
export const ownProcess: CallingProcess =
  typeof process === 'undefined'
    ? { pid: 0, name: () => '' }
    : { pid: process.pid, name: () => commandName(process.pid) ?? process.title }

/** In this process all is the program's own. */
const anyScope: RuleScope = {
  pid: ownProcess.pid,
  receives: () => true,
  sends: () => true,
  mayChange: () => true,
}

/** Parses fault rules. Those without a seed of their own get `seed`. Throws RdmaError EINVAL. */
const faultRules = (call: string, text: string, seed: number | undefined, fabric: string | undefined) => {
  if (typeof text !== 'string')
    throw invalidArgument(call, `fault ${formatValue(text)} is not a string`, 'write "drop=1%", or "" for none')
  try {
    const parsed = parseFaults(text)
    const rules = parsed.map(rule => (rule.seed === noFaults.seed && seed !== undefined ? { ...rule, seed } : rule))
    checkFabricRules(rules, fabric, true)
    const delayed = rules.find(rule => targetOf(rule) === 'call' && rule.delay > 0)
    if (delayed !== undefined)
      throw new Error(
        `fault "${formatRule(delayed)}": calls of devices in this process are synchronous and cannot be delayed; use a daemon, or leave out delay`,
      )
    const outside = rules.find(rule => rule.gone > 0 || rule.signal !== '' || rule.stop > 0 || rule.notice.length > 0)
    if (outside !== undefined)
      throw new Error(
        `fault "${formatRule(outside)}": notice, gone, signal and stop are for programs under a daemon; in this process close the device, or delay your own handler`,
      )
    return rules
  } catch (error) {
    throw invalidArgument(call, (error as Error).message)
  }
}

/**
 * The functions of `LocalNetwork` that drive devices. `isMemoryLink`: devices get work only from `touch`, `kick` and
 * timers; other drives are skipped, so that polling an empty CQ costs almost nothing. `mayHaveAny`: devices may get work without
 * being marked. `hasDelays`: devices may delay
 * any work (torment), or packets take time. `carrier`: brings packets over links.
 */
const createDriveLoop = (
  core: Core,
  devices: readonly SoftDevice[],
  marks: DeviceMarks,
  isMemoryLink: boolean,
  mayHaveAny: boolean,
  hasDelays: boolean,
  clients: Clients,
  clock: Clock,
  carrier: PacketCarrier | undefined,
  stallWatches: ReadonlySet<() => void>,
) => {
  const { now: nowMicroseconds, onNextTurn } = clock
  let isTouched = true
  /** Whether a call was made since the last drive: it may have set a timer. */
  let wasCalled = true
  let isDriving = false
  /** Whether `runScheduled` will run: in a microtask, or in the next turn of the event loop. */
  let isScheduled = false
  /** Whether a drive stopped before its work was done; `resume` continues it in the next turn of the event loop. */
  let isInterrupted = false
  let budget = BUDGET
  /** Reading a virtual clock costs nothing, and a skipped drive must not depend on how many there were. */
  const clockInterval = clock.isVirtual ? 1 : CLOCK_INTERVAL
  let untilClockRead = clockInterval
  /** The timer of the devices. */
  let timer: Timer | undefined
  /** When `timer` is due, in microseconds; Infinity if it is not armed, -Infinity once it has fired. */
  let timerDue = Number.POSITIVE_INFINITY
  let clientTimer: Timer | undefined
  let clientsDue = Number.POSITIVE_INFINITY

  /** One round of a drive; true if there was work. `now` in microseconds. */
  const pollAll = (now: number): boolean => {
    let hasWorked = false
    const hasExpired = now >= timerDue
    if (hasExpired) {
      disarm()
      marks.markDue(now)
    }
    // CHANGED: only queue pairs that `onDoorbell` has reported are checked for requests.
    for (let i = marks.next(0); i >= 0; i = marks.next(i + 1))
      if (hasExpired || devices[i]!.hasWork()) hasWorked = devices[i]!.poll(now, ScanScope.CHANGED) || hasWorked
    return (hasExpired && expire(core, now)) || hasWorked
  }
  /** Processes the requests of queues that were reported by `onDoorbell`; true if there were any. */
  const processPosts = (): boolean => {
    let hasPosts = false
    for (let i = marks.next(0); i >= 0; i = marks.next(i + 1)) hasPosts = devices[i]!.scanChanged() || hasPosts
    return hasPosts
  }
  const hasWork = (): boolean => {
    for (let i = marks.next(0); i >= 0; i = marks.next(i + 1)) if (devices[i]!.hasWork()) return true
    return false
  }
  const disarm = (): void => {
    clock.clear(timer)
    timerDue = Number.POSITIVE_INFINITY
  }
  const armTimer = (): void => {
    scheduleClients()
    const due = Math.min(nextDue(core), marks.settle())
    if (due >= timerDue) return
    clock.clear(timer)
    timerDue = due
    timer = clock.at(due, 'device', onTimer)
  }
  /**
   * Arms the timer of clients (connection manager, IP). The timer does not keep the process alive, because the program
   * may not wait for the clients' connections and packets.
   */
  const scheduleClients = (): void => {
    const due = clients.nextTimeout()
    if (due >= clientsDue) return
    clock.clear(clientTimer)
    clientsDue = due
    clientTimer = clock.at(due, 'background', onClientTimer)
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
    // Node's timers may fire slightly early. The drive then finds no expired timer, and arms the timer again.
    timerDue = Number.NEGATIVE_INFINITY
    isTouched = true
    drive()
  }
  /** Whether the timer is due; reads the clock only now and then, because that allocates a double. */
  const hasTimerExpired = (): boolean => {
    if (timerDue === Number.POSITIVE_INFINITY || --untilClockRead > 0) return false
    untilClockRead = clockInterval
    return nowMicroseconds() >= timerDue
  }
  const drive = (): boolean => {
    if (isDriving) return false
    const hasArrivals = carrier !== undefined && carrier.links.nextAt() <= nowMicroseconds() && carrier.poll()
    if (isMemoryLink && !isTouched && !hasArrivals && !hasTimerExpired()) return false
    isDriving = true
    isTouched = false
    if (mayHaveAny) marks.markAll()
    let hasWorked = processPosts()
    // Usually all work is done now; the rounds below, and `armTimer` after them, are expensive.
    let isBusy = timerDue !== Number.POSITIVE_INFINITY || hasWork()
    if (!isBusy) {
      isDriving = false
      // Without a call only the timer of event moderation may be new: a completion starts it. Torment may also delay a
      // post or its completion, and packets may be in flight.
      if (wasCalled || hasDelays) armTimer()
      else scheduleTimers()
      wasCalled = false
      return hasWorked
    }
    const start = nowMicroseconds()
    for (let round = 0, now = start; round < MAX_ROUNDS && isBusy && now - start < LONGEST_DRIVE; round++) {
      const hasProgress = pollAll(now)
      hasWorked = hasProgress || hasWorked
      isBusy = hasProgress && hasWork()
      now = nowMicroseconds()
    }
    isDriving = false
    publishWaits(devices)
    for (const look of stallWatches) look()
    if (isBusy) driveNextTurn()
    armTimer()
    wasCalled = false
    return hasWorked
  }
  /** Continues an interrupted drive in the next turn of the event loop, after the rest of the process. */
  const driveNextTurn = (): void => {
    isTouched = true
    if (isInterrupted) return
    isInterrupted = true
    isScheduled = true
    onNextTurn(resume)
  }
  const resume = (): void => {
    isInterrupted = false
    runScheduled()
  }
  const runScheduled = (): void => {
    isScheduled = false
    drive()
  }
  /** In the next turn: renews the budget, and runs the drive that was over the budget. */
  const renewBudget = (): void => {
    budget = BUDGET
    if (isScheduled && !isInterrupted) runScheduled()
  }
  /** Takes one from the budget of this turn of the event loop; false if the budget is used up. */
  const spend = (): boolean => {
    if (budget === BUDGET) onNextTurn(renewBudget)
    if (budget === 0) return false
    budget--
    return true
  }
  const kick = (device?: SoftDevice): void => {
    isTouched = true
    if (device === undefined) marks.markAll()
    else marks.mark(device)
    if (isScheduled) return
    isScheduled = true
    if (spend()) queueMicrotask(runScheduled)
  }
  const overdueTurn = (): Promise<void> | undefined => (spend() ? undefined : nextTurnOf(clock))
  const touch = (device?: SoftDevice): void => {
    wasCalled = true
    kick(device)
  }
  /** Arms the timer again without the timers of a removed device. */
  const rearm = (): void => {
    disarm()
    armTimer()
  }
  return {
    drive,
    kick,
    touch,
    scheduleTimers,
    overdueTurn,
    awaitsNextTurn: () => isInterrupted,
    isDriving: () => isDriving,
    rearm,
  }
}

/** Exceptions of jobs are bugs of the library, and reach the program as uncaught exceptions. */
const rethrowBug = (error: unknown): never => {
  throw error
}

/** Milliseconds that the manager of InfiniBand ports may take. */
const MAX_CONFIGURATION_TIME = 10_000
/** Maximum simultaneous devices of a network. */
const MAX_DEVICES = 1024

const networkOptionNames: KnownOptions<NetworkOptions> = {
  fault: true,
  link: true,
  path: true,
  random: true,
  check: true,
  torment: true,
  record: true,
  clock: true,
  links: true,
  fabric: true,
  dcqcn: true,
  seed: true,
  external: true,
}

/** The time that packets take in virtual time, microseconds: that of a switch and two adapters of a data centre. */
const TRANSIT_TIME = 2

/** Checks the options of virtual time, and returns the clock. Throws RdmaError EINVAL. */
const clockOf = (options: NetworkOptions): Clock | VirtualClock => {
  const { clock = 'real', seed, external, link, path, random, links: topology } = options
  const call = 'createNetwork'
  checkChoice(call, 'clock', clock, ['real', 'virtual'])
  if (seed !== undefined && !isSeed(seed))
    throw invalidArgument(call, `seed ${formatValue(seed)} is not a seed`, `a seed is ${SEED_RANGE}`)
  if (seed !== undefined && random !== undefined)
    throw invalidArgument(call, `random and seed ${seed}: both give the random numbers`, 'leave out one of them')
  if (clock === 'real') {
    if (external !== undefined) throw invalidArgument(call, `external ${formatValue(external)} is for clock 'virtual'`)
    if (topology !== undefined)
      throw invalidArgument(
        call,
        "links are for clock 'virtual': in real time, delays of this process would count as the network's",
        'use `userdma net` or fault rules with delay and rate',
      )
    return realClock
  }
  if (external !== undefined) checkChoice(call, 'external', external, ['refuse', 'wait'])
  if (link !== undefined && link !== 'memory')
    throw invalidArgument(
      call,
      `link "${link}": sockets are not in virtual time`,
      "leave out link, or clock: 'virtual'",
    )
  if (path === 'direct')
    throw invalidArgument(call, 'path "direct": messages without packets take no time', 'leave out path')
  return createVirtualClock(external ?? 'refuse')
}

const checkDelay = (call: string, milliseconds: number): void => {
  if (typeof milliseconds !== 'number' || !(milliseconds >= 0 && milliseconds <= MAX_TIMER_DELAY))
    throw invalidArgument(
      call,
      `${formatValue(milliseconds)} is not a number of milliseconds`,
      `0 to ${MAX_TIMER_DELAY} are allowed`,
    )
}

/** The functions of a network for programs that wait. */
const waitsOn = (clock: Clock): Pick<Network, 'now' | 'sleep' | 'timeout'> => ({
  now: () => clock.now() / 1000,
  async sleep(milliseconds, options = {}) {
    checkDelay('network.sleep', milliseconds)
    checkAbortOptions('network.sleep', options)
    const { signal } = options
    const wait = signal?.aborted ? Promise.reject(signal.reason) : sleepOn(clock, milliseconds, signal)
    await clock.watch('network.sleep', wait)
  },
  timeout(milliseconds) {
    checkDelay('network.timeout', milliseconds)
    // It refuses fractions.
    if (!clock.isVirtual) return AbortSignal.timeout(Math.ceil(milliseconds))
    const controller = new AbortController()
    // The reason of AbortSignal.timeout.
    const reason = new DOMException('The operation was aborted due to timeout', 'TimeoutError')
    clock.after(milliseconds, 'program', () => controller.abort(reason))
    return controller.signal
  },
})

const tormentNames: KnownOptions<TormentOptions> = { seed: true, kinds: true, only: true }

/** Throws RdmaError EINVAL. */
const readKinds = (kinds: readonly string[]): readonly TormentKind[] => {
  try {
    return kindsOf(kinds)
  } catch (error) {
    throw invalidArgument('createNetwork', 'torment.kinds', (error as Error).message)
  }
}

/** Throws RdmaError EINVAL. */
const readTorment = (torment: number | TormentOptions): TormentSetting => {
  const { seed, kinds, only }: TormentOptions =
    typeof torment === 'object' && torment !== null ? torment : { seed: torment }
  if (typeof torment === 'object') checkOptions('createNetwork', 'torment', torment, tormentNames)
  if (!isSeed(seed))
    throw invalidArgument('createNetwork', `torment ${formatValue(seed)} is not a seed`, `a seed is ${SEED_RANGE}`)
  const setting = { ...tormentOf(seed), ...(kinds !== undefined && { kinds: readKinds(kinds) }) }
  if (only === undefined) return setting
  const wrong = Array.isArray(only) ? only.find(id => readHold(id) === undefined) : only
  if (wrong !== undefined)
    throw invalidArgument(
      'createNetwork',
      `torment.only: ${formatValue(wrong)} is not the identity of a decision`,
      'write KIND/DEVICE/PROCESS/OBJECT/THING, as a recording has it',
    )
  return { ...setting, only: [...only] }
}

/** Creates a network in this process. Throws RdmaError EINVAL for an invalid option. */
export const createNetwork = (options: NetworkOptions = {}): Network => {
  checkOptions('createNetwork', 'options', options, networkOptionNames)
  const clock = clockOf(options)
  const given = { ...options, links: copyOfValue(options.links) }
  const { seed = clock.isVirtual ? 0 : undefined, fault = '', link = 'memory', check, torment, record } = options
  const topology = options.links === undefined ? undefined : compileTopology(options.links)
  const hosts = createHosts(topology)
  lineRateOf('createNetwork', options.dcqcn, LineRate.DEFAULT)
  const { fabric } = options
  if (fabric !== undefined) checkFabric(fabric)
  const { path = clock.isVirtual ? 'packets' : 'direct' } = options
  const seeded = seed === undefined || options.random !== undefined ? undefined : createRandom(seed)
  const { random = seeded ?? secureRandom } = options
  checkChoice('createNetwork', 'link', link, links)
  checkChoice('createNetwork', 'path', path, paths)
  checkFunction('createNetwork', 'random', random)
  if (check !== undefined && typeof check !== 'boolean')
    checkRecord('createNetwork', 'check', check, 'give true, false or an object of options')
  checkRecording('createNetwork', record)
  const tormented = torment === undefined ? undefined : readTorment(torment)
  const carrier = topology && createClockedLinks(topology, seed ?? 0, clock, () => void drive())
  if (carrier !== undefined) requirePaths(topology!, carrier.links.routes)
  const slices = createSlices(undefined, STEPS_PER_TURN, clock.onNextTurn)
  const assembly = assemble({
    link,
    path,
    hasNative: false,
    // One leads to links of a fabric that take time.
    maxPorts: MAX_DEVICES + 1,
    now: clock.now,
    transit: clock.isVirtual ? { now: clock.now, delay: TRANSIT_TIME, carrier } : undefined,
    core: {
      random: () => {
        const value = random()
        if (value >>> 0 === value) return value
        throw invalidArgument(
          'createNetwork',
          `random returned ${formatValue(value)}`,
          'return an integer from 0 to 2^32 - 1',
        )
      },
      run: job => slices.begin(job, rethrowBug),
    },
    // A client starts when a call needs it. Until then the program may create queue pair 1.
    clients: {
      wake: () => kick(),
      repeatsEarly: true,
      ...((clock.isVirtual || seeded !== undefined) && { random }),
      ...(fabric !== undefined && { fabric }),
    },
    torment: tormented,
    onPackets: () => kick(),
  })
  const { core, clients, link: ports } = assembly
  const devices: SoftDevice[] = []
  const marks = new DeviceMarks(devices)
  const attached = new Map<string, AttachedDevice>()
  const faultPorts = new Map<string, FaultPort>()
  const stallWatches = new Set<() => void>()
  const { drive, kick, touch, scheduleTimers, overdueTurn, awaitsNextTurn, isDriving, rearm } = createDriveLoop(
    core,
    devices,
    marks,
    ports.isMemory,
    // On the direct path a device works for its peer. Torment holds work back.
    !ports.isMemory || path === 'direct' || torment !== undefined,
    torment !== undefined || clock.isVirtual,
    clients,
    clock,
    carrier,
    stallWatches,
  )
  let rules = faultRules('createNetwork', fault, seed, fabric)

  const observation = observe(
    core,
    attached,
    clock,
    topology && carrier && (() => longestStay(topology, carrier.links.routes)),
  )

  // A new device asks all the others: without a function for each.
  const ownerOf = (gid: Uint8Array): SoftDevice | undefined => {
    for (const device of devices)
      for (const own of device.link.identity.gids) if (isSameAddress(own, gid)) return device
    return undefined
  }

  /** The port and the identity of a new device. Throws RdmaError. */
  const attach = (name: string, address: string, host: number | undefined) => {
    const bytes = parseAddress(address)
    if (bytes === undefined) throw invalidArgument('open', `address "${address}" is not an IPv4 or IPv6 address`)
    const reason = reasonUnusable(bytes)
    if (reason !== undefined) throw invalidArgument('open', `address ${formatValue(address)} ${reason}`)
    const owner = ownerOf(bytes)
    if (owner !== undefined)
      throw refused(
        'EADDRINUSE',
        'open',
        `address: ${formatValue(address)} is the address of ${owner.device.name} on this network`,
      )
    if (ports.portCount() === MAX_DEVICES)
      throw refused('ENOSPC', 'open', `the network has ${MAX_DEVICES} devices, which is its maximum`, 'close one first')
    const identity = ports.isMemory ? identify(bytes, { name: 'local', index: 0 }) : identityOf({ address })
    try {
      return { port: ports.attach({ name, address }, identity, host), identity }
    } catch (error) {
      throw error instanceof CallError ? rdmaError(error, 'open') : invalidArgument('open', (error as Error).message)
    }
  }

  /** Without links that have a delay, an embedded manager's datagrams take no time: it makes new ports ACTIVE now. */
  const configurePorts = (): void => {
    const now = clock.now()
    for (let round = 0; round < MAX_ROUNDS && clients.subnet.onTimeout(now); round++);
    scheduleTimers()
  }

  const programFaults = createProgramFaults(rules, roleOf)
  const faults = injectFaults(core, programFaults, {
    wait: milliseconds =>
      clock.isVirtual
        ? new Promise(resolve => void clock.after(milliseconds, 'background', resolve))
        : waitAtLeast(milliseconds, false),
    setLink(device, isUp) {
      const soft = devices.find(one => one.device === device)
      if (soft === undefined) return
      faultPorts.get(device.name)?.setLink(isUp)
      const event = soft.link.setCarrier(isUp)
      touch()
      if (event !== undefined && event !== NO_EVENT) raisePort(device, 1, event)
    },
    moveGid(device, by) {
      const soft = devices.find(one => one.device === device)
      if (soft?.subnetPort !== undefined) soft.subnetPort.subnet?.disturb({ kind: 'lid' })
      else if (soft !== undefined) moveGid(soft, by, touch)
      scheduleTimers()
    },
    disturb(device, disturbance) {
      const end = devices.find(one => one.device === device)?.subnetPort?.subnet?.disturb(disturbance)
      scheduleTimers()
      return (
        end &&
        (() => {
          end()
          scheduleTimers()
        })
      )
    },
    // `faultRules` refuses rules that need these.
    remove() {},
    signal() {},
    now: () => clock.now() / 1000,
    // Contexts without a handler for events are clients' own.
    processOf: context => ([...context.device.eventHandlers.values()].includes(context) ? ownProcess : undefined),
  })
  faults.rulesChanged()
  lossesOf.set(core, (qpns, time) => {
    for (const port of faultPorts.values())
      for (const qpn of qpns) {
        const rule = port.lossTo(qpn, time)
        if (rule !== undefined) return lossByRule(rule)
      }
    return undefined
  })

  /** `kept`: by rule (see `FaultPort.setFaults`). */
  const replaceRules = (replaced: FaultRule[], kept: readonly (number | undefined)[] | undefined): void => {
    rules = replaced
    for (const { port } of attached.values()) port.setFaults(rules, undefined, kept)
    programFaults.setRules(rules, kept)
    faults.rulesChanged()
    network.hasPostFaults = programFaults.has('post')
    // The drive sends the packets that the old rules have delayed.
    touch()
  }

  const noFabric = ports.isMemory
    ? topology && 'links are between ports of RoCE; give createNetwork fabric in their place'
    : `packets by LID stay in this process, and the network has link "${link}"`
  const network: LocalNetwork = {
    core,
    stallWatches,
    faults,
    hasPostFaults: programFaults.has('post'),
    clock,
    onOpened: undefined,
    virtualClock: clock.isVirtual ? (clock as VirtualClock) : undefined,
    ...waitsOn(clock),
    explore: (test, exploreOptions = {}) => explore(createNetwork, given, test, exploreOptions),
    link,
    linkSettings: topology?.links ?? [],
    decisions: assembly.torment?.decisions,
    check: copyRecord(check),
    record: copyRecord(record),
    endRecording: undefined,
    end() {
      network.virtualClock?.stop()
      ports.close()
    },
    devicesAdded: 0,
    drive,
    kick,
    touch,
    scheduleTimers,
    overdueTurn,
    awaitsNextTurn,
    add(name, address, place) {
      const ofFabric = fabricOptions(place, noFabric)
      const { host: wantedHost, dcqcn = ofFabric === undefined ? options.dcqcn : undefined } = place
      const host = hosts.find(wantedHost)
      const ownRate = host === undefined ? LineRate.DEFAULT : carrier!.rateOf(host)
      const lineRate = lineRateOf('open', dcqcn, ownRate)
      const { port: barePort, identity } = attach(name, address, host)
      const port = withFaults(barePort, name, rules, clock.now)
      // A recording taps the port while the device is added.
      faultPorts.set(name, port)
      const device = assembly.addDevice(libraryDriver, name, {
        identity,
        dcqcn: lineRate,
        fabric: ofFabric,
        timerDelay: clock.isVirtual ? 0 : undefined,
        attach: () => port,
      })
      hosts.set(host, name)
      const closePort = (): void => port.close()
      if (!ports.isMemory) closeAtThreadEnd(closePort)
      network.devicesAdded++
      devices.push(device)
      marks.added(device)
      if (ports.isMemory) port.wake = () => marks.mark(device)
      const soft: AttachedDevice = {
        network: device,
        port,
        counters: () => ({ ...countersOf(device), faults: { ...port.faults } }) as object as DeviceCounters,
        async remove() {
          // A function of the program, `onFinding` for example, may close the device in the middle of a drive.
          if (isDriving()) await undefined
          // Sends outstanding packets: peers learn that their connections end.
          touch(device)
          drive()
          const at = devices.indexOf(device)
          devices.splice(at, 1)
          marks.removed(device, at)
          attached.delete(name)
          faultPorts.delete(name)
          observation.deviceRemoved(name)
          await new Promise<void>(resolve => unregister(device.device, resolve))
          forgetThreadEnd(closePort)
          hosts.set(host, undefined)
          rearm()
        },
      }
      attached.set(name, soft)
      observation.deviceAdded(name, soft)
      if (ofFabric !== undefined) configurePorts()
      return soft
    },
    async untilConfigured() {
      const configured = clients.configured()
      if (configured === undefined) return
      const limit = new AbortController()
      const late = sleepOn(clock, MAX_CONFIGURATION_TIME, limit.signal).catch(() => {})
      await clock.watch('open', Promise.race([configured, late]))
      limit.abort()
    },
    stats: () => ({
      links: topology && carrier ? linkStats(topology, carrier.links, clock.now()) : [],
      devices: Object.fromEntries(
        [...attached].map(([name, { counters }]) => [name, { host: hosts.nameOf(name), counters: counters() }]),
      ),
    }),
    hasAddress: address => ownerOf(parseAddress(address) as Uint8Array) !== undefined,
    softDevice: name => attached.get(name),
    portOf: name => faultPorts.get(name),
    capture: observation.capture,
    packets: observation.packets,
    trace: observation.trace,
    addDevice(make) {
      checkFunction('network.addDevice', 'make', make)
      const device = rethrow('network.addDevice', () => make(core))
      if (device?.core !== core)
        throw invalidArgument(
          'network.addDevice',
          `make returned ${formatValue(device)}, which is not a device of the core that it got`,
          'return what register() or createCtxDevice() returns',
        )
      return () => {
        if (device.isAlive) unregister(device)
      }
    },
    setLink(name, isUp) {
      const device = devices.find(one => one.device.name === name)?.device
      if (device === undefined)
        throw invalidArgument('network.setLink', `there is no soft device ${formatValue(name)} on this network`)
      if (typeof isUp !== 'boolean')
        throw invalidArgument('network.setLink', `isUp is ${formatValue(isUp)}`, 'give true or false')
      faults.setLink(device, isUp)
    },
    setFaults(text) {
      const own = rules.flatMap((rule, i) => (rule.scope === undefined ? [] : [{ rule, i }]))
      const set = faultRules('network.setFaults', text, seed, fabric)
      replaceRules(
        [...set, ...own.map(({ rule }) => rule)],
        own.length === 0 ? undefined : [...set.map(() => undefined), ...own.map(({ i }) => i)],
      )
    },
    addFault(device, text) {
      const scope: RuleScope = { ...anyScope }
      const added = faultRules('device.fault', text, seed, fabric).map(rule => ({
        ...rule,
        scope,
        device: rule.device || device,
      }))
      if (added.length === 0) throw invalidArgument('device.fault', `fault "${text}": the text has no rule`)
      const other = added.find(rule => rule.device !== device)
      if (other !== undefined)
        throw invalidArgument(
          'device.fault',
          `fault "${formatRule(other)}": the rules of ${device} name another device`,
        )
      replaceRules(
        [...rules, ...added],
        rules.map((_, i) => i),
      )
      return {
        count() {
          const counts = [...attached.values()].map(({ port }) => port.ruleCounts())
          return rules.reduce((sum, rule, i) => {
            if (rule.scope !== scope) return sum
            const ofPackets = sumFaultRuleCounts(counts.map(portCounts => portCounts[i]!))
            return sum + effectsIn(programFaults.counts[i] ?? ofPackets)
          }, 0)
        },
        clear() {
          const kept = rules.flatMap((rule, i) => (rule.scope === scope ? [] : [{ rule, i }]))
          replaceRules(
            kept.map(({ rule }) => rule),
            kept.map(({ i }) => i),
          )
          faults.endOutages(scope)
        },
      }
    },
  }
  networks.add(network)
  showAs(network, 'Network', () => ({ link, path, devices: [...core.devices.keys()], faults: rules.length }))
  return network
}
