/*
 * Classes `wq`, a receive work queue, and `rwq_ind_table`, an indirection table of work queues, over which a
 * `raw_packet_qp` spreads received packets (Linux: CREATE_WQ, CREATE_RWQ_IND_TBL). A work queue is in state
 * RESET, RDY or ERR.
 */
import { WqFlags, WqState, WqType } from '../enums.ts'
import {
  at,
  CREATE,
  DESTROY,
  enumOf,
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
import { ClassId } from './ids.ts'

export const Wq = objectClass('wq', ClassId.wq, {
  methods: {
    create: method(CREATE, {
      in: {
        pd: ref(1, 'pd'),
        cq: ref(2, 'cq'),
        type: enumOf(3, WqType),
        maxWr: u32(4, { min: 1 }),
        maxSge: u32(5),
        flags: optional(flagsOf(6, WqFlags)),
        userHandle: u64(7),
        asyncFd: optional(fd(8, 'async_fd')),
      },
      out: { maxWr: u32(64), maxSge: u32(65), wqNum: u32(66) },
      driverAttributes: true,
    }),
    query: method(QUERY, {
      in: {},
      out: { state: enumOf(64, WqState), maxWr: u32(65), maxSge: u32(66), flags: flagsOf(67, WqFlags) },
    }),
    /** `curState`: EINVAL if the queue is in another state. `flagsMask`: the flags to change. */
    modify: method(MODIFY, {
      in: {
        state: optional(enumOf(1, WqState)),
        curState: optional(enumOf(2, WqState)),
        flags: optional(flagsOf(3, WqFlags)),
        flagsMask: optional(flagsOf(4, WqFlags)),
      },
      out: {},
      driverAttributes: true,
    }),
    /** `events`: number of asynchronous events of the queue that were read, for ibv_ack_async_event. */
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
  },
})

const TableEntry = { wq: at(0, u32(0)) }
/** log2 of the maximum work queues of a table (IB_USER_VERBS_MAX_LOG_IND_TBL_SIZE). */
export const MAX_LOG_TABLE_SIZE = 13
const MAX_ENTRIES = 1 << MAX_LOG_TABLE_SIZE

export const RwqIndTable = objectClass('rwq_ind_table', ClassId.rwq_ind_table, {
  methods: {
    /** `queues`: handles of `wq`; the number of queues must be a power of two. */
    create: method(CREATE, {
      in: { queues: list(1, TableEntry, MAX_ENTRIES) },
      out: { tableNum: u32(64) },
      driverAttributes: true,
    }),
    query: method(QUERY, { in: {}, out: { queues: list(64, TableEntry, MAX_ENTRIES) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
