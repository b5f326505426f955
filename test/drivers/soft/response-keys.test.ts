/*
 * The local key of a READ or atomic is checked when the response arrives, as in HCAs and Linux's rxe.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { WcOpcode, WcStatus } from '../../../src/spec/work.ts'
import type { Path } from '../../../src/transport/phy/memory/port.ts'
import { connectQps, machine, makeCq, makeQp, program, Qps, query, register } from '../rxe/machine.ts'
import { completions, sgeOf } from '../rxe/pair.ts'
import { postSend, Wr } from '../rxe/provider.ts'

const { LOC_PROT_ERR, REM_ACCESS_ERR, WR_FLUSH_ERR } = WcStatus.values

const setUp = (path: Path) => {
  const m = machine(2, { path })
  const [a, b] = [program(m, 0), program(m, 1)]
  const cq = makeCq(a)
  const requester = makeQp(a, cq)
  const responder = makeQp(b, makeCq(b))
  connectQps(requester, responder)
  const [local, readOnly, remote] = [register(a, 0x1_0000), register(a, 4096, 0), register(b, 0x1_0000)]
  return { m, cq, requester, responder, local, readOnly, remote }
}

/** A key that no region has. */
const unknownKey = (key: number): number => key ^ 0x100

const operations = [
  { name: 'READ', opcode: Wr.READ, length: 100, completion: WcOpcode.values.RDMA_READ, operands: {} },
  {
    name: 'READ of many packets',
    opcode: Wr.READ,
    length: 40_000,
    completion: WcOpcode.values.RDMA_READ,
    operands: {},
  },
  {
    name: 'FETCH_AND_ADD',
    opcode: Wr.FAA,
    length: 8,
    completion: WcOpcode.values.FETCH_ADD,
    operands: { compareAdd: 5n },
  },
  {
    name: 'CMP_AND_SWP',
    opcode: Wr.CAS,
    length: 8,
    completion: WcOpcode.values.COMP_SWAP,
    operands: { compareAdd: 0n, swap: 5n },
  },
]

for (const path of ['packets', 'direct'] as const)
  describe(`path '${path}'`, () => {
    for (const { name, opcode, length, completion, operands } of operations) {
      const isAtomic = opcode !== Wr.READ
      it(`${name} with a wrong local key is executed by the peer, and then fails`, () => {
        for (const wrong of ['key', 'access right', 'second element'] as const) {
          const { m, cq, requester, responder, local, readOnly, remote } = setUp(path)
          const good = sgeOf(local, 0, length)
          const bad = wrong === 'access right' ? sgeOf(readOnly, 0, length) : { ...good, lkey: unknownKey(local.lkey) }
          const half = length / 2
          const sges =
            wrong === 'second element'
              ? [
                  { ...good, length: half },
                  { ...bad, length: half },
                ]
              : [bad]
          const target = { remote: remote.address, rkey: remote.rkey }
          postSend(requester.send, { opcode, id: 1n, sges, ...target, ...operands })
          postSend(requester.send, {
            opcode: Wr.WRITE,
            id: 2n,
            sges: [sgeOf(local, 0, 8)],
            ...target,
            remote: remote.address + 8,
          })
          m.settle()
          assert.deepEqual(
            completions(cq).map(wc => [wc.id, wc.status, wc.opcode]),
            [
              [1, LOC_PROT_ERR, completion],
              [2, WR_FLUSH_ERR, WcOpcode.values.RDMA_WRITE],
            ],
          )
          const word = new DataView(remote.bytes.buffer).getBigUint64(0, true)
          assert.equal(word, isAtomic ? 5n : 0n, 'the peer has executed the atomic; a READ changes nothing')
          assert.deepEqual([query(requester).state, query(responder).state], [Qps.ERR, Qps.RTS])
          assert.ok(readOnly.bytes.every(byte => byte === 0))
        }
      })
      it(`${name} with a wrong local and a wrong remote key is refused by the peer`, () => {
        const { m, cq, requester, responder, local, remote } = setUp(path)
        const sges = [{ ...sgeOf(local, 0, length), lkey: unknownKey(local.lkey) }]
        const target = { remote: remote.address, rkey: unknownKey(remote.rkey) }
        postSend(requester.send, { opcode, id: 1n, sges, ...target, ...operands })
        m.settle()
        assert.deepEqual(
          completions(cq).map(({ status }) => status),
          [REM_ACCESS_ERR],
        )
        assert.equal(query(responder).state, Qps.ERR)
      })
    }
  })
