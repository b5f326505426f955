/*
 * Attributes of EFA devices, as Linux's driver reports them (efa_query_device, efa_query_port), with limits like those
 * of Amazon's adapters. The MTU, and with it the longest SEND, is smaller than theirs on ports that carry less.
 */
import type { AdapterFacts } from '../../core/driver-contract.ts'
import { DeviceAttributes, ExtendedDeviceAttributes } from '../../spec/classes/device/device.ts'
import { PortAttributes } from '../../spec/classes/device/port.ts'
import { EfaCaps } from '../../spec/drivers/efa.ts'
import { LinkLayer, LinkSpeed, LinkWidth, PhysState, PortState } from '../../spec/enums.ts'
import { MAX_MTU_BYTES, mtuEnum } from '../../spec/mtu.ts'
import { type RecordOf, zeroRecord } from '../../spec/schema/schema.ts'

const PciIds = { vendor: 0x1d0f, device: 0xefa1 } as const

/** `maxRdmaBytes`: of one READ or WRITE. `maxSendRingBytes`: of the ring of sends. */
export const Limits = {
  maxQp: 0xfff0,
  maxCq: 0xffff,
  maxPd: 0xffff,
  maxMr: 0x4_0000,
  maxAh: 0xfffe,
  maxCqe: 0x8000,
  maxSends: 4096,
  maxReceives: 32768,
  maxSendSges: 2,
  maxReceiveSges: 3,
  maxRdmaSges: 1,
  maxRdmaBytes: 2 ** 30,
  inlineBytes: 32,
  inlineBytesExtended: 80,
  maxSendRingBytes: 4096 * 64,
  minSends: 16,
  subCqs: 1,
  compVectors: 1,
} as const

/**
 * Queue pairs at other addresses that send to those of a device by SRD, and the addresses. Bytes are of memory,
 * measured and rounded up: of a sender; of an incomplete WRITE with immediate data; of a READ until its data is
 * acknowledged, and with the first one of a sender, of the window.
 */
export const Senders = {
  max: 0x1_0000,
  maxAddresses: 8192,
  bytes: 2048,
  writeBytes: 64,
  responseBytes: 512,
  windowBytes: 14_000,
} as const

export const capabilities =
  EfaCaps.RDMA_READ |
  EfaCaps.RDMA_WRITE |
  EfaCaps.RNR_RETRY |
  EfaCaps.CQ_NOTIFICATIONS |
  EfaCaps.CQ_WITH_SOURCE_GID |
  EfaCaps.UNSOLICITED_WRITE_RECEIVE |
  EfaCaps.REQUEST_ID_64

export const deviceAttributes = (guid: Uint8Array): RecordOf<typeof DeviceAttributes> => ({
  ...zeroRecord(DeviceAttributes),
  nodeGuid: guid,
  sysImageGuid: guid,
  maxMrSize: 2n ** 40n,
  pageSizeCap: 0xffff_f000n,
  vendorId: PciIds.vendor,
  vendorPartId: PciIds.device,
  hwVer: PciIds.device,
  maxQp: Limits.maxQp,
  maxQpWr: Limits.maxSends,
  maxSge: Limits.maxSendSges,
  maxSgeRd: Limits.maxRdmaSges,
  maxCq: Limits.maxCq,
  maxCqe: Limits.maxCqe,
  maxMr: Limits.maxMr,
  maxPd: Limits.maxPd,
  maxAh: Limits.maxAh,
  maxPkeys: 1,
  physPortCnt: 1,
})

export const extendedAttributes = (): RecordOf<typeof ExtendedDeviceAttributes> => zeroRecord(ExtendedDeviceAttributes)

/** The MTU of Amazon's adapters, bytes. */
const ADAPTER_MTU = 8928

/** The MTU of a device, bytes. A port with the largest path MTU of RoCE also carries packets of the adapters' size. */
export const mtuOf = (pathMtu: number): number => (pathMtu === MAX_MTU_BYTES ? ADAPTER_MTU : pathMtu)

const RATE: NonNullable<AdapterFacts['rate']> = { activeWidth: LinkWidth.values.X4, activeSpeed: LinkSpeed.values.EDR }

/** `mtu`: bytes. */
export const portAttributes = (mtu: number, rate = RATE): RecordOf<typeof PortAttributes> => ({
  ...zeroRecord(PortAttributes),
  state: PortState.values.ACTIVE,
  physState: PhysState.values.LINK_UP,
  linkLayer: LinkLayer.values.UNSPECIFIED,
  lmc: 1,
  gidTblLen: 1,
  pkeyTblLen: 1,
  maxMtu: mtuEnum(Math.min(mtu, MAX_MTU_BYTES)),
  activeMtu: mtuEnum(Math.min(mtu, MAX_MTU_BYTES)),
  maxMsgSz: mtu,
  maxVlNum: 1,
  ...rate,
  activeSpeedEx: rate.activeSpeed,
})
