/*
 * Queues that firmware commands make: data over RC, UD, DC and receive memory pools, states, queries, events, what is
 * refused, and what a hostile program may do.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CompletionKind, syndromes } from '../../../../src/spec/drivers/mlx5-queues.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import { completionsOf } from '../../machine.ts'
import { ATOMIC_FA, ipv4, machine, program, QKEY, RDMA_READ, RDMA_WRITE, SEND, SEND_IMM } from '../machine.ts'

const { REQUEST, RECEIVE, RECEIVE_IMM } = CompletionKind
const KEY = 0x1234n

const pair = (fault = '', options = {}) => {
  const m = machine(2, fault)
  const [a, b] = [program(m, 0, { commands: true, ...options }), program(m, 1, { commands: true, ...options })]
  const [x, y] = [a.queuePair('rc'), b.queuePair('rc')]
  x.connect(y, 1)
  y.connect(x, 0)
  for (let i = 0; i < a.bytes.length; i++) a.bytes[i] = (i * 7 + (i >> 8)) & 0xff
  return { m, a, b, x, y, remote: (offset: number) => ({ address: b.address + BigInt(offset), rkey: b.region.rkey }) }
}

for (const [name, fault, entryBytes] of [
  ['memory', '', 64],
  ['packets', 'drop=0', 128],
] as const)
  describe(`queues of commands, over ${name}`, () => {
    it('carry all requests of RC', () => {
      const { m, a, b, x, y, remote } = pair(fault, { entryBytes })
      for (let i = 0; i < 4; i++) y.receive(b.element(200_000 + i * 1024, 1024))
      x.post({ opcode: SEND, data: [a.element(0, 1000)] })
      x.post({ opcode: SEND_IMM, data: [a.element(1000, 10)], imm: 0x0102_0304 })
      x.post({ opcode: RDMA_WRITE, data: [a.element(0, 50_001)], remote: remote(100) })
      x.post({ opcode: RDMA_READ, data: [a.element(100_000, 20_000)], remote: remote(100) })
      x.post({ opcode: SEND, inline: a.bytes.slice(7, 807) })
      const sent = completionsOf(m, a, 5)
      assert.deepEqual(
        sent.map(({ kind, uidx, qpn }) => [kind, uidx, qpn]),
        sent.map(() => [REQUEST, x.uidx, x.qpn]),
      )
      assert.deepEqual(
        completionsOf(m, b, 3).map(({ kind, bytes, uidx, imm }) => [kind, bytes, uidx, kind === RECEIVE_IMM ? imm : 0]),
        [
          [RECEIVE, 1000, y.uidx, 0],
          [RECEIVE_IMM, 10, y.uidx, 0x0102_0304],
          [RECEIVE, 800, y.uidx, 0],
        ],
      )
      assert.deepEqual(b.bytes.subarray(100, 50_101), a.bytes.subarray(0, 50_001))
      assert.deepEqual(a.bytes.subarray(100_000, 120_000), a.bytes.subarray(0, 20_000))
      x.post({
        opcode: ATOMIC_FA,
        data: [a.element(0, 8)],
        remote: remote(70_000),
        atomic: { swapAdd: 2n, compare: 0n },
      })
      assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
    })

    for (const order of ['LIST', 'RING'] as const)
      it(`take receives from a pool that is a ${order.toLowerCase()}`, () => {
        const m = machine(2, fault)
        const [a, b] = [program(m, 0, { commands: true }), program(m, 1, { commands: true })]
        const pool = b.sharedReceives(16, 1, order)
        const pairs = [0, 1].map(() => {
          const [x, y] = [a.queuePair('rc'), b.queuePair('rc', { srq: pool.object })]
          x.connect(y, 1)
          y.connect(x, 0)
          return { x, y }
        })
        const counters: number[] = []
        for (let i = 0; i < 40; i++) {
          const index = pool.receive(b.element(i * 64, 64))
          const { x, y } = pairs[i & 1]!
          x.post({ opcode: SEND_IMM, data: [a.element(i, 8)], imm: i })
          const [got] = completionsOf(m, b, 1)
          assert.deepEqual([got!.imm, got!.qpn], [i, y.qpn])
          counters.push(got!.counter)
          pool.free(index)
        }
        // the count of a ring, the index in a list
        assert.deepEqual(counters.slice(0, 15), [...counters.keys()].slice(0, 15))
        assert.equal(counters[39], order === 'RING' ? 39 : counters[39]! & 15)
      })

    it('carry datagrams', () => {
      const m = machine(2, fault)
      const [a, b] = [program(m, 0, { commands: true }), program(m, 1, { commands: true })]
      const [x, y] = [a.queuePair('ud'), b.queuePair('ud')]
      for (const qp of [x, y]) qp.activate()
      a.handleOf(1)
      y.receive(b.element(0, 128))
      x.post({ opcode: SEND, destination: { gid: ipv4(2), qpn: y.qpn, qkey: QKEY }, data: [a.element(0, 64)] })
      assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
      assert.equal(completionsOf(m, b, 1)[0]!.bytes, 104)
    })

    it('begin anew after 2RST_QP, although the doorbell record has its old counter', () => {
      const { m, a, x, y, remote } = pair(fault)
      for (const count of [3, 2, 1]) {
        m.runUntil(() => true) // the device has looked at the record
        const blocks = Array.from({ length: count }, () =>
          x.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: remote(0) }),
        )
        assert.equal(blocks[0], 0)
        assert.deepEqual(
          completionsOf(m, a, count).map(({ syndrome, counter }) => [syndrome, counter]),
          blocks.map(block => [0, block]),
        )
        for (const qp of [x, y]) {
          qp.fail()
          qp.reset()
        }
        x.connect(y, 1)
        y.connect(x, 0)
      }
      m.runUntil(() => true)
      assert.deepEqual(a.poll(), [])
    })

    it('are initiators and targets of DC, with streams', () => {
      const m = machine(2, fault)
      const [a, b] = [program(m, 0, { commands: true }), program(m, 1, { commands: true })]
      const pool = b.sharedReceives(16, 1, 'RING')
      const targets = [b.target(pool.object, KEY), b.target(pool.object, KEY)]
      const dci = a.queuePair('dci', { streams: { logStreams: 2, logErroredStreams: 2 } })
      dci.start()
      pool.receive(b.element(0, 64))
      const post = (to: number, stream: number, rkey: number) => {
        const remote = { address: b.address + 4096n, rkey }
        const { destination } = targets[to]!
        dci.post({ opcode: RDMA_WRITE, destination, data: [a.element(0, 8)], remote, stream })
      }
      dci.post({ opcode: SEND, destination: targets[1]!.destination, data: [a.element(0, 8)] })
      post(0, 1, b.region.rkey)
      post(1, 2, 77)
      post(0, 1, b.region.rkey)
      const [failed, flushed] = [syndromes[WcStatus.values.REM_ACCESS_ERR], syndromes[WcStatus.values.WR_FLUSH_ERR]]
      assert.deepEqual(
        completionsOf(m, a, 4).map(({ syndrome }) => syndrome),
        [0, 0, failed, 0],
      )
      const [got] = completionsOf(m, b, 1)
      assert.deepEqual([got!.kind, got!.qpn, got!.uidx], [RECEIVE, targets[1]!.qpn, targets[1]!.uidx])
      post(0, 2, b.region.rkey)
      assert.equal(completionsOf(m, a, 1)[0]!.syndrome, flushed)
      a.firmware!.modify(dci.object, 'RTS2RTS_QP', {
        qpn: dci.qpn,
        qpc_ext: 1,
        opt_param_mask_95_32: 1n,
        qpc_data_ext: { dci_stream_channel_id: 2 },
      })
      post(0, 2, b.region.rkey)
      assert.equal(completionsOf(m, a, 1)[0]!.syndrome, 0)
    })
  })
