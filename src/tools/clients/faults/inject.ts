/*
 * Injects the faults of rules for programs (faults/program-faults.ts): into calls, and events, by a hook of each device;
 * into completions and accesses to pages by taps. While no such rule exists, there is no hook or tap. Posts are decided here for the carriers.
 */
import { registerClient } from '../../../core/devices/clients.ts'
import { addHook } from '../../../core/devices/registry.ts'
import { systemDevice } from '../../../core/devices/system.ts'
import { callerWithoutMemory } from '../../../core/dispatch/caller.ts'
import { invokeTyped, methodOf } from '../../../core/dispatch/invoke.ts'
import type { DecideCompletion, DecidePage } from '../../../core/driver-contract.ts'
import { raiseInContext, raiseObjectEvent } from '../../../core/events/events.ts'
import { addFailureHandler, reportFailure } from '../../../core/failures.ts'
import type {
  CallContext,
  CallingProcess,
  Context,
  Core,
  CoreObject,
  Device,
  EventRecord,
  FdObject,
  Hook,
} from '../../../core/model.ts'
import type {
  CallFault,
  FaultSubject,
  NoticeFault,
  PostDetails,
  ProgramFaults,
} from '../../../faults/program-faults.ts'
import { CABLE_ON_WAY, changesDevice, changesFabric, type Happening, happens } from '../../../faults/rule.ts'
import { createSurvey, type Survey, siteOf } from '../../../faults/survey.ts'
import type { Identifier } from '../../../services/rdma-cm/identifier.ts'
import { causeOfRule } from '../../../spec/check/causes.ts'
import { type Failure, failureText, isNote } from '../../../spec/check/failures.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import { ClassId, isQueuePairClass } from '../../../spec/classes/ids.ts'
import { AsyncEventType, CmEventType, nameIn, QpState, QpType } from '../../../spec/enums.ts'
import { CallError, codedError, Errno, type ErrnoName, isInjected } from '../../../spec/errno.ts'
import {
  type ActingRule,
  COMPLETION_NOTICE,
  completionNameOf,
  connectionEventNames,
  deviceEvents,
  queuePairClasses,
  type RuleSignal,
  requestNameOf,
  type SurveySite,
} from '../../../spec/faults.ts'
import { the } from '../../../spec/reason.ts'
import { MODIFY } from '../../../spec/schema/schema.ts'
import { PostQueue } from '../../../spec/session.ts'
import type { Disturbance } from '../../../spec/subnet-port.ts'
import { ackTimeouts, WcStatus } from '../../../spec/work.ts'
import { watchedRequest } from '../requests/feed.ts'

interface FaultSources {
  /** Fulfilled after so many milliseconds. */
  wait(milliseconds: number): Promise<void>
  /** Takes the link of a device down or up: its port's state, and its packets. Nothing for a device without link. */
  setLink(device: Device, isUp: boolean): void
  /** The address of a device leaves, and returns at an index so much higher. Nothing for a device without link. */
  moveGid(device: Device, by: number): void
  /** Disturbs the subnet of a device's InfiniBand port. Returns what ends it; undefined: there is nothing to end. */
  disturb(device: Device, disturbance: Disturbance): (() => void) | undefined
  /** Removes a device, and adds it again after so many milliseconds. */
  remove(device: Device, milliseconds: number): void
  /** Sends a signal to a process. */
  signal(pid: number, signal: RuleSignal | 'STOP' | 'CONT'): void
  /** Whether a process has several threads. Absent: none has. */
  isThreaded?(pid: number): boolean
  /** Milliseconds. */
  now(): number
  /** The process that has opened a context; undefined for a client inside the subsystem. */
  processOf(context: Context): CallingProcess | undefined
  /** The stack of the current call; empty: unknown. Absent: always. */
  callStack?(): Stack
  /** The stack of the post of a completed request. `queue`: a PostQueue. `index`: as `WorkRequest.postIndex`. */
  postStack?(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack
}

/** A request that is posted to a queue pair or SRQ. */
interface Posting extends PostDetails {
  readonly context: Context
  /** The queue pair or SRQ. */
  readonly object: CoreObject
  /** Undefined for an SRQ. */
  readonly qpn: number | undefined
  readonly isSend: boolean
  /** ibv_wr_opcode of a send; undefined: unknown. */
  readonly opcode: number | undefined
  readonly wrId: bigint
  /** Absent: unknown. */
  readonly stack?: Stack | undefined
}

export interface InjectedFaults {
  /** Begins a new survey of what rules can act on. Call `rulesChanged` after the first time. */
  beginSurvey(): void
  /** Undefined before `beginSurvey`. */
  readonly survey: Survey | undefined
  /** Call this after each change of the rules, and once the sources can be used. */
  rulesChanged(): void
  /** Takes the link of a device down or up. `milliseconds`: down for so long. Up: also before the times of rules are over. */
  setLink(device: Device, isUp: boolean, milliseconds?: number): void
  /** The error of a post of `process`; undefined: none. Reports it as a failure. */
  onPost(posting: Posting, process: CallingProcess): ErrnoName | undefined
  /** Fulfilled when what rules let happen to devices now has happened. */
  untilHappened(): Promise<void>
  /** A program has ended its rules: links and cables that they took down are up again, and managers there. `scope`: as of `ActingRule`. */
  endOutages(scope: object): void
  /** Whether each post must be announced by `onPost`. */
  readonly hasPosts: boolean
  /** Whether rules see calls. */
  readonly hasCalls: boolean
}

const deviceFailure = callerWithoutMemory('a device that fails')

const NO_STACK: Stack = []
const noStack = (): Stack => NO_STACK

/** Failures of which a program is told. It may not look at events of the device, which need not concern it. */
const TOLD: ReadonlySet<Failure['kind']> = new Set(['send', 'receive', 'post'])

/** The port of events of ports: devices have one. */
const PORT = 1
const PORTLESS: ReadonlySet<string> = new Set(['DEVICE_FATAL', 'DEVICE_SPEED_CHANGE'])

/** `stack`: looks the stack up. */
const subjectOf = (
  { device }: Context,
  process: CallingProcess | undefined,
  stack: () => Stack,
): FaultSubject | undefined =>
  process && {
    device: device.name,
    pid: process.pid,
    program: () => process.name(),
    site: () => siteOf(stack()),
  }

const isOfConnection = (event: string): boolean => connectionEventNames.includes(event)
const isOfDevice = (event: string): boolean => (deviceEvents as readonly string[]).includes(event)

/** The name of an event on a descriptor, and its class; undefined: rules know no such events. */
const noticeOf = ({ class: { id } }: FdObject, { type }: EventRecord): string | undefined => {
  if (id === ClassId.comp_channel) return COMPLETION_NOTICE
  if (id === ClassId.async_fd) return nameIn(AsyncEventType.values, type)
  return id === ClassId.cm_channel ? nameIn(CmEventType.values, type) : undefined
}

/** Events of rdma_cm with which a connection fails. */
const FAILED_EVENTS: ReadonlySet<string> = new Set([
  'ADDR_ERROR',
  'ROUTE_ERROR',
  'CONNECT_ERROR',
  'UNREACHABLE',
  'REJECTED',
  'DEVICE_REMOVAL',
  'MULTICAST_ERROR',
  'ADDR_CHANGE',
])

/** How long a queue pair repeats a request, milliseconds; 0: these attributes do not say. */
const retriesOf = ({ timeout, retryCnt }: { readonly timeout?: unknown; readonly retryCnt?: unknown }): number =>
  typeof timeout === 'number' && typeof retryCnt === 'number'
    ? ((ackTimeouts[timeout] ?? 0) * (retryCnt + 1)) / 1000
    : 0

/** Whether a program in this process gets the context's events. */
const hasEventHandler = (context: Context): boolean => [...context.device.eventHandlers.values()].includes(context)

/** Raises an event for the program of a context: of `object`, the port or the device. */
const raise = (context: Context, object: CoreObject | undefined, event: string, rule: ActingRule): void => {
  if (event === '' || context.isClosed || !context.device.isAlive) return
  const type = AsyncEventType.values[event as keyof typeof AsyncEventType.values]
  const cause = causeOfRule(rule)
  if (isOfDevice(event)) {
    raiseInContext(context, { type, port: PORTLESS.has(event) ? undefined : PORT }, cause)
    return
  }
  if (object === undefined) return
  raiseObjectEvent(object, type)
  reportFailure({ kind: 'event', device: context.device.name, event: type, cause }, context.device, context)
}

/** The device fails: all its queue pairs go to ERR, and its programs get DEVICE_FATAL. */
const failDevice = ({ contexts }: Device, rule: ActingRule): void => {
  for (const context of contexts) {
    for (const object of context.handles.slots) {
      if (object === undefined || !queuePairClasses.includes(object.class.name)) continue
      try {
        const entry = methodOf(context, object.class, MODIFY, 'modify')
        void invokeTyped(context, entry, object.handle, { state: QpState.values.ERR }, deviceFailure)
      } catch (error) {
        // A queue pair in RESET has no way to ERR, and nothing to flush.
        if (!(error instanceof CallError)) throw error
      }
    }
    raise(context, undefined, 'DEVICE_FATAL', rule)
  }
}

/** Whether a call on an identifier can lead to an event of its connection. */
const canFailBy = ({ state }: CoreObject, method: string, event: string): boolean => {
  const { qpType, isRequest } = state as Identifier
  const isDatagram = qpType === QpType.values.UD
  // The answer to a SIDR_REQ has no answer, and its refusal is UNREACHABLE.
  if (method === 'connect') return !isDatagram || event === 'UNREACHABLE'
  // The active side accepts a connection that exists.
  if (method === 'accept') return !isDatagram && (isRequest || event === 'DISCONNECTED')
  return true
}

/** Lets the call that begins on an identifier fail by an event (services/rdma-cm/rdma-cm.ts). */
const failByEvent = ({ context }: CallContext, { state }: CoreObject, event: string, rule: ActingRule): void => {
  const type = CmEventType.values[event as keyof typeof CmEventType.values]
  const { device } = context
  const report = (): void =>
    reportFailure({ kind: 'event', device: device.name, cmEvent: type, cause: causeOfRule(rule) }, device, context)
  const id = state as Identifier
  id.injected = { type, report }
}

/** The call has ended: it was refused before the event. */
const dropEvent = ({ state }: CoreObject): void => {
  const id = state as Identifier | undefined
  if (id !== undefined) id.injected = undefined
}

/** `begin` returns the function that ends what it has begun. The result begins and ends it when the need changes. */
const whileNeeded = (begin: () => () => void): ((isNeeded: boolean) => void) => {
  let end: (() => void) | undefined
  return isNeeded => {
    if (isNeeded === (end !== undefined)) return
    if (isNeeded) end = begin()
    else {
      end?.()
      end = undefined
    }
  }
}

/** Begins to inject faults into the calls of a core's devices. */
export const injectFaults = (core: Core, faults: ProgramFaults, sources: FaultSources): InjectedFaults => {
  const removers = new Map<Device, () => void>()
  /** Faults of calls in progress that raise an event. */
  const raising = new WeakMap<CallContext, CallFault>()
  /** By context: the edition of the rules for events that were applied to it. */
  const opened = new WeakMap<Context, number>()
  let survey: Survey | undefined
  /** The sites of calls in progress, and of the creates of queue pairs that were not modified yet. */
  const noted = new WeakMap<CallContext, SurveySite>()
  const unused = new WeakMap<CoreObject, SurveySite>()
  const asks = (site: SurveySite): void => {
    site.asked = (site.asked ?? 0) + 1
  }
  /** Queue pairs that a fault has kept from RESET or ERR, and that were not used since. */
  const unstopped = new WeakSet<CoreObject>()
  /** A call on a queue pair begins. */
  const noteUse = (queuePair: CoreObject, method: string): void => {
    if (method !== 'query' && unstopped.delete(queuePair) && method === 'destroy') survey?.gaveUp()
    const site = unused.get(queuePair)
    if (site === undefined || method === 'query') return
    unused.delete(queuePair)
    if (method === 'destroy') asks(site)
  }
  /** A call has ended. `error`: it was refused. */
  const noteEnd = (
    call: CallContext,
    object: CoreObject | undefined,
    { state }: { readonly state?: unknown },
    error: unknown,
  ): void => {
    const site = noted.get(call)
    if (site === undefined) return
    const { class: cls, name } = call.entry
    if (object !== undefined && name === 'modify' && isQueuePairClass(cls.name) && isInjected(error))
      if (state === QpState.values.RESET || state === QpState.values.ERR) unstopped.add(object)
    if (error !== undefined && !isInjected(error)) asks(site)
    if (error !== undefined || object === undefined) return
    if (name === 'create' && isQueuePairClass(cls.name)) unused.set(object, site)
  }
  /** What keeps links down: rules, each for its time, and commands. */
  const outages = new WeakMap<Device, Set<{ readonly scope: object | undefined }>>()
  const setLink = (device: Device, isUp: boolean, milliseconds?: number, scope?: object): void => {
    const current = outages.get(device) ?? new Set()
    outages.set(device, current)
    const wasUp = current.size === 0
    if (isUp) {
      current.clear()
      if (!wasUp) sources.setLink(device, true)
      return
    }
    const outage = { scope }
    current.add(outage)
    if (wasUp) sources.setLink(device, false)
    if (milliseconds === undefined) return
    void sources.wait(milliseconds).then(() => {
      if (current.delete(outage) && current.size === 0 && device.isAlive) sources.setLink(device, true)
    })
  }
  /** What rules have done to the subnet, and will end. */
  const disturbed = new Set<{ readonly scope: object | undefined; readonly end: () => void }>()
  const disturb = (
    devices: readonly Device[],
    disturbance: Disturbance,
    lasts: number | undefined,
    scope: object | undefined,
  ): void => {
    // The ports of a process have one subnet.
    for (const device of devices) {
      const end = device.isAlive ? sources.disturb(device, disturbance) : undefined
      if (end === undefined) continue
      const one = { scope, end }
      disturbed.add(one)
      if (lasts !== undefined)
        void sources.wait(lasts).then(() => {
          if (disturbed.delete(one)) end()
        })
      return
    }
  }
  let happened = Promise.resolve()
  const happen = (
    devices: readonly Device[],
    pid: number,
    fault: ActingRule & { readonly happening: Happening },
  ): void => {
    if (!happens(fault.happening)) return
    const { link, gid, cable, manager, gone, fatal, signal, stop } = fault.happening
    if (signal !== '') sources.signal(pid, signal)
    if (stop > 0) {
      sources.signal(pid, 'STOP')
      void sources.wait(stop).then(() => sources.signal(pid, 'CONT'))
    }
    if (!changesDevice(fault.happening) && !changesFabric(fault.happening)) return
    // Not at once: the device may be in the middle of a poll.
    happened = sources.wait(0).then(() => {
      if (cable !== '') {
        const between = cable.between === CABLE_ON_WAY ? undefined : cable.between
        disturb(devices, { kind: 'cable', between }, cable.lasts, fault.scope)
      }
      if (manager > 0) disturb(devices, { kind: 'manager' }, manager, fault.scope)
      for (const device of devices) {
        if (device.isAlive && link > 0) setLink(device, false, link, fault.scope)
        if (device.isAlive && gid > 0) sources.moveGid(device, gid)
        if (device.isAlive && fatal !== '') failDevice(device, fault)
        if (device.isAlive && gone > 0) sources.remove(device, gone)
      }
    })
  }
  /** The device of an identifier of rdma_cm; all, if it has none yet. */
  const devicesOf = (object: CoreObject | undefined): readonly Device[] => {
    const device = (object?.state as Identifier | undefined)?.device?.device
    return device === undefined ? [...core.devices.values()] : [device]
  }
  const callStack = (): Stack => sources.callStack?.() ?? NO_STACK

  const afterDelay = (milliseconds: number, act: () => void): Promise<void> | undefined => {
    if (milliseconds > 0) return sources.wait(milliseconds).then(act)
    act()
    return undefined
  }

  /** Applies the rules for events to a context that can get events, each once. */
  const onOpen = (context: Context): void => {
    const asked = opened.get(context) ?? 0
    if (asked === faults.edition || (context.asyncFd === undefined && !hasEventHandler(context))) return
    opened.set(context, faults.edition)
    const subject = subjectOf(context, sources.processOf(context), noStack)
    if (subject === undefined) return
    for (const fault of faults.onOpen(subject, asked))
      void afterDelay(fault.delay, () => {
        survey?.injected(subject.pid)
        raise(context, undefined, fault.event, fault)
        happen([context.device], subject.pid, fault)
      })
  }

  const hook: Hook = {
    delay(call, object) {
      const subject = subjectOf(call.context, call.caller.process, callStack)
      if (subject === undefined) return undefined
      const method = `${call.entry.class.name}.${call.entry.name}`
      const site = survey?.note('call', call.entry.class.name, method, subject, callStack())
      if (site !== undefined) {
        noted.set(call, site)
        if (object !== undefined) noteUse(object, call.entry.name)
      }
      const canRaise = (event: string): boolean => !isOfConnection(event) || canFailBy(object, call.entry.name, event)
      const fault = faults.onCall(subject, method, canRaise)
      if (fault === undefined) return undefined
      survey?.injected(subject.pid, callStack())
      if (isOfConnection(fault.event)) failByEvent(call, object, fault.event, fault)
      else if (fault.event !== '') raising.set(call, fault)
      const isOfCm = call.entry.class.name === 'cm_id'
      const fail = (): void => {
        happen(isOfCm ? devicesOf(object) : [call.context.device], subject.pid, fault)
        if (fault.errno !== '')
          throw codedError(
            fault.errno,
            'injected',
          )`${the.method(method)}: injected by fault rule ${fault.number} (${fault.text})`
      }
      return afterDelay(fault.delay, fail)
    },
    post(call, object, args, _out, error) {
      noteEnd(call, object, args, error)
      if (survey !== undefined && call.why === 'call' && error === undefined && isQueuePairClass(call.entry.class.name))
        survey.retries(retriesOf(args))
      if (call.entry.class.name === 'cm_id' && object !== undefined) dropEvent(object)
      if (call.why !== 'call' || error !== undefined) return
      const fault = raising.get(call)
      if (fault !== undefined) raise(call.context, object, fault.event, fault)
      if (faults.has('event')) onOpen(call.context)
    },
  }

  const client = {
    name: 'faults',
    add(device: Device) {
      removers.set(device, addHook(device, hook))
      return true
    },
    remove(device: Device) {
      removers.get(device)?.()
      removers.delete(device)
    },
  }
  const decideCompletion: DecideCompletion = (queuePair, opcode, wrId) => {
    const {
      context,
      state: { qpn },
    } = queuePair
    if (context === undefined) return undefined
    const completion = completionNameOf(opcode)
    const queue = completion.startsWith('RECV') ? PostQueue.RECEIVE : PostQueue.SEND
    const stack = (): Stack => {
      const request = watchedRequest(context.device, qpn, queue === PostQueue.RECEIVE, wrId)
      const found = request
        ? sources.postStack?.(context, request.queue, request.number, request.wrId, request.postIndex)
        : sources.postStack?.(context, queue, qpn, wrId)
      return found ?? NO_STACK
    }
    const subject = subjectOf(context, sources.processOf(context), stack)
    if (subject === undefined) return undefined
    survey?.note('completion', queuePair.class.name, completion, subject, stack())
    const fault = faults.onCompletion(subject, queuePair.class.name, qpn, completion, wrId)
    if (fault === undefined) return undefined
    survey?.injected(subject.pid)
    happen([context.device], subject.pid, fault)
    if (fault.status === '') return undefined
    return { ...fault, status: WcStatus.values[fault.status as keyof typeof WcStatus.values] }
  }
  const decidePage: DecidePage = context => {
    const subject = subjectOf(context, sources.processOf(context), noStack)
    return subject && faults.onPage(subject)
  }
  const hookCalls = whileNeeded(() => {
    const unregister = registerClient(core, client)
    // rdma_cm, whose identifiers belong to no device.
    const removeHook = addHook(systemDevice(core), hook)
    return () => {
      unregister()
      removeHook()
    }
  })
  const tapCompletions = whileNeeded(() =>
    registerClient(core, {
      name: 'faults of completions',
      add({ taps }) {
        taps.decideCompletion = decideCompletion
        return true
      },
      remove({ taps }) {
        taps.decideCompletion = undefined
      },
    }),
  )
  const decideEvent = (fd: FdObject, event: EventRecord): NoticeFault | undefined => {
    const notice = noticeOf(fd, event)
    const subject = notice === undefined ? undefined : subjectOf(fd.context, sources.processOf(fd.context), noStack)
    if (notice === undefined || subject === undefined) return undefined
    survey?.note('notice', fd.class.name, notice, subject, NO_STACK, sources.isThreaded?.(subject.pid))
    const { details } = event as { readonly details?: { readonly status?: number } }
    if (fd.class.id === ClassId.cm_channel && (FAILED_EVENTS.has(notice) || (details?.status ?? 0) !== 0))
      survey?.told(`process ${faults.processNumber(subject.pid)}: ${notice}, status ${details?.status ?? 0}`, false)
    const fault = faults.onNotice(subject, notice)
    if (fault !== undefined) survey?.injected(subject.pid)
    return fault
  }
  const tapEvents = whileNeeded(() => {
    core.eventDelays = { decide: decideEvent, wait: sources.wait }
    return () => {
      core.eventDelays = undefined
    }
  })
  /** What programs are told of failures. */
  const noteFailures = whileNeeded(() =>
    addFailureHandler(core, (failure, _device, context) => {
      const pid = context && sources.processOf(context)?.pid
      // Nobody is told of what an ended program has left.
      const isLeft = failure.cause.id === 'LOCAL_ENDED'
      if (pid === undefined || isNote(failure) || isLeft || !TOLD.has(failure.kind)) return
      const isCompletion = failure.kind === 'send' || failure.kind === 'receive'
      survey?.told(`process ${faults.processNumber(pid)}: ${failureText(failure)}`, isCompletion)
    }),
  )
  const tapPages = whileNeeded(() =>
    registerClient(core, {
      name: 'faults of pages',
      add({ taps }) {
        taps.decidePage = decidePage
        return true
      },
      remove({ taps }) {
        taps.decidePage = undefined
      },
    }),
  )
  return {
    untilHappened: () => happened,
    endOutages(scope) {
      for (const one of disturbed)
        if (one.scope === scope) {
          disturbed.delete(one)
          one.end()
        }
      for (const device of core.devices.values()) {
        const current = outages.get(device)
        const before = current?.size ?? 0
        for (const outage of current ?? []) if (outage.scope === scope) current?.delete(outage)
        if (before > 0 && current?.size === 0 && device.isAlive) sources.setLink(device, true)
      }
    },
    beginSurvey() {
      survey = createSurvey(faults, sources.now)
    },
    get survey() {
      return survey
    },
    setLink: (device, isUp, milliseconds) => setLink(device, isUp, milliseconds),
    get hasPosts() {
      return survey !== undefined || faults.has('post')
    },
    get hasCalls() {
      return survey !== undefined || faults.has('call') || faults.has('event')
    },
    onPost(posting, process) {
      const { context, object, qpn, isSend, opcode, wrId, stack = NO_STACK } = posting
      const subject = subjectOf(context, process, () => stack)
      if (subject === undefined) return undefined
      const isUnknown = isSend && opcode === undefined
      const request = isUnknown ? undefined : requestNameOf(isSend ? opcode : undefined)
      survey?.note('post', object.class.name, request ?? '', subject, stack)
      const fault = faults.onPost(subject, object.class.name, qpn, request, posting)
      if (fault === undefined) return undefined
      survey?.injected(process.pid)
      const { device } = context
      const failure: Failure = {
        kind: 'post',
        device: device.name,
        cause: causeOfRule(fault),
        wrId,
        errno: Errno[fault.errno],
        queue: isSend ? 'send' : 'receive',
        ...(qpn !== undefined && { qpn }),
        ...(opcode !== undefined && { opcode }),
      }
      reportFailure(failure, device, context)
      return fault.errno
    },
    rulesChanged() {
      hookCalls(this.hasCalls)
      tapCompletions(survey !== undefined || faults.has('completion'))
      tapPages(faults.has('page'))
      tapEvents(survey !== undefined || faults.has('notice'))
      noteFailures(survey !== undefined)
      if (faults.has('event'))
        for (const { contexts } of core.devices.values()) for (const context of contexts) onOpen(context)
    },
  }
}
