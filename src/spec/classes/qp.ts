/*
 * What the classes of queue pairs have in common (IBA 10.3; R9): each type is a class of its own with only its
 * attributes, chosen here from one table, so that what a type does not have cannot be passed to it, a Q_Key to RC for
 * example.
 *
 * The attributes of `modify` and `query` have the ids of Linux's attribute mask: id = 1 + number of the mask bit, so
 * presence of the attribute and the bit are one fact. Which of them a transition needs is the QP state table's
 * business. No class knows its type's packets or rules.
 */
import { AccessFlags, Mtu, PathMigState, QpFlags, QpState } from '../enums.ts'
import type { QpTypeName } from '../qp-states.ts'
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
} from '../schema/schema.ts'

/** The classes of queue pairs, each with its row of the state table (spec/qp-states.ts). */
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
} as const satisfies Record<string, QpTypeName>
export type QpClassName = keyof typeof QpTypes
export const QP_CLASSES = Object.keys(QpTypes) as QpClassName[]

/** Sizes of the queues: work requests, scatter/gather elements of one, bytes of inline data. */
export const QpCap = {
  maxSendWr: at(0, u32(0)),
  maxRecvWr: at(4, u32(0)),
  maxSendSge: at(8, u32(0)),
  maxRecvSge: at(12, u32(0)),
  maxInlineData: at(16, u32(0)),
}

/** Where to send, on a link that is Ethernet (R10). `isGlobal` must be 1 there: RoCE's packets have a global route. */
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

/**
 * The same on a link that is InfiniBand, and on Omni-Path, whose LIDs have 32 bits: within a subnet the LID is enough,
 * and `isGlobal` says whether what is of the global route means anything.
 */
export const IbAddress = {
  ...QpAddress,
  srcPathBits: at(27, u8(0, { max: 127 })),
  dlid: at(28, u16(0)),
}
export const OpaAddress = { ...QpAddress, srcPathBits: at(27, u8(0)), dlid: at(28, u32(0)) }

/**
 * The attributes that say where to, by link (R10, R27): the object dialect takes those of the device's link only
 * (spec/links.ts). A connection of iWARP has its addresses already.
 */
export const ADDRESSES = ['address', 'ibAddress', 'opaAddress', 'dmac', 'vlan'] as const

/**
 * What RoCE has beside the address (spec/links.ts): the MAC address of the next hop, and the VLAN. Without them the
 * device finds both, as Linux's kernel does from the route and the GID's interface: none of Linux's structs has them.
 */
export const ethernetOf = (dmac: number, vlan: number) => ({
  dmac: optional(bytes(dmac, 6)),
  vlan: optional(u16(vlan, { max: 4094 })),
})

/** The alternate path of automatic path migration; of each link, as addresses are. */
export const QpAlternatePath = {
  ...QpAddress,
  altPort: at(27, u8(0)),
  pkeyIndex: at(28, u16(0)),
  timeout: at(30, u8(0, { max: 31 })),
}
const withLids = { altPort: at(32, u8(0)), timeout: at(33, u8(0, { max: 31 })), pkeyIndex: at(34, u16(0)) }
export const IbAlternatePath = { ...IbAddress, ...withLids }
export const OpaAlternatePath = { ...OpaAddress, ...withLids }
export const ALTERNATE_PATHS = ['alternatePath', 'ibAlternatePath', 'opaAlternatePath'] as const

const PSN = { max: 0xffffff }

/**
 * Attributes in both directions, of all types. Timers and retries in the encodings of IBA 9.7.5 and 11.6.2: timeout
 * 4.096 µs·2^t, 0 = none.
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

/** Creation names them from here on. */
const AT_CREATION = 32

/**
 * Attributes with which a queue pair is created right into a state, or not at all (R7): core takes it there step by
 * step, each with what the state table has it take.
 */
const initially = <A extends Attributes>(attributes: A): Optional<A> =>
  Object.fromEntries(
    Object.entries(attributes).map(([name, one]) => [name, { ...optional(one), id: AT_CREATION + one.id }]),
  ) as Optional<A>

/** What a creation takes beside what the class needs. */
export const initialAttributes = <const N extends QpAttributeName>(...names: readonly N[]) =>
  initially(choose(['state', ...names] as const))

const allOptional = <A extends Attributes>(attributes: A): Optional<A> =>
  Object.fromEntries(Object.entries(attributes).map(([name, one]) => [name, optional(one)])) as Optional<A>

/** What a queue pair that sends and receives is made from. */
const createArguments = {
  pd: ref(1, 'pd'),
  sendCq: ref(2, 'cq'),
  recvCq: ref(3, 'cq'),
  cap: record(4, QpCap),
  flags: optional(flagsOf(5, QpFlags)),
  userHandle: u64(6),
  asyncFd: optional(fd(7, 'async_fd')),
  /** Receive requests come from there: the queue pair has none of its own, and `cap.maxRecvWr` means nothing. */
  srq: optional(ref(8, 'srq')),
}

/** The methods of a type whose queue pairs have these attributes beside `state` and `curState`. */
export const qpMethods = <const N extends QpAttributeName>(...names: readonly N[]) => {
  const attributes = choose(['state', 'curState', 'enSqdAsyncNotify', ...names] as const)
  return {
    create: method(CREATE, {
      in: { ...createArguments, ...initialAttributes(...names) },
      out: { cap: record(64, QpCap), qpNum: u32(65) },
      driverAttributes: true,
    }),
    /** The device answers every attribute whatever `attrMask`, Linux's mask, asks for. */
    query: method(QUERY, {
      in: { attrMask: optional(u32(64)) },
      out: { ...attributes, cap: record(20, QpCap), sqDraining: u8(32), sqSigAll: u8(33, { max: 1 }) },
    }),
    modify: method(MODIFY, { in: allOptional(attributes), out: {} }),
    /** `events`: asynchronous events of this QP that the caller has read. */
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
  }
}

/**
 * The doorbell of the send queue: work requests lie in the mapped queue. Linux's POST_SEND can carry requests too; they
 * are passed on as they are and `badWr` counts from 1 to the first one refused.
 */
export const postSend = (call: number) =>
  method(call, {
    in: {
      wrCount: optional(u32(1)),
      sgeCount: optional(u32(2)),
      wqeSize: optional(u32(3)),
      requests: optional(blob(4, 0xffe0)),
    },
    out: { badWr: u32(64) },
  })
