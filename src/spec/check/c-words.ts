/*
 * The words of libibverbs for what refusals name by our schema: functions, struct members, masks and constants. Findings
 * about programs in C use them (src/tools/check/c-words.ts).
 */

/** By `CLASS.METHOD`; `qp` stands for all classes of queue pairs. */
export const cFunctions: Readonly<Record<string, string>> = {
  'pd.create': 'ibv_alloc_pd',
  'qp.create': 'ibv_create_qp',
  'qp.modify': 'ibv_modify_qp',
  'qp.query': 'ibv_query_qp',
  'qp.attachMcast': 'ibv_attach_mcast',
  'qp.detachMcast': 'ibv_detach_mcast',
  'cq.create': 'ibv_create_cq',
  'cq.modify': 'ibv_resize_cq',
  'srq.create': 'ibv_create_srq',
  'srq.modify': 'ibv_modify_srq',
  'xrc_srq.create': 'ibv_create_srq_ex',
  'xrc_srq.modify': 'ibv_modify_srq',
  'mr.create': 'ibv_reg_mr',
  'mr.modify': 'ibv_rereg_mr',
  'mw.create': 'ibv_alloc_mw',
  'ah.create': 'ibv_create_ah',
  'wq.create': 'ibv_create_wq',
  'wq.modify': 'ibv_modify_wq',
  'xrcd.create': 'ibv_open_xrcd',
}

/** Members whose names are not those of our attributes in snake_case, by function. */
export const cMembers: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  ibv_modify_qp: {
    state: 'qp_state',
    curState: 'cur_qp_state',
    accessFlags: 'qp_access_flags',
    port: 'port_num',
    address: 'ah_attr',
    alternatePath: 'alt_ah_attr',
    destQpn: 'dest_qp_num',
    pathMigState: 'path_mig_state',
    enSqdAsyncNotify: 'en_sqd_async_notify',
  },
  ibv_modify_srq: { limit: 'srq_limit' },
  ibv_create_ah: { address: 'attr' },
}

/** Members of `ah_attr`, behind `attribute address: `. */
export const cAddressMembers: Readonly<Record<string, string>> = {
  isGlobal: 'is_global',
  port: 'port_num',
  sgidIndex: 'grh.sgid_index',
  dgid: 'grh.dgid',
  flowLabel: 'grh.flow_label',
  hopLimit: 'grh.hop_limit',
  trafficClass: 'grh.traffic_class',
  staticRate: 'static_rate',
  srcPathBits: 'src_path_bits',
  sl: 'sl',
}

/** The bits of attr_mask (IBV_QP_…) by attribute of ibv_modify_qp. */
export const cMasks: Readonly<Record<string, string>> = {
  state: 'STATE',
  curState: 'CUR_STATE',
  enSqdAsyncNotify: 'EN_SQD_ASYNC_NOTIFY',
  accessFlags: 'ACCESS_FLAGS',
  pkeyIndex: 'PKEY_INDEX',
  port: 'PORT',
  qkey: 'QKEY',
  address: 'AV',
  pathMtu: 'PATH_MTU',
  timeout: 'TIMEOUT',
  retryCnt: 'RETRY_CNT',
  rnrRetry: 'RNR_RETRY',
  rqPsn: 'RQ_PSN',
  maxRdAtomic: 'MAX_QP_RD_ATOMIC',
  alternatePath: 'ALT_PATH',
  minRnrTimer: 'MIN_RNR_TIMER',
  sqPsn: 'SQ_PSN',
  maxDestRdAtomic: 'MAX_DEST_RD_ATOMIC',
  pathMigState: 'PATH_MIG_STATE',
  destQpn: 'DEST_QPN',
}

/** Constants of the schema that have another prefix in C. */
export const cConstants: readonly (readonly [name: RegExp, prefix: string])[] = [
  [/\bMTU_(?=\d+\b)/g, 'IBV_MTU_'],
  [/\bTYPE_(?=[12]\b)/g, 'IBV_MW_TYPE_'],
  [
    /\b(?=(?:LOCAL_WRITE|REMOTE_WRITE|REMOTE_READ|REMOTE_ATOMIC|MW_BIND|ZERO_BASED|ON_DEMAND|HUGETLB|RELAXED_ORDERING)\b)/g,
    'IBV_ACCESS_',
  ],
]

/** Enums by their names in the schema. */
export const cEnums: Readonly<Record<string, string>> = {
  mtu: 'enum ibv_mtu',
  mw_type: 'enum ibv_mw_type',
  qp_state: 'enum ibv_qp_state',
  access_flags: 'enum ibv_access_flags',
  mig_state: 'enum ibv_mig_state',
}

/** What to do about a refusal, by its text in C's words. The first that matches counts. */
export const refusalAdvice: readonly (readonly [reason: RegExp, advice: string])[] = [
  [
    /^ibv_modify_qp: path_mtu: 0 /,
    'path_mtu is an enum ibv_mtu, not a number of bytes: for 1024 bytes give IBV_MTU_1024',
  ],
  [/is_global is 0/, 'set is_global to 1, and grh.dgid and grh.sgid_index: RoCE has no addresses without a GRH'],
  [
    /GID index \d+ .*is empty/,
    'choose a grh.sgid_index that `ibv_devinfo -v` lists for the port, or find one with ibv_query_gid_ex',
  ],
  [/not both IPv4 or both IPv6/, 'choose the GID index whose type and address family are those of grh.dgid'],
  [/port_num/, 'ports are counted from 1, and ibv_query_device has their number (phys_port_cnt)'],
  [/ needs (IBV_QP_.*) as well$/, 'set these members, and add the bits to attr_mask'],
  [/ does not take IBV_QP_|are of attributes that/, 'remove these bits from attr_mask'],
  [/cannot go from/, 'modify the queue pair to INIT, RTR and RTS in this order, each with a call of its own'],
  [/without IBV_ACCESS_LOCAL_WRITE/, 'add IBV_ACCESS_LOCAL_WRITE to the access flags'],
  [/unknown bits/, 'use only IBV_ACCESS_ flags of infiniband/verbs.h'],
  [
    /device's (max_\w+)|cap\.max_\w+: \d+ is not in|max_(?:dest_)?rd_atomic/,
    'ask ibv_query_device for the limit, and request no more',
  ],
  [/is not a value of enum/, 'use one of the constants'],
  [/comp_vector/, 'vectors are numbered from 0, and num_comp_vectors of the context is their number'],
  [/^ibv_(?:at|de)tach_mcast: handle .* not ud_qp/, 'only queue pairs of type UD can join a group'],
  [/: \d+ is (?:above|below) \d+\b| is not in \d+ to \d+$/, 'give a value in this range'],
]
