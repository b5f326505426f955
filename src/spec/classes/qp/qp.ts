/*
 * The attributes and methods of the classes of queue pairs (IBA 10.3; R9). Each QP type is a class, in a file of its
 * own, with the attributes that the type has.
 *
 * Ids up to 21 of the attributes of `modify` and `query` follow Linux's attribute mask: id = 1 + bit number. The QP
 * state table has the attributes of each transition (spec/qp-states.ts).
 */
import { AccessFlags, Mtu, PathMigState, QpFlags, QpState } from '../../enums.ts'
import type { QpTypeName } from '../../qp-states.ts'
import {
  type Attribute,
  type Attributes,
  at,
  blob,
  bytes,
  CREATE,
  DESTROY,
  enumOf,
  fd,
  flagsOf,
  MODIFY,
  method,
  optional,
  QUERY,
  record,
  ref,
  u8,
  u16,
  u32,
  u64,
} from '../../schema/schema.ts'

/** The classes of queue pairs, each with its key in the state table `qpTransitions` (spec/qp-states.ts). */
export const QpTypes = {
  rc_qp: 'RC',
  uc_qp: 'UC',
  ud_qp: 'UD',
  xrc_ini_qp: 'XRC_INI',
  xrc_tgt_qp: 'XRC_TGT',
  raw_packet_qp: 'RAW_PACKET',
  gsi_qp: 'GSI',
  smi_qp: 'SMI',
  rd_qp: 'RD',
  driver_qp: 'DRIVER',
  dci_qp: 'DCI',
  dct_qp: 'DCT',
} as const satisfies Record<string, QpTypeName>
export type QpClassName = keyof typeof QpTypes
export const QP_CLASSES = Object.keys(QpTypes) as QpClassName[]

/** ibv_qp_cap: maximum work requests, scatter/gather elements per request, and bytes of inline data. */
export const QpCap = {
  maxSendWr: at(0, u32(0)),
  maxRecvWr: at(4, u32(0)),
  maxSendSge: at(8, u32(0)),
  maxRecvSge: at(12, u32(0)),
  maxInlineData: at(16, u32(0)),
}

/** Destination on Ethernet. Devices refuse `isGlobal` 0: RoCE packets always have a global route. */
export const QpAddress = {
  dgid: at(0, bytes(0, 16)),
  flowLabel: at(16, u32(0)),
  sgidIndex: at(20, u8(0)),
  hopLimit: at(21, u8(0)),
  trafficClass: at(22, u8(0)),
  sl: at(23, u8(0)),
  staticRate: at(24, u8(0)),
  isGlobal: at(25, u8(0, { max: 1 })),
  port: at(26, u8(0)),
}

/** Destination on InfiniBand. `isGlobal` 1: the fields of the global route are valid. */
export const IbAddress = {
  ...QpAddress,
  srcPathBits: at(27, u8(0, { max: 127 })),
  dlid: at(28, u16(0)),
}
/** Destination on Omni-Path. */
export const OpaAddress = { ...QpAddress, srcPathBits: at(27, u8(0)), dlid: at(28, u32(0)) }

/** The destination attributes of all links. A device accepts only those of its link (spec/links.ts). */
export const ADDRESSES = ['address', 'ibAddress', 'opaAddress', 'dmac', 'vlan'] as const

/**
 * RoCE's optional attributes beside the address (spec/links.ts): the next hop's MAC address and the VLAN. By default
 * the device determines both, as Linux does from the route and the GID's interface. The arguments are the attributes'
 * ids.
 */
export const ethernetOf = (dmac: number, vlan: number) => ({
  dmac: optional(bytes(dmac, 6)),
  vlan: optional(u16(vlan, { max: 4094 })),
})

/** The alternate path of automatic path migration, on Ethernet. */
const QpAlternatePath = {
  ...QpAddress,
  altPort: at(27, u8(0)),
  pkeyIndex: at(28, u16(0)),
  timeout: at(30, u8(0, { max: 31 })),
}
/** The fields of an alternate path after an address with LIDs. */
const alternateWithLids = { altPort: at(32, u8(0)), timeout: at(33, u8(0, { max: 31 })), pkeyIndex: at(34, u16(0)) }
const IbAlternatePath = { ...IbAddress, ...alternateWithLids }
const OpaAlternatePath = { ...OpaAddress, ...alternateWithLids }
export const ALTERNATE_PATHS = ['alternatePath', 'ibAlternatePath', 'opaAlternatePath'] as const

const PSN = { max: 0xffffff }

/**
 * The attributes of `modify` and `query`, of all types. Timers are codes (IBA 9.7.5, 11.6.2): `timeout` t is 4.096 µs ·
 * 2^t, 0 is no timeout; `minRnrTimer` is an index of `rnrTimerMicroseconds` (spec/wire/headers.ts).
 */
export const qpAttributes = {
  state: enumOf(1, QpState, 1),
  curState: enumOf(2, QpState, 1),
  enSqdAsyncNotify: u8(3),
  accessFlags: flagsOf(4, AccessFlags),
  pkeyIndex: u16(5),
  port: u8(6),
  qkey: u32(7),
  address: record(8, QpAddress),
  pathMtu: enumOf(9, Mtu, 1),
  timeout: u8(10, { max: 31 }),
  retryCnt: u8(11, { max: 7 }),
  rnrRetry: u8(12, { max: 7 }),
  rqPsn: u32(13, PSN),
  maxRdAtomic: u8(14),
  alternatePath: record(15, QpAlternatePath),
  minRnrTimer: u8(16, { max: 31 }),
  sqPsn: u32(17, PSN),
  maxDestRdAtomic: u8(18),
  pathMigState: enumOf(19, PathMigState, 1),
  destQpn: u32(21, { max: 0xffffff }),
  ibAddress: optional(record(40, IbAddress)),
  opaAddress: optional(record(41, OpaAddress)),
  ibAlternatePath: optional(record(42, IbAlternatePath)),
  opaAlternatePath: optional(record(43, OpaAlternatePath)),
  ...ethernetOf(44, 45),
}
export type QpAttributeName = keyof typeof qpAttributes

type Chosen<N extends QpAttributeName> = { [K in N]: (typeof qpAttributes)[K] }
type Optional<A extends Attributes> = { [K in keyof A]: A[K] extends Attribute<infer T> ? Attribute<T, true> : never }

const choose = <N extends QpAttributeName>(names: readonly N[]): Chosen<N> =>
  Object.fromEntries(names.map(name => [name, qpAttributes[name]])) as Chosen<N>

/** Attribute n of `modify` has the id CREATE_OFFSET + n in `create`. */
const CREATE_OFFSET = 32

const asInitialAttributes = <A extends Attributes>(attributes: A): Optional<A> =>
  Object.fromEntries(
    Object.entries(attributes).map(([name, attribute]) => [
      name,
      { ...optional(attribute), id: CREATE_OFFSET + attribute.id },
    ]),
  ) as Optional<A>

/**
 * `state` and other attributes of `modify` as attributes of `create`, to create a queue pair in that state. Core
 * makes the transitions of the state table, each with its attributes. If a transition fails, the creation fails.
 */
export const initialAttributes = <const N extends QpAttributeName>(...names: readonly N[]) =>
  asInitialAttributes(choose(['state', ...names] as const))

const allOptional = <A extends Attributes>(attributes: A): Optional<A> =>
  Object.fromEntries(Object.entries(attributes).map(([name, attribute]) => [name, optional(attribute)])) as Optional<A>

/** Inputs of `create` of types with a send and a receive queue. */
const createArguments = {
  pd: ref(1, 'pd'),
  sendCq: ref(2, 'cq'),
  recvCq: ref(3, 'cq'),
  cap: record(4, QpCap),
  flags: optional(flagsOf(5, QpFlags)),
  userHandle: u64(6),
  asyncFd: optional(fd(7, 'async_fd')),
  /** The queue pair takes receive requests from this SRQ and has no receive queue: `cap` is for the send queue only. */
  srq: optional(ref(8, 'srq')),
}

/** The methods of a type with these attributes, and with `state`, `curState` and `enSqdAsyncNotify`. */
export const qpMethods = <const N extends QpAttributeName>(...names: readonly N[]) => {
  const attributes = choose(['state', 'curState', 'enSqdAsyncNotify', ...names] as const)
  return {
    create: method(CREATE, {
      in: { ...createArguments, ...initialAttributes(...names) },
      out: { cap: record(64, QpCap), qpNum: u32(65) },
      driverAttributes: true,
    }),
    /** Returns all attributes; `attrMask` (Linux's mask) is ignored. */
    query: method(QUERY, {
      in: { attrMask: optional(u32(64)) },
      out: { ...attributes, cap: record(20, QpCap), sqDraining: u8(32), sqSigAll: u8(33, { max: 1 }) },
    }),
    modify: method(MODIFY, { in: allOptional(attributes), out: {} }),
    /** `events`: number of asynchronous events of the QP that were read, for ibv_ack_async_event. */
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
  }
}

/** Maximum bytes of the requests of a POST_SEND. Less than an attribute's maximum, 65,535. */
const MAX_REQUEST_BYTES = 0xffe0

/**
 * The doorbell of the send queue: the work requests are in the mapped queue. Linux's write command POST_SEND can carry
 * `wrCount` requests of `wqeSize` bytes each, then `sgeCount` scatter/gather elements, in `requests`; the soft device
 * refuses such requests with EINVAL. `badWr`: the first refused request, counted from 1; 0: none.
 */
export const postSend = (call: number) =>
  method(call, {
    role: 'transfers',
    in: {
      wrCount: optional(u32(1)),
      sgeCount: optional(u32(2)),
      wqeSize: optional(u32(3)),
      requests: optional(blob(4, MAX_REQUEST_BYTES)),
    },
    out: { badWr: u32(64) },
  })
