/*
 * The session protocol between the daemon and its clients: the shim of a program, the TypeScript library, and userdma's
 * own commands (docs/decisions/sessions.md). `shim/protocol.h` is generated from this file.
 *
 * Transport: AF_UNIX SOCK_SEQPACKET. A message is one packet, with descriptors attached (SCM_RIGHTS): a header
 * (`Messages.header`) and, for most types, a body. Little-endian. Each request has one reply with the same `serial`.
 * The shim opens one session per process.
 *
 * - HELLO opens a session. The reply carries the parked page (`ParkedPage`) and the folder of the daemon's sysfs and
 *   device tree, into which the client rewrites paths. A client whose memory the daemon may not access can attach a
 *   memory file (`PassedFile`); addresses in its calls are then offsets in that file. Other clients can attach a
 *   userfaultfd (HelloWants.UNMAPPING).
 * - OPEN opens a device node. The reply carries the context's memory file and doorbell socket. The memory file is the
 *   program's descriptor, with the rings at their mmap offsets. The context exists while a program has the memory file
 *   or a doorbell socket. SYSTEM_NODE is the system-wide device, which lists the devices (R13). CM_NODE and umad nodes
 *   (UMAD_NODES) have no context: the reply carries the socket of a channel, which is the program's descriptor, and
 *   calls on that descriptor are forwarded with context 0, or with the number in the reply
 *   (CHANNEL_NUMBERS).
 * - ATTACH makes a context known to another session, after fork or for a passed or inherited descriptor. `context` of
 *   the header is the inherited number, or 0 if unknown. The daemon checks that descriptor `fd` of the calling process
 *   is the context's memory file. The reply is that of OPEN, with the doorbell socket only.
 * - IOCTL and WRITE forward a system call; the daemon accesses the caller's memory itself. New descriptors are attached
 *   to the reply. For each of them, in the same order, an `install` struct says where in the caller's memory the
 *   descriptor's number belongs. With context 0 the call is on descriptor `fd`, an fd object (R28, R37). The daemon
 *   inspects that descriptor of the process, so that clients need not track duplicates.
 * - READ forwards a read(2) of a channel of management datagrams.
 * - MAP resolves mmap(2) on a driver's descriptor: `ret` is the offset in the file attached to the reply.
 * - NETLINK forwards every operation on a NETLINK_RDMA socket except receiving (`NetlinkOperation`). The program's
 *   socket is one end of a socket pair, from which the program receives netlink datagrams. The daemon finds the other
 *   end by inspecting descriptor `fd`. After NetlinkOperation.OPEN the program's end is attached to the reply.
 * - REFRESH: the client is about to read counter files below the folder of the daemon's tree. The reply comes when the
 *   files are up to date.
 * - WRITTEN asks which ranges of the program's memory the daemon has written since the last WRITTEN, and which regions
 *   peers may write at any time. `ret` of the reply is the number of `writtenRange`s that follow, at most
 *   SessionLimits.ranges; the next WRITTEN gets the rest. Used under valgrind (shim/session/written.c).
 * - STACK, BENIGN, UNMAP, WAITS, TOLD, LENDS, END and the messages of `PreloadEvents` (preload-events.ts), which report
 *   what the preload library sees in its program, are for `userdma check`. STACK gives a stack of the program an id for
 *   later headers and posts. Frames are lines as in `Stack` (check/finding.ts), innermost first; an offset is the
 *   address before relocation. A client records stacks if its environment has `SessionEnv.stacks`.
 * - BENIGN says that requests which access a `range` of the program's memory may race (shim/include/userdma_check.h).
 * - WAITS passes the program's wait table (wait-table.ts), the attached memory file, which has the ring of lends
 *   (lends.ts).
 * - PEERS passes the memory file with a `peerAccess` struct: before each access of a peer to the program's memory the
 *   daemon fills it, and waits a moment until the program has taken it (src/daemon/session/peer-accesses.ts). A client
 *   sends it if its program has a sanitizer.
 * - TOLD tells what the program's sanitizer has said of a device: ThreadSanitizer's report, of which the end may be
 *   missing, or our sentence about memory that is not the program's (tools/check/findings/sanitizers.ts).
 * - LENDS asks to read the ring of lends, and how many requests to a `range` of the program's memory are not finished.
 * - UNMAP tells the stack of a call that may unmap a `range` with registered memory next.
 * - END reports that the program ends by exit(3), _exit(2) or exec(2), or with a context in the header, that it closes
 *   this context. A program that a signal ends sends no END.
 * - POST asks whether a fault rule refuses a request, while the word POSTS of the parked page is set.
 * - FAULT sets fault rules of the client's process, until FAULT_CLEAR or the end of the session
 *   (src/daemon/own-faults.ts). FAULT_COUNT asks how often they have acted.
 * - FINDINGS asks how many findings `userdma check` has of the daemon's programs so far, and for the one after the
 *   first `from`.
 * - DOORBELLS says that the program has mapped a range with doorbells of the header's context
 *   (`ContextFile.doorbells`). The daemon watches stores to the range by the userfaultfd from HELLO
 *   (docs/decisions/doorbell-pages.md).
 * - The answers of IOCTL and WRITE to a client that can adopt memory (HelloWants.ADOPTION) may have `mapping` structs:
 *   before its call returns, the program maps ranges of the context's memory file over pages of its own, or ends that
 *   (docs/decisions/adopted-pages.md). The client's next message says that it has done so.
 * - CALL has no reply of its own: a request lies in the client's call slot (`CallSlot`), and the daemon does not look
 *   there by itself now.
 * - NOT_MAPPED says that the client could not do what the answer before told: the daemon undoes that call.
 * - A doorbell socket carries 4-byte tokens (the QP's handle). Any token wakes the daemon, which polls all send queues
 *   before it sleeps again.
 * - The other messages are for tools; bodies and replies are JSON text.
 *
 * In the replies of REFRESH, STACK, BENIGN, UNMAP, WAITS, PEERS, TOLD, LENDS, END, POST, DOORBELLS, NOT_MAPPED and
 * FAULT_CLEAR, and of `PreloadEvents`, `ret` is 0 or a negative errno, in those of LENDS and FAULT_COUNT the number, of
 * FAULT the id.
 */
import { layout } from './message-layout.ts'
import { type PreloadEventRow, PreloadEvents, type PreloadMessageName, preloadMessageNames } from './preload-events.ts'

export const SESSION_VERSION = 7

/**
 * Environment variables of a client. `socket`: path of the daemon's session socket. `tag`: selects the program's calls
 * for a trace. `stacks`: records for `userdma check`, `1` stacks, `2` also the event log, `3` the event log for a
 * recording, in which no races are searched. `buffers`: `all` if all bytes of all sends are hashed (`HashLog`).
 * `slots`: `polled` if a send is refused with ENOMEM while max_send_wr sends are posted and not freed by a polled
 * completion. `crashes`: a file, to which the program appends its stacks if it crashes, and at SIGQUIT
 * (shim/check/crashes.c). `undefined`: if memcheck also reports bytes that a request sends and nobody has written; the
 * user sets it. `calls`: `messages` if the program makes no use of a call slot (`CallSlot`), as the tests
 * compare.
 */
export const SessionEnv = {
  socket: 'USERDMA_SOCKET',
  tag: 'USERDMA_TAG',
  stacks: 'USERDMA_STACKS',
  buffers: 'USERDMA_BUFFERS',
  slots: 'USERDMA_SLOTS',
  crashes: 'USERDMA_CRASHES',
  undefined: 'USERDMA_UNDEFINED',
  calls: 'USERDMA_CALLS',
  /** The path of the page of a clock that skips (clock-page.ts). */
  clock: 'USERDMA_CLOCK',
} as const

/**
 * A daemon that serves other users too has a second socket, whose path ends with this, for clients of its own user:
 * others cannot fill its backlog. Only root has such a daemon, so only root looks for it.
 */
export const OWN_SUFFIX = '.own'

/**
 * First words of lines of a daemon in the background: on its standard output once it is ready or cannot start, and in
 * its log about its start and end.
 */
export const DaemonLine = {
  READY: 'userdma daemon: ready on ',
  FAILED: 'userdma daemon: failed: ',
  NOTE: 'userdma daemon: process ',
} as const

/** Seconds for which clients try to connect while the daemon's backlog is full. */
export const CONNECT_SECONDS = 5

/** Node number (`open.node`) of the system-wide device, and its name in /dev/infiniband. */
export const SYSTEM_NODE = 0x7fffffff
export const SYSTEM_NAME = 'userdma'

/** Node number of the RDMA connection manager. Each open creates a channel (class `cm_channel`) and no context. */
export const CM_NODE = 0x7ffffffe
export const CM_NAME = 'rdma_cm'

/**
 * Numbers of channels begin here. A number is valid in the session that has opened the channel; in others, as after
 * fork, the daemon finds the channel by the descriptor.
 */
export const CHANNEL_NUMBERS = 0x8000_0000

/**
 * Nodes of management datagrams: UMAD_NODES plus the node number of the device. Each open creates a channel (class
 * `mad_channel`) and no context.
 */
export const UMAD_NODES = 0x4000_0000
export const UMAD_NAME = 'umad'
/**
 * Nodes of subnet managers, of InfiniBand ports: ISSM_NODES plus the node number of the device, within the range of
 * umad nodes. The channel makes the port that of a manager until it is closed.
 */
export const ISSM_NODES = 0x5000_0000
export const ISSM_NAME = 'issm'

const columnOf = <K extends keyof PreloadEventRow & keyof (typeof PreloadEvents)[PreloadMessageName]>(key: K) =>
  Object.fromEntries(preloadMessageNames.map(name => [name, PreloadEvents[name][key]])) as {
    readonly [N in PreloadMessageName]: (typeof PreloadEvents)[N][K]
  }
const exchangesOfPreload = Object.fromEntries(
  preloadMessageNames.map(name => [name, { request: name, reply: 'callReply' }]),
) as { readonly [N in PreloadMessageName]: { readonly request: N; readonly reply: 'callReply' } }

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
  END: 15,
  /** JSON request and reply of a tool. */
  TOOL: 16,
  /** From the daemon to a subscribed tool: a traced call, or part of a long one (uapi/tool.ts). */
  TRACE: 17,
  BENIGN: 18,
  POST: 19,
  UNMAP: 20,
  DOORBELLS: 25,
  NOT_MAPPED: 26,
  CALL: 28,
  WAITS: 30,
  LENDS: 31,
  FAULT: 32,
  FAULT_CLEAR: 33,
  FAULT_COUNT: 34,
  FINDINGS: 35,
  PEERS: 58,
  TOLD: 60,
  ...columnOf('type'),
  /** The type of a reply is REPLY | the request's type. */
  REPLY: 0x8000,
} as const

/** Structs of the protocol: the header of every message, then the bodies. */
export const Messages = {
  header: layout(
    ['type', 'u32'],
    /** Bytes of the whole message, including the header. */
    ['size', 'u32'],
    /** Chosen by the client, repeated in the reply. */
    ['serial', 'u32'],
    /** The daemon's number of the call's context, or of a channel (CHANNEL_NUMBERS); 0: none. */
    ['context', 'u32'],
    /** The descriptor that ATTACH, NETLINK and calls with context 0 are on. Of other calls, only for the trace. */
    ['fd', 's32'],
    ['pid', 'u32'],
    ['tid', 'u32'],
    /** Id of the call's stack, from STACK; 0: none. */
    ['stack', 'u32'],
  ),
  /** version: SESSION_VERSION; wants: HelloWants; tag: the value of SessionEnv.tag, or empty. */
  hello: layout(['version', 'u32'], ['wants', 'u32'], ['tag', 64]),
  /**
   * error: 0 or a positive errno. EPROTO: the versions differ. EACCES: the daemon may not access the process's memory,
   * and refuses to open devices. EINVAL: the attached memory file is unusable, or the session already has one. EPERM:
   * the daemon does not serve this user. Other errors, for example EMFILE, ENFILE: the daemon has no resources for a
   * session. After EPERM and these other errors the daemon closes the connection. root: the folder of the daemon's
   * tree, empty if the connection is closed. If error is 0, the parked page is attached.
   */
  helloReply: layout(['version', 'u32'], ['error', 's32'], ['root', 240]),
  /**
   * node: N for /dev/infiniband/uverbsN, UMAD_NODES + N for umadN, SYSTEM_NODE or CM_NODE. wants: OpenWants; unknown
   * bits are ignored.
   */
  open: layout(['node', 'u32'], ['wants', 'u32']),
  /**
   * error: 0 or a positive errno. context: its number, or that of a channel. rdev: st_rdev of the node. inode:
   * that of the context's memory file, or 0.
   */
  openReply: layout(['error', 's32'], ['context', 'u32'], ['rdev', 'u64'], ['inode', 'u64']),
  /** The second and third argument of ioctl(2). */
  ioctl: layout(['request', 'u32'], ['reserved', 'u32'], ['argument', 'u64']),
  /** The second and third argument of write(2) or read(2). */
  write: layout(['buffer', 'u64'], ['length', 'u64']),
  /**
   * ret: the call's result, or a negative errno. `installCount` install structs follow, then `mappingCount` mapping
   * structs; in WRITTEN `ret` writtenRange structs; after an error, with HelloWants.REASONS, the reason as JSON
   * (reason.ts).
   */
  callReply: layout(['ret', 's64'], ['installCount', 'u32'], ['mappingCount', 'u32']),
  /** The number of a new descriptor is to be written into `width` bytes at `address`. kind: InstallKind. */
  install: layout(['address', 'u64'], ['width', 'u32'], ['kind', 'u32']),
  /**
   * Pages of the program. kind: MappingKind. address, length: whole pages. offset: of the memory file of `context`, the
   * daemon's number of the context. In the order in which they are to be applied.
   */
  mapping: layout(['address', 'u64'], ['length', 'u64'], ['offset', 'u64'], ['context', 'u32'], ['kind', 'u32']),
  /** operation: NetlinkOperation, which explains `extra` and `argument`. */
  netlink: layout(['operation', 'u32'], ['extra', 'u32'], ['argument', 'u64']),
  /** id: chosen by the client, from 1. frames: see STACK above; NUL-terminated. */
  stack: layout(['id', 'u32'], ['reserved', 'u32'], ['frames', 4088]),
  /** text: of a sanitizer, NUL-terminated. */
  told: layout(['told', 8192]),
  /** An entry of the post log (`PostLog`). queue: PostQueue; number: the QPN, or the handle of the SRQ. */
  post: layout(['wrId', 'u64'], ['queue', 'u32'], ['number', 'u32'], ['pid', 'u32'], ['stack', 'u32']),
  /**
   * An entry of the position log (`PositionLog`): the request at `index` of its queue, as `WorkRequest.postIndex`.
   * queue, number, pid, stack: as in `post`; queue 0: no entry. age: grows from post to post of a process, modulo 2^32.
   */
  position: layout(
    ['wrId', 'u64'],
    ['index', 'u32'],
    ['queue', 'u32'],
    ['number', 'u32'],
    ['pid', 'u32'],
    ['stack', 'u32'],
    ['age', 'u32'],
  ),
  /**
   * An entry of the hash log (`HashLog`). number: the QPN. hashed: index of the send in its queue, from 1; 0: none.
   * hash: CRC-32 of its bytes, or of samples of them. isWhole: 1 if all bytes are hashed.
   */
  hash: layout(['number', 'u32'], ['hashed', 'u32'], ['hash', 'u32'], ['isWhole', 'u32']),
  /**
   * An entry of the event log (`EventLog`). sequence: the entry's number + 1, written last. time: of the post or poll.
   * acquired: when the thread started, or last waited for another thread, for example for a lock. Times are nanoseconds
   * of CLOCK_MONOTONIC. kind: EventKind. number: as in `post`, or the handle of the CQ. count: posted requests or
   * polled completions; 0: unknown. wrId: that of the first request, or of the last completion.
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
  /** head: entries that programs have claimed. tail: entries that the daemon has read. */
  eventLog: layout(['head', 'u64'], ['tail', 'u64']),
  /**
   * queue, number: as in `post`. opcode: ibv_wr_opcode of a send, or UNKNOWN_OPCODE. inlined: PostInline. length: bytes
   * of the data; UNKNOWN_LENGTH of a batch of ibv_wr_*.
   */
  posting: layout(
    ['wrId', 'u64'],
    ['queue', 'u32'],
    ['number', 'u32'],
    ['opcode', 'u32'],
    ['length', 'u32'],
    ['inlined', 'u32'],
    ['reserved', 'u32'],
  ),
  /** A range of the program's memory. */
  range: layout(['address', 'u64'], ['length', 'u64']),
  /** Of WRITTEN. isPeers: not 0 if a peer has written it. */
  writtenRange: layout(['address', 'u64'], ['length', 'u64'], ['isPeers', 'u32'], ['reserved', 'u32']),
  /**
   * A range of the program's memory, whole pages. refusal: why the program has passed no userfaultfd with HELLO, a
   * positive errno; 0: it has passed one.
   */
  doorbells: layout(['address', 'u64'], ['length', 'u64'], ['refusal', 'u32'], ['reserved', 'u32']),
  /**
   * An access of a peer to memory of the program. posted: its number, written last; taken: that of the last access that
   * the program has taken. isEnded: the program takes no more. missed: how many accesses the daemon has made without
   * waiting longer, this one or others. access: IBV_ACCESS_REMOTE_WRITE, READ or ATOMIC. qpn: of the program's queue
   * pair.
   */
  peerAccess: layout(
    ['posted', 'u32'],
    ['taken', 'u32'],
    ['isEnded', 'u32'],
    ['missed', 'u32'],
    ['address', 'u64'],
    ['length', 'u64'],
    ['access', 'u32'],
    ['qpn', 'u32'],
  ),
  /** head: entries of the ring of lends (lends.ts) that were claimed so far. tail: those that the daemon has read. */
  lendRing: layout(['head', 'u64'], ['tail', 'u64']),
  /**
   * An entry. sequence: its number, from 1, written last. time: nanoseconds of CLOCK_MONOTONIC. start, length: the
   * bytes. id: of the lend. kind: LendKind. rights: LendRight. stack: the number of a stack of STACK. qpn: of the queue
   * pair of this process by which the peer may access the bytes; 0: any. milliseconds: after which the lend is over; 0:
   * never. hash: LendHash, if isHashed is not 0. label: ends with a zero byte.
   */
  lend: layout(
    ['sequence', 'u64'],
    ['time', 'u64'],
    ['start', 'u64'],
    ['length', 'u64'],
    ['id', 'u64'],
    ['kind', 'u32'],
    ['rights', 'u32'],
    ['stack', 'u32'],
    ['qpn', 'u32'],
    ['milliseconds', 'u32'],
    ['hash', 'u32'],
    ['isHashed', 'u32'],
    ['reserved', 'u32'],
    ['label', 56],
  ),
  /**
   * threads: slots of the wait table (wait-table.ts) from the first one that may be in use. modules: those that are
   * described.
   */
  waitTable: layout(['threads', 'u32'], ['modules', 'u32'], ['sampleSignal', 'u32'], ['samples', 'u32']),
  /**
   * Where a thread was when it got the signal `waitTable.sampleSignal`. thread: its number, written last; sequence:
   * that of its `waitSlot`; polls: sum of its counts. code: the bytes of the instruction at `pc`, and what follows.
   * registers: u64 each, in the order of their numbers in instructions, of arm64 with the stack pointer as the last.
   * frames: see `waitSlot`.
   */
  waitSample: layout(
    ['thread', 'u32'],
    ['sequence', 'u32'],
    ['polls', 'u32'],
    ['depth', 'u32'],
    ['pc', 'u64'],
    ['code', 16],
    ['registers', 256],
    ['frames', 128],
    ['reserved', 8],
  ),
  /**
   * A thread has last signaled the condition variable, or posted the semaphore, at `object`: `thread`, from the call
   * that returns to `caller`. count: how often.
   */
  waitSignal: layout(['object', 'u64'], ['caller', 'u64'], ['thread', 'u32'], ['count', 'u32']),
  /** Code of a program or library from `start` to before `end`; `base` is added to the addresses in its file. */
  waitModule: layout(['start', 'u64'], ['end', 'u64'], ['base', 'u64'], ['path', 232]),
  /**
   * A thread. thread: its number; 0: the slot is free. sequence: grows when a wait other than a sleep begins or ends,
   * and when the thread looks at a descriptor. kind: WaitKind, which explains `object` and `owner`. flags: WaitFlag.
   * self: its pthread_t. depth: return addresses in `frames`, u64 each, innermost first. stack: instead of them, the
   * number of a stack of STACK; 0: none. pollStack: of its polls. batch, batchFd: number and context's descriptor of
   * the queue pair of a batch that the thread has started (ibv_wr_start), from the call that returns to `batchCaller`;
   * 0: none. descriptors: `descriptorCount` s32, of which those beyond the space are left out. polls: structs
   * `waitPoll`. found: a ring of structs `waitFound`, of which the next one is `nextFound` modulo their number.
   */
  waitSlot: layout(
    ['thread', 'u32'],
    ['sequence', 'u32'],
    ['kind', 'u32'],
    ['flags', 'u32'],
    ['object', 'u64'],
    ['self', 'u64'],
    ['owner', 'u32'],
    ['depth', 'u32'],
    ['stack', 'u32'],
    ['pollStack', 'u32'],
    ['batch', 'u32'],
    ['batchFd', 's32'],
    ['batchCaller', 'u64'],
    ['descriptorCount', 'u32'],
    ['lastPoll', 'u32'],
    ['descriptors', 16],
    ['polls', 64],
    ['frames', 128],
    ['found', 96],
    ['nextFound', 'u32'],
    ['unused', 'u32'],
  ),
  /** A CQ that a thread polls: descriptor and number of its context, its handle, and how often it was polled. */
  waitPoll: layout(['fd', 's32'], ['cq', 'u32'], ['count', 'u32'], ['context', 'u32']),
  /**
   * A poll that has found something: of this CQ, `count` completions of at most `asked`, by the call that returns to
   * `caller`. asked: 0: ibv_start_poll. count 0: there is none.
   */
  waitFound: layout(['caller', 'u64'], ['context', 'u32'], ['cq', 'u32'], ['asked', 'u32'], ['count', 'u32']),
  /** error: why the ranges could not be mapped, a positive errno. */
  notMapped: layout(['error', 'u32'], ['reserved', 'u32']),
  /** The text of `--fault`. */
  faultRules: layout(['rules', 4088]),
  /** ret: the id of the rules, or a negative errno. why: a sentence about it. */
  faultReply: layout(['ret', 's64'], ['why', 504]),
  /** faultId: from the reply of FAULT. */
  faultId: layout(['faultId', 'u32'], ['reserved', 'u32']),
  /** fresh: 1: if there is no finding after them, the same mistakes are new findings from now on. */
  findingsFrom: layout(['from', 'u32'], ['fresh', 'u32']),
  /**
   * ret: the number of findings so far; -ENOSYS: nobody checks. The others: of the finding; empty: there is none yet.
   */
  findingReply: layout(['ret', 's64'], ['findingId', 40], ['severity', 16], ['foundDevice', 64], ['sentence', 960]),
  ...columnOf('layout'),
  /** The arguments of mmap(2); `protection`: PROT_… */
  map: layout(['offset', 'u64'], ['length', 'u64'], ['protection', 'u32'], ['reserved', 'u32']),
} as const

/** The bodies of requests and replies by type, as names in `Messages`. null: header only. */
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
  ...exchangesOfPreload,
  END: { request: null, reply: 'callReply' },
  BENIGN: { request: 'range', reply: 'callReply' },
  POST: { request: 'posting', reply: 'callReply' },
  UNMAP: { request: 'range', reply: 'callReply' },
  DOORBELLS: { request: 'doorbells', reply: 'callReply' },
  NOT_MAPPED: { request: 'notMapped', reply: 'callReply' },
  CALL: { request: null, reply: 'callReply' },
  WAITS: { request: null, reply: 'callReply' },
  PEERS: { request: null, reply: 'callReply' },
  TOLD: { request: 'told', reply: 'callReply' },
  LENDS: { request: 'range', reply: 'callReply' },
  FAULT: { request: 'faultRules', reply: 'faultReply' },
  FAULT_CLEAR: { request: 'faultId', reply: 'callReply' },
  FAULT_COUNT: { request: 'faultId', reply: 'callReply' },
  FINDINGS: { request: 'findingsFrom', reply: 'findingReply' },
} as const satisfies Partial<
  Record<keyof typeof MessageType, { request: keyof typeof Messages | null; reply: keyof typeof Messages }>
>

/**
 * Bits of `hello.wants`. REASONS: replies have the reasons of errors. UNMAPPING: the attached descriptor is a new
 * userfaultfd of the program, which reports unmapped memory to the daemon. WRITTEN: the daemon records the ranges that
 * it writes, for the request WRITTEN. EVENTS: races are searched in the event log of the client's contexts. ADOPTION:
 * the client does what `mapping` structs in answers say. SLOT: the reply may have the memory file of a call slot as its
 * second descriptor.
 */
export const HelloWants = { REASONS: 1, UNMAPPING: 2, WRITTEN: 4, EVENTS: 8, ADOPTION: 16, SLOT: 32 } as const

/**
 * `mapping.kind`. ADOPT: the program maps the range of the file over its pages, whose content the range has already; it
 * copies them again, for stores of other threads since. RELEASE: the pages become ordinary memory of the program, and
 * keep their content. ADOPT_WRITTEN: as ADOPT, but the program copies nothing, as the device may have written already.
 * PUNCH: the program returns the range of the file to the system, since nobody uses it; address 0.
 */
export const MappingKind = { ADOPT: 1, RELEASE: 2, ADOPT_WRITTEN: 3, PUNCH: 4 } as const

/**
 * Bits of `open.wants`. PACKED_RINGS: the client finds the elements of a ring by its header (ELEMENTS_OFFSET in
 * spec/drivers/mapped-rings.ts), so that the daemon may use packed rings. READ_ONLY, WRITE_ONLY: the access mode of the
 * context's file is O_RDONLY, O_WRONLY, otherwise O_RDWR.
 */
export const OpenWants = { PACKED_RINGS: 1, READ_ONLY: 2, WRITE_ONLY: 4 } as const

/**
 * Kinds of new descriptors. DRIVER: class `driver_ops`. NETLINK: a NETLINK_RDMA socket. CM: class `cm_channel`. UMAD:
 * class `mad_channel`. EVENT: other classes, for example `comp_channel`.
 */
export const InstallKind = { EVENT: 0, DRIVER: 1, NETLINK: 2, CM: 3, UMAD: 4 } as const

/** Operations on a NETLINK_RDMA socket (`netlink.operation`). Results are in `ret`. */
export const NetlinkOperation = {
  /** Creates a socket of type `extra` (SOCK_RAW or SOCK_DGRAM). The client's end is attached to the reply. */
  OPEN: 0,
  /** Sends `extra` bytes at address `argument`; the reply comes after the netlink answer. */
  SEND: 1,
  /** Binds a port (low 32 bits of `argument`; 0: any) and groups (high 32 bits). */
  BIND: 2,
  /** Returns the port (low 32 bits; 0: not bound) and groups (high 32 bits). */
  NAME: 3,
  /** Sets option `extra` of level SOL_NETLINK to `argument`. */
  SET: 4,
  /** Returns option `extra`; for NETLINK_LIST_MEMBERSHIPS the groups as bits. */
  GET: 5,
  /** Returns the socket's type (SO_TYPE). */
  TYPE: 6,
} as const

/**
 * The mark by which a shim recognizes a descriptor of userdma that another program has passed: the socket's send
 * timeout (SO_SNDTIMEO), which is otherwise unused. The seconds are FIRST + InstallKind for a new descriptor, and FIRST
 * + InstallKind + RDEV × st_rdev for an opened device node. The shim marks doorbell sockets itself, with smaller
 * numbers (shim/session/fds.c). MICROSECONDS is a fraction that kernels of any timer frequency store exactly.
 */
export const DescriptorMark = { FIRST: 0x1_7573_6572, RDEV: 256, MICROSECONDS: 500000 } as const

/** Maximum stacks that the daemon keeps per process. A further stack tells the daemon that stacks are missing. */
export const MAX_STACKS = 4096

/** Maximum bytes of a record that a driver posts on its descriptor. */
export const DRIVER_RECORD_BYTES = 256
/** Maximum bytes of a record of any descriptor: the answer of an asynchronous command of mlx5's firmware. */
export const LARGEST_RECORD_BYTES = 4096 + 8

/** Maxima of one message: attached descriptors, bytes, `range`s, `mapping`s of one kind. */
export const SessionLimits = { descriptors: 8, bytes: 65536, ranges: 64, mappings: 8 } as const

/** The parked page: indices of its words (u32), and its size. Clients cannot write the page. */
export const ParkedPage = {
  /** 1: the daemon sleeps and needs a doorbell; 0: it is awake and polls the queues. */
  PARKED: 0,
  /** 1: fault rules may refuse posts, so each is announced (message POST). */
  POSTS: 1,
  /** 1: traces, fault rules or a checker see every call, so programs arm CQs by calls (`ArmWords`). */
  CALLS: 2,
  /**
   * The first of FAILED_COUNTS words: number of queue pairs in ERR, by QPN modulo FAILED_COUNTS. Only in ERR, where it
   * is flushed, does a receive need a doorbell.
   */
  FAILED: 512,
  FAILED_COUNTS: 512,
  bytes: 4096,
} as const

/**
 * A context's memory file, with the rings at their mmap offsets; offsets and sizes in bytes. The first page is unused,
 * so that a stray write(2) of the program damages no ring. Before `firstRing` are pages at offsets that providers make
 * themselves. The daemon maps the file in chunks of `chunk` bytes; a
 * longer ring is a chunk of its own. The `doorbellBytes` bytes from `doorbells` on are ranges with doorbells: a client
 * that has mapped one sends DOORBELLS.
 */
export const ContextFile = {
  bytes: 2 ** 36,
  firstRing: 2 ** 32,
  chunk: 2 ** 20,
  doorbells: 2 ** 40,
  doorbellBytes: 2 ** 32,
} as const

/**
 * `event.kind`. PostQueue: a post. POLL: a poll of a CQ that returned completions. REFUSED | PostQueue: a post was
 * refused after its event was written.
 */
export const EventKind = { POLL: 8, REFUSED: 16 } as const

/**
 * How memory was given back: free(3), realloc(3), or madvise(2), after which the pages are new ones; the stack frame
 * with the memory has returned, or the thread whose stack it was on has ended.
 */
export const GiveBack = { FREE: 1, REALLOC: 2, DISCARD: 3, FRAME: 4, THREAD: 5 } as const

/** The part of a request: its struct, the list of its elements, or its memory. */
export const DeadPart = { LIST: 1, ELEMENTS: 2, BUFFER: 3 } as const

/**
 * Kinds of objects of libibverbs and librdmacm, as programs hold pointers to them. CM_EVENT: an event until it is
 * acknowledged. DEVICES: a list of devices.
 */
export const ObjectKind = {
  CONTEXT: 1,
  PD: 2,
  CQ: 3,
  QP: 4,
  MR: 5,
  MW: 6,
  AH: 7,
  SRQ: 8,
  XRCD: 9,
  CHANNEL: 10,
  WQ: 11,
  WQ_TABLE: 12,
  FLOW: 13,
  COUNTERS: 14,
  DM: 15,
  TD: 16,
  CM_ID: 17,
  CM_CHANNEL: 18,
  CM_EVENT: 19,
  DEVICES: 20,
} as const

/**
 * `usedGone.use`. DESTROY: the call would destroy the object. CONCURRENT: another thread destroys it at the same time.
 * FOREIGN: the object exists, and is of another context than the first object of the call. NOTHING: the first object is
 * NULL. ARGUMENT: another argument, or a part of one, is NULL, and `usedGone.kind` is its position, from 1
 * (tools/check/arguments.ts). GARBAGE: the pointer is that of no such object: `usedGone.number` is the ObjectKind of
 * the object that is there, or UNKNOWN_NUMBER, and `usedGone.isOwner` 1 if it points to memory.
 */
export const GoneUse = {
  CALL: 0,
  DESTROY: 1,
  CONCURRENT: 2,
  FOREIGN: 3,
  NOTHING: 4,
  ARGUMENT: 5,
  GARBAGE: 6,
} as const

/**
 * `died.fault`. UNMAPPED: there is no memory at the address. PROTECTED: its memory does not allow the access. WIDE: the
 * address has more bits than those of programs, and is unknown.
 */
export const AddressFault = { NONE: 0, UNMAPPED: 1, PROTECTED: 2, WIDE: 3 } as const

/** `usedGone.number` of an object without a known number. */
export const UNKNOWN_NUMBER = 0xffff_ffff

/**
 * The queue of a post. RECEIVE: the receive queue of a queue pair. SHARED: an SRQ. BATCH: the last ibv_wr_complete of a
 * queue pair; the stack is that of its requests if their positions are unknown, and wr_id is 0.
 */
export const PostQueue = { SEND: 1, RECEIVE: 2, SHARED: 3, BATCH: 4 } as const

/** `posting.inlined`: whether the data of a send is inline. */
export const PostInline = { UNKNOWN: 0, NO: 1, YES: 2 } as const
/** `posting.length` of a batch of ibv_wr_*. */
export const UNKNOWN_LENGTH = 0xffff_ffff

/** `posting.opcode` of a batch of ibv_wr_*, and of a receive. */
export const UNKNOWN_OPCODE = 0xffff_ffff

/** The memory file attached to HELLO: maximum bytes. The file must be sealed against shrinking and growing. */
export const PassedFile = { bytes: 2 ** 25 } as const
