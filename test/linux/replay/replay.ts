/*
 * Replays the system calls of a recorded process on core and the rxe driver. Answers must equal the kernel's byte for
 * byte, except for numbers that each machine chooses (`Chosen`).
 */
import assert from 'node:assert/strict'
import { identify } from '../../../src/core/devices/identity.ts'
import { attachSink, createEventQueue, readEvents } from '../../../src/core/events/events.ts'
import {
  type Caller,
  type Context,
  closeContext,
  closeDescriptor,
  completed,
  createCore,
  dispatch,
  findDescriptor,
  invokeNow,
  openContext,
  stat,
} from '../../../src/core/index.ts'
import type { AddressSpace } from '../../../src/core/memory/address-space.ts'
import { findHandle } from '../../../src/core/objects/handles.ts'
import { createRxeDevice } from '../../../src/drivers/rxe/device.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { CallError, Errno, errnoName } from '../../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../../src/spec/linux/ioctl.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../../src/transport/phy/memory.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { type Answer, type CallerView, type Decoded, isAnswer } from '../../../src/uapi/call.ts'
import {
  decodeIoctl,
  decodeMessage,
  decodeResult,
  decodeWrite,
  encodeCall,
  encodeLinux,
} from '../../../src/uapi/index.ts'
import {
  type FakeMemory,
  fakeMemory,
  ioctlMessage,
  ioctlMessageAfter,
  isRefusedQueryContext,
  type LoggedCall,
  type LoggedIoctl,
  type LoggedWrite,
  MESSAGE_AT,
  memoryBefore,
  onUverbs,
  readAbilog,
  responseAddress,
} from '../../uapi/abilog.ts'

/** The machines of the recordings are 10.77.0.2 and 10.77.0.3. */
const machine = (last: 2 | 3) => {
  const address = Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, last])
  const identity = identify(address, { mac: Uint8Array.from([0x52, 0x54, 0, 0x77, 0, last]), name: 'enp1s0', index: 2 })
  const ula = Uint8Array.from([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
  return { ...identity, gids: [...identity.gids, ula] }
}

/** The program's memory: everything is mapped except the first pages. */
const space: AddressSpace = {
  check: (hi, lo, length) => length === 0 || hi > 0 || lo >= 0x100000,
  read: () => Errno.EFAULT,
  write: () => Errno.EFAULT,
  compareSwap: () => Errno.EFAULT,
  fetchAdd: () => Errno.EFAULT,
}

/**
 * Response bytes [from, to) that each machine chooses. `attribute`: an attribute id of an ioctl (driver attributes
 * start at 0x1000); or RESPONSE, the response of a write.
 */
type Chosen = readonly (readonly [attribute: number, from: number, to: number])[]
const RESPONSE = -1
/** A QPN, and the mmap offsets of its queues. */
const QP_CHOSEN: Chosen = [
  [14, 0, 4],
  [0x1001, 0, 8],
  [0x1001, 16, 24],
]
const CHOSEN: Readonly<Record<string, Chosen>> = {
  // A second GET_CONTEXT is decoded as device.query. It is refused, and leaves a descriptor in its response.
  'device.query': [[RESPONSE, 0, 4]],
  // The counter of wrong P_Keys, and the full speed, which newer kernels report.
  'port.query': [
    [1, 8, 12],
    [1, 44, 48],
  ],
  // Keys; `assertKeysAlike` compares them.
  'mr.create': [
    [1, 4, 12],
    [RESPONSE, 4, 12],
  ],
  // The key.
  'mw.create': [
    [1, 4, 8],
    [RESPONSE, 4, 8],
  ],
  // The mmap offsets of the queues.
  'cq.create': [
    [0x1001, 0, 8],
    [RESPONSE, 8, 16],
  ],
  'cq.modify': [[0x1001, 0, 8]],
  // The mmap offsets, and the size: Linux's rxe returns the requested size, userdma the actual one.
  'srq.create': [
    [0x1001, 0, 8],
    [0x1001, 16, 20],
    [11, 0, 4],
    [RESPONSE, 4, 8],
  ],
  'srq.modify': [[0x1000, 0, 8]],
  'rc_qp.create': QP_CHOSEN,
  'uc_qp.create': QP_CHOSEN,
  'ud_qp.create': QP_CHOSEN,
  // The number of the address handle in requests.
  'ah.create': [[0x1001, 0, 4]],
}

/**
 * Device attributes that differ: XRC, which Linux's rxe lacks; FLUSH, ATOMIC WRITE and on-demand paging, which the
 * recorded kernel lacks; max_qp, max_qp_wr, max_cq, max_srq, max_srq_wr, for which Linux's rxe reports values that
 * exceed memory.
 */
const DEVICE_QUERY_CHOSEN: Chosen = [1, RESPONSE].flatMap(where => [
  [where, 52, 60] as const, // max_qp, max_qp_wr
  [where, 62, 63] as const, // device_cap_flags: XRC
  [where, 72, 76] as const, // max_cq
  [where, 156, 164] as const, // max_srq, max_srq_wr
  [where, 184, 204] as const, // odp_caps
  [where, 226, 227] as const, // device_cap_flags_ex: XRC
  [where, 228, 232] as const, // device_cap_flags_ex: FLUSH, ATOMIC WRITE
  [where, 296, 300] as const, // xrc_odp_caps
])

/** The bytes as hex, with zeros for chosen bytes. */
const mask = (bytes: Uint8Array, chosen: Chosen, attribute: number): string => {
  const masked = bytes.slice()
  for (const [id, from, to] of chosen) if (id === attribute) masked.fill(0, from, to)
  return Buffer.from(masked).toString('hex')
}

/** The descriptor number that the kernel wrote to an address. */
const recordedNumber = (logged: LoggedIoctl | LoggedWrite, address: bigint): number => {
  const at = (base: bigint, bytes: Uint8Array | undefined): number | undefined => {
    const offset = Number(address - base)
    if (bytes === undefined || offset < 0 || offset + 4 > bytes.length) return undefined
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(offset, true)
  }
  const found =
    logged.kind === 'write'
      ? at(responseAddress(logged), logged.response)
      : [
          at(MESSAGE_AT, ioctlMessageAfter(logged)),
          ...logged.attributes.map(({ data, after, before }) => at(data, after ?? before)),
        ].find(number => number !== undefined)
  assert.ok(found !== undefined, `line ${logged.line}: the kernel wrote no descriptor at 0x${address.toString(16)}`)
  return found
}

interface Replayed {
  /** Number of system calls compared. */
  readonly calls: number
  /** How many of them the kernel refused. */
  readonly refused: number
  /** The steps of calls that were not compared (`Differences`). */
  readonly skipped: readonly string[]
}

/** Permitted differences from a log. */
interface Differences {
  /** Calls without a method are skipped. Protection domains take the handles that these calls created. */
  readonly skipsMissingMethods?: boolean
  /** Path MTU of the interface in bytes, 1024 if absent. */
  readonly pathMtu?: number
  readonly skippedSteps?: RegExp
  /** More chosen bytes by method, in steps with a matching name. */
  readonly chosen?: Readonly<Record<string, { readonly step: RegExp; readonly bytes: Chosen }>>
}

const NO_METHOD: readonly number[] = [Errno.EOPNOTSUPP, Errno.EPROTONOSUPPORT]

/** The handle that the recorded call created; undefined if none. */
const createdHandle = (logged: LoggedIoctl | LoggedWrite): number | undefined => {
  if (logged.errno !== 0) return undefined
  if (logged.kind === 'write') return undefined
  const created = logged.attributes.find(
    ({ id, length, dataAfter }) => id === 0 && length === 0 && dataAfter !== undefined,
  )
  // UVERBS_OBJECT_ASYNC_EVENT (16) has a descriptor, not a handle.
  if (created !== undefined && logged.object !== 16) return Number(created.dataAfter)
  const command = logged.object === 0 && logged.method === 0 ? Number(logged.attributes[0].data) : -1
  const out = logged.attributes.find(({ id }) => id === 1)
  const bytes = out?.after ?? out?.before
  // Write commands in an ioctl (UVERBS_METHOD_INVOKE_WRITE): ALLOC_PD, REG_MR, ALLOC_MW, CREATE_AH.
  return [3, 9, 14, 5].includes(command) && bytes
    ? new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)
    : undefined
}

/** A Linux call translated to the object dialect: message and answer are encoded and decoded (R41). */
const viaObjectDialect = (view: CallerView, linux: Decoded): Decoded | Answer => {
  const { call } = linux
  const sent = encodeCall(call, { legacy: linux.legacy() })
  let received: ReturnType<typeof decodeMessage>
  try {
    received = decodeMessage(view, call.method.call, sent)
  } catch (error) {
    if (error instanceof CallError) return linux.answer(error)
    throw error
  }
  const image = encodeLinux(received.call, received.legacy!)
  assert.deepEqual(image, encodeLinux(call, linux.legacy()!))
  return {
    call: received.call,
    legacy: () => received.legacy,
    answer: outcome => {
      if (outcome instanceof CallError) return linux.answer(outcome)
      const { object, out } = decodeResult(call, received.answer(outcome).message)
      const { descriptors } = outcome
      // The carrier fills the fields of descriptors later.
      for (const { attribute } of descriptors ?? []) delete out[attribute]
      return linux.answer({
        out,
        ...(object === undefined || call.class.identity === 'fd' ? {} : { object }),
        ...(descriptors === undefined ? {} : { descriptors }),
      })
    },
  }
}

/**
 * Replays a log of one process. `last`: the last byte of the recorded machine's address. `dialect` object: every call
 * is translated to the object dialect.
 */
export const replay = (
  name: string,
  last: 2 | 3,
  dialect: 'linux' | 'object' = 'linux',
  differences: Differences = {},
): Replayed => {
  const core = createCore()
  const arena = plainArena(memorySwitchBytes(2, 4))
  const port = createMemorySwitch({ arena, runs: 2, smallRuns: 4 }).attach()
  // The recordings' interface has an MTU of 1500.
  Object.defineProperty(port, 'pathMtu', { value: differences.pathMtu ?? 1024 })
  const { device } = createRxeDevice(core, { name: 'rxe0', identity: machine(last), port, now: () => 0 })
  let memory: FakeMemory = fakeMemory()
  const descriptors = new Map<number, number>()
  const caller: Caller = {
    memory: space,
    copyIn: (address, length) => memory.copyIn(address, length),
    copyOut: (address, bytes) => memory.copyOut(address, bytes),
    descriptor: fd => descriptors.get(fd),
  }
  let context: Context | undefined
  let calls = 0
  let refused = 0
  const skipped: string[] = []
  const placeholders = new Set<number>()

  /** Makes `handle` the next free one: in the recording, skipped calls used handles before it. */
  const prepare = (open: Context, handle: number): void => {
    const drop = (filler: number): void => {
      placeholders.delete(filler)
      invokeNow(open, Pd, 'destroy', filler, {}, caller)
    }
    if (placeholders.has(handle)) drop(handle)
    for (;;) {
      const next = invokeNow(open, Pd, 'create', 0, {}, caller).object!
      placeholders.add(next)
      if (next < handle) continue
      drop(next)
      return
    }
  }

  const compare = (logged: LoggedIoctl | LoggedWrite): void => {
    const subject = `${name}:${logged.line}`
    assert.ok(context)
    const handle = differences.skipsMissingMethods ? createdHandle(logged) : undefined
    if (handle !== undefined) prepare(context, handle)
    memory = memoryBefore(logged)
    let method = ''
    const decode = (view: CallerView): Decoded | Answer => {
      const decoded =
        logged.kind === 'ioctl'
          ? decodeIoctl(view, RDMA_VERBS_IOCTL, MESSAGE_AT)
          : decodeWrite(view, MESSAGE_AT, logged.data.length)
      if (!isAnswer(decoded)) method = `${decoded.call.class.name}.${decoded.call.methodName}`
      return dialect === 'linux' || isAnswer(decoded) ? decoded : viaObjectDialect(view, decoded)
    }
    const answer = dispatch(context, decode, [], caller) as Answer
    if (isRefusedQueryContext(logged)) {
      assert.equal(answer.ret, 0, `${subject} ${method}: ${answer.reason ?? ''}`)
      return
    }
    if (differences.skipsMissingMethods && NO_METHOD.includes(-answer.ret) && logged.errno !== -answer.ret) {
      skipped.push(logged.step)
      return
    }
    assert.equal(
      answer.ret < 0 ? errnoName(-answer.ret) : 'OK',
      logged.errno === 0 ? 'OK' : errnoName(logged.errno),
      `${subject} ${method}: ${answer.reason ?? ''}`,
    )
    if (logged.errno === 0) assert.equal(answer.ret, logged.ret, `${subject} ${method}: return value`)
    else refused++
    calls++
    // Linux writes a handle even if it refuses the create.
    if (differences.skipsMissingMethods && logged.errno !== 0) return
    for (const { descriptor, address, width } of answer.installs) {
      const number = recordedNumber(logged, address)
      descriptors.set(number, descriptor.object)
      attachSink(findDescriptor(core, descriptor.object), createEventQueue())
      const bytes = new Uint8Array(width)
      new DataView(bytes.buffer).setUint32(0, number, true)
      memory.copyOut(address, bytes)
    }
    const differing = differences.chosen?.[method]
    const chosen = [
      ...(method === 'device.query' && logged.errno === 0 ? DEVICE_QUERY_CHOSEN : (CHOSEN[method] ?? [])),
      ...(differing?.step.test(logged.step) ? differing.bytes : []),
    ]
    if (logged.kind === 'write') {
      if (logged.response === undefined) return
      const response = memory.copyIn(responseAddress(logged), logged.response.length)
      assert.equal(mask(response, chosen, RESPONSE), mask(logged.response, chosen, RESPONSE), `${subject} ${method}`)
      if (method === 'mr.create' && logged.errno === 0) assertKeysAlike(response, logged.response, subject)
      return
    }
    assert.deepEqual(
      memory.copyIn(MESSAGE_AT, ioctlMessage(logged).length),
      ioctlMessageAfter(logged),
      `${subject} ${method}: message`,
    )
    for (const { id, data, before, after } of logged.attributes) {
      // A larger attribute at the same address contains this one.
      if (before === undefined || logged.attributes.some(a => a.data === data && a.before!.length > before.length))
        continue
      const actual = memory.copyIn(data, before.length)
      const recorded = after ?? before
      assert.equal(
        mask(actual, chosen, id),
        mask(recorded, chosen, id),
        `${subject} ${method}: memory of attribute ${id}`,
      )
      if (method === 'mr.create' && id === 1) assertKeysAlike(actual, recorded, subject)
    }
  }

  /** A recorded read of an event needs a completion. */
  const read = (logged: LoggedCall & { kind: 'read' }): void => {
    const number = descriptors.get(logged.fd)
    if (number === undefined || logged.errno !== 0) return
    const fd = findDescriptor(core, number)
    for (let handle = 0; handle < 16; handle++) {
      const { events, class: cls } = findHandle(context!.handles, handle) ?? {}
      if (cls?.name === 'cq' && events?.route.channel === fd) completed(events, true)
    }
    const [event] = readEvents(fd)
    assert.deepEqual(event.bytes, logged.data, `${name}:${logged.line}: event`)
  }

  for (const logged of readAbilog(name).filter(onUverbs)) {
    if (logged.kind === 'open' && logged.path.includes('uverbs')) {
      if (context !== undefined) closeContext(context)
      context = openContext(device)
    } else if (logged.kind === 'close') {
      const number = descriptors.get(logged.fd)
      descriptors.delete(logged.fd)
      if (number !== undefined) closeDescriptor(core, number)
    } else if (differences.skippedSteps?.test(logged.step)) skipped.push(logged.step)
    else if (logged.kind === 'read') read(logged)
    else if (logged.kind === 'ioctl' || logged.kind === 'write') compare(logged)
  }
  if (context !== undefined) closeContext(context)
  const { objects, descriptors: fds, faults } = stat(core)
  assert.deepEqual(
    { objects, fds, faults },
    { objects: 0, fds: 0, faults: 0 },
    'objects are left when the process has ended',
  )
  return { calls, refused, skipped }
}

/** Keys differ from the recording. But an lkey of 0, and an rkey of 0 or equal to the lkey, must be so in both. */
const assertKeysAlike = (actual: Uint8Array, recorded: Uint8Array, subject: string): void => {
  const shape = (bytes: Uint8Array): string => {
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    const lkey = view.getUint32(4, true)
    const rkey = view.getUint32(8, true)
    return `${lkey !== 0} ${rkey === 0 ? 'none' : rkey === lkey}`
  }
  assert.equal(shape(actual), shape(recorded), `${subject}: keys`)
}
