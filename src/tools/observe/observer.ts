/*
 * Turns the records of observed programs into the events of the checker and the records of the trace: one vocabulary
 * with our own devices. Without a device it sees only what programs call, post and poll.
 *
 * This file reads the records in their order. processes.ts follows open files, call-events.ts calls, work.ts what is
 * posted and polled.
 */
import type { Stack } from '../../spec/check/finding.ts'
import { LACKING } from '../../spec/check/needs.ts'
import { allWatchers } from '../../spec/check/requests.ts'
import { failureRecord } from '../../spec/records.ts'
import { PostQueue } from '../../spec/session.ts'
import { WcOpcode } from '../../spec/work.ts'
import { Checker } from '../check/checker.ts'
import type { ReportFinding } from '../check/reporting.ts'
import { ConsumerRank, eventTime, ProgramStream } from '../events/stream.ts'
import { Adapters } from './adapters.ts'
import { ObservedCalls } from './call-events.ts'
import { methodOf } from './calls.ts'
import type { ObservedFaults, ObservedQuestion } from './faults.ts'
import { AskKind, CallEntry } from './file-layout.ts'
import type { ObservedProcess } from './objects.ts'
import { callFacts, MONOTONIC_START, NO_STACK, type Observation, type ObserverOutput } from './observation.ts'
import { Processes } from './processes.ts'
import { ownerOf, Queues } from './queues.ts'
import type { ObservedRecord } from './records.ts'
import { ObservedRequests } from './requests.ts'
import { ObservedWork } from './work.ts'

export class Observer implements Observation {
  readonly checker: Checker
  readonly stream = new ProgramStream(() => this.time)
  readonly output: ObserverOutput
  readonly faults: ObservedFaults | undefined
  time = 0
  readonly #processes: Processes
  readonly #queues: Queues
  readonly #calls: ObservedCalls
  readonly #work: ObservedWork

  constructor(report: ReportFinding, output: ObserverOutput = {}, faults?: ObservedFaults) {
    this.output = output
    this.faults = faults
    const adapters = new Adapters()
    const processes = new Processes(adapters, (context, how) => this.#calls.contextEnded(context, how))
    this.checker = new Checker(report, {
      now: () => this.stream.time,
      ...this.stream.probed({
        deviceName: index => adapters.at(index)?.name ?? '',
        deviceWithGid: gid => adapters.withGid(gid),
        postStack: (context, queue, number, wrId, index) =>
          this.#queues.postStack(processes.context(context), queue, number, wrId, index),
        // Programs that are not observed, and other machines, use the adapters too.
        hasUnchecked: () => true,
      }),
      lacks: LACKING.observed,
    })
    this.stream.add(ConsumerRank.CHECK, this.checker)
    const { recording } = output
    recording?.programs?.(this.stream)
    if (recording !== undefined) this.stream.add(ConsumerRank.RECORD, recording)
    this.stream.add(ConsumerRank.TRACE, {
      event: event => {
        if (event.event === 'failed')
          output.failure?.(failureRecord(MONOTONIC_START + event.time / 1000, event.program, event.failure))
      },
    })
    const watchers = recording === undefined ? [this.checker.requests] : [recording.requests, this.checker.requests]
    const requests = new ObservedRequests(allWatchers(watchers, undefined, this.stream))
    this.#processes = processes
    this.#queues = new Queues(requests)
    this.#calls = new ObservedCalls(this, adapters, processes, this.#queues)
    this.#work = new ObservedWork(this, adapters, processes, this.#queues, requests)
  }

  /** Number of contexts that are open now. */
  get openContexts(): number {
    return this.#processes.openContexts
  }

  take(records: readonly ObservedRecord[]): void {
    for (const record of records) {
      this.time = eventTime(Number(record.time) / 1000)
      this.output.recording?.at(this.time)
      this.#take(record)
    }
  }

  /** Takes records of which some are older than those taken last. */
  replay(records: readonly ObservedRecord[]): void {
    const { time } = this
    this.take(records)
    this.time = Math.max(this.time, time)
  }

  /** Which requests are outstanding is not known any more. */
  forgetRequests(): void {
    for (const { objects } of this.#processes.contexts) for (const { id } of objects.values()) this.#queues.reset(id)
  }

  /**
   * What happens to the call, posts or completions of a question. Take all records that were complete before it first.
   */
  answer({ kind, pid, tid, fd, queue, number, count, completions }: ObservedQuestion): Uint8Array {
    const faults = this.faults
    if (faults === undefined) return new Uint8Array()
    const process = this.#processes.of(pid)
    const context = this.#processes.contextOf(process, fd, process.calls.get(tid)?.call.fileKind)
    const postStack = (of: number, at: number, wrId: bigint): Stack =>
      this.#queues.postStack(context, of, at, wrId, undefined)
    if (kind === AskKind.CALL) {
      const record = process.calls.get(tid)
      const classOf = (handle: number) => this.#calls.objectOf(process, context, handle)?.class
      const method = record && methodOf(record.call, classOf, context)
      return faults.onCall(tid, context, method, process.stacks.get(record?.stack ?? 0) ?? NO_STACK)
    }
    if (kind === AskKind.POST) {
      const owner = ownerOf(context, queue, number)
      const qpn = queue === PostQueue.SHARED ? undefined : number
      return faults.onPosts(tid, context, owner?.class.name, qpn, count, wrId => postStack(queue, number, wrId))
    }
    return faults.onCompletions(context, completions, ({ qpn, opcode, wrId }) =>
      postStack((opcode & WcOpcode.values.RECV) === 0 ? PostQueue.SEND : PostQueue.RECEIVE, qpn, wrId),
    )
  }

  /** Records of threads without a ring were dropped. */
  lostThreads(count: number): void {
    this.stream.event({ event: 'omitted', id: 'observed', count })
    this.output.lost?.(count)
    this.output.recording?.lost(count)
  }

  /** A process has dropped records: which of its requests are outstanding is not known any more. */
  #lost(process: ObservedProcess, count: number): void {
    this.lostThreads(count)
    process.isLossy = true
    for (const { objects } of process.contexts.values()) for (const { id } of objects.values()) this.#queues.reset(id)
  }

  #take(record: ObservedRecord): void {
    const process = this.#processes.of(record.pid)
    switch (record.kind) {
      case 'stack':
        process.stacks.set(record.stack, record.frames)
        break
      case 'lost':
        this.#lost(process, record.count)
        break
      case 'start':
        this.#processes.started(process, record)
        break
      case 'end':
        process.hasEnded = true
        break
      case 'gone':
        this.output.gone?.(record.pid, process.hasEnded)
        this.#processes.gone(process)
        break
      case 'open':
      case 'received':
        this.#processes.opened(process, record)
        break
      case 'kept':
        process.kept.set(record.fd, record)
        break
      case 'close':
        this.#processes.close(process, record.fd, 'close')
        break
      case 'duplicate':
        this.#processes.duplicated(process, record.fd, record.from)
        break
      case 'passed':
        this.#processes.passed(process, record.fd)
        break
      case 'fork':
        this.#processes.forked(process, record.fork)
        break
      case 'context':
        this.#processes.named(this.#processes.contextOf(process, record.fd), record.device)
        break
      case 'call':
        process.calls.set(record.tid, record)
        break
      case 'return': {
        const before = process.calls.get(record.tid)
        process.calls.delete(record.tid)
        const { entry, started, number } = record.call
        if (entry === CallEntry.READ || entry === CallEntry.SEND) this.#calls.message(process, record, started)
        else if (before?.call.number === number) this.#calls.called(process, before, record)
        break
      }
      case 'post':
        this.#work.posted(process, record)
        break
      case 'refused':
        this.#work.refused(process, record)
        break
      case 'refusal':
        this.#work.refusedByLibrary(process, record)
        break
      case 'poll':
        for (const completion of record.completions) this.#work.completed(process, record.fd, record.cq, completion)
        break
      case 'notify':
        this.#work.armed(process, record)
        break
      case 'batch':
      case 'order': {
        const context = process.contexts.get(record.fd)
        if (context === undefined) break
        const stackOf = (number: number): Stack => process.stacks.get(number) ?? NO_STACK
        const facts = { ...callFacts(this, context, stackOf(record.stack)), since: stackOf(record.since) }
        if (record.kind === 'batch') this.stream.event({ event: 'batchMistaken', ...record, ...facts })
        else this.stream.event({ event: 'misordered', ...record, ...facts })
        break
      }
      case 'direct':
        this.output.direct?.(process, record.function)
        break
      case 'use of gone':
        this.#work.usedGone(process, record)
        break
    }
  }
}
