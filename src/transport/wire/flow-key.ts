/*
 * The key of a frame: the fields that flow rules match, at fixed places (`FlowKey`), so that one comparison of words
 * under a mask tells whether a frame has them. Hostile frames: what is cut off has no header. Nothing is allocated per
 * frame.
 */
import {
  ETHERNET_BYTES,
  EtherType,
  FLOW_KEY_BYTES,
  FlowHeader,
  FlowKey,
  IpProtocol,
  Ipv6Extension,
  TunnelPort,
  VLAN_BYTES,
} from '../../spec/wire/ethernet.ts'
import { ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import type { Arena } from './arena.ts'
import { IPV4_BYTES, IPV6_BYTES, UDP_BYTES } from './ip.ts'

/** The key of the last frame that was read, and where its outer headers are. */
export interface FrameKey {
  readonly bytes: Uint8Array
  readonly words: Uint32Array
  readonly view: DataView
  /** Offsets of the IP header and of the header behind it in the frame's arena; -1: none, or a later fragment. */
  ip: number
  l4: number
  /** The end of the IP datagram: the frame may have padding. */
  end: number
  protocol: number
  isIpv4: boolean
  /** The first fragment of a datagram, or a later one. */
  isFragment: boolean
  /** A packet of RoCE, of version 1 or 2. */
  isRoce: boolean
  /**
   * Offset of what a tunnel of VXLAN, GENEVE or GRE carries, -1: none; and whether that is an Ethernet frame, or an IP
   * datagram.
   */
  inner: number
  isInnerFrame: boolean
}

export const createFrameKey = (): FrameKey => {
  const buffer = new ArrayBuffer(FLOW_KEY_BYTES)
  return {
    bytes: new Uint8Array(buffer),
    words: new Uint32Array(buffer),
    view: new DataView(buffer),
    ip: -1,
    l4: -1,
    end: 0,
    protocol: 0,
    isIpv4: false,
    isFragment: false,
    isRoce: false,
    inner: -1,
    isInnerFrame: false,
  }
}

/** Reads the key of the frame of `length` bytes at `at`. */
export const readKey = (key: FrameKey, arena: Arena, at: number, length: number): void => {
  key.words.fill(0)
  key.ip = -1
  key.l4 = -1
  key.isFragment = false
  key.isRoce = false
  key.inner = -1
  readEthernet(key, arena, at, at + length, 0)
}

const mark = ({ view }: FrameKey, base: number, header: number): void =>
  view.setUint32(base + FlowKey.PRESENT, view.getUint32(base + FlowKey.PRESENT) | header)

const copy = ({ bytes }: FrameKey, to: number, from: Uint8Array, at: number, length: number): void => {
  for (let i = 0; i < length; i++) bytes[to + i] = from[at + i]!
}

/** `base`: 0, or FlowKey.INNER for a frame in a tunnel; `end`: of the frame. */
const readEthernet = (key: FrameKey, arena: Arena, at: number, end: number, base: number): void => {
  const { view, bytes } = arena
  if (at + ETHERNET_BYTES > end) return
  copy(key, base + FlowKey.ETH, bytes, at, 12)
  let type = view.getUint16(at + 12)
  let next = at + ETHERNET_BYTES
  let present: number = FlowHeader.ETH
  // further tags are not looked at
  if (type === EtherType.VLAN && next + VLAN_BYTES <= end) {
    key.view.setUint16(base + FlowKey.ETH + 14, view.getUint16(next))
    type = view.getUint16(next + 2)
    next += VLAN_BYTES
    present |= FlowHeader.VLAN
  }
  key.view.setUint16(base + FlowKey.ETH + 12, type)
  mark(key, base, present)
  if (base === 0 && type === EtherType.ROCE_V1) key.isRoce = true
  readPayload(key, arena, next, end, base, type)
}

const readPayload = (key: FrameKey, arena: Arena, at: number, end: number, base: number, type: number): void => {
  if (type === EtherType.IPV4) readIpv4(key, arena, at, end, base)
  else if (type === EtherType.IPV6) readIpv6(key, arena, at, end, base)
  else if (type === EtherType.MPLS) readMpls(key, arena, at, end, base)
}

const readIpv4 = (key: FrameKey, arena: Arena, at: number, end: number, base: number): void => {
  const { view, bytes } = arena
  if (at + IPV4_BYTES > end || view.getUint8(at) >> 4 !== 4) return
  const headerBytes = (view.getUint8(at) & 15) * 4
  if (headerBytes < IPV4_BYTES || at + headerBytes > end) return
  const to = base + FlowKey.IPV4
  copy(key, to, bytes, at + 12, 8)
  key.bytes[to + 8] = bytes[at + 9]!
  key.bytes[to + 9] = bytes[at + 1]!
  key.bytes[to + 10] = bytes[at + 8]!
  mark(key, base, FlowHeader.IPV4)
  const fragment = view.getUint16(at + 6) & 0x3fff
  const datagramEnd = Math.min(end, at + view.getUint16(at + 2))
  if (base === 0) {
    key.ip = at
    key.end = datagramEnd
    key.isIpv4 = true
    key.isFragment = fragment !== 0
  }
  if (fragment !== 0) mark(key, base, FlowHeader.FRAGMENT)
  // a later fragment has no header of layer 4
  if ((fragment & 0x1fff) === 0) readLayer4(key, arena, at + headerBytes, datagramEnd, base, bytes[at + 9]!)
}

const readIpv6 = (key: FrameKey, arena: Arena, at: number, end: number, base: number): void => {
  const { view, bytes } = arena
  if (at + IPV6_BYTES > end || view.getUint8(at) >> 4 !== 6) return
  const to = base + FlowKey.IPV6
  copy(key, to, bytes, at + 8, 32)
  key.view.setUint32(to + 32, view.getUint32(at) & 0xf_ffff)
  key.bytes[to + 37] = (view.getUint16(at) >> 4) & 0xff
  key.bytes[to + 38] = bytes[at + 7]!
  mark(key, base, FlowHeader.IPV6)
  const datagramEnd = Math.min(end, at + IPV6_BYTES + view.getUint16(at + 4))
  let protocol = bytes[at + 6]!
  let next = at + IPV6_BYTES
  let isFragment = false
  let isLater = false
  const { HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION } = Ipv6Extension
  while (next + 8 <= datagramEnd && !isLater) {
    if (protocol === FRAGMENT) {
      const word = view.getUint16(next + 2)
      isFragment = (word & 0xfff9) !== 0
      isLater = word >> 3 !== 0
      protocol = bytes[next]!
      next += 8
    } else if (protocol === HOP_BY_HOP || protocol === ROUTING || protocol === DESTINATION) {
      protocol = bytes[next]!
      next += (bytes[next + 1]! + 1) * 8
    } else break
  }
  key.bytes[to + 36] = protocol
  if (base === 0) {
    key.ip = at
    key.end = datagramEnd
    key.isIpv4 = false
    key.isFragment = isFragment
  }
  if (isFragment) mark(key, base, FlowHeader.FRAGMENT)
  if (!isLater) readLayer4(key, arena, next, datagramEnd, base, protocol)
}

/** Bytes of a TCP header without options. */
const TCP_BYTES = 20

const readLayer4 = (key: FrameKey, arena: Arena, at: number, end: number, base: number, protocol: number): void => {
  const { view, bytes } = arena
  const isTcp = protocol === IpProtocol.TCP
  if (isTcp || protocol === IpProtocol.UDP) {
    if (at + (isTcp ? TCP_BYTES : UDP_BYTES) > end) return
    const to = base + (isTcp ? FlowKey.TCP : FlowKey.UDP)
    const port = view.getUint16(at + 2)
    key.view.setUint16(to, port)
    key.view.setUint16(to + 2, view.getUint16(at))
    if (isTcp) key.view.setUint16(base + FlowKey.TCP_FLAGS, view.getUint16(at + 12) & 0x1ff)
    mark(key, base, isTcp ? FlowHeader.TCP : FlowHeader.UDP)
    if (base === 0) {
      key.l4 = at
      key.protocol = protocol
      if (!isTcp) readTunnel(key, arena, at + UDP_BYTES, end, port)
    }
  } else if (protocol === IpProtocol.ESP && at + 8 <= end) {
    copy(key, base + FlowKey.ESP, bytes, at, 8)
    mark(key, base, FlowHeader.ESP)
  } else if (protocol === IpProtocol.GRE && base === 0) readGre(key, arena, at, end)
}

/** What follows a UDP header at the receiver's port `port`. */
const readTunnel = (key: FrameKey, arena: Arena, at: number, end: number, port: number): void => {
  if (port === ROCE_UDP_PORT) key.isRoce = true
  else if (port === TunnelPort.VXLAN && at + 8 <= end) {
    key.view.setUint32(FlowKey.VXLAN, arena.view.getUint32(at + 4) >>> 8)
    mark(key, 0, FlowHeader.VXLAN)
    readInner(key, arena, at + 8, end, EtherType.BRIDGED)
  } else if (port === TunnelPort.GENEVE && at + 8 <= end) {
    copy(key, FlowKey.GENEVE, arena.bytes, at, 8)
    mark(key, 0, FlowHeader.GENEVE)
    const options = (arena.view.getUint8(at) & 0x3f) * 4
    readInner(key, arena, at + 8 + options, end, arena.view.getUint16(at + 2))
  } else if (port === TunnelPort.MPLS) readMpls(key, arena, at, end, 0)
}

const GRE_CHECKSUM = 0x8000
const GRE_KEY = 0x2000
const GRE_SEQUENCE = 0x1000

const readGre = (key: FrameKey, arena: Arena, at: number, end: number): void => {
  const { view, bytes } = arena
  if (at + 4 > end) return
  const flags = view.getUint16(at)
  const type = view.getUint16(at + 2)
  let next = at + 4 + ((flags & GRE_CHECKSUM) === 0 ? 0 : 4)
  copy(key, FlowKey.GRE, bytes, at, 4)
  if ((flags & GRE_KEY) !== 0) {
    if (next + 4 > end) return
    copy(key, FlowKey.GRE + 4, bytes, next, 4)
    next += 4
  }
  if ((flags & GRE_SEQUENCE) !== 0) next += 4
  mark(key, 0, FlowHeader.GRE)
  if (type === EtherType.MPLS) readMpls(key, arena, next, end, 0)
  else readInner(key, arena, next, end, type)
}

/** What a tunnel carries: a frame, or a payload of the EtherType. */
const readInner = (key: FrameKey, arena: Arena, at: number, end: number, type: number): void => {
  if (at > end) return
  key.inner = at
  key.isInnerFrame = type === EtherType.BRIDGED
  if (key.isInnerFrame) readEthernet(key, arena, at, end, FlowKey.INNER)
  else readPayload(key, arena, at, end, FlowKey.INNER, type)
}

const MPLS_BOTTOM = 0x100
/** Labels that are looked at. */
const MAX_LABELS = 8

const readMpls = (key: FrameKey, arena: Arena, at: number, end: number, base: number): void => {
  const { view, bytes } = arena
  if (base !== 0 || at + 4 > end) return
  copy(key, FlowKey.MPLS, bytes, at, 4)
  mark(key, 0, FlowHeader.MPLS)
  let next = at
  for (let left = MAX_LABELS; left > 0 && next + 4 <= end; left--) {
    const label = view.getUint32(next)
    next += 4
    if ((label & MPLS_BOTTOM) === 0) continue
    // the payload tells its version, and is IP if it has one
    const version = next < end ? view.getUint8(next) >> 4 : 0
    if (version === 4) readIpv4(key, arena, next, end, FlowKey.INNER)
    else if (version === 6) readIpv6(key, arena, next, end, FlowKey.INNER)
    return
  }
}
