/*
 * The mlx5 driver's additions to the common classes (R4, R22), and its own class of doorbell pages, as in mlx5-abi.h
 * and mlx5_user_ioctl_cmds.h of Linux and rdma-core: in the object dialect attributes with ids from 0x8000, in Linux's
 * dialects the driver's bytes of requests and responses. Addresses are those of the program's memory.
 */
import { DeviceClass } from '../classes/device/device.ts'
import { PortClass } from '../classes/device/port.ts'
import { Dm } from '../classes/dm.ts'
import { Pd } from '../classes/pd.ts'
import {
  driverCreation,
  driverDestruction,
  driverExtensibleOutput,
  driverFlags,
  driverInput,
  driverMethod,
  driverNewHandle,
  driverObjectMethod,
  driverOutput,
  optionalAttribute,
  withDriverAttributes,
} from '../linux/ioctl.ts'
import { layout, object, value, zero } from '../linux/layout.ts'
import { LinuxObject } from '../linux/names.ts'
import {
  at,
  Block,
  CREATE,
  DESTROY,
  list,
  method,
  objectClass,
  optional,
  QUERY,
  bytes as rawBytes,
  u8,
  u16,
  u32,
  u64,
} from '../schema/schema.ts'
import type { DriverLayout, LinuxAbi } from './linux-abi.ts'
import { devxMethods } from './mlx5-devx.ts'
import { flowAttributes, flowMethods } from './mlx5-flow.ts'

/** RDMA_DRIVER_MLX5 */
export const MLX5_DRIVER_ID = 1
/** MLX5_IB_UVERBS_ABI_VERSION */
export const MLX5_ABI = 1

/**
 * Pages that the provider maps by their number (mlx5_ib_mmap_cmd): the command in bits 8 to 15, and an index with its
 * lower byte in bits 0 to 7, and its upper one from bit 16 on.
 */
export const Mlx5Page = { CORE_CLOCK: 5 << 8, CLOCK_INFO: 7 << 8, DEVICE_MEMORY: 8 << 8 } as const
/** MLX5_IB_UAPI_DM_TYPE_… */
export const DmType = { MEMIC: 0n } as const
/** Offsets in mlx5_ib_clock_info: nanoseconds = NANOSECONDS + (count − CYCLES) · MULTIPLIER >> SHIFT. */
export const ClockInfo = {
  NANOSECONDS: 8,
  CYCLES: 16,
  MULTIPLIER: 32,
  SHIFT: 36,
  MASK: 40,
  OVERFLOW_PERIOD: 48,
} as const
/** Bits of the core clock, which counts nanoseconds. */
export const TIMESTAMP_MASK = 0x7fff_ffff_ffff_ffffn
export const CORE_CLOCK_KHZ = 1_000_000n
/** MLX5_IB_ALLOC_UCONTEXT_RESP_MASK_CORE_CLOCK_OFFSET, and version 1 of mlx5_ib_clock_info as a bit. */
export const Mlx5Clock = { HAS_CORE_CLOCK: 1, INFO_V1: 1 } as const
/** MLX5_IB_ALLOC_UCONTEXT_RESP_MASK_DUMP_FILL_MKEY */
export const HAS_NULL_KEY = 2
/** MLX5_IB_ALLOC_UCONTEXT_RESP_MASK_SQD2RTS: a queue pair leaves SQD for RTS. */
export const HAS_SQD_TO_RTS = 8
/**
 * The key of memory that is none (dump_fill_mkey; ibv_alloc_null_mr of libmlx5 returns it): local reads give zeros,
 * local writes go nowhere, in every protection domain.
 */
export const NULL_KEY = 0xd5
/** A key that no memory has: in a list of ranges, it says that a block of ranges repeats. */
export const REPEAT_BLOCK = 0x400

/** MLX5_USER_CMDS_SUPP_UHW_…: which responses have a driver's part. */
export const Mlx5Responses = { QUERY_DEVICE: 1, CREATE_AH: 2 } as const
/** Largest range of a key of fixed ranges (KSM). */
export const MAX_LOG_ENTITY = 31
/** Ranges of a key over other keys; as log_max_klm_list_size tells. */
export const MAX_INDIRECT_ENTRIES = 2048
/** Reserved numbers of queue pairs of a device, of all its users. */
export const MAX_RESERVED_QPNS = 0x1_0000
/** MLX5_IB_ALLOC_UCTX_DEVX: the context may use the firmware's commands. */
export const MLX5_CONTEXT_DEVX = 1
/** MLX5_QP_FLAG_…, flags of a creation. */
export const Mlx5QpFlags = {
  SIGNATURE: 1 << 0,
  SCATTER_CQE: 1 << 1,
  TYPE_DCT: 1 << 4,
  TYPE_DCI: 1 << 5,
  ALLOW_SCATTER_CQE: 1 << 8,
  UAR_PAGE_INDEX: 1 << 10,
  DCI_STREAM: 1 << 11,
} as const
/**
 * MLX5_IB_QUERY_DEV_RESP_FLAGS_…: entries of 128 bytes may be padded; receives may be taken in another order than
 * messages are sent, which here they never are.
 */
export const Mlx5DeviceFlags = { CQE_128B_PAD: 2, OOO_DP: 16 } as const
/** MLX5_IB_CREATE_CQ_FLAGS_… */
export const Mlx5CqFlags = { PAD_128: 1, UAR_PAGE_INDEX: 2, REAL_TIME: 4 } as const

/** A page of doorbells (MLX5_IB_OBJECT_UAR). `offset`: for mmap(2). `page`: its number in creations of queues. */
export const Uar = objectClass('uar', 0x8000, {
  methods: {
    create: method(CREATE, { in: { type: u64(1) }, out: { offset: u64(64), length: u32(65), page: u32(66) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})

/** MLX5_IB_UAPI_VAR_ALLOC_FLAG_TLP: for devices whose transactions (TLP) a program serves. */
const VAR_TLP = 1
/**
 * A page of doorbells for queues of VirtIO (MLX5_IB_OBJECT_VAR): the program maps it, and gives it to a guest. `page`:
 * its number in commands. The device has no such queues, so nothing listens to it.
 */
export const Var = objectClass('var', 0x8012, {
  methods: {
    create: method(CREATE, {
      in: { flags: optional(u32(1)) },
      out: { offset: u64(64), length: u32(65), page: u32(66) },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})

/** Bytes of mlx5_ib_create_qp_rss.rx_hash_key, and of a Toeplitz key. */
const RSS_KEY_BYTES = 128
export const TOEPLITZ_KEY_BYTES = 40
/** MLX5_RX_HASH_…: fields of a frame that its hash covers, and the function. */
export const RxHash = {
  SRC_IPV4: 1 << 0,
  DST_IPV4: 1 << 1,
  SRC_IPV6: 1 << 2,
  DST_IPV6: 1 << 3,
  SRC_PORT_TCP: 1 << 4,
  DST_PORT_TCP: 1 << 5,
  SRC_PORT_UDP: 1 << 6,
  DST_PORT_UDP: 1 << 7,
} as const
export const RX_HASH_FIELDS = Object.values(RxHash).reduce((all, bit) => all | bit, 0)
export const TOEPLITZ = 1

/** Of `create` of queue pairs. `uidx`: the number of the queue pair in completions. */
const qp = {
  create: {
    in: {
      bufferAddress: optional(u64(0x8000)),
      doorbellAddress: optional(u64(0x8001)),
      sendBlocks: optional(u32(0x8002)),
      receiveRequests: optional(u32(0x8003)),
      receiveShift: optional(u32(0x8004)),
      qpFlags: optional(u32(0x8005)),
      uidx: optional(u32(0x8006)),
      uar: optional(u32(0x8007)),
      sendBufferAddress: optional(u64(0x8008)),
      eceOptions: optional(u32(0x8009)),
    },
    out: { uarOut: optional(u32(0x8010)) },
  },
} as const

/** Of `create` of initiators of DC: `MAX_LOG_STREAMS`. */
const dciQp = {
  create: {
    in: { ...qp.create.in, logStreams: optional(u8(0x800a)), logErroredStreams: optional(u8(0x800b)) },
    out: qp.create.out,
  },
} as const

/** Of `create` of raw packet queue pairs, with the parameters of receive side scaling in place of queues. */
const rawQp = {
  create: {
    in: {
      ...qp.create.in,
      hashFields: optional(u64(0x800a)),
      hashFunction: optional(u8(0x800b)),
      hashKeyBytes: optional(u8(0x800c)),
      hashKey: optional(rawBytes(0x800d, RSS_KEY_BYTES)),
      rssFlags: optional(u32(0x800e)),
    },
    out: qp.create.out,
  },
} as const

/** Of `create` of work queues. */
const wq = {
  create: {
    in: {
      bufferAddress: optional(u64(0x8000)),
      doorbellAddress: optional(u64(0x8001)),
      receiveRequests: optional(u32(0x8002)),
      receiveShift: optional(u32(0x8003)),
      uidx: optional(u32(0x8004)),
      wqFlags: optional(u32(0x8005)),
      wqMask: optional(u32(0x8006)),
    },
    out: { driverBytes: optional(u32(0x8010)) },
  },
} as const

/** Of `create` of shared receive queues. */
const srq = {
  create: {
    in: {
      bufferAddress: optional(u64(0x8000)),
      doorbellAddress: optional(u64(0x8001)),
      srqFlags: optional(u32(0x8002)),
      uidx: optional(u32(0x8003)),
    },
    out: { number: optional(u32(0x8010)) },
  },
} as const

const dmPlace = { startOffset: optional(u64(0x8010)), pageIndex: optional(u16(0x8011)) } as const

/** What a context tells its program; the ids begin at `first`. */
const contextOutputs = (first: number) => ({
  qpTableSize: optional(u32(first)),
  cacheLineSize: optional(u32(first + 1)),
  maxSendBytes: optional(u16(first + 2)),
  maxReceiveBytes: optional(u16(first + 3)),
  maxSendBlocks: optional(u32(first + 4)),
  maxReceives: optional(u32(first + 5)),
  maxSharedReceives: optional(u32(first + 6)),
  ports: optional(u16(first + 7)),
  responseBytes: optional(u32(first + 8)),
  cqeVersion: optional(u8(first + 9)),
  responses: optional(u8(first + 10)),
  minInline: optional(u8(first + 11)),
  logUarBytes: optional(u32(first + 12)),
  uarsPerPage: optional(u32(first + 13)),
  responseMask: optional(u32(first + 14)),
  clockInfoVersions: optional(u8(first + 15)),
  nullKey: optional(u32(first + 16)),
})

/** The driver's attributes by class and method. */
export const Mlx5Attributes = {
  device: {
    open: {
      in: {
        totalBfregs: optional(u32(0x8000)),
        lowLatencyBfregs: optional(u32(0x8001)),
        contextFlags: optional(u32(0x8002)),
        maxCqeVersion: optional(u8(0x8003)),
        libraryCaps: optional(u64(0x8004)),
      },
      out: contextOutputs(0x8010),
    },
    query: {
      out: {
        driverBytes: optional(u32(0x8010)),
        driverFlags: optional(u32(0x8011)),
        rssFields: optional(u64(0x8012)),
        rssFunctions: optional(u8(0x8013)),
        maxLogStreams: optional(u8(0x8014)),
        maxLogErroredStreams: optional(u8(0x8015)),
        // of QUERY_CONTEXT
        ...contextOutputs(0x8020),
      },
    },
  },
  pd: { create: { out: { number: optional(u32(0x8010)) } } },
  mr: {
    create: {
      in: {
        /** The lowest byte of the key. */
        keyByte: optional(u8(0x8000)),
        /**
         * Of kind INDIRECT: ranges of other keys, one behind the other. `length`: at most 2^32 - 1. `stride`: how much
         * further a repetition is (`repeats`).
         */
        entries: optional(
          list(
            0x8001,
            { key: at(0, u32(0)), length: at(4, u32(0)), address: at(8, u64(0)), stride: at(16, u32(0)) },
            MAX_INDIRECT_ENTRIES,
          ),
        ),
        /** Work requests set the ranges, at most so many. */
        maxEntries: optional(u32(0x8002, { min: 1, max: MAX_INDIRECT_ENTRIES })),
        /** 1: peers may invalidate such a key. */
        isRevocable: optional(u8(0x8003)),
        /** 1: work requests may give such a key block signatures. */
        hasSignatures: optional(u8(0x8004)),
        /** Log2 of the bytes of each range that work requests set; absent: each range has its own length. */
        logEntity: optional(u8(0x8005, { max: MAX_LOG_ENTITY })),
        /** How often the entries follow one behind the other; default 1. */
        repeats: optional(u32(0x8006, { min: 1 })),
      },
      out: {},
    },
  },
  ah: { create: { out: { driverBytes: optional(u32(0x8010)), nextHop: optional(rawBytes(0x8011, 6)) } } },
  cq: {
    create: {
      in: {
        bufferAddress: optional(u64(0x8000)),
        doorbellAddress: optional(u64(0x8001)),
        entryBytes: optional(u32(0x8002)),
        isCompressed: optional(u8(0x8003)),
        cqFlags: optional(u16(0x8004)),
        uar: optional(u16(0x8005)),
      },
      out: { number: optional(u32(0x8010)) },
    },
    modify: { in: { bufferAddress: optional(u64(0x8000)), entryBytes: optional(u16(0x8001)) } },
  },
  /** Where the program maps the memory: offset in the page, and `Mlx5Page.DEVICE_MEMORY` + `pageIndex`. */
  dm: {
    create: { in: { type: optional(u64(0x8000)) }, out: dmPlace },
    query: { out: dmPlace },
  },
  srq,
  xrc_srq: srq,
  rc_qp: qp,
  uc_qp: qp,
  ud_qp: qp,
  xrc_ini_qp: qp,
  dci_qp: dciQp,
  dct_qp: {
    ...qp,
    modify: { out: { responseBytes: optional(u32(0x8010)), number: optional(u32(0x8011)) } },
  },
  raw_packet_qp: rawQp,
  wq,
  rwq_ind_table: { create: { out: { driverBytes: optional(u32(0x8010)) } } },
  flow: flowAttributes,
} as const

/** Bytes of mlx5_ib_alloc_ucontext_resp, and of the responses of other commands. */
export const RESPONSE_BYTES = { context: 72, device: 104, ah: 16, dct: 16, wq: 8, rwqIndTable: 8 } as const

const qpFields = [
  value(0, 8, 'bufferAddress'),
  value(8, 8, 'doorbellAddress'),
  value(16, 4, 'sendBlocks'),
  value(20, 4, 'receiveRequests'),
  value(24, 4, 'receiveShift'),
  value(28, 4, 'qpFlags'),
  value(32, 4, 'uidx'),
  value(36, 4, 'uar'),
  value(40, 8, 'sendBufferAddress'),
  value(48, 4, 'eceOptions'),
]

/** mlx5_ib_create_qp and mlx5_ib_create_qp_resp. */
const qpCreate: DriverLayout = {
  input: {
    layout: layout(56, ...qpFields),
    minBytes: 32,
  },
  out: layout(40, value(0, 4, 'uarOut')),
  isTruncated: true,
}

/** The same, with mlx5_ib_create_qp_dci_streams. */
const dciQpCreate: DriverLayout = {
  ...qpCreate,
  input: {
    layout: layout(56, ...qpFields, value(52, 1, 'logStreams'), value(53, 1, 'logErroredStreams')),
    minBytes: 32,
  },
}

/**
 * mlx5_ib_create_qp, and mlx5_ib_create_qp_rss, which a creation with an indirection table has in its place. The driver
 * looks at one of them.
 */
const rawQpCreate: DriverLayout = {
  input: {
    layout: layout(
      152,
      ...qpFields,
      value(0, 8, 'hashFields'),
      value(8, 1, 'hashFunction'),
      value(9, 1, 'hashKeyBytes'),
      value(16, RSS_KEY_BYTES, 'hashKey'),
      value(148, 4, 'rssFlags'),
    ),
    minBytes: 32,
  },
  out: layout(40, value(0, 4, 'uarOut')),
  isTruncated: true,
}

/** mlx5_ib_create_wq and mlx5_ib_create_wq_resp. Striding receive queues (comp_mask) are absent. */
const wqCreate: DriverLayout = {
  input: {
    layout: layout(
      48,
      value(0, 8, 'bufferAddress'),
      value(8, 8, 'doorbellAddress'),
      value(16, 4, 'receiveRequests'),
      value(20, 4, 'receiveShift'),
      value(24, 4, 'uidx'),
      value(28, 4, 'wqFlags'),
      value(32, 4, 'wqMask'),
    ),
    minBytes: 32,
  },
  out: layout(RESPONSE_BYTES.wq, value(0, 4, 'driverBytes')),
  isTruncated: true,
}

/** mlx5_ib_create_srq and mlx5_ib_create_srq_resp. */
const srqCreate: DriverLayout = {
  input: {
    layout: layout(
      32,
      value(0, 8, 'bufferAddress'),
      value(8, 8, 'doorbellAddress'),
      value(16, 4, 'srqFlags'),
      zero(20, 4, 'EINVAL'),
      value(24, 4, 'uidx'),
      zero(28, 4, 'EINVAL'),
    ),
    minBytes: 20,
  },
  out: layout(8, value(0, 4, 'number')),
  isTruncated: true,
}

/** mlx5_ib_alloc_ucontext_resp. */
const contextResponse = layout(
  RESPONSE_BYTES.context,
  value(0, 4, 'qpTableSize'),
  value(12, 4, 'cacheLineSize'),
  value(16, 2, 'maxSendBytes'),
  value(18, 2, 'maxReceiveBytes'),
  value(20, 4, 'maxSendBlocks'),
  value(24, 4, 'maxReceives'),
  value(28, 4, 'maxSharedReceives'),
  value(32, 2, 'ports'),
  value(36, 4, 'responseMask'),
  value(40, 4, 'responseBytes'),
  value(44, 1, 'cqeVersion'),
  value(45, 1, 'responses'),
  value(46, 1, 'minInline'),
  value(47, 1, 'clockInfoVersions'),
  value(56, 4, 'logUarBytes'),
  value(60, 4, 'uarsPerPage'),
  value(68, 4, 'nullKey'),
)

/** The driver's bytes in Linux's dialects, by 'class.method'. All structs may grow at the end. */
const Mlx5Layouts: Readonly<Record<string, DriverLayout>> = {
  'device.open': {
    input: {
      layout: layout(
        32,
        value(0, 4, 'totalBfregs'),
        value(4, 4, 'lowLatencyBfregs'),
        value(8, 4, 'contextFlags'),
        zero(12, 4, 'EINVAL'),
        value(16, 1, 'maxCqeVersion'),
        zero(17, 1, 'EINVAL'),
        zero(18, 2, 'EINVAL'),
        zero(20, 4, 'EINVAL'),
        value(24, 8, 'libraryCaps'),
      ),
      minBytes: 8,
    },
    out: contextResponse,
    isTruncated: true,
  },
  'device.query': {
    out: layout(
      RESPONSE_BYTES.device,
      value(4, 4, 'driverBytes'),
      value(16, 8, 'rssFields'),
      value(24, 1, 'rssFunctions'),
      value(60, 4, 'driverFlags'),
      value(100, 1, 'maxLogStreams'),
      value(101, 1, 'maxLogErroredStreams'),
    ),
    isTruncated: true,
  },
  'pd.create': { out: layout(4, value(0, 4, 'number')), isTruncated: true },
  'ah.create': {
    out: layout(RESPONSE_BYTES.ah, value(0, 4, 'driverBytes'), value(4, 6, 'nextHop')),
    isTruncated: true,
  },
  'cq.create': {
    input: {
      layout: layout(
        32,
        value(0, 8, 'bufferAddress'),
        value(8, 8, 'doorbellAddress'),
        value(16, 4, 'entryBytes'),
        value(20, 1, 'isCompressed'),
        value(22, 2, 'cqFlags'),
        value(24, 2, 'uar'),
        zero(26, 2, 'EINVAL'),
        zero(28, 4, 'EINVAL'),
      ),
      minBytes: 20,
    },
    out: layout(8, value(0, 4, 'number')),
    isTruncated: true,
  },
  'cq.modify': {
    input: {
      layout: layout(
        16,
        value(0, 8, 'bufferAddress'),
        value(8, 2, 'entryBytes'),
        zero(10, 2, 'EINVAL'),
        zero(12, 4, 'EINVAL'),
      ),
      minBytes: 12,
    },
    out: layout(0),
    isTruncated: true,
  },
  'srq.create': srqCreate,
  'xrc_srq.create': srqCreate,
  'rc_qp.create': qpCreate,
  'uc_qp.create': qpCreate,
  'ud_qp.create': qpCreate,
  'xrc_ini_qp.create': qpCreate,
  'dci_qp.create': dciQpCreate,
  'dct_qp.create': qpCreate,
  'dct_qp.modify': {
    out: layout(RESPONSE_BYTES.dct, value(0, 4, 'responseBytes'), value(4, 4, 'number')),
    isTruncated: true,
  },
  'raw_packet_qp.create': rawQpCreate,
  'wq.create': wqCreate,
  'rwq_ind_table.create': {
    out: layout(RESPONSE_BYTES.rwqIndTable, value(0, 4, 'driverBytes')),
    isTruncated: true,
  },
}

/** MLX5_IB_OBJECT_UAR, …_VAR */
const UAR_OBJECT = 0x1008
const VAR_OBJECT = 0x1006

/** Class `dm` with the driver's attributes. */
const { create: dmCreate, query: dmQuery } = Dm.methods
const Mlx5Dm = objectClass('dm', Dm.id, {
  methods: {
    create: method(CREATE, { in: { ...dmCreate.in, ...Mlx5Attributes.dm.create.in }, out: dmPlace }),
    query: method(QUERY, { in: {}, out: { ...dmQuery.out, ...dmPlace } }),
  },
})

/** Class `device` with what a context tells programs that import it (MLX5_IB_ATTR_QUERY_CONTEXT_RESP_UCTX). */
const { query: deviceQuery } = DeviceClass.methods
const Mlx5Device = objectClass('device', DeviceClass.id, {
  methods: {
    query: method(QUERY, { in: {}, out: { ...deviceQuery.out, ...Mlx5Attributes.device.query.out } }),
  },
})

/** The driver's method of protection domains (MLX5_IB_METHOD_PD_QUERY), for programs that import one. */
export const queryNumber = method(Block.DRIVER_FAST + 2, { role: 'asks', in: {}, out: { number: u32(64) } })

/**
 * The driver's method of ports (MLX5_IB_METHOD_QUERY_PORT; mlx5dv_query_port). `flags`: the values that the port has,
 * of which there are none outside of a switch (MLX5_IB_UAPI_QUERY_PORT_…).
 */
export const querySwitchPort = method(Block.DRIVER_FAST + 2, { role: 'asks', in: {}, out: { flags: u64(64) } })
/** mlx5_ib_uapi_query_port. */
const portQuery = driverObjectMethod(
  'QUERY_PORT',
  LinuxObject.DEVICE,
  0,
  objectClass('port', PortClass.id, { methods: { querySwitchPort } }),
  'querySwitchPort',
  [driverInput(object(0, 4)), driverExtensibleOutput(layout(40, value(0, 8, 'flags')))],
)

/** Layouts of `dmPlace`. */
const DM_PLACE = [value(0, 8, 'startOffset'), value(0, 2, 'pageIndex')]

/**
 * IB_UVERBS_QP_CREATE_BLOCK_MULTICAST_LOOPBACK, and of raw packets SCATTER_FCS, CVLAN_STRIPPING, PCI_WRITE_END_PADDING.
 */
const UD_FLAGS = 1 << 1
const RAW_PACKET_FLAGS = UD_FLAGS | (1 << 8) | (1 << 9) | (1 << 11)

/** The driver's part of Linux's ABI. */
export const Mlx5Abi: LinuxAbi = {
  layouts: Mlx5Layouts,
  attributes: Mlx5Attributes,
  methods: [
    driverCreation(
      'UAR_OBJ_ALLOC',
      UAR_OBJECT,
      Uar,
      [value(0, 8, 'type')],
      [value(0, 8, 'offset'), value(0, 4, 'length'), value(0, 4, 'page')],
    ),
    driverDestruction('UAR_OBJ_DESTROY', UAR_OBJECT, Uar),
    driverObjectMethod('VAR_OBJ_ALLOC', VAR_OBJECT, 0, Var, 'create', [
      driverNewHandle,
      driverOutput(value(0, 8, 'offset')),
      driverOutput(value(0, 4, 'length')),
      driverOutput(value(0, 4, 'page')),
      optionalAttribute(driverFlags('flags', VAR_TLP)),
    ]),
    driverDestruction('VAR_OBJ_DESTROY', VAR_OBJECT, Var),
    portQuery,
    ...devxMethods,
    ...flowMethods,
    withDriverAttributes('DEVICE', 'QUERY_CONTEXT', Mlx5Device, { outputs: [contextResponse] }),
    driverMethod('PD_QUERY', 'PD', 0, objectClass('pd', Pd.id, { methods: { queryNumber } }), 'queryNumber', {
      outputs: [value(0, 4, 'number')],
    }),
    withDriverAttributes('DM', 'DM_ALLOC', Mlx5Dm, {
      outputs: DM_PLACE,
      inputs: [value(0, 8, 'type')],
    }),
    // operations by reads and writes of other addresses: the device has none
    driverMethod('DM_MAP_OP_ADDR', 'DM', 0, Mlx5Dm, undefined, { inputs: [value(0, 1, '')], outputs: DM_PLACE }),
    driverMethod('DM_QUERY', 'DM', 1, Mlx5Dm, 'query', { outputs: [...DM_PLACE, value(0, 8, 'length')] }),
  ],
  driverQps: {
    at: 28,
    classes: [
      { bit: Mlx5QpFlags.TYPE_DCI, name: 'dci_qp' },
      { bit: Mlx5QpFlags.TYPE_DCT, name: 'dct_qp' },
    ],
  },
  absentFlags: { 'ud_qp.create': UD_FLAGS, 'raw_packet_qp.create': RAW_PACKET_FLAGS },
}
