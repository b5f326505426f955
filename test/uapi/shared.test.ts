/*
 * Shared receive queues and XRC in Linux's write() dialect.
 */
import assert from 'node:assert/strict'
import { constants } from 'node:fs'
import { test } from 'node:test'
import { QpType, SrqType } from '../../src/spec/enums.ts'
import { Errno, errnoName } from '../../src/spec/errno.ts'
import { WriteCommands } from '../../src/spec/linux/names.ts'
import { type Answer, type Decoded, isAnswer } from '../../src/uapi/call.ts'
import { encodeLinux } from '../../src/uapi/linux/encode.ts'
import { decodeWrite } from '../../src/uapi/linux/write.ts'
import { ARENA, AT, arena, type FakeView, fakeView, UNWRITTEN } from './fake-view.ts'

const u16 = (n: number): number[] => [n & 0xff, n >> 8]
const u32 = (n: number): number[] => [...u16(n & 0xffff), ...u16(n >>> 16)]
const u64 = (n: bigint): number[] => [...u32(Number(n & 0xffffffffn)), ...u32(Number(n >> 32n))]

/** Handles in `write`. */
const [PD, CQ, SRQ, XRCD, XRC_SRQ, INITIATOR, TARGET, RC_QP] = [0, 1, 2, 3, 4, 5, 6, 7]
const handles: readonly (readonly [number, string])[] = [
  [PD, 'pd'],
  [CQ, 'cq'],
  [SRQ, 'srq'],
  [XRCD, 'xrcd'],
  [XRC_SRQ, 'xrc_srq'],
  [INITIATOR, 'xrc_ini_qp'],
  [TARGET, 'xrc_tgt_qp'],
  [RC_QP, 'rc_qp'],
]

/** Decodes a command with a response buffer of `room` bytes. */
const write = (number: number, body: readonly number[], room = 0): { view: FakeView; decoded: Decoded | Answer } => {
  const bytes = Uint8Array.from([...u32(number), ...u16((8 + body.length) / 4), ...u16(room / 4), ...body])
  const memory = arena()
  memory.map(AT, bytes)
  const view = fakeView(memory, new Map(handles))
  const decoded = decodeWrite(view, AT, bytes.length)
  if (!isAnswer(decoded)) assert.deepEqual(encodeLinux(decoded.call, decoded.legacy()!).bytes, bytes)
  return { view, decoded }
}
const callOf = (decoded: Decoded | Answer) => {
  assert.ok(!isAnswer(decoded), String((decoded as Answer).reason))
  return decoded.call
}
const errorOf = (decoded: Decoded | Answer): string => (isAnswer(decoded) ? errnoName(-decoded.ret) : 'OK')

const { BASIC, XRC, TM } = SrqType.values
const { RC, XRC_INI, XRC_TGT } = QpType.values
const { CREATE_QP, CREATE_XSRQ, DESTROY_SRQ, MODIFY_QP, MODIFY_SRQ, OPEN_QP, OPEN_XRCD, QUERY_SRQ } = WriteCommands

/** Bytes of CREATE_XSRQ's response, and of the following driver's part. */
const XSRQ_RESPONSE = 16
const XSRQ_DRIVER = 24

/** CREATE_XSRQ: response, user handle, type, PD, max_wr, max_sge, limit, tags, XRCD, CQ. */
const xsrq = (type: number): number[] => [
  ...u64(ARENA),
  ...u64(0x77n),
  ...[type, PD, 20, 2, 5, 9, XRCD, CQ].flatMap(u32),
]

test('CREATE_XSRQ: the type selects the class; attributes that the class lacks are ignored', () => {
  const common = { userHandle: 0x77n, pd: PD, maxWr: 20, maxSge: 2, limit: 5 }
  const basic = callOf(write(CREATE_XSRQ, xsrq(BASIC), XSRQ_RESPONSE + XSRQ_DRIVER).decoded)
  assert.deepEqual([basic.class.name, basic.args], ['srq', common])
  const xrc = callOf(write(CREATE_XSRQ, xsrq(XRC), XSRQ_RESPONSE + XSRQ_DRIVER).decoded)
  assert.deepEqual([xrc.class.name, xrc.args], ['xrc_srq', { ...common, xrcd: XRCD, cq: CQ }])
  const tagged = callOf(write(CREATE_XSRQ, xsrq(TM), XSRQ_RESPONSE + XSRQ_DRIVER).decoded)
  assert.deepEqual([tagged.class.name, tagged.args], ['tm_srq', { ...common, cq: CQ, maxNumTags: 9 }])
  assert.equal(errorOf(write(CREATE_XSRQ, xsrq(3), XSRQ_RESPONSE + XSRQ_DRIVER).decoded), 'EINVAL', 'an unknown type')
  // There must be room for all 24 bytes of the driver's part, although Linux's rxe writes only 20.
  assert.equal(errorOf(write(CREATE_XSRQ, xsrq(XRC), XSRQ_RESPONSE + XSRQ_DRIVER - 4).decoded), 'EINVAL')
})

/** Bits of ib_srq_attr_mask. */
const [MAX_WR, LIMIT] = [1, 2]
/** MODIFY_SRQ: handle, mask, 50 requests, limit 4, driver's input. */
const modify = (mask: number, ...driver: number[]): number[] => [
  ...u32(SRQ),
  ...u32(mask),
  ...u32(50),
  ...u32(4),
  ...driver,
]

test('MODIFY_SRQ: the mask selects attributes; the answer is written to the address in the driver’s input', () => {
  const pointer = u64(ARENA + 64n)
  const limit = write(MODIFY_SRQ, modify(LIMIT, ...pointer))
  assert.deepEqual(callOf(limit.decoded).args, { limit: 4 })
  assert.ok(!isAnswer(limit.decoded))
  assert.equal(limit.decoded.answer({ out: {} }).ret, 32)
  assert.deepEqual([...limit.view.copyIn(ARENA + 64n, 16)], new Array(16).fill(UNWRITTEN))

  const size = write(MODIFY_SRQ, modify(MAX_WR, ...pointer))
  assert.deepEqual(callOf(size.decoded).args, { maxWr: 50 })
  assert.ok(!isAnswer(size.decoded))
  size.decoded.answer({ out: { queue: { offset: 0x5000n, size: 0x3000 } } })
  assert.deepEqual([...size.view.copyIn(ARENA + 64n, 16)], [...u64(0x5000n), ...u32(0x3000), ...u32(0)])

  // There is no memory at 0x10.
  const badResponse = write(MODIFY_SRQ, modify(MAX_WR, ...u64(0x10n)))
  assert.ok(!isAnswer(badResponse.decoded))
  assert.equal(badResponse.decoded.answer({ out: { queue: { offset: 0n, size: 1 } } }).ret, -Errno.EFAULT)
  assert.equal(errorOf(write(MODIFY_SRQ, modify(MAX_WR)).decoded), 'EINVAL', 'no address')
  assert.equal(errorOf(write(MODIFY_SRQ, modify(4, ...pointer)).decoded), 'EOPNOTSUPP', 'an unknown bit of the mask')
})

test('QUERY_SRQ and DESTROY_SRQ are methods of the class of their handle', () => {
  for (const [handle, name] of [
    [SRQ, 'srq'],
    [XRC_SRQ, 'xrc_srq'],
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
  const { O_CREAT, O_EXCL, O_RDWR, O_SYNC } = constants
  assert.deepEqual(open(-1, O_CREAT).args, { flags: O_CREAT })
  assert.deepEqual(open(7, O_CREAT | O_EXCL | O_RDWR | O_SYNC).args, { file: 7, flags: O_CREAT | O_EXCL })
})

/** CREATE_QP: response, user handle, PD or XRCD (`parent`), CQs, SRQ, sizes, sq_sig_all, type, is_srq. */
const createQp = (type: number, parent: number, isSrq: number): number[] => [
  ...u64(ARENA),
  ...u64(1n),
  ...[parent, CQ, CQ, SRQ].flatMap(u32),
  ...[8, 8, 1, 1, 0].flatMap(u32),
  ...[0, type, isSrq, 0],
]

test('CREATE_QP: there is an SRQ if is_srq is set; an XRC target has only an XRCD', () => {
  const srqOf = (isSrq: number) => callOf(write(CREATE_QP, createQp(RC, PD, isSrq), 64).decoded).args.srq
  assert.deepEqual([srqOf(0), srqOf(1), srqOf(200)], [undefined, SRQ, SRQ])
  const target = callOf(write(CREATE_QP, createQp(XRC_TGT, XRCD, 0), 32).decoded)
  assert.deepEqual([target.class.name, target.args], ['xrc_tgt_qp', { userHandle: 1n, xrcd: XRCD }])
  const initiator = callOf(write(CREATE_QP, createQp(XRC_INI, PD, 0), 64).decoded)
  assert.equal(initiator.class.name, 'xrc_ini_qp')
  assert.deepEqual(Object.keys(initiator.args).sort(), ['cap', 'flags', 'pd', 'sendCq', 'userHandle'])
})

test('OPEN_QP opens a target by its number', () => {
  const body = (type: number) => [...u64(ARENA), ...u64(9n), ...u32(XRCD), ...u32(0x123), type, 0, 0, 0, ...u32(0)]
  const call = callOf(write(OPEN_QP, body(XRC_TGT), 32).decoded)
  assert.deepEqual([call.class.name, call.methodName], ['xrc_tgt_qp', 'create'])
  assert.deepEqual(call.args, { userHandle: 9n, xrcd: XRCD, qpNum: 0x123 })
})

test('MODIFY_QP clears attributes that initiators and targets lack, as Linux does', () => {
  const change = (handle: number, mask: number) => {
    const body = new Array(112).fill(0)
    // qp_handle and attr_mask of struct ib_uverbs_modify_qp.
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
  assert.deepEqual(Object.keys(callOf(change(RC_QP, STATE | MIN_RNR | REQUESTER)).args).sort(), [
    'maxRdAtomic',
    'minRnrTimer',
    'retryCnt',
    'rnrRetry',
    'state',
  ])
  // Linux does not clear the Q_Key, which an initiator lacks too.
  assert.equal(errorOf(change(INITIATOR, QKEY)), 'EINVAL')
})
