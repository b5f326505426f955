/*
 * What a filter reads of a row.
 */
import type { FieldValue, Filtered } from '../filter/filter.ts'
import { addressText } from '../format.ts'
import { packetValue } from '../packet/fields.ts'
import type { Row } from './row.ts'

/** Fields of rows that are not fields of packets. */
export const rowFields = [
  'opcode',
  'frame.time_relative',
  'ip.src',
  'ip.dst',
  'udp.srcport',
  'userdma.kind',
  'userdma.side',
  'userdma.outcome',
  'userdma.retransmission',
  'userdma.wr_id',
  'userdma.tone',
] as const

/** The row for a filter. `start`: time 0. */
export const filteredRow = (row: Row, start: number): Filtered => new FilteredRow(row, start)

class FilteredRow implements Filtered {
  readonly #row: Row
  readonly #start: number

  constructor(row: Row, start: number) {
    this.#row = row
    this.#start = start
  }

  get text(): string {
    return `${this.#row.title} ${this.#row.note}`
  }

  field(name: string): FieldValue | undefined {
    const row = this.#row
    const { packet } = row
    switch (name) {
      case 'opcode':
        return packet && packetValue(packet.bytes, 'infiniband.bth.opcode')
      case 'frame.time_relative':
        return (row.time - this.#start) / 1e6
      case 'ip.src':
        return packet && addressText(packet.event.flow.source)
      case 'ip.dst':
        return packet && addressText(packet.event.flow.destination)
      case 'udp.srcport':
        return packet?.event.flow.sourcePort
      case 'userdma.kind':
        return row.kind
      case 'userdma.side':
        return row.side === undefined ? undefined : row.side === 0 ? 'left' : 'right'
      case 'userdma.outcome':
        return packet?.outcome
      case 'userdma.retransmission':
        return packet?.isRetransmission
      case 'userdma.wr_id':
        return row.request?.request.wrId
      case 'userdma.tone':
        return row.tone
      default:
        return packet && packetValue(packet.bytes, name)
    }
  }
}
