/*
 * The daemon's part of `userdma check`: keeps the call stacks that programs send, runs the checker
 * (tools/clients/check/check-client.ts), and passes findings to subscribed tools.
 */

import { readSync } from 'node:fs'
import { constants as os } from 'node:os'
import type { ContextWait } from '../../core/driver-contract.ts'
import type { Context, Core } from '../../core/model.ts'
import { createLaterLook } from '../../host/event-loop/timer.ts'
import { createRingPool, mapArena } from '../../host/memory/mapping.ts'
import type { ProcessHandle } from '../../host/memory/process.ts'
import { commandName, isCopiedByFork, isEnding, lockLimit, privateFileAt } from '../../host/process-status.ts'
import type { Finding, Program, Stack, Story } from '../../spec/check/finding.ts'
import type { Omission } from '../../spec/check/omissions.ts'
import { type PeerQuestion, peerFactsText } from '../../spec/check/peer-facts.ts'
import type {
  LibraryRefusal,
  Misorder,
  MistakenBatch,
  PreloadEvent,
  ProgramEvent,
  RefusedAttempt,
  RefusedPost,
  RequestFacts,
  UseOfGone,
} from '../../spec/check/program-events.ts'
import { SCRATCH_BYTES, type WorkRequest } from '../../spec/check/requests.ts'
import { ConsumerRank } from '../../spec/check/stream.ts'
import type { GraphProcess } from '../../spec/check/thread-waits.ts'
import type { TormentedRequest } from '../../spec/check/torment-orders.ts'
import { parseWho } from '../../spec/check/who.ts'
import {
  findPosition,
  HashLog,
  hashSlot,
  PositionLog,
  PostLog,
  positionSet,
  postSlot,
} from '../../spec/context-logs.ts'
import { OTHER_SWITCHES } from '../../spec/fabric.ts'
import type { Relapse } from '../../spec/faults.ts'
import type { LentBytes } from '../../spec/lends.ts'
import { offsetsOf } from '../../spec/message-layout.ts'
import type { LendRecord } from '../../spec/records.ts'
import { CM_NAME, MAX_STACKS, Messages, PostQueue } from '../../spec/session.ts'
import type { RecordedCheck } from '../../spec/session-events.ts'
import { type CheckedCore, createChecker } from '../../tools/clients/check/check-client.ts'
import { parseAddressText } from '../../transport/wire/address.ts'
import type { DaemonConfig } from '../../uapi/tool.ts'
import type { Containment } from '../containment.ts'
import type { Contexts } from '../context/contexts.ts'
import { devicesWith } from '../devices/devices.ts'
import type { FailureReports } from '../failures.ts'
import { EventLogs } from './event-log.ts'
import { createLendTrace } from './lend-trace.ts'
import { LendRings } from './lends.ts'
import { NetDaemons } from './net-daemons.ts'
import { Unmappings } from './unmappings.ts'
import { WaitTableFile, WaitTables } from './waits/tables.ts'
import { type ThreadWaitSources, ThreadWaits } from './waits/threads.ts'
import { WaitWatch } from './waits/watch.ts'

/** Maximum number of frames of a stack. */
const MAX_FRAMES = 64
/** Approximate maximum bytes of the stacks of one process, and of all processes. */
const MAX_PROCESS_BYTES = 2 ** 24
const MAX_TOTAL_BYTES = 2 ** 27
/** Maximum number of processes whose stacks are kept. Ended processes count too; the oldest are removed first. */
const MAX_PROCESSES = 256
/** Milliseconds between reads of the event logs. */
const READ_LOGS_INTERVAL = 100
/** A DIED message. */
interface EndOfProcess {
  readonly signal: number
  readonly ours: number
  readonly fault: number
  readonly address: bigint
  readonly function: string
}

/** Bytes charged for a frame in addition to its text. */
const FRAME_BYTES = 32

interface ProcessStacks {
  readonly session: object
  /** The pid in the process's own namespace. */
  readonly namespacePid: number
  readonly byId: Map<number, Stack>
  bytes: number
}

const POST_OFFSETS = offsetsOf(Messages.post)
const POSITION_OFFSETS = offsetsOf(Messages.position)
const HASH_OFFSETS = offsetsOf(Messages.hash)

const NO_STACK: Stack = []

/** Microseconds since 1970 at time 0 of `nowMicroseconds`. */
const CLOCK = performance.timeOrigin * 1000
/** Questions to other hosts at a time. */
const MAX_QUESTIONS = 1024
/** Contexts that wait of which other hosts are asked at a time. */
const MAX_ASKED = 16

const signalName = (number: number): string =>
  Object.entries(os.signals).find(([, value]) => value === number)?.[0] ?? `signal ${number}`

export class DaemonChecker {
  readonly #now: () => number
  readonly #contexts: Contexts
  readonly #failures: FailureReports
  readonly #containment: Containment
  /** By pid. */
  readonly #stacks = new Map<number, ProcessStacks>()
  readonly #findings: Finding[] = []
  readonly #receivers = new Set<(finding: Finding) => void>()
  /** Buffer for an entry of a post log. A typed array, not the DataView, is read: event-log.ts says why. */
  readonly #entryBytes = new Uint8Array(Messages.post.size)
  readonly #entry = new DataView(this.#entryBytes.buffer)
  /** A set of the position log. */
  readonly #setBytes = new Uint8Array(PositionLog.ways * Messages.position.size)
  readonly #set = new DataView(this.#setBytes.buffer)
  /** Buffer for an entry of a hash log. */
  readonly #hashBytes = new Uint8Array(Messages.hash.size)
  readonly #hash = new DataView(this.#hashBytes.buffer)
  #totalBytes = 0
  #areLogsRead = false
  #findsRaces = false
  readonly #unmappings = new Unmappings()
  readonly #lendRings = createRingPool()
  readonly #lends: LendRings
  #readsLends = false
  readonly #checked: CheckedCore
  readonly #core: Core
  /** Contexts that their program closes, or whose program ends by exit(3), _exit(2) or exec(2). */
  readonly #ending = new WeakSet<Context>()
  readonly #sessions = new WeakMap<object, number>()
  #lastSession = 0
  readonly waits: WaitWatch
  readonly waitTables = new WaitTables()
  readonly #devices: ThreadWaitSources['devices']
  /** Undefined: the daemon is of no net. */
  #net: NetDaemons | undefined
  readonly #asked = new Set<Promise<void>>()
  /** The processes of the other hosts, at the last look. */
  #otherHosts: readonly GraphProcess[] = []
  readonly #threads: ThreadWaits
  /** The program's stack of the current call; undefined between calls. */
  currentStack: Stack | undefined
  /** The thread that makes it. */
  currentThread: number | undefined

  constructor(
    core: Core,
    now: () => number,
    {
      contexts,
      failures,
      containment,
      waits,
      devices,
      cm,
      tormentName,
    }: {
      readonly contexts: Contexts
      readonly failures: FailureReports
      readonly containment: Containment
      /** What programs wait for now. */
      readonly waits: (threads: ThreadWaits) => Iterable<ContextWait | undefined>
      readonly devices: ThreadWaitSources['devices']
      readonly cm: ThreadWaitSources['cm']
      /** As of `CheckerSources`. */
      readonly tormentName?: ((id: number) => string | undefined) | undefined
    },
    {
      adapters = [],
      buffers = 'sampled',
      lent = 'learnt',
      who,
      link,
      fabric,
      clock,
    }: Partial<Pick<DaemonConfig, 'adapters' | 'buffers' | 'lent' | 'who' | 'link' | 'fabric' | 'clock'>> = {},
  ) {
    const range = who === undefined ? undefined : parseWho(who)
    this.#now = now
    this.#core = core
    this.#devices = devices
    this.#contexts = contexts
    this.#failures = failures
    this.#containment = containment
    const logs = new EventLogs(contexts, (context, pid) => this.#processOf(failures.ownerOf(context)?.pid ?? -1, pid))
    this.#checked = createChecker(core, finding => this.#report(finding), {
      scratch: mapArena(SCRATCH_BYTES),
      isChecked: context => this.#programOf(context) !== undefined,
      program: context => this.#programOf(context),
      callStack: () => {
        const stack = this.currentStack ?? NO_STACK
        return () => stack
      },
      callThread: () => this.currentThread,
      postStack: (context, queue, number, wrId, index) => this.postStack(context, queue, number, wrId, index),
      unmapStack: ({ pid }, start, end) => this.#unmappings.stackOf(pid, start, end, now()),
      postHash: (context, request) => this.#postHash(context, request),
      findsWaits: true,
      clock: CLOCK,
      askPeer: (question, answered) => {
        if (this.#net === undefined || this.#asked.size >= MAX_QUESTIONS) return false
        this.#awaited(this.#net.peer(question), found => answered(found?.host, found?.facts))
        return true
      },
      isClosed: link === 'memory' && fabric?.startsWith(OTHER_SWITCHES) !== true,
      adapters,
      buffers,
      lent,
      ...(range && { who: range }),
      ...(tormentName && { tormentName }),
      lockLimit: ({ pid }) => lockLimit(pid),
      isCopiedByFork: ({ pid }, address) => isCopiedByFork(pid, address),
      privateFile: ({ pid }, address) => privateFileAt(pid, address),
      readLends: () => this.#lends.read(),
      events: { logStack: (pid, id) => this.stackOf(pid, id), readLog: () => logs.read() },
      wasKilled: context => this.#wasKilled(context),
      closing: context => {
        if (this.#wasKilled(context)) this.waits.ended(context)
      },
      channelCloses: (context, channel) => {
        if (this.#wasKilled(context)) this.waits.ended(context, channel)
      },
    })
    this.#lends = new LendRings(
      {
        stackOf: (pid, id) => this.stackOf(pid, id),
        event: event => this.#event(event),
        now,
      },
      memory => this.#lendRings.release(memory),
    )
    this.#threads = new ThreadWaits({
      devices,
      failures,
      cm,
      contexts,
      tables: this.waitTables,
      stackOf: (pid, id) => this.stackOf(pid, id),
      ownHost: () => this.#net?.host,
      peerInNet: (gid, qpn) => this.#checked.checker.peerInNet(gid, qpn),
      otherHosts: () => this.#otherHosts,
      cqNumber: (context, handle) => this.#checked.checker.cqNumber(context, handle),
      memoryAt: (contexts, address) => this.#checked.checker.memoryAt(contexts, address),
      now,
    })
    this.waits = new WaitWatch(
      () => {
        this.#checked.scan()
        const found = [...this.#checked.swapWaits(), ...waits(this.#threads)].filter(wait => wait !== undefined)
        this.#askAbout(found)
        return found
      },
      now,
      (context, wait) =>
        this.#checked.waits(context, {
          ...this.#originOf(context),
          wait: { ...wait, ...this.#threads.graphFor(wait.graph, failures.ownerOf(context)?.pid) },
        }),
      containment,
      context => isEnding(failures.ownerOf(context)?.pid ?? 0),
      ...(clock === 'skip' ? [createLaterLook()] : []),
    )
  }

  /** Wraps a job that continues the current call later: each step of the job gets the stack of the call. */
  withStack(job: Iterator<unknown>): Iterator<unknown> {
    const stack = this.currentStack
    return {
      next: () => {
        const before = this.currentStack
        this.currentStack = stack
        try {
          return job.next()
        } finally {
          this.currentStack = before
        }
      },
    }
  }

  /**
   * Stores the stack of a STACK message. `id` is unique in the process's `session`. `frames`: one per line. False if
   * the process has too many stacks, too many bytes, or this id already.
   */
  defineStack(
    session: object,
    { pid, namespacePid }: { readonly pid: number; readonly namespacePid: number },
    id: number,
    frames: string,
  ): boolean {
    let processStacks = this.#stacks.get(pid)
    if (processStacks?.session !== session) {
      this.#removeStacks(pid)
      processStacks = { session, namespacePid, byId: new Map(), bytes: 0 }
      this.#stacks.set(pid, processStacks)
    }
    const stack = frames.split('\n').filter(Boolean).slice(0, MAX_FRAMES)
    const bytes = frames.length + stack.length * FRAME_BYTES
    const { byId } = processStacks
    if (byId.size >= MAX_STACKS || processStacks.bytes + bytes > MAX_PROCESS_BYTES || byId.has(id)) {
      this.#event({ event: 'omitted', id: 'stacks', count: 1 })
      return false
    }
    byId.set(id, stack)
    this.#checked.stream.answered('logStack', [pid, id], stack)
    processStacks.bytes += bytes
    this.#totalBytes += bytes
    for (const oldest of this.#stacks.keys()) {
      const isWithinLimits = this.#stacks.size <= MAX_PROCESSES && this.#totalBytes <= MAX_TOTAL_BYTES
      if (oldest === pid || isWithinLimits) break
      this.#event({ event: 'omitted', id: 'stacks', count: this.#stacks.get(oldest)?.byId.size ?? 0 })
      this.#removeStacks(oldest)
    }
    return true
  }

  /** The socket of the daemon, which may be that of a host of a net. */
  joinNet(socket: string): void {
    this.#net = NetDaemons.of(socket)
  }

  /** Resolves when the other hosts have answered what they were asked so far, or did not in time. */
  async untilPeersAnswered(): Promise<void> {
    while (this.#asked.size > 0) await Promise.all(this.#asked)
  }

  /** Takes an answer of other hosts. */
  #awaited<T>(answer: Promise<T>, take: (answer: T) => void): void {
    const taken: Promise<void> = answer
      .then(this.#containment.guard('an answer of another host', take))
      .finally(() => this.#asked.delete(taken))
    this.#asked.add(taken)
  }

  /** Asks the other hosts about the connections of programs that wait: the answers are there when it is reported. */
  #askAbout(found: readonly ContextWait[]): void {
    const net = this.#net
    if (net === undefined || this.#asked.size > 0) return
    const { checker } = this.#checked
    const contexts = [...new Set(found.map(({ context }) => context.id))].slice(0, MAX_ASKED)
    const questions = contexts.flatMap(context => checker.peerQuestions(context))
    if (questions.length === 0) return
    for (const question of questions)
      this.#awaited(net.peer(question), answer => {
        if (answer !== undefined) checker.addPeer(question, answer.host, answer.facts)
      })
    this.#awaited(net.processes(), processes => {
      this.#otherHosts = processes
    })
  }

  /** The text of `PeerFacts`, for another host; undefined: no device has the address. */
  peerText({ address, qpn, time }: PeerQuestion): string | undefined {
    const gid = parseAddressText(address)
    const [found] = gid === undefined ? [] : devicesWith(this.#devices, gid)
    if (found === undefined) return undefined
    this.#checked.scan()
    const { device, network } = found
    const object = network?.queues?.qpOfNumber(qpn)
    const state = object && network?.queues?.qp(object)?.state
    return peerFactsText({
      device: device.name,
      clock: CLOCK,
      ...this.#checked.checker.peerFacts(device.index, qpn, time - CLOCK, state),
    })
  }

  /** Message WAITS of a process; takes over `fd`. */
  takeWaitTable(session: object, pid: number, namespacePid: number, fd: number): void {
    const file = WaitTableFile.take(fd)
    if (file === undefined) return
    this.waitTables.add({ pid, namespacePid, command: commandName(pid) ?? '?', file, session })
    this.#lends.add(session, pid, file.lendRing(this.#lendRings))
    if (this.#readsLends) return
    this.#readsLends = true
    setInterval(
      this.#containment.guard('the reading of lends', () => this.#lends.read()),
      READ_LOGS_INTERVAL,
    ).unref()
  }

  /** The session of a process has ended. */
  sessionEnded(session: object): void {
    this.waitTables.ended(session)
    this.#lends.ended(session)
  }

  /**
   * Message LENDS of a process: reads what it has declared of lent memory. If it asks about bytes, how many requests of
   * peers to them are outstanding.
   */
  lends(pid: number, stack: Stack, { address, length }: { readonly address: bigint; readonly length: bigint }): number {
    this.#lends.read()
    const { lends } = this.#checked.checker
    if (length === 0n || lends === undefined) return 0
    this.#checked.scan()
    const [start, end] = [Number(address), Number(address + length)]
    this.#event({ event: 'expectsFinished', time: this.#checked.stream.next(), pid, start, end, stack })
    return lends.unfinished(pid, start, end)
  }

  /** The processes with their threads that wait now. */
  threadWaits(): readonly GraphProcess[] {
    return this.#threads.processes([])
  }

  /** Empty if no stack has this id. */
  stackOf(pid: number, id: number): Stack {
    return this.#stacks.get(pid)?.byId.get(id) ?? NO_STACK
  }

  /**
   * The frames of all kept stacks, each once, `most` of them: those of threads that wait, and then of the newest processes.
   */
  frames(most: number): readonly string[] {
    const frames = new Set<string>()
    const waiting = this.#findings.map(({ waits }) =>
      (waits?.threads ?? []).flatMap(({ stack, signaled = [] }) => [stack, signaled]),
    )
    const known = [...this.#stacks.values()].reverse().map(({ byId }) => byId.values())
    for (const stacks of [...waiting, ...known])
      for (const stack of stacks)
        for (const frame of stack) {
          if (frames.size === most) return [...frames]
          frames.add(frame)
        }
    return [...frames]
  }

  /** The stack of a request's post, also of a batch. Arguments as of `postStack`. */
  requestStack(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack {
    const stack = this.postStack(context, queue, number, wrId, index)
    const isBatch = stack.length === 0 && queue === PostQueue.SEND
    return isBatch ? this.postStack(context, PostQueue.BATCH, number, 0n) : stack
  }

  /** Reports a REFUSED message: a post that the program's provider library or the preload library refused. */
  refusedPost(
    context: Context,
    stack: Stack,
    post: Pick<RefusedPost, 'number' | 'error' | 'wrId' | 'queue' | 'state'> & RequestFacts,
  ): void {
    this.#event({ event: 'refusedPost', ...post, ...this.#originOf(context), stack, request: post })
  }

  /** An event of the preload library of a process. The context may be the parent's. `age`: nanoseconds since. */
  preloadEvent(
    context: Context,
    { pid, guest }: Pick<ProcessHandle, 'pid' | 'guest'>,
    stack: Stack,
    event: PreloadEvent,
    age: bigint,
  ): void {
    // The check of a fork reads the process's smaps. A guest (host/memory/guest.ts) could make the daemon wait there.
    if (guest !== undefined && event.event === 'forkedOutstanding') return
    // The detectors must see the posts and polls before the mistake, which is told late.
    this.#checked.scan(context)
    const origin = this.#originOf(context)
    const program = { pid, command: commandName(pid) ?? '?' }
    // `time` is in microseconds.
    this.#event({ ...event, ...origin, stack, time: origin.time - Number(age) / 1000, program })
  }

  /** Reports a REFUSAL message: a call that a library of the program refused. `context`: undefined for rdma_cm. */
  refusedByLibrary(
    pid: number,
    context: Context | undefined,
    stack: Stack,
    refusal: Pick<LibraryRefusal, 'function' | 'object' | 'errno' | 'facts'>,
  ): void {
    const program = { pid, command: commandName(pid) ?? '?' }
    const origin =
      context === undefined
        ? { time: this.#checked.stream.next(), device: CM_NAME, deviceNumber: -1, context: undefined }
        : this.#originOf(context)
    this.#event({ event: 'refusedByLibrary', ...refusal, ...origin, program, stack })
  }

  /** Reports a GONE message of a process. `destroyed`: the id of a stack. */
  usedGone(
    pid: number,
    stack: Stack,
    {
      age,
      destroyed,
      owner,
      ...use
    }: Pick<UseOfGone, 'function' | 'kind' | 'number' | 'use'> & {
      readonly age: bigint
      readonly destroyed: number
      readonly owner: number
    },
  ): void {
    const time = this.#checked.stream.next()
    this.#event({
      event: 'usedGone',
      ...use,
      time,
      program: { pid, command: commandName(pid) ?? '?' },
      isOwner: owner !== 0,
      stack,
      // `age` is in nanoseconds, `time` in microseconds.
      destroyedAt: time - Number(age) / 1000,
      destroyedStack: this.stackOf(pid, destroyed),
      value: age,
    })
  }

  /** Reports a DIED message of a process. */
  died(pid: number, stack: Stack, { signal, ours, fault, address, function: lastCall }: EndOfProcess): void {
    const program = { pid, command: commandName(pid) ?? '?' }
    const isInOurs = ours !== 0
    this.#event({
      event: 'died',
      time: this.#checked.stream.next(),
      program,
      signal: signalName(signal),
      isInOurs,
      stack,
      lastCall,
      fault,
      address,
    })
  }

  /** Reports a BATCH message of a process. `since`: the stack with that number. */
  batchMistaken(
    context: Context,
    stack: Stack,
    since: Stack,
    batch: Pick<MistakenBatch, 'number' | 'mistake' | 'called' | 'opcode' | 'wrId' | 'requests'>,
  ): void {
    this.#event({ event: 'batchMistaken', ...batch, ...this.#originOf(context), stack, since })
  }

  /** Reports an ORDER message of a process. `since`: the stack with that number. */
  misordered(
    context: Context,
    stack: Stack,
    since: Stack,
    order: Pick<Misorder, 'object' | 'number' | 'mistake' | 'called' | 'field' | 'isSingle'>,
  ): void {
    this.#event({ event: 'misordered', ...order, ...this.#originOf(context), stack, since })
  }

  /** Reports a refused call that was not decoded into a method (`Answer.attempt`). */
  refusedAttempt(context: Context, attempt: Pick<RefusedAttempt, 'stack' | 'attempt' | 'errno' | 'reason'>): void {
    this.#event({ event: 'refusedAttempt', ...attempt, ...this.#originOf(context) })
  }

  /** Reports a FORK message of a process. */
  forked(pid: number, stack: Stack): void {
    this.#event({ event: 'forked', pid, stack })
  }

  /**
   * Message BENIGN of a process: races in this memory of it are no findings, as long as it has this `session`. False if
   * it has said so of too many ranges.
   */
  allowRaces(session: object, pid: number, start: bigint, length: bigint): boolean {
    const number = this.#numberOf(session)
    const hasSpace = this.#checked.checker.races?.hasSpace(number, pid) ?? true
    this.#event({ event: 'benign', session: number, pid, start: Number(start), end: Number(start + length) })
    return hasSpace
  }

  /** Message UNMAP of a process. */
  unmaps(pid: number, stack: Stack, { address, length }: { readonly address: bigint; readonly length: bigint }): void {
    this.#unmappings.add({ pid, stack, start: Number(address), end: Number(address + length), time: this.#now() })
  }

  /** Message DIRECT of a process. */
  postsDirectly(pid: number, name: string): void {
    this.#event({ event: 'postsDirectly', pid, name })
  }

  /** Message END of a process: about one context, or all contexts that the process has opened. */
  ends(pid: number, context: Context | undefined): void {
    if (context !== undefined) {
      this.#ending.add(context)
      this.#checked.contextEnds(context, 'close')
      return
    }
    const { devices, system } = this.#core
    for (const { contexts } of [...devices.values(), ...(system === undefined ? [] : [system])])
      for (const one of contexts)
        if (this.#failures.ownerOf(one)?.pid === pid) {
          this.#ending.add(one)
          this.#checked.contextEnds(one, 'exit')
        }
  }

  /**
   * Whether a signal ended the program of a context that is being closed. Only programs that send stacks send END; the
   * TypeScript library does not.
   */
  #wasKilled(context: Context): boolean {
    const sendsStacks = this.#stacks.has(this.#programOf(context)?.pid ?? -1)
    return sendsStacks && !this.#ending.has(context) && context.mapped?.packed === undefined
  }

  /** Starts to search for races. */
  watchEvents(): void {
    if (this.#findsRaces) return
    this.#findsRaces = true
    this.#checked.checker.races?.begin()
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
    if (this.#areLogsRead) return
    this.#areLogsRead = true
    const read = this.#containment.guard('the reading of event logs', () => {
      this.#event({ event: 'logged' })
      // The search for races reads them.
      this.#checked.recordLogs(!this.#findsRaces)
    })
    setInterval(read, READ_LOGS_INTERVAL).unref()
  }

  /** All findings so far, oldest first; grows. */
  get findings(): readonly Finding[] {
    return this.#findings
  }

  /** From now on mistakes are new findings, though they were found before. Returns the number of findings so far. */
  beginFresh(): number {
    return this.#checked.checker.beginFresh()
  }

  /** Calls `receive` with all findings so far and then with each new one, until the returned function is called. */
  subscribe(receive: (finding: Finding) => void): () => void {
    this.waits.start()
    this.#net?.connect()
    for (const finding of this.#findings) receive(finding)
    this.#receivers.add(receive)
    return () => this.#receivers.delete(receive)
  }

  /** Programs that go on with failing completions. */
  get relapses(): readonly Relapse[] {
    return this.#checked.checker.relapses
  }

  /** How often each finding was found, indexed by its number − 1. */
  get counts(): readonly number[] {
    // Finds the races in entries of the log that were not read yet.
    this.#checked.checker.settle()
    return this.#checked.checker.counts
  }

  /** The accesses to the bytes of `--who`, so far. */
  who(): Story {
    this.#checked.scan()
    return this.#checked.checker.who?.story() ?? []
  }

  /** What programs lend now. */
  lentBytes(): readonly LentBytes[] {
    this.#lends.read()
    this.#checked.scan()
    const { lends, learnt } = this.#checked.checker
    return [...(lends?.rows() ?? []), ...(learnt?.rows() ?? [])]
  }

  /** The posts and completions so far; none without torment. */
  orders(): readonly TormentedRequest[] {
    this.#checked.scan()
    return this.#checked.checker.orders?.all() ?? []
  }

  /** What was not checked so far, and how often. */
  get omissions(): readonly Omission[] {
    return this.#checked.checker.omissions
  }

  /** Number of checked calls. */
  get calls(): number {
    return this.#checked.checker.calls
  }

  #removeStacks(pid: number): void {
    this.#totalBytes -= this.#stacks.get(pid)?.bytes ?? 0
    this.#stacks.delete(pid)
  }

  /**
   * The pid, in the daemon's namespace, of a process with `namespacePid`; −1: unknown. Several processes can have the
   * same `namespacePid`: `owner`, which opened the context, comes first.
   */
  #processOf(owner: number, namespacePid: number): number {
    if (this.#stacks.get(owner)?.namespacePid === namespacePid) return owner
    for (const [pid, other] of this.#stacks) if (other.namespacePid === namespacePid) return pid
    return -1
  }

  /** Also of a context that is being closed. */
  #memoryOf(context: Context) {
    for (const open of this.#contexts.withMemory()) if (open.context === context) return open.memory
    return undefined
  }

  /** The hash of a send's buffer at its post, from the hash log in the context's memory file (`Messages.hash`). */
  #postHash(context: Context, { number, postIndex: index }: WorkRequest) {
    const memory = this.#memoryOf(context)
    if (memory === undefined || index === undefined) return undefined
    const bytes = this.#hashBytes
    readSync(memory.fd, bytes, 0, bytes.length, HashLog.offset + hashSlot(number, index) * bytes.length)
    const entry = this.#hash
    const matches =
      entry.getUint32(HASH_OFFSETS.number, true) === number &&
      entry.getUint32(HASH_OFFSETS.hashed, true) === (index + 1) >>> 0
    return matches
      ? { hash: entry.getUint32(HASH_OFFSETS.hash, true), isWhole: entry.getUint32(HASH_OFFSETS.isWhole, true) === 1 }
      : undefined
  }

  /**
   * The stack of a request's post, from the logs in the context's memory file (`PositionLog`, `PostLog`); empty: unknown.
   * `queue`: PostQueue. `number`: the QPN, or the handle of the SRQ. `index`: its position; absent: unknown.
   */
  postStack(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack {
    const exact = index === undefined ? NO_STACK : this.#positionEntry(context, queue, number, index)
    // ibv_wr_complete logs one entry, with wr_id 0, for all its requests, beside those by their positions.
    return exact.length > 0 ? exact : this.#postEntry(context, queue, number, queue === PostQueue.BATCH ? 0n : wrId)
  }

  #postEntry(context: Context, queue: number, number: number, id: bigint): Stack {
    const memory = this.#memoryOf(context)
    const owner = this.#failures.ownerOf(context)
    if (memory === undefined || owner === undefined) return NO_STACK
    const bytes = this.#entryBytes
    readSync(memory.fd, bytes, 0, bytes.length, PostLog.offset + postSlot(queue, number, id) * bytes.length)
    const matches =
      this.#entry.getBigUint64(POST_OFFSETS.wrId, true) === id &&
      this.#entry.getUint32(POST_OFFSETS.queue, true) === queue &&
      this.#entry.getUint32(POST_OFFSETS.number, true) === number
    if (!matches) return NO_STACK
    const pid = this.#processOf(owner.pid, this.#entry.getUint32(POST_OFFSETS.pid, true))
    return this.stackOf(pid, this.#entry.getUint32(POST_OFFSETS.stack, true))
  }

  #positionEntry(context: Context, queue: number, number: number, index: number): Stack {
    const memory = this.#memoryOf(context)
    const owner = this.#failures.ownerOf(context)
    if (memory === undefined || owner === undefined) return NO_STACK
    const bytes = this.#setBytes
    readSync(memory.fd, bytes, 0, bytes.length, PositionLog.offset + positionSet(queue, number, index))
    const at = findPosition(this.#set, 0, queue, number, index)
    if (at < 0) return NO_STACK
    const pid = this.#processOf(owner.pid, this.#set.getUint32(at + POSITION_OFFSETS.pid, true))
    return this.stackOf(pid, this.#set.getUint32(at + POSITION_OFFSETS.stack, true))
  }

  /** Tells what is lent from now on, until the returned function is called. `tag`, `post`: as of `createLendTrace`. */
  traceLends(tag: string, post: (record: LendRecord) => void): () => void {
    const { stream, checker } = this.#checked
    const ownerOf = (context: Context) => this.#failures.ownerOf(context)
    return stream.add(ConsumerRank.TRACE, createLendTrace(this.#core, checker, ownerOf, tag, post))
  }

  #event(event: ProgramEvent): void {
    this.#checked.stream.event(event)
  }

  /** Numbers sessions, from 1. */
  #numberOf(session: object): number {
    const number = this.#sessions.get(session) ?? ++this.#lastSession
    this.#sessions.set(session, number)
    return number
  }

  #programOf(context: Context): Program | undefined {
    const owner = this.#failures.ownerOf(context)
    return owner && { pid: owner.pid, command: owner.command }
  }

  #originOf(context: Context): {
    time: number
    device: string
    deviceNumber: number
    context: number
    program: Program | undefined
  } {
    return {
      time: this.#checked.stream.next(),
      device: context.device.name,
      deviceNumber: context.device.index,
      context: context.id,
      program: this.#programOf(context),
    }
  }

  #report(finding: Finding): void {
    this.#findings.push(finding)
    for (const receive of this.#receivers) receive(finding)
  }
}
