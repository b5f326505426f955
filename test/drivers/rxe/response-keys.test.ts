/*
 * Local keys of READs and atomics are checked when the response is placed, as in adapters and rxe: the request is sent
 * in any case, the peer's memory changes, and the peer's refusal comes first.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Path } from '../../../src/phy/memory.ts'
import { WcOpcode, WcStatus } from '../../../src/spec/work.ts'
import { join, machine, makeCq, makeQp, program, Qps, query, register } from './machine.ts'
import { completions, sgeOf } from './pair.ts'
import { postSend, Wr } from './provider.ts'

const { LOC_PROT_ERR, REM_ACCESS_ERR, WR_FLUSH_ERR } = WcStatus.values

const setUp = (path: Path) => {
  const m = machine(2, '', path)
  const [a, b] = [program(m, 0), program(m, 1)]
  const cq = makeCq(a)
  const from = makeQp(a, cq)
  const to = makeQp(b, makeCq(b))
  join(from, to)
  return { m, cq, from, to, here: register(a, 0x1_0000), readOnly: register(a, 4096, 0), there: register(b, 0x1_0000) }
}

const operations = [
  { name: 'READ', opcode: Wr.READ, length: 100, completion: WcOpcode.values.RDMA_READ, more: {} },
  { name: 'READ of many packets', opcode: Wr.READ, length: 40_000, completion: WcOpcode.values.RDMA_READ, more: {} },
  {
    name: 'FETCH_AND_ADD',
    opcode: Wr.FAA,
    length: 8,
    completion: WcOpcode.values.FETCH_ADD,
    more: { compareAdd: 5n },
  },
  {
    name: 'CMP_AND_SWP',
    opcode: Wr.CAS,
    length: 8,
    completion: WcOpcode.values.COMP_SWAP,
    more: { compareAdd: 0n, swap: 5n },
  },
]

for (const path of ['packets', 'direct'] as const)
  describe(path, () => {
    for (const { name, opcode, length, completion, more } of operations) {
      const isAtomic = length === 8
      it(`${name} with a wrong local key: the peer executes it, and then the request fails`, () => {
        for (const wrong of ['key', 'right', 'second element'] as const) {
          const { m, cq, from, to, here, readOnly, there } = setUp(path)
          const good = sgeOf(here, 0, length)
          const bad = wrong === 'right' ? sgeOf(readOnly, 0, length) : { ...good, lkey: here.lkey ^ 0x100 }
          const half = length / 2
          const sges =
            wrong === 'second element'
              ? [
                  { ...good, length: half },
                  { ...bad, length: half },
                ]
              : [bad]
          const target = { remote: there.address, rkey: there.rkey }
          postSend(from.send, { opcode, id: 1n, sges, ...target, ...more })
          postSend(from.send, {
            opcode: Wr.WRITE,
            id: 2n,
            sges: [sgeOf(here, 0, 8)],
            ...target,
            remote: there.address + 8,
          })
          m.settle()
          assert.deepEqual(
            completions(cq).map(({ id, status, opcode: completed }) => [id, status, completed]),
            [
              [1, LOC_PROT_ERR, completion],
              [2, WR_FLUSH_ERR, WcOpcode.values.RDMA_WRITE],
            ],
          )
          const word = new DataView(there.bytes.buffer).getBigUint64(0, true)
          assert.equal(word, isAtomic ? 5n : 0n, "the result of the peer's operation")
          assert.deepEqual([query(from).state, query(to).state], [Qps.ERR, Qps.RTS])
          assert.ok(readOnly.bytes.every(byte => byte === 0))
        }
      })
      it(`${name} with a wrong local and a wrong remote key is refused by the peer`, () => {
        const { m, cq, from, to, here, there } = setUp(path)
        const sges = [{ ...sgeOf(here, 0, length), lkey: 0x9999 }]
        postSend(from.send, { opcode, id: 1n, sges, remote: there.address, rkey: there.rkey ^ 0x100, ...more })
        m.settle()
        assert.deepEqual(
          completions(cq).map(({ status }) => status),
          [REM_ACCESS_ERR],
        )
        assert.equal(query(to).state, Qps.ERR)
      })
    }
  })
