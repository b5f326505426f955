/*
 * Session messages, bytes ⇄ values (spec/session.ts says what they mean; shim/protocol.h is the same for C).
 *
 * A message is read into one record and written into one buffer, both made once and reused: a call costs no more than
 * the big integers of its pointers. Whatever a client sends is checked here – type, size, the size that the header
 * claims – and refused with a sentence; nothing throws. Both directions are here, since tools and tests are clients
 * too. Knows no sockets.
 */
import {
  InstallKind,
  type MessageField,
  Messages,
  MessageType,
  SESSION_VERSION,
  SessionLimits,
} from '../spec/session.ts'

/** A buffer for messages of any size, with its view. */
export interface MessageBuffer {
  readonly bytes: Uint8Array
  readonly view: DataView
}

export const messageBuffer = (bytes = new Uint8Array(SessionLimits.bytes)): MessageBuffer => ({
  bytes,
  view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
})

/** What every message begins with. `type` is one of MessageType, REPLY or-ed in for replies. */
export interface Header {
  type: number
  serial: number
  context: number
  fd: number
  pid: number
  tid: number
}

/** One request, as the daemon reads it. Fields of other types than `type` keep old values. */
export interface Request extends Header {
  /** HELLO. */
  version: number
  tag: string
  /** Bits of HelloWants; OPEN: of OpenWants. */
  wants: number
  /** OPEN. */
  node: number
  /**
   * IOCTL: the request (32 bits) and the third argument; WRITE: address and length of the buffer; MAP: offset
   * (`buffer`), length, and PROT_… bits.
   */
  request: number
  argument: bigint
  buffer: bigint
  length: bigint
  protection: number
  /** TOOL: JSON text. */
  text: string
}

/** Where the caller wants the number of a new descriptor. */
export interface InstallAt {
  readonly address: bigint
  readonly width: 4 | 8
  /** One of InstallKind; EVENT if it is absent. */
  readonly kind?: number
}

/** One reply, as a client reads it. Fields of other types than `type` keep old values. */
export interface Reply extends Header {
  version: number
  /** HELLO, OPEN, ATTACH: 0 or a positive errno. */
  error: number
  root: string
  rdev: bigint
  inode: bigint
  /** IOCTL, WRITE and MAP. */
  ret: bigint
  installs: readonly InstallAt[]
  /** TOOL and TRACE: JSON text. IOCTL and WRITE: why it was refused, if the client wants reasons. */
  text: string
}

const header = (): Header => ({ type: 0, serial: 0, context: 0, fd: -1, pid: 0, tid: 0 })
const NO_INSTALLS: readonly InstallAt[] = Object.freeze([])

export const newRequest = (): Request => ({
  ...header(),
  version: 0,
  tag: '',
  wants: 0,
  node: 0,
  request: 0,
  argument: 0n,
  buffer: 0n,
  length: 0n,
  protection: 0,
  text: '',
})

export const newReply = (): Reply => ({
  ...header(),
  version: 0,
  error: 0,
  root: '',
  rdev: 0n,
  inode: 0n,
  ret: 0n,
  installs: NO_INSTALLS,
  text: '',
})

// ---- offsets, looked up once ----

const field = (message: keyof typeof Messages, name: string): MessageField => {
  const found = Messages[message].fields.find(f => f.name === name)
  if (!found) throw new Error(`session message ${message} has no field ${name}`)
  return found
}

const HEADER = Messages.header.size
const at = (name: string): number => field('header', name).offset
const body = (message: keyof typeof Messages, name: string): number => HEADER + field(message, name).offset

const TYPE = at('type')
const SIZE = at('size')
const SERIAL = at('serial')
const CONTEXT = at('context')
const FD = at('fd')
const PID = at('pid')
const TID = at('tid')
const RESERVED = at('reserved')
const HELLO_VERSION = body('hello', 'version')
const HELLO_WANTS = body('hello', 'wants')
const HELLO_TAG = body('hello', 'tag')
const HELLO_TAG_SIZE = field('hello', 'tag').size
const HELLO_REPLY_VERSION = body('helloReply', 'version')
const HELLO_REPLY_ERROR = body('helloReply', 'error')
const HELLO_REPLY_ROOT = body('helloReply', 'root')
const HELLO_REPLY_ROOT_SIZE = field('helloReply', 'root').size
const OPEN_NODE = body('open', 'node')
const OPEN_WANTS = body('open', 'wants')
const OPEN_REPLY_ERROR = body('openReply', 'error')
const OPEN_REPLY_CONTEXT = body('openReply', 'context')
const OPEN_REPLY_RDEV = body('openReply', 'rdev')
const OPEN_REPLY_INODE = body('openReply', 'inode')
const IOCTL_REQUEST = body('ioctl', 'request')
const IOCTL_ARGUMENT = body('ioctl', 'argument')
const WRITE_BUFFER = body('write', 'buffer')
const WRITE_LENGTH = body('write', 'length')
const MAP_OFFSET = body('map', 'offset')
const MAP_LENGTH = body('map', 'length')
const MAP_PROTECTION = body('map', 'protection')
const CALL_REPLY_RET = body('callReply', 'ret')
const CALL_REPLY_INSTALLS = body('callReply', 'installs')
const INSTALLS = HEADER + Messages.callReply.size
const INSTALL_SIZE = Messages.install.size
const INSTALL_ADDRESS = field('install', 'address').offset
const INSTALL_WIDTH = field('install', 'width').offset

/** Exact size of each request whose size is fixed. */
const REQUEST_SIZE: Readonly<Record<number, number>> = {
  [MessageType.HELLO]: HEADER + Messages.hello.size,
  [MessageType.OPEN]: HEADER + Messages.open.size,
  [MessageType.ATTACH]: HEADER,
  [MessageType.IOCTL]: HEADER + Messages.ioctl.size,
  [MessageType.WRITE]: HEADER + Messages.write.size,
  [MessageType.REFRESH]: HEADER,
  [MessageType.MAP]: HEADER + Messages.map.size,
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

const getText = (bytes: Uint8Array, from: number, to: number): string => decoder.decode(bytes.subarray(from, to))

/** NUL-terminated text in a field of `room` bytes. */
const getField = (bytes: Uint8Array, from: number, room: number): string => {
  const end = bytes.indexOf(0, from)
  return getText(bytes, from, end < 0 || end > from + room ? from + room : end)
}

/** Writes NUL-terminated text; throws RangeError if it does not fit. */
const putField = (bytes: Uint8Array, from: number, room: number, text: string, what: string): void => {
  bytes.fill(0, from, from + room)
  const { read } = encoder.encodeInto(text, bytes.subarray(from, from + room - 1))
  if (read < text.length) throw new RangeError(`${what} "${text}" is longer than ${room - 1} bytes`)
}

const getHeader = (view: DataView, into: Header): void => {
  into.type = view.getUint32(TYPE, true)
  into.serial = view.getUint32(SERIAL, true)
  into.context = view.getUint32(CONTEXT, true)
  into.fd = view.getInt32(FD, true)
  into.pid = view.getUint32(PID, true)
  into.tid = view.getUint32(TID, true)
}

const putHeader = (view: DataView, type: number, size: number, from: Partial<Header>): number => {
  view.setUint32(TYPE, type, true)
  view.setUint32(SIZE, size, true)
  view.setUint32(SERIAL, from.serial ?? 0, true)
  view.setUint32(CONTEXT, from.context ?? 0, true)
  view.setInt32(FD, from.fd ?? -1, true)
  view.setUint32(PID, from.pid ?? 0, true)
  view.setUint32(TID, from.tid ?? 0, true)
  view.setUint32(RESERVED, 0, true)
  return size
}

/** The header alone is sane: long enough, and as long as it says. */
const headerFault = (view: DataView, length: number): string | undefined => {
  if (length < HEADER) return `a message of ${length} bytes; the header alone has ${HEADER}`
  const claimed = view.getUint32(SIZE, true)
  if (claimed !== length) return `a message of ${length} bytes says that it has ${claimed}`
  return undefined
}

// ---- the daemon's side ----

/**
 * Reads a request of `length` bytes at the start of the buffer into `into`. Undefined if it is well-formed, else what
 * is wrong with it: such a client speaks another protocol, and its session is to be closed.
 */
export const readRequest = ({ bytes, view }: MessageBuffer, length: number, into: Request): string | undefined => {
  const fault = headerFault(view, length)
  if (fault) return fault
  getHeader(view, into)
  const { type } = into
  if (type === MessageType.TOOL) {
    into.text = getText(bytes, HEADER, length)
    return undefined
  }
  const size = REQUEST_SIZE[type]
  if (size === undefined) return `message type ${type} is not a request`
  if (length !== size) return `a message of type ${type} has ${length} bytes; ${size} are right`
  switch (type) {
    case MessageType.IOCTL:
      into.request = view.getUint32(IOCTL_REQUEST, true)
      into.argument = view.getBigUint64(IOCTL_ARGUMENT, true)
      break
    case MessageType.WRITE:
      into.buffer = view.getBigUint64(WRITE_BUFFER, true)
      into.length = view.getBigUint64(WRITE_LENGTH, true)
      break
    case MessageType.MAP:
      into.buffer = view.getBigUint64(MAP_OFFSET, true)
      into.length = view.getBigUint64(MAP_LENGTH, true)
      into.protection = view.getUint32(MAP_PROTECTION, true)
      break
    case MessageType.OPEN:
      into.node = view.getUint32(OPEN_NODE, true)
      into.wants = view.getUint32(OPEN_WANTS, true)
      break
    case MessageType.HELLO:
      into.version = view.getUint32(HELLO_VERSION, true)
      into.wants = view.getUint32(HELLO_WANTS, true)
      into.tag = getField(bytes, HELLO_TAG, HELLO_TAG_SIZE)
      break
  }
  return undefined
}

/** Writes the reply to HELLO; its length. Throws RangeError for a root of more than 239 bytes. */
export const writeHelloReply = (
  { bytes, view }: MessageBuffer,
  to: Header,
  reply: { readonly error: number; readonly root: string },
): number => {
  view.setUint32(HELLO_REPLY_VERSION, SESSION_VERSION, true)
  view.setInt32(HELLO_REPLY_ERROR, reply.error, true)
  putField(bytes, HELLO_REPLY_ROOT, HELLO_REPLY_ROOT_SIZE, reply.root, 'root')
  return putHeader(view, MessageType.REPLY | MessageType.HELLO, HEADER + Messages.helloReply.size, to)
}

/** Writes the reply to OPEN or ATTACH; its length. `error`: 0, or a positive errno, and then nothing else counts. */
export const writeOpenReply = (
  { view }: MessageBuffer,
  to: Header,
  reply: { readonly error: number; readonly context: number; readonly rdev: number; readonly inode: number },
): number => {
  view.setInt32(OPEN_REPLY_ERROR, reply.error, true)
  view.setUint32(OPEN_REPLY_CONTEXT, reply.context, true)
  view.setBigUint64(OPEN_REPLY_RDEV, BigInt(reply.rdev), true)
  view.setBigUint64(OPEN_REPLY_INODE, BigInt(reply.inode), true)
  return putHeader(view, MessageType.REPLY | to.type, HEADER + Messages.openReply.size, to)
}

/** Most bytes of a reason. */
const REASON = 1024

/**
 * Writes the reply to IOCTL or WRITE; its length. `ret` ≥ 0 or minus errno; at most SessionLimits.descriptors installs.
 * `reason`: of a refusal, for who wants it; cut off after 1024 bytes.
 */
export const writeCallReply = (
  { bytes, view }: MessageBuffer,
  to: Header,
  ret: number,
  installs: readonly InstallAt[] = NO_INSTALLS,
  reason = '',
): number => {
  const count = installs.length
  if (count > SessionLimits.descriptors)
    throw new RangeError(`${count} descriptors in one reply; at most ${SessionLimits.descriptors} are allowed`)
  // A safe integer in two halves: no big integer for the common small values.
  view.setUint32(CALL_REPLY_RET, ret >>> 0, true)
  view.setInt32(CALL_REPLY_RET + 4, Math.floor(ret / 2 ** 32), true)
  view.setUint32(CALL_REPLY_INSTALLS, count, true)
  view.setUint32(CALL_REPLY_INSTALLS + 4, 0, true)
  for (let i = 0, where = INSTALLS; i < count; i++, where += INSTALL_SIZE) {
    view.setBigUint64(where + INSTALL_ADDRESS, installs[i].address, true)
    view.setUint32(where + INSTALL_WIDTH, installs[i].width, true)
    view.setUint32(where + INSTALL_WIDTH + 4, installs[i].kind ?? InstallKind.EVENT, true)
  }
  const end = INSTALLS + count * INSTALL_SIZE
  const said = reason === '' ? 0 : encoder.encodeInto(reason, bytes.subarray(end, end + REASON)).written
  return putHeader(view, MessageType.REPLY | to.type, end + said, to)
}

const putText = ({ bytes, view }: MessageBuffer, type: number, to: Partial<Header>, text: string): number => {
  const { read, written } = encoder.encodeInto(text, bytes.subarray(HEADER))
  if (read < text.length) return 0
  return putHeader(view, type, HEADER + written, to)
}

/** Writes the reply to TOOL; its length, or 0 if the text is too long for one message. */
export const writeToolReply = (buffer: MessageBuffer, to: Header, text: string): number =>
  putText(buffer, MessageType.REPLY | MessageType.TOOL, to, text)

/** Writes a TRACE message, which nobody asked for; its length, or 0 if the text is too long for one message. */
export const writeTrace = (buffer: MessageBuffer, text: string): number => putText(buffer, MessageType.TRACE, {}, text)

// ---- the client's side: tools, tests ----

export const writeHello = ({ bytes, view }: MessageBuffer, from: Partial<Header>, tag = '', wants = 0): number => {
  view.setUint32(HELLO_VERSION, SESSION_VERSION, true)
  view.setUint32(HELLO_WANTS, wants, true)
  putField(bytes, HELLO_TAG, HELLO_TAG_SIZE, tag, 'tag')
  return putHeader(view, MessageType.HELLO, HEADER + Messages.hello.size, from)
}

/** `wants`: bits of OpenWants. */
export const writeOpen = ({ view }: MessageBuffer, from: Partial<Header>, node: number, wants = 0): number => {
  view.setUint32(OPEN_NODE, node, true)
  view.setUint32(OPEN_WANTS, wants, true)
  return putHeader(view, MessageType.OPEN, HEADER + Messages.open.size, from)
}

export const writeAttach = ({ view }: MessageBuffer, from: Partial<Header>): number =>
  putHeader(view, MessageType.ATTACH, HEADER, from)

export const writeIoctl = (
  { view }: MessageBuffer,
  from: Partial<Header>,
  request: number,
  argument: bigint,
): number => {
  view.setBigUint64(IOCTL_REQUEST, BigInt(request), true)
  view.setBigUint64(IOCTL_ARGUMENT, argument, true)
  return putHeader(view, MessageType.IOCTL, HEADER + Messages.ioctl.size, from)
}

export const writeWrite = ({ view }: MessageBuffer, from: Partial<Header>, buffer: bigint, length: bigint): number => {
  view.setBigUint64(WRITE_BUFFER, buffer, true)
  view.setBigUint64(WRITE_LENGTH, length, true)
  return putHeader(view, MessageType.WRITE, HEADER + Messages.write.size, from)
}

export const writeMap = (
  { view }: MessageBuffer,
  from: Partial<Header>,
  offset: bigint,
  length: bigint,
  protection: number,
): number => {
  view.setBigUint64(MAP_OFFSET, offset, true)
  view.setBigUint64(MAP_LENGTH, length, true)
  view.setUint32(MAP_PROTECTION, protection, true)
  view.setUint32(MAP_PROTECTION + 4, 0, true)
  return putHeader(view, MessageType.MAP, HEADER + Messages.map.size, from)
}

export const writeRefresh = ({ view }: MessageBuffer, from: Partial<Header>): number =>
  putHeader(view, MessageType.REFRESH, HEADER, from)

/** Writes a TOOL request; its length, or 0 if the text is too long for one message. */
export const writeTool = (buffer: MessageBuffer, from: Partial<Header>, text: string): number =>
  putText(buffer, MessageType.TOOL, from, text)

const getInstalls = (view: DataView, count: number): readonly InstallAt[] =>
  Array.from({ length: count }, (_, i) => {
    const where = INSTALLS + i * INSTALL_SIZE
    return {
      address: view.getBigUint64(where + INSTALL_ADDRESS, true),
      width: view.getUint32(where + INSTALL_WIDTH, true) === 8 ? 8 : 4,
      kind: view.getUint32(where + INSTALL_WIDTH + 4, true),
    }
  })

/** Reads a reply, or a TRACE message, of `length` bytes; undefined if it is well-formed, else what is wrong with it. */
export const readReply = ({ bytes, view }: MessageBuffer, length: number, into: Reply): string | undefined => {
  const fault = headerFault(view, length)
  if (fault) return fault
  getHeader(view, into)
  const short = (size: number): string | undefined =>
    length < size ? `a reply of type ${into.type} has ${length} bytes; ${size} are needed` : undefined
  switch (into.type) {
    case MessageType.TRACE:
    case MessageType.REPLY | MessageType.TOOL:
      into.text = getText(bytes, HEADER, length)
      return undefined
    case MessageType.REPLY | MessageType.HELLO: {
      const fault = short(HEADER + Messages.helloReply.size)
      if (fault) return fault
      into.version = view.getUint32(HELLO_REPLY_VERSION, true)
      into.error = view.getInt32(HELLO_REPLY_ERROR, true)
      into.root = getField(bytes, HELLO_REPLY_ROOT, HELLO_REPLY_ROOT_SIZE)
      return undefined
    }
    case MessageType.REPLY | MessageType.OPEN:
    case MessageType.REPLY | MessageType.ATTACH: {
      const fault = short(HEADER + Messages.openReply.size)
      if (fault) return fault
      into.error = view.getInt32(OPEN_REPLY_ERROR, true)
      into.context = view.getUint32(OPEN_REPLY_CONTEXT, true)
      into.rdev = view.getBigUint64(OPEN_REPLY_RDEV, true)
      into.inode = view.getBigUint64(OPEN_REPLY_INODE, true)
      return undefined
    }
    case MessageType.REPLY | MessageType.MAP:
    case MessageType.REPLY | MessageType.REFRESH:
    case MessageType.REPLY | MessageType.IOCTL:
    case MessageType.REPLY | MessageType.WRITE: {
      const fault = short(INSTALLS)
      if (fault) return fault
      const count = view.getUint32(CALL_REPLY_INSTALLS, true)
      const end = INSTALLS + count * INSTALL_SIZE
      into.ret = view.getBigInt64(CALL_REPLY_RET, true)
      if (length < end || (length > end && into.ret >= 0n))
        return `a reply of ${length} bytes says that it has ${count} installs`
      into.text = getText(bytes, end, length)
      into.installs = count === 0 ? NO_INSTALLS : getInstalls(view, count)
      return undefined
    }
    default:
      return `message type ${into.type} is not a reply`
  }
}
