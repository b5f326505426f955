import { resolve } from 'node:path'
import { openInterfaces } from '../host/net/interfaces.ts'
import { endClock, startClock } from './clock.ts'
import type { Containment } from './containment.ts'
import { checkDevices } from './devices/device-spec.ts'
import { loadFor } from './devices/devices.ts'
import { loadFabric, untilConfigured } from './devices/fabric.ts'
import { type DaemonEnd, Lifetime } from './lifetime.ts'
import { type Listening, listenAt, stopListening, takeOver } from './listening.ts'
import { createParkedPage } from './parked-page.ts'
import { acceptSessions, createParts, createServices, type DaemonOptions, type Parts } from './parts.ts'
import { type DaemonRecording, recordDaemon } from './recording.ts'
import { ownUserOnly } from './session/served-users.ts'

export interface Daemon {
  /** Absolute path. */
  readonly socket: string
  /** An earlier daemon, which was killed or lost its socket, had left its socket or files. They were removed. */
  readonly hadPredecessor: boolean
  /** Resolves with the reason. */
  readonly ended: Promise<DaemonEnd>
  close(): Promise<void>
}

/** A daemon with `endWithLastClient` ends if no client connects within this many milliseconds. */
const FIRST_CLIENT_TIMEOUT = 10_000

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
    const fabric = await loadFabric(config.fabric)
    const parts = createParts(options, interfaces, parkedPage, lifetime, undo, fabric)
    const { devices, subnet } = parts.objects
    undo.push(() => devices.removeAll())
    await loadFor(config.devices, parts.objects.clients)
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
