/*
 * The plugin of a resource: the service that kubelet calls (spec/device-plugin.ts) about the shares of a daemon's
 * devices. Health follows the daemon: its end makes all shares unhealthy, and a device that it no longer has is not
 * listed.
 *
 * Allocate answers environment and mounts, which every kubelet applies, and with `cdi` also the names of the Container
 * Device Interface, whose edits replace the same ones where kubelet and container runtime know it.
 */
import type { Socket } from 'node:net'
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  status,
} from '@grpc/grpc-js'
import {
  type ContainerEdits,
  Health,
  type ListedShares,
  type MessageOf,
  type PluginMethods,
  type PluginOptions,
} from '../../spec/device-plugin.ts'
import { printable } from '../../spec/printable.ts'
import { type Edits, KIND } from '../container-edits.ts'
import { messageOf } from '../fail.ts'
import { definitionOf } from './definition.ts'
import { isOf, preferred, type Resource, sharesOf } from './resources.ts'
import type { WatchedDaemon } from './watched-daemon.ts'

export const PLUGIN_OPTIONS: PluginOptions = { pre_start_required: false, get_preferred_allocation_available: true }

/** What containers get. */
interface ContainerSettings {
  /** Throws an Error. */
  edits(): Edits
  /** Whether kubelet gets names of the Container Device Interface too. */
  readonly hasCdi: boolean
}

interface Plugin {
  /** Serves a connection of kubelet. */
  serve(connection: Socket): void
  /** Open streams of `ListAndWatch`. */
  readonly streams: number
  /** The daemon has changed. */
  update(): void
  /** For people: `100 shares of rxe0`. */
  describe(): string
  close(): void
}

type Request<M extends keyof PluginMethods> = MessageOf<PluginMethods[M]['request']>
type Response<M extends keyof PluginMethods> = MessageOf<PluginMethods[M]['response']>
type Stream = ServerWritableStream<Request<'ListAndWatch'>, ListedShares>

/** An error that the caller gets, with a code of gRPC. */
class Refusal extends Error {
  readonly code: number
  constructor(code: number, message: string) {
    super(message)
    this.code = code
  }
}

/** The handler of a method: `answer` throws a Refusal, or another Error for what is not the caller's fault. */
const handler =
  <M extends keyof PluginMethods>(
    answer: (request: Request<M>) => Response<M>,
  ): handleUnaryCall<Request<M>, Response<M>> =>
  ({ request }, callback) => {
    let response: Response<M>
    try {
      response = answer(request)
    } catch (error) {
      const code = error instanceof Refusal ? error.code : status.UNAVAILABLE
      callback({ code, details: messageOf(error) })
      return
    }
    callback(null, response)
  }

/** The plugin of a resource. `onEnd`: a stream of `ListAndWatch` has ended. */
export const createPlugin = (
  resource: Resource,
  daemon: WatchedDaemon,
  { edits, hasCdi }: ContainerSettings,
  onEnd: () => void,
): Plugin => {
  const devicesNow = (): string[] => daemon.devices.filter(device => isOf(resource, device)).map(({ name }) => name)
  let shares = sharesOf(resource, devicesNow())
  let isUp = daemon.isUp

  /** The device of each share. Throws a Refusal. */
  const devicesOf = (ids: readonly string[]): readonly string[] => {
    const unknown = ids.filter(id => !shares.has(id))
    if (unknown.length > 0) {
      const [id = ''] = unknown
      const others = unknown.length > 1 ? ` and ${unknown.length - 1} others` : ''
      const known = [...shares.keys()]
      const all = known.length === 0 ? 'it has none' : `it has ${known[0]} to ${known.at(-1)}`
      throw new Refusal(
        status.NOT_FOUND,
        `${resource.name} has no share "${printable(id).slice(0, 80)}"${others}; ${all}`,
      )
    }
    if (!isUp)
      throw new Refusal(status.UNAVAILABLE, `${resource.name}: no daemon of userdma serves; wait until it does`)
    return [...new Set(ids.map(id => shares.get(id)!))]
  }

  const editsFor = (ids: readonly string[]): ContainerEdits => {
    if (ids.length === 0) throw new Refusal(status.INVALID_ARGUMENT, `${resource.name}: a container without shares`)
    const devices = devicesOf(ids)
    const { env, mounts } = edits()
    return {
      envs: Object.entries(env).map(([key, value]) => ({ key, value })),
      mounts: mounts.map(({ hostPath, containerPath }) => ({
        container_path: containerPath,
        host_path: hostPath,
        read_only: true,
      })),
      devices: [],
      annotations: [],
      cdi_devices: hasCdi ? devices.map(name => ({ name: `${KIND}=${name}` })) : [],
    }
  }

  const list = (): ListedShares => ({
    devices: [...shares.keys()].map(ID => ({ ID, health: isUp ? Health.up : Health.down, topology: undefined })),
  })

  /** Streams, each with whether it waits until its reader has read. */
  const streams = new Map<Stream, { isFull: boolean; isBehind: boolean }>()
  const send = (stream: Stream): void => {
    const state = streams.get(stream)
    if (state === undefined) return
    state.isBehind = state.isFull
    if (!state.isFull) state.isFull = !stream.write(list())
  }
  const listAndWatch: handleServerStreamingCall<Request<'ListAndWatch'>, ListedShares> = stream => {
    const state = { isFull: false, isBehind: false }
    streams.set(stream, state)
    const end = (): void => {
      if (streams.delete(stream)) onEnd()
    }
    stream.on('drain', () => {
      state.isFull = false
      if (state.isBehind) send(stream)
    })
    for (const event of ['cancelled', 'error', 'close']) stream.on(event, end)
    send(stream)
  }

  const server = new Server({ 'grpc.enable_channelz': 0 })
  server.addService(definitionOf('v1beta1.DevicePlugin'), {
    GetDevicePluginOptions: handler<'GetDevicePluginOptions'>(() => PLUGIN_OPTIONS),
    ListAndWatch: listAndWatch,
    GetPreferredAllocation: handler<'GetPreferredAllocation'>(({ container_requests }) => ({
      container_responses: container_requests.map(request => ({ deviceIDs: preferred(request, shares) })),
    })),
    Allocate: handler<'Allocate'>(({ container_requests }) => ({
      container_responses: container_requests.map(({ devices_ids }) => editsFor(devices_ids)),
    })),
    PreStartContainer: handler<'PreStartContainer'>(({ devices_ids }) => {
      devicesOf(devices_ids)
      return {}
    }),
  })
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure())

  return {
    serve: connection => injector.injectConnection(connection),
    get streams() {
      return streams.size
    },
    update() {
      const next = sharesOf(resource, devicesNow())
      const isSame = isUp === daemon.isUp && [...next.keys()].join() === [...shares.keys()].join()
      shares = next
      isUp = daemon.isUp
      if (!isSame) for (const stream of streams.keys()) send(stream)
    },
    describe() {
      const devices = [...new Set(shares.values())]
      return devices.length === 0 ? 'no shares' : `${shares.size} shares of ${devices.join(', ')}`
    },
    close() {
      injector.destroy()
      server.forceShutdown()
    },
  }
}
