/*
 * The events of preload libraries under `userdma check`: mistakes with the memory of a request, or with a queue.
 */
import { layout, type MessageLayout } from './message-layout.ts'

/** A request with memory, of which `more` further ranges have the same mistake. index: its position in its queue, from 0. */
const requestMemory = [
  ['wrId', 'u64'],
  ['address', 'u64'],
  ['queue', 'u32'],
  ['number', 'u32'],
  ['index', 'u32'],
  ['more', 'u32'],
] as const
const lateRequestMemory = [['age', 'u64'], ...requestMemory] as const

/** A row of `PreloadEvents`. */
export interface PreloadEventRow {
  readonly type: number
  /**
   * The object that the event is about. `queue`: of `queue` (PostQueue; EventKind.POLL: a CQ) and `number`. `qp`: the QPN
   * `number`. `cq`, `mr`: the handle `number`. `context`: none.
   */
  readonly about: 'queue' | 'qp' | 'cq' | 'mr' | 'context'
  /** The object is destroyed. Absent: it exists. */
  readonly isGone?: true
  /** It is told only in a session that there is already. */
  readonly isQuiet?: true
  readonly layout: MessageLayout
}

/**
 * Mistakes that the preload library of a program sees: each is a message of its own type, and an event of the stream with
 * the same name and fields (check/program-events.ts). age: nanoseconds since the mistake; absent: it is told at once.
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
   * When the completion of a send, or of a later one of the queue, was polled, its memory was not as at the post; nothing
   * is known about the device's own writes. index: as above.
   */
  sendChanged: { type: 41, about: 'qp', layout: layout(['number', 'u32'], ['index', 'u32']) },
  /**
   * More events of a CQ are acknowledged than the program has read and not acknowledged. otherCq: the handle of the CQ of
   * the thread's last event that is not acknowledged, or UNKNOWN_NUMBER.
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
   * The program has given back memory of a region, from `start` to before `end`. how: GiveBack. isKept: 1: nothing else gets
   * the memory before `reusable`.
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
  /** A list is posted from its head, `wrId`, of which an earlier post has taken the first `taken` requests and refused the others. */
  postedAgain: {
    type: 52,
    about: 'queue',
    layout: layout(['wrId', 'u64'], ['queue', 'u32'], ['number', 'u32'], ['taken', 'u32'], ['reserved', 'u32']),
  },
  /**
   * num_sge is 0, and the first element of sg_list has `bytes` bytes at `address`, and this lkey. isLeft: 1: earlier sends of
   * the process had elements.
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
   * The rkey of a READ, WRITE or atomic (`opcode`: ibv_wr_opcode) of `address` is 0, and that of the member of the union that it
   * does not use, `wr.atomic` or `wr.rdma`, is `rkey`.
   */
  otherMember: {
    type: 54,
    about: 'qp',
    layout: layout(['address', 'u64'], ['number', 'u32'], ['rkey', 'u32'], ['opcode', 'u32'], ['reserved', 'u32']),
  },
  /** ibv_poll_cq is called in a signal handler. */
  polledInHandler: { type: 55, about: 'cq', layout: layout(['number', 'u32'], ['reserved', 'u32']) },
  /**
   * The completion of a request was polled whose queue pair has no requests: it was destroyed, or the process has not posted
   * to it.
   */
  polledGone: {
    type: 56,
    about: 'queue',
    isGone: true,
    layout: layout(['wrId', 'u64'], ['queue', 'u32'], ['number', 'u32']),
  },
} as const satisfies Readonly<Record<string, PreloadEventRow>>
export type PreloadEventName = keyof typeof PreloadEvents
export const preloadEventNames = Object.keys(PreloadEvents) as readonly PreloadEventName[]
