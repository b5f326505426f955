/*
 * Class `device`: the device behind a context (R8). The only object is object 0, which no call creates.
 *
 * `open` creates the descriptor's context (Linux: GET_CONTEXT); before `open` other calls are refused with EINVAL.
 * The two records of `query` have the layouts of Linux's ib_uverbs_query_device_resp and of the part that
 * ib_uverbs_ex_query_device_resp adds (R4). `queryGidTable` returns the GID tables of all ports, as in Linux.
 */
import { AtomicCap, DeviceCapFlags, GidType } from '../../enums.ts'
import {
  at,
  blob,
  bytes,
  enumOf,
  fd,
  flagsOf,
  list,
  method,
  objectClass,
  optional,
  QUERY,
  record,
  u8,
  u16,
  u32,
  u64,
} from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'

/** ib_uverbs_query_device_resp; GUIDs in network order. */
export const DeviceAttributes = {
  fwVer: at(0, u64(0)),
  nodeGuid: at(8, bytes(0, 8)),
  sysImageGuid: at(16, bytes(0, 8)),
  maxMrSize: at(24, u64(0)),
  pageSizeCap: at(32, u64(0)),
  vendorId: at(40, u32(0)),
  vendorPartId: at(44, u32(0)),
  hwVer: at(48, u32(0)),
  maxQp: at(52, u32(0)),
  maxQpWr: at(56, u32(0)),
  deviceCapFlags: at(60, flagsOf(0, DeviceCapFlags)),
  maxSge: at(64, u32(0)),
  maxSgeRd: at(68, u32(0)),
  maxCq: at(72, u32(0)),
  maxCqe: at(76, u32(0)),
  maxMr: at(80, u32(0)),
  maxPd: at(84, u32(0)),
  maxQpRdAtom: at(88, u32(0)),
  maxEeRdAtom: at(92, u32(0)),
  maxResRdAtom: at(96, u32(0)),
  maxQpInitRdAtom: at(100, u32(0)),
  maxEeInitRdAtom: at(104, u32(0)),
  atomicCap: at(108, enumOf(0, AtomicCap)),
  maxEe: at(112, u32(0)),
  maxRdd: at(116, u32(0)),
  maxMw: at(120, u32(0)),
  maxRawIpv6Qp: at(124, u32(0)),
  maxRawEthyQp: at(128, u32(0)),
  maxMcastGrp: at(132, u32(0)),
  maxMcastQpAttach: at(136, u32(0)),
  maxTotalMcastQpAttach: at(140, u32(0)),
  maxAh: at(144, u32(0)),
  maxFmr: at(148, u32(0)),
  maxMapPerFmr: at(152, u32(0)),
  maxSrq: at(156, u32(0)),
  maxSrqWr: at(160, u32(0)),
  maxSrqSge: at(164, u32(0)),
  maxPkeys: at(168, u16(0)),
  localCaAckDelay: at(170, u8(0)),
  physPortCnt: at(171, u8(0)),
}

/** The part of ib_uverbs_ex_query_device_resp after its response_length. */
export const ExtendedDeviceAttributes = {
  odpGeneralCaps: at(0, u64(0)),
  odpRcCaps: at(8, u32(0)),
  odpUcCaps: at(12, u32(0)),
  odpUdCaps: at(16, u32(0)),
  timestampMask: at(24, u64(0)),
  hcaCoreClock: at(32, u64(0)),
  deviceCapFlagsEx: at(40, u64(0)),
  rssSupportedQpts: at(48, u32(0)),
  rssMaxRwqIndirectionTables: at(52, u32(0)),
  rssMaxRwqIndirectionTableSize: at(56, u32(0)),
  maxWqTypeRq: at(64, u32(0)),
  rawPacketCaps: at(68, u32(0)),
  tmMaxRndvHdrSize: at(72, u32(0)),
  tmMaxNumTags: at(76, u32(0)),
  tmFlags: at(80, u32(0)),
  tmMaxOps: at(84, u32(0)),
  tmMaxSge: at(88, u32(0)),
  maxCqModerationCount: at(96, u16(0)),
  maxCqModerationPeriod: at(98, u16(0)),
  maxDmSize: at(104, u64(0)),
  odpXrcCaps: at(112, u32(0)),
}

/** ib_uverbs_gid_entry. `ifindex`: index of the network interface, or 0. */
export const GidEntry = {
  gid: at(0, bytes(0, 16)),
  index: at(16, u32(0)),
  port: at(20, u32(0)),
  type: at(24, enumOf(0, GidType)),
  ifindex: at(28, u32(0)),
}

/** Each call of a client in another process provides a buffer for this many handles. The number is arbitrary. */
const MAX_HANDLES = 0xfff8
/** A Linux attribute has at most 65,535 bytes, a GidEntry 32 bytes. */
const MAX_GID_ENTRIES = 0x7ff

export const DeviceClass = objectClass('device', ClassId.device, {
  identity: 'fixed',
  methods: {
    /**
     * Creates the context. `wantAsyncFd` 1 also creates an `async_fd`, as Linux's write command GET_CONTEXT does.
     * `coreSupport`: flags of `CoreSupport`, as in Linux's ib_uverbs_core_support.
     */
    open: method(CallNumber.device.open, {
      role: 'opens',
      in: { wantAsyncFd: optional(u8(1, { max: 1 })) },
      out: { numCompVectors: u32(64), coreSupport: u64(65), asyncFd: optional(fd(66, 'async_fd')) },
      driverAttributes: true,
    }),
    query: method(QUERY, {
      in: {},
      out: {
        attributes: record(64, DeviceAttributes),
        extended: record(65, ExtendedDeviceAttributes),
        numCompVectors: u32(66),
        coreSupport: u64(67),
      },
      driverAttributes: true,
    }),
    /** Handles of the context's objects of `classes` (class ids), newest first; only the first `max` if it is given. */
    queryHandles: method(CallNumber.device.queryHandles, {
      role: 'asks',
      in: { classes: list(1, { id: at(0, u16(0)) }, 64), max: optional(u32(2)) },
      out: { handles: list(64, { handle: at(0, u32(0)) }, MAX_HANDLES) },
      undoable: true,
    }),
    /** The valid GIDs of all ports. EINVAL if there are more than `max`. */
    queryGidTable: method(CallNumber.device.queryGidTable, {
      role: 'asks',
      in: { max: optional(u32(1)) },
      out: { entries: list(64, GidEntry, MAX_GID_ENTRIES) },
      undoable: true,
    }),
    /** The monotonic clock of completion timestamps, in nanoseconds. */
    queryClock: method(CallNumber.device.queryClock, {
      role: 'asks',
      in: {},
      out: { nanoseconds: u64(64) },
      undoable: true,
    }),
    /** Names of the interfaces that class `driver_ops` can open, each NUL-terminated. */
    queryDriverOps: method(CallNumber.device.queryDriverOps, {
      role: 'asks',
      in: {},
      out: { names: blob(64, 4096) },
      undoable: true,
    }),
  },
})
