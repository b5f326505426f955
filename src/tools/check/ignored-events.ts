/*
 * Findings about programs that go on with what an event, or the end of a connection, has made invalid:
 * - an index of the GID table that the address has left, or that another address has now;
 * - an address handle whose address is elsewhere, or whose neighbour has another MAC;
 * - a device, or an identifier of rdma_cm, whose device was removed;
 * - a queue pair of an earlier connection, while the peer has connected another one;
 * - the status of DISCONNECTED.
 */
import type { WorkRequest } from '../../spec/check/requests.ts'
import { AsyncEventType, CmEventType, QpState } from '../../spec/enums.ts'
import { Errno, errnoName } from '../../spec/errno.ts'
import { PostQueue } from '../../spec/session.ts'
import { counted } from '../../spec/text.ts'
import { addressText } from '../../transport/wire/address.ts'
import type { Detector, DetectorServices } from './detector.ts'
import type { CheckedCall, RefusedAttempt } from './events.ts'
import { type KnownObject, moment, type QpAttributes } from './objects.ts'
import { before, type Outages } from './outages.ts'
import type { Occurrence } from './reporting.ts'

const { RTR, RTS } = QpState.values
const { DEVICE_FATAL } = AsyncEventType.values
const { DISCONNECTED, DEVICE_REMOVAL } = CmEventType.values

/** A program learns by a refused call or two that its device is gone. */
const MANY_CALLS = 3
/** Datagrams that a service sends before it has handled an event, and microseconds that it has for that. */
const MANY_SENDS = 3
const TIME_TO_HANDLE = 1_000_000
/** Maximum remembered queue pairs, address handles, identifiers and contexts, of each the latest. */
const MAX_KEPT = 4096

/** Calls by which a program cleans up, or asks for the state. */
const TOLERATED = /\.(?:destroy|disconnect|query\w*|getEvents?|init\w*)$/

/** In place of an address: the program has found the index empty. */
const EMPTY = ''

/** Adds to a map that forgets its oldest entries. */
const put = <K, V>(map: Map<K, V>, key: K, value: V): void => {
  map.delete(key)
  map.set(key, value)
  if (map.size > MAX_KEPT) map.delete(map.keys().next().value as K)
}

export class IgnoredEvents {
  readonly detector: Detector
  readonly #services: DetectorServices
  readonly #outages: Outages
  /** By context: the addresses that the program has found at, or used with, indices of the GID table. */
  readonly #seen = new Map<number, Map<number, string>>()
  /**
   * The newest address handle by context and address: which of several a request names is unknown, and the newest is right
   * if one is.
   */
  readonly #handles = new Map<string, KnownObject>()
  /** By `CoreObject.id` of address handles: datagrams since their address has left; 0: reported. */
  readonly #sends = new Map<number, number>()
  /** By number of the device: when it was removed, microseconds. */
  readonly #removed = new Map<number, number>()
  /** Refused calls since the removal, by context or `CoreObject.id` of the identifier. */
  readonly #refused = new Map<string, number>()
  /** `CoreObject.id` of identifiers whose DEVICE_REMOVAL was read. */
  readonly #told = new Map<number, true>()
  /** The last queue pair that names another one, by device and number of that. */
  readonly #named = new Map<string, KnownObject>()
  /** The number of the queue pair of an identifier that has disconnected, by `CoreObject.id` of the identifier. */
  readonly #disconnected = new Map<number, number>()

  constructor(services: DetectorServices, outages: Outages) {
    this.#services = services
    this.#outages = outages
    this.detector = {
      posted: request => this.#posted(request),
      called: (call, object) => this.#calledOn(call, object),
    }
  }

  /** As `Checker.called`, also of calls without a known object. */
  called({ class: cls, method, context, deviceNumber, args, refused }: CheckedCall): void {
    if (cls === 'device' && method === 'queryGidTable' && refused === undefined) this.#seen.delete(context)
    if (cls !== 'port' || method !== 'queryGidEntry' || typeof args.index !== 'number') return
    if (refused === undefined) this.#see(context, args.index, this.#outages.gidAt(deviceNumber, args.index))
    else if (refused.errno === Errno.ENODATA) this.#see(context, args.index, EMPTY)
  }

  #see(context: number, index: number, gid: string | undefined): void {
    const indices = this.#seen.get(context) ?? new Map<number, string>()
    put(this.#seen, context, indices)
    if (gid === undefined) indices.delete(index)
    else put(indices, index, gid)
  }

  /**
   * A call with an index of the GID table that is empty was refused. `left`: which address has left it, a clause. False:
   * the program knows that the index is empty.
   */
  refusedIndex(call: CheckedCall, known: KnownObject | undefined, left: string): boolean {
    const { sgidIndex } = (call.args as QpAttributes).address ?? { sgidIndex: 0 }
    // The program has been told, and ignores an error, not an event.
    if (this.#seen.get(call.context)?.get(sgidIndex) === EMPTY) return false
    this.#services.report('event-ignored', call, {
      text: `${known?.name ?? call.class} names GID index ${sgidIndex}, which is empty: ${left}`,
      details: this.#unreadEvents(call.context),
      advice:
        'after GID_CHANGE, or a refused call, look for the address again (ibv_query_gid_ex): its index may differ',
      objects: [known],
    })
    return true
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
  deviceGone({ context, ...call }: RefusedAttempt & { readonly deviceNumber: number }): void {
    const { attempt, time, device, deviceNumber } = call
    const since = this.#removed.get(deviceNumber)
    if (since === undefined || TOLERATED.test(attempt) || this.#countRefused(`context ${context}`) !== MANY_CALLS)
      return
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
  deviceEvent(device: number, event: number): void {
    if (event === DEVICE_FATAL) put(this.#removed, device, this.#services.sources.now())
  }

  /** The number of a device is another's. */
  forget(device: number): void {
    this.#removed.delete(device)
  }

  #calledOn(call: CheckedCall, object: KnownObject): void {
    const { method, refused, args, out, why, context } = call
    if (why !== 'call') return
    if (object.class === 'cm_id' && refused?.errno === Errno.ENXIO) this.#refusedId(call, object)
    if (refused !== undefined) return
    if (object.class === 'cm_id' && method === 'disconnect' && call.queuePair !== undefined)
      put(this.#disconnected, object.id, call.queuePair)
    if (object.class === 'cm_channel' && method === 'getEvent') this.#read(call, context, out)
    if (object.class === 'ah' && method === 'create' && object.dgid !== undefined)
      put(this.#handles, `${context} ${addressText(object.dgid)}`, object)
    const { address, state } = args as QpAttributes
    if (address !== undefined && (object.isQp || object.class === 'ah'))
      this.#usesIndex(call, object, address.sgidIndex)
    if (object.isQp && method === 'modify' && state === RTR) this.#connected(call, object)
  }

  #read(call: CheckedCall, context: number, out: CheckedCall['out']): void {
    const { type, status, object: handle } = out
    const id = typeof handle === 'number' ? this.#services.objects.byHandle(context, 'cm_id', handle) : undefined
    if (id === undefined) return
    if (type === DEVICE_REMOVAL) put(this.#told, id.id, true)
    if (type === DISCONNECTED && typeof status === 'number' && (status | 0) < 0)
      this.#unconfirmed(call, id, -(status | 0))
  }

  /** DISCONNECTED of one's own rdma_disconnect, to which the peer has not answered. */
  #unconfirmed(call: CheckedCall, id: KnownObject, errno: number): void {
    const { objects } = this.#services
    const qpn = this.#disconnected.get(id.id)
    const qp = qpn === undefined ? undefined : objects.qpOfProgram(id.program, qpn)
    const peer = qp && this.#peerOf(qp)
    const isConnected = peer?.destruction === undefined && peer?.attributes.state === RTS
    const whose = isConnected ? `, and ${peer.nameWithProgram} is still connected: it learns nothing of the end` : ''
    this.#services.report('event-ignored', call, {
      severity: isConnected ? 'warning' : 'note',
      text: `DISCONNECTED of ${id.name} has status ${errnoName(errno)}: no answer to DREQ${whose}`,
      advice:
        'look at the status of DISCONNECTED: if it is not 0, the peer may still be connected; tell it in another way, or let connections end that are silent',
      objects: [id, qp, peer],
    })
  }

  #refusedId(call: CheckedCall, id: KnownObject): void {
    if (TOLERATED.test(`cm_id.${call.method}`) || this.#countRefused(`id ${id.id}`) !== MANY_CALLS) return
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
    const handle = this.#handles.get(`${sender.context} ${gid}`)
    if (handle === undefined || handle.destruction !== undefined) return
    const why = this.#whyStale(handle, gid, this.#services.deviceWithGid(destination.gid), request.time)
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
      text: `${sender.name} sends with ${handle.name} to ${gid}, ${why.text}`,
      details: this.#unreadEvents(sender.context),
      advice: 'make a new address handle when addresses have changed (GID_CHANGE, netlink), and when answers stay away',
      objects: [sender, handle],
    })
  }

  /** Why datagrams with an address handle do not arrive, or have no answer; undefined: nothing is known. */
  #whyStale(
    handle: KnownObject,
    gid: string,
    target: number | undefined,
    now: number,
  ): { readonly since: number; readonly text: string } | undefined {
    const { sources } = this.#services
    const made = handle.creation.time
    const own = this.#outages.leftSince(made, one => one.device === handle.device && one.index === handle.sgidIndex)
    if (own !== undefined && own.now === undefined)
      return { since: own.start, text: `with a source address that is gone: ${this.#outages.absenceText(own, now)}` }
    const theirs = this.#outages.leftSince(made, one => one.gid === gid)
    if (theirs !== undefined && target !== theirs.device)
      return { since: theirs.start, text: `made before it moved: ${this.#outages.absenceText(theirs, now)}` }
    const mac = target === undefined ? undefined : this.#outages.macChange(target)
    if (target !== undefined && mac !== undefined && mac > made && target !== handle.device)
      return {
        since: mac,
        text: `made before ${sources.deviceName(target)} got another MAC ${before(mac, now)}: adapters keep the MAC in the handle, and send to the old one`,
      }
    return undefined
  }

  // ---- queue pairs of earlier connections ----

  #peerOf({ attributes: { address, destQpn } }: KnownObject): KnownObject | undefined {
    const device = address && this.#services.deviceWithGid(address.dgid)
    return device === undefined || destQpn === undefined ? undefined : this.#services.objects.qp(device, destQpn)
  }

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
   * Reports that `qp` names a queue pair that has been connected to an earlier one of this process, which is gone, while
   * the peer has connected a later one to `qp`.
   */
  #crosses(qp: KnownObject, call: CheckedCall, modified: KnownObject): void {
    const { objects } = this.#services
    const old = this.#peerOf(qp)
    const next = this.#named.get(`${qp.device} ${qp.qpn}`)
    const earlier = old?.attributes.destQpn
    if (old === undefined || next === undefined || old === next || earlier === undefined || earlier === qp.qpn) return
    if (old.program?.pid !== next.program?.pid || next.attributes.destQpn !== qp.qpn) return
    const gone = objects.qp(qp.device, earlier)
    if (gone?.destruction === undefined || gone.program?.pid !== qp.program?.pid) return
    const { destruction } = gone
    const done = qp.changes.findLast(({ action }) => action === 'modified to RTR')
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
