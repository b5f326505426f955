/*
 * Attributes of mlx5 devices: those of a ConnectX-5 (`ibv_devinfo -v`), as far as this device has what they promise.
 */
import type { AdapterTexts } from '../../core/driver-contract.ts'
import type { DeviceAttributes, ExtendedDeviceAttributes } from '../../spec/classes/device/device.ts'
import { MAX_LOG_TABLE_SIZE } from '../../spec/classes/wq.ts'
import { CORE_CLOCK_KHZ, TIMESTAMP_MASK } from '../../spec/drivers/mlx5.ts'
import { AtomicCap, DeviceCapFlags, OdpTransportCaps, QpType } from '../../spec/enums.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import { deviceAttributes, extendedAttributes, type QueueLimits } from '../soft/attributes.ts'

/**
 * `maxInline`, `maxMsgSize`, `maxDm`: bytes. `maxSendBytes`, `maxReceiveBytes`: of a request. `moderationPeriod`:
 * microseconds.
 */
export const Limits = {
  maxQpWr: 0x8000,
  maxSge: 30,
  // a receive has no other segments
  maxRecvSge: 32,
  maxSrqWr: 0x7fff,
  maxSrqSge: 31,
  maxInline: 988,
  maxCqe: 0x3f_ffff,
  maxRdAtomic: 16,
  maxMsgSize: 0x4000_0000,
  maxSendBytes: 1024,
  maxReceiveBytes: 512,
  maxDm: 0x2_0000,
  moderationCount: 0xffff,
  moderationPeriod: 0xfff,
} as const satisfies QueueLimits & Record<string, number>

/** A ConnectX-5; its firmware's version as major, minor and patch (16 bits each). */
export const VENDOR_ID = 0x02c9
const PART_ID = 4119
const FIRMWARE = (16n << 32n) | (35n << 16n) | 2000n

/** Of a board with this part id, as `ibv_devinfo` shows it (Linux: mlx5_core_dev.board_id). */
const BOARD = 'MT_0000000010'

/** As Linux's mlx5 (get_dev_fw_str, mlx5_class_attributes). */
export const adapterTexts = ({
  fwVer,
  vendorPartId,
  hwVer,
}: Pick<RecordOf<typeof DeviceAttributes>, 'fwVer' | 'vendorPartId' | 'hwVer'>): AdapterTexts => ({
  fw_ver: `${fwVer >> 32n}.${(fwVer >> 16n) & 0xffffn}.${`${fwVer & 0xffffn}`.padStart(4, '0')}`,
  hca_type: `MT${vendorPartId}`,
  hw_rev: hwVer.toString(16),
  board_id: BOARD,
})

const { BAD_PKEY_CNTR, BAD_QKEY_CNTR, CHANGE_PHY_PORT, PORT_ACTIVE_EVENT, SYS_IMAGE_GUID, RC_RNR_NAK_GEN } =
  DeviceCapFlags.values
const { MEM_WINDOW, XRC, MEM_MGT_EXTENSIONS, MEM_WINDOW_TYPE_2B, RAW_IP_CSUM, MANAGED_FLOW_STEERING } =
  DeviceCapFlags.values
const CAP_FLAGS =
  BAD_PKEY_CNTR |
  BAD_QKEY_CNTR |
  CHANGE_PHY_PORT |
  PORT_ACTIVE_EVENT |
  SYS_IMAGE_GUID |
  RC_RNR_NAK_GEN |
  MEM_WINDOW |
  XRC |
  MEM_MGT_EXTENSIONS |
  MEM_WINDOW_TYPE_2B

/** Of raw packets: work queues, and the tables over them. */
const RAW_FLAGS = RAW_IP_CSUM | MANAGED_FLOW_STEERING
const MAX_TABLES = 1 << 12
const MAX_FLOWS = 1 << 16
/** Maximum objects of the classes of raw packets (core's `limits`). */
export const objectLimits = {
  flow: MAX_FLOWS,
  flow_matcher: MAX_FLOWS,
  flow_action: MAX_FLOWS,
  rwq_ind_table: MAX_TABLES,
} as const

/** `hasFrames`: whether the device's link carries frames, and so raw packets. */
export const mlx5Attributes = (
  guid: Uint8Array,
  limits: QueueLimits,
  hasFrames: boolean,
): RecordOf<typeof DeviceAttributes> => ({
  ...deviceAttributes(guid, limits),
  fwVer: FIRMWARE,
  vendorId: VENDOR_ID,
  vendorPartId: PART_ID,
  hwVer: 0,
  deviceCapFlags: hasFrames ? CAP_FLAGS | RAW_FLAGS : CAP_FLAGS,
  maxQpRdAtom: limits.maxRdAtomic,
  maxQpInitRdAtom: limits.maxRdAtomic,
  maxResRdAtom: 0x20_0000,
  atomicCap: AtomicCap.values.HCA,
  localCaAckDelay: 16,
  maxRawEthyQp: hasFrames ? 0x2_0000 : 0,
  maxPkeys: 0x80,
})

const soft = extendedAttributes()
const { FLUSH, ATOMIC_WRITE } = OdpTransportCaps.values
/** IBV_RAW_PACKET_CAP_IP_CSUM; the device neither strips VLAN tags nor delivers the frame check sequence. */
const RAW_CAP_IP_CSUM = 1 << 2

export const extended = (hasFrames: boolean): RecordOf<typeof ExtendedDeviceAttributes> => ({
  ...soft,
  odpRcCaps: soft.odpRcCaps & ~(FLUSH | ATOMIC_WRITE),
  odpXrcCaps: soft.odpXrcCaps & ~(FLUSH | ATOMIC_WRITE),
  deviceCapFlagsEx: BigInt(hasFrames ? CAP_FLAGS | RAW_FLAGS : CAP_FLAGS),
  timestampMask: TIMESTAMP_MASK,
  maxDmSize: BigInt(Limits.maxDm),
  maxCqModerationCount: Limits.moderationCount,
  maxCqModerationPeriod: Limits.moderationPeriod,
  hcaCoreClock: CORE_CLOCK_KHZ,
  ...(hasFrames && {
    rssSupportedQpts: 1 << QpType.values.RAW_PACKET,
    rssMaxRwqIndirectionTables: MAX_TABLES,
    rssMaxRwqIndirectionTableSize: 1 << MAX_LOG_TABLE_SIZE,
    maxWqTypeRq: 0x2_0000,
    rawPacketCaps: RAW_CAP_IP_CSUM,
  }),
})
