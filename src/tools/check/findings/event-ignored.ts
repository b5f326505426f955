/*
 * Findings about programs that go on with what an event, or the end of a connection, has made invalid:
 * - an index of the GID table that the address has left, or that another address has now;
 * - an address handle whose address is elsewhere, or whose neighbour has another MAC;
 * - a device, or an identifier of rdma_cm, whose device was removed;
 * - a queue pair of an earlier connection, while the peer has connected another one;
 * - the status of DISCONNECTED.
 */

import { counted } from '../../../base/text.ts'
import type { CheckedCall, ContextEnd, ProgramEvent, RefusedAttempt } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import type { Severity } from '../../../spec/check/severity.ts'
import { AsyncEventType, CmEventType, QpState } from '../../../spec/enums.ts'
import { Errno, errnoName } from '../../../spec/errno.ts'
import { roleOf } from '../../../spec/methods.ts'
import type { MethodRole } from '../../../spec/schema/schema.ts'
import { PostQueue } from '../../../spec/session.ts'
import { addressText } from '../../../transport/wire/address.ts'
import { cmFunctionIn } from '../advice.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { type KnownObject, moment, type QpAttributes } from '../objects.ts'
import type { FindingContent, Occurrence } from '../reporting.ts'
import { before, OUTAGES, type Outages } from './outages.ts'

const { RTR, RTS } = QpState.values
const { DEVICE_FATAL } = AsyncEventType.values
const { DISCONNECTED, DEVICE_REMOVAL } = CmEventType.values

/** A program learns by a refused call or two that its device is gone; each of its threads may, so microseconds too. */
const MANY_CALLS = 3
const TIME_TO_CLOSE = 100_000
/** Datagrams that a service sends before it has handled an event, and microseconds that it has for that. */
const MANY_SENDS = 3
const TIME_TO_HANDLE = 1_000_000
/** Maximum remembered queue pairs, address handles, identifiers and contexts, of each the latest. */
const MAX_KEPT = 4096

/** Roles of calls by which a program cleans up (queue pairs go to ERR before), or asks for the state. */
const TOLERATED: readonly (MethodRole | undefined)[] = [
  'destroys',
  'closes',
  'undoes',
  'modifies',
  'asks',
  'waits',
  'prepares',
]
/** The same of calls without a method, which have Linux's names. */
const TOLERATED_NAMES = /DESTROY|DEALLOC|DEREG|CLOSE|DETACH|MODIFY|QUERY/
const isTolerated = (attempt: string): boolean => TOLERATED.includes(roleOf(attempt)) || TOLERATED_NAMES.test(attempt)

/** In place of an address: the program has found the index empty. */
const EMPTY = ''

/** A refused call with an empty index, until it is known whether the program looks for the address again. */
interface RefusedIndex {
  readonly index: number
  readonly occurrence: Occurrence
  readonly content: FindingContent
}

/** DISCONNECTED with a status, until the identifier is destroyed. */
interface Unconfirmed {
  readonly occurrence: Occurrence
  readonly id: KnownObject
  readonly qp: KnownObject | undefined
  readonly peer: KnownObject | undefined
  readonly errno: number
}

interface Staleness {
  readonly since: number
  /** A clause. */
  readonly text: string
  /** Our devices send to the new one, and no event tells the program. */
  readonly isHarmless?: true
}

/** libmlx5 looks at the index within this function: the program learns nothing of it. */
const AH_FRAME = / ibv_create_ah(_from_wc)?$/

/** A call as an occurrence that is kept. */
const kept = ({ time, device, context, program, stack }: CheckedCall): Occurrence => ({
  time,
  device,
  context,
  program,
  stack,
})

/** Adds to a map that forgets its oldest entries. */
const put = <K, V>(map: Map<K, V>, key: K, value: V): void => {
  map.delete(key)
  map.set(key, value)
  if (map.size > MAX_KEPT) map.delete(map.keys().next().value as K)
}

export const IGNORED_EVENTS: Topic<IgnoredEvents> = { name: 'ignored events' }

class IgnoredEvents {
  readonly detector: Detector
  readonly #services: DetectorServices
  readonly #outages: Outages
  /**
   * By context: the addresses that the program has found at, or used with, indices of the GID table. Contexts that have
   * not looked by calls have none: their programs may read sysfs.
   */
  readonly #seen = new Map<number, Map<number, string>>()
  /** By pid: the index that rdma_cm has named last (rdma_init_qp_attr). */
  readonly #ofCm = new Map<number, number>()
  /** By context. */
  readonly #refusedIndices = new Map<number, RefusedIndex>()
  /**
   * By context and address: the newest address handle of each index. Which of several a request names is unknown, and
   * the newest is right if one of its index is.
   */
  readonly #handles = new Map<string, Map<number, KnownObject>>()
  /** By `CoreObject.id` of address handles: datagrams since their address has left; 0: reported. */
  readonly #sends = new Map<number, number>()
  /** By number of the device: when it was removed, microseconds. */
  readonly #removed = new Map<number, number>()
  /** Contexts with refused calls, of devices that were removed. */
  readonly #gone = new Map<number, true>()
  /**
   * Refused calls since the removal, of a device those after `TIME_TO_CLOSE`, by context or `CoreObject.id` of the
   * identifier.
   */
  readonly #refused = new Map<string, number>()
  /** `CoreObject.id` of identifiers whose DEVICE_REMOVAL was read. */
  readonly #told = new Map<number, true>()
  /** The last queue pair that names another one, by device and number of that. */
  readonly #named = new Map<string, KnownObject>()
  /** The number of the queue pair of an identifier that has disconnected, by `CoreObject.id` of the identifier. */
  readonly #disconnected = new Map<number, number>()
  /** By `CoreObject.id` of the identifier. */
  readonly #unconfirmed = new Map<number, Unconfirmed>()

  constructor(services: DetectorServices) {
    this.#services = services
    this.#outages = services.need(OUTAGES)
    services.tell(IGNORED_EVENTS, this)
    this.detector = {
      on: {
        posted: request => this.#posted(request),
        called: (call, object) => {
          this.#looksAt(call)
          this.#calledOn(call, object)
        },
        asked: call => this.#looksAt(call),
        contextEnds: end => this.#contextEnds(end),
        refusedAttempt: refused => this.#deviceGone(refused),
        deviceEvent: event => this.#deviceEvent(event),
        deviceAdded: ({ device }) => this.#removed.delete(device),
      },
    }
  }

  /** A program looks at the GID table. */
  #looksAt({ class: cls, method, context, deviceNumber, args, refused, stack }: CheckedCall): void {
    if (stack.some(frame => AH_FRAME.test(frame))) return
    if (cls === 'device' && method === 'queryGidTable' && refused === undefined) {
      put(this.#seen, context, new Map())
      this.#refusedIndices.delete(context)
    }
    if (cls !== 'port' || method !== 'queryGidEntry' || typeof args.index !== 'number') return
    this.#refusedIndices.delete(context)
    put(this.#seen, context, this.#seen.get(context) ?? new Map())
    if (refused === undefined) this.#see(context, args.index, this.#outages.gidAt(deviceNumber, args.index))
    else if (refused.errno === Errno.ENODATA) this.#see(context, args.index, EMPTY)
  }

  #see(context: number, index: number, gid: string | undefined): void {
    const indices = this.#seen.get(context)
    if (indices === undefined) return
    if (gid === undefined) indices.delete(index)
    else put(indices, index, gid)
  }

  /**
   * A call with an index of the GID table that is empty was refused. `left`: which address has left it, a clause.
   * False: the program knows that the index is empty. An address may leave between a look and a call, so this is
   * reported when the program tries again, or ends, without another look.
   */
  refusedIndex(call: CheckedCall, known: KnownObject | undefined, left: string): boolean {
    const { sgidIndex } = (call.args as QpAttributes).address ?? { sgidIndex: 0 }
    // The program has been told, and ignores an error, not an event.
    if (this.#seen.get(call.context)?.get(sgidIndex) === EMPTY) return false
    const earlier = this.#refusedIndices.get(call.context)
    const content = {
      text: `${known?.name ?? call.class} names GID index ${sgidIndex}, which is empty: ${left}`,
      details: this.#unreadEvents(call.context),
      advice:
        'after GID_CHANGE, or a refused call, look for the address again (ibv_query_gid_ex): its index may differ',
      objects: [known],
    }
    put(this.#refusedIndices, call.context, { index: sgidIndex, occurrence: kept(call), content })
    if (earlier?.index === sgidIndex) this.#reportIndex(call.context, 'warning')
    return true
  }

  #reportIndex(context: number, severity: Severity): void {
    const refused = this.#refusedIndices.get(context)
    if (refused === undefined) return
    this.#refusedIndices.delete(context)
    this.#services.report('event-ignored', refused.occurrence, { ...refused.content, severity })
  }

  /** A program that closes its device may open it again, and look. */
  #contextEnds({ context, how }: ContextEnd): void {
    this.#reportIndex(context, how === 'close' ? 'note' : 'warning')
    this.#seen.delete(context)
  }

  #unreadEvents(context: number): string[] {
    const count = this.#services.sources.unreadEvents?.(context) ?? 0
    return count === 0
      ? []
      : [
          `${counted(count, 'asynchronous event')} of its context ${count === 1 ? 'was' : 'were'} delivered and not read (ibv_get_async_event)`,
        ]
  }

  /** A call on a device that was removed. */
  #deviceGone({ context, ...call }: RefusedAttempt): void {
    const { attempt, errno, time, device, deviceNumber } = call
    if (errno !== Errno.EIO) return
    put(this.#gone, context, true)
    const since = this.#removed.get(deviceNumber)
    if (since === undefined || time - since < TIME_TO_CLOSE || isTolerated(attempt)) return
    if (this.#countRefused(`context ${context}`) !== MANY_CALLS) return
    this.#services.report(
      'event-ignored',
      { ...call, context },
      {
        text: `${attempt} on ${device}, which was removed ${before(since, time)} (DEVICE_FATAL): ${MANY_CALLS} calls were refused since then (EIO)`,
        advice:
          'at DEVICE_FATAL (ibv_get_async_event), or EIO, close the device, and look for it in the list of devices again',
      },
    )
  }

  #countRefused(key: string): number {
    const count = (this.#refused.get(key) ?? 0) + 1
    put(this.#refused, key, count)
    return count
  }

  /** A device was removed, or has failed. */
  #deviceEvent({ device, type }: ProgramEvent<'deviceEvent'>): void {
    if (type === DEVICE_FATAL) put(this.#removed, device, this.#services.sources.now())
  }

  /** Whether calls of a context were refused because its device was removed. */
  isGone(context: number): boolean {
    return this.#gone.has(context)
  }

  #calledOn(call: CheckedCall, object: KnownObject): void {
    const { method, refused, args, out, why, context, program } = call
    if (object.class === 'cm_id' && method === 'destroy' && refused === undefined) this.#destroyed(object.id)
    if (why !== 'call') return
    if (object.class === 'cm_id' && refused?.errno === Errno.ENXIO) this.#refusedId(call, object)
    if (refused !== undefined) return
    if (object.class === 'cm_id' && method === 'disconnect' && call.queuePair !== undefined)
      put(this.#disconnected, object.id, call.queuePair)
    if (object.class === 'cm_channel' && method === 'getEvent') this.#read(call, context, out)
    if (object.class === 'cm_id' && method === 'initQpAttr' && program !== undefined) this.#namedIndex(program.pid, out)
    if (object.class === 'ah' && method === 'create' && object.dgid !== undefined)
      this.#madeHandle(`${context} ${addressText(object.dgid)}`, object)
    const { address, state } = args as QpAttributes
    if (address !== undefined && (object.isQp || object.class === 'ah'))
      this.#usesIndex(call, object, address.sgidIndex)
    if (object.isQp && method === 'modify' && state === RTR) this.#connected(call, object)
  }

  #namedIndex(pid: number, out: CheckedCall['out']): void {
    const { address } = out as QpAttributes
    if (address !== undefined) put(this.#ofCm, pid, address.sgidIndex)
  }

  #madeHandle(key: string, handle: KnownObject): void {
    const handles = this.#handles.get(key) ?? new Map<number, KnownObject>()
    handles.set(handle.sgidIndex ?? 0, handle)
    put(this.#handles, key, handles)
  }

  #read(call: CheckedCall, context: number, out: CheckedCall['out']): void {
    const { type, status, object: handle } = out
    const id = typeof handle === 'number' ? this.#services.objects.byHandle(context, 'cm_id', handle) : undefined
    if (id === undefined) return
    if (type === DEVICE_REMOVAL) put(this.#told, id.id, true)
    if (type === DISCONNECTED && typeof status === 'number' && (status | 0) < 0)
      this.#disconnectedWith(call, id, -(status | 0))
  }

  /** DISCONNECTED of one's own rdma_disconnect, to which the peer has not answered. */
  #disconnectedWith(call: CheckedCall, id: KnownObject, errno: number): void {
    const qpn = this.#disconnected.get(id.id)
    const qp = qpn === undefined ? undefined : this.#services.objects.qpOfProgram(id.program, qpn)
    put(this.#unconfirmed, id.id, { occurrence: kept(call), id, qp, peer: qp && this.#services.peerOf(qp), errno })
  }

  /** An identifier was destroyed: until then its program may have told the peer in another way. */
  #destroyed(number: number): void {
    const told = this.#unconfirmed.get(number)
    if (told === undefined) return
    this.#unconfirmed.delete(number)
    const { occurrence, id, qp, peer, errno } = told
    const isConnected = peer?.destruction === undefined && peer?.attributes.state === RTS
    const whose = isConnected ? `, and ${peer.nameWithProgram} is still connected: it learns nothing of the end` : ''
    this.#services.report('event-ignored', occurrence, {
      severity: isConnected ? 'warning' : 'note',
      text: `DISCONNECTED of ${id.name} has status ${errnoName(errno)}: no answer to DREQ${whose}`,
      advice:
        'look at the status of DISCONNECTED: if it is not 0, the peer may still be connected; tell it in another way, or let connections end that are silent',
      objects: [id, qp, peer],
    })
  }

  #refusedId(call: CheckedCall, id: KnownObject): void {
    if (isTolerated(`cm_id.${call.method}`) || this.#countRefused(`id ${id.id}`) !== MANY_CALLS) return
    this.#services.report('event-ignored', call, {
      text: `cm_id.${call.method} of ${id.name}, whose device was removed: ${MANY_CALLS} calls were refused since then (ENXIO), and DEVICE_REMOVAL was ${this.#told.has(id.id) ? 'read' : 'not read (rdma_get_cm_event)'}`,
      advice: 'at DEVICE_REMOVAL destroy the queue pair and the identifier, and connect with a new one',
      objects: [id],
    })
  }

  /** A queue pair or address handle names an index, which another address may have now. */
  #usesIndex(call: CheckedCall, object: KnownObject, index: number): void {
    const { context, deviceNumber, time } = call
    const gid = this.#outages.gidAt(deviceNumber, index)
    const expected = this.#seen.get(context)?.get(index)
    this.#see(context, index, gid)
    // Of connections of rdma_cm, the kernel has chosen the index.
    if (this.#ofCm.get(call.program?.pid ?? -1) === index || cmFunctionIn(call.stack) !== undefined) return
    if (gid === undefined || expected === undefined || expected === EMPTY || gid === expected) return
    const left = this.#outages.absenceOf(deviceNumber, index, expected)
    if (left === undefined) return
    this.#services.report('event-ignored', call, {
      text: `${object.name} uses GID index ${index}, which is ${gid} now: ${this.#outages.absenceText(left, time)}`,
      details: this.#unreadEvents(context),
      advice: 'after GID_CHANGE look for the address again (ibv_query_gid_ex): its index may differ',
      objects: [object],
    })
  }

  // ---- address handles ----

  #posted(request: WorkRequest): void {
    const { destination, owner, queue } = request
    if (destination === undefined || queue !== PostQueue.SEND || !this.#outages.hasChanges) return
    const { objects } = this.#services
    const sender = objects.find(owner)
    if (sender === undefined) return
    const gid = addressText(destination.gid)
    const target = this.#services.deviceWithGid(destination.gid)
    let handle: KnownObject | undefined
    let why: Staleness | undefined
    for (const one of this.#handles.get(`${sender.context} ${gid}`)?.values() ?? []) {
      handle = one
      why = one.destruction === undefined ? this.#whyStale(one, gid, target, request.time) : undefined
      if (why === undefined) break
    }
    if (handle === undefined) return
    if (why === undefined) {
      this.#sends.delete(handle.id)
      return
    }
    const count = this.#sends.get(handle.id) ?? 1
    if (count === 0) return
    const isLate = count >= MANY_SENDS && request.time - why.since >= TIME_TO_HANDLE
    put(this.#sends, handle.id, isLate ? 0 : count + 1)
    if (!isLate) return
    this.#services.report('event-ignored', this.#services.occurrenceAtPost(sender, request), {
      ...(why.isHarmless && { severity: 'note' }),
      text: `${sender.name} sends with ${handle.name} to ${gid}, ${why.text}`,
      details: this.#unreadEvents(sender.context),
      advice: 'make a new address handle when addresses have changed (GID_CHANGE, netlink), and when answers stay away',
      objects: [sender, handle],
    })
  }

  /** Why datagrams with an address handle do not arrive, or have no answer; undefined: nothing is known. */
  #whyStale(handle: KnownObject, gid: string, target: number | undefined, now: number): Staleness | undefined {
    const { sources } = this.#services
    const made = handle.creation.time
    const own = this.#outages.leftSince(made, one => one.device === handle.device && one.index === handle.sgidIndex)
    if (own !== undefined && own.now === undefined)
      return { since: own.start, text: `with a source address that is gone: ${this.#outages.absenceText(own, now)}` }
    const theirs = this.#outages.leftSince(made, one => one.gid === gid)
    // An address that is nowhere may return: there is no better handle.
    if (theirs !== undefined && target !== undefined && target !== theirs.device)
      return { since: theirs.start, text: `made before it moved: ${this.#outages.absenceText(theirs, now)}` }
    const mac = target === undefined ? undefined : this.#outages.macChange(target)
    if (target !== undefined && mac !== undefined && mac > made && target !== handle.device)
      return {
        since: mac,
        isHarmless: true,
        text: `made before ${sources.deviceName(target)} got another MAC ${before(mac, now)}: adapters keep the MAC in the handle, and send to the old one`,
      }
    return undefined
  }

  // ---- queue pairs of earlier connections ----

  /** A queue pair has reached RTR. */
  #connected(call: CheckedCall, qp: KnownObject): void {
    const { address, destQpn } = qp.attributes
    const device = address && this.#services.deviceWithGid(address.dgid)
    if (device === undefined || destQpn === undefined) return
    put(this.#named, `${device} ${destQpn}`, qp)
    const peer = this.#services.objects.qp(device, destQpn)
    for (const end of new Set([qp, peer])) if (end !== undefined) this.#crosses(end, call, qp)
  }

  /**
   * Reports that `qp` names a queue pair that has been connected to an earlier one of this process, which is gone,
   * while the peer has connected a later one to `qp`.
   */
  #crosses(qp: KnownObject, call: CheckedCall, modified: KnownObject): void {
    const { objects } = this.#services
    const old = this.#services.peerOf(qp)
    const next = this.#named.get(`${qp.device} ${qp.qpn}`)
    const earlier = old?.attributes.destQpn
    if (old === undefined || next === undefined || old === next || earlier === undefined || earlier === qp.qpn) return
    if (old.program?.pid !== next.program?.pid || next.attributes.destQpn !== qp.qpn) return
    const gone = objects.qp(qp.device, earlier)
    if (gone?.destruction === undefined || gone.program?.pid !== qp.program?.pid) return
    const { destruction } = gone
    const done = qp.changes.findLast(({ state }) => state === RTR)
    const occurrence: Occurrence =
      qp === modified || done === undefined
        ? call
        : { ...this.#services.occurrenceAt(qp, done.stack, done.action), time: done.time }
    this.#services.report('event-ignored', occurrence, {
      severity: 'error',
      text: `${qp.name} is connected to ${old.nameWithProgram}, of the connection with ${gone.name}, which was ${destruction.action} ${before(destruction.time, call.time)}; the peer has connected ${next.name} to it`,
      moments: [moment(`${gone.name} was ${destruction.action}`, destruction.time, destruction.stack)],
      advice: 'number the requests for connections, and drop replies to earlier ones: they name earlier queue pairs',
      objects: [qp, old, next],
    })
  }
}

export const createIgnoredEventDetector = (services: DetectorServices): Detector => new IgnoredEvents(services).detector
