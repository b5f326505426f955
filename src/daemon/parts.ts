import { assemble } from '../assembly/assembly.ts'
import { closeContext, STEPS_PER_TURN, untilContextsDestroyed } from '../core/devices/registry.ts'
import { dispatch } from '../core/dispatch/dispatch.ts'
import { type NetworkDevice, type RegisteredDriver, ScanScope } from '../core/driver-contract.ts'
import { expire } from '../core/events/events.ts'
import { nextDue } from '../core/events/thresholds.ts'
import { reportFailure } from '../core/failures.ts'
import { createLimit } from '../core/objects/limits.ts'
import { registeredDrivers } from '../drivers/registered.ts'
import { EMFILE, ENFILE } from '../host/errno.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { type Watch, watch } from '../host/event-loop/poll.ts'
import { createSlices } from '../host/event-loop/slices.ts'
import { waitOnTimer } from '../host/event-loop/timer.ts'
import { addToWord, setWord } from '../host/memory/fence.ts'
import { createRingPool } from '../host/memory/mapping.ts'
import { closeElsewhere } from '../host/memory/mover.ts'
import type { Interfaces } from '../host/net/interfaces.ts'
import { sourceAddress } from '../host/net/route.ts'
import { accept } from '../host/net/sockets.ts'
import { isThreaded } from '../host/process-status.ts'
import { secureRandom } from '../host/random.ts'
import { clientNames } from '../services/clients.ts'
import { readTorment } from '../spec/check/torment.ts'
import { ParkedPage } from '../spec/session.ts'
import { injectFaults } from '../tools/clients/faults/inject.ts'
import type { RecordingOptions } from '../tools/clients/record/recording.ts'
import { readMachine } from '../tools/topology/machine-file.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import { createSharedLimits } from './accounts.ts'
import { DaemonChecker } from './check/checker.ts'
import { createDestroyWaits } from './check/waits/destroys.ts'
import { createContainment } from './containment.ts'
import { Contexts } from './context/contexts.ts'
import { createEventSockets } from './context/event-sockets.ts'
import { FileSizes } from './context/file-sizes.ts'
import { Freeing } from './context/freeing.ts'
import { createDevices } from './devices/devices.ts'
import type { LoadedFabric } from './devices/fabric.ts'
import { HotPlug } from './devices/hot-plug.ts'
import { LentDevices } from './devices/lent-devices.ts'
import { DeviceNamespaces } from './devices/namespaces.ts'
import { createNetwork } from './devices/network.ts'
import { ReturningDevices } from './devices/returning-devices.ts'
import { DoorbellPages } from './doorbell-pages.ts'
import { createFailureReports } from './failures.ts'
import type { Lifetime } from './lifetime.ts'
import { type Log, treeOf } from './listening.ts'
import { Loop, type Pollable } from './loop.ts'
import { createNetlink } from './netlink/netlink.ts'
import { createRequests } from './netlink/requests.ts'
import { MAX_OWN_RULES } from './own-faults.ts'
import type { PageOfWords } from './parked-page.ts'
import { ProgramLines } from './program-lines.ts'
import type { DepthOption } from './recording.ts'
import { createSession, type SessionParts } from './session/client-session.ts'
import { PolledSlots } from './session/polled-slots.ts'
import { ProcessPlaces } from './session/process-places.ts'
import { createRefusal } from './session/refuse-connection.ts'
import { createReserve } from './session/reserve.ts'
import { isServed, type Served } from './session/served-users.ts'
import { Sessions } from './session/sessions.ts'
import { createToolStates } from './session/tool-states.ts'
import { DaemonStat, explainedWaits } from './stat.ts'
import { ToolTime } from './tool-time.ts'
import { TraceHub } from './trace/trace-hub.ts'
import type { Turn } from './turn.ts'

export interface DaemonOptions {
  /** Path of the socket. */
  readonly socket: string
  /** A descriptor that already listens at `socket`. Its owner removes the file (host/net/activation.ts). */
  readonly inherited?: number
  readonly config: DaemonConfig
  /** Whether the daemon ends when it has no session left and no process has a descriptor from it. */
  readonly endWithLastClient: boolean
  /** Users to serve besides the daemon's own; default: none. */
  readonly served?: Served
  /** A recording from the start to the end of the daemon. `fd`: an empty regular file, which the daemon closes. */
  readonly record?: Omit<RecordingOptions, 'check'> & DepthOption & { readonly fd: number }
  /** Drivers besides the registered ones, for example from files (devices/driver-file.ts). They come first. */
  readonly drivers?: readonly RegisteredDriver[]
  /** The page of a net's clock that skips, which the daemons of all its hosts share. */
  readonly clockPage?: string
  /** Parts that tests replace. */
  readonly parts?: Partial<DaemonParts>
}

export interface DaemonParts {
  readonly dispatch: typeof dispatch
  /** Default: console.error. */
  readonly log: Log
}

/** Connections that are accepted in one callback of the event loop: a flood of connects must not stop the daemon. */
const MAX_ACCEPTS = 16
/** Microseconds after which the next ones wait for the next callback: a session's start takes milliseconds. */
const MAX_ACCEPT_TIME = 1000
/** Maximum subscriptions of all tools; of the daemon's own user up to all, of guests a share. */
const MAX_SUBSCRIPTIONS = 2048
/** Microseconds that a chain of calls may delay other programs; the rest runs in steps. */
const MAX_CALL_TIME = 10_000

/** Resolves after this poll phase of the event loop and the next. By then all hang-ups queued so far are handled. */
const afterHangUps = (): Promise<void> =>
  new Promise(resolve => {
    setImmediate(() => setImmediate(resolve))
  })

/** Creates what runs the others, and is told if they throw. `undo`: as of `createParts`. */
const createRunning = (log: Log, parkedPage: PageOfWords, undo: (() => void)[]) => {
  const containment = createContainment(log)
  const turn: Turn = { count: 0, callingProcess: undefined }
  const onTurn = (): void => void turn.count++
  /** What the loop polls beside devices, and its name for reports. */
  const background = new Map<Pollable, string>()
  const running = {
    containment,
    turn,
    slices: createSlices(onTurn),
    objectJobs: createSlices(undefined, STEPS_PER_TURN),
    polledSlots: new PolledSlots(),
    doorbells: new DoorbellPages(
      () => loop.kick(ScanScope.BEGIN),
      body => containment.guard('a store to doorbells', body),
    ),
    /** A device has thrown in the loop. */
    onDeviceFailed: (_device: Pollable, error: unknown): void => containment.report('a device', error),
  }
  const onFailed = (failed: Pollable, error: unknown): void => {
    const name = background.get(failed)
    if (name === undefined) running.onDeviceFailed(failed, error)
    else containment.report(name, error)
  }
  const loop = new Loop(parkedPage.words, [], onTurn, onFailed, running.doorbells, running.polledSlots)
  undo.push(() => loop.stop())
  return Object.assign(running, {
    loop,
    // Queues that the call has changed since the last turn are polled, as after each message.
    callJobs: createSlices(
      containment.guard('a long call', () => {
        onTurn()
        loop.touch()
      }),
      STEPS_PER_TURN,
    ),
    addBackground(polled: Pollable, name: string): void {
      background.set(polled, name)
      loop.add(polled)
    },
  })
}

/**
 * Creates the parts that need no files, in this order. Core is created before the devices, the checker and the faults
 * that it calls later. `undo`: gets what is to be called if the daemon does not start. Throws an Error with a message
 * for people if the fault rules are invalid.
 */
export const createParts = (
  { config, drivers = [], parts: { log = console.error, dispatch: dispatchCall = dispatch } = {} }: DaemonOptions,
  interfaces: Interfaces | undefined,
  parkedPage: PageOfWords,
  lifetime: Lifetime,
  undo: (() => void)[],
  fabric: LoadedFabric,
) => {
  const running = createRunning(log, parkedPage, undo)
  const { containment, turn, slices, objectJobs, callJobs, doorbells, loop } = running
  let subnet: ReturnType<LoadedFabric['remote']>
  const { core, clients, link, torment, addDevice } = assemble({
    link: config.link,
    path: config.path ?? 'direct',
    hasNative: true,
    core: {
      random: secureRandom,
      report: error => containment.report('core', error),
      run: job => objectJobs.begin(job, error => containment.report('an end of objects', error)),
      runCall: job => callJobs.begin(check?.call.continuedBy(job) ?? job, error => containment.report('a call', error)),
      maxCallTime: MAX_CALL_TIME,
    },
    clients: {
      routing: { sourceOf: sourceAddress, neighbourOf: (index, address) => interfaces?.neighbourOf(index, address) },
      // A program may connect only queue pairs of its own user. Only the daemon's user may name an unused QPN.
      mayConnect({ account }, { name }, qpn) {
        const qp = devices.find(name)?.network?.queues?.qpOfNumber(qpn)
        return (qp === undefined ? process.geteuid?.() : qp.context?.account?.user) === account?.user
      },
      sees(context, device) {
        const owner = failures.ownerOf(context)
        return owner === undefined || namespaces.processSees(owner.pid, device)
      },
      wake: () => loop.advance(),
      ...(config.fabric !== undefined && { fabric: config.fabric }),
    },
    subnet: connected => {
      subnet = fabric.remote({ link: connected, loop, containment, log })
      return subnet?.subnet
    },
    torment: config.torment === undefined ? undefined : readTorment(config.torment),
    onPackets: () => loop.kick(),
    inError: (qpn, isInError) =>
      addToWord(parkedPage.words, ParkedPage.FAILED + (qpn % ParkedPage.FAILED_COUNTS), isInError ? 1 : -1),
  })
  for (const name of clientNames) clients.use(name)
  running.addBackground({ poll: now => expire(core, now), nextTimeout: () => nextDue(core) }, 'thresholds of events')
  const clientTimers = { poll: (now: number) => clients.onTimeout(now), nextTimeout: () => clients.nextTimeout() }
  running.addBackground(clientTimers, 'timers of clients')
  const network = createNetwork(config, link)
  const trace = new TraceHub(nowMicroseconds, () => setCallsWord())
  const lines = new ProgramLines(log, nowMicroseconds)
  const failures = createFailureReports(core, nowMicroseconds, lines, (tag, record) => trace.postFailure(tag, record))
  const faults = injectFaults(core, network.rules.ofPrograms, {
    wait: waitOnTimer,
    ...network.rules.onLinks(
      device => devices.of(device)?.network,
      device => devices.changed(device),
    ),
    remove: (device, milliseconds) => returning.remove(device, milliseconds),
    isThreaded,
    signal(pid, signal) {
      try {
        process.kill(pid, `SIG${signal}`)
      } catch {
        // It has ended, or is another user's.
      }
    },
    now: () => nowMicroseconds() / 1000,
    processOf(context) {
      const owner = failures.ownerOf(context)
      return owner && { pid: owner.pid, name: () => owner.command }
    },
    callStack: () => check?.call.stack ?? [],
    postStack: (...post) => check?.posts.requestStackOf(...post) ?? [],
  })
  const allDrivers = [...drivers, ...registeredDrivers]
  const machine = config.machine === undefined ? undefined : readMachine(config.machine)
  const devices = createDevices(core, network, interfaces, loop, addDevice, allDrivers, machine)
  /** Removes a device that threw, since its state is unknown. */
  const removeFaulty = ({ device }: NetworkDevice, error: unknown): void => {
    containment.report(`device ${device.name}, which is removed`, error)
    if (devices.of(device) !== undefined) devices.remove(device.name)
  }
  running.onDeviceFailed = (failed, error) => {
    const device = devices.all.find(({ network: polled }) => polled === failed)?.network
    if (device !== undefined) removeFaulty(device, error)
  }
  const endServing = fabric.serve({ link, loop, containment, log }, clients)
  undo.push(endServing)
  const returning = new ReturningDevices({ devices, containment, log })
  const namespaces = new DeviceNamespaces(devices, job =>
    objectJobs.begin(job, error => containment.report('a device that changes its namespace', error)),
  )
  const setCallsWord = (): void => {
    const isSeen = config.check === true || trace.hasSubscribers || faults.hasCalls
    setWord(parkedPage.words, ParkedPage.CALLS, isSeen ? 1 : 0)
  }
  network.rulesChanged = () => {
    faults.rulesChanged()
    setWord(parkedPage.words, ParkedPage.POSTS, faults.hasPosts ? 1 : 0)
    setCallsWord()
  }
  const ringPool = createRingPool()
  const contexts = new Contexts(
    ringPool,
    (context, handle) => devices.of(context.device)?.network?.onDoorbell?.(context, handle),
    () => {
      loop.kick()
      lifetime.endIfUnused()
    },
    containment,
    config.check === true,
    open => doorbells.await(open),
    open => doorbells.addClock(open),
    new Freeing(createSlices(), error => containment.report('memory of a context', error)),
  )
  const fileSizes = new FileSizes(contexts, containment)
  const check = config.check
    ? new DaemonChecker(
        core,
        nowMicroseconds,
        {
          contexts,
          failures,
          containment,
          devices,
          cm: clients.use('rdma_cm'),
          lossTo: network.rules.lossTo,
          tormentName: torment?.nameOf,
          waits: threads => explainedWaits({ devices, failures, cm: clients.use('rdma_cm'), destroyWaits }, threads),
        },
        config,
      )
    : undefined
  const sessions = new Sessions()
  const events = createEventSockets(
    core,
    () => sessions.processes(turn.callingProcess),
    { containment, slices },
    ({ context }) => {
      // A context without memory file has only rdma_cm channels or a umad file. It ends with the last descriptor.
      if (context.mapped === undefined && context.descriptors.size === 0) closeContext(context)
      lifetime.endIfUnused()
    },
  )
  for (const owner of [contexts, events, sessions]) lifetime.watch(() => owner.count)
  const destroyWaits = createDestroyWaits(({ object: { context }, failure }) => {
    if (context !== undefined) reportFailure(failure, context.device, context)
  }, containment)
  return {
    /** What the daemon was started with, and what ends it. */
    start: { config, machine, dispatch: dispatchCall, log, parkedPage, interfaces, lifetime },
    /** What runs, when, and who is told if it throws. */
    running,
    /** Objects and devices, and what serves them. */
    objects: {
      core,
      clients,
      subnet,
      endServing,
      cm: clients.use('rdma_cm'),
      network,
      devices,
      returning,
      namespaces,
      removeFaulty,
    },
    /** What sees programs or acts on them. */
    watching: { trace, failures, lines, faults, check, torment: torment?.decisions },
    /** What programs hold. */
    programs: {
      sessions,
      contexts,
      fileSizes,
      ringPool,
      events,
      destroyWaits,
      places: new ProcessPlaces(),
      limits: createSharedLimits(),
    },
  }
}
export type Parts = ReturnType<typeof createParts>

/** Creates the parts that programs and tools reach. */
export const createServices = (parts: Parts, socket: string, served: Served) => {
  const { start, running, objects, watching, programs } = parts
  const { config, lifetime } = start
  const { containment, loop, turn, objectJobs } = running
  const { core, devices, namespaces, network } = objects
  const { sessions, contexts } = programs
  const all = { ...start, ...running, ...objects, ...watching, ...programs }
  const root = treeOf(socket)
  const managed = { core, devices, failures: watching.failures, root, namespaces, sessions }
  const answer = createRequests(managed, containment, namespace => hotPlug.rootOf(namespace))
  watching.check?.hosts.joinNet(socket)
  const netlink = createNetlink({ containment, answer, onClosed: lifetime.endIfUnused })
  lifetime.watch(() => netlink.count)
  const hotPlug: HotPlug = new HotPlug({ ...all, root, netlink })
  const stat = new DaemonStat({ ...all, netlink })
  const lent = new LentDevices(all)
  const sessionParts: SessionParts = {
    ...all,
    get config() {
      return { ...config, devices: devices.listed }
    },
    root,
    netlink,
    hotPlug,
    stat,
    lent,
    parkedFd: start.parkedPage.fd,
    toolTime: new ToolTime({ isBusy: () => loop.isBusy, beforeSlices: () => void turn.count++ }),
    toolStates: createToolStates(stat, devices, network),
    subscriptions: createLimit('subscriptions', MAX_SUBSCRIPTIONS),
    ownRules: createLimit('fault rules of programs', MAX_OWN_RULES, { advice: 'clear some' }),
    refuseConnection: createRefusal(containment),
    refuseStranger: createRefusal(containment),
    serves: (fd, peer) => isServed(served, fd, peer),
    stop: () => lifetime.stop(),
    async untilContextsDestroyed(user) {
      await afterHangUps()
      // Queued jobs may still close contexts, in their first slices. An empty job ends after those slices.
      if (objectJobs.waiting > 0) await objectJobs.run([].values())
      // A program may close its memory file after its last doorbell socket: then the context was still held at the
      // hang-up.
      contexts.endUnheld()
      await untilContextsDestroyed(core, user)
    },
  }
  return { netlink, hotPlug, sessionParts }
}

interface Accepting {
  readonly listener: Watch
  readonly reserve: ReturnType<typeof createReserve>
}

/** Accepts connections and starts their sessions. `onSessionEnd` is called after each session's end. */
export const acceptSessions = (daemon: SessionParts, listening: number, onSessionEnd: () => void): Accepting => {
  const { containment, sessions } = daemon
  const startSession = (fd: number): void => {
    const start = (): void => {
      const session = createSession(daemon, fd, () => {
        if (session) sessions.delete(session)
        onSessionEnd()
      })
      if (session) sessions.add(session)
    }
    containment.guard('a new session', start, () => closeElsewhere(fd))()
  }
  const reserve = createReserve({
    listening,
    refuseConnection: daemon.refuseConnection,
    setAccepting: isAccepting => listener.update({ readable: isAccepting }),
    log: daemon.log,
    guard: containment.guard,
  })
  const onConnection = (): void => {
    const begin = nowMicroseconds()
    for (let accepted = 0; accepted < MAX_ACCEPTS && nowMicroseconds() - begin < MAX_ACCEPT_TIME; accepted++) {
      const fd = accept(listening)
      if (fd === -EMFILE || fd === -ENFILE) reserve.refuseNext(-fd)
      if (fd < 0) return
      startSession(fd)
    }
  }
  const listener = watch(listening, { readable: true }, containment.guard('the listening socket', onConnection))
  return { listener, reserve }
}
