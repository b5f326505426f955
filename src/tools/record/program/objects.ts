/*
 * The objects and failures of programs as events of a session file, made of calls and failures as the stream of program
 * events has them (spec/check/program-events.ts).
 */
import { hexBytes } from '../../../base/text.ts'
import type { CheckedCall, CheckedFailure, ObjectName } from '../../../spec/check/program-events.ts'
import type { RequestWatcher, WorkRequest } from '../../../spec/check/requests.ts'
import { isQueuePairClass } from '../../../spec/classes/ids.ts'
import { changesNothing, roleOf } from '../../../spec/methods.ts'
import { failureRecord } from '../../../spec/records.ts'
import type { ObjectDetails, ObjectEvent } from '../../../spec/session-events.ts'
import type { SessionWriter } from '../writer.ts'

/** Maximum bytes of a value in hexadecimal. */
const MAX_BYTES = 64

const isObject = (value: object): value is ObjectName => 'id' in value && 'handle' in value && 'class' in value

/** A value of a call for `JSON.stringify`. An object is its handle. */
const jsonValue = (value: unknown): unknown => {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`
  if (value instanceof Uint8Array)
    return `${hexBytes(value.subarray(0, MAX_BYTES))}${value.length > MAX_BYTES ? '…' : ''}`
  if (Array.isArray(value)) return value.slice(0, MAX_BYTES).map(jsonValue)
  if (typeof value !== 'object' || value === null) return value
  return isObject(value) ? value.handle : jsonValues(value)
}

const jsonValues = (values: object): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [[name, jsonValue(value)]])),
  )

const usesIn = (values: object): number[] =>
  Object.values(values).flatMap(value =>
    typeof value === 'object' && value !== null && isObject(value) ? [value.id] : [],
  )

const numberIn = (values: Readonly<Record<string, unknown>>): number | undefined =>
  [values.qpNum, values.lkey, values.rkey].find(value => typeof value === 'number')

const qpKey = (device: number, qpn: number): number => device * 2 ** 24 + qpn

type Place = Pick<CheckedCall, 'deviceNumber' | 'context' | 'program'>
/**
 * What a call has done. `uses`: ids of all objects that its object uses now; absent: those in the values of a create.
 */
export type EndedCall = Place &
  Pick<CheckedCall, 'class' | 'method' | 'object' | 'args' | 'out' | 'refused' | 'why' | 'stack'> & {
    readonly uses?: readonly number[]
  }

type ExistingObject = Place & Pick<EndedCall, 'args' | 'out' | 'uses'> & { readonly object: ObjectName }

/** What a call has changed of its object; undefined: nothing. */
export const changeOf = ({ object, class: name, method, refused }: EndedCall): ObjectEvent['change'] | undefined => {
  if (object === undefined || refused !== undefined) return undefined
  if (method === 'create') return 'created'
  if (method === 'destroy') return 'destroyed'
  return changesNothing(roleOf(`${name}.${method}`)) ? undefined : 'changed'
}

export class RecordedObjects {
  readonly #writer: SessionWriter
  /** Milliseconds since the epoch at time 0. */
  readonly #origin: number
  /** Numbers of the existing objects, by id. */
  readonly #numbers = new Map<number, number>()
  /** Ids of queue pairs by `qpKey`. */
  readonly #qps = new Map<number, number>()

  constructor(writer: SessionWriter, origin: number) {
    this.#writer = writer
    this.#origin = origin
  }

  /** The id of a queue pair; 0: unknown. */
  qpId(device: number, qpn: number): number {
    return this.#qps.get(qpKey(device, qpn)) ?? 0
  }

  /** A call has ended. Returns what it has changed of its object; undefined: nothing. */
  called(time: number, call: EndedCall): ObjectEvent['change'] | undefined {
    const { object, method, why, stack, args, out, uses } = call
    const change = changeOf(call)
    if (object === undefined || change === undefined) return undefined
    const number = numberIn(out) ?? this.#numbers.get(object.id) ?? 0
    const values = { ...args, ...out }
    const used = uses ?? (change === 'created' ? usesIn(values) : undefined)
    const details: ObjectDetails =
      change === 'destroyed' ? { values: {} } : { ...(used && { uses: used }), values: jsonValues(values) }
    this.#write(time, call, object, { change, number, method, why, stack, details })
    return change
  }

  /** An object exists at the start, with the values of its creation and changes. `number`: as in `ObjectEvent`. */
  exists(time: number, { object, args, out, uses, ...place }: ExistingObject, number = numberIn(out) ?? 0): void {
    const values = { ...args, ...out }
    const details = { uses: uses ?? usesIn(values), values: jsonValues(values) }
    this.#write(time, place, object, { change: 'exists', number, method: '', why: '', stack: [], details })
  }

  failed(
    time: number,
    { failure, deviceNumber, program }: Pick<CheckedFailure, 'failure' | 'deviceNumber' | 'program'>,
  ): void {
    const object = failure.qpn === undefined ? 0 : this.qpId(deviceNumber, failure.qpn)
    this.#writer.failure(time, object, failureRecord(this.#origin + time / 1000, program, failure))
  }

  #write(
    time: number,
    { deviceNumber: device, context, program }: Place,
    { id, handle, class: { name } }: ObjectName,
    event: Pick<ObjectEvent, 'change' | 'number' | 'method' | 'why' | 'stack' | 'details'>,
  ): void {
    const { change, number } = event
    const key = isQueuePairClass(name) && number !== 0 ? qpKey(device, number) : undefined
    if (change === 'destroyed') {
      this.#numbers.delete(id)
      if (key !== undefined && this.#qps.get(key) === id) this.#qps.delete(key)
    } else if (number !== 0) {
      this.#numbers.set(id, number)
      if (key !== undefined) this.#qps.set(key, id)
    }
    this.#writer.object(time, { object: id, device, context, program, class: name, handle, ...event })
  }
}

/** Events of requests of a stream, as events of a session file. `stackOf`: the stack of a post, one line a frame. */
export const recordedRequests = (
  writer: SessionWriter,
  time: () => number,
  stackOf: (request: WorkRequest) => string,
): RequestWatcher => ({
  posted: request => writer.posted(time(), request, stackOf(request)),
  ended: request => writer.ended(time(), request),
  completed: (request, completion) => writer.completed(time(), request, completion),
  receiveLost: request => writer.receiveLost(time(), request),
  receiverNotReady: qp => writer.receiverNotReady(time(), qp),
  polled: (cq, count) => writer.polled(time(), cq, count),
  queueReset: owner => writer.queueReset(time(), owner),
})
