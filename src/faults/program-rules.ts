/*
 * Fault rules for programs: which calls, completions and events a rule can act on, and the refusal of what no adapter
 * could do (spec/faults.ts). A rule acts only where its effect is possible: `*.create` with EMFILE acts on descriptors
 * only. A rule whose effect is possible nowhere is refused.
 */

import { SRQ_CLASSES } from '../spec/classes/ids.ts'
import {
  completionNames,
  connectionEventNames,
  connectionEventsOf,
  deviceEvents,
  errnosOf,
  type FaultTarget,
  isRepeatable,
  objectEventsOf,
  postErrnos,
  queuePairClasses,
  statusesOf,
} from '../spec/faults.ts'
import { calledClasses } from '../spec/methods.ts'
import { type FaultRule, happens } from './rule.ts'

interface KnownMethod {
  /** `class.method`. */
  readonly name: string
  readonly class: string
  readonly errnos: readonly string[]
}

const methods: readonly KnownMethod[] = calledClasses.flatMap(cls =>
  Object.keys(cls.methods).map(method => ({
    name: `${cls.name}.${method}`,
    class: cls.name,
    errnos: errnosOf(cls, method),
  })),
)
const methodsByName: ReadonlyMap<string, KnownMethod> = new Map(methods.map(known => [known.name, known]))

/** Queues that programs post to. */
const QUEUE_CLASSES: readonly string[] = [...queuePairClasses, ...SRQ_CLASSES]

/** The methods that a pattern such as `mr.*` names. */
const methodsOfPattern = (pattern: string): readonly KnownMethod[] => {
  const exact = methodsByName.get(pattern)
  if (exact !== undefined) return [exact]
  if (!/^[\w*]+\.[\w*]+$/.test(pattern)) return []
  // `**` is as `*`: several `.*` in a row would backtrack for exponential time.
  const expression = new RegExp(`^${pattern.replaceAll('.', '\\.').replaceAll(/\*+/g, '\\w*')}$`)
  return methods.filter(({ name }) => expression.test(name))
}

/** The errors that a rule may inject into a method (`class.method`); none if there is no such method. */
export const methodErrnos = (name: string): readonly string[] => methodsByName.get(name)?.errnos ?? []

export const isCallPattern = (pattern: string): boolean => methodsOfPattern(pattern).length > 0
export const isClassName = (name: string): boolean => calledClasses.some(cls => cls.name === name)

const objectEvents: readonly string[] = [
  ...calledClasses.flatMap(({ name }) => objectEventsOf(name)),
  ...connectionEventNames,
]
const isDeviceEvent = (event: string): boolean => (deviceEvents as readonly string[]).includes(event)
export const isEventName = (name: string): boolean => isDeviceEvent(name) || objectEvents.includes(name)

const isSelected = (rule: FaultRule, cls: string): boolean => rule.class.length === 0 || rule.class.includes(cls)

/** The events of the object of a call. */
const eventsOf = ({ name, class: cls }: KnownMethod): readonly string[] => [
  ...objectEventsOf(cls),
  ...connectionEventsOf(name),
]

const canRaise = (event: string, known: KnownMethod): boolean =>
  event === '' || isDeviceEvent(event) || eventsOf(known).includes(event)

/** The methods that the selectors of a rule for calls name. */
const selectedMethods = (rule: FaultRule): readonly KnownMethod[] =>
  rule.call.flatMap(methodsOfPattern).filter(known => isSelected(rule, known.class))

/** The methods on which a rule for calls acts, as `class.method`. */
export const methodsOfRule = (rule: FaultRule): ReadonlySet<string> =>
  new Set(
    selectedMethods(rule)
      .filter(known => (rule.errno === '' || known.errnos.includes(rule.errno)) && canRaise(rule.event, known))
      .map(({ name }) => name),
  )

interface KnownCompletion {
  readonly class: string
  readonly completion: string
  readonly statuses: readonly string[]
}

/** The completions that the selectors of a rule for completions name. */
const selectedCompletions = (rule: FaultRule): readonly KnownCompletion[] =>
  queuePairClasses
    .filter(cls => isSelected(rule, cls))
    .flatMap(cls =>
      completionNames
        .filter(name => rule.completion.includes('*') || rule.completion.includes(name))
        .map(completion => ({ class: cls, completion, statuses: statusesOf(cls, completion) })),
    )
    .filter(({ statuses }) => statuses.length > 0)

/** The completions on which a rule for completions acts, as `class completion`. */
export const completionsOfRule = (rule: FaultRule): ReadonlySet<string> =>
  new Set(
    selectedCompletions(rule)
      .filter(({ statuses }) => rule.status === '' || statuses.includes(rule.status))
      .map(known => `${known.class} ${known.completion}`),
  )

const HAPPENING_TEXT = 'link, gid, cable, router, manager, gone, fatal, signal, stop'

const listText = (values: Iterable<string>): string => [...new Set(values)].join(', ')

const checkCall = (text: string, rule: FaultRule): void => {
  const { call, errno, event, delay } = rule
  const selected = selectedMethods(rule)
  if (selected.length === 0)
    throw new Error(`fault "${text}": ${call.join('+')} is no method of ${rule.class.join('+')}; leave out class`)
  if (errno === '' && event === '' && delay === 0 && !happens(rule))
    throw new Error(`fault "${text}": the rule has no effect; add one of errno, event, delay, ${HAPPENING_TEXT}`)
  if (errno !== '' && event !== '')
    throw new Error(`fault "${text}": a call that fails raises no event; leave out errno or event`)
  if (errno !== '' && !selected.some(({ errnos }) => errnos.includes(errno)))
    throw new Error(
      `fault errno: ${errno} is no error of ${call.join('+')}; allowed are ${listText(selected.flatMap(({ errnos }) => errnos))}`,
    )
  if (!selected.some(known => canRaise(event, known)))
    throw new Error(
      `fault event: ${event} is no event of an object of ${call.join('+')}; allowed are ${listText([...selected.flatMap(eventsOf), ...deviceEvents])}`,
    )
}

const checkPost = ({ post, class: selected }: FaultRule): void => {
  if (!(postErrnos as readonly string[]).includes(post))
    throw new Error(`fault post: ${post} is no error of a post; allowed are ${postErrnos.join(', ')}`)
  const other = selected.find(cls => !QUEUE_CLASSES.includes(cls))
  if (other !== undefined)
    throw new Error(`fault class: nothing is posted to a ${other}; allowed are ${QUEUE_CLASSES.join(', ')}`)
}

const checkCompletion = (text: string, rule: FaultRule): void => {
  const { completion, status } = rule
  if (status === '' && !happens(rule))
    throw new Error(
      `fault "${text}": the rule has no effect; add status, as status=RETRY_EXC_ERR, or ${HAPPENING_TEXT}`,
    )
  const selected = selectedCompletions(rule)
  const where = rule.class.length === 0 ? '' : ` on ${rule.class.join('+')}`
  if (selected.length === 0)
    throw new Error(
      `fault completion: there is no ${completion.join('+')}${where}; queue pairs are ${queuePairClasses.join(', ')}`,
    )
  if (status !== '' && !selected.some(({ statuses }) => statuses.includes(status)))
    throw new Error(
      `fault status: ${status} is no status of ${completion.join('+')}${where}; allowed are ${listText(selected.flatMap(({ statuses }) => statuses))}`,
    )
}

const checkNotice = (text: string, { notice, delay, again, turn }: FaultRule): void => {
  if (delay === 0 && again === 0 && turn === 0)
    throw new Error(`fault "${text}": the rule has no effect; add delay, as delay=100ms, again or turn`)
  const once = notice.find(name => name !== '*' && !isRepeatable(name))
  if (again > 0 && once !== undefined)
    throw new Error(`fault again: ${once} is an event of rdma_cm, which comes once; leave out again`)
}

/** Throws an Error with the setting, its value and what is allowed. `text`: the rule. */
export const checkProgramRule = (text: string, rule: FaultRule, target: FaultTarget): void => {
  if (rule.router !== '' && rule.router.lasts === undefined)
    throw new Error(
      `fault "${text}": router=${rule.router.name} selects packets, and this rule is for ${target}s; add a time, as router=${rule.router.name}:3s`,
    )
  if (rule.per === 'flow')
    throw new Error(`fault "${text}": flows are of packets; allowed for ${target}s are per=device, per=qp`)
  if (target === 'call') checkCall(text, rule)
  else if (target === 'post') checkPost(rule)
  else if (target === 'completion') checkCompletion(text, rule)
  else if (target === 'notice') checkNotice(text, rule)
  else if (target === 'event' && rule.event !== '' && !isDeviceEvent(rule.event))
    throw new Error(
      `fault event: ${rule.event} is an event of an object; name the call after which it comes, as ${connectionEventNames.includes(rule.event) ? 'call=cm_id.connect' : 'call=rc_qp.modify'}, or one of ${deviceEvents.join(', ')}`,
    )
}
