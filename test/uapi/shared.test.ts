/*
 * Shared receive queues and XRC in Linux's write() dialect.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Errno, errnoName } from '../../src/spec/errno.ts'
import { WriteCommands } from '../../src/spec/linux/names.ts'
import { type Answer, type Decoded, isAnswer } from '../../src/uapi/call.ts'
import { encodeLinux } from '../../src/uapi/linux/encode.ts'
import { decodeWrite } from '../../src/uapi/linux/write.ts'
import { ARENA, AT, arena, type FakeView, fakeView } from './fake-view.ts'

const u16 = (n: number): number[] => [n & 0xff, n >> 8]
const u32 = (n: number): number[] => [...u16(n & 0xffff), ...u16(n >>> 16)]
const u64 = (n: bigint): number[] => [...u32(Number(n & 0xffffffffn)), ...u32(Number(n >> 32n))]

/** Decodes a command with a response buffer of `room` bytes. */
const write = (number: number, body: readonly number[], room = 0): { view: FakeView; decoded: Decoded | Answer } => {
  const bytes = Uint8Array.from([...u32(number), ...u16((8 + body.length) / 4), ...u16(room / 4), ...body])
  const memory = arena()
  memory.map(AT, bytes)
  const handles = ['pd', 'cq', 'srq', 'xrcd', 'xrc_srq', 'xrc_ini_qp', 'xrc_tgt_qp', 'rc_qp']
  const view = fakeView(memory, new Map(handles.map((name, handle) => [handle, name])))
  const decoded = decodeWrite(view, AT, bytes.length)
  if (!isAnswer(decoded)) assert.deepEqual(encodeLinux(decoded.call, decoded.legacy()!).bytes, bytes)
  return { view, decoded }
}
const callOf = (decoded: Decoded | Answer) => {
  assert.ok(!isAnswer(decoded), (decoded as Answer).reason)
  return decoded.call
}
const errorOf = (decoded: Decoded | Answer): string => (isAnswer(decoded) ? errnoName(-decoded.ret) : 'OK')

const { CREATE_QP, CREATE_XSRQ, DESTROY_SRQ, MODIFY_QP, MODIFY_SRQ, OPEN_QP, OPEN_XRCD, QUERY_SRQ } = WriteCommands

/** Bytes of CREATE_XSRQ's response, and of the following driver's part. */
const XSRQ_RESPONSE = 16
const XSRQ_DRIVER = 24

/** CREATE_XSRQ: response, user handle, type, PD, max_wr, max_sge, limit, tags, XRCD, CQ. */
const xsrq = (type: number): number[] => [...u64(ARENA), ...u64(0x77n), ...[type, 0, 20, 2, 5, 9, 3, 1].flatMap(u32)]

test('CREATE_XSRQ: the type selects the class; attributes that the class lacks are ignored', () => {
  const common = { userHandle: 0x77n, pd: 0, maxWr: 20, maxSge: 2, limit: 5 }
  const basic = callOf(write(CREATE_XSRQ, xsrq(0), XSRQ_RESPONSE + XSRQ_DRIVER).decoded)
  assert.deepEqual([basic.class.name, basic.args], ['srq', common])
  const xrc = callOf(write(CREATE_XSRQ, xsrq(1), XSRQ_RESPONSE + XSRQ_DRIVER).decoded)
  assert.deepEqual([xrc.class.name, xrc.args], ['xrc_srq', { ...common, xrcd: 3, cq: 1 }])
  const tagged = callOf(write(CREATE_XSRQ, xsrq(2), XSRQ_RESPONSE + XSRQ_DRIVER).decoded)
  assert.deepEqual([tagged.class.name, tagged.args], ['tm_srq', { ...common, cq: 1, maxNumTags: 9 }])
  assert.equal(errorOf(write(CREATE_XSRQ, xsrq(3), XSRQ_RESPONSE + XSRQ_DRIVER).decoded), 'EINVAL')
  // Linux's rxe writes 20 of the 24 bytes of the driver's part.
  assert.equal(errorOf(write(CREATE_XSRQ, xsrq(1), XSRQ_RESPONSE + XSRQ_DRIVER - 4).decoded), 'EINVAL')
})

/** MODIFY_SRQ of handle 2: mask (1: requests, 2: limit), 50 requests, limit 4, driver's input. */
const modify = (mask: number, ...driver: number[]): number[] => [
  ...u32(2),
  ...u32(mask),
  ...u32(50),
  ...u32(4),
  ...driver,
]

test('MODIFY_SRQ: the mask selects attributes; the answer is written to the address in the driver’s input', () => {
  const pointer = u64(ARENA + 64n)
  const limit = write(MODIFY_SRQ, modify(2, ...pointer))
  assert.deepEqual(callOf(limit.decoded).args, { limit: 4 })
  assert.ok(!isAnswer(limit.decoded))
  assert.equal(limit.decoded.answer({ out: {} }).ret, 32)
  assert.deepEqual([...limit.view.copyIn(ARENA + 64n, 16)], new Array(16).fill(0xcc))

  const size = write(MODIFY_SRQ, modify(1, ...pointer))
  assert.deepEqual(callOf(size.decoded).args, { maxWr: 50 })
  assert.ok(!isAnswer(size.decoded))
  size.decoded.answer({ out: { queue: { offset: 0x5000n, size: 0x3000 } } })
  assert.deepEqual([...size.view.copyIn(ARENA + 64n, 16)], [...u64(0x5000n), ...u32(0x3000), ...u32(0)])

  const badResponse = write(MODIFY_SRQ, modify(1, ...u64(0x10n)))
  assert.ok(!isAnswer(badResponse.decoded))
  assert.equal(badResponse.decoded.answer({ out: { queue: { offset: 0n, size: 1 } } }).ret, -Errno.EFAULT)
  assert.equal(errorOf(write(MODIFY_SRQ, modify(1)).decoded), 'EINVAL')
  assert.equal(errorOf(write(MODIFY_SRQ, modify(4, ...pointer)).decoded), 'EOPNOTSUPP')
})

test('QUERY_SRQ and DESTROY_SRQ are methods of the class of their handle', () => {
  for (const [handle, name] of [
    [2, 'srq'],
    [4, 'xrc_srq'],
  ] as const)
    for (const [number, method] of [
      [QUERY_SRQ, 'query'],
      [DESTROY_SRQ, 'destroy'],
    ] as const) {
      const call = callOf(write(number, [...u64(ARENA), ...u32(handle), ...u32(0)], 16).decoded)
      assert.deepEqual([call.class.name, call.methodName, call.object], [name, method, handle])
    }
})

test('OPEN_XRCD: a negative descriptor means no descriptor; flags other than O_CREAT and O_EXCL are ignored', () => {
  const open = (fd: number, flags: number) =>
    callOf(write(OPEN_XRCD, [...u64(ARENA), ...u32(fd >>> 0), ...u32(flags)], 4).decoded)
  assert.deepEqual(open(-1, 0o100).args, { flags: 0o100 })
  assert.deepEqual(open(7, 0o2000302).args, { file: 7, flags: 0o300 })
})

/** CREATE_QP: response, user handle, PD or XRCD (`parent`), CQs, SRQ, sizes, sq_sig_all, type, is_srq. */
const createQp = (type: number, parent: number, isSrq: number): number[] => [
  ...u64(ARENA),
  ...u64(1n),
  ...[parent, 1, 1, 2].flatMap(u32),
  ...[8, 8, 1, 1, 0].flatMap(u32),
  ...[0, type, isSrq, 0],
]

test('CREATE_QP: there is an SRQ if is_srq is set; an XRC target has only an XRCD', () => {
  const srqOf = (isSrq: number) => callOf(write(CREATE_QP, createQp(2, 0, isSrq), 64).decoded).args.srq
  assert.deepEqual([srqOf(0), srqOf(1), srqOf(200)], [undefined, 2, 2])
  const target = callOf(write(CREATE_QP, createQp(10, 3, 0), 32).decoded)
  assert.deepEqual([target.class.name, target.args], ['xrc_tgt_qp', { userHandle: 1n, xrcd: 3 }])
  const initiator = callOf(write(CREATE_QP, createQp(9, 0, 0), 64).decoded)
  assert.equal(initiator.class.name, 'xrc_ini_qp')
  assert.deepEqual(Object.keys(initiator.args).sort(), ['cap', 'flags', 'pd', 'sendCq', 'userHandle'])
})

test('OPEN_QP opens a target by its number', () => {
  const body = (type: number) => [...u64(ARENA), ...u64(9n), ...u32(3), ...u32(0x123), type, 0, 0, 0, ...u32(0)]
  const call = callOf(write(OPEN_QP, body(10), 32).decoded)
  assert.deepEqual([call.class.name, call.methodName], ['xrc_tgt_qp', 'create'])
  assert.deepEqual(call.args, { userHandle: 9n, xrcd: 3, qpNum: 0x123 })
})

test('MODIFY_QP clears attributes that initiators and targets lack, as Linux does', () => {
  // Handles of `write`.
  const [INITIATOR, TARGET, RC] = [5, 6, 7]
  const change = (handle: number, mask: number) => {
    const body = new Array(112).fill(0)
    body.splice(64, 8, ...u32(handle), ...u32(mask))
    return write(MODIFY_QP, body).decoded
  }
  // Bits of ib_qp_attr_mask. REQUESTER has both retry counts and MAX_QP_RD_ATOMIC.
  const STATE = 1 << 0
  const QKEY = 1 << 6
  const MIN_RNR = 1 << 15
  const MAX_DEST_RD = 1 << 17
  const REQUESTER = (1 << 10) | (1 << 11) | (1 << 13)
  assert.deepEqual(callOf(change(INITIATOR, STATE | MIN_RNR | MAX_DEST_RD)).args, { state: 0 })
  assert.deepEqual(callOf(change(TARGET, STATE | REQUESTER)).args, { state: 0 })
  assert.deepEqual(Object.keys(callOf(change(RC, STATE | MIN_RNR | REQUESTER)).args).sort(), [
    'maxRdAtomic',
    'minRnrTimer',
    'retryCnt',
    'rnrRetry',
    'state',
  ])
  // Linux does not clear the Q_Key, which an initiator lacks too.
  assert.equal(errorOf(change(INITIATOR, QKEY)), 'EINVAL')
})
