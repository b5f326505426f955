/*
 * The session protocol between a process (its shim, or a tool of ours) and the daemon, as data
 * (docs/decisions/sessions.md).
 *
 * Carrier: AF_UNIX SOCK_SEQPACKET, so a message is one packet, and descriptors ride on it (SCM_RIGHTS). Little-endian.
 * Each message is the header below and a body. A process has one session; calls on it are strictly request and reply,
 * matched by `serial`. How a system call was caught is not part of the protocol. `shim/protocol.h` is generated from
 * this file.
 *
 * - HELLO opens a session; the reply carries the page with the "parked" word (read-only for the client) and the folder
 *   in which the daemon keeps the sysfs and device tree that paths are rewritten into. A client whose memory the daemon
 *   may not access can pass a memory file with it (`PassedFile`): then addresses in its calls are offsets in that. Others
 *   can pass a userfaultfd (HelloWants.UNMAPPING).
 * - OPEN opens a device node: the reply carries the context's memory file (what the program sees as its descriptor: the
 *   rings lie in it at their mmap offsets) and the context's doorbell socket. The context lives until every copy of
 *   every doorbell socket is closed. The node SYSTEM_NODE is the system-wide device, which lists the others (R13).
 *   CM_NODE has neither: the reply carries a channel's socket alone, on which calls are made as on other descriptors.
 * - ATTACH makes a context known to another session: after fork, or for a descriptor that was passed or inherited. The
 *   daemon checks that descriptor `fd` of the calling process really is the context's memory file. The header is all
 *   there is of it; its `context` is the number that the process inherited, 0 if it does not know one. The reply is
 *   that of OPEN, with the doorbell socket alone.
 * - IOCTL and WRITE forward a system call; the daemon reads and writes the caller's memory itself. The reply's installs
 *   say where the caller wants the numbers of new descriptors, which ride on the reply in the same order.
 *   With context 0 the call is one on descriptor `fd` itself, an event descriptor or one of a driver (R28, R37): the
 *   daemon looks which one it is, so that copies, also in other processes, need no bookkeeping.
 * - MAP asks what mmap(2) on a driver's descriptor maps: `ret` is the offset in the file that rides on the reply.
 * - NETLINK: what a program does to a socket of NETLINK_RDMA beside receiving (`NetlinkOperation`). The socket is one
 *   end
 *   of a pair, on which each message is a datagram of netlink; the daemon looks which one descriptor `fd` is. The reply is
 *   that of IOCTL; after OPEN the program's end rides on it.
 * - REFRESH: the client is about to read files of counters below the folder; the reply comes when they are up to date,
 *   or
 *   with an errno if they cannot be.
 *   It has the header alone, and the reply is that of IOCTL with 0.
 * - WRITTEN asks where the daemon has written in the program's memory since it was asked last, and which regions were
 *   registered that peers may write to at any time: `ret` of the reply is the number of `range`s behind it, as many as
 *   there are or SessionLimits.ranges. It has the header alone. valgrind wants to know (shim/valgrind.c).
 * - On a doorbell socket only 4-byte tokens travel (the QP's handle); any token makes the daemon look at all send
 *   queues of the context.
 * - The rest is for tools; bodies and replies are JSON text.
 */

export const SESSION_VERSION = 3

/** Where the session socket of a client is found, and what a traced program is tagged with. */
export const SessionEnv = { socket: 'USERDMA_SOCKET', tag: 'USERDMA_TAG' } as const

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
  /** Tools: JSON request and reply. */
  TOOL: 16,
  /** Daemon to a subscribed tool, unasked: one traced call, or a part of a long one (uapi/tool.ts). */
  TRACE: 17,
  /** Bit of a reply's type: REPLY | the request's type. */
  REPLY: 0x8000,
} as const

/** Node of the system-wide device, and its name in /dev/infiniband; no other device has them. */
export const SYSTEM_NODE = 0x7fffffff
export const SYSTEM_NAME = 'userdma'

/** Node of the RDMA connection manager: each opening gives a channel of events (class `cm_channel`), and no context. */
export const CM_NODE = 0x7ffffffe
export const CM_NAME = 'rdma_cm'

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

/** Structs of the protocol: the header of every message, then the bodies. */
export const Messages = {
  header: layout(
    ['type', 'u32'],
    /** Bytes of the whole message, header included. */
    ['size', 'u32'],
    /** Chosen by the client, repeated in the reply. */
    ['serial', 'u32'],
    /** The daemon's number of the context a call is for; 0 for none. */
    ['context', 'u32'],
    /**
     * The descriptor number, process and thread id as the program sees them: for the trace only (ATTACH: the descriptor
     * to check).
     */
    ['fd', 's32'],
    ['pid', 'u32'],
    ['tid', 'u32'],
    ['reserved', 'u32'],
  ),
  /** wants: what replies are to have besides (`HelloWants`). */
  hello: layout(['version', 'u32'], ['wants', 'u32'], ['tag', 64]),
  /**
   * error: 0 or a positive errno; EACCES: the daemon may not access the process's memory, so that only a tool's
   * requests are answered; EPERM: the daemon does not serve this user, and hangs up; EINVAL: the memory file that was
   * passed cannot be used, or there is one already.
   * Descriptors: the parked page, unless there is an error. `root` is NUL-terminated.
   */
  helloReply: layout(['version', 'u32'], ['error', 's32'], ['root', 240]),
  /** Device node number N of /dev/infiniband/uverbsN, SYSTEM_NODE or CM_NODE. wants: OpenWants; unknown bits are ignored. */
  open: layout(['node', 'u32'], ['wants', 'u32']),
  /** Descriptors: OPEN: memory file, doorbell socket; ATTACH: doorbell socket. `rdev` as stat shows it. */
  openReply: layout(['error', 's32'], ['context', 'u32'], ['rdev', 'u64'], ['inode', 'u64']),
  /** request: the second argument of ioctl(2), of which Linux takes 32 bits; argument: the third. */
  ioctl: layout(['request', 'u32'], ['reserved', 'u32'], ['argument', 'u64']),
  write: layout(['buffer', 'u64'], ['length', 'u64']),
  /**
   * ret ≥ 0: the call's value, < 0: minus errno. Followed by `installCount` install structs; after a refusal by the reason
   * in UTF-8, for a client that wants reasons.
   */
  callReply: layout(['ret', 's64'], ['installCount', 'u32'], ['reserved', 'u32']),
  /** `kind`: see InstallKind. */
  install: layout(['address', 'u64'], ['width', 'u32'], ['kind', 'u32']),
  /** `extra` and `argument`: see NetlinkOperation. */
  netlink: layout(['operation', 'u32'], ['extra', 'u32'], ['argument', 'u64']),
  /** Bytes of the program's memory. */
  range: layout(['address', 'u64'], ['length', 'u64']),
  /** As the arguments of mmap(2); `protection`: PROT_… */
  map: layout(['offset', 'u64'], ['length', 'u64'], ['protection', 'u32'], ['reserved', 'u32']),
} as const

/**
 * Requests: the body of each and of its reply, by their names in `Messages`; null for the header alone. A reply of
 * `callReply` may be longer, as that says. The codec in uapi/session-codec.ts is made from this table.
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
} as const satisfies Partial<
  Record<keyof typeof MessageType, { request: keyof typeof Messages | null; reply: keyof typeof Messages }>
>

/**
 * Bits of `hello.wants`. UNMAPPING: the descriptor that rides on it is a new userfaultfd of the program, by which the
 * daemon learns what the program unmaps, and no memory file. WRITTEN: the daemon keeps in mind where it writes.
 */
export const HelloWants = { REASONS: 1, UNMAPPING: 2, WRITTEN: 4 } as const

/** Bits of `open.wants`: rings may lie packed, since the client looks into their headers for their elements. */
export const OpenWants = { PACKED_RINGS: 1 } as const

/**
 * What a new descriptor is: one of events, one of a driver (class `driver_ops`), a socket of NETLINK_RDMA, or a channel
 * of connection management (`cm_channel`).
 */
export const InstallKind = { EVENT: 0, DRIVER: 1, NETLINK: 2, CM: 3 } as const

/** What is asked about a socket of NETLINK_RDMA: `operation` of `netlink`, with `extra`, `argument`, and what is answered. */
export const NetlinkOperation = {
  /** A new one; extra: SOCK_RAW or SOCK_DGRAM. Its end is passed on. */
  OPEN: 0,
  /** `extra` bytes at address `argument` are sent; once this is answered the daemon has answered them. */
  SEND: 1,
  /** A port (low 32 bits of the argument; 0: any) and groups (high 32 bits). */
  BIND: 2,
  /** Answers the port (low 32 bits; 0: none yet) and groups (high bits). */
  NAME: 3,
  /** Option `extra` of level SOL_NETLINK becomes `argument`. */
  SET: 4,
  /** Answers option `extra`; of NETLINK_LIST_MEMBERSHIPS the groups as bits. */
  GET: 5,
  /** Answers the type of the socket. */
  TYPE: 6,
} as const

/**
 * How a program recognises a descriptor of ours that another one has given to it: a send timeout, which nothing else
 * needs there. Seconds: of an event or driver socket `FIRST` and its InstallKind, of a doorbell socket (marked by the
 * shim) the context's inode; and a fraction that kernels of any timer frequency store exactly.
 */
export const DescriptorMark = { FIRST: 0x1_7573_6572, MICROSECONDS: 500000 } as const

/** Most descriptors, most bytes and most ranges of one message. */
export const SessionLimits = { descriptors: 8, bytes: 65536, ranges: 64 } as const

/** Words (u32) of the parked page. The daemon writes, clients only read. */
export const ParkedPage = {
  /** 1: the daemon sleeps, a doorbell must be rung; 0: it is awake and will look at the queues by itself. */
  PARKED: 0,
  bytes: 4096,
} as const

/**
 * A context's memory file: its first page stays unused, so that a stray write(2) hits no ring; then rings at their mmap
 * offsets, in chunks that are mapped as a whole.
 */
export const ContextFile = { bytes: 2 ** 36, firstRing: 4096, chunk: 2 ** 20 } as const

/** A memory file that a client passes: its most bytes. It is to be sealed against shrinking and growing. */
export const PassedFile = { bytes: 2 ** 24 } as const
