/*
 * Linux's dialect of umad files (R41, R43): ioctls that create agents, and messages that are written and read after a
 * header. Handles of agents are the agents' ids. Errors are those of Linux's user_mad.c.
 */
import {
  MAD_CHANNEL_AGENTS,
  MAD_MESSAGE_BYTES,
  MAD_RECEIVED_BYTES,
  MAD_TAG_BYTES,
} from '../../spec/classes/mad/mad_channel.ts'
import { MadAgentFlags } from '../../spec/enums.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { because } from '../../spec/reason.ts'
import type { AnyRecord, AnyValues } from '../../spec/schema/schema.ts'
import { GSI_QPN } from '../../spec/wire/mad.ts'
import { RMPP_HEADER_END } from '../../spec/wire/management.ts'
import type { Answer, CallerView, Decoded } from '../call.ts'
import { viewOf } from '../scalar.ts'
import { answering, answeringAs, callOf, refuse } from './caller.ts'
import { RegisterAgent, RegisterAgent2, UmadHeader, UmadIoctl } from './umad-layout.ts'

/** One opened file. */
export interface UmadFile {
  /** Core's number of the channel. */
  readonly object: number
  /** The descriptor's number in the caller. */
  readonly fd: number
  /** The decoders below change it. */
  readonly mode: UmadMode
}

export interface UmadMode {
  /** Whether headers have a P_Key index. */
  hasPkeys: boolean
  /** Whether an agent was created: from then on, `hasPkeys` does not change. */
  isUsed: boolean
}

const headerBytes = ({ hasPkeys }: UmadMode): number => (hasPkeys ? UmadHeader.bytes : UmadHeader.bytesWithoutPkey)

const KNOWN_FLAGS = Object.values(MadAgentFlags.values).reduce((all, flag) => all | flag, 0)
/** Bytes of the bit mask of an agent's methods. */
const METHOD_MASK_BYTES = 16

/** Arguments of `mad_agent.create` from the struct of REGISTER_AGENT. */
const readRegistration = (bytes: Uint8Array): AnyValues => {
  const at = RegisterAgent
  const oui = (bytes[at.oui]! << 16) | (bytes[at.oui + 1]! << 8) | bytes[at.oui + 2]!
  return {
    mgmtClass: bytes[at.mgmtClass]!,
    classVersion: bytes[at.classVersion]!,
    methods: bytes.slice(at.methods, at.methods + METHOD_MASK_BYTES),
    oui,
    rmppVersion: bytes[at.rmppVersion]!,
    qpn: bytes[at.qpn]!,
  }
}

/** Arguments of `mad_agent.create` from the struct of REGISTER_AGENT2. */
const readRegistration2 = (bytes: Uint8Array): AnyValues => {
  const at = RegisterAgent2
  const view = viewOf(bytes)
  return {
    mgmtClass: bytes[at.mgmtClass]!,
    classVersion: bytes[at.classVersion]!,
    methods: bytes.slice(at.methods, at.methods + METHOD_MASK_BYTES),
    oui: view.getUint32(at.oui, true),
    rmppVersion: bytes[at.rmppVersion]!,
    flags: view.getUint32(at.flags, true),
    qpn: view.getUint32(at.qpn, true),
  }
}

const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  viewOf(bytes).setUint32(0, value, true)
  return bytes
}

/**
 * Omits arguments that have their default values. As on Linux, class version, methods and OUI of an agent without a
 * class are ignored: it receives no requests.
 */
const withoutDefaults = (args: AnyValues): AnyValues => {
  const { mgmtClass, classVersion, methods, oui, flags, rmppVersion, qpn } = args
  const hasClass = mgmtClass !== 0
  return {
    mgmtClass,
    classVersion: hasClass ? classVersion : 0,
    methods: hasClass ? methods : new Uint8Array(METHOD_MASK_BYTES),
    ...(hasClass && oui !== 0 && { oui }),
    ...(flags !== 0 && flags !== undefined && { flags }),
    ...(rmppVersion !== 0 && { rmppVersion }),
    ...(qpn !== GSI_QPN && { qpn }),
  }
}

/** The kernel has created an agent. */
const registered = (mode: UmadMode, isVersion2: boolean): void => {
  if (isVersion2 && !mode.isUsed) mode.hasPkeys = true
  mode.isUsed = true
}

/** `isVersion2`: REGISTER_AGENT2. If it creates the file's first agent, headers get a P_Key index. */
const register = (view: CallerView, { fd, mode }: UmadFile, argument: bigint, isVersion2: boolean): Decoded => {
  const struct = isVersion2 ? RegisterAgent2 : RegisterAgent
  const args = (isVersion2 ? readRegistration2 : readRegistration)(view.copyIn(argument, struct.bytes))
  if (isVersion2 && ((args.flags as number) & ~KNOWN_FLAGS) !== 0) {
    // tells the caller the known flags
    view.copyOut(argument + BigInt(RegisterAgent2.flags), u32(KNOWN_FLAGS))
    throw callError.EINVAL`REGISTER_AGENT2: flags 0x${(args.flags as number).toString(16)}; known are 0x${KNOWN_FLAGS.toString(16)}`
  }
  const call = callOf(view, 'mad_agent', 'create', undefined, { channel: fd, ...withoutDefaults(args) })
  return {
    call,
    legacy: () => undefined,
    answer: outcome =>
      answering(() => {
        if (outcome instanceof CallError) return refuse(outcome)
        view.copyOut(argument + BigInt(struct.id), u32(outcome.object!))
        registered(mode, isVersion2)
        return { ret: 0, installs: [] }
      }),
    readResult: after => {
      registered(mode, isVersion2)
      return { object: viewOf(after.copyIn(argument + BigInt(struct.id), 4)).getUint32(0, true), out: {} }
    },
  }
}

/** Throws CallError `code` if the file has no agent with this id. */
const requireAgent = (view: CallerView, id: number, code: 'EINVAL' | 'EIO'): void => {
  if (view.classOf(id)?.name !== 'mad_agent') throw new CallError(code, because`umad: the file has no agent ${id}`)
}

const unregister = (view: CallerView, argument: bigint): Decoded => {
  const id = viewOf(view.copyIn(argument, 4)).getUint32(0, true)
  requireAgent(view, id, 'EINVAL')
  return {
    call: callOf(view, 'mad_agent', 'destroy', id, {}),
    legacy: () => undefined,
    answer: outcome => answering(() => (outcome instanceof CallError ? refuse(outcome) : { ret: 0, installs: [] })),
  }
}

/** Decodes an ioctl on a umad file. */
export const decodeUmadIoctl = (
  view: CallerView,
  file: UmadFile,
  request: number,
  argument: bigint,
): Decoded | Answer =>
  answeringAs((onName): Decoded | Answer => {
    switch (request) {
      case UmadIoctl.REGISTER_AGENT:
        onName('umad REGISTER_AGENT')
        return register(view, file, argument, false)
      case UmadIoctl.REGISTER_AGENT2:
        onName('umad REGISTER_AGENT2')
        return register(view, file, argument, true)
      case UmadIoctl.UNREGISTER_AGENT:
        onName('umad UNREGISTER_AGENT')
        return unregister(view, argument)
      case UmadIoctl.ENABLE_PKEY: {
        const attempt = 'umad ENABLE_PKEY'
        onName(attempt)
        if (file.mode.isUsed) throw callError.EINVAL`umad: P_Keys can be enabled only before the first agent`
        file.mode.hasPkeys = true
        return { ret: 0, installs: [], attempt }
      }
      default:
        throw callError.ENOTTY`umad: there is no ioctl 0x${request.toString(16)}`
    }
  })

/** Whether the device has LIDs: its messages have no address of RoCE. */
const hasLids = (view: CallerView): boolean => {
  const { in: attributes } = view.schema.classByName('mad_agent')?.methods.send ?? {}
  return attributes !== undefined && attributes.address === undefined
}

/** The other end of a message, in its header. */
const readAddress = (bytes: Uint8Array, isByLid: boolean): AnyValues => {
  const header = viewOf(bytes)
  const global = {
    dgid: bytes.slice(UmadHeader.gid, UmadHeader.gid + 16),
    flowLabel: header.getUint32(UmadHeader.flowLabel),
    sgidIndex: bytes[UmadHeader.gidIndex]!,
    hopLimit: bytes[UmadHeader.hopLimit]!,
    trafficClass: bytes[UmadHeader.trafficClass]!,
    staticRate: 0,
    isGlobal: bytes[UmadHeader.grhPresent] === 0 ? 0 : 1,
    port: 1,
  }
  const sl = bytes[UmadHeader.sl]! & 15
  const lids = { sl, srcPathBits: bytes[UmadHeader.pathBits]! & 0x7f, dlid: header.getUint16(UmadHeader.lid) }
  const qpn = header.getUint32(UmadHeader.qpn)
  return isByLid ? { ibAddress: { ...global, ...lids }, qpn } : { address: { ...global, sl: 0 }, qpn }
}

/** Decodes a write(2) to a umad file of the `length` bytes at `address`: a header and a message. */
export const decodeUmadWrite = (
  view: CallerView,
  { mode }: UmadFile,
  address: bigint,
  length: number,
): Decoded | Answer =>
  answeringAs((onName): Decoded => {
    onName('umad write')
    const headerSize = headerBytes(mode)
    if (length < headerSize + RMPP_HEADER_END || length > headerSize + MAD_MESSAGE_BYTES)
      throw callError.EINVAL`umad: ${length} bytes; a header of ${headerSize} and a message of ${RMPP_HEADER_END} to ${MAD_MESSAGE_BYTES} are written`
    const written = view.copyIn(address, length)
    const header = viewOf(written)
    const id = header.getUint32(UmadHeader.id, true)
    if (id >= MAD_CHANNEL_AGENTS) throw callError.EINVAL`umad: agent ${id} is not in 0 to ${MAD_CHANNEL_AGENTS - 1}`
    requireAgent(view, id, 'EIO')
    // The caller reads this header back if the request times out.
    const tag = new Uint8Array(MAD_TAG_BYTES)
    tag.set(written.subarray(0, headerSize))
    const args: AnyValues = {
      ...readAddress(written, hasLids(view)),
      ...(mode.hasPkeys && { pkeyIndex: header.getUint16(UmadHeader.pkeyIndex, true) }),
      timeout: header.getUint32(UmadHeader.timeout, true),
      retries: header.getUint32(UmadHeader.retries, true),
      tag,
      data: written.slice(headerSize),
    }
    return {
      call: callOf(view, 'mad_agent', 'send', id, args),
      legacy: () => undefined,
      answer: outcome =>
        answering(() => (outcome instanceof CallError ? refuse(outcome) : { ret: length, installs: [] })),
    }
  })

/** Writes a header with the results of `mad_channel.receive`. */
const writeHeader = (bytes: Uint8Array, values: AnyValues, mode: UmadMode): void => {
  const { agent, status, length, tag } = values
  const byLid = values.ibAddress as AnyRecord | undefined
  const address = byLid ?? (values.address as AnyRecord | undefined)
  const view = viewOf(bytes)
  if (tag !== undefined) bytes.set((tag as Uint8Array).subarray(0, bytes.length))
  view.setUint32(UmadHeader.id, agent as number, true)
  view.setUint32(UmadHeader.status, status as number, true)
  // a request that timed out comes back with the header that the program wrote
  if (address === undefined) return
  view.setUint32(UmadHeader.length, bytes.length + (length as number), true)
  view.setUint32(UmadHeader.qpn, values.qpn as number)
  bytes[UmadHeader.grhPresent] = address.isGlobal as number
  if (byLid !== undefined) {
    view.setUint16(UmadHeader.lid, byLid.dlid as number)
    bytes[UmadHeader.sl] = byLid.sl as number
  }
  bytes[UmadHeader.gidIndex] = address.sgidIndex as number
  bytes[UmadHeader.hopLimit] = address.hopLimit as number
  bytes[UmadHeader.trafficClass] = address.trafficClass as number
  bytes.set(address.dgid as Uint8Array, UmadHeader.gid)
  view.setUint32(UmadHeader.flowLabel, address.flowLabel as number)
  if (mode.hasPkeys) view.setUint16(UmadHeader.pkeyIndex, values.pkeyIndex as number, true)
}

/** The results of `mad_channel.receive` in a header and a message: the inverse of `writeHeader`. */
const readReceived = (bytes: Uint8Array, mode: UmadMode, isByLid: boolean): AnyValues => {
  const headerSize = headerBytes(mode)
  const header = viewOf(bytes.subarray(0, headerSize))
  const status = header.getUint32(UmadHeader.status, true)
  const data = bytes.slice(headerSize)
  const values = { agent: header.getUint32(UmadHeader.id, true), status, data }
  if (status !== 0) {
    const tag = new Uint8Array(MAD_TAG_BYTES)
    tag.set(bytes.subarray(0, headerSize))
    return { ...values, length: data.length, tag }
  }
  return {
    ...values,
    length: header.getUint32(UmadHeader.length, true) - headerSize,
    ...readAddress(bytes, isByLid),
    ...(mode.hasPkeys && { pkeyIndex: header.getUint16(UmadHeader.pkeyIndex, true) }),
  }
}

/** Decodes a read(2) of `length` bytes from a umad file to `address`. */
export const decodeUmadRead = (
  view: CallerView,
  { object, mode }: UmadFile,
  address: bigint,
  length: number,
): Decoded | Answer =>
  answeringAs((onName): Decoded => {
    onName('umad read')
    const headerSize = headerBytes(mode)
    if (length < headerSize)
      throw callError.EINVAL`umad: a read of ${length} bytes; the header of a message has ${headerSize}`
    return {
      call: callOf(view, 'mad_channel', 'receive', object, {
        // limited to fit a u32
        bufferBytes: Math.min(length - headerSize, MAD_RECEIVED_BYTES),
      }),
      legacy: () => undefined,
      answer: outcome =>
        answering(() => {
          if (outcome instanceof CallError) return refuse(outcome)
          const { out } = outcome
          const data = out.data as Uint8Array
          const bytes = new Uint8Array(headerSize + data.length)
          writeHeader(bytes.subarray(0, headerSize), out, mode)
          bytes.set(data, headerSize)
          view.copyOut(address, bytes)
          if (data.length === out.length) return { ret: bytes.length, installs: [] }
          // the caller reads again with the length in the header
          return refuse(callError.ENOSPC`umad: the message has ${String(out.length)} bytes`)
        }),
      readResult: (after, ret) => ({
        out: readReceived(after.copyIn(address, Math.max(ret, headerSize)), mode, hasLids(view)),
      }),
    }
  })
