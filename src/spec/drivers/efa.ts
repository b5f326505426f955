/*
 * The EFA driver's additions to the common classes (R4, R22), as in efa-abi.h of Linux and rdma-core: in the object
 * dialect attributes with ids from 0x8000, in Linux's dialects the driver's bytes of requests and responses. Offsets
 * for mmap(2) are those of the context's file.
 */
import { ClassId } from '../classes/ids.ts'
import { driverMethod } from '../linux/ioctl.ts'
import { layout, value, zero } from '../linux/layout.ts'
import { Block, method, objectClass, optional, u8, u16, u32, u64 } from '../schema/schema.ts'
import type { DriverLayout, LinuxAbi } from './linux-abi.ts'

/** RDMA_DRIVER_EFA */
export const EFA_DRIVER_ID = 17
/** EFA_UVERBS_ABI_VERSION */
export const EFA_ABI = 1

/** EFA_USER_CMDS_SUPP_UDATA_…: which responses have a driver's part. */
export const EfaResponses = { QUERY_DEVICE: 1, CREATE_AH: 2 } as const
/** EFA_CREATE_CQ_WITH_…, flags of a request. */
export const EfaCqFlags = { CHANNEL: 1, SOURCE_GID: 2, REQUEST_ID_64: 4 } as const
/** EFA_CREATE_CQ_RESP_DB_OFF: the response has a doorbell. */
export const EFA_CQ_HAS_DOORBELL = 1
/** EFA_QP_DRIVER_TYPE_SRD */
export const EFA_SRD = 0
/** EFA_CREATE_QP_WITH_…, flags of a request. */
export const EfaQpFlags = { UNSOLICITED_WRITE_RECEIVE: 1, REQUEST_ID_64: 2 } as const
/** EFA_QUERY_DEVICE_CAPS_… */
export const EfaCaps = {
  RDMA_READ: 1,
  RNR_RETRY: 2,
  CQ_NOTIFICATIONS: 4,
  CQ_WITH_SOURCE_GID: 8,
  RDMA_WRITE: 0x20,
  UNSOLICITED_WRITE_RECEIVE: 0x40,
  REQUEST_ID_64: 0x200,
} as const

/** Attributes of `create` of queue pairs. A `key` is an offset for mmap(2), an `offset` a position in the mapping. */
const qp = {
  create: {
    in: {
      receiveRingBytes: optional(u32(0x8000)),
      sendRingBytes: optional(u32(0x8001)),
      driverQpType: optional(u32(0x8002)),
      qpFlags: optional(u16(0x8003)),
      serviceLevel: optional(u8(0x8004)),
    },
    out: {
      receiveDoorbellOffset: optional(u32(0x8010)),
      sendDoorbellOffset: optional(u32(0x8011)),
      sendRingOffset: optional(u32(0x8012)),
      receiveRingKey: optional(u64(0x8013)),
      receiveRingSize: optional(u64(0x8014)),
      receiveDoorbellKey: optional(u64(0x8015)),
      sendDoorbellKey: optional(u64(0x8016)),
      sendRingKey: optional(u64(0x8017)),
      sendSubCq: optional(u16(0x8018)),
      receiveSubCq: optional(u16(0x8019)),
    },
  },
} as const

/** The driver's attributes by class and method. */
export const EfaAttributes = {
  device: {
    open: {
      in: { capabilities: optional(u32(0x8000)) },
      out: {
        responses: optional(u32(0x8010)),
        subCqs: optional(u16(0x8011)),
        inlineBytes: optional(u16(0x8012)),
        maxSendRingBytes: optional(u32(0x8013)),
        maxBatch: optional(u16(0x8014)),
        minSends: optional(u16(0x8015)),
        inlineBytesExtended: optional(u16(0x8016)),
      },
    },
    query: {
      out: {
        maxSends: optional(u32(0x8010)),
        maxReceives: optional(u32(0x8011)),
        maxSendSges: optional(u16(0x8012)),
        maxReceiveSges: optional(u16(0x8013)),
        maxRdmaBytes: optional(u32(0x8014)),
        capabilities: optional(u32(0x8015)),
      },
    },
  },
  pd: { create: { out: { number: optional(u16(0x8010)) } } },
  ah: { create: { out: { number: optional(u16(0x8010)) } } },
  cq: {
    create: {
      in: { entryBytes: optional(u32(0x8000)), subCqs: optional(u16(0x8001)), cqFlags: optional(u8(0x8002)) },
      out: {
        present: optional(u32(0x8010)),
        ringKey: optional(u64(0x8011)),
        ringSize: optional(u64(0x8012)),
        number: optional(u16(0x8013)),
        doorbellOffset: optional(u32(0x8014)),
        doorbellKey: optional(u64(0x8015)),
      },
    },
  },
  ud_qp: qp,
  driver_qp: qp,
} as const

/** efa_ibv_create_qp and efa_ibv_create_qp_resp. */
const qpCreate: DriverLayout = {
  input: {
    layout: layout(
      24,
      zero(0, 4, 'EINVAL'),
      value(4, 4, 'receiveRingBytes'),
      value(8, 4, 'sendRingBytes'),
      value(12, 4, 'driverQpType'),
      value(16, 2, 'qpFlags'),
      value(18, 1, 'serviceLevel'),
      zero(19, 1, 'EINVAL'),
      zero(20, 4, 'EINVAL'),
    ),
    minBytes: 16,
  },
  out: layout(
    64,
    value(4, 4, 'receiveDoorbellOffset'),
    value(8, 4, 'sendDoorbellOffset'),
    value(12, 4, 'sendRingOffset'),
    value(16, 8, 'receiveRingKey'),
    value(24, 8, 'receiveRingSize'),
    value(32, 8, 'receiveDoorbellKey'),
    value(40, 8, 'sendDoorbellKey'),
    value(48, 8, 'sendRingKey'),
    value(56, 2, 'sendSubCq'),
    value(58, 2, 'receiveSubCq'),
  ),
  isTruncated: true,
}

/** The driver's bytes in Linux's dialects, by 'class.method'. All structs may grow at the end. */
const EfaLayouts: Readonly<Record<string, DriverLayout>> = {
  'device.open': {
    input: { layout: layout(8, value(0, 4, 'capabilities')), minBytes: 0 },
    out: layout(
      24,
      value(4, 4, 'responses'),
      value(8, 2, 'subCqs'),
      value(10, 2, 'inlineBytes'),
      value(12, 4, 'maxSendRingBytes'),
      value(16, 2, 'maxBatch'),
      value(18, 2, 'minSends'),
      value(20, 2, 'inlineBytesExtended'),
    ),
    isTruncated: true,
  },
  'device.query': {
    out: layout(
      24,
      value(4, 4, 'maxSends'),
      value(8, 4, 'maxReceives'),
      value(12, 2, 'maxSendSges'),
      value(14, 2, 'maxReceiveSges'),
      value(16, 4, 'maxRdmaBytes'),
      value(20, 4, 'capabilities'),
    ),
    isTruncated: true,
  },
  'pd.create': { out: layout(8, value(4, 2, 'number')), isTruncated: true },
  'ah.create': { out: layout(8, value(4, 2, 'number')), isTruncated: true },
  'cq.create': {
    input: {
      layout: layout(
        16,
        zero(0, 4, 'EINVAL'),
        value(4, 4, 'entryBytes'),
        value(8, 2, 'subCqs'),
        value(10, 1, 'cqFlags'),
        zero(11, 1, 'EINVAL'),
        zero(12, 4, 'EINVAL'),
      ),
      minBytes: 10,
    },
    out: layout(
      40,
      value(0, 4, 'present'),
      value(8, 8, 'ringKey'),
      value(16, 8, 'ringSize'),
      value(24, 2, 'number'),
      value(28, 4, 'doorbellOffset'),
      value(32, 8, 'doorbellKey'),
    ),
    isTruncated: true,
  },
  'ud_qp.create': qpCreate,
  'driver_qp.create': qpCreate,
}

/**
 * The driver's method of memory regions (EFA_IB_METHOD_MR_QUERY): the interconnects over which the adapter reaches the
 * region, and which of the three numbers are valid.
 */
export const queryInterconnects = method(Block.DRIVER_FAST + 0, {
  role: 'asks',
  in: {},
  out: { valid: u16(64), receive: u16(65), read: u16(66), readReceive: u16(67) },
})

/** The driver's part of Linux's ABI. */
export const EfaAbi: LinuxAbi = {
  layouts: EfaLayouts,
  attributes: EfaAttributes,
  // EFA_MODIFY_QP_SUPP_MASK
  qpModifications: ['state', 'curState', 'enSqdAsyncNotify', 'pkeyIndex', 'port', 'qkey', 'sqPsn', 'rnrRetry'],
  methods: [
    driverMethod(
      'MR_QUERY',
      'MR',
      0,
      objectClass('mr', ClassId.mr, { methods: { queryInterconnects } }),
      'queryInterconnects',
      { outputs: [value(0, 2, 'valid'), value(0, 2, 'receive'), value(0, 2, 'read'), value(0, 2, 'readReceive')] },
    ),
  ],
}
