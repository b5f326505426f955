/*
 * Records of the classes of connection management, with the layouts of Linux's structs (rdma_user_cm.h, ib_user_sa.h):
 * librdmacm's dialect (src/uapi/linux/ucma*.ts) copies the bytes unchanged.
 */
import { at, bytes, u8, u16, u32 } from '../../schema/schema.ts'

/** Bytes of private data in Linux's struct. Messages have room for fewer (spec/wire/mad.ts). */
export const PRIVATE_DATA_BYTES = 256

/** An address is a struct sockaddr_storage, IPv4, IPv6 or AF_IB, in Linux's layout. */
export const ADDRESS_BYTES = 128

/** Bytes of a sockaddr by address family: AF_INET (2), AF_INET6 (10), AF_IB (27). */
export const SOCKADDR_BYTES: Readonly<Record<number, number>> = { 2: 16, 10: 28, 27: 48 }

/** An address of rdma_cm: IPv4, IPv6 or AF_IB. */
export interface SocketAddress {
  /** AF_INET (2), AF_INET6 (10) or AF_IB (27). */
  readonly family: number
  /** For AF_IB: the last 16 bits of the service id. */
  readonly port: number
  /** 16 bytes, IPv4 as ::ffff:a.b.c.d; for AF_IB the GID. */
  readonly address: Uint8Array
  readonly flowInfo: number
  /** Index of the interface, for link-local IPv6 addresses; 0: any. */
  readonly scope: number
  /** P_Key, for AF_IB on InfiniBand. 0 except for AF_IB, as the next two. */
  readonly pkey: number
  readonly serviceId: bigint
  readonly serviceMask: bigint
}

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

/** rdma_ucm_ud_param: the destination of datagrams to the peer or group. */
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

/** rdma_ucm_ece: enhanced connection establishment (vendor options). */
export const CmEce = { vendorId: at(0, u32(0)), attrMod: at(4, u32(0)) }

/** rdma_ucm_query_addr_resp. The GUID and the port numbers in the addresses are in network order. */
export const CmAddresses = {
  nodeGuid: at(0, bytes(0, 8)),
  port: at(8, u8(0)),
  pkey: at(10, u16(0)),
  sourceSize: at(12, u16(0)),
  destinationSize: at(14, u16(0)),
  source: at(16, bytes(0, ADDRESS_BYTES)),
  destination: at(144, bytes(0, ADDRESS_BYTES)),
  /** Index of the identifier's device. */
  deviceIndex: at(272, u32(0)),
}

/** ib_path_rec_data: flags, and a path record in the subnet administrator's format. */
export const CmPathRecord = { flags: at(0, u32(0)), reserved: at(4, u32(0)), record: at(8, bytes(0, 64)) }
