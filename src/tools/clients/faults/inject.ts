/*
 * Injects the faults of rules for programs (faults/program-faults.ts): into calls (calls.ts), into completions, events
 * and accesses to pages (deliveries.ts), and posts, which are decided here for the carriers. While no such rule exists,
 * there is no hook or tap.
 */
import { registerClient } from '../../../core/devices/clients.ts'
import { addHook } from '../../../core/devices/registry.ts'
import { systemDevice } from '../../../core/devices/system.ts'
import type { DeviceTaps } from '../../../core/driver-contract.ts'
import { reportFailure } from '../../../core/failures.ts'
import type { CallingProcess, Context, Core, CoreObject, Device } from '../../../core/model.ts'
import type { PostDetails, ProgramFaults } from '../../../faults/program-faults.ts'
import { createSurvey, type Survey } from '../../../faults/survey.ts'
import { causeOfRule } from '../../../spec/check/causes.ts'
import type { Failure } from '../../../spec/check/failures.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import { Errno, type ErrnoName } from '../../../spec/errno.ts'
import { requestNameOf } from '../../../spec/faults.ts'
import { CallFaults } from './calls.ts'
import { completionFaults, noteFailures, noticeFaults, pageFaults } from './deliveries.ts'
import { Happenings } from './happenings.ts'
import { Outages } from './outages.ts'
import { type FaultSources, type Injection, NO_STACK, subjectOf } from './sources.ts'

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
  /**
   * Takes the link of a device down or up. `milliseconds`: down for so long. Up: also before the times of rules are
   * over.
   */
  setLink(device: Device, isUp: boolean, milliseconds?: number): void
  /** The error of a post of `process`; undefined: none. Reports it as a failure. */
  onPost(posting: Posting, process: CallingProcess): ErrnoName | undefined
  /** Fulfilled when what rules let happen to devices now has happened. */
  untilHappened(): Promise<void>
  /**
   * A program has ended its rules: links and cables that they took down are up again, and managers there. `scope`: see
   * `ActingRule`.
   */
  endOutages(scope: object): void
  /** Whether each post must be announced by `onPost`. */
  readonly hasPosts: boolean
  /** Whether rules see calls. */
  readonly hasCalls: boolean
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

/** The error of a post; undefined: none. */
const failPost = ({ faults, survey }: Injection, posting: Posting, process: CallingProcess): ErrnoName | undefined => {
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
}

/** Begins to inject faults into the calls of a core's devices. */
export const injectFaults = (core: Core, faults: ProgramFaults, sources: FaultSources): InjectedFaults => {
  const injection: Injection = { core, faults, sources, survey: undefined }
  const outages = new Outages(core, sources)
  const happenings = new Happenings(outages, sources)
  const calls = new CallFaults(injection, happenings)

  const hookCalls = whileNeeded(() => {
    const removers = new Map<Device, () => void>()
    const unregister = registerClient(core, {
      name: 'faults',
      add(device) {
        removers.set(device, addHook(device, calls))
        return true
      },
      remove(device) {
        removers.get(device)?.()
        removers.delete(device)
      },
    })
    // rdma_cm, whose identifiers belong to no device.
    const removeHook = addHook(systemDevice(core), calls)
    return () => {
      unregister()
      removeHook()
    }
  })
  /** Sets a tap of each device. */
  const tapDevices = (name: string, deciders: Partial<Pick<DeviceTaps, 'decideCompletion' | 'decidePage'>>) =>
    whileNeeded(() =>
      registerClient(core, {
        name,
        add({ taps }) {
          Object.assign(taps, deciders)
          return true
        },
        remove({ taps }) {
          for (const decider of Object.keys(deciders) as (keyof typeof deciders)[]) taps[decider] = undefined
        },
      }),
    )
  const tapCompletions = tapDevices('faults of completions', {
    decideCompletion: completionFaults(injection, happenings),
  })
  const tapPages = tapDevices('faults of pages', { decidePage: pageFaults(injection) })
  const tapEvents = whileNeeded(() => {
    core.eventDelays = { decide: noticeFaults(injection), wait: sources.wait }
    return () => {
      core.eventDelays = undefined
    }
  })
  const tapFailures = whileNeeded(() => noteFailures(injection))

  return {
    untilHappened: () => happenings.done,
    endOutages: scope => outages.endScope(scope),
    beginSurvey() {
      injection.survey = createSurvey(faults, sources.now)
    },
    get survey() {
      return injection.survey
    },
    setLink: (device, isUp, milliseconds) => outages.setLink(device, isUp, milliseconds),
    get hasPosts() {
      return injection.survey !== undefined || faults.has('post')
    },
    get hasCalls() {
      return injection.survey !== undefined || faults.has('call') || faults.has('event')
    },
    onPost: (posting, process) => failPost(injection, posting, process),
    rulesChanged() {
      const isSurveyed = injection.survey !== undefined
      hookCalls(this.hasCalls)
      tapCompletions(isSurveyed || faults.has('completion'))
      tapPages(faults.has('page'))
      tapEvents(isSurveyed || faults.has('notice'))
      tapFailures(isSurveyed)
      if (faults.has('event'))
        for (const { contexts } of core.devices.values()) for (const context of contexts) calls.onOpen(context)
    },
  }
}
