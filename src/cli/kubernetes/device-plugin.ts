/*
 * Kubelet's API for device plugins, v1beta1: its messages in protobuf, methods and names. The facts are those of
 * k8s.io/kubelet, pkg/apis/deviceplugin/v1beta1: api.proto and constants.go.
 *
 * The types of messages are inferred from the tables (`MessageOf`). A map of protobuf is a list of entries with key and
 * value, as on the wire.
 */

/** A field of a message. `int`: int32 or int64. */
export interface Field {
  readonly number: number
  readonly type: 'text' | 'bool' | 'int' | MessageTable
  readonly isList: boolean
}
/** The fields of a message by name. */
export interface MessageTable {
  readonly [name: string]: Field
}

type Scalars = { readonly text: string; readonly bool: boolean; readonly int: number }
type ValueOf<T> = T extends keyof Scalars ? Scalars[T] : T extends MessageTable ? MessageOf<T> : never
/** A message: fields that are absent on the wire have protobuf's defaults; an absent message is undefined. */
export type MessageOf<M extends MessageTable> = {
  readonly [K in keyof M]: M[K]['isList'] extends true
    ? readonly ValueOf<M[K]['type']>[]
    : M[K]['type'] extends MessageTable
      ? ValueOf<M[K]['type']> | undefined
      : ValueOf<M[K]['type']>
}

const one = <const T extends Field['type']>(number: number, type: T) => ({ number, type, isList: false }) as const
const list = <const T extends Field['type']>(number: number, type: T) => ({ number, type, isList: true }) as const

const Empty = {} as const
const Options = { pre_start_required: one(1, 'bool'), get_preferred_allocation_available: one(2, 'bool') } as const
const Device = {
  ID: one(1, 'text'),
  health: one(2, 'text'),
  topology: one(3, { nodes: list(1, { ID: one(1, 'int') }) }),
} as const
const Entry = { key: one(1, 'text'), value: one(2, 'text') } as const
const Mount = { container_path: one(1, 'text'), host_path: one(2, 'text'), read_only: one(3, 'bool') } as const
const Node = { container_path: one(1, 'text'), host_path: one(2, 'text'), permissions: one(3, 'text') } as const
const Edits = {
  envs: list(1, Entry),
  mounts: list(2, Mount),
  devices: list(3, Node),
  annotations: list(4, Entry),
  cdi_devices: list(5, { name: one(1, 'text') }),
} as const
const Preference = {
  available_deviceIDs: list(1, 'text'),
  must_include_deviceIDs: list(2, 'text'),
  allocation_size: one(3, 'int'),
} as const
const Register = {
  version: one(1, 'text'),
  endpoint: one(2, 'text'),
  resource_name: one(3, 'text'),
  options: one(4, Options),
} as const
const Ids = { devices_ids: list(1, 'text') } as const

/** The methods that kubelet serves, and those of a plugin. `isStream`: with any number of responses. */
export const Services = {
  'v1beta1.Registration': { Register: { request: Register, response: Empty, isStream: false } },
  'v1beta1.DevicePlugin': {
    GetDevicePluginOptions: { request: Empty, response: Options, isStream: false },
    ListAndWatch: { request: Empty, response: { devices: list(1, Device) }, isStream: true },
    GetPreferredAllocation: {
      request: { container_requests: list(1, Preference) },
      response: { container_responses: list(1, { deviceIDs: list(1, 'text') }) },
      isStream: false,
    },
    Allocate: {
      request: { container_requests: list(1, Ids) },
      response: { container_responses: list(1, Edits) },
      isStream: false,
    },
    PreStartContainer: { request: Ids, response: Empty, isStream: false },
  },
} as const

export type PluginMethods = (typeof Services)['v1beta1.DevicePlugin']
export type RegisterRequest = MessageOf<typeof Register>
export type PluginOptions = MessageOf<typeof Options>
export type ListedShares = MessageOf<PluginMethods['ListAndWatch']['response']>
export type ContainerEdits = MessageOf<typeof Edits>
export type ContainerPreference = MessageOf<typeof Preference>

export const VERSION = 'v1beta1'
export const KUBELET_FOLDER = '/var/lib/kubelet/device-plugins'
/** In that folder. */
export const KUBELET_SOCKET = 'kubelet.sock'
export const Health = { up: 'Healthy', down: 'Unhealthy' } as const
