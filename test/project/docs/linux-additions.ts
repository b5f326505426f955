/*
 * What Linux's interface of RDMA has got since 6.12, by release, and what it gets here: the headers in
 * include/uapi/rdma (of drivers only attributes of ioctls), and the events that programs receive.
 * docs/reference/linux-abi.md shows the table; test/daemon/since-6.12.test.ts makes the calls, and compares the names
 * with those of the headers (test/fixtures/abi/since-6.12.txt).
 *
 * A method's attributes are of the same release, unless they have a row.
 */
import type { ErrnoName } from '../../../src/spec/errno.ts'

type Release = '6.13' | '6.15' | '6.16' | '6.17' | '6.18' | '7.0' | '7.1' | '7.2' | '7.3'

/**
 * Prefix and suffix of Linux's names. `undefined`: names are whole. Events of devices and of rdma_cm are in no header
 * for programs.
 */
export const additionKinds = {
  object: ['UVERBS_OBJECT_', ''],
  /** OBJECT.METHOD. */
  method: ['UVERBS_METHOD_', ''],
  /** OBJECT.METHOD.ATTRIBUTE, of a method that Linux 6.12 has. */
  attribute: ['UVERBS_ATTR_', ''],
  /** Of the drivers mlx5 and efa. */
  'driver attribute': undefined,
  'rdma_cm command': ['RDMA_USER_CM_CMD_', ''],
  'rdma_cm query': ['RDMA_USER_CM_QUERY_', ''],
  'netlink command': ['RDMA_NLDEV_CMD_', ''],
  'netlink attribute': ['RDMA_NLDEV_ATTR_', ''],
  'netlink event': ['RDMA_', '_EVENT'],
  'device event': undefined,
  'rdma_cm event': undefined,
  value: undefined,
} as const satisfies Readonly<Record<string, readonly [prefix: string, suffix: string] | undefined>>
export type AdditionKind = keyof typeof additionKinds

/**
 * What a call with it gets: OK or an errno. Of attributes and values in answers, and of events: whether programs can
 * get them.
 */
type AdditionAnswer = 'OK' | ErrnoName | 'sent' | 'never sent'

export interface Addition {
  readonly since: Release
  readonly kind: AdditionKind
  readonly names: readonly string[]
  readonly answer: AdditionAnswer
  /** The kind of device that gives this answer, if not all do; others answer EPROTONOSUPPORT. */
  readonly device?: 'mlx5'
  /** What it is here, or why it is not. */
  readonly here: string
}

const row = (
  since: Release,
  kind: AdditionKind,
  names: string | readonly string[],
  answer: AdditionAnswer,
  here: string,
  device?: Addition['device'],
): Addition => ({
  since,
  kind,
  names: typeof names === 'string' ? [names] : names,
  answer,
  ...(device && { device }),
  here,
})

const DRIVERS_MEMORY =
  'queues are in the memory that the driver says, or at the address in its own bytes; libmlx5 passes it on devices with CC_DMA_BOUNCE only, libefa on those with EXT_MEM'
const NO_EXPORT = 'only a kernel can make a dma-buf of pages: libmlx5 asks for one of device memory'
const NO_COUNTERS = 'no device here counts completions in the memory of programs; libefa alone asks for it'
const NO_POOLS = 'no device here has pools of regions'

export const additions: readonly Addition[] = [
  row('6.13', 'netlink event', ['RENAME', 'NETDEV_RENAME'], 'sent', 'for `rdma monitor`'),
  row(
    '6.15',
    'attribute',
    'DEVICE.GET_CONTEXT.GET_CONTEXT_FD_ARR',
    'EOPNOTSUPP',
    'no device here has user capabilities',
  ),
  row(
    '6.15',
    'netlink attribute',
    'STAT_OPCOUNTER_ENABLED',
    'never sent',
    'no counter is optional; to bind one is ENOMEM',
  ),
  row(
    '6.16',
    'value',
    [
      'IB_UVERBS_ODP_SUPPORT',
      'IB_UVERBS_ODP_SUPPORT_IMPLICIT',
      'IB_UVERBS_ODP_SUPPORT_SEND',
      'IB_UVERBS_ODP_SUPPORT_RECV',
      'IB_UVERBS_ODP_SUPPORT_WRITE',
      'IB_UVERBS_ODP_SUPPORT_READ',
      'IB_UVERBS_ODP_SUPPORT_ATOMIC',
      'IB_UVERBS_ODP_SUPPORT_SRQ_RECV',
      'IB_UVERBS_ODP_SUPPORT_FLUSH',
      'IB_UVERBS_ODP_SUPPORT_ATOMIC_WRITE',
    ],
    'sent',
    'on-demand paging; the last two are new, the others have got names',
  ),
  row(
    '6.15',
    'driver attribute',
    'MLX5_IB_ATTR_FLOW_MATCHER_IB_PORT',
    'EPROTONOSUPPORT',
    'of a method that no device here has: flow rules are those of `ibv_create_flow`',
  ),
  row('6.17', 'object', 'DMAH', 'OK', 'on mlx5, as on Linux: hints that the device accepts and does not need', 'mlx5'),
  row('6.17', 'method', ['DMAH.DMAH_ALLOC', 'DMAH.DMAH_FREE'], 'OK', 'on mlx5: `dmah.create`, `dmah.destroy`', 'mlx5'),
  row('6.17', 'method', 'MR.REG_MR', 'OK', '`mr.create`, of memory of the program, or of a file (`REG_MR_FD`)'),
  row(
    '6.17',
    'attribute',
    [
      'CQ.CQ_CREATE.CREATE_CQ_BUFFER_VA',
      'CQ.CQ_CREATE.CREATE_CQ_BUFFER_LENGTH',
      'CQ.CQ_CREATE.CREATE_CQ_BUFFER_FD',
      'CQ.CQ_CREATE.CREATE_CQ_BUFFER_OFFSET',
    ],
    'EOPNOTSUPP',
    DRIVERS_MEMORY,
  ),
  row('6.18', 'value', 'RDMA_DRIVER_IONIC', 'never sent', 'a number of a driver'),
  row(
    '6.18',
    'rdma_cm command',
    'RESOLVE_IB_SERVICE',
    'EOPNOTSUPP',
    '`cm_id.resolveService`: as with Linux, RoCE has no subnet administrator; on InfiniBand programs ask it by datagrams',
  ),
  row('6.18', 'rdma_cm query', 'IB_SERVICE', 'ENODATA', '`cm_id.queryServices`: none is ever resolved'),
  row(
    '6.18',
    'value',
    ['RDMA_USER_CM_IB_SERVICE_FLAG_ID', 'RDMA_USER_CM_IB_SERVICE_FLAG_NAME'],
    'EOPNOTSUPP',
    'of RESOLVE_IB_SERVICE',
  ),
  row(
    '6.18',
    'rdma_cm event',
    ['RDMA_CM_EVENT_ADDRINFO_RESOLVED', 'RDMA_CM_EVENT_ADDRINFO_ERROR'],
    'never sent',
    'of RESOLVE_IB_SERVICE; librdmacm makes them of INTERNAL too',
  ),
  row('6.18', 'rdma_cm command', 'WRITE_CM_EVENT', 'OK', '`cm_id.writeEvent`'),
  row('6.18', 'rdma_cm event', ['RDMA_CM_EVENT_USER', 'RDMA_CM_EVENT_INTERNAL'], 'sent', 'by WRITE_CM_EVENT'),
  row('7.0', 'method', 'DEVICE.QUERY_PORT_SPEED', 'OK', '`port.querySpeed`, on all devices; on Linux not on rxe'),
  row(
    '7.0',
    'device event',
    'IB_EVENT_DEVICE_SPEED_CHANGE',
    'sent',
    'by devices of mlx5, when their port goes up or down; on Linux also only by mlx5',
  ),
  row('7.0', 'object', 'DMABUF', 'EPROTONOSUPPORT', NO_EXPORT),
  row('7.0', 'method', 'DMABUF.DMABUF_ALLOC', 'EPROTONOSUPPORT', NO_EXPORT),
  row('7.1', 'netlink command', 'FRMR_POOLS_GET', 'OK', `an empty list: ${NO_POOLS}`),
  row('7.1', 'netlink command', 'FRMR_POOLS_SET', 'EINVAL', `as with Linux, because ${NO_POOLS}`),
  row(
    '7.1',
    'netlink attribute',
    [
      'FRMR_POOLS',
      'FRMR_POOL_ENTRY',
      'FRMR_POOL_KEY',
      'FRMR_POOL_KEY_ATS',
      'FRMR_POOL_KEY_ACCESS_FLAGS',
      'FRMR_POOL_KEY_VENDOR_KEY',
      'FRMR_POOL_KEY_NUM_DMA_BLOCKS',
      'FRMR_POOL_QUEUE_HANDLES',
      'FRMR_POOL_MAX_IN_USE',
      'FRMR_POOL_IN_USE',
      'FRMR_POOLS_AGING_PERIOD',
      'FRMR_POOL_PINNED_HANDLES',
      'FRMR_POOL_KEY_KERNEL_VENDOR_KEY',
    ],
    'never sent',
    NO_POOLS,
  ),
  row(
    '7.1',
    'value',
    'IB_UVERBS_CORE_SUPPORT_ROBUST_UDATA',
    'never sent',
    "unknown bits in a driver's bytes are not always refused",
  ),
  row(
    '7.1',
    'driver attribute',
    'MLX5_IB_ATTR_VAR_OBJ_ALLOC_FLAGS',
    'OK',
    'areas for emulated devices can be mapped; a store there rings nothing',
  ),
  row('7.2', 'attribute', 'CQ.CQ_CREATE.CREATE_CQ_BUF_UMEM', 'EOPNOTSUPP', DRIVERS_MEMORY),
  row(
    '7.2',
    'attribute',
    ['QP.QP_CREATE.CREATE_QP_BUF_UMEM', 'QP.QP_CREATE.CREATE_QP_RQ_BUF_UMEM', 'QP.QP_CREATE.CREATE_QP_SQ_BUF_UMEM'],
    'EOPNOTSUPP',
    DRIVERS_MEMORY,
  ),
  row(
    '7.2',
    'value',
    ['IB_UVERBS_BUFFER_TYPE_DMABUF', 'IB_UVERBS_BUFFER_TYPE_VA'],
    'EOPNOTSUPP',
    'of the attributes BUF_UMEM',
  ),
  row(
    '7.2',
    'driver attribute',
    ['MLX5_IB_ATTR_CREATE_CQ_DBR_BUF_UMEM', 'MLX5_IB_ATTR_CREATE_QP_DBR_BUF_UMEM'],
    'EPROTONOSUPPORT',
    DRIVERS_MEMORY,
  ),
  row('7.2', 'value', 'IB_UVERBS_DEVICE_CC_DMA_BOUNCE', 'never sent', 'the daemon reaches the memory of its programs'),
  row('7.3', 'attribute', 'SRQ.SRQ_CREATE.CREATE_SRQ_BUF_UMEM', 'EOPNOTSUPP', DRIVERS_MEMORY),
  row('7.3', 'driver attribute', 'MLX5_IB_ATTR_CREATE_SRQ_DBR_BUF_UMEM', 'EPROTONOSUPPORT', DRIVERS_MEMORY),
  row('7.3', 'object', 'COMP_CNTR', 'EPROTONOSUPPORT', NO_COUNTERS),
  row(
    '7.3',
    'method',
    [
      'DEVICE.QUERY_COMP_CNTR_CAPS',
      'QP.QP_ATTACH_COMP_CNTR',
      'COMP_CNTR.COMP_CNTR_CREATE',
      'COMP_CNTR.COMP_CNTR_DESTROY',
      'COMP_CNTR.COMP_CNTR_MODIFY',
      'COMP_CNTR.COMP_CNTR_READ',
    ],
    'EPROTONOSUPPORT',
    NO_COUNTERS,
  ),
  row(
    '7.3',
    'value',
    [
      'IB_UVERBS_COMP_CNTR_ENTRY_COMP',
      'IB_UVERBS_COMP_CNTR_ENTRY_ERR',
      'IB_UVERBS_COMP_CNTR_MODIFY_OP_SET',
      'IB_UVERBS_COMP_CNTR_MODIFY_OP_INC',
      'IB_UVERBS_QP_ATTACH_COMP_CNTR_OP_SEND',
      'IB_UVERBS_QP_ATTACH_COMP_CNTR_OP_RECV',
      'IB_UVERBS_QP_ATTACH_COMP_CNTR_OP_RDMA_READ',
      'IB_UVERBS_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_READ',
      'IB_UVERBS_QP_ATTACH_COMP_CNTR_OP_RDMA_WRITE',
      'IB_UVERBS_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_WRITE',
    ],
    'EPROTONOSUPPORT',
    'of the methods COMP_CNTR',
  ),
  row(
    '7.3',
    'driver attribute',
    ['EFA_IB_ATTR_CREATE_COMP_CNTR_COMP_BUFFER', 'EFA_IB_ATTR_CREATE_COMP_CNTR_ERR_BUFFER'],
    'EPROTONOSUPPORT',
    NO_COUNTERS,
  ),
  row('7.3', 'netlink attribute', 'RES_SUMMARY_ENTRY_MAX', 'sent', 'the maxima of the device, for `rdma resource`'),
]

/** The first release that has an ioctl method; undefined: 6.12 has it. `name`: OBJECT.METHOD. */
export const methodSince = (name: string): Release | undefined =>
  additions.find(({ kind, names }) => kind === 'method' && names.includes(name))?.since
