/*
 * Decoding Linux's dialects (R41, R42): lengths, headers, attributes, hostile bytes. Round trips are in
 * linux/encode.test.ts.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RXE_DRIVER_ID } from '../../src/spec/drivers/rxe.ts'
import { AccessFlags, MrKind } from '../../src/spec/enums.ts'
import { CallError, errnoName } from '../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../src/spec/linux/ioctl.ts'
import { ExtendedCommands, LinuxObject, WriteCommands } from '../../src/spec/linux/names.ts'
import { EXTENDED } from '../../src/spec/linux/write.ts'
import type { AnyValues } from '../../src/spec/schema/schema.ts'
import { type Answer, type Call, type Decoded, isAnswer, type Result } from '../../src/uapi/call.ts'
import { decodeIoctl } from '../../src/uapi/index.ts'
import { encodeLinux } from '../../src/uapi/linux/encode.ts'
import { encodings } from '../../src/uapi/linux/envelope.ts'
import { decodeVerbsIoctl } from '../../src/uapi/linux/ioctl.ts'
import { decodeWrite } from '../../src/uapi/linux/write.ts'
import { encodeCall } from '../../src/uapi/object/client.ts'
import { ioctlRequest } from '../../src/uapi/object/dialect.ts'
import { callsOf } from '../spec/arbitrary.ts'
import { type FakeMemory, fakeMemory, readAbilog } from './abilog.ts'
import { ARENA, AT, arena, type FakeView, fakeView, rxeSchema } from './fake-view.ts'

const errorOf = (decoded: Decoded | Answer): string => {
  if (!isAnswer(decoded)) return 'OK'
  return decoded.ret < 0 ? errnoName(-decoded.ret) : String(decoded.ret)
}

// ---- write ----

const write = (bytes: readonly number[] | Uint8Array, prepare?: (view: FakeView) => unknown): Decoded | Answer => {
  const memory = arena()
  memory.map(AT, Uint8Array.from(bytes))
  const view = fakeView(memory)
  view.handles.set(3, 'rc_qp')
  prepare?.(view)
  return decodeWrite(view, AT, bytes.length)
}
const u16 = (n: number): number[] => [n & 0xff, n >> 8]
const u32 = (n: number): number[] => [...u16(n & 0xffff), ...u16(n >>> 16)]
const u64 = (n: bigint): number[] => [...u32(Number(n & 0xffffffffn)), ...u32(Number(n >> 32n))]
const { ALLOC_PD, CREATE_CQ, CREATE_QP, DEALLOC_PD, DESTROY_CQ, MODIFY_QP, POST_SEND, REG_MR } = WriteCommands
const { CREATE_RWQ_IND_TBL, EX_CREATE_CQ, EX_CREATE_QP, EX_MODIFY_QP, EX_QUERY_DEVICE, MODIFY_CQ } = ExtendedCommands

/** A command; `out` is the length of the response buffer in words of 4 bytes. */
const command = (number: number, body: number[], out: number): number[] => [
  ...u32(number),
  ...u16((8 + body.length) / 4),
  ...u16(out),
  ...body,
]
/** A driver with no known layouts. */
const RDMA_DRIVER_UNKNOWN = 0

/** An extended command; `out` is the length of the response buffer in words of 8 bytes. */
const extended = (
  number: number,
  body: number[],
  out: number,
  response = ARENA,
  providerOut = 0,
  driverInput: number[] = [],
): number[] => [
  ...u32(number + EXTENDED),
  ...u16(body.length / 8),
  ...u16(out),
  ...u64(response),
  ...u16(driverInput.length / 8),
  ...u16(providerOut),
  ...u32(0),
  ...body,
  ...driverInput,
]

test('write: a length that differs from the header’s is EINVAL, a too small request or response buffer ENOSPC', () => {
  assert.equal(errorOf(write([])), 'EINVAL')
  assert.equal(errorOf(write(command(ALLOC_PD, [], 1).slice(0, 7))), 'EINVAL')
  assert.equal(errorOf(write(command(ALLOC_PD, u64(ARENA), 1))), 'OK')
  assert.equal(errorOf(write([...command(ALLOC_PD, u64(ARENA), 1), 0, 0, 0, 0])), 'EINVAL')
  assert.equal(errorOf(write(command(ALLOC_PD, [], 1))), 'ENOSPC')
  assert.equal(errorOf(write(command(ALLOC_PD, u64(ARENA), 0))), 'ENOSPC')
  assert.equal(errorOf(write(command(REG_MR, u64(ARENA), 3))), 'ENOSPC')
})

test('write: bytes after the request of a command without driver data must be zero', () => {
  assert.equal(errorOf(write(command(DEALLOC_PD, [...u32(3), ...u32(0)], 0))), 'OK')
  assert.equal(errorOf(write(command(DEALLOC_PD, [...u32(3), ...u32(1)], 0))), 'EOPNOTSUPP')
})

test('write: a buffer longer than a header can describe is refused before it is read', () => {
  const view = fakeView()
  assert.equal(errorOf(decodeWrite(view, 0x10n, 2 ** 31)), 'EINVAL')
  assert.equal(errorOf(decodeWrite(view, 0x10n, 16)), 'EFAULT')
})

test('write, extended: the lengths must agree with the bytes written and with the response address', () => {
  const query = [...u32(0), ...u32(0)]
  assert.equal(errorOf(write(extended(EX_QUERY_DEVICE, query, 38))), 'OK')
  assert.equal(errorOf(write(extended(EX_QUERY_DEVICE, query, 23))), 'OK')
  assert.equal(errorOf(write(extended(EX_QUERY_DEVICE, query, 1))), 'OK')
  assert.equal(errorOf(write(extended(EX_QUERY_DEVICE, query, 0))), 'EINVAL')
  assert.equal(errorOf(write(extended(EX_QUERY_DEVICE, query, 38, 0n))), 'EINVAL')
  assert.equal(errorOf(write(extended(EX_QUERY_DEVICE, [], 38))), 'OK')
  assert.equal(errorOf(write(extended(EX_QUERY_DEVICE, [...query, ...u64(0n)], 38))), 'OK')
  assert.equal(errorOf(write(extended(EX_QUERY_DEVICE, [...query, ...u64(1n)], 38))), 'EOPNOTSUPP')
  assert.equal(errorOf(write(extended(EX_QUERY_DEVICE, query, 38).slice(0, 20))), 'EINVAL')
  assert.equal(errorOf(write([...extended(EX_QUERY_DEVICE, query, 38), ...u64(0n)])), 'EINVAL')
})

test('write, extended: a shorter response buffer gets the first part of the response, with its length', () => {
  const memory = arena()
  const bytes = Uint8Array.from(extended(EX_QUERY_DEVICE, [...u32(0), ...u32(0)], 24))
  memory.map(AT, bytes)
  const decoded = decodeWrite(fakeView(memory), AT, bytes.length)
  assert.ok(!isAnswer(decoded))
  const [{ result }] = fc.sample(callsOf(decoded.call.class, 'query'), 1)
  assert.equal(decoded.answer(result).ret, bytes.length)
  const response = new DataView(memory.copyIn(ARENA, 200).buffer)
  assert.equal(response.getUint32(180, true), 192)
  assert.equal(response.getUint32(192, true), 0xcccccccc)
})

test('write, extended: a shorter request is extended with zeros, unless a tail follows it', () => {
  const createQp = [...u64(1n), ...u32(0), ...u32(1), ...u32(1), ...u32(0), ...Array(20).fill(0), 0, 2, 0, 0]
  const decoded = write(extended(EX_CREATE_QP, createQp, 5, ARENA, 4))
  assert.ok(!isAnswer(decoded))
  assert.equal(decoded.call.class.name, 'rc_qp')
  assert.equal(errorOf(write(extended(EX_MODIFY_QP, Array(64).fill(0), 1))), 'OK')
  assert.equal(errorOf(write(extended(CREATE_RWQ_IND_TBL, [], 2))), 'ENOSPC')
})

test('write: descriptor 0 is a completion channel, a negative number is none', () => {
  const channelOf = (fd: number): unknown => {
    const body = [...u64(ARENA), ...u64(0n), ...u32(16), ...u32(0), ...u32(fd), ...u32(0)]
    const decoded = write(command(CREATE_CQ, body, 16))
    assert.ok(!isAnswer(decoded))
    return decoded.call.args.channel
  }
  assert.deepEqual([channelOf(0), channelOf(-1)], [0, undefined])
})

test('write, extended: MODIFY_CQ with reserved bits is EINVAL', () => {
  const modifyCq = (reserved: number) =>
    write(extended(MODIFY_CQ, [...u32(3), ...u32(1), ...u32(0), ...u32(reserved)], 0, 0n))
  assert.deepEqual([errorOf(modifyCq(0)), errorOf(modifyCq(1))], ['OK', 'EINVAL'])
})

test('write: a DESTROY_CQ of rdma-core 18 and 19 says that it has 16 bytes, and is read as a whole', () => {
  const bytes = Uint8Array.from(command(DESTROY_CQ, [...u64(ARENA), ...u32(5), ...u32(0)], 2))
  new DataView(bytes.buffer).setUint16(4, 4, true)
  const memory = arena()
  memory.map(AT, bytes)
  const decoded = decodeWrite(fakeView(memory), AT, 16)
  assert.ok(!isAnswer(decoded))
  assert.equal(decoded.call.object, 5)
  const [{ result }] = fc.sample(callsOf(decoded.call.class, 'destroy'), 1)
  assert.equal(decoded.answer(result).ret, 16)
  memory.map(AT, Uint8Array.from(command(DESTROY_CQ, [...u64(ARENA), ...u32(5), ...u32(0)], 2)))
  assert.equal(errorOf(decodeWrite(fakeView(memory), AT, 16)), 'EINVAL')
})

/** CREATE_QP: response, user handle, PD, CQs, SRQ, sizes, sq_sig_all, type, is_srq, driver's input. */
const createQpCommand = (type: number, driverInput: number[] = []): number[] =>
  command(
    CREATE_QP,
    [
      ...u64(ARENA),
      ...u64(1n),
      ...[0, 1, 1, 0].flatMap(u32),
      ...[0, 0, 0, 0, 0].flatMap(u32),
      ...[1, type, 0, 0],
      ...driverInput,
    ],
    16,
  )

test('each QP type has a class; types that programs cannot create are EINVAL (R9)', () => {
  const decoded = write(createQpCommand(2))
  assert.ok(!isAnswer(decoded))
  assert.equal(decoded.call.class.name, 'rc_qp')
  // The byte sq_sig_all becomes the flag IB_UVERBS_QP_CREATE_SQ_SIG_ALL.
  assert.equal(decoded.call.args.flags, 0x1000)
  for (const [type, name] of [
    [3, 'uc_qp'],
    [4, 'ud_qp'],
    [8, 'raw_packet_qp'],
    [9, 'xrc_ini_qp'],
    [10, 'xrc_tgt_qp'],
    [255, 'driver_qp'],
  ] as const) {
    const other = write(createQpCommand(type))
    assert.equal(!isAnswer(other) && other.call.class.name, name)
  }
  for (const type of [0, 1, 5, 11, 254]) assert.equal(errorOf(write(createQpCommand(type))), 'EINVAL', `type ${type}`)
  // Linux's rxe takes no driver input.
  assert.equal(errorOf(write(createQpCommand(2, u64(0n)))), 'EINVAL')
})

/** Bits of ib_qp_attr_mask. */
const STATE = 1 << 0
const QKEY = 1 << 6
const PATH_MTU = 1 << 8
const RQ_PSN = 1 << 12
const CAP = 1 << 19
const UNKNOWN_BIT = 1 << 21
/** Offsets in struct ib_uverbs_modify_qp. */
const QKEY_AT = 72
const RQ_PSN_AT = 76
const STATE_AT = 96
const PATH_MTU_AT = 98

/** A MODIFY_QP of handle 3. `changes`: bytes by offset. */
const modify = (mask: number, changes: Readonly<Record<number, number>> = {}): number[] => {
  const body = new Array(112).fill(0)
  body.splice(64, 8, ...u32(3), ...u32(mask))
  for (const [at, byte] of Object.entries(changes)) body[Number(at)] = byte
  return command(MODIFY_QP, body, 0)
}

test('MODIFY_QP: unknown mask bits are EOPNOTSUPP, attributes that RC lacks and values out of limits EINVAL', () => {
  assert.equal(errorOf(write(modify(0))), 'OK')
  assert.equal(errorOf(write(modify(UNKNOWN_BIT))), 'EOPNOTSUPP')
  assert.equal(errorOf(write(modify(QKEY))), 'EINVAL')
  assert.equal(errorOf(write(modify(CAP))), 'EINVAL')
  assert.equal(errorOf(write(modify(PATH_MTU, { [PATH_MTU_AT]: 5 }))), 'OK')
  assert.equal(errorOf(write(modify(PATH_MTU, { [PATH_MTU_AT]: 6 }))), 'EINVAL')
  assert.equal(errorOf(write(modify(STATE, { [STATE_AT]: 7 }))), 'EINVAL')
  // Without its mask bit, an invalid byte is ignored.
  assert.equal(errorOf(write(modify(STATE, { [PATH_MTU_AT]: 6 }))), 'OK')
})

test('MODIFY_QP of UD takes a Q_Key; attributes of connected services are EINVAL', () => {
  const asUd = (view: FakeView): unknown => view.handles.set(3, 'ud_qp')
  const decoded = write(modify(QKEY, { [QKEY_AT]: 1, [QKEY_AT + 3]: 0x80 }), asUd)
  assert.deepEqual(!isAnswer(decoded) && decoded.call.args, { qkey: 0x80000001 })
  const refused = write(modify(PATH_MTU, { [PATH_MTU_AT]: 5 }), asUd)
  assert.equal(errorOf(refused), 'EINVAL')
  assert.match(isAnswer(refused) ? `${refused.reason}` : '', /\(pathMtu\) are of attributes that ud_qp lacks$/)
})

test('MODIFY_QP: a PSN has 24 bits; the LEGACY attribute keeps the upper 8', () => {
  const bytes = modify(RQ_PSN, { [RQ_PSN_AT]: 1, [RQ_PSN_AT + 1]: 2, [RQ_PSN_AT + 2]: 3, [RQ_PSN_AT + 3]: 0xff })
  const decoded = write(bytes)
  assert.ok(!isAnswer(decoded))
  assert.deepEqual(decoded.call.args, { rqPsn: 0x030201 })
  assert.deepEqual([...encodeLinux(decoded.call, decoded.legacy()!).bytes], bytes)
})

test('MODIFY_QP: an invalid QP handle is passed to core as an rc_qp', () => {
  const decoded = write(modify(0), view => view.handles.clear())
  assert.ok(!isAnswer(decoded))
  assert.equal(decoded.call.class.name, 'rc_qp')
})

test('POST_SEND with missing or incomplete work requests is refused', () => {
  const post = (count: number, sges: number, size: number, tail: number): Decoded | Answer =>
    write(
      command(
        POST_SEND,
        [...u64(ARENA), ...u32(3), ...u32(count), ...u32(sges), ...u32(size), ...new Array(tail).fill(0)],
        1,
      ),
    )
  assert.equal(errorOf(post(0, 0, 128, 0)), 'OK')
  assert.equal(errorOf(post(0, 0, 0, 0)), 'EINVAL')
  assert.equal(errorOf(post(1, 1, 56, 72)), 'OK')
  assert.equal(errorOf(post(1, 1, 56, 68)), 'ENOSPC')
  assert.equal(errorOf(post(0xffffffff, 0xffffffff, 0xffffffff, 72)), 'ENOSPC')
})

test('an indirection table has at most 2^13 work queues; the command must have all their handles', () => {
  const table = (log: number, handles: number): Decoded | Answer =>
    write(extended(CREATE_RWQ_IND_TBL, [...u32(0), ...u32(log), ...new Array(4 * handles).fill(0)], 2))
  for (const log of [1, 12, 13]) {
    const decoded = table(log, 1 << log)
    assert.ok(!isAnswer(decoded), String((decoded as Answer).reason))
    assert.equal((decoded.call.args.queues as unknown[]).length, 1 << log)
    assert.equal(errorOf(table(log, (1 << log) - 2)), 'ENOSPC')
  }
  assert.equal(errorOf(table(14, 1 << 14)), 'EINVAL')
  assert.equal(errorOf(table(0xffffffff, 2)), 'EINVAL')
})

test('the LEGACY attribute keeps the driver’s input after a list, and after a request that is extended with zeros', () => {
  const driverInput = [1, 2, 3, 4, 5, 6, 7, 8]
  const table = [...u32(0), ...u32(1), ...u32(7), ...u32(8)]
  /** Without `flags`, the last 8 bytes. */
  const createCq = [...u64(1n), ...u32(4), ...u32(0), ...u32(0xffffffff), ...u32(0)]
  for (const bytes of [
    extended(CREATE_RWQ_IND_TBL, table, 2, ARENA, 0, driverInput),
    extended(EX_CREATE_CQ, createCq, 2, ARENA, 2, driverInput),
  ]) {
    const decoded = write(bytes, view =>
      Object.assign(view, { schema: { ...view.schema, driverId: RDMA_DRIVER_UNKNOWN, linux: undefined } }),
    )
    assert.ok(!isAnswer(decoded), String((decoded as Answer).reason))
    assert.deepEqual([...encodeLinux(decoded.call, decoded.legacy()!).bytes], bytes)
  }
})

test('a list whose length is not a power of two cannot be encoded as CREATE_RWQ_IND_TBL', () => {
  const cls = rxeSchema.classByName('rwq_ind_table')!
  const tableOf = (count: number): Call => {
    const queues = Array.from({ length: count }, (_, wq) => ({ wq }))
    return { class: cls, methodName: 'create', method: cls.methods.create!, object: 0, args: { queues } }
  }
  const encodingsOf = (count: number) => encodings(tableOf(count), rxeSchema, ARENA)
  assert.deepEqual(
    [0, 1, 2, 3, 4].map(count => encodingsOf(count).length),
    [0, 2, 2, 0, 2],
  )
  for (const { legacy } of encodingsOf(4))
    assert.throws(() => encodeLinux(tableOf(3), legacy), { code: 'EINVAL', message: /3 is not a power of two/ })
})

test('a response that cannot be written is EFAULT', () => {
  const decoded = write(command(ALLOC_PD, u64(0x10n), 1))
  assert.ok(!isAnswer(decoded))
  assert.equal(errorOf(decoded.answer({ object: 0, out: {} })), 'EFAULT')
})

// ---- ioctl ----

/** Method numbers of the objects DEVICE, MR and COUNTERS. */
const INFO_HANDLES = 1
const QUERY_GID_TABLE = 5
const REG_DMABUF_MR = 4
const REG_MR_METHOD = 5
const COUNTERS_READ = 2

type Attr = readonly [id: number, length: number, data: bigint, flags?: number, reserved?: number]
const ioctl = (object: number, method: number, attributes: readonly Attr[]): Uint8Array => {
  const bytes = [
    ...u16(24 + 16 * attributes.length),
    ...u16(object),
    ...u16(method),
    ...u16(attributes.length),
    ...u64(0n),
    ...u32(RXE_DRIVER_ID),
    ...u32(0),
    ...attributes.flatMap(([id, length, data, flags = 1, reserved = 0]) => [
      ...u16(id),
      ...u16(length),
      ...u16(flags),
      ...u16(reserved),
      ...u64(data),
    ]),
  ]
  return Uint8Array.from(bytes)
}
/** An ioctl of a process with some objects. */
const verbs = (object: number, method: number, attributes: readonly Attr[]): Decoded | Answer => {
  const memory = arena()
  memory.map(AT, ioctl(object, method, attributes))
  const view = fakeView(memory)
  view.handles.set(0, 'pd')
  view.handles.set(2, 'cq')
  view.handles.set(3, 'rc_qp')
  view.handles.set(4, 'xrcd')
  view.handles.set(5, 'srq')
  view.handles.set(6, 'counters')
  view.handles.set(7, 'xrc_srq')
  return decodeVerbsIoctl(view, RDMA_VERBS_IOCTL, AT)
}
/** The attributes of QP_CREATE (names: spec/linux/names.ts). `changes`: replacements by id; null omits an attribute. */
const createQp = (changes: Readonly<Record<number, Attr | null>> = {}): Attr[] => {
  const all: Record<number, Attr | null> = {
    0: [0, 0, 0n],
    2: [2, 0, 0n],
    4: [4, 0, 2n],
    5: [5, 0, 2n],
    7: [7, 8, 1n],
    8: [8, 20, ARENA],
    9: [9, 8, 2n],
    13: [13, 20, ARENA],
    14: [14, 4, ARENA],
    4097: [4097, 32, ARENA],
    ...changes,
  }
  return Object.values(all).filter(attribute => attribute !== null)
}

test('ioctl QP_CREATE: mistakes give the kernel’s errors', () => {
  const answers: [string, Readonly<Record<number, Attr | null>>][] = [
    ['OK', {}],
    ['EINVAL', { 0: null }],
    ['ENOENT', { 2: null }],
    ['ENOENT', { 5: null }],
    ['ENOENT', { 2: [2, 0, 99n] }],
    ['EINVAL', { 2: [2, 0, 2n] }],
    ['ENOENT', { 2: [2, 0, 1n << 40n] }],
    ['EINVAL', { 2: [2, 0, 0xffffffffffffffffn] }],
    ['EINVAL', { 2: [2, 4, 0n] }],
    ['EINVAL', { 2: [2, 0, 0n, 1, 7] }],
    ['ENOENT', { 3: [3, 0, 99n] }],
    ['EINVAL', { 3: [3, 0, 2n] }],
    ['EINVAL', { 9: [9, 4, 2n] }],
    ['EINVAL', { 9: [9, 8, 1n << 32n] }],
    ['OK', { 9: [9, 8, 255n] }],
    ['EINVAL', { 9: [9, 8, 5n] }],
    ['OK', { 10: [10, 4, 0x1000n] }],
    ['OK', { 10: [10, 8, 0x1000n] }],
    ['EINVAL', { 10: [10, 6, 0x1000n] }],
    ['EINVAL', { 10: [10, 4, 2n] }],
    ['EOPNOTSUPP', { 11: [11, 4, 7n] }],
    ['EBADF', { 12: [12, 0, 0xffffffffffffffffn] }],
    ['EINVAL', { 12: [12, 0, 1n << 33n] }],
    ['EINVAL', { 13: [13, 16, ARENA] }],
    ['OK', { 13: [13, 24, ARENA] }],
    ['EINVAL', { 14: [14, 8, ARENA] }],
    ['EINVAL', { 8: [8, 16, ARENA] }],
    ['EOPNOTSUPP', { 8: [8, 24, ARENA] }],
    ['EFAULT', { 8: [8, 20, 0x10n] }],
    ['EINVAL', { 4096: [4096, 8, 0n] }],
    ['EINVAL', { 4097: [4097, 24, ARENA] }],
    ['EINVAL', { 4097: null }],
    ['EPROTONOSUPPORT', { 77: [77, 0, 0n] }],
    ['OK', { 77: [77, 0, 0n, 0] }],
  ]
  for (const [expected, changes] of answers) {
    const answer = verbs(LinuxObject.QP, 0, createQp(changes))
    assert.equal(errorOf(answer), expected, `${Object.keys(changes)}: ${(answer as Answer).reason}`)
  }
})

test('ioctl QP_CREATE: handles that the type of the queue pair does not take are EINVAL', () => {
  const xrcd: Attr = [1, 0, 4n]
  const xrcTarget = { 1: xrcd, 2: null, 4: null, 5: null, 9: [9, 8, 10n], 4097: null } as const
  const xrcInitiator = { 5: null, 9: [9, 8, 9n] } as const
  const answers: [string, Readonly<Record<number, Attr | null>>][] = [
    ['EINVAL', { 1: xrcd }],
    ['OK', xrcTarget],
    ['EINVAL', { ...xrcTarget, 2: [2, 0, 0n] }],
    ['EINVAL', { ...xrcTarget, 4: [4, 0, 2n] }],
    ['EINVAL', { ...xrcTarget, 5: [5, 0, 2n] }],
    ['EINVAL', { ...xrcTarget, 10: [10, 4, 2n] }],
    ['OK', { ...xrcTarget, 3: [3, 0, 7n] }],
    ['EINVAL', { ...xrcTarget, 3: [3, 0, 5n] }],
    ['ENOENT', { ...xrcTarget, 3: [3, 0, 99n] }],
    ['OK', xrcInitiator],
    ['OK', { ...xrcInitiator, 5: [5, 0, 2n] }],
    ['EINVAL', { ...xrcInitiator, 3: [3, 0, 5n] }],
    ['EINVAL', { ...xrcInitiator, 1: xrcd }],
  ]
  for (const [expected, changes] of answers)
    assert.equal(errorOf(verbs(LinuxObject.QP, 0, createQp(changes))), expected, JSON.stringify(Object.keys(changes)))
})

/** The attributes of SRQ_CREATE, without its type. */
const createSrq = (...more: readonly Attr[]): Attr[] => [
  [0, 0, 0n],
  [1, 0, 0n],
  [4, 8, 0n],
  [5, 4, 1n],
  [6, 4, 1n],
  [7, 4, 0n],
  [11, 4, ARENA],
  [12, 4, ARENA],
  ...more,
]

test('ioctl SRQ_CREATE of an SRQ for tags is ENOENT without the number of tags', () => {
  const tags: Attr = [9, 8, 2n]
  const answer = verbs(LinuxObject.SRQ, 0, createSrq(tags, [3, 0, 2n]))
  assert.equal(errorOf(answer), 'ENOENT', String((answer as Answer).reason))
})

/** The memory after a successful creation by ioctl, and the ids of the attributes with VALID_OUTPUT. */
const created = (
  object: number,
  attributes: readonly Attr[],
  out: AnyValues,
): { memory: FakeMemory; valid: number[] } => {
  const memory = arena()
  memory.map(AT, ioctl(object, 0, attributes))
  const view = fakeView(memory)
  view.handles.set(0, 'pd').set(4, 'xrcd')
  const decoded = decodeVerbsIoctl(view, RDMA_VERBS_IOCTL, AT)
  assert.ok(!isAnswer(decoded))
  assert.equal(decoded.answer({ object: 7, out }).ret, 0)
  const isValid = (_attribute: Attr, i: number): boolean =>
    (memory.copyIn(AT + BigInt(24 + 16 * i + 4), 1)[0]! & 2) !== 0
  return { memory, valid: attributes.filter(isValid).map(([id]) => id) }
}

test('ioctl: an optional output that the class lacks is not written, a mandatory one is 0', () => {
  const basic = createSrq([9, 8, 0n], [13, 4, ARENA + 64n], [4097, 24, ARENA + 128n])
  const srq = created(LinuxObject.SRQ, basic, { maxWr: 1, maxSge: 1 })
  assert.deepEqual([...srq.memory.copyIn(ARENA + 64n, 4)], [0xcc, 0xcc, 0xcc, 0xcc])
  assert.deepEqual(srq.valid, [11, 12, 4097])
  const xrcTarget = createQp({ 1: [1, 0, 4n], 2: null, 4: null, 5: null, 9: [9, 8, 10n], 13: [13, 20, ARENA + 64n] })
  const qp = created(LinuxObject.QP, xrcTarget, { qpNum: 5 })
  assert.deepEqual(qp.memory.copyIn(ARENA + 64n, 20), new Uint8Array(20))
  assert.deepEqual(qp.valid, [13, 14, 4097])
})

test('ioctl REG_DMABUF_MR and COUNTERS_READ need no flags; counters have no driver attributes', () => {
  const dmabuf = verbs(LinuxObject.MR, REG_DMABUF_MR, [
    [0, 0, 0n],
    [1, 0, 0n],
    [2, 8, 0n],
    [3, 8, 4096n],
    [4, 8, 0n],
    [5, 4, 3n],
    [7, 4, ARENA],
    [8, 4, ARENA],
  ])
  assert.ok(!isAnswer(dmabuf))
  assert.equal(dmabuf.call.args.access, 0)
  const read: Attr[] = [
    [0, 0, 6n],
    [1, 8, ARENA],
  ]
  assert.equal(errorOf(verbs(LinuxObject.COUNTERS, COUNTERS_READ, read)), 'OK')
  const driverInput: Attr = [4096, 8, 0n]
  assert.equal(errorOf(verbs(LinuxObject.COUNTERS, COUNTERS_READ, [...read, driverInput])), 'EPROTONOSUPPORT')
  assert.equal(errorOf(verbs(LinuxObject.COUNTERS, 0, [[0, 0, 0n], driverInput])), 'EPROTONOSUPPORT')
})

test('ioctl: a message of more than a page is EINVAL', () => {
  const memory = arena()
  memory.map(
    AT,
    Uint8Array.from([
      ...u16(24 + 16 * 255),
      ...u16(0),
      ...u16(2),
      ...u16(255),
      ...u64(0n),
      ...u32(RXE_DRIVER_ID),
      ...u32(0),
    ]),
  )
  assert.equal(errorOf(decodeVerbsIoctl(fakeView(memory), RDMA_VERBS_IOCTL, AT)), 'EINVAL')
})

test('ioctl: the buffer of a list must be whole entries of the caller’s size, and limits their number', () => {
  const table = (size: bigint, length: number): Decoded | Answer =>
    verbs(LinuxObject.DEVICE, QUERY_GID_TABLE, [
      [0, 8, size],
      [1, 4, 0n],
      [2, length, ARENA],
      [3, 8, ARENA + 2048n],
    ])
  assert.equal(errorOf(table(32n, 320)), 'OK')
  assert.equal(errorOf(table(0n, 320)), 'EINVAL')
  assert.equal(errorOf(table(32n, 330)), 'EINVAL')
  assert.equal(errorOf(table(32n, 0)), 'EINVAL')
  for (const size of [16, 32, 40]) {
    const decoded = table(BigInt(size), size * 3)
    assert.ok(!isAnswer(decoded))
    assert.equal(decoded.call.args.max, 3)
  }
  const handles = (object: bigint, length: number): string =>
    errorOf(
      verbs(LinuxObject.DEVICE, INFO_HANDLES, [
        [0, 8, object],
        [1, 4, ARENA + 2048n],
        [2, length, ARENA],
      ]),
    )
  assert.equal(handles(4n, 8), 'OK')
  assert.equal(handles(99n, 8), 'ENOENT')
  assert.equal(handles(4n, 6), 'EINVAL')
  assert.equal(handles(4n, 0), 'EINVAL')
})

test('ioctl QUERY_GID_TABLE needs no flags', () => {
  const attributes: Attr[] = [
    [0, 8, 32n],
    [2, 320, ARENA],
    [3, 8, ARENA + 2048n],
  ]
  assert.equal(errorOf(verbs(LinuxObject.DEVICE, QUERY_GID_TABLE, attributes)), 'OK')
})

test('ioctl: a reserved field of the header that is set is EPROTONOSUPPORT', () => {
  for (const at of [8, 15, 20, 23]) {
    const message = ioctl(LinuxObject.PD, 0, [[0, 0, 0n]])
    message[at] = 1
    const memory = arena()
    memory.map(AT, message)
    const view = fakeView(memory)
    view.handles.set(0, 'pd')
    assert.equal(errorOf(decodeVerbsIoctl(view, RDMA_VERBS_IOCTL, AT)), 'EPROTONOSUPPORT', `byte ${at}`)
  }
})

test('ioctl: flags of 4 bytes are the lower half of the data, flags of 8 bytes all of it', () => {
  const query = (length: number, flags: bigint): string =>
    errorOf(
      verbs(LinuxObject.DEVICE, QUERY_GID_TABLE, [
        [0, 8, 32n],
        [1, length, flags],
        [2, 320, ARENA],
        [3, 8, ARENA + 2048n],
      ]),
    )
  assert.equal(query(4, 1n << 32n), 'OK')
  assert.equal(query(8, 1n << 32n), 'EINVAL')
  assert.equal(query(4, 1n << 31n), 'EINVAL')
})

test('ioctl CQ_DESTROY: the response has exactly 8 bytes', () => {
  const destroy = (length: number): string =>
    errorOf(
      verbs(LinuxObject.CQ, 1, [
        [0, 0, 2n],
        [1, length, ARENA],
      ]),
    )
  assert.deepEqual([7, 8, 9].map(destroy), ['EINVAL', 'OK', 'EINVAL'])
})

test('ioctl INFO_HANDLES is ENOENT without a count, EINVAL without a list or both', () => {
  const objectId: Attr = [0, 8, 4n]
  assert.equal(errorOf(verbs(LinuxObject.DEVICE, INFO_HANDLES, [objectId, [2, 8, ARENA]])), 'ENOENT')
  assert.equal(errorOf(verbs(LinuxObject.DEVICE, INFO_HANDLES, [objectId, [1, 4, ARENA]])), 'EINVAL')
  assert.equal(errorOf(verbs(LinuxObject.DEVICE, INFO_HANDLES, [objectId])), 'EINVAL')
})

test('ioctl REG_MR takes an address or a descriptor, and refuses DMA handles, which this device lacks', () => {
  const region = (...more: readonly Attr[]): Decoded | Answer =>
    verbs(LinuxObject.MR, REG_MR_METHOD, [
      [0, 0, 0n],
      [1, 0, 0n],
      [3, 8, 0x8000n],
      [5, 8, 4096n],
      [6, 4, 1n],
      [9, 4, ARENA],
      [10, 4, ARENA],
      ...more,
    ])
  const decoded = region([4, 8, 0x10000n])
  assert.ok(!isAnswer(decoded))
  assert.deepEqual(decoded.call.args, { pd: 0, start: 0x10000n, length: 4096n, iova: 0x8000n, access: 1 })
  assert.equal(errorOf(region()), 'EINVAL')
  const ofFile = region([7, 0, 5n], [8, 8, 0x2000n])
  assert.ok(!isAnswer(ofFile))
  const kind = MrKind.values.FILE
  assert.deepEqual(ofFile.call.args, { pd: 0, start: 0x2000n, length: 4096n, iova: 0x8000n, access: 1, file: 5, kind })
  assert.equal(errorOf(region([4, 8, 0n], [2, 0, 0n])), 'EINVAL')
})

test('ioctl REG_MR of a descriptor takes the access flags of REG_DMABUF_MR', () => {
  const { LOCAL_WRITE, ON_DEMAND, MW_BIND, ZERO_BASED, HUGETLB } = AccessFlags.values
  const region = (access: number, ...more: readonly Attr[]): string =>
    errorOf(
      verbs(LinuxObject.MR, REG_MR_METHOD, [
        [0, 0, 0n],
        [1, 0, 0n],
        [3, 8, 0x8000n],
        [5, 8, 4096n],
        [6, 4, BigInt(access)],
        [9, 4, ARENA],
        [10, 4, ARENA],
        ...more,
      ]),
    )
  for (const flag of [ON_DEMAND, MW_BIND, ZERO_BASED, HUGETLB]) {
    assert.equal(region(LOCAL_WRITE | flag, [7, 0, 5n], [8, 8, 0n]), 'EINVAL')
    assert.equal(region(LOCAL_WRITE | flag, [4, 8, 0x8000n]), 'OK')
  }
})

test('the request number of an ioctl selects the dialect', () => {
  const memory = arena()
  memory.map(AT, new Uint8Array(16))
  const view = fakeView(memory)
  assert.equal(errorOf(decodeIoctl(view, 0xc0181b02, AT)), 'ENOTTY')
  assert.equal(errorOf(decodeIoctl(view, 0x5401, AT)), 'ENOTTY')
  const cls = rxeSchema.classByName('pd')!
  const call: Call = { class: cls, methodName: 'create', method: cls.methods.create, object: 0, args: {} }
  memory.map(AT, encodeCall(call))
  const decoded = decodeIoctl(view, ioctlRequest(0), AT)
  assert.ok(!isAnswer(decoded))
  assert.equal(decoded.call.class.name, 'pd')
  assert.equal(decoded.legacy(), undefined)
})

// ---- hostile bytes ----

const someResult = (call: Call): Result => {
  const [{ result }] = fc.sample(callsOf(call.class, call.methodName), 1)
  return result
}

test('decoding garbage and mutated calls never throws, and decoded calls encode to the same bytes', () => {
  const seeds = ['ibv_rc_pingpong_events.client.abilog', 'raw.abilog'].flatMap(name =>
    readAbilog(name).flatMap(call => (call.kind === 'write' ? [call.data] : [])),
  )
  // QP_CREATE; INVOKE_WRITE of MODIFY_QP; QUERY_PORT.
  const ioctls = [
    ioctl(4, 0, createQp()),
    ioctl(0, 0, [
      [2, 8, 26n],
      [0, 112, ARENA],
    ]),
    ioctl(0, 2, [
      [0, 8, 1n],
      [1, 48, ARENA],
    ]),
  ]
  const mutate = (bytes: Uint8Array, changes: [number, number][]): Uint8Array => {
    const bad = bytes.slice()
    for (const [at, byte] of changes) bad[at % bad.length] = byte
    return bad
  }
  const changes = fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 8 })
  const message = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 120, size: 'max' }),
    fc.tuple(fc.constantFrom(...seeds, ...ioctls), changes).map(([seed, list]) => mutate(seed, list)),
  )
  const random = fc.uint8Array({ minLength: 256, maxLength: 256 })
  fc.assert(
    fc.property(message, random, fc.boolean(), (bytes, arenaBytes, hasContext) => {
      const memory = fakeMemory()
      memory.map(ARENA, arenaBytes)
      memory.map(AT, bytes)
      const view = fakeView(memory)
      view.hasContext = hasContext
      view.handles.set(0, 'pd')
      view.handles.set(2, 'cq')
      view.handles.set(3, 'rc_qp')
      for (const decoded of [decodeWrite(view, AT, bytes.length), decodeVerbsIoctl(view, RDMA_VERBS_IOCTL, AT)]) {
        if (isAnswer(decoded)) continue
        assert.deepEqual(
          encodeLinux(decoded.call, decoded.legacy()!).bytes,
          bytes.subarray(0, encodeLinux(decoded.call, decoded.legacy()!).bytes.length),
        )
        decoded.answer(new CallError('EIO', 'no'))
        decoded.answer(someResult(decoded.call))
      }
    }),
    { numRuns: 3000 },
  )
})
