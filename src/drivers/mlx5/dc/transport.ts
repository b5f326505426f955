/*
 * The dynamically connected transport of one device (docs/decisions/dc.md): takes packets of connections for its
 * initiators and targets, and sends theirs. What comes during a delivery of packets is handled after it, since it may
 * end rows of the engine.
 */
import type { FlowAddress } from '../../../transport/phy/port.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import type { CoreQueue, SoftState } from '../../soft/state.ts'
import { Initiators } from './initiators.ts'
import { type Answer, DcOpcode, Outbox, type Path, type Request, readMessage } from './messages.ts'
import { Targets } from './targets.ts'

/** Received messages that wait, at most: others are dropped. A poll receives hardly more. */
const MAX_RECEIVED = 4096

/** Until messages that found the port full are sent again, microseconds. */
const FULL_PORT = 100

interface Received {
  readonly message: Request | Answer
  readonly from: Path
}

export class DcTransport {
  readonly #soft: SoftState
  readonly #outbox: Outbox
  readonly targets: Targets
  #initiators: Initiators | undefined
  readonly #received: Received[] = []

  constructor(soft: SoftState) {
    this.#soft = soft
    this.#outbox = new Outbox(soft)
    this.targets = new Targets(soft, this.#outbox)
  }

  /** Created with the first initiator, as they need a number for answers. `random`: a u32. */
  initiators(random: () => number): Initiators {
    if (this.#initiators !== undefined) return this.#initiators
    const qpn = this.#soft.qpns.take()
    this.takePackets(qpn)
    this.#initiators = new Initiators(this.#soft, this.#outbox, qpn, random())
    return this.#initiators
  }

  /** Takes the packets to this number, which has no row. */
  takePackets(qpn: number): void {
    const queue: CoreQueue = {
      qpn,
      sqPsn: 0,
      isInternal: true,
      transmit() {},
      onPacket: (arena, at, length, from) => this.#onPacket(arena, at, length, from),
    }
    this.#soft.coreQueues.byNumber.set(qpn, queue)
  }

  forgetPackets(qpn: number): void {
    this.#soft.coreQueues.byNumber.delete(qpn)
  }

  #onPacket(arena: Arena, at: number, length: number, run: FlowAddress): void {
    const { counters } = this.#soft.engine()
    const message = this.#received.length < MAX_RECEIVED ? readMessage(this.#soft, arena, at, length) : undefined
    if (message === undefined) {
      counters.dropped++
      return
    }
    counters.receivedPackets++
    // the port may use the run's record again
    this.#received.push({ message, from: structuredClone(run) })
  }

  /** After each poll of the soft device. True if anything was done. */
  poll(now: number): boolean {
    let progress = this.#received.length > 0
    for (const { message, from } of this.#received) {
      if (message.opcode === DcOpcode.ANSWER) this.#initiators?.onAnswer(message as Answer, from, now)
      else this.targets.onRequest(message as Request, from, now)
    }
    this.#received.length = 0
    if (this.#initiators?.poll(now)) progress = true
    this.targets.onTimeout(now)
    if (!this.#outbox.isEmpty && this.#outbox.transmit()) progress = true
    const { releasedFlows, port } = this.#soft
    while (releasedFlows.length > 0) port.closeFlow(releasedFlows.pop() as number)
    return progress
  }

  nextTimeout(now: number): number {
    if (!this.#outbox.isEmpty) return now + FULL_PORT
    return Math.min(this.#initiators?.nextTimeout() ?? Number.POSITIVE_INFINITY, this.targets.nextTimeout())
  }
}
