/*
 * Turns the records of observed programs into the events of the checker and the records of the trace: one vocabulary
 * with our own devices. Without a device it sees only what programs call, post and poll.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { commandName } from '../../host/process-status.ts'
import { type Cause, causeOfRule, createCause } from '../../spec/check/causes.ts'
import { type Failure, failureJson } from '../../spec/check/failures.ts'
import type { Stack } from '../../spec/check/findings.ts'
import { QP_CLASSES } from '../../spec/classes/qp/qp.ts'
import { Classes } from '../../spec/classes.ts'
import { CmEventType, QpFlags, QpState } from '../../spec/enums.ts'
import { CallError, errnoName, knownErrno } from '../../spec/errno.ts'
import type { ActingRule } from '../../spec/faults.ts'
import { AskKind, CallEntry, FileKind } from '../../spec/observe.ts'
import { CREATE, CREATE_FD } from '../../spec/schema/schema.ts'
import { CM_NAME, PostQueue } from '../../spec/session.ts'
import { WcOpcode, WcStatus } from '../../spec/work.ts'
import { addressText, parseAddress } from '../../transport/wire/address.ts'
import type { Call, Result } from '../../uapi/call.ts'
import type { FailureRecord, RawAccess, TraceRecord } from '../../uapi/tool.ts'
import { Checker } from '../check/checker.ts'
import type { CheckedCall } from '../check/events.ts'
import type { ReportFinding } from '../check/reporting.ts'
import { messagesOf } from '../trace/call-messages.ts'
import { netlinkText } from '../trace/netlink.ts'
import { decodeCall, decodeEvents, methodOf } from './calls.ts'
import { causeOfFailure, type KnownEnd } from './causes.ts'
import type { ObservedFaults, ObservedQuestion } from './faults.ts'
import {
  type ObservedContext,
  type ObservedDevice,
  type ObservedObject,
  type ObservedProcess,
  objectIn,
} from './objects.ts'
import type { DescriptorRecord, ObservedCall, ObservedCompletion, ObservedRecord } from './records.ts'
import { ObservedRequests, type RequestQueue } from './requests.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values
const { RESET, ERR } = QpState.values
const { SQ_SIG_ALL } = QpFlags.values
const { CONNECT_REQUEST } = CmEventType.values
const NO_STACK: Stack = []
/** The beginning of CLOCK_MONOTONIC, in milliseconds since the epoch. */
const MONOTONIC_START = Date.now() - Number(process.hrtime.bigint()) / 1e6

/** As Linux keeps them of a command's name (TASK_COMM_LEN - 1). */
const COMMAND_CHARACTERS = 15
/** Maximum children that have recorded nothing yet, of which it is known what they have. */
const MAX_FORKS = 1024

type Started = Extract<ObservedRecord, { readonly kind: 'start' }>
type CallRecord = Extract<ObservedRecord, { readonly kind: 'call' | 'return' }>

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
const rawOf = ({ ranges }: ObservedCall): RawAccess[] =>
  ranges.map(({ address, bytes }) => [`0x${address.toString(16)}`, base64(bytes), bytes.length])

/** The bytes of a message in several parts. */
const bytesOf = ({ ranges }: ObservedCall): Uint8Array => Buffer.concat(ranges.map(({ bytes }) => bytes))

const dialectOf = ({ fileKind, entry }: ObservedCall): TraceRecord['dialect'] => {
  if (fileKind === FileKind.CM) return 'rdma_cm'
  if (fileKind === FileKind.MAD) return 'umad'
  if (fileKind === FileKind.NETLINK) return 'netlink'
  if (fileKind === FileKind.COMPLETIONS || fileKind === FileKind.ASYNC) return 'event'
  return entry === CallEntry.IOCTL ? 'ioctl' : 'write'
}

/** Receives what the trace prints. */
export interface ObserverOutput {
  call?(record: TraceRecord): void
  failure?(record: FailureRecord): void
  /** Records were dropped. */
  lost?(count: number): void
  /** A program takes queues around libibverbs' tables by this function, so its requests are not seen. */
  direct?(process: ObservedProcess, name: string): void
}

const SYSTEM = 'system'

/** The adapter of a file in /dev/infiniband, from sysfs; undefined: unknown. */
const adapterOf = ({ fileKind, path }: Pick<DescriptorRecord, 'fileKind' | 'path'>): string | undefined => {
  if (fileKind === FileKind.CM) return SYSTEM
  const folder = fileKind === FileKind.VERBS ? 'infiniband_verbs' : 'infiniband_mad'
  try {
    return readFileSync(`/sys/class/${folder}/${basename(path)}/ibdev`, 'utf8').trim()
  } catch {
    return undefined
  }
}

/** The GIDs of an adapter, from sysfs; none if it cannot be read. */
const gidsOf = (device: string): Uint8Array[] => {
  const ports = `/sys/class/infiniband/${device}/ports`
  try {
    return readdirSync(ports).flatMap(port =>
      readdirSync(`${ports}/${port}/gids`).flatMap(index => {
        try {
          return parseAddress(readFileSync(`${ports}/${port}/gids/${index}`, 'utf8').trim()) ?? []
        } catch {
          return []
        }
      }),
    )
  } catch {
    return []
  }
}

const numberOf = (value: unknown): number | undefined =>
  typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : undefined
const isSrq = (name: string): boolean => name === 'srq' || name === 'xrc_srq' || name === 'tm_srq'
const isQp = (name: string): boolean => (QP_CLASSES as readonly string[]).includes(name)

export class Observer {
  readonly checker: Checker
  readonly #output: ObserverOutput
  /** Undefined: no fault rules. */
  readonly #faults: ObservedFaults | undefined
  readonly #requests: ObservedRequests
  readonly #processes = new Map<number, ObservedProcess>()
  readonly #devices: ObservedDevice[] = []
  /** By GID as text: the device's index. */
  readonly #deviceOfGid = new Map<string, number>()
  /** By the id of a queue pair or SRQ: its send queue, receive queue or shared queue. */
  readonly #queues = new Map<number, RequestQueue[]>()
  /** What children of forks have, by parent and number, until their START. */
  readonly #forks = new Map<string, Pick<ObservedProcess, 'contexts' | 'events'>>()
  /** Contexts by their numbers. */
  readonly #contexts = new Map<number, ObservedContext>()
  /** Microseconds of the last record. */
  #time = 0
  #contextCount = 0
  #objectCount = 0

  constructor(report: ReportFinding, output: ObserverOutput = {}, faults?: ObservedFaults) {
    this.#output = output
    this.#faults = faults
    this.checker = new Checker(gid => this.#deviceWithGid(gid), report, {
      now: () => this.#time,
      deviceName: index => this.#devices[index]?.name ?? '',
      postStack: (context, queue, number, wrId) => this.#postStack(context, queue, number, wrId),
      // Programs that are not observed, and other machines, use the adapters too.
      hasUnchecked: () => true,
      hasDevice: false,
    })
    this.#requests = new ObservedRequests(this.checker.requests)
  }

  /** Number of contexts that are open now. */
  get openContexts(): number {
    let count = 0
    for (const { contexts } of this.#processes.values()) for (const { isOpen } of contexts.values()) if (isOpen) count++
    return count
  }

  take(records: readonly ObservedRecord[]): void {
    for (const record of records) {
      this.#time = Number(record.time) / 1000
      this.#take(record)
    }
  }

  /**
   * What happens to the call, posts or completions of a question. Take all records that were complete before it first.
   */
  answer({ kind, pid, tid, fd, queue, number, count, completions }: ObservedQuestion): Uint8Array {
    const faults = this.#faults
    if (faults === undefined) return new Uint8Array()
    const process = this.#processOf(pid)
    const context = this.#contextOf(process, fd, process.calls.get(tid)?.call.fileKind)
    const postStack = (of: number, at: number, wrId: bigint): Stack => this.#postStack(context.id, of, at, wrId)
    if (kind === AskKind.CALL) {
      const record = process.calls.get(tid)
      const classOf = (handle: number) => this.#objectOf(process, context, handle)?.class
      const method = record && methodOf(record.call, classOf, context)
      return faults.onCall(tid, context, method, process.stacks.get(record?.stack ?? 0) ?? NO_STACK)
    }
    if (kind === AskKind.POST) {
      const isShared = queue === PostQueue.SHARED
      const owner = isShared ? context.objects.get(number) : context.device.qps.get(number)
      const qpn = isShared ? undefined : number
      return faults.onPosts(tid, context, owner?.class.name, qpn, count, wrId => postStack(queue, number, wrId))
    }
    return faults.onCompletions(context, completions, ({ qpn, opcode, wrId }) =>
      postStack((opcode & WcOpcode.values.RECV) === 0 ? PostQueue.SEND : PostQueue.RECEIVE, qpn, wrId),
    )
  }

  /** Records of threads without a ring were dropped. */
  lostThreads(count: number): void {
    this.checker.omit('observed', count)
    this.#output.lost?.(count)
  }

  /** A process has dropped records: which of its requests are outstanding is not known any more. */
  #lost(process: ObservedProcess, count: number): void {
    this.lostThreads(count)
    process.isLossy = true
    for (const { objects } of process.contexts.values()) for (const { id } of objects.values()) this.#resetQueues(id)
  }

  #take(record: ObservedRecord): void {
    const process = this.#processOf(record.pid)
    switch (record.kind) {
      case 'stack':
        process.stacks.set(record.stack, record.frames)
        break
      case 'lost':
        this.#lost(process, record.count)
        break
      case 'start':
        this.#started(process, record)
        break
      case 'end':
        process.hasEnded = true
        break
      case 'gone':
        this.#ended(process)
        this.#processes.delete(record.pid)
        break
      case 'open':
      case 'received':
        this.#opened(process, record)
        break
      case 'kept':
        process.kept.set(record.fd, record)
        break
      case 'close':
        this.#close(process, record.fd, false)
        break
      case 'duplicate':
        this.#duplicated(process, record.fd, record.from)
        break
      case 'passed': {
        const context = process.contexts.get(record.fd)
        if (context !== undefined) this.#share(context)
        break
      }
      case 'fork':
        this.#forked(process, record.fork)
        break
      case 'context':
        this.#named(this.#contextOf(process, record.fd), record.device)
        break
      case 'call':
        process.calls.set(record.tid, record)
        break
      case 'return': {
        const before = process.calls.get(record.tid)
        process.calls.delete(record.tid)
        const { entry, started, number } = record.call
        if (entry === CallEntry.READ || entry === CallEntry.SEND) this.#message(process, record, started)
        else if (before?.call.number === number) this.#called(process, before, record)
        break
      }
      case 'post': {
        const queue = process.isLossy ? undefined : this.#queueOf(process, record)
        const stack = process.stacks.get(record.stack) ?? NO_STACK
        this.#faults?.posted(record.tid, record.requests)
        if (queue !== undefined) this.#requests.post(queue, record.requests, this.#time, stack)
        break
      }
      case 'refused': {
        const queue = process.isLossy ? undefined : this.#queueOf(process, record)
        const injected = this.#faults?.takeRefused(record.tid)
        if (queue !== undefined) this.#refusedPost(process, record, queue, injected)
        break
      }
      case 'refusal':
        this.#refusedByLibrary(process, record)
        break
      case 'poll':
        for (const completion of record.completions) this.#completed(process, record.fd, record.cq, completion)
        break
      case 'notify':
        this.#armed(process, record)
        break
      case 'batch': {
        const context = process.contexts.get(record.fd)
        const stackOf = (number: number): Stack => process.stacks.get(number) ?? NO_STACK
        if (context !== undefined)
          this.checker.batchMistaken({
            ...record,
            ...this.#callFacts(context, stackOf(record.stack)),
            since: stackOf(record.since),
          })
        break
      }
      case 'direct':
        this.#output.direct?.(process, record.function)
        break
      case 'use of gone':
        this.#usedGone(process, record)
        break
    }
  }

  // ---- processes and contexts ----

  #processOf(pid: number): ObservedProcess {
    let process = this.#processes.get(pid)
    if (process === undefined) {
      process = {
        program: { pid, command: commandName(pid) ?? '?' },
        stacks: new Map(),
        contexts: new Map(),
        events: new Map(),
        kept: new Map(),
        calls: new Map(),
        hasEnded: false,
        isLossy: false,
      }
      this.#processes.set(pid, process)
    }
    return process
  }

  /**
   * A child of fork has what its parent had then. A process that starts another program by exec has what it has kept
   * open.
   */
  #started(process: ObservedProcess, { command, parent, fork }: Started): void {
    const { program, kept } = process
    const named = { pid: program.pid, command: command.slice(0, COMMAND_CHARACTERS) }
    if (parent !== 0) {
      const inherited = this.#forks.get(`${parent} ${fork}`)
      if (inherited !== undefined) this.#forgetFork(`${parent} ${fork}`, inherited)
      this.#processes.set(program.pid, { ...process, ...inherited, program: named })
      return
    }
    for (const fd of [...process.contexts.keys()]) if (!kept.has(fd)) this.#close(process, fd, false)
    const { contexts } = process
    const started: ObservedProcess = {
      program: named,
      stacks: new Map(),
      contexts,
      events: new Map(),
      kept: new Map(),
      calls: new Map(),
      hasEnded: false,
      isLossy: process.isLossy && contexts.size > 0,
    }
    this.#processes.set(program.pid, started)
    for (const [fd, record] of kept) if (!contexts.has(fd)) this.#opened(started, record)
  }

  #forked(process: ObservedProcess, fork: number): void {
    const { contexts, events, program } = process
    if (contexts.size === 0) return
    for (const context of new Set(contexts.values())) context.pendingForks++
    this.#forks.set(`${program.pid} ${fork}`, { contexts: new Map(contexts), events: new Map(events) })
    const [oldest] = this.#forks
    if (this.#forks.size > MAX_FORKS && oldest !== undefined) this.#forgetFork(...oldest)
  }

  #forgetFork(key: string, { contexts }: Pick<ObservedProcess, 'contexts'>): void {
    this.#forks.delete(key)
    for (const context of new Set(contexts.values())) context.pendingForks--
  }

  #ended(process: ObservedProcess): void {
    for (const fd of [...process.contexts.keys()]) this.#close(process, fd, !process.hasEnded)
  }

  #opened(process: ObservedProcess, record: DescriptorRecord): void {
    const { fd, fileKind, kind, path } = record
    this.#close(process, fd, false)
    if (fileKind === FileKind.NETLINK) return
    if (fileKind === FileKind.COMPLETIONS || fileKind === FileKind.ASYNC) {
      process.events.set(fd, this.#contextOf(process, Number(path)))
      return
    }
    const context = this.#addContext(process, fd, fileKind, adapterOf(record))
    if (fileKind === FileKind.VERBS) this.#readGids(context.device)
    if (kind !== 'open') this.#share(context)
  }

  #duplicated(process: ObservedProcess, fd: number, from: number): void {
    const events = process.events.get(from)
    this.#close(process, fd, false)
    const context = process.contexts.get(from)
    if (events !== undefined) process.events.set(fd, events)
    if (context !== undefined) process.contexts.set(fd, context)
  }

  /** Other processes may use the context: it has objects and keys that no call has shown. */
  #share(context: ObservedContext): void {
    context.isShared = true
    context.isOpen = true
    context.device.knowsAllKeys = false
  }

  #close(process: ObservedProcess, fd: number, wasKilled: boolean): void {
    process.events.delete(fd)
    const context = process.contexts.get(fd)
    if (context === undefined) return
    process.contexts.delete(fd)
    for (const { contexts } of this.#processes.values())
      for (const held of contexts.values()) if (held === context) return
    if (context.pendingForks > 0) return
    const objects = context.isShared ? [] : [...context.objects.values(), ...context.descriptors.values()]
    for (const object of objects.reverse()) {
      this.#resetQueues(object.id)
      this.#faults?.reset(object.id)
      this.#forget(context, object)
      this.checker.called({
        ...this.#callFacts(context, NO_STACK),
        class: object.class.name,
        method: 'destroy',
        object,
        args: {},
        out: {},
        why: 'close',
        ...(wasKilled && { wasKilled: true }),
      })
    }
    this.#contexts.delete(context.id)
  }

  /** The context of a descriptor. If its opening was not recorded, its objects are not known. */
  #contextOf(process: ObservedProcess, fd: number, fileKind: number = FileKind.VERBS): ObservedContext {
    const known = process.contexts.get(fd)
    if (known !== undefined) return known
    const context = this.#addContext(process, fd, fileKind, undefined)
    this.#share(context)
    return context
  }

  #addContext(process: ObservedProcess, fd: number, fileKind: number, adapter: string | undefined): ObservedContext {
    const context: ObservedContext = {
      id: ++this.#contextCount,
      fileKind,
      process,
      device: this.#deviceNamed(adapter ?? `fd ${fd} of process ${process.program.pid}`),
      isOpen: false,
      isShared: false,
      pendingForks: 0,
      mode: { hasPkeys: fileKind === FileKind.MAD, isUsed: false },
      objects: new Map(),
      descriptors: new Map(),
    }
    process.contexts.set(fd, context)
    this.#contexts.set(context.id, context)
    return context
  }

  #deviceNamed(name: string): ObservedDevice {
    let device = this.#devices.find(one => one.name === name)
    if (device === undefined) {
      device = { index: this.#devices.length, name, regions: new Map(), qps: new Map(), knowsAllKeys: true }
      this.#devices.push(device)
    }
    return device
  }

  /** libibverbs tells the device's name once the context is open, before there are objects. */
  #named(context: ObservedContext, name: string): void {
    if (context.objects.size === 0) context.device = this.#deviceNamed(name)
    else context.device.name = name
    this.#readGids(context.device)
  }

  #readGids({ name, index }: ObservedDevice): void {
    for (const gid of gidsOf(name)) if (gid.some(byte => byte !== 0)) this.#deviceOfGid.set(addressText(gid), index)
  }

  #deviceWithGid(gid: Uint8Array): number | undefined {
    return this.#deviceOfGid.get(addressText(gid))
  }

  // ---- calls ----

  #callFacts({ device, id, process: { program } }: ObservedContext, stack: Stack) {
    return { time: this.#time, device: device.name, deviceNumber: device.index, context: id, program, stack }
  }

  #factsOf(process: ObservedProcess, { call, tid }: CallRecord, started: bigint, ended: bigint, device: string) {
    const { pid, command } = process.program
    return {
      time: MONOTONIC_START + Number(started) / 1e6,
      duration: Number(ended - started) / 1000,
      pid,
      tid,
      fd: call.fd,
      command,
      device,
      dialect: dialectOf(call),
      ret: call.result,
    } as const
  }

  /** A message was read or sent. */
  #message(process: ObservedProcess, record: CallRecord, started: bigint): void {
    const { call, time } = record
    const isRead = call.entry === CallEntry.READ
    if (call.fileKind === FileKind.MAD) {
      this.#called(process, { ...record, time: started, call: { ...call, ranges: [] } }, record)
      return
    }
    const context = process.events.get(call.fd)
    const facts = this.#factsOf(process, record, started, time, context?.device.name ?? SYSTEM)
    const raw = { in: isRead ? [] : rawOf(call), out: isRead ? rawOf(call) : [] }
    if (call.fileKind === FileKind.NETLINK) {
      const { name, detail } = netlinkText(bytesOf(call))
      const attempt = `${isRead ? 'receive' : 'send'} ${name}`
      this.#output.call?.({ ...facts, attempt, detail, raw })
      return
    }
    const events = decodeEvents(call)
    for (const { view, call: taken, result } of events)
      this.#output.call?.({ ...facts, call: messagesOf(view, taken, result ?? { out: {} }), raw })
    if (events.length === 0) this.#output.call?.({ ...facts, attempt: 'read', raw })
  }

  #called(process: ObservedProcess, before: CallRecord, after: CallRecord): void {
    const { fd, fileKind } = before.call
    const context = this.#contextOf(process, fd, fileKind)
    const { result: ret } = after.call
    const find = (handle: number): ObservedObject | undefined => this.#objectOf(process, context, handle)
    const decoded = decodeCall(before.call, after.call, handle => find(handle)?.class, context)
    const stack = process.stacks.get(before.stack) ?? NO_STACK
    const injected = this.#faults?.takeCall(before.tid)
    const facts = {
      ...this.#factsOf(process, after, before.time, after.time, context.device.name),
      ...(injected !== undefined && { reason: `injected by fault rule ${injected.number} (${injected.text})` }),
    }
    const raw = { in: rawOf(before.call), out: rawOf(after.call) }
    if ('attempt' in decoded) {
      this.#output.call?.({ ...facts, attempt: decoded.attempt, raw })
      if (ret >= 0 && fileKind === FileKind.VERBS) context.device.knowsAllKeys = false
      if (ret < 0 && injected === undefined)
        this.checker.refusedAttempt({
          ...this.#callFacts(context, stack),
          attempt: decoded.attempt,
          errno: -ret,
          reason: 'the kernel refused it',
        })
      return
    }
    const { call, result, view } = decoded
    const outcome = result ?? new CallError(knownErrno(errnoName(-ret), 'EIO'), '')
    this.#output.call?.({
      ...facts,
      call: messagesOf(view, call, outcome),
      raw,
      ...(result?.descriptors?.length && {
        descriptors: result.descriptors.map(({ attribute, object }) => ({ attribute, fd: object })),
      }),
    })
    if (injected === undefined) this.#checkCall(context, call, find(call.object), ret, result, stack)
  }

  /** The object with a handle. Identifiers of rdma_cm are those of all channels: a call can move one to another channel. */
  #objectOf({ contexts }: ObservedProcess, context: ObservedContext, handle: number): ObservedObject | undefined {
    const found = context.objects.get(handle)
    if (found !== undefined || context.fileKind !== FileKind.CM) return found
    for (const { fileKind, objects } of contexts.values())
      if (fileKind === FileKind.CM && objects.has(handle)) return objects.get(handle)
    return undefined
  }

  #checkCall(
    context: ObservedContext,
    call: Call,
    target: ObservedObject | undefined,
    ret: number,
    result: Result | undefined,
    stack: Stack,
  ): void {
    const { class: cls, methodName, method } = call
    if (cls.name === 'device' && methodName === 'open' && result !== undefined) context.isOpen = true
    const args = this.#namedArguments(context, call)
    const creates = method.call === CREATE || method.call === CREATE_FD
    const object = creates ? this.#create(context, call, args, result) : target
    const checked: CheckedCall = {
      ...this.#callFacts(context, stack),
      class: cls.name,
      method: methodName,
      object,
      args,
      out: result?.out ?? {},
      ...(result === undefined && { refused: { errno: -ret, reason: 'the kernel refused it' } }),
      why: 'call',
    }
    const { program } = context.process
    if (cls.name === 'cm_channel' && result !== undefined) this.#takeRequest(context, result)
    if (!creates && object !== undefined)
      this.checker.calling({ class: cls.name, method: methodName, program, args, stack }, object.id)
    if (result !== undefined && object !== undefined && !creates) this.#changed(context, object, methodName, args)
    this.checker.called(checked)
    if (result !== undefined && methodName === 'destroy' && object !== undefined) this.#forget(context, object)
  }

  /** The event of a peer's request has a new identifier. */
  #takeRequest({ objects }: ObservedContext, { out }: Result): void {
    const { object: handle, type } = out
    if (type !== CONNECT_REQUEST || typeof handle !== 'number') return
    const id = ++this.#objectCount
    objects.set(handle, { id, handle, class: Classes.cm_id, args: {}, out: {}, qpn: undefined, attributes: {} })
  }

  /** Arguments with objects in place of handles and descriptors. */
  #namedArguments(context: ObservedContext, { method, args }: Call): Record<string, unknown> {
    const named: Record<string, unknown> = { ...args }
    for (const [name, { type }] of Object.entries(method.in)) {
      const number = args[name]
      if ((type.kind !== 'ref' && type.kind !== 'fd') || typeof number !== 'number') continue
      named[name] = objectIn(context, type.kind, number) ?? number
    }
    return named
  }

  #create(
    context: ObservedContext,
    { class: cls, methodName }: Call,
    args: Record<string, unknown>,
    result: Result | undefined,
  ): ObservedObject | undefined {
    const descriptor = result?.descriptors?.find(({ attribute }) => attribute === 'object')?.object
    const handle = result?.object ?? descriptor
    if (result === undefined || handle === undefined || methodName === 'open') return undefined
    const object: ObservedObject = {
      id: ++this.#objectCount,
      handle,
      class: cls,
      args,
      out: result.out,
      qpn: isQp(cls.name) ? numberOf(result.out.qpNum) : undefined,
      attributes: {},
    }
    ;(result.object === undefined ? context.descriptors : context.objects).set(handle, object)
    this.#addQueues(object)
    const { device } = context
    if (object.qpn !== undefined) device.qps.set(object.qpn, object)
    if (cls.name === 'mw') device.knowsAllKeys = false
    if (cls.name === 'mr') {
      const region = {
        pd: (args.pd as ObservedObject | undefined)?.handle,
        context: context.id,
        start: numberOf(args.iova) ?? numberOf(args.start) ?? 0,
        length: numberOf(args.length) ?? 0,
        access: numberOf(args.access) ?? 0,
        isDeregistered: false,
      }
      for (const key of [result.out.lkey, result.out.rkey]) if (typeof key === 'number') device.regions.set(key, region)
    }
    return object
  }

  #addQueues({ id, class: { name }, handle, qpn, args }: ObservedObject): void {
    const queue = (kind: number, number: number): RequestQueue => ({
      owner: id,
      queue: kind,
      number,
      signalsAll: ((numberOf(args.flags) ?? 0) & SQ_SIG_ALL) !== 0,
      outstanding: [],
      stacks: new Map(),
      posted: 0,
      failed: undefined,
    })
    if (isSrq(name)) this.#queues.set(id, [queue(PostQueue.SHARED, handle)])
    else if (qpn !== undefined) this.#queues.set(id, [queue(PostQueue.SEND, qpn), queue(PostQueue.RECEIVE, qpn)])
  }

  /** A call has changed an object; before the checker hears of it. */
  #changed(context: ObservedContext, object: ObservedObject, method: string, args: Record<string, unknown>): void {
    const { regions } = context.device
    if (method === 'modify') Object.assign(object.attributes, args)
    if (method === 'modify' && object.class.name === 'cm_id') {
      for (const { fileKind, objects } of context.process.contexts.values())
        if (fileKind === FileKind.CM && objects.get(object.handle) === object) objects.delete(object.handle)
      context.objects.set(object.handle, object)
    }
    if (method === 'destroy' || (method === 'modify' && args.state === RESET)) {
      this.#resetQueues(object.id)
      this.#faults?.reset(object.id)
    }
    if (method === 'destroy' && object.class.name === 'mr')
      for (const key of [object.out.lkey, object.out.rkey]) {
        const region = typeof key === 'number' ? regions.get(key) : undefined
        if (region !== undefined) region.isDeregistered = true
      }
    if (object.qpn !== undefined && args.address !== undefined && this.#peerDeviceOf(object) === undefined)
      for (const device of this.#devices) this.#readGids(device)
  }

  #forget({ objects, descriptors, device }: ObservedContext, object: ObservedObject): void {
    if (objects.get(object.handle) === object) objects.delete(object.handle)
    if (descriptors.get(object.handle) === object) descriptors.delete(object.handle)
    if (object.qpn !== undefined && device.qps.get(object.qpn) === object) device.qps.delete(object.qpn)
    this.#queues.delete(object.id)
  }

  #resetQueues(id: number): void {
    const queues = this.#queues.get(id)
    if (queues !== undefined) this.#requests.reset(id, queues)
  }

  // ---- requests ----

  #queueOf(
    process: ObservedProcess,
    { fd, queue, number }: { readonly fd: number; readonly queue: number; readonly number: number },
  ): RequestQueue | undefined {
    const context = process.contexts.get(fd)
    if (context === undefined) return undefined
    const owner = queue === PostQueue.SHARED ? context.objects.get(number) : context.device.qps.get(number)
    return owner && this.#queues.get(owner.id)?.find(one => one.queue === queue)
  }

  #postStack(id: number, queue: number, number: number, wrId: bigint): Stack {
    const context = this.#contexts.get(id)
    if (context === undefined) return NO_STACK
    const owner = queue === PostQueue.SHARED ? context.objects.get(number) : context.device.qps.get(number)
    const found = owner && this.#queues.get(owner.id)?.find(one => one.queue === queue)
    return found?.stacks.get(wrId) ?? NO_STACK
  }

  #refusedPost(
    process: ObservedProcess,
    record: Extract<ObservedRecord, { readonly kind: 'refused' }>,
    queue: RequestQueue,
    injected: ActingRule | undefined,
  ): void {
    const context = this.#contextOf(process, record.fd)
    const first = queue.outstanding.at(-record.count)
    const owner = record.queue === PostQueue.SHARED ? undefined : context.device.qps.get(record.number)
    this.#requests.refuse(queue, record.count)
    if (injected !== undefined) {
      const wrId = first?.wrId ?? 0n
      const failure: Failure = {
        kind: 'post',
        device: context.device.name,
        cause: causeOfRule(injected),
        wrId,
        errno: record.error,
        queue: record.queue === PostQueue.SEND ? 'send' : 'receive',
        ...(owner !== undefined && { qpn: record.number }),
        ...(first !== undefined && first.opcode >= 0 && { opcode: first.opcode }),
      }
      this.#failed(context, failure, wrId, undefined)
      return
    }
    this.checker.refusedPost({
      ...this.#callFacts(context, process.stacks.get(record.stack) ?? NO_STACK),
      number: record.number,
      queue: record.queue,
      error: record.error,
      wrId: first?.wrId ?? 0n,
      state: numberOf(owner?.attributes.state) ?? RESET,
      request: {
        opcode: Math.max(first?.opcode ?? 0, 0),
        flags: first?.flags ?? 0,
        elements: first?.elements.length ?? 0,
        length: BigInt(first?.length ?? 0),
        addressLow: (first?.remote?.address ?? 0) % 2 ** 32,
        unsignaled: queue.outstanding.length - 1 - queue.outstanding.findLastIndex(({ isSignaled }) => isSignaled),
      },
    })
  }

  #usedGone(process: ObservedProcess, record: Extract<ObservedRecord, { readonly kind: 'use of gone' }>): void {
    this.checker.usedGone({
      time: this.#time,
      program: process.program,
      function: record.function,
      kind: record.objectKind,
      number: record.number,
      use: record.use,
      isOwner: record.isOwner,
      stack: process.stacks.get(record.stack) ?? NO_STACK,
      // `age` is in nanoseconds, `time` in microseconds.
      destroyedAt: this.#time - Number(record.age) / 1000,
      destroyedStack: process.stacks.get(record.destroyed) ?? NO_STACK,
    })
  }

  #refusedByLibrary(process: ObservedProcess, record: Extract<ObservedRecord, { readonly kind: 'refusal' }>): void {
    const { function: name, object, error: errno, facts } = record
    const stack = process.stacks.get(record.stack) ?? NO_STACK
    const context = process.contexts.get(record.fd)
    const origin =
      context === undefined
        ? {
            time: this.#time,
            device: CM_NAME,
            deviceNumber: -1,
            context: undefined,
            program: process.program,
            stack,
          }
        : this.#callFacts(context, stack)
    this.checker.refusedByLibrary({ ...origin, function: name, object, errno, facts })
  }

  #armed(process: ObservedProcess, record: Extract<ObservedRecord, { readonly kind: 'notify' }>): void {
    const context = process.contexts.get(record.fd)
    const cq = context?.objects.get(record.cq)
    if (context === undefined || cq === undefined) return
    const stack = process.stacks.get(record.stack) ?? NO_STACK
    const args = { solicitedOnly: record.solicitedOnly ? 1 : 0 }
    const facts = this.#callFacts(context, stack)
    this.checker.calling({ ...facts, class: 'cq', method: 'reqNotify', args }, cq.id)
    this.checker.called({ ...facts, class: 'cq', method: 'reqNotify', object: cq, args, out: {}, why: 'call' })
  }

  #completed(process: ObservedProcess, fd: number, cqHandle: number, completion: ObservedCompletion): void {
    const context = process.contexts.get(fd)
    const cq = context?.objects.get(cqHandle)
    const qp = context?.device.qps.get(completion.qpn)
    if (context === undefined || cq === undefined || qp === undefined) return
    const queue = this.#queueOfCompletion(qp, cq, completion)
    const request = queue && !process.isLossy ? this.#requests.complete(queue, completion, cq.id, qp.id) : undefined
    this.#requests.polled(cq.id)
    if (completion.status === SUCCESS) return
    const isSend = queue === undefined || queue.queue === PostQueue.SEND
    const injected = this.#faults?.takeCompletion(qp, completion.wrId)
    const failure = this.#failureOf(context, qp, completion, request, isSend, injected && causeOfRule(injected))
    if (completion.status !== WR_FLUSH_ERR || injected !== undefined) qp.attributes.state = ERR
    this.#failed(context, failure, completion.wrId, this.#peerDeviceOf(qp))
  }

  #failed(context: ObservedContext, failure: Failure, wrId: bigint, peerDevice: number | undefined): void {
    this.checker.failed({
      ...this.#callFacts(context, NO_STACK),
      failure,
      peerDevice,
      postStack: (kind, number) => this.#postStack(context.id, kind, number, wrId),
    })
    const { pid, command } = context.process.program
    this.#output.failure?.({
      time: MONOTONIC_START + this.#time / 1000,
      pid,
      command,
      device: context.device.name,
      failure: failureJson(failure),
    })
  }

  /** The queue of a completion. Of a failed one only wr_id, status and QPN are valid. */
  #queueOfCompletion(qp: ObservedObject, cq: ObservedObject, completion: ObservedCompletion): RequestQueue | undefined {
    const [sends, receives] = this.#queues.get(qp.id) ?? []
    const srq = qp.args.srq as ObservedObject | undefined
    const shared = srq === undefined ? receives : (this.#queues.get(srq.id)?.[0] ?? receives)
    if (completion.status === SUCCESS) return (completion.opcode & WcOpcode.values.RECV) === 0 ? sends : shared
    if (qp.args.sendCq !== qp.args.recvCq) return qp.args.sendCq === cq ? sends : shared
    const isOf = (queue: RequestQueue | undefined): boolean =>
      queue?.outstanding.some(({ wrId }) => wrId === completion.wrId) === true
    return isOf(sends) || !isOf(shared) ? sends : shared
  }

  #peerDeviceOf({ attributes }: ObservedObject): number | undefined {
    const { dgid } = (attributes.address ?? {}) as { readonly dgid?: Uint8Array }
    return dgid && this.#deviceWithGid(dgid)
  }

  #peerOf(qp: ObservedObject): ObservedObject | undefined {
    const device = this.#peerDeviceOf(qp)
    const destQpn = numberOf(qp.attributes.destQpn)
    return device === undefined || destQpn === undefined ? undefined : this.#devices[device]?.qps.get(destQpn)
  }

  #endOf(qp: ObservedObject, device: ObservedDevice): KnownEnd {
    const [sends, receives] = this.#queues.get(qp.id) ?? []
    const pd = qp.args.pd as ObservedObject | undefined
    const context = [...this.#contexts.values()].find(({ objects }) => objects.get(qp.handle) === qp)
    return {
      pd: pd?.handle,
      context: context?.id ?? 0,
      regions: device.regions,
      accessFlags: numberOf(qp.attributes.accessFlags),
      pathMtu: numberOf(qp.attributes.pathMtu),
      maxDestRdAtomic: numberOf(qp.attributes.maxDestRdAtomic),
      knowsAllKeys: device.knowsAllKeys,
      receive: receives?.failed ?? receives?.outstanding[0],
      send: sends?.outstanding[0],
    }
  }

  #failureOf(
    context: ObservedContext,
    qp: ObservedObject,
    { status, vendorErr, wrId, qpn }: ObservedCompletion,
    request: ReturnType<ObservedRequests['complete']>,
    isSend: boolean,
    injected: Cause | undefined,
  ): Failure {
    const { attributes, args, out } = qp
    const facts = { device: context.device.name, qpn, status }
    if (status === WR_FLUSH_ERR && injected === undefined) {
      const cause =
        attributes.state === ERR && !attributes.hasFailed
          ? createCause('MODIFIED', {})
          : createCause('FLUSHED', { state: ERR })
      return { ...facts, kind: 'flush', count: 1, queue: isSend ? 'send' : 'receive', cause }
    }
    attributes.hasFailed = true
    const peer = this.#peerOf(qp)
    const peerDevice = this.#peerDeviceOf(qp)
    const { dgid } = (attributes.address ?? {}) as { readonly dgid?: Uint8Array }
    const destQpn = numberOf(attributes.destQpn)
    const { cause, isAtPeer } =
      injected !== undefined
        ? { cause: injected, isAtPeer: undefined }
        : causeOfFailure({
            status,
            vendorErr,
            request,
            own: this.#endOf(qp, context.device),
            peer: peer && peerDevice !== undefined ? this.#endOf(peer, this.#devices[peerDevice]!) : undefined,
            maxSendSge: numberOf(((out.cap ?? args.cap) as { readonly maxSendSge?: number } | undefined)?.maxSendSge),
            maxRdAtomic: numberOf(attributes.maxRdAtomic),
            retryCnt: numberOf(attributes.retryCnt),
            rnrRetry: numberOf(attributes.rnrRetry),
          })
    const state = numberOf(peer?.attributes.state)
    return {
      ...facts,
      kind: isSend ? 'send' : 'receive',
      ...(isSend && { opcode: request?.opcode ?? 0 }),
      wrId,
      cause,
      ...(dgid !== undefined &&
        destQpn !== undefined && {
          peer: { qpn: destQpn, address: addressText(dgid), ...(state !== undefined && { state }) },
        }),
      ...(isAtPeer && { isCauseAtPeer: true }),
    }
  }
}
