/*
 * The door to the checker (tools/clients/check/check-client.ts): the one file of the daemon that makes it, gives it
 * events, asks it, and keeps what it finds.
 */
import type { ContextWait } from '../../core/driver-contract.ts'
import type { Context, Core, CoreObject } from '../../core/model.ts'
import type { Finding, Stack, Story } from '../../spec/check/finding.ts'
import type { Omission } from '../../spec/check/omissions.ts'
import type { ContextEnd, ProgramEvent } from '../../spec/check/program-events.ts'
import type { TormentedRequest } from '../../spec/check/torment-orders.ts'
import type { Wait } from '../../spec/check/waits.ts'
import type { Relapse } from '../../spec/faults.ts'
import type { LentBytes } from '../../spec/lends.ts'
import type { LendRecord } from '../../spec/records.ts'
import type { RecordedCheck } from '../../spec/session-events.ts'
import { RACES } from '../../tools/check/findings/races.ts'
import { LEARNT } from '../../tools/check/lends/learnt.ts'
import { LENDS } from '../../tools/check/lends/lends.ts'
import { QUEUES } from '../../tools/check/queues/queues.ts'
import { ORDERS } from '../../tools/check/request-orders.ts'
import { WHO } from '../../tools/check/who.ts'
import { type CheckedCore, createChecker } from '../../tools/clients/check/check-client.ts'
import { ConsumerRank } from '../../tools/events/stream.ts'
import type { Containment } from '../containment.ts'
import type { FailureReports } from '../failures.ts'
import { READ_LOGS_INTERVAL } from './event-log.ts'
import { createLendTrace } from './lend-trace.ts'

type Sources = Parameters<typeof createChecker>[2]
type Known = Pick<
  CheckedCore['checker'],
  'cqNumber' | 'memoryAt' | 'peerInNet' | 'peerQuestions' | 'peerFacts' | 'addPeer'
>

export class CheckerDoor {
  readonly #core: Core
  readonly #ownerOf: FailureReports['ownerOf']
  readonly #containment: Containment
  readonly #readLends: () => void
  readonly #checked: CheckedCore
  readonly #findings: Finding[] = []
  readonly #receivers = new Set<(finding: Finding) => void>()
  #reader: NodeJS.Timeout | undefined
  #findsRaces = false
  readonly #sessions = new WeakMap<object, number>()
  #lastSession = 0

  constructor(
    core: Core,
    ownerOf: FailureReports['ownerOf'],
    containment: Containment,
    sources: Omit<Sources, 'isChecked' | 'program' | 'findsWaits' | 'readLends'> & { readonly readLends: () => void },
  ) {
    this.#core = core
    this.#ownerOf = ownerOf
    this.#containment = containment
    this.#readLends = sources.readLends
    this.#checked = createChecker(core, finding => this.#report(finding), {
      ...sources,
      isChecked: context => ownerOf(context) !== undefined,
      program(context) {
        const owner = ownerOf(context)
        return owner && { pid: owner.pid, command: owner.command }
      },
      findsWaits: true,
    })
  }

  #report(finding: Finding): void {
    this.#findings.push(finding)
    for (const receive of this.#receivers) receive(finding)
  }

  // ---- what it is told ----

  event(event: ProgramEvent): void {
    this.#checked.stream.event(event)
  }

  /** The time of an event now, in microseconds. */
  now(): number {
    return this.#checked.stream.next()
  }

  /** What an event of a context that happens now has. */
  originOf(context: Context): ReturnType<CheckedCore['originOf']> {
    return this.#checked.originOf(context)
  }

  /** Tells it of the receives and polls so far of a context, or of all. */
  scan(context?: Context): void {
    this.#checked.scan(context)
  }

  /** As `scan`, of a queue pair, SRQ or CQ. */
  scanQueue(queue: CoreObject): void {
    this.#checked.scanQueue(queue)
  }

  /** It has got a stack. */
  stackKept(pid: number, id: number, stack: Stack): void {
    this.#checked.stream.answered('logStack', [pid, id], stack)
  }

  contextEnds(context: Context, how: ContextEnd['how']): void {
    this.#checked.contextEnds(context, how)
  }

  waits(context: Context, wait: Wait): void {
    this.#checked.waits(context, wait)
  }

  /**
   * A process allows races in this memory as long as it has this session. False if it has said so of too many ranges.
   */
  allowRaces(session: object, pid: number, start: bigint, length: bigint): boolean {
    const number = this.#sessions.get(session) ?? ++this.#lastSession
    this.#sessions.set(session, number)
    const hasSpace = this.#checked.checker.ask(RACES)?.hasSpace(number, pid) ?? true
    this.event({ event: 'benign', session: number, pid, start: Number(start), end: Number(start + length) })
    return hasSpace
  }

  /** A process relies on it that no access of a peer to these bytes is outstanding. Returns how many are. */
  expectsFinished(bytes: Pick<ProgramEvent<'expectsFinished'>, 'pid' | 'start' | 'end' | 'stack'>): number {
    const lends = this.#checked.checker.ask(LENDS)
    if (lends === undefined) return 0
    this.scan()
    this.event({ event: 'expectsFinished', time: this.now(), ...bytes })
    return lends.unfinished(bytes.pid, bytes.start, bytes.end)
  }

  /** Starts to search for races. */
  watchEvents(): void {
    if (this.#findsRaces) return
    this.#findsRaces = true
    this.#checked.checker.ask(RACES)?.begin()
    this.#checked.recordLogs(false)
    this.#readLogs()
  }

  /** The facts for a recording of depth `check`, which has the event logs too. */
  recorded(): RecordedCheck {
    // At once: a program may end before the first interval.
    this.#checked.recordLogs(!this.#findsRaces)
    this.#readLogs()
    return this.#checked.recorded
  }

  /** Starts to read the event logs. */
  #readLogs(): void {
    if (this.#reader !== undefined) return
    const read = this.#containment.guard('the reading of event logs', () => {
      this.event({ event: 'logged' })
      // The search for races reads them.
      this.#checked.recordLogs(!this.#findsRaces)
    })
    this.#reader = setInterval(read, READ_LOGS_INTERVAL).unref()
  }

  /** The daemon ends. */
  close(): void {
    clearInterval(this.#reader)
  }

  // ---- what it has found ----

  /** All findings so far, oldest first; grows. */
  get findings(): readonly Finding[] {
    return this.#findings
  }

  /** Calls `receive` with all findings so far and then with each new one, until the returned function is called. */
  subscribe(receive: (finding: Finding) => void): () => void {
    for (const finding of this.#findings) receive(finding)
    this.#receivers.add(receive)
    return () => this.#receivers.delete(receive)
  }

  /** From now on mistakes are new findings, though they were found before. Returns the number of findings so far. */
  beginFresh(): number {
    return this.#checked.checker.beginFresh()
  }

  /** How often each finding was found, indexed by its number − 1. */
  get counts(): readonly number[] {
    // Finds the races in entries of the log that were not read yet.
    this.#checked.checker.settle()
    return this.#checked.checker.counts
  }

  /** What was not checked so far, and how often. */
  get omissions(): readonly Omission[] {
    return this.#checked.checker.omissions
  }

  /** Number of checked calls. */
  get calls(): number {
    return this.#checked.checker.calls
  }

  /** Programs that go on with failing completions. */
  get relapses(): readonly Relapse[] {
    return this.#checked.checker.need(QUEUES).relapses.all
  }

  // ---- what it knows ----

  /** Compare-and-swaps that programs repeat without effect. */
  swapWaits(): readonly ContextWait[] {
    return this.#checked.swapWaits()
  }

  /** The accesses to the bytes of `--who`, so far. */
  who(): Story {
    this.scan()
    return this.#checked.checker.ask(WHO)?.() ?? []
  }

  /** What programs lend now. */
  lentBytes(): readonly LentBytes[] {
    this.#readLends()
    this.scan()
    const { checker } = this.#checked
    return [checker.ask(LENDS), checker.ask(LEARNT)].flatMap(lends => lends?.rows() ?? [])
  }

  /** Tells what is lent from now on, until the returned function is called. `tag`, `post`: see `createLendTrace`. */
  traceLends(tag: string, post: (record: LendRecord) => void): () => void {
    const { stream, checker } = this.#checked
    const lentRange = (...access: [device: number, rkey: number, address: number, length: number]) => {
      const lends = checker.ask(LENDS)
      const range = lends?.rangeOf(...access)
      const isTold = range && (lends?.isDeclared(range.pid) || checker.isLent(range.pid, range.start, range.end))
      return isTold ? range : undefined
    }
    return stream.add(ConsumerRank.TRACE, createLendTrace(this.#core, lentRange, this.#ownerOf, tag, post))
  }

  /** The posts and completions so far; none without torment. */
  orders(): readonly TormentedRequest[] {
    this.scan()
    return this.#checked.checker.ask(ORDERS)?.() ?? []
  }

  /** What it knows of the objects of programs, and of the other ends of connections. */
  get known(): Known {
    return this.#checked.checker
  }
}
