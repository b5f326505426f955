/*
 * Writes captures as pcapng (draft-ietf-opsawg-pcapng): a section header, an interface for each device, and enhanced
 * packet blocks. Packets of a port have no Ethernet, IP and UDP headers, or LRH, GRH and VCRC. These are built here
 * from the flow of the packet, with the values that the packet's ICRC covers; of RoCE v1 a GRH stands in place of IP
 * and UDP. Packets with LIDs are of an interface of their own, which is described before the first one: as records of
 * ERF of the type InfiniBand, because Wireshark (4.0) does not know LINKTYPE_INFINIBAND (247). The caller writes the
 * blocks to a file.
 */

import { ErfType, LinkType, PCAPNG_BYTE_ORDER, PcapngBlock } from '../../spec/wire/captures.ts'
import { ETHERNET_BYTES, EtherType, VLAN_BYTES } from '../../spec/wire/ethernet.ts'
import type { PacketFlow } from '../../spec/wire/flow.ts'
import { ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import { isMappedIpv4, isMulticastGid } from '../../transport/wire/address.ts'
import { emitFrame } from '../../transport/wire/frame.ts'
import { GRH_BYTES } from '../../transport/wire/ip.ts'
import { fabricHeaders, hasLids, isRoceV1, putGrh, VCRC_BYTES, vcrcOf } from '../../transport/wire/lrh.ts'

export interface PcapngOptions {
  /** Interface names, at least one. Packets refer to them by index. */
  readonly interfaces: readonly string[]
  /** The application that writes the file; default `userdma`. */
  readonly application?: string
}

export interface PcapngPacket {
  /** Index in `PcapngOptions.interfaces`. */
  readonly interface: number
  /** Microseconds since 1970; fractions are truncated. */
  readonly time: number
  readonly flow: PacketFlow
  /** The identification of the IPv4 header; unused for IPv6. */
  readonly identification: number
  /** The UDP payload: BTH to ICRC. */
  readonly payload: Uint8Array
  /** The first bytes of `payload` that were captured; absent: all. The file has no others. */
  readonly captured?: number
  readonly direction?: 'sent' | 'received'
  /** The VLAN of the frame; absent: it has no tag. */
  readonly vlan?: number | undefined
  /** A comment that Wireshark shows with the packet, at most 65,535 bytes in UTF-8. */
  readonly comment?: string
}

const { SECTION, INTERFACE, ENHANCED_PACKET } = PcapngBlock
/** Both addresses of an Ethernet header. */
const MAC_BYTES = 12
/** Maximum bytes of a packet in the file. */
const SNAP_LENGTH = 262144
/** Option codes of any block (OPT), section header (SHB), interface (IF) and enhanced packet (EPB). */
const OPT_COMMENT = 1
const SHB_USERAPPL = 4
const IF_NAME = 2
const IF_TSRESOL = 9
const EPB_FLAGS = 2
/** The direction in EPB_FLAGS. */
const DIRECTION = { received: 1, sent: 2 } as const

/**
 * An Ethernet address for an IP address: locally administered (02:00 for IPv4, 02:06 for IPv6), with the last four
 * bytes of the IP address. For a multicast address, the group address (RFC 1112, RFC 2464).
 */
export const macFor = (address: Uint8Array): Uint8Array => {
  const [a = 0, b = 0, c = 0, d = 0] = address.subarray(12)
  const isMulticast = isMulticastGid(address)
  if (isMappedIpv4(address))
    return isMulticast ? Uint8Array.of(0x01, 0x00, 0x5e, b & 0x7f, c, d) : Uint8Array.of(0x02, 0x00, a, b, c, d)
  return isMulticast ? Uint8Array.of(0x33, 0x33, a, b, c, d) : Uint8Array.of(0x02, 0x06, a, b, c, d)
}

/** LRH, perhaps GRH, the packet, and its VCRC. */
const fabricFrameOf = (flow: PacketFlow, payload: Uint8Array): Uint8Array => {
  const headers = fabricHeaders(flow, payload.length)
  const covered = headers.length + payload.length
  const frame = new Uint8Array(covered + VCRC_BYTES)
  frame.set(headers)
  frame.set(payload, headers.length)
  new DataView(frame.buffer).setUint16(covered, vcrcOf(frame.subarray(0, covered)), true)
  return frame
}

const roceV1FrameOf = (flow: PacketFlow, payload: Uint8Array): Uint8Array => {
  const frame = new Uint8Array(ETHERNET_BYTES + GRH_BYTES + payload.length)
  frame.set(macFor(flow.destination))
  frame.set(macFor(flow.source), 6)
  new DataView(frame.buffer).setUint16(12, EtherType.ROCE_V1)
  putGrh(frame, ETHERNET_BYTES, flow, payload.length)
  frame.set(payload, ETHERNET_BYTES + GRH_BYTES)
  return frame
}

const withTag = (frame: Uint8Array, vlan: number): Uint8Array => {
  const tagged = new Uint8Array(frame.length + VLAN_BYTES)
  tagged.set(frame.subarray(0, MAC_BYTES))
  const view = new DataView(tagged.buffer)
  view.setUint16(MAC_BYTES, EtherType.VLAN)
  view.setUint16(MAC_BYTES + 2, vlan)
  tagged.set(frame.subarray(MAC_BYTES), MAC_BYTES + VLAN_BYTES)
  return tagged
}

/** The Ethernet frame of a packet, or InfiniBand's packet. Throws a RangeError if a field does not fit a header. */
export const frameOf = (packet: Pick<PcapngPacket, 'flow' | 'identification' | 'payload' | 'vlan'>): Uint8Array => {
  const { flow, identification, payload, vlan } = packet
  if (vlan !== undefined) return withTag(frameOf({ flow, identification, payload }), vlan)
  if (hasLids(flow)) return fabricFrameOf(flow, payload)
  if (isRoceV1(flow)) return roceV1FrameOf(flow, payload)
  const { source, destination, sourcePort, trafficClass, hopLimit } = flow
  const fields = {
    destinationMac: macFor(destination),
    sourceMac: macFor(source),
    source,
    destination,
    sourcePort,
    destinationPort: ROCE_UDP_PORT,
    trafficClass,
    hopLimit,
    payload,
  }
  return emitFrame(
    isMappedIpv4(source)
      ? { kind: 'ipv4', ...fields, identification: identification & 0xffff, dontFragment: true }
      : { kind: 'ipv6', ...fields, flowLabel: flow.flowLabel },
  )
}

/** A length rounded up to a multiple of four. */
const pad4 = (length: number): number => (length + 3) & ~3
const utf8 = new TextEncoder()

type Option = readonly [code: number, value: Uint8Array]
/** The length of an option has 16 bits. */
const MAX_OPTION_BYTES = 0xffff

/** A block: type, length, 32-bit words, data and options, each padded to four bytes, and the length again. */
const block = (type: number, words: readonly number[], data: Uint8Array, options: readonly Option[]): Uint8Array => {
  const optionBytes = options.reduce((sum, [, value]) => sum + 4 + pad4(value.length), 0)
  const length = 12 + 4 * words.length + pad4(data.length) + (options.length > 0 ? optionBytes + 4 : 0)
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, type, true)
  view.setUint32(4, length, true)
  let at = 8
  for (const word of words) {
    view.setUint32(at, word, true)
    at += 4
  }
  bytes.set(data, at)
  at += pad4(data.length)
  for (const [code, value] of options) {
    if (value.length > MAX_OPTION_BYTES)
      throw new RangeError(`a pcapng option has ${value.length} bytes, allowed are ${MAX_OPTION_BYTES}`)
    view.setUint16(at, code, true)
    view.setUint16(at + 2, value.length, true)
    bytes.set(value, at + 4)
    at += 4 + pad4(value.length)
  }
  // Four zero bytes before this length end the options, if there are any.
  view.setUint32(length - 4, length, true)
  return bytes
}

/** Bytes of an ERF record's header, and its flag for records of any length. */
const ERF_BYTES = 16
const ERF_VARYING = 4

/**
 * The header of an ERF record with a packet of InfiniBand, of which `captured` of `length` bytes follow. `time`:
 * microseconds.
 */
const erfHeader = (time: number, captured: number, length: number): Uint8Array => {
  const header = new Uint8Array(ERF_BYTES)
  const view = new DataView(header.buffer)
  view.setUint32(0, ((time % 1e6) / 1e6) * 2 ** 32, true)
  view.setUint32(4, time / 1e6, true)
  header[8] = ErfType.INFINIBAND
  header[9] = ERF_VARYING
  view.setUint16(10, ERF_BYTES + captured)
  view.setUint16(14, length)
  return header
}

const joined = (a: Uint8Array, b: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(a.length + b.length)
  bytes.set(a)
  bytes.set(b, a.length)
  return bytes
}

const NO_DATA = new Uint8Array(0)
/** IF_TSRESOL: times are in 10^-6 seconds. */
const MICROSECONDS = Uint8Array.of(6)

/**
 * Starts a capture: writes the section header and the interfaces. Returns a function that writes a packet. Both throw a
 * RangeError for a value that does not fit. `write` may keep the array of each block.
 */
export const createPcapng = (
  write: (bytes: Uint8Array) => void,
  options: PcapngOptions,
): ((packet: PcapngPacket) => void) => {
  const { interfaces, application = 'userdma' } = options
  // Version 1.0, and −1 in 64 bits: unknown section length.
  write(
    block(SECTION, [PCAPNG_BYTE_ORDER, 1, 0xffffffff, 0xffffffff], NO_DATA, [[SHB_USERAPPL, utf8.encode(application)]]),
  )
  let described = 0
  const describe = (name: string, linkType: number): number => {
    write(
      block(INTERFACE, [linkType, SNAP_LENGTH], NO_DATA, [
        [IF_NAME, utf8.encode(name)],
        [IF_TSRESOL, MICROSECONDS],
      ]),
    )
    return described++
  }
  for (const name of interfaces) describe(name, LinkType.ETHERNET)
  /** Interfaces for packets with LIDs, by those of `interfaces`. */
  const fabrics = new Map<number, number>()
  const interfaceOf = ({ interface: given, flow }: PcapngPacket): number => {
    if (!hasLids(flow)) return given
    const number = fabrics.get(given) ?? describe(interfaces[given]!, LinkType.ERF)
    fabrics.set(given, number)
    return number
  }
  return packet => {
    const { time, direction, comment, payload, captured = payload.length } = packet
    if (interfaces[packet.interface] === undefined)
      throw new RangeError(`interface ${packet.interface}: this capture has ${interfaces.length}, counted from 0`)
    const frame = frameOf(packet)
    const cut = payload.length - captured
    // what is cut off ends with the VCRC
    const tail = cut > 0 && hasLids(packet.flow) ? VCRC_BYTES : 0
    const capturedFrame = frame.subarray(0, frame.length - cut - tail)
    const packetOptions: Option[] = []
    if (comment !== undefined) packetOptions.push([OPT_COMMENT, utf8.encode(comment)])
    if (direction !== undefined) packetOptions.push([EPB_FLAGS, Uint8Array.of(DIRECTION[direction], 0, 0, 0)])
    const high = Math.floor(time / 2 ** 32)
    const low = Math.floor(time) % 2 ** 32
    const number = interfaceOf(packet)
    const header = hasLids(packet.flow) ? erfHeader(time, capturedFrame.length, frame.length) : NO_DATA
    const words = [number, high, low, header.length + capturedFrame.length, header.length + frame.length]
    const data = header.length === 0 ? capturedFrame : joined(header, capturedFrame)
    write(block(ENHANCED_PACKET, words, data, packetOptions))
  }
}
