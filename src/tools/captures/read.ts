/*
 * Captures for programs: their packets as a stream, and what they show.
 */
import { parseAddress } from '../../transport/wire/address.ts'
import { CaptureAnalysis } from './analysis.ts'
import { type CaptureDamage, type CapturedPacket, CaptureReader, keepPacket } from './file.ts'
import type { CaptureFilter } from './filter.ts'
import { reportObjects } from './report.ts'

/** The bytes of a capture: whole, or in chunks, as a file stream yields them. */
export type CaptureBytes = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>

const chunksOf = (source: CaptureBytes): Iterable<Uint8Array> | AsyncIterable<Uint8Array> =>
  source instanceof Uint8Array ? [source] : source

/** How `readCapture` reads. */
export interface ReadCaptureOptions {
  /** Called if the capture is damaged: its packets end there. Without it, `readCapture` throws there. */
  readonly onDamage?: (damage: CaptureDamage) => void
}

/**
 * The packets of a capture (pcap, pcapng or ERF), in file order. Reads as a stream: memory does not grow with the file.
 * Throws an Error that names the place if the capture is damaged, after the packets before it.
 */
export const readCapture = async function* (
  source: CaptureBytes,
  { onDamage }: ReadCaptureOptions = {},
): AsyncGenerator<CapturedPacket> {
  let packets: CapturedPacket[] = []
  const reader = new CaptureReader(packet => packets.push(keepPacket(packet)))
  for await (const chunk of chunksOf(source)) {
    reader.push(chunk)
    yield* packets
    packets = []
    if (reader.damage !== undefined) break
  }
  reader.end()
  const { damage } = reader
  if (damage === undefined) return
  if (onDamage === undefined) throw new Error(`the capture is damaged at byte ${damage.offset}: ${damage.reason}`)
  onDamage(damage)
}

/** Which packets of a capture `explainCapture` takes. */
export interface ExplainCaptureOptions {
  /** The UDP port of RoCEv2; default 4791. */
  readonly port?: number
  /** Only packets from or to one of these addresses. */
  readonly hosts?: readonly string[]
  /** Only packets to one of these queue pairs, and to queue pair 1, the connection manager's. */
  readonly qpns?: readonly number[]
}

/**
 * What a capture shows, as objects with a `kind`: `capture` (one), `problem` (worst first), `connection` and `flow`, as
 * `userdma explain --json` prints them. A damaged capture is read up to the damage, which `capture` names.
 */
export const explainCapture = async (
  source: CaptureBytes,
  { port, hosts, qpns }: ExplainCaptureOptions = {},
): Promise<readonly Readonly<Record<string, unknown>>[]> => {
  const addresses = hosts?.map(text => {
    const address = parseAddress(text)
    if (address === undefined) throw new TypeError(`hosts has "${text}", which is not an IPv4 or IPv6 address`)
    return address
  })
  const filter: CaptureFilter = {
    ...(addresses !== undefined && { hosts: addresses }),
    ...(qpns !== undefined && { qpns }),
  }
  const analysis = new CaptureAnalysis({ ...(port !== undefined && { port }), filter })
  for await (const chunk of chunksOf(source)) analysis.reader.push(chunk)
  analysis.finish()
  return [...reportObjects(analysis, '')]
}
