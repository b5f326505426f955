/*
 * Assembles the daemon: devices on a network, the session socket, the tree of files that programs read, and the loop
 * that moves packets (ARCHITECTURE.md). `userdma daemon` runs it; other programs can run it in their own process.
 */

import { existsSync, rmSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { Clients, classesWithClients, clientNames } from '../clients/clients.ts'
import { closeContext, createCore, STEPS_PER_TURN, untilContextsDestroyed } from '../core/devices/registry.ts'
import { dispatch } from '../core/dispatch/dispatch.ts'
import { expire } from '../core/events/events.ts'
import { nextDue } from '../core/events/thresholds.ts'
import { reportFailure } from '../core/failures.ts'
import type { Identity } from '../drivers/rxe/address/identity.ts'
import type { createRxeDevice, RxeDevice } from '../drivers/rxe/device.ts'
import { qpOfNumber } from '../drivers/rxe/resources.ts'
import { createTorment, TORMENT_SCRATCH_BYTES } from '../drivers/rxe/torment/torment.ts'
import { EADDRINUSE, EMFILE, ENFILE, SystemError } from '../host/errno.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { watch } from '../host/event-loop/poll.ts'
import { createSlices } from '../host/event-loop/slices.ts'
import { exposure } from '../host/exposure.ts'
import { takeLock } from '../host/lock-file.ts'
import { createRingPool, type Mapping, mapArena, type RingPool } from '../host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK } from '../host/memory/memfd.ts'
import type { ProcessHandle } from '../host/memory/process.ts'
import { openInterfaces } from '../host/net/interfaces.ts'
import { sourceAddress } from '../host/net/route.ts'
import { accept, close, listen } from '../host/net/sockets.ts'
import { secureRandom } from '../host/random.ts'
import { readTorment } from '../spec/check/torment.ts'
import { ParkedPage } from '../spec/session.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import { createDaemonChecker } from './check.ts'
import { createContainment } from './containment.ts'
import { createContexts } from './context/contexts.ts'
import { createEventSockets } from './context/event-sockets.ts'
import { createDestroyWaits } from './destroy-waits.ts'
import { checkDevices } from './devices/device-spec.ts'
import { createDevices } from './devices/devices.ts'
import { followInterfaces } from './devices/follow-interfaces.ts'
import { createNetwork } from './devices/network.ts'
import { createFailureReports } from './failures.ts'
import { createFdQuotas } from './fd-quota.ts'
import { createDeviceFiles, type DeviceFiles } from './files/device-files.ts'
import { removeTree } from './files/tree.ts'
import { createLoop, type Loop, type Pollable } from './loop.ts'
import { createMemoryQuotas } from './memory-quota.ts'
import { notifyAdded, notifyMoved, notifyRemoved, notifyRenamed } from './netlink/monitor.ts'
import { createNetlink } from './netlink/netlink.ts'
import { createRequests } from './netlink/requests.ts'
import { createSession, type Session } from './session/client-session.ts'
import { createRefusal } from './session/refuse-connection.ts'
import { createReserve } from './session/reserve.ts'
import { isServed, isShared, ownUserOnly, type Served } from './session/served-users.ts'
import type { DaemonState } from './state.ts'
import { createTraceHub } from './trace/trace-hub.ts'

export interface DaemonOptions {
  /** Path of the socket. */
  readonly socket: string
  readonly config: DaemonConfig
  /** Whether the daemon ends once the last session and the last context have ended. */
  readonly endWithLastClient: boolean
  /** Users to serve besides the process's own; default: none. */
  readonly served?: Served
  /** Replacements of parts: tests replace some by failing ones, to check that the daemon contains exceptions. */
  readonly parts?: Partial<DaemonParts>
}

export interface DaemonParts {
  readonly createRxeDevice: typeof createRxeDevice
  readonly dispatch: typeof dispatch
  /** Logs a line in place of console.error. */
  readonly log: (...words: unknown[]) => void
}

export interface Daemon {
  /** Absolute path of the socket. */
  readonly socket: string
  /** Resolves when the daemon has ended. */
  readonly ended: Promise<void>
  close(): Promise<void>
}

/** Thrown if another daemon serves the socket. */
export class SocketInUseError extends Error {
  override readonly name = 'SocketInUseError'
}

/** Maximum bytes of the socket's path: sun_path without its NUL. */
const MAX_SOCKET_PATH = 107
/** Maximum bytes of the tree's path without its NUL: it must fit in its field of the HELLO reply. */
const MAX_ROOT_PATH = 239

const requirePrivateFolder = (socket: string): void => {
  const folder = dirname(socket)
  if (!existsSync(folder)) throw new Error(`socket ${socket}: folder ${folder} does not exist`)
  const exposureReason = exposure(folder)
  if (exposureReason === undefined) return
  throw new Error(
    `socket ${socket}: ${exposureReason}, who could replace the daemon's files; take a folder that only you can write to (\`mkdir -m 700 FOLDER\`), or omit --socket`,
  )
}

const listenAt = async (socket: string, served: Served): Promise<number> => {
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH)
    throw new Error(
      `socket path ${socket} has ${Buffer.byteLength(socket)} bytes; the system allows ${MAX_SOCKET_PATH}`,
    )
  requirePrivateFolder(socket)
  const lock = await takeLock(`${socket}.lock`)
  try {
    return listen(socket, { mode: isShared(served) ? 0o666 : 0o600 })
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

/** The page with the parked word (loop.ts). Only the daemon can write it: it is mapped here before it is sealed. */
const createParkedPage = (pool: RingPool): { fd: number; mapping: Mapping } => {
  const fd = createMemfd('userdma-parked', ParkedPage.bytes)
  addSeals(fd, SEAL_SHRINK | SEAL_GROW)
  const mapping = pool.map(fd, 0, ParkedPage.bytes)
  addSeals(fd, SEAL_FUTURE_WRITE | SEAL_SEAL)
  return { fd, mapping }
}

/**
 * Resolves once all hang-ups that the kernel has queued by now are handled: after this poll phase of the event loop and
 * the next.
 */
const afterHangUps = (): Promise<void> =>
  new Promise(resolve => {
    setImmediate(() => setImmediate(resolve))
  })

/** A daemon with `endWithLastClient` ends if no client connects within this many milliseconds. */
const FIRST_CLIENT_TIMEOUT = 10_000

/**
 * The parts of a daemon below its sessions: core with its devices and clients, and their network. `onTurn` is called
 * before each slice of `slices`, `loop` returns the loop once it runs.
 */
const createParts = (
  config: DaemonConfig,
  { log, createRxeDevice }: Partial<DaemonParts>,
  onTurn: () => void,
  loop: () => Loop | undefined,
) => {
  const interfaces = config.link === 'memory' ? undefined : openInterfaces()
  const network = createNetwork(config, interfaces)
  const containment = createContainment(log)
  const slices = createSlices(onTurn)
  const objectJobs = createSlices(undefined, STEPS_PER_TURN)
  const core = createCore({
    classes: classesWithClients(() => clients),
    now: nowMicroseconds,
    random: secureRandom,
    report: error => containment.report('core', error),
    run: job => objectJobs.begin(job, error => containment.report('an end of objects', error)),
  })
  const clients = new Clients(core, {
    now: nowMicroseconds,
    random: secureRandom,
    routing:
      config.link === 'memory'
        ? { isClosed: true }
        : { sourceOf: sourceAddress, neighbourOf: (index, address) => interfaces?.neighbourOf(index, address) },
    // A program may connect only queue pairs of its own user.
    mayConnect({ account }, { name }, qpn) {
      const rxe = devices.find(name)?.rxe
      const qp = rxe && qpOfNumber(rxe.state, qpn)
      return (qp === undefined ? process.geteuid?.() : qp.context?.account?.user) === account?.user
    },
    limitedUserOf: ({ account }) => (account?.user === process.geteuid?.() ? undefined : account?.user),
    wake: () => loop()?.advance(),
  })
  for (const name of clientNames) clients.use(name)
  const clientTimers: Pollable = { poll: now => clients.onTimeout(now), nextTimeout: () => clients.nextTimeout() }
  const thresholds: Pollable = { poll: now => expire(core, now), nextTimeout: () => nextDue(core) }
  const polled = [thresholds, clientTimers]
  const tormentOptions = config.torment === undefined ? undefined : readTorment(config.torment)
  const torment = tormentOptions && createTorment(tormentOptions, mapArena(TORMENT_SCRATCH_BYTES))
  // On a memory link received packets need no notification: the loop itself moves packets between devices.
  const wakeLoop = config.link === 'memory' ? undefined : () => loop()?.kick()
  const devices = createDevices(core, network, interfaces, polled, wakeLoop, createRxeDevice, torment)
  return { interfaces, network, containment, slices, objectJobs, core, clients, thresholds, polled, torment, devices }
}

/** Accepts connections and starts their sessions. `onSessionEnd` is called after the end of each. */
const acceptSessions = (daemon: DaemonState, listening: number, sessions: Set<Session>, onSessionEnd: () => void) => {
  const { containment } = daemon
  const startSession = containment.guard('a new session', (fd: number): void => {
    const session = createSession(daemon, fd, () => {
      if (session) sessions.delete(session)
      onSessionEnd()
    })
    if (session) sessions.add(session)
  })
  const onConnection = (): void => {
    let fd = accept(listening)
    for (; fd >= 0; fd = accept(listening)) startSession(fd)
    if (fd === -EMFILE || fd === -ENFILE) reserve.refuseNext()
  }
  const listener = watch(listening, { readable: true }, containment.guard('the listening socket', onConnection))
  const reserve = createReserve({
    listening,
    refuseConnection: daemon.refuseConnection,
    setAccepting: isAccepting => listener.update({ readable: isAccepting }),
    log: daemon.log,
    guard: containment.guard,
  })
  return { listener, reserve }
}

/** Starts a daemon; it serves when the promise resolves. Throws an Error with a message for people. */
export const startDaemon = async ({
  socket: path,
  config,
  endWithLastClient,
  parts: replacements = {},
  served = ownUserOnly,
}: DaemonOptions): Promise<Daemon> => {
  checkDevices(config.devices)
  const socket = resolve(path)
  const root = `${socket}.tree`
  if (Buffer.byteLength(root) > MAX_ROOT_PATH) throw new Error(`socket path ${socket} is too long`)
  const onTurn = (): void => {
    daemon.turn++
  }
  const { interfaces, network, containment, slices, objectJobs, core, clients, thresholds, polled, torment, devices } =
    createParts(config, replacements, onTurn, () => runningLoop)
  const trace = createTraceHub(nowMicroseconds)
  let runningLoop: Loop | undefined
  let listening: number
  try {
    // Creating the devices checks that their addresses exist and are free, so this comes first.
    for (const spec of config.devices) devices.add(spec)
    listening = await listenAt(socket, served)
  } catch (error) {
    devices.removeAll()
    interfaces?.close()
    throw error
  }
  /**
   * Called last: while the socket exists, no other daemon starts at this path, so `removeTree` removes our own tree.
   */
  const stopListening = (): void => {
    rmSync(socket, { force: true })
    close(listening)
  }

  // A pool of its own, because `userdma stat` shows the counts of the other pool as those of contexts' memory.
  const parkedPool = createRingPool()
  const parkedPage = createParkedPage(parkedPool)
  /** Removes a device that threw, since its state is unknown; its programs get DEVICE_FATAL. */
  const removeFaulty = (device: Pick<RxeDevice, 'device'>, error: unknown): void => {
    const { name } = device.device
    containment.report(`device ${name}, which is removed`, error)
    if (devices.find(name)?.device === device.device) daemon.unplug(name)
  }
  const loop = createLoop(parkedPage.mapping.i32, polled, onTurn, (failed, error) => {
    const device = devices.rxe.find(rxe => rxe === failed)
    if (device !== undefined) removeFaulty(device, error)
    else containment.report(failed === thresholds ? 'thresholds of events' : 'timers of clients', error)
  })
  runningLoop = loop
  const pool = createRingPool()
  const contexts = createContexts(
    pool,
    (context, handle) => {
      for (const { device, onDoorbell } of devices.rxe) if (device === context.device) onDoorbell(context, handle)
    },
    () => {
      loop.kick()
      endIfUnused()
    },
    containment,
  )
  const failures = createFailureReports(core, nowMicroseconds, replacements.log ?? console.error, trace.postFailure)
  const sessions = new Set<Session>()
  /**
   * The processes that may have an event descriptor, most likely first: the one whose call runs, then all others with a
   * session, since copies may be in any process, and a device can be removed outside a call.
   */
  const holders = function* (): Generator<ProcessHandle> {
    if (daemon.callingProcess !== undefined) yield daemon.callingProcess
    for (const { process } of sessions) if (process !== daemon.callingProcess) yield process
  }
  let files: DeviceFiles | undefined
  /** Makes an added device follow its interface; undefined without interfaces. */
  let followDevice: ((added: RxeDevice) => void) | undefined
  const daemon: DaemonState = {
    get config() {
      return { ...config, devices: devices.listed }
    },
    core,
    dispatch: replacements.dispatch ?? dispatch,
    log: replacements.log ?? console.error,
    containment,
    network,
    pool,
    loop,
    contexts,
    events: createEventSockets(core, holders, { containment, slices }, ({ context }) => {
      // A context without memory file has only rdma_cm channels or a umad file; it ends with the last of them.
      if (context.mapped === undefined && context.descriptors.size === 0) closeContext(context)
    }),
    fdQuotas: createFdQuotas(),
    memory: createMemoryQuotas(),
    slices,
    trace,
    cm: clients.use('rdma_cm'),
    failures,
    check: config.check ? createDaemonChecker(core, nowMicroseconds, { contexts, failures }, config) : undefined,
    torment: torment?.decisions,
    destroyWaits: createDestroyWaits(
      containment.guard('a destroy that waits', ({ object: { context }, failure }) => {
        if (context !== undefined) reportFailure(failure, context.device, context)
      }),
    ),
    refreshCounters: () => files?.refreshCounters() ?? 0,
    netlink: createNetlink({ containment, slices, answer: createRequests(() => daemon) }),
    async untilContextsDestroyed(user) {
      await afterHangUps()
      // Queued jobs may still close contexts.
      if (objectJobs.waiting > 0) await objectJobs.run([].values())
      // A program closes its doorbell before its memory file.
      contexts.endUnheld()
      await untilContextsDestroyed(core, user)
    },
    plug(spec) {
      // A device that is being removed may still have the name or address.
      objectJobs.finish()
      const added = devices.add(spec)
      files?.add(added)
      if (added.rxe !== undefined) followDevice?.(added.rxe)
      loop.kick()
      notifyAdded(daemon.netlink, added)
    },
    rename(name, newName) {
      const found = devices.find(name)
      if (found === undefined || name === newName) return
      devices.rename(found, newName)
      files?.rename(found, name)
      notifyRenamed(daemon.netlink, found)
    },
    unplug(name) {
      const removed = devices.find(name)
      devices.remove(name)
      if (removed === undefined) return
      daemon.contexts.hangUp(removed.device)
      files?.remove(removed)
      notifyRemoved(daemon.netlink, removed)
    },
    root,
    parkedFd: parkedPage.fd,
    devices,
    refuseConnection: createRefusal(containment),
    serves: (fd, peer) => isServed(served, fd, peer),
    sessions: () => sessions.size,
    sessionsOf: pid => [...sessions].filter(({ process }) => process.pid === pid).length,
    turn: 0,
    callingProcess: undefined,
  }
  try {
    const deviceFiles = createDeviceFiles(root, devices.all)
    files = deviceFiles
    const onChanged = (device: Pick<RxeDevice, 'device' | 'state'>, previous?: Identity): void => {
      deviceFiles.update(device)
      if (previous !== undefined) notifyMoved(daemon.netlink, device, previous)
    }
    if (interfaces)
      followDevice = followInterfaces(interfaces, devices.rxe, onChanged, removeFaulty, {
        ownMac: ({ device }, mac) => daemon.cm.hardwareAddressChanged(device, mac),
        neighbourMac: ({ device }, address, mac) => daemon.cm.neighbourChanged(device, address, mac),
      })
  } catch (error) {
    loop.stop()
    interfaces?.close()
    devices.removeAll()
    close(parkedPage.fd)
    parkedPool.release(parkedPage.mapping)
    removeTree(root)
    stopListening()
    throw error
  }

  let resolveEnded = (): void => {}
  const ended = new Promise<void>(done => {
    resolveEnded = done
  })
  let isEnded = false
  const end = (): void => {
    if (isEnded) return
    isEnded = true
    clearTimeout(firstClientTimer)
    containment.runAll('the end of the daemon', [
      () => listener.stop(),
      ...[...sessions].map(session => session.close),
      () => daemon.contexts.closeAll(),
      () => devices.removeAll(),
      () => objectJobs.finish(),
      ...clients.stopSteps,
      () => daemon.events.closeAll(),
      () => daemon.netlink.closeAll(),
      () => loop.stop(),
      () => interfaces?.close(),
      () => close(parkedPage.fd),
      () => parkedPool.release(parkedPage.mapping),
      () => reserve.close(),
      () => removeTree(root),
      stopListening,
    ])
    resolveEnded()
  }

  /** A context can outlive all sessions, if its descriptor is in transit to another program or was inherited. */
  const isUnused = (): boolean => endWithLastClient && sessions.size === 0 && daemon.contexts.count === 0
  const endIfUnused = (): void => {
    if (isUnused())
      setImmediate(() => {
        if (isUnused()) end()
      })
  }

  // The command that started the daemon may have ended before a client connected.
  const firstClientTimer = setTimeout(endIfUnused, FIRST_CLIENT_TIMEOUT)

  const { listener, reserve } = acceptSessions(daemon, listening, sessions, endIfUnused)

  return {
    socket,
    ended,
    async close() {
      end()
      await ended
    },
  }
}
