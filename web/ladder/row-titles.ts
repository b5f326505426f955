/*
 * The words of a row: its title, and its note if the row has no other.
 */
import type { PacketOutcome } from '../../src/spec/faults.ts'
import type { PostedEvent } from '../../src/spec/session-events.ts'
import { SYNDROME_KIND_MASK, syndromeKind } from '../../src/spec/wire/headers.ts'
import { headerAt, opcodeByNumber } from '../../src/spec/wire/opcodes.ts'
import { WcOpcode, WcStatus, WrOpcode } from '../../src/spec/work.ts'
import { bytesText, countText, hexText, psnText } from '../format.ts'
import { PSN_MASK, type Row, type RowPacket } from './row.ts'

/** Names by value; of two names of one value the first. */
const namesOf = (values: Readonly<Record<string, number>>): ReadonlyMap<number, string> =>
  new Map(
    Object.entries(values)
      .map(([name, value]) => [value, name] as const)
      .reverse(),
  )
const wrNames = namesOf(WrOpcode.values)
const wcNames = namesOf(WcOpcode.values)
const statusNames = namesOf(WcStatus.values)
const wrName = (opcode: number): string => wrNames.get(opcode) ?? `opcode ${opcode}`
const wcName = (opcode: number): string => wcNames.get(opcode) ?? `opcode ${opcode}`
export const statusName = (status: number): string => statusNames.get(status) ?? `status ${status}`

/** What happens to the packet; empty: nothing special. */
export const OUTCOMES: Readonly<Record<PacketOutcome, string>> = {
  passed: '',
  'wrong icrc': 'wrong ICRC: the receiver drops it',
  dropped: 'lost',
  corrupted: 'corrupted: the receiver drops it',
  duplicated: 'arrives twice',
  reordered: 'arrives late, after the next ones',
  marked: 'arrives marked: congestion experienced (ECN)',
  delayed: 'delayed',
}

const sizeText = (length: number): string => (length > 0 ? ` ${bytesText(length)}` : '')

const nakName = (bytes: Uint8Array): string => {
  const at = headerAt.AETH[bytes[0]!]!
  const kind = (at === 0 ? syndromeKind.ACK : (bytes[at] ?? 0)) & SYNDROME_KIND_MASK
  return kind === syndromeKind.RNR_NAK ? 'RNR NAK' : kind === syndromeKind.NAK ? 'NAK' : ''
}

const packetTitle = ({ bytes, psn, count, length, event }: RowPacket): string => {
  const name =
    nakName(bytes) ||
    (opcodeByNumber[bytes[0]!]?.name.replace(/^(?:RC|UC|UD|XRC)_/, '') ?? `opcode ${hexText(bytes[0]!)}`)
  const payload = Math.max(0, length - event.headerBytes - 4)
  const size = payload > 0 ? ` · ${bytesText(payload)}` : ''
  return count === 1
    ? `${name} ${psnText(psn)}${size}`
    : `${name} ×${countText(count)} ${psnText(psn)}–${psnText((psn + count - 1) & PSN_MASK)}${size}`
}

export const titleOf = ({ event, packet }: Row): string => {
  if (packet !== undefined) return packetTitle(packet)
  if (event.kind === 'posted') {
    const { opcode, length } = event.request
    return `post ${opcode < 0 ? 'RECV' : wrName(opcode)}${sizeText(length)}`
  }
  if (event.kind === 'completed')
    return event.status === 0 ? `${wcName(event.opcode)} completed` : statusName(event.status)
  return ''
}

export const noteOf = ({ event }: Row): string => {
  if (event.kind === 'posted') return `wr_id ${event.request.wrId}`
  if (event.kind !== 'completed') return ''
  if (event.status !== 0) return 'completed in error'
  return event.bytes > 0 ? bytesText(event.bytes) : ''
}

export const requestTitle = ({ request: { opcode, length, wrId } }: PostedEvent): string =>
  `${opcode < 0 ? 'RECV' : wrName(opcode)}${sizeText(length)} · wr_id ${wrId}`

const STATES = ['RESET', 'INIT', 'RTR', 'RTS', 'SQD', 'SQE', 'ERR']
/** Empty: it is no state. */
export const stateText = (state: unknown): string => (typeof state === 'number' ? `→ ${STATES[state] ?? state}` : '')
