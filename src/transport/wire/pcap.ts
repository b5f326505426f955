/*
 * Reads capture files, for tests and tools: pcap (both byte orders, microseconds and nanoseconds) and pcapng (sections,
 * interfaces, enhanced and simple packet blocks; other blocks are skipped). Formats: draft-ietf-opsawg-pcap and
 * draft-ietf-opsawg-pcapng.
 */

export interface CapturedPacket {
  /** Nanoseconds since 1970; undefined for packets without a time (simple packet blocks). */
  readonly time?: bigint
  /** LINKTYPE_…, for example 1 for Ethernet. */
  readonly linkType: number
  /** A view of the file. It can have fewer bytes than `length`. */
  readonly bytes: Uint8Array
  /** Bytes of the packet on the wire. */
  readonly length: number
}

interface Interface {
  readonly linkType: number
  /** Maximum captured bytes of a packet; 0: no limit. */
  readonly snapLength: number
  readonly unitsPerSecond: bigint
  /** Nanoseconds that are added to times. */
  readonly timeOffset: bigint
}

const NANOSECONDS = 1_000_000_000n

export const PcapngBlock = { SECTION: 0x0a0d_0d0a, INTERFACE: 1, SIMPLE_PACKET: 3, ENHANCED_PACKET: 6 } as const
const { SECTION, INTERFACE, SIMPLE_PACKET, ENHANCED_PACKET } = PcapngBlock
/** The byte-order magic in a section header block. */
export const BYTE_ORDER = 0x1a2b_3c4d
/** Options of an interface: if_tsresol and if_tsoffset. */
const OPTION_TIME_RESOLUTION = 9
const OPTION_TIME_OFFSET = 14

/** Bytes of pcap's file header and packet header. */
const FILE_HEADER = 24
const PACKET_HEADER = 16

/** By pcap's first four bytes, read big-endian: byte order, and nanoseconds per unit of fractional time. */
const pcapMagics = new Map([
  [0xa1b2_c3d4, { isLittleEndian: false, unit: 1000n }],
  [0xd4c3_b2a1, { isLittleEndian: true, unit: 1000n }],
  [0xa1b2_3c4d, { isLittleEndian: false, unit: 1n }],
  [0x4d3c_b2a1, { isLittleEndian: true, unit: 1n }],
])

const damaged = (at: number): Error => new Error(`the capture file ends or is damaged at byte ${at}`)

const readPcap = (file: Uint8Array, view: DataView, isLittleEndian: boolean, unit: bigint): CapturedPacket[] => {
  const packets: CapturedPacket[] = []
  const u32 = (at: number): number => view.getUint32(at, isLittleEndian)
  if (file.length < FILE_HEADER) throw damaged(file.length)
  const linkType = u32(20) & 0xffff
  for (let at = FILE_HEADER; at < file.length; ) {
    if (at + PACKET_HEADER > file.length) throw damaged(at)
    const capturedLength = u32(at + 8)
    const from = at + PACKET_HEADER
    if (from + capturedLength > file.length) throw damaged(at)
    const time = BigInt(u32(at)) * NANOSECONDS + BigInt(u32(at + 4)) * unit
    packets.push({ time, linkType, bytes: file.subarray(from, from + capturedLength), length: u32(at + 12) })
    at = from + capturedLength
  }
  return packets
}

/**
 * The options of an interface that set its times. if_tsresol n means 10^n units per second, or, if the top bit is set,
 * 2^n; absent: 10^6. if_tsoffset: seconds that are added; absent: 0.
 */
const timeOptions = (
  view: DataView,
  from: number,
  end: number,
  isLittleEndian: boolean,
): Pick<Interface, 'unitsPerSecond' | 'timeOffset'> => {
  const options = { unitsPerSecond: 1_000_000n, timeOffset: 0n }
  for (let at = from; at + 4 <= end; ) {
    const code = view.getUint16(at, isLittleEndian)
    const length = view.getUint16(at + 2, isLittleEndian)
    if (code === 0 || at + 4 + length > end) break
    if (code === OPTION_TIME_RESOLUTION && length === 1) {
      const exponent = view.getUint8(at + 4)
      options.unitsPerSecond = exponent & 0x80 ? 1n << BigInt(exponent & 0x7f) : 10n ** BigInt(exponent)
    } else if (code === OPTION_TIME_OFFSET && length === 8)
      options.timeOffset = view.getBigInt64(at + 4, isLittleEndian) * NANOSECONDS
    at += 4 + ((length + 3) & ~3)
  }
  return options
}

const readPcapng = (file: Uint8Array, view: DataView): CapturedPacket[] => {
  const packets: CapturedPacket[] = []
  let interfaces: Interface[] = []
  let isLittleEndian = true
  const u32 = (at: number): number => view.getUint32(at, isLittleEndian)
  for (let at = 0; at < file.length; ) {
    if (at + 12 > file.length) throw damaged(at)
    if (view.getUint32(at) === SECTION) {
      isLittleEndian = view.getUint32(at + 8) !== BYTE_ORDER
      if (u32(at + 8) !== BYTE_ORDER) throw damaged(at)
      interfaces = []
    }
    const type = u32(at)
    const size = u32(at + 4)
    const end = at + size - 4
    if (size < 12 || size % 4 !== 0 || at + size > file.length) throw damaged(at)
    if (type === INTERFACE) {
      if (end < at + 16) throw damaged(at)
      interfaces.push({
        linkType: view.getUint16(at + 8, isLittleEndian),
        snapLength: u32(at + 12),
        ...timeOptions(view, at + 16, end, isLittleEndian),
      })
    } else if (type === ENHANCED_PACKET) {
      if (end < at + 28) throw damaged(at)
      const source = interfaces[u32(at + 8)]
      const capturedLength = u32(at + 20)
      if (source === undefined || at + 28 + capturedLength > end) throw damaged(at)
      const units = (BigInt(u32(at + 12)) << 32n) | BigInt(u32(at + 16))
      const time = (units * NANOSECONDS) / source.unitsPerSecond + source.timeOffset
      const bytes = file.subarray(at + 28, at + 28 + capturedLength)
      packets.push({ time, linkType: source.linkType, bytes, length: u32(at + 24) })
    } else if (type === SIMPLE_PACKET) {
      const source = interfaces[0]
      if (source === undefined || end < at + 12) throw damaged(at)
      const length = u32(at + 8)
      const capturedLength = Math.min(length, source.snapLength || length)
      if (at + 12 + capturedLength > end) throw damaged(at)
      packets.push({ linkType: source.linkType, bytes: file.subarray(at + 12, at + 12 + capturedLength), length })
    }
    at += size
  }
  return packets
}

/** The packets of a pcap or pcapng file, in file order. Throws an Error for a damaged file or another format. */
export const readCapture = (file: Uint8Array): CapturedPacket[] => {
  if (file.length < 12) throw new Error(`not a capture file: it has ${file.length} bytes`)
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  const magic = view.getUint32(0)
  if (magic === SECTION) return readPcapng(file, view)
  const format = pcapMagics.get(magic)
  if (format === undefined) throw new Error(`neither a pcap nor a pcapng file: it begins with 0x${magic.toString(16)}`)
  return readPcap(file, view, format.isLittleEndian, format.unit)
}
