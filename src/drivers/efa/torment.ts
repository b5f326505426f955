/*
 * `--torment` of an EFA device (spec/check/torment.ts). Delays of bytes, completions, events and requests are those of
 * all devices (soft/torment/); here are the kinds that belong to SRD and to its completions (docs/decisions/srd.md).
 */
import type { CoreObject, Device } from '../../core/model.ts'
import type { Memory } from '../../transport/engine/types.ts'
import type { HoldEnd } from '../../transport/phy/faults/torment-decisions.ts'
import type { Port } from '../../transport/phy/port.ts'
import type { EngineTorment, Torment } from '../soft/torment/torment.ts'
import { FIRST_TIMEOUT, NOT_READY_DELAY } from './engine-common.ts'
import type { CqObject, ReceivedFrom, Request } from './state.ts'

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
  readonly qps: ReadonlyMap<number, CoreObject>
  /** Number of sends that are posted to a queue pair, and not executed. */
  pendingSends(qpn: number): number
  /** Number of completions that the program has polled. */
  polledOf(cq: CqObject): number
  /** Raises the event of an armed CQ. */
  raise(cq: CqObject): void
  /** Executes the posted sends of a queue pair. */
  startSends(qpn: number): void
  /** Sends acknowledgements that are not held. */
  acknowledge(): void
}

interface HeldAcknowledgement {
  /** When it is sent. */
  until: number
  readonly end: HoldEnd
}

export class EfaTorment {
  readonly #delays: EngineTorment<CqObject>
  readonly #now: () => number
  readonly #held = new Map<ReceivedFrom, HeldAcknowledgement>()
  /** The number of a source among those of its queue pair. */
  readonly #sources = new WeakMap<ReceivedFrom, number>()
  /** Microseconds that were added to waits for receives, by QPN. */
  readonly #added = new Map<number, number>()

  constructor(torment: Torment, device: Device, memory: Memory, now: () => number, engine: TormentedSrd) {
    const { cqs, qps, port } = engine
    this.#now = now
    this.#delays = torment.attachEngine<CqObject>(device, port, memory, {
      now,
      exists: cq => cqs.get(cq.state.number) === cq,
      isArmed: ({ state, events }) => state.isArmed && events !== undefined,
      raise: cq => {
        if (cq.state.isArmed) engine.raise(cq)
      },
      counts: cq => ({ written: cq.state.produced, polled: engine.polledOf(cq) }),
      qp: qpn => qps.get(qpn),
      qpns: () => qps.keys(),
      pendingSends: engine.pendingSends,
      ring: qpn => engine.startSends(qpn),
      releaseAcknowledgements: () => engine.acknowledge(),
      nextAcknowledgement: () =>
        Math.min(Number.POSITIVE_INFINITY, ...[...this.#held.values()].map(({ until }) => until)),
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

  /** Whether the next send of a queue pair waits, counted from 0 since RESET: `startSends` follows. */
  holdsPost(qpn: number, index: number): boolean {
    return this.#delays.holdsPost(qpn, index)
  }

  /** The oldest send of a queue pair is done. */
  retired(qpn: number): void {
    this.#delays.retired(qpn)
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
    const { decisions, memory, objectOf } = this.#delays
    const { qpn } = source.qp
    const time = this.#now()
    const held = this.#held.get(source)
    if (held === undefined && !this.#delays.isSuspended()) {
      const object = objectOf(qpn)
      const number = this.#sources.get(source) ?? object.next('source')
      this.#sources.set(source, number)
      const psn = source.lastToAcknowledge
      const decision = decisions.decide('ack', object.name, `source${number}.packet`, psn)
      const wait = decision === undefined ? 0 : Math.min(decision.wait(), MAX_ACK_WAIT)
      if (decision !== undefined && wait > 0) {
        decision.note(() => `the ACK of packet ${psn} of QP 0x${qpn.toString(16)} waits for ${wait} µs`)
        const held: HeldAcknowledgement = {
          until: time + wait,
          end: decision.hold(time, () => {
            held.until = this.#now()
          }),
        }
        this.#held.set(source, held)
        return true
      }
    }
    if (held !== undefined && held.until > time && !this.#delays.isSuspended()) return true
    this.#held.delete(source)
    held?.end(time, held.until > time)
    memory.completeWrites?.(qpn)
    return false
  }

  /** The source does not exist any more. */
  forget(source: ReceivedFrom): void {
    this.#held.delete(source)
  }

  /** When a request that found no receive is tried again, µs from now. */
  notReadyDelay({ qp: { qpn }, order, rnrTries }: Request): number {
    const { decisions, objectOf } = this.#delays
    const added = this.#added.get(qpn) ?? 0
    if (this.#delays.isSuspended() || added > MAX_ADDED) return NOT_READY_DELAY
    const decision = decisions.decide('rnr', objectOf(qpn).name, `post${order + 1}.try`, rnrTries)
    if (decision === undefined) return NOT_READY_DELAY
    const wait = decision.wait()
    this.#added.set(qpn, added + wait)
    decision.note(
      () => `a request of QP 0x${qpn.toString(16)} without a receive waits for ${NOT_READY_DELAY + wait} µs`,
    )
    return NOT_READY_DELAY + wait
  }

  /** What a program finds in a completion in error; undefined: the true values. */
  undefinedFields(qpn: number, isReceive: boolean): UndefinedFields | undefined {
    const { decisions, objectOf } = this.#delays
    const object = objectOf(qpn)
    const thing = isReceive ? 'failed-receive' : 'failed-send'
    const decision = decisions.decide('fields', object.name, thing, object.next(thing))
    if (decision === undefined) return undefined
    const [operation, length] = [decision.below(OPERATIONS), decision.below(0x1_0000)]
    const hasImm = decision.below(2) !== 0
    const fields: UndefinedFields = {
      ...{ operation, length, hasImm },
      imm: hasImm ? decision.below(2 ** 32) : 0,
      ah: decision.below(0x1_0000),
      sourceQpn: decision.below(0x1_0000),
    }
    decision.note(
      () =>
        `a completion of QP 0x${qpn.toString(16)} in error has operation ${fields.operation} and byte_len ${fields.length}`,
    )
    return fields
  }
}
