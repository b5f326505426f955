/*
 * Injects the faults of rules for programs (faults/program-faults.ts): into calls, and events, by a hook of each device.
 * While no such rule exists, there is no hook. Posts are decided here for the carriers, completions for the drivers.
 */
import { registerClient } from '../../core/devices/clients.ts'
import { addHook } from '../../core/devices/registry.ts'
import { systemDevice } from '../../core/devices/system.ts'
import { raiseInContext, raiseObjectEvent } from '../../core/events/events.ts'
import { reportFailure } from '../../core/failures.ts'
import type { CallContext, CallingProcess, Context, Core, CoreObject, Device, Hook } from '../../core/model.ts'
import type {
  ActingRule,
  CallFault,
  CompletionFault,
  FaultSubject,
  ProgramFaults,
} from '../../faults/program-faults.ts'
import { type Cause, createCause } from '../../spec/check/causes.ts'
import type { Failure } from '../../spec/check/failures.ts'
import { AsyncEventType } from '../../spec/enums.ts'
import { Errno, type ErrnoName, InjectedError } from '../../spec/errno.ts'
import { deviceEvents, requestNameOf } from '../../spec/faults.ts'
import { PostQueue } from '../../spec/session.ts'

export interface FaultSources {
  /** Fulfilled after so many milliseconds. */
  wait(milliseconds: number): Promise<void>
  /** The process that has opened a context; undefined for a client inside the subsystem. */
  processOf(context: Context): CallingProcess | undefined
  /** The site (`siteOf`) of the current call; undefined: unknown. Absent: always. */
  callSite?(): string | undefined
  /** The site of the post of a completed request. `queue`: a PostQueue. */
  postSite?(context: Context, queue: number, number: number, wrId: bigint): string | undefined
}

/** A request that is posted to a queue pair or SRQ. */
export interface Posting {
  readonly context: Context
  /** The queue pair or SRQ. */
  readonly object: CoreObject
  /** Undefined for an SRQ. */
  readonly qpn: number | undefined
  readonly isSend: boolean
  /** ibv_wr_opcode of a send; undefined: unknown. */
  readonly opcode: number | undefined
  readonly wrId: bigint
  /** Undefined: unknown. */
  readonly site?: string | undefined
}

export interface InjectedFaults {
  /** Call this after each change of the rules, and once the sources can be used. */
  rulesChanged(): void
  /** The error of a post of `process`; undefined: none. Reports it as a failure. */
  onPost(posting: Posting, process: CallingProcess): ErrnoName | undefined
  /** For drivers: whether a successful completion fails. Undefined while there is no such rule. */
  readonly decideCompletion:
    | ((queuePair: CoreObject, qpn: number, completion: string, wrId: bigint) => CompletionFault | undefined)
    | undefined
}

/** The port of events of ports: devices have one. */
const PORT = 1

const causeOfRule = ({ number, text }: ActingRule): Cause => createCause('INJECTED', { rule: number, text })

/** `site`: looks the site up. */
const subjectOf = (
  { device }: Context,
  process: CallingProcess | undefined,
  site?: () => string | undefined,
): FaultSubject | undefined =>
  process && {
    device: device.name,
    pid: process.pid,
    program: () => process.name(),
    ...(site !== undefined && { site }),
  }

const isOfDevice = (event: string): boolean => (deviceEvents as readonly string[]).includes(event)

/** Whether a program in this process gets the context's events. */
const hasEventHandler = (context: Context): boolean => [...context.device.eventHandlers.values()].includes(context)

/** Raises an event for the program of a context: of `object`, the port or the device. */
const raise = (context: Context, object: CoreObject | undefined, event: string, rule: ActingRule): void => {
  if (context.isClosed || !context.device.isAlive) return
  const type = AsyncEventType.values[event as keyof typeof AsyncEventType.values]
  const cause = causeOfRule(rule)
  if (isOfDevice(event)) {
    raiseInContext(context, { type, port: event === 'DEVICE_FATAL' ? undefined : PORT }, cause)
    return
  }
  if (object === undefined) return
  raiseObjectEvent(object, type)
  reportFailure({ kind: 'event', device: context.device.name, event: type, cause }, context.device, context)
}

/** Begins to inject faults into the calls of a core's devices. */
export const injectFaults = (core: Core, faults: ProgramFaults, sources: FaultSources): InjectedFaults => {
  const removers = new Map<Device, () => void>()
  /** Faults of calls in progress that raise an event. */
  const raising = new WeakMap<CallContext, CallFault>()
  /** Contexts to which the rules for events were applied. */
  let opened = new WeakSet<Context>()

  /** Applies the rules for events to a context that can get events, once. */
  const onOpen = (context: Context): void => {
    if (opened.has(context) || (context.asyncFd === undefined && !hasEventHandler(context))) return
    opened.add(context)
    const subject = subjectOf(context, sources.processOf(context))
    if (subject === undefined) return
    for (const fault of faults.onOpen(subject))
      if (fault.delay === 0) raise(context, undefined, fault.event, fault)
      else void sources.wait(fault.delay).then(() => raise(context, undefined, fault.event, fault))
  }

  const hook: Hook = {
    delay(call) {
      const subject = subjectOf(call.context, call.caller.process, () => sources.callSite?.())
      if (subject === undefined) return undefined
      const method = `${call.entry.class.name}.${call.entry.name}`
      const fault = faults.onCall(subject, method)
      if (fault === undefined) return undefined
      if (fault.event !== '') raising.set(call, fault)
      const fail = (): void => {
        if (fault.errno !== '')
          throw new InjectedError(fault.errno, `${method}: injected by fault rule ${fault.number} (${fault.text})`)
      }
      if (fault.delay > 0) return sources.wait(fault.delay).then(fail)
      fail()
      return undefined
    },
    post(call, object, _args, _out, error) {
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
  const decideCompletion: InjectedFaults['decideCompletion'] = (queuePair, qpn, completion, wrId) => {
    const { context } = queuePair
    if (context === undefined) return undefined
    const queue = completion.startsWith('RECV') ? PostQueue.RECEIVE : PostQueue.SEND
    const subject = subjectOf(context, sources.processOf(context), () => sources.postSite?.(context, queue, qpn, wrId))
    return subject && faults.onCompletion(subject, queuePair.class.name, qpn, completion)
  }
  let unregister: (() => void) | undefined
  return {
    get decideCompletion() {
      return faults.has('completion') ? decideCompletion : undefined
    },
    onPost({ context, object, qpn, isSend, opcode, wrId, site }, process) {
      const subject = subjectOf(context, process, () => site)
      const isUnknown = isSend && opcode === undefined
      const request = isUnknown ? undefined : requestNameOf(isSend ? opcode : undefined)
      const fault = subject && faults.onPost(subject, object.class.name, qpn, request)
      if (fault === undefined) return undefined
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
      opened = new WeakSet()
      const isNeeded = faults.has('call') || faults.has('event')
      if (isNeeded && unregister === undefined) {
        const unregisterClient = registerClient(core, client)
        // rdma_cm, whose identifiers belong to no device.
        const removeHook = addHook(systemDevice(core), hook)
        unregister = () => {
          unregisterClient()
          removeHook()
        }
      } else if (!isNeeded) {
        unregister?.()
        unregister = undefined
      }
      if (faults.has('event'))
        for (const { contexts } of core.devices.values()) for (const context of contexts) onOpen(context)
    },
  }
}
