/*
 * The tables of the ctx driver, an example of a driver that is not verbs (R12, R28, R29): class `ctx_context`, the
 * ioctl, read and write calls of the driver's interfaces, and the layout of a context's queues in memory that the
 * client maps. A context receives messages of other contexts, as in hfi1. Eager messages go to the next buffer of a
 * ring, expected messages to a buffer that the receiver has announced and the sender names.
 *
 * A context's memory is contiguous: a page of words, then headers, eager buffers and expected buffers, at the offsets
 * that `query` returns. The device appends a header for each message and publishes HEADER_PRODUCER. The client reads
 * headers in order and publishes HEADER_CONSUMER, and EAGER_CONSUMER after it has released an eager buffer. The words
 * are message counts that wrap at 2^32; the slot is the count modulo the queue's length.
 */
import {
  at,
  Block,
  blob,
  bytes,
  CREATE,
  DESTROY,
  enumeration,
  enumOf,
  type Fields,
  fd,
  method,
  objectClass,
  optional,
  QUERY,
  record,
  recordSize,
  u32,
  u64,
} from '../schema/schema.ts'

/** The words (u32) of the first page, by index. */
export const CtxWord = { HEADER_PRODUCER: 0, HEADER_CONSUMER: 1, EAGER_CONSUMER: 2 } as const

export const CtxKind = enumeration('ctx_kind', { EAGER: 1, EXPECTED: 2 })

/**
 * `source`: the sender's context number. `slot`: the number of the eager or expected buffer. `sequence`: number of
 * earlier messages since the creation or reset of the context, modulo 2^32.
 */
export const CtxHeader = {
  kind: at(0, enumOf(0, CtxKind)),
  source: at(4, u32(0)),
  length: at(8, u32(0)),
  slot: at(12, u32(0)),
  tag: at(16, u64(0)),
  sequence: at(24, u32(0)),
}
export const CTX_HEADER_BYTES = 32

/** Maxima: buffers of a queue, bytes of a buffer, contexts of a device. */
export const CtxLimits = { buffers: 1024, bytes: 65536, contexts: 160 } as const

/** The layout of a context. Offsets are from the start of the context's memory. */
export const CtxInfo = {
  /** The context number that senders address. */
  number: at(0, u32(0)),
  jobKey: at(4, u32(0)),
  eagerCount: at(8, u32(0)),
  eagerBytes: at(12, u32(0)),
  expectedCount: at(16, u32(0)),
  expectedBytes: at(20, u32(0)),
  headerCount: at(24, u32(0)),
  /** 1: receiving is enabled. */
  isReceiving: at(28, u32(0)),
  headersAt: at(32, u32(0)),
  eagerAt: at(36, u32(0)),
  expectedAt: at(40, u32(0)),
  /** Bytes of the memory, and its offset for mmap(2) of the uverbs context. */
  bytes: at(44, u32(0)),
  offset: at(48, u64(0)),
}

const count = (id: number) => u32(id, { max: CtxLimits.buffers })
const size = (id: number) => u32(id, { min: 64, max: CtxLimits.bytes })

/** Class `ctx_context`: a context of the device, similar to a context of Linux's hfi1. */
export const CtxContext = objectClass('ctx_context', 0x8000, {
  methods: {
    /**
     * Assigns a free context. ENOMEM if all contexts, or those of the user's share, are assigned. `eagerCount`: a power
     * of two. Contexts with the same `jobKey` can send to each other. `ops`: a descriptor that is notified of messages
     * (`arm`).
     */
    create: method(CREATE, {
      in: {
        eagerCount: u32(1, { min: 1, max: CtxLimits.buffers }),
        eagerBytes: size(2),
        expectedCount: count(3),
        expectedBytes: size(4),
        jobKey: u32(5),
        ops: optional(fd(6, 'driver_ops')),
      },
      out: { info: record(64, CtxInfo) },
    }),
    query: method(QUERY, { in: {}, out: { info: record(64, CtxInfo) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    /** Empties all queues and forgets announced buffers. */
    reset: method(Block.DRIVER_FAST + 0, { role: 'changes', in: {}, out: {} }),
    /** Enables or disables receiving (initially enabled); while disabled, senders get EAGAIN. */
    receiveControl: method(Block.DRIVER_FAST + 1, { role: 'changes', in: { enable: u32(1, { max: 1 }) }, out: {} }),
    /**
     * Announces expected buffer `slot` for a message of `length` bytes. EBUSY: the buffer is announced already. EINVAL:
     * there is no such buffer. EMSGSIZE: the message is longer than the buffer.
     */
    expect: method(Block.DRIVER_FAST + 2, {
      role: 'changes',
      in: { slot: u32(1), length: u32(2, { min: 1, max: CtxLimits.bytes }) },
      out: {},
    }),
    /**
     * Sends `data` to context number `destination`; with `slot`, as the part at `offset` of an expected message, which
     * is complete when its parts together have the announced length. ENXIO: there is no such context with the same
     * key. EAGAIN: no header or buffer is free, or receiving is disabled. EMSGSIZE: more bytes than an eager buffer.
     * EINVAL: the slot is not announced, or the part goes beyond the announced length.
     */
    send: method(Block.DRIVER_FAST + 3, {
      role: 'transfers',
      in: {
        destination: u32(1),
        tag: u64(2),
        slot: optional(u32(3)),
        offset: optional(u32(4)),
        data: blob(5, CtxLimits.bytes),
      },
      out: {},
    }),
    /**
     * Notifies `ops`, or the descriptor that the ioctl USE has bound, of the next message; if the header queue is not
     * empty, at once. EINVAL without an open descriptor.
     */
    arm: method(Block.DRIVER_FAST + 4, { role: 'changes', in: {}, out: {} }),
  },
})

// ---- the calls of the driver's interfaces ----

/** Names of the interfaces. Version 1 lacks expected messages. CHANNEL: the provider channel (class `driver_ops`). */
export const CtxInterface = { V2: 'ctx.userdma.2', V1: 'ctx.userdma.1', CHANNEL: 'ctx' } as const

/** Argument of ASSIGN: the inputs of `create`, and the output `handle`, that of the object in the uverbs context. */
export const CtxAssign = {
  eagerCount: at(0, u32(0)),
  eagerBytes: at(4, u32(0)),
  expectedCount: at(8, u32(0)),
  expectedBytes: at(12, u32(0)),
  jobKey: at(16, u32(0)),
  handle: at(20, u32(0)),
}
export const CtxExpect = { slot: at(0, u32(0)), length: at(4, u32(0)) }

/** Header of the bytes of write(2), before the message. `flags`: CTX_EXPECTED or 0. */
export const CtxSend = {
  destination: at(0, u32(0)),
  flags: at(4, u32(0)),
  slot: at(8, u32(0)),
  offset: at(12, u32(0)),
  tag: at(16, u64(0)),
}
export const CTX_EXPECTED = 1

/** A record of read(2). `producer`: HEADER_PRODUCER of context `number`. */
export const CtxRecord = { number: at(0, u32(0)), producer: at(4, u32(0)) }

/** Argument of STATISTICS: totals of the device. */
export const CtxStatistics = {
  assigned: at(0, u32(0)),
  reserved: at(4, bytes(0, 4)),
  messages: at(8, u64(0)),
  bytes: at(16, u64(0)),
  refused: at(24, u64(0)),
}

/** Argument of RECEIVE: 1 enables receiving, 0 disables it. */
const CtxReceive = { enable: at(0, u32(0)) }
/** Argument of USE: the handle of a context without an open descriptor. */
const CtxUse = { handle: at(0, u32(0)) }

/** Magic number of the interfaces' ioctls, and the directions of `_IOC`. */
const MAGIC = 0xc7
const NONE = 0
const WRITE = 1
const READ = 2
/** An ioctl request as `_IOC` makes it. */
const request = (direction: number, number: number, argument: Fields): number =>
  ((direction << 30) | (recordSize(argument) << 16) | (MAGIC << 8) | number) >>> 0

export const CtxIoctl = {
  ASSIGN: request(READ | WRITE, 1, CtxAssign),
  INFO: request(READ, 2, CtxInfo),
  RESET: request(NONE, 3, {}),
  RECEIVE: request(WRITE, 4, CtxReceive),
  ARM: request(NONE, 5, {}),
  USE: request(WRITE, 6, CtxUse),
  /** From version 2 on. */
  EXPECT: request(WRITE, 7, CtxExpect),
  /** Only on the provider channel. */
  STATISTICS: request(READ, 8, CtxStatistics),
} as const

/** Arguments of the ioctl requests that have one. */
export const CtxArguments: Readonly<Record<number, Fields>> = {
  [CtxIoctl.ASSIGN]: CtxAssign,
  [CtxIoctl.INFO]: CtxInfo,
  [CtxIoctl.RECEIVE]: CtxReceive,
  [CtxIoctl.USE]: CtxUse,
  [CtxIoctl.EXPECT]: CtxExpect,
  [CtxIoctl.STATISTICS]: CtxStatistics,
}
