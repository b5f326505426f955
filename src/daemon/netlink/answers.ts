/*
 * What the handlers of RDMA_NLDEV requests share: types of requests and answers, look-ups of the named device and port,
 * and the division of long lists into messages.
 */

import type { Core } from '../../core/model.ts'
import { callError } from '../../spec/errno.ts'
import { MAX_DATAGRAM_BYTES, type NldevAttributeName, type NldevCommandName } from '../../spec/linux/nldev.ts'
import { type Attributes, type Entries, type Entry, encodeAttributes } from '../../uapi/nldev/attributes.ts'
import { MESSAGE_HEADER } from '../../uapi/nldev/messages.ts'
import type { DaemonDevice, Devices } from '../devices/devices.ts'
import type { DeviceNamespaces } from '../devices/namespaces.ts'
import type { FailureReports } from '../failures.ts'
import type { Sessions } from '../session/sessions.ts'
import type { NamespaceOfFd } from './netlink.ts'

/** What requests read and change. */
export interface Managed {
  readonly core: Core
  readonly devices: Devices
  readonly failures: FailureReports
  /** Folder of the sysfs and device tree. */
  readonly root: string
  readonly namespaces: DeviceNamespaces
  /** The processes with a session. */
  readonly sessions: Pick<Sessions, 'processes'>
}

export interface ParsedRequest {
  readonly attributes: Attributes
  /** Whether the program may send requests that need CAP_NET_ADMIN on Linux. */
  readonly isAdmin: boolean
  /** The network namespace of the socket; undefined: unknown. */
  readonly namespace: string | undefined
  readonly namespaceOfFd: NamespaceOfFd
}

/** A long computation, which yields between steps. */
export type Work<T> = Generator<undefined, T>

/**
 * Handles a `doit` request. Returns the attributes of the answer, or a computation of them, or undefined if an
 * acknowledgement suffices. Throws CallError to refuse.
 */
export type AnswerOne = (daemon: Managed, parsed: ParsedRequest) => Entries | undefined | Work<Entries | undefined>

/**
 * Handles a `dumpit` request. Yields the bodies of the list's messages, and undefined between steps. Throws CallError
 * to refuse or abort.
 */
export type AnswerList = (daemon: Managed, parsed: ParsedRequest) => Generator<Uint8Array | undefined>

export type Answers = Readonly<
  Partial<Record<NldevCommandName, { readonly one?: AnswerOne; readonly list?: AnswerList }>>
>

const missing = (name: NldevAttributeName): never => {
  throw callError.EINVAL`attribute ${name} is missing`
}

/** Throws CallError EINVAL if the attribute is missing. */
export const required = <K extends NldevAttributeName>(attributes: Attributes, name: K): NonNullable<Attributes[K]> =>
  attributes[name] ?? missing(name)

/** The device named in a request. Throws CallError EINVAL. */
export const deviceOf = ({ devices }: Managed, { attributes }: Pick<ParsedRequest, 'attributes'>): DaemonDevice => {
  const index = required(attributes, 'DEV_INDEX')
  const found = devices.all.find(({ device }) => device.serial === index)
  if (found === undefined) throw callError.EINVAL`there is no device with index ${index}`
  return found
}

/** As in Linux, lists of devices are in the order of their numbers. */
export const byIndex = ({ all }: Devices): DaemonDevice[] => [...all].sort((a, b) => a.device.serial - b.device.serial)

/** The port named in a request, if any. Throws CallError EINVAL. */
export const portOf = (
  { device }: DaemonDevice,
  { attributes }: Pick<ParsedRequest, 'attributes'>,
): number | undefined => {
  const { PORT_INDEX: port } = attributes
  if (port !== undefined && (port < 1 || port > device.ports.length))
    throw callError.EINVAL`device ${device.name} has no port ${port}; number of ports: ${device.ports.length}`
  return port
}

/** The port named in a request. Throws CallError EINVAL. */
export const requiredPort = (device: DaemonDevice, parsed: ParsedRequest): number =>
  portOf(device, parsed) ?? missing('PORT_INDEX')

/** The attributes by which answers name a device (Linux: fill_nldev_handle). */
export const handleOf = ({ device }: Pick<DaemonDevice, 'device'>): readonly Entry[] => [
  ['DEV_INDEX', device.serial],
  ['DEV_NAME', device.name],
]

/** A list of counters. */
export const hwCounters = (counters: readonly (readonly [name: string, value: bigint])[]): Entry => [
  'STAT_HWCOUNTERS',
  {
    flagged: counters.map(
      ([name, value]): Entry => [
        'STAT_HWCOUNTER_ENTRY',
        {
          flagged: [
            ['STAT_HWCOUNTER_ENTRY_NAME', name],
            ['STAT_HWCOUNTER_ENTRY_VALUE', value],
          ],
        },
      ],
    ),
  },
]

const MAX_BODY_BYTES = MAX_DATAGRAM_BYTES - MESSAGE_HEADER
/** Bytes of struct nlattr. */
const ATTRIBUTE_HEADER = 4

/**
 * Yields message bodies: `head`, and a nested attribute `table` with as many entries as fit. An entry longer than a
 * message is omitted. Without entries there is no message. Yields undefined for an undefined entry, which is a step of
 * a long computation.
 */
export function* tableMessages(
  head: Entries,
  table: NldevAttributeName,
  entries: Iterable<Entry | undefined>,
): Generator<Uint8Array | undefined> {
  const headBytes = encodeAttributes(head)
  const maxBytes = MAX_BODY_BYTES - headBytes.length - ATTRIBUTE_HEADER
  let parts: Uint8Array[] = []
  let bytes = 0
  const message = (): Uint8Array => Buffer.concat([headBytes, encodeAttributes([[table, Buffer.concat(parts)]])])
  for (const entry of entries) {
    if (entry === undefined) {
      yield undefined
      continue
    }
    const encoded = encodeAttributes([entry])
    if (encoded.length > maxBytes) continue
    if (bytes + encoded.length > maxBytes) {
      yield message()
      parts = []
      bytes = 0
    }
    parts.push(encoded)
    bytes += encoded.length
  }
  if (parts.length > 0) yield message()
}
