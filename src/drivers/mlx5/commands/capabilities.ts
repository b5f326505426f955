/*
 * The capabilities that QUERY_HCA_CAP tells.
 */
import { hasLids } from '../../../core/devices/gids.ts'
import type { Device } from '../../../core/model.ts'
import { CORE_CLOCK_KHZ, MAX_INDIRECT_ENTRIES, MAX_RESERVED_QPNS } from '../../../spec/drivers/mlx5.ts'
import { CapabilityModifier } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import {
  type atomicCaps,
  type cmdHcaCap,
  type cmdHcaCap2,
  GeneralObject,
  type odpCap,
  type odpSchemeCap,
  type roceCap,
} from '../../../spec/drivers/mlx5-firmware/device.ts'
import type { FieldValues, PartOf } from '../../../spec/drivers/mlx5-firmware/fields.ts'
import {
  allFieldsSupported,
  type flowTableNicCap,
  type flowTableProperties,
} from '../../../spec/drivers/mlx5-firmware/flow.ts'
import { MAX_COPY_BYTES } from '../../../spec/work.ts'
import type { QueueLimits } from '../../soft/attributes.ts'
import { objectLimits } from '../attributes.ts'
import { MAX_LOG_STREAMS } from '../dc/answers.ts'
import { MAX_HEADER_BYTES, MAX_SETTINGS } from '../raw/matcher-flows.ts'
import type { Mlx5Soft } from '../state.ts'
import { COUNTER_BULKS, MAX_LOG_COUNTERS } from './flows.ts'

const generalObjectTypes = Object.values(GeneralObject).reduce((bits, type) => bits | (1n << BigInt(type)), 0n)

const log = (limit: number): number => Math.floor(Math.log2(limit))

/** MLX5_CAP_PORT_TYPE_… */
const PortType = { INFINIBAND: 0, ETHERNET: 1 } as const

const general = ({ attributes, numCompVectors, ports }: Device, limits: QueueLimits): PartOf<typeof cmdHcaCap> => ({
  hca_cap_2: 1,
  general_obj_types: generalObjectTypes,
  log_max_cq_sz: log(limits.maxCqe + 1),
  log_max_cq: log(attributes.maxCq),
  log_max_qp_sz: log(limits.maxQpWr),
  log_max_qp: log(attributes.maxQp),
  log_max_srq_sz: log(limits.maxSrqWr + 1),
  log_max_srq: log(attributes.maxSrq),
  log_max_eq: log(numCompVectors) + 1,
  max_num_eqs: numCompVectors,
  log_max_pd: log(attributes.maxPd),
  log_max_xrcd: 16,
  log_max_transport_domain: 16,
  log_max_mkey: 24,
  fixed_buffer_size: 1,
  log_max_klm_list_size: log(MAX_INDIRECT_ENTRIES),
  relaxed_ordering_write: 1,
  relaxed_ordering_read: 1,
  gid_table_size: 3,
  pkey_table_size: 0,
  log_max_msg: 30,
  log_max_uctx: 16,
  log_max_ra_req_qp: log(limits.maxRdAtomic),
  log_max_ra_res_qp: log(limits.maxRdAtomic),
  log_max_ra_req_dc: log(limits.maxRdAtomic),
  log_max_ra_res_dc: log(limits.maxRdAtomic),
  log_max_rmp: log(attributes.maxSrq),
  dct: 1,
  log_max_dci_stream_channels: MAX_LOG_STREAMS.concurrent,
  log_max_dci_errored_streams: MAX_LOG_STREAMS.errored,
  qpc_extension: 1,
  sho: 1,
  sigerr_cqe: 1,
  sigerr_domain_and_sig_type: 1,
  sig_block_4048: 1,
  sig_crc32c: 1,
  sig_crc64_xp10: 1,
  drain_sigerr: 1,
  rts2rts_qp_udp_sport: 1,
  dma_mmo_sq: 1,
  dp_ordering_ooo_all_rc: 1,
  dp_ordering_ooo_all_dc: 1,
  dp_ordering_ooo_all_xrc: 1,
  dp_ordering_ooo_all_uc: 1,
  dp_ordering_ooo_all_ud: 1,
  log_dma_mmo_max_size: log(MAX_COPY_BYTES),
  local_ca_ack_delay: attributes.localCaAckDelay,
  port_type: hasLids({ ports }) ? PortType.INFINIBAND : PortType.ETHERNET,
  roce: hasLids({ ports }) ? 0 : 1,
  atomic: 1,
  pg: 1,
  cqe_version: 1,
  ud: 1,
  uc: 1,
  rc: 1,
  device_frequency_khz: Number(CORE_CLOCK_KHZ),
  umem_uid_0: 0,
})

const hasFrames = ({ state }: Device): boolean => (state as Mlx5Soft).own?.station !== undefined
/** Of devices whose link carries frames. */
const frames: PartOf<typeof cmdHcaCap> = {
  nic_flow_table: 1,
  flow_counter_bulk_alloc: COUNTER_BULKS,
  log_max_tir: 16,
}

const atomic: PartOf<typeof atomicCaps> = {
  // compare and swap, fetch and add; of 8 bytes
  atomic_operations: 0b11,
  atomic_size_qp: 8,
  atomic_size_dc: 8,
  atomic_req_8B_endianness_mode: 1,
}
const connected = { send: 1, receive: 1, write: 1, read: 1, atomic: 1, srq_receive: 1 }
/** As verbs tell; DC has those of RC. */
const odpServices: PartOf<typeof odpSchemeCap> = {
  rc_odp_caps: connected,
  ud_odp_caps: { send: 1, receive: 1, srq_receive: 1 },
  xrc_odp_caps: connected,
  dc_odp_caps: connected,
}
const odp: PartOf<typeof odpCap> = { ...odpServices, memory_page_fault_scheme_cap: odpServices, mem_page_fault: 1 }
const roce: PartOf<typeof roceCap> = {
  l3_type: 3,
  roce_version: 4,
  r_roce_dest_udp_port: 4791,
}
const general2: PartOf<typeof cmdHcaCap2> = {
  log_max_num_reserved_qpn: log(MAX_RESERVED_QPNS),
  send_dbr_mode_no_dbr_ext: 1,
  // one for each doorbell page
  log_max_send_dbr_less_qp_sq: 16,
}

/** Of tables for received and sent frames. `isReceive`: what is only for one of both. */
const flowTable = (isReceive: boolean): PartOf<typeof flowTableProperties> => ({
  ft_support: 1,
  flow_tag: +isReceive,
  flow_counter: 1,
  reformat: 1,
  decap: +isReceive,
  reformat_l3_tunnel_to_l2: +isReceive,
  reformat_l2_to_l3_tunnel: +!isReceive,
  log_max_ft_size: log(objectLimits.flow),
  log_max_modify_header_context: log(objectLimits.flow),
  max_modify_header_actions: MAX_SETTINGS,
  max_ft_level: 1,
  log_max_flow_counter: MAX_LOG_COUNTERS,
  log_max_flow: log(objectLimits.flow),
  ft_field_support: allFieldsSupported,
  ft_field_bitmask_support: allFieldsSupported,
})

const flowTables: PartOf<typeof flowTableNicCap> = {
  encap_general_header: 1,
  log_max_packet_reformat_context: log(objectLimits.flow),
  max_encap_header_size: MAX_HEADER_BYTES,
  flow_table_properties_nic_receive: flowTable(true),
  flow_table_properties_nic_transmit: flowTable(false),
}

/** By kind; those of other kinds are all 0. `limits`: the device's own. */
export const capabilities = (device: Device, limits: QueueLimits): Readonly<Record<number, FieldValues>> => ({
  [CapabilityModifier.GENERAL]: { ...general(device, limits), ...(hasFrames(device) && frames) },
  [CapabilityModifier.ODP]: odp,
  [CapabilityModifier.ATOMIC]: atomic,
  [CapabilityModifier.ROCE]: roce,
  [CapabilityModifier.GENERAL_2]: {
    ...general2,
    ...(hasFrames(device) && { flow_counter_bulk_log_max_alloc: MAX_LOG_COUNTERS }),
  },
  ...(hasFrames(device) && { [CapabilityModifier.NIC_FLOW_TABLE]: flowTables }),
})
