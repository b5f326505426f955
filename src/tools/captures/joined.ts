/*
 * Frames with several transport packets: a host's own capture sees what it has not yet segmented (GSO), or has joined
 * (GRO, an adapter). All packets of such a frame have the same size, but the last may be shorter, and there is one IP
 * and one UDP header; each packet has its ICRC, for the headers that it has on the wire, whose identifications count up
 * or are all the same.
 *
 * A frame is split where the next packet's BTH follows and the ICRC of a part is right. Of a cut frame, the BTHs that
 * were not captured are made from the last one that was: of packets with a full path MTU, which other packets have
 * shown.
 *
 * Most frames have one packet, and tell it by their length; only others are searched, and of the messages whose length
 * nothing tells those with a UDP checksum.
 */
import { headers, ICRC_BYTES } from '../../spec/wire/headers.ts'
import {
  headerAt,
  OP_FIRST,
  OP_MIDDLE,
  OP_ONLY,
  OP_PAYLOAD,
  OP_WRITE,
  opcodeByNumber,
  opcodeFlags,
  opcodeHeaderBytes,
  type Position,
  TRANSPORT_MASK,
  transportBits,
} from '../../spec/wire/opcodes.ts'
import { type Arena, arenaOver } from '../../transport/wire/arena.ts'
import { bthPadCount } from '../../transport/wire/bth.ts'
import { type Flow as IcrcFlow, makeFlow, verifyIcrc } from '../../transport/wire/icrc.ts'
import type { AddressTable } from './addresses.ts'
import type { RawPacket } from './file.ts'
import { isMtu } from './flows/flow.ts'
import type { Located } from './located.ts'

const BTH_BYTES = headers.BTH.bytes
/** BTH and ICRC. */
const SHORTEST = BTH_BYTES + ICRC_BYTES
/** The longest packet: all headers, 4096 bytes and pad. A longer frame cannot be one. */
const LONGEST = BTH_BYTES + 64 + 4096 + 3 + ICRC_BYTES
/** Places of a frame where a BTH seems to follow, and ICRCs are computed: a hostile frame has any number. */
const MAX_PLACES = 8
/** PSNs from one READ request of a frame to the next. */
const MAX_STEP = 1 << 16
/** The message's length in a RETH, and all of it. */
const DMA_LENGTH_AT = 12
const RETH_BYTES = headers.RETH.bytes
/** Entries of tables with the path MTU of flows, and with ICRCs' parts of headers. */
const MTUS = 1 << 14
const ICRC_FLOWS = 1 << 8

/**
 * By opcode: what the next packet of the frame is, as far as that can be guessed, and what it is if it is shorter; 0:
 * nobody knows. A message that begins behind the last packet of one is of the same kind, if that has no larger first
 * packet.
 */
const nextOf = new Uint8Array(256)
const shorterOf = new Uint8Array(256)
for (const opcode of opcodeByNumber) {
  if (opcode === undefined || !opcode.hasPayload) continue
  const like = opcodeByNumber.filter(
    other =>
      other !== undefined &&
      other.kind === opcode.kind &&
      other.role === opcode.role &&
      (other.opcode & TRANSPORT_MASK) === (opcode.opcode & TRANSPORT_MASK) &&
      !other.headers.includes('ImmDt') &&
      !other.headers.includes('IETH'),
  )
  const at = (position: Position): number => like.find(other => other?.position === position)?.opcode ?? 0
  if (opcode.position === 'only') nextOf[opcode.opcode] = shorterOf[opcode.opcode] = opcode.opcode
  else if (opcode.position !== 'last') {
    nextOf[opcode.opcode] = at('middle')
    shorterOf[opcode.opcode] = at('last')
  } else if (opcode.kind !== 'write') {
    nextOf[opcode.opcode] = at('first')
    shorterOf[opcode.opcode] = at('only')
  }
}

interface KnownIcrcFlow {
  readonly source: number
  readonly destination: number
  readonly sourcePort: number
  readonly destinationPort: number
  readonly dontFragment: boolean
  readonly flow: IcrcFlow
}

export class JoinedFrames {
  /** Frames with several packets, and their packets. */
  frames = 0
  packets = 0

  readonly #addresses: AddressTable
  /** A hash of a flow, and its path MTU. */
  readonly #mtus = new Int32Array(2 * MTUS)
  readonly #icrcFlows: (KnownIcrcFlow | undefined)[] = Array.from({ length: ICRC_FLOWS }, () => undefined)
  /** For BTHs that were not captured. */
  readonly #scratch: Arena = arenaOver(new Uint8Array(BTH_BYTES))
  // The frame that was split last: its arena, first packet and size of packets.
  #arena: Arena = this.#scratch
  #at = 0
  #size = 0
  #captured = 0
  #identification = 0
  #seen = 0
  /** Identifications from one packet to the next: 1, or 0. */
  #step = 1

  constructor(addresses: AddressTable) {
    this.#addresses = addresses
  }

  /** Finds the packets of a frame: writes `parts`, `length` and `captured` of the first. */
  split({ arena }: RawPacket, located: Located): void {
    const { at, joined: length, captured } = located
    if (length < 2 * SHORTEST || located.ipVersion === 0 || located.isFragment) return
    const { view } = arena
    const opcode = view.getUint8(at)
    const flags = opcodeFlags[opcode]
    if (flags === 0) return
    const header = opcodeHeaderBytes[opcode]
    if ((flags & OP_PAYLOAD) === 0) {
      if (length >= header + ICRC_BYTES + SHORTEST) this.#trySizes(arena, located, header + ICRC_BYTES)
      return
    }
    const payload = length - header - ICRC_BYTES - bthPadCount(view, at)
    if ((flags & (OP_FIRST | OP_MIDDLE)) !== 0) {
      const slot = this.#slotOf(view, located)
      const mtu = this.#mtus[slot + 1]
      if (mtu === payload) return
      const size = mtu === 0 || payload < mtu ? 0 : header + mtu + ICRC_BYTES
      const isLegal = isMtu(payload)
      // Cut, a packet with another path MTU is of another connection.
      const isOther = isLegal && (captured < length || !this.#trySizes(arena, located, size))
      if (isOther) this.#mtus[slot + 1] = payload
      else if (!isLegal) this.#trySizes(arena, located, size)
      return
    }
    const reth = headerAt.RETH[opcode]
    const isWrite = (flags & (OP_WRITE | OP_ONLY)) === (OP_WRITE | OP_ONLY)
    if (isWrite && captured >= reth + RETH_BYTES) {
      const bytes = view.getUint32(at + reth + DMA_LENGTH_AT)
      if (bytes < payload) this.#trySizes(arena, located, header + ((bytes + 3) & ~3) + ICRC_BYTES)
      return
    }
    if (captured < length) {
      const mtu = this.#mtus[this.#slotOf(view, located) + 1]
      // If the first packet is as long as the path MTU, the others' number is known, if not what they are.
      if (payload > (mtu || LONGEST))
        located.hasMore = !this.#trySizes(arena, located, mtu && header + mtu + ICRC_BYTES)
      return
    }
    // Linux joins only datagrams with a checksum, which most devices do not write.
    if (located.hasChecksum || length > LONGEST) this.#trySizes(arena, located, 0)
  }

  /** Where the path MTU of a flow is, behind the hash that says whose it is. */
  #slotOf(view: DataView, { at, source, destination }: Located): number {
    const qpn = view.getUint32(at + 4) & 0xff_ffff
    const mixed = Math.imul(source, 0x9e37_79b1) ^ Math.imul(destination, 0x85eb_ca6b) ^ Math.imul(qpn, 0xc2b2_ae35)
    const hash = mixed ^ (mixed >>> 15)
    const slot = 2 * (hash & (MTUS - 1))
    if (this.#mtus[slot] !== hash) {
      this.#mtus[slot] = hash
      this.#mtus[slot + 1] = 0
    }
    return slot
  }

  /** Splits into packets of `size` bytes, 0: not known, or of another size that is right. False: it is one packet. */
  #trySizes(arena: Arena, located: Located, size: number): boolean {
    const { captured, joined } = located
    const isCertain = captured < joined || joined > LONGEST
    const found = size > 0 && this.#isSize(arena, located, size) ? size : this.#search(arena, located)
    if (found === 0) return false
    // Bytes that a program has chosen may look like packets: the ICRC of the whole frame is right then.
    if (!isCertain && this.#isRight(arena, located, 0, joined, located.identification)) return false
    return this.#take(arena, located, found)
  }

  /** The size with which a BTH follows the first packet. */
  #search(arena: Arena, located: Located): number {
    const { bytes, view } = arena
    const { at, captured, joined } = located
    const next = (view.getUint8(at + 11) + 1) & 255
    const end = at + Math.min(joined - SHORTEST, captured - BTH_BYTES)
    let places = MAX_PLACES
    const first = at + Math.max(SHORTEST, opcodeHeaderBytes[view.getUint8(at)] + ICRC_BYTES)
    for (let to = first; to <= end; to += 4) {
      // The lowest byte of the PSN.
      if (bytes[to + 11] !== next || !this.#follows(view, at, to, 1)) continue
      if (this.#isSize(arena, located, to - at)) return to - at
      if (--places === 0) return 0
    }
    return 0
  }

  /** Whether the BTH at `to` can be that of the packet `number` after the one at `at`. */
  #follows(view: DataView, at: number, to: number, number: number): boolean {
    const flags = opcodeFlags[view.getUint8(to)]
    if (flags === 0 || view.getUint16(to + 2) !== view.getUint16(at + 2)) return false
    const opcode = view.getUint8(at)
    if (((view.getUint8(to) ^ opcode) & TRANSPORT_MASK) !== 0) return false
    // Datagrams of one queue pair go to several.
    const isSameQp = ((view.getUint32(to + 4) ^ view.getUint32(at + 4)) & 0xff_ffff) === 0
    if (!isSameQp && (opcode & TRANSPORT_MASK) !== transportBits.UD) return false
    const step = (view.getUint32(to + 8) - view.getUint32(at + 8)) & 0xff_ffff
    // READ requests count by their responses, acknowledgements by what they acknowledge.
    return (opcodeFlags[opcode] & OP_PAYLOAD) !== 0 ? step === number : step < number * MAX_STEP
  }

  /** Whether packets of `size` bytes are what the frame has: a BTH follows, and the ICRC of a whole part is right. */
  #isSize(arena: Arena, located: Located, size: number): boolean {
    const { view } = arena
    const { at, captured, joined, identification } = located
    const rest = joined - Math.floor((joined - 1) / size) * size
    if (joined < size + SHORTEST || rest < SHORTEST || (rest & 3) !== 0 || (size & 3) !== 0) return false
    if (size + BTH_BYTES > captured) return captured < joined
    if (!this.#follows(view, at, at + size, 1)) return false
    const second = Math.min(size, joined - size)
    this.#step = 1
    if (size + second > captured) return this.#isRight(arena, located, 0, size, identification)
    if (this.#isRight(arena, located, size, second, identification + 1)) return true
    if (located.ipVersion === 4 && this.#isRight(arena, located, size, second, identification)) {
      this.#step = 0
      return true
    }
    return this.#isRight(arena, located, 0, size, identification)
  }

  /** Whether the ICRC of `length` bytes from `from` on is right. */
  #isRight(arena: Arena, located: Located, from: number, length: number, identification: number): boolean {
    const { source, destination, sourcePort, destinationPort, dontFragment } = located
    // Number 0 has no address of its own.
    if (source === 0 || destination === 0) return false
    const slot = (Math.imul(source, 31) + Math.imul(destination, 17) + sourcePort) & (ICRC_FLOWS - 1)
    let known = this.#icrcFlows[slot]
    if (
      known?.source !== source ||
      known.destination !== destination ||
      known.sourcePort !== sourcePort ||
      known.destinationPort !== destinationPort ||
      known.dontFragment !== dontFragment
    ) {
      const ports = { sourcePort, destinationPort, dontFragment }
      const [from16, to16] = [source, destination].map(one => this.#addresses.bytes(one))
      known = { source, destination, ...ports, flow: makeFlow({ source: from16, destination: to16, ...ports }) }
      this.#icrcFlows[slot] = known
    }
    return verifyIcrc(arena, located.at + from, length, known.flow, identification & 0xffff)
  }

  /** The frame has packets of `size` bytes. False: a later one is none. */
  #take(arena: Arena, located: Located, size: number): boolean {
    const { view } = arena
    const { at, captured, joined } = located
    const count = Math.ceil(joined / size)
    /** Packets whose BTH was captured. */
    const seen = Math.min(count, Math.floor((captured - BTH_BYTES) / size) + 1)
    for (let i = 1; i < seen; i++) if (!this.#follows(view, at, at + i * size, i)) return false
    const isKnown = nextOf[view.getUint8(at + (seen - 1) * size)] !== 0
    this.#arena = arena
    this.#at = at
    this.#size = size
    this.#captured = captured
    this.#identification = located.identification
    this.#seen = seen
    located.parts = isKnown ? count : seen
    located.hasMore = located.parts < count
    located.length = size
    located.captured = Math.min(captured, size)
    this.frames++
    this.packets += located.parts
    return true
  }

  /** Makes `located`, and the packet's arena, those of a packet of the frame that was split last. */
  select(packet: RawPacket, located: Located, part: number): void {
    const from = part * this.#size
    const length = Math.min(this.#size, located.joined - from)
    located.part = part
    located.length = length
    if (located.ipVersion === 4) located.identification = (this.#identification + part * this.#step) & 0xffff
    located.isInferred = part >= this.#seen
    if (!located.isInferred) {
      packet.arena = this.#arena
      located.at = this.#at + from
      located.captured = Math.min(length, this.#captured - from)
      return
    }
    const { view } = this.#scratch
    const to = this.#at + (this.#seen - 1) * this.#size
    let opcode = this.#arena.view.getUint8(to)
    // From the second one on they are of the middle.
    if (part > this.#seen) opcode = nextOf[opcode]
    view.setUint8(0, length < this.#size ? shorterOf[opcode] : nextOf[opcode])
    view.setUint8(1, 0)
    view.setUint16(2, this.#arena.view.getUint16(to + 2))
    view.setUint32(4, this.#arena.view.getUint32(to + 4) & 0xff_ffff)
    view.setUint32(8, (this.#arena.view.getUint32(to + 8) + part - this.#seen + 1) & 0xff_ffff)
    packet.arena = this.#scratch
    located.at = 0
    located.captured = BTH_BYTES
  }
}
