/*
 * The objects of a session with their histories, and its queue pairs with their peers.
 */

import type { Program } from '../../spec/check/finding.ts'
import { isQueuePairClass } from '../../spec/classes/ids.ts'
import { Mtu, QpState } from '../../spec/enums.ts'
import { mtuBytes } from '../../spec/mtu.ts'
import type { DeviceEvent, ObjectEvent } from '../../spec/session-events.ts'

type ObjectMoment = Pick<ObjectEvent, 'change' | 'method' | 'why' | 'stack' | 'details'> & {
  readonly time: number
}

export interface ObjectRecord {
  readonly id: number
  readonly class: string
  readonly device: number
  readonly context: number
  readonly handle: number
  readonly program: Program | undefined
  /** The QPN of a queue pair, the key of a region or window; 0: none. */
  number: number
  /** Of an object that is a descriptor: its number in the program, as calls name it; undefined: unknown. */
  fd: number | undefined
  uses: readonly number[]
  destroyed: number | undefined
  readonly history: ObjectMoment[]
  /** Moments that were too many for `history`. */
  omitted: number
}

export type QpStateName = keyof typeof QpState.values

/** A queue pair. The peer is that of its last transition to RTR. */
export interface QueuePair {
  readonly object: ObjectRecord
  readonly qpn: number
  /** RC, UC, UD …: the class without `_qp`, in capitals. */
  readonly type: string
  state: QpStateName
  readonly states: { readonly time: number; readonly state: QpStateName }[]
  peerQpn: number | undefined
  /** 32 hexadecimal digits. */
  peerGid: string | undefined
  /** The first PSN that it sends. */
  sqPsn: number | undefined
  /** READs and atomics that it may have outstanding. */
  maxRdAtomic: number | undefined
  /** Bytes. */
  pathMtu: number | undefined
}

interface DeviceRecord {
  readonly index: number
  name: string
  address: string
  isRemoved: boolean
}

const MAX_HISTORY = 64
/** More objects are counted, but not kept. */
const MAX_OBJECTS = 50_000

const stateNames = Object.keys(QpState.values) as QpStateName[]
const stateOf = (number: unknown): QpStateName | undefined => stateNames.find(name => QpState.values[name] === number)

const mtus: ReadonlySet<number> = new Set(Object.values(Mtu.values))

const numberOf = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined)

export class SessionObjects {
  readonly objects = new Map<number, ObjectRecord>()
  readonly queuePairs = new Map<number, QueuePair>()
  readonly devices = new Map<number, DeviceRecord>()
  /** Objects that were too many. */
  omitted = 0

  addDevice({ change, device, name, address }: DeviceEvent): void {
    const known = this.devices.get(device)
    if (known === undefined || change === 'added')
      this.devices.set(device, { index: device, name, address, isRemoved: change === 'removed' })
    else if (change === 'removed') known.isRemoved = true
    else known.name = name
  }

  add(event: ObjectEvent & { readonly time: number }): void {
    const { object: id, change, number, details } = event
    let object = this.objects.get(id)
    if (object === undefined) {
      if (this.objects.size >= MAX_OBJECTS) {
        this.omitted++
        return
      }
      const { class: name, device, context, handle, program } = event
      object = {
        id,
        class: name,
        device,
        context,
        handle,
        program,
        number,
        fd: undefined,
        uses: [],
        destroyed: undefined,
        history: [],
        omitted: 0,
      }
      this.objects.set(id, object)
    } else if (change === 'exists') return
    if (number !== 0) object.number = number
    if (details.uses) object.uses = details.uses
    if (change === 'destroyed') object.destroyed = event.time
    if (object.history.length < MAX_HISTORY) object.history.push(event)
    else object.omitted++
    if (isQueuePairClass(object.class)) this.#addQueuePair(object, event)
  }

  #addQueuePair(
    object: ObjectRecord,
    { time, change, details: { values = {} } }: ObjectEvent & { time: number },
  ): void {
    let qp = this.queuePairs.get(object.id)
    if (qp === undefined) {
      const type = object.class.replace(/_qp$/, '').toUpperCase()
      const qpn = object.number
      qp = {
        object,
        qpn,
        type,
        state: 'RESET',
        states: [],
        peerQpn: undefined,
        peerGid: undefined,
        sqPsn: undefined,
        maxRdAtomic: undefined,
        pathMtu: undefined,
      }
      this.queuePairs.set(object.id, qp)
      const isKnown = change === 'exists' && values.state !== undefined
      if (change !== 'destroyed' && !isKnown) qp.states.push({ time, state: 'RESET' })
    }
    qp.peerQpn = numberOf(values.destQpn) ?? qp.peerQpn
    qp.sqPsn = numberOf(values.sqPsn) ?? qp.sqPsn
    qp.maxRdAtomic = numberOf(values.maxRdAtomic) ?? qp.maxRdAtomic
    const mtu = numberOf(values.pathMtu)
    if (mtu !== undefined && mtus.has(mtu)) qp.pathMtu = mtuBytes(mtu)
    const dgid = (values.address as { readonly dgid?: unknown } | undefined)?.dgid
    if (typeof dgid === 'string') qp.peerGid = dgid
    const state = stateOf(values.state)
    if (state !== undefined) this.setState(qp, state, time)
  }

  setState(qp: QueuePair, state: QpStateName, time: number): void {
    qp.state = state
    if (qp.states.length < MAX_HISTORY) qp.states.push({ time, state })
  }

  /** The program has got the descriptor of an object by a call. */
  setDescriptor(id: number, fd: number): void {
    const object = this.objects.get(id)
    if (object !== undefined) object.fd = fd
  }

  deviceName(index: number): string {
    return index < 0 ? 'rdma_cm' : (this.devices.get(index)?.name ?? `device ${index}`)
  }

  /** For people: `QP 0x11`, `mr 3`, `async_fd fd 4`. */
  objectName(id: number): string {
    const object = this.objects.get(id)
    if (object === undefined) return `object ${id}`
    const { class: name, handle, number, fd } = object
    if (isQueuePairClass(name)) return `QP 0x${number.toString(16)}`
    return `${name} ${fd === undefined ? handle : `fd ${fd}`}`
  }
}

/** Two queue pairs that are each other's peers; `right` is undefined if it is not in the session. */
export interface Connection {
  readonly left: QueuePair
  readonly right: QueuePair | undefined
  /** Of `right`; undefined: a datagram queue pair, which has no peer. */
  readonly rightQpn: number | undefined
}

/**
 * The queue pair that `qp` is connected to: of those with the peer's number, the one that points back, if there is one.
 */
const peerOf = (qp: QueuePair, byQpn: ReadonlyMap<number, readonly QueuePair[]>): QueuePair | undefined => {
  const candidates = (byQpn.get(qp.peerQpn ?? -1) ?? []).filter(other => other !== qp)
  return candidates.find(other => other.peerQpn === qp.qpn) ?? candidates[0]
}

/** One connection for each queue pair that has been used, in the order of their creation. */
export const connectionsOf = ({ queuePairs }: SessionObjects): Connection[] => {
  const all = [...queuePairs.values()]
  const byQpn = new Map<number, QueuePair[]>()
  for (const qp of all) byQpn.set(qp.qpn, [...(byQpn.get(qp.qpn) ?? []), qp])
  const done = new Set<QueuePair>()
  const connections: Connection[] = []
  for (const left of all) {
    if (done.has(left)) continue
    done.add(left)
    const right = left.peerQpn === undefined ? undefined : peerOf(left, byQpn)
    if (right !== undefined && right.peerQpn === left.qpn) done.add(right)
    connections.push({ left, right, rightQpn: left.peerQpn })
  }
  return connections
}
