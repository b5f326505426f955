/*
 * Calls that were refused: by the device, or by libibverbs, a provider or librdmacm without a call of the device, for
 * the reasons in tools/check/library-refusals.ts.
 */

import type { Stack } from '../../../spec/check/finding.ts'
import type { CheckedCall, LibraryRefusal } from '../../../spec/check/program-events.ts'
import type { Severity } from '../../../spec/check/severity.ts'
import { isQueuePairClass } from '../../../spec/classes/ids.ts'
import { Errno, errnoName } from '../../../spec/errno.ts'
import type { Reason } from '../../../spec/reason.ts'
import {
  ADVICE_FOR_ATTACHED,
  ADVICE_FOR_ROUTE,
  adviceForBusy,
  adviceForCm,
  adviceForUnsupported,
  cmFunctionIn,
} from '../advice.ts'
import { adviceForRefusal, cFunctionOf, inC } from '../c-words.ts'
import type { Detector, DetectorServices, RefusedCall, Topic } from '../detector.ts'
import { refusalReason } from '../library-refusals.ts'
import { isVerbsClass, type KnownObject, type KnownObjects, participles, type QpAttributes } from '../objects.ts'
import { type FindingContent, MAX_NAMED } from '../reporting.ts'
import { overtakenContent } from './cm-ids.ts'
import { IGNORED_EVENTS } from './event-ignored.ts'
import { OUTAGES } from './outages.ts'

/** Functions of the two libraries; the name comes from the program. */
const FUNCTION_NAME = /^(ibv|rdma)_[a-z0-9_]+$/

/** Functions of the C library whose refusal is told when the program uses the descriptor that it has not got. */
const OPENING: readonly string[] = ['open', 'socket']

/** The content of `destroy-busy` for an object of a class that other objects use. */
const busyContent = (class_: string, destroyed: string, known: KnownObject | undefined): FindingContent => {
  const users = [...(known?.users ?? [])]
  const names = users.slice(0, MAX_NAMED).map(({ name }) => name)
  const more = users.length > MAX_NAMED ? ` and ${users.length - MAX_NAMED} more` : ''
  const [group] = known?.groups ?? []
  const use =
    users.length > 0 ? `used by ${names.join(', ')}${more}` : group ? `attached to multicast group ${group}` : 'in use'
  const text = `${known?.name ?? class_} cannot be ${destroyed}, it is ${use} (EBUSY)`
  const advice = users.length === 0 && group ? ADVICE_FOR_ATTACHED : adviceForBusy(users)
  return { text, advice, objects: [known, ...users] }
}

const objectOf = (
  { object, context, deviceNumber, program }: LibraryRefusal,
  class_: string | undefined,
  objects: KnownObjects,
): KnownObject | undefined => {
  if (class_ === 'cm_id') return objects.cmIdOfProgram(program, object)
  if (class_ === undefined || context === undefined) return undefined
  const found =
    class_ === 'qp' ? objects.qp(deviceNumber, Number(object)) : objects.byHandle(context, class_, Number(object))
  return found?.destruction === undefined ? found : undefined
}

/** Whether an errno may mean wrong arguments, not a limit, a missing right or an unsupported feature. */
const isArgumentError = (errno: number): boolean => errno === Errno.EINVAL || errno === Errno.ENODATA

/** Whether the system has no route to the address of a call. */
const isWithoutRoute = (errno: number): boolean => errno === Errno.ENETUNREACH || errno === Errno.EHOSTUNREACH

/** The severity of a refused call; undefined: no finding. Programs try features that a device may lack (EOPNOTSUPP). */
const severityOf = (class_: string, errno: number, { code }: Reason): Severity | undefined => {
  if (code === 'lock-limit') return 'warning'
  if (!isVerbsClass(class_)) return undefined
  // A program may try how many it gets, and go on with these.
  if (code === 'budget') return 'note'
  if (errno === Errno.EOPNOTSUPP) return 'note'
  const isOfMemory = errno === Errno.EFAULT && class_ === 'mr'
  if (!isArgumentError(errno) && !isOfMemory && !isWithoutRoute(errno)) return undefined
  return code === 'unknown-limit' ? 'note' : 'warning'
}

const inCmWords = (cmFunction: string | undefined): string =>
  cmFunction === undefined ? '' : `${cmFunction} fails, in a call that librdmacm makes for it: `

/** Programs whose last refused creation is known. */
const MAX_PROGRAMS = 1024

/** A refused call that would have created an object: what it returned, NULL, may be used. */
export interface RefusedCreation {
  readonly class: string
  readonly time: number
  readonly stack: Stack
  /** The errno, and why. */
  readonly text: string
}

interface Refusals {
  /** The last creation of a program that was refused, unless a later one of the class succeeded. */
  creationOf(pid: number | undefined): RefusedCreation | undefined
}
export const REFUSALS: Topic<Refusals> = { name: 'refusals' }

export const createRefusalDetector = (services: DetectorServices): Detector => {
  const { objects } = services
  /** By pid. */
  const creations = new Map<number, RefusedCreation>()
  services.tell(REFUSALS, {
    creationOf: (pid = -1) => creations.get(pid),
  })
  const whoLeft = (device: number, index: number): string | undefined => services.need(OUTAGES).whoLeft(device, index)
  const isGone = (context = -1): boolean => services.need(IGNORED_EVENTS).isGone(context)

  const goesOn = ({ method, program, refused }: CheckedCall): void => {
    if (method === 'modify' && refused === undefined) services.consequences.goesOn(program?.pid)
  }

  const refusedCall = (call: RefusedCall, known: KnownObject | undefined): void => {
    const { method, isLibrary, program, args, refused } = call
    const { errno, reason } = refused
    const pid = program?.pid
    if (method === 'create' && pid !== undefined && creations.size < MAX_PROGRAMS)
      creations.set(pid, {
        ...{ class: isQueuePairClass(call.class) ? 'qp' : call.class, time: call.time, stack: call.stack },
        text: `${errnoName(errno)}: ${isLibrary === true ? reason.text() : inC(reason)}`,
      })
    const severity = severityOf(call.class, errno, reason)
    if (severity === undefined) return
    const isMade = method === 'create' || method === 'modify'
    const sentence = isLibrary === true || program === undefined ? reason.text() : inC(reason)
    const cmFunction = isLibrary === true ? undefined : cmFunctionIn(call.stack)
    const advice =
      (reason.code === 'lock-limit' ? undefined : adviceForCm(cmFunction)) ??
      adviceForRefusal(reason) ??
      (isWithoutRoute(errno) ? ADVICE_FOR_ROUTE : undefined) ??
      (isMade ? adviceForUnsupported(call.class, errno) : undefined)
    const text = `${errnoName(errno)}: ${inCmWords(cmFunction)}${sentence}`
    const { address } = args as QpAttributes
    const left = errno === Errno.ENODATA && address && whoLeft(call.deviceNumber, address.sgidIndex)
    if (left && services.need(IGNORED_EVENTS).refusedIndex(call, known, left)) return
    const details = left ? [left] : []
    const number = services.report('refused-call', call, { text, advice, severity, details, objects: [known] })
    if (isMade && (severity !== 'note' || reason.code === 'budget')) services.consequences.givesUp(pid, number)
  }

  /** A call that a library refused without a call of the device. */
  const refusedByLibrary = (refusal: LibraryRefusal): void => {
    const { errno, facts, program, stack, time } = refusal
    // What uses the object can't be destroyed any more.
    if (errno === Errno.EBUSY && isGone(refusal.context)) return
    // The function that the macro ibv_query_gid_ex calls begins with an underscore.
    const name = refusal.function.replace(/^_/, '')
    const isOfProgram = errno === Errno.EMFILE && OPENING.includes(name)
    if (!isOfProgram && !FUNCTION_NAME.test(name)) return
    const { reason, advice, severity, object: class_ } = refusalReason(name, errno, facts)
    // An event says why a call of an identifier without a channel has failed; of others nothing is known.
    if (reason === undefined) return
    const known = objectOf(refusal, class_, objects)
    const { device, context = -1 } = known
      ? { device: known.deviceName, context: known.context }
      : { device: refusal.device, ...(refusal.context !== undefined && { context: refusal.context }) }
    const occurrence = { time, device, context, program, stack }
    if (class_ === 'comp_channel' && errno === Errno.EBUSY) {
      services.report('destroy-busy', occurrence, { ...busyContent('the channel', 'destroyed', known), advice })
      return
    }
    const on = known === undefined ? '' : ` on ${known.name}`
    const text = `${isOfProgram ? `descriptor -1 is used: ` : ''}${name}${on}: ${errnoName(errno)}: ${reason}`
    const left =
      name === 'ibv_query_gid_ex' && errno === Errno.ENODATA && whoLeft(refusal.deviceNumber, Number(facts[1] ?? -1n))
    const details = left ? [left] : []
    const content = { text, advice, severity, details, objects: [known], ...overtakenContent(services, known) }
    const number = services.report('refused-call', occurrence, content)
    if (errno === Errno.EMFILE) services.consequences.givesUp(program?.pid, number)
  }

  return {
    on: {
      created({ program }, known) {
        const pid = program?.pid ?? -1
        services.consequences.goesOn(pid)
        if (creations.get(pid)?.class === (known.isQp ? 'qp' : known.class)) creations.delete(pid)
      },
      called: goesOn,
      asked: goesOn,
      refused(call, known) {
        if (call.method !== 'destroy' || call.refused.errno !== Errno.EBUSY) refusedCall(call, known)
        else if (!isGone(call.context))
          services.report('destroy-busy', call, busyContent(call.class, participles(call.class).destroyed, known))
      },
      refusedByLibrary,
      /** Linux's call was refused before it became a call of a method, since it has none or could not be decoded. */
      refusedAttempt({ attempt, errno, reason, ...occurrence }) {
        if (!isArgumentError(errno)) return
        const sentence = inC(reason)
        // The sentence names the function, or the call as it was attempted.
        const cmFunction = cmFunctionIn(occurrence.stack)
        const text =
          cFunctionOf(reason) === undefined
            ? `${attempt}: ${errnoName(errno)}: ${sentence}`
            : `${errnoName(errno)}: ${inCmWords(cmFunction)}${sentence}`
        const advice = adviceForCm(cmFunction) ?? adviceForRefusal(reason)
        services.report('refused-call', occurrence, { text, advice })
      },
    },
  }
}
