/*
 * Calls that libibverbs, a provider or librdmacm refuse themselves, without a call of the device: by function, the
 * errno and the reasons. The preload library reports such a call (`refusedByLibrary` in spec/preload-events.ts) with
 * facts about its arguments, which tell the reasons apart. From reading rdma-core 44.0 and 64.0; `source` names file
 * and function there.
 *
 * Not seen, because verbs.h refuses them in the program: operations that a context lacks (ibv_create_flow, ibv_alloc_dm
 * …: EOPNOTSUPP), ibv_bind_mw of a window of type 2, and comp_mask of the input of ibv_query_device_ex. Refused posts
 * are the event `refusedPost`.
 */

import type { Severity } from '../../spec/check/severity.ts'
import type { ErrnoName } from '../../spec/errno.ts'
import { Errno } from '../../spec/errno.ts'

/** Values of a call, by the names in `facts` of its function. Pointers: whether they are not NULL, 0 or 1. */
type Facts<Name extends string> = Readonly<Record<Name, number>>

interface Reason<Name extends string = string> {
  readonly errno: ErrnoName
  /** When the function has this reason; absent: always. The first reason that applies counts. */
  readonly when?: (facts: Facts<Name>) => boolean
  /** A sentence without its full stop. */
  readonly reason: string | ((facts: Facts<Name>) => string)
  readonly advice: string
  /** Absent: 'warning'. 'note': healthy programs make the call too, to try or to clean up. */
  readonly severity?: Severity
}

interface RefusingFunction {
  /** The class of the object of the call; absent: the reports of this function name none. */
  readonly object?: string
  /** Names of the facts, in the order of the message. */
  readonly facts: readonly string[]
  readonly source: string
  readonly reasons: readonly Reason[]
}

const row = <const Name extends string>(function_: {
  readonly object?: string
  readonly facts: readonly Name[]
  readonly source: string
  readonly reasons: readonly Reason<Name>[]
}): RefusingFunction => function_ as RefusingFunction

const hex = (value: number): string => `0x${value.toString(16)}`

// ---- bits and values of verbs.h and rdma_cma.h ----

const REREG_ALL = 7
const REREG_TRANSLATION = 1
const REREG_ACCESS = 4
/** The last attribute of ibv_modify_qp, which few providers have. */
const QP_RATE_LIMIT = 1 << 25
const ACCESS_ON_DEMAND = 1 << 6
const { XRC_SRQ, TM_SRQ } = { XRC_SRQ: 1, TM_SRQ: 2 }
const { SRQ_TYPE, SRQ_PD, SRQ_XRCD, SRQ_CQ, SRQ_UNKNOWN } = {
  SRQ_TYPE: 1,
  SRQ_PD: 2,
  SRQ_XRCD: 4,
  SRQ_CQ: 8,
  SRQ_UNKNOWN: 32,
}
const { QP_PD, QP_XRCD, QP_CREATE_FLAGS, QP_SEND_OPS } = { QP_PD: 1, QP_XRCD: 2, QP_CREATE_FLAGS: 4, QP_SEND_OPS: 64 }
const { RC, UC, UD, RAW, XRC_SEND, XRC_RECV } = { RC: 2, UC: 3, UD: 4, RAW: 8, XRC_SEND: 9, XRC_RECV: 10 }
const QP_TYPES: readonly number[] = [RC, UC, UD, RAW, XRC_SEND, XRC_RECV, 0xff]
const { AF_INET, AF_INET6, AF_IB } = { AF_INET: 2, AF_INET6: 10, AF_IB: 27 }
const FAMILIES: readonly number[] = [AF_INET, AF_INET6, AF_IB]
const NULL_ADDRESS = 0x1_0000

// ---- reasons that functions share ----

/** `sa_family` of an address; NULL_ADDRESS: the pointer is NULL. */
const familyText = (family: number): string =>
  family === NULL_ADDRESS ? 'the address is NULL' : `sa_family of the address is ${family}`

const badFamily = (of: (facts: Facts<'family'>) => number = ({ family }) => family): Reason<'family'> => ({
  errno: 'EINVAL',
  when: facts => !FAMILIES.includes(of(facts)),
  reason: facts => `${familyText(of(facts))}; allowed are AF_INET, AF_INET6 and AF_IB`,
  advice: 'set sin_family (sin6_family) of the address, and set the rest of the structure to 0',
})

const createQpReasons: readonly Reason<'type' | 'compMask' | 'createFlags' | 'operations'>[] = [
  {
    errno: 'EINVAL',
    when: ({ type }) => !QP_TYPES.includes(type),
    reason: ({ type }) => `qp_type ${type} is no type of queue pair (IBV_QPT_…; RC is 2)`,
    advice: 'set qp_type, and set the rest of the structure to 0',
  },
  {
    errno: 'EINVAL',
    when: ({ type, compMask }) => type === XRC_RECV && (compMask & QP_XRCD) === 0,
    reason: 'a target of XRC needs its domain: comp_mask has no IBV_QP_INIT_ATTR_XRCD',
    advice: 'set xrcd, and IBV_QP_INIT_ATTR_XRCD in comp_mask',
  },
  {
    errno: 'EINVAL',
    when: ({ type, compMask }) => type !== XRC_RECV && (compMask & QP_PD) === 0,
    reason: 'comp_mask has no IBV_QP_INIT_ATTR_PD, so the queue pair has no protection domain',
    advice: 'set pd, and IBV_QP_INIT_ATTR_PD in comp_mask',
  },
  {
    errno: 'EOPNOTSUPP',
    when: ({ compMask, createFlags }) => (compMask & QP_CREATE_FLAGS) !== 0 && createFlags !== 0,
    reason: ({ createFlags }) => `the provider has none of the create_flags ${hex(createFlags)}`,
    advice: 'create the queue pair without these flags if the call fails with EOPNOTSUPP',
    severity: 'note',
  },
  {
    errno: 'EOPNOTSUPP',
    when: ({ compMask, type }) => (compMask & QP_SEND_OPS) !== 0 && ![RC, UC, UD].includes(type),
    reason: 'the provider has ibv_wr_* only for RC, UC and UD',
    advice: 'use ibv_post_send for this queue pair if the call fails with EOPNOTSUPP',
    severity: 'note',
  },
  {
    errno: 'EOPNOTSUPP',
    when: ({ compMask }) => (compMask & QP_SEND_OPS) !== 0,
    reason: ({ operations }) =>
      `send_ops_flags ${hex(operations)} has operations that the provider or this type of queue pair lacks`,
    advice: 'request only the operations that the program uses; UD has only SEND, and UC neither READ nor atomics',
    severity: 'note',
  },
  {
    errno: 'EOPNOTSUPP',
    reason: ({ compMask }) => `comp_mask ${hex(compMask)} has attributes that the provider does not know`,
    advice: 'create the queue pair without these attributes if the call fails with EOPNOTSUPP',
    severity: 'note',
  },
]

const createSrqReasons: readonly Reason<'compMask' | 'type' | 'tags'>[] = [
  {
    errno: 'EOPNOTSUPP',
    when: ({ compMask }) => compMask >= SRQ_UNKNOWN,
    reason: ({ compMask }) => `comp_mask ${hex(compMask)} has unknown bits`,
    advice: 'set the structure to 0 before its fields',
  },
  {
    errno: 'EINVAL',
    when: ({ compMask }) => (compMask & SRQ_PD) === 0,
    reason: 'comp_mask has no IBV_SRQ_INIT_ATTR_PD, so the SRQ has no protection domain',
    advice: 'set pd, and IBV_SRQ_INIT_ATTR_PD in comp_mask',
  },
  {
    errno: 'EINVAL',
    when: ({ compMask, type }) =>
      (compMask & SRQ_TYPE) !== 0 && type === XRC_SRQ && (compMask & (SRQ_XRCD | SRQ_CQ)) !== (SRQ_XRCD | SRQ_CQ),
    reason: 'an SRQ of XRC needs a domain and a CQ: comp_mask lacks IBV_SRQ_INIT_ATTR_XRCD or IBV_SRQ_INIT_ATTR_CQ',
    advice: 'set xrcd and cq, and both bits in comp_mask',
  },
  {
    errno: 'EINVAL',
    when: ({ type }) => type === TM_SRQ,
    reason: ({ tags }) => `an SRQ with tag matching needs a CQ and max_num_tags above 0 (it is ${tags})`,
    advice: 'set cq, tm_cap.max_num_tags and their bits in comp_mask',
  },
]

const connectionReasons: readonly Reason<'queuePair' | 'parameters' | 'resources' | 'depth'>[] = [
  {
    errno: 'EINVAL',
    when: ({ queuePair, parameters }) => queuePair === 0 && parameters === 0,
    reason: 'conn_param is NULL, and the identifier has no queue pair of rdma_create_qp, so there is no qp_num to send',
    advice: 'call rdma_create_qp first, or set qp_num of rdma_conn_param to the number of your own queue pair',
  },
  {
    errno: 'EINVAL',
    when: ({ parameters }) => parameters !== 0,
    reason: ({ resources, depth }) =>
      `responder_resources ${resources} or initiator_depth ${depth} is more than the device has (max_qp_rd_atom, max_qp_init_rd_atom of ibv_query_device)`,
    advice:
      'set the whole structure to 0 before its fields; for the maximum use RDMA_MAX_RESP_RES and RDMA_MAX_INIT_DEPTH',
  },
]

const ahFromWcReasons: readonly Reason<'version' | 'multicast'>[] = [
  {
    errno: 'EINVAL',
    when: ({ multicast }) => multicast !== 0,
    reason: 'the datagram was sent to a multicast group, whose address is no GID of this port',
    advice: 'fill in ibv_ah_attr from the source of the GRH, with your own sgid_index',
  },
  {
    errno: 'EPROTONOSUPPORT',
    reason: ({ version }) =>
      `the 40 bytes at \`grh\` are no header of an IP packet (IP version ${version}), so the GRH is not there`,
    advice:
      'give the address of the first 40 bytes of the receive buffer of this completion, before the buffer is posted again',
  },
]

const maskReasons = (advice: string): readonly Reason<'mask'>[] => [
  {
    errno: 'EOPNOTSUPP',
    when: ({ mask }) => mask >= 2 * QP_RATE_LIMIT,
    reason: ({ mask }) => `attr_mask ${hex(mask)} has undefined bits`,
    advice,
  },
  {
    errno: 'EOPNOTSUPP',
    when: ({ mask }) => mask >= QP_RATE_LIMIT,
    reason: 'the provider has no IBV_QP_RATE_LIMIT',
    advice: 'go on without a limit if the call fails with EOPNOTSUPP',
    severity: 'note',
  },
]

const lacking = (what: string): Reason => ({
  errno: 'EOPNOTSUPP',
  reason: `the provider of this device has no ${what}`,
  advice: 'ask for EOPNOTSUPP, and go on without it',
  severity: 'note',
})

// ---- the table ----

const createQp = { object: 'pd', facts: ['type', 'compMask', 'createFlags', 'operations'] } as const
const notMapped = ({ length }: Facts<'length'>): string =>
  `madvise refuses to keep the ${length} bytes from children (ibv_fork_init): they are not all mapped`
const registering = row({
  object: 'pd',
  facts: ['address', 'length', 'access'],
  source: 'libibverbs/cmd.c, ibv_cmd_reg_mr; memory.c, ibv_dontfork_range',
  reasons: [
    {
      errno: 'EINVAL',
      when: ({ access, address }) => (access & ACCESS_ON_DEMAND) !== 0 && address !== 0,
      reason: 'a region of the whole address space (length SIZE_MAX, IBV_ACCESS_ON_DEMAND) begins at address NULL',
      advice: 'give address NULL',
    },
    { errno: 'EINVAL', reason: notMapped, advice: 'register only mapped memory' },
    { errno: 'ENOMEM', reason: notMapped, advice: 'register only mapped memory' },
  ],
})
const cmQueuePair = row({
  object: 'cm_id',
  facts: ['queuePair', 'verbs', 'otherContext', 'otherCq'],
  source: 'librdmacm/cma.c, rdma_create_qp_ex',
  reasons: [
    {
      errno: 'EINVAL',
      when: ({ queuePair }) => queuePair !== 0,
      reason: 'the identifier has a queue pair already',
      advice: 'call rdma_destroy_qp first, or use another identifier',
    },
    {
      errno: 'EINVAL',
      when: ({ verbs }) => verbs === 0,
      reason:
        'the identifier has no device yet: it listens, or was bound to a wildcard address, or its address is not resolved',
      advice:
        'create the queue pair with the identifier of the CONNECT_REQUEST event (not the listening one), or after ADDR_RESOLVED',
    },
    {
      errno: 'EINVAL',
      when: ({ otherContext }) => otherContext !== 0,
      reason: "the protection domain is of another context than the identifier's (id->verbs)",
      advice: 'allocate protection domain and CQs with id->verbs, not with a device that the program has opened itself',
    },
    {
      errno: 'EINVAL',
      when: ({ otherCq }) => otherCq !== 0,
      reason: 'the identifier has another CQ (id->send_cq, id->recv_cq) than ibv_qp_init_attr',
      advice: 'leave send_cq and recv_cq NULL, or do not change id->send_cq and id->recv_cq',
    },
  ],
})
const cmSharedQueue = row({
  object: 'cm_id',
  facts: ['compMask', 'type', 'tags'],
  source: 'librdmacm/cma.c, rdma_create_srq_ex',
  reasons: [
    {
      errno: 'EINVAL',
      when: ({ compMask }) => (compMask & SRQ_TYPE) === 0,
      reason: 'comp_mask has no IBV_SRQ_INIT_ATTR_TYPE',
      advice: 'set srq_type, and IBV_SRQ_INIT_ATTR_TYPE in comp_mask',
    },
    ...createSrqReasons,
  ],
})
const connecting = {
  object: 'cm_id',
  facts: ['queuePair', 'parameters', 'resources', 'depth'],
  source: 'librdmacm/cma.c, ucma_valid_param',
} as const

export const refusals = {
  // ---- libibverbs ----
  ibv_rereg_mr: row({
    object: 'mr',
    facts: ['flags', 'address', 'length', 'access'],
    source: 'libibverbs/verbs.c, ibv_rereg_mr',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ flags }) => (flags & ~REREG_ALL) !== 0,
        reason: ({ flags }) => `flags ${hex(flags)} has unknown bits`,
        advice: 'give IBV_REREG_MR_CHANGE_TRANSLATION, _PD, _ACCESS; the rights are the last argument',
      },
      {
        errno: 'EINVAL',
        when: ({ flags, address, length }) => (flags & REREG_TRANSLATION) !== 0 && (address === 0 || length === 0),
        reason: ({ address, length }) =>
          `IBV_REREG_MR_CHANGE_TRANSLATION needs an address and a length, and ${address === 0 ? 'addr is NULL' : `length is ${length}`}`,
        advice: 'give the new range, or leave out IBV_REREG_MR_CHANGE_TRANSLATION',
      },
      {
        errno: 'EINVAL',
        when: ({ flags, access }) => access !== 0 && (flags & REREG_ACCESS) === 0,
        reason: ({ access }) => `access is ${hex(access)}, and flags has no IBV_REREG_MR_CHANGE_ACCESS`,
        advice: 'add IBV_REREG_MR_CHANGE_ACCESS, or give access 0',
      },
      {
        errno: 'EINVAL',
        reason: 'the region was not made by ibv_reg_mr: memory of the device and NULL regions cannot change',
        advice: 'deregister the region and register another one',
      },
    ],
  }),
  ibv_reg_mr: registering,
  ibv_reg_mr_iova: registering,
  ibv_reg_mr_iova2: registering,
  ibv_reg_dmabuf_mr: row({
    object: 'pd',
    facts: [],
    source: 'libibverbs/dummy_ops.c, reg_dmabuf_mr',
    reasons: [lacking('regions of a dma-buf')],
  }),
  ibv_import_mr: row({
    object: 'pd',
    facts: [],
    source: 'libibverbs/dummy_ops.c, import_mr',
    reasons: [lacking('import of regions')],
  }),
  ibv_import_pd: row({
    facts: [],
    source: 'libibverbs/dummy_ops.c, import_pd',
    reasons: [lacking('import of protection domains')],
  }),
  ibv_import_dm: row({
    facts: [],
    source: 'libibverbs/dummy_ops.c, import_dm',
    reasons: [lacking('import of device memory')],
  }),
  ibv_import_device: row({
    facts: ['isDevice'],
    source: 'libibverbs/device.c, ibv_import_device',
    reasons: [
      {
        errno: 'EINVAL',
        reason: 'the descriptor is not open, or is no device file',
        advice: "give the cmd_fd of another process's context, which was passed over a socket (SCM_RIGHTS)",
      },
      {
        errno: 'ENODEV',
        reason: 'the descriptor is of no RDMA device',
        advice: "give the cmd_fd of another process's context, which was passed over a socket (SCM_RIGHTS)",
      },
      lacking('import of contexts'),
    ],
  }),
  ibv_destroy_comp_channel: row({
    object: 'comp_channel',
    facts: [],
    source: 'libibverbs/verbs.c, ibv_destroy_comp_channel',
    reasons: [
      {
        errno: 'EBUSY',
        reason: 'a CQ uses the channel',
        advice: 'destroy its CQs first (ibv_destroy_cq)',
      },
    ],
  }),
  ibv_create_qp: row({ ...createQp, source: 'libibverbs/cmd_qp.c, ibv_icmd_create_qp', reasons: createQpReasons }),
  ibv_create_qp_ex: row({
    ...createQp,
    source: 'libibverbs/cmd_qp.c, ibv_icmd_create_qp; providers/rxe/rxe.c, check_qp_init_attr',
    reasons: createQpReasons,
  }),
  ibv_create_cq_ex: row({
    facts: ['wcFlags', 'compMask', 'flags'],
    source: 'libibverbs/device.c, __lib_ibv_create_cq_ex; providers/rxe/rxe.c, rxe_create_cq_ex',
    reasons: [
      {
        errno: 'EOPNOTSUPP',
        reason: ({ wcFlags, compMask, flags }) =>
          `the provider does not support wc_flags ${hex(wcFlags)}, comp_mask ${hex(compMask)} or flags ${hex(flags)}`,
        advice: 'request only the fields that the program reads, or fall back to fewer of them (or to ibv_create_cq)',
        severity: 'note',
      },
    ],
  }),
  ibv_create_srq_ex: row({
    facts: ['compMask', 'type', 'tags'],
    source: 'libibverbs/cmd_srq.c, ibv_cmd_create_srq_ex, ibv_icmd_create_srq',
    reasons: createSrqReasons,
  }),
  ibv_open_xrcd: row({
    facts: ['compMask'],
    source: 'libibverbs/cmd.c, ibv_cmd_open_xrcd',
    reasons: [
      {
        errno: 'EOPNOTSUPP',
        reason: ({ compMask }) => `comp_mask ${hex(compMask)} has unknown bits`,
        advice: 'set the structure to 0 before its fields',
      },
      {
        errno: 'EINVAL',
        reason: 'comp_mask lacks IBV_XRCD_INIT_ATTR_FD or IBV_XRCD_INIT_ATTR_OFLAGS',
        advice: 'set fd (-1: no file) and oflags, and both bits in comp_mask',
      },
    ],
  }),
  ibv_open_qp: row({
    facts: ['compMask'],
    source: 'libibverbs/cmd.c, ibv_cmd_open_qp',
    reasons: [
      {
        errno: 'EOPNOTSUPP',
        reason: ({ compMask }) => `comp_mask ${hex(compMask)} has unknown bits`,
        advice: 'set the structure to 0 before its fields',
      },
      {
        errno: 'EINVAL',
        reason: 'comp_mask lacks IBV_QP_OPEN_ATTR_NUM, IBV_QP_OPEN_ATTR_XRCD or IBV_QP_OPEN_ATTR_TYPE',
        advice: 'set qp_num, xrcd and qp_type, and their bits in comp_mask',
      },
    ],
  }),
  ibv_modify_qp: row({
    object: 'qp',
    facts: ['mask'],
    source: 'libibverbs/cmd.c, ibv_cmd_modify_qp',
    reasons: maskReasons('set only IBV_QP_… bits of attributes that are set'),
  }),
  ibv_query_qp: row({
    object: 'qp',
    facts: ['mask'],
    source: 'libibverbs/cmd.c, ibv_cmd_query_qp',
    reasons: maskReasons('give only IBV_QP_… bits; a provider may fill in more attributes'),
  }),
  ibv_query_gid_ex: row({
    facts: ['port', 'index', 'flags'],
    source: 'libibverbs/cmd_device.c, __ibv_query_gid_ex',
    reasons: [
      {
        errno: 'EOPNOTSUPP',
        reason: ({ flags }) => `flags is ${hex(flags)}, and only 0 is defined`,
        advice: 'give flags 0',
      },
      {
        errno: 'EINVAL',
        reason: ({ port, index }) => `port ${port} has no GID index ${index} (ports count from 1)`,
        advice: 'give an index below gid_tbl_len of ibv_query_port',
        severity: 'note',
      },
      {
        errno: 'ENODATA',
        reason: ({ port, index }) => `GID index ${index} of port ${port} is empty`,
        advice: 'look for the entry with ibv_query_gid_table',
        severity: 'note',
      },
    ],
  }),
  ibv_set_ece: row({
    object: 'qp',
    facts: [],
    source: 'libibverbs/verbs.c, ibv_set_ece',
    reasons: [lacking('enhanced connection establishment, or vendor_id is 0')],
  }),
  ibv_query_ece: row({
    object: 'qp',
    facts: [],
    source: 'libibverbs/dummy_ops.c, query_ece',
    reasons: [lacking('enhanced connection establishment')],
  }),
  ibv_init_ah_from_wc: row({
    facts: ['version', 'multicast'],
    source: 'libibverbs/verbs.c, get_grh_header_version, set_ah_attr_by_ipv4, set_ah_attr_by_ipv6',
    reasons: ahFromWcReasons,
  }),
  ibv_create_ah_from_wc: row({
    object: 'pd',
    facts: ['version', 'multicast'],
    source: 'libibverbs/verbs.c, ibv_init_ah_from_wc',
    reasons: ahFromWcReasons,
  }),

  // ---- librdmacm ----
  rdma_create_event_channel: row({
    facts: [],
    source: 'librdmacm/cma.c, ucma_init',
    reasons: [
      {
        errno: 'ENODEV',
        reason: 'there is no RDMA device',
        advice: 'start the program under `userdma run` or `userdma check`, or look for devices with `ibv_devinfo`',
        severity: 'note',
      },
      {
        errno: 'EPERM',
        reason: 'librdmacm does not know the version of the connection manager (/dev/infiniband/rdma_cm)',
        advice: 'look whether the module rdma_ucm is loaded',
      },
    ],
  }),
  rdma_bind_addr: row({
    object: 'cm_id',
    facts: ['family'],
    source: 'librdmacm/cma.c, rdma_bind_addr',
    reasons: [badFamily()],
  }),
  rdma_resolve_addr: row({
    object: 'cm_id',
    facts: ['family', 'source'],
    source: 'librdmacm/cma.c, rdma_resolve_addr',
    reasons: [
      badFamily(),
      {
        errno: 'EINVAL',
        when: ({ source }) => source !== NULL_ADDRESS && !FAMILIES.includes(source),
        reason: ({ source }) => `sa_family of the source address is ${source}; allowed are AF_INET, AF_INET6 and AF_IB`,
        advice: 'give NULL as source address, or set its family',
      },
    ],
  }),
  rdma_create_qp: cmQueuePair,
  rdma_create_qp_ex: cmQueuePair,
  rdma_create_srq: cmSharedQueue,
  rdma_create_srq_ex: cmSharedQueue,
  rdma_connect: row({ ...connecting, reasons: connectionReasons }),
  rdma_accept: row({ ...connecting, reasons: connectionReasons }),
  rdma_get_request: row({
    object: 'cm_id',
    facts: ['event'],
    source: 'librdmacm/cma.c, rdma_get_request',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ event }) => event === 0,
        reason: 'the identifier has an event channel, and rdma_get_request works only without one',
        advice: 'take the request with rdma_get_cm_event, or create the identifier with channel NULL (rdma_create_ep)',
      },
      {
        errno: 'EINVAL',
        reason: 'the event that came is no CONNECT_REQUEST',
        advice: 'look at id->event',
        severity: 'note',
      },
      {
        errno: 'ECONNREFUSED',
        reason: 'the peer has rejected',
        advice: 'take the next request',
        severity: 'note',
      },
    ],
  }),
  rdma_establish: row({
    object: 'cm_id',
    facts: ['queuePair'],
    source: 'librdmacm/cma.c, rdma_establish',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ queuePair }) => queuePair !== 0,
        reason:
          'the queue pair is of rdma_create_qp: librdmacm has moved it to RTS, and confirms the connection itself',
        advice: 'call rdma_establish only for a queue pair of your own, after CONNECT_RESPONSE',
      },
    ],
  }),
  rdma_disconnect: row({
    object: 'cm_id',
    facts: ['verbs'],
    source: 'librdmacm/cma.c, ucma_shutdown',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ verbs }) => verbs === 0,
        reason: 'the identifier has no device, so it has no connection: it listens, or its address was not resolved',
        advice: 'disconnect the identifier of the connection; a listening one needs only rdma_destroy_id',
        severity: 'note',
      },
    ],
  }),
  rdma_join_multicast: row({
    object: 'cm_id',
    facts: ['family'],
    source: 'librdmacm/cma.c, rdma_join_multicast',
    reasons: [badFamily()],
  }),
  rdma_join_multicast_ex: row({
    object: 'cm_id',
    facts: ['family', 'compMask', 'flags'],
    source: 'librdmacm/cma.c, rdma_join_multicast_ex',
    reasons: [
      {
        errno: 'EOPNOTSUPP',
        reason: ({ compMask }) => `comp_mask ${hex(compMask)} has unknown bits`,
        advice: 'set the structure to 0 before its fields',
      },
      {
        errno: 'EINVAL',
        when: ({ compMask }) => compMask !== 3,
        reason: 'comp_mask lacks RDMA_CM_JOIN_MC_ATTR_ADDRESS or RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS',
        advice: 'set addr and join_flags, and both bits in comp_mask',
      },
      {
        errno: 'EINVAL',
        when: ({ flags }) => flags > 1,
        reason: ({ flags }) =>
          `join_flags is ${flags}; allowed are RDMA_MC_JOIN_FLAG_FULLMEMBER (0) and RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER (1)`,
        advice: 'set join_flags',
      },
      badFamily(),
    ],
  }),
  rdma_leave_multicast: row({
    object: 'cm_id',
    facts: ['family'],
    source: 'librdmacm/cma.c, rdma_leave_multicast',
    reasons: [
      badFamily(),
      {
        errno: 'EADDRNOTAVAIL',
        reason: 'the identifier is no member of a group with this address',
        advice: 'give the same bytes as rdma_join_multicast, also port and padding: they are compared as memory',
        severity: 'note',
      },
    ],
  }),
  rdma_get_cm_event: row({
    facts: ['event'],
    source: 'librdmacm/cma.c, rdma_get_cm_event',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ event }) => event === 0,
        reason: '`event` is NULL',
        advice: 'give the address of a pointer',
      },
    ],
  }),
  rdma_ack_cm_event: row({
    facts: ['event'],
    source: 'librdmacm/cma.c, rdma_ack_cm_event',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ event }) => event === 0,
        reason: 'the event is NULL',
        advice: 'acknowledge the event that rdma_get_cm_event has returned, once',
      },
    ],
  }),
  rdma_migrate_id: row({
    object: 'cm_id',
    facts: ['channel'],
    source: 'librdmacm/cma.c, rdma_migrate_id',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ channel }) => channel === 0,
        reason: 'the identifier is synchronous already (channel NULL)',
        advice: 'give an event channel',
      },
    ],
  }),
  rdma_set_local_ece: row({
    object: 'cm_id',
    facts: ['queuePair', 'vendor', 'compMask'],
    source: 'librdmacm/cma.c, rdma_set_local_ece',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ queuePair }) => queuePair !== 0,
        reason: 'the identifier has a queue pair of rdma_create_qp, for which librdmacm sets the options itself',
        advice: 'call it only for a queue pair of your own',
      },
      {
        errno: 'EINVAL',
        reason: ({ vendor, compMask }) =>
          `vendor_id is ${hex(vendor)} and comp_mask ${hex(compMask)}; allowed are a vendor and comp_mask 0`,
        advice: 'take ibv_ece from ibv_query_ece, and call rdma_set_local_ece only if that has succeeded',
      },
    ],
  }),
  rdma_get_remote_ece: row({
    object: 'cm_id',
    facts: ['queuePair'],
    source: 'librdmacm/cma.c, rdma_get_remote_ece',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ queuePair }) => queuePair !== 0,
        reason: 'the identifier has a queue pair of rdma_create_qp, for which librdmacm reads the options itself',
        advice: 'call it only for a queue pair of your own',
      },
    ],
  }),
  rdma_getaddrinfo: row({
    facts: ['node', 'service', 'hints'],
    source: 'librdmacm/addrinfo.c, rdma_getaddrinfo',
    reasons: [
      {
        errno: 'EINVAL',
        when: ({ node, service, hints }) => node === 0 && service === 0 && hints === 0,
        reason: 'node, service and hints are all NULL',
        advice: 'give a node or a service',
      },
    ],
  }),
  rdma_write_cm_event: row({
    object: 'cm_id',
    facts: ['type'],
    source: 'librdmacm/cma.c of 64.0, rdma_write_cm_event',
    reasons: [
      {
        errno: 'EINVAL',
        reason: ({ type }) => `type ${type} is not RDMA_CM_EVENT_USER`,
        advice: 'give RDMA_CM_EVENT_USER',
      },
    ],
  }),
  rdma_resolve_addrinfo: row({
    object: 'cm_id',
    facts: [],
    source: 'librdmacm/cma.c of 64.0, rdma_resolve_addrinfo',
    reasons: [
      {
        errno: 'EBUSY',
        reason: 'the identifier resolves a name already',
        advice: 'wait for RDMA_CM_EVENT_ADDRINFO_RESOLVED or _ERROR first',
      },
      {
        errno: 'EOPNOTSUPP',
        reason: 'RAI_SA and RAI_DNS exclude each other, and RAI_SA takes no node',
        advice: 'give one of the flags, and with RAI_SA only a service',
      },
      { errno: 'EINVAL', reason: 'RAI_SA needs a service', advice: 'give a service' },
    ],
  }),
  rdma_query_addrinfo: row({
    object: 'cm_id',
    facts: [],
    source: 'librdmacm/cma.c of 64.0, rdma_query_addrinfo',
    reasons: [
      {
        errno: 'ENOENT',
        reason: 'no name was resolved yet',
        advice: 'wait for RDMA_CM_EVENT_ADDRINFO_RESOLVED first',
      },
    ],
  }),
} as const satisfies Readonly<Record<string, RefusingFunction>>

type RefusingFunctionName = keyof typeof refusals

interface Refusal {
  /** A sentence without its full stop; undefined: no reason is known. */
  readonly reason: string | undefined
  readonly advice?: string
  readonly severity: Severity
  /** The class of the object that the report names. */
  readonly object?: string
}

/** Of any function that opens a descriptor, or gets one of the device. */
const outOfDescriptors: Refusal = {
  reason: 'the program has as many descriptors open as it may (RLIMIT_NOFILE)',
  advice:
    'close descriptors that are not used any more, or raise the limit (ulimit -n), and check the result of the call',
  severity: 'warning',
}

/** Why a library has refused a call, from `refusedByLibrary`. `values`: in the order of `facts` of the function. */
export const refusalReason = (name: string, errno: number, values: readonly bigint[]): Refusal => {
  if (errno === Errno.EMFILE) return outOfDescriptors
  const function_ = Object.hasOwn(refusals, name) ? refusals[name as RefusingFunctionName] : undefined
  if (function_ === undefined) return { reason: undefined, severity: 'note' }
  const { facts: names, reasons, object } = function_ as RefusingFunction
  const facts = Object.fromEntries(names.map((fact, i) => [fact, Number(values[i] ?? 0n)]))
  const of = object === undefined ? {} : { object }
  for (const { errno: code, when, reason, advice, severity = 'warning' } of reasons)
    if (Errno[code] === errno && (when === undefined || when(facts)))
      return { ...of, reason: typeof reason === 'string' ? reason : reason(facts), advice, severity }
  return { ...of, reason: undefined, severity: 'note' }
}
