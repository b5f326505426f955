/*
 * Device attributes: those of Linux's rxe (rxe_param.h; `ibv_devinfo -v` in test/fixtures/abi), so that programs choose
 * the same sizes. Some limits are lower than rxe's: a ring of 2^20 slots holds one WQE fewer (max_qp_wr, max_srq_wr),
 * no machine has memory for the rings of rxe's million queue pairs, CQs and SRQs, and max_msg_sz is that of Linux 6.1.
 * rxe allows 512 bytes of inline data, which no attribute reports.
 */

import type { DeviceAttributes, ExtendedDeviceAttributes } from '../../spec/classes/device/device.ts'
import type { PortAttributes } from '../../spec/classes/device/port.ts'
import {
  AtomicCap,
  DeviceCapFlags,
  LinkLayer,
  Mtu,
  OdpCaps,
  OdpTransportCaps,
  PhysState,
  PortCapFlags,
  PortFlags,
  PortState,
} from '../../spec/enums.ts'
import { type EthernetLink, ethernetLink } from '../../spec/link-rate.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import type { Counters } from '../../transport/engine/types.ts'

/** `maxMsgSize` and `maxInline` are in bytes. */
export const Limits = {
  maxQpWr: 1048575,
  maxSge: 32,
  maxQp: 0x2_0000,
  maxCq: 0x2_0000,
  maxSrq: 0x2_0000,
  maxSrqWr: 1048575,
  maxSrqSge: 27,
  maxInline: 960,
  maxCqe: 32767,
  maxRdAtomic: 128,
  compVectors: 2,
  gidTable: 1024,
  maxMsgSize: 0x800000,
  /** Groups of a device, queue pairs of one group, memberships of a device. */
  multicast: { groups: 8192, members: 56, memberships: 458752 },
} as const

/** The limits that are lower on some devices with `--torment` (drivers/soft/torment/limits.ts). */
export type QueueLimits = Readonly<
  Record<'maxQpWr' | 'maxSge' | 'maxSrqWr' | 'maxSrqSge' | 'maxInline' | 'maxCqe' | 'maxRdAtomic', number>
> & {
  /** Absent: as `maxSge`. */
  readonly maxRecvSge?: number
}

/** `DeviceCapFlags` that rxe sets, BAD_PKEY_CNTR … MEM_WINDOW_TYPE_2B, and XRC, which rxe lacks. */
const CAP_FLAGS = 0x01223c76 | DeviceCapFlags.values.XRC
/** FLUSH_GLOBAL and ATOMIC_WRITE. Linux's rxe also sets FLUSH_PERSISTENT (bit 39); our memory is not persistent. */
const CAP_FLAGS_EX = (1n << 38n) | (1n << 40n)

export const deviceAttributes = (
  guid: Uint8Array,
  limits: QueueLimits = Limits,
): RecordOf<typeof DeviceAttributes> => ({
  fwVer: 0n,
  nodeGuid: guid,
  sysImageGuid: guid,
  maxMrSize: 0xffff_ffff_ffff_ffffn,
  pageSizeCap: 0xffff_f000n,
  vendorId: 0xffffff,
  vendorPartId: 0,
  hwVer: 0,
  maxQp: Limits.maxQp,
  maxQpWr: limits.maxQpWr,
  deviceCapFlags: CAP_FLAGS,
  maxSge: limits.maxSge,
  maxSgeRd: limits.maxSge,
  maxCq: Limits.maxCq,
  maxCqe: limits.maxCqe,
  maxMr: 524287,
  maxPd: 1048576,
  maxQpRdAtom: limits.maxRdAtomic,
  maxEeRdAtom: 0,
  maxResRdAtom: 258048,
  maxQpInitRdAtom: limits.maxRdAtomic,
  maxEeInitRdAtom: 0,
  atomicCap: AtomicCap.values.HCA,
  maxEe: 0,
  maxRdd: 0,
  maxMw: 524287,
  maxRawIpv6Qp: 0,
  maxRawEthyQp: 0,
  maxMcastGrp: Limits.multicast.groups,
  maxMcastQpAttach: Limits.multicast.members,
  maxTotalMcastQpAttach: Limits.multicast.memberships,
  maxAh: 32767,
  maxFmr: 0,
  maxMapPerFmr: 0,
  maxSrq: Limits.maxSrq,
  maxSrqWr: limits.maxSrqWr,
  maxSrqSge: limits.maxSrqSge,
  maxPkeys: 64,
  localCaAckDelay: 15,
  physPortCnt: 1,
})

const { SEND, RECV, WRITE, READ, ATOMIC, SRQ_RECV, FLUSH, ATOMIC_WRITE } = OdpTransportCaps.values
const CONNECTED_ODP = SEND | RECV | WRITE | READ | ATOMIC | SRQ_RECV | FLUSH | ATOMIC_WRITE

/** On-demand paging as in Linux 6.15, and regions of the whole address space. */
export const extendedAttributes = (): RecordOf<typeof ExtendedDeviceAttributes> => ({
  odpGeneralCaps: BigInt(OdpCaps.values.SUPPORT | OdpCaps.values.SUPPORT_IMPLICIT),
  odpRcCaps: CONNECTED_ODP,
  odpUcCaps: 0,
  odpUdCaps: SEND | RECV | SRQ_RECV,
  timestampMask: 0n,
  hcaCoreClock: 0n,
  deviceCapFlagsEx: BigInt(CAP_FLAGS) | CAP_FLAGS_EX,
  rssSupportedQpts: 0,
  rssMaxRwqIndirectionTables: 0,
  rssMaxRwqIndirectionTableSize: 0,
  maxWqTypeRq: 0,
  rawPacketCaps: 0,
  tmMaxRndvHdrSize: 0,
  tmMaxNumTags: 0,
  tmFlags: 0,
  tmMaxOps: 0,
  tmMaxSge: 0,
  maxCqModerationCount: 0,
  maxCqModerationPeriod: 0,
  maxDmSize: 0n,
  odpXrcCaps: CONNECTED_ODP,
})

/** Counters of violations have 16 bits and saturate (IBA 14.2.5.6, PortInfo). */
const MAX_VIOLATIONS = 0xffff

/** `activeMtu`: `Mtu`, 1 to 5. `counters`: those of the device's engine. `link`: of an interface without a speed. */
export const portAttributes = (
  activeMtu: number,
  counters: () => Counters,
  maxMsgSize: number = Limits.maxMsgSize,
  link: ReturnType<EthernetLink> = ethernetLink(),
): RecordOf<typeof PortAttributes> => ({
  portCapFlags: PortCapFlags.values.CM_SUP,
  maxMsgSz: maxMsgSize,
  get badPkeyCntr() {
    return Math.min(counters().pkeyViolations, MAX_VIOLATIONS)
  },
  get qkeyViolCntr() {
    return Math.min(counters().qkeyViolations, MAX_VIOLATIONS)
  },
  gidTblLen: Limits.gidTable,
  pkeyTblLen: 1,
  lid: 0,
  smLid: 0,
  state: PortState.values.ACTIVE,
  maxMtu: Mtu.values.MTU_4096,
  activeMtu,
  lmc: 0,
  maxVlNum: 1,
  smSl: 0,
  subnetTimeout: 0,
  initTypeReply: 0,
  ...link,
  physState: PhysState.values.LINK_UP,
  linkLayer: LinkLayer.values.ETHERNET,
  flags: PortFlags.values.GRH_REQUIRED,
  portCapFlags2: 0,
})
