/*
 * The messages between the ports of a daemon and switches in another one (`--fabric socket=PATH`), on a Unix socket
 * that keeps their boundaries; each port has a socket. A message is a byte of its kind and then
 *
 *   DATA      headers of HEADER_BYTES and the packets of a run, as they are in the port's memory;
 *   CONTROL   JSON, in which bytes are { "hex": … }.
 *
 * Both ends are processes of one user, but who writes to the socket may be any of them: what is not exactly a message
 * ends the connection.
 */
import type { Disturbance, ManagementPath, PortNews, SubnetPort, SubnetSettings } from '../../spec/subnet-port.ts'
import { PERMISSIVE_LID } from '../../spec/wire/subnet.ts'
import type { FlowAddress } from '../../transport/phy/port.ts'
import { RUN_PACKETS, SHORTEST_PACKET } from '../../transport/phy/runs/limits.ts'
import { lidAddress, lidOf } from '../../transport/wire/address.ts'

/** Both ends have the same version. */
export const FABRIC_VERSION = 2
/** Of a message. Longer ones would need contiguous memory of the kernel. */
export const MAX_FABRIC_MESSAGE = 0x1_0000

export const MessageKind = { DATA: 0, CONTROL: 1 } as const

/** A port as its peers need it: its LID, and the GID that belongs to its IP addresses. */
export interface FabricPeer {
  readonly lid: number
  readonly gid: Uint8Array
  readonly addresses: readonly Uint8Array[]
}

/** What a daemon says. HELLO is first. */
export type PortMessage =
  | {
      readonly kind: 'hello'
      readonly version: number
      readonly description: string
      readonly identity: SubnetPort['identity']
      readonly capabilityMask: number
      readonly settings: SubnetSettings
      readonly addresses: readonly Uint8Array[]
    }
  | { readonly kind: 'send'; readonly mad: Uint8Array; readonly path: ManagementPath }
  | { readonly kind: 'news'; readonly news: PortNews; readonly capabilityMask: number; readonly description: string }
  /** Packets to a LID that no port has. */
  | { readonly kind: 'lost'; readonly dlid: number; readonly packets: number }
  /** A fault rule begins; it ends with END of the same number, or with the connection. */
  | { readonly kind: 'disturb'; readonly number: number; readonly disturbance: Disturbance }
  | { readonly kind: 'end'; readonly number: number }

/** What the switches say. HELLO is answered with WELCOME or REFUSED. */
export type SwitchMessage =
  /** `hasManager`: the switches' own configures the port soon. */
  | { readonly kind: 'welcome'; readonly hasManager: boolean }
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'set'; readonly change: Partial<SubnetSettings> }
  | { readonly kind: 'reregister' }
  | { readonly kind: 'deliver'; readonly mad: Uint8Array; readonly path: ManagementPath }
  /** All ACTIVE ports. */
  | { readonly kind: 'peers'; readonly peers: readonly FabricPeer[] }

// ---- JSON ----

const encoder = new TextEncoder()
const decoder = new TextDecoder()

const withHex = (_key: string, value: unknown): unknown => {
  if (value instanceof Uint8Array) return { hex: Buffer.from(value).toString('hex') }
  return value instanceof Uint16Array ? [...value] : value
}
const withBytes = (_key: string, value: unknown): unknown => {
  const { hex } = (value ?? {}) as { readonly hex?: unknown }
  return typeof hex === 'string' ? new Uint8Array(Buffer.from(hex, 'hex')) : value
}

export const controlMessage = (message: PortMessage | SwitchMessage): Uint8Array => {
  const text = encoder.encode(JSON.stringify(message, withHex))
  const bytes = new Uint8Array(1 + text.length)
  bytes[0] = MessageKind.CONTROL
  bytes.set(text, 1)
  return bytes
}

type Check = (value: unknown) => boolean
const upTo =
  (max: number): Check =>
  value =>
    Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max
const bytesOf =
  (length: number): Check =>
  value =>
    value instanceof Uint8Array && value.length === length
const listOf =
  (check: Check, max: number): Check =>
  value =>
    Array.isArray(value) && value.length <= max && value.every(check)
const text =
  (max: number): Check =>
  value =>
    typeof value === 'string' && value.length <= max
const flag: Check = value => typeof value === 'boolean'
const optional =
  (check: Check): Check =>
  value =>
    value === undefined || check(value)
type Shape = Readonly<Record<string, Check>>
const shape =
  (fields: Shape): Check =>
  value =>
    typeof value === 'object' &&
    value !== null &&
    Object.entries(fields).every(([name, check]) => check((value as Readonly<Record<string, unknown>>)[name]))

const [u8, u16, u24, u32] = [upTo(0xff), upTo(0xffff), upTo(0xff_ffff), upTo(0xffff_ffff)] as const
const guid = bytesOf(8)
const address = bytesOf(16)
/** Entries of tables of a port. */
const [MAX_GUIDS, MAX_PKEYS, MAX_ADDRESSES, MAX_PEERS] = [256, 0x1_0000, 64, 4096] as const
const MAX_TEXT = 256

const grh = shape({ source: address, destination: address, hopLimit: u8 })
const pathFields = { slid: u16, dlid: u16, sl: upTo(15), sourceQpn: u24, destQpn: u24, grh: optional(grh) }
const path = shape({ ...pathFields, qkey: u32, pkey: u16 })
const settingFields: Shape = {
  ...{ state: u8, physState: u8, lid: u16, lmc: u8, smLid: u16, smSl: u8, gidPrefix: guid, activeMtu: u8 },
  ...{ activeWidth: u8, activeSpeed: u16, subnetTimeout: u8, initTypeReply: u8 },
  guids: listOf(guid, MAX_GUIDS),
  pkeys: listOf(u16, MAX_PKEYS),
}
const identity = shape({
  ...{ systemGuid: guid, nodeGuid: guid, portGuid: guid, number: upTo(254), ports: upTo(254), vendorId: u24 },
  ...{ deviceId: u16, revision: u32, pkeyTableLength: upTo(MAX_PKEYS), guidTableLength: upTo(MAX_GUIDS), maxMtu: u8 },
  ...{ supportedWidth: u8, supportedSpeed: u16, vlCap: u8 },
})
const keyNews = { key: u32, path: shape(pathFields) }
const newsShapes: Readonly<Record<string, Shape>> = {
  capabilities: {},
  link: { hasCarrier: flag },
  description: {},
  'bad-pkey': keyNews,
  'bad-qkey': keyNews,
}
/** Of one of these kinds. */
const oneOf =
  (shapes: Readonly<Record<string, Shape>>): Check =>
  value => {
    const { kind } = (value ?? {}) as { readonly kind?: unknown }
    return typeof kind === 'string' && Object.hasOwn(shapes, kind) && shape(shapes[kind]!)(value)
  }

const mad = bytesOf(256)
const port = { description: text(MAX_TEXT), capabilityMask: u32 }
const isPortMessage = oneOf({
  hello: { ...port, version: u32, identity, settings: shape(settingFields), addresses: listOf(address, MAX_ADDRESSES) },
  send: { mad, path },
  news: { ...port, news: oneOf(newsShapes) },
  lost: { dlid: u16, packets: u32 },
  disturb: {
    number: u32,
    disturbance: oneOf({ lid: {}, manager: {}, cable: { between: optional(listOf(text(MAX_TEXT), 2)) } }),
  },
  end: { number: u32 },
})
const isSwitchMessage = oneOf({
  welcome: { hasManager: flag },
  refused: { reason: text(MAX_TEXT) },
  set: {
    change: shape(Object.fromEntries(Object.entries(settingFields).map(([name, check]) => [name, optional(check)]))),
  },
  reregister: {},
  deliver: { mad, path },
  peers: {
    peers: listOf(shape({ lid: u16, gid: address, addresses: listOf(address, MAX_ADDRESSES) }), MAX_PEERS),
  },
})

const asSettings = <T extends Partial<SubnetSettings>>(settings: T): T => ({
  ...settings,
  ...(settings.pkeys !== undefined && { pkeys: Uint16Array.from(settings.pkeys) }),
})

const parsed = (bytes: Uint8Array): unknown => {
  try {
    return JSON.parse(decoder.decode(bytes.subarray(1)), withBytes)
  } catch {
    return undefined
  }
}

/** Undefined: it is no such message. */
export const readPortMessage = (bytes: Uint8Array): PortMessage | undefined => {
  const value = parsed(bytes)
  if (!isPortMessage(value)) return undefined
  const message = value as PortMessage
  return message.kind === 'hello' ? { ...message, settings: asSettings(message.settings) } : message
}

/** Undefined: it is no such message. */
export const readSwitchMessage = (bytes: Uint8Array): SwitchMessage | undefined => {
  const value = parsed(bytes)
  if (!isSwitchMessage(value)) return undefined
  const message = value as SwitchMessage
  return message.kind === 'set' ? { ...message, change: asSettings(message.change) } : message
}

// ---- runs ----

/** Big endian. The kind is at 0. */
const Header = {
  SL: 1,
  TRAFFIC_CLASS: 2,
  HOP_LIMIT: 3,
  FLOW_LABEL: 4,
  SLID: 8,
  DLID: 10,
  COUNT: 12,
  HAS_GRH: 14,
  PACKET_BYTES: 16,
  LAST_BYTES: 20,
  GRH_SOURCE: 24,
  GRH_DESTINATION: 40,
} as const
export const HEADER_BYTES = 56

/** Packets of this size in one message. */
export const packetsPerMessage = (packetBytes: number): number =>
  Math.max(1, Math.floor((MAX_FABRIC_MESSAGE - HEADER_BYTES) / packetBytes))

/** Writes the headers of a run, and returns false for packets that have no LIDs. */
export const putHeader = (
  view: DataView,
  { source, destination, sl = 0, trafficClass, hopLimit, flowLabel, grh: gids }: FlowAddress,
  packetBytes: number,
  count: number,
  lastBytes: number,
): boolean => {
  const [slid, dlid] = [lidOf(source), lidOf(destination)]
  if (slid < 0 || dlid < 0) return false
  view.setUint8(0, MessageKind.DATA)
  view.setUint8(Header.SL, sl)
  view.setUint8(Header.TRAFFIC_CLASS, trafficClass)
  view.setUint8(Header.HOP_LIMIT, hopLimit)
  view.setUint32(Header.FLOW_LABEL, flowLabel)
  view.setUint16(Header.SLID, slid)
  view.setUint16(Header.DLID, dlid)
  view.setUint16(Header.COUNT, count)
  view.setUint16(Header.HAS_GRH, gids === undefined ? 0 : 1)
  view.setUint32(Header.PACKET_BYTES, packetBytes)
  view.setUint32(Header.LAST_BYTES, lastBytes)
  for (let i = 0; i < 16; i++) {
    view.setUint8(Header.GRH_SOURCE + i, gids?.source[i] ?? 0)
    view.setUint8(Header.GRH_DESTINATION + i, gids?.destination[i] ?? 0)
  }
  return true
}

/** The sizes of a message's packets: `packetBytes`, `count`, `lastBytes`; undefined: it is no run. */
export const readSizes = (view: DataView, length: number): readonly [number, number, number] | undefined => {
  if (length < HEADER_BYTES + SHORTEST_PACKET) return undefined
  const packetBytes = view.getUint32(Header.PACKET_BYTES)
  const count = view.getUint16(Header.COUNT)
  const lastBytes = view.getUint32(Header.LAST_BYTES)
  const isRun =
    count >= 1 &&
    count <= RUN_PACKETS &&
    lastBytes >= SHORTEST_PACKET &&
    lastBytes <= packetBytes &&
    HEADER_BYTES + (count - 1) * packetBytes + lastBytes === length
  return isRun ? [packetBytes, count, lastBytes] : undefined
}

/** The flow of a run; undefined: no packet can have it. */
export const readFlow = (bytes: Uint8Array, view: DataView): FlowAddress | undefined => {
  const [sl, flowLabel] = [view.getUint8(Header.SL), view.getUint32(Header.FLOW_LABEL)]
  const [slid, dlid] = [view.getUint16(Header.SLID), view.getUint16(Header.DLID)]
  if (sl > 15 || flowLabel > 0xf_ffff || slid === PERMISSIVE_LID || dlid === PERMISSIVE_LID) return undefined
  const gids = (at: number): Uint8Array => bytes.slice(at, at + 16)
  const hasGrh = view.getUint16(Header.HAS_GRH) !== 0
  return {
    source: lidAddress(slid),
    destination: lidAddress(dlid),
    sourcePort: 0,
    trafficClass: view.getUint8(Header.TRAFFIC_CLASS),
    hopLimit: view.getUint8(Header.HOP_LIMIT),
    flowLabel,
    sl,
    ...(hasGrh && { grh: { source: gids(Header.GRH_SOURCE), destination: gids(Header.GRH_DESTINATION) } }),
  }
}

/** Of all runs of a flow the same text. */
export const flowKey = (view: DataView): string => {
  let key = ''
  for (let at = 0; at < HEADER_BYTES; at += 2)
    if (at !== Header.COUNT && (at < Header.PACKET_BYTES || at >= Header.GRH_SOURCE))
      key += String.fromCharCode(view.getUint16(at))
  return key
}
