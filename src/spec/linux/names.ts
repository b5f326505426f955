/*
 * Linux's names and numbers of all uverbs calls and their attributes (R41, R42), as in the headers of Linux 6.1 to 7.3
 * (ib_user_verbs.h, ib_user_ioctl_cmds.h). Numbers are only added:
 * test/project/docs/linux-additions.ts says when. Names lack their prefixes (IB_USER_VERBS_CMD_, UVERBS_METHOD_,
 * UVERBS_ATTR_).
 */

const numbered = <const N extends string>(first: number, ...names: readonly N[]): Readonly<Record<N, number>> =>
  Object.fromEntries(names.map((name, i) => [name, first + i])) as Record<N, number>

/** ib_uverbs_write_cmds. */
export const WriteCommands = numbered(
  0,
  'GET_CONTEXT',
  'QUERY_DEVICE',
  'QUERY_PORT',
  'ALLOC_PD',
  'DEALLOC_PD',
  'CREATE_AH',
  'MODIFY_AH',
  'QUERY_AH',
  'DESTROY_AH',
  'REG_MR',
  'REG_SMR',
  'REREG_MR',
  'QUERY_MR',
  'DEREG_MR',
  'ALLOC_MW',
  'BIND_MW',
  'DEALLOC_MW',
  'CREATE_COMP_CHANNEL',
  'CREATE_CQ',
  'RESIZE_CQ',
  'DESTROY_CQ',
  'POLL_CQ',
  'PEEK_CQ',
  'REQ_NOTIFY_CQ',
  'CREATE_QP',
  'QUERY_QP',
  'MODIFY_QP',
  'DESTROY_QP',
  'POST_SEND',
  'POST_RECV',
  'ATTACH_MCAST',
  'DETACH_MCAST',
  'CREATE_SRQ',
  'MODIFY_SRQ',
  'QUERY_SRQ',
  'DESTROY_SRQ',
  'POST_SRQ_RECV',
  'OPEN_XRCD',
  'CLOSE_XRCD',
  'CREATE_XSRQ',
  'OPEN_QP',
)
export type WriteName = keyof typeof WriteCommands

/** Extended commands, without bit 31 of their numbers. */
export const ExtendedCommands = {
  EX_QUERY_DEVICE: WriteCommands.QUERY_DEVICE,
  EX_CREATE_CQ: WriteCommands.CREATE_CQ,
  EX_CREATE_QP: WriteCommands.CREATE_QP,
  EX_MODIFY_QP: WriteCommands.MODIFY_QP,
  ...numbered(
    50,
    'CREATE_FLOW',
    'DESTROY_FLOW',
    'CREATE_WQ',
    'MODIFY_WQ',
    'DESTROY_WQ',
    'CREATE_RWQ_IND_TBL',
    'DESTROY_RWQ_IND_TBL',
    'MODIFY_CQ',
  ),
} as const
export type ExtendedName = keyof typeof ExtendedCommands

/** Objects, their methods, and the methods' attributes. The number of each is its position, from 0. */
export const ioctlNames = {
  DEVICE: {
    INVOKE_WRITE: ['CORE_IN', 'CORE_OUT', 'WRITE_CMD'],
    INFO_HANDLES: ['INFO_OBJECT_ID', 'INFO_TOTAL_HANDLES', 'INFO_HANDLES_LIST'],
    QUERY_PORT: ['QUERY_PORT_PORT_NUM', 'QUERY_PORT_RESP'],
    GET_CONTEXT: ['GET_CONTEXT_NUM_COMP_VECTORS', 'GET_CONTEXT_CORE_SUPPORT', 'GET_CONTEXT_FD_ARR'],
    QUERY_CONTEXT: ['QUERY_CONTEXT_NUM_COMP_VECTORS', 'QUERY_CONTEXT_CORE_SUPPORT'],
    QUERY_GID_TABLE: [
      'QUERY_GID_TABLE_ENTRY_SIZE',
      'QUERY_GID_TABLE_FLAGS',
      'QUERY_GID_TABLE_RESP_ENTRIES',
      'QUERY_GID_TABLE_RESP_NUM_ENTRIES',
    ],
    QUERY_GID_ENTRY: [
      'QUERY_GID_ENTRY_PORT',
      'QUERY_GID_ENTRY_GID_INDEX',
      'QUERY_GID_ENTRY_FLAGS',
      'QUERY_GID_ENTRY_RESP_ENTRY',
    ],
    QUERY_PORT_SPEED: ['QUERY_PORT_SPEED_PORT_NUM', 'QUERY_PORT_SPEED_RESP'],
    QUERY_COMP_CNTR_CAPS: [
      'QUERY_COMP_CNTR_CAPS_MAX_COUNTERS',
      'QUERY_COMP_CNTR_CAPS_MAX_VALUE',
      'QUERY_COMP_CNTR_CAPS_SUPPORTED_QP_ATTACH_OPS',
    ],
  },
  PD: {
    PD_DESTROY: ['DESTROY_PD_HANDLE'],
  },
  COMP_CHANNEL: {},
  CQ: {
    CQ_CREATE: [
      'CREATE_CQ_HANDLE',
      'CREATE_CQ_CQE',
      'CREATE_CQ_USER_HANDLE',
      'CREATE_CQ_COMP_CHANNEL',
      'CREATE_CQ_COMP_VECTOR',
      'CREATE_CQ_FLAGS',
      'CREATE_CQ_RESP_CQE',
      'CREATE_CQ_EVENT_FD',
      'CREATE_CQ_BUFFER_VA',
      'CREATE_CQ_BUFFER_LENGTH',
      'CREATE_CQ_BUFFER_FD',
      'CREATE_CQ_BUFFER_OFFSET',
      'CREATE_CQ_BUF_UMEM',
    ],
    CQ_DESTROY: ['DESTROY_CQ_HANDLE', 'DESTROY_CQ_RESP'],
  },
  QP: {
    QP_CREATE: [
      'CREATE_QP_HANDLE',
      'CREATE_QP_XRCD_HANDLE',
      'CREATE_QP_PD_HANDLE',
      'CREATE_QP_SRQ_HANDLE',
      'CREATE_QP_SEND_CQ_HANDLE',
      'CREATE_QP_RECV_CQ_HANDLE',
      'CREATE_QP_IND_TABLE_HANDLE',
      'CREATE_QP_USER_HANDLE',
      'CREATE_QP_CAP',
      'CREATE_QP_TYPE',
      'CREATE_QP_FLAGS',
      'CREATE_QP_SOURCE_QPN',
      'CREATE_QP_EVENT_FD',
      'CREATE_QP_RESP_CAP',
      'CREATE_QP_RESP_QP_NUM',
      'CREATE_QP_BUF_UMEM',
      'CREATE_QP_RQ_BUF_UMEM',
      'CREATE_QP_SQ_BUF_UMEM',
    ],
    QP_DESTROY: ['DESTROY_QP_HANDLE', 'DESTROY_QP_RESP'],
    QP_ATTACH_COMP_CNTR: [
      'QP_ATTACH_COMP_CNTR_HANDLE',
      'QP_ATTACH_COMP_CNTR_CNTR_HANDLE',
      'QP_ATTACH_COMP_CNTR_OP_MASK',
    ],
  },
  SRQ: {
    SRQ_CREATE: [
      'CREATE_SRQ_HANDLE',
      'CREATE_SRQ_PD_HANDLE',
      'CREATE_SRQ_XRCD_HANDLE',
      'CREATE_SRQ_CQ_HANDLE',
      'CREATE_SRQ_USER_HANDLE',
      'CREATE_SRQ_MAX_WR',
      'CREATE_SRQ_MAX_SGE',
      'CREATE_SRQ_LIMIT',
      'CREATE_SRQ_MAX_NUM_TAGS',
      'CREATE_SRQ_TYPE',
      'CREATE_SRQ_EVENT_FD',
      'CREATE_SRQ_RESP_MAX_WR',
      'CREATE_SRQ_RESP_MAX_SGE',
      'CREATE_SRQ_RESP_SRQ_NUM',
      'CREATE_SRQ_BUF_UMEM',
    ],
    SRQ_DESTROY: ['DESTROY_SRQ_HANDLE', 'DESTROY_SRQ_RESP'],
  },
  AH: {
    AH_DESTROY: ['DESTROY_AH_HANDLE'],
  },
  MR: {
    DM_MR_REG: [
      'REG_DM_MR_HANDLE',
      'REG_DM_MR_OFFSET',
      'REG_DM_MR_LENGTH',
      'REG_DM_MR_PD_HANDLE',
      'REG_DM_MR_ACCESS_FLAGS',
      'REG_DM_MR_DM_HANDLE',
      'REG_DM_MR_RESP_LKEY',
      'REG_DM_MR_RESP_RKEY',
    ],
    MR_DESTROY: ['DESTROY_MR_HANDLE'],
    ADVISE_MR: ['ADVISE_MR_PD_HANDLE', 'ADVISE_MR_ADVICE', 'ADVISE_MR_FLAGS', 'ADVISE_MR_SGE_LIST'],
    QUERY_MR: [
      'QUERY_MR_HANDLE',
      'QUERY_MR_RESP_LKEY',
      'QUERY_MR_RESP_RKEY',
      'QUERY_MR_RESP_LENGTH',
      'QUERY_MR_RESP_IOVA',
    ],
    REG_DMABUF_MR: [
      'REG_DMABUF_MR_HANDLE',
      'REG_DMABUF_MR_PD_HANDLE',
      'REG_DMABUF_MR_OFFSET',
      'REG_DMABUF_MR_LENGTH',
      'REG_DMABUF_MR_IOVA',
      'REG_DMABUF_MR_FD',
      'REG_DMABUF_MR_ACCESS_FLAGS',
      'REG_DMABUF_MR_RESP_LKEY',
      'REG_DMABUF_MR_RESP_RKEY',
    ],
    REG_MR: [
      'REG_MR_HANDLE',
      'REG_MR_PD_HANDLE',
      'REG_MR_DMA_HANDLE',
      'REG_MR_IOVA',
      'REG_MR_ADDR',
      'REG_MR_LENGTH',
      'REG_MR_ACCESS_FLAGS',
      'REG_MR_FD',
      'REG_MR_FD_OFFSET',
      'REG_MR_RESP_LKEY',
      'REG_MR_RESP_RKEY',
    ],
  },
  MW: {
    MW_DESTROY: ['DESTROY_MW_HANDLE'],
  },
  FLOW: {
    FLOW_DESTROY: ['DESTROY_FLOW_HANDLE'],
  },
  XRCD: {
    XRCD_DESTROY: ['DESTROY_XRCD_HANDLE'],
  },
  RWQ_IND_TBL: {
    RWQ_IND_TBL_DESTROY: ['DESTROY_RWQ_IND_TBL_HANDLE'],
  },
  WQ: {
    WQ_CREATE: [
      'CREATE_WQ_HANDLE',
      'CREATE_WQ_PD_HANDLE',
      'CREATE_WQ_CQ_HANDLE',
      'CREATE_WQ_USER_HANDLE',
      'CREATE_WQ_TYPE',
      'CREATE_WQ_EVENT_FD',
      'CREATE_WQ_MAX_WR',
      'CREATE_WQ_MAX_SGE',
      'CREATE_WQ_FLAGS',
      'CREATE_WQ_RESP_MAX_WR',
      'CREATE_WQ_RESP_MAX_SGE',
      'CREATE_WQ_RESP_WQ_NUM',
    ],
    WQ_DESTROY: ['DESTROY_WQ_HANDLE', 'DESTROY_WQ_RESP'],
  },
  FLOW_ACTION: {
    FLOW_ACTION_ESP_CREATE: [
      'CREATE_FLOW_ACTION_ESP_HANDLE',
      'FLOW_ACTION_ESP_ATTRS',
      'FLOW_ACTION_ESP_ESN',
      'FLOW_ACTION_ESP_KEYMAT',
      'FLOW_ACTION_ESP_REPLAY',
      'FLOW_ACTION_ESP_ENCAP',
    ],
    FLOW_ACTION_DESTROY: ['DESTROY_FLOW_ACTION_HANDLE'],
    FLOW_ACTION_ESP_MODIFY: ['MODIFY_FLOW_ACTION_ESP_HANDLE'],
  },
  DM: {
    DM_ALLOC: ['ALLOC_DM_HANDLE', 'ALLOC_DM_LENGTH', 'ALLOC_DM_ALIGNMENT'],
    DM_FREE: ['FREE_DM_HANDLE'],
  },
  COUNTERS: {
    COUNTERS_CREATE: ['CREATE_COUNTERS_HANDLE'],
    COUNTERS_DESTROY: ['DESTROY_COUNTERS_HANDLE'],
    COUNTERS_READ: ['READ_COUNTERS_HANDLE', 'READ_COUNTERS_BUFF', 'READ_COUNTERS_FLAGS'],
  },
  ASYNC_EVENT: {
    ASYNC_EVENT_ALLOC: ['ASYNC_EVENT_ALLOC_FD_HANDLE'],
  },
  DMAH: {
    DMAH_ALLOC: ['ALLOC_DMAH_HANDLE', 'ALLOC_DMAH_CPU_ID', 'ALLOC_DMAH_TPH_MEM_TYPE', 'ALLOC_DMAH_PH'],
    DMAH_FREE: ['FREE_DMA_HANDLE'],
  },
  DMABUF: {
    DMABUF_ALLOC: ['ALLOC_DMABUF_HANDLE', 'ALLOC_DMABUF_PGOFF'],
  },
  COMP_CNTR: {
    COMP_CNTR_CREATE: ['CREATE_COMP_CNTR_HANDLE'],
    COMP_CNTR_DESTROY: ['DESTROY_COMP_CNTR_HANDLE'],
    COMP_CNTR_MODIFY: [
      'MODIFY_COMP_CNTR_HANDLE',
      'MODIFY_COMP_CNTR_ENTRY',
      'MODIFY_COMP_CNTR_OP',
      'MODIFY_COMP_CNTR_VALUE',
    ],
    COMP_CNTR_READ: ['READ_COMP_CNTR_HANDLE', 'READ_COMP_CNTR_ENTRY', 'READ_COMP_CNTR_RESP_VALUE'],
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>
export type LinuxObjectName = keyof typeof ioctlNames

/** uverbs_default_objects. */
export const LinuxObject = numbered(0, ...(Object.keys(ioctlNames) as LinuxObjectName[]))

/** Structs that are not named after their commands. */
const structNames: Readonly<Record<string, string>> = {
  CREATE_WQ: 'ex_create_wq',
  MODIFY_WQ: 'ex_modify_wq',
  DESTROY_WQ: 'ex_destroy_wq',
  CREATE_RWQ_IND_TBL: 'ex_create_rwq_ind_table',
  DESTROY_RWQ_IND_TBL: 'ex_destroy_rwq_ind_table',
  MODIFY_CQ: 'ex_modify_cq',
}
/** Commands whose response has the struct of another command. */
const responseOwners: Readonly<Record<string, string>> = { CREATE_XSRQ: 'CREATE_SRQ', OPEN_QP: 'CREATE_QP' }

/** Names of the C structs of a command's request and response. */
export const requestStruct = (name: string): string => `ib_uverbs_${structNames[name] ?? name.toLowerCase()}`
export const responseStruct = (name: string): string => `${requestStruct(responseOwners[name] ?? name)}_resp`
