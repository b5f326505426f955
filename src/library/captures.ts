/*
 * Captures for programs: their packets as a stream, and what they show.
 */
import { CaptureAnalysis } from '../tools/captures/analysis.ts'
import { type CaptureDamage, type CapturedPacket, CaptureReader, keepPacket } from '../tools/captures/file.ts'
import type { CaptureFilter } from '../tools/captures/filter.ts'
import { reportObjects } from '../tools/captures/report.ts'
import { parseAddress } from '../transport/wire/address.ts'
import { checkOptions, type KnownOptions } from './verbs/arguments/options.ts'
import { checkBytes, checkFunction, checkInteger, checkU32, formatValue, invalidArgument } from './verbs/error.ts'

/** The bytes of a capture: whole, or in chunks, as a file stream yields them. */
export type CaptureBytes = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>

type Chunks = Iterable<Uint8Array> | AsyncIterable<Uint8Array>

const chunksOf = (call: string, source: CaptureBytes): Chunks => {
  if (ArrayBuffer.isView(source)) return [source]
  const isIterable =
    typeof source === 'object' && source !== null && (Symbol.iterator in source || Symbol.asyncIterator in source)
  if (!isIterable)
    throw invalidArgument(
      call,
      `source: ${formatValue(source)} is neither a Uint8Array nor a stream of them`,
      'give the bytes of a file, or a stream as of createReadStream(path)',
    )
  return source
}

const checkList = (call: string, option: string, list: unknown): void => {
  if (list !== undefined && !Array.isArray(list))
    throw invalidArgument(call, `${option} ${formatValue(list)} is not a list`)
}

/** How `readCapture` reads. */
export interface ReadCaptureOptions {
  /** Called if the capture is damaged: its packets end there. Without it, `readCapture` throws there. */
  readonly onDamage?: (damage: CaptureDamage) => void
}

const readOptions: KnownOptions<ReadCaptureOptions> = { onDamage: true }

const packetsOf = async function* (
  call: string,
  chunks: Chunks,
  { onDamage }: ReadCaptureOptions,
): AsyncGenerator<CapturedPacket> {
  let packets: CapturedPacket[] = []
  const reader = new CaptureReader(packet => packets.push(keepPacket(packet)))
  for await (const chunk of chunks) {
    checkBytes(call, 'source', chunk)
    reader.push(chunk)
    yield* packets
    packets = []
    if (reader.damage !== undefined) break
  }
  reader.end()
  const { damage } = reader
  if (damage === undefined) return
  if (onDamage === undefined)
    throw invalidArgument(call, `the capture is damaged at byte ${damage.offset}: ${damage.reason}`)
  onDamage(damage)
}

/**
 * The packets of a capture (pcap, pcapng or ERF), in file order. Reads as a stream: memory does not grow with the file.
 * Throws RdmaError EINVAL that names the place if the capture is damaged, after the packets before it.
 */
export const readCapture = (source: CaptureBytes, options: ReadCaptureOptions = {}): AsyncGenerator<CapturedPacket> => {
  const call = 'readCapture'
  checkOptions(call, 'options', options, readOptions)
  if (options.onDamage !== undefined) checkFunction(call, 'onDamage', options.onDamage)
  return packetsOf(call, chunksOf(call, source), options)
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

const explainOptions: KnownOptions<ExplainCaptureOptions> = { port: true, hosts: true, qpns: true }

/** The bytes of an address that a program has written. */
const addressOf = (call: string, text: unknown): Uint8Array => {
  const address = typeof text === 'string' ? parseAddress(text) : undefined
  if (address === undefined)
    throw invalidArgument(call, `hosts has ${formatValue(text)}, which is not an IPv4 or IPv6 address`)
  return address
}

/**
 * What a capture shows, as objects with a `kind`: `capture` (one), `problem` (worst first), `connection` and `flow`, as
 * `userdma explain --json` prints them. A damaged capture is read up to the damage, which `capture` names. Rejects with
 * RdmaError EINVAL for wrong arguments.
 */
export const explainCapture = async (
  source: CaptureBytes,
  options: ExplainCaptureOptions = {},
): Promise<readonly Readonly<Record<string, unknown>>[]> => {
  const call = 'explainCapture'
  checkOptions(call, 'options', options, explainOptions)
  const { port, hosts, qpns } = options
  if (port !== undefined) checkInteger(call, 'port', port, 1, 65_535)
  checkList(call, 'hosts', hosts)
  checkList(call, 'qpns', qpns)
  for (const qpn of qpns ?? []) checkU32(call, 'qpns', qpn)
  const filter: CaptureFilter = {
    ...(hosts !== undefined && { hosts: hosts.map(text => addressOf(call, text)) }),
    ...(qpns !== undefined && { qpns }),
  }
  const analysis = new CaptureAnalysis({ ...(port !== undefined && { port }), filter })
  for await (const chunk of chunksOf(call, source)) {
    checkBytes(call, 'source', chunk)
    analysis.reader.push(chunk)
  }
  analysis.finish()
  return [...reportObjects(analysis, '')]
}
