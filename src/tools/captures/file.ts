/*
 * Reads capture files as a stream: pcap (both byte orders, microseconds and nanoseconds), pcapng (sections, interfaces,
 * packet blocks of all three kinds; other blocks are skipped) and ERF. Bytes go in, packets come out; of the file, only
 * what the next packet needs is in memory. A damaged file is read up to the damage, which `damage` then names.
 *
 * Times are seconds and nanoseconds since 1970: a double cannot hold both.
 */
import {
  ERF_MORE,
  ErfType,
  LinkType,
  PCAPNG_BYTE_ORDER,
  PcapngBlock,
  PcapngOption,
  pcapMagics,
} from '../../spec/wire/captures.ts'
import { type Arena, arenaOver } from '../../transport/wire/arena.ts'

/** A packet of the file. The reader uses one object for all packets: read it before the callback returns. */
export interface RawPacket {
  /** The packet's bytes are `captured` bytes from `at` on. */
  arena: Arena
  at: number
  captured: number
  /** Bytes on the wire. */
  length: number
  /** LINKTYPE_… */
  linkType: number
  /** Number of the interface in the file, from 0. */
  interface: number
  /** Since 1970. */
  seconds: number
  nanoseconds: number
  /** False: a packet without a time (pcapng's simple packet block). */
  hasTime: boolean
  /** Where the capturing host saw it, if the file says. */
  direction: 'received' | 'sent' | undefined
  /** From 1, as Wireshark counts. */
  frame: number
  /** Offset of the packet's record in the file. */
  offset: number
}

interface CaptureInterface {
  readonly linkType: number
  readonly name?: string
}

/** Where and why the file could not be read further. */
export interface CaptureDamage {
  /** Of the first byte that is not part of a whole packet. */
  readonly offset: number
  /** What is wrong there, as text for people. */
  readonly reason: string
}

interface Interface extends CaptureInterface {
  readonly snapLength: number
  /** Units per second as a power of 10, or, with `isBinary`, of 2. */
  readonly exponent: number
  readonly isBinary: boolean
  readonly secondsAdded: number
}

/** The largest record: jumbo frames have 9 KiB, coalesced ones 64 KiB; Wireshark refuses packets above 256 KiB. */
const MAX_RECORD = 16 << 20
const FIRST_BUFFER = 1 << 20
const PCAP_HEADER = 24
const ERF_HEADER = 16
/** Records that are looked at before a file counts as ERF. */
const ERF_CHECKED = 3
/** Bytes that tell whether a file is ERF. */
export const ERF_START = ERF_CHECKED * 0xffff
/** Bytes by which a record may be longer than its packet: a frame check sequence, and padding to 8 bytes. */
const ERF_SLACK = 16
/** Seconds between the first records of a file. */
const ERF_SPAN = 366 * 86_400
const NANOSECONDS = 1_000_000_000n
/** A hostile file may declare any number. */
const MAX_INTERFACES = 65_536

const ethernetErf: readonly number[] = [
  ErfType.ETHERNET,
  ErfType.COLOR_ETHERNET,
  ErfType.DSM_COLOR_ETHERNET,
  ErfType.COLOR_HASH_ETHERNET,
]
const knownErf: readonly number[] = Object.values(ErfType)

/**
 * Whether a file begins as ERF does. It has no mark: types, lengths and times of the first records must fit, and one
 * must be whole, so that text and random bytes are no ERF. Undefined: `bytes` are too few to tell; never if they are
 * the whole file (`isAll`).
 */
export const startsErf = (bytes: Uint8Array, isAll: boolean): boolean | undefined => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let firstSeconds: number | undefined
  for (let at = 0, record = 0; record < ERF_CHECKED; record++) {
    const left = bytes.length - at
    if (left < ERF_HEADER) return isAll ? record > 0 : undefined
    const type = view.getUint8(at + 8) & 0x7f
    const size = view.getUint16(at + 10)
    if (!knownErf.includes(type) || size < ERF_HEADER) return false
    if (type !== ErfType.PAD) {
      const seconds = view.getUint32(at + 4, true)
      firstSeconds ??= seconds
      if (Math.abs(seconds - firstSeconds) > ERF_SPAN) return false
    } else if (record === 0) return false // '0' of a text
    if (left < size) return isAll ? record > 0 : undefined
    if (type !== ErfType.PAD && type !== ErfType.META) {
      const payload = erfPayload(view, at, at + size)
      if (payload === undefined || at + size - payload.at > payload.length + ERF_SLACK) return false
    }
    at += size
  }
  return true
}

export class CaptureReader {
  /** pcap, pcapng or ERF; undefined before the first 16 bytes. */
  format: 'pcap' | 'pcapng' | 'ERF' | undefined
  damage: CaptureDamage | undefined
  /** Of all sections. */
  readonly interfaces: CaptureInterface[] = []
  packets = 0
  /** Packets whose record is in the file without all of the packet's bytes. */
  cut = 0
  /** pcapng's comments of packets and sections. */
  comments = 0

  readonly #onPacket: (packet: RawPacket) => void
  readonly #packet: RawPacket
  #arena: Arena
  /** Unread bytes: from `#from` to `#to` of the arena. */
  #from = 0
  #to = 0
  /** Offset in the file of the arena's first byte. */
  #offset = 0
  #isLittleEndian = true
  #unit = 1
  #headerBytes = 16
  #section: Interface[] = []
  /** The number in `interfaces` of the section's first interface. */
  #firstInterface = 0

  constructor(onPacket: (packet: RawPacket) => void) {
    this.#onPacket = onPacket
    this.#arena = arenaOver(new Uint8Array(FIRST_BUFFER))
    this.#packet = {
      arena: this.#arena,
      at: 0,
      captured: 0,
      length: 0,
      linkType: 0,
      interface: 0,
      seconds: 0,
      nanoseconds: 0,
      hasTime: true,
      direction: undefined,
      frame: 0,
      offset: 0,
    }
  }

  /** Bytes of the file that were read. */
  get bytes(): number {
    return this.#offset + this.#to
  }

  /** The next bytes of the file. Ignored after damage. */
  push(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length && this.damage === undefined; ) {
      if (this.#to === this.#arena.bytes.length) this.#makeRoom()
      const count = Math.min(bytes.length - done, this.#arena.bytes.length - this.#to)
      this.#arena.bytes.set(bytes.subarray(done, done + count), this.#to)
      this.#to += count
      done += count
      this.#read()
    }
  }

  /** The bytes end here for a reason of their own, for example damaged compression. */
  fail(reason: string): void {
    this.damage ??= { offset: this.bytes, reason }
  }

  /** The file has no more bytes. */
  end(): void {
    if (this.damage !== undefined) return
    if (this.format === undefined) this.#read(true)
    if (this.damage !== undefined) return
    const left = this.#to - this.#from
    if (this.format === undefined)
      this.#damaged(
        left === 0
          ? 'the file is empty'
          : left < ERF_HEADER
            ? `not a capture file: it has ${left} bytes, and begins with none of the known marks`
            : `a pcap file that ends within its header, after ${left} bytes`,
      )
    else if (left > 0) this.#damaged(`the file ends within a record, after ${left} of its bytes`)
  }

  /** Moves the unread bytes to the front, and doubles a full buffer. */
  #makeRoom(): void {
    const { bytes } = this.#arena
    const left = this.#to - this.#from
    if (this.#from > 0) bytes.copyWithin(0, this.#from, this.#to)
    else {
      this.#arena = arenaOver(new Uint8Array(2 * bytes.length))
      this.#arena.bytes.set(bytes)
      this.#packet.arena = this.#arena
    }
    this.#offset += this.#from
    this.#from = 0
    this.#to = left
  }

  #damaged(reason: string): void {
    this.damage = { offset: this.#offset + this.#from, reason }
  }

  #u32(at: number): number {
    return this.#arena.view.getUint32(at, this.#isLittleEndian)
  }

  #u16(at: number): number {
    return this.#arena.view.getUint16(at, this.#isLittleEndian)
  }

  /** Reads all complete records. `isAll`: the file has no more bytes. */
  #read(isAll = false): void {
    if (this.format === undefined && !this.#readStart(isAll)) return
    const readRecord =
      this.format === 'pcap' ? this.#readPcap : this.format === 'pcapng' ? this.#readBlock : this.#readErf
    while (this.damage === undefined) {
      const size = readRecord.call(this, this.#from, this.#to - this.#from)
      if (size === 0) return
      this.#from += size
    }
  }

  /** Finds out the format. False: more bytes are needed, or it is none. */
  #readStart(isAll: boolean): boolean {
    const { view, bytes } = this.#arena
    if (this.#to < ERF_HEADER) return false
    const magic = view.getUint32(0)
    const pcap = pcapMagics.get(magic)
    const hasOrder = [true, false].some(isLittle => view.getUint32(8, isLittle) === PCAPNG_BYTE_ORDER)
    if (magic === PcapngBlock.SECTION && hasOrder) this.format = 'pcapng'
    else if (pcap !== undefined) {
      if (this.#to < PCAP_HEADER) return false
      this.#isLittleEndian = pcap.isLittleEndian
      this.#unit = pcap.unit
      this.#headerBytes = pcap.headerBytes
      this.format = 'pcap'
      // The upper bits say whether frames have a check sequence.
      this.interfaces.push({ linkType: this.#u32(20) & 0xffff })
      this.#from = PCAP_HEADER
    } else {
      const isErf = startsErf(bytes.subarray(0, this.#to), isAll)
      if (isErf === undefined) return false
      if (isErf) {
        this.format = 'ERF'
        this.interfaces.push({ linkType: LinkType.ETHERNET })
        return true
      }
      this.#damaged(`neither a pcap, a pcapng nor an ERF file: it begins with 0x${magic.toString(16).padStart(8, '0')}`)
      return false
    }
    return true
  }

  #emit(at: number, captured: number, length: number, linkType: number, index: number): void {
    const packet = this.#packet
    packet.at = at
    packet.captured = captured
    packet.length = length
    packet.linkType = linkType
    packet.interface = index
    packet.frame = ++this.packets
    packet.offset = this.#offset + this.#from
    if (captured < length) this.cut++
    this.#onPacket(packet)
  }

  /** Each of these returns the bytes of the record at `at`, of which `left` bytes are there; 0: not complete yet. */
  #readPcap(at: number, left: number): number {
    const header = this.#headerBytes
    if (left < header) return 0
    const captured = this.#u32(at + 8)
    if (captured > MAX_RECORD) {
      this.#damaged(`a packet of ${captured} bytes`)
      return 0
    }
    if (left < header + captured) return 0
    const packet = this.#packet
    packet.seconds = this.#u32(at)
    packet.nanoseconds = this.#u32(at + 4) * this.#unit
    packet.hasTime = true
    packet.direction = undefined
    this.#emit(at + header, captured, Math.max(captured, this.#u32(at + 12)), this.interfaces[0].linkType, 0)
    return header + captured
  }

  #readErf(at: number, left: number): number {
    if (left < ERF_HEADER) return 0
    const { view } = this.#arena
    const size = view.getUint16(at + 10)
    if (size < ERF_HEADER) {
      this.#damaged(`an ERF record of ${size} bytes`)
      return 0
    }
    if (left < size) return 0
    const packet = this.#packet
    packet.seconds = view.getUint32(at + 4, true)
    packet.nanoseconds = Math.floor((view.getUint32(at, true) * 1e9) / 2 ** 32)
    packet.hasTime = true
    packet.direction = undefined
    const payload = erfPayload(view, at, at + size)
    if (payload !== undefined)
      this.#emit(
        payload.at,
        Math.min(payload.length, at + size - payload.at),
        payload.length,
        payload.linkType,
        view.getUint8(at + 9) & 3,
      )
    return size
  }

  #readBlock(at: number, left: number): number {
    if (left < 12) return 0
    const { view } = this.#arena
    const isSection = view.getUint32(at) === PcapngBlock.SECTION
    if (isSection) {
      this.#isLittleEndian = view.getUint32(at + 8) !== PCAPNG_BYTE_ORDER
      if (this.#u32(at + 8) !== PCAPNG_BYTE_ORDER) {
        this.#damaged('a section without the byte-order magic')
        return 0
      }
    }
    const size = this.#u32(at + 4)
    if (size < 12 || size % 4 !== 0 || size > MAX_RECORD) {
      this.#damaged(`a block of ${size} bytes`)
      return 0
    }
    if (left < size) return 0
    const type = this.#u32(at)
    const end = at + size - 4
    let fault: string | undefined
    if (isSection) {
      this.#section = []
      this.#firstInterface = this.interfaces.length
    } else if (type === PcapngBlock.INTERFACE) fault = this.#readInterface(at, end)
    else if (type === PcapngBlock.ENHANCED_PACKET || type === PcapngBlock.PACKET)
      fault = this.#readEnhanced(at, end, type)
    else if (type === PcapngBlock.SIMPLE_PACKET) fault = this.#readSimple(at, end)
    if (fault !== undefined) {
      this.#damaged(fault)
      return 0
    }
    return size
  }

  #readInterface(at: number, end: number): string | undefined {
    if (end < at + 16) return 'an interface block that is too short'
    if (this.interfaces.length >= MAX_INTERFACES) return `more than ${MAX_INTERFACES} interfaces`
    let exponent = 6
    let isBinary = false
    let secondsAdded = 0
    let name: string | undefined
    this.#forOptions(at + 16, end, (code, from, length) => {
      const { view, bytes } = this.#arena
      if (code === PcapngOption.IF_TSRESOL && length === 1) {
        const value = view.getUint8(from)
        isBinary = (value & 0x80) !== 0
        exponent = value & 0x7f
      } else if (code === PcapngOption.IF_TSOFFSET && length === 8)
        secondsAdded = Number(view.getBigInt64(from, this.#isLittleEndian))
      else if (code === PcapngOption.IF_NAME) name = new TextDecoder().decode(bytes.subarray(from, from + length))
    })
    const linkType = this.#u16(at + 8)
    this.#section.push({ linkType, snapLength: this.#u32(at + 12), exponent, isBinary, secondsAdded })
    this.interfaces.push({ linkType, ...(name !== undefined && { name }) })
    return undefined
  }

  #forOptions(from: number, end: number, use: (code: number, from: number, length: number) => void): void {
    for (let at = from; at + 4 <= end; ) {
      const code = this.#u16(at)
      const length = this.#u16(at + 2)
      if (code === PcapngOption.END || at + 4 + length > end) return
      use(code, at + 4, length)
      at += 4 + ((length + 3) & ~3)
    }
  }

  #setTime(high: number, low: number, { exponent, isBinary, secondsAdded }: Interface): void {
    const packet = this.#packet
    packet.hasTime = true
    if (!isBinary && (exponent === 9 || exponent === 6)) {
      // Exact: a remainder of doubles is. What remains is a multiple of `perSecond`, but may not be a double.
      const perSecond = exponent === 9 ? 1e9 : 1e6
      const units64 = high * 2 ** 32
      const rest = units64 % perSecond
      const highSeconds = Math.round((units64 - rest) / perSecond)
      const units = rest + low
      packet.seconds = highSeconds + Math.floor(units / perSecond) + secondsAdded
      packet.nanoseconds = (units % perSecond) * (1e9 / perSecond)
      return
    }
    const units = (BigInt(high) << 32n) | BigInt(low)
    const nanoseconds = (units * NANOSECONDS) / (isBinary ? 1n << BigInt(exponent) : 10n ** BigInt(exponent))
    packet.seconds = Number(nanoseconds / NANOSECONDS) + secondsAdded
    packet.nanoseconds = Number(nanoseconds % NANOSECONDS)
  }

  #readEnhanced(at: number, end: number, type: number): string | undefined {
    if (end < at + 28) return 'a packet block that is too short'
    const index = type === PcapngBlock.PACKET ? this.#u16(at + 8) : this.#u32(at + 8)
    const source = this.#section[index]
    const captured = this.#u32(at + 20)
    if (source === undefined) return `a packet of interface ${index}, which the section does not describe`
    if (at + 28 + captured > end) return `a packet of ${captured} bytes in a block of ${end + 4 - at}`
    this.#setTime(this.#u32(at + 12), this.#u32(at + 16), source)
    this.#packet.direction = undefined
    const options = at + 28 + ((captured + 3) & ~3)
    if (options < end && type === PcapngBlock.ENHANCED_PACKET)
      this.#forOptions(options, end, (code, from, length) => {
        if (code === PcapngOption.COMMENT) this.comments++
        else if (code === PcapngOption.EPB_FLAGS && length === 4) {
          const bits = this.#u32(from) & 3
          this.#packet.direction = bits === 1 ? 'received' : bits === 2 ? 'sent' : undefined
        }
      })
    const length = Math.max(captured, this.#u32(at + 24))
    this.#emit(at + 28, captured, length, source.linkType, this.#firstInterface + index)
    return undefined
  }

  #readSimple(at: number, end: number): string | undefined {
    const source = this.#section[0]
    if (source === undefined) return 'a packet, and no interface'
    if (end < at + 12) return 'a packet block that is too short'
    const length = this.#u32(at + 8)
    const captured = Math.min(length, source.snapLength || length)
    if (at + 12 + captured > end) return `a packet of ${captured} bytes in a block of ${end + 4 - at}`
    this.#packet.hasTime = false
    this.#packet.seconds = 0
    this.#packet.nanoseconds = 0
    this.#packet.direction = undefined
    this.#emit(at + 12, captured, length, source.linkType, this.#firstInterface)
    return undefined
  }
}

/**
 * What an ERF record from `at` to `end` contains: where, how many bytes on the wire, and of which link type. Undefined:
 * a record that is no packet.
 */
export const erfPayload = (
  view: DataView,
  at: number,
  end: number,
): { readonly at: number; readonly length: number; readonly linkType: number } | undefined => {
  if (end < at + ERF_HEADER) return undefined
  const type = view.getUint8(at + 8)
  let from = at + ERF_HEADER
  for (let more = type; (more & ERF_MORE) !== 0; from += 8) {
    if (from + 8 > end) return undefined
    more = view.getUint8(from)
  }
  const length = view.getUint16(at + 14)
  const kind = type & 0x7f
  if (ethernetErf.includes(kind)) {
    // Two bytes, offset and pad, before the frame; four bytes of check sequence after it, which count.
    return from + 2 > end ? undefined : { at: from + 2, length: Math.max(0, length - 4), linkType: LinkType.ETHERNET }
  }
  if (kind === ErfType.INFINIBAND) return { at: from, length, linkType: LinkType.INFINIBAND }
  if (kind === ErfType.IPV4 || kind === ErfType.IPV6) return { at: from, length, linkType: LinkType.RAW }
  return undefined
}

/** A packet of a whole file in memory. */
export interface CapturedPacket {
  /** Nanoseconds since 1970; undefined for packets without a time. */
  readonly time?: bigint
  /** LINKTYPE_…, for example 1 for Ethernet. */
  readonly linkType: number
  /** A copy. It can have fewer bytes than `length`. */
  readonly bytes: Uint8Array
  /** Bytes of the packet on the wire. */
  readonly length: number
}

/** A packet of the reader as a record that stays. */
export const keepPacket = (packet: RawPacket): CapturedPacket => ({
  ...(packet.hasTime && { time: BigInt(packet.seconds) * NANOSECONDS + BigInt(packet.nanoseconds) }),
  linkType: packet.linkType,
  bytes: packet.arena.bytes.slice(packet.at, packet.at + packet.captured),
  length: packet.length,
})

/** The packets of a file in memory, up to the first damage. */
export const packetsOf = (file: Uint8Array): { packets: CapturedPacket[]; damage: CaptureDamage | undefined } => {
  const packets: CapturedPacket[] = []
  const reader = new CaptureReader(packet => packets.push(keepPacket(packet)))
  reader.push(file)
  reader.end()
  return { packets, damage: reader.damage }
}
