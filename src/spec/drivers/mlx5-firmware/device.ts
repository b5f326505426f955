/*
 * Structs of firmware commands that ask about the device (mlx5_ifc.h of Linux 6.12, rdma-core 65 and UCX 1.23). Of
 * capabilities those that a device here can have, or that programs look at.
 */
import { bits, long, nested, raw, rest, struct } from './fields.ts'

export const queryHcaCapIn = struct(16, {
  other_function: bits(0x40, 1),
  ec_vf_function: bits(0x41, 1),
  function_id: bits(0x50, 16),
})

const queryAdapterParamBlock = struct(256, {
  ieee_vendor_id: bits(0xc8, 24),
  vsd_vendor_id: bits(0xf0, 16),
  vsd: raw(0x100, 208),
  vsd_contd_psid: raw(0x780, 16),
})

export const queryAdapterOut = struct(272, {
  query_adapter_struct: nested(0x80, queryAdapterParamBlock),
})

export const queryIssiOut = struct(112, {
  current_issi: bits(0x50, 16),
  supported_issi_dw0: bits(0x360, 32),
})

const lagc = struct(8, {
  fdb_selection_mode: bits(0x0, 1),
  port_select_mode: bits(0x15, 3),
  lag_state: bits(0x1d, 3),
  active_port: bits(0x2c, 4),
  tx_remap_affinity_2: bits(0x34, 4),
  tx_remap_affinity_1: bits(0x3c, 4),
})

export const queryLagOut = struct(16, {
  ctx: nested(0x40, lagc),
})

export const queryVportStateIn = struct(16, {
  other_vport: bits(0x40, 1),
  vport_number: bits(0x50, 16),
})

export const queryVportStateOut = struct(16, {
  admin_state: bits(0x78, 4),
  state: bits(0x7c, 4),
})

const nicVportContext = struct(256, {
  min_wqe_inline_mode: bits(0x5, 3),
  disable_mc_local_lb: bits(0x1d, 1),
  disable_uc_local_lb: bits(0x1e, 1),
  roce_en: bits(0x1f, 1),
  arm_change_event: bits(0x20, 1),
  event_on_mtu: bits(0x3b, 1),
  event_on_promisc_change: bits(0x3c, 1),
  event_on_vlan_change: bits(0x3d, 1),
  event_on_mc_address_change: bits(0x3e, 1),
  event_on_uc_address_change: bits(0x3f, 1),
  vhca_id_type: bits(0x40, 1),
  affiliation_criteria: bits(0x4c, 4),
  affiliated_vhca_id: bits(0x50, 16),
  sd_group: bits(0x101, 3),
  mtu: bits(0x130, 16),
  system_image_guid: long(0x140),
  port_guid: long(0x180),
  node_guid: long(0x1c0),
  qkey_violation_counter: bits(0x340, 16),
  promisc_uc: bits(0x780, 1),
  promisc_mc: bits(0x781, 1),
  promisc_all: bits(0x782, 1),
  allowed_list_type: bits(0x785, 3),
  allowed_list_size: bits(0x794, 12),
  permanent_address: raw(0x7b0, 6),
  current_uc_mac_address: rest(0x800),
})

export const queryNicVportContextIn = struct(16, {
  other_vport: bits(0x40, 1),
  vport_number: bits(0x50, 16),
  allowed_list_type: bits(0x65, 3),
})

export const queryNicVportContextOut = struct(272, {
  nic_vport_context: nested(0x80, nicVportContext),
})

/** Of an InfiniBand port (IBA 14.2.5.6). */
const hcaVportContext = struct(512, {
  field_select: bits(0x0, 32),
  sm_virt_aware: bits(0x100, 1),
  has_smi: bits(0x101, 1),
  has_raw: bits(0x102, 1),
  grh_required: bits(0x103, 1),
  port_physical_state: bits(0x110, 4),
  vport_state_policy: bits(0x114, 4),
  port_state: bits(0x118, 4),
  vport_state: bits(0x11c, 4),
  system_image_guid: long(0x140),
  port_guid: long(0x180),
  node_guid: long(0x1c0),
  cap_mask1: bits(0x200, 32),
  lid: bits(0x300, 16),
  init_type_reply: bits(0x314, 4),
  lmc: bits(0x318, 3),
  subnet_timeout: bits(0x31b, 5),
  sm_lid: bits(0x320, 16),
  sm_sl: bits(0x330, 4),
  qkey_violation_counter: bits(0x340, 16),
  pkey_violation_counter: bits(0x350, 16),
})

export const queryHcaVportContextIn = struct(16, {
  other_vport: bits(0x40, 1),
  port_num: bits(0x4c, 4),
  vport_number: bits(0x50, 16),
})

export const queryHcaVportContextOut = struct(528, {
  hca_vport_context: nested(0x80, hcaVportContext),
})

const roceAddrLayout = struct(32, {
  source_l3_address: raw(0x0, 16),
  vlan_valid: bits(0x83, 1),
  vlan_id: bits(0x84, 12),
  source_mac_47_32: bits(0x90, 16),
  source_mac_31_0: bits(0xa0, 32),
  roce_l3_type: bits(0xd4, 4),
  roce_version: bits(0xd8, 8),
})

export const queryRoceAddressIn = struct(16, {
  roce_address_index: bits(0x40, 16),
  vhca_port_num: bits(0x5c, 4),
})

export const queryRoceAddressOut = struct(48, {
  roce_address: nested(0x80, roceAddrLayout),
})

/** Of CREATE_GENERAL_OBJECT: the struct of the type follows (`generalObjects`). */
export const generalObjInCmdHdr = struct(16, {
  obj_type: bits(0x30, 16),
  obj_id: bits(0x40, 32),
  log_obj_range: bits(0x63, 5),
  object: rest(0x80),
})

/** MLX5_OBJ_TYPE_…: types of general objects that the device has. */
export const GeneralObject = { RESERVED_QPN: 0x2c, AV_QP_MAPPING: 0x3a } as const

/** With its remote_address_vector. */
export const avQpMapping = struct(64, {
  qpn: bits(0x60, 32),
  sl_or_eth_prio: bits(0xe4, 4),
  src_addr_index: bits(0x164, 8),
  rgid_or_rip: raw(0x180, 16),
})

export const generalObjOutCmdHdr = struct(16, {
  status: bits(0x0, 8),
  syndrome: bits(0x20, 32),
  obj_id: bits(0x40, 32),
})
export const cmdHcaCap = struct(256, {
  hca_cap_2: bits(0x20, 1),
  vhca_id: bits(0x30, 16),
  log_dma_mmo_max_size: bits(0x6b, 5),
  log_max_srq_sz: bits(0x80, 8),
  log_max_qp_sz: bits(0x88, 8),
  event_cap: bits(0x90, 1),
  log_max_qp: bits(0x9b, 5),
  ece_support: bits(0xa3, 1),
  log_max_srq: bits(0xab, 5),
  max_sgl_for_optimized_performance: bits(0xc0, 8),
  log_max_cq_sz: bits(0xc8, 8),
  relaxed_ordering_write_umr: bits(0xd0, 1),
  relaxed_ordering_read_umr: bits(0xd1, 1),
  log_max_cq: bits(0xdb, 5),
  relaxed_ordering_write: bits(0xe8, 1),
  log_max_mkey: bits(0xea, 6),
  log_max_eq: bits(0xfc, 4),
  fixed_buffer_size: bits(0x108, 1),
  log_max_mrw_sz: bits(0x109, 7),
  log_max_bsf_list_size: bits(0x112, 6),
  umr_extended_translation_offset: bits(0x118, 1),
  null_mkey: bits(0x119, 1),
  log_max_klm_list_size: bits(0x11a, 6),
  qpc_extension: bits(0x122, 1),
  log_max_ra_req_dc: bits(0x12a, 6),
  ooo_sl_mask: bits(0x138, 1),
  log_max_ra_res_dc: bits(0x13a, 6),
  release_all_pages: bits(0x145, 1),
  sig_crc64_xp10: bits(0x147, 1),
  sig_crc32c: bits(0x148, 1),
  log_max_ra_req_qp: bits(0x14a, 6),
  rts2rts_lag_tx_port_affinity: bits(0x152, 1),
  rts2rts_qp_udp_sport: bits(0x151, 1),
  dma_mmo_sq: bits(0x153, 1),
  log_max_ra_res_qp: bits(0x15a, 6),
  end_pad: bits(0x160, 1),
  cc_query_allowed: bits(0x161, 1),
  rts2rts_qp_counters_set_id: bits(0x169, 1),
  gid_table_size: bits(0x170, 16),
  vport_counters: bits(0x181, 1),
  retransmission_q_counters: bits(0x182, 1),
  modify_rq_counter_set_id: bits(0x184, 1),
  pkey_table_size: bits(0x190, 16),
  ets: bits(0x1a5, 1),
  nic_flow_table: bits(0x1a6, 1),
  local_ca_ack_delay: bits(0x1ab, 5),
  port_module_event: bits(0x1b0, 1),
  port_type: bits(0x1b6, 2),
  log_max_msg: bits(0x1c3, 5),
  dp_ordering_ooo_rw_xrc: bits(0x1c8, 1),
  dp_ordering_ooo_rw_dc: bits(0x1c9, 1),
  dp_ordering_ooo_rw_rc: bits(0x1ca, 1),
  max_tc: bits(0x1cc, 4),
  sig_block_4048: bits(0x1f0, 1),
  init2_lag_tx_port_affinity: bits(0x1f8, 1),
  wqe_based_flow_table_update_cap: bits(0x1fb, 1),
  cqe_version: bits(0x1fc, 4),
  compact_address_vector: bits(0x200, 1),
  striding_rq: bits(0x201, 1),
  ipoib_enhanced_offloads: bits(0x203, 1),
  ipoib_basic_offloads: bits(0x204, 1),
  ib_striding_wq: bits(0x205, 1),
  umr_modify_atomic_disabled: bits(0x208, 1),
  umr_indirect_mkey_disabled: bits(0x209, 1),
  drain_sigerr: bits(0x20f, 1),
  sigerr_cqe: bits(0x212, 1),
  sho: bits(0x217, 1),
  dct: bits(0x21a, 1),
  eth_net_offloads: bits(0x21c, 1),
  roce: bits(0x21d, 1),
  atomic: bits(0x21e, 1),
  cq_oi: bits(0x220, 1),
  cq_resize: bits(0x221, 1),
  cq_moderation: bits(0x222, 1),
  ib_striding_wq_cq_first_indication: bits(0x225, 1),
  cq_eq_remap: bits(0x226, 1),
  pg: bits(0x227, 1),
  block_lb_mc: bits(0x228, 1),
  cd: bits(0x22c, 1),
  apm: bits(0x22e, 1),
  vector_calc: bits(0x22f, 1),
  imaicl: bits(0x231, 1),
  qkv: bits(0x236, 1),
  pkv: bits(0x237, 1),
  set_deth_sqpn: bits(0x238, 1),
  xrc: bits(0x23c, 1),
  ud: bits(0x23d, 1),
  uc: bits(0x23e, 1),
  rc: bits(0x23f, 1),
  uar_4k: bits(0x240, 1),
  dci_no_rdma_wr_optimized_performance: bits(0x241, 1),
  uar_sz: bits(0x24a, 6),
  port_selection_cap: bits(0x250, 1),
  umem_uid_0: bits(0x252, 1),
  log_pg_sz: bits(0x258, 8),
  bf: bits(0x260, 1),
  driver_version: bits(0x261, 1),
  mkey_by_name: bits(0x266, 1),
  log_bf_reg_size: bits(0x26b, 5),
  lag_dct: bits(0x276, 2),
  num_lag_ports: bits(0x27c, 4),
  max_wqe_sz_sq: bits(0x290, 16),
  max_wqe_sz_rq: bits(0x2b0, 16),
  max_wqe_sz_sq_dc: bits(0x2d0, 16),
  max_qp_mcg: bits(0x2e7, 25),
  flow_counter_bulk_alloc: bits(0x310, 8),
  log_max_mcg: bits(0x318, 8),
  log_max_transport_domain: bits(0x323, 5),
  relaxed_ordering_read: bits(0x32a, 1),
  log_max_pd: bits(0x32b, 5),
  dp_ordering_ooo_all_ud: bits(0x330, 1),
  dp_ordering_ooo_all_uc: bits(0x331, 1),
  dp_ordering_ooo_all_xrc: bits(0x332, 1),
  dp_ordering_ooo_all_dc: bits(0x333, 1),
  dp_ordering_ooo_all_rc: bits(0x334, 1),
  log_max_xrcd: bits(0x33b, 5),
  log_max_rq: bits(0x363, 5),
  log_max_sq: bits(0x36b, 5),
  log_max_tir: bits(0x373, 5),
  log_max_tis: bits(0x37b, 5),
  basic_cyclic_rcv_wqe: bits(0x380, 1),
  log_max_rmp: bits(0x383, 5),
  log_max_rqt: bits(0x38b, 5),
  ext_stride_num_range: bits(0x3a0, 1),
  log_max_vlan_list: bits(0x3eb, 5),
  log_max_current_mc_list: bits(0x3f3, 5),
  log_max_current_uc_list: bits(0x3fb, 5),
  general_obj_types: long(0x400),
  sq_ts_format: bits(0x440, 2),
  rq_ts_format: bits(0x442, 2),
  log_max_uctx: bits(0x463, 5),
  crypto: bits(0x469, 1),
  max_num_eqs: bits(0x470, 16),
  sigerr_domain_and_sig_type: bits(0x480, 1),
  log_max_l2_table: bits(0x483, 5),
  log_uar_page_sz: bits(0x490, 16),
  device_frequency_khz: bits(0x4e0, 32),
  num_of_uars_per_page: bits(0x520, 32),
  max_geneve_tlv_options: bits(0x560, 8),
  log_max_dci_stream_channels: bits(0x58b, 5),
  log_max_dci_errored_streams: bits(0x593, 5),
  enhanced_cqe_compression: bits(0x5b0, 1),
  cqe_compression_128: bits(0x5be, 1),
  cqe_compression: bits(0x5bf, 1),
  cqe_compression_timeout: bits(0x5c0, 16),
  cqe_compression_max_num: bits(0x5d0, 16),
  tag_matching: bits(0x5f0, 1),
  rndv_offload_rc: bits(0x5f1, 1),
  rndv_offload_dc: bits(0x5f2, 1),
  num_vhca_ports: bits(0x610, 8),
  log_min_sf_size: bits(0x690, 8),
  uctx_cap: bits(0x6a0, 32),
  dma_mmo_qp: bits(0x748, 1),
})

export const atomicCaps = struct(256, {
  atomic_req_8B_endianness_mode: bits(0x40, 2),
  supported_atomic_req_8B_endianness_mode_1: bits(0x46, 1),
  atomic_operations: bits(0x90, 16),
  atomic_size_qp: bits(0xb0, 16),
  atomic_size_dc: bits(0xd0, 16),
  fetch_add_pci_atomic: bits(0x280, 16),
  swap_pci_atomic: bits(0x290, 16),
  compare_swap_pci_atomic: bits(0x2a0, 16),
})

const odpPerTransportServiceCap = struct(4, {
  send: bits(0x0, 1),
  receive: bits(0x1, 1),
  write: bits(0x2, 1),
  read: bits(0x3, 1),
  atomic: bits(0x4, 1),
  srq_receive: bits(0x5, 1),
})

export const roceCap = struct(256, {
  roce_apm: bits(0x0, 1),
  sw_r_roce_src_udp_port: bits(0x4, 1),
  fl_rc_qp_when_roce_disabled: bits(0x5, 1),
  fl_rc_qp_when_roce_enabled: bits(0x6, 1),
  roce_cc_general: bits(0x7, 1),
  qp_ooo_transmit_default: bits(0x8, 1),
  qp_ts_format: bits(0x1e, 2),
  l3_type: bits(0x8c, 4),
  roce_version: bits(0x98, 8),
  r_roce_dest_udp_port: bits(0xb0, 16),
  r_roce_max_src_udp_port: bits(0xc0, 16),
  r_roce_min_src_udp_port: bits(0xd0, 16),
  roce_address_table_size: bits(0xf0, 16),
})

export const cmdHcaCap2 = struct(256, {
  migratable: bits(0x80, 1),
  dp_ordering_force: bits(0x88, 1),
  log_max_num_reserved_qpn: bits(0x8b, 5),
  log_reserved_qpn_granularity: bits(0x93, 5),
  max_reformat_insert_size: bits(0xa0, 8),
  cross_vhca_object_to_object_supported: bits(0xe0, 32),
  allowed_object_for_other_vhca_access: long(0x100),
  ts_cqe_metadata_size2wqe_counter: bits(0x24b, 5),
  flow_counter_bulk_log_max_alloc: bits(0x253, 5),
  send_dbr_mode_no_dbr_ext: bits(0x2e1, 1),
  log_max_send_dbr_less_qp_sq: bits(0x2e3, 5),
  mkey_by_name_reserve: bits(0x3c0, 1),
})

/** Of faults that are handled by memory, not by queues. */
export const odpSchemeCap = struct(64, {
  rc_odp_caps: nested(0x80, odpPerTransportServiceCap),
  uc_odp_caps: nested(0xa0, odpPerTransportServiceCap),
  ud_odp_caps: nested(0xc0, odpPerTransportServiceCap),
  xrc_odp_caps: nested(0xe0, odpPerTransportServiceCap),
  dc_odp_caps: nested(0x100, odpPerTransportServiceCap),
})

export const odpCap = struct(256, {
  rc_odp_caps: nested(0x80, odpPerTransportServiceCap),
  uc_odp_caps: nested(0xa0, odpPerTransportServiceCap),
  ud_odp_caps: nested(0xc0, odpPerTransportServiceCap),
  xrc_odp_caps: nested(0xe0, odpPerTransportServiceCap),
  dc_odp_caps: nested(0x100, odpPerTransportServiceCap),
  memory_page_fault_scheme_cap: nested(0x200, odpSchemeCap),
  mem_page_fault: bits(0x600, 1),
})

/** The capability is a struct by the operation modifier (`CapabilityStructs`); some have more than 256 bytes. */
export const queryHcaCapOut = struct(272, { capability: rest(0x80) })
