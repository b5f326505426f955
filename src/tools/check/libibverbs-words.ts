/*
 * The words of libibverbs for what refusals name by our schema: functions, struct members, masks and constants.
 * Findings about programs in C use them (src/tools/check/c-words.ts).
 */
import type { ReasonCode } from '../../spec/reason.ts'

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

/** Functions whose refusals have no words of C, as `cFunctions`. */
export const otherCFunctions: Readonly<Record<string, string>> = {
  'pd.destroy': 'ibv_dealloc_pd',
  'qp.destroy': 'ibv_destroy_qp',
  'cq.destroy': 'ibv_destroy_cq',
  'cq.reqNotify': 'ibv_req_notify_cq',
  'srq.destroy': 'ibv_destroy_srq',
  'xrc_srq.destroy': 'ibv_destroy_srq',
  'mr.destroy': 'ibv_dereg_mr',
  'mw.destroy': 'ibv_dealloc_mw',
  'ah.destroy': 'ibv_destroy_ah',
  'wq.destroy': 'ibv_destroy_wq',
  'xrcd.destroy': 'ibv_close_xrcd',
  'comp_channel.create': 'ibv_create_comp_channel',
  'cm_id.create': 'rdma_create_id',
  'cm_id.modify': 'rdma_migrate_id',
  'cm_id.destroy': 'rdma_destroy_id',
  'cm_id.bind': 'rdma_bind_addr',
  'cm_id.resolveAddress': 'rdma_resolve_addr',
  'cm_id.resolveRoute': 'rdma_resolve_route',
  'cm_id.connect': 'rdma_connect',
  'cm_id.listen': 'rdma_listen',
  'cm_id.accept': 'rdma_accept',
  'cm_id.reject': 'rdma_reject',
  'cm_id.disconnect': 'rdma_disconnect',
  'cm_id.notify': 'rdma_notify',
  'cm_id.setOption': 'rdma_set_option',
  'cm_id.resolveService': 'rdma_resolve_addrinfo',
  'cm_channel.getEvent': 'rdma_get_cm_event',
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

/** Fields of `ah_attr`. */
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

/** What the constants of an enum of the schema have before their names, by enum. */
export const cConstants: Readonly<Record<string, string>> = {
  mtu: 'IBV_',
  mw_type: 'IBV_MW_',
  access_flags: 'IBV_ACCESS_',
}

/** Enums by their names in the schema. */
export const cEnums: Readonly<Record<string, string>> = {
  mtu: 'enum ibv_mtu',
  mw_type: 'enum ibv_mw_type',
  qp_state: 'enum ibv_qp_state',
  access_flags: 'enum ibv_access_flags',
  mig_state: 'enum ibv_mig_state',
}

const ASK_FOR_LIMIT = 'ask ibv_query_device for the limit, and request no more'

/** Limits that ibv_query_device returns. */
const limited: readonly string[] = [
  'cap.maxSendWr',
  'cap.maxSendSge',
  'cap.maxRecvWr',
  'cap.maxRecvSge',
  'cap.maxInlineData',
  'maxRdAtomic',
  'maxDestRdAtomic',
]

interface Advice {
  /** Absent: every reason about the attributes. */
  readonly code?: ReasonCode
  /** Absent: every attribute. Fields of addresses begin with `address.`. */
  readonly attributes?: readonly string[]
  /** Absent: every method of a queue pair or other object. */
  readonly functions?: readonly string[]
  /** The first argument of the reason with the code. */
  readonly value?: string
  readonly advice: string
}

/** What to do about a refusal. The first row that fits counts. */
export const refusalAdvice: readonly Advice[] = [
  {
    code: 'lock-limit',
    advice:
      'register less, or raise the limit where the program runs: `ulimit -l` of its shell, memlock of limits.conf(5), LimitMEMLOCK of a systemd unit, `--ulimit memlock` of a container',
  },
  {
    code: 'budget',
    functions: ['ibv_modify_qp'],
    advice:
      'give each queue pair a smaller max_dest_rd_atomic: all of the device, also those of other programs, share max_res_rd_atom of ibv_query_device',
  },
  {
    code: 'budget',
    advice:
      'ask ibv_query_device for the limit, which all programs of the device share, and use fewer objects; if the adapter has more, raise the limit in `--device`',
  },
  {
    code: 'not-in-enum',
    attributes: ['pathMtu'],
    value: '0',
    advice: 'path_mtu is an enum ibv_mtu, not a number of bytes: for 1024 bytes give IBV_MTU_1024',
  },
  {
    code: 'out-of-range',
    attributes: ['pathMtu'],
    advice: 'give the smaller active_mtu of both ports (ibv_query_port), or raise the MTU of the interfaces',
  },
  {
    code: 'not-global',
    advice: 'set is_global to 1, and grh.dgid and grh.sgid_index: RoCE has no addresses without a GRH',
  },
  {
    code: 'gid-empty',
    advice: 'choose a grh.sgid_index that `ibv_devinfo -v` lists for the port, or find one with ibv_query_gid_ex',
  },
  { code: 'gid-families', advice: 'choose the GID index whose type and address family are those of grh.dgid' },
  {
    code: 'gid-roce-v1',
    advice:
      'choose the GID index that `ibv_query_gid_ex` tells is IBV_GID_TYPE_ROCE_V2, on both ends (NCCL_IB_ROCE_VERSION_NUM=2)',
  },
  {
    attributes: ['port', 'address.port'],
    advice: 'ports are counted from 1, and ibv_query_device has their number (phys_port_cnt)',
  },
  { code: 'attributes-missing', advice: 'set these members, and add the bits to attr_mask' },
  { code: 'attributes-not-taken', advice: 'remove these bits from attr_mask' },
  {
    code: 'no-transition',
    advice: 'modify the queue pair to INIT, RTR and RTS in this order, each with a call of its own',
  },
  { code: 'needs-local-write', advice: 'add IBV_ACCESS_LOCAL_WRITE to the access flags' },
  { code: 'unknown-bits', advice: 'use only IBV_ACCESS_ flags of infiniband/verbs.h' },
  { code: 'above-device-limit', advice: ASK_FOR_LIMIT },
  { attributes: limited, advice: ASK_FOR_LIMIT },
  { code: 'not-in-enum', advice: 'use one of the constants' },
  {
    attributes: ['compVector'],
    advice: 'vectors are numbered from 0, and num_comp_vectors of the context is their number',
  },
  {
    code: 'wrong-class',
    functions: ['ibv_attach_mcast', 'ibv_detach_mcast'],
    advice: 'only queue pairs of type UD can join a group',
  },
  { code: 'out-of-range', advice: 'give a value in this range' },
]
