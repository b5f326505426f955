/*
 * Records that the classes of connection management share. They lie as Linux's structs of rdma_user_cm.h do, which the
 * dialect of librdmacm relies on.
 */
import { at, bytes, u8, u16, u32 } from '../schema/schema.ts'

/** Most bytes of private data that a struct has room for; how many a message takes is fewer. */
export const PRIVATE_DATA_BYTES = 256

/** Bytes of an address: a struct sockaddr_storage (IPv4, IPv6 or AF_IB) as Linux has it. */
export const ADDRESS_BYTES = 128

/** rdma_ucm_conn_param */
export const CmConnectionParameters = {
  qpNum: at(0, u32(0)),
  qkey: at(4, u32(0)),
  privateData: at(8, bytes(0, PRIVATE_DATA_BYTES)),
  privateDataLength: at(264, u8(0)),
  srq: at(265, u8(0)),
  responderResources: at(266, u8(0)),
  initiatorDepth: at(267, u8(0)),
  flowControl: at(268, u8(0)),
  retryCount: at(269, u8(0)),
  rnrRetryCount: at(270, u8(0)),
  valid: at(271, u8(0)),
}

/** rdma_ucm_ud_param: where datagrams go to reach the peer, or the group. */
export const CmDatagramParameters = {
  qpNum: at(0, u32(0)),
  qkey: at(4, u32(0)),
  dgid: at(8, bytes(0, 16)),
  flowLabel: at(24, u32(0)),
  sgidIndex: at(28, u8(0)),
  hopLimit: at(29, u8(0)),
  trafficClass: at(30, u8(0)),
  dlid: at(32, u16(0)),
  sl: at(34, u8(0)),
  srcPathBits: at(35, u8(0)),
  staticRate: at(36, u8(0)),
  isGlobal: at(37, u8(0)),
  port: at(38, u8(0)),
  privateData: at(40, bytes(0, PRIVATE_DATA_BYTES)),
  privateDataLength: at(296, u8(0)),
}

/** rdma_ucm_ece: vendors' enhanced connection establishment. */
export const CmEce = { vendorId: at(0, u32(0)), attrMod: at(4, u32(0)) }

/** rdma_ucm_query_addr_resp. Ports and GUID are in network order. */
export const CmAddresses = {
  nodeGuid: at(0, bytes(0, 8)),
  port: at(8, u8(0)),
  pkey: at(10, u16(0)),
  sourceSize: at(12, u16(0)),
  destinationSize: at(14, u16(0)),
  source: at(16, bytes(0, ADDRESS_BYTES)),
  destination: at(144, bytes(0, ADDRESS_BYTES)),
  /** Index of the device, if the identifier is bound to one. */
  deviceIndex: at(272, u32(0)),
}

/** ib_path_rec_data: flags, and the path record as the subnet administrator sends it. */
export const CmPathRecord = { flags: at(0, u32(0)), reserved: at(4, u32(0)), record: at(8, bytes(0, 64)) }
