/*
 * The session protocol between a process (its shim, or a tool of ours) and the daemon, as data
 * (docs/decisions/sessions.md).
 *
 * Transport: AF_UNIX SOCK_SEQPACKET; a message is one packet, with descriptors attached (SCM_RIGHTS). Little-endian.
 * Each message is the header below and a body. A process has one session; calls are strictly request and reply, matched
 * by `serial`. How the shim intercepts system calls is not part of the protocol. `shim/protocol.h` is generated from
 * this file.
 *
 * - HELLO opens a session. The reply carries the page with the "parked" word (read-only for the client) and the folder
 *   of the daemon's sysfs and device tree, into which the client rewrites paths. A client whose memory the daemon may
 *   not access can attach a memory file (`PassedFile`); addresses in its calls are then offsets in that file. Other
 *   clients can attach a userfaultfd (HelloWants.UNMAPPING).
 * - OPEN opens a device node. The reply carries the context's memory file (the program's descriptor: the rings are in
 *   it at their mmap offsets) and the context's doorbell socket. The context exists until every copy of every doorbell
 *   socket is closed. SYSTEM_NODE is the system-wide device, which lists the others (R13). CM_NODE and the nodes from
 *   UMAD_NODES on have no context: the reply carries a channel's socket only, on which calls are made as on other
 *   descriptors.
 * - ATTACH makes a context known to another session: after fork, or for a passed or inherited descriptor. The daemon
 *   checks that descriptor `fd` of the calling process is the context's memory file. It has the header only, whose
 *   `context` is the inherited number, or 0 if unknown. The reply is that of OPEN, with the doorbell socket only.
 * - IOCTL and WRITE forward a system call; the daemon accesses the caller's memory itself. The reply's installs say
 *   where the caller wants the numbers of the new descriptors, which are attached in the same order. With context 0 the
 *   call is on descriptor `fd` itself, an event or driver descriptor (R28, R37); the daemon identifies it, so that
 *   duplicates, also in other processes, need no bookkeeping.
 * - READ forwards a read(2) of a channel of management datagrams, as WRITE does a write(2).
 * - MAP resolves mmap(2) on a driver's descriptor: `ret` is the offset in the file attached to the reply.
 * - NETLINK: all operations on a socket of NETLINK_RDMA except receiving (`NetlinkOperation`). The socket is one end of
 *   a pair on which each message is a netlink datagram; the daemon identifies descriptor `fd`. The reply is that of
 *   IOCTL; after OPEN the program's end is attached.
 * - REFRESH: the client is about to read counter files below the folder. The reply comes when they are up to date, or
 *   with an errno if they cannot be updated. It has the header only; the reply is that of IOCTL with 0.
 * - WRITTEN asks which ranges of the program's memory the daemon has written since the last WRITTEN, and which regions
 *   peers may write at any time. `ret` of the reply is the number of `range`s that follow, at most
 *   SessionLimits.ranges. It has the header only. Used under valgrind (shim/check/valgrind.c).
 * - STACK names a stack of the program, for `userdma check`: later headers and posts refer to it by its id. Frames are
 *   lines, innermost first: `FILE+0xOFFSET SYMBOL`; the offset is the one before relocation. The reply is that of IOCTL
 *   with 0. A client records stacks if its environment has `SessionEnv.stacks`.
 * - REFUSED reports, for `userdma check`, that a post was refused in the program itself, without a call. The reply is
 *   that of IOCTL with 0.
 * - FORK reports, for `userdma check`, that the program is about to fork without ibv_fork_init. It has the header only;
 *   the reply is that of IOCTL with 0.
 * - MISUSE reports, for `userdma check`, what happened in the program itself to the memory of a request, or to a queue
 *   (`MisuseKind`). The reply is that of IOCTL with 0.
 * - A doorbell socket carries 4-byte tokens (the QP's handle); any token makes the daemon poll all send queues of the
 *   context.
 * - The other messages are for tools; bodies and replies are JSON text.
 */

export const SESSION_VERSION = 3

/**
 * Environment variables: the path of a client's session socket, the tag of a traced program, and the records that the
 * program makes of itself: `1` stacks, `2` also the event log.
 */
export const SessionEnv = { socket: 'USERDMA_SOCKET', tag: 'USERDMA_TAG', stacks: 'USERDMA_STACKS' } as const

export const MessageType = {
  HELLO: 1,
  OPEN: 2,
  ATTACH: 3,
  IOCTL: 4,
  WRITE: 5,
  REFRESH: 6,
  MAP: 7,
  NETLINK: 8,
  WRITTEN: 9,
  READ: 10,
  STACK: 11,
  REFUSED: 12,
  FORK: 13,
  MISUSE: 14,
  /** Tools: JSON request and reply. */
  TOOL: 16,
  /** Daemon to a subscribed tool, unsolicited: one traced call, or a part of a long one (uapi/tool.ts). */
  TRACE: 17,
  /** Bit of a reply's type: REPLY | the request's type. */
  REPLY: 0x8000,
} as const

/** Node number of the system-wide device, and its name in /dev/infiniband. */
export const SYSTEM_NODE = 0x7fffffff
export const SYSTEM_NAME = 'userdma'

/**
 * Node number of the RDMA connection manager: each open creates an event channel (class `cm_channel`) and no context.
 */
export const CM_NODE = 0x7ffffffe
export const CM_NAME = 'rdma_cm'

/**
 * Nodes of management datagrams, by the node of their device: each opening gives a channel (class `mad_channel`), and
 * no context of uverbs.
 */
export const UMAD_NODES = 0x4000_0000
export const UMAD_NAME = 'umad'

/** Integers, and the type of `[name, length]`: NUL-terminated text in `length` bytes. */
export type IntegerType = 'u32' | 's32' | 'u64' | 's64'
export type FieldType = IntegerType | 'bytes'

/** One field of a message struct; `size` in bytes. */
export interface MessageField {
  readonly name: string
  readonly offset: number
  readonly type: FieldType
  readonly size: number
}

type Declared = readonly (readonly [name: string, type: IntegerType | number])[]

/** A struct; `D` carries the declared names and types for `MessageValues`. */
export interface MessageLayout<D extends Declared = Declared> {
  readonly declared: D
  readonly fields: readonly MessageField[]
  readonly size: number
}

type FieldName<M extends MessageLayout> = M['declared'][number][0]

/** The values of a struct's fields: text, big integers for 64 bits, else numbers. Reserved fields are always 0. */
export type MessageValues<M extends MessageLayout> = {
  -readonly [F in M['declared'][number] as Exclude<F[0], 'reserved'>]: F[1] extends number
    ? string
    : F[1] extends 'u64' | 's64'
      ? bigint
      : number
}

const SIZES: Record<IntegerType, number> = { u32: 4, s32: 4, u64: 8, s64: 8 }

/**
 * Lays fields out one after another; a `[name, length]` pair is a byte array. All fields end up naturally aligned,
 * which a test checks.
 */
const layout = <const D extends Declared>(...declared: D): MessageLayout<D> => {
  let size = 0
  const fields = declared.map(([name, type]): MessageField => {
    const field: MessageField =
      typeof type === 'number'
        ? { name, offset: size, type: 'bytes', size: type }
        : { name, offset: size, type, size: SIZES[type] }
    size += field.size
    return field
  })
  return { declared, fields, size }
}

/** Offsets of a struct's fields, in bytes. */
export const offsetsOf = <M extends MessageLayout>({ fields }: M): Readonly<Record<FieldName<M>, number>> =>
  Object.fromEntries(fields.map(({ name, offset }) => [name, offset])) as Record<FieldName<M>, number>

/** Structs of the protocol: the header of every message, then the bodies. */
export const Messages = {
  header: layout(
    ['type', 'u32'],
    /** Bytes of the whole message, including the header. */
    ['size', 'u32'],
    /** Chosen by the client, repeated in the reply. */
    ['serial', 'u32'],
    /** The daemon's number of the call's context; 0 for none. */
    ['context', 'u32'],
    /**
     * The descriptor number, process and thread id in the program; for the trace only, except ATTACH, which checks the
     * descriptor.
     */
    ['fd', 's32'],
    ['pid', 'u32'],
    ['tid', 'u32'],
    /** The stack of the call, as STACK named it; 0: none. */
    ['stack', 'u32'],
  ),
  /** wants: additions to replies (`HelloWants`). */
  hello: layout(['version', 'u32'], ['wants', 'u32'], ['tag', 64]),
  /**
   * error: 0 or a positive errno. EACCES: the daemon may not access the process's memory and serves a tool's requests
   * only; EPERM: the daemon does not serve this user, and closes the session; EINVAL: the attached memory file is
   * unusable, or there is one already. Descriptors: the parked page, unless there is an error. `root` is
   * NUL-terminated.
   */
  helloReply: layout(['version', 'u32'], ['error', 's32'], ['root', 240]),
  /**
   * `node`: N of /dev/infiniband/uverbsN, UMAD_NODES + N of umadN, SYSTEM_NODE or CM_NODE. `wants`: OpenWants; unknown
   * bits are ignored.
   */
  open: layout(['node', 'u32'], ['wants', 'u32']),
  /** Descriptors: OPEN: memory file, doorbell socket; ATTACH: doorbell socket. `rdev` as in stat(2). */
  openReply: layout(['error', 's32'], ['context', 'u32'], ['rdev', 'u64'], ['inode', 'u64']),
  /** request: the second argument of ioctl(2), 32 bits as in Linux; argument: the third. */
  ioctl: layout(['request', 'u32'], ['reserved', 'u32'], ['argument', 'u64']),
  write: layout(['buffer', 'u64'], ['length', 'u64']),
  /**
   * ret ≥ 0: the call's result, < 0: negative errno. Followed by `installCount` install structs or, after a refusal, by
   * the reason in UTF-8 for clients that want reasons.
   */
  callReply: layout(['ret', 's64'], ['installCount', 'u32'], ['reserved', 'u32']),
  /** `kind`: see InstallKind. */
  install: layout(['address', 'u64'], ['width', 'u32'], ['kind', 'u32']),
  /** `extra` and `argument`: see NetlinkOperation. */
  netlink: layout(['operation', 'u32'], ['extra', 'u32'], ['argument', 'u64']),
  /** `frames`: NUL-terminated. */
  stack: layout(['id', 'u32'], ['reserved', 'u32'], ['frames', 4088]),
  /** An entry of the post log (`PostLog`). `queue`: PostQueue; `number`: the QPN, or the handle of the SRQ. */
  post: layout(
    ['wrId', 'u64'],
    ['queue', 'u32'],
    ['number', 'u32'],
    ['pid', 'u32'],
    ['stack', 'u32'],
    ['reserved', 'u64'],
  ),
  /**
   * An entry of the event log (`EventLog`). `sequence`: its number + 1, written last. `time`, and `acquired`, when the
   * thread began or last waited for others by other means than RDMA: nanoseconds of CLOCK_MONOTONIC. `kind`: EventKind.
   * `number`: that of the queue, as in `post`, or the handle of the CQ. `count`: requests or completions; 0: unknown.
   * `wrId`: that of the first request, or of the last completion.
   */
  event: layout(
    ['sequence', 'u64'],
    ['time', 'u64'],
    ['acquired', 'u64'],
    ['wrId', 'u64'],
    ['pid', 'u32'],
    ['tid', 'u32'],
    ['kind', 'u32'],
    ['number', 'u32'],
    ['count', 'u32'],
    ['stack', 'u32'],
    ['reserved', 'u64'],
  ),
  /** The beginning of the event log: `head` entries were claimed by programs, `tail` were read by the daemon. */
  eventLog: layout(['head', 'u64'], ['tail', 'u64']),
  /**
   * queue, number: as in `post`; error: a positive errno; state: the queue pair's, as libibverbs knows it. The request,
   * all 0 if it is not known: `opcode` (ibv_wr_opcode), `flags` (ibv_send_flags), scatter/gather elements and their
   * bytes, the low bits of the remote address of an atomic. unsignaled: the last sends that are outstanding and lack
   * IBV_SEND_SIGNALED.
   */
  refused: layout(
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
    ['reserved', 'u32'],
  ),
  /**
   * kind: MisuseKind. The request: its queue and number as in `post`, wrId, its index in the queue, from 0, and the
   * address of its memory. more: further ranges of memory of which the same is true. age: nanoseconds since it happened.
   */
  misuse: layout(
    ['wrId', 'u64'],
    ['address', 'u64'],
    ['age', 'u64'],
    ['kind', 'u32'],
    ['queue', 'u32'],
    ['number', 'u32'],
    ['index', 'u32'],
    ['more', 'u32'],
    ['reserved', 'u32'],
  ),
  /** A range of the program's memory, in bytes. */
  range: layout(['address', 'u64'], ['length', 'u64']),
  /** The arguments of mmap(2); `protection`: PROT_… */
  map: layout(['offset', 'u64'], ['length', 'u64'], ['protection', 'u32'], ['reserved', 'u32']),
} as const

/**
 * Requests: the body of each and of its reply, by name in `Messages`; null: header only. A `callReply` may be longer,
 * as described there. The codec in uapi/session-codec.ts is generated from this table.
 */
export const Exchanges = {
  HELLO: { request: 'hello', reply: 'helloReply' },
  OPEN: { request: 'open', reply: 'openReply' },
  ATTACH: { request: null, reply: 'openReply' },
  IOCTL: { request: 'ioctl', reply: 'callReply' },
  WRITE: { request: 'write', reply: 'callReply' },
  REFRESH: { request: null, reply: 'callReply' },
  MAP: { request: 'map', reply: 'callReply' },
  NETLINK: { request: 'netlink', reply: 'callReply' },
  WRITTEN: { request: null, reply: 'callReply' },
  READ: { request: 'write', reply: 'callReply' },
  STACK: { request: 'stack', reply: 'callReply' },
  REFUSED: { request: 'refused', reply: 'callReply' },
  FORK: { request: null, reply: 'callReply' },
  MISUSE: { request: 'misuse', reply: 'callReply' },
} as const satisfies Partial<
  Record<keyof typeof MessageType, { request: keyof typeof Messages | null; reply: keyof typeof Messages }>
>

/**
 * Bits of `hello.wants`. UNMAPPING: the attached descriptor is not a memory file, but a new userfaultfd of the program,
 * which reports to the daemon the memory that the program unmaps. WRITTEN: the daemon records the ranges that it
 * writes. EVENTS: the client writes the event log of its contexts.
 */
export const HelloWants = { REASONS: 1, UNMAPPING: 2, WRITTEN: 4, EVENTS: 8 } as const

/** Bits of `open.wants`: the client supports packed rings, because it finds their elements through their headers. */
export const OpenWants = { PACKED_RINGS: 1 } as const

/**
 * The kind of a new descriptor: of events, of a driver (class `driver_ops`), a NETLINK_RDMA socket, a connection
 * management channel (`cm_channel`), or a channel of management datagrams (`mad_channel`).
 */
export const InstallKind = { EVENT: 0, DRIVER: 1, NETLINK: 2, CM: 3, UMAD: 4 } as const

/** Operations on a NETLINK_RDMA socket: `operation` of `netlink`, with `extra` and `argument`, and the answer. */
export const NetlinkOperation = {
  /** Creates one; extra: SOCK_RAW or SOCK_DGRAM. The client's end is attached to the reply. */
  OPEN: 0,
  /** Sends `extra` bytes at address `argument`; the reply follows the daemon's netlink answer. */
  SEND: 1,
  /** Binds a port (low 32 bits of the argument; 0 means any) and groups (high 32 bits). */
  BIND: 2,
  /** Returns the port (low 32 bits; 0: not bound) and groups (high 32 bits). */
  NAME: 3,
  /** Sets option `extra` of level SOL_NETLINK to `argument`. */
  SET: 4,
  /** Answers option `extra`; for NETLINK_LIST_MEMBERSHIPS the groups as bits. */
  GET: 5,
  /** Returns the socket's type. */
  TYPE: 6,
} as const

/**
 * The mark of a descriptor of ours, for programs to which another program passes it: a send timeout, which these
 * sockets do not use otherwise. Its seconds are `FIRST` + InstallKind for an event or driver socket, and the context's
 * inode for a doorbell socket (set by the shim); its fraction is one that kernels of any timer frequency store exactly.
 */
export const DescriptorMark = { FIRST: 0x1_7573_6572, MICROSECONDS: 500000 } as const

/** Maximum descriptors, bytes and ranges of one message. */
export const SessionLimits = { descriptors: 8, bytes: 65536, ranges: 64 } as const

/** Words (u32) of the parked page. The daemon writes, clients only read. */
export const ParkedPage = {
  /** 1: the daemon sleeps and needs a doorbell; 0: it is awake and polls the queues. */
  PARKED: 0,
  bytes: 4096,
} as const

/**
 * A context's memory file: the first page is unused, so that a stray write(2) damages no ring; then rings at their mmap
 * offsets, in chunks that are mapped as a whole.
 */
export const ContextFile = { bytes: 2 ** 36, firstRing: 4096, chunk: 2 ** 20 } as const

/**
 * The post log, with the stacks of posted requests: a table of `post`s in the context's memory file. `postSlot` gives
 * the slot of a post; a later post replaces an earlier one. Written only by clients that record stacks.
 */
export const PostLog = { offset: 2 ** 36 - 2 ** 20, entries: 2 ** 15 } as const

/**
 * The log of a program's posts and polls, in order: a ring of `event`s in the context's memory file, behind an
 * `eventLog`. A program that finds the ring full waits a moment, then overwrites. Written only by clients that record
 * events. `bytes`: up to the end of the post log, which clients map with it.
 */
export const EventLog = { offset: 2 ** 36 - 2 ** 22, firstEntry: 4096, entries: 2 ** 14, bytes: 2 ** 22 } as const

/**
 * Posts, by their queues (PostQueue); polls of a CQ that found completions; and posts that were refused after they were
 * noted, `REFUSED` | PostQueue.
 */
export const EventKind = { POLL: 8, REFUSED: 16 } as const

/**
 * While the request was outstanding its memory was FREED, the stack frame of its memory RETURNED, or the program FORKED.
 * INHERITED: a queue or CQ (EventKind) of a context that a parent of the process opened is used.
 */
export const MisuseKind = { FREED: 1, RETURNED: 2, FORKED: 3, INHERITED: 4 } as const

/**
 * RECEIVE and SHARED: receive requests of a queue pair, and of an SRQ. BATCH: the last ibv_wr_complete, for any wr_id.
 */
export const PostQueue = { SEND: 1, RECEIVE: 2, SHARED: 3, BATCH: 4 } as const

/** The slot of a post: a multiplicative hash of its queue, number and wr_id, as in the shim. */
export const postSlot = (queue: number, number: number, wrId: bigint): number => {
  const mixed = Math.imul(Number(wrId & 0xffffffffn) ^ Number(wrId >> 32n) ^ Math.imul(number, 31) ^ queue, 0x9e3779b1)
  return (mixed >>> 0) >>> (32 - Math.log2(PostLog.entries))
}

/** A memory file attached by a client: its maximum bytes. It must be sealed against shrinking and growing. */
export const PassedFile = { bytes: 2 ** 24 } as const
