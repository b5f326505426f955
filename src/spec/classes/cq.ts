/*
 * Class `cq`: a completion queue (IBA 10.2.6) with one completion vector and at most one channel (R34, R35).
 *
 * `cqe` requests a minimum number of entries; the output is the actual number. A CQ of kind COUNTING has no entries,
 * only counts completions, and never overruns (R11). `modify` resizes the CQ (Linux: RESIZE_CQ) and sets the event
 * moderation (R36; Linux: MODIFY_CQ): an event comes after `count` completions, or `period` microseconds after the
 * first of them. `destroy` returns the numbers of the CQ's events that were read; the library waits until all of
 * them are acknowledged (R35).
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

const MODERATION_RANGE = { max: 0xffff }
/** Event moderation: 0 means no limit. Moderation is off if `count` is 1, or if both are 0. */
const moderation = { count: optional(u32(2, MODERATION_RANGE)), period: optional(u32(3, MODERATION_RANGE)) }

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
    /** `completions`: completions since the CQ was created. `errors`: completions with an error status. */
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
      in: { cqe: optional(u32(1, { min: 1 })), ...moderation },
      out: { cqe: u32(64) },
      driverAttributes: true,
    }),
    destroy: method(DESTROY, { in: {}, out: { compEvents: u32(64), asyncEvents: u32(65) } }),
    /**
     * Arms the CQ (ibv_req_notify_cq): the next completion raises one event. If `solicitedOnly` is not 0, only a
     * solicited or failed completion does. `count`, `period`: event moderation for this event only.
     */
    reqNotify: method(CallNumber.cq.reqNotify, {
      role: 'transfers',
      in: { solicitedOnly: u32(1), ...moderation },
      out: {},
    }),
  },
})
