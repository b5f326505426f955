/*
 * Structs of firmware commands for memory keys, and of small objects (mlx5_ifc.h of Linux 6.12, rdma-core 65 and UCX
 * 1.23).
 */
import { bits, long, nested, raw, rest, struct } from './fields.ts'

export const mkc = struct(64, {
  free: bits(0x1, 1),
  access_mode_4_2: bits(0x3, 3),
  relaxed_ordering_write: bits(0xd, 1),
  small_fence_on_rdma_read_response: bits(0xf, 1),
  umr_en: bits(0x10, 1),
  a: bits(0x11, 1),
  rw: bits(0x12, 1),
  rr: bits(0x13, 1),
  lw: bits(0x14, 1),
  lr: bits(0x15, 1),
  access_mode_1_0: bits(0x16, 2),
  ma_translation_mode: bits(0x1a, 2),
  qpn: bits(0x20, 24),
  mkey_7_0: bits(0x38, 8),
  length64: bits(0x60, 1),
  bsf_en: bits(0x61, 1),
  sync_umr: bits(0x62, 1),
  expected_sigerr_count: bits(0x65, 1),
  en_rinval: bits(0x67, 1),
  pd: bits(0x68, 24),
  start_addr: long(0x80),
  len: long(0xc0),
  bsf_octword_size: bits(0x100, 32),
  crossing_target_vhca_id: bits(0x180, 16),
  translations_octword_size: bits(0x1a0, 32),
  relaxed_ordering_read: bits(0x1d9, 1),
  log_page_size: bits(0x1da, 6),
  crypto_en: bits(0x1e3, 2),
})

export const createMkeyIn = struct(272, {
  input_mkey_index: bits(0x48, 24),
  pg_access: bits(0x60, 1),
  mkey_umem_valid: bits(0x61, 1),
  data_direct: bits(0x62, 1),
  memory_key_mkey_entry: nested(0x80, mkc),
  translations_octword_actual_size: bits(0x300, 32),
  mkey_umem_id: bits(0x320, 32),
  mkey_umem_offset: long(0x340),
  klm_pas_mtt: rest(0x880),
})

export const createMkeyOut = struct(16, {
  mkey_index: bits(0x48, 24),
})

export const queryMkeyIn = struct(16, {
  mkey_index: bits(0x48, 24),
  pg_access: bits(0x60, 1),
})

export const queryMkeyOut = struct(304, {
  memory_key_mkey_entry: nested(0x80, mkc),
  bsf0_klm0_pas_mtt0_1: raw(0x880, 16),
  bsf1_klm1_pas_mtt2_3: raw(0x900, 16),
})

export const createPsvIn = struct(16, {
  num_psv: bits(0x40, 4),
  pd: bits(0x48, 24),
})

export const createPsvOut = struct(32, {
  psv0_index: bits(0x88, 24),
  psv1_index: bits(0xa8, 24),
  psv2_index: bits(0xc8, 24),
  psv3_index: bits(0xe8, 24),
})

export const allocPdOut = struct(16, {
  pd: bits(0x48, 24),
})

export const allocTransportDomainOut = struct(16, {
  transport_domain: bits(0x48, 24),
})

export const allocXrcdOut = struct(16, {
  xrcd: bits(0x48, 24),
})
