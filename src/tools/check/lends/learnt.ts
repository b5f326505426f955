/*
 * Lent memory as programs tell it their peers (`advertised` of spec/check/program-events.ts), without declarations. An
 * advertisement lends bytes to the peer of one queue pair, for one use of each byte. Told is only what the events
 * prove:
 * - a WRITE that was under way, or that nothing can have ordered, when other bytes were written or sent there, and a
 *   READ that gets other bytes than its advertisement, after another one of the same bytes (late-access.ts);
 * - bytes that were told again with another content, though the first peer neither accessed them nor answered
 *   (lent-twice.ts).
 * This keeps the advertisements.
 */
import type { Moment } from '../../../spec/check/finding.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { LentBytes } from '../../../spec/lends.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { Keys } from '../keys.ts'
import { getOrAdd, type KnownObject } from '../objects.ts'
import { shared } from '../shared.ts'
import { Intervals } from './intervals.ts'
import { LENDS } from './lends.ts'
import { rowOf } from './text.ts'
import { hashOf, isOfPeer, messageMoment, messageStack, messageText, type Told } from './told.ts'

/** Maximum advertisements that are remembered, the latest. */
export const MAX_ADVERTISED = 2 ** 15
/** Maximum advertisements of one byte, the latest. */
const MAX_OVERLAPPING = 32

export interface Region {
  readonly object: KnownObject
  /** Address in the process minus address in requests. */
  readonly shift: number
}

const findRegion = ({ objects, sources }: DetectorServices, device: number, key: number): Region | undefined => {
  const regionWith = (lkey: number): Region | undefined => {
    const object = objects.region(device, lkey)
    const { start, iova } = object ?? {}
    return object?.class !== 'mr' || start === undefined || iova === undefined
      ? undefined
      : { object, shift: start - iova }
  }
  const known = regionWith(key)
  if (known !== undefined) return known
  const memory = sources.memoryOf?.(device, key)
  const region = memory && memory.region !== key ? regionWith(memory.region) : undefined
  return memory && region && { object: region.object, shift: memory.shift }
}

const createLearnt = (services: DetectorServices) => {
  const { objects, sources } = services
  if ((sources.lent ?? 'learnt') !== 'learnt') return undefined
  /** By process, by its addresses. */
  const trees = new Map<number | undefined, Intervals<Told>>()
  /** The oldest first. */
  const all = new Set<Told>()
  const regions = new Keys((device, key) => findRegion(services, device, key))
  /** When a queue pair got a message last. */
  const answers = new Map<number, number>()
  let again: readonly [before: Told, now: Told] | undefined

  const forget = (told: Told): void => {
    all.delete(told)
    const { pid } = told.event
    const tree = trees.get(pid)
    if (told.interval !== undefined) tree?.remove(told.interval)
    if (tree?.size === 0) trees.delete(pid)
  }

  const forgetIf = (isOver: (told: Told) => boolean): void => {
    for (const told of all) if (isOver(told)) forget(told)
  }

  /** Those of some of these bytes of a process. */
  const overlapping = (pid: number | undefined, start: number, end: number, most?: number): Told[] =>
    trees.get(pid)?.overlapping(start, end, most) ?? []

  const isAnswered = ({ event: { qp, time } }: Told): boolean => (answers.get(qp) ?? Number.NEGATIVE_INFINITY) > time

  const peerOf = ({ receiver, event: { qp } }: Told): KnownObject | undefined => {
    const owner = objects.find(qp)
    return receiver ?? (owner && services.peerOf(owner))
  }

  const add = (told: Told): void => {
    const { pid, start, end, time } = told.event
    const tree = getOrAdd(trees, pid, () => new Intervals<Told>())
    const known = tree.overlapping(start, end)
    const same = known.filter(one => one.event.start === start && one.event.end === end)
    const [first, ...others] = same
    const before = first && others.reduce((a, b) => (b.event.time >= a.event.time ? b : a), first)
    if (before !== undefined) again = [before, told]
    // The peer of this queue pair goes on.
    const over = known.filter(
      one => isOfPeer(one, told) && (one.used > 0 || isAnswered(one) || one.event.time === time),
    )
    const place = over.find(one => same.includes(one))
    told.interval = place?.interval === undefined ? tree.add(start, end, told) : tree.replace(place.interval, told)
    for (const one of over)
      if (one === place) all.delete(one)
      else forget(one)
    if (known.length >= MAX_OVERLAPPING) {
      const oldest = known.reduce((a, b) => (a.event.time <= b.event.time ? a : b))
      if (all.has(oldest)) forget(oldest)
      services.omit('advertised', 1)
    }
    all.add(told)
    if (all.size <= MAX_ADVERTISED) return
    const [oldest] = all
    forget(oldest!)
    services.omit('advertised', 1)
  }

  const advertised = (event: ProgramEvent<'advertised'>): void => {
    again = undefined
    if (services.ask(LENDS)?.isDeclared(event.pid)) return
    const { device, rkey, qp, to, start, end, isReadable } = event
    const owner = objects.find(qp)
    const region = regions.of(device, rkey)?.object
    const target = to && services.deviceWithGid(to.gid)
    const receiver = to && target !== undefined ? objects.qp(target, to.qpn) : undefined
    // Accesses of an unknown receiver are not recognised: that of a datagram, and of private data by UD.
    if (receiver === undefined && (to !== undefined || owner?.class === 'ud_qp')) return
    if (region === undefined || owner?.qpn === undefined) return
    const hash = isReadable ? hashOf(services, region, start, end) : undefined
    add({ event, qpn: owner.qpn, receiver, region, used: 0, written: [], hash, interval: undefined })
  }

  const on: Detector['on'] = {
    advertised,
    posted: request => regions.requestSeen(request),
    ended: request => regions.requestSeen(request),
    completed(request, { qp }) {
      if (all.size > 0 && request.opcode < 0) answers.set(qp, sources.now())
    },
    queueReset(owner) {
      answers.delete(owner)
      if (all.size > 0) forgetIf(({ event }) => event.qp === owner)
    },
    called({ class: name, method, refused }, object) {
      if (name === 'mw') regions.forget()
      if (name !== 'mr' || refused !== undefined) return
      regions.forget()
      if (method !== 'create' && all.size > 0) forgetIf(({ region }) => region === object)
    },
  }

  return {
    on,
    all: all as ReadonlySet<Told>,
    regions,
    /** Of the last event: what has told of the same bytes before, and what it tells now. Undefined: nothing has. */
    get again() {
      return again
    },
    overlapping,
    isAnswered,
    peerOf,
    /** Whether a peer was told of any of these bytes of a process. */
    isLent: (pid: number | undefined, start: number, end: number): boolean =>
      overlapping(pid, start, end, 1).length > 0,
    /** The latest message that told a peer of any of these bytes of a process. */
    momentsOf: (pid: number | undefined, start: number, end: number): Moment[] =>
      overlapping(pid, start, end)
        .sort((a, b) => b.event.time - a.event.time)
        .slice(0, 1)
        .map(told => messageMoment(services, told, 'told a peer of it')),
    /** What peers were told of and have not accessed wholly, nor answered. */
    rows: (): LentBytes[] =>
      [...all].flatMap((told): LentBytes[] => {
        const { event, region, qpn, used } = told
        if (used >= event.end - event.start || isAnswered(told)) return []
        const program = region.program ?? { pid: event.pid ?? 0, command: '' }
        const to = peerOf(told)?.program
        const age = sources.now() - event.time
        const row = rowOf(program, event.start, event.end, age, messageStack(services, told))
        return [{ ...row, qpn, ...(to && { to }), told: messageText(told) }]
      }),
  }
}

export const LEARNT: Topic<NonNullable<ReturnType<typeof createLearnt>>> = { name: 'what peers were told of' }
export const learnt = shared(LEARNT, createLearnt)
