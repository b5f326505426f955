/*
 * Findings about calls with objects that the program has destroyed, and about programs that a signal ends. The preload
 * library refuses such calls, and knows the objects by their addresses. Here they are found by program, class and
 * number, and since numbers are reused, by the time of their destruction.
 */

import { requestName } from '../../../spec/check/causes.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import { VERBS_LIBRARIES } from '../../../spec/check/frames.ts'
import type { Death, UseOfGone } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { SRQ_CLASSES } from '../../../spec/classes/ids.ts'
import { QP_CLASSES } from '../../../spec/classes/qp/qp.ts'
import { AddressFault, GoneUse, ObjectKind, UNKNOWN_NUMBER } from '../../../spec/session.ts'
import { cmFunctionIn } from '../advice.ts'
import { requiredArguments, requiredParts } from '../arguments.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { hex, type KnownObject, moment } from '../objects.ts'
import type { Occurrence } from '../reporting.ts'
import { IMMEDIATES } from './immediate-byte-order.ts'
import { REFUSALS, type RefusedCreation } from './refused-call.ts'

interface Kind {
  /** The object if it is unknown, before its number if that is known. */
  readonly name: string
  /** The participle of its destruction. */
  readonly gone: string
  /** Its classes; absent: the kernel has no such object. */
  readonly classes?: readonly string[]
}

const kinds: Readonly<Record<keyof typeof ObjectKind, Kind>> = {
  CONTEXT: { name: 'a context', gone: 'closed' },
  PD: { name: 'PD', gone: 'deallocated', classes: ['pd'] },
  CQ: { name: 'CQ', gone: 'destroyed', classes: ['cq'] },
  QP: { name: 'QP', gone: 'destroyed', classes: QP_CLASSES },
  MR: { name: 'MR', gone: 'deregistered', classes: ['mr'] },
  MW: { name: 'MW', gone: 'deallocated', classes: ['mw'] },
  AH: { name: 'AH', gone: 'destroyed', classes: ['ah'] },
  SRQ: { name: 'SRQ', gone: 'destroyed', classes: SRQ_CLASSES },
  XRCD: { name: 'an XRC domain', gone: 'closed', classes: ['xrcd'] },
  CHANNEL: { name: 'a completion channel', gone: 'destroyed', classes: ['comp_channel'] },
  WQ: { name: 'a work queue', gone: 'destroyed', classes: ['wq'] },
  WQ_TABLE: { name: 'a table of work queues', gone: 'destroyed', classes: ['rwq_ind_table'] },
  FLOW: { name: 'a flow', gone: 'destroyed', classes: ['flow'] },
  COUNTERS: { name: 'counters', gone: 'destroyed', classes: ['counters'] },
  DM: { name: 'device memory', gone: 'freed', classes: ['dm'] },
  TD: { name: 'a thread domain', gone: 'deallocated' },
  CM_ID: { name: 'an identifier of rdma_cm', gone: 'destroyed', classes: ['cm_id'] },
  // The device's history of one has no stacks.
  CM_CHANNEL: { name: 'an event channel of rdma_cm', gone: 'destroyed' },
  CM_EVENT: { name: 'an event of rdma_cm', gone: 'acknowledged' },
  DEVICES: { name: 'a list of devices', gone: 'freed' },
}

const kindNumbered = new Map<number, Kind>(
  Object.entries(kinds).map(([name, kind]) => [ObjectKind[name as keyof typeof ObjectKind], kind]),
)

/** Functions of the libraries have no other characters. The program sends the name. */
const FUNCTION_NAME = /^[a-z0-9_]+$/

const nameOf = (kind: Kind, { number }: UseOfGone, known: KnownObject | undefined): string => {
  if (known !== undefined) return known.name
  if (number === UNKNOWN_NUMBER || kind.name.includes(' ')) return kind.name
  return kind.name === 'QP' ? `QP 0x${number.toString(16)}` : `${kind.name} ${number}`
}

/** An occurrence of the program, on the device of `known`. */
const occurrenceOf = (
  services: DetectorServices,
  { time, program, stack }: Pick<UseOfGone, 'time' | 'program' | 'stack'>,
  known: KnownObject | undefined,
  action: string,
): Occurrence => ({
  time,
  device: known === undefined ? '' : services.sources.deviceName(known.device),
  context: known?.context ?? 0,
  program,
  stack,
  action,
})

const pointerText = (value: bigint): string => (value === 0n ? 'NULL' : hex(value))

const argumentOf = ({ name }: Kind): string => (name.includes(' ') ? name : `its ${name}`)
const articleOf = (name: string): string => (name.includes(' ') ? name : `${/^[AMS]/.test(name) ? 'an' : 'a'} ${name}`)

/** An argument that is no object, or a part of one, is NULL or no address. */
const reportArgument = (services: DetectorServices, used: UseOfGone): void => {
  if (!FUNCTION_NAME.test(used.function)) return
  const name = requiredArguments[used.function]?.[used.kind]
  const part = requiredParts[used.function]?.[used.kind]
  if (name === undefined && part === undefined) return
  services.report('refused-call', occurrenceOf(services, used, undefined, 'called'), {
    severity: part?.severity ?? 'error',
    text: `${used.function} is called with ${part?.isNumber ? BigInt.asIntN(64, used.value) : pointerText(used.value)} for ${part?.name ?? `its argument ${used.kind}, ${name}`}: ${part?.consequence ?? 'without the checker it crashes'}`,
    advice: part?.advice ?? 'pass the address of a variable, and check results before they are passed on',
  })
}

const reportGone = (services: DetectorServices, used: UseOfGone): void => {
  const { use, isOwner, destroyedAt, destroyedStack, program } = used
  if (use === GoneUse.ARGUMENT) {
    reportArgument(services, used)
    return
  }
  const kind = kindNumbered.get(used.kind)
  if (kind === undefined || !FUNCTION_NAME.test(used.function)) return
  if (use === GoneUse.GARBAGE) {
    const other = kindNumbered.get(used.number)?.name
    services.report('refused-call', occurrenceOf(services, used, undefined, 'called'), {
      severity: 'error',
      text: `${used.function} is called with ${pointerText(used.value)} for ${argumentOf(kind)}: ${
        other !== undefined
          ? `there is ${articleOf(other)}`
          : isOwner
            ? 'there is memory, but no such object'
            : 'there is no memory'
      }; without the checker it crashes, or changes what is there`,
      advice: 'look where the variable was set: it may never have been, or its memory was overwritten or freed',
    })
    return
  }
  const { classes = [] } = kind
  const number = used.number === UNKNOWN_NUMBER ? undefined : used.number
  const known =
    use === GoneUse.CONCURRENT || use === GoneUse.FOREIGN || isOwner
      ? (services.objects.existingOf(program, classes, number) ??
        services.objects.destroyedOf(program, classes, number, destroyedAt))
      : services.objects.destroyedOf(program, classes, number, destroyedAt)
  const name = nameOf(kind, used, known)
  if (use === GoneUse.NOTHING || use === GoneUse.FOREIGN) {
    const cmFunction = cmFunctionIn(used.stack)
    services.report('refused-call', occurrenceOf(services, used, known, 'called'), {
      severity: 'error',
      text:
        use === GoneUse.NOTHING
          ? `${cmFunction === undefined ? `${used.function} is called` : `${cmFunction} calls ${used.function}`} with NULL for ${argumentOf(kind)}`
          : `${used.function} on ${nameOf(kind, used, known)}, which is of another device context (ibv_open_device) than the first object of the call`,
      advice:
        use === GoneUse.NOTHING
          ? 'check the result of the call that creates the object, and that the variable is set before'
          : 'open the device once, or create all objects that are used together from the same context',
      objects: [known],
    })
    return
  }
  const isDouble = use === GoneUse.DESTROY && !isOwner
  const what =
    use === GoneUse.CONCURRENT
      ? 'which another thread destroys at the same time'
      : isOwner
        ? used.kind === ObjectKind.CM_ID
          ? 'whose event channel was destroyed (rdma_destroy_event_channel)'
          : 'whose device was closed'
        : `which was ${kind.gone}${isDouble ? ' already' : ''}`
  const isInHistory = known?.destruction !== undefined && !isOwner
  services.report(isDouble ? 'double-destroy' : 'use-after-destroy', occurrenceOf(services, used, known, 'called'), {
    text: `${used.function} on ${name}, ${what}`,
    moments:
      isInHistory || destroyedStack.length === 0
        ? []
        : [moment(isOwner ? 'closed' : kind.gone, destroyedAt, destroyedStack)],
    objects: [known],
  })
}

/** The function of verbs that the program has called; undefined: none. */
const verbsIn = (stack: Stack): string | undefined => {
  const found = stack.map(frame => VERBS_LIBRARIES.exec(frame)).filter(match => match !== null)
  return found.length === 0 ? undefined : (found.findLast(([, symbol]) => symbol)?.[1] ?? 'a function of verbs')
}

/** What the program has accessed, as the end of a sentence. */
const accessText = ({ fault = AddressFault.NONE, address = 0n }: Death): string => {
  switch (fault) {
    case AddressFault.UNMAPPED:
      return `, at an access to 0x${address.toString(16)}, where no memory is`
    case AddressFault.PROTECTED:
      return `, at an access to 0x${address.toString(16)}, which its memory does not allow`
    case AddressFault.WIDE:
      return ', at an access to an address that no program has: the pointer is no address'
    default:
      return ''
  }
}

/** Members of structs of libibverbs that programs read, by class of the object and offset (64-bit). */
const members: Readonly<Record<string, Readonly<Record<number, string>>>> = {
  mr: { 32: 'handle', 36: 'lkey', 40: 'rkey' },
  qp: { 52: 'qp_num', 56: 'state' },
}

/** The member of the NULL of a refused call that a program has read when it died; undefined: it was something else. */
const memberOfNull = (refused: RefusedCreation | undefined, { fault, address }: Death): string | undefined =>
  refused === undefined || fault !== AddressFault.UNMAPPED ? undefined : members[refused.class]?.[Number(address)]

/** A request whose completion has come; of a receive, with the message. */
type Completed = { readonly request: WorkRequest; readonly message: WorkRequest | undefined } | undefined

/** The requests of all programs that are kept, of which the completions have come last. */
const MAX_COMPLETED = 64

/** Behind a wr_id that is a pointer, so many bytes are of its object; below, it is none. */
const OBJECT_BYTES = 4096n
const LEAST_POINTER = 65_536n

/** A line if a program died at the latest wr_id that looks so, as if it were a pointer. */
const atWrId = (
  { objects }: DetectorServices,
  completed: readonly Completed[],
  { fault, address = 0n, program }: Death,
): { readonly request: WorkRequest; readonly line: string } | undefined => {
  if (fault !== AddressFault.UNMAPPED && fault !== AddressFault.PROTECTED) return undefined
  const isAt = (start: bigint): boolean => start >= LEAST_POINTER && address >= start && address < start + OBJECT_BYTES
  const isOf = ({ owner, wrId, numbered }: WorkRequest): boolean =>
    numbered === undefined &&
    (isAt(wrId) || isAt(BigInt.asUintN(32, wrId))) &&
    objects.find(owner)?.program?.pid === program?.pid
  const { request } = completed.findLast(one => one !== undefined && isOf(one.request)) ?? {}
  if (request === undefined) return undefined
  const { wrId, opcode } = request
  const what = `${opcode < 0 ? 'a receive' : requestName(opcode)}, whose completion had come`
  const behind = address - wrId
  const line = !isAt(wrId)
    ? `${hex(address)} has the lower 32 bits of ${hex(wrId)}, the wr_id of ${what}: it was cut to 32 bits`
    : `${hex(address)} is ${behind === 0n ? '' : `${behind} bytes behind `}the wr_id of ${what}${wrId >> 32n === 0n ? ': a pointer that was cut to 32 bits, if it was one' : ''}`
  return { request, line }
}

/**
 * The finding that explains a death at a wild address: the last message that the program got had immediate data in the
 * order of the host. A small address is none of an array that such a number has an element of.
 */
const byImmediate = (services: DetectorServices, completed: readonly Completed[], death: Death): number | undefined => {
  const { fault = AddressFault.NONE, address = 0n, program, signal, stack, time } = death
  if (fault === AddressFault.NONE || (fault !== AddressFault.WIDE && address < LEAST_POINTER)) return undefined
  const isOf = (one: Completed): boolean =>
    one !== undefined &&
    one.request.opcode < 0 &&
    services.objects.find(one.request.owner)?.program?.pid === program?.pid
  const { message } = completed.findLast(isOf) ?? {}
  const sender = message && services.objects.find(message.owner)
  if (sender === undefined) return undefined
  return services.need(IMMEDIATES).explains(sender, {
    text: `the receiver, process ${program?.pid} (${program?.command}), died of ${signal}${accessText(death)}, after such a message`,
    moments: [moment('the receiver died', time, stack)],
  })
}

const WR_ID_ADVICE =
  'convert a pointer to wr_id and back by uintptr_t, keep it in 64 bits, and free its object after the poll'

/** `refused`: the last creation of the program that was refused, unless a later one of the class succeeded. */
const reportDeath = (
  services: DetectorServices,
  death: Death,
  refused: RefusedCreation | undefined,
  completed: readonly Completed[],
): void => {
  const { signal, isInOurs, lastCall = '', stack, time, pollStack = [] } = death
  const member = memberOfNull(refused, death)
  if (refused !== undefined && member !== undefined) {
    services.report('program-died', occurrenceOf(services, death, undefined, 'ended'), {
      text: `died of ${signal}${accessText(death)}: ${member} of the ibv_${refused.class} that a refused call has returned, NULL (${refused.text})`,
      moments: [moment('refused', refused.time, refused.stack)],
      advice: `check the result of the call that was refused before ${member} is read`,
    })
    return
  }
  const called = FUNCTION_NAME.test(lastCall) ? lastCall : 'a function of verbs'
  const verbs = verbsIn(stack) ?? (isInOurs ? called : undefined)
  const place = verbs === undefined ? '' : ` in ${verbs}`
  const last =
    stack.length < 2 && FUNCTION_NAME.test(lastCall) ? `; its thread's last call of verbs was ${lastCall}` : ''
  const pointer = atWrId(services, completed, death)
  const advice =
    pointer !== undefined
      ? WR_ID_ADVICE
      : verbs &&
        `look at the arguments of ${verbs}, and at the findings before; some functions of verbs, such as ibv_post_send, are inline: compile with -g to see them in the stack`
  const follows = verbs === undefined && pointer === undefined ? byImmediate(services, completed, death) : undefined
  const number = services.report('program-died', occurrenceOf(services, death, undefined, 'ended'), {
    follows,
    text: `died of ${signal}${place}${accessText(death)}${last}`,
    ...(verbs === undefined && pointer === undefined && { severity: 'warning' }),
    ...(advice !== undefined && { advice }),
    ...(pointer && {
      details: [pointer.line],
      moments: [moment('polled', time, pollStack), services.postMoment(pointer.request)],
    }),
  })
  if (verbs !== undefined || pointer !== undefined || follows !== undefined)
    services.consequences.explainsDeath(death.program?.pid, follows ?? number)
}

export const createGoneDetector = (services: DetectorServices): Detector => {
  /** A ring of the latest: each completion passes here. */
  const requests: (WorkRequest | undefined)[] = new Array(MAX_COMPLETED).fill(undefined)
  const messages: (WorkRequest | undefined)[] = new Array(MAX_COMPLETED).fill(undefined)
  let next = 0
  return {
    on: {
      completed(request, { message }) {
        requests[next] = request
        messages[next] = message
        next = (next + 1) % MAX_COMPLETED
      },
      usedGone: use => reportGone(services, use),
      died(death) {
        const refused = services.need(REFUSALS).creationOf(death.program?.pid)
        const completed = requests.map((request, i): Completed => request && { request, message: messages[i] })
        reportDeath(services, death, refused, [...completed.slice(next), ...completed.slice(0, next)])
      },
    },
  }
}
