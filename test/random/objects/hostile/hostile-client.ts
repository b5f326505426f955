/*
 * A client that makes plausible calls (plausible.ts) in the object dialect and in Linux's write and ioctl dialects.
 * Each refused call must get an errno and a message.
 */
import assert from 'node:assert/strict'
import { type Caller, type Context, dispatch, openContext } from '../../../../src/core/index.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { CallError, errnoName } from '../../../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../../../src/spec/linux/ioctl.ts'
import type { ObjectClass } from '../../../../src/spec/schema/schema.ts'
import type { Answer, Schema } from '../../../../src/uapi/call.ts'
import {
  decodeIoctl,
  decodeWrite,
  EntryPoint,
  encodeLinux,
  encodings,
  ioctlRequest,
} from '../../../../src/uapi/index.ts'
import { ENTRY_HEADER } from '../../../../src/uapi/object/chain.ts'
import { encodeCall } from '../../../../src/uapi/object/client.ts'
import { HEADER } from '../../../../src/uapi/object/dialect.ts'
import { pad } from '../../../../src/uapi/object/format.ts'
import { type Machine, type Program, register } from '../../../drivers/rxe/machine.ts'
import { type TestRings, testRings } from '../../../drivers/rxe/provider.ts'
import { expressible } from '../../../uapi/expressible.ts'
import { mutate } from '../../fuzz/mutate.ts'
import type { RandomSource } from '../../model/random.ts'
import { type ClientState, plausibleCall } from '../plausible.ts'

// ---- the memory of a client ----

/** Addresses of the message and of its buffers. Each area has AREA_BYTES bytes; all other addresses are unmapped. */
export const MESSAGE_AT = 0x10_0000n
export const BUFFERS_AT = 0x20_0000n
const AREA_BYTES = 0x1_0000

const fault = (address: bigint): never => {
  throw new CallError('EFAULT', `address 0x${address.toString(16)} is not mapped`)
}

const createMemory = () => {
  const message = new Uint8Array(AREA_BYTES)
  const area = new Uint8Array(AREA_BYTES)
  const find = (address: bigint, length: number): Uint8Array => {
    for (const [start, bytes] of [
      [MESSAGE_AT, message],
      [BUFFERS_AT, area],
    ] as const) {
      const at = address - start
      if (at >= 0n && at + BigInt(length) <= BigInt(AREA_BYTES)) return bytes.subarray(Number(at), Number(at) + length)
    }
    return fault(address)
  }
  return {
    message,
    area,
    copyIn: (address: bigint, length: number) => find(address, length).slice(),
    copyOut: (address: bigint, bytes: Uint8Array) => find(address, bytes.length).set(bytes),
  }
}
type Memory = ReturnType<typeof createMemory>

// ---- messages ----

export type DialectName = 'object' | 'write' | 'ioctl'

/** One system call. */
export interface Message {
  readonly systemCall: 'ioctl' | 'write'
  /** The request number of ioctl(2). */
  readonly request: number
  /** The bytes at MESSAGE_AT. */
  readonly bytes: Uint8Array
  readonly memory: readonly { readonly address: bigint; readonly bytes: Uint8Array }[]
  readonly fd?: number
  readonly title: string
}

/** Splits a message into its header and parts; `sizeAt` returns the size in bytes of the part at an offset. */
const split = (bytes: Uint8Array, header: number, sizeAt: (view: DataView, at: number) => number): Uint8Array[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const found: Uint8Array[] = [bytes.subarray(0, header)]
  for (let at = header; at < bytes.length; ) {
    const size = at + 8 <= bytes.length ? Math.max(8, sizeAt(view, at)) : 8
    found.push(bytes.subarray(at, at + size))
    at += size
  }
  return found.filter(({ length }) => length > 0)
}
// bytes of struct ib_uverbs_ioctl_hdr, ib_uverbs_attr and ib_uverbs_cmd_hdr
const IOCTL_HEADER = 24
const IOCTL_ATTRIBUTE = 16
const WRITE_HEADER = 8

export const splits: Readonly<Record<DialectName, (bytes: Uint8Array) => Uint8Array[]>> = {
  object: bytes => split(bytes, HEADER, (view, at) => pad(view.getUint16(at, true))),
  ioctl: bytes => split(bytes, IOCTL_HEADER, () => IOCTL_ATTRIBUTE),
  write: bytes => split(bytes, WRITE_HEADER, () => 8),
}
export const splitChain = (bytes: Uint8Array): Uint8Array[] =>
  split(bytes, 0, (view, at) => ENTRY_HEADER + pad(view.getUint32(at + 4, true) & 0xffff))

/**
 * Corrects the lengths in the header of a mutated message: otherwise the parser refuses the message at once. An
 * extended write command keeps its lengths.
 */
export const correctLengths = (dialect: DialectName, bytes: Uint8Array): Uint8Array => {
  if (bytes.length < IOCTL_HEADER) return bytes
  const whole = dialect === 'write' ? bytes.subarray(0, bytes.length & ~3) : bytes.subarray(0, bytes.length & ~7)
  const view = new DataView(whole.buffer, whole.byteOffset, whole.length)
  if (dialect === 'object') view.setUint16(0, whole.length, true)
  else if (dialect === 'write') {
    const hasExtendedHeader = view.getUint8(3) !== 0
    const words = whole.length / 4
    if (!hasExtendedHeader) view.setUint16(4, words, true)
  } else {
    view.setUint16(0, whole.length, true)
    view.setUint16(6, (whole.length - IOCTL_HEADER) / IOCTL_ATTRIBUTE, true)
  }
  return whole
}

/** A plausible call in the object dialect; the entries of a chain are usually mutated. */
export const objectMessage = (state: ClientState): Message | undefined => {
  const { random } = state
  const call = plausibleCall(state)
  const { in: inputs, out: outputs } = call.method
  const title = `${call.class.name}.${call.methodName}`
  const request = ioctlRequest(call.method.call)
  if (call.methodName === 'chain') {
    const entries = call.args.entries as Uint8Array
    const sentEntries = random.hits(0.7) ? mutate(entries, entries, splitChain, random) : entries
    const results = { address: BUFFERS_AT, length: random.hits(0.9) ? AREA_BYTES : 64 }
    const sentCall = { ...call, args: { ...call.args, entries: sentEntries } }
    const bytes = encodeCall(sentCall, { inputAddresses: { entries: BUFFERS_AT }, outputBuffers: { results } })
    return { systemCall: 'ioctl', request, bytes, memory: [{ address: BUFFERS_AT, bytes: sentEntries }], title }
  }
  const isIndirect = random.hits(0.2)
  const [first] = Object.keys(inputs)
  const [result] = Object.keys(outputs).filter(name => outputs[name].type.kind !== 'fd')
  const bytes = encodeCall(call, {
    ...(isIndirect &&
      first !== undefined &&
      call.args[first] !== undefined && { inputAddresses: { [first]: BUFFERS_AT } }),
    ...(isIndirect &&
      result !== undefined && {
        outputBuffers: { [result]: { address: BUFFERS_AT, length: random.pick([0, 8, AREA_BYTES]) } },
      }),
  })
  return { systemCall: 'ioctl', request, bytes, memory: [], title, ...(call.fd !== undefined && { fd: call.fd }) }
}

/** A plausible call in one of Linux's dialects; undefined if the dialect cannot express the drawn call. */
export const linuxMessage = (
  state: ClientState,
  systemCall: 'write' | 'ioctl',
  driver: Schema,
): Message | undefined => {
  const { random } = state
  const call = plausibleCall(state)
  const wanted = encodings(call, driver, BUFFERS_AT).filter(
    ({ form }) => (form === 'write') === (systemCall === 'write'),
  )
  if (wanted.length === 0) return undefined
  const encoding = random.pick(wanted)
  const expressed = expressible(encoding, call)
  const encodingOfExpressed = encodings(expressed, driver, BUFFERS_AT).find(
    ({ name, form }) => name === encoding.name && form === encoding.form,
  )
  if (encodingOfExpressed === undefined) return undefined
  const image = encodeLinux(expressed, encodingOfExpressed.legacy)
  assert.equal(image.entryPoint === EntryPoint.WRITE, systemCall === 'write')
  return {
    systemCall,
    request: RDMA_VERBS_IOCTL,
    bytes: image.bytes,
    memory: image.memory,
    title: `${encoding.form} ${encoding.name}`,
  }
}

// ---- the client ----

interface HostileClient {
  readonly m: Machine
  readonly p: Program
  readonly context: Context
  readonly memory: Memory
  readonly caller: Caller
  /** Core's descriptor by the client's number. */
  readonly fds: Map<number, number>
  readonly rings: TestRings
  /** Address of the memory that the client may register. */
  readonly address: bigint
}

/** Maximum bytes of a ring. */
const MAX_RING = 1 << 18

/** A client with its own context, in the memory of program `p`. `opened`: whether device.open was called. */
export const createHostileClient = (
  m: Machine,
  p: Program,
  opened: boolean,
  address = BigInt(register(p, 8192).address),
): HostileClient => {
  const context = openContext(p.rxe.device, { isOpened: opened }) as Context
  const rings = testRings()
  const allocate = rings.allocate.bind(rings)
  context.state = {
    rings: {
      ...rings,
      allocate(bytes: number) {
        if (bytes > MAX_RING) throw new CallError('ENOMEM', `the test has no room for a ring of ${bytes} bytes`)
        return allocate(bytes)
      },
    },
  }
  const memory = createMemory()
  const fds = new Map<number, number>()
  const caller: Caller = { ...p.caller, copyIn: memory.copyIn, copyOut: memory.copyOut, descriptor: fd => fds.get(fd) }
  return { m, p, context, memory, caller, fds, rings, address }
}

export const clientStateOf = ({ context, fds, m, address, p }: HostileClient, random: RandomSource): ClientState => {
  const handles = new Map<number, string>()
  for (const object of context.handles.slots) if (object !== undefined) handles.set(object.handle, object.class.name)
  const openFds = new Map<number, string>()
  for (const [fd, number] of fds) {
    const name = m.core.descriptors.get(number)?.class.name
    if (name !== undefined) openFds.set(fd, name)
  }
  const deviceClasses = [...context.device.sharedTable.byName.values()].map(table => table.class)
  // flow, dm and system are classes that a soft device lacks
  const all: readonly ObjectClass[] = random.hits(0.03)
    ? [...deviceClasses, Classes.flow, Classes.dm, Classes.system]
    : deviceClasses
  return { random, classes: all, handles, fds: openFds, address, gid: p.rxe.device.state.identity.gids[1] }
}

const freeFd = (fds: ReadonlyMap<number, number>): number => {
  let fd = 3
  while (fds.has(fd)) fd++
  return fd
}

/** Makes one call and checks its answer. */
export const runOne = (client: HostileClient, message: Message): Answer => {
  const { context, caller, memory, fds, m } = client
  memory.message.set(message.bytes.subarray(0, AREA_BYTES))
  for (const { address, bytes } of message.memory) if (bytes.length <= AREA_BYTES) memory.copyOut(address, bytes)
  const descriptor = message.fd === undefined ? undefined : fds.get(message.fd)
  const answer =
    message.systemCall === 'write'
      ? dispatch(context, decodeWrite, [MESSAGE_AT, message.bytes.length], caller)
      : dispatch(context, decodeIoctl, [message.request, MESSAGE_AT], caller, descriptor)
  assert.ok(!(answer instanceof Promise))
  if (answer.ret < 0) {
    assert.doesNotMatch(errnoName(-answer.ret), /^errno/, 'an unknown number')
    assert.match(String(answer.reason), /\w+ \w+/, 'no message')
    assert.equal(answer.installs.length, 0)
  }
  for (const { descriptor: created } of answer.installs) {
    assert.ok(m.core.descriptors.has(created.object), 'a closed descriptor')
    fds.set(freeFd(fds), created.object)
  }
  return answer
}
