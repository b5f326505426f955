/*
 * Recorded system calls (test/fixtures/abi/ORIGIN.md): a parser, and the memory of a simulated process for replays.
 */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { CallError, Errno } from '../../src/spec/errno.ts'
import { UHW_IN } from '../../src/spec/linux/ioctl.ts'
import { IoctlAttr, IoctlHeader, offsetOf } from '../../src/uapi/linux/ioctl-message.ts'
import { fixture } from '../paths.ts'

export interface LoggedAttribute {
  readonly id: number
  readonly length: number
  readonly flags: number
  /** `attr_data` of struct ib_uverbs_attr: reserved, or `elem_id` of an enum attribute. */
  readonly element: number
  readonly data: bigint
  /** Flags and data after the call, if changed. */
  readonly flagsAfter: number | undefined
  readonly dataAfter: bigint | undefined
  /** Memory at `data` before the call, and after it if changed. */
  readonly before: Uint8Array | undefined
  readonly after: Uint8Array | undefined
}

interface Logged {
  /** Line number in the log, from 1. */
  readonly line: number
  readonly ret: number
  /** Positive; 0 on success. */
  readonly errno: number
  readonly fd: number
  /** The text of the last preceding line `# …`. */
  readonly step: string
}
export interface LoggedIoctl extends Logged {
  readonly kind: 'ioctl'
  readonly object: number
  readonly method: number
  readonly length: number
  readonly driver: number
  readonly reserved: readonly [number, number]
  readonly attributes: readonly LoggedAttribute[]
}
/** Linux's rxe refused QUERY_CONTEXT (object DEVICE, method 4) with EOPNOTSUPP; userdma answers it. */
export const isRefusedQueryContext = (logged: LoggedCall): boolean =>
  logged.kind === 'ioctl' && logged.object === 0 && logged.method === 4 && logged.errno === Errno.EOPNOTSUPP

export interface LoggedWrite extends Logged {
  readonly kind: 'write'
  readonly path: string
  readonly data: Uint8Array
  /** Memory at the response pointer after the call. */
  readonly response: Uint8Array | undefined
}
/** An ioctl that is not RDMA_VERBS_IOCTL. */
interface LoggedRequest extends Logged {
  readonly kind: 'request'
  readonly path: string
  readonly request: number
}
interface LoggedOpen extends Logged {
  readonly kind: 'open'
  readonly path: string
}
interface LoggedClose extends Logged {
  readonly kind: 'close'
}
interface LoggedRead extends Logged {
  readonly kind: 'read'
  readonly data: Uint8Array
}
export interface LoggedMmap extends Logged {
  readonly kind: 'mmap'
  readonly length: number
  readonly offset: bigint
  /** The first bytes of the mapping, at most 512. */
  readonly head: Uint8Array
}
export type LoggedCall = LoggedIoctl | LoggedWrite | LoggedRequest | LoggedOpen | LoggedClose | LoggedRead | LoggedMmap

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))

/** The `key=value` words of a line. */
const words = (line: string): ReadonlyMap<string, string> =>
  new Map([...line.matchAll(/(\S+?)=(\S*)/g)].map(([, key, value]) => [key, value]))

const attributeOf = (line: string): LoggedAttribute => {
  const values = words(line)
  const bytes = (key: string): Uint8Array | undefined => {
    const text = values.get(key)
    return text === undefined ? undefined : hex(text)
  }
  // Names with an apostrophe have values after the call.
  const flagsAfter = values.get("flags'")
  const dataAfter = values.get("data'")
  return {
    id: Number(values.get('id')),
    length: Number(values.get('len')),
    flags: Number(values.get('flags')),
    element: Number(values.get('elem')),
    data: BigInt(values.get('data')!),
    flagsAfter: flagsAfter === undefined ? undefined : Number(flagsAfter),
    dataAfter: dataAfter === undefined ? undefined : BigInt(dataAfter),
    before: bytes('in'),
    after: bytes('out'),
  }
}

/** The calls of a log. Other lines (netlink messages) are skipped. */
const parseAbilog = (text: string): LoggedCall[] => {
  const calls: LoggedCall[] = []
  const lines = text.split('\n')
  let step = ''
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]
    if (line.startsWith('# ')) step = line.slice(2)
    const number = i + 1
    const details: string[] = []
    while (lines[i + 1]?.startsWith('  ')) details.push(lines[++i])
    const kind = line.split(' ', 1)[0]
    const values = words(line)
    const ret = Number(/ = (-?\w+)/.exec(line)?.[1] ?? 0)
    const base = {
      line: number,
      ret,
      errno: Number(values.get('errno') ?? 0),
      fd: Number(values.get('fd') ?? -1),
      step,
    }
    const detail = (key: string): Uint8Array | undefined => {
      const found = details.find(d => d.startsWith(`  ${key}=`))
      return found === undefined ? undefined : hex(found.slice(key.length + 3))
    }
    const path = /(\/dev\/\S+)/.exec(line)?.[1] ?? ''
    if (kind === 'ioctl' && values.has('object')) {
      const [a, b] = values.get('reserved')!.split(',').map(Number)
      calls.push({
        ...base,
        kind: 'ioctl',
        object: Number(values.get('object')),
        method: Number(values.get('method')),
        length: Number(values.get('length')),
        driver: Number(values.get('driver')),
        reserved: [a, b],
        attributes: details.map(attributeOf),
      })
    } else if (kind === 'ioctl') calls.push({ ...base, kind: 'request', path, request: Number(values.get('request')) })
    else if (kind === 'write')
      calls.push({ ...base, kind: 'write', path, data: detail('data')!, response: detail('response') })
    else if (kind === 'open') calls.push({ ...base, kind: 'open', path, fd: ret })
    else if (kind === 'close') calls.push({ ...base, kind: 'close' })
    else if (kind === 'read') calls.push({ ...base, kind: 'read', data: hex(values.get('data') ?? '') })
    else if (kind === 'mmap')
      calls.push({
        ...base,
        kind: 'mmap',
        length: Number(values.get('len')),
        offset: BigInt(values.get('offset')!),
        head: detail('head') ?? new Uint8Array(),
      })
  }
  return calls
}

export const readAbilog = (name: string): LoggedCall[] => {
  const bytes = readFileSync(fixture('abi', name))
  return parseAbilog((name.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('latin1'))
}

/** All logs except `raw` and `objects`. */
export const PROGRAM_LOGS = [
  'ibv_devinfo.abilog.gz',
  'ibv_rc_pingpong.client.abilog',
  'ibv_rc_pingpong.server.abilog',
  'ibv_rc_pingpong_events.client.abilog',
  'ibv_rc_pingpong_events.server.abilog',
  'ibv_uc_pingpong.client.abilog',
  'ibv_uc_pingpong.server.abilog',
  'ibv_ud_pingpong.client.abilog',
  'ibv_ud_pingpong.server.abilog',
  'multicast_attach.client.abilog',
  'multicast_attach.server.abilog',
  'ibv_srq_pingpong.client.abilog',
  'ibv_srq_pingpong.server.abilog',
] as const

/** Calls without `path` count as calls on a uverbs file, also a close of rdma_cm's file. */
export const onUverbs = (call: LoggedCall): boolean => !('path' in call) || call.path.includes('uverbs')

// ---- memory of a simulated process ----

const PAGE = 4096
/** Bytes of rxe's struct mminfo. */
const MMAP_INFO = 16

/** Sparse memory: unmapped addresses fault. */
export interface FakeMemory {
  map(address: bigint, bytes: Uint8Array): void
  copyIn(address: bigint, length: number): Uint8Array
  copyOut(address: bigint, bytes: Uint8Array): void
}

export const fakeMemory = (): FakeMemory => {
  const pages = new Map<bigint, { bytes: Uint8Array; mapped: Uint8Array }>()
  const pageOf = (address: bigint): [bigint, number] => [address / BigInt(PAGE), Number(address % BigInt(PAGE))]
  const find = (address: bigint): { bytes: Uint8Array; index: number } => {
    const [number, index] = pageOf(address)
    const page = pages.get(number)
    if (page === undefined || page.mapped[index] === 0)
      throw new CallError('EFAULT', `address 0x${address.toString(16)} is not mapped`)
    return { bytes: page.bytes, index }
  }
  return {
    map: (address, bytes) => {
      for (let i = 0; i < bytes.length; i++) {
        const [number, index] = pageOf(address + BigInt(i))
        let page = pages.get(number)
        if (page === undefined) {
          page = { bytes: new Uint8Array(PAGE), mapped: new Uint8Array(PAGE) }
          pages.set(number, page)
        }
        page.bytes[index] = bytes[i]
        page.mapped[index] = 1
      }
    },
    copyIn: (address, length) => {
      const bytes = new Uint8Array(length)
      for (let i = 0; i < length; i++) {
        const found = find(address + BigInt(i))
        bytes[i] = found.bytes[found.index]
      }
      return bytes
    },
    copyOut: (address, bytes) => {
      for (let i = 0; i < bytes.length; i++) find(address + BigInt(i))
      for (let i = 0; i < bytes.length; i++) {
        const found = find(address + BigInt(i))
        found.bytes[found.index] = bytes[i]
      }
    },
  }
}

// ---- memory of recorded calls ----

/** The address of an ioctl's message or a write's buffer. No recorded pointer is near. */
export const MESSAGE_AT = 0x100000000n

/** The message of a recorded ioctl. */
export const ioctlMessage = (call: LoggedIoctl): Uint8Array => {
  const bytes = new Uint8Array(offsetOf(call.attributes.length))
  const view = new DataView(bytes.buffer)
  view.setUint16(IoctlHeader.length, call.length, true)
  view.setUint16(IoctlHeader.object, call.object, true)
  view.setUint16(IoctlHeader.method, call.method, true)
  view.setUint16(IoctlHeader.attributeCount, call.attributes.length, true)
  view.setBigUint64(IoctlHeader.reserved1, BigInt(call.reserved[0]), true)
  view.setUint32(IoctlHeader.driverId, call.driver, true)
  view.setUint32(IoctlHeader.reserved2, call.reserved[1], true)
  call.attributes.forEach((attribute, i) => {
    const at = offsetOf(i)
    view.setUint16(at + IoctlAttr.id, attribute.id, true)
    view.setUint16(at + IoctlAttr.length, attribute.length, true)
    view.setUint16(at + IoctlAttr.flags, attribute.flags, true)
    view.setUint16(at + IoctlAttr.reserved, attribute.element, true)
    view.setBigUint64(at + IoctlAttr.data, attribute.data, true)
  })
  return bytes
}

/** The message of a recorded ioctl after the call. */
export const ioctlMessageAfter = (call: LoggedIoctl): Uint8Array => {
  const bytes = ioctlMessage(call)
  const view = new DataView(bytes.buffer)
  call.attributes.forEach(({ flagsAfter, dataAfter }, i) => {
    if (flagsAfter !== undefined) view.setUint16(offsetOf(i) + IoctlAttr.flags, flagsAfter, true)
    if (dataAfter !== undefined) view.setBigUint64(offsetOf(i) + IoctlAttr.data, dataAfter, true)
  })
  return bytes
}

/**
 * The memory that a call refers to, before the call. A write's response buffer, which the log has only after the call,
 * is filled with 0xcc, as in the hand-made calls (`raw`).
 */
export const memoryBefore = (call: LoggedIoctl | LoggedWrite): FakeMemory => {
  const memory = fakeMemory()
  if (call.kind === 'ioctl') {
    for (const { id, data, before } of call.attributes) {
      if (before === undefined) continue
      // rxe's input is the address of a struct mminfo. The log has only the first 8 bytes of the struct.
      if (id === UHW_IN) memory.map(data, new Uint8Array(MMAP_INFO))
      memory.map(data, before)
    }
    memory.map(MESSAGE_AT, ioctlMessage(call))
  } else {
    memory.map(MESSAGE_AT, call.data)
    if (call.response !== undefined) memory.map(responseAddress(call), new Uint8Array(call.response.length).fill(0xcc))
  }
  return memory
}

/** The response pointer is at byte 8 of basic and of extended commands. */
export const responseAddress = (call: LoggedWrite): bigint =>
  new DataView(call.data.buffer, call.data.byteOffset).getBigUint64(8, true)
