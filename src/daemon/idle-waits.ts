/*
 * What a program waits for of which no rule knows a reason: the requests and completions of its queues, of any driver.
 */
import type { ContextWait, QueuePairObject, RequestReader } from '../core/driver-contract.ts'
import type { Context, CoreObject } from '../core/model.ts'
import { counted } from '../spec/text.ts'
import type { Devices } from './devices/devices.ts'

/** Queues of a context that are counted. */
const MAX_QUEUES = 256

const isQp = (queue: CoreObject): queue is QueuePairObject => queue.class.name.endsWith('_qp')

/** What the program may wait for, and one of its CQs. */
interface Idle {
  readonly text: string
  readonly cq: number
}

const idleOf = (context: Context, requests: RequestReader): Idle | undefined => {
  if (requests.queuesOf === undefined || requests.completions === undefined) return undefined
  const cqs = new Set<CoreObject>()
  let sends = 0
  let receives = 0
  let queuePairs = 0
  let looked = 0
  for (const queue of requests.queuesOf(context)) {
    if (looked++ === MAX_QUEUES) return undefined
    if (isQp(queue)) {
      queuePairs++
      sends += requests.pendingSends?.(queue) ?? 0
    }
    receives += requests.receives?.(queue, 0).length ?? 0
    for (const parent of queue.parents) if (parent.class.name === 'cq') cqs.add(parent)
  }
  for (const object of context.handles.slots) if (object?.class.name === 'cq') cqs.add(object as CoreObject)
  let unpolled = 0
  let written = 0
  for (const cq of cqs) {
    const count = requests.completions(cq)
    written += count?.written ?? 0
    unpolled += count === undefined ? 0 : count.written - count.polled
  }
  const [first] = cqs
  if (first === undefined) return undefined
  const cq = first.handle
  const is = (count: number, one: string, many: string): string => (count === 1 ? one : many)
  if (unpolled > 0)
    return { text: `${counted(unpolled, 'completion')} in its CQs ${is(unpolled, 'is', 'are')} not polled`, cq }
  if (sends > 0)
    return { text: `${counted(sends, 'send')} of it ${is(sends, 'is', 'are')} outstanding, and none ends`, cq }
  const owned =
    queuePairs === 0
      ? 'it has no queue pair'
      : `its ${counted(queuePairs, 'queue pair')} ${is(queuePairs, 'has', 'have')} no send outstanding`
  const polled = written === 0 ? '' : `, and the program has polled all completions of its CQs, ${written}`
  if (receives > 0)
    return {
      text: `${owned}${polled}: only a message for one of its ${counted(receives, 'receive')} brings a completion, and none comes`,
      cq,
    }
  if (queuePairs === 0 && written === 0) return undefined
  return { text: `${owned} and no receive posted${polled}: no completion can come`, cq }
}

/** `known`: the waits that were found otherwise, whose contexts are left out. Undefined between steps. */
export function* idleWaits(devices: Devices, known: readonly ContextWait[]): Generator<ContextWait | undefined> {
  const explained = new Set(known.map(({ context }) => context))
  const programs = new Set(
    known.flatMap(({ context: { program } }) => (program?.life === undefined ? [] : [program.life])),
  )
  for (const { device } of [...devices.all])
    for (const context of [...device.contexts]) {
      yield undefined
      // The TypeScript library polls its CQs on an event.
      if (context.mapped === undefined || context.mapped.packed !== undefined || explained.has(context)) continue
      if (context.program?.life !== undefined && programs.has(context.program.life)) continue
      const { requests } = device.driver
      const idle = requests && idleOf(context, requests)
      if (idle !== undefined) yield { context, wait: { id: 'idle-queues', ...idle } }
    }
}
