/*
 * Calls and packets of a conversation in order of time, for the demo: which program made a call, and who sent which
 * packet to whom.
 *
 * Packets on one device identify sender and receiver only by QPN; their processes are known from the calls that created
 * the queue pairs.
 */
import { callJson, callLine } from '../trace/calls.ts'
import { packetLine } from '../trace/packets.ts'
import type { TraceRecord } from '../uapi/tool.ts'
import { parseFrame } from '../wire/frame.ts'
import { type Packet, parsePacket } from '../wire/packet.ts'
import { readCapture } from '../wire/pcap.ts'

export interface Entry {
  readonly kind: 'call' | 'packet'
  /** Microseconds since 1970. */
  readonly time: number
  readonly program: string
  readonly text: string
  /** The last packet of a message at its receiver. */
  readonly acknowledges: boolean
}

/** The line of a traced call without process and duration. */
const callText = (record: TraceRecord): string => callLine(record).replace(/^\[pid [^\]]*\] (?:fd \d+ )?/, '')

/** The process that created each queue pair, by QPN. */
const ownersOf = (records: readonly TraceRecord[]): Map<number, number> => {
  const owners = new Map<number, number>()
  for (const record of records) {
    const { class: name, method, out } = callJson(record)
    const number = (out as { readonly qpNum?: unknown } | undefined)?.qpNum
    if (name === 'rc_qp' && method === 'create' && number !== undefined) owners.set(Number(number), record.pid)
  }
  return owners
}

const packetsOf = (capture: Uint8Array): { readonly time: number; readonly packet: Packet }[] =>
  readCapture(capture).flatMap(({ time = 0n, bytes }) => {
    const frame = parseFrame(bytes)
    return frame.kind === 'opaque' ? [] : [{ time: Number(time / 1000n), packet: parsePacket(frame.payload) }]
  })

/** Calls and packets in order of time. `names`: the name of each process. */
export const timeline = (
  records: readonly TraceRecord[],
  capture: Uint8Array,
  names: ReadonlyMap<number, string>,
): Entry[] => {
  const owners = ownersOf(records)
  const nameOf = (pid: number | undefined): string => (pid === undefined ? '?' : (names.get(pid) ?? `process ${pid}`))
  const calls = records.map(
    (record): Entry => ({
      kind: 'call',
      time: record.time * 1000,
      program: nameOf(record.pid),
      text: callText(record),
      acknowledges: false,
    }),
  )
  const packets = packetsOf(capture).map(({ time, packet }): Entry => {
    const to = packet.kind === 'opaque' ? undefined : owners.get(packet.BTH.destQp)
    const from = [...owners.values()].find(pid => pid !== to)
    return {
      kind: 'packet',
      time,
      program: `${nameOf(from)} → ${nameOf(to)}`,
      text: packetLine(packet),
      acknowledges: packet.kind !== 'opaque' && packet.name === 'RC_ACKNOWLEDGE',
    }
  })
  return [...calls, ...packets].sort((a, b) => a.time - b.time)
}

/** The entries up to the acknowledgement of message number `messages`; all entries if there are fewer messages. */
export const firstMessages = (entries: readonly Entry[], messages: number): readonly Entry[] => {
  let left = messages
  const end = entries.findIndex(({ acknowledges }) => acknowledges && --left === 0)
  return end < 0 ? entries : entries.slice(0, end + 1)
}
