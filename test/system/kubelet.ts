/*
 * A stand-in for kubelet that follows its protocol with device plugins (Kubernetes 1.32, pkg/kubelet/cm/devicemanager):
 * at its start it removes all sockets of the folder; when a plugin registers, it connects back, asks for the options,
 * answers, and then watches the devices. Its messages are those of kubelet.proto, by protobufjs: none of our own code
 * reads or writes them.
 */
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Client, credentials, type MethodDefinition, Server, ServerCredentials, type ServiceError } from '@grpc/grpc-js'
import protobuf from 'protobufjs'
import { until } from '../limits.ts'
import { repoRoot } from '../paths.ts'

const root = new protobuf.Root().loadSync(join(repoRoot, 'test/system/kubelet.proto'), { keepCase: true })

/** The methods of a service, by protobufjs. */
const methodsOf = (service: string): Record<string, MethodDefinition<object, object>> =>
  Object.fromEntries(
    root.lookupService(`v1beta1.${service}`).methodsArray.map(({ name, requestType, responseType, responseStream }) => {
      const [request, response] = [requestType, responseType].map(type => root.lookupType(`v1beta1.${type}`))
      const write = (type: protobuf.Type) => (value: object) =>
        Buffer.from(type.encode(type.fromObject(value)).finish())
      const read = (type: protobuf.Type) => (bytes: Buffer) => type.toObject(type.decode(bytes), { defaults: true })
      const definition = {
        path: `/v1beta1.${service}/${name}`,
        requestStream: false,
        responseStream: responseStream === true,
        requestSerialize: write(request!),
        requestDeserialize: read(request!),
        responseSerialize: write(response!),
        responseDeserialize: read(response!),
      }
      return [name, definition]
    }),
  )

const methods = methodsOf('DevicePlugin')

export interface Listed {
  readonly ID: string
  readonly health: string
}

/** What Allocate answers for a container. */
export interface Allocated {
  readonly envs: Readonly<Record<string, string>>
  readonly mounts: readonly {
    readonly container_path: string
    readonly host_path: string
    readonly read_only: boolean
  }[]
  readonly cdi_devices: readonly { readonly name: string }[]
}

/** A registered plugin. */
export class Endpoint {
  readonly options: Promise<object>
  /** The newest list; undefined before the first. */
  listed: readonly Listed[] | undefined
  isEnded = false
  readonly #client: Client

  constructor(path: string) {
    this.#client = new Client(`unix:${path}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_channelz': 0,
    })
    this.options = this.call('GetDevicePluginOptions', {})
  }

  /** Rejects with the ServiceError. */
  call<T>(method: string, request: object): Promise<T> {
    const { path, requestSerialize, responseDeserialize } = methods[method]
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        (error: ServiceError | null, response?: object) => (error === null ? resolve(response as T) : reject(error)),
      )
    })
  }

  watch(): void {
    const { path, requestSerialize, responseDeserialize } = methods.ListAndWatch
    const stream = this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, {})
    const end = (): void => {
      this.isEnded = true
    }
    stream.on('data', ({ devices }: { readonly devices: readonly Listed[] }) => {
      this.listed = devices
    })
    stream.on('error', end)
    stream.on('end', end)
  }

  /** The answer for one container. */
  async allocate(...ids: readonly string[]): Promise<Allocated> {
    const request = { container_requests: [{ devices_ids: ids }] }
    const { container_responses } = await this.call<{ container_responses: Allocated[] }>('Allocate', request)
    return container_responses[0]
  }

  close(): void {
    this.#client.close()
  }
}

/** Where a kubelet stops to follow the protocol, once. */
export type Misbehaviour = 'refuses' | 'dies before its answer' | 'never watches' | 'closes the stream'

export class Kubelet {
  readonly folder: string
  /** The newest plugin of each resource. */
  readonly endpoints = new Map<string, Endpoint>()
  registrations = 0
  misbehaves: Misbehaviour | undefined
  #server: Server | undefined

  /** `folder`: that of device plugins, which it makes. */
  constructor(folder: string) {
    this.folder = folder
    mkdirSync(folder, { recursive: true, mode: 0o750 })
  }

  async start(): Promise<void> {
    for (const name of readdirSync(this.folder)) {
      const path = join(this.folder, name)
      if (statSync(path, { throwIfNoEntry: false })?.isSocket()) rmSync(path, { force: true })
    }
    const server = new Server({ 'grpc.enable_channelz': 0 })
    server.addService(methodsOf('Registration'), {
      Register: (
        { request }: { request: { version: string; endpoint: string; resource_name: string; options: object } },
        answer: (error: object | null, value?: object) => void,
      ) => {
        this.#register(request)
          .then(value => answer(null, value))
          .catch((error: Error) => answer({ code: 2, details: error.message }))
      },
    })
    await new Promise<void>((resolve, reject) =>
      server.bindAsync(`unix:${join(this.folder, 'kubelet.sock')}`, ServerCredentials.createInsecure(), error =>
        error === null ? resolve() : reject(error),
      ),
    )
    this.#server = server
  }

  async #register(request: { version: string; endpoint: string; resource_name: string }): Promise<object> {
    const { version, endpoint, resource_name } = request
    const misbehaves = this.misbehaves
    this.misbehaves = undefined
    if (version !== 'v1beta1') throw new Error(`version ${version}`)
    if (misbehaves === 'refuses') throw new Error('refused')
    if (misbehaves === 'dies before its answer') {
      this.stop()
      throw new Error('dead')
    }
    this.endpoints.get(resource_name)?.close()
    const plugin = new Endpoint(join(this.folder, endpoint))
    await plugin.options
    this.endpoints.set(resource_name, plugin)
    this.registrations++
    if (misbehaves !== 'never watches') setImmediate(() => plugin.watch())
    if (misbehaves === 'closes the stream') setImmediate(() => plugin.close())
    return {}
  }

  /** Ends at once, as if killed. */
  stop(): void {
    for (const endpoint of this.endpoints.values()) endpoint.close()
    this.endpoints.clear()
    this.#server?.forceShutdown()
    this.#server = undefined
  }

  async restart(): Promise<void> {
    this.stop()
    await this.start()
  }

  /** The plugin of the resource, once it has listed devices that `isReached` accepts. */
  async until(
    resource: string,
    isReached: (listed: readonly Listed[], endpoint: Endpoint) => boolean,
  ): Promise<Endpoint> {
    const found = (): Endpoint | undefined => this.endpoints.get(resource)
    const isFound = (): boolean => {
      const endpoint = found()
      return endpoint?.listed !== undefined && isReached(endpoint.listed, endpoint)
    }
    const text = (): string => {
      const listed = found()?.listed
      return `${resource} still has ${JSON.stringify(listed?.slice(0, 10))} of ${listed?.length} devices`
    }
    await until(isFound, text, 60)
    return found() as Endpoint
  }
}
