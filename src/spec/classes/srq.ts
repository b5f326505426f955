/*
 * Shared receive queues (IBA 10.2.9), in three classes (R8):
 * - `srq`: the basic SRQ; receive requests complete to the CQ of the queue pair
 * - `xrc_srq` (annex A14): belongs to an XRC domain and has a CQ; packets have its number
 * - `tm_srq`: matches tags (Linux: IBV_SRQT_TM). No driver here has the class: EOPNOTSUPP.
 *
 * `maxWr` requests a minimum number of receive requests. `limit` of `modify` arms the SRQ: when fewer receive requests
 * than `limit` are posted, the SRQ raises SRQ_LIMIT_REACHED and sets the limit to 0. `limit` 0 disarms. `create`
 * ignores its `limit` (ibv_create_srq(3)). The ids of the attributes of `modify` follow Linux's attribute mask: bit
 * number plus 1. `destroy` is refused with EBUSY while queue pairs use the SRQ.
 */
import { TmFlags } from '../enums.ts'
import {
  at,
  CREATE,
  DESTROY,
  fd,
  flagsOf,
  list,
  MODIFY,
  method,
  objectClass,
  optional,
  QUERY,
  ref,
  u32,
  u64,
} from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'

const createInputs = {
  pd: ref(1, 'pd'),
  maxWr: u32(2),
  maxSge: u32(3),
  limit: u32(4),
  userHandle: u64(5),
  asyncFd: optional(fd(6, 'async_fd')),
}
const createOutputs = { maxWr: u32(64), maxSge: u32(65) }

const common = {
  query: method(QUERY, { in: {}, out: { ...createOutputs, limit: u32(66) } }),
  modify: method(MODIFY, {
    in: { maxWr: optional(u32(1, { min: 1 })), limit: optional(u32(2)) },
    out: {},
    driverAttributes: true,
  }),
  /** `events`: number of asynchronous events of the SRQ that were read, for ibv_ack_async_event. */
  destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
}

export const Srq = objectClass('srq', ClassId.srq, {
  methods: { create: method(CREATE, { in: createInputs, out: createOutputs, driverAttributes: true }), ...common },
})

export const XrcSrq = objectClass('xrc_srq', ClassId.xrc_srq, {
  methods: {
    create: method(CREATE, {
      in: { ...createInputs, xrcd: ref(7, 'xrcd'), cq: ref(8, 'cq') },
      /** `srqNum`: 24 bits, for the work requests of senders. */
      out: { ...createOutputs, srqNum: u32(66) },
      driverAttributes: true,
    }),
    ...common,
  },
})

const Sge = { address: at(0, u64(0)), length: at(8, u32(0)), lkey: at(12, u32(0)) }
/** Maximum scatter/gather elements of a tagged receive buffer. */
const MAX_SGE = 256

/**
 * Arguments of operations on tags (ibv_ops_wr). `wrId`: of the operation's completion. `unexpected`, with the flag
 * SYNC: number of unexpected messages that the program has consumed, modulo 2^32.
 */
const tagOperation = { wrId: u64(1), flags: optional(flagsOf(2, TmFlags)), unexpected: optional(u32(3)) }
const { tagAdd, tagDel, tagSync } = CallNumber.tm_srq

export const TmSrq = objectClass('tm_srq', ClassId.tm_srq, {
  methods: {
    create: method(CREATE, {
      in: { ...createInputs, cq: ref(8, 'cq'), maxNumTags: u32(9) },
      out: createOutputs,
      driverAttributes: true,
    }),
    ...common,
    /**
     * Adds a receive buffer for a message whose tag equals `tag` in the bits of `mask`. `recvWrId`: of the receive's
     * completion. `handle`: for `tagDel`.
     */
    tagAdd: method(tagAdd, {
      role: 'changes',
      in: { ...tagOperation, tag: u64(4), mask: u64(5), recvWrId: u64(6), sgList: list(7, Sge, MAX_SGE) },
      out: { handle: u32(64) },
    }),
    tagDel: method(tagDel, { role: 'changes', in: { ...tagOperation, handle: u32(4) }, out: {} }),
    /** Only reports the number of consumed unexpected messages. */
    tagSync: method(tagSync, { role: 'changes', in: tagOperation, out: {} }),
  },
})
