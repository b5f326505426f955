/*
 * Races as a topic of the checker: requests of devices and logs of programs go to the engine, and races become findings
 * with both stacks. Nothing happens until a program writes an event log.
 */
import { requestName } from '../../spec/check/causes.ts'
import type { FindingId, Stack } from '../../spec/check/findings.ts'
import type { RequestElement, WorkRequest } from '../../spec/check/requests.ts'
import { PostQueue } from '../../spec/session.ts'
import { SendFlags, WcStatus, WrOpcode } from '../../spec/work.ts'
import { hex, type KnownObject, moment } from '../objects.ts'
import type { Topic, World } from '../topic.ts'
import { type Posted, RaceFeed, type SeenEnd } from './feed.ts'
import type { RequestKind } from './order.ts'
import { type Race, Races, type Request } from './races.ts'
import { type Access, AccessKind, type Range, type Region } from './shadow.ts'
import type { RaceSources } from './sources.ts'

export interface RaceTopic extends Topic {
  /** Begins the search: from now on a program writes an event log. */
  begin(): void
  /** Joins all requests, posts and polls so far, and reports the races as findings. */
  join(): void
}

/** Requests and completions that are joined at once. */
const BATCH = 512

const { RDMA_WRITE, RDMA_WRITE_WITH_IMM, SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_READ } = WrOpcode.values
const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, ATOMIC_WRITE } = WrOpcode.values

interface Operation {
  readonly kind: RequestKind
  /** The kinds of its accesses to the poster's memory and to the peer's. */
  readonly local: number
  readonly remote: number
}

const write: Operation = { kind: 'WRITE', local: AccessKind.SOURCE, remote: AccessKind.WRITE }
const send: Operation = { kind: 'SEND', local: AccessKind.SOURCE, remote: AccessKind.READ }
const atomic: Operation = { kind: 'ATOMIC', local: AccessKind.RESULT, remote: AccessKind.ATOMIC }
const operations: ReadonlyMap<number, Operation> = new Map([
  [RDMA_WRITE, write],
  [RDMA_WRITE_WITH_IMM, write],
  [SEND, send],
  [SEND_WITH_IMM, send],
  [SEND_WITH_INV, send],
  [RDMA_READ, { kind: 'READ', local: AccessKind.RESULT, remote: AccessKind.READ }],
  [ATOMIC_CMP_AND_SWP, atomic],
  [ATOMIC_FETCH_AND_ADD, atomic],
  [ATOMIC_WRITE, { ...atomic, local: AccessKind.SOURCE }],
])

interface KnownRegion extends Region {
  readonly object: KnownObject | undefined
}

const isReliable = ({ class: name }: KnownObject): boolean => name === 'rc_qp' || name.startsWith('xrc_')

const nameOf = ({ opcode }: WorkRequest): string => (opcode < 0 ? 'receive' : requestName(opcode))

export const createRaceTopic = (world: World, sources: RaceSources): RaceTopic => {
  const { objects } = world
  let isOn = false
  /** By device, then lkey. */
  const regions = new Map<number, Map<number, KnownRegion>>()

  const regionOf = (device: number, lkey: number): KnownRegion => {
    let ofDevice = regions.get(device)
    if (ofDevice === undefined) {
      ofDevice = new Map()
      regions.set(device, ofDevice)
    }
    let region = ofDevice.get(lkey)
    if (region === undefined) {
      region = { isGone: false, object: objects.region(device, lkey) }
      ofDevice.set(lkey, region)
    }
    return region
  }

  /** The memory of `length` bytes that a key names; undefined: it names none. */
  const rangeOf = (device: number, key: number, address: number, length: number, kind: number): Range | undefined => {
    const memory = length === 0 ? undefined : sources.memoryOf(device, key)
    if (memory === undefined) return undefined
    const start = address + memory.shift
    return { space: memory.space, start, end: start + length, kind, region: regionOf(device, memory.region) }
  }

  /** The first `bytes` of scatter/gather elements. */
  const elementRanges = (device: number, elements: readonly RequestElement[], bytes: number, kind: number): Range[] => {
    const ranges: Range[] = []
    let left = bytes
    for (const { address, length, lkey } of elements) {
      const used = Math.min(length, left)
      left -= used
      const range = rangeOf(device, lkey, address, used, kind)
      if (range !== undefined) ranges.push(range)
    }
    return ranges
  }

  const sendRanges = (qp: KnownObject, { elements, remote, length }: WorkRequest, operation: Operation): Range[] => {
    const bytes = operation.kind === 'ATOMIC' ? 8 : length
    const ranges = elementRanges(qp.device, elements, bytes, operation.local)
    const peer = remote && qp.qp.address && world.deviceWith(qp.qp.address.dgid)
    const there =
      remote && peer !== undefined
        ? rangeOf(peer, remote.rkey, remote.address, remote.length, operation.remote)
        : undefined
    if (there !== undefined) ranges.push(there)
    return ranges
  }

  // ---- findings ----

  const ownerOf = ({ info }: Request<Posted>): KnownObject | undefined => objects.find(info.request.owner)

  const accessText = (access: Access<Request<Posted>>): string => {
    const { request, start, end } = access
    const owner = ownerOf(request)
    const { program } = (access.region as KnownRegion).object ?? {}
    const verb = ['reads', 'writes', 'reads', 'writes', 'changes'][access.kind]!
    const where = program === undefined ? '' : ` of process ${program.pid} (${program.command})`
    const who = `${nameOf(request.info.request)} of ${owner?.nameWithProgram ?? 'a queue pair that is gone'}`
    return `${who}, wr_id ${request.info.request.wrId}, ${verb} ${end - start} bytes at ${hex(start)}${where}`
  }

  const rules: Readonly<Record<Race<Posted>['id'], string>> = {
    race: 'nothing orders them',
    'read-then-write-unfenced': 'the second has no fence, and the first was not known to be over',
    'atomic-mixed-with-write': 'one is atomic, the other is not, and nothing orders them',
    'buffer-reused': 'the first was not known to be over',
  }

  const stackOf = ({ info: { process, stack } }: Request<Posted>): Stack => sources.stackOf(process, stack)

  const report = ({ id, isProven, first, second, start, end }: Race<Posted>): void => {
    const [earlier, later] = [first.request, second.request]
    const owner = ownerOf(later)
    if (owner === undefined) return
    const names = `${nameOf(later.info.request)} of ${owner.name} and ${nameOf(earlier.info.request)} of ${ownerOf(earlier)?.name ?? 'a queue pair that is gone'}`
    const finding: FindingId = id
    world.find(
      finding,
      { ...world.placeOf(owner, stackOf(later)), what: `posted the ${nameOf(later.info.request)}` },
      {
        text: `${names} access the same ${end - start} bytes: ${rules[id]}`,
        ...(!isProven && { severity: 'warning' as const }),
        details: [
          `first:  ${accessText(first)}`,
          `second: ${accessText(second)}`,
          isProven
            ? 'the second was posted before the first was over'
            : 'the first may have been over, but nothing that userdma sees says so to the thread that posted the second',
        ],
        moments: [moment(`posted the ${nameOf(earlier.info.request)}`, earlier.posted, stackOf(earlier))],
        objects: [owner, ownerOf(earlier), (second.region as KnownRegion).object],
      },
    )
  }

  const races = new Races<Posted>(report, world.omit)
  const feed = new RaceFeed(races, (context, handle) => objects.byHandle(context, 'cq', handle)?.id, world.omit)

  /** The last send that ended. Its completion, which mostly follows at once, says the same. */
  let ended: SeenEnd | undefined
  const addEnded = (): void => {
    if (ended !== undefined) feed.add(ended)
    ended = undefined
  }

  const join = (): void => {
    if (!isOn) return
    addEnded()
    const begun = world.sources.now()
    const { entries, lost } = sources.read()
    for (const context of lost) feed.lost(context)
    feed.join(entries, begun)
  }
  const added = (): void => {
    if (feed.pending >= BATCH) join()
  }

  return {
    begin() {
      isOn = true
    },
    join,
    posted(request) {
      const owner = isOn ? objects.find(request.owner) : undefined
      if (owner === undefined) return
      addEnded()
      const isSend = request.queue === PostQueue.SEND
      const operation = isSend ? operations.get(request.opcode) : undefined
      feed.add({
        what: isSend ? 'send' : 'receive',
        request,
        context: owner.context,
        time: request.time,
        kind: isSend ? (operation?.kind ?? 'OTHER') : 'RECEIVE',
        isFenced: isSend && (request.flags & SendFlags.values.FENCE) !== 0,
        ranges: operation === undefined ? [] : sendRanges(owner, request, operation),
        isReliable: !isSend || isReliable(owner),
      })
      added()
    },
    ended(request) {
      if (!isOn) return
      addEnded()
      ended = { what: 'end', request, time: world.sources.now() }
    },
    completed(request, { cq, count, status, bytes, qp, message }) {
      if (!isOn || count === 0) return
      const time = ended?.request === request ? ended.time : world.sources.now()
      if (ended?.request !== request) addEnded()
      ended = undefined
      const isFilled = request.queue !== PostQueue.SEND && status === WcStatus.values.SUCCESS
      const owner = isFilled ? objects.find(qp) : undefined
      // A WRITE with immediate data takes a receive and leaves its buffer.
      const isEmpty = message?.opcode === RDMA_WRITE_WITH_IMM
      const filled = owner && {
        qp,
        message,
        ranges: isEmpty ? [] : elementRanges(owner.device, request.elements, bytes, AccessKind.RESULT),
      }
      feed.add({ what: 'completion', request, time, cq, filled })
      added()
    },
    forgotten(id) {
      const owner = isOn ? objects.find(id) : undefined
      if (owner === undefined) return
      join()
      feed.forget(id, owner.context, owner.isQp ? 'qp' : 'srq', owner.qpn ?? owner.handle)
    },
    called({ class: name, method, refused }, object) {
      if (!isOn || refused !== undefined) return
      if (name === 'cq' && method === 'destroy') {
        join()
        feed.forgetCq(object.id)
      }
      // A region that is registered anew may have other memory.
      if (name !== 'mr' || (method !== 'destroy' && method !== 'modify')) return
      const { lkey } = object
      const region = lkey === undefined ? undefined : regions.get(object.device)?.get(lkey)
      if (region === undefined || lkey === undefined) return
      region.isGone = true
      regions.get(object.device)?.delete(lkey)
    },
  }
}
