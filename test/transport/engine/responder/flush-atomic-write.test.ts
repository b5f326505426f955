/*
 * FLUSH and ATOMIC WRITE of requester and responder (IBA 1.5 annex A19).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Errno } from '../../../../src/spec/errno.ts'
import { flushPlacement, flushSelectivity } from '../../../../src/spec/wire/headers.ts'
import { WcOpcode } from '../../../../src/spec/work.ts'
import { Access } from '../../../../src/transport/engine/types.ts'
import { MEMORY_BYTES, REMOTE_ACCESS, REMOTE_KEY, type SendSpec } from '../node.ts'
import { ERR, FENCE, NAK, READ, type Script, SEND, SIGNALED, sge, T14, WRITE, wr } from '../requests.ts'
import { patternOf } from '../responding.ts'
import { type PacketSpec, RQ_PSN, startScript } from '../script.ts'

const { FLUSH, ATOMIC_WRITE } = wr
/** Access flags of a queue pair and a region that allow FLUSH. */
const FLUSH_ACCESS = REMOTE_ACCESS | Access.FLUSH_GLOBAL
const WITH_FLUSH_PERSISTENT = { access: FLUSH_ACCESS | Access.FLUSH_PERSISTENT }
const WITHOUT_WRITE = { access: Access.REMOTE_READ | Access.REMOTE_ATOMIC }
const { GLOBAL, PERSISTENT } = flushPlacement
const UNKNOWN_PLACEMENT = 4
const UNKNOWN_SELECTIVITY = 2
/** No region has this key. */
const WRONG_KEY = 5
/** A FLUSH, as in `SendSpec`: the length is in `compare`, placement and selectivity are in `swap`. */
const flush = (
  id: number,
  {
    length = 100,
    placement = GLOBAL,
    selectivity = 0,
    ...fields
  }: { length?: number; placement?: number; selectivity?: number; rkey?: number } = {},
): SendSpec => ({
  id,
  opcode: FLUSH,
  remote: 4096,
  compare: BigInt(length),
  swap: (BigInt(selectivity) << 32n) | BigInt(placement),
  ...fields,
})
const word = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8])
const atomicWrite = (id: number, fields: Partial<SendSpec> = {}): SendSpec => ({
  id,
  opcode: ATOMIC_WRITE,
  remote: 64,
  inline: word,
  ...fields,
})

describe('the requester', () => {
  it('FLUSH: one packet without payload, completed by a READ response without payload', () => {
    const t = startScript()
    t.post(flush(1))
    assert.deepEqual(t.sent(), ['FLUSH@0 ackreq sel 0 plt 1 reth +4096:100'])
    t.response('READ_RESP_ONLY', 0)
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.equal(t.node.cqes[0].opcode, WcOpcode.values.FLUSH)
    assert.equal(t.node.cqes[0].bytes, 100)
  })
  it('several FLUSHes are completed by their responses, without retransmissions', () => {
    const t = startScript()
    t.post(flush(1), flush(2), flush(3))
    assert.equal(t.sent().length, 3)
    for (const psn of [0, 1, 2]) t.response('READ_RESP_ONLY', psn)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok', '3 ok'])
    assert.deepEqual(t.sent(), [])
  })
  it('FLUSH takes one PSN, whatever its length', () => {
    const t = startScript()
    t.post(flush(1, { length: 100_000 }), { id: 2, opcode: SEND })
    assert.deepEqual(t.sent().slice(1), ['SEND_ONLY@1 ackreq'])
  })
  it('FLUSH of a region, and of persistent memory', () => {
    const t = startScript()
    t.post(flush(1, { selectivity: flushSelectivity.REGION, placement: PERSISTENT }))
    assert.deepEqual(t.sent(), ['FLUSH@0 ackreq sel 1 plt 2 reth +4096:100'])
  })
  it('ATOMIC WRITE: 8 bytes in memory order, inline or from an SGE', () => {
    const t = startScript({ maxRdAtomic: 1 })
    t.node.memory.set(word, 200)
    t.post(atomicWrite(1), { id: 2, opcode: ATOMIC_WRITE, remote: 72, ...sge(200, 8) })
    const [first, second] = ['ATOMIC_WRITE@0 ackreq reth +64:8 [8]', 'ATOMIC_WRITE@1 ackreq reth +72:8 [8]']
    assert.deepEqual(t.sent(), [first])
    assert.deepEqual(t.payloads()[0], word)
    t.response('READ_RESP_ONLY', 0)
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.equal(t.node.cqes[0].opcode, WcOpcode.values.ATOMIC_WRITE)
    assert.deepEqual(t.sent(), [second])
    assert.deepEqual(t.payloads()[1], word)
  })
  it('FLUSH and ATOMIC WRITE count for max_rd_atomic, and a fence waits for a FLUSH', () => {
    const t = startScript({ maxRdAtomic: 2 })
    t.post(flush(1), atomicWrite(2), { id: 3, opcode: READ, ...sge(0, 4) })
    assert.equal(t.sent().length, 2)
    t.response('READ_RESP_ONLY', 0)
    assert.deepEqual(t.sent(), ['READ_REQUEST@2 ackreq reth +0:4'])
    const fenced = startScript({ maxRdAtomic: 2 })
    fenced.post(flush(1), { id: 2, opcode: WRITE, ...sge(0, 4), flags: FENCE | SIGNALED })
    assert.equal(fenced.sent().length, 1)
    fenced.response('READ_RESP_ONLY', 0)
    assert.equal(fenced.sent().length, 1)
  })
  it('an ACK of a later PSN does not complete a FLUSH: it shows that the response was lost', () => {
    const t = startScript({ maxRdAtomic: 2, timeout: 14 })
    t.post(flush(1), { id: 2, opcode: WRITE, ...sge(0, 4) })
    const packets = t.sent()
    t.response('ACKNOWLEDGE', 1)
    assert.deepEqual(t.completions(), [])
    assert.deepEqual(t.sent(), packets)
    t.response('READ_RESP_ONLY', 0)
    t.response('ACKNOWLEDGE', 1)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  })
  it('a timeout retransmits an ATOMIC WRITE with its data', () => {
    const t = startScript({ timeout: 14, retryCnt: 1 })
    t.post(atomicWrite(1))
    const first = t.sent()
    t.sleep(T14 + 1)
    assert.deepEqual(t.sent(), first)
    assert.deepEqual(t.payloads()[1], word)
  })
  const badResponses: [string, PacketSpec][] = [
    ['READ_RESP_ONLY', { payload: 4 }],
    ['READ_RESP_LAST', {}],
    ['ATOMIC_ACK', {}],
  ]
  for (const [name, spec] of badResponses)
    it(`${name} ${JSON.stringify(spec)} is a bad response`, () => {
      for (const request of [flush(1), atomicWrite(1)]) {
        const t = startScript()
        t.post(request)
        t.sent()
        t.response(name, 0, spec)
        assert.deepEqual(t.completions(), ['1 BAD_RESP'])
      }
    })
  const refused: [string, SendSpec, string][] = [
    ['a FLUSH with placement 0', flush(1, { placement: 0 }), 'LOC_QP_OP'],
    ['a FLUSH of an unknown placement', flush(1, { placement: UNKNOWN_PLACEMENT }), 'LOC_QP_OP'],
    ['a FLUSH of an unknown selectivity', flush(1, { selectivity: UNKNOWN_SELECTIVITY }), 'LOC_QP_OP'],
    ['an ATOMIC WRITE of 4 bytes', atomicWrite(1, { inline: word.slice(4) }), 'LOC_LEN'],
    ['an ATOMIC WRITE of 16 bytes', { id: 1, opcode: ATOMIC_WRITE, remote: 64, ...sge(0, 16) }, 'LOC_LEN'],
    [
      'an ATOMIC WRITE with a wrong lkey',
      { id: 1, opcode: ATOMIC_WRITE, remote: 64, sges: [{ at: 0, length: 8, key: WRONG_KEY }] },
      'LOC_PROT',
    ],
  ]
  for (const [title, spec, status] of refused)
    it(`${title}: ${status}`, () => {
      const t = startScript()
      t.post(spec)
      assert.deepEqual(t.sent(), [])
      assert.deepEqual(t.completions(), [`1 ${status}`])
    })
  it('FLUSH and ATOMIC WRITE fail if max_rd_atomic is 0', () => {
    for (const request of [flush(1), atomicWrite(1)]) {
      const t = startScript({ maxRdAtomic: 0 })
      t.post(request)
      assert.deepEqual(t.sent(), [])
      assert.deepEqual(t.completions(), ['1 LOC_QP_OP'])
    }
  })
})

const remoteRegion = (t: Script) => t.node.regions.find(({ key }) => key === REMOTE_KEY)!

/** A script whose queue pair and region allow FLUSH. */
const startWithFlush = (attributes = {}) => {
  const t = startScript({ access: FLUSH_ACCESS, maxDestRdAtomic: 2, ...attributes })
  remoteRegion(t).access = FLUSH_ACCESS
  return t
}

describe('the responder: FLUSH', () => {
  it('is answered without data, also from the resource of an earlier READ', () => {
    const t = startWithFlush({ maxDestRdAtomic: 1 })
    t.request('READ_REQUEST', 0, { dmaLen: 8 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1 [8]'])
    t.request('FLUSH', 1, { dmaLen: 8 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@1 msn 2'])
  })
  it('answers when the WRITEs before it are in memory, and takes one PSN', () => {
    const t = startWithFlush()
    t.request('WRITE_ONLY', 0, { payload: 100, remote: 4096 })
    t.request('FLUSH', 1, { remote: 4096, dmaLen: 100 })
    assert.equal(t.node.memory[4096 + 99], patternOf(100)[99])
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@1 msn 2'])
    // PSN 2 is the next one; no receive WQE is posted.
    t.request('SEND_ONLY', 2, { ackReq: true })
    assert.deepEqual(t.sent(), ['RNR(12)@2 msn 2'])
  })
  it('in the middle of a WRITE is an invalid request', () => {
    const t = startWithFlush()
    t.request('WRITE_FIRST', 0, { payload: 1024, dmaLen: 1028 })
    t.request('FLUSH', 1, { dmaLen: 100 })
    assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@1 msn 0'])
  })
  it('of a region: address and length are ignored, the key is checked', () => {
    const t = startWithFlush()
    t.request('FLUSH', 0, { sel: flushSelectivity.REGION, remote: 0x7000_0000, dmaLen: 0 })
    t.request('FLUSH', 1, { sel: flushSelectivity.REGION, remote: 0x7000_0000, dmaLen: 0xffff_ffff })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1', 'READ_RESP_ONLY@1 msn 2'])
    t.request('FLUSH', 2, { sel: flushSelectivity.REGION, rkey: WRONG_KEY })
    assert.deepEqual(t.sent(), ['NAK(REMOTE_ACCESS)@2 msn 2'])
    assert.deepEqual(t.node.events, ['QP_ACCESS_ERR'])
  })
  it('of zero bytes checks neither address nor key', () => {
    const t = startWithFlush()
    t.request('FLUSH', 0, { rkey: WRONG_KEY, dmaLen: 0 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1'])
  })
  const refused: [string, PacketSpec, string, object?][] = [
    ['persistent', { plt: PERSISTENT, dmaLen: 8 }, 'INVALID_REQUEST'],
    ['global and persistent', { plt: GLOBAL | PERSISTENT, dmaLen: 8 }, 'INVALID_REQUEST'],
    ['with placement 0', { plt: 0, dmaLen: 8 }, 'INVALID_REQUEST'],
    ['with an unknown selectivity', { sel: UNKNOWN_SELECTIVITY, dmaLen: 8 }, 'INVALID_REQUEST'],
    ['of more than 2 GiB', { dmaLen: 0x8000_0001 }, 'INVALID_REQUEST'],
    ['that the queue pair does not allow', { dmaLen: 8 }, 'INVALID_REQUEST', { access: REMOTE_ACCESS }],
    ['without resources', { dmaLen: 8 }, 'INVALID_REQUEST', { maxDestRdAtomic: 0 }],
    [
      'persistent, which the queue pair allows but no region',
      { plt: PERSISTENT, dmaLen: 8 },
      'REMOTE_ACCESS',
      WITH_FLUSH_PERSISTENT,
    ],
    [
      'global and persistent, which the queue pair allows but no region',
      { plt: GLOBAL | PERSISTENT, dmaLen: 8 },
      'REMOTE_ACCESS',
      WITH_FLUSH_PERSISTENT,
    ],
    [
      'with a placement that is not specified',
      { plt: UNKNOWN_PLACEMENT, dmaLen: 8 },
      'INVALID_REQUEST',
      WITH_FLUSH_PERSISTENT,
    ],
    ['with a wrong key', { dmaLen: 8, rkey: WRONG_KEY }, 'REMOTE_ACCESS'],
    ['beyond the region', { dmaLen: 8, remote: MEMORY_BYTES - 7 }, 'REMOTE_ACCESS'],
  ]
  for (const [title, spec, code, attributes] of refused)
    it(`${title}: ${code}`, () => {
      const t = startWithFlush(attributes)
      t.request('FLUSH', 0, spec)
      assert.deepEqual(t.sent(), [`NAK(${code})@0 msn 0`])
      assert.equal(t.state, ERR)
    })
  it('of bytes in a region without the right: REMOTE_ACCESS', () => {
    const t = startWithFlush()
    remoteRegion(t).access = REMOTE_ACCESS
    t.request('FLUSH', 0, { dmaLen: 8 })
    assert.deepEqual(t.sent(), ['NAK(REMOTE_ACCESS)@0 msn 0'])
  })
  it('duplicate: answered', () => {
    const t = startWithFlush()
    t.request('FLUSH', 0, { dmaLen: 8 })
    t.request('FLUSH', 1, { dmaLen: 8 })
    t.sent()
    t.request('FLUSH', 0, { dmaLen: 8 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1'])
  })
  it('duplicate after reuse of its responder resource: dropped', () => {
    const t = startWithFlush()
    for (let psn = 0; psn < 3; psn++) {
      t.request('FLUSH', psn, { dmaLen: 8 })
      t.sent()
    }
    t.request('FLUSH', 0, { dmaLen: 8 })
    assert.deepEqual(t.sent(), [])
  })
})

describe('the responder: ATOMIC WRITE', () => {
  it('writes 8 bytes and answers', () => {
    const t = startWithFlush()
    t.request('ATOMIC_WRITE', 0, { remote: 64, payload: word })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1'])
    assert.deepEqual(t.node.memory.slice(60, 76), Uint8Array.from([0, 0, 0, 0, ...word, 0, 0, 0, 0]))
  })
  it('duplicate: answered, not written again', () => {
    const t = startWithFlush()
    t.request('ATOMIC_WRITE', 0, { remote: 64, payload: word })
    t.sent()
    t.node.memory.fill(9, 64, 72)
    t.request('ATOMIC_WRITE', 0, { remote: 64, payload: word })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1'])
    assert.equal(t.node.memory[64], 9)
  })
  it('takes effect after an earlier WRITE to the address', () => {
    const t = startWithFlush()
    t.requestRun(['WRITE_ONLY', 0, { remote: 64, payload: 8 }], ['ATOMIC_WRITE', 1, { remote: 64, payload: word }])
    t.sent()
    assert.deepEqual(t.node.memory.slice(64, 72), word)
  })
  const refused: [string, PacketSpec, string, object?][] = [
    ['unaligned', { remote: 68, payload: word }, 'INVALID_REQUEST'],
    ['of 4 bytes', { remote: 64, payload: 4 }, 'INVALID_REQUEST'],
    ['of 16 bytes', { remote: 64, payload: 16 }, 'INVALID_REQUEST'],
    ['whose RETH has length 4', { remote: 64, payload: word, dmaLen: 4 }, 'INVALID_REQUEST'],
    ['that the queue pair does not allow', { remote: 64, payload: word }, 'INVALID_REQUEST', WITHOUT_WRITE],
    ['without resources', { remote: 64, payload: word }, 'INVALID_REQUEST', { maxDestRdAtomic: 0 }],
    ['with a wrong key', { remote: 64, payload: word, rkey: WRONG_KEY }, 'REMOTE_ACCESS'],
    ['beyond the region', { remote: MEMORY_BYTES, payload: word }, 'REMOTE_ACCESS'],
  ]
  for (const [title, spec, code, attributes] of refused)
    it(`${title}: ${code}, and nothing is written`, () => {
      const t = startWithFlush(attributes)
      t.request('ATOMIC_WRITE', 0, spec)
      assert.deepEqual(t.sent(), [`NAK(${code})@0 msn 0`])
      assert.equal(t.state, ERR)
      assert.ok(t.node.memory.every(byte => byte === 0))
    })
  it('of a wrong length: the cause has the length that is wrong', () => {
    const lengthOf = (spec: PacketSpec) => {
      const t = startWithFlush()
      t.request('ATOMIC_WRITE', 0, { remote: 64, ...spec })
      return t.node.naks.get(RQ_PSN)?.args
    }
    assert.deepEqual(lengthOf({ payload: 4, dmaLen: 8 }), { length: 4 })
    assert.deepEqual(lengthOf({ payload: word, dmaLen: 4 }), { length: 4 })
  })
  it('whose pages are unmapped: REMOTE_OPERATION', () => {
    const t = startWithFlush()
    t.node.faults.write = Errno.EFAULT
    t.request('ATOMIC_WRITE', 0, { remote: 64, payload: word })
    assert.deepEqual(t.sent(), ['NAK(REMOTE_OPERATION)@0 msn 0'])
  })
})

it('a refused FLUSH completes with the status of its NAK', () => {
  const t = startScript()
  t.post(flush(1, { rkey: REMOTE_KEY ^ 1 }))
  t.sent()
  t.response('ACKNOWLEDGE', 0, { syndrome: NAK.ACCESS })
  assert.deepEqual(t.completions(), ['1 REM_ACCESS'])
})
