/*
 * Receives of an SRQ name memory of the SRQ's protection domain, not of the queue pair's (IBA 10.2.9).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { invokeNow } from '../../../../src/core/index.ts'
import { Pd } from '../../../../src/spec/classes/pd.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import type { Path } from '../../../../src/transport/phy/memory/port.ts'
import {
  assertNothingLeft,
  connectQps,
  machine,
  makeCq,
  makeQp,
  program,
  Qps,
  query,
  type Region,
  register,
} from '../../rxe/machine.ts'
import { completions, pattern, sgeOf } from '../../rxe/pair.ts'
import { postReceive, postSend, Wr } from '../../rxe/provider.ts'
import { makeQpWithSrq, makeSrq } from '../../rxe/srq-and-xrc.ts'

const { SUCCESS, LOC_PROT_ERR, LOC_ACCESS_ERR, REM_OP_ERR, REM_ACCESS_ERR } = WcStatus.values

/** `srqMr` is in the protection domain of the SRQ, `qpMr` in that of `receiver`. */
const setUp = (path: Path) => {
  const m = machine(2, { path })
  const [a, b] = [program(m, 0), program(m, 1)]
  const [cqA, cqB] = [makeCq(a), makeCq(b)]
  const otherPd = { ...b, pd: invokeNow(b.context, Pd, 'create', 0, {}, b.caller).object! }
  const srq = makeSrq(otherPd)
  const sender = makeQp(a, cqA)
  const receiver = makeQpWithSrq(b, cqB, srq)
  connectQps(sender, receiver)
  const mr = register(a, 8192)
  pattern(mr.bytes, 3)
  return { m, a, b, cqA, cqB, srq, sender, receiver, mr, srqMr: register(otherPd, 8192), qpMr: register(b, 8192) }
}

for (const path of ['packets', 'direct'] as const)
  describe(`path '${path}'`, () => {
    const oneElement = (mr: Region) => [sgeOf(mr, 0, 4000)]
    const twoElements = (mr: Region) => [sgeOf(mr, 0, 1500), sgeOf(mr, 1500, 2000)]
    for (const [buffer, length, sgesOf] of [
      ['one element', 100, oneElement],
      ['two elements and several packets', 3000, twoElements],
    ] as const) {
      it(`memory of the SRQ's domain is written: ${buffer}`, () => {
        const { m, a, b, cqA, cqB, srq, sender, mr, srqMr } = setUp(path)
        assert.ok(postReceive(srq.ring, 5n, sgesOf(srqMr)))
        assert.ok(postSend(sender.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(mr, 0, length)] }))
        m.settle()
        assert.deepEqual(
          [completions(cqA), completions(cqB)].map(([{ id, status }]) => [id, status]),
          [
            [1, SUCCESS],
            [5, SUCCESS],
          ],
        )
        assert.deepEqual(srqMr.bytes.subarray(0, length), mr.bytes.subarray(0, length))
        a.close()
        b.close()
        assertNothingLeft(m, [a, b])
      })
      it(`memory of the queue pair's domain is not written: ${buffer}`, () => {
        const { m, cqA, cqB, srq, sender, mr, qpMr } = setUp(path)
        assert.ok(postReceive(srq.ring, 5n, sgesOf(qpMr)))
        assert.ok(postSend(sender.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(mr, 0, length)] }))
        m.settle()
        assert.equal(completions(cqA)[0].status, REM_OP_ERR)
        assert.equal(completions(cqB)[0].status, LOC_PROT_ERR)
        assert.ok(qpMr.bytes.every(byte => byte === 0))
      })
    }
    it("a WRITE is checked against the queue pair's domain", () => {
      for (const [key, status] of [
        ['qpMr', SUCCESS],
        ['srqMr', REM_ACCESS_ERR],
      ] as const) {
        const t = setUp(path)
        const { m, cqA, cqB, srq, sender, receiver, mr } = t
        postReceive(srq.ring, 5n, [sgeOf(t.srqMr, 4096, 100)])
        const target = { remote: t[key].address, rkey: t[key].rkey }
        postSend(sender.send, { opcode: Wr.WRITE_IMM, id: 1n, sges: [sgeOf(mr, 0, 50)], imm: 7, ...target })
        m.settle()
        assert.equal(completions(cqA)[0].status, status)
        assert.equal(completions(cqB)[0].status, status === SUCCESS ? SUCCESS : LOC_ACCESS_ERR)
        assert.equal(query(receiver).state, status === SUCCESS ? Qps.RTS : Qps.ERR)
      }
    })
  })
