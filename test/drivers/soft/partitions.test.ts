/*
 * Partition keys of ports (IBA 10.9): packets have the sender's, and only ends of one partition, of which one is a full
 * member, exchange messages; also without packets.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { addTap, forEachPacket } from '../../../src/transport/phy/tap.ts'
import { bthPkey } from '../../../src/transport/wire/bth.ts'
import { connectQps, machine, makeCq, makeQp, program, register } from '../rxe/machine.ts'
import { completions, sgeOf } from '../rxe/pair.ts'
import { postReceive, postSend } from '../rxe/provider.ts'

const { SUCCESS, RETRY_EXC_ERR, WR_FLUSH_ERR } = WcStatus.values
const { SEND, RDMA_WRITE, RDMA_READ } = WrOpcode.values
const BYTES = 10_000

/** The first device sends, writes and reads `BYTES`; `pkeys`: of both ports. */
const exchange = (path: 'direct' | 'packets', pkeys: readonly [number, number]) => {
  const m = machine(2, { path })
  const ends = [0, 1].map(i => {
    m.devices[i].device.ports[0].pkeys[0] = pkeys[i]
    const p = program(m, i)
    const cq = makeCq(p)
    return { cq, qp: makeQp(p, cq), mr: register(p, BYTES) }
  })
  const [a, b] = ends
  connectQps(a.qp, b.qp)
  m.settle()
  const seen = ends.map(() => new Set<number>())
  if (path === 'packets')
    m.ports.forEach((port, i) => {
      addTap(port, run => {
        if (run.direction === 'sent') forEachPacket(run, offset => seen[i].add(bthPkey(run.arena.view, offset)))
      })
    })
  postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, BYTES)])
  postSend(a.qp.send, { opcode: SEND, sges: [sgeOf(a.mr, 0, BYTES)] })
  for (const opcode of [RDMA_WRITE, RDMA_READ])
    postSend(a.qp.send, { opcode, sges: [sgeOf(a.mr, 0, BYTES)], remote: b.mr.address, rkey: b.mr.rkey })
  m.settle()
  return { m, a, b, seen: seen.map(keys => [...keys]) }
}

for (const path of ['direct', 'packets'] as const) {
  for (const pkeys of [
    [0x9234, 0x9234],
    [0x1234, 0x9234],
    [0x9234, 0x1234],
  ] as const)
    it(`${path}: ports with P_Keys 0x${pkeys[0].toString(16)} and 0x${pkeys[1].toString(16)} exchange messages`, () => {
      const { m, a, b, seen } = exchange(path, pkeys)
      assert.deepEqual(
        [...completions(b.cq), ...completions(a.cq)].map(({ status }) => status),
        [SUCCESS, SUCCESS, SUCCESS, SUCCESS],
      )
      if (path === 'packets') assert.deepEqual(seen, [[pkeys[0]], [pkeys[1]]])
      for (const { device } of m.devices) assert.equal(device.ports[0].attributes.badPkeyCntr, 0)
    })
  for (const [name, pkeys] of [
    ['two limited members', [0x1234, 0x1234]],
    ['two partitions', [0xffff, 0x9234]],
    ['no P_Key at one end', [0xffff, 0]],
  ] as const)
    it(`${path}: ${name} exchange nothing, and the receiver counts the packets`, () => {
      const { m, a, b } = exchange(path, pkeys)
      assert.ok(m.devices[1].device.ports[0].attributes.badPkeyCntr > 0)
      while (m.tick());
      assert.deepEqual(completions(b.cq), [])
      assert.deepEqual(
        completions(a.cq).map(({ status }) => status),
        [RETRY_EXC_ERR, WR_FLUSH_ERR, WR_FLUSH_ERR],
      )
    })
}
