/*
 * The engine of `userdma check`: calls, requests and failures of programs go in, findings come out. Detectors
 * (detector-table.ts) find them; this makes them, with the table of objects and the story, and passes events to them.
 * The engine does no I/O, reads no clock and knows neither core nor daemon. Its memory is bounded.
 */

import type { Omission } from '../../spec/check/omissions.ts'
import type { PeerFacts, PeerQuestion } from '../../spec/check/peer-facts.ts'
import type { ProgramConsumer, ProgramEvent, ProgramEventName } from '../../spec/check/program-events.ts'
import type { RequestWatcher } from '../../spec/check/requests.ts'
import { TWO_32 } from '../../spec/memory.ts'
import { type CheckerSources, DetectorServices, noSources, type Topic } from './detector.ts'
import { createDetectors } from './detector-table.ts'
import { createDispatch, type Dispatch } from './dispatch.ts'
import { createKeeper } from './keeper.ts'
import { LEARNT } from './lends/learnt.ts'
import { LENDS } from './lends/lends.ts'
import { type KnownObject, KnownObjects } from './objects.ts'
import { peerFactsOf } from './peer-facts.ts'
import { FindingReporter, type ReportFinding } from './reporting.ts'
import { STORIES, Stories } from './story/lines.ts'
import { StoryRecorder } from './story/recorder.ts'
import { type MemoryInSentence, memoryAt } from './waits/memory.ts'
import { createWaitReports } from './waits/report.ts'

type Take = (event: ProgramEvent) => void

export class Checker implements ProgramConsumer {
  readonly requests: RequestWatcher
  /** Number of calls so far. */
  calls = 0
  /** See `DetectorServices`. */
  readonly watchesAccesses: boolean
  readonly #reporter: FindingReporter
  readonly #objects: KnownObjects
  readonly #services: DetectorServices
  readonly #story: StoryRecorder
  readonly #dispatch: Dispatch
  /** What the checker itself takes, by event; it passes on what detectors take too. */
  readonly #own: Readonly<Record<string, Take | undefined>>

  /** `report` is called once for each distinct finding. */
  constructor(report: ReportFinding, sources: CheckerSources = noSources) {
    this.#reporter = new FindingReporter(report, sources.lacks, (...finding) => stories.of(...finding))
    this.#objects = new KnownObjects(this.#reporter.omit)
    const services = new DetectorServices(this.#objects, this.#reporter, sources)
    this.#services = services
    this.#story = new StoryRecorder(services)
    const stories = new Stories(services, this.#story)
    services.tell(STORIES, stories)
    const detectors = createDetectors.flatMap(create => create(services) ?? [])
    // The story is first: what others find has what happens now in it.
    const all = [this.#story.detector, ...detectors, createWaitReports(services, detectors)]
    this.#dispatch = createDispatch(this.#objects, all)
    this.#own = {
      ...createKeeper(services, this.#dispatch),
      omitted: ({ id, count }: ProgramEvent<'omitted'>) => this.#reporter.omit(id, count),
      postsDirectly: ({ pid, name }: ProgramEvent<'postsDirectly'>) => this.#reporter.postsDirectly(pid, name),
    } as Record<string, Take>
    this.requests = this.#dispatch.requests
    this.watchesAccesses = services.watchesAccesses
  }

  /** Occurrences of each finding, by its number − 1. */
  get counts(): readonly number[] {
    return this.#reporter.counts
  }

  /** See `DetectorServices`. */
  ask<T>(topic: Topic<T>): T | undefined {
    return this.#services.ask(topic)
  }

  /** See `DetectorServices`. */
  need<T>(topic: Topic<T>): T {
    return this.#services.need(topic)
  }

  /** As `FindingReporter.beginFresh`. */
  beginFresh(): number {
    return this.#reporter.beginFresh()
  }

  /** Reports what has waited for more to be known. */
  settle(): void {
    this.#dispatch.event({ event: 'logged' })
    this.#dispatch.part('settles')
  }

  /** What was left out so far, and how often. */
  get omissions(): readonly Omission[] {
    this.#dispatch.event({ event: 'logged' })
    return [...this.#reporter.omitted].map(([id, count]) => ({ id, count }))
  }

  /** Takes an event of the stream. */
  event<K extends ProgramEventName>(event: ProgramEvent<K>): void {
    const told = event as ProgramEvent
    if (told.event === 'called') this.calls++
    this.#story.event(told)
    const take = this.#own[told.event]
    if (take === undefined) this.#dispatch.event(told)
    else take(told)
  }

  /** See `ProgramConsumer`. */
  accessed(device: number, rkey: number, hi: number, lo: number, length: number, access: number, qpn: number): void {
    const address = (hi >>> 0) * TWO_32 + (lo >>> 0)
    this.#dispatch.part('accessed', { device, rkey, address, length, access, qpn })
  }

  /** Whether any of these bytes of a process is lent to a peer now. */
  isLent(pid: number | undefined, start: number, end: number): boolean {
    const [lends, learnt] = [this.ask(LENDS), this.ask(LEARNT)]
    return (
      lends?.isLent(pid, start, end) === true ||
      (lends?.isDeclared(pid) !== true && learnt?.isLent(pid, start, end) === true)
    )
  }

  /** As `memoryAt` of waits/memory.ts. */
  memoryAt(contexts: readonly number[], address: number): MemoryInSentence | undefined {
    return memoryAt(this.#services, contexts, address)
  }

  /** The `KnownObject.number` of a CQ. */
  cqNumber(context: number, handle: number): string {
    return this.#objects.byHandle(context, 'cq', handle)?.number ?? String(handle)
  }

  // ---- other hosts of a net ----

  /** What this host tells of a queue pair of its own, as it was at `time`. `state`: now. */
  peerFacts(device: number, qpn: number, time: number, state: number | undefined): Omit<PeerFacts, 'device' | 'clock'> {
    return peerFactsOf(this.#services, { device, qpn, time, state })
  }

  /** What is asked of other hosts about a context that waits. */
  peerQuestions(context: number): readonly PeerQuestion[] {
    const { net, sources, deviceWithGid } = this.#services
    return net.questionsOf(context, sources.now(), gid => deviceWithGid(gid) !== undefined)
  }

  addPeer(question: PeerQuestion, host: string, facts: PeerFacts): void {
    this.#services.net.add(question, host, facts)
  }

  /** The other end of a connection on another host, if it was asked for. */
  peerInNet(gid: Uint8Array, qpn: number): KnownObject | undefined {
    const device = this.#services.net.deviceWithGid(gid)
    return device === undefined ? undefined : this.#objects.qp(device, qpn)
  }
}
