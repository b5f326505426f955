/*
 * What the threads of programs wait for, and who could end it, from their wait tables (tables.ts) and the objects of
 * the daemon: for the graph of tools/check/waits/graph.ts. One look cannot tell a loop that polls from a poll: it is
 * one if its counts grow from look to look, and no completion comes.
 */
import { existsSync, readlinkSync, statSync } from 'node:fs'
import { counted, hex } from '../../../base/text.ts'
import { type ContextWait, isQueuePair, type QueuePairObject } from '../../../core/driver-contract.ts'
import type { Context, CoreObject } from '../../../core/model.ts'
import { findHandle } from '../../../core/objects/handles.ts'
import { childrenOf, epollEntries } from '../../../host/process-status.ts'
import type { Identifier } from '../../../services/rdma-cm/identifier.ts'
import type { RdmaCm } from '../../../services/rdma-cm/rdma-cm.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import type {
  Ender,
  FoundPoll,
  GraphProcess,
  GraphThread,
  ThreadWaitKind,
  WaitGraph,
} from '../../../spec/check/thread-waits.ts'
import { isSrqClass } from '../../../spec/classes/ids.ts'
import { WaitFlag, WaitKind } from '../../../spec/wait-table.ts'
import { waitGraphs } from '../../../tools/check/waits/graph.ts'
import { isOnStack, loadOf } from '../../../tools/check/waits/loads.ts'
import { isSameAddress } from '../../../transport/wire/address.ts'
import type { Contexts } from '../../context/contexts.ts'
import { EventSocket } from '../../context/event-socket.ts'
import { cqsOf, cqsOfChannel, isCq } from '../../context/queues.ts'
import { type Devices, devicesWith } from '../../devices/devices.ts'
import type { FailureReports } from '../../failures.ts'
import type { CheckerDoor } from '../door.ts'
import type { OtherHosts } from '../other-hosts.ts'
import type { ProcessTable, TableSlot, ThreadSample, WaitTables } from './tables.ts'

/** Threads of a process that are looked at. */
const MAX_THREADS = 4096
/** Queues of a context that are looked at. */
const MAX_QUEUES = 1024
/** Processes that are named as senders. */
const MAX_SENDERS = 3
/** Bits of epoll_event.events. A set with neither tells of a descriptor as long as something is unread. */
const EPOLLIN = 1
const EPOLLONESHOT = 1 << 30
const EPOLLET = 1 << 31

export interface ThreadWaitSources {
  readonly devices: Pick<Devices, 'all'>
  readonly failures: Pick<FailureReports, 'ownerOf'>
  readonly cm: Pick<RdmaCm, 'identifiersOfPrograms'>
  readonly contexts: Contexts
  readonly tables: WaitTables
  /** A stack that a process has defined (STACK). */
  stackOf(pid: number, id: number): Stack
  readonly door: Pick<CheckerDoor, 'known'>
  readonly hosts: Pick<OtherHosts, 'ownName' | 'processes'>
  /** Microseconds. */
  now(): number
}

/** What could end a wait, and why nothing does. */
type End = Pick<GraphThread, 'enders' | 'process' | 'isOpen' | 'owner' | 'reason'>
type Described = Pick<GraphThread, 'kind' | 'object' | 'action' | 'stack' | 'signaled'> & End

const open: End = { enders: [], process: false, isOpen: true }
const byOwnThreads: End = { enders: [], process: true, isOpen: false }

/** Where a thread was at the last look. */
interface Seen {
  readonly sequence: number
  readonly kind: number
  /** By context and CQ. */
  readonly polls: ReadonlyMap<string, number>
  /** Sum of its polls, modulo 2³². */
  readonly polled: number
  /** Its sleeps since another wait. */
  readonly sleeps: number
  readonly target: string | undefined
  readonly since: number
  /** The completions of the CQs that it polls. */
  readonly written: number
  readonly isPolling: boolean
  /** What a sample has shown it to read, if it makes no calls. */
  readonly reads?: Described
}

interface QueueFacts {
  readonly object: QueuePairObject
  readonly context: Context
  readonly sends: number
  readonly receives: number
}

/** Number of threads of a process; undefined: it has ended. */
export const threadCount = (pid: number): number | undefined => {
  const links = statSync(`/proc/${pid}/task`, { throwIfNoEntry: false })?.nlink
  return links === undefined ? undefined : links - 2
}

const targetOf = (pid: number, fd: number): string | undefined => {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`)
  } catch {
    return undefined
  }
}

const hasTarget = (object: CoreObject | undefined, target: string): boolean =>
  object !== undefined && 'sink' in object && object.sink instanceof EventSocket && object.sink.target === target

/** States of identifiers without events, until their program makes a call. */
const SILENT = new Set<Identifier['state']>([
  'IDLE',
  'ADDR_BOUND',
  'ADDR_RESOLVED',
  'ROUTE_RESOLVED',
  'DISCONNECT',
  'DEVICE_REMOVAL',
])

/** What one process has. */
class ProcessLook {
  readonly #sources: ThreadWaitSources
  readonly #table: ProcessTable
  readonly contexts: readonly Context[]
  readonly #endless: ReadonlySet<string>
  #queues: readonly QueueFacts[] | undefined
  #unpolled: readonly CoreObject[] | undefined

  constructor(sources: ThreadWaitSources, table: ProcessTable, endless: ReadonlySet<string>) {
    this.#sources = sources
    this.#table = table
    this.#endless = endless
    this.contexts = sources.devices.all.flatMap(({ device }) =>
      [...device.contexts].filter(context => sources.failures.ownerOf(context)?.pid === table.pid),
    )
  }

  /** The queue pairs of the process. */
  #queuePairs(): readonly QueueFacts[] {
    this.#queues ??= this.contexts.flatMap(context => {
      const { requests } = context.device.driver
      const found: QueueFacts[] = []
      for (const object of requests?.queuesOf?.(context) ?? []) {
        if (found.length === MAX_QUEUES) break
        if (!isQueuePair(object)) continue
        const shared = object.parents.find(({ class: { name } }) => isSrqClass(name))
        const receives = requests?.receives?.(shared ?? object, 0).length ?? 0
        found.push({ object, context, sends: requests?.pendingSends?.(object) ?? 0, receives })
      }
      return found
    })
    return this.#queues
  }

  cq(context: number, handle: number): CoreObject | undefined {
    const opened = this.#sources.contexts.byNumber(context)?.context
    const found = opened && findHandle(opened.handles, handle)
    return isCq(found) ? found : undefined
  }

  /** `CQ 1, 3 of context 2`. */
  #names(cqs: readonly CoreObject[]): string {
    return `CQ ${cqs.map(({ handle, context }) => this.#sources.door.known.cqNumber(context?.id ?? -1, handle)).join(', ')}`
  }

  written(cqs: readonly CoreObject[]): number {
    return cqs.reduce((sum, cq) => sum + (cq.context?.device.driver.requests?.completions?.(cq).written ?? 0), 0)
  }

  unpolled(cq: CoreObject): number {
    const { written = 0, polled = 0 } = cq.context?.device.driver.requests?.completions?.(cq) ?? {}
    return written - polled
  }

  /** The CQs of the process with completions. */
  #unpolledCqs(): readonly CoreObject[] {
    this.#unpolled ??= this.contexts.flatMap(cqsOf).filter(cq => this.unpolled(cq) > 0)
    return this.#unpolled
  }

  /** Who has the queue pair's peer; 'open': something else may send, or it is unknown; undefined: nobody. */
  #peerOf({ object, context, receives }: QueueFacts): Ender | 'open' | undefined {
    const { requests } = context.device.driver
    const peer = requests?.peerOf?.(object)
    if (peer === undefined) return receives > 0 ? 'open' : undefined
    const [device] = devicesWith(this.#sources.devices, peer.gid)
    if (device === undefined) {
      const other = this.#sources.door.known.peerInNet(peer.gid, peer.qpn)
      if (other?.program === undefined || other.host === undefined) return 'open'
      return other.destruction === undefined ? { host: other.host, pid: other.program.pid } : undefined
    }
    const found = device.network?.queues?.qpOfNumber(peer.qpn)
    const owner = found?.context && this.#sources.failures.ownerOf(found.context)
    if (found === undefined) return undefined
    return owner === undefined ? 'open' : { pid: owner.pid }
  }

  /** `cqs`: those of which a completion is awaited. */
  #endsOfCqs(cqs: readonly CoreObject[]): End {
    const enders: Ender[] = []
    const queues = this.#queuePairs().filter(({ object }) => object.parents.some(parent => cqs.includes(parent)))
    let isOpen = false
    let isEndless = false
    for (const queue of queues) {
      const endless = this.#endless.has(`${queue.context.device.index} ${queue.object.state.qpn}`)
      isEndless ||= endless
      // Without a receive no message brings a completion.
      const peer = queue.receives > 0 || endless ? this.#peerOf(queue) : undefined
      if (peer === 'open' || (queue.sends > 0 && !endless)) isOpen = true
      else if (peer !== undefined && !enders.some(({ pid }) => pid === peer.pid)) enders.push(peer)
    }
    const other = this.#unpolledCqs().find(cq => !cqs.includes(cq))
    const reason =
      other === undefined
        ? isEndless
          ? 'its send waits for a receive of the peer'
          : enders.length === 0 && !isOpen
            ? 'no send of its queue pairs is outstanding, and no peer is left that could send'
            : undefined
        : `${counted(this.unpolled(other), 'completion')} of ${this.#names([other])}, for which it does not wait, ${this.unpolled(other) === 1 ? 'is' : 'are'} not polled`
    return { enders, process: true, isOpen, ...(reason && { reason }) }
  }

  /**
   * Whose message ends a wait: ` for a message of process 12`; empty: it is not known, or a thread of its own posts it.
   */
  #senders({ enders, isOpen }: End): string {
    const others = enders.map(({ pid }) => pid).filter(pid => pid !== this.#table.pid)
    if (isOpen || others.length === 0) return ''
    const more = others.length > MAX_SENDERS ? ` and ${others.length - MAX_SENDERS} more` : ''
    const names = others.slice(0, MAX_SENDERS).join(', ')
    return ` for a message of process ${names}${more}`
  }

  /** What the last polls of a thread have found. */
  found({ found }: TableSlot): FoundPoll[] {
    return found.map(({ context, cq, asked, count, caller }) => {
      const known = this.cq(context, cq)
      const object = known === undefined ? `CQ ${cq}` : this.#names([known])
      return { object, count, ...(asked > 0 && { asked }), stack: this.#table.file.stackOf([caller]) }
    })
  }

  polling(cqs: readonly CoreObject[], stack: Stack): Described {
    const names = this.#names(cqs)
    const ends = this.#endsOfCqs(cqs)
    return {
      kind: 'poll',
      object: names,
      action: `polls ${names}${this.#senders(ends)}`,
      stack,
      ...ends,
      isOpen: ends.isOpen || cqs.some(cq => this.unpolled(cq) > 0),
    }
  }

  #channel(target: string, fd: number): Omit<Described, 'stack'> {
    const channel = this.contexts.flatMap(({ descriptors }) => [...descriptors]).find(one => hasTarget(one, target))
    const cqs = channel === undefined ? [] : this.contexts.flatMap(context => cqsOfChannel(context, channel))
    const cqNames = this.#names(cqs)
    const names = cqs.length === 0 ? '' : ` for ${cqNames}`
    const unread = channel?.sink instanceof EventSocket ? channel.sink.unread() : 0
    const ends = channel === undefined ? open : this.#endsOfCqs(cqs)
    return {
      kind: 'channel',
      object: cqs.length === 0 ? `channel ${fd}` : cqNames,
      action: `waits in ibv_get_cq_event${names}${this.#senders(ends)}`,
      ...ends,
      isOpen: ends.isOpen || unread > 0,
    }
  }

  #async(target: string): Omit<Described, 'stack'> {
    const context = this.contexts.find(({ asyncFd }) => hasTarget(asyncFd, target))
    const device = context === undefined ? '' : ` of ${context.device.name}`
    const unread = context?.asyncFd?.sink.unread() ?? 0
    const peers = this.#queuePairs().map(queue => this.#peerOf(queue))
    return {
      kind: 'async-event',
      object: `events${device}`,
      action: `waits in ibv_get_async_event${device}`,
      enders: peers.filter(peer => peer !== undefined && peer !== 'open'),
      process: true,
      isOpen: context === undefined || unread > 0,
      reason: 'no event is on its way',
    }
  }

  #cm(target: string, fd: number): Omit<Described, 'stack'> {
    const all = [...this.#sources.cm.identifiersOfPrograms()]
    const isOwn = ({ object }: Identifier): boolean => hasTarget(object?.events?.route.channel, target)
    const own = all.filter(isOwn)
    const enders: Ender[] = []
    const ownerOf = ({ object }: Identifier): Ender[] => {
      const owner = object?.context && this.#sources.failures.ownerOf(object.context)
      return owner === undefined ? [] : [{ pid: owner.pid }]
    }
    let isOpen = false
    for (const id of own) {
      if (id.unreadEvents > 0) isOpen = true
      if (SILENT.has(id.state)) continue
      const peers = all.filter(
        other =>
          other !== id &&
          !isOwn(other) &&
          other.localGid !== undefined &&
          id.remoteGid !== undefined &&
          isSameAddress(other.localGid, id.remoteGid),
      )
      const found = peers.flatMap(ownerOf)
      if (id.state === 'LISTEN' || id.isDatagram || found.length === 0) isOpen = true
      enders.push(...found)
    }
    return {
      kind: 'cm-event',
      object: `channel ${fd}`,
      action: `waits in rdma_get_cm_event (descriptor ${fd})`,
      enders,
      process: true,
      isOpen,
      ...(enders.length === 0 && { reason: 'no event can come before a further call for one of its identifiers' }),
    }
  }

  hasThread(tid: number): boolean {
    const { pid, namespacePid } = this.#table
    return pid !== namespacePid || existsSync(`/proc/${pid}/task/${tid}`)
  }

  #name(tid: number): string {
    return tid === this.#table.namespacePid ? 'the main thread' : `thread ${tid}`
  }

  #held(slot: TableSlot, kind: ThreadWaitKind & ('mutex' | 'rwlock')): Omit<Described, 'stack'> {
    const { owner, object, thread } = slot
    const name = `${kind} ${hex(object)}`
    const start = { kind, object: name }
    if ((slot.flags & WaitFlag.SHARED) !== 0) return { ...start, action: `waits for ${name}`, ...open }
    if (owner === 0) return { ...start, action: `waits for ${name}`, ...byOwnThreads }
    const holder = owner === thread ? 'it' : this.#name(owner)
    if (!this.hasThread(owner))
      return {
        ...start,
        action: `waits for ${name}`,
        ...open,
        isOpen: false,
        owner,
        reason: `thread ${owner}, which has locked it, has ended`,
      }
    const action = `waits for ${name}, which ${holder} has locked`
    return { ...start, action, owner, enders: [{ pid: this.#table.pid, tid: owner }], process: false, isOpen: false }
  }

  #joined({ object }: TableSlot): Omit<Described, 'stack'> {
    const tid = Number(object & 0xffff_ffffn)
    const name = tid === 0 ? 'a thread' : this.#name(tid)
    const ends = tid === 0 || !this.hasThread(tid) ? open : { ...open, isOpen: false, owner: tid }
    const enders = ends.isOpen ? [] : [{ pid: this.#table.pid, tid }]
    return { kind: 'join', object: name, action: `joins ${name}`, ...ends, enders }
  }

  #signaled(slot: TableSlot, kind: ThreadWaitKind, name: string): Omit<Described, 'stack'> {
    const last = this.#table.file.signalOf(slot.object)
    const who = last === undefined ? '' : ` (${this.#name(last.thread)} has signaled it last)`
    return {
      kind,
      object: `${name} ${hex(slot.object)}`,
      action: `waits for ${name} ${hex(slot.object)}${who}`,
      ...((slot.flags & WaitFlag.SHARED) === 0 ? byOwnThreads : open),
      ...(last && { signaled: this.#table.file.stackOf([last.caller]) }),
      ...(last === undefined && (slot.flags & WaitFlag.SHARED) === 0 && { reason: 'no thread has signaled it' }),
    }
  }

  #child({ object }: TableSlot): Omit<Described, 'stack'> {
    const child = Number(object & 0xffff_ffffn)
    const { pid, namespacePid } = this.#table
    const children = pid !== namespacePid ? [] : child === 0 ? childrenOf(pid) : [child]
    return {
      kind: 'child',
      object: child === 0 ? 'child processes' : `process ${child}`,
      action: `waits for the end of ${child === 0 ? 'a child process' : `process ${child}`}`,
      ...open,
      isOpen: children.length === 0,
      enders: children.map(one => ({ pid: one })),
    }
  }

  /**
   * A thread that makes no calls. `samples`: of it, the latest first. `before`: what earlier ones of the same run have
   * shown.
   */
  running(samples: Samples, before: Described | undefined): Described {
    const line = { kind: 'runs', stack: this.#table.file.stackOf(samples[0].frames), ...open } as const
    const contexts = this.contexts.map(({ id }) => id)
    // A loop is at its load only now and then, and reads variables of its own too.
    const loads = samples.flatMap(sample => {
      const load = loadOf(process.arch, sample)
      if (load === undefined) return []
      const memory = this.#sources.door.known.memoryAt(contexts, Number(load.address))
      return memory === undefined && isOnStack(process.arch, load, sample) ? [] : [{ ...load, memory }]
    })
    const found = loads.find(({ memory }) => memory !== undefined) ?? loads[0]
    if (found === undefined) return before ?? { ...line, object: 'nothing', action: 'runs without calls' }
    const { address, length, memory } = found
    return {
      ...line,
      object: `memory ${hex(address)}`,
      action: `runs without calls, and reads ${counted(length, 'byte')} at ${hex(address)}${memory === undefined ? '' : `, ${memory.text}`}`,
      ...(memory?.reason !== undefined && { reason: memory.reason }),
    }
  }

  /** An unread event of a channel in a set of descriptors, of which the set has told already. */
  toldBefore({ object }: TableSlot): ContextWait | undefined {
    const { pid } = this.#table
    const set = Number(object)
    for (const { fd, events } of epollEntries(pid, set)) {
      const isOver = (events & EPOLLONESHOT) !== 0 && (events & EPOLLIN) === 0
      const target = isOver || (events & EPOLLET) !== 0 ? targetOf(pid, fd) : undefined
      const found = target && this.#eventsOf(target)
      if (!found || found.unread === 0) continue
      const { context, name, call, unread, cq } = found
      const isOne = unread === 1
      const why = isOver
        ? `the set has told of it once (EPOLLONESHOT), and was not asked again (EPOLL_CTL_MOD)`
        : `the set tells only of new ones (EPOLLET)`
      const text = `${counted(unread, 'event')} of ${name} (descriptor ${fd}) ${isOne ? 'is' : 'are'} not read (${call}), and a thread waits in epoll_wait on descriptor ${set}: ${why}`
      const advice = isOver
        ? `after the events are read, ask for the descriptor again (EPOLL_CTL_MOD with EPOLLONESHOT)`
        : `after each epoll_wait call ${call} until it fails with EAGAIN (the descriptor with O_NONBLOCK), or add the descriptor without EPOLLET`
      return { context, wait: { id: 'lost-wakeup', text, advice, ...(cq !== undefined && { cq }) } }
    }
    return undefined
  }

  /** The events of a channel or context of the process, by the target of a descriptor. */
  #eventsOf(target: string) {
    for (const context of this.contexts) {
      const { asyncFd, device } = context
      if (asyncFd !== undefined && hasTarget(asyncFd, target))
        return {
          context,
          name: `the events of ${device.name}`,
          call: 'ibv_get_async_event',
          unread: asyncFd.sink.unread(),
        }
      const channel = [...context.descriptors].find(one => hasTarget(one, target))
      if (channel?.class.name !== 'comp_channel' || !(channel.sink instanceof EventSocket)) continue
      const cqs = cqsOfChannel(context, channel)
      const name = `the channel of ${this.#names(cqs)}`
      return { context, name, call: 'ibv_get_cq_event', unread: channel.sink.unread(), cq: cqs[0]?.handle }
    }
    return undefined
  }

  #descriptors({ descriptors, descriptorCount, kind, object }: TableSlot): Omit<Described, 'stack'> {
    const more = descriptorCount > descriptors.length ? ` and ${descriptorCount - descriptors.length} more` : ''
    const names =
      kind === WaitKind.EPOLL
        ? `the set of descriptor ${object}`
        : descriptors.length === 0
          ? 'descriptors'
          : descriptors.every(fd => fd < 0)
            ? 'descriptor -1, which is none'
            : `descriptor ${descriptors.join(', ')}${more}`
    return { kind: 'descriptor', object: names, action: `waits for ${names}`, ...open }
  }

  /** What a thread waits for in a call. `target`: of the descriptor `object`. */
  waiting(slot: TableSlot, target: string | undefined): Omit<Described, 'stack'> | undefined {
    const fd = Number(slot.object & 0xffff_ffffn)
    switch (slot.kind) {
      case WaitKind.CHANNEL:
        return this.#channel(target ?? '', fd)
      case WaitKind.ASYNC:
        return this.#async(target ?? '')
      case WaitKind.CM:
        return this.#cm(target ?? '', fd)
      case WaitKind.MUTEX:
        return this.#held(slot, 'mutex')
      case WaitKind.RWLOCK:
        return this.#held(slot, 'rwlock')
      case WaitKind.JOIN:
        return this.#joined(slot)
      case WaitKind.CONDITION:
        return this.#signaled(slot, 'condition', 'condition variable')
      case WaitKind.SEMAPHORE:
        return this.#signaled(slot, 'semaphore', 'semaphore')
      case WaitKind.BARRIER:
        return {
          kind: 'barrier',
          object: `barrier ${hex(slot.object)}`,
          action: `waits at barrier ${hex(slot.object)}`,
          ...((slot.flags & WaitFlag.SHARED) === 0 ? byOwnThreads : open),
        }
      case WaitKind.CHILD:
        return this.#child(slot)
      case WaitKind.DESCRIPTOR:
      case WaitKind.EPOLL:
        return this.#descriptors(slot)
      case WaitKind.SIGNAL:
        return { kind: 'signal', object: 'signal', action: 'waits for a signal', ...open }
      case WaitKind.SEMAPHORE_SET:
        return ofSystemV('semaphore', 'semaphore set', fd)
      case WaitKind.MESSAGE_QUEUE:
        return ofSystemV('message-queue', 'message queue', fd)
      default:
        return undefined
    }
  }
}

/** Any process may end it. */
const ofSystemV = (kind: ThreadWaitKind, what: string, id: number): Omit<Described, 'stack'> => {
  const object = `${what} ${id}`
  return { kind, object, action: `waits for ${object}`, ...open }
}

/** A thread that sleeps, or has slept since the last look. */
const sleeping = ({ kind }: TableSlot, stack: Stack): Described => ({
  kind: 'sleep',
  object: 'time',
  action: kind === WaitKind.SLEEP ? 'sleeps' : 'sleeps now and then',
  stack,
  ...open,
})

/** A thread that has no slot. */
const NOT_SEEN: Omit<Seen, 'since'> = {
  sequence: 0,
  kind: WaitKind.NONE,
  polls: new Map(),
  polled: 0,
  sleeps: 0,
  target: undefined,
  written: 0,
  isPolling: false,
}

type Samples = readonly [ThreadSample, ...ThreadSample[]]

/** The samples of each thread, the latest first, of the time since its last call. */
const samplesByThread = ({ file }: ProcessTable): Map<number, Samples> => {
  const found = new Map<number, Samples>()
  for (const sample of file.samples()) {
    const own = found.get(sample.thread)
    if (own === undefined) found.set(sample.thread, [sample])
    else if (own[0].sequence === sample.sequence && own[0].polls === sample.polls)
      found.set(sample.thread, [...own, sample])
  }
  return found
}

const isOfDescriptor = (kind: number): boolean =>
  kind === WaitKind.CHANNEL || kind === WaitKind.ASYNC || kind === WaitKind.CM

export class ThreadWaits {
  readonly #sources: ThreadWaitSources
  /** By session and thread. */
  #seen = new WeakMap<object, Map<number, Seen>>()
  #graph: WaitGraph | undefined
  /** Of the last look. */
  #unheard: readonly ContextWait[] = []
  /** As text. */
  #told = ''

  constructor(sources: ThreadWaitSources) {
    this.#sources = sources
  }

  /**
   * The graph for a finding about process `pid`: its own, else that of the last look; of one that an earlier finding
   * has told, only the threads of the process.
   */
  graphFor(own: WaitGraph | undefined, pid: number | undefined): { readonly graph?: WaitGraph } {
    const graph = this.#graph
    if (own !== undefined && own !== graph) return { graph: own }
    const text = JSON.stringify(graph)
    if (graph === undefined || graph.threads.length === 0) return {}
    if (own === undefined && text === this.#told) {
      const threads = graph.threads.filter(({ pid: of, host }) => of === pid && host === undefined)
      return threads.length === 0 ? {} : { graph: { shape: 'open', first: [], threads, more: 0 } }
    }
    this.#told = text
    return { graph }
  }

  /** Who waits for whom now (`waitGraphs`). `known`: what the drivers have found. */
  look(known: readonly ContextWait[]): readonly WaitGraph[] {
    const graphs = waitGraphs([...this.processes(known), ...this.#sources.hosts.processes])
    this.#graph = graphs[0]
    const own = this.#sources.hosts.ownName
    // Of several hosts the first one in the order of names reports it.
    return graphs.filter(({ first, threads }) =>
      first.every(i => own === undefined || (threads[i]?.host ?? own) >= own),
    )
  }

  /** Threads of the last look that wait for events of which they were told before. */
  get unheard(): readonly ContextWait[] {
    return this.#unheard
  }

  /** The processes with a wait table. */
  processes(known: readonly ContextWait[]): readonly GraphProcess[] {
    const endless = new Set(
      known.flatMap(({ context, wait: { id, qpns = [] } }) =>
        id === 'endless-rnr' || id === 'infinite-timeout'
          ? qpns.slice(0, 1).map(qpn => `${context.device.index} ${qpn}`)
          : [],
      ),
    )
    this.#unheard = []
    return [...this.#sources.tables.all].flatMap(table => this.#process(table, endless) ?? [])
  }

  #process(table: ProcessTable, endless: ReadonlySet<string>): GraphProcess | undefined {
    const { pid, command, session } = table
    const count = threadCount(pid)
    if (count === undefined) return undefined
    const look = new ProcessLook(this.#sources, table, endless)
    const before = this.#seen.get(session) ?? new Map<number, Seen>()
    const seen = new Map<number, Seen>()
    const threads: GraphThread[] = []
    const samples = samplesByThread(table)
    for (const slot of table.file.slots()) {
      if (threads.length === MAX_THREADS) break
      const thread = this.#thread(table, look, slot, before.get(slot.thread), seen, samples.get(slot.thread))
      const polled = thread === undefined ? [] : look.found(slot)
      if (thread !== undefined) threads.push({ ...thread, ...(polled.length > 0 && { polled }) })
      samples.delete(slot.thread)
    }
    // Threads that have neither waited nor polled yet.
    for (const [tid, own] of samples) {
      if (own[0].sequence !== 0 || !look.hasThread(tid)) continue
      const { since = this.#sources.now(), reads } = before.get(tid) ?? {}
      const runs = look.running(own, reads)
      seen.set(tid, { ...NOT_SEEN, since, reads: runs })
      threads.push({ pid, command, tid, since, ...runs })
    }
    this.#seen.set(session, seen)
    // Launchers, and programs that have closed their devices.
    if (look.contexts.length === 0) return undefined
    const signal = table.file.sampleSignal
    return {
      ...{ pid, command, threads, others: Math.max(0, count - threads.length) },
      ...(signal !== undefined && { sampleSignal: signal }),
    }
  }

  #thread(
    table: ProcessTable,
    look: ProcessLook,
    slot: TableSlot,
    last: Seen | undefined,
    seen: Map<number, Seen>,
    samples: Samples | undefined,
  ): GraphThread | undefined {
    const { pid, command, file } = table
    const { thread: tid, sequence, polls } = slot
    const now = this.#sources.now()
    // A loop that polls may sleep.
    const kind = slot.kind === WaitKind.SLEEP ? WaitKind.NONE : slot.kind
    const sleeps = (slot.flags & WaitFlag.SLEPT) === 0 ? 0 : Number(slot.object & 0xffff_ffffn)
    const isAsleep = slot.kind === WaitKind.SLEEP || (last !== undefined && last.sleeps < sleeps)
    const isSame = last !== undefined && last.sequence === sequence && last.kind === kind
    const target = isOfDescriptor(kind)
      ? isSame
        ? last.target
        : targetOf(pid, Number(slot.object & 0xffff_ffffn))
      : undefined
    const keyOf = (poll: { readonly context: number; readonly cq: number }): string => `${poll.context} ${poll.cq}`
    const counts = new Map(polls.map(poll => [keyOf(poll), poll.count]))
    const polled =
      isSame && kind === WaitKind.NONE ? polls.filter(poll => last.polls.get(keyOf(poll)) !== poll.count) : []
    const cqs = polled.flatMap(({ context, cq }) => look.cq(context, cq) ?? [])
    const written = look.written(cqs)
    const isPolling = cqs.length > 0 && cqs.length === polled.length
    const polledSum = polls.reduce((sum, { count }) => (sum + count) >>> 0, 0)
    const running =
      !isAsleep && samples?.[0].sequence === sequence && samples[0].polls === polledSum ? samples : undefined
    const isStill =
      isSame &&
      (kind !== WaitKind.NONE ||
        (isPolling && last.isPolling && last.written === written) ||
        (running !== undefined && last.polled === polledSum))
    const since = isStill ? last.since : now
    const runs = running && look.running(running, isStill ? last?.reads : undefined)
    seen.set(tid, {
      ...{ sequence, kind, polls: counts, polled: polledSum, sleeps, target, since, written, isPolling },
      ...(runs && { reads: runs }),
    })
    const stackOf = (number: number): Stack => (number === 0 ? [] : this.#sources.stackOf(pid, number))
    const stack = slot.stack === 0 ? file.stackOf(slot.frames) : stackOf(slot.stack)
    if (kind !== WaitKind.NONE) {
      const waiting = look.waiting(slot, target)
      if (waiting === undefined) return undefined
      const told = kind === WaitKind.EPOLL ? look.toldBefore(slot) : undefined
      if (told !== undefined) this.#unheard = [...this.#unheard, told]
      const isOpen = waiting.isOpen || (slot.flags & WaitFlag.TIMED) !== 0
      return { pid, command, tid, since, stack, ...waiting, isOpen }
    }
    if (runs !== undefined) return { pid, command, tid, since, ...runs }
    // The first time it may be a poll that is no loop.
    if (!isPolling || !isStill)
      return isAsleep ? { pid, command, tid, since, ...sleeping(slot, file.stackOf(slot.frames)) } : undefined
    const polling = look.polling(cqs, stackOf(slot.pollStack))
    if (slot.batch === 0) return { pid, command, tid, since, ...polling }
    return {
      pid,
      command,
      tid,
      since,
      ...polling,
      kind: 'batch',
      owner: tid,
      enders: [...polling.enders, { pid, tid }],
      reason: `its batch of QP ${hex(slot.batch)} is open (ibv_wr_start): what it has added is posted by ibv_wr_complete`,
    }
  }
}
