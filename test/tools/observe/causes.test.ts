/*
 * What an error completion of an adapter means, by the calls and posts that were observed.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { causes } from '../../../src/spec/check/causes.ts'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { AccessFlags } from '../../../src/spec/enums.ts'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import {
  causeOfFailure,
  type FailedRequest,
  type KnownEnd,
  type KnownRegion,
} from '../../../src/tools/observe/causes.ts'

const { LOCAL_WRITE, REMOTE_WRITE, FLUSH_PERSISTENT } = AccessFlags.values
const { RDMA_WRITE, SEND, ATOMIC_FETCH_AND_ADD, FLUSH, ATOMIC_WRITE } = WrOpcode.values
const { LOC_PROT_ERR, LOC_LEN_ERR, LOC_QP_OP_ERR, REM_ACCESS_ERR, REM_INV_REQ_ERR, MW_BIND_ERR } = WcStatus.values
const { RETRY_EXC_ERR, RNR_RETRY_EXC_ERR } = WcStatus.values

const region = (more: Partial<KnownRegion> = {}): KnownRegion => ({
  pd: 1,
  context: 1,
  start: 0x1000,
  length: 0x1000,
  access: LOCAL_WRITE | REMOTE_WRITE,
  isDeregistered: false,
  ...more,
})

const end = (more: Partial<KnownEnd> = {}): KnownEnd => ({
  pd: 1,
  context: 1,
  regions: new Map([[7, region()]]),
  accessFlags: REMOTE_WRITE,
  pathMtu: 3,
  maxDestRdAtomic: 1,
  knowsAllKeys: true,
  receive: undefined,
  send: undefined,
  ...more,
})

const request = (more: Partial<WorkRequest> = {}): WorkRequest => ({
  id: 1,
  time: 0,
  owner: 1,
  queue: 0,
  number: 1,
  index: 0,
  wrId: 1n,
  opcode: RDMA_WRITE,
  flags: 0,
  isSignaled: true,
  length: 8,
  elements: [{ address: 0x1000, length: 8, lkey: 7 }],
  remote: { address: 0x1000, length: 8, rkey: 7 },
  destQpn: undefined,
  destination: undefined,
  ...more,
})

const causeWith = (status: number, more: Partial<FailedRequest> = {}) =>
  causeOfFailure({
    status,
    vendorErr: 0x22,
    request: request(),
    own: end(),
    peer: end(),
    maxSendSge: 1,
    maxRdAtomic: 1,
    retryCnt: 7,
    rnrRetry: 7,
    ...more,
  }).cause
const causeOf = (status: number, more: Partial<FailedRequest> = {}): string => causeWith(status, more).id

const withKey = (more: Partial<KnownRegion>): KnownEnd => end({ regions: new Map([[7, region(more)]]) })

test('a key at either end is named only if all keys are known', () => {
  for (const status of [LOC_PROT_ERR, LOC_QP_OP_ERR])
    assert.equal(causeOf(status, { own: end({ regions: new Map() }) }), 'LKEY_UNKNOWN')
  assert.equal(causeOf(LOC_PROT_ERR, { own: end({ regions: new Map(), knowsAllKeys: false }) }), 'NOT_OBSERVED')
  assert.equal(causeOf(REM_ACCESS_ERR, { peer: end({ regions: new Map() }) }), 'RKEY_UNKNOWN')
  assert.equal(causeOf(REM_ACCESS_ERR, { peer: end({ regions: new Map(), knowsAllKeys: false }) }), 'NAK_REMOTE_ACCESS')
})

test('regions say why memory is refused', () => {
  for (const [more, local, remote] of [
    [{ isDeregistered: true }, 'LKEY_DEREGISTERED', 'RKEY_DEREGISTERED'],
    [{ pd: 2 }, 'LKEY_OTHER_PD', 'RKEY_OTHER_PD'],
    [{ length: 4 }, 'LKEY_RANGE', 'RKEY_RANGE'],
  ] as const) {
    assert.equal(causeOf(LOC_PROT_ERR, { own: withKey(more) }), local)
    assert.equal(causeOf(REM_ACCESS_ERR, { peer: withKey(more) }), remote)
  }
  assert.equal(causeOf(REM_ACCESS_ERR, { peer: withKey({ access: LOCAL_WRITE }) }), 'RKEY_NO_RIGHT')
  const receive = request({ opcode: -1, remote: undefined })
  assert.equal(causeOf(LOC_PROT_ERR, { request: receive, own: withKey({ access: 0 }) }), 'LKEY_NO_RIGHT')
})

test('FLUSH and ATOMIC WRITE name memory of the peer too', () => {
  const flush = request({ opcode: FLUSH, length: 0, elements: [], remote: { address: 0x1000, length: 0, rkey: 7 } })
  for (const [opcode, sent] of [
    [FLUSH, flush],
    [ATOMIC_WRITE, request({ opcode: ATOMIC_WRITE })],
  ] as const) {
    const right = opcode === FLUSH ? FLUSH_PERSISTENT : REMOTE_WRITE
    const peer = (access: number) => ({ ...withKey({ access }), accessFlags: right })
    const cause = (access: number) => causeOf(REM_ACCESS_ERR, { request: sent, peer: peer(access) })
    assert.deepEqual([cause(LOCAL_WRITE), cause(right)], ['RKEY_NO_RIGHT', 'NAK_REMOTE_ACCESS'])
    assert.equal(causeOf(REM_ACCESS_ERR, { request: sent, peer: end({ regions: new Map() }) }), 'RKEY_UNKNOWN')
    assert.equal(causeOf(REM_INV_REQ_ERR, { request: sent, peer: peer(right), maxRdAtomic: 2 }), 'TOO_MANY_READS')
  }
})

test('the peer says why it refuses a request, if it is observed', () => {
  assert.equal(causeOf(REM_INV_REQ_ERR, { peer: undefined }), 'NAK_INVALID_REQUEST')
  assert.equal(causeOf(REM_INV_REQ_ERR, { peer: end({ accessFlags: 0 }) }), 'QP_NO_RIGHT')
  assert.equal(causeOf(REM_INV_REQ_ERR, { peer: end({ pathMtu: 1 }) }), 'PACKET_LENGTH')
  const send = request({ opcode: SEND, remote: undefined })
  const short = request({ opcode: -1, length: 4 })
  assert.equal(causeOf(REM_INV_REQ_ERR, { request: send, peer: end({ receive: short }) }), 'RECEIVE_TOO_SHORT')
  const atomic = request({ opcode: ATOMIC_FETCH_AND_ADD, remote: { address: 0x1001, length: 8, rkey: 7 } })
  assert.equal(causeOf(REM_INV_REQ_ERR, { request: atomic, peer: end({ accessFlags: undefined }) }), 'ATOMIC_ADDRESS')
})

test('a receive that is too short has its cause by both statuses', () => {
  const receive = request({ opcode: -1, elements: [] })
  const peer = end({ send: request({ opcode: SEND, length: 16 }) })
  for (const status of [LOC_LEN_ERR, LOC_QP_OP_ERR])
    assert.equal(causeOf(status, { request: receive, peer }), 'RECEIVE_TOO_SHORT')
})

test('what cannot be known is said, with the number of the adapter', () => {
  for (const status of [LOC_QP_OP_ERR, LOC_LEN_ERR, MW_BIND_ERR]) assert.equal(causeOf(status), 'NOT_OBSERVED')
  assert.equal(causeOf(LOC_PROT_ERR, { request: undefined }), 'NOT_OBSERVED')
  assert.match(causes.NOT_OBSERVED.text, /vendorErr/)
})

test('causes have the numbers of the request and of what it met', () => {
  assert.deepEqual(causeWith(RETRY_EXC_ERR).args, { tries: 8, retryCnt: 7 })
  assert.deepEqual(causeWith(RNR_RETRY_EXC_ERR).args, { rnrNaks: 8, rnrRetry: 7 })
  const outside = { key: 7, accessStart: 0x1000, accessEnd: 0x1008, rangeStart: 0x1000, rangeEnd: 0x1004 }
  assert.deepEqual(causeWith(LOC_PROT_ERR, { own: withKey({ length: 4 }) }).args, outside)
  assert.deepEqual(causeWith(REM_ACCESS_ERR, { peer: withKey({ length: 4 }) }).args, outside)
  const long = request({ length: 1 << 20 })
  assert.deepEqual(causeWith(REM_INV_REQ_ERR, { request: long, peer: end({ pathMtu: 1 }) }).args, {
    payload: 1024,
    mtu: 256,
  })
  const receive = request({ opcode: -1, length: 4, elements: [] })
  assert.deepEqual(causeWith(LOC_LEN_ERR, { request: receive }).args, { bufferBytes: 4, length: 5 })
})

test('a request that ends with its region, or begins with it, is inside', () => {
  for (const start of [0xff8, 0x1000]) {
    const region = withKey({ start, length: 0x1008 - start })
    assert.equal(causeOf(LOC_PROT_ERR, { own: region }), 'NOT_OBSERVED')
    assert.equal(causeOf(REM_ACCESS_ERR, { peer: region }), 'NAK_REMOTE_ACCESS')
  }
  assert.equal(causeOf(LOC_PROT_ERR, { own: withKey({ start: 0x1001 }) }), 'LKEY_RANGE')
})
