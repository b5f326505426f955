/*
 * Shared receive queues (IBA 10.2.9): receive requests for any number of queue pairs. Three kinds, each a class of its
 * own (R8): `srq`, the plain one, in which queue pairs complete to their own CQs; `xrc_srq` (annex A14), which belongs
 * to an XRC domain, is named in packets by its number and has a CQ; `tm_srq`, which matches tags (Linux:
 * IBV_SRQT_TM). The last is declared and no driver here has it: its methods answer EOPNOTSUPP.
 *
 * `maxWr` asks for at least so many requests. `limit` arms the queue: once fewer requests are left the event
 * SRQ_LIMIT_REACHED comes, and the limit is 0 again; 0 disarms. The attributes of `modify` have the ids of Linux's
 * attribute mask (id = 1 + number of the mask bit). Destroying a queue that queue pairs use is EBUSY.
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

const wanted = {
  pd: ref(1, 'pd'),
  maxWr: u32(2, { min: 1 }),
  maxSge: u32(3),
  limit: u32(4),
  userHandle: u64(5),
  asyncFd: optional(fd(6, 'async_fd')),
}
const given = { maxWr: u32(64), maxSge: u32(65) }

const common = {
  query: method(QUERY, { in: {}, out: { ...given, limit: u32(66) } }),
  modify: method(MODIFY, {
    in: { maxWr: optional(u32(1, { min: 1 })), limit: optional(u32(2)) },
    out: {},
    driverAttributes: true,
  }),
  /** `events`: asynchronous events of this queue that the caller has read. */
  destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
}

export const Srq = objectClass('srq', ClassId.srq, {
  methods: { create: method(CREATE, { in: wanted, out: given, driverAttributes: true }), ...common },
})

export const XrcSrq = objectClass('xrc_srq', ClassId.xrc_srq, {
  methods: {
    create: method(CREATE, {
      in: { ...wanted, xrcd: ref(7, 'xrcd'), cq: ref(8, 'cq') },
      /** `srqNum`: 24 bits, as senders name it. */
      out: { ...given, srqNum: u32(66) },
      driverAttributes: true,
    }),
    ...common,
  },
})

/** Registered bytes, as work requests name them. */
const Piece = { address: at(0, u64(0)), length: at(8, u32(0)), lkey: at(12, u32(0)) }
const MOST_PIECES = 256

/**
 * What every operation on tags says (ibv_ops_wr): `wrId` comes back in its completion, if it makes one; `unexpected` is
 * how many messages that no tag matched the program has taken, modulo 2^32, and counts with the flag SYNC.
 */
const tagOperation = { wrId: u64(1), flags: optional(flagsOf(2, TmFlags)), unexpected: optional(u32(3)) }
const { tagAdd, tagDel, tagSync } = CallNumber.tm_srq

export const TmSrq = objectClass('tm_srq', ClassId.tm_srq, {
  methods: {
    create: method(CREATE, {
      in: { ...wanted, cq: ref(8, 'cq'), maxNumTags: u32(9) },
      out: given,
      driverAttributes: true,
    }),
    ...common,
    /** A buffer for the message whose tag is `tag` in the bits of `mask`; `handle` names it until it is taken back. */
    tagAdd: method(tagAdd, {
      in: { ...tagOperation, tag: u64(4), mask: u64(5), recvWrId: u64(6), pieces: list(7, Piece, MOST_PIECES) },
      out: { handle: u32(64) },
    }),
    tagDel: method(tagDel, { in: { ...tagOperation, handle: u32(4) }, out: {} }),
    /** Only tells the device how many unexpected messages were taken. */
    tagSync: method(tagSync, { in: tagOperation, out: {} }),
  },
})
