/*
 * Writes packets of captures into a smaller capture: pcapng with nanoseconds, one interface for each of the source.
 * With a redactor, only RoCEv2 packets are written, as plain Ethernet frames without tags and tunnels: payloads,
 * private data, immediate data and operands are zero, and addresses are renamed, each the same everywhere. ICRCs that
 * were right are right for the new bytes.
 */
import { LinkType, PCAPNG_BYTE_ORDER, PcapngBlock, PcapngOption } from '../../spec/wire/captures.ts'
import { type BitField, headers, ICRC_BYTES } from '../../spec/wire/headers.ts'
import { CM_CLASS, cmMessages, GSI_QPN, MAD_BYTES } from '../../spec/wire/mad.ts'
import { opcodeByNumber, opcodeHeaderBytes } from '../../spec/wire/opcodes.ts'
import { isMulticastGid } from '../../transport/wire/address.ts'
import { arenaOver } from '../../transport/wire/arena.ts'
import { emitFrame } from '../../transport/wire/frame.ts'
import { makeFlow, sealIcrc, verifyIcrc } from '../../transport/wire/icrc.ts'
import { viewCm } from '../../transport/wire/mad/mad.ts'
import { checkPacket } from '../../transport/wire/packet.ts'
import type { AddressTable } from './addresses.ts'
import type { RawPacket } from './file.ts'
import { Kind } from './locate.ts'
import type { Located } from './located.ts'

const SNAP_LENGTH = 262_144
const ETHERNET_IPV4_UDP = 14 + 20 + 8
const ETHERNET_IPV6_UDP = 14 + 40 + 8
/** Offset of the MAD in a transport packet, and bytes of its header. */
const MAD_AT = 20
const MAD_HEADER_BYTES = 24
/** Headers with bytes of the program: zero in a redacted packet. */
const dataHeaders: readonly string[] = ['ImmDt', 'AtomicAckETH']

const block = (type: number, words: readonly number[], data: Uint8Array): Uint8Array => {
  const length = 12 + 4 * words.length + ((data.length + 3) & ~3)
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  for (const [i, word] of [type, length, ...words].entries()) view.setUint32(4 * i, word, true)
  bytes.set(data, 8 + 4 * words.length)
  view.setUint32(length - 4, length, true)
  return bytes
}

export class CaptureWriter {
  packets = 0
  /** Packets that a redacted capture does not have. */
  leftOut = 0
  readonly #write: (bytes: Uint8Array) => void
  readonly #redactor: CaptureRedactor | undefined
  /** Numbers of interfaces in the output, by number and link type in the source. */
  readonly #interfaces = new Map<string, number>()
  #lastFrame = 0

  /** `write` may keep the bytes. */
  constructor(write: (bytes: Uint8Array) => void, redactor?: CaptureRedactor) {
    this.#write = write
    this.#redactor = redactor
    write(block(PcapngBlock.SECTION, [PCAPNG_BYTE_ORDER, 1, 0xffff_ffff, 0xffff_ffff], new Uint8Array(0)))
  }

  #interface(number: number, linkType: number): number {
    const key = `${number}/${linkType}`
    const known = this.#interfaces.get(key)
    if (known !== undefined) return known
    const added = this.#interfaces.size
    this.#interfaces.set(key, added)
    // Times are in nanoseconds; then the end of the options.
    const option = new Uint8Array(12)
    const view = new DataView(option.buffer)
    view.setUint16(0, PcapngOption.IF_TSRESOL, true)
    view.setUint16(2, 1, true)
    option[4] = 9
    this.#write(block(PcapngBlock.INTERFACE, [linkType, SNAP_LENGTH], option))
    return added
  }

  /** A packet. A frame that has several is written as it is; with a redactor as these, if all were captured. */
  add(packet: RawPacket, located: Located, kind: number): void {
    const { arena, at, captured, length, linkType, seconds, nanoseconds } = packet
    const isSplit = this.#redactor !== undefined && !isCutFrame(located)
    if (!isSplit && packet.frame === this.#lastFrame) return
    this.#lastFrame = packet.frame
    const redacted = this.#redactor?.frameOf(packet, located, kind)
    if (this.#redactor !== undefined && redacted === undefined) {
      this.leftOut++
      return
    }
    const number = this.#interface(packet.interface, redacted === undefined ? linkType : LinkType.ETHERNET)
    const bytes = redacted?.bytes ?? arena.bytes.subarray(at, at + captured)
    const time = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds)
    const words = [number, Number(time >> 32n), Number(time & 0xffff_ffffn), bytes.length, redacted?.length ?? length]
    this.#write(block(PcapngBlock.ENHANCED_PACKET, words, bytes))
    this.packets++
  }
}

/** A frame with several packets that were not all captured: what it has is not known, only concluded. */
const isCutFrame = ({ parts, hasMore, joined, joinedCaptured }: Located): boolean =>
  (parts > 1 || hasMore) && joinedCaptured < joined

/** Bits of a field become zero. Only whole bytes: such are the fields here. */
const clear = (bytes: Uint8Array, at: number, [first, width]: BitField): void => {
  bytes.fill(0, at + (first >> 3), at + ((first + width) >> 3))
}

export class CaptureRedactor {
  readonly #addresses: AddressTable

  constructor(addresses: AddressTable) {
    this.#addresses = addresses
  }

  /** The address that stands for an address: 10.0.0.0/8, fd00::/8, or a group. */
  #renamed(number: number): Uint8Array {
    const address = new Uint8Array(16)
    const view = new DataView(address.buffer)
    const isGroup = isMulticastGid(this.#addresses.bytes(number))
    if (this.#addresses.isIpv4(number)) {
      view.setUint32(8, 0xffff)
      view.setUint32(12, (isGroup ? 0xef00_0000 : 0x0a00_0000) + number)
      return address
    }
    view.setUint16(0, isGroup ? 0xff0e : 0xfd00)
    view.setUint32(12, number)
    return address
  }

  #mac(number: number): Uint8Array {
    return Uint8Array.of(2, 0, number >> 24, number >> 16, number >> 8, number)
  }

  /** The redacted packet; `length`: its bytes on the wire. Undefined: no RoCEv2 packet. */
  frameOf(
    packet: RawPacket,
    located: Located,
    kind: number,
  ): { readonly bytes: Uint8Array; readonly length: number } | undefined {
    // Fragments have no ICRC, and number 0 stands for many addresses.
    if (kind !== Kind.ROCE_V2 || located.isFragment || located.source === 0 || located.destination === 0)
      return undefined
    const { at, sourcePort, destinationPort, dontFragment, identification, ecn, hopLimit } = located
    // Of a cut frame, the first packet without its ICRC, which could not be made right.
    const [length, captured] = isCutFrame(located)
      ? [located.joined, Math.min(located.captured, located.length - ICRC_BYTES)]
      : [located.length, located.captured]
    const original = packet.arena.bytes.subarray(at, at + captured)
    const addresses = [located.source, located.destination].map(number => this.#addresses.bytes(number))
    const ports = { sourcePort, destinationPort, dontFragment }
    const isIntact =
      captured === length &&
      verifyIcrc(
        packet.arena,
        at,
        length,
        makeFlow({ source: addresses[0], destination: addresses[1], ...ports }),
        identification,
      )
    const payload = new Uint8Array(length)
    payload.set(original)
    this.#clearData(payload, captured)
    const [source, destination] = [located.source, located.destination].map(number => this.#renamed(number))
    if (isIntact) sealIcrc(arenaOver(payload), 0, length, makeFlow({ source, destination, ...ports }), identification)
    const fields = {
      destinationMac: this.#mac(located.destination),
      sourceMac: this.#mac(located.source),
      source,
      destination,
      sourcePort,
      destinationPort,
      trafficClass: ecn,
      hopLimit,
      payload,
    }
    const isIpv4 = located.ipVersion === 4
    const frame = emitFrame(
      isIpv4 ? { kind: 'ipv4', ...fields, identification, dontFragment } : { kind: 'ipv6', ...fields, flowLabel: 0 },
    )
    const end = (isIpv4 ? ETHERNET_IPV4_UDP : ETHERNET_IPV6_UDP) + captured
    return { bytes: frame.subarray(0, end), length: frame.length }
  }

  /** What programs wrote becomes zero, the ICRC stays. */
  #clearData(bytes: Uint8Array, captured: number): void {
    const end = Math.min(captured, bytes.length - ICRC_BYTES)
    const view = new DataView(bytes.buffer)
    const opcode = opcodeByNumber[bytes[0]]
    if (opcode === undefined || checkPacket(view, 0, bytes.length) !== 0) {
      bytes.fill(0, headers.BTH.bytes, end)
      return
    }
    let at: number = headers.BTH.bytes
    for (const name of opcode.headers) {
      if (dataHeaders.includes(name)) bytes.fill(0, at, at + headers[name].bytes)
      if (name === 'AtomicETH') {
        clear(bytes, at, headers.AtomicETH.fields.swapDt)
        clear(bytes, at, headers.AtomicETH.fields.cmpDt)
      }
      at += headers[name].bytes
    }
    if ((view.getUint32(4) & 0xff_ffff) === GSI_QPN && at === MAD_AT) this.#clearMad(bytes.subarray(at, end))
    else bytes.fill(0, opcodeHeaderBytes[bytes[0]], end)
  }

  /**
   * The connection manager's fields stay, without GUIDs, GIDs and private data; other datagrams have only their header.
   */
  #clearMad(mad: Uint8Array): void {
    // It may be cut.
    const whole = new Uint8Array(MAD_BYTES)
    whole.set(mad.subarray(0, MAD_BYTES))
    const message = mad[1] === CM_CLASS ? viewCm(whole) : undefined
    if (message === undefined) {
      mad.fill(0, MAD_HEADER_BYTES)
      return
    }
    const { fields, blobs } = cmMessages[message.name]
    for (const { offset, bytes } of Object.values(blobs)) mad.fill(0, offset, offset + bytes)
    if ('caGuid' in fields) clear(mad, 0, fields.caGuid)
  }
}
