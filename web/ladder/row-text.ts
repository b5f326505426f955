/*
 * A row of a ladder as a line of text: calls, failures and packets as `userdma trace` prints them.
 */
import { callLine, failureLine } from '../../src/tools/trace/calls.ts'
import { packetText } from '../../src/tools/trace/packets.ts'
import type { Row, RowPacket } from './row.ts'

const packetLine = ({ bytes, length, count, outcome, isRetransmission }: RowPacket, note: string): string => {
  // What was not recorded of the payload counts as zeros.
  const whole = new Uint8Array(Math.max(length, bytes.length))
  whole.set(bytes)
  const more = [
    ...(count > 1 ? [`and ${count - 1} more with ascending PSNs`] : []),
    ...(outcome !== 'passed' ? [outcome] : []),
    ...(note !== '' ? [note] : isRetransmission ? ['retransmission'] : []),
  ]
  return `${packetText(whole)}${more.map(text => `, ${text}`).join('')}`
}

const textOf = ({ event, packet, title, note }: Row): string => {
  if (packet !== undefined) return packetLine(packet, note)
  if (event.kind === 'failure') return failureLine(event.failure)
  return note === '' ? title : `${title}: ${note}`
}

/** `start`: of the session, in microseconds. A call as `userdma trace` prints it, without the time of its end. */
export const rowText = (row: Row, start: number): string =>
  row.event.kind === 'call' ? callLine(row.event.call) : `${((row.time - start) / 1e6).toFixed(6)} ${textOf(row)}`
