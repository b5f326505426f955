/*
 * Limits and missing operations of other adapters, and of ports of the other link, each with its source, for `userdma
 * check
 * --like`, and what sysfs shows of their PCI functions, for `--device NAME@ADDRESS,model=NAME`.
 *
 * A limit is the largest value that the adapter accepts. If the limit depends on the size of WQEs, the table has the
 * limit for the smallest WQE.
 */

/**
 * max_mr_size, max_inline_data and max_msg_sz are in bytes, the indexes are of tables, the other limits are counts: the
 * first of all programs of a device together (spec/device-limits.ts).
 */
export const limitNames = [
  'max_qp',
  'max_cq',
  'max_mr',
  'max_pd',
  'max_mw',
  'max_ah',
  'max_srq',
  'max_res_rd_atom',
  'max_send_wr',
  'max_recv_wr',
  'max_send_sge',
  'max_recv_sge',
  'max_inline_data',
  'max_cqe',
  'max_srq_wr',
  'max_srq_sge',
  'max_rd_atomic',
  'max_dest_rd_atomic',
  'max_mr_size',
  'max_msg_sz',
  'sgid_index',
  'pkey_index',
] as const
export type LimitName = (typeof limitNames)[number]

/** Operations that adapters may lack, with their names in findings. */
export const operationNames = {
  rc: 'reliable connections (RC)',
  uc: 'unreliable connections (UC)',
  xrc: 'extended reliable connections (XRC)',
  srd: 'scalable reliable datagrams (SRD)',
  srq: 'shared receive queues',
  srqResize: 'resizing of shared receive queues',
  cqResize: 'resizing of completion queues',
  mw: 'memory windows',
  multicast: 'multicast',
  atomics: 'atomic operations',
  remoteAtomic: 'regions with IBV_ACCESS_REMOTE_ATOMIC',
  flush: 'FLUSH, and regions with IBV_ACCESS_FLUSH_GLOBAL or _PERSISTENT',
  atomicWrite: 'ATOMIC WRITE',
  onDemand: 'on-demand paging (IBV_ACCESS_ON_DEMAND)',
  unsignaled: 'sends without a completion: IBV_SEND_SIGNALED, or sq_sig_all, is needed',
  solicited: 'IBV_SEND_SOLICITED',
  fence: 'IBV_SEND_FENCE',
  emptyReceives: 'receives without elements (num_sge 0)',
  ud: 'unreliable datagrams (UD)',
  ipGids: 'GIDs of IP addresses: its GIDs are link-local',
  rawPackets: 'queue pairs of raw packets',
  gidPaths:
    'paths by a GID alone: the program has not asked for the LID of its port (ibv_query_port), so its peer cannot have it',
  lidPaths: 'paths by a LID alone (ah_attr.is_global is 0)',
  gidAddresses: 'addresses of rdma_cm that are GIDs (AF_IB)',
} as const
export type OperationName = keyof typeof operationNames

/** `classes`: the classes of queue pairs (spec/classes/qp/) with the limit; absent: all. */
export type Limit = readonly [value: number, source: string, classes?: readonly string[]]

/** A PCI function as sysfs shows it. Numbers are those of the configuration space. */
export interface PciModel {
  readonly vendor: number
  readonly device: number
  readonly subsystemVendor: number
  readonly subsystemDevice: number
  readonly revision: number
  /** The name of Linux's driver in /sys/bus/pci/drivers. */
  readonly driver: string
  /** GT/s and number of lanes; absent for a virtual function, which has no link of its own. */
  readonly link?: { readonly speed: string; readonly width: number }
  readonly source: string
}

export interface Adapter {
  readonly model: string
  /** Absent for a soft device. */
  readonly pci?: PciModel
  readonly limits: Readonly<Partial<Record<LimitName, Limit>>>
  /** The missing operations, each with its source. */
  readonly lacks: Readonly<Partial<Record<OperationName, string>>>
  /** The adapter frees slots of its send queues only when completions are polled: the source. */
  readonly freesAtPoll?: string
  /**
   * What happens to an atomic whose elements have more than 8 bytes, and the source; absent: it is not known, or the
   * adapter has no atomics.
   */
  readonly longAtomic?: readonly [result: string, source: string]
}

const MLX5_DEVINFO = '`ibv_devinfo -v` of ConnectX-5 in open-mpi/ompi pull request 6137'
const MLX5_SRQ = '`ibv_devinfo -v` of mlx5 in openucx/ucx issue 9212'
const MLX5_INLINE =
  'rdma-core providers/mlx5/verbs.c, mlx5_calc_send_wqe: of a WQE of 1024 bytes, 192 are reserved for other operations and 4 are the header of inline data (1004 bytes remain on ConnectX-4 Lx if send_ops_flags exclude these operations: linux-rdma/perftest pull request 176)'
const MLX5_MSG =
  'Linux drivers/infiniband/hw/mlx5/main.c, mlx5_query_hca_port: 2 to the power of log_max_msg, which is 30 (`ibv_devinfo -v` of ConnectX-5)'
const MLX5_OPCODES = 'rdma-core providers/mlx5/qp.c: no opcode for this operation'
const NO_FLUSH_ACCESS = 'Linux include/rdma/ib_verbs.h, ib_check_mr_access; rdma-core: only providers/rxe posts it'
const IRDMA_DEFS = 'Linux drivers/infiniband/hw/irdma/defs.h'
const IRDMA_USER = 'Linux drivers/infiniband/hw/irdma/user.h'
const IRDMA_QP = 'rdma-core providers/irdma/uverbs.c, irdma_ucreate_qp'
const IRDMA_POST = 'rdma-core providers/irdma/uverbs.c, irdma_upost_send'
const EFA_QP = 'Linux drivers/infiniband/hw/efa/efa_verbs.c, efa_qp_validate_attr'
const EFA_OPS = 'Linux drivers/infiniband/hw/efa/efa_main.c: no such operation'
const EFA_IO = 'rdma-core providers/efa/efa_io_defs.h'
const EFA_FLAGS = 'rdma-core providers/efa/verbs.c, efa_post_send_validate'
const NO_ON_DEMAND =
  'Linux include/rdma/ib_verbs.h, ib_check_mr_access: the driver does not set IBK_ON_DEMAND_PAGING, as mlx5 does'
const EFA_RECEIVES =
  'rdma-core providers/efa/verbs.c, efa_post_recv writes a descriptor for each element, and so none: the receive is never used; linux-rdma/perftest pull request 387'
const IRDMA_DEVINFO = '`ibv_devinfo -v` of E810 in deepseek-ai/3FS issue 192'
const IONIC_DEVICE = 'Linux drivers/infiniband/hw/ionic/ionic_ibdev.c, ionic_query_device'
const IONIC_OPS = 'Linux drivers/infiniband/hw/ionic/ionic_ibdev.c, ionic_dev_ops: no such operation'
const BNXT_DEVINFO = '`ibv_devinfo -vv` of a Broadcom adapter in uccl-project/uccl issue 250'
const BNXT_ATTRIBUTES = 'Linux drivers/infiniband/hw/bnxt_re/qplib_sp.c, bnxt_qplib_get_dev_attr'
const BNXT_QP = 'rdma-core providers/bnxt_re/verbs.c: types of queue pairs are RC, UD and raw packets'
const APPLE_UC = 'hellas-ai/thunderbolt-ibverbs pull request 9: the stack of macOS is UC only'
const APPLE_QPS = 'measured on macOS 26.5.1 in ml-explore/mlx issue 3162: the eleventh ibv_create_qp fails with EBUSY'
const APPLE_MRS = 'ml-explore/mlx issue 3162'
const APPLE_GIDS =
  'ml-explore/mlx issue 3467: the only GIDs are link-local, without addresses of IPv4, for which rdma_cm looks'
const RXE_PARAM = 'Linux drivers/infiniband/sw/rxe/rxe_param.h'

const MLX5_GIDS =
  'Linux drivers/infiniband/core/cache.c: the table has what the subnet manager has set, entry 0 is the GUID of the port; `ibv_devinfo -v` of mlx5'

/** What Linux's driver and rdma-core's provider of mlx5 lack with all adapters. */
const MLX5_LACKS = {
  srd: 'Linux drivers/infiniband/hw/mlx5/qp.c, check_qp_type: types of the driver are DC and its own',
  srqResize: 'Linux drivers/infiniband/hw/mlx5/srq.c, mlx5_ib_modify_srq',
  flush: `${MLX5_OPCODES}; ${NO_FLUSH_ACCESS}`,
  atomicWrite: MLX5_OPCODES,
} as const
const MLX5_COMMON = {
  lacks: MLX5_LACKS,
  freesAtPoll: 'rdma-core providers/mlx5/qp.c, mlx5_wq_overflow; cq.c moves the tail at a poll',
  longAtomic: ['executed, 8 bytes are written', 'rdma-core providers/mlx5/qp.c, set_data_ptr_seg_atomic'],
} as const
/** Of adapters of which only these numbers are known, with the same source. */
const mlx5Queues = (source: string) =>
  ({
    max_qp: [262144, source],
    max_send_wr: [32768, source],
    max_recv_wr: [32768, source],
    max_inline_data: [828, MLX5_INLINE, ['rc_qp', 'uc_qp']],
  }) as const

const EFA_LACKS = {
  rc: EFA_QP,
  uc: EFA_QP,
  xrc: EFA_QP,
  srq: EFA_QP,
  cqResize: EFA_OPS,
  mw: EFA_OPS,
  multicast: EFA_OPS,
  remoteAtomic: 'Linux drivers/infiniband/hw/efa/efa_verbs.c, efa_reg_mr',
  flush: NO_FLUSH_ACCESS,
  onDemand: NO_ON_DEMAND,
  unsignaled: EFA_FLAGS,
  solicited: EFA_FLAGS,
  fence: EFA_FLAGS,
  emptyReceives: EFA_RECEIVES,
} as const
const EFA_FREES = 'rdma-core providers/efa/verbs.c, efa_post_send_validate'

const table = {
  mlx5: {
    model: 'NVIDIA ConnectX-5',
    pci: {
      vendor: 0x15b3,
      device: 0x1017,
      subsystemVendor: 0x15b3,
      subsystemDevice: 0x0006,
      revision: 0,
      driver: 'mlx5_core',
      link: { speed: '8.0', width: 16 },
      source: 'pci.ids: MCX515A-CCAT; Linux drivers/net/ethernet/mellanox/mlx5/core/main.c, mlx5_core_pci_table',
    },
    limits: {
      max_qp: [262144, MLX5_DEVINFO],
      max_send_wr: [32768, MLX5_DEVINFO],
      max_recv_wr: [32768, MLX5_DEVINFO],
      max_send_sge: [30, MLX5_DEVINFO],
      max_recv_sge: [30, MLX5_DEVINFO],
      max_inline_data: [828, MLX5_INLINE, ['rc_qp', 'uc_qp']],
      max_cqe: [4194303, MLX5_DEVINFO],
      max_srq_wr: [32767, MLX5_SRQ],
      max_srq_sge: [31, MLX5_SRQ],
      max_rd_atomic: [16, MLX5_DEVINFO],
      max_dest_rd_atomic: [16, MLX5_DEVINFO],
      max_msg_sz: [0x4000_0000, MLX5_MSG],
    },
    ...MLX5_COMMON,
  },
  connectx4lx: {
    model: 'NVIDIA ConnectX-4 Lx',
    limits: mlx5Queues('`ibv_devinfo -v` of ConnectX-4 Lx in Mellanox/k8s-rdma-shared-dev-plugin issue 164'),
    ...MLX5_COMMON,
  },
  connectx6: {
    model: 'NVIDIA ConnectX-6',
    limits: mlx5Queues('`ibv_devinfo -v` of ConnectX-6 in openucx/ucx issue 8229'),
    ...MLX5_COMMON,
  },
  connectx6lx: {
    model: 'NVIDIA ConnectX-6 Lx',
    limits: {
      ...mlx5Queues('`ibv_devinfo -v` of ConnectX-6 Lx in openucx/ucx issue 10317'),
      max_qp: [131072, '`ibv_devinfo -v` of ConnectX-6 Lx in openucx/ucx issue 10317'],
      max_pd: [8388608, '`ibv_devinfo -v` of ConnectX-6 Lx in openucx/ucx issue 10317'],
      max_rd_atomic: [16, '`ibv_devinfo -v` of ConnectX-6 Lx in openucx/ucx issue 10317'],
      max_dest_rd_atomic: [16, '`ibv_devinfo -v` of ConnectX-6 Lx in openucx/ucx issue 10317'],
      max_cqe: [4194303, '`ibv_devinfo -v` of ConnectX-6 Lx in openucx/ucx issue 10317'],
      max_srq_wr: [32767, '`ibv_devinfo -v` of ConnectX-6 Lx in openucx/ucx issue 10317'],
      max_srq_sge: [31, '`ibv_devinfo -v` of ConnectX-6 Lx in openucx/ucx issue 10317'],
    },
    ...MLX5_COMMON,
  },
  efa: {
    model: 'Amazon EFA',
    pci: {
      vendor: 0x1d0f,
      device: 0xefa1,
      subsystemVendor: 0x1d0f,
      subsystemDevice: 0xefa1,
      revision: 0,
      driver: 'efa',
      source: 'Linux drivers/infiniband/hw/efa/efa_main.c, efa_pci_tbl',
    },
    limits: {
      max_send_wr: [4096, 'p5.48xlarge in kvcache-ai/Mooncake pull request 3296, which has 2048 for p6-b300.48xlarge'],
      max_recv_wr: [8192, 'ofiwg/libfabric pull request 11337'],
      max_send_sge: [2, `${EFA_IO}: EFA_IO_TX_DESC_NUM_BUFS`],
      max_inline_data: [32, `${EFA_IO}: EFA_IO_TX_DESC_INLINE_MAX_SIZE; 80 where WQEs have 128 bytes`],
    },
    lacks: EFA_LACKS,
    freesAtPoll: EFA_FREES,
  },
  'efa-p6-b300': {
    model: 'Amazon EFA of p6-b300.48xlarge',
    limits: {
      max_send_wr: [2048, 'kvcache-ai/Mooncake pull request 3296'],
      max_send_sge: [2, `${EFA_IO}: EFA_IO_TX_DESC_NUM_BUFS`],
    },
    lacks: EFA_LACKS,
    freesAtPoll: EFA_FREES,
  },
  irdma: {
    model: 'Intel E810',
    pci: {
      vendor: 0x8086,
      device: 0x1592,
      subsystemVendor: 0x8086,
      subsystemDevice: 0x0002,
      revision: 2,
      driver: 'ice',
      link: { speed: '16.0', width: 16 },
      source: 'pci.ids: E810-C-Q2; Linux drivers/net/ethernet/intel/ice/ice_main.c, ice_pci_tbl',
    },
    limits: {
      max_qp: [4092, IRDMA_DEVINFO],
      max_cq: [8189, IRDMA_DEVINFO],
      max_mr: [4194301, IRDMA_DEVINFO],
      max_pd: [262141, IRDMA_DEVINFO],
      max_ah: [131072, IRDMA_DEVINFO],
      max_send_wr: [32510, `${IRDMA_DEFS}: IRDMA_QP_SW_MAX_WQ_QUANTA - IRDMA_SQ_RSVD`],
      max_recv_wr: [32767, `${IRDMA_DEFS}: IRDMA_QP_SW_MAX_RQ_QUANTA - IRDMA_RQ_RSVD`],
      max_send_sge: [13, `${IRDMA_USER}: IRDMA_MAX_WQ_FRAGMENT_COUNT`],
      max_recv_sge: [13, `${IRDMA_USER}: IRDMA_MAX_WQ_FRAGMENT_COUNT`],
      max_inline_data: [101, `${IRDMA_USER}: IRDMA_MAX_INLINE_DATA_SIZE`],
      max_cqe: [1048574, `${IRDMA_USER}: IRDMA_MAX_CQ_SIZE - 1`],
      max_rd_atomic: [255, 'Linux drivers/infiniband/hw/irdma/icrdma_hw.h: ICRDMA_MAX_ORD_SIZE'],
      max_dest_rd_atomic: [127, 'Linux drivers/infiniband/hw/irdma/icrdma_hw.h: ICRDMA_MAX_IRD_SIZE'],
      max_mr_size: [0x2000_0000_0000, `${IRDMA_USER}: IRDMA_MAX_MR_SIZE`],
      max_msg_sz: [0x7fff_ffff, `${IRDMA_USER}: IRDMA_MAX_OUTBOUND_MSG_SIZE`],
    },
    lacks: {
      uc: IRDMA_QP,
      xrc: IRDMA_QP,
      srd: IRDMA_QP,
      srq: '`ibv_devinfo -v` of E810 in deepseek-ai/3FS issue 192: max_srq 0',
      atomics: '`ibv_devinfo -v` of E810 in deepseek-ai/3FS issue 192: ATOMIC_NONE',
      flush: `${IRDMA_POST}; ${NO_FLUSH_ACCESS}`,
      atomicWrite: IRDMA_POST,
      onDemand: NO_ON_DEMAND,
    },
    freesAtPoll: 'rdma-core providers/irdma/uk.c, irdma_uk_cq_poll_cmpl moves the tail at a poll',
  },
  ionic: {
    model: 'AMD Pensando',
    limits: {
      max_pd: [1024, 'Linux drivers/infiniband/hw/ionic/ionic_ibdev.h: IONIC_MAX_PD'],
      max_res_rd_atom: [
        16,
        `${IONIC_DEVICE}; kvcache-ai/Mooncake pull request 3977: the move to RTR fails with EINVAL`,
      ],
      max_send_wr: [32767, 'ROCm/mori pull request 451'],
      max_recv_wr: [65535, 'Linux drivers/infiniband/hw/ionic/ionic_queue.h: IONIC_MAX_DEPTH'],
      max_send_sge: [8, `${IONIC_DEVICE}: at most IONIC_SPEC_HIGH`],
      max_recv_sge: [8, `${IONIC_DEVICE}: at most IONIC_SPEC_HIGH`],
      max_cqe: [65435, `${IONIC_DEVICE}: IONIC_MAX_CQ_DEPTH - IONIC_CQ_GRACE`],
      max_rd_atomic: [16, 'kvcache-ai/Mooncake pull request 3977'],
      max_dest_rd_atomic: [16, 'kvcache-ai/Mooncake pull request 3977'],
      max_msg_sz: [0x8000_0000, 'Linux drivers/infiniband/hw/ionic/ionic_ibdev.c, ionic_query_port'],
    },
    lacks: {
      xrc: IONIC_OPS,
      srd: IONIC_OPS,
      srq: IONIC_OPS,
      cqResize: IONIC_OPS,
      multicast: IONIC_OPS,
      flush: NO_FLUSH_ACCESS,
      onDemand: NO_ON_DEMAND,
    },
  },
  bnxt_re: {
    model: 'Broadcom NetXtreme-E',
    limits: {
      max_qp: [131073, BNXT_DEVINFO],
      max_cq: [65536, BNXT_DEVINFO],
      max_pd: [65536, BNXT_ATTRIBUTES],
      max_send_wr: [4351, BNXT_DEVINFO],
      max_recv_wr: [4351, BNXT_DEVINFO],
      max_send_sge: [6, `${BNXT_ATTRIBUTES}: of chips of generation P5`],
      max_recv_sge: [6, `${BNXT_ATTRIBUTES}: of chips of generation P5`],
      max_cqe: [8388607, BNXT_DEVINFO],
      max_rd_atomic: [126, BNXT_DEVINFO],
      max_dest_rd_atomic: [126, BNXT_DEVINFO],
    },
    lacks: {
      uc: BNXT_QP,
      xrc: BNXT_QP,
      srd: BNXT_QP,
      multicast: 'Linux drivers/infiniband/hw/bnxt_re/ib_verbs.c, bnxt_re_query_device: max_mcast_grp is 0',
      flush: NO_FLUSH_ACCESS,
      onDemand: NO_ON_DEMAND,
    },
  },
  apple: {
    model: 'Apple, RDMA over Thunderbolt 5',
    limits: {
      max_qp: [10, APPLE_QPS],
      max_mr: [100, APPLE_MRS],
      max_recv_wr: [63, 'hellas-ai/thunderbolt-ibverbs pull request 41: ibv_post_recv fails at the 64th'],
    },
    lacks: { rc: APPLE_UC, ud: APPLE_UC, xrc: APPLE_UC, srd: APPLE_UC, atomics: APPLE_UC, ipGids: APPLE_GIDS },
  },
  rxe: {
    model: 'the soft device of Linux 6.12',
    limits: {
      max_inline_data: [512, `${RXE_PARAM}: RXE_MAX_INLINE_DATA`],
      max_cqe: [32767, `${RXE_PARAM}: RXE_MAX_LOG_CQE`],
      max_send_sge: [32, `${RXE_PARAM}: RXE_MAX_SGE`],
      max_recv_sge: [32, `${RXE_PARAM}: RXE_MAX_SGE`],
      max_srq_sge: [27, `${RXE_PARAM}: RXE_MAX_SRQ_SGE`],
      max_rd_atomic: [128, `${RXE_PARAM}: RXE_MAX_QP_INIT_RD_ATOM`],
      max_dest_rd_atomic: [128, `${RXE_PARAM}: RXE_MAX_QP_RD_ATOM`],
    },
    lacks: {
      xrc: `${RXE_PARAM}: RXE_DEVICE_CAP_FLAGS lacks XRC`,
      srd: 'Linux drivers/infiniband/sw/rxe/rxe_qp.c, rxe_qp_chk_init: no such type',
      onDemand: `${NO_ON_DEMAND}, and rxe from 6.15 on`,
    },
    longAtomic: [
      'executed, 8 bytes are written',
      'rdma-core providers/rxe/rxe.c, validate_send_wr: only less than 8 bytes are refused',
    ],
  },
  infiniband: {
    model: 'a port of InfiniBand, as of mlx5',
    limits: { sgid_index: [0, MLX5_GIDS] },
    lacks: {
      gidPaths: 'IBA 7.7: switches forward by the LID; novitalabs/pegaflow pull request 232',
      rawPackets: 'they send frames of Ethernet (ibv_create_qp(3)): max_raw_ethy_qp is 0 (`ibv_devinfo -v`)',
    },
  },
  roce: {
    model: 'a port of RoCE',
    limits: {
      pkey_index: [0, 'Linux drivers/infiniband/hw/mlx5/main.c, mlx5_query_port_roce: pkey_tbl_len is 1'],
    },
    lacks: {
      lidPaths:
        'IBA annex A17.4: packets always have a global route; Linux drivers/infiniband/core/verbs.c, rdma_check_ah_attr',
      gidAddresses: 'Linux drivers/infiniband/core/cma.c, cma_resolve_ib_dev: only ports with rdma_cap_af_ib',
    },
  },
} as const satisfies Record<string, Adapter>

export type AdapterName = keyof typeof table
export const adapters: Readonly<Record<AdapterName, Adapter>> = table
export const adapterNames = Object.keys(table) as readonly AdapterName[]

/** Adapters with a PCI function. */
export const pciModelNames = adapterNames.filter(name => adapters[name].pci !== undefined)
