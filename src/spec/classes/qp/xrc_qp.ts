/*
 * Classes of XRC queue pairs (IBA annex A14). `xrc_ini_qp`, the initiator, has only a send queue; each work request
 * names the receiver's SRQ. `xrc_tgt_qp`, the target, has no queue and belongs to an XRC domain.
 *
 * Several processes may share a target: `create` with `qpNum` opens an existing target of the same domain (Linux:
 * OPEN_QP). Each opening is an object and receives the target's events. The target is destroyed with the last of these
 * objects.
 */
import { QpFlags } from '../../enums.ts'
import { CREATE, fd, flagsOf, method, objectClass, optional, record, ref, u32, u64 } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { ADDRESSES, ALTERNATE_PATHS, initialAttributes, postSend, QpCap, qpMethods } from './qp.ts'

const INITIATOR_ATTRIBUTES = [
  'accessFlags',
  'pkeyIndex',
  'port',
  ...ADDRESSES,
  'pathMtu',
  'timeout',
  'retryCnt',
  'rnrRetry',
  'rqPsn',
  'maxRdAtomic',
  ...ALTERNATE_PATHS,
  'sqPsn',
  'pathMigState',
  'destQpn',
] as const

export const XrcIniQp = objectClass('xrc_ini_qp', ClassId.xrc_ini_qp, {
  methods: {
    ...qpMethods(...INITIATOR_ATTRIBUTES),
    create: method(CREATE, {
      in: {
        pd: ref(1, 'pd'),
        sendCq: ref(2, 'cq'),
        cap: record(4, QpCap),
        flags: optional(flagsOf(5, QpFlags)),
        userHandle: u64(6),
        asyncFd: optional(fd(7, 'async_fd')),
        ...initialAttributes(...INITIATOR_ATTRIBUTES),
      },
      out: { cap: record(64, QpCap), qpNum: u32(65) },
      driverAttributes: true,
    }),
    postSend: postSend(CallNumber.xrc_ini_qp.postSend),
  },
})

const TARGET_ATTRIBUTES = [
  'accessFlags',
  'pkeyIndex',
  'port',
  ...ADDRESSES,
  'pathMtu',
  'timeout',
  'rqPsn',
  ...ALTERNATE_PATHS,
  'minRnrTimer',
  'sqPsn',
  'maxDestRdAtomic',
  'pathMigState',
  'destQpn',
] as const

export const XrcTgtQp = objectClass('xrc_tgt_qp', ClassId.xrc_tgt_qp, {
  methods: {
    ...qpMethods(...TARGET_ATTRIBUTES),
    create: method(CREATE, {
      in: {
        xrcd: ref(1, 'xrcd'),
        /** Opens the existing target with this number. EINVAL if the domain has no such target. */
        qpNum: optional(u32(2, { max: 0xffffff })),
        userHandle: u64(6),
        asyncFd: optional(fd(7, 'async_fd')),
        ...initialAttributes(...TARGET_ATTRIBUTES),
      },
      out: { qpNum: u32(65) },
      driverAttributes: true,
    }),
  },
})
