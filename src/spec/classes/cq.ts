/*
 * Class `cq`: a completion queue (IBA 10.2.6), with one completion vector and at most one channel (R34, R35).
 *
 * `cqe` asks for at least so many entries and answers how many there are. A queue of kind COUNTING has none: it counts,
 * never overruns, and works wherever a completion queue does (R11). `modify` resizes (RESIZE_CQ), and sets the
 * threshold of events (R36, MODIFY_CQ): one comes after so many completions, or so many microseconds after the first of
 * them. `destroy` says how many events of this queue the caller has read from its channel and its async fd: the library
 * waits until as many were acknowledged (R35).
 */
import { CqFlags, CqKind } from '../enums.ts'
import {
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
  u32,
  u64,
} from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'

/** 0 and 1 completions, or 0 microseconds: no threshold. At most 65,535, as Linux's. */
const LIMIT = { max: 0xffff }
const threshold = { count: optional(u32(2, LIMIT)), period: optional(u32(3, LIMIT)) }

export const Cq = objectClass('cq', ClassId.cq, {
  methods: {
    create: method(CREATE, {
      in: {
        cqe: u32(1, { min: 1 }),
        userHandle: u64(2),
        channel: optional(fd(3, 'comp_channel')),
        compVector: u32(4),
        flags: optional(flagsOf(5, CqFlags)),
        asyncFd: optional(fd(6, 'async_fd')),
        kind: optional(enumOf(7, CqKind)),
      },
      out: { cqe: u32(64) },
      driverAttributes: true,
    }),
    /** `completions`, `errors`: how many came since the queue was made, and how many of these were failures. */
    query: method(QUERY, {
      in: {},
      out: {
        cqe: u32(64),
        kind: enumOf(65, CqKind),
        completions: u64(66),
        errors: u64(67),
        compVector: u32(68),
        count: u32(69),
        period: u32(70),
      },
    }),
    modify: method(MODIFY, {
      in: { cqe: optional(u32(1, { min: 1 })), ...threshold },
      out: { cqe: u32(64) },
      driverAttributes: true,
    }),
    destroy: method(DESTROY, { in: {}, out: { compEvents: u32(64), asyncEvents: u32(65) } }),
    /**
     * Arms the queue: the next completion, or with `solicitedOnly` ≠ 0 the next solicited or failed one, makes one
     * event. `count`, `period`: the threshold for this time, in place of that of the queue.
     */
    reqNotify: method(CallNumber.cq.reqNotify, { in: { solicitedOnly: u32(1), ...threshold }, out: {} }),
  },
})
