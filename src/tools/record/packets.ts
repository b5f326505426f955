/*
 * Runs of packets: which packets of a run are recorded together, and single packets of a recorded run.
 */
import type { PacketOutcome } from '../../spec/faults.ts'
import type { PacketsEvent } from '../../spec/session-events.ts'
import { opcodeHeaderBytes } from '../../spec/wire/opcodes.ts'
import { BTH_BYTES, bthPsn } from '../../transport/wire/bth.ts'
import { viewOf } from './decode.ts'

const PSN_MASK = 0xff_ffff

/** Outcomes of packets that no receiver takes. */
export const lostOutcomes: ReadonlySet<PacketOutcome> = new Set(['dropped', 'corrupted', 'wrong icrc'])

/** Bytes of the headers of the packet of `length` bytes at `at`, from the BTH on. */
export const headerBytesAt = (bytes: Uint8Array, at: number, length: number): number =>
  Math.min(length, Math.max(BTH_BYTES, opcodeHeaderBytes[bytes[at]!]!))

/**
 * Whether the packet at `next` has the headers of the packet at `at`, with the next PSN. `headerBytes`: of both.
 */
export const continuesRun = (view: DataView, at: number, next: number, headerBytes: number): boolean => {
  if (view.getUint32(at, true) !== view.getUint32(next, true)) return false
  if (view.getUint32(at + 4, true) !== view.getUint32(next + 4, true)) return false
  const word = view.getUint32(at + 8)
  const isNext = ((word & PSN_MASK) + 1) % (PSN_MASK + 1) === (view.getUint32(next + 8) & PSN_MASK)
  if (!isNext || word >>> 24 !== view.getUint8(next + 8)) return false
  for (let i = BTH_BYTES; i < headerBytes; i++) if (view.getUint8(at + i) !== view.getUint8(next + i)) return false
  return true
}

/** A packet of a recorded run. */
interface RecordedPacket {
  /** Its headers, and the recorded part of its payload. */
  readonly bytes: Uint8Array
  /** Bytes of the packet, BTH to ICRC. */
  readonly length: number
  readonly psn: number
  /** Identification of its IPv4 header. */
  readonly identification: number
}

/** The packets of a run. An event with damaged headers has one packet. */
export function* expandPackets(event: PacketsEvent): Generator<RecordedPacket> {
  const { bytes, count, packetBytes, lastBytes, identification } = event
  if (bytes.length < BTH_BYTES) {
    yield { bytes, length: lastBytes, psn: 0, identification }
    return
  }
  const first = bthPsn(viewOf(bytes), 0)
  for (let i = 0; i < count; i++) {
    const copy = i === 0 ? bytes : bytes.slice()
    const psn = (first + i) & PSN_MASK
    if (i > 0) viewOf(copy).setUint32(8, ((copy[8]! << 24) | psn) >>> 0)
    yield {
      bytes: copy,
      length: i === count - 1 ? lastBytes : packetBytes,
      psn,
      identification: (identification + i) & 0xffff,
    }
  }
}
