/*
 * The rows of packets that may still turn out to be lost, by what a receiver says of a packet.
 */
import type { MadeRow } from './made-row.ts'
import { Recent } from './recent.ts'
import { PSN_MASK } from './row.ts'

/** PSNs of a service that are remembered. */
const MAX_REMEMBERED = 8192

/** Bits of an opcode without its service, and the number of services. */
const SERVICE_SHIFT = 5
const SERVICES = 256 >> SERVICE_SHIFT
/** Of the packets of a service: 24 bits of QPN, 24 bits of PSN and 5 bits of opcode are as many as a number has. */
const arrivalKey = (destQpn: number, psn: number, opcode: number): number =>
  (destQpn * (PSN_MASK + 1) + psn) * (1 << SERVICE_SHIFT) + (opcode & ((1 << SERVICE_SHIFT) - 1))

export class Arrivals {
  /** By the service of their opcode, then by `arrivalKey`. */
  readonly #rows: (Recent<MadeRow> | undefined)[] = new Array(SERVICES).fill(undefined)

  get(destQpn: number, psn: number, opcode: number): MadeRow | undefined {
    return this.#rows[opcode >> SERVICE_SHIFT]?.get(arrivalKey(destQpn, psn, opcode))
  }

  /** `row`: of a packet, or of a run of packets. */
  set(row: MadeRow, destQpn: number): void {
    const { event, psn, count } = row.packet!
    const opcode = event.bytes[0]!
    const service = opcode >> SERVICE_SHIFT
    const rows = this.#rows[service] ?? new Recent<MadeRow>(MAX_REMEMBERED)
    this.#rows[service] = rows
    for (let i = 0; i < count; i++) rows.set(arrivalKey(destQpn, (psn + i) & PSN_MASK, opcode), row)
  }
}
