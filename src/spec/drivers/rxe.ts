/*
 * The rxe driver's additions to the common classes (R4, R22): the offsets of queues in the context's file, and the
 * numbers of address handles and SRQs.
 *
 * In the object dialect the additions are attributes with ids from 0x8000. In Linux's dialects they are the driver's
 * bytes of the response, the structs of rdma_user_rxe.h (rxe_create_cq_resp and so on). As in Linux's driver, a method
 * in `RxeLayouts` is refused with EINVAL if the caller's buffer is too short (`DriverLayout.minBytes`).
 */

import { MAX_AHS } from '../classes/pd.ts'
import { embed, layout, value } from '../linux/layout.ts'
import { at, list, optional, record, u32, u64 } from '../schema/schema.ts'
import type { DriverLayout, LinuxAbi } from './linux-abi.ts'

/** RDMA_DRIVER_RXE */
export const RXE_DRIVER_ID = 14
/** Version of the driver's ABI (RXE_UVERBS_ABI_VERSION). */
export const RXE_ABI = 2

/** struct mminfo: offset for mmap(2), and bytes. */
export const MmapInfo = { offset: at(0, u64(0)), size: at(8, u32(0)) }

const queue = (id: number) => optional(record(id, MmapInfo))

/** Outputs of `create` of queue pairs, except XRC targets. */
export const QpQueues = { create: { out: { recvQueue: queue(0x8000), sendQueue: queue(0x8001) } } }

/** The driver's attributes by class and method. */
export const RxeAttributes = {
  cq: {
    create: { out: { queue: queue(0x8000) } },
    modify: { out: { queue: queue(0x8000) } },
  },
  rc_qp: QpQueues,
  uc_qp: QpQueues,
  ud_qp: QpQueues,
  xrc_ini_qp: QpQueues,
  gsi_qp: QpQueues,
  ah: {
    /** `number`: that of the address handle in work requests. */
    create: { out: { number: optional(u32(0x8000)) } },
  },
  pd: {
    createAhs: { out: { numbers: optional(list(0x8000, { number: at(0, u32(0)) }, MAX_AHS)) } },
  },
  srq: {
    /** `number`: srq_num of Linux's driver. */
    create: { out: { queue: queue(0x8000), number: optional(u32(0x8001)) } },
    modify: { out: { queue: queue(0x8000) } },
  },
  xrc_srq: {
    create: { out: { queue: queue(0x8000), number: optional(u32(0x8001)) } },
    modify: { out: { queue: queue(0x8000) } },
  },
} as const

/** struct rxe_create_srq_resp. The driver does not write the last 4 bytes. */
const SRQ_RESPONSE_BYTES = 24
const srqCreate: DriverLayout = {
  out: layout(20, embed(0, 'queue', MmapInfo), value(16, 4, 'number')),
  minBytes: SRQ_RESPONSE_BYTES,
}
const srqModify: DriverLayout = { out: layout(16, embed(0, 'queue', MmapInfo)), input: 'pointer' }
const cq: DriverLayout = { out: layout(16, embed(0, 'queue', MmapInfo)) }
const qp: DriverLayout = {
  out: layout(32, embed(0, 'recvQueue', MmapInfo), embed(16, 'sendQueue', MmapInfo)),
  input: 'none',
}

/** The driver's bytes of the response in Linux's dialects, by 'class.method'. */
export const RxeLayouts: Readonly<Record<string, DriverLayout>> = {
  'cq.create': cq,
  'cq.modify': cq,
  'rc_qp.create': qp,
  'uc_qp.create': qp,
  'ud_qp.create': qp,
  'xrc_ini_qp.create': qp,
  'gsi_qp.create': qp,
  'ah.create': { out: layout(8, value(0, 4, 'number')), minBytes: 0 },
  'srq.create': srqCreate,
  'srq.modify': srqModify,
  'xrc_srq.create': srqCreate,
  'xrc_srq.modify': srqModify,
}

/** The driver's part of Linux's ABI. */
export const RxeAbi: LinuxAbi = { layouts: RxeLayouts, attributes: RxeAttributes }
