/*
 * Failures reported by two soft devices: each report with its numbers, the peer's own cause, and the last failure of
 * each queue pair.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addFailureHandler } from '../../../../src/core/failures.ts'
import { invokeNow } from '../../../../src/core/index.ts'
import { type Failure, failureJson, failureText, isNote } from '../../../../src/spec/check/failures.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { AccessFlags } from '../../../../src/spec/enums.ts'
import { join, modify, Qps, register, toInit } from '../machine.ts'
import { end, pair, sgeOf } from '../pair.ts'
import { pollAll, postReceive, postSend, Wr } from '../provider.ts'

const hex = (value: number | bigint): string => `0x${value.toString(16)}`
const { LOCAL_WRITE } = AccessFlags.values

/** A pair of queue pairs. `all`: its failure records; `wrong`: their texts, without notes. */
const recordedPair = (...args: Parameters<typeof pair>) => {
  const p = pair(...args)
  const all: Failure[] = []
  addFailureHandler(p.m.core, failure => all.push(failure))
  const wrong = (): string[] => all.filter(failure => !isNote(failure)).map(failureText)
  const tickUntilFailed = (): void => {
    p.m.settle()
    for (let left = 100; left > 0 && wrong().length === 0; left--) p.m.tick()
  }
  return { ...p, all, wrong, tickUntilFailed }
}

describe('a WRITE that the peer refuses', () => {
  it('names the key that was deregistered, on both sides, in the completion and by queue pair', () => {
    const { m, a, b, all, wrong } = recordedPair()
    invokeNow(b.p.context, Mr, 'destroy', b.mr.handle, {}, b.p.caller)
    const remote = b.mr.address
    postSend(a.qp.send, { opcode: Wr.WRITE, id: 100n, sges: [sgeOf(a.mr, 0, 64)], remote, rkey: b.mr.rkey })
    m.settle()
    const [qa, qb, key] = [a.qp.qpn, b.qp.qpn, b.mr.rkey].map(hex)
    const why = `rkey ${key} was deregistered (it was [${hex(remote)}, ${hex(remote + 65536)}))`
    assert.deepEqual(
      wrong().sort(),
      [
        `QP ${qa} WRITE wr_id 100: REM_ACCESS_ERR: peer QP ${qb}: ${why}`,
        `QP ${qb} event QP_ACCESS_ERR: ${why}`,
      ].sort(),
    )
    assert.equal(pollAll(a.cq.ring)[0].vendor, 0x502)
    const [mine, theirs] = m.devices.map(({ state }, side) => {
      const row = state.qpns.rowOf([a, b][side].qp.qpn)
      return state.failures.last(row)
    })
    assert.deepEqual([mine?.cause.id, theirs?.what], ['RKEY_DEREGISTERED', 'event'])
    const json = failureJson(all.find(({ what }) => what === 'send') as Failure)
    assert.deepEqual(
      [json.status, json.opcode, json.wrId, json.vendorErr, json.device, json.args.start],
      ['REM_ACCESS_ERR', 'WRITE', '100', 0x502, 'rxe0', hex(remote)],
    )
  })
  it('reports the requested range and the registered one', () => {
    const { m, a, b, wrong } = recordedPair()
    const remote = b.mr.address + 65530
    postSend(a.qp.send, { opcode: Wr.WRITE, id: 1n, sges: [sgeOf(a.mr, 0, 64)], remote, rkey: b.mr.rkey })
    m.settle()
    const ranges = `[${hex(remote)}, ${hex(remote + 64)}) is outside [${hex(b.mr.address)}, ${hex(b.mr.address + 65536)})`
    assert.ok(wrong()[0].endsWith(`rkey ${hex(b.mr.rkey)}: ${ranges}`), wrong()[0])
  })
  it('reports the right that the region lacks', () => {
    const { m, a, b, wrong } = recordedPair()
    const mine = register(b.p, 4096, LOCAL_WRITE)
    postSend(a.qp.send, { opcode: Wr.WRITE, sges: [sgeOf(a.mr, 0, 64)], remote: mine.address, rkey: mine.lkey })
    m.settle()
    assert.ok(wrong()[0].endsWith(`rkey ${hex(mine.lkey)} has no REMOTE_WRITE`), wrong()[0])
  })
})

it('a receive buffer that is too short is reported by both ends', () => {
  const { m, a, b, wrong } = recordedPair()
  postReceive(b.qp.receive, 7n, [sgeOf(b.mr, 0, 10)])
  postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 64)] })
  m.settle()
  const why = 'the receive buffer of 10 bytes is too short for a message of 64 bytes or more'
  assert.deepEqual(wrong(), [
    `QP ${hex(b.qp.qpn)} receive wr_id 7: LOC_LEN_ERR: ${why}`,
    `QP ${hex(a.qp.qpn)} SEND wr_id 2: REM_INV_REQ_ERR: peer QP ${hex(b.qp.qpn)}: ${why}`,
  ])
})

describe('a peer that does not answer', () => {
  const failedFor = (prepare: (p: ReturnType<typeof recordedPair>) => void, fault = ''): string => {
    const p = recordedPair([0, 1], fault)
    prepare(p)
    postSend(p.a.qp.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(p.a.mr, 0, 8)] })
    p.tickUntilFailed()
    const [first] = p.wrong()
    return first.replace(/^.*?: /, '')
  }
  it('does not exist, or is in a state that accepts nothing', () => {
    const missing = failedFor(({ b }) => invokeNow(b.p.context, RcQp, 'destroy', b.qp.handle, {}, b.p.caller))
    assert.match(missing, /^RETRY_EXC_ERR: no answer: sent 8 times, retry_cnt is 7; there is no QP 0x\w+ at 127.0.0.2$/)
    const reset = failedFor(({ b }) => modify(b.qp, { state: Qps.RESET }))
    assert.match(reset, /retry_cnt is 7; peer QP 0x\w+ at 127.0.0.2 is in RESET$/)
    const init = failedFor(({ b }) => {
      modify(b.qp, { state: Qps.RESET })
      modify(b.qp, toInit())
    })
    assert.match(init, /; peer QP 0x\w+ at 127.0.0.2 is in INIT$/)
  })
  it('has no receive posted', () => {
    const text = failedFor(({ a, b }) => {
      for (const one of [a, b]) modify(one.qp, { state: Qps.RESET })
      join(a.qp, b.qp, {}, { rnrRetry: 3 })
    })
    assert.match(
      text,
      /^RNR_RETRY_EXC_ERR: the peer has no receive posted: RNR NAK 4 times, rnr_retry is 3; peer QP 0x\w+ at 127.0.0.2 is in RTS$/,
    )
  })
})

describe('queues', () => {
  it('that overrun end their queue pairs, and the report names the queue', () => {
    const { m, wrong } = recordedPair()
    const [a, b] = [end(m, 0, 1), end(m, 1, 31)]
    join(a.qp, b.qp)
    for (let i = 0; i < 4; i++) {
      const remote = b.mr.address
      postSend(a.qp.send, { opcode: Wr.WRITE, id: 1n, sges: [sgeOf(a.mr, 0, 8)], remote, rkey: b.mr.rkey, flags: 2 })
    }
    m.settle()
    const full = `CQ ${a.cq.handle} of ${a.cq.cqe} is full`
    assert.deepEqual(wrong(), [
      `event CQ_ERR: ${full}; a completion was lost`,
      `QP ${hex(a.qp.qpn)} event QP_FATAL: ${full}`,
    ])
  })
  it('that are flushed name the failure', () => {
    const { m, a, all } = recordedPair()
    postReceive(a.qp.receive, 7n, [sgeOf(a.mr, 0, 10)])
    postSend(a.qp.send, { opcode: Wr.SEND, id: 1n, sges: [{ address: a.mr.address, length: 8, lkey: 5 }] })
    postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 8)] })
    m.settle()
    const failed = `QP ${hex(a.qp.qpn)} SEND wr_id 1: LOC_PROT_ERR: lkey 0x5 is unknown: it was never registered, or was deregistered long ago`
    const why = `the queue pair moved to ERR after an error (${failed})`
    assert.deepEqual(all.map(failureText), [
      failed,
      `QP ${hex(a.qp.qpn)} 1 send request flushed: WR_FLUSH_ERR: ${why}`,
      `QP ${hex(a.qp.qpn)} 1 receive request flushed: WR_FLUSH_ERR: ${why}`,
    ])
    modify(a.qp, { state: Qps.RESET })
    modify(a.qp, { state: Qps.ERR })
    postSend(a.qp.send, { opcode: Wr.SEND, id: 3n })
    m.settle()
    assert.match(
      failureText(all.at(-1) as Failure),
      /1 send request flushed: .* the program has moved the queue pair to ERR$/,
    )
  })
})
