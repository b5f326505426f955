/*
 * The network of devices in this process (docs/decisions/one-provider.md): soft devices connected by memory or by
 * sockets of this machine. The links memory and `dgram` need no native code.
 */

import { assemble } from '../../assembly/assembly.ts'
import { NetworkFaults } from '../../assembly/faults.ts'
import { STEPS_PER_TURN, unregister } from '../../core/devices/registry.ts'
import type { SoftDevice } from '../../drivers/registered.ts'
import { type Clock, MAX_TIMER_DELAY, sleepOn } from '../../host/event-loop/clock.ts'
import { createSlices } from '../../host/event-loop/slices.ts'
import { injectFaults } from '../../tools/clients/faults/inject.ts'
import { longestStay } from '../../transport/phy/links/graph.ts'
import { parseAddress } from '../../transport/wire/address.ts'
import { copyRecord } from '../verbs/arguments/options.ts'
import { checkFunction, formatValue, invalidArgument, rethrow } from '../verbs/error.ts'
import { checkAbortOptions } from '../verbs/mailbox.ts'
import { showAs } from '../verbs/objects/show.ts'
import { type AttachedDevice, type LocalNetwork, type Network, type NetworkOptions, networks } from './contract.ts'
import { MAX_DEVICES, NetworkDevices } from './devices.ts'
import { DriveLoop, MAX_ROUNDS } from './drive-loop.ts'
import { requirePaths } from './links.ts'
import { DeviceMarks } from './marks.ts'
import { observe } from './observe.ts'
import { readNetworkOptions } from './options.ts'
import { faultRules, faultSources, networkRules } from './rules.ts'
import { createClockedLinks, flowStats, linkStats, routerStats } from './virtual/clocked-links.ts'
import { explore } from './virtual/explore.ts'
import { createHosts } from './virtual/hosts.ts'
import { linkOutages, pauseStorms } from './virtual/link-outages.ts'
import type { VirtualClock } from './virtual/virtual-clock.ts'

/** Exceptions of jobs are bugs of the library, and reach the program as uncaught exceptions. */
const rethrowBug = (error: unknown): never => {
  throw error
}

/** Milliseconds that the manager of InfiniBand ports may take. */
const MAX_CONFIGURATION_TIME = 10_000
/** The time that packets take in virtual time, microseconds: that of a switch and two adapters of a data centre. */
const TRANSIT_TIME = 2

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

/** Why devices of the network have no InfiniBand port; undefined: they may. */
const noFabricReason = ({ link, topology }: ReturnType<typeof readNetworkOptions>): string | undefined => {
  if (link !== 'memory') return `packets by LID stay in this process, and the network has link "${link}"`
  return topology && 'links are between ports of RoCE; give createNetwork fabric in their place'
}

/** Creates a network in this process. Throws RdmaError EINVAL for an invalid option. */
export const createNetwork = (options: NetworkOptions = {}): Network => {
  const read = readNetworkOptions(options)
  const { clock, seed, link, path, topology, fabric, torment } = read
  const hosts = createHosts(topology)
  const carrier = topology && createClockedLinks(topology, seed ?? 0, clock, () => void loop.drive())
  if (carrier !== undefined) requirePaths(topology!, carrier.links.routes)
  const setDown = linkOutages(topology, carrier, () => touch())
  const rules = new NetworkFaults(faultRules('createNetwork', read.fault, read), clock.now)
  const slices = createSlices(undefined, STEPS_PER_TURN, clock.onNextTurn)
  const assembly = assemble({
    link,
    path,
    hasNative: false,
    // One leads to links of a fabric that take time.
    maxPorts: MAX_DEVICES + 1,
    now: clock.now,
    transit: clock.isVirtual ? { now: clock.now, delay: TRANSIT_TIME, carrier } : undefined,
    core: { random: read.checkedRandom, run: job => slices.begin(job, rethrowBug) },
    // A client starts when a call needs it. Until then the program may create queue pair 1.
    clients: {
      wake: () => loop.kick(),
      repeatsEarly: true,
      ...(read.isSeeded && { random: read.random }),
      ...(fabric !== undefined && { fabric }),
    },
    torment,
    onPackets: () => loop.kick(),
  })
  const { core, clients, link: ports } = assembly
  const devices: SoftDevice[] = []
  const marks = new DeviceMarks(devices)
  const attached = new Map<string, AttachedDevice>()
  const stallWatches = new Set<() => void>()
  const loop = new DriveLoop({
    ...{ core, clients, clock, devices, marks, carrier, stallWatches },
    isMemoryLink: ports.isMemory,
    // On the direct path a device works for its peer. Torment holds work back.
    mayHaveAny: !ports.isMemory || path === 'direct' || torment !== undefined,
    hasDelays: torment !== undefined || clock.isVirtual,
  })
  const { drive, kick, touch, scheduleTimers, overdueTurn, awaitsNextTurn } = loop
  const observation = observe(
    core,
    attached,
    clock,
    topology && carrier && (() => longestStay(topology, carrier.links.routes)),
  )

  /** Without links that have a delay, an embedded manager's datagrams take no time: it makes new ports ACTIVE now. */
  const configurePorts = (): void => {
    const now = clock.now()
    for (let round = 0; round < MAX_ROUNDS && clients.subnet.onTimeout(now); round++);
    scheduleTimers()
  }
  const softDevices = new NetworkDevices({
    ...{ assembly, clock, devices, marks, attached, rules, loop, hosts, carrier, observation, configurePorts },
    dcqcn: read.dcqcn,
    noFabric: noFabricReason(read),
  })

  const faults = injectFaults(core, rules.ofPrograms, faultSources(rules, devices, clock, loop, carrier))
  faults.rulesChanged()
  const ruleChanges = networkRules(rules, faults, read, () => {
    network.hasPostFaults = rules.ofPrograms.has('post')
    // The drive sends the packets that the old rules have delayed.
    touch()
  })

  const network: LocalNetwork = {
    core,
    stallWatches,
    faults,
    lossTo: rules.lossTo,
    hasPostFaults: rules.ofPrograms.has('post'),
    clock,
    onOpened: undefined,
    virtualClock: clock.isVirtual ? (clock as VirtualClock) : undefined,
    ...waitsOn(clock),
    explore: (test, exploreOptions = {}) => explore(createNetwork, read.given, topology, test, exploreOptions),
    link,
    topology,
    decisions: assembly.torment?.decisions,
    check: copyRecord(read.check),
    record: copyRecord(read.record),
    endRecording: undefined,
    end() {
      network.virtualClock?.stop()
      ports.close()
    },
    devicesAdded: () => softDevices.added,
    drive,
    kick,
    touch,
    scheduleTimers,
    overdueTurn,
    awaitsNextTurn,
    add: (...device) => softDevices.add(...device),
    loadSubnet: () => clients.loadSubnet(),
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
      routers: topology && carrier ? routerStats(topology, carrier.links, name => carrier.isUp(name)) : [],
      flows: topology && carrier ? flowStats(topology, carrier) : [],
      devices: Object.fromEntries(
        [...attached].map(([name, { counters }]) => [name, { host: hosts.nameOf(name), counters: counters() }]),
      ),
    }),
    hasAddress: address => softDevices.ownerOf(parseAddress(address) as Uint8Array) !== undefined,
    addressAt: hosts.addressOf,
    softDevice: name => attached.get(name),
    portOf: name => rules.portOf(name),
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
      if (Array.isArray(name)) {
        setDown('network.setLink', name as readonly string[], isUp)
        return
      }
      const device = devices.find(one => one.device.name === name)?.device
      if (device === undefined)
        throw invalidArgument('network.setLink', `there is no soft device ${formatValue(name)} on this network`)
      if (typeof isUp !== 'boolean')
        throw invalidArgument('network.setLink', `isUp is ${formatValue(isUp)}`, 'give true or false')
      faults.setLink(device, isUp)
    },
    setRouter(name, isUp) {
      setDown('network.setRouter', [name], isUp)
    },
    setPauseStorm: pauseStorms(topology, carrier, () => touch()),
    ...ruleChanges,
  }
  networks.add(network)
  showAs(network, 'Network', () => ({ link, path, devices: [...core.devices.keys()], faults: rules.rules.length }))
  return network
}
