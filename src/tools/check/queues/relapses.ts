/*
 * Programs that go on with failing completions: they have polled the failure of a queue pair, and post to it again,
 * which is a finding, or replace it by one that fails too. A walk tells of both (`degraded`).
 *
 * Each request has a depth: how many failures, each of a request that was posted after the one before had been polled,
 * the program knew when it posted it. Requests that were outstanding at the failure have none, and what a program posts
 * while it works through a list of completions has one.
 */
import { counted } from '../../../base/text.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import type { RequestCompletion, WorkRequest } from '../../../spec/check/requests.ts'
import { nameIn } from '../../../spec/enums.ts'
import type { Relapse } from '../../../spec/faults.ts'
import { WcStatus } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import type { DetectorServices } from '../detector.ts'
import { type KnownObject, typeOf } from '../objects.ts'
import { POSTED } from '../reporting.ts'
import type { UnpolledCompletion } from './unpolled.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values

/** Failures in a row, each polled before the next request, from which on a program goes on. */
const MANY = 4
/** A program that has had so many successes more than between its failures has stopped to post to the queue pair. */
const ENOUGH = 16
/** Maximum remembered queue pairs of a program that were reset or destroyed. */
const MAX_OVER = 64

/** A queue pair of which a failure was polled, since its last success. */
interface Failing {
  readonly qp: KnownObject
  /** The depth with which it began: that of the queue pair in whose place it is. */
  readonly base: number
  depth: number
  /** Not only flushed: a queue pair that is closed flushes what waits. */
  hasFailed: boolean
  /** By `WorkRequest.id`: the depths of requests that were posted since. */
  readonly depths: Map<number, number>
  /** The first of its failures that is no flush. */
  first: UnpolledCompletion | undefined
  /** Requests that were posted after a failure had been polled, and flushed; and those since the last PORT_ACTIVE. */
  flushed: number
  sinceActive: number | undefined
  /** The stack of a post after failures. */
  stack: Stack | undefined
  /** The most successes of the program between two failures, and those since the last. */
  gap: number
  since: number
}

interface Program {
  /** Those whose depth is MANY or more, of existing queue pairs and of others. */
  readonly live: Set<Failing>
  over: readonly Failing[]
  /** The depth of the last queue pair that ended after a failure, when that was, and its `KnownObject.id`. */
  ended: { readonly depth: number; readonly time: number; readonly qp: number } | undefined
}

export class Relapses {
  readonly #services: DetectorServices
  /** By `KnownObject.id` of the queue pair. */
  readonly #failing = new Map<number, Failing>()
  /** By pid. */
  readonly #programs = new Map<number, Program>()

  constructor(services: DetectorServices) {
    this.#services = services
  }

  /** What went on to the end of each program, or until now. */
  get all(): readonly Relapse[] {
    return [...this.#programs.values()].flatMap(({ live, over }) =>
      [...[...live].filter(({ gap, since }) => since <= 2 * gap + ENOUGH), ...over].map(relapseOf),
    )
  }

  #programOf({ program }: KnownObject): Program {
    const pid = program?.pid ?? 0
    const known = this.#programs.get(pid) ?? { live: new Set(), over: [], ended: undefined }
    this.#programs.set(pid, known)
    return known
  }

  /** The depth with which a queue pair begins. */
  #baseOf(qp: KnownObject): number {
    const ended = this.#programs.get(qp.program?.pid ?? 0)?.ended
    return ended !== undefined && (qp.id === ended.qp || qp.creation.time >= ended.time) ? ended.depth : 0
  }

  #begin(qp: KnownObject, base: number): Failing {
    const begun: Failing = {
      qp,
      base,
      depth: base,
      hasFailed: false,
      first: undefined,
      flushed: 0,
      sinceActive: undefined,
      depths: new Map(),
      stack: undefined,
      gap: 0,
      since: 0,
    }
    this.#failing.set(qp.id, begun)
    return begun
  }

  posted({ id, owner }: WorkRequest): void {
    const known = this.#failing.get(owner)
    if (known !== undefined) known.depths.set(id, known.depth)
  }

  completed(_request: WorkRequest, { status, qp: id }: RequestCompletion): void {
    if (status !== SUCCESS || this.#programs.size === 0) return
    const qp = this.#services.objects.find(id)
    const program = qp && this.#programs.get(qp.program?.pid ?? 0)
    if (qp === undefined || program === undefined) return
    const failing = this.#failing.get(id)
    const base = failing?.base ?? this.#baseOf(qp)
    if (failing !== undefined) {
      this.#failing.delete(id)
      program.live.delete(failing)
    }
    // What has taken the place of a failed queue pair works.
    if (base > 0) program.ended = undefined
    program.over = []
    for (const one of program.live) one.since++
  }

  polled(polled: UnpolledCompletion): void {
    const {
      request,
      completion: { status },
      qp,
      isOver,
    } = polled
    if (status === SUCCESS || isOver) return
    const failing = this.#failing.get(qp.id) ?? this.#begin(qp, this.#baseOf(qp))
    const depth = failing.depths.get(request.id) ?? failing.base
    const isLater = failing.depths.delete(request.id)
    if (status !== WR_FLUSH_ERR) {
      failing.hasFailed = true
      failing.first ??= polled
    } else if (isLater && failing.first !== undefined) {
      failing.flushed++
      if (failing.sinceActive !== undefined) failing.sinceActive++
    }
    failing.depth = Math.max(failing.depth, depth + 1)
    const program = this.#programOf(qp)
    if (failing.depth < MANY) return
    failing.stack ??= this.#services.postStack(qp, request)
    if (program.live.has(failing)) failing.gap = Math.max(failing.gap, failing.since)
    program.live.add(failing)
    failing.since = 0
  }

  /** The port of a device works again. */
  portActive(device: number): void {
    for (const failing of this.#failing.values()) if (failing.qp.device === device) failing.sinceActive = 0
  }

  contextEnds(context: number): void {
    for (const failing of this.#failing.values()) if (failing.qp.context === context) this.#report(failing)
  }

  /** Reports a program that goes on with a queue pair in ERR. */
  #report(failing: Failing): void {
    const { qp, base, depth, first, flushed, sinceActive, stack } = failing
    if (first === undefined || depth - base < MANY || flushed < MANY - 1) return
    failing.first = undefined
    const status = nameIn(WcStatus.values, first.completion.status)
    this.#services.report(
      'failure-ignored',
      { ...this.#services.occurrenceAt(qp, stack ?? []), ...POSTED },
      {
        text: `${qp.name} has failed (${requestText(first.request)}: ${status}), and ${counted(flushed, 'request')} that the program has posted to it after it had polled a failure ${flushed === 1 ? 'was' : 'were'} flushed`,
        details: [
          ...(sinceActive
            ? [
                `${counted(sinceActive, 'post')} of them since PORT_ACTIVE: the port works again, the queue pair does not`,
              ]
            : []),
          ...(typeOf(qp) === 'DCI' ? ['an initiator of DC in ERR reaches no target, also not one that is well'] : []),
        ],
        moments: [this.#services.postMoment(first.request, 'posted the one that failed')],
        objects: [qp],
      },
    )
  }

  /** The queue pair was reset or destroyed. */
  reset(id: number): void {
    const failing = this.#failing.get(id)
    if (failing === undefined) return
    this.#report(failing)
    this.#failing.delete(id)
    failing.depths.clear()
    const program = this.#programOf(failing.qp)
    if (failing.hasFailed)
      program.ended = { depth: failing.depth, time: this.#services.sources.now(), qp: failing.qp.id }
    if (!program.live.delete(failing) || failing.since > 2 * failing.gap + ENOUGH) return
    program.over = [...program.over.slice(1 - MAX_OVER), failing]
  }
}

const relapseOf = ({ qp, base, depth, stack }: Failing): Relapse => ({
  pid: qp.program?.pid ?? 0,
  program: qp.program?.command ?? '',
  text:
    base > 0
      ? `${qp.nameWithProgram} took the place of one that had failed, and failed too: ${depth} failures in a row`
      : `${qp.nameWithProgram} was not made anew after its failure: the program has posted to it ${depth - 1} times more, each time after it had polled the failure before`,
  stack: stack ?? [],
})
