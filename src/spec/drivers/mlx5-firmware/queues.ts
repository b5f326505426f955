/*
 * Structs of firmware commands for queues: completion queues, queue pairs, receive queues and targets of DC
 * (mlx5_ifc.h of Linux 6.12, rdma-core 65 and UCX 1.23).
 */
import { bits, long, nested, raw, rest, struct } from './fields.ts'

export const ads = struct(44, {
  fl: bits(0x0, 1),
  free_ar: bits(0x1, 1),
  pkey_index: bits(0x10, 16),
  plane_index: bits(0x20, 8),
  grh: bits(0x28, 1),
  mlid: bits(0x29, 7),
  rlid: bits(0x30, 16),
  ack_timeout: bits(0x40, 5),
  src_addr_index: bits(0x48, 8),
  log_rtm: bits(0x50, 4),
  stat_rate: bits(0x54, 4),
  hop_limit: bits(0x58, 8),
  tclass: bits(0x64, 8),
  flow_label: bits(0x6c, 20),
  rgid_rip: raw(0x80, 16),
  f_dscp: bits(0x104, 1),
  f_ecn: bits(0x105, 1),
  f_eth_prio: bits(0x107, 1),
  ecn: bits(0x108, 2),
  dscp: bits(0x10a, 6),
  udp_sport: bits(0x110, 16),
  dei_cfi: bits(0x120, 1),
  eth_prio: bits(0x121, 3),
  sl: bits(0x124, 4),
  vhca_port_num: bits(0x128, 8),
  rmac_47_32: bits(0x130, 16),
  rmac_31_0: bits(0x140, 32),
})

export const qpc = struct(232, {
  state: bits(0x0, 4),
  lag_tx_port_affinity: bits(0x4, 4),
  st: bits(0x8, 8),
  isolate_vl_tc: bits(0x12, 1),
  pm_state: bits(0x13, 2),
  rdma_wr_disabled: bits(0x15, 1),
  req_e2e_credit_mode: bits(0x16, 2),
  offload_type: bits(0x18, 4),
  end_padding_mode: bits(0x1c, 2),
  wq_signature: bits(0x20, 1),
  block_lb_mc: bits(0x21, 1),
  atomic_like_write_en: bits(0x22, 1),
  latency_sensitive: bits(0x23, 1),
  drain_sigerr: bits(0x25, 1),
  dp_ordering_0: bits(0x26, 1),
  dp_ordering_force: bits(0x27, 1),
  pd: bits(0x28, 24),
  mtu: bits(0x40, 3),
  log_msg_max: bits(0x43, 5),
  log_rq_size: bits(0x49, 4),
  log_rq_stride: bits(0x4d, 3),
  no_sq: bits(0x50, 1),
  log_sq_size: bits(0x51, 4),
  retry_mode: bits(0x56, 2),
  ts_format: bits(0x58, 2),
  data_in_order: bits(0x5a, 1),
  rlky: bits(0x5b, 1),
  ulp_stateless_offload_mode: bits(0x5c, 4),
  counter_set_id: bits(0x60, 8),
  uar_page: bits(0x68, 24),
  send_dbr_mode: bits(0x80, 2),
  full_handshake: bits(0x83, 1),
  cnak_reverse_sl: bits(0x84, 4),
  user_index: bits(0x88, 24),
  log_page_size: bits(0xa3, 5),
  remote_qpn: bits(0xa8, 24),
  primary_address_path: nested(0xc0, ads),
  secondary_address_path: nested(0x220, ads),
  log_ack_req_freq: bits(0x380, 4),
  log_sra_max: bits(0x388, 3),
  retry_count: bits(0x38d, 3),
  rnr_retry: bits(0x390, 3),
  fre: bits(0x394, 1),
  cur_rnr_retry: bits(0x395, 3),
  cur_retry_count: bits(0x398, 3),
  next_send_psn: bits(0x3c8, 24),
  log_num_dci_stream_channels: bits(0x3e3, 5),
  cqn_snd: bits(0x3e8, 24),
  log_num_dci_errored_streams: bits(0x403, 5),
  deth_sqpn: bits(0x408, 24),
  last_acked_psn: bits(0x448, 24),
  ssn: bits(0x468, 24),
  log_rra_max: bits(0x488, 3),
  atomic_mode: bits(0x48c, 4),
  rre: bits(0x490, 1),
  rwe: bits(0x491, 1),
  rae: bits(0x492, 1),
  page_offset: bits(0x494, 6),
  dp_ordering_1: bits(0x49c, 1),
  cd_slave_receive: bits(0x49d, 1),
  cd_slave_send: bits(0x49e, 1),
  cd_master: bits(0x49f, 1),
  min_rnr_nak: bits(0x4a3, 5),
  next_rcv_psn: bits(0x4a8, 24),
  xrcd: bits(0x4c8, 24),
  cqn_rcv: bits(0x4e8, 24),
  dbr_addr: long(0x500),
  q_key: bits(0x540, 32),
  rq_type: bits(0x565, 3),
  srqn_rmpn_xrqn: bits(0x568, 24),
  rmsn: bits(0x588, 24),
  hw_sq_wqebb_counter: bits(0x5a0, 16),
  sw_sq_wqebb_counter: bits(0x5b0, 16),
  hw_rq_counter: bits(0x5c0, 32),
  sw_rq_counter: bits(0x5e0, 32),
  cgs: bits(0x62f, 1),
  cs_req: bits(0x630, 8),
  cs_res: bits(0x638, 8),
  dc_access_key: long(0x640),
  dbr_umem_valid: bits(0x683, 1),
  dbr_umem_id: bits(0x720, 32),
})

const cqc = struct(64, {
  status: bits(0x0, 4),
  as_notify: bits(0x4, 1),
  initiator_src_dct: bits(0x5, 1),
  dbr_umem_valid: bits(0x6, 1),
  apu_cq: bits(0x7, 1),
  cqe_sz: bits(0x8, 3),
  cc: bits(0xb, 1),
  scqe_break_moderation_en: bits(0xd, 1),
  oi: bits(0xe, 1),
  cq_period_mode: bits(0xf, 2),
  cqe_comp_en: bits(0x11, 1),
  mini_cqe_res_format: bits(0x12, 2),
  st: bits(0x14, 4),
  cqe_compression_layout: bits(0x1e, 2),
  dbr_umem_id: bits(0x20, 32),
  page_offset: bits(0x54, 6),
  mini_cqe_res_format_ext: bits(0x5c, 2),
  cq_timestamp_format: bits(0x5e, 2),
  log_cq_size: bits(0x63, 5),
  uar_page: bits(0x68, 24),
  cq_period: bits(0x84, 12),
  cq_max_count: bits(0x90, 16),
  c_eqn: bits(0xa0, 32),
  log_page_size: bits(0xc3, 5),
  last_notified_index: bits(0x108, 24),
  last_solicit_index: bits(0x128, 24),
  consumer_counter: bits(0x148, 24),
  producer_counter: bits(0x168, 24),
  local_partition_id: bits(0x180, 12),
  process_id: bits(0x18c, 20),
  dbr_addr: long(0x1c0),
})

const wq = struct(192, {
  wq_type: bits(0x0, 4),
  wq_signature: bits(0x4, 1),
  end_padding_mode: bits(0x5, 2),
  cd_slave: bits(0x7, 1),
  hds_skip_first_sge: bits(0x20, 1),
  log2_hds_buf_size: bits(0x21, 3),
  page_offset: bits(0x2b, 5),
  lwm: bits(0x30, 16),
  pd: bits(0x48, 24),
  uar_page: bits(0x68, 24),
  dbr_addr: long(0x80),
  hw_counter: bits(0xc0, 32),
  sw_counter: bits(0xe0, 32),
  log_wq_stride: bits(0x10c, 4),
  log_wq_pg_sz: bits(0x113, 5),
  log_wq_sz: bits(0x11b, 5),
  dbr_umem_valid: bits(0x120, 1),
  wq_umem_valid: bits(0x121, 1),
  log_hairpin_num_packets: bits(0x123, 5),
  log_hairpin_data_sz: bits(0x12b, 5),
  log_wqe_num_of_strides: bits(0x134, 4),
  two_byte_shift_en: bits(0x138, 1),
  log_wqe_stride_size: bits(0x13d, 3),
  dbr_umem_id: bits(0x140, 32),
  wq_umem_id: bits(0x160, 32),
  wq_umem_offset: long(0x180),
})

export const rmpc = struct(240, {
  state: bits(0x8, 4),
  basic_cyclic_rcv_wqe: bits(0x20, 1),
  wq: nested(0x180, wq),
})

const xrcSrqc = struct(64, {
  state: bits(0x0, 4),
  log_xrc_srq_size: bits(0x4, 4),
  wq_signature: bits(0x20, 1),
  cont_srq: bits(0x21, 1),
  rlky: bits(0x23, 1),
  basic_cyclic_rcv_wqe: bits(0x24, 1),
  log_rq_stride: bits(0x25, 3),
  xrcd: bits(0x28, 24),
  page_offset: bits(0x40, 6),
  dbr_umem_valid: bits(0x47, 1),
  cqn: bits(0x48, 24),
  user_index_equal_xrc_srqn: bits(0x80, 1),
  log_page_size: bits(0x82, 6),
  user_index: bits(0x88, 24),
  pd: bits(0xc8, 24),
  lwm: bits(0xe0, 16),
  wqe_cnt: bits(0xf0, 16),
  db_record_addr_h: bits(0x140, 32),
  db_record_addr_l: bits(0x160, 30),
})

export const dctc = struct(112, {
  state: bits(0x4, 4),
  offload_type: bits(0x18, 4),
  data_in_order: bits(0x1d, 1),
  dp_ordering_force: bits(0x27, 1),
  user_index: bits(0x28, 24),
  cqn: bits(0x48, 24),
  counter_set_id: bits(0x60, 8),
  atomic_mode: bits(0x68, 4),
  rre: bits(0x6c, 1),
  rwe: bits(0x6d, 1),
  rae: bits(0x6e, 1),
  atomic_like_write_en: bits(0x6f, 1),
  latency_sensitive: bits(0x70, 1),
  rlky: bits(0x71, 1),
  free_ar: bits(0x72, 1),
  dp_ordering_0: bits(0x73, 1),
  dp_ordering_1: bits(0x74, 1),
  cs_res: bits(0x88, 8),
  min_rnr_nak: bits(0x93, 5),
  srqn_xrqn: bits(0xa8, 24),
  pd: bits(0xc8, 24),
  tclass: bits(0xe0, 8),
  flow_label: bits(0xec, 20),
  dc_access_key: long(0x100),
  mtu: bits(0x145, 3),
  port: bits(0x148, 8),
  pkey_index: bits(0x150, 16),
  my_addr_index: bits(0x168, 8),
  hop_limit: bits(0x178, 8),
  dc_access_key_violation_count: bits(0x180, 32),
  dei_cfi: bits(0x1b4, 1),
  eth_prio: bits(0x1b5, 3),
  ecn: bits(0x1b8, 2),
  dscp: bits(0x1ba, 6),
  ece: bits(0x1e0, 32),
})

export const createQpIn = struct(272, {
  qpc_ext: bits(0x40, 1),
  input_qpn: bits(0x48, 24),
  opt_param_mask: bits(0x80, 32),
  ece: bits(0xa0, 32),
  qpc: nested(0xc0, qpc),
  wq_umem_offset: long(0x800),
  wq_umem_id: bits(0x840, 32),
  wq_umem_valid: bits(0x860, 1),
  pas: rest(0x880),
})

export const queryQpOut = struct(272, {
  opt_param_mask: bits(0x80, 32),
  ece: bits(0xa0, 32),
  qpc: nested(0xc0, qpc),
})

/** Of all transitions of a queue pair but those to ERR and RESET. */
export const modifyQpIn = struct(272, {
  qpn: bits(0x48, 24),
  opt_param_mask: bits(0x80, 32),
  ece: bits(0xa0, 32),
  qpc: nested(0xc0, qpc),
})

export const qp2errIn = struct(16, {
  qpn: bits(0x48, 24),
})

export const queryQpIn = struct(16, {
  qpc_ext: bits(0x40, 1),
  qpn: bits(0x48, 24),
})

export const createQpOut = struct(16, {
  qpn: bits(0x48, 24),
  ece: bits(0x60, 32),
})

export const createCqIn = struct(272, {
  cq_context: nested(0x80, cqc),
  cq_umem_offset: long(0x280),
  cq_umem_id: bits(0x2c0, 32),
  cq_umem_valid: bits(0x2e0, 1),
  pas: rest(0x880),
})

export const createCqOut = struct(16, {
  cqn: bits(0x48, 24),
})

export const modifyCqIn = struct(272, {
  cqn: bits(0x48, 24),
  modify_field_select: bits(0x60, 32),
  cq_context: nested(0x80, cqc),
  cq_umem_offset: long(0x280),
  cq_umem_id: bits(0x2c0, 32),
  cq_umem_valid: bits(0x2e0, 1),
  pas: rest(0x880),
})

export const queryCqIn = struct(16, {
  cqn: bits(0x48, 24),
})

export const queryCqOut = struct(272, {
  cq_context: nested(0x80, cqc),
  pas: rest(0x880),
})

export const createRmpIn = struct(272, {
  ctx: nested(0x100, rmpc),
})

export const createRmpOut = struct(16, {
  rmpn: bits(0x48, 24),
})

export const queryRmpIn = struct(16, {
  rmpn: bits(0x48, 24),
})

export const queryRmpOut = struct(272, {
  rmp_context: nested(0x100, rmpc),
})

export const modifyRmpIn = struct(272, {
  rmp_state: bits(0x40, 4),
  rmpn: bits(0x48, 24),
  lwm: bits(0xbf, 1),
  ctx: nested(0x100, rmpc),
})

export const queryXrcSrqIn = struct(16, {
  xrc_srqn: bits(0x48, 24),
})

export const queryXrcSrqOut = struct(272, {
  xrc_srq_context_entry: nested(0x80, xrcSrqc),
  pas: rest(0x880),
})

export const armXrcSrqIn = struct(16, {
  xrc_srqn: bits(0x48, 24),
  lwm: bits(0x70, 16),
})

export const createDctIn = struct(176, {
  dct_context_entry: nested(0x80, dctc),
})

export const createDctOut = struct(16, {
  dctn: bits(0x48, 24),
  ece: bits(0x60, 32),
})

export const queryDctIn = struct(16, {
  dctn: bits(0x48, 24),
})

export const queryDctOut = struct(128, {
  dct_context_entry: nested(0x80, dctc),
})

export const armDctIn = struct(16, {
  dct_number: bits(0x48, 24),
})
