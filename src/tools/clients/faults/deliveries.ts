/*
 * Injects the faults of rules into what the device and core deliver to programs: completions, events, and pages that an
 * on-demand region reads. Notes for a survey what programs are told.
 */
import type { DecideCompletion, DecidePage } from '../../../core/driver-contract.ts'
import { addFailureHandler } from '../../../core/failures.ts'
import type { EventRecord, FdObject } from '../../../core/model.ts'
import type { NoticeFault } from '../../../faults/program-faults.ts'
import { type Failure, failureText, isNote } from '../../../spec/check/failures.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import { ClassId } from '../../../spec/classes/ids.ts'
import { AsyncEventType, CmEventType, nameIn } from '../../../spec/enums.ts'
import { COMPLETION_NOTICE, completionNameOf } from '../../../spec/faults.ts'
import { PostQueue } from '../../../spec/session.ts'
import { WcStatus } from '../../../spec/work.ts'
import { watchedRequest } from '../requests/feed.ts'
import type { Happenings } from './happenings.ts'
import { type Injection, NO_STACK, noStack, subjectOf } from './sources.ts'

/** Failures of which a program is told. It may not look at events of the device, which need not concern it. */
const TOLD: ReadonlySet<Failure['kind']> = new Set(['send', 'receive', 'post'])

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

/** Decides about completions (`DeviceTaps`). */
export const completionFaults =
  (injection: Injection, happenings: Happenings): DecideCompletion =>
  (queuePair, opcode, wrId) => {
    const { faults, sources, survey } = injection
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
    happenings.happen([context.device], subject.pid, fault)
    if (fault.status === '') return undefined
    return { ...fault, status: WcStatus.values[fault.status as keyof typeof WcStatus.values] }
  }

/** Decides about accesses to pages (`DeviceTaps`). */
export const pageFaults =
  ({ faults, sources }: Injection): DecidePage =>
  context => {
    const subject = subjectOf(context, sources.processOf(context), noStack)
    return subject && faults.onPage(subject)
  }

/** Decides about events of programs' descriptors (`Core.eventDelays`). */
export const noticeFaults =
  (injection: Injection) =>
  (fd: FdObject, event: EventRecord): NoticeFault | undefined => {
    const { faults, sources, survey } = injection
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

/** Notes what programs are told of failures. Returns the function that ends it. */
export const noteFailures = (injection: Injection): (() => void) =>
  addFailureHandler(injection.core, (failure, _device, context) => {
    const { faults, sources, survey } = injection
    const pid = context && sources.processOf(context)?.pid
    // Nobody is told of what an ended program has left.
    const isLeft = failure.cause.id === 'LOCAL_ENDED'
    if (pid === undefined || isNote(failure) || isLeft || !TOLD.has(failure.kind)) return
    const isCompletion = failure.kind === 'send' || failure.kind === 'receive'
    survey?.told(`process ${faults.processNumber(pid)}: ${failureText(failure)}`, isCompletion)
  })
