/*
 * Structs of flow steering (mlx5_ifc.h of Linux 6.12 and rdma-core 65): what rules match (fte_match_param), what they
 * may change, counters, and receivers of frames (TIR).
 */
import { bits, nested, type RecordOf, raw, rest, struct } from './fields.ts'

// ---- what rules match ----

/** Bytes of each section of a match, and of the longest one that Linux takes (mlx5_ib_match_params). */
export const MATCH_SECTION_BYTES = 64
export const MAX_MATCH_BYTES = 640

/** fte_match_set_lyr_2_4: outer or inner headers. */
export const matchHeaders = struct(MATCH_SECTION_BYTES, {
  smac_47_16: bits(0x0, 32),
  smac_15_0: bits(0x20, 16),
  ethertype: bits(0x30, 16),
  dmac_47_16: bits(0x40, 32),
  dmac_15_0: bits(0x60, 16),
  first_prio: bits(0x70, 3),
  first_cfi: bits(0x73, 1),
  first_vid: bits(0x74, 12),
  ip_protocol: bits(0x80, 8),
  ip_dscp: bits(0x88, 6),
  ip_ecn: bits(0x8e, 2),
  cvlan_tag: bits(0x90, 1),
  svlan_tag: bits(0x91, 1),
  frag: bits(0x92, 1),
  ip_version: bits(0x93, 4),
  tcp_flags: bits(0x97, 9),
  tcp_sport: bits(0xa0, 16),
  tcp_dport: bits(0xb0, 16),
  ipv4_ihl: bits(0xd0, 4),
  l3_ok: bits(0xd4, 1),
  l4_ok: bits(0xd5, 1),
  ipv4_checksum_ok: bits(0xd6, 1),
  l4_checksum_ok: bits(0xd7, 1),
  ip_ttl_hoplimit: bits(0xd8, 8),
  udp_sport: bits(0xe0, 16),
  udp_dport: bits(0xf0, 16),
  src_ip_127_96: bits(0x100, 32),
  src_ip_95_64: bits(0x120, 32),
  src_ip_63_32: bits(0x140, 32),
  src_ip_31_0: bits(0x160, 32),
  dst_ip_127_96: bits(0x180, 32),
  dst_ip_95_64: bits(0x1a0, 32),
  dst_ip_63_32: bits(0x1c0, 32),
  dst_ip_31_0: bits(0x1e0, 32),
})

/** fte_match_set_misc. */
export const matchMisc = struct(MATCH_SECTION_BYTES, {
  gre_c_present: bits(0x0, 1),
  bth_a: bits(0x1, 1),
  gre_k_present: bits(0x2, 1),
  gre_s_present: bits(0x3, 1),
  source_vhca_port: bits(0x4, 4),
  source_sqn: bits(0x8, 24),
  source_eswitch_owner_vhca_id: bits(0x20, 16),
  source_port: bits(0x30, 16),
  outer_second_prio: bits(0x40, 3),
  outer_second_cfi: bits(0x43, 1),
  outer_second_vid: bits(0x44, 12),
  inner_second_prio: bits(0x50, 3),
  inner_second_cfi: bits(0x53, 1),
  inner_second_vid: bits(0x54, 12),
  outer_second_cvlan_tag: bits(0x60, 1),
  inner_second_cvlan_tag: bits(0x61, 1),
  outer_second_svlan_tag: bits(0x62, 1),
  inner_second_svlan_tag: bits(0x63, 1),
  gre_protocol: bits(0x70, 16),
  gre_key_h: bits(0x80, 24),
  gre_key_l: bits(0x98, 8),
  vxlan_vni: bits(0xa0, 24),
  bth_opcode: bits(0xb8, 8),
  geneve_vni: bits(0xc0, 24),
  geneve_tlv_option_0_exist: bits(0xde, 1),
  geneve_oam: bits(0xdf, 1),
  outer_ipv6_flow_label: bits(0xec, 20),
  inner_ipv6_flow_label: bits(0x10c, 20),
  geneve_opt_len: bits(0x12a, 6),
  geneve_protocol_type: bits(0x130, 16),
  bth_dst_qp: bits(0x148, 24),
  inner_esp_spi: bits(0x160, 32),
  outer_esp_spi: bits(0x180, 32),
})

/** The sections of a match in their order; bit i of `match_criteria_enable` says that section i counts. */
export const matchSections = ['outer_headers', 'misc_parameters', 'inner_headers'] as const

// ---- what rules change ----

/** set_action_in. */
export const setAction = struct(8, {
  action_type: bits(0x0, 4),
  field: bits(0x4, 12),
  offset: bits(0x13, 5),
  length: bits(0x1b, 5),
  data: bits(0x20, 32),
})
export const SET_ACTION = 1

/** Fields that rules may set (MLX5_ACTION_IN_FIELD_…), as far as the device has them. */
export const ActionField = {
  OUT_SMAC_47_16: 0x1,
  OUT_SMAC_15_0: 0x2,
  OUT_DMAC_47_16: 0x4,
  OUT_DMAC_15_0: 0x5,
  OUT_IP_DSCP: 0x6,
  OUT_TCP_SPORT: 0x8,
  OUT_TCP_DPORT: 0x9,
  OUT_IP_TTL: 0xa,
  OUT_UDP_SPORT: 0xb,
  OUT_UDP_DPORT: 0xc,
  OUT_SIPV4: 0x15,
  OUT_DIPV4: 0x16,
  OUT_FIRST_VID: 0x17,
} as const

// ---- counters ----

export const allocFlowCounterIn = struct(16, {
  flow_counter_bulk_log_size: bits(0x73, 5),
  flow_counter_bulk: bits(0x78, 8),
})

export const allocFlowCounterOut = struct(16, {
  flow_counter_id: bits(0x40, 32),
})

export const queryFlowCounterIn = struct(32, {
  clear: bits(0xc0, 1),
  dump_to_memory: bits(0xc1, 1),
  num_of_counters: bits(0xc2, 30),
  flow_counter_id: bits(0xe0, 32),
})

/** Of each counter, u64s: packets and octets. */
export const TRAFFIC_COUNTER_BYTES = 16
export const queryFlowCounterOut = struct(16, {
  flow_statistics: rest(0x80),
})

// ---- receivers of frames ----

const tirc = struct(240, {
  disp_type: bits(0x20, 4),
  tls_en: bits(0x24, 1),
  nvmeotcp_zerocopy_en: bits(0x25, 1),
  nvmeotcp_crc_en: bits(0x26, 1),
  lro_enable_mask: bits(0x94, 4),
  inline_rqn_vhca_id_valid: bits(0xc0, 1),
  inline_q_type: bits(0xe5, 3),
  inline_rqn: bits(0xe8, 24),
  rx_hash_symmetric: bits(0x100, 1),
  tunneled_offload_en: bits(0x102, 1),
  indirect_table: bits(0x108, 24),
  rx_hash_fn: bits(0x120, 4),
  self_lb_block: bits(0x126, 2),
  transport_domain: bits(0x128, 24),
  rx_hash_toeplitz_key: raw(0x140, 40),
})

export const createTirIn = struct(272, {
  ctx: nested(0x100, tirc),
})

export const createTirOut = struct(16, {
  tirn: bits(0x48, 24),
})

// ---- capabilities ----

/** flow_table_fields_supported, as far as the device has the fields. */
export const fieldsSupported = struct(16, {
  outer_dmac: bits(0x0, 1),
  outer_smac: bits(0x1, 1),
  outer_ether_type: bits(0x2, 1),
  outer_ip_version: bits(0x3, 1),
  outer_first_prio: bits(0x4, 1),
  outer_first_cfi: bits(0x5, 1),
  outer_first_vid: bits(0x6, 1),
  outer_ipv4_ttl: bits(0x7, 1),
  outer_ipv6_flow_label: bits(0xb, 1),
  outer_sip: bits(0xc, 1),
  outer_dip: bits(0xd, 1),
  outer_frag: bits(0xe, 1),
  outer_ip_protocol: bits(0xf, 1),
  outer_ip_ecn: bits(0x10, 1),
  outer_ip_dscp: bits(0x11, 1),
  outer_udp_sport: bits(0x12, 1),
  outer_udp_dport: bits(0x13, 1),
  outer_tcp_sport: bits(0x14, 1),
  outer_tcp_dport: bits(0x15, 1),
  outer_tcp_flags: bits(0x16, 1),
  outer_gre_protocol: bits(0x17, 1),
  outer_gre_key: bits(0x18, 1),
  outer_vxlan_vni: bits(0x19, 1),
  outer_geneve_vni: bits(0x1a, 1),
  outer_geneve_oam: bits(0x1b, 1),
  outer_geneve_protocol_type: bits(0x1c, 1),
  outer_geneve_opt_len: bits(0x1d, 1),
  inner_dmac: bits(0x20, 1),
  inner_smac: bits(0x21, 1),
  inner_ether_type: bits(0x22, 1),
  inner_ip_version: bits(0x23, 1),
  inner_first_prio: bits(0x24, 1),
  inner_first_cfi: bits(0x25, 1),
  inner_first_vid: bits(0x26, 1),
  inner_ipv4_ttl: bits(0x27, 1),
  inner_ipv6_flow_label: bits(0x2b, 1),
  inner_sip: bits(0x2c, 1),
  inner_dip: bits(0x2d, 1),
  inner_frag: bits(0x2e, 1),
  inner_ip_protocol: bits(0x2f, 1),
  inner_ip_ecn: bits(0x30, 1),
  inner_ip_dscp: bits(0x31, 1),
  inner_udp_sport: bits(0x32, 1),
  inner_udp_dport: bits(0x33, 1),
  inner_tcp_sport: bits(0x34, 1),
  inner_tcp_dport: bits(0x35, 1),
  inner_tcp_flags: bits(0x36, 1),
  inner_esp_spi: bits(0x56, 1),
  outer_esp_spi: bits(0x57, 1),
  inner_ipv6_hop_limit: bits(0x58, 1),
  outer_ipv6_hop_limit: bits(0x59, 1),
})
export const allFieldsSupported: Readonly<RecordOf<typeof fieldsSupported>> = Object.fromEntries(
  Object.keys(fieldsSupported.fields).map(name => [name, 1]),
) as RecordOf<typeof fieldsSupported>

/** flow_table_prop_layout. */
export const flowTableProperties = struct(64, {
  ft_support: bits(0x0, 1),
  flow_tag: bits(0x1, 1),
  flow_counter: bits(0x2, 1),
  reformat: bits(0x7, 1),
  decap: bits(0x8, 1),
  sw_owner: bits(0x11, 1),
  reformat_l3_tunnel_to_l2: bits(0x12, 1),
  reformat_l2_to_l3_tunnel: bits(0x13, 1),
  reformat_and_modify_action: bits(0x14, 1),
  log_max_ft_size: bits(0x22, 6),
  log_max_modify_header_context: bits(0x28, 8),
  max_modify_header_actions: bits(0x30, 8),
  max_ft_level: bits(0x38, 8),
  log_max_flow_counter: bits(0x90, 8),
  log_max_destination: bits(0x98, 8),
  log_max_flow: bits(0xb8, 8),
  ft_field_support: nested(0x100, fieldsSupported),
  ft_field_bitmask_support: nested(0x180, fieldsSupported),
})

/** flow_table_nic_cap. */
export const flowTableNicCap = struct(4096, {
  encap_general_header: bits(0x20, 1),
  log_max_packet_reformat_context: bits(0x2b, 5),
  max_encap_header_size: bits(0x36, 10),
  flow_table_properties_nic_receive: nested(0x200, flowTableProperties),
  flow_table_properties_nic_transmit: nested(0x800, flowTableProperties),
})
