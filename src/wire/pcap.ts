/*
 * Reads capture files: pcap (both byte orders, microseconds and nanoseconds) and pcapng (sections, interfaces, enhanced
 * and simple packet blocks; other blocks are skipped), as in the IETF drafts draft-ietf-opsawg-pcap and -pcapng. It
 * reads a whole file at once, for tests and tools, and does not parse the packets.
 */

export interface CapturedPacket {
  /** Nanoseconds since 1970; undefined for packets without a time (simple packet blocks). */
  readonly time?: bigint
  /** 1 is Ethernet. */
  readonly linkType: number
  /** The captured bytes, a view of the file. */
  readonly bytes: Uint8Array
  /** Its length on the wire. */
  readonly length: number
}

interface Interface {
  readonly linkType: number
  readonly snapLength: number
  readonly unitsPerSecond: bigint
}

const NANOSECONDS = 1_000_000_000n

/** Types of pcapng's blocks. */
export const PcapngBlock = { SECTION: 0x0a0d_0d0a, INTERFACE: 1, SIMPLE_PACKET: 3, ENHANCED_PACKET: 6 } as const
const { SECTION, INTERFACE, SIMPLE_PACKET, ENHANCED_PACKET } = PcapngBlock
/** In a section's header: tells the order of its bytes. */
export const BYTE_ORDER = 0x1a2b_3c4d
const OPTION_TIME_RESOLUTION = 9

const pcapMagics = new Map([
  [0xa1b2_c3d4, { little: false, unit: 1000n }],
  [0xd4c3_b2a1, { little: true, unit: 1000n }],
  [0xa1b2_3c4d, { little: false, unit: 1n }],
  [0x4d3c_b2a1, { little: true, unit: 1n }],
])

const damaged = (at: number): Error => new Error(`the capture file ends or is damaged at byte ${at}`)

const readPcap = (file: Uint8Array, view: DataView, little: boolean, unit: bigint): CapturedPacket[] => {
  const packets: CapturedPacket[] = []
  const u32 = (at: number): number => view.getUint32(at, little)
  if (file.length < 24) throw damaged(file.length)
  const linkType = u32(20) & 0xffff
  for (let at = 24; at < file.length; ) {
    if (at + 16 > file.length) throw damaged(at)
    const kept = u32(at + 8)
    const from = at + 16
    if (from + kept > file.length) throw damaged(at)
    const time = BigInt(u32(at)) * NANOSECONDS + BigInt(u32(at + 4)) * unit
    packets.push({ time, linkType, bytes: file.subarray(from, from + kept), length: u32(at + 12) })
    at = from + kept
  }
  return packets
}

/** The time unit of an interface: 10^-n, or 2^-n with the top bit set; microseconds by default. */
const unitsPerSecond = (view: DataView, from: number, end: number, little: boolean): bigint => {
  for (let at = from; at + 4 <= end; ) {
    const code = view.getUint16(at, little)
    const length = view.getUint16(at + 2, little)
    if (code === 0) break
    if (code === OPTION_TIME_RESOLUTION && at + 4 < end) {
      const exponent = view.getUint8(at + 4)
      return exponent & 0x80 ? 1n << BigInt(exponent & 0x7f) : 10n ** BigInt(exponent)
    }
    at += 4 + ((length + 3) & ~3)
  }
  return 1_000_000n
}

const readPcapng = (file: Uint8Array, view: DataView): CapturedPacket[] => {
  const packets: CapturedPacket[] = []
  let interfaces: Interface[] = []
  let little = true
  const u32 = (at: number): number => view.getUint32(at, little)
  for (let at = 0; at < file.length; ) {
    if (at + 12 > file.length) throw damaged(at)
    if (view.getUint32(at) === SECTION) {
      little = view.getUint32(at + 8) !== BYTE_ORDER
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
        linkType: view.getUint16(at + 8, little),
        snapLength: u32(at + 12),
        unitsPerSecond: unitsPerSecond(view, at + 16, end, little),
      })
    } else if (type === ENHANCED_PACKET) {
      if (end < at + 28) throw damaged(at)
      const from = interfaces[u32(at + 8)]
      const kept = u32(at + 20)
      if (from === undefined || at + 28 + kept > end) throw damaged(at)
      const ticks = (BigInt(u32(at + 12)) << 32n) | BigInt(u32(at + 16))
      const time = (ticks * NANOSECONDS) / from.unitsPerSecond
      const bytes = file.subarray(at + 28, at + 28 + kept)
      packets.push({ time, linkType: from.linkType, bytes, length: u32(at + 24) })
    } else if (type === SIMPLE_PACKET) {
      const from = interfaces[0]
      if (from === undefined || end < at + 12) throw damaged(at)
      const length = u32(at + 8)
      const kept = Math.min(length, from.snapLength || length)
      if (at + 12 + kept > end) throw damaged(at)
      packets.push({ linkType: from.linkType, bytes: file.subarray(at + 12, at + 12 + kept), length })
    }
    at += size
  }
  return packets
}

/** The packets of a pcap or pcapng file, in file order. Throws an Error for any other or a damaged file. */
export const readCapture = (file: Uint8Array): CapturedPacket[] => {
  if (file.length < 12) throw new Error(`not a capture file: it has ${file.length} bytes`)
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  const magic = view.getUint32(0)
  if (magic === SECTION) return readPcapng(file, view)
  const form = pcapMagics.get(magic)
  if (form === undefined) throw new Error(`neither a pcap nor a pcapng file: it begins with 0x${magic.toString(16)}`)
  return readPcap(file, view, form.little, form.unit)
}
