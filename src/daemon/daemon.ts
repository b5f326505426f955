/*
 * Assembles the daemon: devices on a network, the session socket, the tree of files that programs read, and the loop
 * that moves packets (ARCHITECTURE.md).
 */

import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { assemble } from '../assembly/assembly.ts'
import { clientNames } from '../clients/clients.ts'
import { type InjectedFaults, injectFaults } from '../clients/faults/inject.ts'
import type { RecordingOptions } from '../clients/record/recording.ts'
import { closeContext, STEPS_PER_TURN, untilContextsDestroyed } from '../core/devices/registry.ts'
import { dispatch } from '../core/dispatch/dispatch.ts'
import type { RegisteredDriver } from '../core/driver-contract.ts'
import { expire } from '../core/events/events.ts'
import { nextDue } from '../core/events/thresholds.ts'
import { reportFailure } from '../core/failures.ts'
import type { Context } from '../core/model.ts'
import { createLimit } from '../core/objects/limits.ts'
import { registeredDrivers } from '../drivers/registered.ts'
import { EADDRINUSE, EMFILE, ENFILE, SystemError } from '../host/errno.ts'
import { nowMicroseconds, waitAtLeast } from '../host/event-loop/clock.ts'
import { type Watch, watch } from '../host/event-loop/poll.ts'
import { createSlices } from '../host/event-loop/slices.ts'
import { exposure } from '../host/exposure.ts'
import { holdFile, removeHeld } from '../host/held-file.ts'
import { takeLock } from '../host/lock-file.ts'
import { addToWord, setWord } from '../host/memory/fence.ts'
import { createRingPool, type RingPool } from '../host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK } from '../host/memory/memfd.ts'
import { closeElsewhere } from '../host/memory/mover.ts'
import type { ProcessHandle } from '../host/memory/process.ts'
import { type Interfaces, openInterfaces } from '../host/net/interfaces.ts'
import { sourceAddress } from '../host/net/route.ts'
import { accept, close, listen } from '../host/net/sockets.ts'
import { secureRandom } from '../host/random.ts'
import { readTorment } from '../spec/check/torment.ts'
import { ParkedPage } from '../spec/session.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import { createSharedLimits } from './accounts.ts'
import { DaemonChecker } from './check.ts'
import { createContainment } from './containment.ts'
import { Contexts } from './context/contexts.ts'
import { createEventSockets } from './context/event-sockets.ts'
import { createDestroyWaits } from './destroy-waits.ts'
import { checkDevices } from './devices/device-spec.ts'
import { createDevices } from './devices/devices.ts'
import { HotPlug } from './devices/hot-plug.ts'
import { createNetwork } from './devices/network.ts'
import { createFailureReports, type FailureReports } from './failures.ts'
import { Loop, type Pollable } from './loop.ts'
import { createNetlink } from './netlink/netlink.ts'
import { createRequests } from './netlink/requests.ts'
import { type DaemonRecording, recordDaemon } from './recording.ts'
import { createSession, type Session } from './session/client-session.ts'
import { createRefusal } from './session/refuse-connection.ts'
import { createReserve, type Reserve } from './session/reserve.ts'
import { isServed, isShared, ownUserOnly, type Served } from './session/served-users.ts'
import { createToolStates } from './session/tool-states.ts'
import { waitsOfQueues } from './stat.ts'
import type { DaemonState } from './state.ts'
import { ToolTime } from './tool-time.ts'
import { TraceHub } from './trace/trace-hub.ts'

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
  readonly record?: RecordingOptions & { readonly fd: number }
  /** Drivers besides the registered ones, for example from files (devices/driver-file.ts). They come first. */
  readonly drivers?: readonly RegisteredDriver[]
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

/** Why a daemon has ended. */
export type DaemonEnd = 'closed' | 'on a request' | 'its last client has ended'

/** Thrown if another daemon serves the socket. */
export class SocketInUseError extends Error {
  override readonly name = 'SocketInUseError'
}

/** Bytes of sun_path without its NUL. */
const MAX_SOCKET_PATH = 107
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
interface Listening {
  readonly fd: number
  /** A descriptor of the socket's file (held-file.ts). Undefined: the file is not ours to remove. */
  readonly file: number | undefined
  readonly hadPredecessor: boolean
}

const listenAt = async (socket: string, served: Served): Promise<Listening> => {
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH)
    throw new Error(
      `socket path ${socket} has ${Buffer.byteLength(socket)} bytes; the system allows ${MAX_SOCKET_PATH}`,
    )
  requirePrivateFolder(socket)
  const lock = await takeLock(`${socket}.lock`)
  try {
    const hadPredecessor = existsSync(socket) || existsSync(treeOf(socket))
    const fd = listen(socket, { mode: isShared(served) ? 0o666 : 0o600 })
    return { fd, file: holdFile(socket), hadPredecessor }
  } catch (error) {
    if (error instanceof SystemError && error.errno === EADDRINUSE)
      throw new SocketInUseError(
        `socket ${socket} is in use by a running daemon; stop it, or choose another path with --socket`,
      )
    throw error
  } finally {
    lock.release()
  }
}

/** `fd`: of a socket that another process has bound to `socket`. */
const takeOver = (socket: string, fd: number): Listening => {
  requirePrivateFolder(socket)
  return { fd, file: undefined, hadPredecessor: existsSync(treeOf(socket)) }
}

const stopListening = (socket: string, { fd, file }: Listening): void => {
  if (file !== undefined) {
    removeHeld(socket, file)
    close(file)
  }
  close(fd)
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

/** Set after the parts that use them are created. */
interface Running {
  loop?: Loop
  state?: DaemonState
}

/** Throws an Error with a message for people if the fault rules are invalid. */
const createParts = (
  config: DaemonConfig,
  interfaces: Interfaces | undefined,
  { log }: Partial<DaemonParts>,
  running: Running,
  parkedPage: PageOfWords,
  drivers: readonly RegisteredDriver[] = [],
) => {
  const containment = createContainment(log)
  /** Begins a new turn (`DaemonState.turn`). */
  const onTurn = (): void => {
    if (running.state !== undefined) running.state.turn++
  }
  const slices = createSlices(onTurn)
  const objectJobs = createSlices(undefined, STEPS_PER_TURN)
  // Not in `objectJobs`, all of which run to their ends before a device is added. Queues that the call has changed since the
  // last turn are polled, as after each message.
  const callJobs = createSlices(
    containment.guard('a long call', () => {
      onTurn()
      running.loop?.touch()
    }),
    STEPS_PER_TURN,
  )
  const assembly = assemble({
    link: config.link,
    path: config.path ?? 'direct',
    hasNative: true,
    core: {
      random: secureRandom,
      report: error => containment.report('core', error),
      run: job => objectJobs.begin(job, error => containment.report('an end of objects', error)),
      runCall: job =>
        callJobs.begin(running.state?.check?.withStack(job) ?? job, error => containment.report('a call', error)),
      maxCallTime: MAX_CALL_TIME,
    },
    clients: {
      routing: { sourceOf: sourceAddress, neighbourOf: (index, address) => interfaces?.neighbourOf(index, address) },
      // A program may connect only queue pairs of its own user. Only the daemon's user may name an unused QPN.
      mayConnect({ account }, { name }, qpn) {
        const qp = devices.find(name)?.network?.queues?.qpOfNumber(qpn)
        return (qp === undefined ? process.geteuid?.() : qp.context?.account?.user) === account?.user
      },
      wake: () => running.loop?.advance(),
    },
    torment: config.torment === undefined ? undefined : readTorment(config.torment),
    onPackets: () => running.loop?.kick(),
    inError: (qpn, isInError) =>
      addToWord(parkedPage.words, ParkedPage.FAILED + (qpn % ParkedPage.FAILED_COUNTS), isInError ? 1 : -1),
  })
  const { core, clients, link, torment } = assembly
  for (const name of clientNames) clients.use(name)
  const clientTimers: Pollable = { poll: now => clients.onTimeout(now), nextTimeout: () => clients.nextTimeout() }
  const thresholds: Pollable = { poll: now => expire(core, now), nextTimeout: () => nextDue(core) }
  /** `createDevices` adds devices, now and later. */
  const polled = [thresholds, clientTimers]
  const network = createNetwork(config, link)
  const devices = createDevices(core, network, interfaces, polled, assembly.addDevice, [
    ...drivers,
    ...registeredDrivers,
  ])
  return {
    parkedPage,
    interfaces,
    network,
    containment,
    onTurn,
    slices,
    objectJobs,
    core,
    clients,
    thresholds,
    polled,
    torment,
    devices,
  }
}
type Parts = ReturnType<typeof createParts>

/** Accepts connections and starts their sessions. `onSessionEnd` is called after each session's end. */
const acceptSessions = (daemon: DaemonState, listening: number, sessions: Set<Session>, onSessionEnd: () => void) => {
  const { containment } = daemon
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
  readonly #parts: Parts
  readonly #options: DaemonOptions
  readonly #listening: Listening
  readonly #trace = new TraceHub(nowMicroseconds)
  readonly #sessions = new Set<Session>()
  readonly #hotPlug: HotPlug
  readonly #loop: Loop
  readonly #state: DaemonState
  readonly #listener: Watch
  readonly #reserve: Reserve
  readonly #firstClientTimer: NodeJS.Timeout
  readonly #recording: DaemonRecording | undefined
  #resolveEnded = (_reason: DaemonEnd): void => {}
  #isEnded = false

  /**
   * `listening`: at `socket`. The daemon closes it and `parts` at its end. Throws the system's error; then the caller
   * closes both.
   */
  constructor(options: DaemonOptions, socket: string, parts: Parts, running: Running, listening: Listening) {
    this.socket = socket
    this.#options = options
    this.#parts = parts
    this.#listening = listening
    const { devices, interfaces, objectJobs } = parts
    this.ended = new Promise(done => {
      this.#resolveEnded = done
    })
    this.#hotPlug = new HotPlug(devices, objectJobs, () => this.#state)
    this.#loop = this.#createLoop()
    running.loop = this.#loop
    this.#state = this.#createState()
    running.state = this.#state
    const { record } = options
    this.#recording = record && recordDaemon(this.#state, record.fd, record)
    try {
      this.#hotPlug.start(interfaces)
      parts.network.rulesChanged()
      const { listener, reserve } = acceptSessions(this.#state, listening.fd, this.#sessions, () => this.#endIfUnused())
      this.#listener = listener
      this.#reserve = reserve
    } catch (error) {
      this.#loop.stop()
      this.#hotPlug.close()
      throw error
    }
    // The command that started the daemon may have ended before a client connected.
    this.#firstClientTimer = setTimeout(() => this.#endIfUnused(), FIRST_CLIENT_TIMEOUT)
  }

  get hadPredecessor(): boolean {
    return this.#listening.hadPredecessor
  }

  async close(): Promise<void> {
    this.#end('closed')
    await this.ended
  }

  #createLoop(): Loop {
    const { devices, containment, polled, thresholds, onTurn, parkedPage } = this.#parts
    const onFailure = (failed: Pollable, error: unknown): void => {
      const device = devices.network.find(network => network === failed)
      if (device !== undefined) this.#hotPlug.removeFaulty(device, error)
      else containment.report(failed === thresholds ? 'thresholds of events' : 'timers of clients', error)
    }
    return new Loop(parkedPage.words, polled, onTurn, onFailure)
  }

  #createState(): DaemonState {
    const { containment, core, clients, devices, network, slices, torment, parkedPage } = this.#parts
    const { config, parts: replacements = {}, served = ownUserOnly } = this.#options
    const hotPlug = this.#hotPlug
    const pool = createRingPool()
    const contexts = this.#createContexts(pool)
    const log = replacements.log ?? console.error
    const toolTime = new ToolTime({
      isBusy: () => this.#loop.isBusy,
      beforeSlices: () => {
        this.#state.turn++
      },
    })
    const failures = createFailureReports(core, nowMicroseconds, log, (tag, record) =>
      this.#trace.postFailure(tag, record),
    )
    return {
      get config() {
        return { ...config, devices: devices.listed }
      },
      core,
      dispatch: replacements.dispatch ?? dispatch,
      log,
      containment,
      network,
      ringPool: pool,
      loop: this.#loop,
      contexts,
      events: createEventSockets(
        core,
        () => this.#holders(),
        { containment, slices },
        ({ context }) => {
          // A context without memory file has only rdma_cm channels or a umad file. It ends with the last descriptor.
          if (context.mapped === undefined && context.descriptors.size === 0) closeContext(context)
          this.#endIfUnused()
        },
      ),
      limits: createSharedLimits(),
      slices,
      toolTime,
      toolStates: createToolStates(() => this.#state),
      subscriptions: createLimit('subscriptions', MAX_SUBSCRIPTIONS),
      trace: this.#trace,
      cm: clients.use('rdma_cm'),
      failures,
      faults: this.#injectFaults(failures),
      check: config.check
        ? new DaemonChecker(
            core,
            nowMicroseconds,
            { contexts, failures, containment, waits: () => waitsOfQueues({ devices, failures }) },
            config,
          )
        : undefined,
      torment: torment?.decisions,
      destroyWaits: createDestroyWaits(({ object: { context }, failure }) => {
        if (context !== undefined) reportFailure(failure, context.device, context)
      }, containment),
      refreshCounters: () => hotPlug.refreshCounters(),
      netlink: createNetlink({
        containment,
        answer: createRequests(() => this.#state),
        onClosed: () => this.#endIfUnused(),
      }),
      untilContextsDestroyed: user => this.#untilContextsDestroyed(user),
      plug: spec => hotPlug.plug(spec),
      rename: (name, newName) => hotPlug.rename(name, newName),
      unplug: name => hotPlug.unplug(name),
      root: treeOf(this.socket),
      parkedFd: parkedPage.fd,
      devices,
      refuseConnection: createRefusal(containment),
      refuseStranger: createRefusal(containment),
      serves: (fd, peer) => isServed(served, fd, peer),
      stop: () => void setImmediate(() => this.#end('on a request')),
      sessions: () => this.#sessions.size,
      sessionsOf: pid => [...this.#sessions].filter(({ process }) => process.pid === pid).length,
      turn: 0,
      callingProcess: undefined,
    }
  }

  #injectFaults(failures: FailureReports): InjectedFaults {
    const { core, network, parkedPage } = this.#parts
    const faults = injectFaults(core, network.programFaults, {
      wait: milliseconds => waitAtLeast(milliseconds, true),
      processOf(context) {
        const owner = failures.ownerOf(context)
        return owner && { pid: owner.pid, name: () => owner.command }
      },
      callStack: () => this.#state.check?.currentStack ?? [],
      postStack: (...post) => this.#state.check?.requestStack(...post) ?? [],
    })
    network.rulesChanged = () => {
      faults.rulesChanged()
      setWord(parkedPage.words, ParkedPage.POSTS, faults.hasPosts ? 1 : 0)
    }
    return faults
  }

  #createContexts(pool: RingPool): Contexts {
    const { devices, containment } = this.#parts
    const onPosted = (context: Context, handle: number): void => {
      for (const network of devices.network) if (network.device === context.device) network.onDoorbell(context, handle)
    }
    const onRung = (): void => {
      this.#loop.kick()
      this.#endIfUnused()
    }
    const isChecked = this.#options.config.check === true
    return new Contexts(pool, onPosted, onRung, containment, isChecked)
  }

  /**
   * The processes that may have an event descriptor, most likely first: the process whose call runs, then all others
   * with a session.
   */
  *#holders(): Generator<ProcessHandle> {
    const { callingProcess } = this.#state
    if (callingProcess !== undefined) yield callingProcess
    for (const { process } of this.#sessions) if (process !== callingProcess) yield process
  }

  async #untilContextsDestroyed(user: number): Promise<void> {
    const { core, objectJobs } = this.#parts
    await afterHangUps()
    // Queued jobs may still close contexts, in their first slices. An empty job ends after those slices.
    if (objectJobs.waiting > 0) await objectJobs.run([].values())
    // A program may close its memory file after its last doorbell socket: then the context was still held at the hang-up.
    this.#state.contexts.endUnheld()
    await untilContextsDestroyed(core, user)
  }

  /** Descriptors can outlive all sessions: they may be in transit to another program, or inherited. */
  #isUnused(): boolean {
    const { contexts, events, netlink } = this.#state
    const isHeld = contexts.count > 0 || events.count > 0 || netlink.count > 0
    return this.#options.endWithLastClient && this.#sessions.size === 0 && !isHeld
  }

  #endIfUnused(): void {
    if (this.#isUnused())
      setImmediate(() => {
        if (this.#isUnused()) this.#end('its last client has ended')
      })
  }

  #end(reason: DaemonEnd): void {
    if (this.#isEnded) return
    this.#isEnded = true
    clearTimeout(this.#firstClientTimer)
    const { containment, devices, objectJobs, clients, interfaces, parkedPage } = this.#parts
    const { contexts, events, netlink } = this.#state
    containment.runAll('the end of the daemon', [
      () => this.#listener.stop(),
      // First the devices, while the memory of programs can be reached: outstanding requests are flushed.
      () => devices.removeAll(),
      () => objectJobs.finish(),
      ...[...this.#sessions].map(session => () => session.close()),
      () => contexts.closeAll(),
      ...clients.stopSteps,
      () => events.closeAll(),
      () => netlink.closeAll(),
      () => this.#loop.stop(),
      () => interfaces?.close(),
      () => parkedPage.close(),
      () => this.#reserve.close(),
      () => this.#hotPlug.close(),
      // Last: while the socket exists, no other daemon starts here, and makes its tree.
      () => stopListening(this.socket, this.#listening),
    ])
    const resolveEnded = (): void => this.#resolveEnded(reason)
    if (this.#recording === undefined) resolveEnded()
    else void this.#recording.end('the daemon has ended').finally(resolveEnded)
  }
}

/** Starts a daemon, which serves when the promise resolves. Throws an Error with a message for people. */
export const startDaemon = async (options: DaemonOptions): Promise<Daemon> => {
  const { config, socket: path, parts: replacements = {}, served = ownUserOnly, inherited } = options
  checkDevices(config.devices)
  const socket = resolve(path)
  const running: Running = {}
  const interfaces = config.link === 'memory' ? undefined : openInterfaces()
  const parkedPage = createParkedPage()
  let parts: Parts | undefined
  let listening: Listening | undefined
  try {
    parts = createParts(config, interfaces, replacements, running, parkedPage, options.drivers)
    // First the devices: over UDP their creation checks that the addresses exist and are free.
    for (const spec of config.devices) parts.devices.add(spec)
    listening = inherited === undefined ? await listenAt(socket, served) : takeOver(socket, inherited)
    return new RunningDaemon(options, socket, parts, running, listening)
  } catch (error) {
    parts?.devices.removeAll()
    parkedPage.close()
    interfaces?.close()
    if (listening !== undefined) stopListening(socket, listening)
    throw error
  }
}
