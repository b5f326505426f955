/*
 * Linux's write() commands on an rdma_cm file (rdma_user_cm.h), with their methods and the offsets of attributes.
 *
 * A command is {u32 command, u16 in, u16 out} and the request struct. `in` is the size of the request struct, `out`
 * that of the response buffer, in bytes. The request struct has a pointer to the response buffer. The channel is the
 * descriptor that the program writes to.
 */

import {
  CmAddresses,
  CmConnectionParameters,
  CmDatagramParameters,
  CmEce,
} from '../classes/connections/cm_parameters.ts'
import { CmEventType, CmOptionLevel, CmPortSpace } from '../enums.ts'
import { rejReason } from '../wire/mad.ts'
import { embed, type Layout, layout, object, value } from './layout.ts'
import { ahAddress } from './structs.ts'

/** {u32 command, u16 in, u16 out}. */
export const UCMA_HEADER_BYTES = 8

export interface UcmaCommand {
  readonly name: string
  readonly number: number
  readonly class: 'cm_channel' | 'cm_id' | 'cm_multicast'
  readonly method: string
  readonly in: Layout
  /** Offset of the pointer to the response buffer; undefined: no response. */
  readonly response?: number
  readonly out?: Layout
  /** Minimum bytes of the response buffer; default those of `out`. */
  readonly minResponseBytes?: number
  /** The attribute whose value is the channel. */
  readonly channel?: string
  /** Bytes of the request struct in older versions of Linux. Later fields are read only if the struct has them all. */
  readonly minBytes?: number
  /** Linux looks up the object before it checks the size of the response buffer. */
  readonly checksObjectFirst?: true
  /** Offset of the number of the descriptor of the channel to which the identifier's events go. */
  readonly currentChannelAt?: number
  /** Of several methods with one command number: the u32 at `at` selects the one with that `value`, else the first. */
  readonly option?: { readonly at: number; readonly value: number }
  /** An attribute in the caller's memory: offsets of its address and length. */
  readonly userMemory?: { readonly address: number; readonly length: number; readonly attribute: string }
  /** An attribute in the struct. `length`: offset of its length (one byte). */
  readonly inlineBytes?: { readonly at: number; readonly length: number; readonly attribute: string }
  /** Linux accepts only these values of the byte at `at`; otherwise EINVAL. */
  readonly acceptedByte?: { readonly at: number; readonly values: readonly number[] | 'nonzero' }
  /** Linux implements only these values of the u32 at `at`; otherwise ENOSYS, after `userMemory` was read. */
  readonly implemented?: { readonly at: number; readonly values: readonly number[] }
  /** Linux does not read `attribute` if the u16 at `at` is `value`. */
  readonly ignored?: { readonly attribute: string; readonly at: number; readonly value: number }
  /**
   * A list in the response: its offset, the bytes of an element (`size`), and the offset of the number of elements
   * (`count`). As on Linux, an element is written only if the rest of the buffer is larger than the element.
   */
  readonly list?: { readonly attribute: string; readonly at: number; readonly size: number; readonly count: number }
  /** The response has the layout of QUERY_ROUTE (uapi/linux/ucma-route.ts). */
  readonly hasRouteLayout?: true
  /** These arguments are omitted if the byte at `at` is 0. */
  readonly omittedIfZero?: { readonly at: number; readonly attributes: readonly string[] }
  /** A field that must be 0. */
  readonly reserved?: { readonly at: number; readonly bytes: 2 | 4 }
  /** Offsets of addresses and of their lengths (u16). Without `length` the address is a struct sockaddr_in6. */
  readonly addresses?: readonly {
    readonly at: number
    readonly length?: number
    readonly attribute: string
    readonly optional?: true
  }[]
}

export const SOCKADDR_IN6_BYTES = 28

/** Offsets of `ece` in rdma_ucm_connect and rdma_ucm_accept. The structs of older versions of Linux end there. */
const CONNECT_ECE_OFFSET = 280
const ACCEPT_ECE_OFFSET = 288
/** Bytes of an older rdma_ucm_event_resp in a 32-bit program: without the padding at the end, and without `ece`. */
const EVENT_BEFORE_PADDING = 324
/** Bytes of an older rdma_ucm_query_addr_resp, without `deviceIndex`. */
const ADDRESSES_BEFORE_INDEX = 272

const addresses = layout(280, embed(0, 'addresses', CmAddresses))

const qpAttributes: Layout = {
  ...layout(
    144,
    value(4, 4, 'state'),
    value(12, 4, 'pathMtu'),
    value(20, 4, 'qkey'),
    value(24, 4, 'rqPsn'),
    value(28, 4, 'sqPsn'),
    value(32, 4, 'destQpn'),
    value(36, 4, 'accessFlags'),
    // Identifiers are of all devices: the result has the address of the link of its own.
    ahAddress(40).flatMap(({ link, ...cell }) => (link === 'opa' ? [] : [cell])),
    value(124, 2, 'pkeyIndex'),
    value(130, 1, 'maxRdAtomic'),
    value(131, 1, 'maxDestRdAtomic'),
    value(132, 1, 'minRnrTimer'),
    value(133, 1, 'port'),
    value(134, 1, 'timeout'),
    value(135, 1, 'retryCnt'),
    value(136, 1, 'rnrRetry'),
  ),
  maskAt: 0,
}

const eventResponse = layout(
  336,
  value(0, 8, 'userHandle'),
  value(8, 4, 'object'),
  value(12, 4, 'type'),
  value(16, 4, 'status'),
  // A union: the type of the event determines which of the three the struct has.
  embed(20, 'connection', CmConnectionParameters),
  embed(20, 'datagram', CmDatagramParameters),
  value(20, 8, 'argument'),
  embed(328, 'ece', CmEce),
)

/** The number of events that the program has read. */
const eventCountResponse = layout(4, value(0, 4, 'events'))

const JOIN = {
  class: 'cm_multicast',
  method: 'create',
  response: 0,
  out: layout(4, object(0)),
} as const

export const ucmaCommands: readonly UcmaCommand[] = [
  {
    name: 'CREATE_ID',
    number: 0,
    class: 'cm_id',
    method: 'create',
    in: layout(24, value(0, 8, 'userHandle'), value(16, 2, 'portSpace'), value(18, 1, 'qpType')),
    ignored: { attribute: 'qpType', at: 16, value: CmPortSpace.values.TCP },
    response: 8,
    out: layout(4, object(0)),
    channel: 'channel',
  },
  {
    name: 'DESTROY_ID',
    number: 1,
    class: 'cm_id',
    method: 'destroy',
    in: layout(16, object(8)),
    response: 0,
    out: eventCountResponse,
  },
  {
    name: 'BIND_IP',
    number: 2,
    class: 'cm_id',
    method: 'bind',
    in: layout(40, object(36)),
    addresses: [{ at: 8, attribute: 'address' }],
  },
  {
    name: 'RESOLVE_IP',
    number: 3,
    class: 'cm_id',
    method: 'resolveAddress',
    in: layout(64, object(56), value(60, 4, 'timeout')),
    addresses: [
      { at: 0, attribute: 'source', optional: true },
      { at: 28, attribute: 'destination' },
    ],
  },
  {
    name: 'RESOLVE_ROUTE',
    number: 4,
    class: 'cm_id',
    method: 'resolveRoute',
    in: layout(8, object(0), value(4, 4, 'timeout')),
  },
  {
    name: 'QUERY_ROUTE',
    number: 5,
    class: 'cm_id',
    method: 'query',
    in: layout(16, object(8)),
    response: 0,
    out: layout(208),
    minResponseBytes: 200,
    hasRouteLayout: true,
  },
  {
    name: 'CONNECT',
    number: 6,
    class: 'cm_id',
    method: 'connect',
    in: layout(
      288,
      embed(0, 'parameters', CmConnectionParameters),
      object(272),
      embed(CONNECT_ECE_OFFSET, 'ece', CmEce),
    ),
    minBytes: CONNECT_ECE_OFFSET,
    acceptedByte: { at: CmConnectionParameters.valid.offset, values: 'nonzero' },
  },
  {
    name: 'LISTEN',
    number: 7,
    class: 'cm_id',
    method: 'listen',
    in: layout(8, object(0), value(4, 4, 'backlog')),
  },
  {
    name: 'ACCEPT',
    number: 8,
    class: 'cm_id',
    method: 'accept',
    in: layout(
      296,
      value(0, 8, 'userHandle'),
      embed(8, 'parameters', CmConnectionParameters),
      object(280),
      embed(ACCEPT_ECE_OFFSET, 'ece', CmEce),
    ),
    minBytes: ACCEPT_ECE_OFFSET,
    omittedIfZero: { at: 8 + CmConnectionParameters.valid.offset, attributes: ['parameters', 'userHandle'] },
  },
  {
    name: 'REJECT',
    number: 9,
    class: 'cm_id',
    method: 'reject',
    in: layout(264, object(0), value(5, 1, 'reason')),
    inlineBytes: { at: 8, length: 4, attribute: 'privateData' },
    // The other reasons are for the connection manager itself.
    acceptedByte: { at: 5, values: [0, rejReason.CONSUMER_DEFINED, rejReason.VENDOR_OPTION_NOT_SUPPORTED] },
  },
  { name: 'DISCONNECT', number: 10, class: 'cm_id', method: 'disconnect', in: layout(4, object(0)) },
  {
    name: 'INIT_QP_ATTR',
    number: 11,
    class: 'cm_id',
    method: 'initQpAttr',
    in: layout(16, object(8), value(12, 4, 'state')),
    response: 0,
    out: qpAttributes,
  },
  {
    name: 'GET_EVENT',
    number: 12,
    class: 'cm_channel',
    method: 'getEvent',
    in: layout(8),
    response: 0,
    out: eventResponse,
    minResponseBytes: EVENT_BEFORE_PADDING,
  },
  {
    name: 'SET_OPTION',
    number: 14,
    class: 'cm_id',
    method: 'setOption',
    in: layout(24, object(8), value(12, 4, 'level'), value(16, 4, 'option')),
    userMemory: { address: 0, length: 20, attribute: 'value' },
    implemented: { at: 12, values: Object.values(CmOptionLevel.values) },
  },
  {
    name: 'NOTIFY',
    number: 15,
    class: 'cm_id',
    method: 'notify',
    in: layout(8, object(0), value(4, 4, 'event')),
  },
  {
    name: 'JOIN_IP_MCAST',
    number: 16,
    ...JOIN,
    in: layout(48, value(8, 8, 'userHandle'), value(44, 4, 'id')),
    addresses: [{ at: 16, attribute: 'address' }],
  },
  {
    name: 'LEAVE_MCAST',
    number: 17,
    class: 'cm_multicast',
    method: 'destroy',
    in: layout(16, object(8)),
    response: 0,
    out: eventCountResponse,
  },
  {
    name: 'MIGRATE_ID',
    number: 18,
    class: 'cm_id',
    method: 'modify',
    in: layout(16, object(8)),
    response: 0,
    out: eventCountResponse,
    minResponseBytes: 0,
    channel: 'channel',
    currentChannelAt: 12,
  },
  {
    name: 'QUERY',
    number: 19,
    class: 'cm_id',
    method: 'query',
    in: layout(16, object(8)),
    response: 0,
    out: addresses,
    minResponseBytes: ADDRESSES_BEFORE_INDEX,
    checksObjectFirst: true,
    option: { at: 12, value: 0 },
    implemented: { at: 12, values: [0, 1, 2, 3] },
  },
  {
    name: 'QUERY_PATH',
    number: 19,
    class: 'cm_id',
    method: 'queryPath',
    in: layout(16, object(8)),
    response: 0,
    out: layout(440),
    minResponseBytes: 8,
    checksObjectFirst: true,
    option: { at: 12, value: 1 },
    list: { attribute: 'paths', at: 8, size: 72, count: 0 },
  },
  {
    name: 'QUERY_GID',
    number: 19,
    class: 'cm_id',
    method: 'queryGids',
    in: layout(16, object(8)),
    response: 0,
    out: addresses,
    minResponseBytes: ADDRESSES_BEFORE_INDEX,
    checksObjectFirst: true,
    option: { at: 12, value: 2 },
  },
  {
    name: 'QUERY_IB_SERVICE',
    number: 19,
    class: 'cm_id',
    method: 'queryServices',
    in: layout(16, object(8)),
    response: 0,
    out: layout(8),
    checksObjectFirst: true,
    option: { at: 12, value: 3 },
  },
  {
    name: 'BIND',
    number: 20,
    class: 'cm_id',
    method: 'bind',
    in: layout(136, object(0)),
    reserved: { at: 6, bytes: 2 },
    addresses: [{ at: 8, length: 4, attribute: 'address' }],
  },
  {
    name: 'RESOLVE_ADDR',
    number: 21,
    class: 'cm_id',
    method: 'resolveAddress',
    in: layout(272, object(0), value(4, 4, 'timeout')),
    reserved: { at: 12, bytes: 4 },
    addresses: [
      { at: 16, length: 8, attribute: 'source', optional: true },
      { at: 144, length: 10, attribute: 'destination' },
    ],
  },
  {
    name: 'JOIN_MCAST',
    number: 22,
    ...JOIN,
    in: layout(152, value(8, 8, 'userHandle'), value(16, 4, 'id'), value(22, 2, 'flags')),
    addresses: [{ at: 24, length: 20, attribute: 'address' }],
  },
  {
    name: 'RESOLVE_IB_SERVICE',
    number: 23,
    class: 'cm_id',
    method: 'resolveService',
    in: layout(88, object(0), value(8, 8, 'serviceId'), value(16, 64, 'serviceName'), value(80, 4, 'flags')),
  },
  {
    name: 'WRITE_CM_EVENT',
    number: 24,
    class: 'cm_id',
    method: 'writeEvent',
    in: layout(320, object(0), value(8, 4, 'type'), value(12, 4, 'status'), value(16, 8, 'argument')),
    acceptedByte: { at: 8, values: [CmEventType.values.USER, CmEventType.values.INTERNAL] },
  },
]

/** Linux's other commands by number, with the errors of Linux. */
export const absentUcmaCommands: Readonly<
  Record<number, { readonly name: string; readonly code: 'ENOSYS' | 'EOPNOTSUPP'; readonly why: string }>
> = {
  13: { name: 'GET_OPTION', code: 'ENOSYS', why: 'Linux reserves its number and has never implemented it' },
}
