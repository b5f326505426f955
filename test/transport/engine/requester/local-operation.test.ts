/*
 * BIND_MW and LOCAL_INV in the send queue (IBA 10.6.7, 10.8.3.3). test/core/memory/windows.test.ts tests their effect
 * on keys.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Errno } from '../../../../src/spec/errno.ts'
import { WcOpcode } from '../../../../src/spec/work.ts'
import { Access } from '../../../../src/transport/engine/types.ts'
import { createRandom, linkNodes } from '../link.ts'
import { createNode, LOCAL_KEY, type SendSpec, type TestNode } from '../node.ts'
import { ERR, FENCE, NAK, READ, SEND, SIGNALED, SQD, sge, T14, WRITE, wr } from '../requests.ts'
import { startScript } from '../script.ts'

const { BIND_MW, LOCAL_INV } = wr
const REMOTE_READ_WRITE = Access.REMOTE_READ | Access.REMOTE_WRITE
const KEY = 0x0900_0011
/**
 * Binds window KEY to 512 bytes at offset 4096; `imm` is its new key. A bind has the length in `compare`, and the
 * rights with the lkey of the region in `swap`.
 */
const bind = (id: number, fields: Partial<SendSpec> = {}): SendSpec => ({
  id,
  opcode: BIND_MW,
  rkey: KEY,
  imm: 0x12,
  remote: 4096,
  compare: 512n,
  swap: (BigInt(REMOTE_READ_WRITE) << 32n) | BigInt(LOCAL_KEY),
  ...fields,
})
const invalidate = (id: number, key: number, fields: Partial<SendSpec> = {}): SendSpec => ({
  id,
  opcode: LOCAL_INV,
  imm: key,
  ...fields,
})
const write = (id: number): SendSpec => ({ id, opcode: WRITE, ...sge(0, 4) })
/** A script whose engine can invalidate `key`. */
const startWithKey = (key: number) => {
  const t = startScript()
  t.node.regions.push({ key, pd: 1, offset: 0, length: 64, access: REMOTE_READ_WRITE })
  return t
}

describe('a local request', () => {
  it('alone completes immediately, without a packet', () => {
    const t = startScript()
    t.post(bind(1))
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.deepEqual([t.node.cqes[0].opcode, t.node.cqes[0].bytes], [WcOpcode.values.BIND_MW, 0])
    assert.deepEqual(t.node.events, [])
    assert.deepEqual(t.node.binds, [
      { qpn: 0x11, window: KEY, key: 0x12, at: 4096, length: 512, lkey: LOCAL_KEY, access: REMOTE_READ_WRITE },
    ])
  })
  it('LOCAL_INV completes with its own opcode', () => {
    const t = startWithKey(KEY)
    t.post(invalidate(1, KEY))
    t.sent()
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.equal(t.node.cqes[0].opcode, WcOpcode.values.LOCAL_INV)
    assert.deepEqual(t.node.invalidated, [KEY])
  })
  it('unsignaled takes effect without a completion', () => {
    const t = startScript()
    t.post(bind(1, { flags: 0 }))
    t.sent()
    assert.deepEqual(t.completions(), [])
    assert.equal(t.node.binds.length, 1)
  })
  it('is executed when earlier requests have been sent, and completes after them', () => {
    const t = startScript()
    t.post(write(1), bind(2), write(3), bind(4))
    assert.deepEqual(t.sent(), ['WRITE_ONLY@0 ackreq reth +0:4 [4]', 'WRITE_ONLY@1 ackreq reth +0:4 [4]'])
    assert.equal(t.node.binds.length, 2)
    assert.deepEqual(t.completions(), [])
    t.response('ACKNOWLEDGE', 0)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
    t.response('ACKNOWLEDGE', 1)
    assert.deepEqual(t.completions(), ['3 ok', '4 ok'])
  })
  it('between two WRITEs completes with the ACK of the second WRITE', () => {
    const t = startScript()
    t.post(write(1), bind(2), bind(3), write(4))
    t.sent()
    t.response('ACKNOWLEDGE', 1)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok', '3 ok', '4 ok'])
  })
  it("after a READ completes when the READ's response has arrived", () => {
    const t = startScript()
    t.post({ id: 1, opcode: READ, ...sge(0, 4) }, bind(2))
    t.sent()
    t.response('READ_RESP_ONLY', 0, { payload: 4 })
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  })
  it('among thousands in a row: all are executed, and a later WRITE is sent', () => {
    const t = startScript()
    t.post(...Array.from({ length: 5000 }, (_, i) => bind(i)), write(5000))
    assert.deepEqual(t.sent(), ['WRITE_ONLY@0 ackreq reth +0:4 [4]'])
    assert.equal(t.completions().length, 5000)
  })
})

describe('after a loss', () => {
  it('a local request is skipped, not repeated', () => {
    const t = startScript({ timeout: 14, retryCnt: 3 })
    t.post(write(1), bind(2), write(3))
    t.sent()
    t.sleep(T14 + 1)
    assert.deepEqual(t.sent(), ['WRITE_ONLY@0 ackreq reth +0:4 [4]', 'WRITE_ONLY@1 ackreq reth +0:4 [4]'])
    assert.equal(t.node.binds.length, 1)
    t.response('ACKNOWLEDGE', 1)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok', '3 ok'])
  })
  it('an ACK that overtakes the retransmission completes a local request too', () => {
    const t = startScript({ timeout: 14, retryCnt: 3 })
    t.post(write(1), bind(2), write(3))
    t.sent()
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    t.response('ACKNOWLEDGE', 0)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
    assert.deepEqual(t.sent(), ['WRITE_ONLY@1 ackreq reth +0:4 [4]'])
  })
})

describe('fences', () => {
  it('a fenced bind waits for READs, not for WRITEs', () => {
    const t = startScript()
    t.post({ id: 1, opcode: READ, ...sge(0, 4) }, bind(2, { flags: FENCE | SIGNALED }), write(3))
    assert.deepEqual(t.sent(), ['READ_REQUEST@0 ackreq reth +0:4'])
    assert.equal(t.node.binds.length, 0)
    t.response('READ_RESP_ONLY', 0, { payload: 4 })
    assert.deepEqual(t.sent(), ['WRITE_ONLY@1 ackreq reth +0:4 [4]'])
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
    t.post(bind(4, { flags: FENCE | SIGNALED }))
    t.sent()
    assert.equal(t.node.binds.length, 2)
  })
  it('a fenced LOCAL_INV waits for everything before it', () => {
    const t = startWithKey(KEY)
    t.post(write(1), invalidate(2, KEY, { flags: FENCE | SIGNALED }), write(3))
    assert.deepEqual(t.sent(), ['WRITE_ONLY@0 ackreq reth +0:4 [4]'])
    assert.deepEqual(t.node.invalidated, [])
    t.response('ACKNOWLEDGE', 0)
    assert.deepEqual(t.sent(), ['WRITE_ONLY@1 ackreq reth +0:4 [4]'])
    assert.deepEqual(t.node.invalidated, [KEY])
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  })
  it('a LOCAL_INV without a fence waits for no request', () => {
    const t = startWithKey(KEY)
    t.post(write(1), invalidate(2, KEY))
    t.sent()
    assert.deepEqual(t.node.invalidated, [KEY])
  })
})

describe('errors of local requests', () => {
  const refused: [string, SendSpec, string][] = [
    ['a refused bind', bind(2, { rkey: 0 }), 'MW_BIND'],
    ['a refused invalidation', invalidate(2, 0xbad), 'LOC_QP_OP'],
  ]
  for (const [title, spec, status] of refused)
    it(`${title}: ${status} after earlier requests, and the queue pair is in error`, () => {
      const t = startScript()
      t.post(write(1), spec, write(3))
      assert.deepEqual(t.sent(), ['WRITE_ONLY@0 ackreq reth +0:4 [4]'])
      assert.deepEqual(t.completions(), [])
      t.response('ACKNOWLEDGE', 0)
      assert.deepEqual(t.completions(), ['1 ok', `2 ${status}`, '3 FLUSH'])
      assert.equal(t.state, ERR)
    })
})

it('an executed local request is flushed if the queue pair fails before its completion', () => {
  const t = startScript()
  t.post({ id: 1, opcode: SEND, ...sge(0, 4) }, bind(2), write(3))
  t.sent()
  t.response('ACKNOWLEDGE', 0, { syndrome: NAK.INVALID })
  assert.deepEqual(t.completions(), ['1 REM_INV_REQ', '2 FLUSH', '3 FLUSH'])
})

it('a local request is not executed if writing the data received before it fails', () => {
  const t = startWithKey(KEY)
  t.request('WRITE_FIRST', 0, { payload: 1024, dmaLen: 2048 })
  t.node.faults.write = Errno.EFAULT
  t.post(invalidate(1, KEY), bind(2))
  t.sent()
  assert.deepEqual(t.completions(), ['1 FLUSH', '2 FLUSH'])
  assert.deepEqual([t.node.invalidated, t.node.binds], [[], []])
  assert.equal(t.state, ERR)
})

it('over a bad link, local requests are executed once and in order, and all requests complete in order', () => {
  const random = createRandom(7)
  const nodes: [TestNode, TestNode] = [createNode(), createNode()]
  const wire = linkNodes(nodes, { drop: 0.05, duplicate: 0.05, reorder: 0.1 }, random)
  const COUNT = 60
  const qpnOf = (connection: number): number => 100 + connection
  /** Request `id` of the connection can invalidate this key + `id`. */
  const firstKeyOf = (connection: number): number => 0x5000 + COUNT * connection
  const posted: SendSpec[][] = []
  for (let i = 0; i < 12; i++) {
    nodes.forEach((node, side) => {
      const row = node.createQp(qpnOf(i))
      node.connect(row, { destQpn: qpnOf(i), pathMtu: 256, timeout: 8, retryCnt: 7, sqPsn: i, rqPsn: i })
      wire.bind(side, qpnOf(i), row)
    })
    const specs = Array.from({ length: COUNT }, (_, id): SendSpec => {
      const flags = random() < 0.3 ? FENCE | SIGNALED : SIGNALED
      const kind = random()
      if (kind < 0.3) return bind(id, { flags, imm: id })
      if (kind < 0.5) return { id, opcode: READ, flags, ...sge(0, Math.floor(random() * 1000)) }
      if (kind < 0.6) return invalidate(id, firstKeyOf(i) + id, { flags })
      return { id, opcode: WRITE, flags, ...sge(0, Math.floor(random() * 1000)) }
    })
    for (const { opcode, imm } of specs)
      if (opcode === LOCAL_INV)
        nodes[0].regions.push({ key: imm ?? 0, pd: 1, offset: 0, length: 8, access: REMOTE_READ_WRITE })
    posted.push(specs)
    nodes[0].post(i, ...specs)
  }
  while (wire.step()) {}
  posted.forEach((specs, i) => {
    const done = nodes[0].cqes.filter(c => c.qpn === qpnOf(i))
    assert.deepEqual(
      done.map(c => [c.id, c.status]),
      specs.map(({ id }) => [id, 0]),
    )
    const binds = specs.filter(({ opcode }) => opcode === BIND_MW).map(({ id }) => id)
    assert.deepEqual(
      nodes[0].binds.filter(b => b.qpn === qpnOf(i)).map(b => b.key),
      binds,
    )
    const keys = specs.filter(({ opcode }) => opcode === LOCAL_INV).map(({ imm }) => imm)
    const isOfConnection = (key: number): boolean => key >= firstKeyOf(i) && key < firstKeyOf(i + 1)
    assert.deepEqual(nodes[0].invalidated.filter(isOfConnection), keys)
  })
})

it('SQD drains after a fenced local request', () => {
  const t = startWithKey(KEY)
  t.post(write(1), invalidate(2, KEY, { flags: FENCE | SIGNALED }))
  t.sent()
  t.node.engine.modify(t.row, SQD, {})
  t.response('ACKNOWLEDGE', 0)
  assert.deepEqual(t.node.events, [])
  t.sent()
  assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  assert.deepEqual(t.node.events, ['SQ_DRAINED'])
})
