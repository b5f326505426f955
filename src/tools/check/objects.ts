/*
 * The objects that programs have created, with their history. Destroyed objects are kept for a while (MAX_DESTROYED):
 * stale keys and queue pair numbers refer to them.
 */

import type { CauseName } from '../../spec/check/causes.ts'
import type { Failure } from '../../spec/check/failures.ts'
import type { Moment, Program, Stack } from '../../spec/check/finding.ts'
import type { NoteOmission } from '../../spec/check/omissions.ts'
import type { ObjectName, RefusedPost } from '../../spec/check/program-events.ts'
import { isQueuePairClass, isSrqClass, SRQ_CLASSES } from '../../spec/classes/ids.ts'
import type { QpClassName } from '../../spec/classes/qp/qp.ts'
import { AccessFlags, CqFlags, CqKind, MrKind, nameIn, QpFlags, QpState } from '../../spec/enums.ts'
import { EventKind, PostQueue } from '../../spec/session.ts'
import { lidAddress } from '../../transport/wire/address.ts'

const { REMOTE_WRITE, REMOTE_ATOMIC, MW_BIND, ZERO_BASED } = AccessFlags.values

/** Attributes of a queue pair, as set by calls. A failure may show a newer `state`. */
export interface QpAttributes {
  state?: number
  destQpn?: number
  sqPsn?: number
  rqPsn?: number
  /** What it expected when its peer, which was reset and it was not, began again: a failure has told it. */
  expectedPsn?: number
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
  /** `trafficClass`, `hopLimit`: undefined by LID, and where they are not known; `sl`: only by LID. */
  address?: {
    readonly dgid: Uint8Array
    readonly sgidIndex: number
    readonly trafficClass?: number
    readonly hopLimit?: number
    readonly sl?: number
  }
}

/** The destination in the arguments of a call. By LID, its GID is the LID as `lidAddress` writes it. */
export const addressIn = (args: Readonly<Record<string, unknown>>): QpAttributes['address'] => {
  const { address, ibAddress } = args as {
    readonly address?: QpAttributes['address']
    readonly ibAddress?: { readonly dlid: number; readonly sgidIndex: number; readonly sl: number }
  }
  return ibAddress === undefined
    ? address
    : { dgid: lidAddress(ibAddress.dlid), sgidIndex: ibAddress.sgidIndex, sl: ibAddress.sl }
}

/** Limits of a queue pair or SRQ: as returned by the call, else as requested. */
export interface QueueLimits {
  readonly maxSendWr?: number
  readonly maxSendSge?: number
  readonly maxRecvSge?: number
  /** Requests of an SRQ. */
  readonly maxWr?: number
  /** Scatter/gather elements of an SRQ. */
  readonly maxSge?: number
  readonly maxInlineData?: number
}

/** The call that created an object, with fields of `CheckedCall`. */
interface CheckedCreate {
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly isLibrary?: boolean
  readonly args: Readonly<Record<string, unknown>>
  readonly out: Readonly<Record<string, unknown>>
}

/** What a queue pair has lost without a completion. */
interface LostWork {
  /** Requests that were outstanding when it was destroyed. */
  sends: number
  receives: number
  /** How many messages it has dropped, and why; undefined: none. */
  drops: { readonly count: number; readonly why: string; readonly cause: CauseName } | undefined
  /** How many messages have found no receive. */
  notReady: number
  /** Datagrams that no device gets. `to`: the address of the last, `why`: a sentence. */
  unreached?: { readonly count: number; readonly to: string; readonly why: string }
}

/** Maximum kept changes of an object, the latest. */
const MAX_CHANGES = 8
/** Places for objects that are found at once, a power of two. */
const FOUND_PLACES = 16
/** Of processes with more contexts, names of objects do not tell their contexts apart. */
const MAX_CONTEXTS = 64
/** Maximum kept destroyed objects, the latest. */
const MAX_DESTROYED = 4096
/** Maximum time between the destruction of an object here and in the program, which sees it later. */
const NEAR_MICROSECONDS = 1_000_000

export class KnownObject {
  readonly id: number
  readonly handle: number
  readonly class: string
  /** Numbers of its device and context. */
  readonly device: number
  readonly context: number
  readonly deviceName: string
  readonly program: Program | undefined
  /** The host of a net that has it; undefined: this one. */
  host: string | undefined
  /** Whether the TypeScript library created it. */
  readonly isOfLibrary: boolean
  /** Whether the library created it for itself, not for the program. */
  isInternal = false
  /** Whether its requests are frames of the library's messages. */
  hasMessages = false
  readonly creation: Moment
  readonly changes: Moment[] = []
  /** What a queue pair has lost, for the explanation of waits. */
  readonly lost: LostWork = { sends: 0, receives: 0, drops: undefined, notReady: 0 }
  /** Of a CQ that several threads have polled: a poll of each. */
  pollers: readonly Moment[] = []
  destruction: Moment | undefined
  /** Whether it was destroyed because a signal ended its program. */
  wasKilled = false
  /** Objects that this object uses, by attribute: `pd`, `sendCq`. */
  readonly uses: ReadonlyMap<string, KnownObject>
  /** Live objects that use this object. */
  readonly users = new Set<KnownObject>()
  readonly qpn: number | undefined
  /** Keys of a memory region; a memory window has only an rkey. */
  readonly lkey: number | undefined
  readonly rkey: number | undefined
  /** Bytes of a region, or entries of a CQ. */
  size: number | undefined
  /** Of a CQ that overwrites completions when it is full: how many it has had. */
  overwriting: number | undefined
  /** Whether the object is a counting CQ, which has no entries. */
  readonly isCounting: boolean
  /** `MrKind`; undefined: the object is no region. */
  readonly regionKind: number | undefined
  /** Of a queue pair or SRQ. */
  readonly limits: QueueLimits
  /** The address of a region's first byte in the program's memory. */
  start: number | undefined
  #iova: number | undefined
  #isZeroBased = false
  /** Whether peers may write to a region, or windows may be bound to it. */
  isRemoteWritable = false
  /** Requested max_send_wr and max_recv_wr of a queue pair; else 0. */
  readonly requestedSends: number
  readonly requestedReceives: number
  /** Of a target of DC. */
  readonly accessKey: bigint | undefined
  /** sq_sig_all of a queue pair. */
  readonly signalsAll: boolean
  /** The destination of an address handle. */
  readonly dgid: Uint8Array | undefined
  /** The index of the source GID of an address handle. */
  readonly sgidIndex: number | undefined
  /** Of a queue pair. All openers of an XRC target share them. */
  attributes: QpAttributes = {}
  /** The first failure of a queue pair since RESET; not a drop, a flush, or an event such as COMM_EST. */
  failure: Failure | undefined
  /** Whether a failure of a queue pair or its peer was reported since RESET. */
  isReported = false
  /** The last failed request of a queue pair whose completion the program has polled, as text, and when. */
  failurePolled: { readonly text: string; readonly time: number } | undefined
  /**
   * Of a queue pair: the highest number of READs and atomics, up to 256, that were posted and unpolled at one time
   * since RESET.
   */
  mostReads = 0
  /**
   * Of an identifier of rdma_cm: the address of its struct rdma_cm_id; undefined: unknown (`KnownObjects.nameCmId`).
   */
  userHandle: bigint | undefined
  /** Multicast groups that a UD queue pair is attached to: addresses as text. */
  readonly groups = new Set<string>()
  /** Whether a datagram of a UD queue pair had another Q_Key or P_Key than its receiver (datagrams.ts). */
  hasSentWrongKey = false

  /**
   * The place of its context among those of its process, from 1, if at its creation another one had an object of the
   * class with this handle: handles are numbers of a context.
   */
  contextPlace: number | undefined

  constructor(
    { id, handle, class: cls }: ObjectName,
    { device, deviceNumber, context, program, isLibrary = false, args, out }: CheckedCreate,
    creation: Moment,
    uses: ReadonlyMap<string, KnownObject>,
  ) {
    this.id = id
    this.handle = handle
    this.class = cls.name
    this.device = deviceNumber
    this.context = context
    this.deviceName = device
    this.program = program
    this.isOfLibrary = isLibrary
    this.creation = creation
    this.uses = uses
    this.qpn = numberOf(out.qpNum)
    this.lkey = numberOf(out.lkey)
    this.rkey = numberOf(out.rkey)
    this.size = numberOf(out.cqe) ?? numberOf(args.length)
    const ignoresOverrun = ((numberOf(args.flags) ?? 0) & CqFlags.values.IGNORE_OVERRUN) !== 0
    if (this.class === 'cq' && ignoresOverrun) this.overwriting = 0
    this.isCounting = this.class === 'cq' && args.kind === CqKind.values.COUNTING
    this.regionKind = this.class === 'mr' ? (numberOf(args.kind) ?? MrKind.values.MEMORY) : undefined
    this.limits = (out.cap ??
      args.cap ?? { maxWr: out.maxWr ?? args.maxWr, maxSge: out.maxSge ?? args.maxSge }) as QueueLimits
    const address = this.class === 'ah' ? addressIn(args) : undefined
    this.dgid = address?.dgid
    this.sgidIndex = address?.sgidIndex
    this.start = numberOf(args.start)
    this.#iova = numberOf(args.iova)
    this.#noteAccess(args.access)
    const cap = (args.cap ?? {}) as { readonly maxSendWr?: number; readonly maxRecvWr?: number }
    this.requestedSends = cap.maxSendWr ?? 0
    this.requestedReceives = cap.maxRecvWr ?? 0
    if (this.class === 'dct_qp') this.accessKey = (args.sendBufferAddress as bigint | undefined) ?? 0n
    this.signalsAll = ((numberOf(args.flags) ?? 0) & QpFlags.values.SQ_SIG_ALL) !== 0
  }

  /** The address of a region's first byte in requests. */
  get iova(): number | undefined {
    return this.#isZeroBased ? 0 : this.#iova
  }

  get isQp(): boolean {
    return this.qpn !== undefined
  }

  /** The kind of the object in a sentence. */
  get kind(): string {
    return this.isQp ? 'QP' : this.class.toUpperCase()
  }

  /** The object in a sentence, without its program or device. */
  get name(): string {
    const { kind, qpn, lkey } = this
    if (qpn !== undefined) return `${kind} 0x${qpn.toString(16)}`
    if (this.class === 'mr' && lkey !== undefined) {
      const bytes = (this.size ?? 0) > Number.MAX_SAFE_INTEGER ? 'all memory' : `${this.size} bytes`
      return `${kind} 0x${lkey.toString(16)} of ${bytes}`
    }
    return `${kind} ${this.number}`
  }

  /** The handle in a sentence, with the place of the context if the program has several. */
  get number(): string {
    return `${this.handle}${this.contextPlace === undefined ? '' : ` of context ${this.contextPlace}`}`
  }

  get nameWithProgram(): string {
    const place = this.host === undefined ? '' : ` on ${this.host}`
    return this.program === undefined
      ? `${this.name} of ${this.deviceName}${place}`
      : `${this.name} of process ${this.program.pid} (${this.program.command})${place}`
  }

  get history(): Moment[] {
    return [this.creation, ...this.changes, ...(this.destruction ? [this.destruction] : [])]
  }

  /** The queue pair was modified to RESET. */
  reset(): void {
    for (const name of Object.keys(this.attributes)) delete this.attributes[name as keyof QpAttributes]
    this.failure = undefined
    this.isReported = false
    this.failurePolled = undefined
    this.mostReads = 0
  }

  /** A CQ was resized, or a region got other memory. */
  modified(args: Readonly<Record<string, unknown>>, out: Readonly<Record<string, unknown>>): void {
    const { start, length, iova } = (args.translation ?? {}) as Readonly<Record<string, unknown>>
    this.size = numberOf(out.cqe) ?? numberOf(length) ?? this.size
    this.start = numberOf(start) ?? this.start
    this.#iova = numberOf(iova) ?? this.#iova
    this.#noteAccess(args.access)
  }

  /** `access`: `AccessFlags` of a region; undefined: unchanged. */
  #noteAccess(access: unknown): void {
    if (typeof access !== 'number') return
    this.#isZeroBased = (access & ZERO_BASED) !== 0
    this.isRemoteWritable = (access & (REMOTE_WRITE | REMOTE_ATOMIC | MW_BIND)) !== 0
  }

  addChange(moment: Moment): void {
    if (this.changes.length === MAX_CHANGES) this.changes.shift()
    this.changes.push(moment)
  }
}

const numberOf = (value: unknown): number | undefined =>
  typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : undefined

export const hex = (value: bigint | number): string => `0x${value.toString(16)}`

/** The name of an ibv_qp_state. */
export const stateName = (state: number): string => nameIn(QpState.values, state)

export const stateOf = ({ attributes: { state = QpState.values.RESET } }: KnownObject): string => stateName(state)
/** `RC`, `UC`, `UD` or `XRC`. */
export const typeOf = ({ class: name }: KnownObject): string =>
  (name as QpClassName)
    .replace(/_qp$/, '')
    .replace(/_(ini|tgt)$/, '')
    .toUpperCase()

/** Number of polled completions that look unpolled. The TypeScript library frees a CQE only with its next poll. */
export const unreleasedIn = ({ isOfLibrary }: KnownObject): number => (isOfLibrary ? 1 : 0)

/** The name without the bytes of a region. */
export const shortName = ({ class: name, lkey, name: full }: KnownObject): string =>
  name === 'mr' && lkey !== undefined ? `MR ${hex(lkey)}` : full

const isObjectName = (value: unknown): value is ObjectName =>
  typeof value === 'object' && value !== null && 'id' in value && 'handle' in value && 'class' in value

const cmIdKey = (program: Program | undefined, userHandle: bigint): string => `${program?.pid} ${userHandle}`

export class KnownObjects {
  /** Objects that exist, by `id`. */
  readonly #existing = new Map<number, KnownObject>()
  /** Of `#existing`, those that were found last, by the lower bits of `id`. */
  readonly #found: (KnownObject | undefined)[] = new Array(FOUND_PLACES).fill(undefined)
  /** Destroyed objects by `id`, in the order of their destruction. */
  readonly #destroyed = new Map<number, KnownObject>()
  /** By `numbersOf`: the existing object, of an XRC target the first opener; else the last destroyed one. */
  readonly #byNumber = new Map<string, KnownObject>()
  /** Existing objects of XRC targets, by `numbersOf`. Each process that opens a target has an object of its own. */
  readonly #openers = new Map<string, Set<KnownObject>>()
  /** Identifiers of rdma_cm that exist, by `cmIdKey`. */
  readonly #cmIds = new Map<string, KnownObject>()
  /** By context, class and handle: the existing object, else the last destroyed one. */
  readonly #byHandle = new Map<number, Map<string, Map<number, KnownObject>>>()

  /** By pid: contexts with objects that are kept, in the order of their first ones. */
  readonly #contextsOf = new Map<number, Set<number>>()

  /** False once a destroyed object was forgotten (MAX_DESTROYED). */
  isComplete = true
  readonly #omit: NoteOmission

  constructor(omit: NoteOmission) {
    this.#omit = omit
  }

  /** The objects that the arguments of a call name, by attribute. */
  usedBy(args: Readonly<Record<string, unknown>>): Map<string, KnownObject> {
    const used = new Map<string, KnownObject>()
    for (const [name, value] of Object.entries(args)) {
      const known = isObjectName(value) ? this.#existing.get(value.id) : undefined
      if (known !== undefined) used.set(name, known)
    }
    return used
  }

  add(object: KnownObject): void {
    this.#tellFromNamesakes(object)
    this.#existing.set(object.id, object)
    this.#found[object.id & (FOUND_PLACES - 1)] = object
    for (const used of object.uses.values()) used.users.add(object)
    for (const number of numbersOf(object))
      if (object.class === 'xrc_tgt_qp') this.#addOpener(number, object)
      else this.#byNumber.set(number, object)
    const classes = getOrAdd(this.#byHandle, object.context, () => new Map<string, Map<number, KnownObject>>())
    getOrAdd(classes, object.class, () => new Map<number, KnownObject>()).set(object.handle, object)
  }

  #tellFromNamesakes(object: KnownObject): void {
    const { program, context, class: name, handle } = object
    if (program === undefined) return
    const contexts = getOrAdd(this.#contextsOf, program.pid, () => new Set<number>())
    contexts.add(context)
    if (contexts.size === 1 || contexts.size > MAX_CONTEXTS) return
    const all = [...contexts]
    const isNamesake = (other: number): boolean => {
      const found = other === context ? undefined : this.byHandle(other, name, handle)
      return found !== undefined && found.destruction === undefined
    }
    if (all.some(isNamesake)) object.contextPlace = all.indexOf(context) + 1
  }

  #addOpener(number: string, object: KnownObject): void {
    const openers = getOrAdd(this.#openers, number, () => new Set<KnownObject>())
    const [first] = openers
    openers.add(object)
    if (first === undefined) this.#byNumber.set(number, object)
    else object.attributes = first.attributes
  }

  /** The next opener of a target takes the place of the first. */
  #removeOpener(number: string, object: KnownObject): void {
    const openers = this.#openers.get(number)
    openers?.delete(object)
    const [next] = openers ?? []
    if (next === undefined) this.#openers.delete(number)
    else if (this.#byNumber.get(number) === object) {
      this.#byNumber.set(number, next)
      next.failure = object.failure
      next.isReported = object.isReported
    }
  }

  /** The existing objects of the queue pair of `object`: of an XRC target all openers. */
  openersOf(object: KnownObject): ReadonlySet<KnownObject> {
    const [number = ''] = numbersOf(object)
    return this.#openers.get(number) ?? new Set([object])
  }

  /** Undefined: the object was destroyed, or is unknown. Asked several times for each request. */
  find(id: number): KnownObject | undefined {
    const place = id & (FOUND_PLACES - 1)
    const last = this.#found[place]
    if (last !== undefined && last.id === id) return last
    const found = this.#existing.get(id)
    this.#found[place] = found
    return found
  }

  /** As `find`, else the destroyed one. */
  findKept(id: number): KnownObject | undefined {
    return this.find(id) ?? this.#destroyed.get(id)
  }

  /** The queue pair with this number, else the last destroyed one. Of an XRC target: the object of its first opener. */
  qp(device: number, qpn: number): KnownObject | undefined {
    return this.#byNumber.get(`${device} qp ${qpn}`)
  }

  /** The objects of a device that exist. */
  existingOn(device: number): KnownObject[] {
    return [...this.#existing.values()].filter(object => object.device === device)
  }

  /** The destroyed objects of a context that are still known. */
  destroyedIn(context: number): KnownObject[] {
    return [...this.#destroyed.values()].filter(object => object.context === context)
  }

  /** The existing queue pair of a program with this number, on any device. */
  qpOfProgram(program: Program | undefined, qpn: number): KnownObject | undefined {
    for (const object of this.#existing.values())
      if (object.qpn === qpn && object.program?.pid === program?.pid) return object
    return undefined
  }

  /** A call has told the `userHandle` of an identifier of rdma_cm. */
  nameCmId(object: KnownObject, userHandle: bigint): void {
    this.#forgetCmId(object)
    object.userHandle = userHandle
    this.#cmIds.set(cmIdKey(object.program, userHandle), object)
  }

  #forgetCmId({ id, program, userHandle }: KnownObject): void {
    if (userHandle === undefined) return
    const key = cmIdKey(program, userHandle)
    if (this.#cmIds.get(key)?.id === id) this.#cmIds.delete(key)
  }

  /** The identifier of rdma_cm of a program with this `userHandle`. */
  cmIdOfProgram(program: Program | undefined, userHandle: bigint): KnownObject | undefined {
    return this.#cmIds.get(cmIdKey(program, userHandle))
  }

  /** An existing object of a program with one of these classes and this number (QPN, else handle), on any device. */
  existingOf(program: Program | undefined, classes: readonly string[], number?: number): KnownObject | undefined {
    for (const object of this.#existing.values())
      if (object.program?.pid === program?.pid && isNumbered(object, classes, number)) return object
    return undefined
  }

  /**
   * The destroyed object of a program with one of these classes and this number (QPN, else handle; undefined: any)
   * whose destruction was nearest to `time`, at most NEAR_MICROSECONDS. A parent's object if the program has none.
   */
  destroyedOf(
    program: Program | undefined,
    classes: readonly string[],
    number: number | undefined,
    time: number,
  ): KnownObject | undefined {
    let nearest: KnownObject | undefined
    let distance = 2 * NEAR_MICROSECONDS
    for (const object of this.#destroyed.values()) {
      if (!isNumbered(object, classes, number)) continue
      const away = Math.abs((object.destruction?.time ?? 0) - time)
      const penalty = object.program?.pid === program?.pid ? 0 : NEAR_MICROSECONDS
      if (away > NEAR_MICROSECONDS || away + penalty >= distance) continue
      nearest = object
      distance = away + penalty
    }
    return nearest
  }

  /** Whether `hasSentWrongKey` is set for a queue pair of this number, on any device, also a destroyed one. */
  hasSentWrongKey(qpn: number): boolean {
    for (const objects of [this.#existing, this.#destroyed])
      for (const object of objects.values()) if (object.qpn === qpn && object.hasSentWrongKey) return true
    return false
  }

  /** The region or window with this key, else the last destroyed one. All 32 bits of the key are compared. */
  region(device: number, key: number): KnownObject | undefined {
    return this.#byNumber.get(`${device} key ${key >>> 0}`)
  }

  /** A region of a context that exists and contains an address of requests. */
  regionAt(context: number, address: number): KnownObject | undefined {
    return this.existingIn(context).find(
      ({ class: name, iova, size }) =>
        name === 'mr' && iova !== undefined && size !== undefined && address >= iova && address < iova + size,
    )
  }

  /** The contexts with queue pairs or shared receive queues that exist. */
  contexts(): { readonly device: number; readonly context: number }[] {
    const found = new Map<number, number>()
    for (const { context, device, isQp, class: name } of this.#existing.values())
      if (isQp || isSrqClass(name)) found.set(context, device)
    return [...found].map(([context, device]) => ({ device, context }))
  }

  /** The object with this handle, else the last destroyed one. */
  byHandle(context: number, name: string, handle: number): KnownObject | undefined {
    return this.#byHandle.get(context)?.get(name)?.get(handle)
  }

  /** The objects of a context that exist. */
  existingIn(context: number): KnownObject[] {
    const classes = [...(this.#byHandle.get(context)?.values() ?? [])]
    return classes.flatMap(handles => [...handles.values()]).filter(({ destruction }) => destruction === undefined)
  }

  /** The queue pairs of a context, destroyed ones too, by handle the last. */
  queuePairsOf(context: number): KnownObject[] {
    const classes = [...(this.#byHandle.get(context)?.values() ?? [])]
    return classes.flatMap(handles => [...handles.values()]).filter(({ isQp }) => isQp)
  }

  remove(object: KnownObject, destruction: Moment): void {
    object.destruction = destruction
    this.#existing.delete(object.id)
    this.#found[object.id & (FOUND_PLACES - 1)] = undefined
    this.#forgetCmId(object)
    if (object.class === 'xrc_tgt_qp') for (const number of numbersOf(object)) this.#removeOpener(number, object)
    for (const used of object.uses.values()) used.users.delete(object)
    this.#destroyed.set(object.id, object)
    const [oldest] = this.#destroyed.values()
    if (this.#destroyed.size <= MAX_DESTROYED || oldest === undefined) return
    this.#destroyed.delete(oldest.id)
    this.isComplete = false
    this.#omit('destroyed-objects', 1)
    for (const number of numbersOf(oldest)) if (this.#byNumber.get(number) === oldest) this.#byNumber.delete(number)
    this.#forgetHandle(oldest)
  }

  /** Forgets an object of another host. */
  forget(object: KnownObject): void {
    this.#existing.delete(object.id)
    this.#found[object.id % FOUND_PLACES] = undefined
    this.#destroyed.delete(object.id)
    for (const number of numbersOf(object)) if (this.#byNumber.get(number) === object) this.#byNumber.delete(number)
    this.#forgetHandle(object)
  }

  #forgetHandle(object: KnownObject): void {
    const { context, class: name, handle } = object
    const classes = this.#byHandle.get(context)
    const handles = classes?.get(name)
    if (handles?.get(handle) !== object) return
    handles.delete(handle)
    if (handles.size === 0) classes?.delete(name)
    if (classes?.size !== 0) return
    this.#byHandle.delete(context)
    const contexts = this.#contextsOf.get(object.program?.pid ?? -1)
    contexts?.delete(context)
    if (contexts?.size === 0) this.#contextsOf.delete(object.program?.pid ?? -1)
  }
}

const isNumbered = (object: KnownObject, classes: readonly string[], number: number | undefined): boolean =>
  classes.includes(object.class) && (number === undefined || (object.qpn ?? object.handle) === number)

export const getOrAdd = <K, V>(map: Map<K, V>, key: K, make: () => V): V => {
  let value = map.get(key)
  if (value === undefined) {
    value = make()
    map.set(key, value)
  }
  return value
}

/** Keys of an object in `#byNumber`: device, and queue pair number or memory key. */
const numbersOf = ({ device, qpn, lkey, rkey }: KnownObject): string[] => [
  ...(qpn === undefined ? [] : [`${device} qp ${qpn}`]),
  // rxe and EFA give no rkey, 0, to a region without remote rights.
  ...[lkey, rkey].flatMap(key => (key === undefined || key === 0 ? [] : [`${device} key ${key >>> 0}`])),
]

export const moment = (action: string, time: number, stack: Stack): Moment => ({ action, time, stack })

export const participles = (name: string): { readonly created: string; readonly destroyed: string } =>
  name === 'mr' ? { created: 'registered', destroyed: 'deregistered' } : { created: 'created', destroyed: 'destroyed' }

/** Whether a class has objects of verbs that programs have to destroy. Not channels: exit closes them. */
export const isVerbsClass = (name: string): boolean =>
  ['pd', 'cq', 'mr', 'mw', 'ah', 'xrcd'].includes(name) || isSrqClass(name) || isQueuePairClass(name)

/**
 * Names a queue of a queue pair, an SRQ or a CQ. `queue`: a PostQueue, or EventKind.POLL for a CQ. `number`: the number
 * of the queue pair, or the handle of the SRQ or CQ.
 */
type QueueName = Pick<RefusedPost, 'deviceNumber' | 'context' | 'queue' | 'number'>

/** The object that a queue belongs to; undefined: unknown. */
export const queueOf = (
  objects: KnownObjects,
  { deviceNumber, context, queue, number }: QueueName,
): KnownObject | undefined => {
  if (queue === EventKind.POLL) return objects.byHandle(context, 'cq', number)
  return queue === PostQueue.SHARED
    ? SRQ_CLASSES.map(name => objects.byHandle(context, name, number)).find(srq => srq !== undefined)
    : objects.qp(deviceNumber, number)
}
