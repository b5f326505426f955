/*
 * Recorded calls, with arguments written by hand from ib_user_verbs.h and the programs' options. The tables of
 * spec/linux are thus checked independently.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AnyRecord } from '../../src/spec/schema/schema.ts'
import { type Decoded, isAnswer } from '../../src/uapi/call.ts'
import { type LoggedIoctl, type LoggedWrite, memoryBefore, readAbilog } from './abilog.ts'
import { fakeView } from './fake-view.ts'
import { decodeLogged, recordedResult } from './recorded.ts'

interface DecodedCall {
  readonly name: string
  readonly decoded: Decoded
  readonly logged: LoggedIoctl | LoggedWrite
}

const readCalls = (log: string): DecodedCall[] => {
  // the kernel's handles of the objects that ibv_rc_pingpong creates
  const handles = new Map([
    [0, 'pd'],
    [1, 'mr'],
    [2, 'cq'],
    [3, 'rc_qp'],
  ])
  const view = fakeView(undefined, handles)
  const all: DecodedCall[] = []
  for (const logged of readAbilog(log)) {
    if (logged.kind !== 'ioctl' && logged.kind !== 'write') continue
    // GET_CONTEXT (object DEVICE, method 3) makes the context.
    view.hasContext = !(logged.kind === 'ioctl' && logged.object === 0 && logged.method === 3)
    view.memory = memoryBefore(logged)
    const decoded = decodeLogged(view, logged)
    if (!isAnswer(decoded)) all.push({ name: `${decoded.call.class.name}.${decoded.call.methodName}`, decoded, logged })
  }
  return all
}

const pingpong = readCalls('ibv_rc_pingpong_events.client.abilog')
const named = (name: string): DecodedCall[] => pingpong.filter(call => call.name === name)
/** ib_qp_attr_mask. */
const IB_QP_CAP = 1 << 19
const gid = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))

test('ibv_rc_pingpong -e makes the expected calls in order', () => {
  const order = pingpong.map(call => call.name)
  assert.deepEqual(order.slice(0, 13), [
    'device.open',
    'async_fd.create',
    'comp_channel.create',
    'pd.create',
    'mr.create',
    'cq.create',
    'rc_qp.create',
    'rc_qp.query',
    'rc_qp.modify',
    'cq.reqNotify',
    'port.query',
    'port.queryGidEntry',
    'rc_qp.modify',
  ])
  assert.deepEqual(order.slice(-4), ['rc_qp.destroy', 'cq.destroy', 'mr.destroy', 'pd.destroy'])
})

test('device.open returns two completion vectors, and support of optional access bits', () => {
  const [open] = named('device.open')
  assert.deepEqual(open.decoded.call.args, {})
  assert.deepEqual(recordedResult(open.decoded.call, open.logged).result.out, { numCompVectors: 2, coreSupport: 1n })
})

test('REG_MR registers 64 bytes for local writes', () => {
  const [mr] = named('mr.create')
  assert.deepEqual(mr.decoded.call.args, {
    pd: 0,
    start: 0x556e526fd000n,
    length: 64n,
    iova: 0x556e526fd000n,
    access: 1,
  })
  const { result } = recordedResult(mr.decoded.call, mr.logged)
  assert.deepEqual(result, { object: 1, out: { lkey: 0x1966b, rkey: 0 } })
})

test('CREATE_CQ of 501 entries creates 511, in a queue of 69632 bytes', () => {
  const [cq] = named('cq.create')
  assert.deepEqual(cq.decoded.call.args, {
    cqe: 501,
    userHandle: 0x556e526fc720n,
    channel: 6,
    compVector: 0,
    asyncFd: 5,
  })
  assert.deepEqual(recordedResult(cq.decoded.call, cq.logged).result, {
    object: 2,
    out: { cqe: 511, queue: { offset: 0x148f000n, size: 69632 } },
  })
})

test('CREATE_QP creates an RC queue pair', () => {
  const [qp] = named('rc_qp.create')
  assert.deepEqual(qp.decoded.call.args, {
    pd: 0,
    sendCq: 2,
    recvCq: 2,
    userHandle: 0x556e526fc880n,
    cap: { maxSendWr: 1, maxRecvWr: 500, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 },
    asyncFd: 5,
  })
  assert.deepEqual(recordedResult(qp.decoded.call, qp.logged).result, {
    object: 3,
    out: {
      cap: { maxSendWr: 1, maxRecvWr: 500, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 16 },
      qpNum: 0x100,
      recvQueue: { offset: 0x14a1000n, size: 36864 },
      sendQueue: { offset: 0x14a0000n, size: 4096 },
    },
  })
})

test('QUERY_QP returns the attributes of a new queue pair', () => {
  const [query] = named('rc_qp.query')
  assert.equal(query.decoded.call.object, 3)
  assert.deepEqual(query.decoded.call.args, { attrMask: IB_QP_CAP })
  const { out } = recordedResult(query.decoded.call, query.logged).result
  assert.deepEqual(out.cap, { maxSendWr: 1, maxRecvWr: 511, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 16 })
  assert.equal(out.state, 0)
  assert.equal(out.sqSigAll, 0)
  assert.equal(out.port, 0)
  assert.equal(out.pathMtu, 1)
})

test('MODIFY_QP to INIT, RTR and RTS has exactly the attributes of the mask', () => {
  const [init, rtr, rts] = named('rc_qp.modify').map(call => call.decoded.call.args)
  assert.deepEqual(init, { state: 1, pkeyIndex: 0, port: 1, accessFlags: 0 })
  const address = {
    dgid: gid('00000000000000000000ffff0a4d0003'),
    flowLabel: 0,
    sgidIndex: 1,
    hopLimit: 1,
    trafficClass: 0,
    sl: 0,
    staticRate: 0,
    isGlobal: 1,
    port: 1,
  }
  assert.deepEqual(rtr, {
    state: 2,
    pathMtu: 3,
    destQpn: 0x150,
    rqPsn: 0xcb1fb2,
    maxDestRdAtomic: 1,
    minRnrTimer: 12,
    address,
  })
  assert.deepEqual(rts, { state: 3, sqPsn: 0xc6cc28, maxRdAtomic: 1, timeout: 14, retryCnt: 7, rnrRetry: 7 })
})

test('POST_SEND is a doorbell', () => {
  const [post] = named('rc_qp.postSend')
  assert.equal(post.decoded.call.object, 3)
  assert.deepEqual(post.decoded.call.args, { wrCount: 0, sgeCount: 0, wqeSize: 128 })
})

test('the destruction of the CQ reports seven completion events', () => {
  const [cq] = named('cq.destroy')
  assert.deepEqual(recordedResult(cq.decoded.call, cq.logged).result.out, { compEvents: 7, asyncEvents: 0 })
})

test('ibv_devinfo gets the device and port attributes that it printed', () => {
  const all = readCalls('ibv_devinfo.abilog.gz')
  const device = all.find(call => call.name === 'device.query')!
  const { attributes, extended } = recordedResult(device.decoded.call, device.logged).result.out as unknown as {
    attributes: AnyRecord
    extended: AnyRecord
  }
  assert.deepEqual(attributes.nodeGuid, gid('505400fffe770002'))
  const expected = {
    vendorId: 0xffffff,
    maxMrSize: 0xffffffffffffffffn,
    pageSizeCap: 0xfffff000n,
    maxQp: 1048560,
    maxQpWr: 1048576,
    deviceCapFlags: 0x1223c76,
    maxSge: 32,
    maxCq: 1048576,
    maxCqe: 32767,
    maxMr: 524287,
    maxPd: 1048576,
    maxQpRdAtom: 128,
    maxResRdAtom: 258048,
    atomicCap: 1,
    maxMw: 524287,
    maxMcastGrp: 8192,
    maxMcastQpAttach: 56,
    maxTotalMcastQpAttach: 458752,
    maxAh: 32767,
    maxSrq: 917503,
    maxSrqWr: 1048576,
    maxSrqSge: 27,
    maxPkeys: 64,
    localCaAckDelay: 15,
    physPortCnt: 1,
  }
  for (const [name, value] of Object.entries(expected)) assert.equal(attributes[name], value, name)
  assert.equal(extended.deviceCapFlagsEx, 0x1223c76n)
  const port = all.find(call => call.name === 'port.query')!
  assert.equal(port.decoded.call.object, 1)
  const { out } = recordedResult(port.decoded.call, port.logged).result
  assert.deepEqual(out.attributes, {
    portCapFlags: 0x10000,
    maxMsgSz: 0x800000,
    badPkeyCntr: 0,
    qkeyViolCntr: 0,
    gidTblLen: 1024,
    pkeyTblLen: 1,
    lid: 0,
    smLid: 0,
    state: 4,
    maxMtu: 5,
    activeMtu: 3,
    lmc: 0,
    maxVlNum: 1,
    smSl: 0,
    subnetTimeout: 0,
    initTypeReply: 0,
    activeWidth: 1,
    activeSpeed: 1,
    physState: 5,
    linkLayer: 2,
    flags: 1,
    portCapFlags2: 0,
    activeSpeedEx: 0,
  })
  const entries = all.filter(call => call.name === 'port.queryGidEntry')
  // ibv_devinfo reads each of the 1024 entries twice: its type and its GID.
  assert.equal(entries.length, 2 * 1024)
  assert.deepEqual(entries[2].decoded.call.args, { index: 1 })
  assert.deepEqual(recordedResult(entries[2].decoded.call, entries[2].logged).result.out.entry, {
    gid: gid('00000000000000000000ffff0a4d0002'),
    index: 1,
    port: 1,
    type: 2,
    ifindex: 2,
  })
})
