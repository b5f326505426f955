/*
 * Assembles the daemon: devices on a network, the session socket, the tree of files that programs read, and the loop
 * that moves packets (ARCHITECTURE.md).
 */

import { constants, existsSync, lstatSync, rmSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { assemble } from '../assembly/assembly.ts'
import { closeContext, STEPS_PER_TURN, untilContextsDestroyed } from '../core/devices/registry.ts'
import { dispatch } from '../core/dispatch/dispatch.ts'
import { type NetworkDevice, type RegisteredDriver, ScanScope } from '../core/driver-contract.ts'
import { expire } from '../core/events/events.ts'
import { nextDue } from '../core/events/thresholds.ts'
import { reportFailure } from '../core/failures.ts'
import { createLimit } from '../core/objects/limits.ts'
import { registeredDrivers } from '../drivers/registered.ts'
import { EADDRINUSE, EMFILE, ENFILE, SystemError } from '../host/errno.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { watch } from '../host/event-loop/poll.ts'
import { createSlices } from '../host/event-loop/slices.ts'
import { waitOnTimer } from '../host/event-loop/timer.ts'
import { exposure } from '../host/exposure.ts'
import { holdFile, isAt, removeHeld } from '../host/held-file.ts'
import { takeLock } from '../host/lock-file.ts'
import { addToWord, setWord } from '../host/memory/fence.ts'
import { createRingPool } from '../host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK } from '../host/memory/memfd.ts'
import { closeElsewhere } from '../host/memory/mover.ts'
import { type Interfaces, openInterfaces } from '../host/net/interfaces.ts'
import { sourceAddress } from '../host/net/route.ts'
import { allowAll, allowConnects, hasAccessList, setAccessList } from '../host/net/socket-access.ts'
import { accept, close, listen } from '../host/net/sockets.ts'
import { isThreaded } from '../host/process-status.ts'
import { secureRandom } from '../host/random.ts'
import { clientNames } from '../services/clients.ts'
import { readTorment } from '../spec/check/torment.ts'
import { OWN_SUFFIX, ParkedPage } from '../spec/session.ts'
import { injectFaults } from '../tools/clients/faults/inject.ts'
import { lossesOf } from '../tools/clients/faults/losses.ts'
import type { RecordingOptions } from '../tools/clients/record/recording.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import { createSharedLimits } from './accounts.ts'
import { DaemonChecker } from './check/checker.ts'
import { createDestroyWaits } from './check/waits/destroys.ts'
import { endClock, startClock } from './clock.ts'
import { type Containment, createContainment } from './containment.ts'
import { Contexts } from './context/contexts.ts'
import { createEventSockets } from './context/event-sockets.ts'
import { FileSizes } from './context/file-sizes.ts'
import { Freeing } from './context/freeing.ts'
import { checkDevices } from './devices/device-spec.ts'
import { createDevices, loadFor } from './devices/devices.ts'
import { type LoadedFabric, loadFabric, untilConfigured } from './devices/fabric.ts'
import { HotPlug } from './devices/hot-plug.ts'
import { LentDevices } from './devices/lent-devices.ts'
import { DeviceNamespaces } from './devices/namespaces.ts'
import { createNetwork } from './devices/network.ts'
import { ReturningDevices } from './devices/returning-devices.ts'
import { DoorbellPages } from './doorbell-pages.ts'
import { createFailureReports } from './failures.ts'
import { type DaemonEnd, Lifetime } from './lifetime.ts'
import { Loop, type Pollable } from './loop.ts'
import { createNetlink } from './netlink/netlink.ts'
import { createRequests } from './netlink/requests.ts'
import { MAX_OWN_RULES } from './own-faults.ts'
import { ProgramLines } from './program-lines.ts'
import { type DaemonRecording, type DepthOption, recordDaemon } from './recording.ts'
import { createSession, type SessionParts } from './session/client-session.ts'
import { PolledSlots } from './session/polled-slots.ts'
import { ProcessPlaces } from './session/process-places.ts'
import { createRefusal } from './session/refuse-connection.ts'
import { createReserve } from './session/reserve.ts'
import { isServed, isShared, ownUserOnly, type Served } from './session/served-users.ts'
import { Sessions } from './session/sessions.ts'
import { createToolStates } from './session/tool-states.ts'
import { DaemonStat, explainedWaits } from './stat.ts'
import { ToolTime } from './tool-time.ts'
import { TraceHub } from './trace/trace-hub.ts'
import type { Turn } from './turn.ts'

interface DaemonOptions {
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
  readonly log: (...words: unknown[]) => void
}

export interface Daemon {
  /** Absolute path. */
  readonly socket: string
  /** An earlier daemon, which was killed or lost its socket, had left its socket or files. They were removed. */
  readonly hadPredecessor: boolean
  /** Resolves with the reason. */
  readonly ended: Promise<DaemonEnd>
  close(): Promise<void>
}

/** Thrown if another daemon serves the socket. */
export class SocketInUseError extends Error {
  override readonly name = 'SocketInUseError'
}

/** Bytes of sun_path without its NUL. */
const MAX_SOCKET_PATH = 107
/** Of a mode: others may write, and so connect. */
const { S_IWOTH } = constants
/** Connections that are accepted in one callback of the event loop: a flood of connects must not stop the daemon. */
const MAX_ACCEPTS = 16
/** Microseconds after which the next ones wait for the next callback: a session's start takes milliseconds. */
const MAX_ACCEPT_TIME = 1000
/** Maximum subscriptions of all tools; of the daemon's own user up to all, of guests a share. */
const MAX_SUBSCRIPTIONS = 2048
/** Microseconds that a chain of calls may delay other programs; the rest runs in steps. */
const MAX_CALL_TIME = 10_000

const requirePrivateFolder = (socket: string): void => {
  const folder = dirname(socket)
  if (!existsSync(folder)) throw new Error(`socket ${socket}: folder ${folder} does not exist`)
  const exposureReason = exposure(folder)
  if (exposureReason === undefined) return
  throw new Error(
    `socket ${socket}: ${exposureReason}, so other users could replace the daemon's files; take a folder that only you can write to (\`mkdir -m 700 FOLDER\`), or omit --socket`,
  )
}

/** A socket that listens. */
interface ListeningSocket {
  readonly path: string
  readonly fd: number
  /** A descriptor of the socket's file (held-file.ts). Undefined: the file is not ours to remove. */
  readonly file: number | undefined
}

interface Listening {
  /** The daemon's socket; and one for its own user, if it serves others (`OWN_SUFFIX`). */
  readonly sockets: readonly ListeningSocket[]
  readonly hadPredecessor: boolean
  /** Gives a file that is not ours the permissions that it had. */
  readonly restore?: () => void
}

type Log = DaemonParts['log']

/** Lets those connect who are served, and tells if that cannot be. */
const setAccess = (socket: string, served: Served, log: Log): void => {
  const reason = allowConnects(socket, served)
  if (reason !== undefined) tellOpen(socket, reason, log)
}

const tellOpen = (socket: string, reason: string, log: Log): void =>
  log(
    `userdma daemon: every user may connect to ${socket}, and those who are not served can keep others waiting: ${reason}; it needs a file system with access lists (ext4, tmpfs), and users and groups with a number in this user namespace`,
  )

/** Removes what a daemon that was killed, or whose socket another one has now, has left at the path of an own socket. */
const removeOwn = (path: string): void => {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) rmSync(path)
}

const listenTo = (path: string, access?: (path: string) => void): ListeningSocket => {
  const fd = listen(path, access && { setAccess: access })
  return { path, fd, file: holdFile(path) }
}

/** The socket for the daemon's own user. */
const listenForOwn = (socket: string, served: Served): ListeningSocket[] =>
  isShared(served) ? [listenTo(`${socket}${OWN_SUFFIX}`)] : []

const requireShortPath = (socket: string, served: Served): void => {
  const most = isShared(served) ? MAX_SOCKET_PATH - OWN_SUFFIX.length : MAX_SOCKET_PATH
  if (Buffer.byteLength(socket) > most)
    throw new Error(
      `socket path ${socket} has ${Buffer.byteLength(socket)} bytes; ${isShared(served) ? `${most} are allowed for a daemon of several users` : `the system allows ${most}`}`,
    )
}

const listenAt = async (socket: string, served: Served, log: Log): Promise<Listening> => {
  requireShortPath(socket, served)
  requirePrivateFolder(socket)
  const lock = await takeLock(`${socket}.lock`)
  const sockets: ListeningSocket[] = []
  try {
    const hadPredecessor = existsSync(socket) || existsSync(treeOf(socket))
    sockets.push(listenTo(socket, path => setAccess(path, served, log)))
    removeOwn(`${socket}${OWN_SUFFIX}`)
    sockets.push(...listenForOwn(socket, served))
    return { sockets, hadPredecessor }
  } catch (error) {
    stopListening({ sockets })
    if (error instanceof SystemError && error.errno === EADDRINUSE)
      throw new SocketInUseError(
        `socket ${socket} is in use by a running daemon; stop it, or choose another path with --socket`,
      )
    throw error
  } finally {
    lock.release()
  }
}

/**
 * If every user may connect to a socket that another process has bound: only those who are served, until the returned
 * function is called. A daemon that was killed may have left its access list.
 */
const restrict = (socket: string, served: Served, log: Log): (() => void) | undefined => {
  const mode = statSync(socket, { throwIfNoEntry: false })?.mode ?? 0
  if ((mode & S_IWOTH) === 0 && !hasAccessList(socket)) return undefined
  const file = holdFile(socket)
  try {
    setAccessList(socket, served)
    return () => {
      if (isAt(socket, file)) allowAll(socket)
      close(file)
    }
  } catch (error) {
    close(file)
    tellOpen(socket, (error as Error).message, log)
    return undefined
  }
}

/** `fd`: of a socket that another process has bound to `socket`. */
const takeOver = (socket: string, fd: number, served: Served, log: Log): Listening => {
  requireShortPath(socket, served)
  requirePrivateFolder(socket)
  removeOwn(`${socket}${OWN_SUFFIX}`)
  const own = listenForOwn(socket, served)
  const restore = restrict(socket, served, log)
  return {
    sockets: [{ path: socket, fd, file: undefined }, ...own],
    hadPredecessor: existsSync(treeOf(socket)),
    ...(restore && { restore }),
  }
}

const stopListening = ({ sockets, restore }: Pick<Listening, 'sockets' | 'restore'>): void => {
  try {
    restore?.()
  } catch {
    // The file was given to another user: its permissions are that user's.
  }
  for (const { path, fd, file } of sockets) {
    if (file !== undefined) {
      removeHeld(path, file)
      close(file)
    }
    close(fd)
  }
}

/** The folder of a daemon's files. */
const treeOf = (socket: string): string => `${socket}.tree`

interface PageOfWords {
  readonly fd: number
  readonly words: Int32Array
  close(): void
}

/** The parked page (loop.ts). The daemon maps it before sealing it, so only the daemon can write. */
const createParkedPage = (): PageOfWords => {
  const fd = createMemfd('userdma-parked', ParkedPage.bytes)
  addSeals(fd, SEAL_SHRINK | SEAL_GROW)
  // A separate pool, because `userdma stat` shows the counts of the contexts' pool.
  const pool = createRingPool()
  const mapping = pool.map(fd, 0, ParkedPage.bytes)
  addSeals(fd, SEAL_FUTURE_WRITE | SEAL_SEAL)
  const end = (): void => {
    close(fd)
    pool.release(mapping)
  }
  return { fd, words: mapping.i32, close: end }
}

/** Resolves after this poll phase of the event loop and the next. By then all hang-ups queued so far are handled. */
const afterHangUps = (): Promise<void> =>
  new Promise(resolve => {
    setImmediate(() => setImmediate(resolve))
  })

/** A daemon with `endWithLastClient` ends if no client connects within this many milliseconds. */
const FIRST_CLIENT_TIMEOUT = 10_000

/**
 * Creates the parts that need no files, each with those that it needs, in this order. Core and loop are created before
 * the devices, the checker and the faults that they call later. `undo`: gets what is to be called if the daemon does not
 * start. Throws an Error with a message for people if the fault rules are invalid.
 */
const createParts = (
  { config, drivers = [], parts: { log = console.error, dispatch: dispatchCall = dispatch } = {} }: DaemonOptions,
  interfaces: Interfaces | undefined,
  parkedPage: PageOfWords,
  lifetime: Lifetime,
  undo: (() => void)[],
  fabric: LoadedFabric,
) => {
  const containment = createContainment(log)
  const turn: Turn = { count: 0, callingProcess: undefined }
  const onTurn = (): void => void turn.count++
  const slices = createSlices(onTurn)
  const objectJobs = createSlices(undefined, STEPS_PER_TURN)
  const clientTimers: Pollable = { poll: now => clients.onTimeout(now), nextTimeout: () => clients.nextTimeout() }
  const thresholds: Pollable = { poll: now => expire(core, now), nextTimeout: () => nextDue(core) }
  /** Removes a device that threw, since its state is unknown. */
  const removeFaulty = ({ device }: NetworkDevice, error: unknown): void => {
    containment.report(`device ${device.name}, which is removed`, error)
    if (devices.of(device) !== undefined) devices.remove(device.name)
  }
  const doorbells = new DoorbellPages(
    () => loop.kick(ScanScope.BEGIN),
    body => containment.guard('a store to doorbells', body),
  )
  const onFailed = (failed: Pollable, error: unknown): void => {
    const device = devices.all.find(({ network: polled }) => polled === failed)?.network
    if (device !== undefined) removeFaulty(device, error)
    else containment.report(failed === thresholds ? 'thresholds of events' : 'timers of clients', error)
  }
  const polledSlots = new PolledSlots()
  const loop = new Loop(parkedPage.words, [thresholds, clientTimers], onTurn, onFailed, doorbells, polledSlots)
  undo.push(() => loop.stop())
  // Queues that the call has changed since the last turn are polled, as after each message.
  const callJobs = createSlices(
    containment.guard('a long call', () => {
      onTurn()
      loop.touch()
    }),
    STEPS_PER_TURN,
  )
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
  const network = createNetwork(config, link)
  lossesOf.set(core, network.lossTo)
  const trace = new TraceHub(nowMicroseconds, () => setCallsWord())
  const lines = new ProgramLines(log, nowMicroseconds)
  const failures = createFailureReports(core, nowMicroseconds, lines, (tag, record) => trace.postFailure(tag, record))
  const faults = injectFaults(core, network.programFaults, {
    wait: waitOnTimer,
    setLink(device, isUp) {
      const found = devices.of(device)
      if (found !== undefined) devices.setLink(found, isUp)
    },
    moveGid(device, by) {
      const found = devices.of(device)
      const port = found?.network?.subnetPort
      if (port !== undefined) port.subnet?.disturb({ kind: 'lid' })
      else if (found !== undefined) devices.moveGid(found, by)
    },
    disturb: (device, disturbance) => devices.of(device)?.network?.subnetPort?.subnet?.disturb(disturbance),
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
  const devices = createDevices(core, network, interfaces, loop, addDevice, allDrivers)
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
    start: { config, dispatch: dispatchCall, log, parkedPage, interfaces, lifetime },
    /** What runs, when, and who is told if it throws. */
    running: { containment, turn, loop, doorbells, polledSlots, slices, objectJobs },
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
      ...{ sessions, contexts, fileSizes, ringPool, events, destroyWaits },
      places: new ProcessPlaces(),
      limits: createSharedLimits(),
    },
  }
}
type Parts = ReturnType<typeof createParts>

/** Creates the parts that programs and tools reach. */
const createServices = (parts: Parts, socket: string, served: Served) => {
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
      // A program may close its memory file after its last doorbell socket: then the context was still held at the hang-up.
      contexts.endUnheld()
      await untilContextsDestroyed(core, user)
    },
  }
  return { netlink, hotPlug, sessionParts }
}

/** Accepts connections and starts their sessions. `onSessionEnd` is called after each session's end. */
const acceptSessions = (daemon: SessionParts, listening: number, onSessionEnd: () => void) => {
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

class RunningDaemon implements Daemon {
  readonly socket: string
  readonly ended: Promise<DaemonEnd>
  readonly #listening: Listening
  readonly #steps: readonly (() => void)[]
  readonly #containment: Containment
  readonly #firstClientTimer: NodeJS.Timeout
  readonly #recording: DaemonRecording | undefined
  #resolveEnded = (_reason: DaemonEnd): void => {}
  #isEnded = false

  /**
   * `listening`: at `socket`. The daemon closes it and `parts` at its end. Throws the system's error; then the caller
   * closes both.
   */
  constructor({ record, served = ownUserOnly }: DaemonOptions, socket: string, parts: Parts, listening: Listening) {
    this.socket = socket
    this.#listening = listening
    const { interfaces, parkedPage, lifetime } = parts.start
    const { containment, loop, objectJobs } = parts.running
    const { clients, devices, network } = parts.objects
    const { sessions, contexts, events } = parts.programs
    this.#containment = containment
    this.ended = new Promise(done => {
      this.#resolveEnded = done
    })
    const { netlink, hotPlug, sessionParts } = createServices(parts, socket, served)
    this.#recording = record && recordDaemon(sessionParts, record.fd, record)
    try {
      hotPlug.start(interfaces)
      network.rulesChanged()
      const accepting = listening.sockets.map(({ fd }) => acceptSessions(sessionParts, fd, lifetime.endIfUnused))
      this.#steps = [
        ...accepting.map(
          ({ listener }) =>
            () =>
              listener.stop(),
        ),
        () => hotPlug.stop(),
        () => sessionParts.lent.close(),
        () => parts.objects.returning.close(),
        // First the devices, while the memory of programs can be reached: outstanding requests are flushed.
        () => devices.removeAll(),
        () => objectJobs.finish(),
        () => this.#containment.runAll('the end of the daemon', sessions.closeSteps),
        () => contexts.closeAll(),
        () => parts.objects.endServing(),
        ...clients.stopSteps,
        () => events.closeAll(),
        () => parts.watching.check?.close(),
        () => netlink.closeAll(),
        () => loop.stop(),
        () => interfaces?.close(),
        () => parkedPage.close(),
        ...accepting.map(
          ({ reserve }) =>
            () =>
              reserve.close(),
        ),
        () => hotPlug.close(),
        () => endClock(this.socket),
        // Last: while the socket exists, no other daemon starts here, and makes its tree.
        () => stopListening(this.#listening),
      ]
    } catch (error) {
      hotPlug.stop()
      hotPlug.close()
      throw error
    }
    // The command that started the daemon may have ended before a client connected.
    this.#firstClientTimer = setTimeout(lifetime.endIfUnused, FIRST_CLIENT_TIMEOUT)
  }

  get hadPredecessor(): boolean {
    return this.#listening.hadPredecessor
  }

  async close(): Promise<void> {
    this.end('closed')
    await this.ended
  }

  end(reason: DaemonEnd): void {
    if (this.#isEnded) return
    this.#isEnded = true
    clearTimeout(this.#firstClientTimer)
    this.#containment.runAll('the end of the daemon', this.#steps)
    const resolveEnded = (): void => this.#resolveEnded(reason)
    if (this.#recording === undefined) resolveEnded()
    else void this.#recording.end('the daemon has ended').finally(resolveEnded)
  }
}

/** Starts a daemon, which serves when the promise resolves. Throws an Error with a message for people. */
export const startDaemon = async (options: DaemonOptions): Promise<Daemon> => {
  const { config, socket: path, served = ownUserOnly, inherited, endWithLastClient } = options
  const log = options.parts?.log ?? console.error
  checkDevices(config.devices)
  const socket = resolve(path)
  const interfaces = config.link === 'memory' ? undefined : openInterfaces()
  const parkedPage = createParkedPage()
  let daemon: RunningDaemon | undefined
  const lifetime = new Lifetime(endWithLastClient, reason => daemon?.end(reason))
  const undo: (() => void)[] = []
  let listening: Listening | undefined
  try {
    await loadFor(config.devices)
    const fabric = await loadFabric(config.fabric)
    const parts = createParts(options, interfaces, parkedPage, lifetime, undo, fabric)
    const { devices, subnet } = parts.objects
    undo.push(() => devices.removeAll())
    // First the devices: over UDP their creation checks that the addresses exist and are free.
    for (const spec of config.devices) devices.add(spec)
    await (subnet?.settled() ?? untilConfigured(parts.objects.clients))
    listening = inherited === undefined ? await listenAt(socket, served, log) : takeOver(socket, inherited, served, log)
    startClock(socket, config, options.clockPage)
    daemon = new RunningDaemon(options, socket, parts, listening)
    return daemon
  } catch (error) {
    for (const step of undo) step()
    parkedPage.close()
    interfaces?.close()
    if (listening !== undefined) stopListening(listening)
    throw error
  }
}
