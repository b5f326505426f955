/*
 * Mutants of recorded packets, and of the packets that our engine receives. Every run makes the same mutants: a hash of
 * names chooses the recorded packet that is mutated.
 */
import { hashOf } from '../../../../src/base/random.ts'
import { ICRC_BYTES } from '../../../../src/spec/wire/headers.ts'
import type { WellFormedPacket } from '../../../../src/transport/wire/packet.ts'
import type { Recorded, RecordedStream, StreamKind } from './compare.ts'
import { type Conversation, type Entry, headersOf, isRequest, type Side } from './conversation.ts'
import type { Message } from './messages.ts'
import type { PacketToDeliver } from './play.ts'

const isRetransmission = (a: Entry, b: Entry): boolean =>
  a.from === b.from && a.packet.name === b.packet.name && a.packet.BTH.psn === b.packet.BTH.psn

/** Returns a changed copy; undefined if the packet lacks the field. */
type Change = (recorded: Recorded) => Recorded | undefined

const withPacket = (recorded: Recorded, change: object): Recorded => ({
  ...recorded,
  packet: { ...recorded.packet, ...change } as unknown as WellFormedPacket,
})

const flipped = (value: number | bigint | boolean): number | bigint | boolean => {
  if (typeof value === 'boolean') return !value
  return typeof value === 'bigint' ? value ^ 1n : value ^ 1
}

const headerChange =
  (header: string, field: string): Change =>
  recorded => {
    const record = headersOf(recorded.packet)[header]
    if (record?.[field] === undefined) return undefined
    return withPacket(recorded, { [header]: { ...record, [field]: flipped(record[field]) } })
  }

const plainChanges: Readonly<Record<string, Change>> = {
  opcode: r => withPacket(r, { name: r.packet.name === 'RC_ACKNOWLEDGE' ? 'RC_ATOMIC_ACK' : 'RC_ACKNOWLEDGE' }),
  payload: r => {
    if (r.packet.payload.length === 0) return undefined
    const payload = r.packet.payload.slice()
    payload[payload.length - 1] ^= 0x10
    return withPacket(r, { payload })
  },
  'payload length': r => withPacket(r, { payload: Uint8Array.from([...r.packet.payload, 0]) }),
  timing: r => ({ ...r, timing: r.timing === 'immediate' ? 'after the ACK timeout' : 'immediate' }),
}

/** The changes of `plainChanges`, and a change of each header field in the list, by name. */
const changesFor = (list: readonly Recorded[]): Record<string, Change> => {
  const changes = { ...plainChanges }
  for (const { packet } of list) {
    for (const [header, record] of Object.entries(headersOf(packet))) {
      if (typeof record !== 'object' || record instanceof Uint8Array) continue
      for (const field of Object.keys(record)) changes[`${header}.${field}`] = headerChange(header, field)
    }
  }
  return changes
}

const isSamePacket = (a: Recorded, b: Recorded): boolean =>
  a.packet.name === b.packet.name && a.packet.BTH.psn === b.packet.BTH.psn

/** Whether a field is not mutated. Field 'packet': the packet is not removed, repeated or moved. */
type Exempt = (recorded: Recorded, field: string) => boolean

const mutantsOf = (list: readonly Recorded[], isExempt: Exempt, seed: string): [string, Recorded[]][] => {
  const positionsFor = (field: string): number[] => list.flatMap((r, i) => (isExempt(r, field) ? [] : [i]))
  const positions = positionsFor('packet')
  const mutants: [string, Recorded[]][] = []
  const pick = (mutation: string, candidates: readonly number[]): number | undefined =>
    candidates[hashOf(seed + mutation) % candidates.length]
  for (const [field, change] of Object.entries(changesFor(list))) {
    const position = pick(
      field,
      positionsFor(field).filter(i => change(list[i]) !== undefined),
    )
    if (position === undefined) continue
    mutants.push([`${field} of packet ${list[position].number}`, list.with(position, change(list[position])!)])
  }
  const missing = pick('missing', positions)
  if (missing !== undefined) mutants.push([`packet ${list[missing].number} missing`, list.toSpliced(missing, 1)])
  const doubled = pick('doubled', positions)
  if (doubled !== undefined)
    mutants.push([`packet ${list[doubled].number} doubled`, list.toSpliced(doubled, 0, list[doubled])])
  const moved = pick(
    'moved',
    positions.filter(i => positions.includes(i + 1) && !isSamePacket(list[i], list[i + 1])),
  )
  if (moved !== undefined)
    mutants.push([`packet ${list[moved].number} later`, list.with(moved, list[moved + 1]).with(moved + 1, list[moved])])
  return mutants
}

/** Mutants of a side's recorded packets, with their names. */
export const recordedMutants = (
  name: string,
  streams: readonly RecordedStream[],
  isExempt: Exempt,
): [string, RecordedStream[]][] =>
  streams.flatMap((stream, i) =>
    (['answers', 'requests'] as const).flatMap((kind: StreamKind) =>
      mutantsOf(stream[kind], isExempt, name + kind).map(([mutation, list]): [string, RecordedStream[]] => [
        `QP ${stream.qpn}, ${kind}: ${mutation}`,
        streams.with(i, { ...stream, [kind]: list }),
      ]),
    ),
  )

/**
 * Mutants of the packets delivered to `side`: the peer's first request or last response is withheld, or the payload of
 * the last completed message of `incoming` is changed.
 */
export const deliveredMutants = (
  { entries }: Conversation,
  side: Side,
  incoming: readonly Message[],
): [string, PacketToDeliver][] => {
  const delivered = entries.filter(e => e.from !== side && !e.isLost)
  const mutants: [string, PacketToDeliver][] = []
  /** Mutates `entry` and its retransmissions. */
  const addMutant = (
    mutation: string,
    entry: Entry | undefined,
    mutate: (entry: Entry) => Uint8Array | undefined,
  ): void => {
    if (entry !== undefined)
      mutants.push([`${mutation} ${entry.number}`, e => (isRetransmission(e, entry) ? mutate(e) : e.bytes)])
  }
  addMutant(
    'without request',
    delivered.find(e => isRequest(e.packet)),
    () => undefined,
  )
  addMutant(
    'without response',
    delivered.findLast(e => !isRequest(e.packet)),
    () => undefined,
  )
  const completed = incoming.filter(m => m.completeAt !== Number.POSITIVE_INFINITY)
  const withPayload = completed.findLast(m => m.entry.packet.payload.length > 0 && !m.entry.isLost)?.entry
  addMutant('other payload in request', withPayload, e => {
    const bytes = e.bytes.slice()
    const padBytes = -e.packet.payload.length & 3
    const payloadEnd = bytes.length - ICRC_BYTES - padBytes
    bytes[payloadEnd - 1] ^= 0x20
    return bytes
  })
  return mutants
}
