/*
 * The events of preload libraries under `userdma check`: mistakes that they see in their programs, calls that they or
 * the libraries of verbs have refused, deaths, and what detectors need to know.
 */
import { layout, type MessageLayout } from './message-layout.ts'

/**
 * A request with memory, of which `more` further ranges have the same mistake. index: its position in its queue, from
 * 0.
 */
const requestMemory = [
  ['wrId', 'u64'],
  ['address', 'u64'],
  ['queue', 'u32'],
  ['number', 'u32'],
  ['index', 'u32'],
  ['more', 'u32'],
] as const
const lateRequestMemory = [['age', 'u64'], ...requestMemory] as const

/**
 * How the value of a field in an event follows from that in its message. `bigint`: the number. `flag`: not 0. `stack`:
 * the number of a stack of STACK. `ago`: nanoseconds before the message, of the event microseconds as its `time`.
 * `signal`: its number. `handle`: of an object; of ibv_destroy_comp_channel a descriptor.
 */
export type FieldValue = 'bigint' | 'flag' | 'stack' | 'ago' | 'signal' | 'handle'

/** A row of `PreloadEvents`. */
export interface PreloadEventRow {
  readonly type: number
  /**
   * The object that the event is about, which the checker looks up. `queue`: of `queue` (PostQueue; EventKind.POLL: a
   * CQ) and `number`. `qp`: the QPN `number`. `cq`, `mr`: the handle `number`. `context`: none. Absent: what takes the
   * event finds it.
   */
  readonly about?: 'queue' | 'qp' | 'cq' | 'mr' | 'context'
  /** The object is destroyed. Absent: it exists. */
  readonly isGone?: true
  /** It is told only in a session that there is already. */
  readonly isQuiet?: true
  /** `none`: it is of a process. `perhaps`: without one it is of rdma_cm. Absent: it is of a context. */
  readonly context?: 'none' | 'perhaps'
  /** The library fills the struct in several steps, also for the observation of --host. */
  readonly isFilled?: true
  readonly layout: MessageLayout
  /** Fields that are not of the message's own type, and by the name that they have in the event. */
  readonly values?: Readonly<Record<string, FieldValue>>
  readonly names?: Readonly<Record<string, string>>
  /** Fields that the event has as one record, or list, by its name. */
  readonly record?: Readonly<Record<string, readonly string[]>>
  readonly list?: Readonly<Record<string, readonly string[]>>
}

/**
 * What the preload library of a program tells: each is a message of its own type, and an event of the stream with the
 * same name and fields (check/program-events.ts). age: nanoseconds since; absent: it is told at once.
 */
export const PreloadEvents = {
  /** Memory of an outstanding request was freed. */
  bufferFreed: { type: 36, about: 'queue', layout: layout(...lateRequestMemory) },
  /** The function that had memory of an outstanding request on its stack has returned. */
  frameReturned: { type: 37, about: 'queue', layout: layout(...lateRequestMemory) },
  /** The program forks while a request is outstanding. */
  forkedOutstanding: { type: 38, about: 'queue', layout: layout(...requestMemory) },
  /** The process posts to a queue, or polls a CQ, of a context that its parent has opened. */
  usedInherited: { type: 39, about: 'queue', layout: layout(['queue', 'u32'], ['number', 'u32']) },
  /** It destroys a queue pair of such a context. */
  destroyedInherited: { type: 40, about: 'qp', layout: layout(['number', 'u32'], ['reserved', 'u32']) },
  /**
   * When the completion of a send, or of a later one of the queue, was polled, its memory was not as at the post;
   * nothing is known about the device's own writes. index: as above.
   */
  sendChanged: { type: 41, about: 'qp', layout: layout(['number', 'u32'], ['index', 'u32']) },
  /**
   * More events of a CQ are acknowledged than the program has read and not acknowledged. otherCq: the handle of the CQ
   * of the thread's last event that is not acknowledged, or UNKNOWN_NUMBER.
   */
  overacknowledged: {
    type: 42,
    about: 'cq',
    isQuiet: true,
    layout: layout(['number', 'u32'], ['acknowledged', 'u32'], ['read', 'u32'], ['otherCq', 'u32']),
  },
  /** An asynchronous event of an object is acknowledged, of which the program has read only `read`. */
  asyncOveracknowledged: {
    type: 43,
    about: 'queue',
    isQuiet: true,
    layout: layout(['queue', 'u32'], ['number', 'u32'], ['read', 'u32'], ['reserved', 'u32']),
  },
  /**
   * The program has given back memory of a region, from `start` to before `end`. how: GiveBack. isKept: 1: nothing else
   * gets the memory before `reusable`.
   */
  gaveBack: {
    type: 44,
    about: 'mr',
    layout: layout(
      ['age', 'u64'],
      ['start', 'u64'],
      ['end', 'u64'],
      ['number', 'u32'],
      ['how', 'u32'],
      ['isKept', 'u32'],
      ['reserved', 'u32'],
    ),
  },
  /** From now on the program may have the memory of the region again. */
  reusable: { type: 45, about: 'mr', layout: layout(['number', 'u32'], ['reserved', 'u32']) },
  /** The `part` (DeadPart) of a request at `address` was in a returned stack frame when it was posted. */
  postedDead: {
    type: 46,
    about: 'queue',
    layout: layout(
      ['wrId', 'u64'],
      ['address', 'u64'],
      ['queue', 'u32'],
      ['number', 'u32'],
      ['part', 'u32'],
      ['reserved', 'u32'],
    ),
  },
  /** ibv_poll_cq got an array at `address` on the stack that has room for `room` completions, not for `entries`. */
  arrayTooShort: {
    type: 47,
    about: 'cq',
    layout: layout(['address', 'u64'], ['number', 'u32'], ['entries', 'u32'], ['room', 'u32'], ['reserved', 'u32']),
  },
  /** The program closes the `descriptor` of a context by close(2). */
  closedDescriptor: {
    type: 48,
    about: 'context',
    isQuiet: true,
    layout: layout(['descriptor', 'u32'], ['reserved', 'u32']),
  },
  /**
   * The program has opened the device of its new context after it had freed all lists with it, the last one at
   * `freedAt` by `freedStack`.
   */
  openedFreed: {
    type: 57,
    about: 'context',
    layout: layout(['freedAt', 'u64'], ['freedStack', 'u32'], ['reserved', 'u32']),
    values: { freedAt: 'ago', freedStack: 'stack' },
  },
  /** `count` requests of one list, from `wrId` on, have the same elements. opcode: their ibv_wr_opcode. */
  sharedElements: {
    type: 49,
    about: 'queue',
    layout: layout(['wrId', 'u64'], ['queue', 'u32'], ['number', 'u32'], ['count', 'u32'], ['opcode', 'u32']),
  },
  /** The immediate data of a send, `data` in network byte order, is a small number in that of the host. */
  immediateInHostOrder: { type: 50, about: 'qp', layout: layout(['wrId', 'u64'], ['number', 'u32'], ['data', 'u32']) },
  /** A READ or atomic and an earlier one, whose completion was not polled, write to `address`. */
  readsOverlap: {
    type: 51,
    about: 'qp',
    layout: layout(['wrId', 'u64'], ['address', 'u64'], ['number', 'u32'], ['reserved', 'u32']),
  },
  /**
   * A list is posted from its head, `wrId`, of which an earlier post has taken the first `taken` requests and refused
   * the others.
   */
  postedAgain: {
    type: 52,
    about: 'queue',
    layout: layout(['wrId', 'u64'], ['queue', 'u32'], ['number', 'u32'], ['taken', 'u32'], ['reserved', 'u32']),
  },
  /**
   * A list of `count` requests, from `wrId` on, is posted, of which the last post has posted the first already as the
   * `next` of its own first one, `headId`: the `steps`th such list in a row.
   */
  postedNext: {
    type: 59,
    about: 'queue',
    layout: layout(
      ['wrId', 'u64'],
      ['headId', 'u64'],
      ['queue', 'u32'],
      ['number', 'u32'],
      ['count', 'u32'],
      ['steps', 'u32'],
    ),
  },
  /**
   * num_sge is 0, and the first element of sg_list has `bytes` bytes at `address`, and this lkey. Of a receive, bytes
   * 0: sg_list is NULL. isLeft: 1: earlier sends of the process had elements.
   */
  elementsUnused: {
    type: 53,
    about: 'queue',
    layout: layout(
      ['wrId', 'u64'],
      ['address', 'u64'],
      ['queue', 'u32'],
      ['number', 'u32'],
      ['bytes', 'u32'],
      ['lkey', 'u32'],
      ['isLeft', 'u32'],
      ['reserved', 'u32'],
    ),
  },
  /**
   * The rkey of a READ, WRITE or atomic (`opcode`: ibv_wr_opcode) of `address` is 0, and that of the member of the
   * union that it does not use, `wr.atomic` or `wr.rdma`, is `rkey`.
   */
  otherMember: {
    type: 54,
    about: 'qp',
    layout: layout(['address', 'u64'], ['number', 'u32'], ['rkey', 'u32'], ['opcode', 'u32'], ['reserved', 'u32']),
  },
  /** ibv_poll_cq is called in a signal handler. */
  polledInHandler: { type: 55, about: 'cq', layout: layout(['number', 'u32'], ['reserved', 'u32']) },
  /**
   * The completion of a request was polled whose queue pair has no requests: it was destroyed, or the process has not
   * posted to it.
   */
  polledGone: {
    type: 56,
    about: 'queue',
    isGone: true,
    layout: layout(['wrId', 'u64'], ['queue', 'u32'], ['number', 'u32']),
  },
  /**
   * The user library, or the preload library, has refused a post without a call of the daemon. queue: PostQueue;
   * number: the QPN, or the handle of the SRQ. error: a positive errno. state: the queue pair's state as libibverbs
   * knows it. opcode: ibv_wr_opcode. flags: ibv_send_flags. elements: number of scatter/gather elements. length: bytes
   * of the element if there is only one, otherwise 0. addressLow: the low bits of the remote address of an atomic; of a
   * bind ibv_access_flags of the window. If the request is not known, opcode, flags, elements, addressLow and length
   * are 0. unsignaled: number of outstanding sends since the last one with IBV_SEND_SIGNALED, at the end of the queue.
   * taken: number of requests that the queue has taken before, modulo 2^32, since its creation or RESET; 0: none, or
   * unknown.
   */
  refusedPost: {
    type: 12,
    isFilled: true,
    layout: layout(
      ['wrId', 'u64'],
      ['queue', 'u32'],
      ['number', 'u32'],
      ['error', 'u32'],
      ['state', 'u32'],
      ['opcode', 'u32'],
      ['flags', 'u32'],
      ['elements', 'u32'],
      ['addressLow', 'u32'],
      ['length', 'u64'],
      ['unsignaled', 'u32'],
      ['taken', 'u32'],
    ),
    values: { length: 'bigint' },
    record: { request: ['opcode', 'flags', 'elements', 'addressLow', 'length', 'unsignaled', 'taken'] },
  },
  /**
   * A library of the program has refused the call of `function` itself. error: a positive errno; in C errno is no name
   * of a field. object: the handle of the object that the call is on, of a queue pair its number, of an identifier of
   * rdma_cm its user handle, of a completion channel its descriptor. facts: of the arguments, in the order of
   * tools/check/library-refusals.ts.
   */
  refusedByLibrary: {
    type: 23,
    context: 'perhaps',
    isQuiet: true,
    isFilled: true,
    layout: layout(
      ['function', 40],
      ['object', 'u64'],
      ['fact0', 'u64'],
      ['fact1', 'u64'],
      ['fact2', 'u64'],
      ['fact3', 'u64'],
      ['error', 'u32'],
      ['reserved', 'u32'],
    ),
    values: { object: 'handle', fact0: 'bigint', fact1: 'bigint', fact2: 'bigint', fact3: 'bigint' },
    names: { error: 'errno' },
    list: { facts: ['fact0', 'fact1', 'fact2', 'fact3'] },
  },
  /**
   * A call with an object that the program has destroyed: the preload library has refused it. function: its name. kind:
   * ObjectKind of the object. number: the number of a queue pair, else the handle, or UNKNOWN_NUMBER. use: GoneUse.
   * isOwner: the object itself exists, but its context was closed; `kind` is then that of the object in use.
   * destroyedAt, destroyedStack: when and where the object was destroyed; no stack: unknown. value: the pointer, of
   * ARGUMENT and GARBAGE.
   */
  usedGone: {
    type: 21,
    context: 'none',
    layout: layout(
      ['value', 'u64'],
      ['destroyedAt', 'u64'],
      ['destroyedStack', 'u32'],
      ['kind', 'u32'],
      ['number', 'u32'],
      ['use', 'u32'],
      ['isOwner', 'u32'],
      ['reserved', 'u32'],
      ['function', 48],
    ),
    values: { value: 'bigint', destroyedAt: 'ago', destroyedStack: 'stack', isOwner: 'flag' },
  },
  /**
   * A signal such as SIGSEGV ends the program now. isInOurs: it has interrupted the preload library. lastCall: the last
   * function of verbs that the thread has called; empty: none. fault: AddressFault of a SIGSEGV or SIGBUS. address:
   * that of the access; 0 if it is unknown. pollStack: of the last poll of the thread that has found something.
   */
  died: {
    type: 22,
    context: 'none',
    isQuiet: true,
    layout: layout(
      ['address', 'u64'],
      ['signal', 'u32'],
      ['isInOurs', 'u32'],
      ['fault', 'u32'],
      ['pollStack', 'u32'],
      ['lastCall', 40],
    ),
    values: { address: 'bigint', signal: 'signal', isInOurs: 'flag', pollStack: 'stack' },
  },
  /**
   * A mistake in a batch of ibv_wr_*. number: the QPN. mistake: BatchMistake. called: BatchCall. opcode: ibv_wr_opcode
   * of the request that is meant; −1: none. wrId: its own. requests: in the batch. since: of the earlier call that the
   * mistake is about; empty: none, or unknown.
   */
  batchMistaken: {
    type: 24,
    isFilled: true,
    layout: layout(
      ['wrId', 'u64'],
      ['number', 'u32'],
      ['mistake', 'u32'],
      ['called', 'u32'],
      ['opcode', 's32'],
      ['requests', 'u32'],
      ['since', 'u32'],
    ),
    values: { since: 'stack' },
  },
  /**
   * Calls on a queue in a wrong order, or by threads that were excluded. object: CQ or QP of ObjectKind. number: the
   * handle of the CQ, or the QPN. mistake: OrderMistake. called: OrderCall. field: CompletionField of READ; of a broken
   * promise 1: that of a thread domain. isSingle: 1 if the CQ is SINGLE_THREADED. since: as above.
   */
  misordered: {
    type: 29,
    isFilled: true,
    layout: layout(
      ['object', 'u32'],
      ['number', 'u32'],
      ['mistake', 'u32'],
      ['called', 'u32'],
      ['field', 'u32'],
      ['isSingle', 'u32'],
      ['since', 'u32'],
      ['reserved', 'u32'],
    ),
    values: { since: 'stack' },
  },
  /** The process is about to fork, and has not called ibv_fork_init. */
  forked: { type: 13, context: 'none', isQuiet: true, layout: layout(['reserved', 'u64']) },
  /**
   * It has taken memory of a queue by the function `name`, to post and poll by itself, so its posts may not be seen.
   */
  postsDirectly: { type: 27, context: 'none', layout: layout(['name', 40]) },
} as const satisfies Readonly<Record<string, PreloadEventRow>>
export type PreloadMessageName = keyof typeof PreloadEvents
export const preloadMessageNames = Object.keys(PreloadEvents) as readonly PreloadMessageName[]
/** Those about an object. */
export type PreloadEventName = {
  [N in PreloadMessageName]: (typeof PreloadEvents)[N] extends { readonly about: string } ? N : never
}[PreloadMessageName]
