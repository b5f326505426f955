/*
 * The other ends of connections to other hosts of a net, whose checkers are asked for them (spec/check/peer-facts.ts).
 * They are objects as those of this host, with the name of theirs: so what is found about both ends is found of them
 * too.
 */
import type { CauseName } from '../../spec/check/causes.ts'
import type { Moment, Story } from '../../spec/check/finding.ts'
import type { PeerFacts, PeerObject, PeerQuestion } from '../../spec/check/peer-facts.ts'
import type { CheckedFailure } from '../../spec/check/program-events.ts'
import { addressText, parseAddressText } from '../../transport/wire/address.ts'
import { KnownObject, type KnownObjects, type QpAttributes } from './objects.ts'

/** Other ends that are kept, the latest. */
const MAX_PEERS = 1024
/** Connections of a context of which the other end is asked for, the latest. */
const MAX_ASKED = 4

/** Numbers from here on are those of other hosts: of objects, devices and contexts. */
const FIRST_NUMBER = 2 ** 40

/** Causes of which the peer knows more. */
const asked: ReadonlySet<CauseName> = new Set<CauseName>([
  'NO_ANSWER',
  'PACKETS_LOST',
  'RNR_EXCEEDED',
  'BAD_RESPONSE',
  'NAK_INVALID_REQUEST',
  'NAK_REMOTE_ACCESS',
  'NAK_REMOTE_OPERATION',
  'NAK_INVALID_RD',
])
const isNak = (cause: CauseName): boolean => cause.startsWith('NAK_')

export class NetPeers {
  readonly #objects: KnownObjects
  /** Microseconds since 1970 at time 0 of this daemon's clock. */
  readonly #clock: number
  /** Devices by GID as text, and by host and name. */
  readonly #devices = new Map<string, number>()
  readonly #numbers = new Map<string, number>()
  /** By question. */
  readonly #peers = new Map<string, { readonly objects: readonly KnownObject[]; readonly story: Story }>()
  #last = FIRST_NUMBER

  constructor(objects: KnownObjects, clock: number) {
    this.#objects = objects
    this.#clock = clock
  }

  /** The device of another host with this GID; undefined: it was not asked for. */
  deviceWithGid(gid: Uint8Array): number | undefined {
    return this.#devices.get(addressText(gid))
  }

  /** The other end of a queue pair, if it is on another host, and was asked for. */
  peerOf({ attributes: { address, destQpn } }: KnownObject): KnownObject | undefined {
    const device = address && this.deviceWithGid(address.dgid)
    return device === undefined || destQpn === undefined ? undefined : this.#objects.qp(device, destQpn)
  }

  /** The lines of a queue pair of another host. */
  storyOf(peer: KnownObject): Story {
    for (const { objects, story } of this.#peers.values()) if (objects[0] === peer) return story
    return []
  }

  /** What to ask about a failure; undefined: nothing. */
  questionAbout({ failure, peerDevice, time }: CheckedFailure): PeerQuestion | undefined {
    const { peer, cause, kind } = failure
    if (peerDevice !== undefined || peer === undefined || kind !== 'send' || !asked.has(cause.id)) return undefined
    return { address: peer.address, qpn: peer.qpn, time: time + this.#clock }
  }

  /** What to ask about the connections of a context to devices that this host does not have. */
  questionsOf(context: number, now: number, isLocal: (gid: Uint8Array) => boolean): readonly PeerQuestion[] {
    return this.#objects
      .existingIn(context)
      .flatMap(({ isQp, attributes: { address, destQpn } }) =>
        !isQp || address === undefined || destQpn === undefined || isLocal(address.dgid)
          ? []
          : [{ address: addressText(address.dgid), qpn: destQpn, time: now + this.#clock }],
      )
      .slice(-MAX_ASKED)
  }

  /** Takes an answer. */
  add({ address, qpn }: PeerQuestion, host: string, { device, clock, qp, state, regions, story }: PeerFacts): void {
    const gid = parseAddressText(address)
    if (gid === undefined) return
    const number = this.#numberOf(`${host} ${device}`)
    this.#devices.set(addressText(gid), number)
    const key = `${address} ${qpn}`
    this.#forget(key)
    if (qp === undefined) return
    const shift = clock - this.#clock
    const at = { device, number, host, shift }
    const peer = this.#made(qp, at)
    if (state !== undefined) peer.attributes.state = state
    const objects = [peer, ...regions.map(region => this.#made(region, at))]
    const lines = story.map(line => ({
      ...line,
      host,
      time: line.time + shift,
      ...(line.since !== undefined && { since: line.since + shift }),
    }))
    this.#peers.set(key, { objects, story: lines })
    const [oldest] = this.#peers.keys()
    if (this.#peers.size > MAX_PEERS && oldest !== undefined) this.#forget(oldest)
  }

  /** A failure with what the other end knows of it. `state`: of the other end now. */
  explained(failed: CheckedFailure, { address, qpn }: PeerQuestion): CheckedFailure {
    const gid = parseAddressText(address)
    const peerDevice = gid && this.deviceWithGid(gid)
    if (peerDevice === undefined) return failed
    const { failure } = failed
    const peer = this.#objects.qp(peerDevice, qpn)
    const state =
      peer === undefined || peer.destruction !== undefined ? ('none' as const) : (peer.attributes.state ?? 0)
    const cause = isNak(failure.cause.id) ? peer?.failure?.cause : undefined
    return {
      ...failed,
      peerDevice,
      failure: { ...failure, peer: { address, qpn, state }, ...(cause && { cause, isCauseAtPeer: true }) },
    }
  }

  #numberOf(name: string): number {
    const number = this.#numbers.get(name) ?? ++this.#last
    this.#numbers.set(name, number)
    return number
  }

  #forget(key: string): void {
    for (const object of this.#peers.get(key)?.objects ?? []) this.#objects.forget(object)
    this.#peers.delete(key)
  }

  #made(
    { handle, class: name, program, history, isDestroyed, args, out, attributes, failure }: PeerObject,
    { device, number, host, shift }: Readonly<Record<'device' | 'host', string> & Record<'number' | 'shift', number>>,
  ): KnownObject {
    const moments = history.map((moment): Moment => ({ ...moment, time: moment.time + shift }))
    const [creation = { action: 'created', time: 0, stack: [] }, ...changes] = moments
    const context = this.#numberOf(`${host} ${device} process ${program?.pid}`)
    const create = { device, deviceNumber: number, context, program, args, out }
    const object = new KnownObject({ id: ++this.#last, handle, class: { name } }, create, creation, new Map())
    object.host = host
    object.attributes = attributes as QpAttributes
    object.failure = failure
    this.#objects.add(object)
    const destruction = isDestroyed ? changes.pop() : undefined
    for (const change of changes) object.addChange(change)
    if (destruction !== undefined) this.#objects.remove(object, destruction)
    return object
  }
}
