/*
 * The observation file: memory that programs under `--host` share with the command that observes them. The preload
 * library (shim/host/) writes, src/tools/observe/ reads. shim/host/records.h is generated from this file.
 *
 * The file has a header and rings. A thread claims a ring at its first record, and is the ring's only writer. A record
 * that finds no space is dropped and counted: a program never waits for its observer. `head` and `tail` count bytes and
 * never wrap. A record is contiguous, and its size is a multiple of 8; PAD fills the end of a ring.
 */
import { layout } from '../../spec/message-layout.ts'

/** Environment variables. `stacks`: present if calls and posts have stacks. `faults`: the socket for questions. */
export const ObserveEnv = {
  file: 'USERDMA_OBSERVE',
  stacks: 'USERDMA_OBSERVE_STACKS',
  faults: 'USERDMA_OBSERVE_FAULTS',
  /** Present with a flight recorder: the bytes of a process's file, a colon, and how its path begins. */
  flight: 'USERDMA_OBSERVE_FLIGHT',
} as const

/**
 * The file of a process with a flight recorder: posts and polls are kept there, and only there. A thread claims a ring
 * and overwrites its oldest records: it moves `tail` over them before it writes, so that a reader who looks at `tail`
 * again after it has copied a ring knows what of its copy is whole. Of a ring, `pid` is the thread and `ended` 1 if it
 * has ended: the next thread goes on behind its records. The last ring is that of all threads that found no other;
 * `lostTail` is its lock. `least`: bytes of the smallest file.
 */
export const FlightFile = { version: 1, rings: 16, firstRing: 4096, least: 0x10_0000 } as const

/**
 * `firstRing`: its offset; `ringHeader`: bytes of a ring before its data; `reserve`: bytes of a ring that only records
 * of descriptors and processes use: whose the later calls are is known also after a loss.
 */
export const ObserveFile = {
  version: 3,
  rings: 64,
  ringBytes: 0x8_0000,
  firstRing: 4096,
  ringHeader: 64,
  reserve: 0x4000,
} as const

/**
 * Maximum bytes of a text, bytes of all ranges of one call, ranges of one call, requests of one POST, elements of one
 * request.
 */
export const ObserveLimits = {
  textBytes: 4096,
  callBytes: 0x1_0000,
  ranges: 64,
  requests: 64,
  elements: 32,
} as const

export const RecordKind = {
  PAD: 0,
  /**
   * A stack, before the first record with its number. The text of its frames follows, as of STACK in spec/session.ts.
   */
  STACK: 1,
  /** The process has started: by fork (`fd`: the number of the parent's FORK, `fileKind`: the parent) or by exec. Its
   * name follows. */
  START: 2,
  /** The process ends by itself: a process without END was killed. */
  END: 3,
  /** The path of the file follows, of an event file the number of its context's descriptor. */
  OPEN: 4,
  CLOSE: 5,
  /**
   * A call begins, with the memory that it may read; RETURN of the same thread and number has what it may have written.
   * READ and SEND have only a RETURN.
   */
  CALL: 6,
  RETURN: 7,
  /** libibverbs has a context on a descriptor. The name of its device follows. */
  CONTEXT: 8,
  /** Requests, before they are posted. */
  POST: 9,
  /** The last requests of the thread's last POST to this queue were refused. */
  REFUSED: 10,
  /** Completions that a poll has returned. */
  POLL: 11,
  /** A CQ was armed without a call. */
  NOTIFY: 12,
  /** The program takes a queue around libibverbs' tables, so its requests are not seen. The function's name follows. */
  DIRECT: 13,
  /** `fd` was duplicated from descriptor `fileKind`. */
  DUPLICATE: 14,
  /** As OPEN, of a descriptor that another process has opened. */
  RECEIVED: 15,
  /** As RECEIVED, before the START of exec: the descriptor was open before it. */
  KEPT: 16,
  /** Another process may get the descriptor. */
  PASSED: 17,
  /** The process forks: number `fd` of its forks. A child that records nothing has no START. */
  FORK: 18,
  /** A call with an object that the program has destroyed was refused. The function's name follows. */
  GONE: 19,
  /**
   * A library refused a call itself (`refusedByLibrary` in spec/preload-events.ts). The thread's stack is that of the
   * call.
   */
  REFUSAL: 20,
  /**
   * A mistake in a batch of ibv_wr_*: an `openRecord` with the context's descriptor, and `batchMistaken` of
   * preload-events.ts.
   */
  BATCH: 21,
  /**
   * Calls on a queue in a wrong order: an `openRecord` with the context's descriptor, and `misordered` of
   * preload-events.ts.
   */
  ORDER: 22,
} as const

/** What a descriptor is. COMPLETIONS and ASYNC: of the events of a context. */
export const FileKind = { VERBS: 1, CM: 2, MAD: 3, NETLINK: 4, COMPLETIONS: 5, ASYNC: 6 } as const

/** By which kind of function a call was made. READ: also a receive from a socket. */
export const CallEntry = { IOCTL: 1, WRITE: 2, READ: 3, SEND: 4 } as const

export const RangeDirection = { IN: 0, OUT: 1 } as const

/**
 * What a program asks its observer before it acts (`--allow-host-faults`): bits of `asks` in the file's head, set while
 * a fault rule may act. A question is one connection to the socket: `question`, and for COMPLETIONS `count` of
 * `polledCompletion`. The answer is `answer`, and for COMPLETIONS as many of `completionVerdict`. Without an answer
 * there is no fault. The records of what is asked about are complete before the question.
 */
export const AskKind = { CALL: 1, POST: 2, COMPLETIONS: 4 } as const

/** Structs of the file. Every record begins with `record`. */
export const ObserveStructs = {
  observeHead: layout(
    ['version', 'u32'],
    ['rings', 'u32'],
    ['ringBytes', 'u32'],
    /** Bits of AskKind. */
    ['asks', 'u32'],
    /** Records of threads without a ring, which are dropped. */
    ['lost', 'u64'],
  ),
  observeRing: layout(
    /** 0: free. */
    ['pid', 'u32'],
    /** 1: its thread or program has ended. The observer frees the ring when it is empty. */
    ['ended', 'u32'],
    ['head', 'u64'],
    ['tail', 'u64'],
    /** Dropped records. */
    ['lost', 'u64'],
    /** `head` at the first dropped record since `tail` changed, and that `tail`. */
    ['lostAt', 'u64'],
    ['lostTail', 'u64'],
  ),
  flightHead: layout(
    ['version', 'u32'],
    ['pid', 'u32'],
    ['ringBytes', 'u32'],
    /** 1: nothing is recorded until the observer has copied the rings. Set with `trigger`, cleared by the observer. */
    ['frozen', 'u32'],
    /** Counts completions in error, but for flushed ones. */
    ['trigger', 'u32'],
    ['reserved', 'u32'],
    /** Records that were dropped: while frozen, or because the shared ring was busy. */
    ['lost', 'u64'],
  ),
  record: layout(
    ['size', 'u32'],
    ['kind', 'u32'],
    /** Nanoseconds of CLOCK_MONOTONIC, when the record was complete. */
    ['time', 'u64'],
    ['tid', 'u32'],
    /** Number of a stack of the process; 0: none. */
    ['stack', 'u32'],
  ),
  openRecord: layout(['fd', 's32'], ['fileKind', 'u32']),
  callRecord: layout(
    ['request', 'u64'],
    ['argument', 'u64'],
    /** Of a RETURN: the result, or a negative errno. */
    ['result', 's64'],
    /** Of READ and SEND: when they began, as `time` of the record. */
    ['started', 'u64'],
    ['fd', 's32'],
    ['entry', 'u32'],
    ['ranges', 'u32'],
    ['fileKind', 'u32'],
    /** Counts the calls of a thread. */
    ['number', 'u32'],
    ['reserved', 'u32'],
  ),
  rangeRecord: layout(['address', 'u64'], ['length', 'u32'], ['direction', 'u32']),
  postRecord: layout(
    ['fd', 's32'],
    /** PostQueue. */
    ['queue', 'u32'],
    /** The QPN, or the handle of the SRQ. */
    ['number', 'u32'],
    ['count', 'u32'],
    /** Of REFUSED. */
    ['error', 's32'],
    ['reserved', 'u32'],
  ),
  /** As `refusedByLibrary` in spec/preload-events.ts. `fd`: of the context; −1: none. */
  refusalRecord: layout(
    ['fd', 's32'],
    ['error', 'u32'],
    ['object', 'u64'],
    ['fact0', 'u64'],
    ['fact1', 'u64'],
    ['fact2', 'u64'],
    ['fact3', 'u64'],
    ['function', 40],
  ),
  requestRecord: layout(
    ['wrId', 'u64'],
    ['remoteAddress', 'u64'],
    /** ibv_wr_opcode; −1: a receive. */
    ['opcode', 's32'],
    ['flags', 'u32'],
    ['rkey', 'u32'],
    ['elements', 'u32'],
    ['destQpn', 'u32'],
    ['qkey', 'u32'],
  ),
  elementRecord: layout(['address', 'u64'], ['length', 'u32'], ['lkey', 'u32']),
  pollRecord: layout(['fd', 's32'], ['cq', 'u32'], ['count', 'u32'], ['solicitedOnly', 'u32']),
  completionRecord: layout(
    ['wrId', 'u64'],
    ['status', 'u32'],
    ['opcode', 'u32'],
    ['vendorErr', 'u32'],
    ['bytes', 'u32'],
    ['qpn', 'u32'],
    ['flags', 'u32'],
  ),
  /**
   * As `usedGone` in spec/preload-events.ts. age: nanoseconds since the object was destroyed; of ARGUMENT and GARBAGE,
   * the pointer.
   */
  goneRecord: layout(
    ['age', 'u64'],
    ['objectKind', 'u32'],
    ['number', 'u32'],
    ['use', 'u32'],
    ['destroyed', 'u32'],
    ['owner', 'u32'],
    ['reserved', 'u32'],
  ),
  question: layout(
    /** AskKind. */
    ['kind', 'u32'],
    ['pid', 'u32'],
    ['tid', 'u32'],
    ['fd', 's32'],
    /** Of POST: as in `postRecord`. */
    ['queue', 'u32'],
    ['number', 'u32'],
    /** Requests of the POSTs, or completions. */
    ['count', 'u32'],
    ['reserved', 'u32'],
  ),
  answer: layout(
    /** Of CALL and POST; 0: none. */
    ['error', 's32'],
    /** Of POST: the first refused request. */
    ['index', 'u32'],
    /** Nanoseconds before the call. */
    ['delay', 'u64'],
  ),
  polledCompletion: layout(
    ['wrId', 'u64'],
    ['opcode', 'u32'],
    ['qpn', 'u32'],
    /** ibv_wc_status. */
    ['status', 'u32'],
    /** 1: it has succeeded, and the library can move the queue pair to ERR. */
    ['canFail', 'u32'],
  ),
  completionVerdict: layout(
    /** The status that the program gets; 0: the adapter's. */
    ['status', 'u32'],
    ['vendorErr', 'u32'],
    /** 1: the queue pair goes to ERR. */
    ['fails', 'u32'],
    ['reserved', 'u32'],
  ),
} as const
