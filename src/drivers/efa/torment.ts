/*
 * `--torment` of an EFA device (spec/check/torment.ts). Delays of bytes, completions, events and requests are those of all
 * devices (soft/torment/); here are the kinds that belong to SRD and to its completions (docs/decisions/srd.md).
 */
import type { Device } from '../../core/model.ts'
import type { Memory } from '../../transport/engine/types.ts'
import type { Port } from '../../transport/phy/port.ts'
import type { EngineTorment, Torment } from '../soft/torment/torment.ts'
import { FIRST_TIMEOUT, NOT_READY_DELAY } from './engine-common.ts'
import type { CqObject, ReceivedFrom } from './state.ts'

/** Longest wait of an acknowledgement, µs: well before the sender sends its packets again. */
const MAX_ACK_WAIT = FIRST_TIMEOUT / 4
/** A queue pair of which waits for receives were made longer by more than this uses the usual ones, µs. */
const MAX_ADDED = 3_000_000
const OPERATIONS = 3

/** Values of a completion in error that ibv_poll_cq(3) leaves undefined. */
interface UndefinedFields {
  readonly operation: number
  readonly length: number
  readonly hasImm: boolean
  readonly imm: number
  readonly ah: number
  readonly sourceQpn: number
}

/** What torment does with the engine of a device. */
interface TormentedSrd {
  readonly port: Port
  readonly cqs: ReadonlyMap<number, CqObject>
  readonly qps: ReadonlyMap<number, unknown>
  /** Raises the event of an armed CQ. */
  raise(cq: CqObject): void
  /** Executes the posted sends of a queue pair. */
  startSends(qpn: number): void
  /** Sends acknowledgements that are not held. */
  acknowledge(): void
}

export class EfaTorment {
  readonly #delays: EngineTorment<CqObject>
  readonly #device: string
  readonly #now: () => number
  /** When held acknowledgements are sent. */
  readonly #held = new Map<ReceivedFrom, number>()
  /** Microseconds that were added to waits for receives, by QPN. */
  readonly #added = new Map<number, number>()

  constructor(torment: Torment, device: Device, memory: Memory, now: () => number, engine: TormentedSrd) {
    const { cqs, qps, port } = engine
    this.#device = device.name
    this.#now = now
    this.#delays = torment.attachEngine<CqObject>(device, port, memory, {
      now,
      exists: cq => cqs.get(cq.state.number) === cq,
      isArmed: ({ state, events }) => state.isArmed && events !== undefined,
      raise: cq => {
        if (cq.state.isArmed) engine.raise(cq)
      },
      hasQp: qpn => qps.has(qpn),
      ring: qpn => engine.startSends(qpn),
      releaseAcknowledgements: () => engine.acknowledge(),
      nextAcknowledgement: () => Math.min(Number.POSITIVE_INFINITY, ...this.#held.values()),
    })
  }

  get memory(): Memory {
    return this.#delays.memory
  }

  poll(now: number): boolean {
    return this.#delays.poll(now)
  }

  nextTimeout(): number {
    return this.#delays.nextTimeout()
  }

  close(): void {
    this.#delays.close()
  }

  ring(qpn: number): void {
    this.#delays.ring(qpn)
  }

  notify(cq: CqObject): void {
    this.#delays.completions.notify(cq, true)
  }

  /** `write`: writes the completion of a receive, after the bytes of its message. */
  pushReceive(cq: CqObject, qpn: number, write: () => void): void {
    this.#delays.completions.push(cq, qpn, true, this.#delays.readyAt(qpn), write)
  }

  /** `write`: writes the completion of a send, after its bytes at both ends. */
  pushSend(cq: CqObject, qpn: number, destQpn: number, write: () => void): void {
    const readyAt = Math.max(this.#delays.readyAt(qpn), this.#delays.readyAtAllDevices(destQpn))
    this.#delays.completions.push(cq, qpn, false, readyAt, write)
  }

  /** Whether an acknowledgement waits. If not, the bytes that it acknowledges are in memory. */
  holds(source: ReceivedFrom): boolean {
    const { decisions, memory } = this.#delays
    const { qpn } = source.qp
    const time = this.#now()
    let until = this.#held.get(source)
    if (until === undefined && !this.#delays.isSuspended()) {
      const sequence = decisions.sequence('ack', this.#device, qpn)
      if (sequence.acts()) {
        const wait = Math.min(sequence.wait(), MAX_ACK_WAIT)
        until = time + wait
        decisions.note('ack', this.#device, () => `the ACK of QP 0x${qpn.toString(16)} waits for ${wait} µs`)
      }
    }
    if (until === undefined || until <= time || this.#delays.isSuspended()) {
      this.#held.delete(source)
      memory.completeWrites?.(qpn)
      return false
    }
    this.#held.set(source, until)
    return true
  }

  /** The source does not exist any more. */
  forget(source: ReceivedFrom): void {
    this.#held.delete(source)
  }

  /** When a request of a queue pair that found no receive is tried again, µs from now. */
  notReadyDelay(qpn: number): number {
    const { decisions } = this.#delays
    const added = this.#added.get(qpn) ?? 0
    const sequence = decisions.sequence('rnr', this.#device, qpn)
    if (this.#delays.isSuspended() || added > MAX_ADDED || !sequence.acts()) return NOT_READY_DELAY
    const wait = sequence.wait()
    this.#added.set(qpn, added + wait)
    decisions.note(
      'rnr',
      this.#device,
      () => `a request of QP 0x${qpn.toString(16)} without a receive waits for ${NOT_READY_DELAY + wait} µs`,
    )
    return NOT_READY_DELAY + wait
  }

  /** What a program finds in a completion in error; undefined: the true values. */
  undefinedFields(qpn: number): UndefinedFields | undefined {
    const { decisions } = this.#delays
    const sequence = decisions.sequence('fields', this.#device, qpn)
    if (!sequence.acts()) return undefined
    const [operation, length] = [sequence.below(OPERATIONS), sequence.below(0x1_0000)]
    const hasImm = sequence.below(2) !== 0
    const fields: UndefinedFields = {
      ...{ operation, length, hasImm },
      imm: hasImm ? sequence.below(2 ** 32) : 0,
      ah: sequence.below(0x1_0000),
      sourceQpn: sequence.below(0x1_0000),
    }
    decisions.note(
      'fields',
      this.#device,
      () =>
        `a completion of QP 0x${qpn.toString(16)} in error has operation ${fields.operation} and byte_len ${fields.length}`,
    )
    return fields
  }
}
