/*
 * What flow rules change in frames: headers that are put on or taken off (packet reformat), and fields that are set
 * (modify header). Lengths and checksums of the outer headers stay right. A frame is changed as a copy: other receivers
 * get it as it is. Nothing is allocated per frame.
 */
import { ETHERNET_BYTES, EtherType, IpProtocol, MAX_FRAME_BYTES } from '../../../spec/wire/ethernet.ts'
import { readKey } from '../../../transport/wire/flow-key.ts'
import { isL3Ok, isL4Ok, putL3, putL4 } from '../../../transport/wire/frame-checksums.ts'
import { IPV4_BYTES, IPV6_BYTES, UDP_BYTES } from '../../../transport/wire/ip.ts'
import { type ArrivedFrame, UNKNOWN_HEADERS } from './arrived-frame.ts'

/** Which header has a field, at `bit` of it. A frame without the header stays as it is. */
export type EditedHeader = 'eth' | 'vlan' | 'ipv4' | 'ipv6' | 'tcp' | 'udp'

export interface FieldSetting {
  /** The first of these headers that the frame has. */
  readonly places: readonly { readonly header: EditedHeader; readonly bit: number }[]
  readonly width: number
  readonly value: number
}

export interface FrameEdits {
  /** Takes the outer headers off, up to what the tunnel carries. */
  readonly takesOff: boolean
  /** Then, before a datagram that the tunnel carries without frame: its Ethernet header. */
  readonly ethernet: Uint8Array | undefined
  readonly settings: readonly FieldSetting[]
  /** Without settings: puts these headers on, before the frame, or in place of its Ethernet header. */
  readonly outer: Uint8Array | undefined
  readonly dropsEthernet: boolean
}

const headerAt = (header: EditedHeader, frame: ArrivedFrame): number => {
  const { key } = frame
  switch (header) {
    case 'eth':
      return frame.at
    case 'vlan':
      return frame.arena.view.getUint16(frame.at + 12) === EtherType.VLAN ? frame.at + 14 : -1
    case 'ipv4':
      return key.isIpv4 ? key.ip : -1
    case 'ipv6':
      return key.isIpv4 ? -1 : key.ip
    case 'tcp':
      return key.protocol === IpProtocol.TCP ? key.l4 : -1
    case 'udp':
      return key.protocol === IpProtocol.UDP ? key.l4 : -1
  }
}

/** Sets `width` bits from `bit` on, at most 32. */
export const setBits = (bytes: Uint8Array, bit: number, width: number, value: number): void => {
  for (let i = 0; i < width; i++) {
    const at = bit + i
    const mask = 0x80 >> (at & 7)
    if ((value >>> (width - 1 - i)) & 1) bytes[at >> 3]! |= mask
    else bytes[at >> 3]! &= ~mask
  }
}

const set = (frame: ArrivedFrame, { places, width, value }: FieldSetting): void => {
  for (let i = 0; i < places.length; i++) {
    const { header, bit } = places[i]!
    const at = headerAt(header, frame)
    if (at < 0) continue
    setBits(frame.arena.bytes, at * 8 + bit, width, value)
    return
  }
}

const hasUdpWithoutChecksum = ({ key, arena }: ArrivedFrame): boolean =>
  key.protocol === IpProtocol.UDP && key.l4 >= 0 && arena.view.getUint16(key.l4 + 6) === 0

const setAll = (frame: ArrivedFrame, settings: readonly FieldSetting[]): void => {
  const { key, arena } = frame
  // a wrong checksum stays wrong
  const isL3Right = isL3Ok(key, arena)
  const isL4Right = isL4Ok(key, arena) && !hasUdpWithoutChecksum(frame)
  for (let i = 0; i < settings.length; i++) set(frame, settings[i]!)
  if (isL3Right) putL3(key, arena)
  if (isL4Right) putL4(key, arena)
  readKey(key, arena, frame.at, frame.length)
}

/** Lengths and checksums of headers that were put on. */
const completeOuter = (frame: ArrivedFrame): void => {
  const { arena, key, at, length } = frame
  const { view } = arena
  const end = at + length
  // the lengths of before are those of the program's header: the key is that of a cut datagram
  if (key.ip >= 0) {
    if (key.isIpv4 && key.ip + IPV4_BYTES <= end) view.setUint16(key.ip + 2, end - key.ip)
    else if (!key.isIpv4 && key.ip + IPV6_BYTES <= end) view.setUint16(key.ip + 4, end - key.ip - IPV6_BYTES)
    readKey(key, arena, at, length)
  }
  if (key.protocol === IpProtocol.UDP && key.l4 >= 0 && key.l4 + UDP_BYTES <= end) {
    view.setUint16(key.l4 + 4, end - key.l4)
    if (!hasUdpWithoutChecksum(frame)) putL4(key, arena)
  }
  putL3(key, arena)
  readKey(key, arena, at, length)
}

/**
 * Writes the changed frame into `to`. False: the frame does not have what is taken off, or gets too long; it is
 * dropped.
 */
export const applyEdits = (from: ArrivedFrame, to: ArrivedFrame, edits: FrameEdits): boolean => {
  const { takesOff, ethernet, settings, outer, dropsEthernet } = edits
  const { bytes } = to.arena
  let source = from.at
  let length = from.length
  if (takesOff) {
    if (from.key.inner < 0 || from.key.isInnerFrame !== (ethernet === undefined)) return false
    source = from.key.inner
    length = from.at + from.length - source
  } else if (dropsEthernet) {
    if (from.key.ip < 0) return false
    source = from.key.ip
    length = from.at + from.length - source
  }
  const prefix = ethernet ?? outer
  const prefixBytes = prefix === undefined ? 0 : prefix.length
  const total = prefixBytes + length
  if (total > MAX_FRAME_BYTES || total < ETHERNET_BYTES) return false
  bytes.set(from.arena.bytes.subarray(source, source + length), to.at + prefixBytes)
  if (prefix !== undefined) bytes.set(prefix, to.at)
  to.length = total
  to.headers = UNKNOWN_HEADERS
  readKey(to.key, to.arena, to.at, to.length)
  if (settings.length > 0) setAll(to, settings)
  if (outer !== undefined) completeOuter(to)
  return true
}
