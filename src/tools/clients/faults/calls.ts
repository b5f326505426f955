/*
 * Injects the faults of rules for calls and opened devices, by a hook of each device.
 */

import { reportFailure } from '../../../core/failures.ts'
import type { CallContext, Context, CoreObject, Device, Hook } from '../../../core/model.ts'
import type { CallFault } from '../../../faults/program-faults.ts'
import { identifierIn } from '../../../services/rdma-cm/identifier.ts'
import { causeOfRule } from '../../../spec/check/causes.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import { isQueuePairClass } from '../../../spec/classes/ids.ts'
import { CmEventType, QpState } from '../../../spec/enums.ts'
import { codedError, isInjected } from '../../../spec/errno.ts'
import { type ActingRule, connectionEventNames, type SurveySite } from '../../../spec/faults.ts'
import { the } from '../../../spec/reason.ts'
import { ackTimeouts } from '../../../spec/work.ts'
import { type Happenings, raise } from './happenings.ts'
import { afterDelay, type Injection, NO_STACK, noStack, subjectOf } from './sources.ts'

const isOfConnection = (event: string): boolean => connectionEventNames.includes(event)

/** How long a queue pair repeats a request, milliseconds; 0: these attributes do not say. */
const retriesOf = ({ timeout, retryCnt }: { readonly timeout?: unknown; readonly retryCnt?: unknown }): number =>
  typeof timeout === 'number' && typeof retryCnt === 'number'
    ? ((ackTimeouts[timeout] ?? 0) * (retryCnt + 1)) / 1000
    : 0

/** Whether a program in this process gets the context's events. */
const hasEventHandler = (context: Context): boolean => [...context.device.eventHandlers.values()].includes(context)

/** Lets the call that begins on an identifier of rdma_cm fail by an event. */
const failByEvent = ({ context }: CallContext, object: CoreObject, event: string, rule: ActingRule): void => {
  const type = CmEventType.values[event as keyof typeof CmEventType.values]
  const { device } = context
  const report = (): void =>
    reportFailure({ kind: 'event', device: device.name, cmEvent: type, cause: causeOfRule(rule) }, device, context)
  identifierIn(object)?.failCall({ type, report })
}

/** What a survey asks about calls: whether programs use what a call has made, and how they take its error. */
class CallSurvey {
  readonly #injection: Injection
  /** The sites of calls in progress, and of the creates of queue pairs that were not modified yet. */
  readonly #noted = new WeakMap<CallContext, SurveySite>()
  readonly #unused = new WeakMap<CoreObject, SurveySite>()
  /** Queue pairs that a fault has kept from RESET or ERR, and that were not used since. */
  readonly #unstopped = new WeakSet<CoreObject>()

  constructor(injection: Injection) {
    this.#injection = injection
  }

  begin(call: CallContext, object: CoreObject | undefined, site: SurveySite): void {
    this.#noted.set(call, site)
    if (object !== undefined) this.#noteUse(object, call.entry.name)
  }

  /** `error`: the call was refused. */
  end(
    call: CallContext,
    object: CoreObject | undefined,
    { state }: { readonly state?: unknown },
    error: unknown,
  ): void {
    const site = this.#noted.get(call)
    if (site === undefined) return
    const { class: cls, name } = call.entry
    if (object !== undefined && name === 'modify' && isQueuePairClass(cls.name) && isInjected(error))
      if (state === QpState.values.RESET || state === QpState.values.ERR) this.#unstopped.add(object)
    if (error !== undefined && !isInjected(error)) asks(site)
    if (error !== undefined || object === undefined) return
    if (name === 'create' && isQueuePairClass(cls.name)) this.#unused.set(object, site)
  }

  #noteUse(queuePair: CoreObject, method: string): void {
    if (method !== 'query' && this.#unstopped.delete(queuePair) && method === 'destroy')
      this.#injection.survey?.gaveUp()
    const site = this.#unused.get(queuePair)
    if (site === undefined || method === 'query') return
    this.#unused.delete(queuePair)
    if (method === 'destroy') asks(site)
  }
}

const asks = (site: SurveySite): void => {
  site.asked = (site.asked ?? 0) + 1
}

export class CallFaults implements Hook {
  readonly #injection: Injection
  readonly #happenings: Happenings
  readonly #survey: CallSurvey
  /** Faults of calls in progress that raise an event. */
  readonly #raising = new WeakMap<CallContext, CallFault>()
  /** By context: the edition of the rules for events that were applied to it. */
  readonly #opened = new WeakMap<Context, number>()

  constructor(injection: Injection, happenings: Happenings) {
    this.#injection = injection
    this.#happenings = happenings
    this.#survey = new CallSurvey(injection)
  }

  delay: NonNullable<Hook['delay']> = (call, object) => {
    const { faults, sources, survey } = this.#injection
    const callStack = (): Stack => sources.callStack?.() ?? NO_STACK
    const subject = subjectOf(call.context, call.caller.process, callStack)
    if (subject === undefined) return undefined
    const { class: cls, name } = call.entry
    const method = `${cls.name}.${name}`
    const site = survey?.note('call', cls.name, method, subject, callStack())
    if (site !== undefined) this.#survey.begin(call, object, site)
    const canRaise = (event: string): boolean =>
      !isOfConnection(event) || (identifierIn(object)?.canFailBy(name, event) ?? true)
    const fault = faults.onCall(subject, method, canRaise)
    if (fault === undefined) return undefined
    survey?.injected(subject.pid, callStack())
    if (isOfConnection(fault.event)) failByEvent(call, object, fault.event, fault)
    else if (fault.event !== '') this.#raising.set(call, fault)
    return afterDelay(sources, fault.delay, () => {
      const devices = cls.name === 'cm_id' ? this.#devicesOf(object) : [call.context.device]
      this.#happenings.happen(devices, subject.pid, fault)
      if (fault.errno !== '')
        throw codedError(
          fault.errno,
          'injected',
        )`${the.method(method)}: injected by fault rule ${fault.number} (${fault.text})`
    })
  }

  post: NonNullable<Hook['post']> = (call, object, args, _out, error) => {
    const { faults, survey } = this.#injection
    const { class: cls } = call.entry
    this.#survey.end(call, object, args, error)
    const isDone = call.why === 'call' && error === undefined
    if (survey !== undefined && isDone && isQueuePairClass(cls.name)) survey.retries(retriesOf(args))
    identifierIn(object)?.endCall()
    if (!isDone) return
    const fault = this.#raising.get(call)
    if (fault !== undefined) raise(call.context, object, fault.event, fault)
    if (faults.has('event')) this.onOpen(call.context)
  }

  /** Applies the rules for events to a context that can get events, each once. */
  onOpen(context: Context): void {
    const { faults, sources } = this.#injection
    const asked = this.#opened.get(context) ?? 0
    if (asked === faults.edition || (context.asyncFd === undefined && !hasEventHandler(context))) return
    this.#opened.set(context, faults.edition)
    const subject = subjectOf(context, sources.processOf(context), noStack)
    if (subject === undefined) return
    for (const fault of faults.onOpen(subject, asked))
      void afterDelay(sources, fault.delay, () => {
        this.#injection.survey?.injected(subject.pid)
        raise(context, undefined, fault.event, fault)
        this.#happenings.happen([context.device], subject.pid, fault)
      })
  }

  /** The device of an identifier of rdma_cm; all, if it has none yet. */
  #devicesOf(object: CoreObject | undefined): readonly Device[] {
    const device = identifierIn(object)?.device?.device
    return device === undefined ? [...this.#injection.core.devices.values()] : [device]
  }
}
