/*
 * The calls and packets of two programs in order of time, for the demo: which program made a call, and which program
 * sent a packet to which.
 *
 * Both programs use one device, so a packet identifies its receiver only by the QPN. The process of a QPN is that of
 * the call that created the queue pair; the sender is the other process.
 */

import type { TraceRecord } from '../spec/records.ts'
import { packetsOf } from '../tools/captures/file.ts'
import { callJson, callLine } from '../tools/trace/calls.ts'
import { packetLine } from '../tools/trace/packets.ts'
import { parseFrame } from '../transport/wire/frame.ts'
import { type Packet, parsePacket } from '../transport/wire/packet.ts'

interface Entry {
  readonly kind: 'call' | 'packet'
  /** Microseconds since 1970. */
  readonly time: number
  /** The program of a call; `sender → receiver` of a packet. */
  readonly program: string
  readonly text: string
  /** Whether it is an ACK packet. Each message of the demo ends with one. */
  readonly isAck: boolean
}

/** The line of a traced call without process and descriptor. */
const callText = (record: TraceRecord): string => callLine(record).replace(/^\[pid [^\]]*\] (?:fd \d+ )?/, '')

/** The process that created each queue pair, by QPN. */
const ownersOf = (records: readonly TraceRecord[]): Map<number, number> => {
  const owners = new Map<number, number>()
  for (const record of records) {
    const { class: name, method, out } = callJson(record)
    const qpn = (out as { readonly qpNum?: unknown } | undefined)?.qpNum
    if (name === 'rc_qp' && method === 'create' && qpn !== undefined) owners.set(Number(qpn), record.pid)
  }
  return owners
}

/** The packets of a pcapng file; `time` in microseconds since 1970. */
const rocePackets = (capture: Uint8Array): { readonly time: number; readonly packet: Packet }[] =>
  packetsOf(capture).packets.flatMap(({ time = 0n, bytes }) => {
    const frame = parseFrame(bytes)
    return frame.kind === 'opaque' ? [] : [{ time: Number(time / 1000n), packet: parsePacket(frame.payload) }]
  })

/** The calls, and the packets of a pcapng file, in order of time. `names`: the name of each process, by pid. */
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
      // From milliseconds.
      time: record.time * 1000,
      program: nameOf(record.pid),
      text: callText(record),
      isAck: false,
    }),
  )
  const packets = rocePackets(capture).map(({ time, packet }): Entry => {
    const receiver = packet.kind === 'opaque' ? undefined : owners.get(packet.BTH.destQp)
    const sender = [...owners.values()].find(pid => pid !== receiver)
    return {
      kind: 'packet',
      time,
      program: `${nameOf(sender)} → ${nameOf(receiver)}`,
      text: packetLine(packet),
      isAck: packet.kind !== 'opaque' && packet.name === 'RC_ACKNOWLEDGE',
    }
  })
  return [...calls, ...packets].sort((a, b) => a.time - b.time)
}

/** The entries up to the ACK of message number `count`; all entries if there are fewer messages. */
export const firstMessages = (entries: readonly Entry[], count: number): readonly Entry[] => {
  let remaining = count
  const end = entries.findIndex(({ isAck }) => isAck && --remaining === 0)
  return end < 0 ? entries : entries.slice(0, end + 1)
}
