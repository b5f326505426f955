/*
 * The calls of observed programs, and messages on their event files: what they do to objects, as events of the checker
 * and records of the trace.
 */

import type { Stack } from '../../spec/check/finding.ts'
import type { ContextEnd, ProgramEvent } from '../../spec/check/program-events.ts'
import { isQueuePairClass } from '../../spec/classes/ids.ts'
import { Classes } from '../../spec/classes.ts'
import { AsyncEventType, CmEventType, QpState } from '../../spec/enums.ts'
import { CallError, errnoName, knownErrno } from '../../spec/errno.ts'
import { because, coded } from '../../spec/reason.ts'
import type { RawAccess, TraceRecord } from '../../spec/records.ts'
import { CREATE, CREATE_FD } from '../../spec/schema/schema.ts'
import type { Call, Result } from '../../uapi/call.ts'
import { messagesOf } from '../trace/call-messages.ts'
import { netlinkText } from '../trace/netlink.ts'
import { type Adapters, gidTableOf, SYSTEM } from './adapters.ts'
import { decodeCall, decodeEvents } from './calls.ts'
import { CallEntry, FileKind } from './file-layout.ts'
import {
  type ObservedContext,
  type ObservedDevice,
  type ObservedObject,
  type ObservedProcess,
  objectIn,
} from './objects.ts'
import { callFacts, MONOTONIC_START, NO_STACK, numberOf, type Observation } from './observation.ts'
import type { Processes } from './processes.ts'
import type { Queues } from './queues.ts'
import type { ObservedCall, ObservedRecord } from './records.ts'

const { RESET } = QpState.values
const { CONNECT_REQUEST } = CmEventType.values
const { PORT_ERR, PORT_ACTIVE, GID_CHANGE } = AsyncEventType.values
const PORT_EVENTS: ReadonlySet<number> = new Set([PORT_ERR, PORT_ACTIVE, GID_CHANGE])

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

export class ObservedCalls {
  readonly #observation: Observation
  readonly #adapters: Adapters
  readonly #processes: Processes
  readonly #queues: Queues
  #objectCount = 0

  constructor(observation: Observation, adapters: Adapters, processes: Processes, queues: Queues) {
    this.#observation = observation
    this.#adapters = adapters
    this.#processes = processes
    this.#queues = queues
  }

  /** The last descriptor of a context was closed, and its objects are destroyed. */
  contextEnded(context: ObservedContext, how: ContextEnd['how']): void {
    this.#observation.stream.event({ event: 'contextEnds', context: context.id, how, pendingSends: undefined })
    const objects = context.isShared ? [] : [...context.objects.values(), ...context.descriptors.values()]
    for (const object of objects.reverse()) {
      this.#queues.reset(object.id)
      this.#observation.faults?.reset(object.id)
      this.#forget(context, object)
      this.#observation.stream.event({
        event: 'called',
        ...callFacts(this.#observation, context, NO_STACK),
        class: object.class.name,
        method: 'destroy',
        object,
        args: {},
        out: {},
        why: 'close',
        ...(how === 'kill' && { wasKilled: true }),
      })
    }
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
  message(process: ObservedProcess, record: CallRecord, started: bigint): void {
    const { call, time } = record
    const isRead = call.entry === CallEntry.READ
    if (call.fileKind === FileKind.MAD) {
      this.called(process, { ...record, time: started, call: { ...call, ranges: [] } }, record)
      return
    }
    const context = process.events.get(call.fd)
    const facts = this.#factsOf(process, record, started, time, context?.device.name ?? SYSTEM)
    const raw = { in: isRead ? [] : rawOf(call), out: isRead ? rawOf(call) : [] }
    if (call.fileKind === FileKind.NETLINK) {
      const { name, detail } = netlinkText(bytesOf(call))
      const attempt = `${isRead ? 'receive' : 'send'} ${name}`
      this.#tell({ ...facts, attempt, detail, raw })
      return
    }
    const events = decodeEvents(call)
    for (const { view, call: taken, result } of events) {
      this.#tell({ ...facts, call: messagesOf(view, taken, result ?? { out: {} }), raw })
      if (context === undefined || taken.class !== Classes.async_fd) continue
      const type = result?.out.type
      this.#portEvent(context.device, type)
      if (typeof type === 'number') this.#observation.output.asyncEvent?.(process.program.pid, type)
    }
    if (events.length === 0) this.#tell({ ...facts, attempt: 'read', raw })
  }

  /** The program has read an event of its device. */
  #portEvent({ index, name }: ObservedDevice, type: unknown): void {
    if (typeof type === 'number' && PORT_EVENTS.has(type))
      this.#observation.stream.event({ event: 'portEvent', device: index, type, gids: gidTableOf(name) })
  }

  called(process: ObservedProcess, before: CallRecord, after: CallRecord): void {
    const { fd, fileKind } = before.call
    const context = this.#processes.contextOf(process, fd, fileKind)
    const { result: ret } = after.call
    const find = (handle: number): ObservedObject | undefined => this.objectOf(process, context, handle)
    const decoded = decodeCall(before.call, after.call, handle => find(handle)?.class, context)
    const stack = process.stacks.get(before.stack) ?? NO_STACK
    const injected = this.#observation.faults?.takeCall(before.tid)
    const facts = {
      ...this.#factsOf(process, after, before.time, after.time, context.device.name),
      ...(injected !== undefined && {
        reason: coded('injected')`injected by fault rule ${injected.number} (${injected.text})`.toJSON(),
      }),
    }
    const raw = { in: rawOf(before.call), out: rawOf(after.call) }
    if ('attempt' in decoded) {
      this.#tell({ ...facts, attempt: decoded.attempt, raw }, 0, stack)
      if (ret >= 0 && fileKind === FileKind.VERBS) context.device.knowsAllKeys = false
      if (ret < 0 && injected === undefined)
        this.#observation.stream.event({
          event: 'refusedAttempt',
          ...callFacts(this.#observation, context, stack),
          attempt: decoded.attempt,
          errno: -ret,
          reason: because`the kernel refused it`,
        })
      return
    }
    const { call, result, view } = decoded
    const outcome = result ?? new CallError(knownErrno(errnoName(-ret), 'EIO'), because``)
    const record = {
      ...facts,
      call: messagesOf(view, call, outcome),
      raw,
      ...(result?.descriptors?.length && {
        descriptors: result.descriptors.map(({ attribute, object }) => ({ attribute, fd: object })),
      }),
    }
    this.#observation.output.call?.(record)
    const target = find(call.object)
    const made = injected === undefined ? this.#checkCall(context, call, target, ret, result, stack) : undefined
    this.#observation.output.recording?.call(record, (made ?? target)?.id ?? 0, stack)
  }

  /** A call, for the trace and the recording. */
  #tell(record: TraceRecord, object = 0, stack = NO_STACK): void {
    this.#observation.output.call?.(record)
    this.#observation.output.recording?.call(record, object, stack)
  }

  /**
   * The object with a handle. Identifiers of rdma_cm are those of all channels: a call can move one to another channel.
   */
  objectOf({ contexts }: ObservedProcess, context: ObservedContext, handle: number): ObservedObject | undefined {
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
  ): ObservedObject | undefined {
    const { class: cls, methodName, method } = call
    if (cls.name === 'device' && methodName === 'open' && result !== undefined) {
      context.isOpen = true
      const { index, name } = context.device
      this.#observation.stream.event({ event: 'gids', device: index, gids: gidTableOf(name) })
    }
    const args = this.#namedArguments(context, call)
    const creates = method.call === CREATE || method.call === CREATE_FD
    const object = creates ? this.#create(context, call, args, result) : target
    const checked: ProgramEvent<'called'> = {
      event: 'called',
      ...callFacts(this.#observation, context, stack),
      class: cls.name,
      method: methodName,
      object,
      args,
      out: result?.out ?? {},
      ...(result === undefined && { refused: { errno: -ret, reason: because`the kernel refused it` } }),
      why: 'call',
    }
    const { program } = context.process
    if (cls.name === 'cm_channel' && result !== undefined) this.#takeRequest(context, result)
    if (!creates && object !== undefined)
      this.#observation.stream.event({
        event: 'calling',
        object: object.id,
        class: cls.name,
        method: methodName,
        program,
        args,
        stack,
      })
    if (result !== undefined && object !== undefined && !creates) this.#changed(context, object, methodName, args)
    this.#observation.stream.event(checked)
    if (result !== undefined && methodName === 'destroy' && object !== undefined) this.#forget(context, object)
    return object
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
      qpn: isQueuePairClass(cls.name) ? numberOf(result.out.qpNum) : undefined,
      attributes: {},
    }
    ;(result.object === undefined ? context.descriptors : context.objects).set(handle, object)
    this.#queues.add(object)
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
      // Some adapters give regions without remote rights the rkey 0, which is no key.
      for (const key of [result.out.lkey, result.out.rkey])
        if (typeof key === 'number' && key !== 0) device.regions.set(key, region)
    }
    return object
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
      this.#queues.reset(object.id)
      this.#observation.faults?.reset(object.id)
    }
    if (method === 'destroy' && object.class.name === 'mr')
      for (const key of [object.out.lkey, object.out.rkey]) {
        const region = typeof key === 'number' ? regions.get(key) : undefined
        if (region !== undefined) region.isDeregistered = true
      }
    if (object.qpn !== undefined && args.address !== undefined) this.#adapters.learnPeer(object)
  }

  #forget({ objects, descriptors, device }: ObservedContext, object: ObservedObject): void {
    if (objects.get(object.handle) === object) objects.delete(object.handle)
    if (descriptors.get(object.handle) === object) descriptors.delete(object.handle)
    if (object.qpn !== undefined && device.qps.get(object.qpn) === object) device.qps.delete(object.qpn)
    this.#queues.delete(object.id)
  }
}
