/*
 * Memory of requests that ends or is copied before their completions are polled: blocks that are freed, stack frames that
 * have returned, forks. The program's library reports it (MISUSE in spec/session.ts) with what it knows; the device's
 * progress and the region decide whether it is a finding. Memory whose region is deregistered by then is left out:
 * that is a finding of its own.
 */
import type { WorkRequest } from '../spec/check/requests.ts'
import { MisuseKind, PostQueue } from '../spec/session.ts'
import { requestText } from './buffers.ts'
import type { Misuse } from './events.ts'
import { type KnownObject, moment } from './objects.ts'
import type { Topic, TopicSources, World } from './topic.ts'

/** Reports about sends that the device has not fetched, and for how many microseconds they wait for them. */
const MAX_AWAITED = 64
const AWAITED_MICROSECONDS = 1_000_000

interface Owned {
  /** Requests that are not polled; true: the device has finished them. */
  readonly requests: Map<WorkRequest, boolean>
  /** Sends that the device has fetched. */
  fetched: number
}

interface Unpolled {
  readonly request: WorkRequest
  readonly count: number
}

const elementOf = ({ elements }: WorkRequest, at: number) =>
  elements.find(({ address, length }) => at >= address && at < address + length)

type IsCopiedByFork = NonNullable<TopicSources['isCopiedByFork']>

export const createLifetimes = (world: World, isCopiedByFork: IsCopiedByFork): Topic => {
  const owners = new Map<number, Owned>()
  const unpolled = new Map<number, Unpolled[]>()
  const awaited: { readonly misuse: Misuse; readonly owner: number; readonly until: number }[] = []

  const ownedBy = (id: number): Owned => {
    let owned = owners.get(id)
    if (owned === undefined) {
      owned = { requests: new Map(), fetched: 0 }
      owners.set(id, owned)
    }
    return owned
  }

  const report = (misuse: Misuse, owner: KnownObject, request: WorkRequest, isFinished: boolean): void => {
    const lkey = elementOf(request, misuse.address)?.lkey
    const region = lkey === undefined ? undefined : world.objects.region(owner.device, lkey)
    // Other addresses of requests are not those of the program.
    if (region === undefined || region.gone !== undefined || region.iova !== region.start) return
    const { kind, more, stack, program } = misuse
    const name = `${requestText(request)} of ${owner.name}`
    const others = more === 0 ? '' : `, and of ${more} more`
    const until = isFinished ? 'before its completion was polled' : 'while it was outstanding'
    const objects = [region, owner]
    if (kind === MisuseKind.FREED)
      world.find('buffer-freed', world.placeOf(owner, stack, 'freed'), {
        text: `the memory of ${name}${others} was freed ${until}`,
        // The device does not use it any more, unless a packet is lost.
        ...(isFinished && { severity: 'warning' as const }),
        moments: [world.postMoment(request)],
        objects,
      })
    else if (kind === MisuseKind.RETURNED)
      world.find('frame-returned', world.placeOfPost(owner, request), {
        text: `the stack frame with the memory of ${name}${others} returned ${until}`,
        ...(isFinished && { severity: 'warning' as const }),
        moments: [moment('noticed', world.sources.now(), stack)],
        objects,
      })
    else if (program !== undefined && isCopiedByFork(program, misuse.address) !== false)
      world.find('fork-outstanding', world.placeOf(owner, stack, 'forked'), {
        text: `process ${program.pid} forked while ${name} was outstanding`,
        moments: [world.postMoment(request)],
        objects,
      })
  }

  return {
    posted(request) {
      const owned = ownedBy(request.owner)
      owned.requests.set(request, false)
      if (request.queue !== PostQueue.SEND) return
      owned.fetched = request.index + 1
      if (awaited.length === 0) return
      const now = world.sources.now()
      for (let i = awaited.length - 1; i >= 0; i--) {
        const { misuse, owner: id, until } = awaited[i]!
        const isIt = id === request.owner && misuse.index === request.index && misuse.wrId === request.wrId
        if (!isIt && until > now) continue
        awaited.splice(i, 1)
        const owner = world.objects.find(request.owner)
        if (isIt && owner !== undefined && until > now) report(misuse, owner, request, false)
      }
    },
    ended(request) {
      const { requests } = ownedBy(request.owner)
      if (request.isSignaled) requests.set(request, true)
      else requests.delete(request)
    },
    completed(request, { cq, count }) {
      const { requests } = ownedBy(request.owner)
      if (!requests.has(request)) return
      requests.set(request, true)
      if (count === 0) return
      const all = unpolled.get(cq)
      if (all === undefined) unpolled.set(cq, [{ request, count }])
      else all.push({ request, count })
    },
    polled(cq, polled) {
      const all = unpolled.get(cq)
      if (all === undefined) return
      let gone = 0
      for (; gone < all.length && all[gone]!.count <= polled; gone++) {
        const { request } = all[gone]!
        owners.get(request.owner)?.requests.delete(request)
      }
      if (gone > 0) all.splice(0, gone)
    },
    forgotten(owner) {
      owners.delete(owner)
      for (let i = awaited.length - 1; i >= 0; i--) if (awaited[i]!.owner === owner) awaited.splice(i, 1)
    },
    called({ class: name, method, refused }, { id }) {
      if (name === 'cq' && method === 'destroy' && refused === undefined) unpolled.delete(id)
    },
    misused(misuse, owner) {
      const { queue, wrId, index, address } = misuse
      const { requests, fetched } = ownedBy(owner.id)
      for (const [request, isFinished] of requests)
        if (request.wrId === wrId && elementOf(request, address) !== undefined)
          return report(misuse, owner, request, isFinished)
      if (queue !== PostQueue.SEND || index < fetched || awaited.length === MAX_AWAITED) return
      awaited.push({ misuse, owner: owner.id, until: world.sources.now() + AWAITED_MICROSECONDS })
    },
  }
}
