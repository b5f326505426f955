/*
 * Sends that follow a READ of their queue without a fence and need its end: they send the bytes into which the READ
 * writes, or change the bytes at the peer that it reads. A READ may be in progress when later requests of the queue are
 * executed (IBA 10.8.3.3). Known to be over is a READ whose completion, or that of a later request, was polled.
 * `--races` finds more: it knows in which order programs post and poll.
 */
import { requestName } from '../../../spec/check/causes.ts'
import type { FindingId } from '../../../spec/check/findings.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { SendKind, sendOperations } from '../../../spec/work.ts'
import { overlapAddress, readsBuffer, requestText } from '../buffers.ts'
import type { DetectorServices } from '../detector.ts'
import { hex, type KnownObject } from '../objects.ts'

/**
 * The first sends without a fence of each queue are reported with their own stacks; others count as repetitions of the
 * last.
 */
const FIRST_REPORTS = 64

/** Whether a send changes memory of the peer. */
const changesPeer = ({ opcode }: WorkRequest): boolean => {
  const kind = sendOperations[opcode]?.kind
  return kind === SendKind.WRITE || kind === SendKind.ATOMIC || kind === SendKind.ATOMIC_WRITE
}

interface Overlap {
  readonly id: Extract<FindingId, 'buffer-reused' | 'read-then-write-unfenced'>
  readonly read: WorkRequest
  readonly what: string
}

export class Unfenced {
  readonly #services: DetectorServices
  /** By `KnownObject.id` of the queue pair: the number of the last finding, and how many there were. */
  readonly #reported = new Map<number, { finding: number | undefined; count: number }>()

  constructor(services: DetectorServices) {
    this.#services = services
  }

  /** Whether it matters to a send that an earlier READ may not be over. */
  concerns(request: WorkRequest): boolean {
    // With `--races` the search for races tells it.
    return !this.#services.searchesRaces && (readsBuffer(request) || changesPeer(request))
  }

  #overlap(request: WorkRequest, reads: readonly WorkRequest[]): Overlap | undefined {
    const { objects } = this.#services
    for (const read of reads) {
      const address = readsBuffer(request)
        ? overlapAddress(objects, request, request.length, read, read.length)
        : undefined
      if (address !== undefined)
        return { id: 'buffer-reused', read, what: `sends the bytes at ${hex(address)}, into which` }
      if (!changesPeer(request) || sendOperations[read.opcode]?.kind !== SendKind.READ) continue
      const [from, to] = [read.remote, request.remote]
      if (from === undefined || to === undefined || from.rkey !== to.rkey) continue
      const start = Math.max(from.address, to.address)
      if (start < Math.min(from.address + from.length, to.address + to.length))
        return { id: 'read-then-write-unfenced', read, what: `changes the peer's bytes at ${hex(start)}, which` }
    }
    return undefined
  }

  /**
   * A send without a fence that `concerns`; `reads`: the READs and atomics before it of which the program cannot know
   * that they are over.
   */
  posted(qp: KnownObject, request: WorkRequest, reads: readonly WorkRequest[]): void {
    const services = this.#services
    const overlap = this.#overlap(request, reads)
    if (overlap === undefined) return
    const { id, read, what } = overlap
    let reported = this.#reported.get(qp.id)
    if (reported === undefined) {
      reported = { finding: undefined, count: 0 }
      this.#reported.set(qp.id, reported)
    }
    if (reported.count++ >= FIRST_REPORTS && reported.finding !== undefined) {
      services.repeat(reported.finding)
      return
    }
    const does = id === 'buffer-reused' ? 'writes' : 'reads'
    reported.finding = services.report(id, services.occurrenceAtPost(qp, request), {
      text: `${requestText(request)} of ${qp.name} has no fence and ${what} ${requestText(read)} ${does}: no completion that tells the end of the ${requestName(read.opcode)} was polled`,
      moments: [services.postMoment(read, `posted the ${requestName(read.opcode)}`)],
      objects: [qp],
    })
  }

  reset(qp: number): void {
    this.#reported.delete(qp)
  }
}
