/*
 * Kubelet's folder for device plugins: each plugin serves a socket there and registers it with kubelet's own socket. A
 * kubelet that starts removes all sockets and makes its own anew, so the folder is watched, and looked at each few
 * seconds where watching fails. A look serves a socket that is gone, and registers with a kubelet that is new.
 *
 * A kubelet that closes the stream of a plugin has forgotten it, also if it goes on: then, and after a failure, the
 * plugin registers again, later each time.
 */
import { accessSync, constants, type FSWatcher, lstatSync, statSync, watch } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { Client, credentials, type ServiceError } from '@grpc/grpc-js'
import { printable } from '../../spec/printable.ts'
import { type ClaimedSocket, claimSocket } from './claimed-socket.ts'
import { definitionOf } from './definition.ts'
import { KUBELET_SOCKET, type RegisterRequest, VERSION } from './device-plugin.ts'
import { PLUGIN_OPTIONS } from './plugin.ts'

/** Milliseconds for kubelet's answer, which first connects to the plugin. */
const ANSWER_TIME = 10_000
/** Milliseconds between two looks without an event. */
const LOOK_INTERVAL = 5000
/** Milliseconds until the first and the latest further try after a failed registration. */
const RETRY = { first: 50, longest: 10_000 }
/** As RETRY, while a kubelet that has accepted the registration does not open the stream, or has closed it. */
const SILENCE = { first: 2000, longest: 120_000 }

/** A plugin in the folder. */
interface Registered {
  readonly resource: string
  /** The name of its socket. */
  readonly endpoint: string
  serve(connection: Socket): void
  readonly streams: number
}

export interface Kubelet {
  /** A plugin's stream has ended. */
  streamEnded(): void
  close(): void
}

/** Registers a plugin. Rejects with an Error, also when the signal says so. */
const register = (socket: string, { resource, endpoint }: Registered, signal: AbortSignal): Promise<void> => {
  const { path, requestSerialize, responseDeserialize } = definitionOf('v1beta1.Registration').Register!
  // without what earlier channels to the same path have learnt
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_channelz': 0,
    'grpc.enable_http_proxy': 0,
  })
  const request: RegisterRequest = { version: VERSION, endpoint, resource_name: resource, options: PLUGIN_OPTIONS }
  let cancel = (): void => {}
  return new Promise<void>((resolve, reject) => {
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      { deadline: Date.now() + ANSWER_TIME },
      (error: ServiceError | null) =>
        error === null ? resolve() : reject(new Error(error.details.replace(/ Resolution note: $/, ''))),
    )
    cancel = () => call.cancel()
    signal.addEventListener('abort', cancel)
  }).finally(() => {
    signal.removeEventListener('abort', cancel)
    client.close()
  })
}

/** The identity of the file at `path`; undefined if there is none. */
const identityOf = (path: string): string | undefined => {
  const found = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  return found && `${found.dev}:${found.ino}:${found.ctimeNs}`
}

/** What is known of a plugin. */
interface State {
  readonly plugin: Registered
  socket: ClaimedSocket | undefined
  /** The kubelet that has accepted its registration: the identity of its socket. */
  registeredWith: string | undefined
  /** `performance.now` from which on it registers: with a new kubelet, or with its own if it has no stream. */
  due: number
  retry: number
  silence: number
}

const unregistered = (): Omit<State, 'plugin' | 'socket'> => ({
  registeredWith: undefined,
  due: 0,
  retry: RETRY.first,
  silence: SILENCE.first,
})

/**
 * Serves and registers the plugins in `folder` until `close`. Throws an Error if there is no folder, or if a socket
 * cannot be served, for example because another process serves it. `say` gets sentences about registrations.
 */
export const joinKubelet = async (
  folder: string,
  plugins: readonly Registered[],
  say: (sentence: string) => void,
): Promise<Kubelet> => {
  try {
    accessSync(folder, constants.W_OK | constants.X_OK)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES')
      throw new Error(`this user may not make sockets in ${folder}, which is kubelet's: run this command as root`)
  }
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory())
    throw new Error(
      `there is no folder ${folder}, which kubelet makes: no kubelet runs here, or it has another --root-dir; name the folder with --kubelet`,
    )
  const kubelet = join(folder, KUBELET_SOCKET)
  const states = plugins.map((plugin): State => ({ plugin, socket: undefined, ...unregistered() }))
  /** The files whose changes matter. */
  const names = new Set([KUBELET_SOCKET, ...plugins.map(({ endpoint }) => endpoint)])
  let identity: string | undefined
  const closing = new AbortController()
  const { signal } = closing
  let timer: NodeJS.Timeout | undefined
  /** The last sentence about each resource, and about kubelet. */
  const said = new Map<string, string>()
  const sayOnce = (about: string, sentence: string): void => {
    if (said.get(about) !== sentence) say(sentence)
    said.set(about, sentence)
  }

  const wantsTo = ({ plugin, registeredWith }: State): boolean => registeredWith === undefined || plugin.streams === 0

  const serve = async (state: State): Promise<void> => {
    if (state.socket?.isThere()) return
    state.socket?.close()
    state.socket = undefined
    const socket = await claimSocket(join(folder, state.plugin.endpoint), state.plugin.serve)
    if (signal.aborted) socket.close()
    else state.socket = socket
    Object.assign(state, unregistered())
  }

  /** After a failure. */
  const postpone = (state: State): void => {
    state.due = performance.now() + state.retry
    state.retry = Math.min(2 * state.retry, RETRY.longest)
  }

  const registerAt = async (state: State): Promise<void> => {
    const { plugin } = state
    const isNew = state.registeredWith === undefined
    if (!isNew)
      sayOnce(
        plugin.resource,
        `${plugin.resource}: kubelet at ${kubelet} does not watch its devices, as kubelets before 1.26 cannot; registers it again`,
      )
    try {
      const asked = identity
      await register(kubelet, plugin, signal)
      state.registeredWith = asked
      state.due = performance.now() + state.silence
      state.silence = Math.min(2 * state.silence, SILENCE.longest)
      state.retry = RETRY.first
      if (isNew) {
        said.delete(plugin.resource)
        say(`${plugin.resource} is registered with kubelet at ${kubelet}`)
      }
    } catch (error) {
      postpone(state)
      if (!signal.aborted)
        sayOnce(
          plugin.resource,
          `${plugin.resource}: kubelet at ${kubelet}: ${printable((error as Error).message)}; tries again`,
        )
    }
  }

  const look = async (): Promise<void> => {
    const now = identityOf(kubelet)
    if (now !== identity) for (const state of states) Object.assign(state, unregistered())
    identity = now
    if (now === undefined) sayOnce(KUBELET_SOCKET, `waits for kubelet at ${kubelet}`)
    else said.delete(KUBELET_SOCKET)
    for (const state of states) {
      if (signal.aborted) return
      try {
        await serve(state)
      } catch (error) {
        // kubelet is removing what is being made, the folder is gone, or another process has taken the path
        sayOnce(state.plugin.resource, (error as Error).message)
        postpone(state)
        continue
      }
      if (now !== undefined && wantsTo(state) && performance.now() >= state.due && !signal.aborted)
        await registerAt(state)
    }
  }

  let isLooking = false
  let isAgain = false
  /** One look at a time; an event during a look causes another. */
  const lookSoon = (): void => {
    isAgain = true
    if (!isLooking) void lookUntilStill()
  }
  const lookUntilStill = async (): Promise<void> => {
    isLooking = true
    while (isAgain && !signal.aborted) {
      isAgain = false
      await look()
      // others have their turn, also if files change all the time
      await setImmediate()
    }
    isLooking = false
    plan()
  }
  /** Plans the next look. */
  const plan = (): void => {
    clearTimeout(timer)
    if (signal.aborted) return
    const waits = states.filter(wantsTo).map(({ due }) => due - performance.now())
    const next = identity === undefined ? LOOK_INTERVAL : Math.min(LOOK_INTERVAL, ...waits)
    timer = setTimeout(
      () => {
        rewatch()
        lookSoon()
      },
      Math.max(next, RETRY.first),
    )
  }

  let watcher: FSWatcher | undefined
  let watched: string | undefined
  /** Watches the folder, or the one that is at its path now. */
  const rewatch = (): void => {
    const found = statSync(folder, { bigint: true, throwIfNoEntry: false })
    const id = found && `${found.dev}:${found.ino}`
    if (id === watched) return
    watcher?.close()
    watcher = undefined
    watched = id
    if (id === undefined) return
    try {
      watcher = watch(folder, (_, name) => {
        if (name === null || names.has(name)) lookSoon()
      })
      watcher.on('error', () => {})
    } catch {
      // The limit of inotify: the timer looks.
    }
  }

  const close = (): void => {
    closing.abort()
    clearTimeout(timer)
    watcher?.close()
    for (const { socket } of states) socket?.close()
  }
  rewatch()
  try {
    for (const state of states) await serve(state)
  } catch (error) {
    close()
    throw error
  }
  lookSoon()
  return {
    streamEnded() {
      // not at once: kubelet may be ending
      for (const state of states)
        if (state.registeredWith !== undefined && state.plugin.streams === 0)
          state.due = Math.max(state.due, performance.now() + SILENCE.first)
      plan()
    },
    close,
  }
}
