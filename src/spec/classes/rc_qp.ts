/*
 * Class `rc_qp`: a queue pair of the reliable connected service (IBA 9.7, 10.3), a class of its own (R9): what RC does
 * not have, a Q_Key for example, cannot be passed.
 *
 * The attributes of `modify` and `query` have the ids of Linux's attribute mask: id = 1 + number of the mask bit, so
 * presence of the attribute and the bit are one fact. Which of them a transition needs is the QP state table's
 * business.
 */
import { AccessFlags, Mtu, PathMigState, QpState, RcQpFlags } from '../enums.ts'
import {
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
  objectClass,
  optional,
  QUERY,
  record,
  ref,
  u8,
  u16,
  u32,
  u64,
} from '../schema.ts'
import { CallNumber, ClassId } from './ids.ts'

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

/** The alternate path of automatic path migration. */
export const QpAlternatePath = {
  ...QpAddress,
  altPort: at(27, u8(0)),
  pkeyIndex: at(28, u16(0)),
  timeout: at(30, u8(0, { max: 31 })),
}

const PSN = { max: 0xffffff }

/**
 * Attributes in both directions. Timers and retries in the encodings of IBA 9.7.5 and 11.6.2: timeout 4.096 µs·2^t, 0 =
 * none.
 */
const attributes = {
  state: enumOf(1, QpState, 1),
  curState: enumOf(2, QpState, 1),
  enSqdAsyncNotify: u8(3),
  accessFlags: flagsOf(4, AccessFlags),
  pkeyIndex: u16(5),
  port: u8(6),
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
}

export const RcQp = objectClass('rc_qp', ClassId.rc_qp, {
  methods: {
    create: method(CREATE, {
      in: {
        pd: ref(1, 'pd'),
        sendCq: ref(2, 'cq'),
        recvCq: ref(3, 'cq'),
        cap: record(4, QpCap),
        flags: optional(flagsOf(5, RcQpFlags)),
        userHandle: u64(6),
        asyncFd: optional(fd(7, 'async_fd')),
      },
      out: { cap: record(64, QpCap), qpNum: u32(65) },
      driverAttributes: true,
    }),
    /** The device answers every attribute whatever `attrMask`, Linux's mask, asks for. */
    query: method(QUERY, {
      in: { attrMask: optional(u32(64)) },
      out: { ...attributes, cap: record(20, QpCap), sqDraining: u8(32), sqSigAll: u8(33, { max: 1 }) },
    }),
    modify: method(MODIFY, {
      in: {
        state: optional(attributes.state),
        curState: optional(attributes.curState),
        enSqdAsyncNotify: optional(attributes.enSqdAsyncNotify),
        accessFlags: optional(attributes.accessFlags),
        pkeyIndex: optional(attributes.pkeyIndex),
        port: optional(attributes.port),
        address: optional(attributes.address),
        pathMtu: optional(attributes.pathMtu),
        timeout: optional(attributes.timeout),
        retryCnt: optional(attributes.retryCnt),
        rnrRetry: optional(attributes.rnrRetry),
        rqPsn: optional(attributes.rqPsn),
        maxRdAtomic: optional(attributes.maxRdAtomic),
        alternatePath: optional(attributes.alternatePath),
        minRnrTimer: optional(attributes.minRnrTimer),
        sqPsn: optional(attributes.sqPsn),
        maxDestRdAtomic: optional(attributes.maxDestRdAtomic),
        pathMigState: optional(attributes.pathMigState),
        destQpn: optional(attributes.destQpn),
      },
      out: {},
    }),
    /** `events`: asynchronous events of this QP that the caller has read. */
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
    /**
     * The doorbell of the send queue: work requests lie in the mapped queue. Linux's POST_SEND can carry requests too;
     * they are passed on as they are and `badWr` counts from 1 to the first one refused.
     */
    postSend: method(CallNumber.rc_qp.postSend, {
      in: {
        wrCount: optional(u32(1)),
        sgeCount: optional(u32(2)),
        wqeSize: optional(u32(3)),
        requests: optional(blob(4, 0xffe0)),
      },
      out: { badWr: u32(64) },
    }),
  },
})
