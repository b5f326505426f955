/*
 * Wrong use of memory and queues that the preload library of a program has seen (`Misuse`): what needs no request, and
 * what detectors look for among the requests.
 */
import type { Misuse } from '../../spec/check/program-events.ts'
import { DeadPart, EventKind, GiveBack, MisuseKind, PostQueue } from '../../spec/session.ts'
import { counted } from '../../spec/text.ts'
import type { Detector, DetectorServices } from './detector.ts'
import type { MemoryGone } from './memory-gone.ts'
import { hex, type KnownObject, queueOf } from './objects.ts'
import { postedListOf } from './posted-lists.ts'
import { type FindingReporter, POSTED } from './reporting.ts'

/** The part of a request, by DeadPart. */
const deadParts: Readonly<Record<number, string>> = {
  [DeadPart.LIST]: 'the struct',
  [DeadPart.ELEMENTS]: 'the list of elements',
  [DeadPart.BUFFER]: 'the buffer',
}

export class MisuseReports {
  /** Contexts whose programs have closed their descriptors: their objects are no leaks. */
  readonly closedContexts = new Set<number>()
  readonly #services: DetectorServices
  readonly #reporter: FindingReporter
  readonly #memoryGone: MemoryGone
  /** Get what needs a look at requests. */
  readonly #detectors: readonly Detector[]

  constructor(
    services: DetectorServices,
    reporter: FindingReporter,
    memoryGone: MemoryGone,
    detectors: readonly Detector[],
  ) {
    this.#services = services
    this.#reporter = reporter
    this.#memoryGone = memoryGone
    this.#detectors = detectors
  }

  /** The preload library of a program reports wrong use of memory or a queue. */
  misused(misuse: Misuse): void {
    if (misuse.kind === MisuseKind.CLOSED) {
      this.#closed(misuse)
      return
    }
    if (misuse.kind === MisuseKind.INHERITED && misuse.index === 1) {
      this.#destroyedByChild(misuse)
      return
    }
    if (misuse.kind === MisuseKind.GAVE_BACK) {
      this.#gaveBack(misuse)
      return
    }
    const owner = queueOf(this.#services.objects, misuse)
    if (misuse.kind === MisuseKind.POLLED_GONE) {
      if (owner?.destruction !== undefined) this.#polledGone(misuse, owner)
      return
    }
    const { context, kind, queue, program } = misuse
    if (owner === undefined || owner.destruction !== undefined) return
    if (kind === MisuseKind.INHERITED) {
      const text = `process ${program?.pid ?? '?'} ${queue === EventKind.POLL ? 'polls' : 'posts to'} ${owner.nameWithProgram}, whose context it inherited by fork`
      this.#reporter.report('context-inherited', { ...misuse, action: 'used' }, { text, objects: [owner] })
      return
    }
    if (kind === MisuseKind.SHORT_ARRAY) {
      const { index: entries, more: room } = misuse
      this.#reporter.report('array-too-short', misuse, {
        text: `ibv_poll_cq on ${owner.name} with num_entries ${entries}: the array of struct ibv_wc at ${hex(misuse.address)} is on the stack, and has room for at most ${counted(room, 'completion')}; more were not polled`,
        objects: [owner],
      })
      return
    }
    if (kind === MisuseKind.DEAD_POST) {
      const part = deadParts[misuse.index] ?? 'the memory'
      const region =
        misuse.index === DeadPart.BUFFER ? this.#services.objects.regionAt(context, misuse.address) : undefined
      this.#reporter.report(
        'frame-returned',
        { ...misuse, ...POSTED },
        {
          text: `${part} of ${queue === PostQueue.SEND ? 'the send' : 'the receive'} wr_id ${misuse.wrId} of ${owner.name} was in a stack frame that had returned when it was posted`,
          objects: [owner, region],
        },
      )
      return
    }
    const list = postedListOf(misuse, owner)
    if (list !== undefined) {
      const { id, ...content } = list
      const occurrence = owner.class === 'cq' ? misuse : { ...misuse, ...POSTED }
      this.#reporter.report(id, occurrence, { ...content, objects: [owner] })
    }
    if (kind === MisuseKind.ACKNOWLEDGED) {
      this.#overacknowledged(misuse, owner)
      return
    }
    for (const detector of this.#detectors) detector.misused?.(misuse, owner)
  }

  /** The program closes the descriptor of a context: its objects end with it. */
  #closed(misuse: Misuse): void {
    const { context, index, program, device } = misuse
    this.closedContexts.add(context)
    this.#reporter.report(
      'descriptor-closed',
      { ...misuse, action: 'closed' },
      {
        text: `process ${program?.pid ?? '?'} closes descriptor ${index}, that of its context of ${device}, by close: the device destroys all objects of the context, and later calls fail`,
      },
    )
  }

  #polledGone({ queue, wrId, ...at }: Misuse, owner: KnownObject): void {
    // A receive of an SRQ belongs to the SRQ, which remains.
    if (queue !== PostQueue.SEND && (owner.uses.has('srq') || owner.class === 'xrc_tgt_qp')) return
    const request = queue === PostQueue.SEND ? 'send' : 'receive'
    this.#reporter.report(
      'polled-after-destroy',
      { ...at, action: 'polled' },
      {
        text: `the completion of ${request} wr_id ${wrId} of ${owner.name} was polled after the queue pair was destroyed`,
        objects: [owner],
      },
    )
  }

  #destroyedByChild(misuse: Misuse): void {
    const { number, deviceNumber, program } = misuse
    const owner = this.#services.objects.qp(deviceNumber, number)
    if (owner === undefined) return
    this.#reporter.report(
      'context-inherited',
      { ...misuse, action: 'destroyed' },
      {
        text: `process ${program?.pid ?? '?'}, a child, destroys ${owner.nameWithProgram}, whose context it inherited by fork: the parent loses it`,
        advice:
          'end the child by _exit, or exec, so that it does not run the clean-up of its parent (atexit, destructors)',
        objects: [owner],
      },
    )
  }

  #gaveBack({ context, number, address, wrId, index, more, time, stack }: Misuse): void {
    const region = this.#services.objects.byHandle(context, 'mr', number)
    if (region?.start === undefined || region.iova === undefined || region.destruction !== undefined) return
    if (index === GiveBack.REUSABLE) {
      this.#memoryGone.reusable(region, time)
      return
    }
    const offset = region.iova - region.start
    this.#memoryGone.gaveBack({
      region,
      how: index,
      start: address + offset,
      end: Number(wrId) + offset,
      isKept: more === 1,
      time,
      stack,
    })
  }

  #overacknowledged({ index: count, more: read, address, wrId, context, ...at }: Misuse, object: KnownObject): void {
    const other = wrId === 0n ? undefined : this.#services.objects.byHandle(context, 'cq', Number(wrId) - 1)
    const isOther = other !== undefined && other !== object && other.destruction === undefined
    const call = address === 1 ? 'ibv_ack_async_event' : 'ibv_ack_cq_events'
    const events = `${counted(count, 'event')} of ${object.name}`
    const rest = read === 0 ? 'none was' : `only ${read} of them ${read === 1 ? 'was' : 'were'}`
    const where = isOther ? `; the event that this thread has read last is of ${other.name}` : ''
    this.#reporter.report(
      'events-overacknowledged',
      { ...at, context },
      {
        text: `${call} acknowledges ${events}, and ${rest} read and not acknowledged yet${where}`,
        ...(isOther && { advice: 'acknowledge the event of the CQ that ibv_get_cq_event has returned' }),
        objects: [object, isOther ? other : undefined],
      },
    )
  }
}
