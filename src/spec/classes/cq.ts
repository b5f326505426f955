/*
 * Class `cq`: a completion queue (IBA 10.2.6), with one completion vector and at most one channel (R34, R35).
 *
 * `cqe` asks for at least so many entries and answers how many there are. `modify` is RESIZE_CQ. `destroy` says how
 * many events of this queue the caller has read from its channel and its async fd: the library waits until as many were
 * acknowledged (R35).
 */
import { CqFlags } from '../enums.ts'
import { CREATE, DESTROY, fd, flagsOf, MODIFY, method, objectClass, optional, u32, u64 } from '../schema.ts'
import { CallNumber, ClassId } from './ids.ts'

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
      },
      out: { cqe: u32(64) },
      driverAttributes: true,
    }),
    modify: method(MODIFY, { in: { cqe: u32(1, { min: 1 }) }, out: { cqe: u32(64) }, driverAttributes: true }),
    destroy: method(DESTROY, { in: {}, out: { compEvents: u32(64), asyncEvents: u32(65) } }),
    /**
     * Arms the queue: the next completion, or with `solicitedOnly` ≠ 0 the next solicited or failed one, makes one
     * event.
     */
    reqNotify: method(CallNumber.cq.reqNotify, { in: { solicitedOnly: u32(1) }, out: {} }),
  },
})
