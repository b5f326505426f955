/*
 * The objects that programs created, with their history: program and stack of the creation, and changes. Destroyed
 * objects are kept for a while, since stale keys and numbers refer to them.
 */

import type { Failure } from '../spec/check/failures.ts'
import type { Moment, Program, Stack } from '../spec/check/findings.ts'
import type { NoteOmission } from '../spec/check/omissions.ts'
import type { QpClassName } from '../spec/classes/qp/qp.ts'
import { nameIn, QpFlags, QpState } from '../spec/enums.ts'

/** An object of core: no other object ever has the same `id`. */
export interface ObjectName {
  readonly id: number
  readonly handle: number
  readonly class: { readonly name: string }
}

/** Attributes of a queue pair, as its calls have set them (spec/classes/qp/qp.ts). */
export interface QpValues {
  state?: number
  destQpn?: number
  sqPsn?: number
  rqPsn?: number
  pathMtu?: number
  timeout?: number
  retryCnt?: number
  rnrRetry?: number
  minRnrTimer?: number
  maxRdAtomic?: number
  maxDestRdAtomic?: number
  qkey?: number
  pkeyIndex?: number
  accessFlags?: number
  address?: { readonly dgid: Uint8Array; readonly sgidIndex: number }
}

/** Limits of requests. */
export interface QueueLimits {
  readonly maxSendWr?: number
  readonly maxSendSge?: number
  readonly maxRecvSge?: number
  /** Of a shared receive queue. */
  readonly maxSge?: number
  readonly maxInlineData?: number
}

/** Facts about the call that creates an object. */
export interface CheckedCreate {
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly args: Readonly<Record<string, unknown>>
  readonly out: Readonly<Record<string, unknown>>
}

/** Maximum changes that are kept of each object, the latest ones. */
const MAX_CHANGES = 8
/** Maximum destroyed objects that are kept. */
const MAX_GONE = 4096

export class KnownObject {
  readonly id: number
  readonly handle: number
  readonly class: string
  /** Numbers of its device and context. */
  readonly device: number
  readonly context: number
  readonly deviceName: string
  readonly program: Program | undefined
  readonly made: Moment
  readonly changes: Moment[] = []
  gone: Moment | undefined
  /** The objects that it uses, by the attribute that named them. */
  readonly uses: ReadonlyMap<string, KnownObject>
  /** The live objects that use it. */
  readonly users = new Set<KnownObject>()
  /** Number of a queue pair. */
  readonly qpn: number | undefined
  /** Keys of a memory region. */
  lkey: number | undefined
  rkey: number | undefined
  /** Of a region: bytes. Of a completion queue: entries. */
  size: number | undefined
  /** Of a queue pair's or shared receive queue's requests, as granted. */
  readonly limits: QueueLimits
  /** Of a region: its memory, and the address of its first byte for requests. */
  start: number | undefined
  iova: number | undefined
  /** Queue sizes of a queue pair. */
  readonly sends: number
  readonly receives: number
  /** All sends of a queue pair are signaled. */
  readonly isSignalAll: boolean
  qp: QpValues = {}
  /** The first failure of a queue pair since RESET. */
  failure: Failure | undefined
  /** A finding about its connection was reported. */
  isReported = false

  constructor(
    { id, handle, class: cls }: ObjectName,
    { device, deviceNumber, context, program, args, out }: CheckedCreate,
    made: Moment,
    uses: ReadonlyMap<string, KnownObject>,
  ) {
    this.id = id
    this.handle = handle
    this.class = cls.name
    this.device = deviceNumber
    this.context = context
    this.deviceName = device
    this.program = program
    this.made = made
    this.uses = uses
    this.qpn = numberOf(out.qpNum)
    this.lkey = numberOf(out.lkey)
    this.rkey = numberOf(out.rkey)
    this.size = numberOf(out.cqe) ?? numberOf(args.length)
    this.limits = (out.cap ?? args.cap ?? { maxSge: out.maxSge ?? args.maxSge }) as QueueLimits
    this.start = numberOf(args.start)
    this.iova = numberOf(args.iova)
    const cap = (args.cap ?? {}) as { readonly maxSendWr?: number; readonly maxRecvWr?: number }
    this.sends = cap.maxSendWr ?? 0
    this.receives = cap.maxRecvWr ?? 0
    this.isSignalAll = ((numberOf(args.flags) ?? 0) & QpFlags.values.SQ_SIG_ALL) !== 0
  }

  get isQp(): boolean {
    return this.qpn !== undefined
  }

  /** The object in a sentence, without its program or device. */
  get name(): string {
    if (this.qpn !== undefined) return `QP 0x${this.qpn.toString(16)}`
    if (this.class === 'mr' && this.lkey !== undefined) return `MR 0x${this.lkey.toString(16)} of ${this.size} bytes`
    return `${this.class.toUpperCase()} ${this.handle}`
  }

  get nameWithProgram(): string {
    return this.program === undefined
      ? `${this.name} of ${this.deviceName}`
      : `${this.name} of process ${this.program.pid} (${this.program.command})`
  }

  get history(): Moment[] {
    return [this.made, ...this.changes, ...(this.gone ? [this.gone] : [])]
  }

  /** A queue pair has moved to RESET. */
  reset(): void {
    this.qp = {}
    this.failure = undefined
    this.isReported = false
  }

  /** A completion queue was resized, or a region registered anew. */
  resized(args: Readonly<Record<string, unknown>>, out: Readonly<Record<string, unknown>>): void {
    const { start, length, iova } = (args.translation ?? {}) as Readonly<Record<string, unknown>>
    this.size = numberOf(out.cqe) ?? numberOf(length) ?? this.size
    this.start = numberOf(start) ?? this.start
    this.iova = numberOf(iova) ?? this.iova
  }

  changed(moment: Moment): void {
    if (this.changes.length === MAX_CHANGES) this.changes.shift()
    this.changes.push(moment)
  }
}

const numberOf = (value: unknown): number | undefined =>
  typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : undefined

export const hex = (value: number): string => `0x${value.toString(16)}`

/** Name of a queue pair's state. */
export const stateName = (state: number): string => nameIn(QpState.values, state)

/** Names of a queue pair's state, and of its type. */
export const stateOf = ({ qp: { state = QpState.values.RESET } }: KnownObject): string => stateName(state)
export const typeOf = ({ class: name }: KnownObject): string =>
  (name as QpClassName)
    .replace(/_qp$/, '')
    .replace(/_(ini|tgt)$/, '')
    .toUpperCase()

const isObjectName = (value: unknown): value is ObjectName =>
  typeof value === 'object' && value !== null && 'id' in value && 'handle' in value && 'class' in value

export class KnownObjects {
  readonly #live = new Map<number, KnownObject>()
  /** Destroyed objects, in the order of their destruction. */
  readonly #gone = new Map<number, KnownObject>()
  /** By number and key: the live object, or the last destroyed one. */
  readonly #byNumber = new Map<string, KnownObject>()
  /** The same by context, class and handle. */
  readonly #byHandle = new Map<number, Map<string, Map<number, KnownObject>>>()

  /** Whether all objects that ever were are known. */
  isComplete = true
  readonly #omit: NoteOmission

  constructor(omit: NoteOmission) {
    this.#omit = omit
  }

  /** Objects of a call's arguments, by attribute. */
  usedBy(args: Readonly<Record<string, unknown>>): Map<string, KnownObject> {
    const used = new Map<string, KnownObject>()
    for (const [name, value] of Object.entries(args)) {
      const known = isObjectName(value) ? this.#live.get(value.id) : undefined
      if (known !== undefined) used.set(name, known)
    }
    return used
  }

  add(object: KnownObject): void {
    this.#live.set(object.id, object)
    for (const used of object.uses.values()) used.users.add(object)
    for (const number of numbersOf(object)) this.#byNumber.set(number, object)
    const classes = getOrAdd(this.#byHandle, object.context, () => new Map<string, Map<number, KnownObject>>())
    getOrAdd(classes, object.class, () => new Map<number, KnownObject>()).set(object.handle, object)
  }

  find(id: number): KnownObject | undefined {
    return this.#live.get(id)
  }

  /** A queue pair by its number, or the last one that had it. */
  qp(device: number, qpn: number): KnownObject | undefined {
    return this.#byNumber.get(`${device} qp ${qpn}`)
  }

  /** Whether any device has a queue pair of this number. */
  hasQpn(qpn: number): boolean {
    for (const object of this.#live.values()) if (object.qpn === qpn) return true
    return false
  }

  /** A region by either key; the low byte counts. */
  region(device: number, key: number): KnownObject | undefined {
    return this.#byNumber.get(`${device} key ${key >>> 0}`)
  }

  /** The object with a handle, or the last one that had it. */
  byHandle(context: number, name: string, handle: number): KnownObject | undefined {
    return this.#byHandle.get(context)?.get(name)?.get(handle)
  }

  remove(object: KnownObject, gone: Moment): void {
    object.gone = gone
    this.#live.delete(object.id)
    for (const used of object.uses.values()) used.users.delete(object)
    this.#gone.set(object.id, object)
    const [oldest] = this.#gone.values()
    if (this.#gone.size <= MAX_GONE || oldest === undefined) return
    this.#gone.delete(oldest.id)
    this.isComplete = false
    this.#omit('destroyed-objects', 1)
    for (const number of numbersOf(oldest)) if (this.#byNumber.get(number) === oldest) this.#byNumber.delete(number)
    this.#forgetHandle(oldest)
  }

  #forgetHandle(object: KnownObject): void {
    const { context, class: name, handle } = object
    const classes = this.#byHandle.get(context)
    const handles = classes?.get(name)
    if (handles?.get(handle) !== object) return
    handles.delete(handle)
    if (handles.size === 0) classes?.delete(name)
    if (classes?.size === 0) this.#byHandle.delete(context)
  }
}

const getOrAdd = <K, V>(map: Map<K, V>, key: K, make: () => V): V => {
  let value = map.get(key)
  if (value === undefined) {
    value = make()
    map.set(key, value)
  }
  return value
}

const numbersOf = ({ device, qpn, lkey, rkey }: KnownObject): string[] => [
  ...(qpn === undefined ? [] : [`${device} qp ${qpn}`]),
  ...[lkey, rkey].flatMap(key => (key === undefined ? [] : [`${device} key ${key >>> 0}`])),
]

export const moment = (what: string, time: number, stack: Stack): Moment => ({ what, time, stack })
