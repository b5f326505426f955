/*
 * The order of posts and completions, each with its number among those of its queue: for identities of torment
 * (spec/check/torment.ts), which say "the third completion of the send queue" where a person knows wr_id and line.
 */
import type { Stack } from '../../spec/check/finding.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import type { TormentedRequest } from '../../spec/check/torment-orders.ts'
import { nameIn } from '../../spec/enums.ts'
import { PostQueue } from '../../spec/session.ts'
import { WcStatus } from '../../spec/work.ts'
import { requestText } from './buffers.ts'
import type { Detector, DetectorServices, Topic } from './detector.ts'
import { type KnownObject, shortName } from './objects.ts'

/** The most kept posts and completions, the latest. */
const MAX_ORDERED = 2048
/** Requests whose stacks are kept between post and completion, the latest. */
const MAX_OUTSTANDING_STACKS = 4096

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values

/** The posts and completions so far, oldest first. */
export const ORDERS: Topic<() => readonly TormentedRequest[]> = { name: 'orders of requests' }

export const createRequestOrders = (services: DetectorServices): Detector | undefined => {
  const { tormentName: nameOf } = services.sources
  if (nameOf === undefined) return undefined
  let ordered: TormentedRequest[] = []
  /** By CQ: the completions that are not polled, oldest first. */
  const unpolled = new Map<number, { readonly position: number; readonly event: { polled?: number | undefined } }[]>()
  /** By queue pair and thing. */
  const counts = new Map<string, number>()
  /** By the id of a request. */
  const stacks = new Map<number, Stack>()

  const add = (
    event: TormentedRequest['event'],
    queue: KnownObject,
    thing: string,
    text: string,
    stack: Stack,
    isReceive: boolean,
    opcode: number,
    isError = false,
  ): { polled?: number | undefined } | undefined => {
    const name = nameOf(queue.id)
    if (name === undefined) return undefined
    const key = `${name}/${thing}`
    const nth = (counts.get(key) ?? 0) + 1
    counts.set(key, nth)
    const { program, qpn } = queue
    const added: TormentedRequest & { polled?: number | undefined } = {
      ...{ time: services.sources.now(), object: shortName(queue), event, text, stack, count: 1 },
      ...(program && { pid: program.pid, command: program.command }),
      ...{ name: `${key}${nth}`, isReceive, opcode, qpn, destQpn: queue.attributes.destQpn },
      ...(isError && { isError }),
    }
    ordered.push(added)
    if (ordered.length > 2 * MAX_ORDERED) ordered = ordered.slice(MAX_ORDERED)
    return added
  }
  const isReceive = ({ queue }: WorkRequest): boolean => queue !== PostQueue.SEND

  services.tell(ORDERS, () => ordered.slice(-MAX_ORDERED))

  return {
    on: {
      posted(request) {
        const queue = services.objects.find(request.owner)
        if (queue === undefined) return
        const stack = services.postStack(queue, request)
        stacks.set(request.id, stack)
        if (stacks.size > MAX_OUTSTANDING_STACKS) stacks.delete(stacks.keys().next().value as number)
        if (!isReceive(request)) add('posted', queue, 'post', requestText(request), stack, false, request.opcode)
      },
      ended({ id, isSignaled }) {
        if (!isSignaled) stacks.delete(id)
      },
      completed(request, { status, qp, cq, cqPosition }) {
        const queue = services.objects.find(qp)
        const owner = services.objects.find(request.owner)
        const stack = stacks.get(request.id) ?? (owner === undefined ? [] : services.postStack(owner, request))
        stacks.delete(request.id)
        if (queue === undefined) return
        const failed = status === SUCCESS ? '' : `, ${nameIn(WcStatus.values, status)}`
        const thing = isReceive(request) ? 'receive' : 'send'
        const text = `${requestText(request)}${failed}`
        const isError = status !== SUCCESS && status !== WR_FLUSH_ERR
        const event = add('completed', queue, thing, text, stack, isReceive(request), request.opcode, isError)
        if (event === undefined || cqPosition === 0) return
        const waiting = unpolled.get(cq) ?? []
        unpolled.set(cq, waiting)
        waiting.push({ position: cqPosition, event })
        if (waiting.length > MAX_ORDERED) waiting.shift()
      },
      polled(cq, count) {
        const waiting = unpolled.get(cq) ?? []
        while (waiting[0] !== undefined && waiting[0].position <= count)
          waiting.shift()!.event.polled = services.sources.now()
      },
    },
  }
}
